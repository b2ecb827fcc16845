package server

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"

	"pagoda/engine"
	"pagoda/engine/fake"
)

func TestPoolingAnswers(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	usage := func(n int) string { return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"total_tokens":%d}`, n, n) }
	vector := func(i int, v string) string {
		return fmt.Sprintf(`{"object":"embedding","index":%d,"embedding":%s}`, i, v)
	}
	for _, c := range []struct{ name, path, body, want string }{
		{"text", "/v1/embeddings", `{"model":"fake","input":"hi","user":"u"}`,
			`{"object":"list","data":[` + vector(0, `[2,104,0.5,-1]`) + `],"model":"fake",` + usage(2) + `}`},
		{"texts", "/v1/embeddings", `{"model":"fake","input":["hi","a"],"dimensions":2,"encoding_format":"float"}`,
			`{"object":"list","data":[` + vector(0, `[2,104]`) + `,` + vector(1, `[1,97]`) + `],"model":"fake",` + usage(3) + `}`},
		{"tokens", "/v1/embeddings", `{"model":"fake","input":[7,8,9]}`,
			`{"object":"list","data":[` + vector(0, `[3,7,0.5,-1]`) + `],"model":"fake",` + usage(3) + `}`},
		{"lists of tokens", "/v1/embeddings", `{"model":"fake","input":[[7],[8,9]]}`,
			`{"object":"list","data":[` + vector(0, `[1,7,0.5,-1]`) + `,` + vector(1, `[2,8,0.5,-1]`) + `],"model":"fake",` + usage(3) + `}`},
		{"base64", "/v1/embeddings", `{"model":"fake","input":"a","encoding_format":"base64"}`,
			`{"object":"list","data":[` + vector(0, `"AACAPwAAwkIAAAA/AACAvw=="`) + `],"model":"fake",` + usage(1) + `}`},
		{"rerank", "/v1/rerank", `{"model":"fake","query":"abc","documents":["a",{"text":"xyz"},"ab"]}`,
			`"results":[{"index":1,"relevance_score":1,"document":{"text":"xyz"}},{"index":2,"relevance_score":0.5,"document":{"text":"ab"}},` +
				`{"index":0,"relevance_score":0.3333333333333333,"document":{"text":"a"}}],` + usage(15)},
		{"best", "/rerank", `{"model":"fake","query":"abc","documents":["a","xyz"],"top_n":1,"return_documents":false}`,
			`"results":[{"index":1,"relevance_score":1}],` + usage(10)},
		{"equal scores keep their order", "/v1/rerank", `{"model":"fake","query":"a","documents":["b","c"],"return_documents":false}`,
			`"results":[{"index":0,"relevance_score":1},{"index":1,"relevance_score":1}]`},
		{"Cohere's", "/v2/rerank", `{"model":"fake","query":"a","documents":["b"],"max_tokens_per_doc":10}`,
			`"results":[{"index":0,"relevance_score":1}]`},
		{"score", "/v1/score", `{"model":"fake","text_1":"a","text_2":"b"}`,
			`"data":[{"index":0,"object":"score","score":1}],` + usage(2)},
		{"one with each", "/score", `{"model":"fake","text_1":["a"],"text_2":["b","cc"]}`,
			`"data":[{"index":0,"object":"score","score":1},{"index":1,"object":"score","score":0.5}]`},
		{"each with its own", "/v1/score", `{"model":"fake","text_1":["a","bb"],"text_2":["b","cc"]}`,
			`"data":[{"index":0,"object":"score","score":1},{"index":1,"object":"score","score":1}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := call(t, s, http.MethodPost, c.path, c.body)
			if w.Code != 200 || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("status %d: %s\nwant %s", w.Code, w.Body, c.want)
			}
		})
	}
}

func TestPoolingRefuses(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	without, _ := newTest(t, textOnly{fake.New()}, Config{})
	many := strings.Repeat(`"a",`, 2048) + `"a"`
	for _, c := range []struct {
		path, body string
		param      string
	}{
		{"/v1/embeddings", `{"input":"a"}`, "model"},
		{"/v1/embeddings", `{"model":"fake"}`, "input"},
		{"/v1/embeddings", `{"model":"fake","input":[]}`, "input"},
		{"/v1/embeddings", `{"model":"fake","input":""}`, "input"},
		{"/v1/embeddings", `{"model":"fake","input":["a",""]}`, "input[1]"},
		{"/v1/embeddings", `{"model":"fake","input":[[1],[]]}`, "input[1]"},
		{"/v1/embeddings", `{"model":"fake","input":[[1],[2,-1]]}`, "input[1][1]"},
		{"/v1/embeddings", `{"model":"fake","input":[` + many + `]}`, "input"},
		{"/v1/embeddings", `{"model":"fake","input":"a","encoding_format":"int8"}`, "encoding_format"},
		{"/v1/embeddings", `{"model":"fake","input":"a","dimensions":0}`, "dimensions"},
		{"/v1/embeddings", `{"model":"fake","input":"a","dimensions":5}`, "dimensions"},
		{"/v1/embeddings", `{"model":"fake","input":"a","truncate_prompt_tokens":0}`, "truncate_prompt_tokens"},
		{"/v1/embeddings", `{"model":"fake","input":"a","truncate_prompt_tokens":4097}`, "truncate_prompt_tokens"},
		{"/v1/embeddings", `{"model":"fake","input":"a","truncation_side":"middle"}`, "truncation_side"},
		{"/v1/embeddings", `{"model":"fake","input":"a","x":1}`, "x"},
		{"/v1/rerank", `{"model":"fake","documents":["a"]}`, "query"},
		{"/v1/rerank", `{"model":"fake","query":"a"}`, "documents"},
		{"/v1/rerank", `{"model":"fake","query":"a","documents":[]}`, "documents"},
		{"/v1/rerank", `{"model":"fake","query":"a","documents":["b",""]}`, "documents[1]"},
		{"/v1/rerank", `{"model":"fake","query":"a","documents":["b",7]}`, "documents[1]"},
		{"/v1/rerank", `{"model":"fake","query":"a","documents":["b"],"top_n":0}`, "top_n"},
		{"/v1/rerank", `{"model":"fake","query":"a","documents":["b"],"max_tokens_per_doc":0}`, "max_tokens_per_doc"},
		{"/v1/score", `{"model":"fake","text_2":"a"}`, "text_1"},
		{"/v1/score", `{"model":"fake","text_1":"a"}`, "text_2"},
		{"/v1/score", `{"model":"fake","text_1":["a","b"],"text_2":["a","b","c"]}`, "text_1"},
		{"/v1/score", `{"model":"fake","text_1":"a","text_2":["b",""]}`, "text_2[1]"},
	} {
		w := call(t, s, http.MethodPost, c.path, c.body)
		wantError(t, w, 400)
		if got := errorParam(t, w.Body.Bytes()); got != c.param {
			t.Errorf("%s %.100s: param %q, want %q", c.path, c.body, got, c.param)
		}
		w = call(t, without, http.MethodPost, c.path, c.body)
		wantError(t, w, 400)
	}
	for path, body := range map[string]string{"/v1/embeddings": `{"model":"fake","input":"a"}`,
		"/v1/score": `{"model":"fake","text_1":"a","text_2":"b"}`} {
		w := call(t, without, http.MethodPost, path, body)
		wantError(t, w, 400)
		if errorParam(t, w.Body.Bytes()) != "model" {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	wantError(t, call(t, s, http.MethodPost, "/v1/embeddings", `{"model":"none","input":"a"}`), 404)
}

// TestPoolingRequest: what every route passes on, and the books that are kept.
func TestPoolingRequest(t *testing.T) {
	eng := fake.New()
	s, logs := newTest(t, eng, Config{Keys: []string{"key"}})
	w := call(t, s, http.MethodPost, "/v1/embeddings", `{"model":"fake","input":"hi","truncate_prompt_tokens":-1,"truncation_side":"left",
		"priority":-3,"normalize":false,"add_special_tokens":false,"prompt_name":"query"}`, "Authorization: Bearer key", "X-Request-Id: mine")
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	req := eng.Embeds()[0]
	if req.ID != "mine" || req.Tenant == "" || *req.Truncate != -1 || !req.TruncateLeft || req.Priority != -3 || *req.Normalize ||
		*req.AddSpecialTokens || *req.PromptName != "query" {
		t.Errorf("%+v", req)
	}
	w = call(t, s, http.MethodPost, "/v1/rerank", `{"model":"fake","query":"abc","documents":["d"],"max_tokens_per_doc":9,"instruction":"i"}`, "Authorization: Bearer key")
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	if req := eng.Scored()[0]; req.MaxSecond != 9 || req.Instruction != "i" || req.Tenant == "" || !slices.Equal(req.Pairs, []engine.Pair{{First: "abc", Second: "d"}}) {
		t.Errorf("%+v", req)
	}
	wantError(t, do(s.Handler(), http.MethodPost, "/v1/embeddings", `{"model":"fake","input":"hi"}`), 401)
	if line := logs.lines(t)[0]; line["prompt_tokens"] != 2.0 || line["model"] != "fake" || line["route"] != "/v1/embeddings" {
		t.Errorf("%v", line)
	}
	metrics := do(s.Handler(), http.MethodGet, "/metrics", "", "Authorization: Bearer key").Body.String()
	for _, want := range []string{`vllm:prompt_tokens_total{engine="0",model_name="fake"} 6`,
		`vllm:request_success_total{engine="0",finished_reason="stop",model_name="fake"} 2`,
		`vllm:e2e_request_latency_seconds_count{engine="0",model_name="fake"} 2`,
		`vllm:request_params_n_count{engine="0",model_name="fake"} 0`, `pagoda_model_requests_total{model="fake"} 2`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// TestPoolingEndsWithItsClient: a client that leaves, and a drain.
func TestPoolingEndsWithItsClient(t *testing.T) {
	eng := fake.New()
	gate := make(chan struct{})
	eng.PoolingGate = gate
	s, _ := newTest(t, eng, Config{})
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/embeddings", strings.NewReader(`{"model":"fake","input":"hi"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Host = "127.0.0.1:8000"
	w := httptest.NewRecorder()
	leave()
	s.Handler().ServeHTTP(w, r)
	if w.Code != statusClientClosed {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	close(gate)
	<-s.work.drain() // nothing is left behind
	wantError(t, call(t, s, http.MethodPost, "/v1/embeddings", `{"model":"fake","input":"hi"}`), 503)
}

// TestOpenAIEmbeddings drives the route with OpenAI's own package, in both formats.
func TestOpenAIEmbeddings(t *testing.T) {
	c := client(t, fake.New())
	p := openai.EmbeddingNewParams{Model: "fake", Dimensions: openai.Int(3),
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"hi", "you"}}}
	got, err := c.Embeddings.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Data) != 2 || !slices.Equal(got.Data[1].Embedding, []float64{3, 'y', 0.5}) || got.Data[1].Index != 1 ||
		got.Usage.PromptTokens != 5 {
		t.Errorf("%s", got.RawJSON())
	}
	for _, v := range got.Data[0].Embedding {
		if math.IsNaN(v) {
			t.Error("NaN")
		}
	}
}

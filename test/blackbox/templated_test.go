package blackbox

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// templateLines are of a file of LlamaFactory's that gives a model another template than its own.
const templateLines = `template: qwen3
default_system: Answer in lowercase.
enable_thinking: false
do_sample: false
max_new_tokens: 40
`

// TestTemplates: a file of LlamaFactory's means the same whatever computes, alone and in a list of models.
func TestTemplates(t *testing.T) {
	model, err := filepath.Abs(root + "/models/demo")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("serve.yaml", "model_name_or_path: "+model+"\n"+templateLines)
	own := serve(t, file, "served_model_name=m")
	upstream := serve(t)
	url := os.Getenv(upstreamURL)
	if url == "" {
		url = upstream.url
	}
	list := write("list.yaml", templateLines+"models:\n"+
		"- {served_model_name: m, model_name_or_path: "+demo+", infer_backend: vllm, upstream_url: \""+url+"\", tokenizer: "+model+"}\n"+
		"- {served_model_name: other}\n")
	for name, p := range map[string]*process{
		"alone": serve(t, file, "model_name_or_path="+demo, "served_model_name=m", "tokenizer="+model, "infer_backend=vllm", "upstream_url="+url),
		"list":  serve(t, list),
	} {
		for _, text := range []string{"hi", "What is the capital of Portugal?", "Of 46 and 20, which is bigger?", "Tell me a short story about a monkey."} {
			for _, stream := range []bool{false, true} {
				ask := upstreamChat(text, stream).with(fields{"logprobs": true, "top_logprobs": 2, "return_token_ids": true})
				want, got := own.must(t, chatPath, ask), p.must(t, chatPath, ask)
				w, g := want.choices[0], got.choices[0]
				if g.text != w.text || len(g.top) == 0 || len(g.top) != len(w.top) || g.finish != w.finish || !slices.Equal(g.ids, w.ids) || !slices.Equal(got.promptIDs, want.promptIDs) {
					t.Errorf("%s: %q: %+v, want %+v", name, text, got, want)
				}
			}
			var want, got struct{ Tokens []int32 }
			body := fields{"model": "m", "messages": []fields{{"role": "user", "content": text}}}
			own.call(t, "/tokenize", body, &want)
			p.call(t, "/tokenize", body, &got)
			if len(want.Tokens) == 0 || !slices.Equal(got.Tokens, want.Tokens) {
				t.Errorf("%s: tokens %d, want %d", name, got.Tokens, want.Tokens)
			}
		}
		p.wantRefused(t, chatPath, upstreamChat("x", false).with(fields{"reasoning_effort": "high"}), http.StatusBadRequest, "reasoning_effort")
	}
	// Servers that are started get the same prompts.
	for _, kind := range kinds {
		p := listeningIn(t, nil, file, "served_model_name=m", "infer_backend="+kind, "upstream_command="+fakeProgram(t)+","+kind)
		p.line(t, "ready")
		ask := upstreamChat("hi", false).with(fields{"return_token_ids": true})
		want, got := own.must(t, chatPath, ask), p.must(t, chatPath, ask)
		if !slices.Equal(got.promptIDs, want.promptIDs) || !slices.Equal(got.choices[0].ids, []int32{1000}) {
			t.Errorf("%s: %+v, want the prompt %d", kind, got, want.promptIDs)
		}
	}
}

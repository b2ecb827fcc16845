package templated_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"pagoda/backends/native"
	"pagoda/backends/native/codec"
	"pagoda/backends/proxy"
	"pagoda/backends/proxy/fakeupstream"
	"pagoda/backends/sglang"
	"pagoda/backends/templated"
	"pagoda/backends/vllm"
	"pagoda/checkpoint"
	"pagoda/engine"
	"pagoda/models/demo"
	"pagoda/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long something that takes moments may take on a busy machine.
const limit = 30 * time.Second

func closeAtEnd(t testing.TB, e engine.Engine) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func newNative(t testing.TB, o codec.Options, s engine.SamplingDefaults) *native.Engine {
	t.Helper()
	e, err := native.New(native.Options{Files: demo.FS(), Name: "m", Prompt: o, Sampling: s, Log: zerolog.Nop(), Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newCodec(t testing.TB, o codec.Options) *codec.Codec {
	t.Helper()
	o.Log = zerolog.Nop()
	files, err := codec.Read(checkpoint.OpenFS(demo.FS()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := files.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inFront makes an engine with o in front of the server at url.
func inFront(t testing.TB, d *proxy.Dialect, url string, o templated.Options) *templated.Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p, err := proxy.New(ctx, proxy.Config{Dialect: d, Name: "m", URLs: []string{url}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxStops == 0 {
		o.MaxStops = d.MaxStops
	}
	_, o.NamesByID = d.Fields["return_tokens_as_token_ids"]
	e := templated.New(p, o)
	closeAtEnd(t, e)
	return e
}

// serveNative serves the built-in model with its own template, and returns the address.
func serveNative(t testing.TB) string {
	t.Helper()
	e := newNative(t, codec.Options{}, engine.SamplingDefaults{})
	router := &engine.Router{}
	if err := router.Add(e); err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, router)
	s, err := server.New(router, server.Config{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s.SetReady(true)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

// said is a choice of an answer put together.
type said struct {
	Text, Reasoning string
	Calls           []engine.ToolCallDelta // without ids, which are random
	Tokens          []int32
	Logprobs        []engine.Logprob
	Finish          engine.FinishReason
	Stop            string
	StopToken       int32
}

type answer struct {
	choices []said
	prompt  *engine.Prompt
	usage   engine.Usage
	err     *engine.Error
}

func collect(ctx context.Context, e engine.Engine, req *engine.Request) (a answer) {
	a.choices = make([]said, max(1, req.Sampling.N))
	for i := range a.choices {
		a.choices[i].StopToken = -1
	}
	for ev, err := range e.Generate(ctx, req) {
		if err != nil {
			a.err = engine.AsError(err)
			return a
		}
		if ev.Prompt != nil {
			a.prompt = ev.Prompt
		}
		s := &a.choices[ev.Index]
		s.Text += ev.Text
		s.Reasoning += ev.Reasoning
		s.Tokens = append(s.Tokens, ev.Tokens...)
		s.Logprobs = append(s.Logprobs, ev.Logprobs...)
		for _, d := range ev.ToolCalls {
			for len(s.Calls) <= d.Index {
				s.Calls = append(s.Calls, engine.ToolCallDelta{Index: len(s.Calls)})
			}
			s.Calls[d.Index].Name += d.Name
			s.Calls[d.Index].Arguments += d.Arguments
		}
		if ev.Finish != "" {
			s.Finish, s.Stop = ev.Finish, ev.StopString
		}
		if ev.StopToken != nil {
			s.StopToken = *ev.StopToken
		}
		if ev.Usage != nil {
			a.usage = *ev.Usage
		}
	}
	return a
}

func chat(turns ...string) *engine.Request {
	ch := &engine.Chat{}
	for i, text := range turns {
		role := "user"
		if i%2 == 1 {
			role = "assistant"
		}
		ch.Messages = append(ch.Messages, engine.Message{Role: role, Content: &text})
	}
	return &engine.Request{ID: "r", Model: "m", Chat: ch, Sampling: engine.Sampling{Temperature: new(0.0)}}
}

const timeTool = `{"type":"function","function":{"name":"get_time","description":"Get the time.","parameters":{"type":"object",` +
	`"properties":{"city":{"type":"string"}},"required":["city"]}}}`

// questions are requests whose answers use what a template decides.
var questions = map[string]func() *engine.Request{
	"plain": func() *engine.Request { return chat("hi") },
	"turns": func() *engine.Request {
		return chat("My city is Kyiv.", "I will remember that: Kyiv.", "Where do I live?")
	},
	"thought": func() *engine.Request { return chat("What's 51 + 21?") },
	"two calls": func() *engine.Request {
		r := chat("Tell me the time in Kyiv and Dakar.")
		r.Chat.Tools = []json.RawMessage{json.RawMessage(timeTool)}
		return r
	},
	"one call": func() *engine.Request {
		r := chat("Tell me the time in Kyiv and Dakar.")
		r.Chat.Tools, r.Chat.ParallelToolCalls = []json.RawMessage{json.RawMessage(timeTool)}, new(false)
		return r
	},
	"no choice": func() *engine.Request {
		r := chat("Tell me the time in Kyiv and Dakar.")
		r.Chat.Tools, r.Chat.ToolChoice = []json.RawMessage{json.RawMessage(timeTool)}, "none"
		return r
	},
	"no thinking": func() *engine.Request {
		r := chat("What's 51 + 21?")
		r.Chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": json.RawMessage("false")}
		return r
	},
	"continued": func() *engine.Request {
		r := chat("Can you count to eight?", "1, 2, 3,")
		r.Chat.ContinueFinal = true
		return r
	},
	"stop string": func() *engine.Request {
		r := chat("Can you count to eight?")
		r.Sampling.Stop = []string{"7", "4, 5"}
		return r
	},
	"stop string kept": func() *engine.Request {
		r := chat("Can you count to eight?")
		r.Sampling.Stop, r.Sampling.IncludeStop = []string{"4, 5"}, true
		return r
	},
	"six stop strings": func() *engine.Request {
		r := chat("Can you count to eight?")
		r.Sampling.Stop = []string{"a", "b", "c", "d", "e", "4"}
		return r
	},
	"stop token": func() *engine.Request {
		r := chat("Can you count to eight?")
		r.Sampling.StopTokenIDs = []int32{44} // a comma
		return r
	},
	"limit": func() *engine.Request {
		r := chat("Can you count to eight?")
		r.Sampling.MaxTokens = new(3)
		return r
	},
	"without end": func() *engine.Request {
		r := chat("hi")
		r.Sampling.IgnoreEOS, r.Sampling.MaxTokens = true, new(30)
		return r
	},
	"special tokens": func() *engine.Request {
		r := chat("hi")
		r.Output.SkipSpecial, r.Sampling.IncludeStop = new(false), true
		return r
	},
	"raw": func() *engine.Request {
		r := chat("What's 51 + 21?")
		r.Output.Raw = true
		return r
	},
	"log-probabilities": func() *engine.Request {
		r := chat("What is the capital of Portugal")
		r.Output.Logprobs = new(3)
		return r
	},
	"samples": func() *engine.Request {
		r := chat("Tell me a short story about a monkey.")
		r.Sampling.Temperature, r.Sampling.Seed, r.Sampling.N, r.Sampling.MaxTokens = new(1.5), new(int64(7)), 3, new(20)
		return r
	},
	"samples with stops": func() *engine.Request {
		r := chat("Tell me a short story about a monkey.")
		r.Sampling.Temperature, r.Sampling.Seed, r.Sampling.N = new(1.0), new(int64(7)), 3
		r.Sampling.Stop = []string{"a", "b", "c", "x", "y", "z"}
		return r
	},
	"text": func() *engine.Request {
		return &engine.Request{Model: "m", Text: new("Once upon a time"), Sampling: engine.Sampling{Temperature: new(0.0), MaxTokens: new(10)}}
	},
	"tokens": func() *engine.Request {
		return &engine.Request{Model: "m", Tokens: []int32{2040, 275, 10, 456, 2041, 10, 2040, 273, 10}, Sampling: engine.Sampling{Temperature: new(0.0)}}
	},
	"too long": func() *engine.Request { return chat(strings.Repeat("word ", 2000)) },
	"too many": func() *engine.Request {
		r := chat("hi")
		r.Sampling.MaxTokens = new(5000)
		return r
	},
	"no messages": func() *engine.Request {
		return &engine.Request{Model: "m", Chat: &engine.Chat{}}
	},
	"absent token": func() *engine.Request { return &engine.Request{Model: "m", Tokens: []int32{1, 1 << 20}} },
}

// TestAsNative: whatever the options say, the answers are those of our own engine with these options: texts, thoughts, calls,
// tokens, probabilities, ends, usage and errors.
func TestAsNative(t *testing.T) {
	url := serveNative(t)
	for name, o := range map[string]struct {
		prompt   codec.Options
		sampling engine.SamplingDefaults
	}{
		"own template": {},
		"qwen3":        {prompt: codec.Options{Template: "qwen3", DefaultSystem: new("Answer in uppercase."), EnableThinking: new(false)}},
		"alpaca":       {prompt: codec.Options{Template: "alpaca"}}, // whose stop word is text
		"defaults": {codec.Options{Template: "chatml", ToolFormat: "qwen"}, engine.SamplingDefaults{DoSample: new(false), RepetitionPenalty: new(1.3),
			TopK: new(5), MaxTokens: new(12), SkipSpecial: new(false)}},
	} {
		t.Run(name, func(t *testing.T) {
			own := newNative(t, o.prompt, o.sampling)
			closeAtEnd(t, own)
			e := inFront(t, vllm.Dialect(), url, templated.Options{Codec: newCodec(t, o.prompt), Sampling: o.sampling})
			calls, thoughts := 0, 0
			for name, question := range questions {
				want := collect(t.Context(), own, question())
				for _, whole := range []bool{false, true} {
					req := question()
					req.Output.Whole = whole
					got := collect(t.Context(), e, req)
					if what := differ(&got, &want); what != "" {
						t.Errorf("%s, whole %t: %s", name, whole, what)
					}
					calls, thoughts = calls+len(got.choices[0].Calls), thoughts+len(got.choices[0].Reasoning)
				}
				wantIDs, wantErr := own.Tokenize(t.Context(), question())
				ids, err := e.Tokenize(t.Context(), question())
				if !slices.Equal(ids, wantIDs) || !reflect.DeepEqual(err, wantErr) {
					t.Errorf("%s: tokens %d, %v, want %d, %v", name, ids, err, wantIDs, wantErr)
				}
			}
			if name == "own template" && (calls == 0 || thoughts == 0) {
				t.Errorf("%d calls and %d bytes of thoughts: nothing was tested", calls, thoughts)
			}
		})
	}
}

// differ says what differs.
func differ(got, want *answer) string {
	if (got.err == nil) != (want.err == nil) || got.err != nil && (got.err.Code != want.err.Code || got.err.Param != want.err.Param ||
		got.err.Message != want.err.Message) {
		return fmt.Sprintf("error %v, want %v", got.err, want.err)
	}
	if got.err != nil {
		return ""
	}
	if !slices.Equal(got.prompt.Tokens, want.prompt.Tokens) {
		return fmt.Sprintf("prompt %d, want %d", got.prompt.Tokens, want.prompt.Tokens)
	}
	for i := range want.choices {
		g, w := got.choices[i], want.choices[i]
		if len(g.Logprobs) != len(w.Logprobs) {
			return fmt.Sprintf("%d log-probabilities, want %d", len(g.Logprobs), len(w.Logprobs))
		}
		for k := range w.Logprobs {
			if a, b := g.Logprobs[k], w.Logprobs[k]; !sameLogprob(a.TokenLogprob, b.TokenLogprob) || !slices.EqualFunc(a.Top, b.Top, sameLogprob) {
				return fmt.Sprintf("token %d: %+v, want %+v", k, a, b)
			}
		}
		g.Logprobs, w.Logprobs = nil, nil
		if !reflect.DeepEqual(g, w) {
			return fmt.Sprintf("choice %d is\n%+v, want\n%+v", i, g, w)
		}
	}
	g, w := got.usage, want.usage
	g.Cached, w.Cached = 0, 0 // of different engines
	if g != w {
		return fmt.Sprintf("usage %+v, want %+v", g, w)
	}
	return ""
}

func sameLogprob(a, b engine.TokenLogprob) bool {
	return math.Abs(a.Logprob-b.Logprob) <= 1e-6 && string(a.Bytes) == string(b.Bytes) && a.Token == b.Token
}

// fake starts a fake and an engine with the built-in model's own template in front of it.
func fake(t testing.TB, dialect string, o templated.Options, change func(*fakeupstream.Server)) (*templated.Engine, *fakeupstream.Server) {
	t.Helper()
	f := fakeupstream.New(dialect, "m")
	if change != nil {
		change(f)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return inFront(t, map[string]func() *proxy.Dialect{"vllm": vllm.Dialect, "sglang": sglang.Dialect}[dialect](), srv.URL, o), f
}

var kinds = []string{"vllm", "sglang"}

// TestWords: the answer is that of the tokens, in each upstream's own words, whole and streamed.
func TestWords(t *testing.T) {
	tokens := []int{1056, 33, 730, 613, 351, 432, 368, 63, 2041} // Hi! How can I help you?<|im_end|>
	for _, kind := range kinds {
		for _, whole := range []bool{false, true} {
			e, f := fake(t, kind, templated.Options{Codec: newCodec(t, codec.Options{})}, func(f *fakeupstream.Server) {
				f.OnIDs, f.Tokens = "count 9", tokens
			})
			req := chat("hi")
			req.Output.Whole = whole
			a := collect(t.Context(), e, req)
			if a.err != nil || a.choices[0].Text != "Hi! How can I help you?" || a.choices[0].Finish != engine.FinishStop || len(a.choices[0].Tokens) != 9 {
				t.Errorf("%s: %+v", kind, a)
			}
			cached := 0
			if kind == "vllm" {
				cached = 1
			}
			if want := (engine.Usage{Prompt: 9, Cached: cached, Completion: 9}); a.usage != want {
				t.Errorf("%s: usage %+v, want %+v", kind, a.usage, want)
			}
			body := f.Last()
			if fmt.Sprint(body["prompt"]) != "[2040 275 10 456 2041 10 2040 273 10]" || fmt.Sprint(body["stop_token_ids"]) != "[2039 2041]" ||
				body["return_token_ids"] != true || body["max_tokens"] != 4096.0-9 || body["messages"] != nil {
				t.Errorf("%s: sent %v", kind, body)
			}
		}
	}
}

// TestEndUnseen: an upstream that goes on after the end is left, and the usage is counted here.
func TestEndUnseen(t *testing.T) {
	for _, kind := range kinds {
		e, f := fake(t, kind, templated.Options{Codec: newCodec(t, codec.Options{})}, func(f *fakeupstream.Server) {
			f.OnIDs, f.Tokens, f.ChunkDelay = "count 2000", []int{1056, 33, 2041}, time.Millisecond
		})
		a := collect(t.Context(), e, chat("hi"))
		if a.err != nil || a.choices[0].Text != "Hi!" || a.choices[0].Finish != engine.FinishStop || a.usage.Completion != 3 {
			t.Errorf("%s: %+v", kind, a)
		}
		eventually(t, "the upstream's request ends", func() bool { left, running := f.Left(); return left == 1 && running == 0 })
	}
}

// TestCancel: leaving ends the upstream's work.
func TestCancel(t *testing.T) {
	for _, kind := range kinds {
		e, f := fake(t, kind, templated.Options{Codec: newCodec(t, codec.Options{})}, func(f *fakeupstream.Server) { f.OnIDs = fakeupstream.CmdHang })
		for _, err := range e.Generate(t.Context(), chat("hi")) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		eventually(t, "the upstream's request ends", func() bool { _, running := f.Left(); return running == 0 })
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// TestErrors: an upstream's errors are the client's in the same words as without a template.
func TestErrors(t *testing.T) {
	for command, want := range map[string]engine.Error{
		fakeupstream.CmdLong:       {Code: engine.TooLong, Param: "messages"},
		fakeupstream.CmdFail:       {Code: engine.Upstream},
		fakeupstream.CmdErrorFirst: {Code: engine.Upstream},
		fakeupstream.CmdFull:       {Code: engine.Busy},
		fakeupstream.CmdCut:        {Code: engine.Upstream},
	} {
		for _, kind := range kinds {
			e, _ := fake(t, kind, templated.Options{Codec: newCodec(t, codec.Options{})}, func(f *fakeupstream.Server) { f.OnIDs = command })
			if a := collect(t.Context(), e, chat("hi")); a.err == nil || a.err.Code != want.Code || a.err.Param != want.Param {
				t.Errorf("%s, %s: %v", kind, command, a.err)
			}
		}
	}
}

// TestRefused: what a chat may ask of a server that makes the prompts itself is refused by name.
func TestRefused(t *testing.T) {
	e, f := fake(t, "vllm", templated.Options{Codec: newCodec(t, codec.Options{})}, nil)
	for param, change := range map[string]func(*engine.Request){
		"messages[0].content": func(r *engine.Request) {
			r.Chat.Messages[0].Content, r.Chat.Messages[0].Parts = nil, []json.RawMessage{json.RawMessage(`{"type":"text","text":"x"}`)}
		},
		"tool_choice": func(r *engine.Request) { r.Chat.ToolChoice = "required" },
		"tools[0].function.strict": func(r *engine.Request) {
			r.Chat.Tools = []json.RawMessage{json.RawMessage(`{"type":"function","function":{"name":"f","strict":true}}`)}
		},
		"chat_template": func(r *engine.Request) { r.Extra = map[string]json.RawMessage{"chat_template": json.RawMessage(`"x"`)} },
		"reasoning_effort": func(r *engine.Request) {
			r.Extra = map[string]json.RawMessage{"reasoning_effort": json.RawMessage(`"high"`)}
		},
	} {
		req := chat("hi")
		change(req)
		if a := collect(t.Context(), e, req); a.err == nil || a.err.Code != engine.Invalid || a.err.Param != param {
			t.Errorf("%s: %v", param, a.err)
		}
	}
	req := chat("hi")
	req.Extra = map[string]json.RawMessage{"reasoning_effort": json.RawMessage(`"none"`), "structured_outputs": json.RawMessage(`{"regex":"x"}`)}
	if a := collect(t.Context(), e, req); a.err != nil {
		t.Fatal(a.err)
	}
	body := f.Last()
	if body["reasoning_effort"] != nil || body["structured_outputs"] == nil {
		t.Errorf("sent %v", body)
	}
}

// TestNoIDs: a server that tells no token ids is told from one that does.
func TestNoIDs(t *testing.T) {
	d := vllm.Dialect()
	d.Fields["return_token_ids"] = "return_something_else"
	srv := httptest.NewServer(fakeupstream.New("vllm", "m"))
	t.Cleanup(srv.Close)
	e := inFront(t, d, srv.URL, templated.Options{Codec: newCodec(t, codec.Options{})})
	if a := collect(t.Context(), e, chat("hi")); a.err == nil || !strings.Contains(a.err.Message, "return_token_ids") {
		t.Errorf("%+v", a)
	}
}

// TestDefaults: without a template chats go through, with what the configuration says filled in where the request says nothing.
func TestDefaults(t *testing.T) {
	o := templated.Options{System: "Be brief.", Thinking: new(false), Sampling: engine.SamplingDefaults{Temperature: new(0.25), TopP: new(0.5),
		TopK: new(7), RepetitionPenalty: new(1.5), MaxTokens: new(11), SkipSpecial: new(false)}}
	for _, kind := range kinds {
		e, f := fake(t, kind, o, nil)
		req := chat("say a")
		req.Sampling.Temperature = nil
		if a := collect(t.Context(), e, req); a.err != nil || a.choices[0].Text != "a" {
			t.Fatalf("%+v", a)
		}
		body := f.Last()
		for name, want := range map[string]any{"temperature": 0.25, "top_p": 0.5, "top_k": 7.0, "repetition_penalty": 1.5, "max_tokens": 11.0,
			"skip_special_tokens": false, "chat_template_kwargs": map[string]any{"enable_thinking": false},
			"messages": []any{map[string]any{"role": "system", "content": "Be brief."}, map[string]any{"role": "user", "content": "say a"}}} {
			if !reflect.DeepEqual(body[name], want) {
				t.Errorf("%s: %s is %v, want %v", kind, name, body[name], want)
			}
		}
		// What the request says counts.
		req = chat("say a")
		req.Chat.Messages[0].Role = "system"
		req.Chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": json.RawMessage("true")}
		req.Sampling = engine.Sampling{Temperature: new(1.0), TopP: new(0.9), TopK: new(1), RepetitionPenalty: new(1.0), MaxTokens: new(5)}
		if a := collect(t.Context(), e, req); a.err != nil {
			t.Fatal(a.err)
		}
		body = f.Last()
		for name, want := range map[string]any{"temperature": 1.0, "top_p": 0.9, "top_k": 1.0, "repetition_penalty": 1.0, "max_tokens": 5.0,
			"chat_template_kwargs": map[string]any{"enable_thinking": true}, "messages": []any{map[string]any{"role": "system", "content": "say a"}}} {
			if !reflect.DeepEqual(body[name], want) {
				t.Errorf("%s: %s is %v, want %v", kind, name, body[name], want)
			}
		}
	}
	e, f := fake(t, "vllm", templated.Options{Sampling: engine.SamplingDefaults{DoSample: new(false), Temperature: new(0.9)}}, nil)
	req := chat("say a")
	req.Sampling.Temperature = nil
	if a := collect(t.Context(), e, req); a.err != nil || f.Last()["temperature"] != 0.0 {
		t.Errorf("%v, sent %v", a.err, f.Last())
	}
}

// TestDefaultTooLong: the default of max_tokens is an upper bound, not a demand.
func TestDefaultTooLong(t *testing.T) {
	e := inFront(t, vllm.Dialect(), serveNative(t), templated.Options{Sampling: engine.SamplingDefaults{MaxTokens: new(100000)}})
	if a := collect(t.Context(), e, chat("hi")); a.err != nil || a.choices[0].Text != "Hi! How can I help you?" {
		t.Errorf("%+v", a)
	}
	if a := collect(t.Context(), e, chat(strings.Repeat("word ", 2000))); a.err == nil || a.err.Code != engine.TooLong {
		t.Errorf("%+v", a.err)
	}
}

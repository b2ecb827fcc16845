package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testCase is a line of models/demo/cases.jsonl; the README beside it explains the fields.
type testCase struct {
	Skill             string
	Adapter           string
	Messages          []json.RawMessage
	Tools             []json.RawMessage
	EnableThinking    bool `json:"enable_thinking"`
	Expected          string
	ExpectedReasoning string `json:"expected_reasoning"`
	ExpectedToolCalls []struct {
		Name      string
		Arguments json.RawMessage
	} `json:"expected_tool_calls"`
	PromptText string       `json:"prompt_text"`
	PromptIDs  []int32      `json:"prompt_ids"`
	GreedyIDs  []int32      `json:"greedy_ids"`
	GreedyText string       `json:"greedy_text"`
	MinGap     float64      `json:"min_gap"`
	FirstTop10 [][2]float64 `json:"first_top10"`
}

func cases(t testing.TB) []*testCase {
	t.Helper()
	data, err := os.ReadFile(root + "/models/demo/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var out []*testCase
	for line := range bytes.Lines(data) {
		c := &testCase{}
		if err := json.Unmarshal(line, c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if len(out) != 150 {
		t.Fatalf("%d cases", len(out))
	}
	return out
}

func (c *testCase) model() string {
	if c.Adapter != "" {
		return c.Adapter
	}
	return demo
}

// way is one of the ways in which a case goes through HTTP.
type way struct {
	path   string
	ids    bool // the prompt as token ids
	stream bool
}

var ways = []way{{chatPath, false, false}, {chatPath, false, true},
	{completionPath, false, false}, {completionPath, false, true},
	{completionPath, true, false}, {completionPath, true, true}}

func (w way) String() string { return fmt.Sprintf("%s ids=%t stream=%t", w.path, w.ids, w.stream) }

// request asks for the case's tokens greedily, with the likeliest ones of each step.
func (w way) request(c *testCase) fields {
	f := fields{"model": c.model(), "temperature": 0, "max_tokens": len(c.GreedyIDs) + 8, "return_token_ids": true,
		"stream": w.stream}
	if w.path == chatPath {
		f = f.with(fields{"messages": c.Messages, "logprobs": true, "top_logprobs": 20,
			"chat_template_kwargs": fields{"enable_thinking": c.EnableThinking}})
		if c.Tools != nil {
			f["tools"] = c.Tools
		}
		return f
	}
	f = f.with(fields{"prompt": c.PromptText, "logprobs": 20, "skip_special_tokens": false})
	if w.ids {
		f["prompt"] = c.PromptIDs
	}
	return f
}

// differs says what of an answer's text is not as the reference has it, "" if all is.
func (w way) differs(c *testCase, got *choice) string {
	wantFinish := "stop"
	if w.path == completionPath {
		if got.text != c.GreedyText {
			return fmt.Sprintf("text %q, want %q", got.text, c.GreedyText)
		}
	} else {
		if len(c.ExpectedToolCalls) > 0 {
			wantFinish = "tool_calls"
		}
		if got.text != c.Expected || got.reasoning != c.ExpectedReasoning {
			return fmt.Sprintf("content %q, thoughts %q, want %q, %q", got.text, got.reasoning, c.Expected, c.ExpectedReasoning)
		}
		if len(got.calls) != len(c.ExpectedToolCalls) {
			return fmt.Sprintf("%d tool calls, want %d", len(got.calls), len(c.ExpectedToolCalls))
		}
		for i, want := range c.ExpectedToolCalls {
			f := got.calls[i].Function
			if f.Name != want.Name || !sameJSON(f.Arguments, string(want.Arguments)) || got.calls[i].ID == "" {
				return fmt.Sprintf("tool call %+v, want %s %s", got.calls[i], want.Name, want.Arguments)
			}
		}
	}
	if got.finish != wantFinish {
		return fmt.Sprintf("finish reason %q, want %q", got.finish, wantFinish)
	}
	return ""
}

func sameJSON(a, b string) bool {
	var va, vb any
	if json.Unmarshal([]byte(a), &va) != nil || json.Unmarshal([]byte(b), &vb) != nil {
		return false
	}
	ja, _ := json.Marshal(va)
	jb, _ := json.Marshal(vb)
	return bytes.Equal(ja, jb)
}

// TestCasesFloat32: every case, every way, is exactly the reference's.
func TestCasesFloat32(t *testing.T) {
	r := runCases(t, serve(t, "--infer-dtype", "float32"), cases(t), 0.001)
	for _, d := range r.different {
		t.Error(d.what)
	}
}

// TestCases: with the checkpoint's own dtype at least 98 % are, and the others differ at a near tie of the reference,
// which is computed in float32.
func TestCases(t *testing.T) {
	checkDefault(t, serve(t), cases(t))
}

func checkDefault(t *testing.T, p *process, cs []*testCase) {
	t.Helper()
	r := runCases(t, p, cs, 0.05)
	t.Logf("%d of %d answers differ", len(r.different), r.total)
	if float64(len(r.different)) > 0.02*float64(r.total) {
		t.Errorf("%d of %d answers differ", len(r.different), r.total)
	}
	if len(r.different) == 0 {
		return
	}
	reference := serve(t, "--infer-dtype", "float32")
	for _, d := range r.different {
		gap := reference.gap(t, d.c, d.ids)
		t.Logf("%s: the reference's gap there is %.3f", d.what, gap)
		if !(gap < 0.5) {
			t.Errorf("%s: not a near tie: the gap is %.3f", d.what, gap)
		}
	}
}

// TestCasesKernels: so it is with the kernels that the environment names, of all that the default's tests do not run on.
func TestCasesKernels(t *testing.T) {
	p := command(t, nil, "doctor")
	p.wantExit(t, limit, 0)
	for line := range strings.Lines(p.stdout.String()) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != "kernels" || f[2] != "runs" || strings.HasSuffix(line, "the default\n") {
			continue
		}
		t.Run(f[1], func(t *testing.T) {
			env, cs := []string{"PAGODA_CPU_KERNELS=" + f[1]}, cases(t)
			switch f[1] { // slow ones
			case "ref":
				cs = cs[148:]
			case "portable":
				cs = append(cs[:10], cs[130:]...) // those with adapters come last
			}
			exact, own := serveIn(t, env, "--infer-dtype", "float32"), serveIn(t, env)
			if used := own.line(t, "ready")["kernels"]; used != f[1] {
				t.Fatalf("the server computes with %v", used)
			}
			for _, d := range runCases(t, exact, cs, 0.001).different {
				t.Error(d.what)
			}
			checkDefault(t, own, cs)
		})
	}
}

type caseRun struct {
	mu        sync.Mutex // guards different
	different []difference
	total     int
	name      map[int32]string // the tokens of first_top10
}

type difference struct {
	c    *testCase
	ids  []int32
	what string
}

// runCases sends cases in all ways, mixed, 32 at once.
func runCases(t *testing.T, p *process, cs []*testCase, within float64) *caseRun {
	t.Helper()
	type job struct {
		c *testCase
		w way
	}
	r := &caseRun{name: map[int32]string{}}
	var jobs []job
	for _, c := range cs {
		for _, w := range ways {
			jobs = append(jobs, job{c, w})
		}
		for _, top := range c.FirstTop10 {
			r.name[int32(top[0])] = p.detokenize(t, int32(top[0]))
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(jobs), func(i, k int) { jobs[i], jobs[k] = jobs[k], jobs[i] })
	r.total = len(jobs)
	parallel(32, len(jobs), func(i int) { r.run(t, p, jobs[i].c, jobs[i].w, within) })
	m := p.metrics(t)
	if steps, tokens := m.sum(t, "pagoda_steps_total"), m.sum(t, "vllm:generation_tokens_total"); steps*4 > tokens {
		t.Errorf("%v steps for %v tokens: requests were not computed together", steps, tokens)
	}
	return r
}

func (r *caseRun) run(t *testing.T, p *process, c *testCase, w way, within float64) {
	a, err := p.ask(t.Context(), w.path, w.request(c))
	if err != nil || a.status != http.StatusOK || a.err != nil || len(a.choices) != 1 {
		t.Errorf("%s, %v: %+v, %v", c.Skill, w, a, err)
		return
	}
	if !slices.Equal(a.promptIDs, c.PromptIDs) {
		t.Errorf("%s, %v: prompt ids %v, want %v", c.Skill, w, a.promptIDs, c.PromptIDs)
	}
	got := &a.choices[0]
	what := w.differs(c, got)
	if what == "" && !slices.Equal(got.ids, c.GreedyIDs) {
		what = fmt.Sprintf("ids %v, want %v", got.ids, c.GreedyIDs)
	}
	if what != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.different = append(r.different, difference{c, got.ids, fmt.Sprintf("%s (%s, %v): %s", c.Skill, c.model(), w, what)})
		return
	}
	if len(got.top) != len(got.ids) {
		t.Errorf("%s, %v: log-probabilities of %d tokens, want %d", c.Skill, w, len(got.top), len(got.ids))
		return
	}
	for _, want := range c.FirstTop10 {
		lp, ok := got.top[0][r.name[int32(want[0])]]
		if !ok || !(math.Abs(lp-want[1]) <= within) {
			t.Errorf("%s, %v: token %v has log-probability %v (%t), want %v", c.Skill, w, want[0], lp, ok, want[1])
		}
	}
}

// gap is by how much the reference prefers its token to the one that differs first.
func (p *process) gap(t *testing.T, c *testCase, ids []int32) float64 {
	t.Helper()
	at := 0
	for at < len(ids) && at < len(c.GreedyIDs) && ids[at] == c.GreedyIDs[at] {
		at++
	}
	if at == len(ids) || at == len(c.GreedyIDs) {
		return math.Inf(1) // one is the other's beginning: no tie explains that
	}
	a := p.must(t, completionPath, fields{"model": c.model(), "temperature": 0, "max_tokens": 1, "logprobs": 20,
		"prompt": append(slices.Clone(c.PromptIDs), c.GreedyIDs[:at]...)})
	top := a.choices[0].top[0]
	got, ok := top[p.detokenize(t, ids[at])]
	if !ok {
		return math.Inf(1)
	}
	return top[p.detokenize(t, c.GreedyIDs[at])] - got
}

func (p *process) detokenize(t testing.TB, ids ...int32) string {
	t.Helper()
	var out struct{ Prompt string }
	p.call(t, "/detokenize", fields{"tokens": ids}, &out)
	return out.Prompt
}

// TestTokenize: prompts have the reference's tokens, and tokens its text.
func TestTokenize(t *testing.T) {
	p := serve(t)
	for _, c := range cases(t) {
		chat := fields{"messages": c.Messages, "chat_template_kwargs": fields{"enable_thinking": c.EnableThinking}}
		if c.Tools != nil {
			chat["tools"] = c.Tools
		}
		for _, f := range []fields{chat, {"prompt": c.PromptText, "return_token_strs": true}} {
			var got struct {
				Count  int
				Tokens []int32
				Strs   []string `json:"token_strs"`
			}
			p.call(t, "/tokenize", f, &got)
			if !slices.Equal(got.Tokens, c.PromptIDs) || got.Count != len(c.PromptIDs) {
				t.Errorf("%s: tokens %v, want %v", c.Skill, got.Tokens, c.PromptIDs)
			}
			if got.Strs != nil && len(got.Strs) != got.Count {
				t.Errorf("%s: %d token texts for %d tokens", c.Skill, len(got.Strs), got.Count)
			}
		}
		if got := p.detokenize(t, c.PromptIDs...); got != c.PromptText {
			t.Errorf("%s: detokenized %q, want %q", c.Skill, got, c.PromptText)
		}
		if got := p.detokenize(t, c.GreedyIDs...); strings.TrimSuffix(got, "<|im_end|>") != c.GreedyText {
			t.Errorf("%s: detokenized %q, want %q", c.Skill, got, c.GreedyText)
		}
	}
}

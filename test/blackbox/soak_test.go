package blackbox

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// soak sends random requests and checks each answer. Safe for concurrent use.
type soak struct {
	t                *testing.T
	p                *process
	cases            []*testCase
	canceled, exact  atomic.Int64
	refused, sampled atomic.Int64
}

var soakRequests = flag.Int("soak", 2000, "requests of TestSoak")

// TestSoak: thousands of requests of all kinds, a third of them canceled, in a small cache, leave nothing behind.
func TestSoak(t *testing.T) {
	p := serve(t, "--kv-cache-memory", "4MiB", "--max-num-seqs", "32", "--api-key", "one,two,three")
	p.key = "one"
	s := &soak{t: t, p: p}
	for _, c := range cases(t) {
		if len(c.PromptIDs) < 100 {
			s.cases = append(s.cases, c)
		}
	}
	const warm = 700
	total := max(2000, *soakRequests)
	parallel(32, warm, s.request)
	before := s.settle()
	parallel(32, total-warm, func(i int) { s.request(warm + i) })
	after := s.settle()
	t.Logf("%d canceled, %d exact, %d refused, %d sampled; before %+v, after %+v", s.canceled.Load(), s.exact.Load(),
		s.refused.Load(), s.sampled.Load(), before, after)
	if s.canceled.Load() < 200 || s.exact.Load() < 200 || s.refused.Load() < 100 || s.sampled.Load() < 200 {
		t.Error("too few requests of a kind")
	}
	if after.goroutines > before.goroutines+4 || after.files > before.files+4 {
		t.Errorf("goroutines or files leak: %+v, then %+v", before, after)
	}
	if growth := after.resident - before.resident; growth > 24<<20 {
		t.Errorf("memory grew by %.0f MiB", growth/(1<<20))
	}
}

// footprint is what a server holds when it is idle.
type footprint struct{ goroutines, files, resident float64 }

// settle waits until the server is idle and reports what it holds.
func (s *soak) settle() footprint {
	s.t.Helper()
	s.p.client.CloseIdleConnections()
	s.p.wantIdle(s.t)
	var f footprint
	eventually(s.t, limit, "the connections are gone", func() bool {
		m := s.p.metrics(s.t)
		f = footprint{m.sum(s.t, "go_goroutines"), m.sum(s.t, "process_open_fds"), m.sum(s.t, "process_resident_memory_bytes")}
		if m.sum(s.t, "pagoda_panics_total") != 0 || m.sum(s.t, "pagoda_errors_total", `"internal"`) != 0 {
			s.t.Error("the server had faults of its own")
		}
		return f.goroutines < 24
	})
	return f
}

// request sends the i-th request: the same one in every run.
func (s *soak) request(i int) {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	key := []string{"one", "two", "three"}[r.IntN(3)]
	header := []string{"Authorization", "Bearer " + key}
	switch r.IntN(10) {
	case 0, 1:
		s.cancelStream(r, header)
	case 2:
		s.cancelWhole(r, header)
	case 3, 4, 5:
		s.exactCase(r, header)
	case 6, 7:
		s.choices(r, header)
	case 8:
		s.bad(r, header)
	default:
		s.tiny(r, header)
	}
}

func (s *soak) model(r *rand.Rand) string {
	return []string{demo, "shout", "pirate", "french"}[r.IntN(4)]
}

// cancelStream leaves in the middle of a stream.
func (s *soak) cancelStream(r *rand.Rand, header []string) {
	ctx, leave := context.WithCancel(s.t.Context())
	defer leave()
	body := long(300).with(fields{"model": s.model(r), "n": 1 + r.IntN(3), "stream": true, "seed": r.IntN(1000)})
	resp, err := s.p.post(ctx, completionPath, body, header...)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, int64(r.IntN(30000))); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	s.canceled.Add(1)
}

// cancelWhole leaves at any time before the answer has come.
func (s *soak) cancelWhole(r *rand.Rand, header []string) {
	ctx, leave := context.WithTimeout(s.t.Context(), time.Duration(r.IntN(30000))*time.Microsecond)
	defer leave()
	body := long(600).with(fields{"model": s.model(r), "n": 1 + r.IntN(3), "seed": r.IntN(1000)})
	if a, err := s.p.ask(ctx, completionPath, body, header...); err == nil {
		s.t.Errorf("answered too early: %+v", a)
	}
	s.canceled.Add(1)
}

// exactCase checks a case of the reference.
func (s *soak) exactCase(r *rand.Rand, header []string) {
	c, w := s.cases[r.IntN(len(s.cases))], ways[r.IntN(len(ways))]
	a, err := s.p.ask(s.t.Context(), w.path, w.request(c), header...)
	if err != nil || a.status != http.StatusOK || a.err != nil {
		s.t.Errorf("%s, %v: %+v, %v", c.Skill, w, a, err)
		return
	}
	// The default dtype may differ from the reference at a near tie; TestCases looks closely.
	if what := w.differs(c, &a.choices[0]); what != "" && c.MinGap > 0.5 {
		s.t.Errorf("%s, %v: %s", c.Skill, w, what)
	}
	s.exact.Add(1)
}

// choices samples several choices, with stops and penalties.
func (s *soak) choices(r *rand.Rand, header []string) {
	n, stream := 1+r.IntN(4), r.IntN(2) == 0
	body := say(s.model(r), "Tell me a story about a "+[]string{"cat", "dog", "bird"}[r.IntN(3)]+".").with(fields{
		"n": n, "temperature": 1.2, "seed": r.IntN(1000), "max_tokens": 1 + r.IntN(120), "stop": []string{"ing", ". The"},
		"presence_penalty": 0.5, "top_p": 0.95, "top_k": 50, "stream": stream})
	if stream {
		body["stream_options"] = fields{"include_usage": true}
	}
	a, err := s.p.ask(s.t.Context(), chatPath, body, header...)
	if err != nil || a.status != http.StatusOK || a.err != nil || len(a.choices) != n || a.usage == nil {
		s.t.Errorf("%v: %+v, %v", body, a, err)
		return
	}
	for _, c := range a.choices {
		if c.finish != "stop" && c.finish != "length" || strings.Contains(c.text, "ing") || strings.Contains(c.text, ". The") {
			s.t.Errorf("finish %q, %q", c.finish, c.text)
		}
	}
	s.sampled.Add(1)
}

// bad sends what is to be refused.
func (s *soak) bad(r *rand.Rand, header []string) {
	type request struct {
		path   string
		body   any
		status int
	}
	all := []request{
		{chatPath, say(demo, "hi").with(fields{"temperature": 3}), http.StatusBadRequest},
		{chatPath, say(demo, "hi").with(fields{"frobnicate": true}), http.StatusBadRequest},
		{chatPath, say("nobody", "hi"), http.StatusNotFound},
		{chatPath, say(demo, strings.Repeat("word ", 2000)), http.StatusBadRequest},
		{chatPath, []byte("{"), http.StatusBadRequest},
		{completionPath, long(5000), http.StatusBadRequest},
		{completionPath, fields{"model": demo, "prompt": []int{-1}}, http.StatusBadRequest},
		{completionPath, fields{"model": demo, "prompt": []int{1 << 30}}, http.StatusBadRequest},
		{"/v1/nothing", fields{}, http.StatusNotFound},
	}
	q := all[r.IntN(len(all))]
	if r.IntN(8) == 0 {
		header, q.status = []string{"Authorization", "Bearer wrong"}, http.StatusUnauthorized
	}
	resp, err := s.p.post(s.t.Context(), q.path, q.body, header...)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != q.status {
		s.t.Errorf("%s %v: status %d, want %d: %s, %v", q.path, q.body, resp.StatusCode, q.status, text, err)
	}
	s.refused.Add(1)
}

// tiny asks for very few tokens of several prompts, some of them for none but the prompt's own.
func (s *soak) tiny(r *rand.Rand, header []string) {
	prompts := make([]string, 1+r.IntN(4))
	for i := range prompts {
		prompts[i] = fmt.Sprintf("%d and %d", r.IntN(100), r.IntN(100))
	}
	tokens := r.IntN(4)
	a, err := s.p.ask(s.t.Context(), completionPath, fields{"model": s.model(r), "prompt": prompts, "max_tokens": tokens,
		"echo": true, "ignore_eos": true, "logprobs": 1, "return_token_ids": true}, header...)
	if err != nil || a.status != http.StatusOK || a.err != nil || len(a.choices) != len(prompts) {
		s.t.Errorf("%v: %+v, %v", prompts, a, err)
		return
	}
	for i, c := range a.choices {
		if c.finish != "length" || !strings.HasPrefix(c.text, prompts[i]) || len(c.ids) != tokens {
			s.t.Errorf("prompt %q, %d tokens: %+v", prompts[i], tokens, c)
		}
	}
	s.sampled.Add(1)
}

// TestPreemption: sequences that do not fit into the cache together get the same answers one after the other.
func TestPreemption(t *testing.T) {
	p := serve(t, "--kv-cache-memory", "4MiB") // some 1,300 tokens
	const n, tokens = 8, 800
	var prompts []string
	for i := range n {
		prompts = append(prompts, fmt.Sprint(i))
	}
	ask := func(prompts ...string) []choice {
		t.Helper()
		a, err := p.ask(t.Context(), completionPath, long(tokens).with(fields{"prompt": prompts}))
		if err != nil || a.status != http.StatusOK || a.usage.Completion != tokens*len(prompts) {
			t.Fatalf("%+v, %v", a, err)
		}
		return a.choices
	}
	together := ask(prompts...) // one request, so that they run at once however busy the machine is
	if p.metrics(t).sum(t, "vllm:num_preemptions_total") == 0 {
		t.Error("nothing was preempted")
	}
	for i, c := range together {
		if alone := ask(prompts[i])[0]; alone.text != c.text {
			t.Errorf("prompt %d: %q, alone %q", i, c.text, alone.text)
		}
	}
	p.wantIdle(t)
}

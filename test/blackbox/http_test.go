package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const (
	chatPath       = "/v1/chat/completions"
	completionPath = "/v1/completions"
	demo           = "pagoda-demo"
)

// fields are a request's body, as the client's JSON.
type fields map[string]any

// merge returns f with more.
func (f fields) with(more fields) fields {
	out := fields{}
	for _, m := range []fields{f, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// say is a greedy chat request.
func say(model, text string) fields {
	return fields{"model": model, "temperature": 0, "messages": []fields{{"role": "user", "content": text}}}
}

// long is a request for that many tokens whatever the model would like.
func long(tokens int) fields {
	return fields{"model": demo, "prompt": "a", "temperature": 1, "seed": 1, "max_tokens": tokens, "ignore_eos": true}
}

// circles is a request whose answer repeats itself.
var circles = fields{"model": demo, "prompt": "one two three four five one two three four five one two three",
	"temperature": 0, "max_tokens": 100, "ignore_eos": true}

// answer is what a generation route sent, whole or in pieces.
type answer struct {
	status     int
	retryAfter string
	requestID  string
	err        *apiError // of the status, or of the stream
	promptIDs  []int32
	choices    []choice
	usage      *usage
	chunks     int
}

type apiError struct {
	Message, Type string
	Param, Code   *string
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

type choice struct {
	text, reasoning string
	calls           []toolCall
	ids             []int32
	finish          string
	top             []map[string]float64 // per token, log-probabilities by the token's text
}

type toolCall struct {
	Index    int
	ID       string
	Function struct{ Name, Arguments string }
}

// wireAnswer is a whole answer or a chunk of either dialect.
type wireAnswer struct {
	Choices []struct {
		Index          int
		Text           string
		Message, Delta wireMessage
		Logprobs       wireLogprobs
		FinishReason   string  `json:"finish_reason"`
		IDs            []int32 `json:"token_ids"`
		PromptIDs      []int32 `json:"prompt_token_ids"`
	}
	Usage     *usage
	PromptIDs []int32 `json:"prompt_token_ids"`
	Error     *apiError
}

type wireMessage struct {
	Content   string
	Reasoning string     `json:"reasoning_content"`
	ToolCalls []toolCall `json:"tool_calls"`
}

type wireLogprobs struct {
	Content []struct { // chat
		Top []struct {
			Token   string
			Logprob float64
		} `json:"top_logprobs"`
	}
	Top []map[string]float64 `json:"top_logprobs"` // completions
}

// post sends body as JSON.
func (p *process) post(ctx context.Context, path string, body any, header ...string) (*http.Response, error) {
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	p.authorize(req)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return p.client.Do(req)
}

func (p *process) authorize(req *http.Request) {
	if p.key != "" {
		req.Header.Set("Authorization", "Bearer "+p.key)
	}
}

// ask sends a generation request and reads the answer to its end. An error is one of the connection or the form.
func (p *process) ask(ctx context.Context, path string, body fields, header ...string) (*answer, error) {
	resp, err := p.post(ctx, path, body, header...)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"),
		requestID: resp.Header.Get("X-Request-Id")}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return a, a.stream(resp.Body)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return a, a.add(data)
}

// stream reads events until [DONE], or an error event and the end.
func (a *answer) stream(body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case lines.Text() == "", strings.HasPrefix(lines.Text(), ":"):
		case !ok:
			return fmt.Errorf("not an event: %q", lines.Text())
		case data == "[DONE]":
			return nil
		default:
			if err := a.add([]byte(data)); err != nil {
				return err
			}
			a.chunks++
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if a.err == nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// add takes a whole answer or a chunk in.
func (a *answer) add(data []byte) error {
	var w wireAnswer
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("%w: %.200q", err, data)
	}
	if w.Error != nil {
		a.err = w.Error
	}
	if w.Usage != nil {
		a.usage = w.Usage
	}
	a.promptIDs = append(a.promptIDs, w.PromptIDs...)
	for _, c := range w.Choices {
		for len(a.choices) <= c.Index {
			a.choices = append(a.choices, choice{})
		}
		out := &a.choices[c.Index]
		out.text += c.Text + c.Message.Content + c.Delta.Content
		out.reasoning += c.Message.Reasoning + c.Delta.Reasoning
		out.ids = append(out.ids, c.IDs...)
		out.finish += c.FinishReason
		out.logprobs(&c.Logprobs)
		out.calls = append(out.calls, c.Message.ToolCalls...)
		for _, d := range c.Delta.ToolCalls {
			out.call(d)
		}
		a.promptIDs = append(a.promptIDs, c.PromptIDs...)
	}
	return nil
}

func (c *choice) logprobs(w *wireLogprobs) {
	c.top = append(c.top, w.Top...)
	for _, token := range w.Content {
		top := map[string]float64{}
		for _, t := range token.Top {
			top[t.Token] = t.Logprob
		}
		c.top = append(c.top, top)
	}
}

// call adds a piece of a tool call.
func (c *choice) call(d toolCall) {
	for len(c.calls) <= d.Index {
		c.calls = append(c.calls, toolCall{})
	}
	out := &c.calls[d.Index]
	out.ID += d.ID
	out.Function.Name += d.Function.Name
	out.Function.Arguments += d.Function.Arguments
}

// must is ask for requests that cannot fail.
func (p *process) must(t testing.TB, path string, body fields, header ...string) *answer {
	t.Helper()
	a, err := p.ask(t.Context(), path, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK || a.err != nil {
		t.Fatalf("status %d, %+v", a.status, a.err)
	}
	return a
}

// call posts in and decodes the answer into out.
func (p *process) call(t testing.TB, path string, in, out any) {
	t.Helper()
	resp, err := p.post(t.Context(), path, in)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s: %s", path, resp.Status, data)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatal(err)
	}
}

// get returns a page and its status.
func (p *process) get(t testing.TB, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.authorize(req)
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// metrics are the series of a scrape, by name with labels.
type metrics map[string]float64

func (p *process) metrics(t testing.TB) metrics {
	t.Helper()
	status, text := p.get(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: status %d", status)
	}
	out := metrics{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.Contains(line, "{") {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(line, "#") {
			out[name] = v
		}
	}
	return out
}

// sum adds up the series of a name whose labels contain all of parts. A name without series is a mistake.
func (m metrics) sum(t testing.TB, name string, parts ...string) float64 {
	t.Helper()
	total, found := 0.0, false
next:
	for series, v := range m {
		base, labels, _ := strings.Cut(series, "{")
		if base != name {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(labels, part) {
				continue next
			}
		}
		total, found = total+v, true
	}
	if !found {
		t.Fatalf("no metric %s %v", name, parts)
	}
	return total
}

// wantIdle waits until nothing runs, waits or holds blocks any more.
func (p *process) wantIdle(t testing.TB) {
	t.Helper()
	eventually(t, limit, "all sequences and blocks are free", func() bool {
		m := p.metrics(t)
		return m.sum(t, "vllm:num_requests_running") == 0 && m.sum(t, "vllm:num_requests_waiting") == 0 &&
			m.sum(t, "vllm:kv_cache_usage_perc") == 0 && m.sum(t, "pagoda_http_in_flight") == 1
	})
}

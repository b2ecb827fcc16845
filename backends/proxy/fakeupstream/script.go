package fakeupstream

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The commands beside "say". Unless noted they stream "one two" first.
const (
	CmdSay        = "say"         // the words that follow
	CmdEcho       = "echo"        // the body of the request itself
	CmdCount      = "count"       // as many words as the number says
	CmdThink      = "think"       // "hmm" as a thought, then the words: vLLM's "reasoning", SGLang's "reasoning_content"
	CmdTool       = "tool"        // two calls of f({"a":1}) in pieces: SGLang repeats id and name as null (sglang pull request 35542)
	CmdToolCut    = "toolcut"     // a call cut off by max_tokens that vLLM ends with "tool_calls" (vllm issue 53269)
	CmdErrorFirst = "error-first" // an error as the first event of a 200
	CmdError      = "error"       // an error event after the words
	CmdHang       = "hang"        // nothing more, for ever
	CmdHangFirst  = "hang-first"  // not even a header
	CmdHalf       = "half"        // half an event, and the connection closes
	CmdCut        = "cut"         // the connection closes between two events
	CmdExit0      = "exit0"       // the process ends with 0: vLLM when its engine dies (vllm issue 48966)
	CmdExit137    = "exit137"     // with 137, as after SIGKILL
	CmdAbort      = "abort"       // finish reason abort, at once: vLLM for requests that come while it drains
	CmdFull       = "full"        // SGLang's full queue: 503, of a stream as an event of a 200
	CmdFail       = "fail"        // 500
	CmdLong       = "too-long"    // 400 about the context length
	CmdNoUsage    = "no-usage"    // no usage at all
	CmdBig        = "big"         // one event of 3 MB
	CmdPieces     = "pieces"      // the words in TCP segments of 3 bytes, with comments and CR LF
	CmdStop       = "stopstr"     // ends by the request's first stop string
	CmdWait       = "wait"        // the first word, then a second or as many milliseconds as the number says, then the others
)

type message struct {
	Role    string
	Content json.RawMessage
}

func (m *message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) != nil {
		var parts []struct{ Text string }
		_ = json.Unmarshal(m.Content, &parts)
		for _, p := range parts {
			s += p.Text
		}
	}
	return s
}

type request struct {
	Model         string
	Messages      []message
	Prompt        json.RawMessage
	Tools         []json.RawMessage
	Stream        bool
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N              int
	MaxTokens      *int `json:"max_tokens"`
	Stop           []string
	ReturnTokenIDs bool `json:"return_token_ids"`
	Logprobs       any
	RID            string
	chat           bool
	text           string
}

// generation writes one answer.
type generation struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	req     *request
	body    []byte
	words   []string
	slow    bool // in pieces of few bytes
	usage   bool
	started bool
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is missing shows as bad JSON
	req := &request{chat: strings.HasSuffix(r.URL.Path, "/chat/completions")}
	if err := json.Unmarshal(body, req); err != nil {
		s.fail(w, http.StatusBadRequest, err.Error(), "BadRequestError")
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, body)
	s.running++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		if r.Context().Err() != nil {
			s.ended++
		}
		s.mu.Unlock()
	}()
	if !s.known(req.Model) {
		s.fail(w, http.StatusNotFound, "The model `"+req.Model+"` does not exist.", "NotFoundError")
		return
	}
	if req.chat && len(req.Messages) > 0 {
		req.text = req.Messages[len(req.Messages)-1].text()
	} else if json.Unmarshal(req.Prompt, &req.text) != nil {
		if req.text = "say ids"; s.OnIDs != "" {
			req.text = s.OnIDs
		}
	}
	if s.isVLLM() { // which refuses what means nothing
		if req.StreamOptions != nil && !req.Stream {
			s.fail(w, http.StatusBadRequest, "Stream options can only be defined when `stream=True`.", "BadRequestError")
			return
		}
		if len(req.Stop) > 4 {
			s.fail(w, http.StatusBadRequest, "at most 4 stop strings", "BadRequestError")
			return
		}
		if req.Tools != nil && len(req.Tools) == 0 {
			s.fail(w, http.StatusBadRequest, "tools must not be an empty array", "BadRequestError")
			return
		}
	}
	g := &generation{s: s, w: w, r: r, req: req, body: body, usage: !req.Stream || req.StreamOptions != nil && req.StreamOptions.IncludeUsage}
	g.run()
}

// known: vLLM checks names, SGLang serves whatever it is called (and takes what follows a colon as an adapter).
func (s *Server) known(model string) bool {
	if s.isVLLM() {
		return model == s.Model || slices.Contains(s.Adapters(), model)
	}
	_, adapter, ok := strings.Cut(model, ":")
	return !ok || slices.Contains(s.Adapters(), adapter)
}

// answerer is the model or adapter that answers.
func (g *generation) answerer() string {
	if _, adapter, ok := strings.Cut(g.req.Model, ":"); ok && !g.s.isVLLM() {
		return adapter
	}
	if g.s.isVLLM() {
		return g.req.Model
	}
	return g.s.Model
}

func (g *generation) run() {
	command, rest, _ := strings.Cut(g.req.text, " ")
	g.words = []string{"one", " two"}
	switch command {
	case CmdSay:
		g.words = split(rest)
	case CmdEcho:
		g.words = []string{string(g.body)}
	case CmdCount:
		n, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
		g.words = nil
		for i := range n {
			g.words = append(g.words, " w"+strconv.Itoa(i))
		}
	case CmdBig:
		g.words = []string{strings.Repeat("x", 3<<20)}
	case CmdThink:
		g.words = split(rest)
	case CmdStop:
		g.words = []string{"until"}
	case CmdFail:
		g.s.fail(g.w, http.StatusInternalServerError, "Traceback: /opt/secret/path.py", "InternalServerError")
		return
	case CmdLong:
		g.s.fail(g.w, http.StatusBadRequest, "This model's maximum context length is 10 tokens.", "BadRequestError")
		return
	case CmdHangFirst:
		<-g.r.Context().Done()
		return
	case CmdFull:
		if g.req.Stream && !g.s.isVLLM() {
			g.errorEvent(http.StatusServiceUnavailable, "The request queue is full.", "ServiceUnavailableError")
			return
		}
		g.s.fail(g.w, http.StatusServiceUnavailable, "The request queue is full.", "ServiceUnavailableError")
		return
	case "who":
		g.words = []string{g.answerer()}
	}
	if !g.req.Stream {
		g.whole(command)
		return
	}
	g.stream(command)
}

func split(text string) []string {
	var out []string
	for i, w := range strings.Fields(text) {
		if i > 0 {
			w = " " + w
		}
		out = append(out, w)
	}
	return out
}

// wait is how long CmdWait waits.
func (g *generation) wait() time.Duration {
	if ms, err := strconv.Atoi(strings.TrimPrefix(g.req.text, CmdWait+" ")); err == nil {
		return time.Duration(ms) * time.Millisecond
	}
	return time.Second
}

// limited is the words that max_tokens allows, and the finish reason.
func (g *generation) limited() ([]string, string) {
	if m := g.req.MaxTokens; m != nil && *m < len(g.words) {
		return g.words[:*m], "length"
	}
	return g.words, "stop"
}

func (g *generation) choices() int { return max(1, g.req.N) }

func (g *generation) usageOf(completion int) map[string]any {
	prompt := len(promptIDs(g.promptText()))
	u := map[string]any{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
	if g.s.isVLLM() {
		u["prompt_tokens_details"] = map[string]any{"cached_tokens": 1}
	} else {
		u["prompt_tokens_details"], u["reasoning_tokens"] = nil, 0
	}
	return u
}

func (g *generation) promptText() string {
	if !g.req.chat {
		return g.req.text
	}
	var b strings.Builder
	for i := range g.req.Messages {
		b.WriteString(" " + g.req.Messages[i].text())
	}
	return b.String()
}

// promptIDs: a token is a word.
func promptIDs(text string) []int {
	ids := []int{1}
	for _, w := range strings.Fields(text) {
		ids = append(ids, 10+len(w))
	}
	return ids
}

func (g *generation) base(object string) map[string]any {
	id := g.req.RID
	if id == "" {
		id = "chatcmpl-" + g.r.Header.Get("X-Request-Id")
	}
	return map[string]any{"id": id, "object": object, "created": 1700000000, "model": g.req.Model}
}

func (g *generation) whole(command string) {
	switch command {
	case CmdHang:
		<-g.r.Context().Done()
		return
	case CmdCut, CmdHalf:
		g.w.Header().Set("Content-Length", "1000")
		fmt.Fprint(g.w, `{"id":"x","choi`)
		panic(http.ErrAbortHandler)
	case CmdExit0:
		g.s.Exit(0)
	case CmdExit137:
		g.s.Exit(137)
	case CmdError, CmdErrorFirst:
		g.s.fail(g.w, http.StatusOK, "the engine is confused: /opt/secret", "InternalServerError")
		return
	case CmdWait:
		g.pause(g.wait())
	}
	words, finish := g.limited()
	if command == CmdAbort {
		words, finish = nil, "abort"
	}
	body := g.base("chat.completion")
	var choices []map[string]any
	for i := range g.choices() {
		text := strings.Join(words, "")
		c := map[string]any{"index": i, "finish_reason": finish, "logprobs": nil}
		m := map[string]any{"role": "assistant", "content": text}
		switch command {
		case CmdThink:
			m[g.thought()] = "hmm"
		case CmdTool:
			m["content"], c["finish_reason"] = nil, "tool_calls"
			m["tool_calls"] = []map[string]any{call("call_a", `{"a": 1}`), call("call_b", `{"a": 1}`)}
		case CmdToolCut:
			m["content"], c["finish_reason"] = nil, "tool_calls"
			m["tool_calls"] = []map[string]any{call("call_a", `{"a": `)}
		case CmdStop:
			c[g.stopField()] = g.req.Stop[0]
		}
		if g.req.chat {
			c["message"] = m
		} else {
			c["text"] = text
		}
		if g.req.Logprobs != nil {
			c["logprobs"] = g.logprobs(words)
		}
		if g.req.ReturnTokenIDs {
			c["token_ids"] = g.s.ids(0, len(words))
		}
		choices = append(choices, c)
	}
	body["choices"] = choices
	tokens := len(words) * g.choices()
	if command == CmdToolCut && g.req.MaxTokens != nil {
		tokens = *g.req.MaxTokens
	}
	if command != CmdNoUsage {
		body["usage"] = g.usageOf(tokens)
	}
	if g.req.ReturnTokenIDs {
		body["prompt_token_ids"] = promptIDs(g.promptText())
	}
	g.s.mu.Lock()
	g.s.served += len(words)
	g.s.mu.Unlock()
	writeJSON(g.w, http.StatusOK, body)
}

func call(id, arguments string) map[string]any {
	return map[string]any{"id": id, "type": "function", "function": map[string]any{"name": "f", "arguments": arguments}}
}

// thought is the field of the thinking text.
func (g *generation) thought() string {
	if g.s.isVLLM() {
		return "reasoning"
	}
	return "reasoning_content"
}

func (g *generation) stopField() string {
	if g.s.isVLLM() {
		return "stop_reason"
	}
	return "matched_stop"
}

func (s *Server) ids(from, n int) []int {
	out := make([]int, n)
	for i := range out {
		if out[i] = 1000 + from + i; from+i < len(s.Tokens) {
			out[i] = s.Tokens[from+i]
		}
	}
	return out
}

func (g *generation) logprobs(words []string) any {
	if !g.req.chat {
		l := map[string]any{"tokens": words}
		var values, top []any
		for _, w := range words {
			values, top = append(values, -0.5), append(top, map[string]float64{w: -0.5, "z": -2})
		}
		l["token_logprobs"], l["top_logprobs"] = values, top
		return l
	}
	list := []map[string]any{}
	for _, w := range words {
		p := map[string]any{"token": w, "logprob": -0.5, "bytes": bytesOf(w)}
		list = append(list, map[string]any{"token": w, "logprob": -0.5, "bytes": bytesOf(w), "top_logprobs": []any{p}})
	}
	return map[string]any{"content": list}
}

func bytesOf(s string) []int {
	out := make([]int, len(s))
	for i := range len(s) {
		out[i] = int(s[i])
	}
	return out
}

package fakeupstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// stream writes server-sent events.
func (g *generation) stream(command string) {
	switch command {
	case CmdErrorFirst:
		g.errorEvent(http.StatusInternalServerError, "EngineCore encountered an issue: /opt/secret", "InternalServerError")
		return
	case CmdAbort:
		g.event(g.piece(0, map[string]any{"role": "assistant", "content": ""}, ""))
		g.event(g.piece(0, map[string]any{}, "abort"))
		g.done()
		return
	}
	g.slow = command == CmdPieces
	words, finish := g.limited()
	for i := range g.choices() {
		first := g.piece(i, map[string]any{"role": "assistant", "content": ""}, "")
		if i == 0 && g.req.ReturnTokenIDs {
			first["prompt_token_ids"] = promptIDs(g.promptText())
		}
		g.event(first)
		if command == CmdThink {
			g.event(g.piece(i, map[string]any{g.thought(): "hm"}, ""))
			g.event(g.piece(i, map[string]any{g.thought(): "m"}, ""))
		}
	}
	if command == CmdTool || command == CmdToolCut {
		g.tool(command)
		return
	}
	for at, word := range words {
		if at == 1 && command == CmdWait {
			g.pause(g.wait())
		}
		if g.pause(g.s.ChunkDelay) {
			return
		}
		for i := range g.choices() {
			reason := ""
			if at == len(words)-1 && g.s.isVLLM() && !isFault(command) { // on the last piece itself
				reason = finish
			}
			g.event(g.text(i, at, word, reason))
		}
	}
	switch command {
	case CmdError:
		g.errorEvent(http.StatusInternalServerError, "EngineCore encountered an issue: /opt/secret", "InternalServerError")
		return
	case CmdHang:
		<-g.r.Context().Done()
		return
	case CmdHalf:
		g.write(`data: {"id":"x","choices":[{"index":0,"delta":{"con`)
		panic(http.ErrAbortHandler)
	case CmdCut:
		panic(http.ErrAbortHandler)
	case CmdExit0:
		g.s.Exit(0)
	case CmdExit137:
		g.s.Exit(137)
	}
	if !g.s.isVLLM() || len(words) == 0 || isFault(command) {
		for i := range g.choices() { // SGLang ends with a piece of its own
			g.event(g.piece(i, map[string]any{}, finish))
		}
	}
	g.end(len(words)*g.choices(), command != CmdNoUsage)
}

// isFault says whether the words are followed by something else than the end.
func isFault(command string) bool {
	switch command {
	case CmdError, CmdHang, CmdHalf, CmdCut, CmdExit0, CmdExit137:
		return true
	}
	return false
}

// end writes the usage and the mark.
func (g *generation) end(tokens int, usage bool) {
	if g.usage && usage {
		last := g.base(g.object())
		last["choices"], last["usage"] = []any{}, g.usageOf(tokens)
		g.event(last)
	}
	g.s.mu.Lock()
	g.s.served += tokens
	g.s.mu.Unlock()
	g.done()
}

// tool writes two calls, or one that is cut off.
func (g *generation) tool(command string) {
	delta := func(index int, id, name any, arguments string) {
		f := map[string]any{"name": name, "arguments": arguments}
		c := map[string]any{"index": index, "id": id, "type": "function", "function": f}
		if g.s.isVLLM() && id == nil { // it leaves both out
			delete(c, "id")
			delete(f, "name")
		}
		g.event(g.piece(0, map[string]any{"content": nil, "tool_calls": []any{c}}, ""))
	}
	delta(0, "call_a", "f", "")
	delta(0, nil, nil, `{"a": `)
	tokens := 2
	if command == CmdTool {
		delta(0, nil, nil, `1}`)
		delta(1, "call_b", "f", `{"a": 1}`)
		tokens = 4
	}
	g.event(g.piece(0, map[string]any{}, "tool_calls"))
	if m := g.req.MaxTokens; m != nil && command == CmdToolCut {
		tokens = *m
	}
	g.end(tokens, true)
}

func (g *generation) object() string {
	if g.req.chat {
		return "chat.completion.chunk"
	}
	return "text_completion"
}

// text is a piece with one word.
func (g *generation) text(index, at int, word, finish string) map[string]any {
	c := g.piece(index, map[string]any{"content": word}, finish)
	choice := c["choices"].([]map[string]any)[0]
	if !g.req.chat {
		choice["text"] = word
	}
	if g.req.Logprobs != nil {
		choice["logprobs"] = g.logprobs([]string{word})
	}
	if g.req.ReturnTokenIDs {
		choice["token_ids"] = g.s.ids(at, 1)
	}
	return c
}

// piece is an event: vLLM leaves out what is not set, SGLang writes null.
func (g *generation) piece(index int, delta map[string]any, finish string) map[string]any {
	c := map[string]any{"index": index, "logprobs": nil, "finish_reason": nil}
	if finish != "" {
		c["finish_reason"] = finish
		if strings.HasPrefix(g.req.text, CmdStop) {
			c[g.stopField()] = g.req.Stop[0]
		}
	}
	if !g.s.isVLLM() {
		if _, ok := c["matched_stop"]; !ok {
			c["matched_stop"] = nil
		}
		for _, name := range []string{"role", "content", "reasoning_content", "tool_calls"} {
			if _, ok := delta[name]; !ok {
				delta[name] = nil
			}
		}
	}
	if g.req.chat {
		c["delta"] = delta
	} else {
		c["text"] = ""
	}
	out := g.base(g.object())
	out["choices"] = []map[string]any{c}
	return out
}

func (g *generation) errorEvent(status int, text, kind string) {
	body := g.s.errorBody(status, text, kind)
	if !g.s.isVLLM() { // nested within a stream, flat elsewhere
		body = map[string]any{"error": body}
	}
	g.event(body)
	g.done()
}

func (g *generation) event(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	g.write("data: " + string(data) + "\n\n")
}

func (g *generation) done() { g.write("data: [DONE]\n\n") }

func (g *generation) write(text string) {
	if !g.started {
		g.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		g.started = true
	}
	flush := http.NewResponseController(g.w)
	if g.slow {
		text = ": keep-alive\r\n\r\n" + strings.ReplaceAll(text, "\n", "\r\n")
		for len(text) > 0 {
			n := min(3, len(text))
			fmt.Fprint(g.w, text[:n])
			if flush.Flush() != nil {
				panic(http.ErrAbortHandler)
			}
			text = text[n:]
		}
		return
	}
	fmt.Fprint(g.w, text)
	if flush.Flush() != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
}

// pause waits and says whether the client has left.
func (g *generation) pause(d time.Duration) (left bool) {
	if d == 0 {
		return g.r.Context().Err() != nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-g.r.Context().Done():
		return true
	}
}

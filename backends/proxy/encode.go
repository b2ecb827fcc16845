package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
	"pagoda/jsonstring"
)

const (
	chatPath       = "/v1/chat/completions"
	completionPath = "/v1/completions"
)

// jsonOptions write what came as bytes of any kind; they make the same bytes of the same value.
var jsonOptions = json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true))

// object writes a JSON object member by member.
type object struct{ buf []byte }

// open begins an object within another.
func (o *object) open() { o.buf = append(o.buf, '{') }

func (o *object) name(name string) {
	switch n := len(o.buf); {
	case n == 0:
		o.open()
	case o.buf[n-1] != '{': // a value ends in no such byte
		o.buf = append(o.buf, ',')
	}
	o.buf = jsonstring.AppendQuote(o.buf, name)
	o.buf = append(o.buf, ':')
}

func (o *object) raw(name string, value []byte) {
	o.name(name)
	o.buf = append(o.buf, value...)
}

func (o *object) text(name, value string) {
	o.name(name)
	o.buf = jsonstring.AppendQuote(o.buf, value)
}

func (o *object) bool(name string, value bool) {
	o.name(name)
	o.buf = strconv.AppendBool(o.buf, value)
}

func (o *object) int(name string, value int64) {
	o.name(name)
	o.buf = strconv.AppendInt(o.buf, value, 10)
}

// value writes what always encodes: maps, lists and numbers.
func (o *object) value(name string, value any) {
	o.name(name)
	b := bytes.NewBuffer(o.buf)
	if err := json.MarshalWrite(b, value, jsonOptions); err != nil {
		panic("proxy: " + err.Error())
	}
	o.buf = b.Bytes()
}

func (o *object) end() []byte {
	if len(o.buf) == 0 {
		o.buf = append(o.buf, '{')
	}
	return append(o.buf, '}')
}

// encoding is a request on its way into the upstream's JSON. The first problem stays in err.
type encoding struct {
	object
	d   *Dialect
	err error
}

// optional writes a field that not every upstream knows.
func (e *encoding) optional(name string, write func(upstream string)) {
	upstream, err := e.d.field(name)
	if err != nil {
		if e.err == nil {
			e.err = err
		}
		return
	}
	write(upstream)
}

func (e *encoding) optionalBool(name string, value *bool) {
	if value != nil {
		e.optional(name, func(upstream string) { e.bool(upstream, *value) })
	}
}

func (e *encoding) optionalTrue(name string, value bool) {
	if value {
		e.optionalBool(name, &value)
	}
}

func (e *encoding) optionalValue(name string, set bool, value any) {
	if set {
		e.optional(name, func(upstream string) { e.value(upstream, value) })
	}
}

// encoded is a request in the upstream's words, without its end: the model's name and the request's id follow, since
// they differ from upstream to upstream and from try to try.
type encoded struct {
	path   string
	stream bool
	body   []byte // `{"messages":...`
}

// buffers are bodies of requests that were sent, for the next ones: large ones cost more to allocate than to fill.
var buffers sync.Pool // of *encoded

// maxKept bounds what is kept of one.
const maxKept = 1 << 20

// free gives the body back. Nothing may use e after it.
func (e *encoded) free() {
	if cap(e.body) <= maxKept {
		buffers.Put(e)
	}
}

// newBuffer is an empty buffer with room for n bytes.
func newBuffer(n int) []byte {
	if old, ok := buffers.Get().(*encoded); ok && cap(old.body) >= n {
		return old.body[:0]
	}
	return make([]byte, 0, n)
}

// finish returns the whole body of one try. It is valid until the next one's.
func (e *encoded) finish(model, idField, id string) []byte {
	o := object{e.body} // which has room for it
	o.text("model", model)
	if idField != "" {
		o.text(idField, id)
	}
	return o.end()
}

// encode turns req into the upstream's request.
func (d *Dialect) encode(req *engine.Request) (*encoded, error) {
	e := &encoding{d: d, object: object{newBuffer(sizeOf(req))}}
	out := &encoded{path: completionPath, stream: !req.Output.Whole && req.Output.PromptLogprobs == nil}
	switch {
	case req.Chat != nil:
		out.path = chatPath
		e.chat(req)
	case req.Text != nil:
		e.text("prompt", *req.Text)
	default:
		e.value("prompt", req.Tokens)
	}
	e.sampling(&req.Sampling)
	e.output(req)
	if req.Priority != 0 {
		e.optionalValue("priority", true, req.Priority)
	}
	if req.CacheSalt != "" {
		e.optionalValue("cache_salt", true, req.CacheSalt)
	}
	e.optionalBool("add_special_tokens", req.AddSpecialTokens)
	e.optionalValue("speculative_tokens", req.SpeculativeTokens != nil, req.SpeculativeTokens)
	if out.stream {
		e.bool("stream", true)
		e.raw("stream_options", []byte(`{"include_usage":true}`))
	}
	e.extra(req.Extra)
	out.body = e.buf
	return out, e.err
}

// sizeOf is about how long a request's JSON is.
func sizeOf(req *engine.Request) int {
	const rest = 1 << 10
	n := rest
	if req.Text != nil {
		n += len(*req.Text)
	}
	if req.Chat != nil {
		for i := range req.Chat.Messages {
			m := &req.Chat.Messages[i]
			if n += 64; m.Content != nil {
				n += len(*m.Content)
			}
			for _, p := range m.Parts {
				n += len(p)
			}
		}
		for _, t := range req.Chat.Tools {
			n += len(t)
		}
	}
	return n
}

// extra adds what only the upstream knows.
func (e *encoding) extra(extra Extra) {
	fields := maps.Clone(extra)
	if fields == nil {
		fields = Extra{}
	}
	for _, name := range e.d.Refused {
		if _, ok := fields[name]; ok && e.err == nil {
			e.err = BadField(name, "must not be set through this server")
		}
	}
	if e.d.Translate != nil && e.err == nil {
		e.err = e.d.Translate(fields)
	}
	if len(fields) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		e.raw(name, fields[name])
	}
}

func (e *encoding) sampling(s *engine.Sampling) {
	number := func(name string, v *float64) {
		if v != nil {
			e.value(name, *v)
		}
	}
	number("temperature", s.Temperature)
	number("top_p", s.TopP)
	if s.PresencePenalty != 0 {
		e.value("presence_penalty", s.PresencePenalty)
	}
	if s.FrequencyPenalty != 0 {
		e.value("frequency_penalty", s.FrequencyPenalty)
	}
	if len(s.LogitBias) > 0 {
		e.value("logit_bias", s.LogitBias)
	}
	if s.Seed != nil {
		e.int("seed", *s.Seed)
	}
	if s.N > 1 {
		e.int("n", int64(s.N))
	}
	if s.MaxTokens != nil {
		e.int("max_tokens", int64(*s.MaxTokens))
	}
	if e.d.MaxStops > 0 && len(s.Stop) > e.d.MaxStops && e.err == nil {
		e.err = BadField("stop", "must not have more than %d strings with %s", e.d.MaxStops, e.d.Title)
	}
	if len(s.Stop) > 0 {
		e.value("stop", s.Stop)
	}
	if s.TopK != nil {
		topK := *s.TopK
		if topK == 0 {
			topK = -1 // off, in everybody's words
		}
		e.optionalValue("top_k", true, topK)
	}
	e.optionalValue("min_p", s.MinP != nil, s.MinP)
	e.optionalValue("typical_p", s.TypicalP != nil, s.TypicalP)
	e.optionalValue("repetition_penalty", s.RepetitionPenalty != nil, s.RepetitionPenalty)
	e.optionalValue("min_tokens", s.MinTokens > 0, s.MinTokens)
	e.optionalValue("stop_token_ids", len(s.StopTokenIDs) > 0, s.StopTokenIDs)
	e.optionalTrue("include_stop_str_in_output", s.IncludeStop)
	e.optionalTrue("ignore_eos", s.IgnoreEOS)
}

func (e *encoding) output(req *engine.Request) {
	o := &req.Output
	switch {
	case o.Logprobs == nil:
	case req.Chat != nil:
		e.bool("logprobs", true)
		e.int("top_logprobs", int64(*o.Logprobs))
	default:
		e.int("logprobs", int64(*o.Logprobs))
	}
	e.optionalValue("prompt_logprobs", o.PromptLogprobs != nil, o.PromptLogprobs)
	e.optionalBool("skip_special_tokens", o.SkipSpecial)
	e.optionalTrue("return_tokens_as_token_ids", o.NameByID)
	if o.TokenIDs || o.PromptLogprobs != nil {
		e.optionalTrue("return_token_ids", true)
		if also, ok := e.d.Fields["return_prompt_token_ids"]; ok {
			e.bool(also, true)
		}
	}
}

func (e *encoding) chat(req *engine.Request) {
	c := req.Chat
	e.name("messages")
	e.buf = append(e.buf, '[')
	for i, m := range e.d.messages(c.Messages) {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.message(i, &m)
	}
	e.buf = append(e.buf, ']')
	e.tools(c)
	e.optionalBool("add_generation_prompt", c.AddGenerationPrompt)
	e.optionalTrue("continue_final_message", c.ContinueFinal)
	if c.ContinueFinal && c.AddGenerationPrompt == nil {
		if upstream, ok := e.d.Fields["add_generation_prompt"]; ok { // vLLM's default is true, and both are an error
			e.bool(upstream, false)
		}
	}
	e.optionalValue("chat_template_kwargs", len(c.TemplateKwargs) > 0, c.TemplateKwargs)
}

// tools leaves an empty list and a choice without tools out: both mean nothing, and vLLM refuses both.
func (e *encoding) tools(c *engine.Chat) {
	if len(c.Tools) == 0 {
		if (c.ToolChoice == "required" || c.ToolChoice == "function") && e.err == nil {
			e.err = BadField("tool_choice", "needs tools")
		}
		return
	}
	e.value("tools", c.Tools)
	switch c.ToolChoice {
	case "":
	case "function":
		e.value("tool_choice", map[string]any{"type": "function", "function": map[string]string{"name": c.ToolName}})
	default:
		e.text("tool_choice", c.ToolChoice)
	}
	if c.ParallelToolCalls != nil {
		e.bool("parallel_tool_calls", *c.ParallelToolCalls)
	}
}

// messages returns msgs with roles that the upstream's templates know.
func (d *Dialect) messages(msgs []engine.Message) []engine.Message {
	if d.Developer || !slices.ContainsFunc(msgs, func(m engine.Message) bool { return m.Role == "developer" }) {
		return msgs
	}
	out := slices.Clone(msgs)
	for i := range out {
		if out[i].Role == "developer" {
			out[i].Role = "system"
		}
	}
	leading := 0
	for leading < len(out) && out[leading].Role == "system" && out[leading].Content != nil {
		leading++
	}
	if leading < 2 {
		return out
	}
	texts := make([]string, leading)
	for i := range texts {
		texts[i] = *out[i].Content
	}
	joined := strings.Join(texts, "\n\n")
	out[leading-1].Content = &joined
	return out[leading-1:]
}

func (e *encoding) message(index int, m *engine.Message) {
	o := object{e.buf}
	o.open()
	o.text("role", m.Role)
	switch {
	case m.Parts != nil:
		o.value("content", m.Parts)
	case m.Content != nil:
		o.text("content", *m.Content)
	case m.Role == "assistant":
		o.raw("content", []byte("null"))
	}
	if m.Name != "" {
		o.text("name", m.Name)
	}
	if m.ToolCallID != "" {
		o.text("tool_call_id", m.ToolCallID)
	}
	if m.Reasoning != nil {
		o.text("reasoning_content", *m.Reasoning)
	}
	if len(m.ToolCalls) > 0 {
		calls := make([]any, len(m.ToolCalls))
		for i, c := range m.ToolCalls {
			if !jsontext.Value(c.Arguments).IsValid() && e.err == nil { // templates parse them
				e.err = BadField(fmt.Sprintf("messages[%d].tool_calls[%d].function.arguments", index, i), "must be JSON")
			}
			calls[i] = map[string]any{"id": c.ID, "type": "function",
				"function": map[string]string{"name": c.Name, "arguments": c.Arguments}}
		}
		o.value("tool_calls", calls)
	}
	e.buf = o.end()
}

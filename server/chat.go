package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
	"pagoda/openapi"
)

// refusedInChat are OpenAI's fields that no engine of ours heeds.
var refusedInChat = []string{"audio", "function_call", "functions", "moderation", "prediction", "prompt_cache_options",
	"prompt_cache_retention", "verbosity", "web_search_options"}

// refusedInAssistant are the same in an assistant's message.
var refusedInAssistant = []string{"audio", "function_call"}

// chatCompletions serves POST /v1/chat/completions.
func (s *Server) chatCompletions(w http.ResponseWriter, r *http.Request) {
	var body openapi.ChatCompletionRequest
	if err := decode(r, &body); err != nil {
		s.writeError(w, r, err)
		return
	}
	req, out, err := s.chatRequest(w, &body)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if out.stream {
		s.stream(w, r, []*engine.Request{req}, newChatStream(req, out))
		return
	}
	a, err := s.collect(r, []*engine.Request{req})
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	*buf = s.appendChatCompletion(*buf, out, a)
	writeBody(w, http.StatusOK, *buf)
}

// chatRequest turns a body into what the engine is asked for.
func (s *Server) chatRequest(w http.ResponseWriter, b *openapi.ChatCompletionRequest) (*engine.Request, *reply, error) {
	model, err := s.model(b.Model)
	if err != nil {
		return nil, nil, err
	}
	c := &checker{model: model}
	req := &engine.Request{Model: model.ID}
	out := &reply{model: model.ID}
	c.sampling(&b.Sampling, s.cfg.MaxN, req, out)
	c.chatMaxTokens(b, &req.Sampling)
	req.Output.Logprobs = c.chatLogprobs(b)
	out.logprobs = req.Output.Logprobs != nil
	req.Chat = c.chat(b.Messages, &b.Template)
	c.toolChoice(b.ToolChoice, req.Chat)
	req.Chat.ParallelToolCalls = b.ParallelToolCalls
	c.forward(b)
	c.chatFixed(b)
	c.reasoningEffort(b.ReasoningEffort, req.Chat)
	c.refuse("", b.Unknown, refusedInChat)
	return req, out, s.finish(w, c, b.Unknown, req)
}

// forward moves the fields that an upstream may heed in full, and the native engine only in part, to those that are passed
// on untouched.
func (c *checker) forward(b *openapi.ChatCompletionRequest) {
	if !c.model.ForwardsUnknown {
		return
	}
	pass := func(name string, value []byte) {
		if b.Unknown == nil {
			b.Unknown = openapi.Unknown{}
		}
		b.Unknown[name] = value
	}
	if f := b.ResponseFormat; f != nil {
		pass("response_format", appendJSON(nil, f))
		b.ResponseFormat = nil
	}
	if e := b.ReasoningEffort; e != nil {
		pass("reasoning_effort", quote(*e))
		b.ReasoningEffort = nil
	}
}

// chatMaxTokens merges the two names of one limit.
func (c *checker) chatMaxTokens(b *openapi.ChatCompletionRequest, s *engine.Sampling) {
	older, newer := b.MaxTokens, b.MaxCompletionTokens
	if older != nil && newer != nil && *older != *newer {
		c.bad("max_tokens", "must equal max_completion_tokens if both are given")
	}
	if newer != nil {
		c.maxTokens("max_completion_tokens", newer, 1, s)
	} else {
		c.maxTokens("max_tokens", older, 1, s)
	}
}

func (c *checker) chatLogprobs(b *openapi.ChatCompletionRequest) *int {
	inRange(c, "top_logprobs", b.TopLogprobs, 0, maxTopLogprobs)
	if !isTrue(b.Logprobs) {
		if orZero(b.TopLogprobs) > 0 {
			c.bad("top_logprobs", "needs logprobs to be true")
		}
		return nil
	}
	top := orZero(b.TopLogprobs)
	return &top
}

// chatFixed checks the fields that have only one value here, or no effect.
func (c *checker) chatFixed(b *openapi.ChatCompletionRequest) {
	if f := b.ResponseFormat; f != nil {
		if f.Type != "text" {
			c.bad("response_format.type", `must be "text": structured output is not supported yet`)
		}
		c.nested("response_format.", f.Unknown)
	}
	for i, m := range b.Modalities {
		if m != "text" || i > 0 {
			c.bad(fmt.Sprintf("modalities[%d]", i), `must be "text", once`)
		}
	}
	if isTrue(b.Store) {
		c.bad("store", "must be false: nothing is stored")
	}
	if t := b.ServiceTier; t != nil && *t != "auto" && *t != "default" {
		c.bad("service_tier", `must be "auto" or "default"`)
	}
	c.metadata(b.Metadata)
}

func (c *checker) metadata(m map[string]*string) {
	if len(m) > 16 {
		c.bad("metadata", "must not have more than 16 entries")
	}
	for _, v := range m {
		if v == nil || len([]rune(*v)) > 512 {
			c.bad("metadata", "must have strings of at most 512 characters as values")
		}
	}
}

// reasoningEffort none is the template's switch, unless the client set that itself. Other efforts have no meaning to
// the models we run.
func (c *checker) reasoningEffort(effort *string, chat *engine.Chat) {
	if effort == nil {
		return
	}
	if *effort != "none" {
		c.bad("reasoning_effort", `must be "none" or absent`)
	}
	if _, ok := chat.TemplateKwargs["enable_thinking"]; ok {
		return
	}
	if chat.TemplateKwargs == nil {
		chat.TemplateKwargs = map[string]json.RawMessage{}
	}
	chat.TemplateKwargs["enable_thinking"] = json.RawMessage("false")
}

func (c *checker) toolChoice(v jsontext.Value, chat *engine.Chat) {
	if len(v) == 0 || v.Kind() == 'n' {
		return
	}
	var choice string
	if v.Kind() == '"' {
		_ = jsonv2.Unmarshal(v, &choice) // decode has checked the syntax
	}
	if c.model.ForwardsUnknown && v.Kind() == '{' {
		var named openapi.Tool
		if jsonv2.Unmarshal(v, &named) != nil || named.Type != "function" || named.Function.Name == "" {
			c.bad("tool_choice", `must be a text or {"type":"function","function":{"name":...}}`)
		}
		chat.ToolChoice, chat.ToolName = "function", named.Function.Name
		return
	}
	if choice != "auto" && choice != "none" && !(choice == "required" && c.model.ForwardsUnknown) {
		c.bad("tool_choice", `must be "auto" or "none": forced calls are not supported yet`)
	}
	chat.ToolChoice = choice
}

// chat checks messages and what decides how they are rendered.
func (c *checker) chat(messages []openapi.ChatMessage, t *openapi.Template) *engine.Chat {
	if messages == nil {
		c.bad("messages", "is required")
	}
	if len(messages) == 0 || len(messages) > maxMessages {
		c.bad("messages", "must have 1 to %d messages", maxMessages)
		messages = nil
	}
	chat := &engine.Chat{
		Messages: make([]engine.Message, len(messages)), Tools: c.tools(t.Tools),
		TemplateKwargs: t.ChatTemplateKwargs, AddGenerationPrompt: t.AddGenerationPrompt,
		ContinueFinal: isTrue(t.ContinueFinalMessage),
	}
	for i := range messages {
		chat.Messages[i] = c.message(messagePath(i), &messages[i])
	}
	c.answeredCalls(chat.Messages)
	if len(t.ChatTemplateKwargs) > maxTemplateArgs {
		c.bad("chat_template_kwargs", "must not have more than %d entries", maxTemplateArgs)
	}
	if !chat.ContinueFinal {
		return chat
	}
	if isTrue(t.AddGenerationPrompt) {
		c.bad("continue_final_message", "and add_generation_prompt must not both be true")
	}
	if n := len(chat.Messages); n == 0 || chat.Messages[n-1].Role != "assistant" || chat.Messages[n-1].Content == nil {
		c.bad("continue_final_message", "needs an assistant's message with a content at the end")
	}
	return chat
}

// answeredCalls gives a tool's message without tool_call_id, as LlamaFactory's clients send them, the id of the call that it answers
// by its place.
func (c *checker) answeredCalls(messages []engine.Message) {
	var calls []engine.ToolCall // not yet answered
	for i := range messages {
		m := &messages[i]
		if m.Role != "tool" {
			calls = m.ToolCalls
			continue
		}
		if m.ToolCallID == "" && len(calls) == 0 {
			c.bad(messagePath(i)+"tool_call_id", "is required where no call of the assistant goes before")
		}
		if m.ToolCallID == "" && len(calls) > 0 {
			m.ToolCallID = calls[0].ID
		}
		calls = calls[min(1, len(calls)):]
	}
}

// messagePaths are those of the messages of most conversations.
var messagePaths = func() (paths [32]string) {
	for i := range paths {
		paths[i] = fmt.Sprintf("messages[%d].", i)
	}
	return paths
}()

func messagePath(i int) string {
	if i < len(messagePaths) {
		return messagePaths[i]
	}
	return fmt.Sprintf("messages[%d].", i)
}

// message checks one turn. path ends in a dot.
func (c *checker) message(path string, m *openapi.ChatMessage) engine.Message {
	out := engine.Message{Role: m.Role, Name: orZero(m.Name), ToolCallID: orZero(m.ToolCallID), Reasoning: m.ReasoningContent}
	if out.Reasoning == nil {
		out.Reasoning = m.Reasoning
	}
	assistant := m.Role == "assistant"
	switch m.Role {
	case "system", "developer", "user", "assistant", "tool":
	case "function":
		if out.Name == "" {
			c.bad(path+"name", "is required in a function's message")
		}
	default:
		c.bad(path+"role", "must be system, developer, user, assistant, tool or function")
	}
	c.name(path, m.Name)
	if m.ToolCallID != nil && m.Role != "tool" {
		c.bad(path+"tool_call_id", "is only allowed in a tool's message")
	}
	if !assistant {
		c.assistantOnly(path, m)
	}
	switch {
	case m.Content.Parts == nil:
		out.Content = m.Content.Text
	case c.model.ForwardsUnknown && hasMedia(&m.Content):
		out.Parts = c.mediaParts(path+"content", m.Content.Parts)
	default:
		out.Content = c.content(path+"content", m.Content.Parts, assistant)
	}
	if out.Content == nil && out.Parts == nil && !assistant {
		c.bad(path+"content", "is required")
	}
	if m.Refusal != nil {
		text := orZero(out.Content) + *m.Refusal
		out.Content = &text
	}
	if len(m.Annotations) > 0 {
		c.bad(path+"annotations", "is not supported")
	}
	out.ToolCalls = c.toolCalls(path, m.ToolCalls)
	if assistant {
		c.refuse(path, m.Unknown, refusedInAssistant)
	}
	c.nested(path, m.Unknown)
	return out
}

func (c *checker) name(path string, name *string) {
	if name != nil && (*name == "" || len([]rune(*name)) > maxNameLen) {
		c.bad(path+"name", "must have 1 to %d characters", maxNameLen)
	}
}

// assistantOnly refuses what only an assistant's message may have.
func (c *checker) assistantOnly(path string, m *openapi.ChatMessage) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"tool_calls", m.ToolCalls != nil}, {"refusal", m.Refusal != nil}, {"annotations", m.Annotations != nil},
		{"reasoning_content", m.ReasoningContent != nil}, {"reasoning", m.Reasoning != nil},
	} {
		if f.set {
			c.bad(path+f.name, "is only allowed in an assistant's message")
		}
	}
}

// content joins the texts of a message.
func (c *checker) content(path string, parts []openapi.ContentPart, assistant bool) *string {
	if len(parts) == 0 {
		c.bad(path, "must not be an empty list")
	}
	var b strings.Builder
	for i, p := range parts {
		at := fmt.Sprintf("%s[%d].", path, i)
		if text := c.part(at, &p, assistant); text != nil {
			b.WriteString(*text)
		}
	}
	text := b.String()
	return &text
}

// part returns the text of a content part.
func (c *checker) part(path string, p *openapi.ContentPart, assistant bool) *string {
	text, key, other, otherKey := p.Text, "text", p.Refusal, "refusal"
	switch {
	case p.Type == "text":
	case p.Type == "refusal" && assistant:
		text, key, other, otherKey = other, otherKey, text, key
	case p.Type == "":
		c.bad(path+"type", "is required")
		return nil
	default:
		c.bad(path+"type", `must be "text": %q parts are not supported here`, clip(p.Type, maxNameShown))
		return nil
	}
	if text == nil {
		c.bad(path+key, "is required")
	}
	if other != nil {
		c.bad(path+otherKey, "is not allowed in a part of this type")
	}
	c.nested(path, p.Unknown)
	return text
}

func (c *checker) toolCalls(path string, calls []openapi.MessageCall) []engine.ToolCall {
	if len(calls) > maxTools {
		c.bad(path+"tool_calls", "must not have more than %d calls", maxTools)
	}
	var out []engine.ToolCall
	for i, call := range calls {
		at := fmt.Sprintf("%stool_calls[%d].", path, i)
		if call.ID == "" {
			c.bad(at+"id", "is required")
		}
		if call.Type != "function" {
			c.bad(at+"type", `must be "function"`)
		}
		if call.Function.Name == "" {
			c.bad(at+"function.name", "is required")
		}
		if call.Function.Arguments == nil {
			c.bad(at+"function.arguments", "is required")
		}
		c.nested(at, call.Unknown)
		c.nested(at+"function.", call.Function.Unknown)
		out = append(out, engine.ToolCall{ID: call.ID, Name: call.Function.Name, Arguments: orZero(call.Function.Arguments)})
	}
	return out
}

var functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// tools checks the tools and passes them on as the client wrote them, since templates show the order of their keys.
func (c *checker) tools(tools []jsontext.Value) []json.RawMessage {
	if len(tools) > maxTools {
		c.bad("tools", "must not have more than %d tools", maxTools)
	}
	var out []json.RawMessage
	for i, raw := range tools {
		path := fmt.Sprintf("tools[%d]", i)
		var t openapi.Tool
		if err := jsonv2.Unmarshal(raw, &t); err != nil {
			if c.err == nil {
				c.err = decodeError(path, err)
			}
			continue
		}
		c.tool(path+".", &t)
		out = append(out, json.RawMessage(raw))
	}
	return out
}

func (c *checker) tool(path string, t *openapi.Tool) {
	if t.Type != "function" {
		c.bad(path+"type", `must be "function"`)
	}
	if !functionName.MatchString(t.Function.Name) {
		c.bad(path+"function.name", "must be 1 to 64 letters, digits, _ and -")
	}
	if isTrue(t.Function.Strict) && !c.model.ForwardsUnknown {
		c.bad(path+"function.strict", "must be false: structured output is not supported yet")
	}
	c.nested(path, t.Unknown)
	c.nested(path+"function.", t.Function.Unknown)
}

package templated

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"pagoda/backends/native/codec"
	"pagoda/backends/proxy"
	"pagoda/engine"
)

// render makes req's prompt, has the upstream go on from it, and yields what its tokens say.
func (e *Engine) render(ctx context.Context, req *engine.Request, yield func(engine.Event, error) bool) {
	a := &answer{req: req, codec: e.codec, arrived: time.Now()}
	up, err := e.upstream(ctx, req, a)
	if err != nil {
		yield(engine.Event{}, err)
		return
	}
	for ev, err := range e.Engine.Generate(ctx, up) {
		if err != nil {
			yield(engine.Event{}, named(engine.AsError(err), req))
			return
		}
		out, err := a.event(&ev)
		if err != nil {
			yield(engine.Event{}, err)
			return
		}
		if out != nil && !yield(*out, nil) || a.open == 0 {
			return
		}
	}
}

// upstream is the completion to ask for, and a what its answer is read with.
func (e *Engine) upstream(ctx context.Context, req *engine.Request, a *answer) (*engine.Request, error) {
	if err := checkChat(req); err != nil {
		return nil, err
	}
	maxLen, err := e.maxLen(ctx)
	if err != nil {
		return nil, err
	}
	p, err := e.codec.Prompt(ctx, req, maxLen)
	if err != nil {
		return nil, err
	}
	maxTokens := req.Sampling.MaxTokens
	switch {
	case maxLen > 0:
		n, bad := codec.MaxTokens(req, len(p.Tokens), maxLen, e.o.Sampling.MaxTokens)
		if bad != nil {
			return nil, bad
		}
		maxTokens = &n
	case maxTokens == nil:
		if maxTokens = e.o.Sampling.MaxTokens; maxTokens == nil {
			return nil, engine.BadField("max_tokens", "max_tokens is required: the model's server does not tell how many tokens it takes")
		}
	}
	up := *req
	up.Chat, up.Text, up.Tokens, up.AddSpecialTokens = nil, nil, p.Tokens, nil
	up.Sampling.MaxTokens = maxTokens
	up.Sampling.StopTokenIDs = e.codec.EndTokens(&req.Sampling)
	up.Sampling.Stop = e.codec.StopStrings(req)
	up.Sampling.IncludeStop = false
	up.Output.TokenIDs = true
	a.namesByID = e.o.NamesByID && req.Output.Logprobs != nil
	up.Output.NameByID = a.namesByID
	if skip := req.Output.SkipSpecial; skip != nil && *skip {
		up.Output.SkipSpecial = nil
	}
	ch := req.Chat
	watched := ch != nil && len(ch.Tools) > 0 && ch.ParallelToolCalls != nil && !*ch.ParallelToolCalls
	if most := e.o.MaxStops; most > 0 && len(up.Sampling.Stop) > most {
		up.Sampling.Stop, watched = up.Sampling.Stop[:most], true
	}
	if watched { // the end is seen here, while the upstream would go on
		up.Output.Whole = false
	}
	if ch != nil {
		up.Extra = maps.Clone(req.Extra)
		delete(up.Extra, "reasoning_effort")
	}
	a.begin(p, up.Sampling.StopTokenIDs)
	return &up, nil
}

// maxLen is the most tokens of prompt and answer together, 0 if nobody tells.
func (e *Engine) maxLen(ctx context.Context) (int, error) {
	n, err := e.MaxLen(ctx)
	if n == 0 {
		n = e.o.MaxLen
	}
	return n, err
}

// chatOnly are fields that upstreams know in chats and not in completions.
var chatOnly = []string{"chat_template", "documents", "mm_processor_kwargs", "media_io_kwargs", "include_reasoning", "separate_reasoning",
	"stream_reasoning", "thinking_token_budget", "audio", "modalities", "function_call", "functions", "moderation", "prediction",
	"prompt_cache_options", "prompt_cache_retention", "verbosity", "web_search_options"}

// checkChat refuses what only a server that makes the prompts itself could do, and does what reasoning_effort says.
func checkChat(req *engine.Request) error {
	ch := req.Chat
	if ch == nil {
		return nil
	}
	for i := range ch.Messages {
		if ch.Messages[i].Parts != nil {
			return proxy.BadField(fmt.Sprintf("messages[%d].content", i), "must be text: this model's prompts are made by a template here")
		}
	}
	if ch.ToolChoice == "required" || ch.ToolChoice == "function" {
		return proxy.BadField("tool_choice", `must be "auto" or "none": calls are not forced where a template makes the prompts`)
	}
	for i, t := range ch.Tools {
		var tool struct{ Function struct{ Strict bool } }
		if json.Unmarshal(t, &tool) == nil && tool.Function.Strict {
			return proxy.BadField(fmt.Sprintf("tools[%d].function.strict", i), "must be false where a template makes the prompts")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(req.Extra)) {
		if slices.Contains(chatOnly, name) && string(req.Extra[name]) != "null" {
			return proxy.BadField(name, "is not supported where a template makes the prompts")
		}
	}
	switch effort := string(req.Extra["reasoning_effort"]); effort {
	case "", "null":
	case `"none"`:
		own := *ch
		own.TemplateKwargs = thinking(ch.TemplateKwargs, false)
		req.Chat = &own
	default:
		return proxy.BadField("reasoning_effort", `must be "none" or absent where a template makes the prompts`)
	}
	return nil
}

// named gives an error about the prompt the name that the client knows.
func named(err *engine.Error, req *engine.Request) *engine.Error {
	if req.Chat == nil || err.Param != "prompt" {
		return err
	}
	own := *err
	own.Param = "messages"
	return &own
}

package main

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"

	"pagoda/client"
	"pagoda/config"
	"pagoda/engine"
)

// localTalker asks an engine in this process.
type localTalker struct {
	eng      engine.Engine
	sampling engine.Sampling
}

func newLocalTalker(eng engine.Engine, cfg *config.Config) *localTalker {
	t := &localTalker{eng: eng}
	if cfg.Temperature != nil {
		t.sampling.Temperature = cfg.Temperature
	}
	if cfg.MaxTokens > 0 {
		t.sampling.MaxTokens = &cfg.MaxTokens
	}
	return t
}

func (t *localTalker) models(context.Context) ([]string, error) {
	var out []string
	for _, m := range t.eng.Models() {
		out = append(out, m.ID)
	}
	return out, nil
}

func (t *localTalker) answer(ctx context.Context, q question, part func(string, bool)) (finish string, err error) {
	req := &engine.Request{Model: q.model, Chat: &engine.Chat{}, Sampling: t.sampling}
	if q.think != nil {
		req.Chat.TemplateKwargs = map[string]json.RawMessage{"enable_thinking": strconv.AppendBool(nil, *q.think)}
	}
	for _, m := range q.messages {
		req.Chat.Messages = append(req.Chat.Messages, engine.Message{Role: m.Role, Content: &m.Content})
	}
	for ev, err := range t.eng.Generate(ctx, req) {
		if err != nil {
			return "", err
		}
		if ev.Finish != "" {
			finish = string(ev.Finish)
		}
		if ev.Reasoning != "" {
			part(ev.Reasoning, true)
		}
		if ev.Text != "" {
			part(ev.Text, false)
		}
	}
	return finish, nil
}

// close cancels what runs and frees the model.
func (t *localTalker) close() {
	_ = t.eng.Close(canceled()) // the process ends anyway
}

// remoteTalker asks any server that speaks OpenAI's API.
type remoteTalker struct {
	client *client.Client
	params map[string]any
}

func newRemoteTalker(cfg *config.Config) (*remoteTalker, error) {
	keys, err := cfg.Keys()
	if err != nil {
		return nil, err
	}
	t := &remoteTalker{client: client.New(cfg.URL, firstKey(keys)), params: map[string]any{}}
	if cfg.Temperature != nil {
		t.params["temperature"] = *cfg.Temperature
	}
	if cfg.MaxTokens > 0 {
		t.params["max_tokens"] = cfg.MaxTokens
	}
	return t, nil
}

func firstKey(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

func (t *remoteTalker) close() {}

func (t *remoteTalker) models(ctx context.Context) ([]string, error) { return t.client.Models(ctx) }

func (t *remoteTalker) answer(ctx context.Context, q question, part func(string, bool)) (finish string, err error) {
	body := map[string]any{"model": q.model, "messages": q.messages, "stream": true}
	maps.Copy(body, t.params)
	if q.think != nil { // an extra that not every server knows
		body["chat_template_kwargs"] = map[string]any{"enable_thinking": *q.think}
	}
	for chunk, err := range t.client.Stream(ctx, "/chat/completions", body) {
		if err != nil {
			return "", err
		}
		for _, c := range chunk.Choices {
			if c.FinishReason != "" {
				finish = c.FinishReason
			}
			if thought := c.Thought(); thought != "" {
				part(thought, true)
			}
			if c.Delta.Content != "" {
				part(c.Delta.Content, false)
			}
		}
	}
	return finish, nil
}

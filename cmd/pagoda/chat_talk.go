package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

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
	if cfg.Temperature >= 0 {
		t.sampling.Temperature = &cfg.Temperature
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

func (t *localTalker) answer(ctx context.Context, model string, messages []message, part func(string, bool)) error {
	req := &engine.Request{Model: model, Chat: &engine.Chat{}, Sampling: t.sampling}
	for _, m := range messages {
		req.Chat.Messages = append(req.Chat.Messages, engine.Message{Role: m.Role, Content: &m.Content})
	}
	for ev, err := range t.eng.Generate(ctx, req) {
		if err != nil {
			return err
		}
		if ev.Reasoning != "" {
			part(ev.Reasoning, true)
		}
		if ev.Text != "" {
			part(ev.Text, false)
		}
	}
	return nil
}

// close cancels what runs and frees the model.
func (t *localTalker) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = t.eng.Close(ctx) // the process ends anyway
}

// remoteTalker asks any server that speaks OpenAI's API.
type remoteTalker struct {
	base   string // without a slash at the end
	key    string
	params map[string]any
}

func newRemoteTalker(cfg *config.Config) (*remoteTalker, error) {
	keys, err := cfg.Keys()
	if err != nil {
		return nil, err
	}
	t := &remoteTalker{base: strings.TrimRight(cfg.URL, "/"), params: map[string]any{}}
	if !strings.HasSuffix(t.base, "/v1") {
		t.base += "/v1"
	}
	if len(keys) > 0 {
		t.key = keys[0]
	}
	if cfg.Temperature >= 0 {
		t.params["temperature"] = cfg.Temperature
	}
	if cfg.MaxTokens > 0 {
		t.params["max_tokens"] = cfg.MaxTokens
	}
	return t, nil
}

func (t *remoteTalker) close() {}

// call sends a request; the caller closes the body. An answer that is not 200 is an error.
func (t *remoteTalker) call(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.base+path, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.key != "" {
		req.Header.Set("Authorization", "Bearer "+t.key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a cut-off message is better than none
		var failed streamChunk
		if json.Unmarshal(text, &failed) == nil && failed.Error != nil {
			return nil, fmt.Errorf("%s: %s", resp.Status, failed.Error.Message)
		}
		return nil, errors.New(resp.Status)
	}
	return resp, nil
}

func (t *remoteTalker) models(ctx context.Context) ([]string, error) {
	resp, err := t.call(ctx, http.MethodGet, "/models", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list struct{ Data []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("list of models: %w", err)
	}
	var out []string
	for _, m := range list.Data {
		out = append(out, m.ID)
	}
	return out, nil
}

// streamChunk is what a chat needs of a chunk, or of an error.
type streamChunk struct {
	Choices []struct {
		Delta struct {
			Content          string
			ReasoningContent string `json:"reasoning_content"`
		}
	}
	Error *struct{ Message string }
}

func (t *remoteTalker) answer(ctx context.Context, model string, messages []message, part func(string, bool)) error {
	body := map[string]any{"model": model, "messages": messages, "stream": true}
	for k, v := range t.params {
		body[k] = v
	}
	resp, err := t.call(ctx, http.MethodPost, "/chat/completions", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue // a comment, or the empty line between events
		}
		if data = strings.TrimSpace(data); data == "[DONE]" {
			return nil
		}
		var chunk streamChunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return fmt.Errorf("the server's stream: %w", err)
		}
		if chunk.Error != nil {
			return errors.New(chunk.Error.Message)
		}
		for _, c := range chunk.Choices {
			if c.Delta.ReasoningContent != "" {
				part(c.Delta.ReasoningContent, true)
			}
			if c.Delta.Content != "" {
				part(c.Delta.Content, false)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF // no [DONE]
}

// Package client asks servers that speak OpenAI's API, as far as the commands chat and bench need it.
package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
)

const (
	maxLineBytes  = 16 << 20 // of a stream
	maxErrorBytes = 64 << 10
	maxConns      = 4096 // kept open between requests
)

// Client asks one server. It is safe for concurrent use.
type Client struct {
	base string // ends in /v1
	key  string
	http *http.Client
}

// New makes a client of the server at base, with or without /v1 at its end. key may be "".
func New(base, key string) *Client {
	base = strings.TrimRight(base, "/")
	if !strings.HasSuffix(base, "/v1") {
		base += "/v1"
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = maxConns, maxConns
	return &Client{base: base, key: key, http: &http.Client{Transport: transport}}
}

// Base is the address in use, which ends in /v1.
func (c *Client) Base() string { return c.base }

// StatusError is an answer that is not 200.
type StatusError struct {
	Code    int
	Message string // the server's own, else the status line
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the server says: %s (%d)", e.Message, e.Code)
}

// Chunk is what we read of a streamed chunk of a chat or a completion, and of an error.
type Chunk struct {
	Choices []Choice `json:"choices"`
	Usage   *Usage   `json:"usage"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Choice is a piece of an answer.
type Choice struct {
	Text  string `json:"text"` // of a completion
	Delta struct {
		Content          string            `json:"content"`
		ReasoningContent string            `json:"reasoning_content"`
		Reasoning        string            `json:"reasoning"` // another name for it
		ToolCalls        []json.RawMessage `json:"tool_calls"`
	} `json:"delta"` // of a chat
	FinishReason string `json:"finish_reason"`
}

// Thought is the reasoning in this piece.
func (c *Choice) Thought() string {
	if c.Delta.ReasoningContent != "" {
		return c.Delta.ReasoningContent
	}
	return c.Delta.Reasoning
}

// Usage counts tokens as the server does.
type Usage struct {
	PromptTokens        int `json:"prompt_tokens"`
	CompletionTokens    int `json:"completion_tokens"`
	PromptTokensDetails struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// Models lists the ids of the server's models.
func (c *Client) Models(ctx context.Context) ([]string, error) {
	resp, err := c.call(ctx, http.MethodGet, "/models", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("list of models: %w", err)
	}
	var out []string
	for _, m := range list.Data {
		out = append(out, m.ID)
	}
	return out, nil
}

// Stream posts body to path ("/chat/completions", "/completions") and yields the chunks. It ends after the first
// error; a stream without [DONE] at its end is one.
func (c *Client) Stream(ctx context.Context, path string, body any) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		resp, err := c.call(ctx, http.MethodPost, path, body)
		if err != nil {
			yield(Chunk{}, err)
			return
		}
		defer resp.Body.Close()
		if err := readEvents(resp.Body, func(chunk Chunk) bool { return yield(chunk, nil) }); err != nil {
			yield(Chunk{}, fmt.Errorf("the server's stream: %w", err))
		}
	}
}

// readEvents yields the chunks of a stream until [DONE], an error, or yield returns false, which is no error.
func readEvents(r io.Reader, yield func(Chunk) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, another field, or the empty line between events
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			return nil
		}
		var chunk Chunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			if !lines.Scan() {
				return ended(lines)
			}
			return err
		}
		if chunk.Error != nil {
			return errors.New(chunk.Error.Message)
		}
		if !yield(chunk) {
			return nil
		}
	}
	return ended(lines)
}

// ended is why a stream ended before its time.
func ended(lines *bufio.Scanner) error { return cmp.Or(lines.Err(), io.ErrUnexpectedEOF) }

// call sends a request; the caller closes the body of the answer, which is 200.
func (c *Client) call(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return nil, fmt.Errorf("no server answers at %s: %w", c.base, op.Err)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, statusError(resp)
	}
	return resp, nil
}

func statusError(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)) // a cut-off message is better than none
	var failed Chunk
	if json.Unmarshal(text, &failed) == nil && failed.Error != nil && failed.Error.Message != "" {
		return &StatusError{resp.StatusCode, failed.Error.Message}
	}
	return &StatusError{resp.StatusCode, http.StatusText(resp.StatusCode)}
}

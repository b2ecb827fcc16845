package proxy

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
)

// doneMark is the data of a stream's last event.
const doneMark = "[DONE]"

// chunk is what we read of an upstream's event and of its whole answer, of chats and completions, in the words of all
// upstreams. null is the same as absent.
type chunk struct {
	Choices        []chunkChoice   `json:"choices"`
	Usage          *chunkUsage     `json:"usage"`
	PromptTokenIDs []int32         `json:"prompt_token_ids"`
	PromptLogprobs []promptLogprob `json:"prompt_logprobs"` // vLLM's chats

	Error  jsontext.Value `json:"error"`
	Object string         `json:"object"` // "error" is SGLang's way to say it
}

type chunkChoice struct {
	Index          int             `json:"index"`
	Text           string          `json:"text"`    // of a completion
	Delta          *chunkMessage   `json:"delta"`   // of a streamed chat
	Message        *chunkMessage   `json:"message"` // of a whole chat
	Logprobs       *chunkLogprobs  `json:"logprobs"`
	FinishReason   string          `json:"finish_reason"`
	StopReason     jsontext.Value  `json:"stop_reason"`  // vLLM: a string or a token id
	MatchedStop    jsontext.Value  `json:"matched_stop"` // SGLang: the same
	TokenIDs       []int32         `json:"token_ids"`
	PromptTokenIDs []int32         `json:"prompt_token_ids"`
	PromptLogprobs []promptLogprob `json:"prompt_logprobs"` // vLLM's completions
}

type chunkMessage struct {
	Content          string      `json:"content"`
	Reasoning        string      `json:"reasoning"`         // vLLM
	ReasoningContent string      `json:"reasoning_content"` // SGLang
	Refusal          string      `json:"refusal"`
	ToolCalls        []chunkCall `json:"tool_calls"`
}

func (m *chunkMessage) thought() string {
	if m.Reasoning != "" {
		return m.Reasoning
	}
	return m.ReasoningContent
}

type chunkCall struct {
	Index    *int   `json:"index"` // absent in a whole answer
	ID       string `json:"id"`
	Function struct {
		Name      string         `json:"name"`
		Arguments jsontext.Value `json:"arguments"` // a string of JSON; some servers send the JSON itself
	} `json:"function"`
}

func (c *chunkCall) arguments() string {
	raw := c.Function.Arguments
	if raw.Kind() != '"' {
		if raw.Kind() == 'n' {
			return ""
		}
		return string(raw)
	}
	return unquote(raw)
}

type chunkUsage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Reasoning  int `json:"reasoning_tokens"` // SGLang
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

func (u *chunkUsage) usage() *engine.Usage {
	return &engine.Usage{Prompt: u.Prompt, Cached: u.Details.Cached, Completion: u.Completion,
		Reasoning: max(u.Reasoning, u.CompletionDetails.Reasoning)}
}

// chunkLogprobs are a chat's list, or a completion's parallel ones.
type chunkLogprobs struct {
	Content []struct {
		chunkLogprob
		Top []chunkLogprob `json:"top_logprobs"`
	} `json:"content"`

	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
}

type chunkLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// noToken is the id of a token whose id the upstream does not tell.
const noToken = -1

func (l *chunkLogprob) logprob() engine.TokenLogprob {
	out := engine.TokenLogprob{Token: noToken, Logprob: l.Logprob, Bytes: []byte(l.Token)}
	if l.Bytes != nil {
		out.Bytes = make([]byte, len(l.Bytes))
		for i, b := range l.Bytes {
			out.Bytes[i] = byte(b)
		}
	}
	return out
}

// logprobs brings both forms into ours; ids are the tokens' if they are known.
func (l *chunkLogprobs) logprobs(ids []int32) []engine.Logprob {
	if l == nil {
		return nil
	}
	var out []engine.Logprob
	for i := range l.Content {
		p := engine.Logprob{TokenLogprob: l.Content[i].logprob()}
		for k := range l.Content[i].Top {
			p.Top = append(p.Top, l.Content[i].Top[k].logprob())
		}
		out = append(out, p)
	}
	for i, token := range l.Tokens {
		p := engine.Logprob{TokenLogprob: engine.TokenLogprob{Token: noToken, Bytes: []byte(token)}}
		if i < len(l.TokenLogprobs) && l.TokenLogprobs[i] != nil {
			p.Logprob = *l.TokenLogprobs[i]
		}
		if i < len(l.TopLogprobs) {
			p.Top = topOf(l.TopLogprobs[i])
		}
		out = append(out, p)
	}
	for i := range out {
		if i < len(ids) && len(ids) == len(out) {
			out[i].Token = ids[i]
		}
	}
	return out
}

func topOf(m map[string]float64) []engine.TokenLogprob {
	out := make([]engine.TokenLogprob, 0, len(m))
	for token, logprob := range m {
		out = append(out, engine.TokenLogprob{Token: noToken, Logprob: logprob, Bytes: []byte(token)})
	}
	sortLikely(out)
	return out
}

// sortLikely sorts the likeliest first, and tokens of one probability by their text, so that the order is always the same.
func sortLikely(list []engine.TokenLogprob) {
	slices.SortFunc(list, func(a, b engine.TokenLogprob) int {
		switch {
		case a.Logprob > b.Logprob:
			return -1
		case a.Logprob < b.Logprob:
			return 1
		}
		return slices.Compare(a.Bytes, b.Bytes)
	})
}

// promptLogprob is vLLM's: by token id the prompt's own token and the likeliest ones; null for the first token.
type promptLogprob map[string]struct {
	Logprob float64 `json:"logprob"`
	Rank    int     `json:"rank"`
	Token   string  `json:"decoded_token"`
}

// promptLogprobs brings a prompt's into ours; ids are its tokens.
func promptLogprobs(list []promptLogprob, ids []int32) ([]engine.Logprob, error) {
	if len(list) != len(ids) {
		return nil, errors.New("prompt_logprobs are not one for each token of the prompt")
	}
	out := make([]engine.Logprob, len(list))
	for i, entry := range list {
		if entry == nil {
			continue // the first
		}
		for id, p := range entry {
			n, err := strconv.ParseInt(id, 10, 32)
			if err != nil {
				return nil, errors.New("prompt_logprobs are not by token id")
			}
			l := engine.TokenLogprob{Token: int32(n), Logprob: p.Logprob, Bytes: []byte(p.Token)}
			if l.Token == ids[i] {
				out[i].TokenLogprob = l
			}
			out[i].Top = append(out[i].Top, l)
		}
		sortLikely(out[i].Top)
	}
	return out, nil
}

// lenient reads what servers write: a repeated name or a broken character is no reason to fail an answer.
var lenient = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func decodeChunk(data []byte, c *chunk) error {
	return jsonv2.Unmarshal(data, c, lenient)
}

// stop reads what ended a choice: a string or a token id.
func (c *chunkChoice) stop() (text string, token *int32) {
	v := c.StopReason
	if len(v) == 0 || v.Kind() == 'n' {
		v = c.MatchedStop
	}
	switch v.Kind() {
	case '"':
		text = unquote(v)
	case '0':
		var id int32
		if json.Unmarshal(v, &id) == nil {
			token = &id
		}
	}
	return text, token
}

// unquote reads a JSON string that was parsed before.
func unquote(v jsontext.Value) string {
	b, _ := jsontext.AppendUnquote(nil, v)
	return string(b)
}

package encoder

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/jinja"
	"pagoda/checkpoint"
	"pagoda/engine"
)

// qwen3Pairs is the prompt that Qwen3-Reranker was trained with: the instruction, if there is one, comes in a message before
// the query and the document.
const qwen3Pairs = `<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ messages[0].content if messages | length == 3 else "Given a web search query, retrieve relevant passages that answer the query" }}
<Query>: {{ messages[-2].content }}
<Document>: {{ messages[-1].content }}<|im_end|>
<|im_start|>assistant
<think>

</think>{{ "\n\n" }}`

// findPairs finds how two texts become one: between an encoder's separators, or by a decoder's template.
func (e *Engine) findPairs(ck *checkpoint.Checkpoint) error {
	vars := e.tok.TemplateVars()
	if e.spec.decoder == nil {
		var ok1, ok2 bool
		e.cls, ok1 = e.tok.ID(vars["cls_token"])
		e.sep, ok2 = e.tok.ID(vars["sep_token"])
		if !ok1 || !ok2 {
			return errors.New("tokenizer: there is no cls_token or no sep_token to join pairs with")
		}
		return nil
	}
	source, err := e.pairTemplate(ck)
	if err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	t, err := jinja.Compile(source, jinja.Options{})
	if err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	c := chat.PrompterConfig{Template: t, Source: source, Tokens: vars}
	for _, s := range e.tok.Special() {
		c.Special = append(c.Special, s.Content)
	}
	e.pairs = chat.NewPrompter(c)
	return nil
}

// pairTemplate is the option's, else the checkpoint's own if it is one for pairs, else Qwen3-Reranker's for its architecture.
func (e *Engine) pairTemplate(ck *checkpoint.Checkpoint) (string, error) {
	if e.opts.ChatTemplate != "" {
		return e.opts.ChatTemplate, nil
	}
	data, err := ck.ReadFile("chat_template.jinja")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, source := range []string{string(data), e.tok.ChatTemplate()} {
		if mentions(source, "query") && mentions(source, "document") {
			return source, nil
		}
	}
	if strings.HasPrefix(e.spec.arch, "Qwen3For") {
		return qwen3Pairs, nil
	}
	return "", fmt.Errorf("%s scores prompts, and the checkpoint has no template for pairs: give one that renders a message "+
		"of the role query and one of the role document", e.spec.arch)
}

// mentions says whether a template tests for a role.
func mentions(template, role string) bool {
	return strings.Contains(template, `"`+role+`"`) || strings.Contains(template, "'"+role+"'")
}

// promptText makes a pair a decoder's prompt. What is too long loses the end, or the beginning, of the document.
func (e *Engine) promptText(req *engine.ScoreRequest, i int) (*text, error) {
	name, document := fmt.Sprintf("%s[%d]", req.Field, i), req.Pairs[i].Second
	limit, cut := e.limit(&req.Pooling)
	var doc []int32 // the document's tokens, once it must be cut
	if req.MaxSecond > 0 {
		var err error
		if doc, err = e.encode("", document); err != nil {
			return nil, err
		}
		if len(doc) > req.MaxSecond {
			doc = doc[:req.MaxSecond]
			document = e.textOf(doc)
		}
	}
	for {
		ids, err := e.promptTokens(req, i, document)
		if err != nil {
			return nil, err
		}
		over := len(ids) - limit
		switch {
		case over <= 0:
			return &text{ids: ids, second: len(ids)}, e.known(name, ids)
		case !cut:
			return nil, tooLong(name, len(ids), limit)
		case doc == nil:
			if doc, err = e.encode("", document); err != nil {
				return nil, err
			}
		}
		keep := len(doc) - over
		switch {
		case keep < 0 || len(doc) == 0:
			return nil, engine.BadField("truncate_prompt_tokens", "%s: %d leaves no room for the prompt and the query", name, limit)
		case req.TruncateLeft:
			doc = doc[len(doc)-keep:]
		default:
			doc = doc[:keep]
		}
		document = e.textOf(doc)
	}
}

// textOf is the text of tokens, without the remains of letters that were cut.
func (e *Engine) textOf(ids []int32) string { return strings.Trim(e.tok.Decode(ids, false), "\uFFFD") }

func (e *Engine) promptTokens(req *engine.ScoreRequest, i int, document string) ([]int32, error) {
	instruction := req.Instruction
	if instruction == "" {
		instruction, _ = e.sentence.before(nil)
	}
	p, err := e.pairs.RenderPair(instruction, req.Pairs[i].First, document)
	if err != nil {
		return nil, err
	}
	return e.tok.EncodeCut(p.Text, p.Cuts)
}

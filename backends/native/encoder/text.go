package encoder

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"pagoda/engine"
)

// embedText makes a request's i-th input tokens.
func (e *Engine) embedText(req *engine.EmbedRequest, i int) (*text, error) {
	return e.inputText(&req.Pooling, fmt.Sprintf("input[%d]", i), req.Inputs[i], req.PromptName, req.AddSpecialTokens)
}

// inputText makes an input tokens, behind the prompt of that name.
func (e *Engine) inputText(p *engine.Pooling, name string, in engine.Input, prompt *string, addSpecial *bool) (*text, error) {
	if in.Tokens != nil {
		if err := e.known(name, in.Tokens); err != nil {
			return nil, err
		}
		return e.fit(p, name, nil, in.Tokens, nil)
	}
	before, ok := e.sentence.before(prompt)
	if !ok {
		return nil, engine.BadField("prompt_name", "the model has no prompt %q; it has %q", *prompt, slices.Sorted(maps.Keys(e.sentence.prompts)))
	}
	ids, err := e.encode(before, in.Text)
	if err == nil {
		err = e.known(name, ids)
	}
	if err != nil {
		return nil, err
	}
	if addSpecial != nil && !*addSpecial {
		return e.fit(p, name, nil, ids, nil)
	}
	return e.fit(p, name, e.prefix, ids, e.suffix)
}

// encode makes a text tokens, behind a prompt of the model's own. The spelling of a control token in the text stays text.
func (e *Engine) encode(prompt, words string) ([]int32, error) {
	all := prompt + words
	if e.sentence.lower {
		all = strings.ToLower(all)
	}
	var cuts []int
	for _, s := range e.tok.Special() {
		_, first := utf8.DecodeRuneInString(s.Content)
		if first == len(s.Content) {
			continue // it cannot be cut
		}
		for at := max(0, len(prompt)-len(s.Content)+1); ; {
			i := strings.Index(all[at:], s.Content)
			if i < 0 {
				break
			}
			at += i + first
			cuts = append(cuts, at)
		}
	}
	slices.Sort(cuts)
	return e.tok.EncodeCut(all, slices.Compact(cuts))
}

// known refuses tokens that the model has no embedding for.
func (e *Engine) known(name string, ids []int32) error {
	if k := slices.IndexFunc(ids, func(id int32) bool { return id < 0 || int(id) >= e.spec.Vocab }); k >= 0 {
		return engine.BadField(name, "%s: token id %d is not in the model's vocabulary", name, ids[k])
	}
	return nil
}

// limit is how many tokens an input may have.
func (e *Engine) limit(p *engine.Pooling) (n int, cut bool) {
	if p.Truncate == nil {
		return e.maxLen, false
	}
	if *p.Truncate < 0 {
		return e.maxLen, true
	}
	return min(*p.Truncate, e.maxLen), true
}

func tooLong(name string, tokens, limit int) error {
	return &engine.Error{Code: engine.TooLong, Param: name, Message: fmt.Sprintf("%s has %d tokens, the model takes at most %d; "+
		"truncate_prompt_tokens (-1) cuts what is longer", name, tokens, limit)}
}

// fit joins a text's tokens with the special ones around them, and cuts it if the request says so.
func (e *Engine) fit(p *engine.Pooling, name string, prefix, ids, suffix []int32) (*text, error) {
	limit, cut := e.limit(p)
	around := len(prefix) + len(suffix)
	if n := len(ids) + around; n > limit && !cut {
		return nil, tooLong(name, n, limit)
	}
	keep := min(len(ids), limit-around)
	if keep < 0 {
		return nil, engine.BadField("truncate_prompt_tokens", "%d leaves no room for the %d special tokens", limit, around)
	}
	if p.TruncateLeft {
		ids = ids[len(ids)-keep:]
	} else {
		ids = ids[:keep]
	}
	all := slices.Concat(prefix, ids, suffix)
	if len(all) == 0 {
		return nil, engine.BadField(name, "%s has no tokens", name)
	}
	return &text{ids: all, second: len(all)}, nil
}

// pairText makes a pair one text, as cross-encoders were trained: both with separators. What is too long loses tokens of
// the longer of the two.
func (e *Engine) pairText(req *engine.ScoreRequest, i int) (*text, error) {
	p, name := req.Pairs[i], fmt.Sprintf("%s[%d]", req.Field, i)
	if req.Instruction != "" {
		return nil, engine.BadField("instruction", "the model '%s' takes no instruction", req.Model)
	}
	a, err := e.encode("", p.First)
	if err != nil {
		return nil, err
	}
	b, err := e.encode("", p.Second)
	if err != nil {
		return nil, err
	}
	if req.MaxSecond > 0 && len(b) > req.MaxSecond {
		b = b[:req.MaxSecond]
	}
	middle := []int32{e.sep}
	if e.spec.roberta {
		middle = append(middle, e.sep)
	}
	limit, cut := e.limit(&req.Pooling)
	around := 2 + len(middle)
	if n := len(a) + len(b) + around; n > limit {
		if !cut {
			return nil, tooLong(name, n, limit)
		}
		if limit < around {
			return nil, engine.BadField("truncate_prompt_tokens", "%d leaves no room for the %d special tokens", limit, around)
		}
		na, nb := longestFirst(len(a), len(b), limit-around)
		if req.TruncateLeft {
			a, b = a[len(a)-na:], b[len(b)-nb:]
		} else {
			a, b = a[:na], b[:nb]
		}
	}
	ids := slices.Concat([]int32{e.cls}, a, middle, b, []int32{e.sep})
	return &text{ids: ids, second: 1 + len(a) + len(middle)}, nil
}

// longestFirst says how many tokens two texts keep if the longer one loses one until both fit.
func longestFirst(a, b, most int) (int, int) {
	if a > b {
		b, a = longestFirst(b, a, most)
		return a, b
	}
	if b = max(a, most-a); a+b > most {
		a = most / 2
		b = most - a
	}
	return a, b
}

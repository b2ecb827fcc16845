package native

import (
	"fmt"

	"pagoda/backends/native/model"
	"pagoda/backends/native/token"
)

// VocabularyOptions change the tokenizer, and with it the model's embedding.
type VocabularyOptions struct {
	AddTokens        []string // ordinary tokens to add
	AddSpecialTokens []string // control tokens to add
	// Descriptions tell of added control tokens, by their spelling; see Describe.
	Descriptions map[string]string
	// Describe makes a new token's embedding the mean of its description's tokens, else it is the mean of all.
	Describe bool
	// Resize grows the embedding where the tokenizer has more tokens than it has rows. Adding tokens implies it.
	Resize bool
	// SplitSpecialTokens makes the spelling of control tokens in plain prompts text. In chats it always is.
	SplitSpecialTokens bool
}

func (o VocabularyOptions) tokenizer() token.Options {
	return token.Options{AddTokens: o.AddTokens, AddSpecialTokens: o.AddSpecialTokens, SplitSpecialTokens: o.SplitSpecialTokens}
}

// grows tells whether the embedding may have to grow.
func (o VocabularyOptions) grows() bool {
	return o.Resize || len(o.AddTokens)+len(o.AddSpecialTokens) > 0
}

// rowsMultiple is what the rows of a grown embedding are a multiple of, as LlamaFactory's.
const rowsMultiple = 64

// growth is how the checkpoint's embedding must grow, nil if it need not.
func (e *Engine) growth(spec *model.Spec) (*model.Growth, error) {
	o := e.opts.Vocabulary
	if !o.grows() || e.tok.VocabSize() <= spec.Vocab {
		return nil, nil
	}
	rows := (e.tok.VocabSize() + rowsMultiple - 1) / rowsMultiple * rowsMultiple
	g := &model.Growth{Vocab: rows, From: map[int][]int32{}}
	e.opts.Log.Info().Int("rows", rows).Int("checkpoint", spec.Vocab).Msg("the embedding grows for added tokens")
	if !o.Describe {
		return g, nil
	}
	for content, description := range o.Descriptions {
		id, ok := e.tok.ID(content)
		if !ok || int(id) < spec.Vocab {
			continue // a token that the checkpoint has
		}
		ids, err := e.tok.EncodeCut(description, nil)
		if err != nil {
			return nil, fmt.Errorf("the description of %q: %w", content, err)
		}
		for _, from := range ids {
			if int(from) < spec.Vocab {
				g.From[int(id)] = append(g.From[int(id)], from)
			}
		}
	}
	return g, nil
}

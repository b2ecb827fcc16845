package native

import (
	"context"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rs/zerolog"

	"pagoda/engine"
)

// withTokens is the built-in model with a tokenizer that has two tokens more than the model has rows.
func withTokens(t *testing.T) fs.FS {
	t.Helper()
	files := demoFiles(t)
	config := `{"eos_token": "<|im_end|>", "chat_template": "{{ messages[0].content }}", "added_tokens_decoder": {` +
		`"2048": {"content": "<first>", "special": true}, "2049": {"content": "<second>", "special": false}}}`
	files["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(config)}
	return files
}

func openVocabulary(t *testing.T, o VocabularyOptions) *Engine {
	t.Helper()
	e, err := New(Options{Files: withTokens(t), Name: "m", Vocabulary: o, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func tokensOf(e *Engine, text string) ([]int32, error) {
	return e.Tokenize(context.Background(), &engine.Request{Model: "m", Text: &text})
}

func TestResizeVocab(t *testing.T) {
	plain := openVocabulary(t, VocabularyOptions{})
	if _, err := tokensOf(plain, "a<second>"); err == nil || !strings.Contains(err.Error(), `token 2049, "<second>"`) {
		t.Errorf("a token without an embedding: %v", err)
	}
	grown := openVocabulary(t, VocabularyOptions{Resize: true})
	if grown.vocab != 2050 || grown.model.VocabSize() != 2112 {
		t.Errorf("%d tokens, %d rows", grown.vocab, grown.model.VocabSize())
	}
	if ids, err := tokensOf(grown, "<first><second>"); err != nil || len(ids) != 2 || ids[0] != 2048 || ids[1] != 2049 {
		t.Errorf("ids %v, error %v", ids, err)
	}
	text := "<second> hi"
	events := 0
	for _, err := range grown.Generate(t.Context(), &engine.Request{Model: "m", Text: &text, Sampling: engine.Sampling{MaxTokens: new(3)}}) {
		if err != nil {
			t.Fatal(err)
		}
		events++
	}
	if events == 0 {
		t.Error("no answer to a prompt with a new token")
	}
}

func TestDescribedTokens(t *testing.T) {
	o := VocabularyOptions{AddSpecialTokens: []string{"<third>"}, Descriptions: map[string]string{"<third>": "Hello", "<first>": "x"}, Describe: true}
	e := openVocabulary(t, o)
	spec := *e.model.Spec()
	spec.Vocab = 2048 // the checkpoint's
	g, err := e.growth(&spec)
	if err != nil {
		t.Fatal(err)
	}
	hello, err := tokensOf(e, "Hello")
	if err != nil {
		t.Fatal(err)
	}
	if g.Vocab != 2112 || len(g.From[2050]) != len(hello) || g.From[2050][0] != hello[0] || len(g.From[2048]) != 1 {
		t.Errorf("growth %+v, want rows of %v", g, hello)
	}
}

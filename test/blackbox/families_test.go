package blackbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestFamilies serves the tiny checkpoint of each family of models, and compares the tokens that follow its prompt with those
// of Hugging Face's library.
func TestFamilies(t *testing.T) {
	files, err := filepath.Glob(root + "/backends/native/model/testdata/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var want struct{ Tokens, Greedy []int32 }
			data, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(data, &want)
			}
			if err != nil || len(want.Greedy) == 0 {
				t.Fatalf("%d greedy tokens, %v", len(want.Greedy), err)
			}
			p := serve(t, "--model_name_or_path", withTokenizer(t, dir), "--infer-dtype", "float32", "--threads", "1",
				"--max-num-seqs", "4", "--served-model-name", "m")
			a := p.must(t, completionPath, fields{"model": "m", "prompt": want.Tokens, "max_tokens": len(want.Greedy), "temperature": 0,
				"ignore_eos": true, "return_token_ids": true})
			if !slices.Equal(a.choices[0].ids, want.Greedy) {
				t.Errorf("tokens\n%v, want\n%v", a.choices[0].ids, want.Greedy)
			}
		})
	}
}

// withTokenizer is a copy of a checkpoint with a tokenizer of 64 words.
func withTokenizer(t *testing.T, dir string) string {
	t.Helper()
	vocab := map[string]int{}
	for id := range 64 {
		vocab[fmt.Sprint("w", id)] = id
	}
	tokenizer, err := json.Marshal(map[string]any{"version": "1.0", "added_tokens": []any{},
		"pre_tokenizer": map[string]any{"type": "WhitespaceSplit"},
		"model":         map[string]any{"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}})
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "tokenizer.json"), tokenizer, 0o644); err != nil {
		t.Fatal(err)
	}
	return to
}

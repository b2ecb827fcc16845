package blackbox

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pagoda/openapi"
)

// pooled is what the scripts beside the tiny checkpoints of embedders and rerankers computed.
type pooled struct {
	Texts   []string
	Vectors [][]float64
	Pooled  map[string][][]float64
	Pairs   [][2]string
	Scores  []float64
	Logits  []float64
}

// TestEmbeddersAndRerankers serves all of them behind one address, beside a model of another server, and compares what they
// answer with what sentence-transformers and transformers computed.
func TestEmbeddersAndRerankers(t *testing.T) {
	fixtures, err := filepath.Abs(root + "/backends/native/encoder/testdata")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(fixtures + "/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	config := "threads: 1\nmodels:\n  - {infer_backend: vllm, model: elsewhere, upstream_url: \"http://127.0.0.1:1\"}\n"
	for _, file := range files {
		dir := filepath.Dir(file)
		config += fmt.Sprintf("  - model: %s\n", dir)
		if filepath.Base(dir) == "qwen3-reranker" {
			config += "    hf_overrides: {architectures: [Qwen3ForSequenceClassification], classifier_from_token: [\"no\", \"yes\"]}\n"
		}
	}
	path := filepath.Join(t.TempDir(), "pagoda.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, path)
	for _, file := range files {
		var want pooled
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			if len(want.Pairs) > 0 {
				p.wantScores(t, name, &want)
			} else {
				p.wantVectors(t, name, &want)
			}
		})
	}
}

func (p *process) wantVectors(t *testing.T, model string, want *pooled) {
	vectors := want.Vectors
	if vectors == nil {
		vectors = want.Pooled["mean"] // what a checkpoint without sentence-transformers' files gets
	}
	// The route refuses empty texts.
	var texts []string
	var expect [][]float64
	for i, text := range want.Texts {
		if text != "" {
			texts, expect = append(texts, text), append(expect, vectors[i])
		}
	}
	var got struct {
		Data []struct{ Embedding []float64 }
	}
	p.call(t, "/v1/embeddings", fields{"model": model, "input": texts}, &got)
	if len(got.Data) != len(expect) || len(expect) == 0 {
		t.Fatalf("%d vectors, want %d", len(got.Data), len(expect))
	}
	for i, v := range got.Data {
		if len(v.Embedding) != len(expect[i]) {
			t.Fatalf("text %d has %d numbers, want %d", i, len(v.Embedding), len(expect[i]))
		}
		for k, x := range v.Embedding {
			if !(math.Abs(x-expect[i][k]) <= 1e-4) {
				t.Fatalf("text %d, number %d is %g, want %g", i, k, x, expect[i][k])
			}
		}
	}
}

func (p *process) wantScores(t *testing.T, model string, want *pooled) {
	scores := want.Scores
	for _, x := range want.Logits {
		scores = append(scores, 1/(1+math.Exp(-x)))
	}
	var first, second []string
	for _, pair := range want.Pairs {
		first, second = append(first, pair[0]), append(second, pair[1])
	}
	var got openapi.ScoreList
	p.call(t, "/v1/score", fields{"model": model, "text_1": first, "text_2": second}, &got)
	if len(got.Data) != len(scores) || len(scores) == 0 {
		t.Fatalf("%d scores, want %d", len(got.Data), len(scores))
	}
	for i, s := range got.Data {
		if !(math.Abs(s.Score-scores[i]) <= 1e-4) {
			t.Errorf("pair %d: %g, want %g", i, s.Score, scores[i])
		}
	}
	var best openapi.Ranking
	p.call(t, "/v1/rerank", fields{"model": model, "query": first[0], "documents": second}, &best)
	if len(best.Results) != len(second) {
		t.Fatalf("%d documents are ranked", len(best.Results))
	}
	for _, r := range best.Results {
		if r.Index == 0 && !(math.Abs(r.RelevanceScore-scores[0]) <= 1e-4) || r.RelevanceScore > best.Results[0].RelevanceScore {
			t.Errorf("%+v, want %g for the first", best.Results, scores[0])
		}
	}
	a, err := p.ask(t.Context(), "/v1/embeddings", fields{"model": model, "input": "a"})
	if err != nil || a.err == nil || !strings.Contains(a.err.Message, "/v1/rerank") {
		t.Errorf("%+v, %v", a, err)
	}
}

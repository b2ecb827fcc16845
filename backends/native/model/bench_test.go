package model_test

import (
	"fmt"
	"math"
	"testing"
	"testing/fstest"
	"time"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
)

// benchConfig is the shape of Qwen3-0.6B.
const benchConfig = `{"architectures":["Qwen3ForCausalLM"],"torch_dtype":"bfloat16","vocab_size":151936,"hidden_size":1024,
	"intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":128,
	"max_position_embeddings":40960,"rms_norm_eps":1e-6,"rope_theta":1000000,"hidden_act":"silu","tie_word_embeddings":true}`

// dummyRig is a 0.6 B model with random weights.
func dummyRig(b *testing.B) *rig {
	b.Helper()
	config, err := checkpoint.OpenFS(fstest.MapFS{"config.json": &fstest.MapFile{Data: []byte(benchConfig)}}).Config()
	if err != nil {
		b.Fatal(err)
	}
	spec, err := model.NewSpec(config)
	if err != nil {
		b.Fatal(err)
	}
	dev := openDevice(b, "")
	m, err := model.LoadDummy(dev, spec, 1, model.Options{MaxLen: 1024})
	if err != nil {
		b.Fatal(err)
	}
	return newRig(b, dev, m, 1024, model.Limits{MaxTokens: 512, MaxSeqs: 16, MaxLogitRows: 16})
}

// BenchmarkForward measures steps of a 0.6 B model: decodes of several sequences with 256 tokens in the cache, and
// prefill. GB/s counts the weights once per step.
func BenchmarkForward(b *testing.B) {
	r := dummyRig(b)
	for _, shape := range []struct{ seqs, tokens int }{{1, 1}, {4, 1}, {16, 1}, {1, 64}, {1, 512}} {
		b.Run(fmt.Sprintf("seqs=%d/tokens=%d", shape.seqs, shape.tokens), func(b *testing.B) {
			batch := benchBatch(shape.seqs, shape.tokens, 256)
			b.ReportAllocs()
			for b.Loop() {
				r.forward(batch)
			}
			perSecond := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(perSecond*float64(shape.seqs*shape.tokens), "tok/s")
			b.ReportMetric(perSecond*float64(r.model.Bytes())/1e9, "GB/s")
		})
	}
}

// BenchmarkDemo measures steps of the built-in model, where the cost of calls shows: its weights fit a cache. Adapters
// are two in turn, one sequence each.
func BenchmarkDemo(b *testing.B) {
	r := demoRig(b, "", model.Options{})
	for _, shape := range []struct {
		seqs, tokens, cached int
		adapters             bool
	}{{1, 1, 64, false}, {1, 1, 64, true}, {1, 1, 900, false}, {8, 1, 64, false}, {8, 1, 64, true}, {32, 1, 200, false}, {32, 1, 200, true}, {1, 256, 0, false}} {
		name := fmt.Sprintf("seqs=%d/tokens=%d/cached=%d/adapters=%v", shape.seqs, shape.tokens, shape.cached, shape.adapters)
		b.Run(name, func(b *testing.B) {
			batch := benchBatch(shape.seqs, shape.tokens, shape.cached)
			for i := range shape.seqs {
				if shape.adapters {
					name := []string{"shout", "pirate"}[i*2/shape.seqs]
					batch.Runs = append(batch.Runs, model.Run{Start: i, Len: 1, LoRA: r.loras[name]})
				}
			}
			b.ReportAllocs()
			best := time.Duration(math.MaxInt64)
			for b.Loop() {
				start := time.Now()
				r.forward(batch)
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(best)/1e3, "best-µs")
			b.ReportMetric(float64(shape.seqs*shape.tokens)/best.Seconds(), "tok/s")
		})
	}
}

// benchBatch gives each sequence new tokens after those in the cache.
func benchBatch(seqs, tokens, cached int) *model.Batch {
	batch := &model.Batch{QueryStarts: []int32{0}}
	perSeq := (cached + tokens + blockSize - 1) / blockSize
	for s := range seqs {
		table := make([]int32, perSeq)
		for i := range table {
			table[i] = int32(s*perSeq + i)
		}
		for p := cached; p < cached+tokens; p++ {
			batch.Tokens = append(batch.Tokens, int32((p*7+s)%2000))
			batch.Positions = append(batch.Positions, int32(p))
			batch.Slots = append(batch.Slots, table[p/blockSize]*blockSize+int32(p%blockSize))
		}
		batch.QueryStarts = append(batch.QueryStarts, int32(len(batch.Tokens)))
		batch.SeqLens = append(batch.SeqLens, int32(cached+tokens))
		batch.BlockTables = append(batch.BlockTables, table)
		batch.LogitRows = append(batch.LogitRows, int32(len(batch.Tokens)-1))
	}
	return batch
}

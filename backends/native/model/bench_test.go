package model_test

import (
	"fmt"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/model"
	"pagoda/checkpoint"
)

// benchConfig is the shape of Qwen3-0.6B.
const benchConfig = `{"architectures":["Qwen3ForCausalLM"],"torch_dtype":"bfloat16","vocab_size":151936,"hidden_size":1024,
	"intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":128,
	"max_position_embeddings":40960,"rms_norm_eps":1e-6,"rope_theta":1000000,"hidden_act":"silu","tie_word_embeddings":true}`

// BenchmarkForward measures steps of a 0.6 B model with random weights: decodes of several sequences with 256 tokens
// in the cache, and prefill. GB/s counts the weights once per step.
func BenchmarkForward(b *testing.B) {
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
	r := newRig(b, dev, m, 1024, model.Limits{MaxTokens: 512, MaxSeqs: 16, MaxLogitRows: 16})
	for _, shape := range []struct{ seqs, tokens int }{{1, 1}, {4, 1}, {16, 1}, {1, 64}, {1, 512}} {
		b.Run(fmt.Sprintf("seqs=%d/tokens=%d", shape.seqs, shape.tokens), func(b *testing.B) {
			batch := benchBatch(shape.seqs, shape.tokens, 256)
			b.ReportAllocs()
			for b.Loop() {
				r.forward(batch)
			}
			perSecond := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(perSecond*float64(shape.seqs*shape.tokens), "tok/s")
			b.ReportMetric(perSecond*float64(m.Bytes())/1e9, "GB/s")
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
			batch.Tokens = append(batch.Tokens, int32(p*7+s))
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

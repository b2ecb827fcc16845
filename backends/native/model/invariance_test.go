package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"pagoda/backends/native/model"
)

// TestBatchInvariance: a sequence's logits are the same bit for bit alone or among others, with any chunking of its
// prompt, in any blocks, also in blocks that another sequence filled.
func TestBatchInvariance(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		options := []model.Options{{DType: model.Float32}, {DType: model.BFloat16}, {DType: model.BFloat16, KVDType: model.BFloat16},
			{DType: model.BFloat16, KVDType: model.FP8}, {DType: model.BFloat16, KVDType: model.Int8},
			{DType: model.BFloat16, Bits: 8}, {DType: model.Float32, Bits: 4}}
		prompt, steps, chunks, names := longPrompt(t, 150), 6, []int{1, 7, 64}, []string{"", "shout", "french"}
		if variant == "ref" { // slow
			options, prompt, steps, chunks, names = options[1:2], prompt[:50], 2, chunks[1:2], names[:2]
		}
		for _, o := range options {
			t.Run(fmt.Sprintf("%s/bits=%d/cache=%s", o.DType, o.Bits, o.KVDType), func(t *testing.T) {
				r := demoRig(t, variant, o)
				for _, name := range names {
					want := r.alone(r.newSeq(prompt, name), len(prompt), steps)
					for _, chunk := range chunks {
						r.shuffle(uint64(chunk))
						compare(t, r.alone(r.newSeq(prompt, name), chunk, steps), want, "adapter %q, chunks of %d", name, chunk)
					}
					r.shuffle(99)
					compare(t, r.crowded(prompt, name, steps), want, "adapter %q, among others", name)
					compare(t, r.alone(r.shared(prompt, name), 64, steps), want, "adapter %q, shared blocks", name)
				}
			})
		}
	})
}

// TestFamiliesAreInvariant: the same for all tiny checkpoints, whose layers differ in more, with chunks that end in and
// between windows.
func TestFamiliesAreInvariant(t *testing.T) {
	files, err := filepath.Glob("testdata/*/golden.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	everyVariant(t, func(t *testing.T, variant string) {
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(filepath.Base(dir), func(t *testing.T) {
				prompt := readGolden(t, file).Tokens
				dev := openDevice(t, variant)
				m := loadModel(t, dev, openCheckpoint(t, dir), model.Options{DType: model.BFloat16})
				r := newRig(t, dev, m, 40, model.Limits{MaxTokens: 256, MaxSeqs: 8, MaxLogitRows: 8})
				want := r.alone(r.newSeq(prompt, ""), len(prompt), 4)
				for _, chunk := range []int{1, 7, 16} {
					r.shuffle(uint64(chunk))
					compare(t, r.alone(r.newSeq(prompt, ""), chunk, 4), want, "chunks of %d", chunk)
				}
				r.shuffle(99)
				compare(t, r.crowded(prompt, "", 4), want, "among others")
				if m.Spec().StateBytes() == 0 { // a state is not in blocks
					compare(t, r.alone(r.shared(prompt, ""), 64, 4), want, "shared blocks")
				}
			})
		}
	})
}

// TestManyRows: a step of more rows than the feed-forward takes at once, with adapters across the cut.
func TestManyRows(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		if variant == "ref" {
			t.Skip("it takes 7 s, and what cuts the rows is the same code")
		}
		r := demoRig(t, variant, model.Options{DType: model.BFloat16})
		prompt := longPrompt(t, 110)
		var items []item
		var want [][]float32
		for i, name := range []string{"", "shout", "pirate"} {
			ids := prompt[:[]int{100, 110, 46}[i]] // "shout" has the rows 100 to 210
			alone := r.newSeq(ids, name)
			r.prefill(alone, 64)
			want = append(want, alone.logits)
			r.release(alone)
			items = append(items, item{r.newSeq(ids, name), len(ids)})
		}
		r.step(items...)
		for i, it := range items {
			compare(t, [][]float32{it.logits}, want[i:i+1], "sequence %d", i)
		}
	})
}

// longPrompt is the beginnings of several cases, one after another.
func longPrompt(t *testing.T, n int) (ids []int32) {
	for _, c := range readCases(t) {
		ids = append(ids, c.Prompt...)
		if len(ids) >= n {
			return ids[:n]
		}
	}
	t.Fatal("cases are too short")
	return nil
}

func (r *rig) newSeq(prompt []int32, adapter string) *seq {
	return &seq{ids: slices.Clone(prompt), lora: r.loras[adapter]}
}

// shared is a sequence that finds the first blocks of its prompt in the cache, filled by another of the same adapter.
func (r *rig) shared(prompt []int32, adapter string) *seq {
	first := r.newSeq(prompt[:len(prompt)-3], adapter)
	r.prefill(first, 50)
	s := r.newSeq(prompt, adapter)
	s.blocks = first.blocks[:len(first.ids)/blockSize]
	s.computed = len(s.blocks) * blockSize
	return s
}

// alone returns the logits of the prompt's last token and of each greedy step after it.
func (r *rig) alone(s *seq, chunk, steps int) (rows [][]float32) {
	defer r.release(s)
	for range steps {
		r.prefill(s, chunk) // after the prompt, the one new token
		rows = append(rows, s.logits)
		s.ids = append(s.ids, argmax(s.logits))
	}
	return rows
}

// crowded computes the same while others with other adapters prefill and decode in the same batches.
func (r *rig) crowded(prompt []int32, adapter string, steps int) (rows [][]float32) {
	random := rand.New(rand.NewPCG(7, 7))
	names := []string{"", "pirate", "french", "shout", ""}
	var others []*seq
	for i, name := range names {
		o := r.newSeq(prompt[i:min(i+20+7*i, len(prompt))], name)
		others = append(others, o)
		defer r.release(o)
	}
	s := r.newSeq(prompt, adapter)
	defer r.release(s)
	for len(rows) < steps {
		items := []item{{s, min(len(s.ids)-s.computed, 1+random.IntN(60))}}
		for _, o := range others {
			if random.IntN(4) > 0 {
				items = append(items, item{o, min(len(o.ids)-o.computed, 1+random.IntN(9))})
			}
		}
		random.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		r.step(items...)
		for _, o := range others {
			if o.computed == len(o.ids) {
				o.ids = append(o.ids, argmax(o.logits))
			}
		}
		if s.computed == len(s.ids) {
			rows = append(rows, s.logits)
			s.ids = append(s.ids, argmax(s.logits))
		}
	}
	return rows
}

func compare(t *testing.T, got, want [][]float32, format string, args ...any) {
	t.Helper()
	for row := range want {
		for i := range want[row] {
			if math.Float32bits(got[row][i]) != math.Float32bits(want[row][i]) {
				t.Errorf(format+": step %d, logit %d is %g, alone %g", append(args, row, i, got[row][i], want[row][i])...)
				return
			}
		}
	}
}

// TestAllLogits: the logits of every row of a prompt equal those computed row by row, where the last layer works on
// some rows only.
func TestAllLogits(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		r := demoRig(t, variant, model.Options{DType: model.Float32})
		prompt := longPrompt(t, 24)
		b := &model.Batch{Tokens: prompt, QueryStarts: []int32{0, 24}, SeqLens: []int32{24}, BlockTables: [][]int32{{3, 1}},
			Runs: []model.Run{{Start: 0, Len: 24, LoRA: r.loras["pirate"]}}}
		for p := range int32(24) {
			b.Positions = append(b.Positions, p)
			b.Slots = append(b.Slots, b.BlockTables[0][p/blockSize]*blockSize+p%blockSize)
			b.LogitRows = append(b.LogitRows, p)
		}
		all := slices.Clone(r.forward(b))
		vocab := r.model.VocabSize()
		for _, rows := range [][]int32{{23}, {0}, {5, 6, 20}, {}} {
			b.LogitRows = rows
			got := r.forward(b)
			if len(got) != len(rows)*vocab {
				t.Fatalf("%d logits for rows %v", len(got), rows)
			}
			for i, row := range rows {
				compare(t, [][]float32{got[i*vocab : (i+1)*vocab]},
					[][]float32{all[int(row)*vocab : (int(row)+1)*vocab]}, "row %d of %v", row, rows)
			}
		}
	})
}

func (r *rig) forward(b *model.Batch) []float32 {
	r.t.Helper()
	if err := r.ws.Forward(r.stream, b); err != nil {
		r.t.Fatal(err)
	}
	logits, err := r.ws.Logits(r.stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return logits
}

// TestHidden: a workspace that ends with the final norm gives what the logits are made of.
func TestHidden(t *testing.T) {
	everyVariant(t, func(t *testing.T, variant string) {
		dev := openDevice(t, variant)
		m := loadModel(t, dev, openCheckpoint(t, "testdata/qwen2"), model.Options{DType: model.Float32})
		r := newRig(t, dev, m, 8, model.Limits{MaxTokens: 32, MaxSeqs: 2, MaxLogitRows: 8})
		ws, err := m.NewWorkspace(r.kv, model.Limits{MaxTokens: 32, MaxSeqs: 2, MaxLogitRows: 8, Hidden: true})
		if err != nil {
			t.Fatal(err)
		}
		r.cleanup("workspace", ws.Close)
		b := benchBatch(2, 11, 0)
		b.LogitRows = []int32{0, 7, 10, 21}
		for i := range b.Tokens {
			b.Tokens[i] %= 60
		}
		logits := slices.Clone(r.forward(b))
		if err := ws.Forward(r.stream, b); err != nil {
			t.Fatal(err)
		}
		hidden, err := ws.Hidden(r.stream)
		if err != nil || len(hidden) != 4*m.Spec().Hidden {
			t.Fatalf("%d numbers, %v", len(hidden), err)
		}
		if none, err := ws.Logits(r.stream); err != nil || none != nil {
			t.Errorf("%d logits, %v", len(none), err)
		}
		// The embedding is the head: multiplied with the hidden states it gives the logits.
		w, err := openCheckpoint(t, "testdata/qwen2").Weights()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		embed, _ := w.Tensor("model.embed_tokens.weight")
		for row := range b.LogitRows {
			for token := range m.VocabSize() {
				want := 0.0
				for i, h := range hidden[row*m.Spec().Hidden:][:m.Spec().Hidden] {
					at := 2 * (token*m.Spec().Hidden + i)
					want += float64(h) * float64(math.Float32frombits(uint32(embed.Data[at])<<16|uint32(embed.Data[at+1])<<24))
				}
				if got := float64(logits[row*m.VocabSize()+token]); !(math.Abs(got-want) < 1e-5) {
					t.Fatalf("row %d, token %d: logit %g, want %g", row, token, got, want)
				}
			}
		}
	})
}

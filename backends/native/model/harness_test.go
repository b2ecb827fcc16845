package model_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
	"pagoda/models/demo"
)

// oneCase is a line of cases.jsonl.
type oneCase struct {
	Skill    string       `json:"skill"`
	Adapter  string       `json:"adapter"`
	Prompt   []int32      `json:"prompt_ids"`
	Greedy   []int32      `json:"greedy_ids"`
	Gap      float64      `json:"min_gap"`
	FirstTop [][2]float64 `json:"first_top10"`
	Line     int          `json:"-"`
}

func readCases(t testing.TB) []oneCase {
	t.Helper()
	f, err := os.Open("../../../models/demo/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []oneCase
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		c := oneCase{Line: len(cases) + 1}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if lines.Err() != nil || len(cases) == 0 {
		t.Fatalf("%d cases, %v", len(cases), lines.Err())
	}
	return cases
}

// rig is a loaded model with a cache and a workspace, and what a scheduler would do for them.
type rig struct {
	t          testing.TB
	dev        *kernels.Device
	stream     *kernels.Stream
	model      *model.Model
	kv         *model.KV
	ws         *model.Workspace
	limits     model.Limits
	free       []int32 // blocks, in random order
	freeStates []int32
	loras      map[string]*model.LoRA
}

const blockSize = 16

// openDevice opens a kernel variant; everything that was allocated on it must be freed when the test ends.
func openDevice(t testing.TB, variant string) *kernels.Device {
	t.Helper()
	dev, err := kernels.OpenCPU(kernels.CPUOptions{Variant: variant})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func demoSpec(t testing.TB) *model.Spec {
	t.Helper()
	config, err := checkpoint.OpenFS(demo.FS()).Config()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := model.NewSpec(config)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// demoRig loads the built-in model and its adapters.
func demoRig(t testing.TB, variant string, o model.Options) *rig {
	t.Helper()
	dev := openDevice(t, variant)
	w, err := checkpoint.OpenFS(demo.FS()).Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m, err := model.Load(dev, demoSpec(t), w, o)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, dev, m, 512, model.Limits{MaxTokens: 256, MaxSeqs: 32, MaxLogitRows: 256})
	registry := adapter.NewRegistry(dev, m)
	r.cleanup("adapters", registry.Close)
	for _, name := range []string{"shout", "pirate", "french"} {
		files, err := fs.Sub(demo.FS(), "adapters/"+name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := registry.Load(name, checkpoint.OpenFS(files))
		if err != nil {
			t.Fatal(err)
		}
		r.loras[name] = a.LoRA()
	}
	return r
}

func newRig(t testing.TB, dev *kernels.Device, m *model.Model, blocks int, limits model.Limits) *rig {
	t.Helper()
	r := &rig{t: t, dev: dev, stream: dev.NewStream(), model: m, limits: limits, loras: map[string]*model.LoRA{}}
	r.cleanup("model", m.Close)
	var err error
	if r.kv, err = m.NewKV(blocks, blockSize); err != nil {
		t.Fatal(err)
	}
	r.cleanup("kv", r.kv.Close)
	if err := m.AddStates(r.kv, 2*limits.MaxSeqs); err != nil {
		t.Fatal(err)
	}
	if r.ws, err = m.NewWorkspace(r.kv, limits); err != nil {
		t.Fatal(err)
	}
	r.cleanup("workspace", r.ws.Close)
	r.shuffle(1)
	for _, row := range rand.Perm(2 * limits.MaxSeqs) {
		r.freeStates = append(r.freeStates, int32(row))
	}
	return r
}

func (r *rig) cleanup(what string, closer func() error) {
	r.t.Cleanup(func() {
		if err := closer(); err != nil {
			r.t.Errorf("close %s: %v", what, err)
		}
	})
}

// shuffle makes all blocks free, in another order.
func (r *rig) shuffle(seed uint64) {
	r.free = r.free[:0]
	for _, b := range rand.New(rand.NewPCG(seed, 0)).Perm(r.kv.NumBlocks()) {
		r.free = append(r.free, int32(b))
	}
}

// seq is a sequence in the cache.
type seq struct {
	ids      []int32
	lora     *model.LoRA
	computed int
	long     bool // it has, or will have, more tokens than Model.SwitchLen
	blocks   []int32
	states   []int32   // the row of its state, once it has one
	logits   []float32 // of the last row asked for
}

// item is a sequence's share of a step: its next n tokens.
type item struct {
	*seq
	n int
}

// step computes the items as one batch. A sequence whose last known token is computed gets its logits.
func (r *rig) step(items ...item) {
	r.t.Helper()
	order := func(l *model.LoRA) int {
		if l == nil {
			return -1
		}
		for i, name := range []string{"shout", "pirate", "french"} {
			if r.loras[name] == l {
				return i
			}
		}
		return 9
	}
	slices.SortStableFunc(items, func(a, b item) int { return order(a.lora) - order(b.lora) })
	b := &model.Batch{QueryStarts: []int32{0}}
	var wants []*seq
	for _, it := range items {
		start := len(b.Tokens)
		for p := it.computed; p < it.computed+it.n; p++ {
			if p/blockSize == len(it.blocks) {
				it.blocks = append(it.blocks, r.free[0])
				r.free = r.free[1:]
			}
			b.Tokens = append(b.Tokens, it.ids[p])
			b.Positions = append(b.Positions, int32(p))
			b.Slots = append(b.Slots, it.blocks[p/blockSize]*blockSize+int32(p%blockSize))
		}
		it.computed += it.n
		b.QueryStarts = append(b.QueryStarts, int32(len(b.Tokens)))
		b.SeqLens = append(b.SeqLens, int32(it.computed))
		b.BlockTables = append(b.BlockTables, it.blocks)
		b.Long = append(b.Long, it.long)
		if len(it.states) == 0 {
			it.states, r.freeStates = r.freeStates[:1:1], r.freeStates[1:]
		}
		b.States = append(b.States, it.states...)
		if it.computed == len(it.ids) {
			b.LogitRows = append(b.LogitRows, int32(len(b.Tokens)-1))
			wants = append(wants, it.seq)
		}
		if last := len(b.Runs) - 1; last >= 0 && b.Runs[last].LoRA == it.lora {
			b.Runs[last].Len += it.n
		} else if it.lora != nil {
			b.Runs = append(b.Runs, model.Run{Start: start, Len: it.n, LoRA: it.lora})
		}
	}
	if err := r.ws.Forward(r.stream, b); err != nil {
		r.t.Fatal(err)
	}
	logits, err := r.ws.Logits(r.stream)
	if err != nil {
		r.t.Fatal(err)
	}
	vocab := r.model.VocabSize()
	if len(logits) != len(wants)*vocab {
		r.t.Fatalf("%d logits, want %d rows of %d", len(logits), len(wants), vocab)
	}
	for i, s := range wants {
		s.logits = slices.Clone(logits[i*vocab : (i+1)*vocab])
	}
}

// release gives a sequence's blocks back.
func (r *rig) release(s *seq) {
	r.free = append(r.free, s.blocks...)
	r.freeStates = append(r.freeStates, s.states...)
	s.blocks, s.states = nil, nil
}

// prefill computes all known tokens, chunk at a time.
func (r *rig) prefill(s *seq, chunk int) {
	for s.computed < len(s.ids) {
		r.step(item{s, min(chunk, r.limits.MaxTokens, len(s.ids)-s.computed)})
	}
}

func argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// logprob is log softmax, in float64.
func logprob(logits []float32, id int) float64 {
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(logits[id]))
	}
	return -math.Log(sum)
}

// raceDetector says that the tests run under it; set in race_test.go.
var raceDetector bool

// everyVariant runs a test on every kernel variant of this machine. The reference is plain Go on one thread: under the
// race detector it takes minutes and has nothing to show.
func everyVariant(t *testing.T, test func(t *testing.T, variant string)) {
	variants := kernels.Variants()
	if raceDetector && len(variants) > 1 {
		variants = variants[:len(variants)-1]
	}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) { test(t, variant) })
	}
}

func (c oneCase) String() string {
	return fmt.Sprintf("line %d (%s)", c.Line, strings.TrimSpace(c.Skill+" "+c.Adapter))
}

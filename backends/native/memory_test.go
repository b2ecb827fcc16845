package native

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pagoda/backends/native/model"
	"pagoda/models/demo"
)

// sizerOf is the sizer of an engine's model.
func sizerOf(t *testing.T, e *Engine) *sizer {
	t.Helper()
	s, err := e.newSizer(e.model.Spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMemoryIsKnownBefore: what is computed from the configurations is what the device then holds, up to the rounding of
// matrices that lie side by side.
func TestMemoryIsKnownBefore(t *testing.T) {
	draft := Options{SpeculativeMethod: "draft_model", DraftFiles: demo.FS(), NumSpeculativeTokens: 2}
	for name, o := range map[string]Options{
		"as it is": {}, "float32": {DType: "float32", MaxModelLen: 300}, "int8": {QuantizationBits: 8, KVDType: "int8"},
		"int4": {QuantizationBits: 4, KVDType: "fp8", MaxBatchedTokens: 700}, "few": {MaxNumSeqs: 1, MaxBatchedTokens: 1}, "draft": draft,
	} {
		t.Run(name, func(t *testing.T) { checkMemory(t, open(t, o)) })
	}
	t.Run("states", func(t *testing.T) { checkMemory(t, openHybrid(t, Options{MaxNumSeqs: 8})) })
}

func checkMemory(t *testing.T, e *Engine) {
	t.Helper()
	n := sizerOf(t, e).needs(e.opts)
	got, want := e.device.Allocated(), n.rest()+int64(e.numBlocks)*n.perBlock
	if n.rest() <= 0 || n.perBlock <= 0 || got > want || got < want-want/50 {
		t.Errorf("%d bytes are held, %d were expected: %+v", got, want, n)
	}
}

// TestMemoryFits: with as much as was computed the engine starts, with a byte less it says what is missing and what would
// help, and that does.
func TestMemoryFits(t *testing.T) {
	s := sizerOf(t, open(t, Options{}))
	s.adapters = 0
	base := Options{MemoryOf: "of this test"}.withDefaults()
	need := s.needs(base).sum()
	base.MemoryBytes = need
	if err := serveDemo(t, base); err != nil {
		t.Errorf("with %d bytes: %v", need, err)
	}
	base.MemoryBytes--
	err := serveDemo(t, base)
	if err == nil {
		t.Fatal("it fits into a byte less than it needs")
	}
	for _, want := range []string{"it needs " + strconv.FormatInt(mib(need), 10) + " MiB", " 1 MiB more than the ", "of this test",
		"weights 8 MiB", "KV cache of one sequence of 1024 tokens", "work buffers", "one of these would make it fit"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	for pattern, set := range map[string]func(*Options, int){
		`max_model_len: (\d+)`:          func(o *Options, n int) { o.MaxModelLen = n },
		`max_num_seqs: (\d+)`:           func(o *Options, n int) { o.MaxNumSeqs = n },
		`max_num_batched_tokens: (\d+)`: func(o *Options, n int) { o.MaxBatchedTokens = n },
		`quantization_bit: (8)`:         func(o *Options, n int) { o.QuantizationBits = n },
		`kv_cache_dtype: bfloat(16)`:    func(o *Options, _ int) { o.KVDType = "bfloat16" },
	} {
		m := regexp.MustCompile(pattern).FindStringSubmatch(err.Error())
		if m == nil {
			t.Errorf("no %s in: %v", pattern, err)
			continue
		}
		o := base
		n, _ := strconv.Atoi(m[1])
		set(&o, n)
		if err := serveDemo(t, o); err != nil {
			t.Errorf("with %s: %v", m[0], err)
		}
	}
}

func TestMemoryRefusals(t *testing.T) {
	s := sizerOf(t, open(t, Options{}))
	s.adapters = 0
	n := s.needs(Options{}.withDefaults())
	small := s.needs(Options{QuantizationBits: 4, KVDType: "fp8", MaxNumSeqs: 1}.withDefaults())
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"nothing helps":   {Options{MemoryBytes: 1 << 20}, "no options make it fit: with quantization_bit: 4, "},
		"several do":      {Options{MemoryBytes: small.sum()}, "no single option makes it fit, but several do"},
		"one sequence":    {Options{KVCacheBytes: n.oneSeq*n.perBlock - 1}, "kv_cache_memory: it holds 63 blocks, but one sequence of 1024 tokens needs 64"},
		"too large a one": {Options{KVCacheBytes: 1 << 30, MemoryBytes: 1 << 29}, "kv_cache_memory: " + strconv.FormatInt((1<<29-n.rest())>>20, 10) + "MiB or less"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := serveDemo(t, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("no %q in: %v", c.want, err)
			}
		})
	}
}

// TestHalfOfMemory: the cache takes half of what the rest leaves, but enough for a sequence, and no more than all sequences need.
func TestHalfOfMemory(t *testing.T) {
	s := sizerOf(t, open(t, Options{}))
	n := s.needs(Options{}.withDefaults())
	for free, want := range map[int64]int64{0: 64 * 64, n.rest() + 64*n.perBlock: 64, n.rest() + 1000*n.perBlock: 500, 1 << 40: 64 * 64} {
		got, err := s.blocks(Options{MemoryBytes: free}.withDefaults())
		if err != nil || int64(got) != want {
			t.Errorf("%d bytes: %d blocks, want %d: %v", free, got, want, err)
		}
	}
	if got := s.needs(Options{DType: string(model.Float32)}.withDefaults()); got.weights != n.weights || got.work <= n.work {
		t.Errorf("%+v in float32, %+v else", got, n) // the weights stay bfloat16, what they are multiplied with does not
	}
}

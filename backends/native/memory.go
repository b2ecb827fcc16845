package native

import (
	"fmt"
	"sort"
	"strings"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
)

// needs are what an engine's parts take, in bytes. All of it is known from the checkpoints' configurations, before a weight is
// read.
type needs struct {
	weights, draft, adapters, states, work int64

	oneSeq   int64 // KV blocks of a sequence of full length
	perBlock int64
	kv       int64 // as kv_cache_memory says, or what the least useful cache takes: one sequence's
}

func (n needs) sum() int64 { return n.rest() + n.kv }

// rest is all but the KV cache.
func (n needs) rest() int64 { return n.weights + n.draft + n.adapters + n.states + n.work }

// sizer computes what a model needs.
type sizer struct {
	spec     *model.Spec
	draft    *model.Spec // nil: none
	grow     *model.Growth
	adapters int64 // bytes
}

// newSizer reads what the sizes depend on beside spec.
func (e *Engine) newSizer(spec *model.Spec, grow *model.Growth) (*sizer, error) {
	s := &sizer{spec: spec, grow: grow}
	for _, src := range e.opts.Adapters {
		bytes, err := adapterBytes(src, spec, e.opts.model(grow))
		if err != nil {
			return nil, fmt.Errorf("adapter %s: %w", src.Name, err)
		}
		s.adapters += bytes
	}
	if e.opts.SpeculativeMethod == "draft_model" {
		ck, draft, err := e.openDraft()
		if err != nil {
			return nil, fmt.Errorf("draft model: %w", err)
		}
		s.draft = draft
		if err := ck.Close(); err != nil {
			return nil, fmt.Errorf("draft model: %w", err)
		}
	}
	return s, nil
}

func adapterBytes(src AdapterSource, spec *model.Spec, o model.Options) (int64, error) {
	ck, err := openCheckpoint(src.Dir, src.Files)
	if err != nil {
		return 0, err
	}
	defer ck.Close()
	return adapter.Bytes(spec, o, ck)
}

// needs is what the model takes with these options.
func (s *sizer) needs(o Options) needs {
	mo := o.model(s.grow)
	vocab := s.spec.Vocab
	if s.grow != nil {
		vocab = s.grow.Vocab
	}
	n := needs{
		weights: s.spec.WeightBytes(mo), adapters: s.adapters, states: s.spec.StateBytes() * int64(o.MaxNumSeqs),
		work: s.spec.WorkBytes(mo, o.limits(vocab), BlockSize), perBlock: s.spec.KVBytesPerBlock(mo, BlockSize),
	}
	maxLen := s.maxLen(o)
	if s.draft != nil {
		mo.Grow, mo.MaxLen = nil, min(maxLen, s.draft.MaxLen)
		n.draft = s.draft.WeightBytes(mo)
		n.work += s.draft.WorkBytes(mo, o.draftLimits(), BlockSize)
		n.perBlock += s.draft.KVBytesPerBlock(mo, BlockSize)
	}
	n.oneSeq = int64(maxLen+BlockSize-1) / BlockSize
	if n.kv = n.oneSeq * n.perBlock; o.KVCacheBytes > 0 {
		n.kv = o.KVCacheBytes
	}
	return n
}

// maxLen is the most tokens of a sequence.
func (s *sizer) maxLen(o Options) int {
	if o.MaxModelLen > 0 {
		return o.MaxModelLen
	}
	return s.spec.MaxLen
}

// blocks sizes the KV cache: what the option says, else what MaxNumSeqs sequences of the full length need, of what the rest
// leaves at most half, but enough for one.
func (s *sizer) blocks(o Options) (int, error) {
	if err := s.spec.Check(o.model(s.grow)); err != nil {
		return 0, err
	}
	n := s.needs(o)
	if o.KVCacheBytes > 0 && o.KVCacheBytes < n.oneSeq*n.perBlock {
		return 0, fmt.Errorf("kv_cache_memory: it holds %d blocks, but one sequence of %d tokens needs %d (%d MiB): give it more, or "+
			"max_model_len less", o.KVCacheBytes/n.perBlock, s.maxLen(o), n.oneSeq, mib(n.oneSeq*n.perBlock))
	}
	if o.MemoryBytes > 0 && n.sum() > o.MemoryBytes {
		return 0, s.refusal(o, n)
	}
	blocks := n.oneSeq * int64(o.MaxNumSeqs)
	switch {
	case n.perBlock == 0: // no layer has a cache
	case o.KVCacheBytes > 0:
		blocks = o.KVCacheBytes / n.perBlock
	case o.MemoryBytes > 0:
		blocks = max(n.oneSeq, min(blocks, (o.MemoryBytes-n.rest())/2/n.perBlock))
	}
	return int(min(blocks, 1<<30)), nil
}

// refusal says what does not fit, and what would.
func (s *sizer) refusal(o Options, n needs) error {
	var b strings.Builder
	from := ""
	if o.MemoryOf != "" {
		from = " (" + o.MemoryOf + ")"
	}
	fmt.Fprintf(&b, "it needs %d MiB of memory, %d MiB more than the %d MiB that there are%s:\n ", mib(n.sum()),
		mib(n.sum()-o.MemoryBytes), o.MemoryBytes>>20, from)
	kv := fmt.Sprintf("KV cache of one sequence of %d tokens", s.maxLen(o))
	if o.KVCacheBytes > 0 {
		kv = "kv_cache_memory"
	}
	states := fmt.Sprintf("states of %d sequences", o.MaxNumSeqs)
	separator := " "
	for _, part := range []struct {
		name  string
		bytes int64
	}{{"weights", n.weights}, {"draft model", n.draft}, {"adapters", n.adapters}, {states, n.states}, {kv, n.kv}, {"work buffers", n.work}} {
		if part.bytes > 0 {
			fmt.Fprintf(&b, "%s%s %d MiB", separator, part.name, mib(part.bytes))
			separator = ", "
		}
	}
	b.WriteString("\n  " + s.remedies(o))
	return fmt.Errorf("%s", b.String())
}

// remedies says with which options the model would fit: each on its own, or if none is enough, together.
func (s *sizer) remedies(o Options) string {
	needed := func(change func(*Options)) int64 {
		o := o
		change(&o)
		if s.spec.Check(o.model(s.grow)) != nil {
			return 1 << 62
		}
		n := s.needs(o)
		return max(n.sum(), n.rest()+n.oneSeq*n.perBlock)
	}
	fits := func(change func(*Options)) bool { return needed(change) <= o.MemoryBytes }
	var list []string
	// most adds the largest value from least on, below now, with which it fits.
	most := func(name string, least, now int, set func(*Options, int)) {
		above := sort.Search(max(0, now-least), func(i int) bool { return !fits(func(o *Options) { set(o, least+i) }) })
		if above > 0 {
			list = append(list, fmt.Sprintf("%s: %d or less", name, least+above-1))
		}
	}
	// first adds the first of the values with which it fits.
	first := func(name string, values []string, set func(*Options, int)) {
		for i, v := range values {
			if fits(func(o *Options) { set(o, i) }) {
				list = append(list, name+": "+v)
				return
			}
		}
	}
	leastLen := min(256, s.maxLen(o))
	most("max_model_len", leastLen, s.maxLen(o), func(o *Options, v int) { o.MaxModelLen = v })
	most("max_num_seqs", 1, o.MaxNumSeqs, func(o *Options, v int) { o.MaxNumSeqs = v })
	most("max_num_batched_tokens", o.MaxNumSeqs, o.MaxBatchedTokens, func(o *Options, v int) { o.MaxBatchedTokens = v })
	if left := o.MemoryBytes - s.needs(o).rest(); o.KVCacheBytes > 0 && fits(func(o *Options) { o.KVCacheBytes = max(left, 1) }) {
		list = append(list, fmt.Sprintf("kv_cache_memory: %dMiB or less", left>>20))
	}
	kvTypes := []string{"bfloat16", "int8", "fp8"}
	first("kv_cache_dtype", kvTypes, func(o *Options, i int) { o.KVDType = kvTypes[i] })
	first("infer_dtype", []string{"bfloat16"}, func(o *Options, _ int) { o.DType = "bfloat16" })
	if !o.Mmap {
		bits := []string{"8", "4"}
		first("quantization_bit", bits, func(o *Options, i int) { o.QuantizationBits = 8 >> i })
	}
	if o.Dir != "" && o.LoadFormat == "auto" && o.QuantizationBits == 0 {
		first("mmap", []string{"true"}, func(o *Options, _ int) { o.Mmap = true })
	}
	if len(list) > 0 {
		return "one of these would make it fit: " + strings.Join(list, "; ")
	}
	length := min(2048, s.maxLen(o))
	all := fmt.Sprintf("quantization_bit: 4, kv_cache_dtype: fp8, max_model_len: %d and max_num_seqs: 1", length)
	least := needed(func(o *Options) {
		o.QuantizationBits, o.Mmap, o.KVDType, o.MaxModelLen, o.MaxNumSeqs, o.KVCacheBytes = 4, false, "fp8", length, 1, 0
	})
	if least > o.MemoryBytes {
		return fmt.Sprintf("no options make it fit: with %s it still needs %d MiB", all, mib(least))
	}
	return fmt.Sprintf("no single option makes it fit, but several do: with %s it needs %d MiB", all, mib(least))
}

// mib rounds up.
func mib(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

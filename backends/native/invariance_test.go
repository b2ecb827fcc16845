package native

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pagoda/engine"
)

// recorder hashes the logits behind each token of each request, by the request's id.
type recorder struct {
	seed maphash.Seed
	mu   sync.Mutex
	seen map[string][]uint64
}

func record(e *Engine) *recorder {
	r := &recorder{seed: maphash.MakeSeed(), seen: map[string][]uint64{}}
	e.runner.onLogits = func(c *choice, logits []float32) {
		var h maphash.Hash
		h.SetSeed(r.seed)
		var b [4]byte
		for _, x := range logits {
			binary.LittleEndian.PutUint32(b[:], math.Float32bits(x))
			h.Write(b[:])
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[c.job.id] = append(r.seen[c.job.id], h.Sum64())
	}
	return r
}

// TestBatchInvariance holds every request's logits, bit for bit, against those of the request alone: in random mixes of
// 32, in chunks of 1, 7 and 64 tokens, with prefix hits, preempted, on one thread.
func TestBatchInvariance(t *testing.T) {
	for _, o := range []Options{{DType: "float32"}, {DType: "bfloat16"}, {DType: "bfloat16", KVDType: "fp8"}, {DType: "bfloat16", KVDType: "int8"}} {
		t.Run(o.DType+"/cache="+o.KVDType, func(t *testing.T) { testInvariance(t, o) })
	}
}

func testInvariance(t *testing.T, base Options) {
	picked := invarianceCases(t)
	base.NoPrefixCache = true
	e := open(t, base)
	alone := record(e)
	for i := range picked {
		generate(t, e, picked, i, "")
	}
	const longer = 96 // tokens of the requests that are to be preempted
	grown := slices.Clone(picked[2:14])
	for i := range grown {
		req := grown[i].greedy()
		req.ID, req.Sampling.IgnoreEOS, req.Sampling.MaxTokens = fmt.Sprint("grown ", i), true, ptr(longer)
		if _, err := run(context.Background(), e, req); err != nil {
			t.Fatal(err)
		}
	}
	with := func(change func(o *Options)) Options {
		o := base
		change(&o)
		return o
	}
	for _, v := range []struct {
		name    string
		options Options
		workers int
		rounds  int
		check   func(t *testing.T, s engine.Stats)
	}{
		{"mixed", base, 32, 2, nil},
		{"one thread", with(func(o *Options) { o.Threads = 1 }), 8, 1, nil},
		{"chunks of 1", with(func(o *Options) { o.MaxBatchedTokens, o.MaxNumSeqs = 1, 1 }), 4, 1, nil},
		{"chunks of 7", with(func(o *Options) { o.MaxBatchedTokens, o.MaxNumSeqs = 7, 5 }), 8, 1, nil},
		{"chunks of 64", with(func(o *Options) { o.MaxBatchedTokens, o.MaxNumSeqs = 64, 32 }), 32, 1, nil},
		{"prefix hits", with(func(o *Options) { o.NoPrefixCache = false }), 8, 3, func(t *testing.T, s engine.Stats) {
			if s.PrefixHits == 0 {
				t.Error("nothing was found in the prefix cache")
			}
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			e := open(t, v.options)
			got := record(e)
			got.seed = alone.seed
			var order []int
			for range v.rounds {
				order = append(order, rand.Perm(len(picked))...)
			}
			parallel(v.workers, len(order), func(i int) { generate(t, e, picked, order[i], fmt.Sprint("/", i)) })
			for i, n := range order {
				id := fmt.Sprint(n)
				if want, have := alone.seen[id], got.seen[fmt.Sprint(n, "/", i)]; !slices.Equal(have, want) {
					t.Errorf("case %s: logits differ from those alone (%d steps, alone %d)", id, len(have), len(want))
				}
			}
			if v.check != nil {
				v.check(t, e.Stats()[0])
			}
		})
	}
	t.Run("preempted", func(t *testing.T) {
		longest := 0
		for _, c := range grown {
			longest = max(longest, len(c.PromptIDs)+longer)
		}
		blocks := 2 * (longest + BlockSize) / BlockSize
		e := open(t, with(func(o *Options) {
			o.MaxModelLen, o.KVCacheBytes = longest, int64(blocks)*e.model.KVBytesPerBlock(BlockSize)
		}))
		got := record(e)
		got.seed = alone.seed
		parallel(len(grown), len(grown), func(i int) {
			req := grown[i].greedy()
			req.ID, req.Sampling.IgnoreEOS, req.Sampling.MaxTokens = fmt.Sprint("grown ", i), true, ptr(longer)
			if _, err := run(context.Background(), e, req); err != nil {
				t.Errorf("case %d: %v", i, err)
			}
		})
		for i := range grown {
			id := fmt.Sprint("grown ", i)
			if !slices.Equal(got.seen[id], alone.seen[id]) {
				t.Errorf("%s: logits differ from those alone (%d steps, alone %d)", id, len(got.seen[id]), len(alone.seen[id]))
			}
		}
		if s := e.Stats()[0]; s.Preemptions == 0 {
			t.Error("nothing was preempted")
		}
	})
}

// invarianceCases are cases of all adapters, the longest prompt and some random ones.
func invarianceCases(t *testing.T) []testCase {
	all := cases(t)
	slices.SortStableFunc(all, func(a, b testCase) int { return len(b.PromptIDs) - len(a.PromptIDs) })
	picked := all[:2]
	count := map[string]int{}
	for _, i := range rand.Perm(len(all) - 2) {
		c := all[i+2]
		limit := 4
		if c.Adapter == "" {
			limit = 20
		}
		if count[c.Adapter]++; count[c.Adapter] <= limit {
			picked = append(picked, c)
		}
	}
	return picked
}

func generate(t *testing.T, e *Engine, cs []testCase, i int, suffix string) {
	req := cs[i].greedy()
	req.ID = fmt.Sprint(i) + suffix
	if _, err := run(context.Background(), e, req); err != nil {
		t.Errorf("case %d: %v", i, err)
	}
}

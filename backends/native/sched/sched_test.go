package sched

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
)

func sortByArrival(seqs []*Seq) {
	slices.SortFunc(seqs, func(a, b *Seq) int { return cmp.Compare(a.arrival, b.arrival) })
}

func never() bool { return false }

func prompt(first, n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(first + i)
	}
	return p
}

func TestAddRefuses(t *testing.T) {
	s, err := New(Config{MaxNumSeqs: 1, MaxBatchedTokens: 1, MaxWaiting: 1, BlockSize: 1, NumBlocks: 4, MaxLen: 4, MaxPromptLogits: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]GroupSpec{
		"no prompt":           {N: 1},
		"no sequence":         {Prompt: prompt(0, 1)},
		"negative max tokens": {Prompt: prompt(0, 1), N: 1, MaxTokens: -1},
		"overflow":            {Prompt: prompt(0, 1), N: 1, MaxTokens: 1<<63 - 1},
		"too many":            {Prompt: prompt(0, 1), N: 1<<63 - 1},
	} {
		if _, err := s.Add(spec); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if !s.Idle() {
			t.Fatalf("%s: left something behind", name)
		}
	}
}

// A tenant with a hundred requests queued, and one that then asks for little: the second must not wait for the first.
func TestQueueDoesNotStarve(t *testing.T) {
	m, err := newMachine(Config{MaxNumSeqs: 4, MaxBatchedTokens: 32, MaxWaiting: 1000, BlockSize: 4, NumBlocks: 64,
		MaxLen: 100, MaxPromptLogits: 8})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := m.add(GroupSpec{Prompt: prompt(i, 20), N: 1, MaxTokens: 10, Tenant: "many"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if err := m.step(never); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.add(GroupSpec{Prompt: prompt(0, 20), N: 1, MaxTokens: 10, Tenant: "few"}); err != nil {
		t.Fatal(err)
	}
	few := m.live[len(m.live)-1]
	steps := 0
	for slices.Contains(m.live, few) {
		if err := m.step(never); err != nil {
			t.Fatal(err)
		}
		steps++
	}
	// Ten steps for its tokens, and as many again until one of the four that run ends.
	if steps > 22 {
		t.Errorf("took %d steps", steps)
	}
}

// Two tenants who always have requests waiting get equal service, however different the requests are: the difference
// stays within twice what can be under way at once, as arXiv:2401.00588 proves.
func TestEqualService(t *testing.T) {
	const maxLen = 60
	c := Config{MaxNumSeqs: 4, MaxBatchedTokens: 32, MaxWaiting: 1000, BlockSize: 4, NumBlocks: 64,
		MaxLen: maxLen, MaxPromptLogits: 8}
	m, err := newMachine(c)
	if err != nil {
		t.Fatal(err)
	}
	waiting := func(tenant string) (n int) {
		for _, q := range m.live {
			if q.tenant.name == tenant && q.state == waiting {
				n++
			}
		}
		return n
	}
	for i := range 1000 {
		for waiting("long") < 3 {
			if err := m.add(GroupSpec{Prompt: prompt(i, 50), N: 1, MaxTokens: 10, Tenant: "long"}); err != nil {
				t.Fatal(err)
			}
		}
		for waiting("short") < 30 {
			if err := m.add(GroupSpec{Prompt: prompt(i, 3), N: 1, MaxTokens: 2, Tenant: "short"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.step(never); err != nil {
			t.Fatal(err)
		}
		long, short := m.tenants.byName["long"].service, m.tenants.byName["short"].service
		if diff := max(long-short, short-long); diff > 2*int64(c.MaxNumSeqs*maxLen) {
			t.Fatalf("after %d steps the services are %d and %d", i+1, long, short)
		}
	}
	if got := m.tenants.byName["short"].service; got < 5000 {
		t.Errorf("a thousand steps gave %d tokens of service", got)
	}
}

// Service is what was computed for a tenant: not what was found cached, and what a preemption lost only once.
func TestServiceCountsWhatIsComputed(t *testing.T) {
	m, err := newMachine(Config{MaxNumSeqs: 4, MaxBatchedTokens: 64, MaxWaiting: 8, BlockSize: 2, NumBlocks: 7, MaxLen: 64,
		MaxPromptLogits: 1, PrefixCache: true})
	if err != nil {
		t.Fatal(err)
	}
	// serve runs the requests, all of one tenant, to their ends, and returns the service they cost.
	serve := func(specs ...GroupSpec) int64 {
		t.Helper()
		for _, spec := range specs {
			if err := m.add(spec); err != nil {
				t.Fatal(err)
			}
		}
		tenant := m.live[0].tenant
		before := tenant.service
		for len(m.live) > 0 {
			if err := m.step(never); err != nil {
				t.Fatal(err)
			}
		}
		return tenant.service - before
	}
	if got := serve(GroupSpec{Prompt: prompt(0, 9), N: 1, MaxTokens: 1}); got != 9 {
		t.Errorf("9 tokens computed cost %d", got)
	}
	if got := serve(GroupSpec{Prompt: prompt(0, 9), N: 1, MaxTokens: 1}); got != 1 {
		t.Errorf("9 tokens, 8 of them cached, cost %d", got)
	}
	got := serve(GroupSpec{Prompt: prompt(20, 4), N: 1, MaxTokens: 8}, GroupSpec{Prompt: prompt(40, 4), N: 1, MaxTokens: 8})
	if m.stats.NumPreemptions == 0 || got != 2*(4+7) {
		t.Errorf("22 tokens, with %d preemptions, cost %d", m.stats.NumPreemptions, got)
	}
}

// Whoever was away starts level with the others, neither with credit for the time nor with debts forgotten.
func TestReturningTenant(t *testing.T) {
	ts := tenants{byName: map[string]*tenant{}}
	a := ts.join("a", 1)
	a.service = 100
	b := ts.join("b", 1)
	if b.service != 100 {
		t.Errorf("a new tenant starts at %d, the least active has 100", b.service)
	}
	b.service = 150
	ts.leave(b)
	if b = ts.join("b", 1); b.service != 150 {
		t.Errorf("came back with %d, left with 150", b.service)
	}
	ts.leave(b)
	a.service = 1000
	if b = ts.join("b", 1); b.service != 1000 {
		t.Errorf("came back with %d, the least active has 1000", b.service)
	}
	ts.leave(a)
	ts.leave(b)
	if a = ts.join("a", 1); a.service != 1000 {
		t.Errorf("came back with %d when nobody is active", a.service)
	}
}

func TestIdleTenantsAreBounded(t *testing.T) {
	ts := tenants{byName: map[string]*tenant{}}
	ts.join("always there", 1)
	for i := range 10 * maxIdleTenants {
		tn := ts.join(fmt.Sprint(i), 1)
		tn.service += 5
		ts.leave(tn)
		if len(ts.byName) > maxIdleTenants+1 || ts.numIdle != len(ts.byName)-1 {
			t.Fatalf("%d tenants are remembered, %d counted as idle", len(ts.byName), ts.numIdle)
		}
	}
}

// One step of many decodes: planning and updating must not cost what could be computed meanwhile.
func BenchmarkStep(b *testing.B) {
	for _, numSeqs := range []int{64, 256} {
		for _, cache := range []bool{false, true} {
			b.Run(fmt.Sprintf("seqs=%d/cache=%v", numSeqs, cache), func(b *testing.B) {
				const maxLen = 1 << 30
				s, err := New(Config{MaxNumSeqs: numSeqs, MaxBatchedTokens: 8192, MaxWaiting: numSeqs, BlockSize: 16,
					NumBlocks: 1 << 17, MaxLen: maxLen, MaxPromptLogits: 1, PrefixCache: cache})
				if err != nil {
					b.Fatal(err)
				}
				var seqs []*Seq
				fill := func() {
					for _, q := range seqs {
						s.Finish(q)
					}
					seqs = seqs[:0]
					for i := range numSeqs {
						q, err := s.Add(GroupSpec{Prompt: prompt(i, 100), N: 1, MaxTokens: 1000, Tenant: fmt.Sprint(i % 8)})
						if err != nil {
							b.Fatal(err)
						}
						seqs = append(seqs, q...)
					}
					for s.Stats().NumWaiting > 0 || len(s.items) < numSeqs {
						step(s)
					}
				}
				fill()
				b.ReportAllocs()
				for b.Loop() {
					if seqs[0].NumOutput() >= 990 {
						b.StopTimer()
						fill()
						b.StartTimer()
					}
					step(s)
				}
			})
		}
	}
}

func step(s *Scheduler) {
	for _, it := range s.Next().Items {
		s.Update(it, picked(it, func([]int32) int32 { return int32(it.Start) })...)
	}
}

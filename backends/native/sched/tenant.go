package sched

import "container/heap"

// maxIdleTenants bounds how many tenants without sequences have their service remembered.
const maxIdleTenants = 1024

// tenant is one party among whom the machine is shared.
type tenant struct {
	name       string
	service    int64 // tokens computed for it, lifted as doc.go says
	numSeqs    int   // not finished; 0: idle
	numRunning int   // of them
	waiting    queue
}

// tenants knows the active tenants and those idle ones whose service still matters.
type tenants struct {
	byName  map[string]*tenant
	active  []*tenant // numSeqs > 0, in the order they became so
	numIdle int
	floor   int64 // service that a tenant starts with when nobody is active
}

// join returns the tenant, which gets n more sequences.
func (ts *tenants) join(name string, n int) *tenant {
	t := ts.byName[name]
	if t == nil {
		t = &tenant{name: name}
		ts.byName[name] = t
		ts.numIdle++
	}
	if t.numSeqs == 0 {
		ts.numIdle--
		t.service = max(t.service, ts.least())
		ts.active = append(ts.active, t)
	}
	t.numSeqs += n
	return t
}

// least is the smallest service of an active tenant.
func (ts *tenants) least() int64 {
	if len(ts.active) == 0 {
		return ts.floor
	}
	least := ts.active[0].service
	for _, t := range ts.active[1:] {
		least = min(least, t.service)
	}
	return least
}

// leave notes that one of the tenant's sequences is finished.
func (ts *tenants) leave(t *tenant) {
	t.numSeqs--
	if t.numSeqs > 0 {
		return
	}
	for i, a := range ts.active {
		if a == t {
			ts.active = append(ts.active[:i], ts.active[i+1:]...)
			break
		}
	}
	if len(ts.active) == 0 {
		ts.floor = t.service
	}
	ts.numIdle++
	if t.service <= ts.least() {
		ts.forget(t) // it would be lifted anyway
	} else if ts.numIdle > maxIdleTenants {
		for _, t := range ts.byName {
			if t.numSeqs == 0 {
				ts.forget(t)
			}
		}
	}
}

func (ts *tenants) forget(t *tenant) {
	delete(ts.byName, t.name)
	ts.numIdle--
}

// best is the waiting sequence to admit next, or nil.
func (ts *tenants) best() *Seq {
	var best *Seq
	for _, t := range ts.active {
		if len(t.waiting) > 0 && (best == nil || t.waiting[0].before(best)) {
			best = t.waiting[0]
		}
	}
	return best
}

// queue is a heap of one tenant's waiting sequences by Seq.before. A preempted one keeps its arrival and so comes
// before all that were never admitted.
type queue []*Seq

func (t *tenant) push(q *Seq)   { heap.Push(&t.waiting, q) }
func (t *tenant) remove(q *Seq) { heap.Remove(&t.waiting, q.heapIndex) }

func (w queue) Len() int           { return len(w) }
func (w queue) Less(i, j int) bool { return w[i].before(w[j]) }
func (w queue) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].heapIndex, w[j].heapIndex = i, j
}

// Push is for container/heap.
func (w *queue) Push(x any) {
	q := x.(*Seq)
	q.heapIndex = len(*w)
	*w = append(*w, q)
}

// Pop is for container/heap.
func (w *queue) Pop() any {
	last := len(*w) - 1
	q := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	q.heapIndex = -1
	return q
}

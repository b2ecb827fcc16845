package sched

import (
	"cmp"
	"slices"
)

func sortByArrival(seqs []*Seq) {
	slices.SortFunc(seqs, func(a, b *Seq) int { return cmp.Compare(a.arrival, b.arrival) })
}

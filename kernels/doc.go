// Package kernels computes. Each op has one contract (this package's exported functions), a reference in plain Go
// with float64 sums (*_ref.go), and an implementation per device: C with SIMD for the CPU, CUDA to follow behind the
// same contracts.
//
// A [Device] owns memory and workers; a [Stream] orders ops on it. Ops on one stream run in order; an op may return
// before its result is there, which [Stream.Sync] waits for (the CPU is always done on return). Tensors are views of
// device memory. Weights are packed once into a [Matrix].
//
// Batch invariance: no op's result for one row depends, in any bit, on the other rows, on how many there are, or on
// the number of threads. Work is split over rows and columns; sums over the inner dimension run in one fixed order.
//
// The way of a call:
//
//	op.go        contract, argument checks (shapes, dtypes, indices), dispatch
//	op_ref.go    variant "ref": the oracle of the tests, and what runs when cgo is off
//	cpu_cgo.go   one call into C per op
//	kn.h         the whole C ABI; dispatch.c picks the variant; pool.c runs chunks on the workers
//	op.h         the op in C over the vectors of simd.h; compiled once per variant (cpu_*.c)
package kernels

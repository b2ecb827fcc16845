package kernels

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// ErrClosed says that the device or buffer was closed before.
var ErrClosed = errors.New("already closed")

// CPUOptions choose how the CPU computes.
type CPUOptions struct {
	Threads int    // 0: as many as the process may use (GOMAXPROCS, which heeds the cgroup)
	Variant string // "": the best of this machine; else one of Variants()
}

// Device owns memory and workers. Its methods and the ops on its streams are safe for concurrent use, but ops run one
// at a time: a mutex orders them, and each uses all workers. One goroutine should drive a device.
type Device struct {
	variant   string
	threads   int
	allocated atomic.Int64
	memory    arena

	mu     sync.Mutex // guards closed and orders the ops
	closed bool
	impl   backend
}

// backend runs ops whose arguments were checked and whose tensors have at least one row.
type backend interface {
	embed(out Tensor, m *Matrix, ids Tensor) error
	rmsNorm(out, x, w Tensor, eps float32) error
	addRMSNorm(out, x, y, w Tensor, eps float32) error
	headRMSNorm(x, w Tensor, numHeads int, eps float32) error
	rope(x, positions, table Tensor, numHeads int, pairs Pairs) error
	matMul(out, x Tensor, m *Matrix) error
	gatedMul(out, gateUp Tensor, act Activation) error
	activate(x Tensor, act Activation, limit float32) error
	layerNorm(out, x, w, b Tensor, eps float32) error
	add(x, y Tensor) error
	gather(out, x, rows Tensor) error
	storeKV(c KVCache, k, v, slots Tensor) error
	pagedAttention(out, q Tensor, c KVCache, b AttentionBatch, numHeads int, o AttentionOptions) error
	causalConv(x, w, states Tensor, b StateBatch) error
	pickGroups(out, x Tensor, groups, from int) error
	gatedDelta(out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error
	gatedRMSNorm(out, x, z, w Tensor, numHeads int, eps float32) error
	lora(out, x Tensor, runs []LoRARun) error
	matMulGroups(out, x, starts Tensor, experts []*Matrix) error
	combine(out, x, places, weights Tensor) error
	blockSums(max []float32, sum []float64, row []float32, scale float64) error
	pack(m *Matrix, firstRow int, p MatrixPart) error
	close()
}

// Variants lists the CPU variants that this machine can run, best first. "ref" is always the last, and the only one of
// a build without cgo.
func Variants() []string { return append(cVariants(), "ref") }

// OpenCPU starts the workers of a CPU device. An unknown or unsupported variant is an error that lists those there are.
func OpenCPU(o CPUOptions) (*Device, error) {
	have := Variants()
	if o.Variant == "" {
		o.Variant = have[0]
	}
	if !slices.Contains(have, o.Variant) {
		return nil, fmt.Errorf("kernels: no variant %q here, only %s%s", o.Variant, strings.Join(have, ", "), buildHint)
	}
	if o.Threads < 0 || o.Threads > maxThreads {
		return nil, fmt.Errorf("kernels: %d threads, want 0 to %d", o.Threads, maxThreads)
	}
	if o.Threads == 0 {
		o.Threads = min(runtime.GOMAXPROCS(0), maxThreads)
	}
	d := &Device{variant: o.Variant, threads: o.Threads}
	if o.Variant == "ref" {
		d.threads = 1
		d.impl = refBackend{}
		return d, nil
	}
	impl, err := openC(o.Variant, o.Threads)
	if err != nil {
		return nil, fmt.Errorf("kernels: open %s: %w", o.Variant, err)
	}
	d.impl = impl
	return d, nil
}

const maxThreads = 256

// Variant is the instruction set in use.
func (d *Device) Variant() string { return d.variant }

// Threads is the number of threads an op may use, the calling one included.
func (d *Device) Threads() int { return d.threads }

// Allocated is the number of bytes that buffers, matrices and caches hold now.
func (d *Device) Allocated() int64 { return d.allocated.Load() }

// Close stops the workers. Memory that is still held stays valid until its own Close; how much is the error.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.impl.close()
	if n := d.allocated.Load(); n != 0 {
		return fmt.Errorf("kernels: device closed with %d bytes still held", n)
	}
	return nil
}

// NewStream returns a stream of the device. Streams hold nothing and need no Close.
func (d *Device) NewStream() *Stream { return &Stream{dev: d} }

// Stream orders ops.
type Stream struct{ dev *Device }

// Sync waits until all ops given to the stream are done, and returns the first error among them.
func (s *Stream) Sync() error { return nil }

// begin locks the device for one op; the caller unlocks it with end.
func (s *Stream) begin(op string) (backend, error) {
	s.dev.mu.Lock()
	if s.dev.closed {
		s.dev.mu.Unlock()
		return nil, fmt.Errorf("%s: device %w", op, ErrClosed)
	}
	return s.dev.impl, nil
}

func (s *Stream) end() { s.dev.mu.Unlock() }

// Buffer is device memory.
type Buffer struct {
	dev  *Device
	data []byte // the asked size
	held region
}

// Alloc returns zeroed memory off the Go heap, aligned to 64 bytes; large memory in huge pages if the system grants
// them.
func (d *Device) Alloc(bytes int) (*Buffer, error) {
	if bytes < 0 {
		return nil, fmt.Errorf("kernels: alloc of %d bytes", bytes)
	}
	data, held, err := d.memory.alloc(bytes)
	if err != nil {
		return nil, fmt.Errorf("kernels: alloc of %d bytes: %w", bytes, err)
	}
	d.allocated.Add(int64(bytes))
	return &Buffer{dev: d, data: data, held: held}, nil
}

// Bytes is the host's view of the memory: nil if the host cannot see it, or after Close.
func (b *Buffer) Bytes() []byte { return b.data }

// Len is the size in bytes.
func (b *Buffer) Len() int { return len(b.data) }

// Write copies p to the buffer at off.
func (b *Buffer) Write(off int, p []byte) error {
	if off < 0 || off > len(b.data) || len(p) > len(b.data)-off {
		return fmt.Errorf("kernels: write of %d bytes at %d into %d: %w", len(p), off, len(b.data), ErrShape)
	}
	copy(b.data[off:], p)
	return nil
}

// Read copies from the buffer at off to p.
func (b *Buffer) Read(off int, p []byte) error {
	if off < 0 || off > len(b.data) || len(p) > len(b.data)-off {
		return fmt.Errorf("kernels: read of %d bytes at %d of %d: %w", len(p), off, len(b.data), ErrShape)
	}
	copy(p, b.data[off:])
	return nil
}

// Close frees the memory. No op may be running on it. A second Close does nothing.
func (b *Buffer) Close() error {
	if b == nil || b.dev == nil {
		return nil
	}
	d, n := b.dev, len(b.data)
	b.dev, b.data = nil, nil
	if err := b.held.free(); err != nil {
		return fmt.Errorf("kernels: free: %w", err)
	}
	d.allocated.Add(-int64(n))
	return nil
}

func (b *Buffer) ptr(off int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(b.data)), off)
}

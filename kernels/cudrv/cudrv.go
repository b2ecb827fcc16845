//go:build cuda

package cudrv

// #include <stdlib.h>
// #include "calls.h"
//
// #cgo noescape cudrvLaunch
// #cgo nocallback cudrvLaunch
// #cgo noescape cudrvGraphLaunch
// #cgo nocallback cudrvGraphLaunch
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"gorgonia.org/cu"
)

// An Error is what the driver answered to a call.
type Error struct {
	Call string // such as "launch matmul"
	Code int    // a CUresult
	Name string // such as "CUDA_ERROR_OUT_OF_MEMORY"
	Text string // the driver's own words
}

func (e *Error) Error() string { return fmt.Sprintf("cuda: %s: %s (%s)", e.Call, e.Text, e.Name) }

// OutOfMemory says whether err is the driver's answer that memory is used up.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == C.CUDA_ERROR_OUT_OF_MEMORY
}

func check(r C.CUresult, call string) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	e := &Error{Call: call, Code: int(r), Name: fmt.Sprintf("CUresult %d", int(r)), Text: "error"}
	var s *C.char
	if C.cuGetErrorName(r, &s) == C.CUDA_SUCCESS && s != nil {
		e.Name = C.GoString(s)
	}
	if C.cuGetErrorString(r, &s) == C.CUDA_SUCCESS && s != nil {
		e.Text = C.GoString(s)
	}
	return e
}

// Available returns nil if there is a driver and at least one GPU, else an error that says why not.
func Available() error {
	n, err := Count()
	if err == nil && n == 0 {
		err = errors.New("cuda: the driver has no GPU")
	}
	return err
}

// Count is the number of GPUs.
func Count() (int, error) {
	var why *C.char
	switch r := C.cudaDriverStatus(&why); r {
	case C.CUDA_SUCCESS:
	case C.CUDA_ERROR_NO_DEVICE:
		return 0, nil
	default:
		return 0, fmt.Errorf("cuda: no driver: %s", C.GoString(why))
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, fmt.Errorf("cuda: count devices: %w", err)
	}
	return n, nil
}

// Device is a GPU and its primary context.
type Device struct {
	dev  cu.Device
	ctx  C.CUcontext
	once sync.Once

	name         string
	major, minor int
	processors   int
	shared, l2   int
}

// Open opens a GPU by its number.
func Open(ordinal int) (d *Device, err error) {
	n, err := Count()
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= n {
		return nil, fmt.Errorf("cuda: no GPU %d, there are %d", ordinal, n)
	}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return nil, fmt.Errorf("cuda: open GPU %d: %w", ordinal, err)
	}
	d = &Device{dev: dev}
	if d.name, err = dev.Name(); err != nil {
		return nil, fmt.Errorf("cuda: name of GPU %d: %w", ordinal, err)
	}
	for a, to := range map[cu.DeviceAttribute]*int{cu.ComputeCapabilityMajor: &d.major, cu.ComputeCapabilityMinor: &d.minor,
		cu.MultiprocessorCount: &d.processors, cu.L2CacheSize: &d.l2,
		cu.DeviceAttribute(C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN): &d.shared} {
		if *to, err = dev.Attribute(a); err != nil {
			return nil, fmt.Errorf("cuda: attributes of GPU %d: %w", ordinal, err)
		}
	}
	ctx, err := dev.RetainPrimaryCtx()
	if err != nil {
		return nil, fmt.Errorf("cuda: context of GPU %d: %w", ordinal, err)
	}
	d.ctx = *(*C.CUcontext)(unsafe.Pointer(&ctx))
	return d, nil
}

// A cu.CUContext is its driver's handle and nothing else.
var _ = [1]struct{}{}[unsafe.Sizeof(cu.CUContext{})-unsafe.Sizeof(C.CUcontext(nil))]

// Close gives the context back. What was made of it must have been closed before.
func (d *Device) Close() (err error) {
	d.once.Do(func() {
		if err = d.dev.ReleasePrimaryCtx(); err != nil {
			err = fmt.Errorf("cuda: close %s: %w", d.name, err)
		}
	})
	return err
}

// Name is the GPU's name, such as "NVIDIA H100 80GB HBM3".
func (d *Device) Name() string { return d.name }

// Capability is the compute capability, such as 9, 0.
func (d *Device) Capability() (major, minor int) { return d.major, d.minor }

// Multiprocessors is the number of streaming multiprocessors.
func (d *Device) Multiprocessors() int { return d.processors }

// SharedPerBlock is the most shared memory, in bytes, that a block can have.
func (d *Device) SharedPerBlock() int { return d.shared }

// L2 is the size of the L2 cache in bytes.
func (d *Device) L2() int { return d.l2 }

// DriverVersion is the CUDA version of the driver: 1000 times the major plus 10 times the minor one.
func (d *Device) DriverVersion() int { return cu.Version() }

// Memory is the GPU's memory in bytes: what is free, and all.
func (d *Device) Memory() (free, total int64, err error) {
	var f, t C.size_t
	err = check(C.cudrvInfo(d.ctx, &f, &t), "memory info")
	return int64(f), int64(t), err
}

// Memory is memory of a device.
type Memory struct {
	dev *Device
	ptr cu.DevicePtr
	len int
}

// Alloc returns memory of the device, aligned to 256 bytes, with what was in it.
func (d *Device) Alloc(bytes int) (*Memory, error) {
	if bytes <= 0 {
		return nil, fmt.Errorf("cuda: alloc of %d bytes", bytes)
	}
	var p C.CUdeviceptr
	if err := check(C.cudrvAlloc(d.ctx, &p, C.size_t(bytes)), fmt.Sprintf("alloc of %d bytes", bytes)); err != nil {
		return nil, err
	}
	return &Memory{dev: d, ptr: cu.DevicePtr(p), len: bytes}, nil
}

// Ptr is the address on the device.
func (m *Memory) Ptr() cu.DevicePtr { return m.ptr }

// Len is the size in bytes.
func (m *Memory) Len() int { return m.len }

func (m *Memory) within(op string, off, n int) error {
	if off < 0 || off > m.len || n > m.len-off {
		return fmt.Errorf("cuda: %s of %d bytes at %d of %d", op, n, off, m.len)
	}
	return nil
}

// Write copies p to the memory at off, and waits for it.
func (m *Memory) Write(off int, p []byte) error {
	if err := m.within("write", off, len(p)); err != nil || len(p) == 0 {
		return err
	}
	return check(C.cudrvIn(m.dev.ctx, C.CUdeviceptr(m.ptr)+C.CUdeviceptr(off), unsafe.Pointer(&p[0]), C.size_t(len(p))), "write")
}

// Read copies from the memory at off to p, and waits for it.
func (m *Memory) Read(off int, p []byte) error {
	if err := m.within("read", off, len(p)); err != nil || len(p) == 0 {
		return err
	}
	return check(C.cudrvOut(m.dev.ctx, unsafe.Pointer(&p[0]), C.CUdeviceptr(m.ptr)+C.CUdeviceptr(off), C.size_t(len(p))), "read")
}

// Free gives the memory back. Nothing may be using it. A second Free does nothing.
func (m *Memory) Free() error {
	if m == nil || m.ptr == 0 {
		return nil
	}
	p := m.ptr
	m.ptr, m.len = 0, 0
	return check(C.cudrvFree(m.dev.ctx, C.CUdeviceptr(p)), "free")
}

// Pinned is host memory that the GPU reads and writes itself.
type Pinned struct {
	dev *Device
	p   unsafe.Pointer
	len int
}

// Pinned returns pinned host memory.
func (d *Device) Pinned(bytes int) (*Pinned, error) {
	if bytes <= 0 {
		return nil, fmt.Errorf("cuda: %d bytes of pinned memory", bytes)
	}
	var p unsafe.Pointer
	if err := check(C.cudrvPin(d.ctx, &p, C.size_t(bytes)), fmt.Sprintf("%d bytes of pinned memory", bytes)); err != nil {
		return nil, err
	}
	return &Pinned{dev: d, p: p, len: bytes}, nil
}

// Bytes is the memory: nil after Close.
func (p *Pinned) Bytes() []byte {
	if p.p == nil {
		return nil
	}
	return unsafe.Slice((*byte)(p.p), p.len)
}

// Close gives the memory back. No copy may be using it. A second Close does nothing.
func (p *Pinned) Close() error {
	if p == nil || p.p == nil {
		return nil
	}
	q := p.p
	p.p = nil
	return check(C.cudrvUnpin(p.dev.ctx, q), "free pinned memory")
}

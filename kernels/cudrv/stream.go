//go:build cuda

package cudrv

// #include <stdlib.h>
// #include "calls.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// Stream orders work on the device. It waits for no other stream.
type Stream struct {
	dev *Device
	s   C.CUstream
}

// NewStream makes a stream.
func (d *Device) NewStream() (*Stream, error) {
	s := &Stream{dev: d}
	return s, check(C.cudrvStream(d.ctx, &s.s), "make a stream")
}

// Close ends the stream once its work is done. A second Close does nothing.
func (s *Stream) Close() error {
	if s == nil || s.s == nil {
		return nil
	}
	h := s.s
	s.s = nil
	return check(C.cudrvStreamClose(s.dev.ctx, h), "close a stream")
}

// Sync waits until all work of the stream is done, and returns the first error of a kernel.
func (s *Stream) Sync() error { return check(C.cudrvSync(s.dev.ctx, s.s), "sync") }

// CopyIn copies from pinned memory to m at off, in the stream's order.
func (s *Stream) CopyIn(m *Memory, off int, from *Pinned) error {
	if err := m.within("copy", off, from.len); err != nil {
		return err
	}
	return check(C.cudrvInAsync(s.dev.ctx, C.CUdeviceptr(m.ptr)+C.CUdeviceptr(off), from.p, C.size_t(from.len), s.s), "copy in")
}

// CopyOut copies from m at off to pinned memory, in the stream's order.
func (s *Stream) CopyOut(to *Pinned, m *Memory, off int) error {
	if err := m.within("copy", off, to.len); err != nil {
		return err
	}
	return check(C.cudrvOutAsync(s.dev.ctx, to.p, C.CUdeviceptr(m.ptr)+C.CUdeviceptr(off), C.size_t(to.len), s.s), "copy out")
}

// Fill sets all bytes of m to v, in the stream's order.
func (s *Stream) Fill(m *Memory, v byte) error {
	return check(C.cudrvFill(s.dev.ctx, C.CUdeviceptr(m.ptr), C.uchar(v), C.size_t(m.len), s.s), "fill")
}

// Event marks a moment of a stream.
type Event struct {
	dev *Device
	e   C.CUevent
}

// NewEvent makes an event.
func (d *Device) NewEvent() (*Event, error) {
	e := &Event{dev: d}
	return e, check(C.cudrvEvent(d.ctx, &e.e), "make an event")
}

// Record lets the event stand for the moment when all work that s has so far is done.
func (e *Event) Record(s *Stream) error {
	return check(C.cudrvEventRecord(e.dev.ctx, e.e, s.s), "record an event")
}

// Sync waits for the moment.
func (e *Event) Sync() error { return check(C.cudrvEventSync(e.dev.ctx, e.e), "wait for an event") }

// Since is the time from one event to this; both must be over. It resolves about half a microsecond.
func (e *Event) Since(from *Event) (time.Duration, error) {
	var ms C.float
	err := check(C.cudrvElapsed(e.dev.ctx, &ms, from.e, e.e), "time between events")
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

// Close frees the event. A second Close does nothing.
func (e *Event) Close() error {
	if e == nil || e.e == nil {
		return nil
	}
	h := e.e
	e.e = nil
	return check(C.cudrvEventClose(e.dev.ctx, h), "close an event")
}

// Module is loaded code.
type Module struct {
	dev *Device
	m   C.CUmodule
}

// Load loads a fat binary, a cubin, or PTX, which the driver compiles.
func (d *Device) Load(image []byte) (*Module, error) {
	m := &Module{dev: d}
	const size = 8 << 10
	log := C.calloc(1, size)
	defer C.free(log)
	text := C.CBytes(append(image[:len(image):len(image)], 0)) // PTX is a string
	defer C.free(text)
	if err := check(C.cudrvLoad(d.ctx, &m.m, text, (*C.char)(log), size), "load kernels"); err != nil {
		if s := strings.TrimSpace(C.GoString((*C.char)(log))); s != "" {
			err = fmt.Errorf("%w: %s", err, s)
		}
		return nil, err
	}
	return m, nil
}

// Close unloads the code. None of it may be running. A second Close does nothing.
func (m *Module) Close() error {
	if m == nil || m.m == nil {
		return nil
	}
	h := m.m
	m.m = nil
	return check(C.cudrvUnload(m.dev.ctx, h), "unload kernels")
}

// Function is a kernel.
type Function struct {
	dev  *Device
	f    C.CUfunction
	name string
}

// Function finds a kernel by its name.
func (m *Module) Function(name string) (*Function, error) {
	f := &Function{dev: m.dev, name: name}
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	if err := check(C.cudrvFunction(m.dev.ctx, &f.f, m.m, c), "find "+name); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Function) attribute(a C.CUfunction_attribute) (int, error) {
	var v C.int
	err := check(C.cudrvAttribute(f.dev.ctx, &v, a, f.f), "attribute of "+f.name)
	return int(v), err
}

// Registers is the number of registers of a thread.
func (f *Function) Registers() (int, error) { return f.attribute(C.CU_FUNC_ATTRIBUTE_NUM_REGS) }

// LocalBytes is the memory of a thread beyond its registers: 0 in a kernel that spills none.
func (f *Function) LocalBytes() (int, error) {
	return f.attribute(C.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
}

// SetShared allows launches with so much shared memory of their own, in bytes; without it 48 KiB.
func (f *Function) SetShared(bytes int) error {
	return check(C.cudrvSetAttribute(f.dev.ctx, f.f, C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes)),
		fmt.Sprintf("%s with %d bytes of shared memory", f.name, bytes))
}

// Args are the arguments of a launch. They can be used again: the driver has read them when Launch returns.
type Args struct {
	memory  [1024]byte
	offsets [C.maxArguments]uint32
	n, used int
	full    bool
}

// Reset forgets all arguments.
func (a *Args) Reset() *Args {
	a.n, a.used, a.full = 0, 0, false
	return a
}

func (a *Args) add(align, size int) []byte {
	at := (a.used + align - 1) &^ (align - 1)
	if a.n == len(a.offsets) || at+size > len(a.memory) {
		a.full = true
		return make([]byte, size)
	}
	a.offsets[a.n], a.used = uint32(at), at+size
	a.n++
	return a.memory[at : at+size]
}

// Ptr adds an address.
func (a *Args) Ptr(p cu.DevicePtr) *Args {
	binary.NativeEndian.PutUint64(a.add(8, 8), uint64(p))
	return a
}

// I32 adds an int.
func (a *Args) I32(v int32) *Args {
	binary.NativeEndian.PutUint32(a.add(4, 4), uint32(v))
	return a
}

// I64 adds a long.
func (a *Args) I64(v int64) *Args {
	binary.NativeEndian.PutUint64(a.add(8, 8), uint64(v))
	return a
}

// Bytes adds a structure. The driver copies it from where it lies, whatever its alignment on the device.
func (a *Args) Bytes(p []byte) *Args {
	copy(a.add(8, len(p)), p)
	return a
}

// LaunchConfig is the shape of a launch.
type LaunchConfig struct {
	Grid, Block [3]uint32
	Shared      uint32 // bytes of shared memory beside the kernel's own
	// Programmatic lets the kernel start before the one before it in the stream is done. It must wait itself
	// (griddepcontrol.wait) before it touches what that one writes or reads. It needs compute capability 9.0.
	Programmatic bool
}

// Launch launches f; errors of the kernel itself are Sync's.
func (s *Stream) Launch(f *Function, c LaunchConfig, args *Args) error {
	if args.full {
		return fmt.Errorf("cuda: launch %s: too many arguments", f.name)
	}
	var programmatic C.int
	if c.Programmatic {
		programmatic = 1
	}
	r := C.cudrvLaunch(s.dev.ctx, s.s, f.f, (*C.uint)(&c.Grid[0]), (*C.uint)(&c.Block[0]), C.uint(c.Shared), programmatic,
		(*C.char)(unsafe.Pointer(&args.memory[0])), (*C.uint)(&args.offsets[0]), C.int(args.n))
	if r != C.CUDA_SUCCESS {
		return check(r, "launch "+f.name)
	}
	return nil
}

// Graph is work that was recorded once and is launched as one.
type Graph struct {
	dev *Device
	g   C.CUgraphExec
}

// BeginCapture lets the stream record what it is given, until EndCapture, instead of doing it.
func (s *Stream) BeginCapture() error {
	return check(C.cudrvCapture(s.dev.ctx, s.s), "begin a capture")
}

// EndCapture returns what was recorded. The memory that it uses must outlive it.
func (s *Stream) EndCapture() (*Graph, error) {
	g := &Graph{dev: s.dev}
	if err := check(C.cudrvEndCapture(s.dev.ctx, s.s, &g.g), "end a capture"); err != nil {
		return nil, err
	}
	return g, nil
}

// Launch does the graph's work in the order of s.
func (g *Graph) Launch(s *Stream) error {
	if r := C.cudrvGraphLaunch(g.dev.ctx, g.g, s.s); r != C.CUDA_SUCCESS {
		return check(r, "launch a graph")
	}
	return nil
}

// Close frees the graph. A second Close does nothing.
func (g *Graph) Close() error {
	if g == nil || g.g == nil {
		return nil
	}
	h := g.g
	g.g = nil
	return check(C.cudrvGraphClose(g.dev.ctx, h), "close a graph")
}

// DType is the type of a tensor map's elements.
type DType int

// BF16 is bfloat16.
const BF16 DType = C.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16

// Swizzle is how a box lies in shared memory.
type Swizzle int

// Swizzle128 spans 128 bytes: a row of the box.
const Swizzle128 Swizzle = C.CU_TENSOR_MAP_SWIZZLE_128B

// TensorMap tells the tensor memory accelerator of a matrix: an argument of a kernel, by value (__grid_constant__).
type TensorMap [128]byte

// TensorMap2D describes a row-major matrix at p, of which boxes of boxRows times boxColumns are loaded, zero beyond its
// edges. stride is the distance of rows in bytes, a multiple of 16; p is aligned to 16 bytes. It needs compute capability
// 9.0.
func (d *Device) TensorMap2D(p cu.DevicePtr, t DType, rows, columns, stride, boxRows, boxColumns int, swizzle Swizzle) (m TensorMap, err error) {
	for _, n := range []int{rows, columns, stride, boxRows, boxColumns} {
		if n < 1 || n > math.MaxUint32 {
			return m, fmt.Errorf("cuda: tensor map of %d by %d, stride %d, box %d by %d", rows, columns, stride, boxRows, boxColumns)
		}
	}
	r := C.cudrvTensorMap(d.ctx, unsafe.Pointer(&m[0]), C.CUtensorMapDataType(t), C.CUdeviceptr(p), C.uint64_t(rows), C.uint64_t(columns),
		C.uint64_t(stride), C.uint32_t(boxRows), C.uint32_t(boxColumns), C.CUtensorMapSwizzle(swizzle))
	return m, check(r, fmt.Sprintf("tensor map of %d by %d", rows, columns))
}

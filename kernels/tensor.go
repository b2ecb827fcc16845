package kernels

import (
	"errors"
	"fmt"
	"unsafe"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types.
const (
	F32 DType = iota + 1
	BF16
	F16
	I32
	FP8 // e4m3fn; of KV caches only
	I8  // of KV caches only, with scales
)

// The types that only a Matrix has: whole numbers and scales; see there.
const (
	W8 DType = iota + 16
	W4
)

// Size is the number of bytes of one element of a tensor.
func (d DType) Size() int {
	switch d {
	case F32, I32:
		return 4
	case BF16, F16:
		return 2
	case FP8, I8:
		return 1
	}
	panic(fmt.Sprintf("kernels: no such dtype %d", d))
}

// String is the name that checkpoints and options use.
func (d DType) String() string {
	switch d {
	case F32:
		return "float32"
	case BF16:
		return "bfloat16"
	case F16:
		return "float16"
	case I32:
		return "int32"
	case FP8:
		return "fp8"
	case I8, W8:
		return "int8"
	case W4:
		return "int4"
	}
	return fmt.Sprintf("dtype(%d)", uint8(d))
}

// Errors of all ops, wrapped with the op's name and the offending argument.
var (
	ErrShape = errors.New("shapes do not fit")
	ErrDType = errors.New("dtype not supported here")
	ErrIndex = errors.New("index out of range")
)

// Tensor is a row-major matrix view in device memory: element (r, c) lies at Off + (r*Stride + c)*DType.Size() bytes.
type Tensor struct {
	Buf        *Buffer
	Off        int // bytes
	DType      DType
	Rows, Cols int
	Stride     int // elements from one row to the next
}

// NewTensor returns the contiguous view of b from byte off on.
func NewTensor(b *Buffer, off int, dt DType, rows, cols int) Tensor {
	return Tensor{Buf: b, Off: off, DType: dt, Rows: rows, Cols: cols, Stride: cols}
}

// RowRange returns the view of rows [from, to).
func (t Tensor) RowRange(from, to int) Tensor {
	t.Off += from * t.Stride * t.DType.Size()
	t.Rows = to - from
	return t
}

// Columns returns the view of columns [from, to).
func (t Tensor) Columns(from, to int) Tensor {
	t.Off += from * t.DType.Size()
	t.Cols = to - from
	return t
}

// dtypes is a set of dtypes.
type dtypes uint8

const (
	onlyF32   dtypes = 1 << F32
	onlyI32   dtypes = 1 << I32
	f32orBF16 dtypes = 1<<F32 | 1<<BF16
	kvDTypes  dtypes = 1<<F32 | 1<<BF16 | 1<<FP8 | 1<<I8
)

// check reports whether t is a view inside its buffer, of an allowed dtype and of the wanted shape (-1: any).
func (t Tensor) check(name string, allowed dtypes, rows, cols int) error {
	if t.DType > I8 || allowed>>t.DType&1 == 0 {
		return fmt.Errorf("%s is %v: %w", name, t.DType, ErrDType)
	}
	if t.Rows < 0 || t.Cols < 0 || rows >= 0 && t.Rows != rows || cols >= 0 && t.Cols != cols {
		return fmt.Errorf("%s is [%d, %d], want [%d, %d]: %w", name, t.Rows, t.Cols, rows, cols, ErrShape)
	}
	if t.Rows == 0 || t.Cols == 0 {
		return nil
	}
	size := t.DType.Size()
	if t.Stride < t.Cols && t.Rows > 1 || t.Off < 0 || t.Off%size != 0 {
		return fmt.Errorf("%s has offset %d, stride %d, %d columns: %w", name, t.Off, t.Stride, t.Cols, ErrShape)
	}
	if t.Buf == nil || t.Buf.dev == nil {
		return fmt.Errorf("%s: buffer %w", name, ErrClosed)
	}
	have := (len(t.Buf.data) - t.Off) / size // elements from Off to the buffer's end
	if t.Cols > have || t.Rows > 1 && t.Stride > (have-t.Cols)/(t.Rows-1) {
		return fmt.Errorf("%s [%d, %d], stride %d, offset %d ends outside its buffer of %d bytes: %w",
			name, t.Rows, t.Cols, t.Stride, t.Off, len(t.Buf.data), ErrShape)
	}
	return nil
}

// ptr is where the view begins; nil if it is empty.
func (t Tensor) ptr() unsafe.Pointer {
	if t.Rows == 0 || t.Cols == 0 {
		return nil
	}
	return t.Buf.ptr(t.Off)
}

// ints is row r of an I32 tensor.
func (t Tensor) ints(r int) []int32 {
	if t.Cols == 0 {
		return nil
	}
	return unsafe.Slice((*int32)(t.Buf.ptr(t.Off+r*t.Stride*4)), t.Cols)
}

// checkInts reports the first element of a one-row I32 tensor outside [lo, hi).
func (t Tensor) checkInts(name string, lo, hi int) error {
	for i, v := range t.ints(0) {
		if int(v) < lo || int(v) >= hi {
			return fmt.Errorf("%s[%d] is %d, outside [%d, %d): %w", name, i, v, lo, hi, ErrIndex)
		}
	}
	return nil
}

// f32 is row r of an F32 tensor.
func (t Tensor) f32(r int) []float32 {
	return unsafe.Slice((*float32)(t.Buf.ptr(t.Off+r*t.Stride*4)), t.Cols)
}

// bits16 is row r of a BF16 or F16 tensor.
func (t Tensor) bits16(r int) []uint16 {
	return unsafe.Slice((*uint16)(t.Buf.ptr(t.Off+r*t.Stride*2)), t.Cols)
}

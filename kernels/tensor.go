package kernels

import (
	"errors"
	"fmt"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types.
const (
	F32 DType = iota + 1
	BF16
	F16
	I32
)

// Size is the number of bytes of one element.
func (d DType) Size() int {
	switch d {
	case F32, I32:
		return 4
	case BF16, F16:
		return 2
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
	}
	return fmt.Sprintf("dtype(%d)", uint8(d))
}

// Errors of all ops, wrapped with the op's name and the offending shapes.
var (
	ErrShape = errors.New("shapes do not fit")
	ErrDType = errors.New("dtype not supported here")
)

// Tensor is a row-major matrix view in device memory: element (r, c) lies at Off + (r*Stride + c)*DType.Size() bytes.
type Tensor struct {
	Buf        *Buffer
	Off        int // bytes
	DType      DType
	Rows, Cols int
	Stride     int // elements from one row to the next
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

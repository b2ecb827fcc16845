package kernels

import (
	"fmt"
	"slices"
	"unsafe"
)

// Matrix is a weight matrix [N out, K in], packed for MatMul and never changed. Its layout is that of panels of 64
// output rows (the lanes of the vectors), with the inner dimension running slowest, so that one output tile is one
// linear stream:
//
//	BF16       [N/64][K/2][64][2]   pairs of neighbours in K, as dot-product instructions take them
//	F16, F32   [N/64][K][64]
//	W8         [N/64] of            F32 scales [64], then bytes [K/4][64][4]
//	W4         [N/64][K/group] of   F16 scales [64], then bytes [group/8][64][4]
//
// A W8 weight is (byte-128)*scale, with a scale for each row. A W4 weight is (nibble-8)*scale, with a scale for each group of
// the row; the low nibbles of 4 bytes are neighbours in K, the high ones the next 4. N and K are padded to whole panels and
// pairs, with W8 and W4 to a multiple of 8, with zeros.
type Matrix struct {
	buf   *Buffer
	n, k  int
	dt    DType
	group int          // of W4
	parts []MatrixPart // of a mapped one, whose buf holds the table of them for C
}

// W4Group is the number of weights of a row that share a scale.
const W4Group = 64

// MatrixPart is a stack of weight rows as checkpoints store them.
type MatrixPart struct {
	Data  []byte // row-major [Rows, K], little endian
	DType DType
	Rows  int
}

const panelCols = 64

// panelBytes is the size of one panel.
func (m *Matrix) panelBytes() int {
	k8 := (m.k + 7) &^ 7
	switch m.dt {
	case W8:
		return (4 + k8) * panelCols
	case W4:
		return (m.k+m.group-1)/m.group*2*panelCols + k8*panelCols/2
	case BF16:
		return (m.k + m.k&1) * panelCols * m.dt.Size()
	}
	return m.k * panelCols * m.dt.Size()
}

// MatrixBytes is the memory of a matrix [n, k].
func MatrixBytes(dt DType, n, k int) int64 {
	m := &Matrix{n: n, k: k, dt: dt, group: W4Group}
	return int64((n+panelCols-1)/panelCols) * int64(m.panelBytes())
}

// PackMatrix converts the parts (rounding to nearest, ties to even; to W8 so that a row's largest weight becomes 127 of 127, to
// W4 so that a group's largest becomes -8 of -8 to 7), stacks them over output rows (fused qkv, gate_up)
// and packs them. The parts are not needed afterwards.
func (d *Device) PackMatrix(dt DType, k int, parts ...MatrixPart) (*Matrix, error) {
	m, err := d.packMatrix(dt, k, parts)
	if err != nil {
		return nil, fmt.Errorf("pack matrix: %w", err)
	}
	return m, nil
}

// MapMatrix is PackMatrix without packing: the matrix stays where it is, row-major, and is packed panel by panel whenever it is
// used. That takes no memory of its own and gives the same results, at about half the speed where memory is the limit. The
// parts have to be of the dtype F32, BF16 or F16, outside of Go's heap, and there until Close.
func (d *Device) MapMatrix(dt DType, k int, parts ...MatrixPart) (*Matrix, error) {
	m, err := d.mapMatrix(dt, k, parts)
	if err != nil {
		return nil, fmt.Errorf("map matrix: %w", err)
	}
	return m, nil
}

func (d *Device) mapMatrix(dt DType, k int, parts []MatrixPart) (*Matrix, error) {
	n, err := checkParts(k, parts)
	if err != nil {
		return nil, err
	}
	m := &Matrix{n: n, k: k, dt: dt}
	for i, p := range parts {
		if p.DType != dt {
			return nil, fmt.Errorf("part %d is %v, not %v: %w", i, p.DType, dt, ErrDType)
		}
		if p.Rows > 0 {
			m.parts = append(m.parts, p)
		}
	}
	type entry struct { // kn_part
		data *byte
		rows int64
	}
	if m.buf, err = d.Alloc(len(m.parts) * int(unsafe.Sizeof(entry{}))); err != nil {
		return nil, err
	}
	for i, p := range m.parts {
		unsafe.Slice((*entry)(m.buf.ptr(0)), len(m.parts))[i] = entry{unsafe.SliceData(p.Data), int64(p.Rows)}
	}
	return m, nil
}

func (d *Device) packMatrix(dt DType, k int, parts []MatrixPart) (*Matrix, error) {
	if !slices.Contains([]DType{F32, BF16, F16, W8, W4}, dt) {
		return nil, fmt.Errorf("to %v: %w", dt, ErrDType)
	}
	n, err := checkParts(k, parts)
	if err != nil {
		return nil, err
	}
	m := &Matrix{n: n, k: k, dt: dt, group: W4Group}
	if m.buf, err = d.Alloc(int(MatrixBytes(dt, n, k))); err != nil {
		return nil, err
	}
	if err := d.packParts(m, parts); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// checkParts returns the number of rows of all parts.
func checkParts(k int, parts []MatrixPart) (n int, err error) {
	if k < 1 || k > 1<<30 {
		return 0, fmt.Errorf("K is %d: %w", k, ErrShape)
	}
	for i, p := range parts {
		if p.DType != F32 && p.DType != BF16 && p.DType != F16 {
			return 0, fmt.Errorf("part %d is %v: %w", i, p.DType, ErrDType)
		}
		if p.Rows < 0 || p.Rows > 1<<30 || len(p.Data) != p.Rows*k*p.DType.Size() {
			return 0, fmt.Errorf("part %d has %d bytes for [%d, %d] %v: %w", i, len(p.Data), p.Rows, k, p.DType, ErrShape)
		}
		n += p.Rows
	}
	if n < 1 || n > 1<<30 {
		return 0, fmt.Errorf("N is %d: %w", n, ErrShape)
	}
	return n, nil
}

func (d *Device) packParts(m *Matrix, parts []MatrixPart) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("device %w", ErrClosed)
	}
	row := 0
	for _, p := range parts {
		if p.Rows == 0 {
			continue
		}
		if err := d.impl.pack(m, row, p); err != nil {
			return err
		}
		row += p.Rows
	}
	return nil
}

// N is the number of output rows.
func (m *Matrix) N() int { return m.n }

// K is the inner dimension.
func (m *Matrix) K() int { return m.k }

// DType is the type the weights are stored as.
func (m *Matrix) DType() DType { return m.dt }

// Bytes is the memory the matrix holds, padding included; of a mapped one, the size of its parts.
func (m *Matrix) Bytes() (n int64) {
	if m == nil || m.buf == nil {
		return 0
	}
	if m.parts == nil {
		return int64(m.buf.Len())
	}
	for _, p := range m.parts {
		n += int64(len(p.Data))
	}
	return n
}

// Close frees the weights. A second Close does nothing.
func (m *Matrix) Close() error {
	if m == nil {
		return nil
	}
	return m.buf.Close()
}

// check reports whether m is open and takes inputs of k columns (-1: any).
func (m *Matrix) check(name string, k int) error {
	if m == nil || m.buf == nil || m.buf.dev == nil {
		return fmt.Errorf("%s: matrix %w", name, ErrClosed)
	}
	if k >= 0 && m.k != k {
		return fmt.Errorf("%s is [%d, %d], want K %d: %w", name, m.n, m.k, k, ErrShape)
	}
	return nil
}

func (m *Matrix) ptr() unsafe.Pointer { return m.buf.ptr(0) }

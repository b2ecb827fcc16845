package kernels

import (
	"math"
	"unsafe"
)

// refBackend is the oracle: plain Go, one thread, sums in float64. It shares the layouts of the C variants.
type refBackend struct{}

func (refBackend) close() {}

// loadRow reads row r as float32 into dst.
func loadRow(dst []float32, t Tensor, r int) {
	if t.DType == F32 {
		copy(dst, t.f32(r))
		return
	}
	loadBits(dst, t.DType, t.bits16(r))
}

func loadBits(dst []float32, dt DType, src []uint16) {
	widen := fromBF16
	if dt == F16 {
		widen = fromF16
	}
	for i, h := range src {
		dst[i] = widen(h)
	}
}

// storeRow rounds src into row r.
func storeRow(t Tensor, r int, src []float32) {
	if t.DType == F32 {
		copy(t.f32(r), src)
		return
	}
	dst := t.bits16(r)
	for i, f := range src {
		dst[i] = toBF16(f)
	}
}

func (refBackend) pack(m *Matrix, firstRow int, p MatrixPart) error {
	for r := range p.Rows {
		for k := range m.k {
			m.set(firstRow+r, k, p.value(r*m.k+k))
		}
	}
	return nil
}

// value is the part's i-th element. The data may lie at any address.
func (p MatrixPart) value(i int) float32 {
	b := p.Data[i*p.DType.Size():]
	switch p.DType {
	case BF16:
		return fromBF16(uint16(b[0]) | uint16(b[1])<<8)
	case F16:
		return fromF16(uint16(b[0]) | uint16(b[1])<<8)
	}
	return math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

func (m *Matrix) set(n, k int, f float32) {
	switch p := m.buf.ptr(m.at(n, k) * m.dt.Size()); m.dt {
	case F32:
		*(*float32)(p) = f
	case BF16:
		*(*uint16)(p) = toBF16(f)
	case F16:
		*(*uint16)(p) = toF16(f)
	}
}

// loadRow reads weight row n as float32 into dst.
func (m *Matrix) loadRow(dst []float32, n int) {
	base := m.ptr()
	for k := range dst {
		switch p := unsafe.Add(base, m.at(n, k)*m.dt.Size()); m.dt {
		case F32:
			dst[k] = *(*float32)(p)
		case BF16:
			dst[k] = fromBF16(*(*uint16)(p))
		case F16:
			dst[k] = fromF16(*(*uint16)(p))
		}
	}
}

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
	row := make([]float32, m.k)
	for r := range p.Rows {
		for k := range row {
			row[k] = p.value(r*m.k + k)
		}
		m.setRow(firstRow+r, row)
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

// scaleAt and codeAt are where the scale and the byte of weight (n, k) of a W8 or W4 matrix lie.
func (m *Matrix) scaleAt(n, k int) unsafe.Pointer {
	lane := n % panelCols
	if m.dt == W8 {
		return m.buf.ptr(n/panelCols*m.panelBytes() + lane*4)
	}
	return m.buf.ptr(n/panelCols*m.panelBytes() + k/m.group*m.groupBytes() + lane*2)
}

func (m *Matrix) codeAt(n, k int) *uint8 {
	at, lane := n/panelCols*m.panelBytes(), n%panelCols
	if m.dt == W8 {
		return (*uint8)(m.buf.ptr(at + 4*panelCols + (k/4*panelCols+lane)*4 + k%4))
	}
	return (*uint8)(m.buf.ptr(at + k/m.group*m.groupBytes() + 2*panelCols + (k%m.group/8*panelCols+lane)*4 + k%4))
}

func (m *Matrix) groupBytes() int { return 2*panelCols + m.group*panelCols/2 }

// quantized returns the code of a W8 or W4 weight, less what stands for zero, and its scale.
func (m *Matrix) quantized(n, k int) (code int, scale float32) {
	b := int(*m.codeAt(n, k))
	if m.dt == W8 {
		return b - 128, *(*float32)(m.scaleAt(n, k))
	}
	if k&4 != 0 {
		b >>= 4
	}
	return b&15 - 8, fromF16(*(*uint16)(m.scaleAt(n, k)))
}

// at is where element (n, k) of a matrix that is not quantized lies.
func (m *Matrix) at(n, k int) unsafe.Pointer {
	element := k*panelCols + n%panelCols
	if m.dt == BF16 {
		element = (k/2*panelCols+n%panelCols)*2 + k&1
	}
	return m.buf.ptr(n/panelCols*m.panelBytes() + element*m.dt.Size())
}

// setRow rounds a row of weights.
func (m *Matrix) setRow(n int, row []float32) {
	switch m.dt {
	case W8:
		m.setRow8(n, row)
	case W4:
		for k := 0; k < m.k; k += m.group {
			m.setGroup4(n, k, row[k:min(k+m.group, m.k)])
		}
	default:
		for k, f := range row {
			switch p := m.at(n, k); m.dt {
			case F32:
				*(*float32)(p) = f
			case BF16:
				*(*uint16)(p) = toBF16(f)
			case F16:
				*(*uint16)(p) = toF16(f)
			}
		}
	}
}

func (m *Matrix) setRow8(n int, row []float32) {
	most, nan := float32(0), float32(0)
	for _, f := range row {
		most = max(most, max(f, -f))
		nan += f * 0
	}
	scale, inv := most/127, 127/most
	if !(most > 1e-30) {
		scale, inv = 0, 0
	}
	*(*float32)(m.scaleAt(n, 0)) = scale + nan
	for k := range (m.k + 7) &^ 7 {
		*m.codeAt(n, k) = 128
		if k < m.k {
			*m.codeAt(n, k) = uint8(roundTo(row[k]*inv, -128, 127) + 128)
		}
	}
}

func (m *Matrix) setGroup4(n, k0 int, row []float32) {
	up, down, nan := float32(0), float32(0), float32(0)
	for _, f := range row {
		up, down = max(up, f), max(down, -f)
		nan += f * 0
	}
	scale := toF16(down/8 + nan) // the larger side gets the code further from zero
	if up >= down {
		scale = toF16(-up/8 + nan)
	}
	*(*uint16)(m.scaleAt(n, k0)) = scale
	inv := 1 / fromF16(scale)
	if fromF16(scale) == 0 {
		inv = 0
	}
	for i := range (len(row) + 7) &^ 7 {
		code := 8
		if i < len(row) {
			code += roundTo(row[i]*inv, -8, 7)
		}
		p := m.codeAt(n, k0+i)
		if i&4 == 0 {
			*p = uint8(code)
		} else {
			*p |= uint8(code << 4)
		}
	}
}

// roundTo rounds to the nearest whole number, ties to even, within bounds; NaN is the lower one.
func roundTo(f float32, lo, hi int) int {
	if f != f {
		return lo
	}
	return int(min(max(math.RoundToEven(float64(f)), float64(lo)), float64(hi)))
}

// loadRow reads weight row n as float32 into dst.
func (m *Matrix) loadRow(dst []float32, n int) {
	for _, p := range m.parts {
		if n < p.Rows {
			for k := range dst {
				dst[k] = p.value(n*m.k + k)
			}
			return
		}
		n -= p.Rows
	}
	for k := range dst {
		switch m.dt {
		case W8, W4:
			code, scale := m.quantized(n, k)
			dst[k] = scale * float32(code)
		case F32:
			dst[k] = *(*float32)(m.at(n, k))
		case BF16:
			dst[k] = fromBF16(*(*uint16)(m.at(n, k)))
		case F16:
			dst[k] = fromF16(*(*uint16)(m.at(n, k)))
		}
	}
}

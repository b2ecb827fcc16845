package kernels

import "math"

// toBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func toBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if f != f {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func fromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// toF16 rounds to the nearest float16, ties to even; beyond its range is infinity.
func toF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00
	case b >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: adding 0.5 leaves the value in units of 2^-24 in the low bits, rounded
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	b += 0xfff + b>>13&1
	return sign | uint16((b-(127-15)<<23)>>13)
}

func fromF16(h uint16) float32 {
	sign, mag := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case mag >= 0x7c00: // infinity, NaN
		return math.Float32frombits(sign | 0x7f800000 | (mag&0x3ff)<<13)
	case mag >= 0x400:
		return math.Float32frombits(sign | mag<<13 + (127-15)<<23)
	}
	return math.Float32frombits(sign | math.Float32bits(float32(mag)*0x1p-24)) // subnormal, zero
}

// toFP8 rounds to the nearest e4m3fn, ties to even; beyond 448, its largest, is 448; NaN stays NaN.
func toFP8(f float32) uint8 {
	var sign uint8
	if math.Signbit(float64(f)) {
		sign = 0x80
	}
	if f != f {
		return sign | 0x7f
	}
	x := min(math.Abs(float64(f)), 448)
	unit := max(math.Ilogb(x), -6) - 3 // exponent of the last bit, which is three below the first, or below 2^-6
	n := math.RoundToEven(math.Ldexp(x, -unit))
	return sign | uint8(int(n)+(unit+9)*8) // 8 codes per exponent; n carries into the next
}

func fromFP8(b uint8) float32 {
	exp, frac := int(b>>3&15), float64(b&7)
	if exp > 0 {
		frac, exp = frac+8, exp-1
	}
	f := math.Ldexp(frac, exp-9)
	if b&0x7f == 0x7f {
		f = math.NaN()
	}
	if b&0x80 != 0 {
		f = -f
	}
	return float32(f)
}

package jinja

import (
	"cmp"
	"math"
	"math/big"
)

// maxBits bounds integers: Python's have no end, a server's have.
const maxBits = 1 << 14

// normalize returns n as int64 if it fits.
func normalize(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	if n.BitLen() > maxBits {
		fail(kindLimit, "integer size")
	}
	return n
}

func isNumber(v any) bool {
	switch v.(type) {
	case bool, int64, float64, *big.Int:
		return true
	}
	return false
}

// asBig returns an integer or bool.
func asBig(v any) (*big.Int, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1), true
		}
		return new(big.Int), true
	case int64:
		return big.NewInt(v), true
	case *big.Int:
		return v, true
	}
	return nil, false
}

// asInt returns an integer or bool that fits.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// mustInt is for arguments; too large ones are cut to the largest int64 that is safe to count with.
func mustInt(v any) int {
	if n, ok := asInt(v); ok {
		return int(max(min(n, 1<<40), -1<<40))
	}
	if n, ok := v.(*big.Int); ok {
		return n.Sign() << 40
	}
	checkDefined(v)
	typeError("'%s' object cannot be interpreted as an integer", typeName(v))
	return 0
}

func asFloat(v any) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	n, _ := asBig(v)
	f, _ := new(big.Float).SetInt(n).Float64()
	if math.IsInf(f, 0) {
		fail("OverflowError", "int too large to convert to float")
	}
	return f
}

// bigFloat returns the whole number f.
func bigFloat(f float64) *big.Int {
	n, _ := big.NewFloat(f).Int(nil)
	return n
}

// compareNumbers returns -1, 0, 1, or 2 if one of them is not a number.
func (st *state) compareNumbers(a, b any) int {
	x, xok := asInt(a)
	y, yok := asInt(b)
	if xok && yok {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	f, fok := a.(float64)
	g, gok := b.(float64)
	switch {
	case fok && math.IsNaN(f) || gok && math.IsNaN(g):
		return 2
	case fok && gok:
		return cmp.Compare(f, g)
	}
	st.charge(maxBits / 64)
	if !fok && !gok {
		m, _ := asBig(a)
		n, _ := asBig(b)
		return m.Cmp(n)
	}
	return exact(a).Cmp(exact(b))
}

// exact holds any number without rounding.
func exact(v any) *big.Float {
	if f, ok := v.(float64); ok {
		return big.NewFloat(f)
	}
	n, _ := asBig(v)
	return new(big.Float).SetPrec(maxBits + 64).SetInt(n)
}

// arithmetic is a op b for two numbers.
func (st *state) arithmetic(op string, a, b any) any {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat {
		return floatOp(op, asFloat(a), asFloat(b))
	}
	x, xok := asInt(a)
	y, yok := asInt(b)
	if xok && yok {
		const half = 1 << 62
		if op == "+" && x < half && x > -half && y < half && y > -half {
			return x + y
		}
		if op == "-" && x < half && x > -half && y < half && y > -half {
			return x - y
		}
	}
	m, _ := asBig(a)
	n, _ := asBig(b)
	return st.bigOp(op, m, n)
}

func (st *state) bigOp(op string, a, b *big.Int) any {
	st.charge(a.BitLen() * b.BitLen() / 1024)
	out := new(big.Int)
	switch op {
	case "+":
		out.Add(a, b)
	case "-":
		out.Sub(a, b)
	case "*":
		out.Mul(a, b)
	case "**":
		if b.Sign() < 0 {
			return floatOp(op, asFloat(a), asFloat(b))
		}
		if a.BitLen() > 1 && (!b.IsInt64() || b.Int64() > maxBits/int64(a.BitLen()-1)) {
			fail(kindLimit, "integer size")
		}
		if a.BitLen() <= 1 { // -1, 0, 1: the power's parity says all
			b = new(big.Int).SetInt64(int64(b.Bit(0)) + 2*int64(b.Sign()))
		}
		bits := a.BitLen() * int(b.Int64())
		st.charge(bits / 64 * bits / 16)
		out.Exp(a, b, nil)
	default:
		if b.Sign() == 0 {
			fail("ZeroDivisionError", "division by zero")
		}
		switch op {
		case "/":
			if a.Sign() == 0 && b.Sign() < 0 {
				return math.Copysign(0, -1)
			}
			f, _ := new(big.Rat).SetFrac(a, b).Float64()
			if math.IsInf(f, 0) {
				fail("OverflowError", "integer division result too large for a float")
			}
			return f
		case "//":
			floorDiv(out, a, b)
		case "%":
			floorDiv(out, a, b)
			out.Sub(a, out.Mul(out, b))
		}
	}
	return normalize(out)
}

// floorDiv sets out to a/b rounded down.
func floorDiv(out, a, b *big.Int) {
	rest := new(big.Int)
	out.QuoRem(a, b, rest)
	if rest.Sign() != 0 && rest.Sign() != b.Sign() {
		out.Sub(out, big.NewInt(1))
	}
}

func floatOp(op string, a, b float64) any {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		return floatPow(a, b)
	}
	if b == 0 {
		fail("ZeroDivisionError", "float division by zero")
	}
	if op == "/" {
		return a / b
	}
	rest := math.Mod(a, b)
	div := (a - rest) / b
	switch {
	case rest == 0:
		rest = math.Copysign(0, b)
	case (rest < 0) != (b < 0):
		rest += b
		div--
	}
	if op == "%" {
		return rest
	}
	if div == 0 {
		return math.Copysign(0, a/b)
	}
	floor := math.Floor(div)
	if div-floor > 0.5 {
		floor++
	}
	return floor
}

func floatPow(a, b float64) any {
	if a == 0 && b < 0 {
		fail("ZeroDivisionError", "0.0 cannot be raised to a negative power")
	}
	f := math.Pow(a, b)
	switch {
	case math.IsNaN(f) && !math.IsNaN(a) && !math.IsNaN(b):
		unsupported("complex numbers")
	case b == math.Trunc(b) && math.Abs(b) <= 1024 && f != 0 && !math.IsInf(f, 0) && !math.IsNaN(f):
		f = wholePow(a, int(b))
	case b == 0.5 && a > 0:
		f = math.Sqrt(a)
	case !math.IsInf(f, 0) && f != 0 && f != 1 && !math.IsNaN(f):
		unsupported("%v ** %v: its last digit is not sure", a, b)
	}
	if math.IsInf(f, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0) {
		fail("OverflowError", "Numerical result out of range")
	}
	return f
}

// wholePow is a**b, rounded once as C's pow is; math.Pow rounds at every step.
func wholePow(a float64, b int) float64 {
	number := func(f float64) *big.Float { return new(big.Float).SetPrec(300).SetFloat64(f) }
	out, square := number(1), number(a)
	for n := max(b, -b); n > 0; n >>= 1 {
		if n&1 == 1 {
			out.Mul(out, square)
		}
		square.Mul(square, square)
	}
	if b < 0 {
		out.Quo(number(1), out)
	}
	f, _ := out.Float64()
	return f
}

package chat

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// scan runs s through a scanner and returns the kinds as letters, up to the byte that was refused.
func scan(s string) (kinds string, done bool) {
	var sc scanner
	for i := range len(s) {
		k, ok := sc.step(s[i])
		if !ok {
			return kinds + "!", false
		}
		kinds += string("-kv"[k])
	}
	return kinds, sc.done()
}

func TestScannerKinds(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		done           bool
	}{
		{"empty", `{}`, `--`, true},
		{"string", `{"a": "b"}`, `-kkk--vvv-`, true},
		{"number before comma", `{"a":1,"b":-2.5e+3 }`, `-kkk-v-kkk-vvvvvvv--`, true},
		{"nested", `{"a": {"b": [1, {}]} , "c":[]}`, `-kkk--vvvvvvvvvvvvvv---kkk-vv-`, true},
		{"literals", `{"a":true,"b":null}`, `-kkk-vvvv-kkk-vvvv-`, true},
		{"escapes", `{"\"\u00e9\\":"\n}"}`, `-kkkkkkkkkkkk-vvvvv-`, true},
		{"line feed in a string", "{\"a\":\"\n\"}", `-kkk-vvv-`, true},
		{"unfinished", `{"a": {`, `-kkk--v`, false},
		{"not an object", `[`, `!`, false},
		{"text after", `{} x`, `--!`, false},
		{"comma before closing", `{"a":1,}`, `-kkk-v-!`, false},
		{"wrong bracket", `{"a":[1}`, `-kkk-vv!`, false},
		{"bare word", `{"a":oops}`, `-kkk-!`, false},
		{"leading zero", `{"a":01}`, `-kkk-v!`, false},
		{"bare minus", `{"a":-}`, `-kkk-v!`, false},
		{"bad escape", `{"a":"\x"}`, `-kkk-vv!`, false},
		{"bad hex", `{"a":"\u00g0"}`, `-kkk-vvvvv!`, false},
		{"single quotes", `{'a':1}`, `-!`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, done := scan(c.in); got != c.want || done != c.done {
				t.Errorf("got %s, done %v\nwant %s, done %v\n  of %s", got, done, c.want, c.done, c.in)
			}
		})
	}
}

func TestScannerBoundsDepth(t *testing.T) {
	nest := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	if _, done := scan(nest(maxDepth - 1)); !done {
		t.Error("the allowed depth is refused")
	}
	if _, done := scan(nest(maxDepth)); done {
		t.Error("a greater depth is accepted")
	}
}

// TestScannerAgreesWithEncodingJSON damages valid objects and asks both.
func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const seed = `{"name": "f", "arguments": {"a": [1, -0.5e3, true, null, "x\u00e9\\\"y"], "b": {"c": {}}}, "n": 10}`
	valid := 0
	for range 15000 {
		b := []byte(seed)
		for range r.IntN(3) {
			i := r.IntN(len(b))
			switch r.IntN(3) {
			case 0:
				b = append(b[:i], b[i+1:]...)
			case 1:
				b[i] = `{}[]",:0e.-\ tn`[r.IntN(15)]
			case 2:
				b = append(b[:i], append([]byte{b[r.IntN(len(b))]}, b[i:]...)...)
			}
		}
		s := strings.TrimSpace(string(b))
		want := json.Valid([]byte(s)) && strings.HasPrefix(s, "{")
		if _, got := scan(s); got != want {
			t.Fatalf("%s: valid %v, want %v", s, got, want)
		}
		if want {
			valid++
		}
	}
	if valid < 1500 || valid > 13500 {
		t.Errorf("%d of 15000 are valid: the test is one-sided", valid)
	}
}

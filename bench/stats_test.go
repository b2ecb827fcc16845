package bench

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	cases := []struct {
		sorted  []float64
		q, want float64 // as numpy.quantile says
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{1, 2}, 0.5, 1.5},
		{[]float64{1, 2, 3, 4}, 0.9, 3.7},
		{[]float64{1, 2, 3, 4}, 0, 1},
		{[]float64{1, 2, 3, 4}, 1, 4},
		{[]float64{1, 2, 4, 8, 16}, 0.5, 4},
		{[]float64{1, 2, 4, 8, 16}, 0.99, 15.68},
	}
	for _, tc := range cases {
		if got := quantile(tc.sorted, tc.q); !(math.Abs(got-tc.want) < 1e-12) {
			t.Errorf("quantile %v of %v = %v, want %v", tc.q, tc.sorted, got, tc.want)
		}
	}
}

func TestSummaries(t *testing.T) {
	if r := NewRate([]float64{5, 1, 3}); r != (Rate{1, 3, 5, 3}) {
		t.Errorf("rate %v", r)
	}
	if r := NewRate(nil); r != (Rate{}) {
		t.Errorf("rate of nothing %v", r)
	}
	s := newSpread([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond})
	if s.Count != 3 || s.P50 != 2 || s.Max != 3 || !(math.Abs(s.P90-2.8) < 1e-9) {
		t.Errorf("spread %+v", s)
	}
	if s := newSpread(nil); s != (Spread{}) {
		t.Errorf("spread of nothing %+v", s)
	}
}

// at is a time, in milliseconds after an arbitrary start.
func at(ms int) time.Time { return time.Unix(1000, int64(ms)*int64(time.Millisecond)) }

// answer was sent at ms[0], had a piece of one token at each time after it, and ended with the last.
func answer(ms ...int) Answer {
	a := Answer{Sent: at(ms[0]), Done: at(ms[len(ms)-1]), PromptTokens: 10, OutputTokens: len(ms) - 1}
	for _, t := range ms[1:] {
		a.Pieces = append(a.Pieces, Piece{at(t), 1})
	}
	return a
}

func TestWindows(t *testing.T) {
	cases := []struct {
		name       string
		answers    []Answer
		all, every int // ms
		tokens     int
	}{
		{"one", []Answer{answer(0, 10, 20, 30)}, 20, 20, 2},
		{"together", []Answer{answer(0, 10, 20, 30), answer(0, 10, 20, 30)}, 20, 20, 4},
		{"shifted", []Answer{answer(0, 10, 20, 30, 40), answer(5, 20, 30, 40, 50)}, 40, 20, 4},
		{"apart", []Answer{answer(0, 10, 20), answer(20, 30, 40)}, 30, -10, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			all, every := windows(tc.answers)
			if all.length() != time.Duration(tc.all)*time.Millisecond || every.length() != time.Duration(tc.every)*time.Millisecond {
				t.Errorf("windows of %v and %v, want %d and %d ms", all.length(), every.length(), tc.all, tc.every)
			}
			if n := every.tokens(tc.answers); n != tc.tokens {
				t.Errorf("%d tokens, want %d", n, tc.tokens)
			}
		})
	}
}

func TestNewLoad(t *testing.T) {
	failed := Answer{Err: errors.New("it broke")}
	packed := answer(0, 50, 90) // three tokens in two pieces
	packed.Pieces[1].Tokens, packed.OutputTokens, packed.CachedTokens = 2, 3, 4
	l := newLoad(LoadOptions{Requests: 6}, []Answer{answer(0, 10, 20, 40), failed, packed, failed, {}}, 2*time.Second)
	if l.Errors["it broke"] != 2 || l.Errors["an answer without any text"] != 1 {
		t.Errorf("errors %v", l.Errors)
	}
	if l.PromptTokens != 20 || l.CachedTokens != 4 || l.GotTokens != 6 {
		t.Errorf("tokens %+v", l)
	}
	if l.OutputPerSec != 3 || l.TotalPerSec != 13 || l.RequestPerSec != 1 {
		t.Errorf("per second %+v", l)
	}
	if l.TTFT.Count != 2 || l.TTFT.P50 != 30 || l.TTFT.Max != 50 {
		t.Errorf("TTFT %+v", l.TTFT)
	}
	if l.ITL.Count != 3 || l.ITL.P50 != 20 || l.ITL.Max != 40 {
		t.Errorf("ITL %+v", l.ITL)
	}
	if l.TPOT.Count != 2 || l.TPOT.P50 != 17.5 || l.TPOT.Max != 20 { // 30/2 and 40/2
		t.Errorf("TPOT %+v", l.TPOT)
	}
	if l.E2E.Max != 90 {
		t.Errorf("E2E %+v", l.E2E)
	}
}

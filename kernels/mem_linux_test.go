package kernels

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// residentMiB is the memory of this process that is in RAM.
func residentMiB(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// TestMemory: buffers of all sizes, opened and closed in any order, are zeroed, apart from each other, and gone from
// RAM when they are closed.
func TestMemory(t *testing.T) {
	dev, err := OpenCPU(CPUOptions{})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	type filled struct {
		*Buffer
		with byte
	}
	var live []filled
	before, held, most := residentMiB(t), 0, 0
	drop := func(i int) {
		f := live[i]
		if !onlyHolds(f.Bytes(), f.with) {
			t.Errorf("a buffer of %d bytes does not hold what was written", f.Len())
		}
		held -= f.Len()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		live = append(live[:i], live[i+1:]...)
	}
	for i := range 60 {
		n := random.IntN(5 << uint(random.IntN(22)))
		if i == 30 {
			n = 300 << 20 // more than a chunk
		}
		b, err := dev.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if !onlyHolds(b.Bytes(), 0) {
			t.Errorf("a new buffer of %d bytes is not zeroed", n)
		}
		f := filled{b, byte(1 + i)}
		for j := range b.Bytes() {
			b.Bytes()[j] = f.with
		}
		held += n
		live = append(live, f)
		most = max(most, residentMiB(t)-before-held>>20)
		if random.IntN(2) == 0 || n >= chunkBytes {
			drop(random.IntN(len(live)))
		}
	}
	for len(live) > 0 {
		drop(len(live) - 1)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	// Chunks and pages at the edges of closed buffers.
	if left := residentMiB(t) - before; most > 24 || left > 8 {
		t.Errorf("at most %d MiB more than the buffers held, in the end %d", most, left)
	}
}

func onlyHolds(data []byte, value byte) bool {
	for _, v := range data {
		if v != value {
			return false
		}
	}
	return true
}

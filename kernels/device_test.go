package kernels

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// compiled are the variants that a build has, by architecture, with what they need. Other tests run on those that run here.
var compiled = map[string]map[string]string{
	"amd64": {"avx512bf16": "AVX-512 with BF16, and gcc 10 or newer", "avx512vnni": "AVX-512 with VNNI", "avx512": "AVX-512",
		"avx2vnni": "AVX-VNNI, and gcc 11 or newer", "avx2": "AVX2, FMA and F16C"},
	"arm64": {"neon": ""},
}

func TestVariants(t *testing.T) {
	have := Variants()
	if n := len(have); have[n-1] != "ref" || n > 1 && have[n-2] != "portable" {
		t.Errorf("variants %v", have)
	}
	for v, needs := range compiled[runtime.GOARCH] {
		t.Run(v, func(t *testing.T) {
			switch {
			case slices.Contains(have, v):
			case len(have) == 1:
				t.Skip("skipped: built without cgo, only the reference is tested")
			default:
				t.Skipf("skipped: no test of the kernels ran on it, it needs %s", needs)
			}
		})
	}
}

// Many goroutines drive one device, and several devices run at once: each result is what it is alone.
func TestConcurrentUse(t *testing.T) {
	eachVariant(t, func(r *rig) {
		const rows, n, k, workers, rounds = 33, 200, 150, 6, 8
		m := r.matrix(BF16, n, k)
		x, want := r.random(BF16, rows, k), r.raw(F32, rows, n, 0)
		r.ok(MatMul(r.s, want, x, m))
		other := newRig(r.T, r.Rand, r.dev.variant, 2)
		outs := make([]Tensor, workers)
		for i := range outs {
			outs[i] = r.raw(F32, rows, n, 0)
		}
		errs := make(chan error, workers)
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				s := []*Stream{r.s, r.dev.NewStream(), other.s}[i%3]
				for range rounds {
					if err := errors.Join(MatMul(s, outs[i], x, m), s.Sync()); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			r.Error(err)
		}
		for i := range outs {
			r.same(fmt.Sprintf("goroutine %d", i), outs[i], want)
			r.intact("goroutine", outs[i])
		}
	})
}

// After Close nothing runs, nothing is held, and every op says so.
func TestClosedDevice(t *testing.T) {
	for _, v := range Variants() {
		t.Run(v, func(t *testing.T) {
			dev, err := OpenCPU(CPUOptions{Variant: v, Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			if v == "ref" && dev.Threads() != 1 || v != "ref" && dev.Threads() != 2 || dev.Variant() != v {
				t.Errorf("device says %q with %d threads", dev.Variant(), dev.Threads())
			}
			buf, err := dev.Alloc(64)
			if err != nil {
				t.Fatal(err)
			}
			x, s := NewTensor(buf, 0, F32, 1, 16), dev.NewStream()
			if err := dev.Close(); err == nil || !strings.Contains(err.Error(), "64 bytes still held") {
				t.Errorf("Close with a buffer open: %v", err)
			}
			if err := dev.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
			if err := Add(s, x, x); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "add: device") {
				t.Errorf("op on a closed device: %v", err)
			}
			if _, err := dev.PackMatrix(F32, 1, MatrixPart{make([]byte, 4), F32, 1}); !errors.Is(err, ErrClosed) {
				t.Errorf("pack on a closed device: %v", err)
			}
			if err := buf.Close(); err != nil || dev.Allocated() != 0 {
				t.Errorf("late Close: %v, %d bytes held", err, dev.Allocated())
			}
		})
	}
}

// osThreads counts the process's threads.
func osThreads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skipf("skipped: %s does not list its threads: %v", runtime.GOOS, err)
	}
	return len(entries)
}

// residentKB is the memory the process holds, in KiB.
func residentKB(t *testing.T) (kb int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("skipped: %s does not tell its memory: %v", runtime.GOOS, err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}

func TestNoLeak(t *testing.T) {
	round := func(v string) {
		r := &rig{T: t, Rand: freshSeed(t)}
		dev, err := OpenCPU(CPUOptions{Variant: v, Threads: 4})
		r.ok(err)
		m, err := dev.PackMatrix(BF16, 1000, MatrixPart{make([]byte, 4e6), F32, 1000})
		r.ok(err)
		c, err := NewKVCache(dev, F32, 64, 16, 4, 64, 64)
		r.ok(err)
		buf, err := dev.Alloc(64 * 1000 * 8)
		r.ok(err)
		x, out := NewTensor(buf, 0, F32, 64, 1000), NewTensor(buf, 64*1000*4, F32, 64, 1000)
		r.ok(MatMul(dev.NewStream(), out, x, m))
		r.ok(errors.Join(buf.Close(), m.Close(), c.Close(), dev.Close()))
	}
	for _, v := range Variants() {
		round(v) // whatever is made once
		runtime.GC()
		threads, kb := osThreads(t), residentKB(t)
		for range 10 {
			round(v)
		}
		runtime.GC()
		// A joined thread may be listed a moment longer; the Go runtime may have started some of its own.
		for wait := time.Now(); osThreads(t) > threads+12 && time.Since(wait) < 5*time.Second; {
			time.Sleep(10 * time.Millisecond)
		}
		if n := osThreads(t); n > threads+12 { // leaking devices would leave 30
			t.Errorf("%s: %d threads after 10 devices, %d before", v, n, threads)
		}
		if now := residentKB(t); now > kb+40<<10 { // leaking would leave 10 times 7 MB
			t.Errorf("%s: %d KiB after 10 devices, %d before", v, now, kb)
		}
	}
}

func TestMeasureLimits(t *testing.T) {
	for _, v := range Variants() {
		l, err := MeasureLimits(CPUOptions{Variant: v, Threads: 1})
		if len(Variants()) == 1 {
			if err == nil {
				t.Error("the reference has no limits to measure")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", v, l)
		// Any machine of this century, and none of the next.
		for name, rate := range map[string]float64{"GB/s": l.ReadGBs, "float32 GFLOP/s": l.F32GFLOPs, "int8 GOP/s": l.Int8GOPs} {
			if !(rate > 0.1 && rate < 1e5) {
				t.Errorf("%s: %v %s", v, rate, name)
			}
		}
		hasDot := v == "avx512bf16" || v == "ref" && Variants()[0] == "avx512bf16"
		if hasDot != (l.BF16GFLOPs > 0) || l.Threads != 1 {
			t.Errorf("%s: %+v", v, l)
		}
		// Where there are dot products the default is the faster one, by far.
		if best := Variants()[0]; v == "avx512bf16" && (best == v) != (l.BF16GFLOPs > l.F32GFLOPs) {
			t.Errorf("%s is the default: %+v", best, l)
		}
	}
}

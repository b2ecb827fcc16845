//go:build cuda

package cudrv_test

import (
	"bytes"
	"debug/elf"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"pagoda/kernels/cudrv"
)

// TestNoDriver: without a driver the program runs, and is told why there is no GPU.
func TestNoDriver(t *testing.T) {
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("this machine has a driver")
	}
	if err := cudrv.Available(); err == nil || !strings.Contains(err.Error(), "libcuda.so.1") {
		t.Errorf("available: %v", err)
	}
	if _, err := cudrv.Open(0); err == nil || !strings.Contains(err.Error(), "no driver") {
		t.Errorf("open: %v", err)
	}
}

// TestNeedsNoLibrary: the program names no libcuda that it wants when it starts.
func TestNeedsNoLibrary(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil || len(libs) == 0 {
		t.Fatalf("%v, %v", libs, err)
	}
	if slices.ContainsFunc(libs, func(s string) bool { return strings.Contains(s, "cuda") }) {
		t.Errorf("needs %v", libs)
	}
}

func open(t *testing.T) *cudrv.Device {
	t.Helper()
	if err := cudrv.Available(); err != nil {
		t.Skip(err)
	}
	d, err := cudrv.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestMemory: what is written is read, at once and in a stream's order; what does not fit is refused.
func TestMemory(t *testing.T) {
	d := open(t)
	const n = 1 << 20
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	m, err := d.Alloc(n)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, n)
	if err := m.Write(0, want); err != nil {
		t.Fatal(err)
	}
	if err := m.Read(0, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read: %v", err)
	}
	if err := m.Write(1, want); err == nil {
		t.Error("a write beyond the end")
	}
	if err := m.Read(-1, got[:1]); err == nil {
		t.Error("a read before the start")
	}
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	in, err := d.Pinned(n)
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.Pinned(n)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(want)
	copy(in.Bytes(), want)
	for _, err := range []error{s.Fill(m, 7), s.CopyIn(m, 0, in), s.CopyOut(out, m, 0), s.Sync()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Error("a copy there and back")
	}
	_, total, err := d.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Alloc(int(total) * 2); !cudrv.OutOfMemory(err) {
		t.Errorf("too much memory: %v", err)
	}
	for _, err := range []error{s.Close(), in.Close(), out.Close(), m.Free(), m.Free()} {
		if err != nil {
			t.Error(err)
		}
	}
}

const ptx = `.version 7.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 p, .param .u32 a, .param .align 8 .b8 b[24]) {
	.reg .u64 %x, %y;
	.reg .u32 %v, %w;
	ld.param.u64 %x, [p];
	cvta.to.global.u64 %y, %x;
	ld.global.u32 %v, [%y];
	ld.param.u32 %w, [a];
	add.u32 %v, %v, %w;
	ld.param.u32 %w, [b+20];
	add.u32 %v, %v, %w;
	st.global.u32 [%y], %v;
	ret;
}`

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// loadAdd loads ptx.
func loadAdd(t *testing.T, d *cudrv.Device) (*cudrv.Module, *cudrv.Function) {
	t.Helper()
	m, err := d.Load([]byte(ptx))
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	f, err := m.Function("add")
	check(t, err)
	return m, f
}

// TestLaunch: PTX that the driver compiles, arguments of all sizes, a graph, and errors with the driver's words.
func TestLaunch(t *testing.T) {
	d := open(t)
	check := func(err error) { t.Helper(); check(t, err) }
	m, f := loadAdd(t, d)
	if _, err := m.Function("none"); err == nil || !strings.Contains(err.Error(), "CUDA_ERROR_NOT_FOUND") {
		t.Errorf("no such kernel: %v", err)
	}
	if _, err := d.Load([]byte(".version 7.0\nrubbish")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("rubbish: %v", err)
	}
	s, err := d.NewStream()
	check(err)
	defer s.Close()
	v, err := d.Alloc(4)
	check(err)
	defer v.Free()
	check(v.Write(0, []byte{1, 0, 0, 0}))
	b := make([]byte, 24)
	b[20] = 5
	args := new(cudrv.Args).Ptr(v.Ptr()).I32(10).Bytes(b)
	one := cudrv.LaunchConfig{Grid: [3]uint32{1, 1, 1}, Block: [3]uint32{1, 1, 1}}
	check(s.Launch(f, one, args))
	check(s.BeginCapture())
	check(s.Launch(f, one, args))
	check(s.Launch(f, one, args))
	g, err := s.EndCapture()
	check(err)
	defer g.Close()
	for range 3 {
		check(g.Launch(s))
	}
	check(s.Sync())
	got := make([]byte, 4)
	check(v.Read(0, got))
	if want := byte(1 + 7*15); got[0] != want {
		t.Errorf("%d, want %d", got[0], want)
	}
	if err := s.Launch(f, cudrv.LaunchConfig{}, args); err == nil || !strings.Contains(err.Error(), "CUDA_ERROR_INVALID_VALUE") {
		t.Errorf("an empty launch: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Launch(f, one, args.Reset().Ptr(v.Ptr()).I32(0).Bytes(b)); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a launch", n)
	}
	check(s.Sync())
	args.Reset()
	for range 40 {
		args.I32(1)
	}
	if err := s.Launch(f, one, args); err == nil {
		t.Error("too many arguments")
	}
}

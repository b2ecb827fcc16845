//go:build cuda

package cudrv_test

import (
	"cmp"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pagoda/kernels/cudrv"
)

// fakeDriver is set where the tests run again over testdata/driver.c.
const fakeDriver = "PAGODA_TEST_FAKE_DRIVER"

// TestFakeDriver runs the tests that need a driver over one that is made of host memory. The dynamic linker finds it, as it
// would find NVIDIA's: the program knows nothing of it.
func TestFakeDriver(t *testing.T) {
	if _, err := os.Stat("testdata/driver.c"); err != nil {
		t.Skip("runs beside its sources only: ", err)
	}
	dir := t.TempDir()
	cc := append(strings.Fields(cmp.Or(os.Getenv("CC"), "cc")), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
		"-o", filepath.Join(dir, "libcuda.so.1"), "testdata/driver.c")
	if out, err := exec.Command(cc[0], cc[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []string{"TestMemory", "TestLaunch", "TestDevice", "TestEvents", "TestTensorMap"}
	c := exec.Command(self, "-test.v", "-test.run=^("+strings.Join(tests, "|")+")$")
	c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, fakeDriver+"=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range tests {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}

// TestDevice: a device says what it is and counts its memory; a number that it does not have is refused.
func TestDevice(t *testing.T) {
	d := open(t)
	n, err := cudrv.Count()
	if err != nil || n < 1 {
		t.Fatalf("%d devices, %v", n, err)
	}
	for _, i := range []int{-1, n} {
		if _, err := cudrv.Open(i); err == nil || !strings.Contains(err.Error(), "no GPU") {
			t.Errorf("open %d: %v", i, err)
		}
	}
	free, total, err := d.Memory()
	if err != nil || free <= 0 || free > total {
		t.Errorf("memory: %d of %d, %v", free, total, err)
	}
	for _, bytes := range []int{0, -1} {
		if _, err := d.Alloc(bytes); err == nil {
			t.Errorf("alloc of %d bytes", bytes)
		}
		if _, err := d.Pinned(bytes); err == nil {
			t.Errorf("%d bytes of pinned memory", bytes)
		}
	}
	major, minor := d.Capability()
	got := []int{major, minor, d.Multiprocessors(), d.L2(), d.SharedPerBlock(), d.DriverVersion()}
	if os.Getenv(fakeDriver) == "" {
		if d.Name() == "" || slices.Contains(slices.Delete(got, 1, 2), 0) {
			t.Errorf("%q: %v", d.Name(), got)
		}
		return
	}
	if want := []int{9, 1, 3, 1000, 232448, 12060}; d.Name() != "Fake GPU" || !slices.Equal(got, want) {
		t.Errorf("%q: %v, want %v", d.Name(), got, want)
	}
}

// TestEvents: the time of a launch lies between the events around it; shared memory beyond the device's is refused.
func TestEvents(t *testing.T) {
	d := open(t)
	check := func(err error) { t.Helper(); check(t, err) }
	_, f := loadAdd(t, d)
	if n, err := f.Registers(); err != nil || n < 1 {
		t.Errorf("%d registers, %v", n, err)
	}
	if n, err := f.LocalBytes(); err != nil || n != 0 {
		t.Errorf("%d bytes of local memory, %v", n, err)
	}
	s, err := d.NewStream()
	check(err)
	v, err := d.Alloc(4)
	check(err)
	defer v.Free()
	from, err := d.NewEvent()
	check(err)
	to, err := d.NewEvent()
	check(err)
	const shared = 64 << 10
	c := cudrv.LaunchConfig{Grid: [3]uint32{1, 1, 1}, Block: [3]uint32{1, 1, 1}, Shared: shared}
	args := new(cudrv.Args).Ptr(v.Ptr()).I32(1).Bytes(make([]byte, 24))
	if err := s.Launch(f, c, args); err == nil {
		t.Error("a launch with shared memory that was not allowed")
	}
	if err := f.SetShared(d.SharedPerBlock() + 1); err == nil {
		t.Error("more shared memory than there is")
	}
	check(f.SetShared(shared))
	for _, err := range []error{s.Fill(v, 0), from.Record(s), s.Launch(f, c, args), to.Record(s), to.Sync()} {
		check(err)
	}
	took, err := to.Since(from)
	if err != nil || took <= 0 || took > time.Second {
		t.Errorf("took %v, %v", took, err)
	}
	if os.Getenv(fakeDriver) != "" {
		if took != time.Millisecond {
			t.Errorf("took %v", took)
		}
		c.Programmatic = true
		for _, err := range []error{from.Record(s), s.Launch(f, c, args), to.Record(s), to.Sync()} {
			check(err)
		}
		if took, err := to.Since(from); err != nil || took != time.Millisecond/2 {
			t.Errorf("a programmatic launch took %v, %v", took, err)
		}
	}
	for _, err := range []error{from.Close(), from.Close(), to.Close(), s.Close(), s.Close()} {
		check(err)
	}
}

// TestTensorMap: a map has what the driver made of its matrix; an address that the hardware cannot take is refused.
func TestTensorMap(t *testing.T) {
	d := open(t)
	if major, _ := d.Capability(); major < 9 {
		t.Skip("tensor maps need compute capability 9.0")
	}
	m, err := d.Alloc(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	got, err := d.TensorMap2D(m.Ptr(), cudrv.BF16, 100, 64, 160, 32, 16, cudrv.Swizzle128)
	if err != nil {
		t.Fatal(err)
	}
	if got == (cudrv.TensorMap{}) {
		t.Error("an empty map")
	}
	if _, err := d.TensorMap2D(m.Ptr()+1, cudrv.BF16, 100, 64, 160, 32, 16, cudrv.Swizzle128); err == nil {
		t.Error("an address that is not aligned")
	}
	if os.Getenv(fakeDriver) == "" {
		return
	}
	for i, want := range []uint64{uint64(m.Ptr()), uint64(cudrv.BF16), 64, 100, 160, 16, 32, uint64(cudrv.Swizzle128)} {
		if v := binary.NativeEndian.Uint64(got[8*i:]); v != want {
			t.Errorf("word %d is %d, want %d", i, v, want)
		}
	}
}

//go:build cuda

package cuda

import (
	_ "embed"
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"pagoda/kernels/cudrv"
)

//go:embed kernels.fatbin
var image []byte // made by build.sh

// ErrShape says that a kernel does not take a shape.
var ErrShape = errors.New("shape does not fit")

// MaxFewRows is the most rows that MatMulFew takes.
const MaxFewRows = 32

// Of gemm.cu.
const (
	tileM, tileN, tileK = 128, 256, 64
	wideThreads         = 384
	wideShared          = 4*(tileM+tileN)*tileK*2 + 4*2*8 + 1024
)

// Of gemv.cu.
const fewThreads, fewColumns, fewPiece = 256, 16, 32

// Kernels are loaded for one device. They are safe for concurrent use on streams of their own.
type Kernels struct {
	dev    *cudrv.Device
	module *cudrv.Module
	few    [3]*cudrv.Function // for 8, 16 and 32 rows
	wide   *cudrv.Function    // nil if the device has no wgmma
	read   *cudrv.Function
}

// Load loads the kernels for dev.
func Load(dev *cudrv.Device) (k *Kernels, err error) {
	m, err := dev.Load(image)
	if err != nil {
		return nil, err
	}
	k = &Kernels{dev: dev, module: m}
	defer func() {
		if err != nil {
			_ = m.Close()
		}
	}()
	for name, f := range map[string]**cudrv.Function{"matmul_few1": &k.few[0], "matmul_few2": &k.few[1], "matmul_few4": &k.few[2],
		"read_bytes": &k.read} {
		if *f, err = m.Function(name); err != nil {
			return nil, err
		}
	}
	if major, _ := dev.Capability(); major == 9 {
		if k.wide, err = m.Function("matmul_wide"); err != nil {
			return nil, err
		}
		if err = k.wide.SetShared(wideShared); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Close unloads the kernels. None may be running.
func (k *Kernels) Close() error { return k.module.Close() }

// MatMulFew is out [M, N] = x [M, K] times w [N, K] transposed, row-major bfloat16, summed in float32: for M of 1 to
// MaxFewRows, N a multiple of 16 and K of 32, else ErrShape. A row's results do not depend on the others, nor on M.
func (k *Kernels) MatMulFew(s *cudrv.Stream, args *cudrv.Args, out, x, w cu.DevicePtr, M, N, K int) error {
	if M < 1 || M > MaxFewRows || N < 1 || N%fewColumns != 0 || K < 1 || K%fewPiece != 0 {
		return fmt.Errorf("cuda: matmul few of M %d, N %d, K %d: %w", M, N, K, ErrShape)
	}
	f := k.few[0]
	switch {
	case M > 16:
		f = k.few[2]
	case M > 8:
		f = k.few[1]
	}
	args.Reset().Ptr(out).Ptr(x).Ptr(w).I32(int32(M)).I32(int32(N)).I32(int32(K))
	return s.Launch(f, cudrv.LaunchConfig{Grid: [3]uint32{uint32(N / fewColumns), 1, 1}, Block: [3]uint32{fewThreads, 1, 1}}, args)
}

// Wide says whether the device has what MatMulWide needs.
func (k *Kernels) Wide() bool { return k.wide != nil }

// Weights are a matrix [N, K] as MatMulWide wants to be told of it.
type Weights struct {
	ptr     cu.DevicePtr
	n, k    int
	tensors cudrv.TensorMap
}

// Weights describes a matrix [N, K] in device memory, row-major bfloat16; K a multiple of 8, else ErrShape.
func (k *Kernels) Weights(w cu.DevicePtr, N, K int) (*Weights, error) {
	if N < 1 || N%2 != 0 || K < 1 || K%8 != 0 {
		return nil, fmt.Errorf("cuda: weights of N %d, K %d: %w", N, K, ErrShape)
	}
	m, err := k.dev.TensorMap2D(w, cudrv.BF16, N, K, K*2, tileN, tileK, cudrv.Swizzle128)
	if err != nil {
		return nil, err
	}
	return &Weights{ptr: w, n: N, k: K, tensors: m}, nil
}

// MatMulWide is out [M, N] = x [M, K] times w transposed, row-major bfloat16, summed in float32, for any M. A row's
// results do not depend on the others, nor on M; they can differ in rounding from those of MatMulFew.
func (k *Kernels) MatMulWide(s *cudrv.Stream, args *cudrv.Args, out, x cu.DevicePtr, w *Weights, M int) error {
	if k.wide == nil {
		return fmt.Errorf("cuda: matmul wide needs a device of compute capability 9.0")
	}
	if M < 1 {
		return fmt.Errorf("cuda: matmul wide of M %d: %w", M, ErrShape)
	}
	in, err := k.dev.TensorMap2D(x, cudrv.BF16, M, w.k, w.k*2, tileM, tileK, cudrv.Swizzle128)
	if err != nil {
		return err
	}
	tiles := (M + tileM - 1) / tileM * ((w.n + tileN - 1) / tileN)
	grid := uint32(min(tiles, k.dev.Multiprocessors()))
	args.Reset().Ptr(out).Bytes(in[:]).Bytes(w.tensors[:]).I32(int32(M)).I32(int32(w.n)).I32(int32(w.k))
	return s.Launch(k.wide, cudrv.LaunchConfig{Grid: [3]uint32{grid, 1, 1}, Block: [3]uint32{wideThreads, 1, 1}, Shared: wideShared}, args)
}

// readBytes reads bytes (a multiple of 16) at p: the limit of the memory, measured.
func (k *Kernels) readBytes(s *cudrv.Stream, args *cudrv.Args, sum, p cu.DevicePtr, bytes int64) error {
	args.Reset().Ptr(sum).Ptr(p).I64(bytes / 16)
	return s.Launch(k.read, cudrv.LaunchConfig{Grid: [3]uint32{uint32(k.dev.Multiprocessors() * 4), 1, 1}, Block: [3]uint32{512, 1, 1}}, args)
}

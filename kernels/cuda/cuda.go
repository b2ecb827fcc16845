//go:build cuda

package cuda

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"slices"

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
	tileM, tileK, boxRows = 128, 64, 64
	wideThreads           = 384
)

// wide is a form of the kernel for many rows: the columns of a tile, and the tiles on the way. All forms sum in the same
// order.
type wide struct{ columns, stages int }

var wideForms = []wide{{256, 4}, {128, 6}, {64, 8}}

// shared is the shared memory that a form needs: its stages, two barriers each, and what aligns them.
func (f wide) shared() int { return f.stages*((tileM+f.columns)*tileK*2+2*8) + 1024 }

// tiles is the number of tiles of a product.
func (f wide) tiles(M, N int) int { return (M + tileM - 1) / tileM * ((N + f.columns - 1) / f.columns) }

// wideFor chooses the form whose rounds of tiles take the least. A tile takes as long as its columns and some more: measured
// on an H100.
func wideFor(M, N, multiprocessors int) wide {
	return slices.MinFunc(wideForms, func(a, b wide) int { return cmp.Compare(a.cost(M, N, multiprocessors), b.cost(M, N, multiprocessors)) })
}

func (f wide) cost(M, N, multiprocessors int) int {
	return (f.tiles(M, N) + multiprocessors - 1) / multiprocessors * (f.columns + 48)
}

// Of gemv.cu.
const fewColumns, fewPiece = 16, 32

// few is a form of the kernel for few rows: groups of 8 rows of x, tiles of 16 rows of w to a block, and warps of a block.
type few struct{ groups, tiles, warps int }

var fewForms = []few{{1, 1, 16}, {1, 2, 16}, {2, 1, 16}, {2, 2, 16}, {4, 2, 16}, {1, 1, 32}, {2, 1, 32}, {4, 1, 32}}

// fewFor chooses the form that was fastest on an H100. The warps decide the order of sums, so they may depend on N, never
// on M; the tiles decide only how often x is read.
func fewFor(M, N int) few {
	f := few{groups: 1, tiles: 1, warps: 16}
	switch {
	case M > 16:
		f.groups = 4
	case M > 8:
		f.groups = 2
	}
	switch {
	case N <= 2048: // few blocks: more of K at once
		f.warps = 32
	case f.groups == 4, f.groups == 2 && N > 16384, f.groups == 1 && N > 4096:
		f.tiles = 2
	}
	return f
}

// Kernels are loaded for one device. They are safe for concurrent use on streams of their own.
type Kernels struct {
	dev    *cudrv.Device
	module *cudrv.Module
	few    map[few]*cudrv.Function
	wide   map[wide]*cudrv.Function // none if the device has no wgmma
	read   *cudrv.Function

	programmatic bool // kernels start while the one before ends
}

// Load loads the kernels for dev.
func Load(dev *cudrv.Device) (k *Kernels, err error) {
	m, err := dev.Load(image)
	if err != nil {
		return nil, err
	}
	k = &Kernels{dev: dev, module: m, few: map[few]*cudrv.Function{}, wide: map[wide]*cudrv.Function{}}
	defer func() {
		if err != nil {
			_ = m.Close()
		}
	}()
	for _, f := range fewForms {
		if k.few[f], err = m.Function(fmt.Sprintf("matmul_few_%d_%d_%d", f.groups, f.tiles, f.warps)); err != nil {
			return nil, err
		}
	}
	if k.read, err = m.Function("read_bytes"); err != nil {
		return nil, err
	}
	major, _ := dev.Capability()
	k.programmatic = major >= 9
	if major == 9 {
		for _, f := range wideForms {
			if k.wide[f], err = m.Function(fmt.Sprintf("matmul_wide_%d", f.columns)); err != nil {
				return nil, err
			}
			if err = k.wide[f].SetShared(f.shared()); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// Close unloads the kernels. None may be running.
func (k *Kernels) Close() error { return k.module.Close() }

// MatMulFew is out [M, N] = x [M, K] times w [N, K] transposed, row-major bfloat16, summed in float32: for M of 1 to
// MaxFewRows, N a multiple of 16 and K of 32, else ErrShape. A row's results do not depend on the others, nor on M.
// The kernel may read w while the kernel before it in the stream still runs, so that one must not write it.
func (k *Kernels) MatMulFew(s *cudrv.Stream, args *cudrv.Args, out, x, w cu.DevicePtr, M, N, K int) error {
	if M < 1 || M > MaxFewRows || N < 1 || N%fewColumns != 0 || K < 1 || K%fewPiece != 0 {
		return fmt.Errorf("cuda: matmul few of M %d, N %d, K %d: %w", M, N, K, ErrShape)
	}
	return k.launchFew(s, args, fewFor(M, N), out, x, w, M, N, K)
}

func (k *Kernels) launchFew(s *cudrv.Stream, args *cudrv.Args, f few, out, x, w cu.DevicePtr, M, N, K int) error {
	args.Reset().Ptr(out).Ptr(x).Ptr(w).I32(int32(M)).I32(int32(N)).I32(int32(K))
	columns := fewColumns * f.tiles
	return s.Launch(k.few[f], cudrv.LaunchConfig{Grid: [3]uint32{uint32((N + columns - 1) / columns), 1, 1}, Block: [3]uint32{uint32(32 * f.warps), 1, 1},
		Programmatic: k.programmatic}, args)
}

// Wide says whether the device has what MatMulWide needs.
func (k *Kernels) Wide() bool { return len(k.wide) > 0 }

// Weights are a matrix [N, K] as MatMulWide wants to be told of it.
type Weights struct {
	n, k int
	box  cudrv.TensorMap
}

// Weights describes a matrix [N, K] in device memory, row-major bfloat16; K a multiple of 8, else ErrShape.
func (k *Kernels) Weights(w cu.DevicePtr, N, K int) (*Weights, error) {
	if N < 1 || N%2 != 0 || K < 1 || K%8 != 0 {
		return nil, fmt.Errorf("cuda: weights of N %d, K %d: %w", N, K, ErrShape)
	}
	m, err := k.dev.TensorMap2D(w, cudrv.BF16, N, K, K*2, boxRows, tileK, cudrv.Swizzle128)
	if err != nil {
		return nil, err
	}
	return &Weights{n: N, k: K, box: m}, nil
}

// MatMulWide is out [M, N] = x [M, K] times w transposed, row-major bfloat16, summed in float32, for any M. A row's
// results do not depend on the others, nor on M; they can differ in rounding from those of MatMulFew.
func (k *Kernels) MatMulWide(s *cudrv.Stream, args *cudrv.Args, out, x cu.DevicePtr, w *Weights, M int) error {
	if !k.Wide() {
		return fmt.Errorf("cuda: matmul wide needs a device of compute capability 9.0")
	}
	if M < 1 {
		return fmt.Errorf("cuda: matmul wide of M %d: %w", M, ErrShape)
	}
	return k.launchWide(s, args, wideFor(M, w.n, k.dev.Multiprocessors()), out, x, w, M)
}

func (k *Kernels) launchWide(s *cudrv.Stream, args *cudrv.Args, f wide, out, x cu.DevicePtr, w *Weights, M int) error {
	in, err := k.dev.TensorMap2D(x, cudrv.BF16, M, w.k, w.k*2, tileM, tileK, cudrv.Swizzle128)
	if err != nil {
		return err
	}
	args.Reset().Ptr(out).Bytes(in[:]).Bytes(w.box[:]).I32(int32(M)).I32(int32(w.n)).I32(int32(w.k))
	grid := uint32(min(f.tiles(M, w.n), k.dev.Multiprocessors()))
	return s.Launch(k.wide[f], cudrv.LaunchConfig{Grid: [3]uint32{grid, 1, 1}, Block: [3]uint32{wideThreads, 1, 1}, Shared: uint32(f.shared())}, args)
}

// readBytes reads bytes (a multiple of 16) at p: the limit of the memory, measured.
func (k *Kernels) readBytes(s *cudrv.Stream, args *cudrv.Args, sum, p cu.DevicePtr, bytes int64) error {
	args.Reset().Ptr(sum).Ptr(p).I64(bytes / 16)
	return s.Launch(k.read, cudrv.LaunchConfig{Grid: [3]uint32{uint32(k.dev.Multiprocessors() * 4), 1, 1}, Block: [3]uint32{512, 1, 1}}, args)
}

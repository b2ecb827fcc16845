// Products of matrices with many rows, for Hopper: tiles come by TMA, are multiplied by wgmma, and each SM goes from
// tile to tile, so that a tile's results are written while the next one's pieces arrive.
//
// out [M, N] = x [M, K] times w [N, K] transposed; all bfloat16, row-major; sums in float32, in steps of 16 along K for
// every shape, so that a row's results do not depend on the rows beside it. K is a multiple of 8; M and N are any, N even.
//
// Source: PTX ISA 8.0 and later, "Asynchronous Warpgroup Level Matrix Instructions" (layouts, descriptors) and
// "cp.async.bulk.tensor".
#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

constexpr int tileM = 128, tileK = 64; // of a block; K in elements: 128 bytes, what the swizzle spans
constexpr int boxRows = 64;            // of w that one load brings
constexpr int groups = 2;              // warpgroups that multiply, tileM / groups rows each
constexpr int rasterRows = 16;         // tiles of x that share a pass over w while it is in the L2 cache

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ static uint32_t shared(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ static void barrierInit(uint32_t bar, int count) {
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

__device__ static void barrierExpect(uint32_t bar, int bytes) {
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

__device__ static void barrierArrive(uint32_t bar) {
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

// barrierWait waits until the barrier's phase of that parity is over.
__device__ static void barrierWait(uint32_t bar, int parity) {
	asm volatile("{\n"
		".reg .pred done;\n"
		"again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
		"@!done bra again;\n"
		"}" ::"r"(bar), "r"(parity) : "memory");
}

// load asks for the box at column k and row y of a matrix.
__device__ static void load(uint32_t to, const CUtensorMap *map, uint32_t bar, int k, int y) {
	asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
		::"r"(to), "l"(map), "r"(bar), "r"(k), "r"(y) : "memory");
}

// descriptor tells wgmma of a tile with rows of 128 bytes in the 128-byte swizzle: groups of 8 rows are 1,024 bytes apart.
__device__ static uint64_t descriptor(uint32_t at) {
	return (uint64_t)((at & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)

// multiply adds 64 rows times 64 columns over 16 elements of K.
__device__ static void multiply(float (&d)[32], uint64_t a, uint64_t b) {
	asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
		"%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
		"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
		"}, %32, %33, 1, 1, 1, 0, 0;"
		: D16(0), D16(16)
		: "l"(a), "l"(b));
}

// multiply adds 64 rows times 128 columns over 16 elements of K.
__device__ static void multiply(float (&d)[64], uint64_t a, uint64_t b) {
	asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
		"%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
		"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
		"%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
		"%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
		"}, %64, %65, 1, 1, 1, 0, 0;"
		: D16(0), D16(16), D16(32), D16(48)
		: "l"(a), "l"(b));
}

// multiply adds 64 rows times 256 columns over 16 elements of K.
__device__ static void multiply(float (&d)[128], uint64_t a, uint64_t b) {
	asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
		"%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
		"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
		"%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
		"%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
		"%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
		"%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
		"%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
		"%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
		"}, %128, %129, 1, 1, 1, 0, 0;"
		: D16(0), D16(16), D16(32), D16(48), D16(64), D16(80), D16(96), D16(112)
		: "l"(a), "l"(b));
}

// tileAt maps the number of a tile to its place: rasterRows tiles down, then the next column of tiles.
__device__ static void tileAt(int tile, int tilesM, int tilesN, int &m, int &n) {
	int band = tile / (rasterRows * tilesN), first = band * rasterRows, rows = min(rasterRows, tilesM - first);
	int within = tile - first * tilesN;
	m = first + within % rows;
	n = within / rows;
}

// matmulWide works in tiles of tileN columns, of which `stages` are on the way.
template <int tileN, int stages>
__device__ static void matmulWide(__nv_bfloat16 *out, const CUtensorMap *mapX, const CUtensorMap *mapW, int M, int N, int K) {
	constexpr int bytesA = tileM * tileK * 2, bytesB = tileN * tileK * 2;
	extern __shared__ uint8_t memory[];
	uint32_t base = (shared(memory) + 1023) & ~1023u;
	uint32_t a = base, b = base + stages * bytesA, full = b + stages * bytesB, empty = full + stages * 8;
	int group = threadIdx.x / 128, tilesM = (M + tileM - 1) / tileM, tilesN = (N + tileN - 1) / tileN;
	int steps = (K + tileK - 1) / tileK;
	if (threadIdx.x == 0) {
		for (int i = 0; i < stages; i++) {
			barrierInit(full + 8 * i, 1);
			barrierInit(empty + 8 * i, groups);
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
		asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
	}
	__syncthreads();
	int stage = 0, phase = 0;
	if (group == groups) { // one thread asks for the tiles
		asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
		if (threadIdx.x == groups * 128) {
			for (int tile = blockIdx.x; tile < tilesM * tilesN; tile += gridDim.x) {
				int m, n;
				tileAt(tile, tilesM, tilesN, m, n);
				for (int step = 0; step < steps; step++) {
					barrierWait(empty + 8 * stage, phase ^ 1);
					barrierExpect(full + 8 * stage, bytesA + bytesB);
					load(a + stage * bytesA, mapX, full + 8 * stage, step * tileK, m * tileM);
#pragma unroll
					for (int box = 0; box < tileN; box += boxRows)
						load(b + stage * bytesB + box * tileK * 2, mapW, full + 8 * stage, step * tileK, n * tileN + box);
					if (++stage == stages) {
						stage = 0;
						phase ^= 1;
					}
				}
			}
		}
	} else {
		asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
		int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
		for (int tile = blockIdx.x; tile < tilesM * tilesN; tile += gridDim.x) {
			float d[tileN / 2];
			for (int i = 0; i < tileN / 2; i++)
				d[i] = 0;
			int last = -1; // the stage whose products are still on the way
			for (int step = 0; step < steps; step++) {
				barrierWait(full + 8 * stage, phase);
				asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
				uint64_t da = descriptor(a + stage * bytesA + group * (tileM / groups) * tileK * 2), db = descriptor(b + stage * bytesB);
				for (int k = 0; k < tileK / 16; k++)
					multiply(d, da + 2 * k, db + 2 * k); // 32 bytes on, in units of 16
				asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
				if (last >= 0) {
					asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
					if (threadIdx.x % 128 == 0)
						barrierArrive(empty + 8 * last);
				}
				last = stage;
				if (++stage == stages) {
					stage = 0;
					phase ^= 1;
				}
			}
			asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
			if (threadIdx.x % 128 == 0)
				barrierArrive(empty + 8 * last);
			int m, n;
			tileAt(tile, tilesM, tilesN, m, n);
			int row = m * tileM + group * (tileM / groups) + warp * 16 + lane / 4, column = n * tileN + lane % 4 * 2;
			for (int j = 0; j < tileN / 8; j++) {
				if (column + 8 * j >= N)
					break;
				__nv_bfloat16 *o = out + (int64_t)row * N + column + 8 * j;
				if (row < M)
					*(__nv_bfloat162 *)o = __floats2bfloat162_rn(d[4 * j], d[4 * j + 1]);
				if (row + 8 < M)
					*(__nv_bfloat162 *)(o + (int64_t)8 * N) = __floats2bfloat162_rn(d[4 * j + 2], d[4 * j + 3]);
			}
		}
	}
}

#define BODY(N_, stages) matmulWide<N_, stages>(out, &mapX, &mapW, M, N, K);
#else
#define BODY(N_, stages)
#endif

// The kernels want (groups + 1) * 128 threads, and shared memory for the stages, their barriers and 1,024 bytes to align.
#define WIDE(N_, stages)                                                                                                    \
	extern "C" __global__ void __launch_bounds__((groups + 1) * 128, 1)                                                     \
	matmul_wide_##N_(__nv_bfloat16 *out, const __grid_constant__ CUtensorMap mapX, const __grid_constant__ CUtensorMap mapW, \
		int M, int N, int K) {                                                                                              \
		BODY(N_, stages)                                                                                                    \
	}
WIDE(256, 4)
WIDE(128, 6)
WIDE(64, 8)

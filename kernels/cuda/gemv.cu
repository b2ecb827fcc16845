// Products of matrices with few rows, as in decoding: the weights are read once, at the memory's speed, and the tensor
// cores hide the arithmetic.
//
// out [M, N] = x [M, K] times w [N, K] transposed; all bfloat16, row-major; M <= 8 * B. K is a multiple of 32, N of 16.
// Sums in float32. A block of W warps makes 16 * R columns of out: warp i takes the pieces i, i + W, … of 32 elements of K,
// and the warps' sums are added in their order. W depends on N alone, so a row's results depend neither on M nor on others.
//
// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16".
#include <cuda_bf16.h>
#include <stdint.h>

// multiply adds 16 rows of w times 8 rows of x over 16 elements of K.
__device__ static void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
		: "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		: "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// dependents lets the next kernel of a programmatic launch start, and waits until the one before has written its results.
__device__ static void dependents() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;");
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// stream reads 16 bytes that are used once, past the L1 cache.
__device__ static uint4 stream(const void *p) {
	uint4 v;
	asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
	return v;
}

// matmulFew multiplies B groups of 8 rows of x with R tiles of 16 rows of w, in a block of W warps. A warp asks for `ahead`
// pieces of w before it uses the first.
template <int B, int R, int W>
__device__ static void matmulFew(__nv_bfloat16 *out, const __nv_bfloat16 *x, const __nv_bfloat16 *w, int M, int N, int K) {
	constexpr int ahead = R == 1 && B < 4 ? 4 : 2;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
	// A lane's 16 bytes are 8 neighbours of K. The two instructions of a piece take the 1st and the 2nd half of them, for w
	// and x alike: which elements of K an instruction calls its own is free.
	int column = blockIdx.x * 16 * R;
	const __nv_bfloat16 *rows = w + (int64_t)(column + g) * K + 8 * t;
	float d[R][B][4] = {};
	uint4 u[ahead][R], l[ahead][R];
	auto fetch = [&](int first) {
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			int k = (first + i * W) * 32;
			if (k < K) {
#pragma unroll
				for (int r = 0; r < R; r++) {
					if (R > 1 && column + 16 * r >= N)
						continue;
					u[i][r] = stream(rows + (int64_t)16 * r * K + k);
					l[i][r] = stream(rows + (int64_t)(16 * r + 8) * K + k);
				}
			}
		}
	};
	int pieces = K / 32;
	fetch(warp);
	dependents(); // w is there from the start, x may still be on its way
	for (int first = warp; first < pieces; first += W * ahead) {
		if (first != warp)
			fetch(first);
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			int k = (first + i * W) * 32;
			if (k < K) {
#pragma unroll
				for (int b = 0; b < B; b++) {
					uint4 v = make_uint4(0, 0, 0, 0);
					if (8 * b + g < M)
						v = *(const uint4 *)(x + (int64_t)(8 * b + g) * K + k + 8 * t);
#pragma unroll
					for (int r = 0; r < R; r++) {
						multiply(d[r][b], u[i][r].x, l[i][r].x, u[i][r].y, l[i][r].y, v.x, v.y);
						multiply(d[r][b], u[i][r].z, l[i][r].z, u[i][r].w, l[i][r].w, v.z, v.w);
					}
				}
			}
		}
	}
	__shared__ float sums[W][4][32];
#pragma unroll
	for (int r = 0; r < R; r++) {
#pragma unroll
		for (int b = 0; b < B; b++) {
			if (r + b > 0)
				__syncthreads();
#pragma unroll
			for (int i = 0; i < 4; i++)
				sums[warp][i][lane] = d[r][b][i];
			__syncthreads();
			if (threadIdx.x < 128) {
				float sum = 0;
				for (int j = 0; j < W; j++)
					sum += sums[j][warp][lane];
				int n = column + 16 * r + lane / 4 + (warp / 2) * 8, row = 8 * b + lane % 4 * 2 + warp % 2;
				if (row < M && n < N)
					out[(int64_t)row * N + n] = __float2bfloat16(sum);
			}
		}
	}
}

#define FEW(B, R, W)                                                                                                        \
	extern "C" __global__ void __launch_bounds__(W * 32)                                                                    \
	matmul_few_##B##_##R##_##W(__nv_bfloat16 *out, const __nv_bfloat16 *x, const __nv_bfloat16 *w, int M, int N, int K) {   \
		matmulFew<B, R, W>(out, x, w, M, N, K);                                                                             \
	}
FEW(1, 1, 16) FEW(1, 2, 16) FEW(2, 1, 16) FEW(2, 2, 16) FEW(4, 2, 16)
FEW(1, 1, 32) FEW(2, 1, 32) FEW(4, 1, 32)

// read_bytes reads n16 times 16 bytes: the limit that the others are held to. The sum only keeps the reads alive.
extern "C" __global__ void read_bytes(uint32_t *sum, const uint4 *p, int64_t n16) {
	uint32_t s = 0;
	int64_t step = (int64_t)gridDim.x * blockDim.x, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	for (; i + 3 * step < n16; i += 4 * step) {
		uint4 v[4];
#pragma unroll
		for (int j = 0; j < 4; j++)
			v[j] = stream(p + i + j * step);
#pragma unroll
		for (int j = 0; j < 4; j++)
			s ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
	}
	for (; i < n16; i += step) {
		uint4 v = stream(p + i);
		s ^= v.x ^ v.y ^ v.z ^ v.w;
	}
	if (s == 0x9E3779B9)
		*sum = s;
}

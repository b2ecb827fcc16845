// Products of matrices with few rows, as in decoding: the weights are read once, at the memory's speed, and the tensor
// cores hide the arithmetic.
//
// out [M, N] = x [M, K] times w [N, K] transposed; all bfloat16, row-major; M <= 8 * B. K is a multiple of 32, N of 16.
// Sums in float32. A block of `warps` warps makes 16 columns of out: warp i takes the pieces i, i + warps, … of 32
// elements of K, and the warps' sums are added in their order. Neither depends on M or on the other rows.
//
// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16".
#include <cuda_bf16.h>
#include <stdint.h>

constexpr int warps = 8;
constexpr int ahead = 4; // pieces that a warp asks for before it uses the first

// multiply adds 16 rows of w times 8 rows of x over 16 elements of K.
__device__ static void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
		: "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		: "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// stream reads 16 bytes that are used once, past the L1 cache.
__device__ static uint4 stream(const void *p) {
	uint4 v;
	asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
	return v;
}

// B groups of 8 rows of x.
template <int B>
__device__ static void matmulFew(__nv_bfloat16 *out, const __nv_bfloat16 *x, const __nv_bfloat16 *w, int M, int N, int K) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
	// A lane's 16 bytes are 8 neighbours of K. The two instructions of a piece take the 1st and the 2nd half of them, for w
	// and x alike: which elements of K an instruction calls its own is free.
	const __nv_bfloat16 *upper = w + (int64_t)(blockIdx.x * 16 + g) * K + 8 * t, *lower = upper + (int64_t)8 * K;
	float d[B][4] = {};
	int pieces = K / 32;
	for (int first = warp; first < pieces; first += warps * ahead) {
		uint4 u[ahead], l[ahead];
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			int k = (first + i * warps) * 32;
			if (k < K) {
				u[i] = stream(upper + k);
				l[i] = stream(lower + k);
			}
		}
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			int k = (first + i * warps) * 32;
			if (k < K) {
#pragma unroll
				for (int b = 0; b < B; b++) {
					uint4 v = make_uint4(0, 0, 0, 0);
					if (8 * b + g < M)
						v = *(const uint4 *)(x + (int64_t)(8 * b + g) * K + k + 8 * t);
					multiply(d[b], u[i].x, l[i].x, u[i].y, l[i].y, v.x, v.y);
					multiply(d[b], u[i].z, l[i].z, u[i].w, l[i].w, v.z, v.w);
				}
			}
		}
	}
	__shared__ float sums[warps][B][4][32];
#pragma unroll
	for (int b = 0; b < B; b++)
		for (int i = 0; i < 4; i++)
			sums[warp][b][i][lane] = d[b][i];
	__syncthreads();
	for (int e = threadIdx.x; e < B * 4 * 32; e += warps * 32) {
		int b = e / 128, i = e / 32 % 4, la = e % 32;
		float sum = 0;
		for (int j = 0; j < warps; j++)
			sum += sums[j][b][i][la];
		int column = blockIdx.x * 16 + la / 4 + (i / 2) * 8, row = 8 * b + la % 4 * 2 + i % 2;
		if (row < M)
			out[(int64_t)row * N + column] = __float2bfloat16(sum);
	}
}

#define FEW(B)                                                                                                              \
	extern "C" __global__ void __launch_bounds__(warps * 32)                                                                \
	matmul_few##B(__nv_bfloat16 *out, const __nv_bfloat16 *x, const __nv_bfloat16 *w, int M, int N, int K) {                \
		matmulFew<B>(out, x, w, M, N, K);                                                                                   \
	}
FEW(1)
FEW(2)
FEW(4)

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

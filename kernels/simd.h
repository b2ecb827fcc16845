// Vectors of float32 for one variant. The file that includes it defines one of KN_USE_AVX512, KN_USE_AVX2,
// KN_USE_NEON or KN_USE_PORTABLE; all ops are written over the names below.
//
//	vf, VL                   a vector and its number of lanes
//	v_load, v_store          any alignment; *_n: the first n lanes only (others are zero, or left alone)
//	v_bf16, v_f16            VL numbers of 16 bits, widened; v_to_bf16 rounds to nearest even, NaN stays NaN
//	v_even, v_odd            the first or second of VL pairs of bfloat16, widened
//	v_fma(a, b, c)           a*b + c, rounded once where the hardware does
//	v_max(a, b), v_min       b if either is NaN
//	v_first(a, n, b)         lanes below n from a, the others from b
//	v_sum, v_most            over the lanes, in a fixed order
//	load_part, store_part    the first n lanes, or all of them if n is not less than VL
//	v_exp                    within 2 units in the last place; 0 below -87.33, bounded above 88.37; NaN stays NaN
#ifndef KN_SIMD_H
#define KN_SIMD_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(KN_USE_AVX512)

typedef __m512 vf;
enum { VL = 16 };
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE __mmask16 first(int n) { return (__mmask16)((1u << n) - 1); }
INLINE vf v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
INLINE void v_store_n(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, first(n), a); }
INLINE vf v_set1(float f) { return _mm512_set1_ps(f); }
INLINE vf v_zero(void) { return _mm512_setzero_ps(); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf v_first(vf a, int n, vf b) { return _mm512_mask_blend_ps(first(n), b, a); }
INLINE vf widen16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
INLINE vf v_bf16(const uint16_t *p) { return widen16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf v_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf v_even(const void *p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
INLINE vf v_odd(const void *p) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
INLINE void v_to_bf16(uint16_t *p, vf a) {
  __m512i u = _mm512_castps_si512(a), up = _mm512_srli_epi32(u, 16);
  __m512i odd = _mm512_and_si512(up, _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), up, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}
INLINE float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float v_most(vf a) { return _mm512_reduce_max_ps(a); }
INLINE vf v_round(vf a) { return _mm512_roundscale_ps(a, 0); }
INLINE vf v_pow2(vf n) { // 2^n for whole n in [-126, 127]
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE vf v_zero_below(vf a, vf x, float lo) { // a where x is not below lo, else 0
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, v_set1(lo), _CMP_NLT_UQ), a);
}

#elif defined(KN_USE_AVX2)

typedef __m256 vf;
enum { VL = 8 };
INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vf v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, first(n)); }
INLINE void v_store_n(float *p, vf a, int n) { _mm256_maskstore_ps(p, first(n), a); }
INLINE vf v_set1(float f) { return _mm256_set1_ps(f); }
INLINE vf v_zero(void) { return _mm256_setzero_ps(); }
INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf v_first(vf a, int n, vf b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first(n))); }
INLINE vf v_bf16(const uint16_t *p) {
  __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
INLINE vf v_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf v_even(const void *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)p), 16));
}
INLINE vf v_odd(const void *p) {
  __m256i w = _mm256_loadu_si256((const __m256i *)p);
  return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000)));
}
INLINE void v_to_bf16(uint16_t *p, vf a) {
  __m256i u = _mm256_castps_si256(a), up = _mm256_srli_epi32(u, 16);
  __m256i odd = _mm256_and_si256(up, _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_or_si256(up, _mm256_set1_epi32(0x40)), nan);
  r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
  _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
}
INLINE float v_sum(vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float v_most(vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
INLINE vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf v_pow2(vf n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE vf v_zero_below(vf a, vf x, float lo) { return _mm256_and_ps(a, _mm256_cmp_ps(x, v_set1(lo), _CMP_NLT_UQ)); }

#elif defined(KN_USE_NEON)

typedef float32x4_t vf;
enum { VL = 4 };
INLINE vf v_load(const float *p) { return vld1q_f32(p); }
INLINE void v_store(float *p, vf a) { vst1q_f32(p, a); }
INLINE vf v_load_n(const float *p, int n) {
  float a[VL] = {0};
  for (int i = 0; i < n; i++) a[i] = p[i];
  return vld1q_f32(a);
}
INLINE void v_store_n(float *p, vf a, int n) {
  float b[VL];
  vst1q_f32(b, a);
  for (int i = 0; i < n; i++) p[i] = b[i];
}
INLINE vf v_set1(float f) { return vdupq_n_f32(f); }
INLINE vf v_zero(void) { return vdupq_n_f32(0); }
INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE vf v_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE vf v_first(vf a, int n, vf b) {
  const int32_t lane[VL] = {0, 1, 2, 3};
  return vbslq_f32(vcltq_s32(vld1q_s32(lane), vdupq_n_s32(n)), a, b);
}
INLINE vf v_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
INLINE vf v_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
INLINE uint32x4_t load_pairs(const void *p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
INLINE vf v_even(const void *p) { return vreinterpretq_f32_u32(vshlq_n_u32(load_pairs(p), 16)); }
INLINE vf v_odd(const void *p) {
  return vreinterpretq_f32_u32(vandq_u32(load_pairs(p), vdupq_n_u32(0xffff0000)));
}
INLINE void v_to_bf16(uint16_t *p, vf a) {
  uint32x4_t u = vreinterpretq_u32_f32(a), up = vshrq_n_u32(u, 16);
  uint32x4_t odd = vandq_u32(up, vdupq_n_u32(1));
  uint32x4_t r = vshrq_n_u32(vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd), 16);
  r = vbslq_u32(vceqq_f32(a, a), r, vorrq_u32(up, vdupq_n_u32(0x40)));
  vst1_u16(p, vmovn_u32(r));
}
INLINE float v_sum(vf a) { return vaddvq_f32(a); } // (a0 + a1) + (a2 + a3)
INLINE float v_most(vf a) { return vmaxvq_f32(a); }
INLINE vf v_round(vf a) { return vrndnq_f32(a); }
INLINE vf v_pow2(vf n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
INLINE vf v_zero_below(vf a, vf x, float lo) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(x, v_set1(lo))));
}

#else // portable: the compiler's own vectors of 16 bytes, any processor

typedef float vf __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef uint16_t vh __attribute__((vector_size(8)));
enum { VL = 4 };
INLINE vf v_load(const float *p) {
  vf a;
  memcpy(&a, p, sizeof a);
  return a;
}
INLINE void v_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
INLINE vf v_load_n(const float *p, int n) {
  vf a = {0};
  for (int i = 0; i < n; i++) a[i] = p[i];
  return a;
}
INLINE void v_store_n(float *p, vf a, int n) {
  for (int i = 0; i < n; i++) p[i] = a[i];
}
INLINE vf v_set1(float f) { return (vf){f, f, f, f}; }
INLINE vf v_zero(void) { return (vf){0}; }
INLINE vf v_add(vf a, vf b) { return a + b; }
INLINE vf v_sub(vf a, vf b) { return a - b; }
INLINE vf v_mul(vf a, vf b) { return a * b; }
INLINE vf v_div(vf a, vf b) { return a / b; }
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf choose(vu m, vf a, vf b) { return (vf)((m & (vu)a) | (~m & (vu)b)); }
INLINE vf v_max(vf a, vf b) { return choose((vu)(a > b), a, b); }
INLINE vf v_min(vf a, vf b) { return choose((vu)(a < b), a, b); }
INLINE vf v_first(vf a, int n, vf b) {
  uint32_t k = (uint32_t)n;
  return choose((vu)((vu){0, 1, 2, 3} < (vu){k, k, k, k}), a, b);
}
INLINE vu load16(const uint16_t *p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, vu);
}
INLINE vf v_bf16(const uint16_t *p) { return (vf)(load16(p) << 16); }
INLINE vf v_f16(const uint16_t *p) {
  vu h = load16(p), mag = (h & 0x7fff) << 13;
  vu f = (vu)((vf)mag * 0x1p112f); // the exponents' biases differ by 112; right for subnormals too
  f |= (vu)(mag >= 0x0f800000) & 0x7f800000;
  return (vf)(f | (h & 0x8000) << 16);
}
INLINE vf v_even(const void *p) {
  vu u;
  memcpy(&u, p, sizeof u);
  return (vf)(u << 16);
}
INLINE vf v_odd(const void *p) {
  vu u;
  memcpy(&u, p, sizeof u);
  return (vf)(u & 0xffff0000);
}
INLINE void v_to_bf16(uint16_t *p, vf a) {
  vu u = (vu)a, r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  r = (vu)choose((vu)(a != a), (vf)(u >> 16 | 0x40), (vf)r);
  vh h = __builtin_convertvector(r, vh);
  memcpy(p, &h, sizeof h);
}
INLINE float v_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
INLINE float v_most(vf a) {
  float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
  return x > y ? x : y;
}
// Adding 1.5*2^23 leaves the rounded number in the low bits.
INLINE vf v_round(vf a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
INLINE vf v_pow2(vf n) { return (vf)(((vu)(n + 0x1.8p23f) + 127 - 0x4b400000) << 23); }
INLINE vf v_zero_below(vf a, vf x, float lo) { return (vf)((vu)a & ~(vu)(x < lo)); }

#endif

INLINE vf load_part(const float *p, int n) { return n < VL ? v_load_n(p, n) : v_load(p); }
INLINE void store_part(float *p, vf a, int n) {
  if (n < VL)
    v_store_n(p, a, n);
  else
    v_store(p, a);
}

INLINE void v_to_bf16_n(uint16_t *p, vf a, int n) {
  uint16_t h[VL];
  v_to_bf16(h, a);
  memcpy(p, h, (size_t)n * 2);
}

// exp(x) = 2^n * e^r with |r| <= ln(2)/2; e^r by a polynomial of degree 7, exact at 0.
INLINE vf v_exp(vf x) {
  const float lo = -87.33f, hi = 88.37f;
  vf y = v_min(v_set1(hi), v_max(v_set1(lo), x));
  vf n = v_round(v_mul(y, v_set1(1.44269504f)));
  vf r = v_fma(n, v_set1(-0.693359375f), y); // ln(2) in two parts, the first exact in few bits
  r = v_fma(n, v_set1(2.12194440e-4f), r);
  vf p = v_set1(1.9841270e-4f); // Taylor's terms: 1/7!, 1/6!, ...
  p = v_fma(p, r, v_set1(1.3888889e-3f));
  p = v_fma(p, r, v_set1(8.3333333e-3f));
  p = v_fma(p, r, v_set1(4.1666667e-2f));
  p = v_fma(p, r, v_set1(0.16666667f));
  p = v_fma(p, r, v_set1(0.5f));
  p = v_fma(p, r, v_set1(1.0f));
  p = v_fma(p, r, v_set1(1.0f));
  return v_zero_below(v_mul(p, v_pow2(n)), x, lo);
}
#endif

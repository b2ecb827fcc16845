// Vectors of VL int32 lanes for the products of quantized weights, over the same choice of variant as simd.h.
//
//	vi                       VL int32 lanes, each also 4 bytes
//	vi_load, vi_set1         any alignment; one number in all lanes
//	vi_low4, vi_high4        the low or high 4 bits of each byte
//	vi_dot(small, a, w, x)   a + the sum of 4 products in each lane: bytes of w, unsigned less DOT_ZERO, and of x, signed.
//	                         small: all bytes of w are below 16, and DOT_ZERO does not apply. Exact.
//	vi_float                 lanes as float32
//	v_to_i8                  VL whole numbers of -128 to 127 as bytes
#ifndef KN_DOT_H
#define KN_DOT_H
#include "simd.h"

enum { QUANT_GROUP = 128 }; // most inputs that share a scale

#if defined(KN_USE_AVX512)

typedef __m512i vi;
enum { DOT_ZERO = 0 };
INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE vi vi_set1(int32_t i) { return _mm512_set1_epi32(i); }
INLINE vi vi_low4(vi a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
INLINE vi vi_high4(vi a) { return _mm512_and_si512(_mm512_srli_epi32(a, 4), _mm512_set1_epi8(15)); }
INLINE vf vi_float(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE void v_to_i8(int8_t *p, vf a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))); }
#if defined(KN_USE_VNNI)
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  (void)small;
  __asm__("vpdpbusd %2, %1, %0" : "+v"(a) : "v"(w), "v"(x)); // the intrinsic makes GCC keep sums in memory
  return a;
}
#else
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  if (small) return _mm512_add_epi32(a, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
  vi even = _mm512_and_si512(w, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(w, 8);
  vi x_even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), x_odd = _mm512_srai_epi16(x, 8);
  return _mm512_add_epi32(a, _mm512_add_epi32(_mm512_madd_epi16(even, x_even), _mm512_madd_epi16(odd, x_odd)));
}
#endif

#elif defined(KN_USE_AVX2)

typedef __m256i vi;
enum { DOT_ZERO = 0 };
INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE vi vi_set1(int32_t i) { return _mm256_set1_epi32(i); }
INLINE vi vi_low4(vi a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
INLINE vi vi_high4(vi a) { return _mm256_and_si256(_mm256_srli_epi32(a, 4), _mm256_set1_epi8(15)); }
INLINE vf vi_float(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE void v_to_i8(int8_t *p, vf a) {
  vi i = _mm256_cvtps_epi32(a);
  __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(h, h));
}
#if defined(KN_USE_VNNI)
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  (void)small;
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(a) : "x"(w), "x"(x));
  return a;
}
#else
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  if (small) return _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
  vi even = _mm256_and_si256(w, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(w, 8);
  vi x_even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), x_odd = _mm256_srai_epi16(x, 8);
  return _mm256_add_epi32(a, _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd)));
}
#endif

#elif defined(KN_USE_NEON)

typedef int32x4_t vi;
enum { DOT_ZERO = 128 };
INLINE vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
INLINE vi vi_set1(int32_t i) { return vdupq_n_s32(i); }
INLINE vi vi_low4(vi a) { return vandq_s32(a, vdupq_n_s32(0x0f0f0f0f)); }
INLINE vi vi_high4(vi a) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4)); }
INLINE vf vi_float(vi a) { return vcvtq_f32_s32(a); }
INLINE void v_to_i8(int8_t *p, vf a) {
  int16x4_t h = vmovn_s32(vcvtnq_s32_f32(a));
  int8x8_t b = vmovn_s16(vcombine_s16(h, h));
  memcpy(p, &b, 4);
}
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  int8x16_t ws = vreinterpretq_s8_s32(small ? w : veorq_s32(w, vdupq_n_s32((int32_t)0x80808080)));
  int8x16_t xs = vreinterpretq_s8_s32(x);
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(a, ws, xs);
#else
  int16x8_t lo = vmull_s8(vget_low_s8(ws), vget_low_s8(xs)), hi = vmull_high_s8(ws, xs);
  return vpadalq_s16(a, vpaddq_s16(lo, hi)); // two products of at most 128*127 fit 16 bits
#endif
}

#else // portable

typedef int32_t vi __attribute__((vector_size(16)));
enum { DOT_ZERO = 0 };
INLINE vi vi_load(const void *p) {
  vi a;
  memcpy(&a, p, sizeof a);
  return a;
}
INLINE vi vi_set1(int32_t i) { return (vi){i, i, i, i}; }
INLINE vi vi_low4(vi a) { return a & 0x0f0f0f0f; }
INLINE vi vi_high4(vi a) { return (vi)((vu)a >> 4) & 0x0f0f0f0f; }
INLINE vf vi_float(vi a) { return __builtin_convertvector(a, vf); }
INLINE void v_to_i8(int8_t *p, vf a) {
  vu u = (vu)(a + 0x1.8p23f); // leaves whole numbers in the low bits
  for (int i = 0; i < VL; i++) p[i] = (int8_t)(u[i] & 255);
}
// The bytes of a lane are taken by shifts, so in the order of a little-endian machine.
INLINE vi vi_dot(const int small, vi a, vi w, vi x) {
  (void)small;
  for (int b = 0; b < 4; b++) a += (vi)((vu)w >> 8 * b & 255) * (x << (24 - 8 * b) >> 24);
  return a;
}

#endif
#endif

// Rounding to few bits: of weights once, when they are packed, and of the inputs of a product.
#include "half.h"

// quantize_group rounds n inputs to int8, symmetric, and returns their scale. *sum is the sum of the rounded ones. Bytes up to
// the next multiple of 8 are zero. What is not finite makes the scale NaN, and so every sum that it goes into.
static float quantize_group(int8_t *to, const void *x, int dt, int n, int32_t *sum) {
  vf most = v_zero(), bad = v_zero(), total = v_zero();
  float f[QUANT_GROUP];
  int padded = (n + VL - 1) / VL * VL;
  for (int i = 0; i < padded; i += VL) {
    int part = n - i < VL ? n - i : VL;
    vf a;
    if (dt == KN_F32) {
      a = load_part((const float *)x + i, part);
    } else if (part < VL) {
      uint16_t h[VL] = {0};
      memcpy(h, (const uint16_t *)x + i, (size_t)part * 2);
      a = v_bf16(h);
    } else {
      a = v_bf16((const uint16_t *)x + i);
    }
    v_store(f + i, a);
    most = v_max(v_max(v_sub(v_zero(), a), a), most);
    bad = v_fma(a, v_zero(), bad);
  }
  float m = v_most(most), nan = v_sum(bad);
  float inv = m > 1e-30f ? 127.0f / m : 0;
  const vf by = v_set1(inv);
  int8_t q[QUANT_GROUP + 8], *out = n % VL || n % 8 ? q : to;
  for (int i = 0; i < padded; i += VL) {
    vf a = v_round(v_mul(v_load(f + i), by));
    total = v_add(total, a);
    v_to_i8(out + i, a);
  }
  if (out == q) {
    memset(q + padded, 0, 8);
    memcpy(to, q, (size_t)((n + 7) & ~7));
  }
  float s = v_sum(total);
  *sum = s == s ? (int32_t)s : 0;
  return (inv > 0 ? m / 127.0f : 0) + nan;
}

typedef struct {
  kn_tensor x;
  int8_t *q;      // [rows][k rounded up to 8]
  float *scales;  // [rows][groups]
  int32_t *start; // [rows][groups] what the sums of a group begin with, since the weights' codes have an offset
  int64_t k, groups;
  int group, zero;
} quantize_job;

static void quantize_chunk(void *ctx, int64_t r, int worker) {
  (void)worker;
  const quantize_job *j = ctx;
  const int64_t size = j->x.dt == KN_F32 ? 4 : 2;
  const char *x = (const char *)j->x.p + r * j->x.stride * size;
  for (int64_t g = 0; g < j->groups; g++) {
    int64_t at = g * j->group;
    int32_t sum;
    j->scales[r * j->groups + g] =
        quantize_group(j->q + r * j->k + at, x + at * size, j->x.dt, (int)lower(j->group, j->x.cols - at), &sum);
    j->start[r * j->groups + g] = -j->zero * sum;
  }
}

// Weights. A panel of W8 is 64 float32 scales, one a row, then bytes [k/4][64][4], code 128 for zero. A panel of W4 is for each
// group of k 64 float16 scales, then bytes [group/8][64][4]: the low nibbles are 4 neighbours in k, the high ones the next 4,
// code 8 for zero. k is rounded up to a multiple of 8. A weight that is not finite makes its scale NaN.

// widen_some reads n weights at any address; the rest up to a multiple of VL is zero.
INLINE void widen_some(float *to, const char *src, int dt, int n) {
  const int size = dt == KN_F32 ? 4 : 2;
  int i = 0;
  for (; i + VL <= n; i += VL) {
    const char *p = src + i * size;
    v_store(to + i, dt == KN_F32 ? v_load((const float *)p) : dt == KN_BF16 ? v_bf16((const uint16_t *)p) : v_f16((const uint16_t *)p));
  }
  if (i == n) return;
  char rest[VL * 4] = {0};
  memcpy(rest, src + i * size, (size_t)(n - i) * size);
  const uint16_t *h = (const uint16_t *)rest;
  v_store(to + i, dt == KN_F32 ? v_load((const float *)rest) : dt == KN_BF16 ? v_bf16(h) : v_f16(h));
}

// codes rounds n weights times inv to whole numbers within [-limit, limit).
INLINE void codes(int8_t *to, const float *w, int n, float inv, int limit) {
  const vf by = v_set1(inv), least = v_set1((float)-limit), most = v_set1((float)(limit - 1));
  for (int i = 0; i < n; i += VL) v_to_i8(to + i, v_min(v_max(v_round(v_mul(v_load(w + i), by)), least), most));
}

// bounds are the largest numbers of a run of weights and of their negatives, at least 0; bad is NaN if one is not finite.
typedef struct {
  vf up, down, bad;
} bounds;

INLINE void bound(bounds *b, const char *src, int dt, int n) {
  float f[QUANT_GROUP];
  widen_some(f, src, dt, n);
  for (int i = 0; i < n; i += VL) {
    vf a = v_load(f + i);
    b->up = v_max(a, b->up);
    b->down = v_max(v_sub(v_zero(), a), b->down);
    b->bad = v_fma(a, v_zero(), b->bad);
  }
}

// scale8 returns the scale of a row, and what its weights are multiplied with.
static float scale8(const char *src, int dt, int64_t k, float *inv) {
  bounds b = {v_zero(), v_zero(), v_zero()};
  for (int64_t at = 0; at < k; at += QUANT_GROUP)
    bound(&b, src + at * (dt == KN_F32 ? 4 : 2), dt, (int)lower(QUANT_GROUP, k - at));
  float m = v_most(v_max(b.up, b.down));
  *inv = m > 1e-30f ? 127.0f / m : 0;
  return (*inv > 0 ? m / 127.0f : 0) + v_sum(b.bad);
}

// scale4 returns the scale of a group, in float16. The larger side gets the code further from zero.
static uint16_t scale4(const char *src, int dt, int n, float *inv) {
  bounds b = {v_zero(), v_zero(), v_zero()};
  bound(&b, src, dt, n);
  float up = v_most(b.up), down = v_most(b.down);
  uint16_t scale = to_f16((up >= down ? -up : down) / 8 + v_sum(b.bad));
  float s = from_f16(scale);
  *inv = s != 0 ? 1 / s : 0;
  return scale;
}

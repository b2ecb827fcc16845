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
  int8_t q[QUANT_GROUP + 16];
  for (int i = 0; i < padded; i += VL) {
    vf a = v_round(v_mul(v_load(f + i), by));
    total = v_add(total, a);
    v_to_i8(q + i, a);
  }
  memset(q + padded, 0, 8);
  memcpy(to, q, (size_t)((n + 7) & ~7));
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

// Weights, what is not finite among them makes the scale NaN. A panel of W8 is 64 float32 scales, one a row, then bytes [k/4][64][4], code 128 for zero. A panel of W4 is for each
// group of k 64 float16 scales, then bytes [group/8][64][4]: the low nibbles are 4 neighbours in k, the high ones the next 4,
// code 8 for zero. k is rounded up to a multiple of 8.
typedef struct {
  kn_matrix m;
  int64_t first_row, rows;
  const char *src;
  int src_dt;
} pack_job;

// widen_some reads n weights at any address; the rest up to a multiple of VL is zero.
static void widen_some(float *to, const char *src, int dt, int n) {
  int i = 0;
  if (dt == KN_F32) {
    memcpy(to, src, (size_t)n * 4);
    i = n;
  }
  for (; i < n; i += VL) {
    uint16_t h[VL] = {0};
    memcpy(h, src + i * 2, (size_t)(n - i < VL ? n - i : VL) * 2);
    v_store(to + i, dt == KN_BF16 ? v_bf16(h) : v_f16(h));
  }
  for (i = n; i % VL; i++) to[i] = 0;
}

// codes rounds n weights times inv, shifted by zero and kept within [0, 2*zero).
static void codes(uint8_t *to, const float *w, int n, float inv, int zero) {
  const vf by = v_set1(inv), least = v_set1((float)-zero), most = v_set1((float)(zero - 1));
  for (int i = 0; i < n; i += VL) v_to_i8((int8_t *)to + i, v_min(v_max(v_round(v_mul(v_load(w + i), by)), least), most));
  for (int i = 0; i < n; i++) to[i] = (uint8_t)(to[i] + zero);
}

static void pack_row8(char *panel, int lane, const char *src, int src_dt, int64_t k) {
  const int size = src_dt == KN_F32 ? 4 : 2;
  float f[QUANT_GROUP];
  vf most = v_zero(), bad = v_zero();
  for (int64_t at = 0; at < k; at += QUANT_GROUP) {
    int n = (int)lower(QUANT_GROUP, k - at);
    widen_some(f, src + at * size, src_dt, n);
    for (int i = 0; i < n; i += VL) {
      vf a = v_load(f + i);
      most = v_max(v_max(v_sub(v_zero(), a), a), most);
      bad = v_fma(a, v_zero(), bad);
    }
  }
  float m = v_most(most), inv = m > 1e-30f ? 127.0f / m : 0;
  ((float *)panel)[lane] = (inv > 0 ? m / 127.0f : 0) + v_sum(bad);
  char *to = panel + KN_PANEL * 4 + lane * 4;
  for (int64_t at = 0; at < k; at += QUANT_GROUP) {
    int n = (int)lower(QUANT_GROUP, k - at);
    uint8_t c[QUANT_GROUP + 16];
    widen_some(f, src + at * size, src_dt, n);
    codes(c, f, n, inv, 128);
    memset(c + n, 128, 8);
    for (int i = 0; i < n; i += 8, to += KN_PANEL * 8) {
      memcpy(to, c + i, 4);
      memcpy(to + KN_PANEL * 4, c + i + 4, 4);
    }
  }
}

static void pack_row4(char *panel, int lane, const char *src, int src_dt, int64_t k, int group) {
  const int size = src_dt == KN_F32 ? 4 : 2;
  float f[QUANT_GROUP];
  char *to = panel;
  for (int64_t at = 0; at < k; at += group) {
    int n = (int)lower(group, k - at);
    widen_some(f, src + at * size, src_dt, n);
    vf top = v_zero(), bottom = v_zero(), bad = v_zero();
    for (int i = 0; i < n; i += VL) {
      vf a = v_load(f + i);
      top = v_max(a, top);
      bottom = v_max(v_sub(v_zero(), a), bottom);
      bad = v_fma(a, v_zero(), bad);
    }
    float up = v_most(top), down = v_most(bottom); // the larger side gets the code further from zero
    uint16_t scale = to_f16((up >= down ? -up : down) / 8 + v_sum(bad));
    float s = from_f16(scale);
    uint8_t c[QUANT_GROUP + 16];
    codes(c, f, n, s != 0 ? 1 / s : 0, 8);
    memset(c + n, 8, 8);
    memcpy(to + lane * 2, &scale, 2);
    to += KN_PANEL * 2;
    for (int i = 0; i < n; i += 8, to += KN_PANEL * 4) {
      uint32_t low, high;
      memcpy(&low, c + i, 4);
      memcpy(&high, c + i + 4, 4);
      low |= high << 4;
      memcpy(to + lane * 4, &low, 4);
    }
  }
}

static void pack_quantized_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const pack_job *j = ctx;
  const int64_t k = j->m.k, end = j->first_row + j->rows, panel = j->first_row / KN_PANEL + chunk;
  char *to = (char *)j->m.p + panel * panel_bytes(j->m);
  for (int64_t n = panel * KN_PANEL; n < (panel + 1) * KN_PANEL; n++) {
    if (n < j->first_row || n >= end) continue;
    const char *src = j->src + (n - j->first_row) * k * (j->src_dt == KN_F32 ? 4 : 2);
    if (j->m.dt == KN_W8)
      pack_row8(to, (int)(n % KN_PANEL), src, j->src_dt, k);
    else
      pack_row4(to, (int)(n % KN_PANEL), src, j->src_dt, k, j->m.group);
  }
}

static int pack_quantized(kn_dev *d, kn_matrix m, int64_t first_row, const void *src, int src_dt, int64_t rows) {
  pack_job j = {m, first_row, rows, src, src_dt};
  kn_run(d, pack_quantized_chunk, &j, (first_row + rows - 1) / KN_PANEL - first_row / KN_PANEL + 1);
  return KN_OK;
}

// Packing of weights into panels (matrix.go).
#include "pool.h"

#include <string.h>

static float from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static uint16_t to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return f != f ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static float from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff, u = mag << 13;
  float f;
  memcpy(&f, &u, 4);
  f *= 0x1p112f; // the exponents' biases differ by 112; right for subnormals too
  memcpy(&u, &f, 4);
  if (mag >= 0x7c00) u |= 0x7f800000;
  u |= sign;
  memcpy(&f, &u, 4);
  return f;
}

static uint16_t to_f16(float f) {
  uint32_t u, low;
  memcpy(&u, &f, 4);
  uint16_t sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return sign | 0x7e00;
  if (u >= 0x477ff000) return sign | 0x7c00; // rounds to 65536 or more
  if (u < 0x38800000) {                      // below 2^-14: adding 0.5 leaves units of 2^-24 in the low bits, rounded
    memcpy(&f, &u, 4);
    f += 0.5f;
    memcpy(&low, &f, 4);
    return sign | (low - 0x3f000000);
  }
  u += 0xfff + (u >> 13 & 1);
  return sign | (u - (112u << 23)) >> 13;
}

enum { PIECE = 64 }; // of k, at a time: 64 columns of that fit the first cache

typedef struct {
  kn_matrix m;
  int64_t first_row, rows;
  const char *src;
  int src_dt;
} pack_job;

// convert reads n elements at src (any address) and writes them as dt.
static void convert(void *to, int dt, const char *src, int src_dt, int n) {
  int size = src_dt == KN_F32 ? 4 : 2;
  if (dt == src_dt) {
    memcpy(to, src, (size_t)n * size);
    return;
  }
  for (int i = 0; i < n; i++) {
    float f;
    uint16_t h;
    if (src_dt == KN_F32) {
      memcpy(&f, src + i * 4, 4);
    } else {
      memcpy(&h, src + i * 2, 2);
      f = src_dt == KN_BF16 ? from_bf16(h) : from_f16(h);
    }
    if (dt == KN_F32)
      ((float *)to)[i] = f;
    else
      ((uint16_t *)to)[i] = dt == KN_BF16 ? to_bf16(f) : to_f16(f);
  }
}

static void pack_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const pack_job *j = ctx;
  const int dt = j->m.dt, src_size = j->src_dt == KN_F32 ? 4 : 2;
  const int64_t k = j->m.k, end = j->first_row + j->rows;
  int64_t panel = j->first_row / KN_PANEL + chunk, n0 = panel * KN_PANEL, n1 = n0 + KN_PANEL;
  if (n0 < j->first_row) n0 = j->first_row;
  if (n1 > end) n1 = end;
  char *to = (char *)j->m.p + panel * (dt == KN_BF16 ? k + (k & 1) : k) * KN_PANEL * (dt == KN_F32 ? 4 : 2);
  for (int64_t k0 = 0; k0 < k; k0 += PIECE) {
    int len = k - k0 < PIECE ? (int)(k - k0) : PIECE;
    for (int64_t n = n0; n < n1; n++) {
      uint32_t row[PIECE + 1] = {0};
      int lane = (int)(n % KN_PANEL);
      convert(row, dt, j->src + ((n - j->first_row) * k + k0) * src_size, j->src_dt, len);
      if (dt == KN_F32)
        for (int i = 0; i < len; i++) ((uint32_t *)to)[(k0 + i) * KN_PANEL + lane] = row[i];
      else if (dt == KN_BF16)
        for (int i = 0; i < (len + 1) / 2; i++) ((uint32_t *)to)[(k0 / 2 + i) * KN_PANEL + lane] = row[i];
      else
        for (int i = 0; i < len; i++) ((uint16_t *)to)[(k0 + i) * KN_PANEL + lane] = ((uint16_t *)row)[i];
    }
  }
}

int kn_pack(kn_dev *d, kn_matrix m, int64_t first_row, const void *src, int src_dt, int64_t rows) {
  pack_job j = {m, first_row, rows, src, src_dt};
  kn_run(d, pack_chunk, &j, (first_row + rows - 1) / KN_PANEL - first_row / KN_PANEL + 1);
  return KN_OK;
}

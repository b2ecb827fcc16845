// Packing of weights into panels (matrix.go).
#include "half.h"
#include "pool.h"

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
  if (m.dt == KN_W8 || m.dt == KN_W4) return kn_dev_ops(d)->pack_quantized(d, m, first_row, src, src_dt, rows);
  pack_job j = {m, first_row, rows, src, src_dt};
  kn_run(d, pack_chunk, &j, (first_row + rows - 1) / KN_PANEL - first_row / KN_PANEL + 1);
  return KN_OK;
}

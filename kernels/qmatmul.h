// Products with quantized weights: the inputs are rounded to int8 in groups of k, each with a scale; within a group sums are
// exact integers, and groups add up in float32, in order. So here too a result does not depend on the tile or the batch.

enum { PACKED4 = 1, BYTES4 = 2, BYTES8 = 3 }; // W4 as stored; its codes unpacked to bytes; W8

// qspan is a part of the inner dimension, whole groups but for the last.
typedef struct {
  float *out;
  int64_t out_stride;
  const int8_t *x;
  const float *x_scales;
  const int32_t *start; // of the sums, per group
  int64_t x_stride, groups;
  const char *w;       // first byte of the panel's part
  const float *scales; // BYTES: of the weights, 64 a row; every scale_step floats another group's
  int64_t scale_step, k;
  int group, at; // at: first column of the tile in the panel
  int cols, chain;
  ahead next;
} qspan;

// qgroup computes the sums of one group, or what there is of it, as integers.
INLINE void qgroup(const int kind, const int R, const int C, const qspan *s, const int8_t *x, int64_t k, const char *w,
                   const int32_t *start, ahead *next, vi acc[MAX_ROWS][8]) {
  vi wv[8];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) acc[r][c] = vi_set1(start[r * s->groups]);
  for (const int8_t *end = x + k; x < end;) {
    prefetch(next);
    for (int half = 0; half < (kind == PACKED4 ? 2 : 1); half++, x += 4) {
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) {
        vi v = vi_load(w + c * VL * 4);
        wv[c] = kind != PACKED4 ? v : half ? vi_high4(v) : vi_low4(v);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        int32_t four;
        memcpy(&four, x + r * s->x_stride, 4);
        vi xv = vi_set1(four);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) acc[r][c] = vi_dot(kind != BYTES8, acc[r][c], wv[c], xv);
      }
    }
    w += KN_PANEL * 4;
  }
}

INLINE void qtile(const int kind, const int R, const int C, const qspan s) {
  float edge[MAX_ROWS * 8 * VL]; // the tile, where out has fewer columns
  float *out = s.out;
  int64_t stride = s.out_stride;
  if (s.cols < C * VL) {
    for (int r = 0; s.chain && r < R; r++) memcpy(edge + r * C * VL, s.out + r * s.out_stride, (size_t)s.cols * 4);
    out = edge;
    stride = C * VL;
  }
  const char *w = s.w;
  const float *scales = s.scales;
  ahead next = s.next;
  for (int64_t k = 0, g = 0; k < s.k; k += s.group, g++) {
    vi acc[MAX_ROWS][8];
    vf sw[8];
    int64_t some = s.k - k < s.group ? s.k - k : s.group;
    if (kind == PACKED4) {
      qgroup(kind, R, C, &s, s.x + k, some, w + KN_PANEL * 2 + s.at * 4, s.start + g, &next, acc);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) sw[c] = v_f16((const uint16_t *)w + s.at + c * VL);
      w += KN_PANEL * 2 + s.group * (KN_PANEL / 2);
    } else {
      qgroup(kind, R, C, &s, s.x + k, some, w + s.at * 4, s.start + g, &next, acc);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) sw[c] = v_load(scales + s.at + c * VL);
      scales += s.scale_step;
      w += s.group * KN_PANEL;
    }
    // The sums rest in memory meanwhile: the registers are for acc.
    const int first = k == 0 && !s.chain;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vf sx = v_set1(s.x_scales[r * s.groups + g]);
      float *o = out + r * stride;
#pragma GCC unroll 8
      for (int c = 0; c < C; c++)
        v_store(o + c * VL, v_fma(vi_float(acc[r][c]), v_mul(sx, sw[c]), first ? v_zero() : v_load(o + c * VL)));
    }
  }
  if (out == edge)
    for (int r = 0; r < R; r++) memcpy(s.out + r * s.out_stride, edge + r * C * VL, (size_t)s.cols * 4);
}

// qacross runs a tile of R rows over the panel's columns.
INLINE void qacross(const int kind, const int R, qspan s) {
  const int C = tile_vectors(R);
  const int step = s.cols <= C * VL / 2 ? 1 : C; // narrow: a vector at a time
  for (int cols = s.cols; cols > 0; cols -= step * VL, s.at += step * VL, s.out += step * VL) {
    s.cols = cols;
    if (step == 1)
      qtile(kind, R, 1, s);
    else
      qtile(kind, R, C, s);
  }
}

#define QROWS_OF(name, kind)                                                                                           \
  static __attribute__((noinline)) void name(int rows, const qspan *s) {                                               \
    switch (rows) {                                                                                                    \
      case 1: qacross(kind, 1, *s); break;                                                                             \
      case 2: qacross(kind, 2, *s); break;                                                                             \
      case 3: qacross(kind, 3, *s); break;                                                                             \
      case 4: qacross(kind, 4, *s); break;                                                                             \
      case 5: qacross(kind, MAX_ROWS > 4 ? 5 : 1, *s); break;                                                          \
      case 6: qacross(kind, MAX_ROWS > 4 ? 6 : 1, *s); break;                                                          \
    }                                                                                                                  \
  }
QROWS_OF(qrows_packed4, PACKED4)
QROWS_OF(qrows_bytes4, BYTES4)
QROWS_OF(qrows_bytes8, BYTES8)

// qrows_by computes any number of rows of one panel's part; bytes at next will be wanted soon.
static void qrows_by(int kind, int64_t rows, qspan s, const char *next, int64_t bytes) {
  int64_t tiles = divide_up(rows, MAX_ROWS);
  for (int64_t i = 0, r = 0; i < tiles; i++) { // sizes as even as they can be
    int n = (int)((rows - r) / (tiles - i));
    qspan t = s;
    t.out += r * s.out_stride;
    t.x += r * s.x_stride;
    t.x_scales += r * s.groups;
    t.start += r * s.groups;
    if (bytes) t.next = share_ahead(next, bytes, s.k * KN_PANEL / (kind == PACKED4 ? 2 : 1), i, tiles);
    switch (kind) {
      case PACKED4: qrows_packed4(n, &t); break;
      case BYTES4: qrows_bytes4(n, &t); break;
      case BYTES8: qrows_bytes8(n, &t); break;
    }
    r += n;
  }
}

enum { QPIECE = 256 }; // of k, at a time, for many rows: a panel's part of that stays in the first cache

typedef struct {
  float scales[QPIECE / 32][KN_PANEL];
  char bytes[QPIECE * KN_PANEL];
} unpacked;

// unpack4 turns part of a W4 panel into bytes and float32 scales.
static void unpack4(unpacked *to, const char *w, int64_t k, int group) {
  char *b = to->bytes;
  for (int64_t k0 = 0; k0 < k; k0 += group) {
    for (int c = 0; c < KN_PANEL; c += VL) v_store(to->scales[k0 / group] + c, v_f16((const uint16_t *)w + c));
    w += KN_PANEL * 2;
    for (int64_t i = k0; i < lower(k0 + group, k); i += 8, w += KN_PANEL * 4, b += KN_PANEL * 8)
      for (int c = 0; c < KN_PANEL * 4; c += VL * 4) {
        vi v = vi_load(w + c), low = vi_low4(v), high = vi_high4(v);
        memcpy(b + c, &low, sizeof low);
        memcpy(b + KN_PANEL * 4 + c, &high, sizeof high);
      }
  }
}

typedef struct {
  kn_dev *dev;
  kn_tensor out;
  kn_matrix m;
  quantize_job x;
  work_split split;
} qmatmul_job;

// qblock_rows computes a block of rows of one whole panel. Many rows take it in parts that stay in the cache.
static void qblock_rows(const qmatmul_job *j, const char *panel, int64_t rows, qspan s, int worker) {
  const int is4 = j->m.dt == KN_W4;
  const int64_t group_bytes = is4 ? KN_PANEL * 2 + s.group * (KN_PANEL / 2) : s.group * KN_PANEL;
  const int64_t k = s.k, piece = QPIECE / s.group * s.group;
  const int unpack = is4 && rows > 2 * MAX_ROWS;
  s.w = is4 ? panel : panel + KN_PANEL * 4;
  s.scales = (const float *)panel;
  if (rows <= MAX_ROWS) {
    s.next = (ahead){s.w + AHEAD, 4};
    qrows_by(is4 ? PACKED4 : BYTES8, rows, s, NULL, 0);
    return;
  }
  for (int64_t at = 0; at < k; at += piece) {
    qspan t = s;
    t.k = lower(piece, k - at);
    t.x += at;
    t.x_scales += at / s.group;
    t.start += at / s.group;
    t.w += at / s.group * group_bytes;
    t.chain = at > 0;
    const int64_t bytes = piece / s.group * group_bytes;
    const char *next = t.w + bytes;
    if (unpack) {
      unpacked *u = kn_scratch(j->dev, worker);
      unpack4(u, t.w, t.k, s.group);
      t.w = u->bytes;
      t.scales = u->scales[0];
      t.scale_step = KN_PANEL;
    }
    qrows_by(unpack ? BYTES4 : is4 ? PACKED4 : BYTES8, rows, t, next, bytes);
  }
}

static void qpanel_rows(const qmatmul_job *j, const char *panel, int64_t rows, qspan s, int worker) {
  for (int64_t r = 0; r < rows; r += ROW_BLOCK) {
    qspan t = s;
    t.out += r * s.out_stride;
    t.x += r * s.x_stride;
    t.x_scales += r * s.groups;
    t.start += r * s.groups;
    qblock_rows(j, panel, lower(ROW_BLOCK, rows - r), t, worker);
  }
}

static void qmatmul_chunk(void *ctx, int64_t chunk, int worker) {
  const qmatmul_job *j = ctx;
  const work_split *w = &j->split;
  int64_t first = chunk / w->row_blocks * w->group, r0 = chunk % w->row_blocks * w->block;
  int64_t rows = lower(w->block, j->out.rows - r0);
  for (int64_t p = first; p < lower(first + w->group, w->panels); p++) {
    qspan s = {
        .out = (float *)j->out.p + r0 * j->out.stride + p * KN_PANEL,
        .out_stride = j->out.stride,
        .x = j->x.q + r0 * j->x.k,
        .x_stride = j->x.k,
        .x_scales = j->x.scales + r0 * j->x.groups,
        .start = j->x.start + r0 * j->x.groups,
        .groups = j->x.groups,
        .k = j->x.k,
        .group = j->x.group,
        .cols = (int)lower(KN_PANEL, j->m.n - p * KN_PANEL),
    };
    qpanel_rows(j, (const char *)j->m.p + p * panel_bytes(j->m), rows, s, worker);
  }
}

// quantize_rows rounds the rows of x for products with m, into the shared scratch.
static int quantize_rows(kn_dev *d, kn_tensor x, kn_matrix m, quantize_job *j) {
  *j = (quantize_job){.x = x, .k = (x.cols + 7) & ~7};
  j->group = m.dt == KN_W4 ? m.group : QUANT_GROUP;
  j->zero = m.dt == KN_W4 ? 8 : 128 - DOT_ZERO;
  j->groups = divide_up(m.k, j->group);
  size_t bytes = (size_t)(x.rows * j->k + 63) & ~(size_t)63, lists = (size_t)(x.rows * j->groups) * 4;
  if (kn_reserve_shared(d, bytes + 2 * lists) || kn_reserve(d, sizeof(unpacked))) return KN_NOMEM;
  j->q = kn_scratch(d, KN_SHARED);
  j->scales = (float *)(j->q + bytes);
  j->start = (int32_t *)(j->q + bytes + lists);
  run_if_big(d, x.rows * j->k * 2, quantize_chunk, j, x.rows);
  return KN_OK;
}

static int qmatmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m) {
  qmatmul_job j = {.dev = d, .out = out, .m = m};
  if (quantize_rows(d, x, m, &j.x)) return KN_NOMEM;
  j.split = split_work(d, m, x.rows);
  run_if_big(d, j.split.cost, qmatmul_chunk, &j, j.split.chunks);
  return KN_OK;
}

static int matmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m) {
  return m.dt == KN_W8 || m.dt == KN_W4 ? qmatmul(d, out, x, m) : dense_matmul(d, out, x, m);
}

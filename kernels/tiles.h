// Products with packed panels. Every output element is one chain of multiply-adds over k from 0 up, whatever the tile
// it is computed in: that is what makes results independent of the batch. When a panel is too big for the cache the
// inner dimension is cut and the chain rests in out meanwhile, which changes no bit.

// Tile sizes: R rows times C vectors of accumulators have to fit the registers.
#if defined(KN_USE_AVX512)
enum { MAX_ROWS = 6 };
INLINE int tile_vectors(int rows) { return (void)rows, 4; }
#elif defined(KN_USE_AVX2)
enum { MAX_ROWS = 6 };
INLINE int tile_vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
#elif defined(KN_USE_NEON) // bigger ones have gcc 12 put sums on the stack
enum { MAX_ROWS = 4 };
INLINE int tile_vectors(int rows) { return rows == 1 ? 8 : 4; }
#else
enum { MAX_ROWS = 4 };
INLINE int tile_vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
#endif

enum { DOT = 9 }; // kind: BF16 weights and BF16 inputs by dot-product instructions; others are the weights' dtype

// ahead is memory that will be wanted: a tile prefetches `lines` cache lines of it for each 256 bytes of weights that it reads, so
// that memory works all the time that products take. Only the variants that gain by it do.
typedef struct {
  const char *p;
  int lines; // 0: none
} ahead;

enum { AHEAD = 4096 }; // bytes from what is read to what is prefetched, where each weight is read once

INLINE void prefetch(ahead *a) {
#if defined(KN_PREFETCH)
  if (a->lines == 0) return;
  __builtin_prefetch(a->p, 0, 2);
  if (a->lines > 1) __builtin_prefetch(a->p + 64, 0, 2);
  if (a->lines > 2) __builtin_prefetch(a->p + 128, 0, 2), __builtin_prefetch(a->p + 192, 0, 2);
  a->p += a->lines * 64;
#endif
  (void)a;
}

// share_ahead is what tile i of `tiles` prefetches of the bytes at p, while it reads `reads` bytes.
INLINE ahead share_ahead(const char *p, int64_t bytes, int64_t reads, int64_t i, int64_t tiles) {
  int64_t lines = (bytes * 4 + tiles * reads - 1) / (tiles * reads);
  lines = lines > 2 ? 4 : lines;
  int64_t from = i * (reads / 256) * lines * 64;
  return (ahead){p + from, from < bytes ? (int)lines : 0};
}

// span is a part of the inner dimension: w points at its first element of column 0 of the tile, x likewise.
typedef struct {
  float *out;
  int64_t out_stride;
  const void *x; // uint16_t for DOT, else float
  int64_t x_stride;
  const char *w;
  int64_t k;
  int cols;  // columns of the tile that exist
  int chain; // go on from what is in out
  ahead next;
} span;

// tile computes R rows by C vectors; R, C and kind are constants wherever it is inlined.
INLINE void tile(const int kind, const int R, const int C, const span s) {
  vf acc[MAX_ROWS][8], wv[8];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const float *o = s.out + r * s.out_stride + c * VL;
      if (!s.chain)
        acc[r][c] = v_zero();
      else if (s.cols >= C * VL)
        acc[r][c] = v_load(o);
      else
        acc[r][c] = c * VL < s.cols ? v_load_n(o, s.cols - c * VL < VL ? s.cols - c * VL : VL) : v_zero();
    }
  }
  const char *w = s.w;
  ahead next = s.next;
#if defined(KN_USE_DOT)
  if (kind == DOT) {
    const uint16_t *x = s.x;
    for (int64_t k = 0; k + 1 < s.k; k += 2, w += KN_PANEL * 4) {
      prefetch(&next);
      __m512bh wd[4];
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) wd[c] = (__m512bh)_mm512_loadu_si512(w + c * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        int pair;
        memcpy(&pair, x + r * s.x_stride + k, 4);
        __m512bh xd = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], wd[c], xd);
      }
    }
    if (s.k & 1) // the second of the last pair of inputs is not there
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        __m512bh xd = (__m512bh)_mm512_set1_epi32(x[r * s.x_stride + s.k - 1]);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
          acc[r][c] = _mm512_dpbf16_ps(acc[r][c], (__m512bh)_mm512_loadu_si512(w + c * 64), xd);
      }
  }
#endif
  const float *x = s.x;
  if (kind == KN_BF16) {
    for (int64_t k = 0; k < s.k; k += 2, w += KN_PANEL * 4) {
      prefetch(&next);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) wv[c] = v_even(w + c * VL * 4);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf xv = v_set1(x[r * s.x_stride + k]);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) acc[r][c] = v_fma(xv, wv[c], acc[r][c]);
      }
      if (k + 1 == s.k) break;
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) wv[c] = v_odd(w + c * VL * 4);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf xv = v_set1(x[r * s.x_stride + k + 1]);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) acc[r][c] = v_fma(xv, wv[c], acc[r][c]);
      }
    }
  }
  if (kind == KN_F32 || kind == KN_F16) {
    const int size = kind == KN_F32 ? 4 : 2;
    for (int64_t k = 0; k < s.k; k++, w += KN_PANEL * size) {
      if (kind == KN_F32 || k % 2 == 0) prefetch(&next);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) {
        const char *p = w + c * VL * size;
        wv[c] = kind == KN_F32 ? v_load((const float *)p) : v_f16((const uint16_t *)p);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf xv = v_set1(x[r * s.x_stride + k]);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) acc[r][c] = v_fma(xv, wv[c], acc[r][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      float *o = s.out + r * s.out_stride + c * VL;
      if (s.cols >= C * VL)
        v_store(o, acc[r][c]);
      else if (c * VL < s.cols)
        v_store_n(o, acc[r][c], s.cols - c * VL < VL ? s.cols - c * VL : VL);
    }
  }
}

INLINE int weight_bytes(int kind) { return kind == KN_F32 ? 4 : kind == KN_F16 ? 2 : 4; } // of a column; pairs: of 2 k

// across runs a tile of R rows over the panel's columns.
INLINE void across(const int kind, const int R, span s) {
  const int C = tile_vectors(R), step = weight_bytes(kind) * VL;
  int cols = s.cols;
  if (cols <= C * VL / 2) { // narrow: a vector at a time
    for (; cols > 0; cols -= VL, s.w += step, s.out += VL) {
      s.cols = cols;
      tile(kind, R, 1, s);
    }
    return;
  }
  for (; cols > 0; cols -= C * VL, s.w += C * step, s.out += C * VL) {
    s.cols = cols;
    tile(kind, R, C, s);
  }
}

#define ROWS_OF(name, kind)                                                                                            \
  static __attribute__((noinline)) void name(int rows, const span *s) {                                                \
    switch (rows) {                                                                                                    \
      case 1: across(kind, 1, *s); break;                                                                              \
      case 2: across(kind, 2, *s); break;                                                                              \
      case 3: across(kind, 3, *s); break;                                                                              \
      case 4: across(kind, 4, *s); break;                                                                              \
      case 5: across(kind, MAX_ROWS > 4 ? 5 : 1, *s); break;                                                           \
      case 6: across(kind, MAX_ROWS > 4 ? 6 : 1, *s); break;                                                           \
    }                                                                                                                  \
  }
ROWS_OF(rows_f32, KN_F32)
ROWS_OF(rows_f16, KN_F16)
ROWS_OF(rows_bf16, KN_BF16)
#if defined(KN_USE_DOT)
ROWS_OF(rows_dot, DOT)
#endif

INLINE int64_t lower(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

INLINE int64_t panel_bytes(kn_matrix m) {
  switch (m.dt) {
    case KN_F32: return m.k * KN_PANEL * 4;
    case KN_F16: return m.k * KN_PANEL * 2;
    case KN_BF16: return (m.k + (m.k & 1)) * KN_PANEL * 2;
    case KN_W8: return (4 + ((m.k + 7) & ~7)) * KN_PANEL;
  }
  return divide_up(m.k, m.group) * KN_PANEL * 2 + ((m.k + 7) & ~7) * (KN_PANEL / 2);
}

// rows_by computes any number of rows of a panel's part; bytes at next will be wanted soon.
static void rows_by(int kind, int64_t rows, span s, const char *next, int64_t bytes) {
  const int64_t x_size = kind == DOT ? 2 : 4;
  int64_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
  for (int64_t i = 0, r = 0; i < tiles; i++) { // sizes as even as they can be
    int n = (int)((rows - r) / (tiles - i));
    span t = s;
    t.out += r * s.out_stride;
    t.x = (const char *)s.x + r * s.x_stride * x_size;
    if (bytes) t.next = share_ahead(next, bytes, s.k * KN_PANEL * (kind == KN_F32 ? 4 : 2), i, tiles);
    switch (kind) {
      case KN_F32: rows_f32(n, &t); break;
      case KN_F16: rows_f16(n, &t); break;
      case KN_BF16: rows_bf16(n, &t); break;
#if defined(KN_USE_DOT)
      case DOT: rows_dot(n, &t); break;
#endif
    }
    r += n;
  }
}

// Many rows take a panel in blocks of rows, whose outputs stay in the cache, and in pieces of its bytes. Small pieces stay in the
// first cache, and while one is used the next one comes; large ones suit blocks that are busy for long anyway.
enum { ROW_BLOCK = 96, FEW_ROWS = 48, SMALL_PIECE = 32 << 10, LARGE_PIECE = 256 << 10 };

// widen_piece makes float32 of k*64 weights of 16 bits, in the order in which the tiles read them.
static void widen_piece(float *to, const char *w, int dt, int64_t k) {
  for (int64_t i = 0; i < k; i++, to += KN_PANEL)
    for (int c = 0; c < KN_PANEL; c += VL) {
      const char *p = dt == KN_F16 ? w + (i * KN_PANEL + c) * 2 : w + i / 2 * KN_PANEL * 4 + c * 4;
      v_store(to + c, dt == KN_F16 ? v_f16((const uint16_t *)p) : i % 2 ? v_odd(p) : v_even(p));
    }
}

// block_rows computes a block of rows of one whole panel. Weights of 16 bits are widened once for all rows, if they are many;
// scratch has room for LARGE_PIECE.
static void block_rows(int kind, int64_t rows, span s, float *scratch) {
  const int64_t unit = kind == KN_F32 ? 4 : 2, k = s.k;
  if (rows <= MAX_ROWS) {
    s.next = (ahead){s.w + AHEAD, 4};
    rows_by(kind, rows, s, NULL, 0);
    return;
  }
  const int widen = kind != KN_F32 && kind != DOT && rows > FEW_ROWS;
  const int64_t most = (rows > FEW_ROWS ? LARGE_PIECE : SMALL_PIECE) / KN_PANEL / (widen ? 4 : unit);
  const int64_t pieces = divide_up(k, most), each = divide_up(divide_up(k, pieces), 2) * 2;
  for (int64_t at = 0; at < k; at += each) {
    span t = s;
    t.k = lower(each, k - at);
    t.x = (const char *)s.x + at * (kind == DOT ? 2 : 4);
    t.w = s.w + at * KN_PANEL * unit;
    t.chain = at > 0;
    const char *next = t.w + each * KN_PANEL * unit;
    if (widen) {
      widen_piece(scratch, t.w, kind, t.k);
      t.w = (const char *)scratch;
    }
    rows_by(widen ? KN_F32 : kind, rows, t, next, each * KN_PANEL * unit);
  }
}

// panel_rows computes rows of one whole panel.
static void panel_rows(int kind, int64_t rows, span s, float *scratch) {
  for (int64_t r = 0; r < rows; r += ROW_BLOCK) {
    span t = s;
    t.out += r * s.out_stride;
    t.x = (const char *)s.x + r * s.x_stride * (kind == DOT ? 2 : 4);
    block_rows(kind, lower(ROW_BLOCK, rows - r), t, scratch);
  }
}

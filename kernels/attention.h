// Attention over the blocks of the cache.
//
// Positions are taken in splits of 512, counted from position 0: all scores of a split, then their weights, then the
// weighted sum of its values, each element of both products one chain of multiply-adds. Splits are merged in order.
// Whether one worker goes through all splits of a query or several share them is a matter of how busy the device is, and
// changes no bit, because the arithmetic of a split and of a merge is the same either way; nor does it matter where the
// tiles find keys and values: in the blocks as they are, for few rows, as in decode, where what counts is reading the
// cache once; or widened to panels, which many rows share. Positions beyond a query's own have weight zero or are left out.
//
// With a window positions before it are masked; chunks that no row of a tile sees are not read, and splits not begun. Which
// they are depends on the tile, but what a row gets from a masked position is a weight of zero, which changes no bit.
//
// Scores are in units of log 2, so that weights are powers of two.
#define LOG2E 1.44269504f
enum {
  SPLIT = 512,
  TILE_ROWS = 96, // queries of a tile times heads of a group
  RUN = 16,       // positions that lie together in a block
  RUNS = 8,
  K_CHUNK = 64, // positions whose keys are taken together: their panel fits the first cache
  V_CHUNK = RUNS * RUN,
  V_PANEL = 64,             // columns of a panel of values
  DIRECT_ROWS = 2 * MAX_ROWS, // at most so many rows take keys and values straight from the blocks
  SCORES = SPLIT + 16, // from one row of scores to the next; a power of two would crowd the cache's sets
};


// part is one tile's work: queries [q0, q0+queries) of a sequence against splits [split, split+splits).
typedef struct {
  int32_t seq, kv_head, q0, queries, split, splits;
  int64_t partial; // floats from the start of the partial results; -1: finish the tile at once
} part;

typedef struct {
  kn_dev *dev;
  kn_tensor out, q;
  kn_cache c;
  kn_batch b;
  kn_attend how;
  int group, dim, vdim, wide; // elements of a key and of a value; wide: vdim rounded up to whole vectors
  int whole;            // runs of 16 positions, and vectors of values, are whole
  float q_scale, out_scale;
  const part *parts;
  float *partials; // [rows][splits] states
} attention_job;

// state of a row: the largest score, the sum of weights, the weighted sum of values.
INLINE int64_t state_floats(const attention_job *j) { return 16 + j->wide; } // 16: m and l, and alignment

typedef struct {
  float *q, *panel, *scores, *now, *all; // now: states of this split; all: merged ones
  float *k_scales, *v_scales;            // of this split
  uint16_t *half;                        // a chunk of FP8 as float16
} buffers;

// cut_buffers cuts up the scratch memory at p (NULL: not yet) and returns how many floats that takes.
static size_t cut_buffers(const attention_job *j, int rows, float *p, buffers *b) {
  const size_t keys = (size_t)K_CHUNK * j->dim, values = (size_t)V_CHUNK * divide_up(j->vdim, V_PANEL) * V_PANEL;
  const size_t panel = keys > values ? keys : values, states = (size_t)rows * state_floats(j);
  size_t used = 0;
  const struct {
    void *to;
    size_t floats;
  } cut[] = {{&b->q, (size_t)rows * j->dim}, {&b->panel, panel},      {&b->scores, (size_t)rows * SCORES},
             {&b->now, states},              {&b->all, states},       {&b->k_scales, SPLIT},
             {&b->v_scales, SPLIT},          {&b->half, panel / 2}};
  for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
    float *at = p ? p + used : NULL;
    memcpy(cut[i].to, &at, sizeof at);
    used += (cut[i].floats + 15) & ~(size_t)15;
  }
  return used;
}

// position is that of a row of the tile.
INLINE int64_t position(const attention_job *j, const part *t, int row) {
  int64_t queries = j->b.starts[t->seq + 1] - j->b.starts[t->seq];
  return j->b.lens[t->seq] - queries + t->q0 + row / j->group;
}

// seen is the end of the positions that a row of the tile sees.
INLINE int64_t seen(const attention_job *j, const part *t, int row) {
  if (!j->how.bidirectional) return position(j, t, row) + 1;
  const int64_t all = j->b.lens[t->seq];
  return j->how.window > 0 ? lower(all, position(j, t, row) + j->how.window) : all;
}

// unseen is how many positions come before those that a row of the tile sees.
INLINE int64_t unseen(const attention_job *j, const part *t, int row) {
  int64_t end = position(j, t, row) + 1;
  return j->how.window > 0 && end > j->how.window ? end - j->how.window : 0;
}

enum { PANEL = 0 }; // kind: float32 that is in the first cache, or on its way there

// runs are a chunk's keys or values, 16 positions each, and those of the chunk after it, to prefetch.
typedef struct {
  int kind;       // dtype, PANEL, or KN_F16 for widened FP8
  int64_t step;   // bytes from one element of the keys to the next, or from one position's values to the next
  int64_t across; // bytes from 64 columns of the values to the next 64
  const char *at[RUNS], *next[RUNS];
} runs;

// score_tile computes R rows of scores for C vectors of positions from position `first` of the chunk on.
INLINE void score_tile(const int kind, const int R, const int C, const runs *u, const float *q, int dim, int first, float *out) {
  const int size = kind == PANEL ? 4 : kv_size(kind), line = kind == PANEL || kind == KN_F16 ? 0 : 64 / (RUN * size);
  vf acc[MAX_ROWS][8], wv[8];
  const char *k[8], *next[8];
#pragma GCC unroll 8
  for (int c = 0; c < C; c++) {
    int at = first + c * VL;
    k[c] = u->at[at / RUN] + at % RUN * size;
    next[c] = u->next[at / RUN];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) acc[r][c] = v_zero();
  }
  int64_t off = 0;
  for (int e = 0; e < dim; e++, off += u->step) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) wv[c] = load_kv(kind, k[c] + off);
    if (line && e % line == 0)
#pragma GCC unroll 8
      for (int c = 0; c < C; c++)
        if ((first + c * VL) % RUN == 0) __builtin_prefetch(next[c] + off, 0, 2);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      vf xv = v_set1(q[(int64_t)r * dim + e]);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) acc[r][c] = v_fma(xv, wv[c], acc[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) v_store(out + r * SCORES + first + c * VL, acc[r][c]);
}

// score_rows computes at least the first n scores of R rows. Others of the chunk may be anything.
INLINE void score_rows(const int kind, const int R, const runs *u, const float *q, int dim, int n, float *out) {
  const int C = tile_vectors(R);
  int at = 0;
  for (; at + (kind == PANEL ? (C - 1) * VL : 0) < n; at += C * VL) score_tile(kind, R, C, u, q, dim, at, out);
  if (kind != PANEL) return;
  for (; at + VL < n; at += 2 * VL) score_tile(kind, R, 2, u, q, dim, at, out);
  if (at < n) score_tile(kind, R, 1, u, q, dim, at, out);
}

// value_tile adds R rows of n weighted values, C vectors from byte `at` of a position's values on.
INLINE void value_tile(const int kind, const int R, const int C, const runs *u, const float *w, int n, int64_t at, float *to,
                       int64_t to_stride) {
  const int size = kind == PANEL ? 4 : kv_size(kind);
  vf acc[MAX_ROWS][8], wv[8];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) acc[r][c] = v_load(to + r * to_stride + c * VL);
  for (int p0 = 0; p0 < n; p0 += RUN) {
    const char *v = u->at[p0 / RUN] + at, *next = u->next[p0 / RUN] + at;
    const int end = n - p0 < RUN ? n - p0 : RUN;
    for (int p = 0; p < end; p++, v += u->step) {
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) wv[c] = load_kv(kind, v + c * VL * size);
      if (kind != PANEL && kind != KN_F16) {
#pragma GCC unroll 8
        for (int c = 0; c < C; c++)
          if (c * VL * size % 64 == 0) __builtin_prefetch(next + c * VL * size, 0, 2);
        next += u->step;
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf xv = v_set1(w[r * SCORES + p0 + p]);
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) acc[r][c] = v_fma(xv, wv[c], acc[r][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) v_store(to + r * to_stride + c * VL, acc[r][c]);
}

INLINE void value_rows(const int kind, const int R, const runs *u, const float *w, int n, int64_t at, int cols, float *to,
                       int64_t stride) {
  const int C = tile_vectors(R), size = kind == PANEL ? 4 : kv_size(kind);
  int e = 0;
  for (; e + C * VL <= cols; e += C * VL) value_tile(kind, R, C, u, w, n, at + e * size, to + e, stride);
  for (; C > 2 && e + 2 * VL <= cols; e += 2 * VL) value_tile(kind, R, 2, u, w, n, at + e * size, to + e, stride);
  for (; e < cols; e += VL) value_tile(kind, R, 1, u, w, n, at + e * size, to + e, stride);
}


#define FOR_ROWS(call, kind, ...)                                                                                      \
  switch (rows) {                                                                                                      \
    case 1: call(kind, 1, __VA_ARGS__); break;                                                                         \
    case 2: call(kind, 2, __VA_ARGS__); break;                                                                         \
    case 3: call(kind, 3, __VA_ARGS__); break;                                                                         \
    case 4: call(kind, 4, __VA_ARGS__); break;                                                                         \
    case 5: call(kind, MAX_ROWS > 4 ? 5 : 1, __VA_ARGS__); break;                                                          \
    case 6: call(kind, MAX_ROWS > 4 ? 6 : 1, __VA_ARGS__); break;                                                          \
  }
#define TILES_OF(name, kind)                                                                                           \
  static __attribute__((noinline)) void score_##name(int rows, const runs *u, const float *q, int dim, int n,          \
                                                     float *out) {                                                     \
    FOR_ROWS(score_rows, kind, u, q, dim, n, out)                                                                      \
  }                                                                                                                    \
  static __attribute__((noinline)) void value_##name(int rows, const runs *u, const float *w, int n, int64_t at,       \
                                                     int cols, float *to, int64_t stride) {                            \
    FOR_ROWS(value_rows, kind, u, w, n, at, cols, to, stride)                                                          \
  }
TILES_OF(panel, PANEL)
TILES_OF(f32, KN_F32)
TILES_OF(bf16, KN_BF16)
TILES_OF(f16, KN_F16)
TILES_OF(i8, KN_I8)

static void score(int kind, int rows, const runs *u, const float *q, int dim, int n, float *out) {
  switch (kind) {
    case PANEL: score_panel(rows, u, q, dim, n, out); break;
    case KN_F32: score_f32(rows, u, q, dim, n, out); break;
    case KN_BF16: score_bf16(rows, u, q, dim, n, out); break;
    case KN_F16: score_f16(rows, u, q, dim, n, out); break;
    case KN_I8: score_i8(rows, u, q, dim, n, out); break;
  }
}

static void value(int kind, int rows, const runs *u, const float *w, int n, int64_t at, int cols, float *to, int64_t stride) {
  switch (kind) {
    case PANEL: value_panel(rows, u, w, n, at, cols, to, stride); break;
    case KN_F32: value_f32(rows, u, w, n, at, cols, to, stride); break;
    case KN_BF16: value_bf16(rows, u, w, n, at, cols, to, stride); break;
    case KN_F16: value_f16(rows, u, w, n, at, cols, to, stride); break;
    case KN_I8: value_i8(rows, u, w, n, at, cols, to, stride); break;
  }
}

// head_at is the number of the tile's head in the block of position p, among all blocks' heads.
INLINE int64_t head_at(const attention_job *j, const part *t, int64_t p) {
  return (int64_t)j->b.blocks[t->seq * j->b.blocks_stride + p / j->c.block_size] * j->c.kv_heads + t->kv_head;
}

// find_runs sets where the positions from p0 on lie. Runs after the last position are those of the last, and masked later.
static void find_runs(const attention_job *j, const part *t, int is_v, int64_t p0, int64_t last, const char **at) {
  const int64_t bs = j->c.block_size, size = kv_size(j->c.dt);
  for (int i = 0; i < RUNS; i++) {
    int64_t p = lower(p0 + i * RUN, last - last % RUN), place = p % bs;
    const char *from = is_v ? j->c.v : j->c.k;
    at[i] = from + (head_at(j, t, p) * bs * (is_v ? j->vdim : j->dim) + place * (is_v ? j->vdim : 1)) * size;
  }
}

// to_half replaces the runs of FP8 by their float16.
static void to_half(const attention_job *j, runs *u, int rows, int is_v, int n, uint16_t *half) {
  const int dim = is_v ? j->vdim : j->dim, in_one = is_v || j->c.block_size == RUN;
  for (int i = 0; i < RUNS; i++) {
    if (i > 0 && i * RUN >= n) { // masked
      u->at[i] = u->at[i - 1];
      continue;
    }
    if (in_one)
      for (int at = 0; at < RUN * dim; at += 64) {
        if (rows <= DIRECT_ROWS) __builtin_prefetch(u->next[i] + at, 0, 2);
        fp8_to_f16(half + at, u->at[i] + at, RUN * dim - at < 64 ? RUN * dim - at : 64);
      }
    else
      for (int e = 0; e < dim; e++) fp8_to_f16(half + e * RUN, u->at[i] + e * u->step, RUN);
    u->at[i] = (const char *)half;
    half += RUN * dim;
  }
  u->kind = KN_F16;
  u->across = V_PANEL * 2;
  u->step = 2 * (is_v ? dim : RUN);
}

INLINE void widen_runs(const int kind, const runs *u, int is_v, int dim, int n, float *panel) {
  const int size = kv_size(kind);
  if (is_v) {
    for (int p = 0; p < n; p++) {
      const char *from = u->at[p / RUN] + p % RUN * u->step;
      float *to = panel + p * V_PANEL;
      for (int e0 = 0; e0 < dim; e0 += V_PANEL, from += V_PANEL * size, to += V_PANEL * V_CHUNK)
        for (int e = 0; e < V_PANEL && e0 + e < dim; e += VL) v_store(to + e, load_kv(kind, from + e * size));
    }
    return;
  }
  const char *at[] = {u->at[0], u->at[1], u->at[2], u->at[3]};
  for (int e = 0; e < dim; e++)
#pragma GCC unroll 4
    for (int i = 0; i < K_CHUNK / RUN; i++, panel += RUN)
      for (int c = 0; c < RUN; c += VL) v_store(panel + c, load_kv(kind, at[i] + e * u->step + c * size));
}

// to_panel replaces the runs by float32: keys [dim][64 positions], values [dim/64][128 positions][64].
static void to_panel(const attention_job *j, const part *t, runs *u, int is_v, int64_t p0, int n, float *panel) {
  const int64_t bs = j->c.block_size;
  const int dim = is_v ? j->vdim : j->dim, dt = j->c.dt;
  if (!j->whole) { // a block's part at a time
    const char *from = is_v ? j->c.v : j->c.k;
    for (int i = 0, run; i < n; i += run) {
      int64_t place = (p0 + i) % bs, at = head_at(j, t, p0 + i) * bs * dim;
      run = (int)lower(bs - place, n - i);
      for (int e = 0; !is_v && e < dim; e++) widen_kv(panel + e * K_CHUNK + i, dt, from + (at + e * bs + place) * kv_size(dt), run);
      for (int r = 0; is_v && r < run; r++)
        for (int e = 0; e < dim; e += V_PANEL)
          widen_kv(panel + e * V_CHUNK + (i + r) * V_PANEL, dt, from + (at + (place + r) * dim + e) * kv_size(dt),
                   dim - e < V_PANEL ? dim - e : V_PANEL);
    }
  } else if (u->kind == KN_BF16) {
    widen_runs(KN_BF16, u, is_v, dim, n, panel);
  } else if (u->kind == KN_F16) {
    widen_runs(KN_F16, u, is_v, dim, n, panel);
  } else {
    widen_runs(KN_I8, u, is_v, dim, n, panel);
  }
  u->kind = PANEL;
  u->across = V_PANEL * V_CHUNK * 4;
  u->step = 4 * (is_v ? V_PANEL : K_CHUNK);
  for (int i = 0; i < RUNS; i++) u->at[i] = (const char *)(panel + i * RUN * (is_v ? V_PANEL : 1));
}

// chunk_runs says where a tile finds n keys or values from p0 on; those that it takes next are from p1 on.
static runs chunk_runs(const attention_job *j, const part *t, const buffers *b, int rows, int is_v, int64_t p0, int n,
                       int64_t last, int next_is_v, int64_t p1) {
  const int size = kv_size(j->c.dt);
  runs u = {.kind = j->c.dt, .step = (int64_t)size * (is_v ? j->vdim : j->c.block_size), .across = V_PANEL * size};
  if (j->whole) {
    find_runs(j, t, is_v, p0, last, u.at);
    find_runs(j, t, next_is_v, p1, last, u.next);
    if (j->c.dt == KN_FP8) to_half(j, &u, rows, is_v, n, b->half);
  }
  if (!j->whole || (rows > DIRECT_ROWS && j->c.dt != KN_F32)) to_panel(j, t, &u, is_v, p0, n, b->panel);
  if (rows > DIRECT_ROWS) u.kind = PANEL;
  return u;
}

// rows_from returns how many rows the register tile at row r has: sizes as even as they can be.
INLINE int rows_from(int r, int rows) { return (rows - r) / (int)divide_up(rows - r, MAX_ROWS); }

enum { AT_ONCE = 4 }; // vectors of scores, so that one need not wait for another

// cap_scores bends n scores towards at most `cap` from either side. Scores and cap are in units of log 2.
static __attribute__((noinline)) void cap_scores(float *scores, int n, float cap) {
  const vf by = v_set1(1 / cap), to = v_set1(cap);
  for (int i = 0; i < n; i += VL) v_store(scores + i, v_mul(v_tanh(v_mul(v_load(scores + i), by)), to));
}

// add_bias adds to n scores, those of positions from p0 on, what belongs to their distances from a row's own.
static __attribute__((noinline)) void add_bias(const attention_job *j, const part *t, int row, int64_t p0, float *scores, int n) {
  const float *bias = j->how.bias + (t->kv_head * j->group + row % j->group) * j->how.bias_stride + p0 - position(j, t, row);
  const vf unit = v_set1(LOG2E);
  for (int i = 0; i < n; i += VL)
    v_store(scores + i, v_fma(load_part(bias + i, n - i < VL ? n - i : VL), unit, v_load(scores + i)));
}

// mask_scores makes the first n scores those of positions that are not seen.
static __attribute__((noinline)) void mask_scores(float *scores, int n) {
  for (int i = 0; i < n; i++) scores[i] = -INFINITY;
}

// weigh turns a row of scores into weights, the first n of them, with zeros up to `fill`, and sets the row's largest
// score and sum of weights.
INLINE void weigh(const int scaled, float *scores, int n, int fill, const buffers *b, float *state) {
  const vf least = v_set1(-INFINITY);
  vf most[AT_ONCE], sum[AT_ONCE];
#pragma GCC unroll 4
  for (int c = 0; c < AT_ONCE; c++) most[c] = least, sum[c] = v_zero();
  int end = n / VL * VL;
  if (end < n) v_store(scores + end, v_first(v_load(scores + end), n - end, least));
  for (end = n <= 0 ? 0 : (n + VL - 1) / VL * VL; end % (AT_ONCE * VL); end += VL) v_store(scores + end, least);
  for (int i = 0; i < end; i += AT_ONCE * VL)
#pragma GCC unroll 4
    for (int c = 0; c < AT_ONCE; c++) most[c] = v_max(most[c], v_load(scores + i + c * VL));
  state[0] = v_most(v_max(v_max(most[0], most[1]), v_max(most[2], most[3])));
  const vf shift = v_set1(state[0] > -INFINITY ? state[0] : 0);
  for (int i = 0; i < end; i += AT_ONCE * VL)
#pragma GCC unroll 4
    for (int c = 0; c < AT_ONCE; c++) {
      vf w = v_exp2(v_sub(v_load(scores + i + c * VL), shift));
      sum[c] = v_add(sum[c], w);
      if (scaled) w = v_mul(w, v_load(b->v_scales + i + c * VL));
      v_store(scores + i + c * VL, w);
    }
  state[1] = v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
  for (; end < fill; end += VL) v_store(scores + end, v_zero());
}

static void weigh_rows(const attention_job *j, const part *t, const buffers *b, int rows, int64_t p0, int n) {
  const int64_t state = state_floats(j);
  for (int r = 0, some; r < rows; r += some) {
    some = rows_from(r, rows);
    const int fill = (int)lower(n, seen(j, t, r + some - 1) - p0); // what the register tile multiplies
    for (int i = r; i < r + some; i++) {
      const int own = (int)lower(n, seen(j, t, i) - p0);
      float *scores = b->scores + i * SCORES;
      memset(b->now + i * state + 16, 0, (size_t)j->wide * 4);
      for (int p = 0; j->c.dt == KN_I8 && p < own; p += VL)
        v_store(scores + p, v_mul(v_load(scores + p), v_load(b->k_scales + p)));
      if (j->how.softcap > 0) cap_scores(scores, own, j->how.softcap);
      if (j->how.bias) add_bias(j, t, i, p0, scores, own);
      mask_scores(scores, (int)lower(own, unseen(j, t, i) - p0));
      if (j->c.dt == KN_I8)
        weigh(1, b->scores + i * SCORES, own, fill, b, b->now + i * state);
      else
        weigh(0, b->scores + i * SCORES, own, fill, b, b->now + i * state);
    }
  }
}

// load_scales copies the scales of n positions from p0 on, with ones up to the end of the split.
static void load_scales(const attention_job *j, const part *t, const buffers *b, int64_t p0, int n) {
  const int64_t bs = j->c.block_size;
  for (int i = 0, run; i < n; i += run) {
    int64_t place = (p0 + i) % bs, at = head_at(j, t, p0 + i) * bs + place;
    run = (int)lower(bs - place, n - i);
    memcpy(b->k_scales + i, j->c.k_scales + at, (size_t)run * 4);
    memcpy(b->v_scales + i, j->c.v_scales + at, (size_t)run * 4);
  }
  for (int i = n; i < SPLIT; i++) b->k_scales[i] = b->v_scales[i] = 1;
}

// fetch_next fetches what the tiles take next, a part with each register tile of `some` rows from row r on. For few rows
// that is done where a chunk is read.
static void fetch_next(const attention_job *j, const runs *u, int chunk, int r, int some, int rows) {
  if (rows <= DIRECT_ROWS || !j->whole) return;
  const int run = RUN * (chunk == V_CHUNK ? j->vdim : j->dim) * kv_size(j->c.dt), from = (int)((int64_t)run * r / rows) / 64 * 64;
  const int to = (int)((int64_t)run * (r + some) / rows);
  for (int i = 0; i < chunk / RUN; i++)
    for (int at = from; at < to; at += 64) __builtin_prefetch(u->next[i] + at, 0, 2);
}

// attend_split computes the states of the tile's rows over one split.
static void attend_split(const attention_job *j, const part *t, const buffers *b, int rows, int split) {
  const int64_t state = state_floats(j), all = seen(j, t, rows - 1), p0 = (int64_t)split * SPLIT;
  const int n = (int)lower(SPLIT, all - p0); // positions that some row sees, but for the first
  const int64_t skip = unseen(j, t, 0) - p0; // ones of them
  const int from_k = skip > 0 ? (int)skip / K_CHUNK * K_CHUNK : 0, from_v = skip > 0 ? (int)skip / V_CHUNK * V_CHUNK : 0;
  for (int at = from_k; at < n; at += K_CHUNK) {
    const int chunk = (int)lower(K_CHUNK, n - at), is_last = at + K_CHUNK >= n;
    runs u = chunk_runs(j, t, b, rows, 0, p0 + at, chunk, all - 1, is_last, is_last ? p0 + from_v : p0 + at + K_CHUNK);
    for (int r = 0, some; r < rows; r += some) {
      some = rows_from(r, rows);
      fetch_next(j, &u, K_CHUNK, r, some, rows);
      int64_t sees = lower(chunk, seen(j, t, r + some - 1) - p0 - at);
      if (sees > 0) score(u.kind, some, &u, b->q + r * j->dim, j->dim, (int)sees, b->scores + r * SCORES + at);
    }
  }
  if (j->c.dt == KN_I8) load_scales(j, t, b, p0, n);
  weigh_rows(j, t, b, rows, p0, n);
  for (int at = from_v; at < n; at += V_CHUNK) {
    const int chunk = (int)lower(V_CHUNK, n - at);
    runs u = chunk_runs(j, t, b, rows, 1, p0 + at, chunk, all - 1, at + V_CHUNK < n, p0 + at + V_CHUNK);
    for (int e = 0; e < j->vdim; e += V_PANEL)
      for (int r = 0, some; r < rows; r += some) {
        some = rows_from(r, rows);
        if (e == 0) fetch_next(j, &u, V_CHUNK, r, some, rows);
        int64_t sees = lower(chunk, seen(j, t, r + some - 1) - p0 - at);
        if (sees > 0)
          value(u.kind, some, &u, b->scores + r * SCORES + at, (int)sees, e / V_PANEL * u.across,
                (int)lower(V_PANEL, j->wide - e), b->now + r * state + 16 + e, state);
      }
  }
}

// merge adds a split's state to that of the splits before it.
static void merge(float *all, const float *now, int wide) {
  float m = now[0] > all[0] ? now[0] : all[0], shift = m > -INFINITY ? m : 0;
  vf a = v_exp2(v_set1(all[0] - shift)), b = v_exp2(v_set1(now[0] - shift));
  float fa[VL], fb[VL];
  v_store(fa, a);
  v_store(fb, b);
  all[0] = m;
  all[1] = all[1] * fa[0] + now[1] * fb[0];
  for (int i = 0; i < wide; i += VL)
    v_store(all + 16 + i, v_fma(v_load(now + 16 + i), b, v_mul(v_load(all + 16 + i), a)));
}

static void clear(float *state, int wide) {
  memset(state, 0, (size_t)(16 + wide) * 4);
  state[0] = -INFINITY;
}

// finish writes one head of one query. Adding zero makes -0 plain 0, which positions of weight zero might have left.
static void finish(const attention_job *j, const part *t, int row, float *state) {
  int64_t r = j->b.starts[t->seq] + t->q0 + row / j->group;
  const int64_t head = t->kv_head * j->group + row % j->group, col = head * j->vdim;
  float part = 1, sum = state[1];
  if (j->how.sinks) {
    const float sink = j->how.sinks[head] * LOG2E, most = sink > state[0] ? sink : state[0];
    part = exp2f(state[0] - most);
    sum = sum * part + exp2f(sink - most);
  }
  const vf inv = v_set1(j->out_scale * part / sum);
  for (int i = 0; i < j->wide; i += VL)
    v_store(state + 16 + i, v_add(v_mul(v_load(state + 16 + i), inv), v_zero()));
  narrow((char *)j->out.p + (r * j->out.stride + col) * (j->out.dt == KN_F32 ? 4 : 2), j->out.dt, state + 16, j->vdim);
}

static void load_queries(const attention_job *j, const part *t, float *to) {
  const vf scale = v_set1(j->q_scale);
  for (int r = 0; r < t->queries * j->group; r++) {
    int64_t row = j->b.starts[t->seq] + t->q0 + r / j->group;
    const float *q = (const float *)j->q.p + row * j->q.stride + (t->kv_head * j->group + r % j->group) * j->dim;
    for (int i = 0; i < j->dim; i += VL) {
      int n = j->dim - i < VL ? j->dim - i : VL;
      store_part(to + (int64_t)r * j->dim + i, v_mul(load_part(q + i, n), scale), n);
    }
  }
}

static void attention_chunk(void *ctx, int64_t chunk, int worker) {
  const attention_job *j = ctx;
  const part *t = &j->parts[chunk];
  const int rows = t->queries * j->group;
  const int64_t state = state_floats(j);
  buffers b;
  cut_buffers(j, rows, kn_scratch(j->dev, worker), &b);
  load_queries(j, t, b.q);
  for (int r = 0; r < rows; r++) clear(b.all + r * state, j->wide);
  for (int s = 0; s < t->splits; s++) {
    attend_split(j, t, &b, rows, t->split + s);
    if (t->partial >= 0) {
      memcpy(j->partials + t->partial, b.now, (size_t)(rows * state) * 4);
      return; // shared tiles have parts of one split
    }
    for (int r = 0; r < rows; r++)
      if ((int64_t)(t->split + s) * SPLIT < seen(j, t, r))
        merge(b.all + r * state, b.now + r * state, j->wide);
  }
  for (int r = 0; r < rows; r++) finish(j, t, r, b.all + r * state);
}

// first_split is the first split of a tile that one of its rows sees.
INLINE int first_split(const attention_job *j, const part *t) { return (int)(unseen(j, t, 0) / SPLIT); }

// merge_chunk merges the splits of a shared tile; its first part stands for it.
static void merge_chunk(void *ctx, int64_t chunk, int worker) {
  const attention_job *j = ctx;
  const part *t = &j->parts[chunk];
  const int from = first_split(j, t);
  if (t->partial < 0 || t->split != from) return;
  const int rows = t->queries * j->group;
  const int64_t state = state_floats(j), splits = divide_up(seen(j, t, rows - 1), SPLIT);
  float *all = kn_scratch(j->dev, worker);
  for (int r = 0; r < rows; r++) {
    clear(all, j->wide);
    for (int64_t s = from; s < splits && s * SPLIT < seen(j, t, r); s++)
      merge(all, j->partials + t->partial + ((s - from) * rows + r) * state, j->wide);
    finish(j, t, r, all);
  }
}

// tile_parts writes the parts of one tile from out on (NULL: only counts them) and returns how many they are.
static int64_t tile_parts(const attention_job *j, part t, int shared, int64_t *floats, part *out) {
  t.split = first_split(j, &t);
  t.splits = (int)divide_up(seen(j, &t, t.queries * j->group - 1), SPLIT) - t.split;
  t.partial = -1;
  if (!shared || t.splits == 1) {
    if (out) *out = t;
    return 1;
  }
  int64_t n = t.splits;
  t.splits = 1;
  for (int s = 0; s < n; s++, t.split++) {
    t.partial = *floats;
    *floats += t.queries * j->group * state_floats(j);
    if (out) out[s] = t;
  }
  return n;
}

// make_parts makes the parts of all sequences. Those of long ones come first, so that no worker is left with one at the end.
static int64_t make_parts(const attention_job *j, int per_tile, int shared, int64_t *floats, part *out) {
  int64_t n = 0;
  *floats = 0;
  for (int s = 0; s < j->b.seqs; s++) {
    int queries = j->b.starts[s + 1] - j->b.starts[s];
    for (int tile = (int)divide_up(queries, per_tile) - 1; tile >= 0; tile--)
      for (int h = 0; h < j->c.kv_heads; h++) {
        const int q0 = tile * per_tile;
        part t = {.seq = s, .kv_head = h, .q0 = q0, .queries = (int)lower(per_tile, queries - q0)};
        n += tile_parts(j, t, shared, floats, out ? out + n : NULL);
      }
  }
  return n;
}

static int attention(kn_dev *d, kn_tensor out, kn_tensor q, kn_cache c, kn_batch b, int heads, kn_attend how) {
  const int dim = c.head_dim, vdim = c.value_dim, group = heads / c.kv_heads;
  const float unit = c.dt == KN_FP8 ? FP8_SCALE : 1;
  attention_job j = {.dev = d, .out = out, .q = q, .c = c, .b = b, .how = how, .group = group, .dim = dim,
                     .vdim = vdim, .wide = (int)divide_up(vdim, VL) * VL,
                     .whole = c.block_size % RUN == 0 && dim % VL == 0 && vdim % VL == 0,
                     .q_scale = how.scale * LOG2E * unit, .out_scale = unit};
  j.how.softcap *= LOG2E;
  const int per_tile = group >= TILE_ROWS ? 1 : TILE_ROWS / group;
  int64_t floats, tiles = make_parts(&j, per_tile, 0, &floats, NULL), n = tiles;
  int shared = kn_threads(d) > 1 && tiles < 4 * kn_threads(d);
  if (shared) {
    n = make_parts(&j, per_tile, 1, &floats, NULL);
    if (floats > 16 << 20) shared = 0, n = tiles; // 64 MiB of partial results is too much
  }
  if (!shared) floats = 0;
  size_t part_bytes = ((size_t)n * sizeof(part) + 63) & ~(size_t)63;
  buffers sizes;
  if (kn_reserve(d, cut_buffers(&j, per_tile * group, NULL, &sizes) * 4)) return KN_NOMEM;
  if (kn_reserve_shared(d, part_bytes + (size_t)floats * 4)) return KN_NOMEM;
  part *parts = kn_scratch(d, KN_SHARED);
  make_parts(&j, per_tile, shared, &floats, parts);
  j.parts = parts;
  j.partials = (float *)((char *)parts + part_bytes);
  int64_t work = 0; // multiply-adds, a few for each byte that would count
  for (int64_t i = 0; i < n; i++) {
    const int rows = parts[i].queries * group;
    int64_t sees = seen(&j, &parts[i], rows - 1) - (int64_t)parts[i].split * SPLIT;
    work += lower(sees, (int64_t)parts[i].splits * SPLIT) * ((dim + vdim) / 2) * (4 + rows / 4);
  }
  run_if_big(d, work, attention_chunk, &j, n);
  if (shared) run_if_big(d, work / 16, merge_chunk, &j, n);
  return KN_OK;
}

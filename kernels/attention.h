// Attention over the blocks of the cache, with the online softmax.
//
// Positions are taken in chunks of 64 and splits of 512, both counted from position 0. Within a split the sums run
// chunk by chunk; splits are merged in order. Whether one worker goes through all splits of a query or several share
// them is a matter of how busy the device is, and changes no bit, because the arithmetic of a split and of a merge is
// the same either way. For many rows a chunk's keys and values are widened to packed panels, so that both products are
// those of matmul.h, shared by the queries of a tile and the heads of a group. For few rows, as in decode, they are
// taken straight from the blocks, by the same chains of multiply-adds: what counts then is reading the cache once.
enum { CHUNK = KN_PANEL, SPLIT = 512, TILE_ROWS = 64, RUN = 16, RUNS = CHUNK / RUN, DIRECT_ROWS = 2 * MAX_ROWS };

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
  int heads, group, dim, wide; // wide: dim rounded up to whole panels
  float scale;
  const part *parts;
  float *partials; // [rows][splits] states
} attention_job;

// state of a row: the largest score, the sum of weights, the weighted sum of values.
INLINE int64_t state_floats(const attention_job *j) { return 16 + j->wide; } // 16: m and l, and alignment

typedef struct {
  float *q, *k, *v, *scores, *now, *all; // now: states of this split; all: merged ones
} buffers;

static size_t buffer_floats(const attention_job *j, int rows) {
  return (size_t)rows * j->dim + CHUNK * j->dim + CHUNK * j->wide + rows * CHUNK + 2 * rows * state_floats(j) + 6 * 16;
}

static buffers buffers_at(const attention_job *j, float *p, int rows) {
  buffers b;
  size_t sizes[6] = {(size_t)rows * j->dim, (size_t)CHUNK * j->dim, (size_t)CHUNK * j->wide, (size_t)rows * CHUNK,
                     (size_t)rows * state_floats(j), (size_t)rows * state_floats(j)};
  float **to[6] = {&b.q, &b.k, &b.v, &b.scores, &b.now, &b.all};
  for (int i = 0; i < 6; i++) {
    *to[i] = p;
    p += (sizes[i] + 15) & ~(size_t)15;
  }
  return b;
}

INLINE void widen_run(float *to, const void *from, int dt, int64_t at, int n) {
  int i = 0;
  if (dt == KN_F32) {
    memcpy(to, (const float *)from + at, (size_t)n * 4);
    return;
  }
  const uint16_t *h = (const uint16_t *)from + at;
  for (; i + VL <= n; i += VL) v_store(to + i, v_bf16(h + i));
  for (; i < n; i++) {
    uint32_t u = (uint32_t)h[i] << 16;
    memcpy(to + i, &u, 4);
  }
}

// load_chunk widens n positions from p0 on: keys to k[dim][64], values to v[wide/64][64 positions][64].
static void load_chunk(const attention_job *j, const buffers *b, const part *t, int64_t p0, int n) {
  const kn_cache *c = &j->c;
  const int32_t *blocks = j->b.blocks + t->seq * j->b.blocks_stride;
  const int bs = c->block_size, dim = j->dim;
  for (int i = 0; i < n;) {
    int64_t place = (p0 + i) % bs, head = (int64_t)blocks[(p0 + i) / bs] * c->kv_heads + t->kv_head;
    int run = (int)lower(bs - place, n - i);
    int64_t at = head * dim * bs + place;
    if (run == 16) { // the usual block, and a constant for the compiler
      for (int e = 0; e < dim; e++) widen_run(b->k + e * CHUNK + i, c->k, c->dt, at + (int64_t)e * bs, 16);
    } else {
      for (int e = 0; e < dim; e++) widen_run(b->k + e * CHUNK + i, c->k, c->dt, at + (int64_t)e * bs, run);
    }
    for (int r = 0; r < run; r++)
      for (int e = 0; e < dim; e += KN_PANEL)
        widen_run(b->v + e * CHUNK + (i + r) * KN_PANEL, c->v, c->dt, (head * bs + place + r) * dim + e,
                  (int)lower(KN_PANEL, dim - e));
    i += run;
  }
}

// weigh turns a row of scores into weights, the first n of them, and brings its state to the new largest score.
static void weigh(float *scores, int n, float *state, int wide) {
  const vf least = v_set1(-INFINITY);
  vf s[CHUNK / VL], most = least;
  for (int i = 0; i < CHUNK / VL; i++) {
    int left = n - i * VL;
    s[i] = left <= 0 ? least : left < VL ? v_first(v_load(scores + i * VL), left, least) : v_load(scores + i * VL);
    most = v_max(most, s[i]);
  }
  float m0 = state[0], m = v_most(most);
  if (!(m > m0)) m = m0;
  state[0] = m;
  const vf shift = v_set1(m == -INFINITY ? 0 : m);
  if (m > m0) { // else the state is to be multiplied by exp(0), which is 1 exactly
    const vf fade = v_exp(v_sub(v_set1(m0), shift));
    float f[VL];
    v_store(f, fade);
    state[1] *= f[0];
    for (int i = 0; i < wide; i += VL) v_store(state + 16 + i, v_mul(v_load(state + 16 + i), fade));
  }
  vf w[CHUNK / VL], sum = v_zero();
  for (int i = 0; i < CHUNK / VL; i++) w[i] = v_exp(v_sub(s[i], shift));
  for (int i = 0; i < CHUNK / VL; i++) {
    v_store(scores + i * VL, w[i]);
    sum = v_add(sum, w[i]);
  }
  state[1] += v_sum(sum);
}

// merge adds a split's state to that of the splits before it.
static void merge(float *all, const float *now, int wide) {
  float m = now[0] > all[0] ? now[0] : all[0], shift = m == -INFINITY ? 0 : m;
  vf a = v_exp(v_set1(all[0] - shift)), b = v_exp(v_set1(now[0] - shift));
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

// finish writes one head of one query. Adding zero makes -0 plain 0, which masked positions might have left.
static void finish(const attention_job *j, const part *t, int row, float *state) {
  int64_t r = j->b.starts[t->seq] + t->q0 + row / j->group;
  int64_t col = (int64_t)(t->kv_head * j->group + row % j->group) * j->dim;
  const vf inv = v_set1(1.0f / state[1]);
  for (int i = 0; i < j->wide; i += VL)
    v_store(state + 16 + i, v_add(v_mul(v_load(state + 16 + i), inv), v_zero()));
  narrow((char *)j->out.p + (r * j->out.stride + col) * (j->out.dt == KN_F32 ? 4 : 2), j->out.dt, state + 16, j->dim);
}

// position of the tile's query in its sequence.
INLINE int64_t position(const attention_job *j, const part *t, int query) {
  int64_t queries = j->b.starts[t->seq + 1] - j->b.starts[t->seq];
  return j->b.lens[t->seq] - queries + t->q0 + query;
}

// runs are a chunk's keys and values where they lie, 16 positions each, and those of the chunk after it, to prefetch.
typedef struct {
  const char *k[RUNS], *v[RUNS], *next_k[RUNS], *next_v[RUNS];
  int64_t k_step, v_step; // bytes from one element of the keys to the next, from one position's values to the next
} runs;

INLINE vf load_kv(int dt, const char *p) { return dt == KN_F32 ? v_load((const float *)p) : v_bf16((const uint16_t *)p); }

// score_tile computes R rows of scores for C vectors of positions from position `first` of the chunk on.
INLINE void score_tile(const int dt, const int R, const int C, const runs *u, const float *q, int dim, int first, float *out) {
  const int size = dt == KN_F32 ? 4 : 2;
  vf acc[MAX_ROWS][8], wv[8];
  const char *k[8], *next[8];
#pragma GCC unroll 8
  for (int c = 0; c < C; c++) {
    int at = first + c * VL;
    k[c] = u->k[at / RUN] + at % RUN * size;
    next[c] = u->next_k[at / RUN];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) acc[r][c] = v_zero();
  }
  int64_t off = 0;
  for (int e = 0; e < dim; e++, off += u->k_step) {
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) wv[c] = load_kv(dt, k[c] + off);
    if (dt == KN_F32 || e % 2 == 0)
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
    for (int c = 0; c < C; c++) v_store(out + r * CHUNK + first + c * VL, acc[r][c]);
}

// value_tile adds R rows of n weighted values, C vectors from byte `at` of a position's values on.
INLINE void value_tile(const int dt, const int R, const int C, const runs *u, const float *w, int n, int64_t at, float *to,
                       int64_t to_stride) {
  const int size = dt == KN_F32 ? 4 : 2;
  vf acc[MAX_ROWS][8], wv[8];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) acc[r][c] = v_load(to + r * to_stride + c * VL);
  for (int p0 = 0; p0 < n; p0 += RUN) {
    const char *v = u->v[p0 / RUN] + at, *next = u->next_v[p0 / RUN] + at;
    for (int p = p0; p < p0 + RUN && p < n; p++, v += u->v_step, next += u->v_step) {
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) wv[c] = load_kv(dt, v + c * VL * size);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++)
        if (c * VL * size % 64 == 0) __builtin_prefetch(next + c * VL * size, 0, 2);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf xv = v_set1(w[r * CHUNK + p]);
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

INLINE void score_rows(const int dt, const int R, const runs *u, const float *q, int dim, float *out) {
  const int C = tile_vectors(R);
  for (int first = 0; first < CHUNK; first += C * VL) score_tile(dt, R, C, u, q, dim, first, out);
}

INLINE void value_rows(const int dt, const int R, const runs *u, const float *w, int n, int dim, float *to, int64_t stride) {
  const int C = tile_vectors(R), size = dt == KN_F32 ? 4 : 2;
  int e = 0;
  for (; e + C * VL <= dim; e += C * VL) value_tile(dt, R, C, u, w, n, e * size, to + e, stride);
  for (; e + 2 * VL <= dim; e += 2 * VL) value_tile(dt, R, 2, u, w, n, e * size, to + e, stride);
  for (; e < dim; e += VL) value_tile(dt, R, 1, u, w, n, e * size, to + e, stride);
}

#define DIRECT(R)                                                                                                      \
  case R:                                                                                                              \
    if (dt == KN_F32)                                                                                                  \
      values ? value_rows(KN_F32, R, u, x, n, dim, out, stride) : score_rows(KN_F32, R, u, x, dim, out);               \
    else                                                                                                               \
      values ? value_rows(KN_BF16, R, u, x, n, dim, out, stride) : score_rows(KN_BF16, R, u, x, dim, out);             \
    break;

// direct computes a chunk's scores, or adds its values, for at most MAX_ROWS rows. x: the queries, or the weights.
static __attribute__((noinline)) void direct(int values, int dt, int rows, const runs *u, const float *x, int n, int dim,
                                             float *out, int64_t stride) {
  switch (rows) {
    DIRECT(1) DIRECT(2) DIRECT(3) DIRECT(4)
#if defined(KN_USE_AVX512) || defined(KN_USE_AVX2)
    DIRECT(5) DIRECT(6)
#endif
  }
}

// direct_rows computes any number of rows.
static void direct_rows(int values, int dt, int rows, const runs *u, const float *x, int n, int dim, float *out,
                        int64_t stride) {
  const int64_t x_stride = values ? CHUNK : dim;
  int tiles = (int)divide_up(rows, MAX_ROWS);
  for (int i = 0, r = 0; i < tiles; i++) {
    int some = (rows - r) / (tiles - i);
    direct(values, dt, some, u, x + r * x_stride, n, dim, out + r * stride, stride);
    r += some;
  }
}

// can_be_direct: runs of 16 positions, and vectors of values, are whole.
INLINE int can_be_direct(const attention_job *j, int rows) {
  return rows <= DIRECT_ROWS && j->c.block_size % RUN == 0 && j->dim % VL == 0;
}

// find_runs sets where the chunk at p0 lies. Runs after the last position are those of the last, and masked later.
static void find_runs(const attention_job *j, const part *t, int64_t p0, int64_t last, const char **k, const char **v) {
  const kn_cache *c = &j->c;
  const int32_t *blocks = j->b.blocks + t->seq * j->b.blocks_stride;
  const int64_t size = c->dt == KN_F32 ? 4 : 2;
  for (int i = 0; i < RUNS; i++) {
    int64_t p = lower(p0 + i * RUN, last - last % RUN), place = p % c->block_size;
    int64_t head = ((int64_t)blocks[p / c->block_size] * c->kv_heads + t->kv_head) * c->block_size * j->dim;
    k[i] = (const char *)c->k + (head + place) * size;
    v[i] = (const char *)c->v + (head + place * j->dim) * size;
  }
}

// attend_split computes the states of the tile's rows over one split.
static void attend_split(const attention_job *j, const part *t, const buffers *b, int rows, int split) {
  const int64_t state = state_floats(j), last = position(j, t, t->queries - 1);
  const int is_direct = can_be_direct(j, rows), size = j->c.dt == KN_F32 ? 4 : 2;
  runs u = {.k_step = (int64_t)j->c.block_size * size, .v_step = (int64_t)j->dim * size};
  for (int r = 0; r < rows; r++) clear(b->now + r * state, j->wide);
  for (int64_t p0 = (int64_t)split * SPLIT; p0 < lower((int64_t)(split + 1) * SPLIT, last + 1); p0 += CHUNK) {
    int n = (int)lower(CHUNK, last + 1 - p0); // positions that some row sees
    if (is_direct) {
      find_runs(j, t, p0, last, u.k, u.v);
      find_runs(j, t, p0 + CHUNK, last, u.next_k, u.next_v);
      direct_rows(0, j->c.dt, rows, &u, b->q, n, j->dim, b->scores, CHUNK);
    } else {
      load_chunk(j, b, t, p0, n);
      rows_by(KN_F32, rows, (span){.out = b->scores, .out_stride = CHUNK, .x = b->q, .x_stride = j->dim,
                                   .w = (const char *)b->k, .k = j->dim, .cols = CHUNK}, NULL, 0);
    }
    for (int r = 0; r < rows; r++) {
      int64_t sees = position(j, t, r / j->group) + 1 - p0;
      weigh(b->scores + r * CHUNK, sees < 0 ? 0 : (int)lower(sees, n), b->now + r * state, j->wide);
    }
    if (is_direct) {
      direct_rows(1, j->c.dt, rows, &u, b->scores, n, j->dim, b->now + 16, state);
      continue;
    }
    for (int e = 0; e < j->dim; e += KN_PANEL)
      rows_by(KN_F32, rows, (span){.out = b->now + 16 + e, .out_stride = state, .x = b->scores, .x_stride = CHUNK,
                                   .w = (const char *)(b->v + e * CHUNK), .k = n,
                                   .cols = (int)lower(KN_PANEL, j->dim - e), .chain = 1}, NULL, 0);
  }
}

static void load_queries(const attention_job *j, const part *t, float *to) {
  const vf scale = v_set1(j->scale);
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
  buffers b = buffers_at(j, kn_scratch(j->dev, worker), rows);
  load_queries(j, t, b.q);
  for (int r = 0; r < rows; r++) clear(b.all + r * state, j->wide);
  for (int s = 0; s < t->splits; s++) {
    attend_split(j, t, &b, rows, t->split + s);
    if (t->partial >= 0) {
      memcpy(j->partials + t->partial, b.now, (size_t)(rows * state) * 4);
      return; // shared tiles have parts of one split
    }
    for (int r = 0; r < rows; r++)
      if ((int64_t)(t->split + s) * SPLIT <= position(j, t, r / j->group))
        merge(b.all + r * state, b.now + r * state, j->wide);
  }
  for (int r = 0; r < rows; r++) finish(j, t, r, b.all + r * state);
}

// merge_chunk merges the splits of a shared tile; its first part stands for it.
static void merge_chunk(void *ctx, int64_t chunk, int worker) {
  const attention_job *j = ctx;
  const part *t = &j->parts[chunk];
  if (t->partial < 0 || t->split != 0) return;
  const int rows = t->queries * j->group;
  const int64_t state = state_floats(j), splits = position(j, t, t->queries - 1) / SPLIT + 1;
  float *all = kn_scratch(j->dev, worker);
  for (int r = 0; r < rows; r++) {
    clear(all, j->wide);
    for (int64_t s = 0; s < splits && s * SPLIT <= position(j, t, r / j->group); s++)
      merge(all, j->partials + t->partial + (s * rows + r) * state, j->wide);
    finish(j, t, r, all);
  }
}

// tile_parts writes the parts of one tile from out on (NULL: only counts them) and returns how many they are.
static int64_t tile_parts(const attention_job *j, part t, int shared, int64_t *floats, part *out) {
  t.splits = (int)(position(j, &t, t.queries - 1) / SPLIT) + 1;
  t.partial = -1;
  if (!shared || t.splits == 1) {
    if (out) *out = t;
    return 1;
  }
  int64_t n = t.splits;
  t.splits = 1;
  for (int s = 0; s < n; s++) {
    t.split = s;
    t.partial = *floats;
    *floats += t.queries * j->group * state_floats(j);
    if (out) out[s] = t;
  }
  return n;
}

static int64_t make_parts(const attention_job *j, int per_tile, int shared, int64_t *floats, part *out) {
  int64_t n = 0;
  *floats = 0;
  for (int s = 0; s < j->b.seqs; s++) {
    int queries = j->b.starts[s + 1] - j->b.starts[s];
    for (int q0 = 0; q0 < queries; q0 += per_tile)
      for (int h = 0; h < j->c.kv_heads; h++) {
        part t = {.seq = s, .kv_head = h, .q0 = q0, .queries = (int)lower(per_tile, queries - q0)};
        n += tile_parts(j, t, shared, floats, out ? out + n : NULL);
      }
  }
  return n;
}

static int attention(kn_dev *d, kn_tensor out, kn_tensor q, kn_cache c, kn_batch b, int heads, float scale) {
  const int dim = c.head_dim, group = heads / c.kv_heads;
  attention_job j = {.dev = d, .out = out, .q = q, .c = c, .b = b, .heads = heads, .group = group, .dim = dim,
                     .wide = (int)divide_up(dim, KN_PANEL) * KN_PANEL, .scale = scale};
  const int per_tile = group >= TILE_ROWS ? 1 : TILE_ROWS / group;
  int64_t floats, tiles = make_parts(&j, per_tile, 0, &floats, NULL), n = tiles;
  int shared = kn_threads(d) > 1 && tiles < 4 * kn_threads(d);
  if (shared) {
    n = make_parts(&j, per_tile, 1, &floats, NULL);
    if (floats > 16 << 20) shared = 0, n = tiles; // 64 MiB of partial results is too much
  }
  if (!shared) floats = 0;
  size_t part_bytes = ((size_t)n * sizeof(part) + 63) & ~(size_t)63;
  if (kn_reserve(d, buffer_floats(&j, per_tile * group) * 4)) return KN_NOMEM;
  if (kn_reserve_shared(d, part_bytes + (size_t)floats * 4)) return KN_NOMEM;
  part *parts = kn_scratch(d, KN_SHARED);
  make_parts(&j, per_tile, shared, &floats, parts);
  j.parts = parts;
  j.partials = (float *)((char *)parts + part_bytes);
  int64_t work = 0; // multiply-adds, a few for each byte that would count
  for (int64_t i = 0; i < n; i++) {
    int64_t sees = position(&j, &parts[i], parts[i].queries - 1) + 1 - (int64_t)parts[i].split * SPLIT;
    work += lower(sees, (int64_t)parts[i].splits * SPLIT) * dim * (4 + parts[i].queries * group / 4);
  }
  run_if_big(d, work, attention_chunk, &j, n);
  if (shared) run_if_big(d, work / 16, merge_chunk, &j, n);
  return KN_OK;
}

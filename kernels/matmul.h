// Products with dense weights. The tiles are in tiles.h.

typedef struct {
  kn_tensor x;
  float *to;
} widen_job;

static void widen_chunk(void *ctx, int64_t r, int worker) {
  (void)worker;
  const widen_job *j = ctx;
  const uint16_t *x = (const uint16_t *)j->x.p + r * j->x.stride;
  float *to = j->to + r * j->x.cols;
  int64_t i = 0;
  for (; i + VL <= j->x.cols; i += VL) v_store(to + i, v_bf16(x + i));
  for (; i < j->x.cols; i++) {
    uint32_t u = (uint32_t)x[i] << 16;
    memcpy(to + i, &u, 4);
  }
}

// run_if_big spreads chunks over the workers if work (bytes moved, roughly) is worth waking them.
static void run_if_big(kn_dev *d, int64_t work, kn_fn fn, void *ctx, int64_t chunks) {
  if (work >= 128 << 10) {
    kn_run(d, fn, ctx, chunks);
    return;
  }
  for (int64_t i = 0; i < chunks; i++) fn(ctx, i, 0);
}

// inputs sets x as the kind wants it: BF16 for DOT, else float32, widened to the shared scratch from byte used on.
static void inputs(kn_dev *d, int kind, kn_tensor *x, size_t used) {
  if (kind == DOT || x->dt == KN_F32) return;
  widen_job j = {*x, NULL};
  j.to = (float *)((char *)kn_scratch(d, KN_SHARED) + used);
  run_if_big(d, (int64_t)x->rows * x->cols * 6, widen_chunk, &j, x->rows);
  x->p = j.to;
  x->stride = x->cols;
  x->dt = KN_F32;
}

INLINE int kind_of(int x_dt, int w_dt) {
#if defined(KN_USE_DOT)
  if (x_dt == KN_BF16 && w_dt == KN_BF16) return DOT;
#endif
  (void)x_dt;
  return w_dt;
}

typedef struct {
  int64_t panels, group;     // panels in all and per chunk
  int64_t row_blocks, block; // likewise for rows; chunks with the same panels follow one another
  int64_t chunks, cost;
} work_split;

// split_work makes chunks that are worth a few microseconds, several per worker.
static work_split split_work(kn_dev *d, kn_matrix m, int64_t rows) {
  work_split w = {.panels = divide_up(m.n, KN_PANEL)};
  int64_t cost = panel_bytes(m) * (1 + rows / 4), many = 8 * kn_threads(d);
  w.group = cost >= 64 << 10 ? 1 : lower((64 << 10) / (cost + 1) + 1, w.panels);
  int64_t groups = divide_up(w.panels, w.group);
  w.row_blocks = groups >= many ? 1 : lower(divide_up(many, groups), divide_up(rows, 16 * MAX_ROWS));
  w.block = divide_up(rows, w.row_blocks);
  w.block = divide_up(w.block, MAX_ROWS) * MAX_ROWS;
  w.row_blocks = divide_up(rows, w.block);
  w.chunks = groups * w.row_blocks;
  w.cost = cost * w.panels;
  return w;
}

typedef struct {
  kn_dev *dev;
  kn_tensor out, x;
  kn_matrix m;
  int kind;
  work_split split;
} matmul_job;

static void matmul_chunk(void *ctx, int64_t chunk, int worker) {
  const matmul_job *j = ctx;
  const work_split *w = &j->split;
  int64_t first = chunk / w->row_blocks * w->group, r0 = chunk % w->row_blocks * w->block;
  int64_t rows = lower(w->block, j->x.rows - r0);
  float *scratch = kn_scratch(j->dev, worker);
  for (int64_t p = first; p < lower(first + w->group, w->panels); p++) {
    span s = {
        .out = (float *)j->out.p + r0 * j->out.stride + p * KN_PANEL,
        .out_stride = j->out.stride,
        .x = (const char *)j->x.p + r0 * j->x.stride * (j->x.dt == KN_F32 ? 4 : 2),
        .x_stride = j->x.stride,
        .w = panel_at(j->m, p, (char *)scratch + LARGE_PIECE),
        .k = j->m.k,
        .cols = (int)lower(KN_PANEL, j->m.n - p * KN_PANEL),
    };
    panel_rows(j->kind, rows, s, scratch);
  }
}

static int dense_matmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m) {
  matmul_job j = {.dev = d, .out = out, .m = m, .kind = kind_of(x.dt, m.dt), .split = split_work(d, m, x.rows)};
  if (kn_reserve(d, LARGE_PIECE + (m.parts ? panel_bytes(m) : 0))) return KN_NOMEM;
  if (x.dt != KN_F32 && kn_reserve_shared(d, (size_t)x.rows * x.cols * 4)) return KN_NOMEM;
  inputs(d, j.kind, &x, 0);
  j.x = x;
  run_if_big(d, j.split.cost, matmul_chunk, &j, j.split.chunks);
  return KN_OK;
}

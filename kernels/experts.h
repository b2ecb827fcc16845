// Products of rows with one matrix of several, each with its own run of rows, and the sum of what they gave for a token.

typedef struct {
  kn_dev *dev;
  kn_tensor out;
  kn_tensor x;    // of dense weights
  quantize_job q; // of quantized ones
  const kn_group *groups;
  int64_t n;
  int kind;
} groups_job;

// rows_at is the part of t from a row on.
static kn_tensor rows_at(kn_tensor t, int64_t row, int64_t rows) {
  t.p = (char *)t.p + row * t.stride * (t.dt == KN_F32 ? 4 : 2);
  t.rows = (int32_t)rows;
  return t;
}

static work_split split_of(const kn_group *g) {
  return (work_split){.panels = divide_up(g->m.n, KN_PANEL), .group = g->panels, .row_blocks = g->row_blocks, .block = g->block};
}

// group_of finds the group that a chunk belongs to.
static const kn_group *group_of(const groups_job *j, int64_t chunk) {
  int64_t i = 0;
  while (i + 1 < j->n && j->groups[i + 1].first <= chunk) i++;
  return &j->groups[i];
}

static void dense_group_chunk(void *ctx, int64_t chunk, int worker) {
  const groups_job *j = ctx;
  const kn_group *g = group_of(j, chunk);
  matmul_job one = {.dev = j->dev, .out = rows_at(j->out, g->row, g->rows), .x = rows_at(j->x, g->row, g->rows), .m = g->m,
                    .kind = j->kind, .split = split_of(g)};
  matmul_chunk(&one, chunk - g->first, worker);
}

static void quantized_group_chunk(void *ctx, int64_t chunk, int worker) {
  const groups_job *j = ctx;
  const kn_group *g = group_of(j, chunk);
  qmatmul_job one = {.dev = j->dev, .out = rows_at(j->out, g->row, g->rows), .m = g->m, .x = j->q, .split = split_of(g)};
  one.x.q += g->row * j->q.k;
  one.x.scales += g->row * j->q.groups;
  one.x.start += g->row * j->q.groups;
  qmatmul_chunk(&one, chunk - g->first, worker);
}

// matmul_groups computes the products of n groups of rows, whose matrices are of one kind.
static int matmul_groups(kn_dev *d, kn_tensor out, kn_tensor x, kn_group *groups, int64_t n) {
  groups_job j = {.dev = d, .out = out, .groups = groups, .n = n};
  int64_t chunks = 0, cost = 0, mapped = 0;
  for (int64_t i = 0; i < n; i++) {
    kn_group *g = &groups[i];
    work_split w = split_work(d, g->m, g->rows);
    g->panels = w.group;
    g->row_blocks = w.row_blocks;
    g->block = w.block;
    g->first = chunks;
    chunks += w.chunks;
    cost += w.cost;
    if (g->m.parts && panel_bytes(g->m) > mapped) mapped = panel_bytes(g->m);
  }
  const kn_matrix m = groups[0].m;
  if (m.dt == KN_W8 || m.dt == KN_W4) {
    if (quantize_rows(d, x, m, &j.q)) return KN_NOMEM;
    run_if_big(d, cost, quantized_group_chunk, &j, chunks);
    return KN_OK;
  }
  j.kind = kind_of(x.dt, m.dt);
  if (kn_reserve(d, LARGE_PIECE + (size_t)mapped)) return KN_NOMEM;
  if (x.dt != KN_F32 && kn_reserve_shared(d, (size_t)x.rows * x.cols * 4)) return KN_NOMEM;
  inputs(d, j.kind, &x, 0);
  j.x = x;
  run_if_big(d, cost, dense_group_chunk, &j, chunks);
  return KN_OK;
}

typedef struct {
  kn_tensor out, x, weights;
  const int32_t *places;
  int64_t places_stride;
} combine_job;

static void combine_chunk(void *ctx, int64_t t, int worker) {
  (void)worker;
  const combine_job *j = ctx;
  const float *w = (const float *)j->weights.p + t * j->weights.stride;
  float *out = (float *)j->out.p + t * j->out.stride;
  for (int i = 0; i < j->out.cols; i += VL) {
    const int part = j->out.cols - i < VL ? j->out.cols - i : VL;
    vf sum = v_zero();
    for (int k = 0; k < j->weights.cols; k++) {
      const float *x = (const float *)j->x.p + (int64_t)j->places[t * j->places_stride + k] * j->x.stride;
      sum = v_fma(v_set1(w[k]), load_part(x + i, part), sum);
    }
    store_part(out + i, sum, part);
  }
}

static int combine(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor places, kn_tensor weights) {
  combine_job j = {.out = out, .x = x, .weights = weights, .places = places.p, .places_stride = places.stride};
  run_if_big(d, (int64_t)out.rows * out.cols * weights.cols * 4, combine_chunk, &j, out.rows);
  return KN_OK;
}

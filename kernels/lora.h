// LoRA over all runs of a batch: first the products with A, small and float32, in the shared scratch; then those with
// B, added to out.

typedef struct {
  kn_tensor out, x, wide; // wide: x as float32, where a run needs it
  kn_run_lora *runs;
  int64_t n;
  kn_dev *dev;
  float *low;
} lora_job;

enum { LORA_ROWS = 64 }; // rows of B's product computed at a time

INLINE int64_t panels_of(kn_matrix m) { return divide_up(m.n, KN_PANEL); }

static void lora_a_chunk(void *ctx, int64_t chunk, int worker) {
  const lora_job *j = ctx;
  int64_t i = 0;
  while (i + 1 < j->n && j->runs[i + 1].first_a <= chunk) i++;
  const kn_run_lora *r = &j->runs[i];
  const int kind = kind_of(j->x.dt, r->a.dt);
  const kn_tensor x = kind == DOT ? j->x : j->wide;
  int64_t p = chunk - r->first_a;
  span s = {
      .out = j->low + r->low + p * KN_PANEL,
      .out_stride = r->a.n,
      .x = (const char *)x.p + r->start * x.stride * (x.dt == KN_F32 ? 4 : 2),
      .x_stride = x.stride,
      .w = (const char *)r->a.p + p * panel_bytes(r->a),
      .k = r->a.k,
      .cols = (int)lower(KN_PANEL, r->a.n - p * KN_PANEL),
  };
  panel_rows(kind, r->len, s, kn_scratch(j->dev, worker));
}

static void lora_b_chunk(void *ctx, int64_t chunk, int worker) {
  const lora_job *j = ctx;
  int64_t i = 0;
  while (i + 1 < j->n && j->runs[i + 1].first_b <= chunk) i++;
  const kn_run_lora *r = &j->runs[i];
  int64_t p = chunk - r->first_b;
  int cols = (int)lower(KN_PANEL, r->b.n - p * KN_PANEL);
  float *y = kn_scratch(j->dev, worker), *piece = y + LORA_ROWS * KN_PANEL;
  const vf scale = v_set1(r->scale);
  for (int64_t t0 = 0; t0 < r->len; t0 += LORA_ROWS) {
    int64_t rows = lower(LORA_ROWS, r->len - t0);
    span s = {
        .out = y,
        .out_stride = KN_PANEL,
        .x = j->low + r->low + t0 * r->a.n,
        .x_stride = r->a.n,
        .w = (const char *)r->b.p + p * panel_bytes(r->b),
        .k = r->b.k,
        .cols = cols,
    };
    panel_rows(r->b.dt, rows, s, piece);
    for (int64_t t = 0; t < rows; t++) {
      float *o = (float *)j->out.p + (r->start + t0 + t) * j->out.stride + p * KN_PANEL;
      for (int c = 0; c < cols; c += VL) {
        int part = cols - c < VL ? cols - c : VL;
        store_part(o + c, v_fma(scale, load_part(y + t * KN_PANEL + c, part), load_part(o + c, part)), part);
      }
    }
  }
}

static int lora(kn_dev *d, kn_tensor out, kn_tensor x, kn_run_lora *runs, int64_t n) {
  lora_job j = {.out = out, .runs = runs, .n = n, .dev = d};
  int64_t low = 0, a = 0, b = 0, work_a = 0, work_b = 0;
  int widen = 0;
  for (int64_t i = 0; i < n; i++) {
    kn_run_lora *r = &runs[i];
    r->low = low;
    r->first_a = a;
    r->first_b = b;
    low += r->len * r->a.n;
    a += r->len ? panels_of(r->a) : 0;
    b += r->len ? panels_of(r->b) : 0;
    work_a += r->len ? panels_of(r->a) * panel_bytes(r->a) * (1 + r->len / 4) : 0;
    work_b += r->len ? panels_of(r->b) * panel_bytes(r->b) * (1 + r->len / 4) : 0;
    widen |= x.dt == KN_BF16 && kind_of(x.dt, r->a.dt) != DOT;
  }
  size_t low_bytes = ((size_t)low * 4 + 63) & ~(size_t)63;
  if (kn_reserve(d, LORA_ROWS * KN_PANEL * 4 + LARGE_PIECE)) return KN_NOMEM;
  if (kn_reserve_shared(d, low_bytes + (widen ? (size_t)x.rows * x.cols * 4 : 0))) return KN_NOMEM;
  j.low = kn_scratch(d, KN_SHARED);
  j.x = j.wide = x;
  if (widen) inputs(d, KN_F32, &j.wide, low_bytes);
  run_if_big(d, work_a, lora_a_chunk, &j, a);
  run_if_big(d, work_b, lora_b_chunk, &j, b);
  return KN_OK;
}

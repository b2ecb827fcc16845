// Norms, one row (or head) at a time: the sum of squares has one order whatever the batch.

// norm writes x/rms(x)*w to out (out_dt) at o; o may be x.
static void norm(void *o, int out_dt, const float *x, const float *w, int n, float eps) {
  vf s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
  int i = 0;
  for (; i + 4 * VL <= n; i += 4 * VL) {
    vf a = v_load(x + i), b = v_load(x + i + VL), c = v_load(x + i + 2 * VL), e = v_load(x + i + 3 * VL);
    s0 = v_fma(a, a, s0);
    s1 = v_fma(b, b, s1);
    s2 = v_fma(c, c, s2);
    s3 = v_fma(e, e, s3);
  }
  for (; i < n; i += VL) {
    vf a = n - i < VL ? v_load_n(x + i, n - i) : v_load(x + i);
    s0 = v_fma(a, a, s0);
  }
  float sum = v_sum(v_add(v_add(s0, s1), v_add(s2, s3)));
  vf inv = v_set1(1.0f / sqrtf(sum / (float)n + eps));
  for (i = 0; i < n; i += VL) {
    int part = n - i < VL ? n - i : VL;
    vf y = part < VL ? v_mul(v_mul(v_load_n(x + i, part), inv), v_load_n(w + i, part))
                     : v_mul(v_mul(v_load(x + i), inv), v_load(w + i));
    if (out_dt == KN_F32) {
      if (part < VL)
        v_store_n((float *)o + i, y, part);
      else
        v_store((float *)o + i, y);
    } else if (part < VL) {
      v_to_bf16_n((uint16_t *)o + i, y, part);
    } else {
      v_to_bf16((uint16_t *)o + i, y);
    }
  }
}

static void add_row(float *x, const float *y, int n) {
  int i = 0;
  for (; i + VL <= n; i += VL) v_store(x + i, v_add(v_load(x + i), v_load(y + i)));
  if (i < n) v_store_n(x + i, v_add(v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

enum { ROWS_PER_CHUNK = 8 };

typedef struct {
  kn_tensor out, x, y, w;
  int heads;
  float eps;
} norm_job;

static void rmsnorm_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const norm_job *j = ctx;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows), out_size = j->out.dt == KN_F32 ? 4 : 2;
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++) {
    float *x = (float *)j->x.p + t * j->x.stride;
    if (j->y.p) add_row(x, (const float *)j->y.p + t * j->y.stride, j->x.cols);
    norm((char *)j->out.p + t * j->out.stride * out_size, j->out.dt, x, j->w.p, j->x.cols, j->eps);
  }
}

static int rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor y, kn_tensor w, float eps) {
  norm_job j = {.out = out, .x = x, .y = y, .w = w, .eps = eps};
  run_if_big(d, (int64_t)x.rows * x.cols * 8, rmsnorm_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

static void head_rmsnorm_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const norm_job *j = ctx;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows);
  int dim = j->x.cols / j->heads;
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++)
    for (int h = 0; h < j->heads; h++) {
      float *x = (float *)j->x.p + t * j->x.stride + h * dim;
      norm(x, KN_F32, x, j->w.p, dim, j->eps);
    }
}

static int head_rmsnorm(kn_dev *d, kn_tensor x, kn_tensor w, int heads, float eps) {
  norm_job j = {.x = x, .w = w, .heads = heads, .eps = eps};
  run_if_big(d, (int64_t)x.rows * x.cols * 8, head_rmsnorm_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

// layer_norm writes (x - mean(x)) / sqrt(variance(x) + eps) * w + b to out (out_dt) at o; o may be x.
static void layer_norm(void *o, int out_dt, const float *x, const float *w, const float *b, int n, float eps) {
  vf s0 = v_zero(), s1 = v_zero();
  int i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) {
    s0 = v_add(s0, v_load(x + i));
    s1 = v_add(s1, v_load(x + i + VL));
  }
  for (; i < n; i += VL) s0 = v_add(s0, load_part(x + i, n - i));
  const vf mean = v_set1(v_sum(v_add(s0, s1)) / (float)n);
  s0 = s1 = v_zero();
  for (i = 0; i + VL <= n; i += VL) {
    vf a = v_sub(v_load(x + i), mean);
    s0 = v_fma(a, a, s0);
  }
  if (i < n) {
    vf a = v_first(v_sub(v_load_n(x + i, n - i), mean), n - i, v_zero());
    s1 = v_mul(a, a);
  }
  const vf inv = v_set1(1.0f / sqrtf(v_sum(v_add(s0, s1)) / (float)n + eps));
  for (i = 0; i < n; i += VL) {
    const int part = n - i < VL ? n - i : VL;
    vf y = v_fma(v_mul(v_sub(load_part(x + i, part), mean), inv), load_part(w + i, part), load_part(b + i, part));
    if (out_dt == KN_F32)
      store_part((float *)o + i, y, part);
    else if (part < VL)
      v_to_bf16_n((uint16_t *)o + i, y, part);
    else
      v_to_bf16((uint16_t *)o + i, y);
  }
}

static void layernorm_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const norm_job *j = ctx;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows), out_size = j->out.dt == KN_F32 ? 4 : 2;
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++)
    layer_norm((char *)j->out.p + t * j->out.stride * out_size, j->out.dt, (const float *)j->x.p + t * j->x.stride, j->w.p,
               j->y.p, j->x.cols, j->eps);
}

static int layernorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor w, kn_tensor b, float eps) {
  norm_job j = {.out = out, .x = x, .y = b, .w = w, .eps = eps};
  run_if_big(d, (int64_t)x.rows * x.cols * 12, layernorm_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

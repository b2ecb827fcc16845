// The gated delta rule in its recurrent form. A column of a head's state never meets another, so the work is split over
// sequences, heads and columns; each piece takes the tokens in order and keeps its part of the state in the cache.

enum { DELTA_WIDE = 4, DELTA_COLS = 64 }; // vectors at once; columns of a chunk

typedef struct {
  kn_tensor out, qkv, a, b, states;
  kn_delta_rule r;
  kn_states s;
  kn_dev *dev;
} delta_job;

// unit_length scales x to the length scale.
static void unit_length(float *x, int n, float scale) {
  vf s = v_zero();
  for (int i = 0; i < n; i += VL) {
    vf a = load_part(x + i, n - i);
    s = v_fma(a, a, s);
  }
  vf f = v_set1(scale / sqrtf(v_sum(s) + 1e-6f));
  for (int i = 0; i < n; i += VL) store_part(x + i, v_mul(load_part(x + i, n - i), f), n - i);
}

// delta_inputs_chunk makes of some tokens' queries, keys and gates what the recurrence takes.
static void delta_inputs_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const delta_job *j = ctx;
  const int dim = j->r.key_dim, heads = j->r.key_heads;
  const float scale = 1.0f / sqrtf((float)dim);
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->qkv.rows);
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++) {
    float *x = (float *)j->qkv.p + t * j->qkv.stride, *a = (float *)j->a.p + t * j->a.stride, *b = (float *)j->b.p + t * j->b.stride;
    for (int h = 0; h < 2 * heads; h++) unit_length(x + h * dim, dim, h < heads ? scale : 1.0f);
    for (int h = 0; h < j->r.value_heads; h++) {
      const float y = a[h] + j->r.bias[h], softplus = (y > 0 ? y : y < 0 ? 0 : y) + log1pf(expf(-fabsf(y)));
      a[h] = expf(j->r.decay[h] * softplus);
      b[h] = 1.0f / (1.0f + expf(-b[h]));
    }
  }
}

// delta_columns goes through the tokens [from, to) of head h for `wide` vectors of columns at c; n of them are there,
// which is all unless wide is 1. The state's rows are stride apart.
INLINE void delta_columns(const int wide, const delta_job *j, float *state, int64_t stride, int64_t from, int64_t to, int h,
                          int c, int n) {
  const int dim = j->r.key_dim, keys = j->r.key_heads * dim, at = h / (j->r.value_heads / j->r.key_heads) * dim;
  for (int64_t t = from; t < to; t++) {
    const float *row = (const float *)j->qkv.p + t * j->qkv.stride, *q = row + at, *k = q + keys;
    const float *v = row + 2 * keys + h * j->r.value_dim + c;
    float *out = (float *)j->out.p + t * j->out.stride + h * j->r.value_dim + c;
    const vf decay = v_set1(((const float *)j->a.p)[t * j->a.stride + h]), beta = v_set1(((const float *)j->b.p)[t * j->b.stride + h]);
    vf sum[DELTA_WIDE], change[DELTA_WIDE];
    for (int m = 0; m < wide; m++) sum[m] = v_zero();
    for (int i = 0; i < dim; i++) {
      const vf ki = v_set1(k[i]);
      for (int m = 0; m < wide; m++) sum[m] = v_fma(ki, load_part(state + i * stride + m * VL, n), sum[m]);
    }
    for (int m = 0; m < wide; m++) {
      change[m] = v_mul(beta, v_sub(load_part(v + m * VL, n), v_mul(decay, sum[m])));
      sum[m] = v_zero();
    }
    for (int i = 0; i < dim; i++) {
      const vf ki = v_set1(k[i]), qi = v_set1(q[i]);
      for (int m = 0; m < wide; m++) {
        float *p = state + i * stride + m * VL;
        const vf y = v_fma(ki, change[m], v_mul(decay, load_part(p, n)));
        store_part(p, y, n);
        sum[m] = v_fma(qi, y, sum[m]);
      }
    }
    for (int m = 0; m < wide; m++) store_part(out + m * VL, sum[m], n);
  }
}

enum { DELTA_COPY = 8 }; // tokens from which on the state's columns are copied next to each other first

static void delta_piece(const delta_job *j, float *state, float *copy, int64_t from, int64_t to, int h, int c, int n) {
  const int64_t value_dim = j->r.value_dim;
  float *p = state + c;
  int64_t stride = value_dim;
  if (to - from >= DELTA_COPY) {
    for (int i = 0; i < j->r.key_dim; i++) memcpy(copy + i * n, p + i * value_dim, (size_t)n * 4);
    p = copy;
    stride = n;
  }
  if (n == DELTA_WIDE * VL)
    delta_columns(DELTA_WIDE, j, p, stride, from, to, h, c, VL);
  else if (n == VL)
    delta_columns(1, j, p, stride, from, to, h, c, VL);
  else
    delta_columns(1, j, p, stride, from, to, h, c, n);
  if (p == copy)
    for (int i = 0; i < j->r.key_dim; i++) memcpy(state + c + i * value_dim, copy + i * n, (size_t)n * 4);
}

static void delta_chunk(void *ctx, int64_t chunk, int worker) {
  const delta_job *j = ctx;
  const int value_dim = j->r.value_dim, key_dim = j->r.key_dim, per_head = (int)divide_up(value_dim, DELTA_COLS);
  const int64_t s = chunk / per_head / j->r.value_heads, from = j->s.starts[s], to = j->s.starts[s + 1];
  const int h = (int)(chunk / per_head % j->r.value_heads);
  int c = (int)(chunk % per_head) * DELTA_COLS;
  const int end = (int)lower(c + DELTA_COLS, value_dim);
  float *state = (float *)j->states.p + j->s.rows[s] * j->states.stride + (int64_t)h * key_dim * value_dim;
  if (from == to) return;
  if (to - from == j->s.lens[s])
    for (int i = 0; i < key_dim; i++) memset(state + i * value_dim + c, 0, (size_t)(end - c) * 4);
  float *copy = kn_scratch(j->dev, worker);
  while (c < end) {
    const int n = end - c >= DELTA_WIDE * VL ? DELTA_WIDE * VL : (int)lower(end - c, VL);
    delta_piece(j, state, copy, from, to, h, c, n);
    c += n;
  }
}

static int gated_delta(kn_dev *d, kn_tensor out, kn_tensor qkv, kn_tensor a, kn_tensor b, kn_tensor states, kn_delta_rule r,
                       kn_states s) {
  delta_job j = {.out = out, .qkv = qkv, .a = a, .b = b, .states = states, .r = r, .s = s, .dev = d};
  if (kn_reserve(d, (size_t)r.key_dim * DELTA_WIDE * VL * 4)) return KN_NOMEM;
  run_if_big(d, (int64_t)qkv.rows * qkv.cols * 16, delta_inputs_chunk, &j, divide_up(qkv.rows, ROWS_PER_CHUNK));
  kn_run(d, delta_chunk, &j, (int64_t)s.seqs * r.value_heads * divide_up(r.value_dim, DELTA_COLS));
  return KN_OK;
}

typedef struct {
  kn_tensor out, x, z, w;
  int heads;
  float eps;
} gated_norm_job;

static void gated_norm_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const gated_norm_job *j = ctx;
  const int n = j->x.cols / j->heads, size = j->out.dt == KN_F32 ? 4 : 2;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows);
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++)
    for (int h = 0; h < j->heads; h++) {
      const float *x = (const float *)j->x.p + t * j->x.stride + h * n, *z = (const float *)j->z.p + t * j->z.stride + h * n;
      char *out = (char *)j->out.p + (t * j->out.stride + h * n) * size;
      vf s = v_zero();
      for (int i = 0; i < n; i += VL) {
        vf a = load_part(x + i, n - i);
        s = v_fma(a, a, s);
      }
      const vf inv = v_set1(1.0f / sqrtf(v_sum(s) / (float)n + j->eps));
      for (int i = 0; i < n; i += VL) {
        const int part = n - i < VL ? n - i : VL;
        const vf g = load_part(z + i, part);
        vf y = v_mul(v_mul(v_mul(load_part(x + i, part), inv), load_part((const float *)j->w.p + i, part)), sigmoid_times(g, g));
        if (j->out.dt == KN_F32)
          store_part((float *)out + i, y, part);
        else if (part < VL)
          v_to_bf16_n((uint16_t *)out + i, y, part);
        else
          v_to_bf16((uint16_t *)out + i, y);
      }
    }
}

static int gated_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor z, kn_tensor w, int heads, float eps) {
  gated_norm_job j = {.out = out, .x = x, .z = z, .w = w, .heads = heads, .eps = eps};
  run_if_big(d, (int64_t)x.rows * x.cols * 12, gated_norm_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

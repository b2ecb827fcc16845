// Ops without sums: rope, activations, add, embed.

typedef struct {
  kn_tensor x, y, out;
  const int32_t *ids;
  kn_matrix m;
  int heads, kind;
  float limit;
} rows_job;

static void rope_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const rows_job *j = ctx;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows);
  int dim = j->x.cols / j->heads, half = j->y.cols / 2;
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++) {
    const float *cos = (const float *)j->y.p + j->ids[t] * j->y.stride, *sin = cos + half;
    for (int h = 0; h < j->heads; h++) {
      float *a = (float *)j->x.p + t * j->x.stride + h * dim, *b = a + half;
      for (int i = 0; j->kind && i < half; i++) {
        const float x = a[2 * i], y = a[2 * i + 1];
        a[2 * i] = x * cos[i] - y * sin[i];
        a[2 * i + 1] = y * cos[i] + x * sin[i];
      }
      for (int i = 0; !j->kind && i < half; i += VL) {
        int n = half - i < VL ? half - i : VL;
        vf va = load_part(a + i, n), vb = load_part(b + i, n), c = load_part(cos + i, n), s = load_part(sin + i, n);
        store_part(a + i, v_sub(v_mul(va, c), v_mul(vb, s)), n);
        store_part(b + i, v_add(v_mul(vb, c), v_mul(va, s)), n);
      }
    }
  }
}

static int rope(kn_dev *d, kn_tensor x, kn_tensor positions, kn_tensor table, int heads, int interleaved) {
  rows_job j = {.x = x, .y = table, .ids = positions.p, .heads = heads, .kind = interleaved};
  run_if_big(d, (int64_t)x.rows * x.cols * 8, rope_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

// sigmoid_times is g*sigmoid(t). Below -104 its value is nothing, and the bound of v_exp would make something of it.
INLINE vf sigmoid_times(vf g, vf t) {
  vf e = v_exp(v_sub(v_zero(), t));
  return v_zero_below(v_div(g, v_add(v_set1(1.0f), e)), t, -104.0f);
}

// gelu is x*Phi(x), with erf by Abramowitz and Stegun's 7.1.26: an error of 1.5e-7 of x at most.
INLINE vf gelu(vf x) {
  const vf z = v_mul(v_max(x, v_sub(v_zero(), x)), v_set1(0.70710678f));
  const vf t = v_div(v_set1(1.0f), v_fma(z, v_set1(0.3275911f), v_set1(1.0f)));
  vf p = v_set1(1.061405429f);
  p = v_fma(p, t, v_set1(-1.453152027f));
  p = v_fma(p, t, v_set1(1.421413741f));
  p = v_fma(p, t, v_set1(-0.284496736f));
  p = v_fma(p, t, v_set1(0.254829592f));
  const vf rest = v_mul(v_mul(p, t), v_exp(v_sub(v_zero(), v_mul(z, z)))); // 1 - erf(z)
  const vf share = v_add(v_zero_below(v_sub(v_set1(2.0f), rest), x, 0), v_sub(rest, v_zero_below(rest, x, 0)));
  return v_mul(v_mul(x, v_set1(0.5f)), share);
}

INLINE vf act_of(const int act, vf x, float limit) {
  switch (act) {
    case KN_SILU: return sigmoid_times(x, x);
    case KN_GELU: return gelu(x);
    case KN_GELU_TANH: // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
      return sigmoid_times(x, v_mul(v_mul(x, v_set1(1.59576912f)), v_fma(v_mul(x, x), v_set1(0.044715f), v_set1(1.0f))));
    case KN_RELU: return v_max(v_zero(), x);
    case KN_TANH: return v_tanh(x);
    case KN_SOFTCAP: return v_mul(v_tanh(v_div(x, v_set1(limit))), v_set1(limit));
    default: return v_mul(x, v_set1(limit)); // KN_TIMES
  }
}

INLINE vf gated_of(const int act, vf g, vf u) {
  if (act == KN_SIGMOID) return sigmoid_times(u, g);
  if (act != KN_CLAMPED_SWIGLU) return v_mul(act_of(act, g, 0), u);
  const vf top = v_set1(7.0f), y = v_min(top, g);
  return v_mul(v_add(v_min(top, v_max(v_set1(-7.0f), u)), v_set1(1.0f)), sigmoid_times(y, v_mul(y, v_set1(1.702f))));
}

enum { PIECE = 2048 }; // of a row: decode has few rows, but long ones

INLINE void gated_piece(const int act, const rows_job *j, int64_t chunk) {
  int n = j->out.cols;
  int64_t per_row = divide_up(n, PIECE), t = chunk / per_row, i = chunk % per_row * PIECE, end = lower(i + PIECE, n);
  const float *gate = (const float *)j->x.p + t * j->x.stride, *up = gate + n;
  for (; i < end; i += VL) {
    int part = (int)lower(end - i, VL);
    vf y = gated_of(act, load_part(gate + i, part), load_part(up + i, part));
    if (j->out.dt == KN_F32)
      store_part((float *)j->out.p + t * j->out.stride + i, y, part);
    else if (part < VL)
      v_to_bf16_n((uint16_t *)j->out.p + t * j->out.stride + i, y, part);
    else
      v_to_bf16((uint16_t *)j->out.p + t * j->out.stride + i, y);
  }
}

static void gated_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const rows_job *j = ctx;
  switch (j->kind) {
    case KN_SILU: gated_piece(KN_SILU, j, chunk); break;
    case KN_GELU: gated_piece(KN_GELU, j, chunk); break;
    case KN_GELU_TANH: gated_piece(KN_GELU_TANH, j, chunk); break;
    case KN_RELU: gated_piece(KN_RELU, j, chunk); break;
    case KN_CLAMPED_SWIGLU: gated_piece(KN_CLAMPED_SWIGLU, j, chunk); break;
    case KN_SIGMOID: gated_piece(KN_SIGMOID, j, chunk); break;
  }
}

static int gated_mul(kn_dev *d, kn_tensor out, kn_tensor gate_up, int act) {
  rows_job j = {.x = gate_up, .out = out, .kind = act};
  run_if_big(d, (int64_t)out.rows * out.cols * 12, gated_chunk, &j, out.rows * divide_up(out.cols, PIECE));
  return KN_OK;
}

INLINE void activate_piece(const int act, const rows_job *j, int64_t chunk) {
  int64_t per_row = divide_up(j->x.cols, PIECE), t = chunk / per_row, i = chunk % per_row * PIECE, end = lower(i + PIECE, j->x.cols);
  float *x = (float *)j->x.p + t * j->x.stride;
  for (; i < end; i += VL) {
    int part = (int)lower(end - i, VL);
    store_part(x + i, act_of(act, load_part(x + i, part), j->limit), part);
  }
}

static void activate_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const rows_job *j = ctx;
  switch (j->kind) {
    case KN_SILU: activate_piece(KN_SILU, j, chunk); break;
    case KN_GELU: activate_piece(KN_GELU, j, chunk); break;
    case KN_GELU_TANH: activate_piece(KN_GELU_TANH, j, chunk); break;
    case KN_RELU: activate_piece(KN_RELU, j, chunk); break;
    case KN_TANH: activate_piece(KN_TANH, j, chunk); break;
    case KN_SOFTCAP: activate_piece(KN_SOFTCAP, j, chunk); break;
    case KN_TIMES: activate_piece(KN_TIMES, j, chunk); break;
  }
}

static int activate(kn_dev *d, kn_tensor x, int act, float limit) {
  rows_job j = {.x = x, .kind = act, .limit = limit};
  run_if_big(d, (int64_t)x.rows * x.cols * 12, activate_chunk, &j, x.rows * divide_up(x.cols, PIECE));
  return KN_OK;
}

static void add_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const rows_job *j = ctx;
  int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows);
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++)
    add_row((float *)j->x.p + t * j->x.stride, (const float *)j->y.p + (j->y.rows == 1 ? 0 : t * j->y.stride), j->x.cols);
}

static int add(kn_dev *d, kn_tensor x, kn_tensor y) {
  rows_job j = {.x = x, .y = y};
  run_if_big(d, (int64_t)x.rows * x.cols * 12, add_chunk, &j, divide_up(x.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

INLINE float widen_one(int dt, uint16_t h) {
  if (dt == KN_BF16) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
  }
  uint16_t in[VL] = {h};
  float out[VL];
  v_store(out, v_f16(in));
  return out[0];
}

// weight4 is one weight of a W4 panel (quantize.h).
static float weight4(const char *panel, int64_t lane, int64_t i, int group) {
  const char *g = panel + i / group * (KN_PANEL * 2 + group * (KN_PANEL / 2));
  int byte = ((const uint8_t *)g)[KN_PANEL * 2 + (i % group / 8 * KN_PANEL + lane) * 4 + i % 4];
  return widen_one(KN_F16, ((const uint16_t *)g)[lane]) * (float)((i & 4 ? byte >> 4 : byte & 15) - 8);
}

static void embed_chunk(void *ctx, int64_t t, int worker) {
  (void)worker;
  const rows_job *j = ctx;
  int64_t id = j->ids[t], lane = id % KN_PANEL, k = j->m.k;
  float *out = (float *)j->out.p + t * j->out.stride;
  if (j->m.parts) {
    const kn_part *part = j->m.parts;
    for (; id >= part->rows; part++) id -= part->rows;
    const int size = stored_size(j->m.dt);
    for (int64_t i = 0; i < k; i += QUANT_GROUP) {
      float f[QUANT_GROUP];
      int n = (int)lower(QUANT_GROUP, k - i);
      widen_some(f, (const char *)part->p + (id * k + i) * size, j->m.dt, n);
      memcpy(out + i, f, (size_t)n * 4);
    }
    return;
  }
  const char *panel = (const char *)j->m.p + id / KN_PANEL * panel_bytes(j->m);
  for (int64_t i = 0; i < k; i++) {
    if (j->m.dt == KN_F32)
      out[i] = ((const float *)panel)[i * KN_PANEL + lane];
    else if (j->m.dt == KN_F16)
      out[i] = widen_one(KN_F16, ((const uint16_t *)panel)[i * KN_PANEL + lane]);
    else if (j->m.dt == KN_BF16)
      out[i] = widen_one(KN_BF16, ((const uint16_t *)panel)[(i / 2 * KN_PANEL + lane) * 2 + i % 2]);
    else if (j->m.dt == KN_W8)
      out[i] = ((const float *)panel)[lane] * (float)(((const uint8_t *)panel)[KN_PANEL * 4 + (i / 4 * KN_PANEL + lane) * 4 + i % 4] - 128);
    else
      out[i] = weight4(panel, lane, i, j->m.group);
  }
}

static int embed(kn_dev *d, kn_tensor out, kn_matrix m, kn_tensor ids) {
  rows_job j = {.out = out, .m = m, .ids = ids.p};
  run_if_big(d, out.rows * m.k * 32, embed_chunk, &j, out.rows); // a cache line for each element or pair
  return KN_OK;
}

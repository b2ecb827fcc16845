// Causal convolution of each channel, with the last inputs of each sequence kept from step to step.

enum { MAX_CONV = 8, CONV_COLS = 256 };

typedef struct {
  kn_tensor x, w, states;
  kn_states b;
} conv_job;

// conv_lanes goes through the tokens [from, to) of n channels at c, n at most VL, with the last inputs in registers.
INLINE void conv_lanes(const int k, const conv_job *j, float *state, int64_t from, int64_t to, int fresh, int64_t c, int n) {
  vf w[MAX_CONV], in[MAX_CONV];
  for (int i = 0; i < k; i++) w[i] = load_part((const float *)j->w.p + i * j->w.stride + c, n);
  for (int i = 0; i < k - 1; i++) in[i] = fresh ? v_zero() : load_part(state + i * (int64_t)j->x.cols + c, n);
  for (int64_t t = from; t < to; t++) {
    float *x = (float *)j->x.p + t * j->x.stride + c;
    in[k - 1] = load_part(x, n);
    vf sum = v_mul(w[0], in[0]);
    for (int i = 1; i < k; i++) sum = v_fma(w[i], in[i], sum);
    for (int i = 0; i < k - 1; i++) in[i] = in[i + 1];
    store_part(x, sigmoid_times(sum, sum), n);
  }
  for (int i = 0; i < k - 1; i++) store_part(state + i * (int64_t)j->x.cols + c, in[i], n);
}

static void conv_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const conv_job *j = ctx;
  const int64_t per_seq = divide_up(j->x.cols, CONV_COLS), s = chunk / per_seq;
  const int64_t from = j->b.starts[s], to = j->b.starts[s + 1], end = lower((chunk % per_seq + 1) * CONV_COLS, j->x.cols);
  const int fresh = to - from == j->b.lens[s];
  float *state = (float *)j->states.p + j->b.rows[s] * j->states.stride;
  if (from == to) return;
  for (int64_t c = chunk % per_seq * CONV_COLS; c < end; c += VL) {
    const int n = (int)lower(end - c, VL);
    if (j->w.rows == 4)
      conv_lanes(4, j, state, from, to, fresh, c, n);
    else
      conv_lanes(j->w.rows, j, state, from, to, fresh, c, n);
  }
}

static int causal_conv(kn_dev *d, kn_tensor x, kn_tensor w, kn_tensor states, kn_states b) {
  conv_job j = {.x = x, .w = w, .states = states, .b = b};
  run_if_big(d, (int64_t)x.rows * x.cols * 16, conv_chunk, &j, b.seqs * divide_up(x.cols, CONV_COLS));
  return KN_OK;
}

typedef struct {
  kn_tensor out, x;
  int groups, from;
} pick_job;

static void pick_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const pick_job *j = ctx;
  const int64_t end = lower((chunk + 1) * ROWS_PER_CHUNK, j->x.rows), n = j->out.cols / j->groups, size = j->x.cols / j->groups;
  for (int64_t t = chunk * ROWS_PER_CHUNK; t < end; t++)
    for (int64_t g = 0; g < j->groups; g++)
      memcpy((float *)j->out.p + t * j->out.stride + g * n, (const float *)j->x.p + t * j->x.stride + g * size + j->from,
             (size_t)n * 4);
}

static int pick_groups(kn_dev *d, kn_tensor out, kn_tensor x, int groups, int from) {
  pick_job j = {.out = out, .x = x, .groups = groups, .from = from};
  run_if_big(d, (int64_t)out.rows * out.cols * 8, pick_chunk, &j, divide_up(out.rows, ROWS_PER_CHUNK));
  return KN_OK;
}

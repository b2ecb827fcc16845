// Maxima of the blocks of a row of logits, and sums of exponentials below them. Wider than a register where need be: the
// compiler splits the vectors, so all variants add up in one order.
enum { SUM_BLOCK = 256, SUM_BLOCKS_PER_CHUNK = 32 }; // the first as SumBlock in Go

typedef float f32x8 __attribute__((vector_size(32)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef int64_t i64x8 __attribute__((vector_size(64)));
typedef int32_t vmask __attribute__((vector_size(sizeof(vf))));

typedef struct {
  const float *x;
  int64_t n;
  double scale; // of the exponents of 2
  float *max;
  double *sum;
} sums_job;

static float block_max(const float *x) {
  vf m = v_set1(-INFINITY);
  vmask nan = {0};
  for (int i = 0; i < SUM_BLOCK; i += VL) {
    vf a = v_load(x + i);
    m = v_max(a, m);
    nan |= (vmask)(a != a);
  }
  for (int i = 0; i < VL; i++)
    if (nan[i]) return NAN;
  return v_most(m);
}

// block_sum adds up 2^((x-max)*scale), each within 1e-9 of itself; what is below 2^-1000 is nothing.
static double block_sum(const float *x, float max, double scale) {
  static const double c[] = {1.3215486790144307e-6, 1.5252733804059841e-5, 1.5403530393381608e-4, 1.3333558146428443e-3,
                             9.618129107628477e-3,  5.550410866482158e-2,  2.4022650695910072e-1, 6.931471805599453e-1,
                             1.0}; // ln(2)^k / k!, k from 8 down to 0
  f64x8 sum[2] = {{0}, {0}};
  for (int i = 0; i < SUM_BLOCK; i += 16)
    for (int j = 0; j < 2; j++) {
      f32x8 a;
      memcpy(&a, x + i + 8 * j, sizeof a);
      f64x8 y = (__builtin_convertvector(a, f64x8) - (double)max) * scale;
      f64x8 t = y + 0x1.8p52, r = y - (t - 0x1.8p52); // leaves the rounded number in the low bits of t
      f64x8 p = r * c[0] + c[1];
#pragma GCC unroll 8
      for (int k = 2; k < 9; k++) p = p * r + c[k];
      i64x8 e = (i64x8)p + ((i64x8)t << 52);
      sum[j] += (f64x8)(e & (i64x8)(y > -1000.0));
    }
  f64x8 s = sum[0] + sum[1];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static void sums_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const sums_job *j = ctx;
  int64_t end = lower((chunk + 1) * SUM_BLOCKS_PER_CHUNK, divide_up(j->n, SUM_BLOCK));
  float last[SUM_BLOCK];
  for (int64_t b = chunk * SUM_BLOCKS_PER_CHUNK; b < end; b++) {
    const float *x = j->x + b * SUM_BLOCK;
    int64_t n = j->n - b * SUM_BLOCK;
    if (n < SUM_BLOCK) {
      for (int i = 0; i < SUM_BLOCK; i++) last[i] = i < n ? x[i] : -INFINITY;
      x = last;
    }
    j->max[b] = block_max(x);
    if (j->sum) j->sum[b] = j->max[b] == -INFINITY ? 0 : block_sum(x, j->max[b], j->scale);
  }
}

static int block_sums(kn_dev *d, const float *x, int64_t n, double scale, float *max, double *sum) {
  sums_job j = {x, n, scale * 1.4426950408889634, max, sum};
  run_if_big(d, n * (sum ? 16 : 4), sums_chunk, &j, divide_up(n, SUM_BLOCK * SUM_BLOCKS_PER_CHUNK));
  return KN_OK;
}

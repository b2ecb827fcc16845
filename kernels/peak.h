// The most the machine can do: chains of multiply-adds in registers, and reading memory.
enum { CHAINS = 14 };

static float peak_fma(int64_t iters, double *flops) {
  vf a[CHAINS], b = v_set1(0.999f), c = v_set1(1e-3f);
  for (int i = 0; i < CHAINS; i++) a[i] = v_set1((float)i);
  for (int64_t k = 0; k < iters; k++)
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) a[i] = v_fma(a[i], b, c);
  float s = 0;
  for (int i = 0; i < CHAINS; i++) s += v_sum(a[i]);
  *flops = (double)iters * CHAINS * VL * 2;
  return s;
}

static float peak_dot(int64_t iters, double *flops) {
  float s = 0;
  *flops = 0;
#if defined(KN_USE_DOT)
  __m512 a[CHAINS];
  __m512bh b = (__m512bh)_mm512_set1_epi16(0x3f80), c = (__m512bh)_mm512_set1_epi16(0x3c00);
  for (int i = 0; i < CHAINS; i++) a[i] = _mm512_set1_ps((float)i);
  for (int64_t k = 0; k < iters; k++)
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) a[i] = _mm512_dpbf16_ps(a[i], b, c);
  for (int i = 0; i < CHAINS; i++) s += v_sum(a[i]);
  *flops = (double)iters * CHAINS * 64;
#endif
  (void)iters;
  return s;
}

static float peak_int8(int64_t iters, double *ops) {
  vi a[CHAINS], b = vi_set1(0x01020304), c = vi_set1(0x05060708);
  for (int i = 0; i < CHAINS; i++) a[i] = vi_set1(i);
  for (int64_t k = 0; k < iters; k++)
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) a[i] = vi_dot(0, a[i], b, c);
  float s = 0;
  for (int i = 0; i < CHAINS; i++) s += v_sum(vi_float(a[i]));
  *ops = (double)iters * CHAINS * VL * 8;
  return s;
}

// read_streams reads S linear streams in turn.
INLINE float read_streams(const char *p, int64_t bytes, const int S) {
  vf a[8];
  for (int u = 0; u < 8; u++) a[u] = v_zero();
  const int64_t part = bytes / S, each = 8 * VL * 4 / S;
  for (int64_t i = 0; i < part; i += each)
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
      const char *at = p + u / (8 / S) * part + i + u % (8 / S) * VL * 4;
      a[u] = v_add(a[u], v_load((const float *)at));
    }
  for (int u = 1; u < 8; u++) a[0] = v_add(a[0], a[u]);
  return v_sum(a[0]);
}

static float peak_read(const char *p, int64_t bytes, int streams) {
  return streams == 1 ? read_streams(p, bytes, 1) : read_streams(p, bytes, 8);
}

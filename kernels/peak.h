// The most the arithmetic units can do: chains of multiply-adds in registers.
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

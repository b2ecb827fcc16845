// The KV cache: its types, storing keys and values, and reading them by vectors.
//
//	F32, BF16   rounded to nearest even
//	FP8         e4m3fn: sign, 4 bits of exponent, 3 of mantissa, no infinity; beyond 448 becomes 448, NaN stays NaN
//	I8          whole numbers of -127 to 127, times a float32 per token and head, which is NaN if one of them is not finite
//
// FP8 is read by way of float16, whose bits are those of e4m3 moved by 7 but for the bias: numbers come out 2^8 too small
// (FP8_SCALE makes up for it in the queries and in the output), subnormals right.
#define FP8_SCALE 256.0f

INLINE int kv_size(int dt) { return dt == KN_F32 ? 4 : dt == KN_BF16 || dt == KN_F16 ? 2 : 1; }

// narrow rounds n floats to float32 or bfloat16.
static void narrow(void *to, int dt, const float *x, int n) {
  if (dt == KN_F32) {
    memcpy(to, x, (size_t)n * 4);
    return;
  }
  for (int i = 0; i < n; i += VL) {
    int part = n - i < VL ? n - i : VL;
    if (part < VL)
      v_to_bf16_n((uint16_t *)to + i, v_load_n(x + i, part), part);
    else
      v_to_bf16((uint16_t *)to + i, v_load(x + i));
  }
}

INLINE uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

INLINE float float_of(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static void narrow_fp8(uint8_t *to, const float *x, int n) {
  for (int i = 0; i < n; i++) {
    uint32_t u = bits_of(x[i]), mag = u & 0x7fffffff, c = mag < 0x43e00000 ? mag : 0x43e00000; // 448
    uint32_t normal = ((c + 0x7ffff + (c >> 20 & 1)) >> 20) - (120 << 3);                     // 120: the biases' difference
    uint32_t small = bits_of(float_of(c) + 0x1p14f) - 0x46800000; // below 2^-6: leaves units of 2^-9 in the low bits
    uint32_t r = c < 0x3c800000 ? small : normal;
    to[i] = (uint8_t)((mag > 0x7f800000 ? 0x7f : r) | (u >> 24 & 0x80));
  }
}

// narrow_i8 returns the scale.
static float narrow_i8(int8_t *to, const float *x, int n) {
  uint32_t most = 0;
  for (int i = 0; i < n; i++) {
    uint32_t mag = bits_of(x[i]) & 0x7fffffff;
    most = mag > most ? mag : most;
  }
  float scale = most < 0x7f800000 ? float_of(most) / 127.0f : NAN;
  if (!(scale > 0)) {
    memset(to, 0, (size_t)n);
    return scale;
  }
  for (int i = 0; i < n; i++) {
    int32_t q = (int32_t)(bits_of(x[i] / scale + 0x1.8p23f) - 0x4b400000); // adding that rounds to a whole number
    q = q > 127 ? 127 : q; // a subnormal scale has few bits
    to[i] = (int8_t)(q < -127 ? -127 : q);
  }
  return scale;
}

// narrow_kv rounds a token's keys or values of one head to the cache's type; I8 has its scale at scales[at].
static void narrow_kv(void *to, int dt, const float *x, int n, float *scales, int64_t at) {
  if (dt == KN_I8)
    scales[at] = narrow_i8(to, x, n);
  else if (dt == KN_FP8)
    narrow_fp8(to, x, n);
  else
    narrow(to, dt, x, n);
}

typedef struct {
  kn_tensor k, v;
  const int32_t *slots;
  kn_cache c;
} store_job;

static void store_kv_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const store_job *j = ctx;
  const kn_cache *c = &j->c;
  const int dim = c->head_dim, vdim = c->value_dim;
  const int64_t bs = c->block_size, size = kv_size(c->dt), end = lower((chunk + 1) * 16, j->k.rows);
  float row[1024]; // head_dim is at most that
  for (int64_t t = chunk * 16; t < end; t++) {
    int64_t slot = j->slots[t];
    if (slot < 0) continue;
    for (int h = 0; h < c->kv_heads; h++) {
      int64_t head = slot / bs * c->kv_heads + h, place = slot % bs;
      const float *from_k = (const float *)j->k.p + t * j->k.stride, *from_v = (const float *)j->v.p + t * j->v.stride;
      narrow_kv((char *)c->v + (head * bs + place) * vdim * size, c->dt, from_v + h * vdim, vdim, c->v_scales, head * bs + place);
      narrow_kv(row, c->dt, from_k + h * dim, dim, c->k_scales, head * bs + place);
      const int64_t k = head * dim * bs + place;
      if (size == 4)
        for (int i = 0; i < dim; i++) ((float *)c->k)[k + i * bs] = row[i];
      else if (size == 2)
        for (int i = 0; i < dim; i++) ((uint16_t *)c->k)[k + i * bs] = ((uint16_t *)row)[i];
      else
        for (int i = 0; i < dim; i++) ((uint8_t *)c->k)[k + i * bs] = ((uint8_t *)row)[i];
    }
  }
}

static int store_kv(kn_dev *d, kn_cache c, kn_tensor k, kn_tensor v, kn_tensor slots) {
  store_job j = {.k = k, .v = v, .slots = slots.p, .c = c};
  run_if_big(d, (int64_t)k.rows * k.cols * 16, store_kv_chunk, &j, divide_up(k.rows, 16));
  return KN_OK;
}

// fp8_to_f16 widens n numbers to float16, 2^8 too small. The bit that NaN alone carries into sets float16's exponent.
static void fp8_to_f16(uint16_t *to, const void *from, int n) {
  const int8_t *p = from;
  int i = 0;
#if defined(KN_USE_AVX512)
  for (; i + 32 <= n; i += 32) {
    __m512i s = _mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p + i))), 7);
    __m512i t = _mm512_add_epi16(s, _mm512_set1_epi16(0x80));
    _mm512_storeu_si512(to + i, _mm512_ternarylogic_epi32(s, t, _mm512_set1_epi16(0x4000), 0x78)); // s ^ (t & 0x4000)
  }
#elif defined(KN_USE_AVX2)
  for (; i + 16 <= n; i += 16) {
    __m256i s = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + i))), 7);
    __m256i t = _mm256_add_epi16(s, _mm256_set1_epi16(0x80));
    _mm256_storeu_si256((__m256i *)(to + i), _mm256_xor_si256(s, _mm256_and_si256(t, _mm256_set1_epi16(0x4000))));
  }
#endif
  for (; i < n; i++) {
    uint16_t s = (uint16_t)(p[i] * 128);
    to[i] = s ^ ((s + 0x80) & 0x4000);
  }
}

#if defined(KN_USE_AVX512)
INLINE vf v_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
#elif defined(KN_USE_AVX2)
INLINE vf v_i8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
#elif defined(KN_USE_NEON)
INLINE vf v_i8(const void *p) {
  uint32_t four;
  memcpy(&four, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}
#else
INLINE vf v_i8(const void *p) {
  float f[VL];
  for (int i = 0; i < VL; i++) f[i] = ((const int8_t *)p)[i];
  return v_load(f);
}
#endif

// load_kv widens a vector; float16 stands for FP8.
INLINE vf load_kv(int dt, const char *p) {
  switch (dt) {
    case KN_BF16: return v_bf16((const uint16_t *)p);
    case KN_F16: return v_f16((const uint16_t *)p);
    case KN_I8: return v_i8(p);
  }
  return v_load((const float *)p);
}

// widen_kv widens n numbers; those of FP8 come out 2^8 too small.
static void widen_kv(float *to, int dt, const char *from, int n) {
  const int size = kv_size(dt);
  for (int i = 0; i < n; i += VL) {
    char in[VL * 4] = {0}; // a whole vector, whatever is left
    uint16_t half[VL];
    float out[VL];
    int part = n - i < VL ? n - i : VL;
    memcpy(in, from + i * size, (size_t)(part * size));
    if (dt == KN_FP8) fp8_to_f16(half, in, VL);
    v_store(out, dt == KN_FP8 ? v_f16(half) : load_kv(dt, in));
    memcpy(to + i, out, (size_t)part * 4);
  }
}

// v_tanh is within 2 units in the last place; NaN stays NaN.
INLINE vf v_tanh(vf x) {
  const vf y = v_min(v_set1(20.0f), v_max(v_set1(-20.0f), x)), mag = v_max(y, v_sub(v_zero(), y)), z = v_mul(y, y);
  vf p = v_set1(-5.70498872745e-3f); // Cephes' polynomial, for |x| below 0.625
  p = v_fma(p, z, v_set1(2.06390887954e-2f));
  p = v_fma(p, z, v_set1(-5.37397155531e-2f));
  p = v_fma(p, z, v_set1(1.33314422036e-1f));
  p = v_fma(p, z, v_set1(-3.33332819422e-1f));
  const vf small = v_fma(v_mul(p, z), y, y), one = v_set1(1.0f), e = v_exp(v_mul(mag, v_set1(-2.0f)));
  const vf large = v_mul(v_div(v_sub(one, e), v_add(one, e)), v_div(y, v_max(v_set1(0.625f), mag)));
  // The one where mag is below 0.625 and the other elsewhere; the sign of large is y/mag there.
  return v_add(v_zero_below(large, mag, 0.625f), v_sub(small, v_zero_below(small, mag, 0.625f)));
}

// v_exp2 is 2^t for t of at most 0, within 1.5e-7 of it; 1 at 0, 0 below -126, NaN stays NaN.
INLINE vf v_exp2(vf t) {
#if defined(KN_USE_AVX512)
  vf r = _mm512_reduce_ps(t, 9); // t - floor(t)
#else
  vf y = v_max(v_set1(-126.0f), t), n = v_round(v_sub(y, v_set1(0.5f))), r = v_sub(y, n);
#endif
  vf p = v_set1(1.86713005e-3f); // the polynomial of this degree with the least relative error on [0, 1] that is 1 at 0
  p = v_fma(p, r, v_set1(9.01703071e-3f));
  p = v_fma(p, r, v_set1(5.57999127e-2f));
  p = v_fma(p, r, v_set1(0.240164444f));
  p = v_fma(p, r, v_set1(0.693151295f));
  p = v_fma(p, r, v_set1(1.0f));
#if defined(KN_USE_AVX512)
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t, v_set1(-126.0f), _CMP_NLT_UQ), p, t); // p * 2^floor(t)
#else
  return v_zero_below(v_mul(p, v_pow2(n)), t, -126.0f);
#endif
}

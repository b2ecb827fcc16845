// Packing of weights into panels (matrix.go). A vector of rows at a time: each gives VL words of 4 bytes, which hold one to
// eight of its weights, and these are transposed, so that the panel is written by whole vectors.

// v_transpose swaps rows and columns of VL vectors.
INLINE void v_transpose(vf r[VL]) {
#if defined(KN_USE_AVX512) || defined(KN_USE_AVX2)
  vf t[VL], u[VL];
#if defined(KN_USE_AVX512)
#define LO32 _mm512_unpacklo_ps
#define HI32 _mm512_unpackhi_ps
#define LO64(a, b) _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define HI64(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#else
#define LO32 _mm256_unpacklo_ps
#define HI32 _mm256_unpackhi_ps
#define LO64(a, b) _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define HI64(a, b) _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#endif
#pragma GCC unroll 8
  for (int i = 0; i < VL; i += 2) {
    t[i] = LO32(r[i], r[i + 1]);
    t[i + 1] = HI32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < VL; i += 4) { // u[i+j] has in 128-bit lane l column 4l+j of rows i to i+3
    u[i] = LO64(t[i], t[i + 2]);
    u[i + 1] = HI64(t[i], t[i + 2]);
    u[i + 2] = LO64(t[i + 1], t[i + 3]);
    u[i + 3] = HI64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
#if defined(KN_USE_AVX512)
    vf a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88), b = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
    vf c = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88), d = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
    r[j] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[4 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[12 + j] = _mm512_shuffle_f32x4(b, d, 0xdd);
#else
    r[j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
    r[4 + j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
#endif
  }
#undef LO32
#undef HI32
#undef LO64
#undef HI64
#else
  float a[VL][VL], b[VL][VL];
  memcpy(a, r, sizeof a);
  for (int i = 0; i < VL; i++)
    for (int j = 0; j < VL; j++) b[j][i] = a[i][j];
  memcpy(r, b, sizeof b);
#endif
}

INLINE int stored_size(int dt) { return dt == KN_F32 ? 4 : 2; }

// convert reads n weights and writes them as dt, one of F32, BF16 and F16.
static void convert(void *to, int dt, const char *src, int src_dt, int n) {
  if (dt == src_dt) {
    memcpy(to, src, (size_t)n * stored_size(dt));
    return;
  }
  for (int i = 0; i < n; i++) {
    float f;
    uint16_t h;
    if (src_dt == KN_F32) {
      memcpy(&f, src + i * 4, 4);
    } else {
      memcpy(&h, src + i * 2, 2);
      f = src_dt == KN_BF16 ? from_bf16(h) : from_f16(h);
    }
    if (dt == KN_F32)
      ((float *)to)[i] = f;
    else
      ((uint16_t *)to)[i] = dt == KN_BF16 ? to_bf16(f) : to_f16(f);
  }
}

// words is how many words of 4 bytes a row has.
INLINE int64_t words(kn_matrix m) {
  int64_t k8 = (m.k + 7) & ~7;
  return m.dt == KN_F32 ? m.k : m.dt == KN_W8 ? k8 / 4 : m.dt == KN_W4 ? k8 / 8 : (m.k + 1) / 2;
}

// place is where word w of a row lies in its panel, for lane 0.
INLINE int64_t place(kn_matrix m, int64_t w) {
  if (m.dt == KN_W8) return (1 + w) * KN_PANEL * 4;
  if (m.dt != KN_W4) return w * KN_PANEL * 4;
  const int64_t each = m.group / 8;
  return w / each * (KN_PANEL * 2 + each * KN_PANEL * 4) + KN_PANEL * 2 + w % each * KN_PANEL * 4;
}

// row_words makes some words of a row, at most VL, from word `at` on, zeros behind its end. inv: of W8 and W4, what rounding
// multiplies with.
INLINE void row_words(uint32_t *to, kn_matrix m, const char *src, int src_dt, int64_t at, int some, float inv) {
  const int per = m.dt == KN_F32 ? 1 : m.dt == KN_W8 ? 4 : m.dt == KN_W4 ? 8 : 2; // weights of a word
  int64_t left = m.k - at * per;
  int n = left > some * per ? some * per : left < 0 ? 0 : (int)left;
  src += at * per * stored_size(src_dt);
  if (m.dt != KN_W8 && m.dt != KN_W4) {
    if (n < some * per) memset(to, 0, (size_t)some * 4);
    convert(to, m.dt, src, src_dt, n);
    return;
  }
  float f[VL * 8];
  uint32_t c[VL * 2];
  widen_some(f, src, src_dt, n);
  for (int i = (n + VL - 1) / VL * VL; i < some * per; i++) f[i] = 0;
  codes((int8_t *)c, f, some * per, inv, m.dt == KN_W8 ? 128 : 8);
  if (m.dt == KN_W8)
    for (int i = 0; i < some; i++) to[i] = c[i] ^ 0x80808080;
  else
    for (int i = 0; i < some; i++)
      to[i] = ((c[2 * i] & 0x0f0f0f0f) | (c[2 * i + 1] & 0x0f0f0f0f) << 4) ^ 0x88888888;
}

// row_words4 is row_words for VL words of W4, group by group; it writes the scales of those that begin here.
INLINE void row_words4(uint32_t *to, kn_matrix m, char *panel, int lane, const char *src, int src_dt, int64_t at, float *inv) {
  const int each = m.group / 8;
  for (int i = 0; i < VL;) {
    int64_t w = at + i, left = m.k - w * 8;
    if (left <= 0) break;
    if (w % each == 0) {
      uint16_t scale = scale4(src + w * 8 * stored_size(src_dt), src_dt, (int)lower(m.group, left), inv);
      memcpy(panel + place(m, w) - KN_PANEL * 2 + lane * 2, &scale, 2);
    }
    int some = (int)lower(VL - i, each - w % each);
    row_words(to + i, m, src, src_dt, w, some, *inv);
    i += some;
  }
}

// pack_rows packs at most VL rows, the first of which is the given lane of the panel.
static void pack_rows(kn_matrix m, char *panel, int lane, int rows, const char *src, int src_dt) {
  const int64_t stride = m.k * stored_size(src_dt), total = words(m), whole = m.k * stored_size(m.dt) / 4;
  const int is_copy = m.dt == src_dt;
  float inv[VL] = {0};
  if (m.dt == KN_W8)
    for (int r = 0; r < rows; r++) ((float *)panel)[lane + r] = scale8(src + r * stride, src_dt, m.k, &inv[r]);
  for (int64_t at = 0; at < total; at += VL) {
    vf v[VL];
    for (int r = 0; r < VL; r++) {
      const char *from = src + r * stride;
      if (r >= rows) {
        v[r] = v_zero();
      } else if (is_copy && at + VL <= whole) {
        v[r] = v_load((const float *)(from + at * 4));
#if defined(KN_PREFETCH)
        __builtin_prefetch(from + VL * stride + at * 4, 0, 2); // the next rows
#endif
      } else {
        uint32_t w[VL] = {0};
        if (m.dt == KN_W4)
          row_words4(w, m, panel, lane + r, from, src_dt, at, &inv[r]);
        else
          row_words(w, m, from, src_dt, at, VL, inv[r]);
        v[r] = v_load((const float *)w);
      }
    }
    v_transpose(v);
    for (int i = 0; i < VL && at + i < total; i++) {
      if (m.dt == KN_F16) { // pairs of k lie apart
        uint32_t w[VL];
        v_store((float *)w, v[i]);
        uint16_t *even = (uint16_t *)panel + (at + i) * 2 * KN_PANEL + lane;
        for (int r = 0; r < rows; r++) even[r] = (uint16_t)w[r];
        if ((at + i) * 2 + 1 < m.k)
          for (int r = 0; r < rows; r++) even[KN_PANEL + r] = (uint16_t)(w[r] >> 16);
      } else {
        store_part((float *)(panel + place(m, at + i)) + lane, v[i], rows);
      }
    }
  }
}

// pack_panel packs those of a panel's rows that are among rows [first, first+rows) of the matrix, which lie at src.
static void pack_panel(kn_matrix m, char *panel, int64_t number, int64_t first, int64_t rows, const char *src, int src_dt) {
  int64_t n0 = number * KN_PANEL, end = lower(n0 + KN_PANEL, first + rows);
  if (n0 < first) n0 = first;
  for (int64_t n = n0; n < end; n += VL)
    pack_rows(m, panel, (int)(n % KN_PANEL), (int)lower(VL, end - n), src + (n - first) * m.k * stored_size(src_dt), src_dt);
}

// panel_at returns a panel; if the matrix is not packed, packed to scratch just now.
static const char *panel_at(kn_matrix m, int64_t number, char *scratch) {
  if (!m.parts) return (const char *)m.p + number * panel_bytes(m);
  const int64_t n0 = number * KN_PANEL, end = lower(n0 + KN_PANEL, m.n);
  int64_t first = 0;
  for (const kn_part *part = m.parts; first < end; first += part->rows, part++)
    if (first + part->rows > n0) pack_panel(m, scratch, number, first, part->rows, part->p, m.dt);
  return scratch;
}

typedef struct {
  kn_matrix m;
  int64_t first_row, rows;
  const char *src;
  int src_dt;
} pack_job;

static void pack_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const pack_job *j = ctx;
  int64_t panel = j->first_row / KN_PANEL + chunk;
  pack_panel(j->m, (char *)j->m.p + panel * panel_bytes(j->m), panel, j->first_row, j->rows, j->src, j->src_dt);
}

static int pack(kn_dev *d, kn_matrix m, int64_t first_row, const void *src, int src_dt, int64_t rows) {
  pack_job j = {m, first_row, rows, src, src_dt};
  kn_run(d, pack_chunk, &j, (first_row + rows - 1) / KN_PANEL - first_row / KN_PANEL + 1);
  return KN_OK;
}

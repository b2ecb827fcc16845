// From the C ABI to the ops of the device's variant.
#include "pool.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

const kn_ops *kn_ops_of(int variant) {
  static const kn_ops *const table[KN_VARIANTS] = {
      [KN_PORTABLE] = &kn_ops_portable,
#if defined(__x86_64__)
      [KN_AVX2] = &kn_ops_avx2,
      [KN_AVX512] = &kn_ops_avx512,
      [KN_AVX512VNNI] = &kn_ops_avx512vnni,
#endif
#if defined(KN_HAVE_AVX2VNNI)
      [KN_AVX2VNNI] = &kn_ops_avx2vnni,
#endif
#if defined(KN_HAVE_AVX512BF16)
      [KN_AVX512BF16] = &kn_ops_avx512bf16,
#endif
#if defined(__aarch64__)
      [KN_NEON] = &kn_ops_neon,
#endif
  };
  return table[variant];
}

#if defined(__x86_64__)
static uint64_t xgetbv0(void) {
  uint32_t lo, hi;
  __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

// processor writes what the processor and the system can do, the best first. The order depends on nothing but the
// processor's maker, so that a machine gives the same results from one start to the next.
static int processor(int *to) {
  int n = 0, bf16 = 0;
  unsigned a, b, c, d, a7, b7, c7, d7, a71 = 0, x, maker;
  const unsigned want = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  if (!__get_cpuid(0, &a, &maker, &c, &d)) return 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return 0;
  uint64_t state = xgetbv0(); // registers that the system saves
  if ((state & 0x06) != 0x06 || !(c & bit_FMA) || !(c & bit_F16C) || !(b7 & bit_AVX2)) return 0;
  if (a7 >= 1) __get_cpuid_count(7, 1, &a71, &x, &x, &x);
  if ((state & 0xe6) == 0xe6 && (b7 & want) == want) {
    const int vnni = !!(c7 & bit_AVX512VNNI);
    bf16 = vnni && a71 & 1 << 5;
    // Intel's bfloat16 dot products have half the rate of float32 multiply-adds; AMD's have twice that rate.
    const int late = maker == signature_INTEL_ebx;
    if (bf16 && !late) to[n++] = KN_AVX512BF16;
    if (vnni) to[n++] = KN_AVX512VNNI;
    to[n++] = KN_AVX512;
    if (bf16 && late) to[n++] = KN_AVX512BF16;
  }
  if (a71 & 1 << 4) to[n++] = KN_AVX2VNNI;
  to[n++] = KN_AVX2;
  return n;
}
#elif defined(__aarch64__)
static int processor(int *to) {
  to[0] = KN_NEON; // every one has it
  return 1;
}
#else
static int processor(int *to) {
  (void)to;
  return 0;
}
#endif

int kn_variants(int best_first[KN_VARIANTS]) {
  int found[KN_VARIANTS], n = 0, of = processor(found);
  found[of++] = KN_PORTABLE;
  for (int i = 0; i < of; i++)
    if (kn_ops_of(found[i])) best_first[n++] = found[i];
  return n;
}

int kn_pack(kn_dev *d, kn_matrix m, int64_t first_row, const void *src, int src_dt, int64_t rows) {
  return kn_dev_ops(d)->pack(d, m, first_row, src, src_dt, rows);
}

int kn_embed(kn_dev *d, kn_tensor out, kn_matrix m, kn_tensor ids) { return kn_dev_ops(d)->embed(d, out, m, ids); }

int kn_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor w, float eps) {
  return kn_dev_ops(d)->rmsnorm(d, out, x, (kn_tensor){0}, w, eps);
}

int kn_add_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor y, kn_tensor w, float eps) {
  return kn_dev_ops(d)->rmsnorm(d, out, x, y, w, eps);
}

int kn_head_rmsnorm(kn_dev *d, kn_tensor x, kn_tensor w, int heads, float eps) {
  return kn_dev_ops(d)->head_rmsnorm(d, x, w, heads, eps);
}

int kn_layernorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor w, kn_tensor b, float eps) {
  return kn_dev_ops(d)->layernorm(d, out, x, w, b, eps);
}

int kn_rope(kn_dev *d, kn_tensor x, kn_tensor positions, kn_tensor table, int heads, int interleaved) {
  return kn_dev_ops(d)->rope(d, x, positions, table, heads, interleaved);
}

int kn_matmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m) { return kn_dev_ops(d)->matmul(d, out, x, m); }

int kn_gated_mul(kn_dev *d, kn_tensor out, kn_tensor gate_up, int act) {
  return kn_dev_ops(d)->gated_mul(d, out, gate_up, act);
}

int kn_activate(kn_dev *d, kn_tensor x, int act, float limit) { return kn_dev_ops(d)->activate(d, x, act, limit); }

int kn_add(kn_dev *d, kn_tensor x, kn_tensor y) { return kn_dev_ops(d)->add(d, x, y); }

int kn_gather(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor rows) {
  (void)d; // copies: nothing to gain from the workers
  size_t size = x.dt == KN_F32 ? 4 : 2;
  const int32_t *from = rows.p;
  for (int64_t r = 0; r < out.rows; r++)
    memcpy((char *)out.p + r * out.stride * size, (char *)x.p + from[r] * x.stride * size, out.cols * size);
  return KN_OK;
}

int kn_store_kv(kn_dev *d, kn_cache c, kn_tensor k, kn_tensor v, kn_tensor slots) {
  return kn_dev_ops(d)->store_kv(d, c, k, v, slots);
}

int kn_attention(kn_dev *d, kn_tensor out, kn_tensor q, kn_cache c, kn_batch b, int heads, kn_attend how) {
  return kn_dev_ops(d)->attention(d, out, q, c, b, heads, how);
}

int kn_causal_conv(kn_dev *d, kn_tensor x, kn_tensor w, kn_tensor states, kn_states b) {
  return kn_dev_ops(d)->causal_conv(d, x, w, states, b);
}

int kn_pick_groups(kn_dev *d, kn_tensor out, kn_tensor x, int groups, int from) {
  return kn_dev_ops(d)->pick_groups(d, out, x, groups, from);
}

int kn_gated_delta(kn_dev *d, kn_tensor out, kn_tensor qkv, kn_tensor a, kn_tensor b, kn_tensor states, kn_delta_rule r,
                   kn_states s) {
  return kn_dev_ops(d)->gated_delta(d, out, qkv, a, b, states, r, s);
}

int kn_gated_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor z, kn_tensor w, int heads, float eps) {
  return kn_dev_ops(d)->gated_rmsnorm(d, out, x, z, w, heads, eps);
}

int kn_lora(kn_dev *d, kn_tensor out, kn_tensor x, int64_t n) {
  return kn_dev_ops(d)->lora(d, out, x, kn_lora_runs(d, n), n);
}

int kn_matmul_groups(kn_dev *d, kn_tensor out, kn_tensor x, int64_t n) {
  return kn_dev_ops(d)->matmul_groups(d, out, x, kn_groups(d, n), n);
}

int kn_combine(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor places, kn_tensor weights) {
  return kn_dev_ops(d)->combine(d, out, x, places, weights);
}

int kn_block_sums(kn_dev *d, const float *x, int64_t n, double scale, float *max, double *sum) {
  return kn_dev_ops(d)->block_sums(d, x, n, scale, max, sum);
}

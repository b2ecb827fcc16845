// From the C ABI to the ops of the device's variant.
#include "pool.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
static uint64_t xgetbv0(void) {
  uint32_t lo, hi;
  __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

int kn_variants(void) {
  int have = 1 << KN_PORTABLE;
  unsigned a, b, c, d, a7, b7, c7, d7, a71 = 0, x;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return have;
  if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return have;
  uint64_t state = xgetbv0(); // registers that the system saves
  if ((state & 0x06) != 0x06 || !(c & bit_FMA) || !(c & bit_F16C) || !(b7 & bit_AVX2)) return have;
  have |= 1 << KN_AVX2;
  unsigned want = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  if ((state & 0xe6) != 0xe6 || (b7 & want) != want) return have;
  have |= 1 << KN_AVX512;
  if (a7 >= 1 && __get_cpuid_count(7, 1, &a71, &x, &x, &x) && (a71 & 1 << 5)) have |= 1 << KN_AVX512BF16;
  return have;
}
#else
int kn_variants(void) { return 1 << KN_PORTABLE; }
#endif

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

int kn_rope(kn_dev *d, kn_tensor x, kn_tensor positions, kn_tensor table, int heads) {
  return kn_dev_ops(d)->rope(d, x, positions, table, heads);
}

int kn_matmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m) { return kn_dev_ops(d)->matmul(d, out, x, m); }

int kn_silu_mul(kn_dev *d, kn_tensor out, kn_tensor gate_up) { return kn_dev_ops(d)->silu_mul(d, out, gate_up); }

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

int kn_attention(kn_dev *d, kn_tensor out, kn_tensor q, kn_cache c, kn_batch b, int heads, float scale) {
  return kn_dev_ops(d)->attention(d, out, q, c, b, heads, scale);
}

int kn_lora(kn_dev *d, kn_tensor out, kn_tensor x, int64_t n) {
  return kn_dev_ops(d)->lora(d, out, x, kn_lora_runs(d, n), n);
}

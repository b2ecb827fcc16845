// Inside of a device: the workers, their scratch memory, and the ops of its variant.
#ifndef KN_POOL_H
#define KN_POOL_H
#include "kn.h"

typedef struct {
  int (*embed)(kn_dev *, kn_tensor, kn_matrix, kn_tensor);
  int (*rmsnorm)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_tensor, float); // out, x, y (p NULL: none), w, eps
  int (*head_rmsnorm)(kn_dev *, kn_tensor, kn_tensor, int, float);
  int (*layernorm)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_tensor, float);
  int (*rope)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, int, int);
  int (*matmul)(kn_dev *, kn_tensor, kn_tensor, kn_matrix);
  int (*pack)(kn_dev *, kn_matrix, int64_t, const void *, int, int64_t);
  int (*gated_mul)(kn_dev *, kn_tensor, kn_tensor, int);
  int (*activate)(kn_dev *, kn_tensor, int, float);
  int (*add)(kn_dev *, kn_tensor, kn_tensor);
  int (*store_kv)(kn_dev *, kn_cache, kn_tensor, kn_tensor, kn_tensor);
  int (*attention)(kn_dev *, kn_tensor, kn_tensor, kn_cache, kn_batch, int, kn_attend);
  int (*causal_conv)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_states);
  int (*pick_groups)(kn_dev *, kn_tensor, kn_tensor, int, int);
  int (*gated_delta)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_tensor, kn_tensor, kn_delta_rule, kn_states);
  int (*gated_rmsnorm)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_tensor, int, float);
  int (*lora)(kn_dev *, kn_tensor, kn_tensor, kn_run_lora *, int64_t);
  int (*matmul_groups)(kn_dev *, kn_tensor, kn_tensor, kn_group *, int64_t);
  int (*combine)(kn_dev *, kn_tensor, kn_tensor, kn_tensor, kn_tensor);
  int (*block_sums)(kn_dev *, const float *, int64_t, double, float *, double *);
  float (*fma)(int64_t iters, double *flops);
  float (*dot)(int64_t iters, double *flops);
  float (*int8)(int64_t iters, double *ops);
  float (*read)(const char *p, int64_t bytes, int streams); // 1 or 8 streams; bytes: a multiple of 4096
} kn_ops;

extern const kn_ops kn_ops_portable, kn_ops_avx2, kn_ops_avx2vnni, kn_ops_avx512, kn_ops_avx512vnni,
    kn_ops_avx512bf16, kn_ops_neon;
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define KN_HAVE_AVX512BF16 // gcc knows its instructions since version 10; a build by an older one lacks the variant
#endif
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define KN_HAVE_AVX2VNNI
#endif

const kn_ops *kn_ops_of(int variant); // NULL: not in this build
const kn_ops *kn_dev_ops(kn_dev *d);
int kn_threads(const kn_dev *d);

// kn_run calls fn(ctx, chunk, worker) once for each chunk in [0, chunks), on all workers, and returns when all are
// done. Chunks are taken one by one by whoever is free. One chunk, or one thread, runs inline.
typedef void (*kn_fn)(void *ctx, int64_t chunk, int worker);
void kn_run(kn_dev *d, kn_fn fn, void *ctx, int64_t chunks);

// Scratch memory, 64-byte aligned, kept and grown. Reserve before kn_run; each worker has its own, and there is one
// for all (KN_SHARED). Returns 0, or KN_NOMEM.
enum { KN_SHARED = -1 };
int kn_reserve(kn_dev *d, size_t bytes); // for every worker
int kn_reserve_shared(kn_dev *d, size_t bytes);
void *kn_scratch(kn_dev *d, int worker);
#endif

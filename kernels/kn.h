// The C ABI of the CPU ops. Go checks every argument before it calls; a call returns 0 or KN_NOMEM.
#ifndef KN_H
#define KN_H
#include <stddef.h>
#include <stdint.h>

enum { KN_OK = 0, KN_NOMEM = 1 };
enum { KN_F32 = 1, KN_BF16, KN_F16, KN_I32, KN_FP8, KN_I8, KN_W8 = 16, KN_W4 }; // as DType in Go
enum { KN_SILU = 1, KN_GELU, KN_GELU_TANH, KN_RELU, KN_TANH, KN_CLAMPED_SWIGLU, KN_SIGMOID, KN_SOFTCAP, KN_TIMES }; // as Activation in Go
enum { KN_PANEL = 64 };                                   // columns of a packed panel

// Row-major view: element (r, c) is at p + (r*stride + c)*size.
typedef struct {
  void *p;
  int64_t stride;
  int32_t rows, cols, dt;
} kn_tensor;

// Rows of weights as a checkpoint stores them, in the matrix's dtype, at any address.
typedef struct {
  const void *p;
  int64_t rows;
} kn_part;

// Packed weights [n, k], see matrix.go.
typedef struct {
  const void *p;
  int64_t n, k;
  int32_t dt, group; // group: of W4, weights of a row with one scale
  const kn_part *parts; // not NULL: nothing is packed, the weights are in these
} kn_matrix;

// One layer's cache, see kvcache.go.
typedef struct {
  void *k, *v;
  float *k_scales, *v_scales; // of I8
  int32_t dt, block_size, kv_heads, head_dim, value_dim;
} kn_cache;

// How queries attend, see AttentionOptions.
typedef struct {
  float scale, softcap;
  int32_t window, bidirectional;
  const float *sinks; // NULL: none
  const float *bias;  // of a distance of 0, head 0; NULL: none
  int64_t bias_stride;
} kn_attend;

typedef struct {
  const int32_t *starts, *lens, *blocks; // [seqs+1], [seqs], [seqs][blocks_stride]
  int64_t blocks_stride;
  int32_t seqs;
} kn_batch;

// Where sequences keep their states, see StateBatch.
typedef struct {
  const int32_t *starts, *lens, *rows; // [seqs+1], [seqs], [seqs]
  int32_t seqs;
} kn_states;

// See DeltaRule.
typedef struct {
  const float *decay, *bias;
  int32_t key_heads, value_heads, key_dim, value_dim;
} kn_delta_rule;

typedef struct {
  int64_t start, len;
  kn_matrix a, b;
  float scale;
  int64_t low, first_a, first_b; // set by the op: offset of the product with A, first chunks of the run
} kn_run_lora;

// Rows [row, row+rows) of a product with one matrix of several.
typedef struct {
  kn_matrix m;
  int64_t row, rows;
  int64_t first, panels, row_blocks, block; // set by the op: first chunk, and what its chunks are
} kn_group;

typedef struct kn_dev kn_dev;

// kn_variants writes which variants this processor can run, the best first, and returns how many they are.
enum { KN_PORTABLE, KN_AVX2, KN_AVX2VNNI, KN_AVX512, KN_AVX512VNNI, KN_AVX512BF16, KN_NEON, KN_VARIANTS };
int kn_variants(int best_first[KN_VARIANTS]);

kn_dev *kn_open(int variant, int threads); // NULL: no memory or no threads
void kn_close(kn_dev *d);

int kn_pack(kn_dev *d, kn_matrix m, int64_t first_row, const void *src, int src_dt, int64_t rows);
int kn_embed(kn_dev *d, kn_tensor out, kn_matrix m, kn_tensor ids);
int kn_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor w, float eps);
int kn_add_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor y, kn_tensor w, float eps);
int kn_head_rmsnorm(kn_dev *d, kn_tensor x, kn_tensor w, int heads, float eps);
int kn_layernorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor w, kn_tensor b, float eps);
int kn_rope(kn_dev *d, kn_tensor x, kn_tensor positions, kn_tensor table, int heads, int interleaved);
int kn_matmul(kn_dev *d, kn_tensor out, kn_tensor x, kn_matrix m);
int kn_gated_mul(kn_dev *d, kn_tensor out, kn_tensor gate_up, int act);
int kn_activate(kn_dev *d, kn_tensor x, int act, float limit); // limit: of KN_SOFTCAP and KN_TIMES
int kn_add(kn_dev *d, kn_tensor x, kn_tensor y);
int kn_gather(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor rows);
int kn_store_kv(kn_dev *d, kn_cache c, kn_tensor k, kn_tensor v, kn_tensor slots);
int kn_attention(kn_dev *d, kn_tensor out, kn_tensor q, kn_cache c, kn_batch b, int heads, kn_attend how);
int kn_causal_conv(kn_dev *d, kn_tensor x, kn_tensor w, kn_tensor states, kn_states b);
int kn_pick_groups(kn_dev *d, kn_tensor out, kn_tensor x, int groups, int from);
int kn_gated_delta(kn_dev *d, kn_tensor out, kn_tensor qkv, kn_tensor a, kn_tensor b, kn_tensor states, kn_delta_rule r,
                   kn_states s);
int kn_gated_rmsnorm(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor z, kn_tensor w, int heads, float eps);
// kn_lora_runs returns room for n runs, which kn_lora then takes; NULL: no memory.
kn_run_lora *kn_lora_runs(kn_dev *d, int64_t n);
int kn_lora(kn_dev *d, kn_tensor out, kn_tensor x, int64_t n);
// kn_groups returns room for n groups, which kn_matmul_groups then takes; NULL: no memory.
kn_group *kn_groups(kn_dev *d, int64_t n);
int kn_matmul_groups(kn_dev *d, kn_tensor out, kn_tensor x, int64_t n);
int kn_combine(kn_dev *d, kn_tensor out, kn_tensor x, kn_tensor places, kn_tensor weights);
// sum NULL: only the maxima.
int kn_block_sums(kn_dev *d, const float *x, int64_t n, double scale, float *max, double *sum);

// Limits of the machine: seconds for the work done.
double kn_read_seconds(kn_dev *d, const void *p, size_t bytes, int streams);
double kn_fma_seconds(kn_dev *d, double *flops);
double kn_dot_seconds(kn_dev *d, double *flops);  // bfloat16 dot products; *flops 0 if there are none
double kn_int8_seconds(kn_dev *d, double *ops); // products of bytes, and their sums
#endif

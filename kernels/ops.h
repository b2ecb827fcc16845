// All ops of one variant. The including file has set KN_USE_..., the target, and KN_OPS, the name of the table.
#include "pool.h"
#include "simd.h"
#include "dot.h"

#include "tiles.h"
#include "quantize.h"
#include "pack.h"
#include "matmul.h"
#include "qmatmul.h"
#include "norm.h"
#include "kv.h"
#include "elementwise.h"
#include "attention.h"
#include "conv.h"
#include "delta.h"
#include "lora.h"
#include "experts.h"
#include "blocksums.h"
#include "peak.h"

const kn_ops KN_OPS = {
    .embed = embed,
    .rmsnorm = rmsnorm,
    .head_rmsnorm = head_rmsnorm,
    .layernorm = layernorm,
    .rope = rope,
    .matmul = matmul,
    .pack = pack,
    .gated_mul = gated_mul,
    .activate = activate,
    .add = add,
    .store_kv = store_kv,
    .attention = attention,
    .causal_conv = causal_conv,
    .pick_groups = pick_groups,
    .gated_delta = gated_delta,
    .gated_rmsnorm = gated_rmsnorm,
    .lora = lora,
    .matmul_groups = matmul_groups,
    .combine = combine,
    .block_sums = block_sums,
    .fma = peak_fma,
    .dot = peak_dot,
    .int8 = peak_int8,
    .read = peak_read,
};

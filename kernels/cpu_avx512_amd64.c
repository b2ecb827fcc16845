// Variant avx512: AVX-512 (F, DQ, BW, VL).
#if defined(__clang__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl")
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#include <immintrin.h>
#endif

#define KN_USE_AVX512
#define KN_OPS kn_ops_avx512
#include "ops.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

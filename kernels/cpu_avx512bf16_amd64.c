// Variant avx512bf16: AVX-512 with bfloat16 and int8 dot products.
#include "pool.h"
#if defined(KN_HAVE_AVX512BF16)
#if defined(__clang__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16")
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#include <immintrin.h>
#endif

#define KN_USE_AVX512
#define KN_USE_DOT
#define KN_USE_VNNI
#define KN_OPS kn_ops_avx512bf16
#include "ops.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

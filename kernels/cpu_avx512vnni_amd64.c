// Variant avx512vnni: AVX-512 with int8 dot products.
#if defined(__clang__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC target("avx,avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#include <immintrin.h>
#endif

#define KN_USE_AVX512
#define KN_USE_VNNI
#define KN_PREFETCH // the variant that Intel processors get
#define KN_OPS kn_ops_avx512vnni
#include "ops.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

// Variant avx2vnni: AVX2 with int8 dot products (AVX-VNNI).
#include "pool.h"
#if defined(KN_HAVE_AVX2VNNI)
#if defined(__clang__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx,avx2,fma,f16c"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC target("avx,avx2,fma,f16c")
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#include <immintrin.h>
#endif

#define KN_USE_AVX2
#define KN_USE_VNNI
#define KN_OPS kn_ops_avx2vnni
#include "ops.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

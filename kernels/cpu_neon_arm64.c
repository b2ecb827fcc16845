// Variant neon: what every 64-bit ARM processor has.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#endif
#include <arm_neon.h>

#define KN_USE_NEON
#define KN_OPS kn_ops_neon
#include "ops.h"

// Variant portable: any processor, by the compiler's own vectors.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off") // a sum must not be rounded differently from one inlined copy to the next
#endif
#define KN_USE_PORTABLE
#define KN_OPS kn_ops_portable
#include "ops.h"

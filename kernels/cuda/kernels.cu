// All kernels, in one image.
#include "gemm.cu"
#include "gemv.cu"

// libcuda.h: what libcuda.c has beside the driver's functions.
#ifndef PAGODA_LIBCUDA_H
#define PAGODA_LIBCUDA_H

#include "cuda.h"

// cudaDriverStatus says whether there is a driver that works: what its cuInit answered, or CUDA_ERROR_NOT_INITIALIZED
// where none was found; *why is then the reason, which may be empty.
CUresult cudaDriverStatus(const char **why);

#endif

// calls.h: the driver's functions with a context that they set first, each in one crossing from Go.
#ifndef PAGODA_CUDRV_H
#define PAGODA_CUDRV_H

#include "libcuda.h"

enum { maxArguments = 24 };

// cudrvLaunch launches f with n arguments that lie in memory at their offsets.
static inline CUresult cudrvLaunch(CUcontext ctx, CUstream s, CUfunction f, const unsigned *grid, const unsigned *block, unsigned shared,
	int programmatic, char *memory, const unsigned *offsets, int n) {
	void *arguments[maxArguments] = {0};
	CUresult r = cuCtxSetCurrent(ctx);
	if (r != CUDA_SUCCESS)
		return r;
	for (int i = 0; i < n; i++)
		arguments[i] = memory + offsets[i];
	if (!programmatic) // drivers before 12 have nothing else
		return cuLaunchKernel(f, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared, s, arguments, 0);
	CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, .value.programmaticStreamSerializationAllowed = 1};
	CUlaunchConfig c = {.gridDimX = grid[0], .gridDimY = grid[1], .gridDimZ = grid[2], .blockDimX = block[0], .blockDimY = block[1],
		.blockDimZ = block[2], .sharedMemBytes = shared, .hStream = s, .attrs = &attribute, .numAttrs = 1};
	return cuLaunchKernelEx(&c, f, arguments, 0);
}

static inline CUresult cudrvGraphLaunch(CUcontext ctx, CUgraphExec g, CUstream s) {
	CUresult r = cuCtxSetCurrent(ctx);
	return r != CUDA_SUCCESS ? r : cuGraphLaunch(g, s);
}

// cudrvEndCapture makes what a stream recorded into a graph that can be launched.
static inline CUresult cudrvEndCapture(CUcontext ctx, CUstream s, CUgraphExec *exec) {
	CUgraph g = 0;
	CUresult r = cuCtxSetCurrent(ctx);
	if (r != CUDA_SUCCESS || (r = cuStreamEndCapture(s, &g)) != CUDA_SUCCESS)
		return r;
	r = cuGraphInstantiate(exec, g, 0);
	cuGraphDestroy(g); // what is left of a recording does no harm
	return r;
}

// cudrvLoad loads a module; what the driver's compiler and linker complain of goes into log.
static inline CUresult cudrvLoad(CUcontext ctx, CUmodule *m, const void *image, char *log, unsigned size) {
	CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
	void *values[] = {log, (void *)(size_t)size};
	CUresult r = cuCtxSetCurrent(ctx);
	return r != CUDA_SUCCESS ? r : cuModuleLoadDataEx(m, image, 2, options, values);
}

// cudrvTensorMap writes the 128 bytes of a map of a matrix to out, which may lie anywhere.
static inline CUresult cudrvTensorMap(CUcontext ctx, void *out, CUtensorMapDataType type, CUdeviceptr p, uint64_t rows, uint64_t columns, uint64_t stride,
	uint32_t boxRows, uint32_t boxColumns, CUtensorMapSwizzle swizzle) {
	_Alignas(64) CUtensorMap map;
	cuuint64_t size[] = {columns, rows}, strides[] = {stride};
	cuuint32_t box[] = {boxColumns, boxRows}, steps[] = {1, 1};
	CUresult r = cuCtxSetCurrent(ctx);
	if (r != CUDA_SUCCESS)
		return r;
	r = cuTensorMapEncodeTiled(&map, type, 2, (void *)(uintptr_t)p, size, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
		CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	if (r == CUDA_SUCCESS)
		__builtin_memcpy(out, &map, sizeof map);
	return r;
}

#define WITH(ctx, call)                                                                                                  \
	do {                                                                                                             \
		CUresult r = cuCtxSetCurrent(ctx);                                                                       \
		return r != CUDA_SUCCESS ? r : (call);                                                                   \
	} while (0)

static inline CUresult cudrvAlloc(CUcontext c, CUdeviceptr *p, size_t n) { WITH(c, cuMemAlloc(p, n)); }
static inline CUresult cudrvFree(CUcontext c, CUdeviceptr p) { WITH(c, cuMemFree(p)); }
static inline CUresult cudrvPin(CUcontext c, void **p, size_t n) { WITH(c, cuMemHostAlloc(p, n, 0)); }
static inline CUresult cudrvUnpin(CUcontext c, void *p) { WITH(c, cuMemFreeHost(p)); }
static inline CUresult cudrvIn(CUcontext c, CUdeviceptr to, const void *from, size_t n) { WITH(c, cuMemcpyHtoD(to, from, n)); }
static inline CUresult cudrvOut(CUcontext c, void *to, CUdeviceptr from, size_t n) { WITH(c, cuMemcpyDtoH(to, from, n)); }
static inline CUresult cudrvInAsync(CUcontext c, CUdeviceptr to, const void *from, size_t n, CUstream s) { WITH(c, cuMemcpyHtoDAsync(to, from, n, s)); }
static inline CUresult cudrvOutAsync(CUcontext c, void *to, CUdeviceptr from, size_t n, CUstream s) { WITH(c, cuMemcpyDtoHAsync(to, from, n, s)); }
static inline CUresult cudrvFill(CUcontext c, CUdeviceptr p, unsigned char v, size_t n, CUstream s) { WITH(c, cuMemsetD8Async(p, v, n, s)); }
static inline CUresult cudrvInfo(CUcontext c, size_t *free, size_t *total) { WITH(c, cuMemGetInfo(free, total)); }
static inline CUresult cudrvStream(CUcontext c, CUstream *s) { WITH(c, cuStreamCreate(s, CU_STREAM_NON_BLOCKING)); }
static inline CUresult cudrvStreamClose(CUcontext c, CUstream s) { WITH(c, cuStreamDestroy(s)); }
static inline CUresult cudrvSync(CUcontext c, CUstream s) { WITH(c, cuStreamSynchronize(s)); }
static inline CUresult cudrvCapture(CUcontext c, CUstream s) { WITH(c, cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED)); }
static inline CUresult cudrvGraphClose(CUcontext c, CUgraphExec g) { WITH(c, cuGraphExecDestroy(g)); }
static inline CUresult cudrvEvent(CUcontext c, CUevent *e) { WITH(c, cuEventCreate(e, CU_EVENT_DEFAULT)); }
static inline CUresult cudrvEventClose(CUcontext c, CUevent e) { WITH(c, cuEventDestroy(e)); }
static inline CUresult cudrvEventRecord(CUcontext c, CUevent e, CUstream s) { WITH(c, cuEventRecord(e, s)); }
static inline CUresult cudrvEventSync(CUcontext c, CUevent e) { WITH(c, cuEventSynchronize(e)); }
static inline CUresult cudrvElapsed(CUcontext c, float *ms, CUevent from, CUevent to) { WITH(c, cuEventElapsedTime(ms, from, to)); }
static inline CUresult cudrvUnload(CUcontext c, CUmodule m) { WITH(c, cuModuleUnload(m)); }
static inline CUresult cudrvFunction(CUcontext c, CUfunction *f, CUmodule m, const char *name) { WITH(c, cuModuleGetFunction(f, m, name)); }
static inline CUresult cudrvAttribute(CUcontext c, int *v, CUfunction_attribute a, CUfunction f) { WITH(c, cuFuncGetAttribute(v, a, f)); }
static inline CUresult cudrvSetAttribute(CUcontext c, CUfunction f, CUfunction_attribute a, int v) { WITH(c, cuFuncSetAttribute(f, a, v)); }

#endif

// driver.c: a driver with one GPU that is made of host memory, for tests. Work is done at once, or recorded where a stream
// captures. It refuses calls without the context, handles and memory that it did not give or that were given back, and
// the end of a context of which something is left. Its kernel is add, of cudrv_test.go.
#include "../libcuda/cuda.h"

#include <pthread.h>
#include <string.h>

struct CUctx_st { int uses, left; };
struct CUmod_st { int live; };
struct CUfunc_st { int shared; };
struct CUevent_st { int live, recorded; double ms; };
struct work { CUdeviceptr p; uint32_t v; double ms; };
struct CUgraph_st { int n; struct work work[16]; };
struct CUgraphExec_st { int live; struct CUgraph_st graph; };
struct CUstream_st { int live; CUgraph capture; };

enum { most = 64 };
static const size_t total = 1 << 28;
static struct { char *p; size_t n; } blocks[most];
static struct CUctx_st context;
static struct CUfunc_st add = {49152};
static _Thread_local CUcontext current;
static double now; // milliseconds; a launch takes one, half of that where it starts before the one before it is done

#define IN_CONTEXT                                                                                                       \
	if (current != &context || !context.uses)                                                                        \
	return CUDA_ERROR_INVALID_CONTEXT
#define LIVE(h)                                                                                                          \
	if (!(h) || !(h)->live)                                                                                          \
	return CUDA_ERROR_INVALID_HANDLE

// Handles are not freed, so that one that was closed is known when it comes again.
static void *handle(size_t size) {
	int *h = calloc(1, size);
	*h = 1;
	context.left++;
	return h;
}
static CUresult closed(int *live) {
	*live = 0;
	context.left--;
	return CUDA_SUCCESS;
}

static int block(const void *p, size_t n) {
	for (int i = 0; i < most; i++)
		if (blocks[i].p && (const char *)p >= blocks[i].p && (const char *)p + n <= blocks[i].p + blocks[i].n)
			return i;
	return -1;
}
static CUresult take(void **p, size_t n) {
	IN_CONTEXT;
	if (n > total)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (int i = 0; i < most; i++)
		if (!blocks[i].p) {
			*p = blocks[i].p = malloc(n);
			blocks[i].n = n;
			context.left++;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_OUT_OF_MEMORY;
}
static CUresult give(void *p) {
	IN_CONTEXT;
	int i = block(p, 1);
	if (i < 0 || blocks[i].p != p)
		return CUDA_ERROR_INVALID_VALUE;
	free(p);
	blocks[i].p = 0;
	context.left--;
	return CUDA_SUCCESS;
}
static void *host(CUdeviceptr p) { return (void *)(uintptr_t)p; }

CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *v) { return *v = 12060, CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult r, const char **s) {
	*s = r == CUDA_ERROR_INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : r == CUDA_ERROR_NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : 0;
	return *s ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGetErrorString(CUresult r, const char **s) {
	*s = r == CUDA_ERROR_INVALID_VALUE ? "invalid argument" : 0;
	return *s ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuDeviceGetCount(int *n) { return *n = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *d, int i) { return *d = i, i ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *s, int n, CUdevice d) {
	strncpy(s, "Fake GPU", (size_t)n);
	return d ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
	switch ((int)a) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *v = 9; break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *v = 1; break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *v = 3; break;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *v = 1000; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *v = 232448; break;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	return d ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) {
	context.uses++;
	return *c = &context, d ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) {
	if (d || !context.uses)
		return CUDA_ERROR_INVALID_CONTEXT;
	return --context.uses == 0 && context.left ? CUDA_ERROR_ILLEGAL_STATE : CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext c) { return current = c, CUDA_SUCCESS; }

CUresult cuMemAlloc(CUdeviceptr *p, size_t n) {
	void *q = 0;
	CUresult r = take(&q, n);
	return *p = (uintptr_t)q, r;
}
CUresult cuMemFree(CUdeviceptr p) { return give(host(p)); }
CUresult cuMemHostAlloc(void **p, size_t n, unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : take(p, n); }
CUresult cuMemFreeHost(void *p) { return give(p); }
CUresult cuMemGetInfo(size_t *f, size_t *t) {
	IN_CONTEXT;
	*f = *t = total;
	for (int i = 0; i < most; i++)
		*f -= blocks[i].p ? blocks[i].n : 0;
	return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t n) {
	IN_CONTEXT;
	if (block(host(to), n) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(host(to), from, n);
	return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t n) {
	IN_CONTEXT;
	if (block(host(from), n) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(to, host(from), n);
	return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t n, CUstream s) {
	LIVE(s);
	return block(from, n) < 0 ? CUDA_ERROR_INVALID_VALUE : cuMemcpyHtoD(to, from, n);
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream s) {
	LIVE(s);
	return block(to, n) < 0 ? CUDA_ERROR_INVALID_VALUE : cuMemcpyDtoH(to, from, n);
}
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s) {
	IN_CONTEXT;
	LIVE(s);
	if (block(host(p), n) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	memset(host(p), v, n);
	return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *s, unsigned int flags) {
	IN_CONTEXT;
	return *s = handle(sizeof **s), flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuStreamDestroy(CUstream s) {
	IN_CONTEXT;
	LIVE(s);
	return closed(&s->live);
}
CUresult cuStreamSynchronize(CUstream s) {
	IN_CONTEXT;
	LIVE(s);
	return s->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *e, unsigned int flags) {
	IN_CONTEXT;
	return *e = handle(sizeof **e), flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent e) {
	IN_CONTEXT;
	LIVE(e);
	return closed(&e->live);
}
CUresult cuEventRecord(CUevent e, CUstream s) {
	IN_CONTEXT;
	LIVE(e);
	LIVE(s);
	return e->recorded = 1, e->ms = now, CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent e) {
	IN_CONTEXT;
	LIVE(e);
	return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
	IN_CONTEXT;
	LIVE(from);
	LIVE(to);
	return *ms = (float)(to->ms - from->ms), from->recorded && to->recorded ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned int n, CUjit_option *option, void **value) {
	IN_CONTEXT;
	if (!strstr(image, ".visible .entry add(")) {
		for (unsigned int i = 0; i + 1 < n; i++)
			if (option[i] == CU_JIT_ERROR_LOG_BUFFER && option[i + 1] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
				strncpy(value[i], "fake, line 2; no add", (size_t)value[i + 1] - 1);
		return CUDA_ERROR_INVALID_PTX;
	}
	return *m = handle(sizeof **m), CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule m) {
	IN_CONTEXT;
	LIVE(m);
	return closed(&m->live);
}
CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
	IN_CONTEXT;
	LIVE(m);
	return *f = &add, strcmp(name, "add") ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
	IN_CONTEXT;
	*v = a == CU_FUNC_ATTRIBUTE_NUM_REGS ? 17 : a == CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES ? 0 : -1;
	return f != &add || *v < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
	IN_CONTEXT;
	if (a != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || v < 0 || v > 232448)
		return CUDA_ERROR_INVALID_VALUE;
	return f->shared = v, CUDA_SUCCESS;
}

static void run(struct work w) {
	uint32_t v;
	memcpy(&v, host(w.p), 4);
	v += w.v;
	memcpy(host(w.p), &v, 4);
	now += w.ms;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **p, void **extra) {
	IN_CONTEXT;
	CUstream s = c->hStream;
	LIVE(s);
	struct work w = {.ms = 1};
	uint32_t a;
	if (f != &add || !c->gridDimX || !c->gridDimY || !c->gridDimZ || !c->blockDimX || !c->blockDimY || !c->blockDimZ || extra ||
		(int)c->sharedMemBytes > f->shared)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < c->numAttrs; i++) {
		if (c->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
			return CUDA_ERROR_INVALID_VALUE;
		if (c->attrs[i].value.programmaticStreamSerializationAllowed)
			w.ms = 0.5;
	}
	memcpy(&w.p, p[0], sizeof w.p);
	memcpy(&w.v, p[1], 4);
	memcpy(&a, (char *)p[2] + 20, 4);
	w.v += a;
	if (block(host(w.p), 4) < 0)
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	if (!s->capture)
		return run(w), CUDA_SUCCESS;
	if (s->capture->n == 16)
		return CUDA_ERROR_OUT_OF_MEMORY;
	return s->capture->work[s->capture->n++] = w, CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, CUstream s,
	void **p, void **extra) {
	CUlaunchConfig c = {.gridDimX = gx, .gridDimY = gy, .gridDimZ = gz, .blockDimX = bx, .blockDimY = by, .blockDimZ = bz, .sharedMemBytes = shared,
		.hStream = s};
	return cuLaunchKernelEx(&c, f, p, extra);
}

CUresult cuStreamBeginCapture(CUstream s, CUstreamCaptureMode mode) {
	IN_CONTEXT;
	LIVE(s);
	if (s->capture || mode != CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_ILLEGAL_STATE;
	s->capture = calloc(1, sizeof *s->capture);
	context.left++;
	return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream s, CUgraph *g) {
	IN_CONTEXT;
	LIVE(s);
	*g = s->capture;
	s->capture = 0;
	return *g ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
}
CUresult cuGraphInstantiate(CUgraphExec *e, CUgraph g, unsigned long long flags) {
	IN_CONTEXT;
	*e = handle(sizeof **e);
	(*e)->graph = *g;
	return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph g) {
	IN_CONTEXT;
	free(g);
	context.left--;
	return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec e) {
	IN_CONTEXT;
	LIVE(e);
	return closed(&e->live);
}
CUresult cuGraphLaunch(CUgraphExec e, CUstream s) {
	IN_CONTEXT;
	LIVE(e);
	LIVE(s);
	for (int i = 0; i < e->graph.n; i++)
		run(e->graph.work[i]);
	return CUDA_SUCCESS;
}

// The map has what it was made of where a test can read it.
CUresult cuTensorMapEncodeTiled(CUtensorMap *m, CUtensorMapDataType type, cuuint32_t rank, void *p, const cuuint64_t *dim, const cuuint64_t *stride,
	const cuuint32_t *box, const cuuint32_t *step, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2,
	CUtensorMapFloatOOBfill fill) {
	IN_CONTEXT;
	(void)l2;
	if ((uintptr_t)m % 64 || rank != 2 || (uintptr_t)p % 16 || stride[0] % 16 || step[0] != 1 || step[1] != 1 || interleave || fill)
		return CUDA_ERROR_INVALID_VALUE;
	*m = (CUtensorMap){.opaque = {(uintptr_t)p, type, dim[0], dim[1], stride[0], box[0], box[1], swizzle}};
	return CUDA_SUCCESS;
}

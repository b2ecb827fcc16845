// libcuda.c: a libcuda to link against that needs no driver. Each function jumps to the driver's, once cuInit has found
// one; without a driver, or where the driver is too old to have it, it answers with an error. So a program that is linked
// with it starts on every machine, and a test at start says whether there is a GPU.
#include "cuda.h"
#include "libcuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static CUresult status = CUDA_ERROR_NOT_INITIALIZED;
static char reason[512];
static int found;

// absent stands where the driver has no function.
static CUresult absent(void) { return found ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_NOT_INITIALIZED; }

// Every function is one jump through a variable of its own, so that arguments of any kind pass untouched.
#if defined(__x86_64__)
#define JUMP(name) asm(".globl " #name "\n.type " #name ",@function\n" #name ": endbr64\njmp *driver_" #name "(%rip)\n");
#elif defined(__aarch64__)
#define JUMP(name)                                                                                                       \
	asm(".globl " #name "\n.type " #name ",@function\n" #name ": hint #34\nadrp x16, driver_" #name "\n"             \
	    "ldr x16, [x16, :lo12:driver_" #name "]\nbr x16\n");
#endif
#define FUNCTION(name, parameters)                                                                                       \
	__attribute__((used, visibility("hidden"))) void *driver_##name = (void *)absent;                                \
	JUMP(name)
asm(".text");
#include "functions.h"
#undef FUNCTION

static void *driver_init;

static void find(void) {
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		snprintf(reason, sizeof reason, "%s", dlerror());
		return;
	}
	driver_init = dlsym(lib, "cuInit");
	if (!driver_init) {
		snprintf(reason, sizeof reason, "libcuda.so.1 has no cuInit");
		return;
	}
	found = 1;
	void *f;
#define FUNCTION(name, parameters)                                                                                       \
	if ((f = dlsym(lib, #name)))                                                                                     \
		driver_##name = f;
#include "functions.h"
#undef FUNCTION
	status = ((CUresult(*)(unsigned int))driver_init)(0);
	const char *text = 0;
	if (status != CUDA_SUCCESS && (cuGetErrorString(status, &text) != CUDA_SUCCESS || !text))
		text = "it does not say why";
	if (text)
		snprintf(reason, sizeof reason, "it does not start: %s (%d)", text, status);
}

// cuInit always succeeds: gorgonia.org/cu calls it when a program starts, and ends the program if it does not. Whether
// there is a driver is for cudaDriverStatus to say.
CUresult cuInit(unsigned int flags) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)flags;
	pthread_once(&once, find);
	return CUDA_SUCCESS;
}

CUresult cudaDriverStatus(const char **why) {
	cuInit(0);
	*why = reason;
	return status;
}

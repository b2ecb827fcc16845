// What the machine can do at most: reading memory, and multiply-adds in registers.
#define _GNU_SOURCE
#include "pool.h"

#include <stdatomic.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static _Atomic uint64_t sink; // keeps the work from being optimised away

enum { READ_CHUNK = 4 << 20 };

typedef struct {
  const char *p;
  int streams;
} read_job;

typedef uint64_t line __attribute__((vector_size(64), may_alias));

// read_streams reads a chunk as S interleaved linear streams.
static inline __attribute__((always_inline)) uint64_t read_streams(const char *p, const int S) {
  line a[8] = {{0}};
  const int64_t part = READ_CHUNK / S;
  for (int64_t i = 0; i < part; i += 512 / S)
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) a[u] ^= *(const line *)(p + u / (8 / S) * part + i + u % (8 / S) * 64);
  for (int u = 1; u < 8; u++) a[0] ^= a[u];
  return a[0][0] ^ a[0][1] ^ a[0][2] ^ a[0][3] ^ a[0][4] ^ a[0][5] ^ a[0][6] ^ a[0][7];
}

static void read_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const read_job *j = ctx;
  const char *p = j->p + chunk * READ_CHUNK;
  sink += j->streams == 1 ? read_streams(p, 1) : read_streams(p, 8);
}

double kn_read_seconds(kn_dev *d, const void *p, size_t bytes, int streams) {
  read_job j = {p, streams};
  double t = now();
  kn_run(d, read_chunk, &j, (int64_t)(bytes / READ_CHUNK));
  return now() - t;
}

typedef struct {
  float (*f)(int64_t, double *);
  double flops;
} peak_job;

enum { PEAK_CHUNKS = 32, PEAK_ITERS = 100000 }; // per thread; per chunk, about half a millisecond

static void peak_chunk(void *ctx, int64_t chunk, int worker) {
  (void)chunk, (void)worker;
  peak_job *j = ctx;
  double flops;
  sink += (uint64_t)(int64_t)j->f(PEAK_ITERS, &flops);
}

static double peak_seconds(kn_dev *d, float (*f)(int64_t, double *), double *flops) {
  peak_job j = {.f = f};
  int64_t chunks = (int64_t)PEAK_CHUNKS * kn_threads(d);
  f(1, flops);
  *flops *= (double)PEAK_ITERS * (double)chunks;
  if (*flops == 0) return 0;
  double t = now();
  kn_run(d, peak_chunk, &j, chunks);
  return now() - t;
}

double kn_fma_seconds(kn_dev *d, double *flops) { return peak_seconds(d, kn_dev_ops(d)->fma, flops); }

double kn_dot_seconds(kn_dev *d, double *flops) { return peak_seconds(d, kn_dev_ops(d)->dot, flops); }

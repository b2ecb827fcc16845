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
  float (*read)(const char *, int64_t, int);
} read_job;

static void read_chunk(void *ctx, int64_t chunk, int worker) {
  (void)worker;
  const read_job *j = ctx;
  sink += (uint64_t)(int64_t)j->read(j->p + chunk * READ_CHUNK, READ_CHUNK, j->streams);
}

double kn_read_seconds(kn_dev *d, const void *p, size_t bytes, int streams) {
  read_job j = {p, streams, kn_dev_ops(d)->read};
  double t = now();
  kn_run(d, read_chunk, &j, (int64_t)(bytes / READ_CHUNK));
  return now() - t;
}

typedef struct {
  float (*f)(int64_t, double *);
  double flops;
} peak_job;

enum { PEAK_CHUNKS = 8, PEAK_ITERS = 50000 }; // per thread; per chunk, about a quarter of a millisecond

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

double kn_int8_seconds(kn_dev *d, double *ops) { return peak_seconds(d, kn_dev_ops(d)->int8, ops); }

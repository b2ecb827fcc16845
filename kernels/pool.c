// The worker pool. On a machine shared with others a worker may lose its processor at any moment, so work is never
// split into fixed halves, and nobody spins for longer than a thread takes to wake up.
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
  void *p;
  size_t bytes;
} scratch;

typedef struct {
  kn_dev *dev;
  int id;
  pthread_t thread;
} worker;

struct kn_dev {
  const kn_ops *ops;
  int threads, started;
  worker *workers; // [threads]; 0 is the calling thread
  scratch *own;    // [threads]
  scratch shared, runs;

  // The job. Written by the caller while open is 0 and nobody is active.
  kn_fn fn;
  void *ctx;
  int64_t chunks;
  alignas(64) atomic_llong next;  // chunk to take
  alignas(64) atomic_int open;    // 1: chunks may be taken
  atomic_int active;              // workers that may be looking at the job
  alignas(64) atomic_uint posted; // number of jobs so far: what idle workers watch
  atomic_int parked, waiting, stop;

  pthread_mutex_t mu; // guards nothing but the two sleeps
  pthread_cond_t work, done;
};

enum { SPINS = 1000 }; // about 20 to 40 microseconds

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take(kn_dev *d, int id) {
  for (;;) {
    int64_t i = atomic_fetch_add_explicit(&d->next, 1, memory_order_relaxed);
    if (i >= d->chunks) return;
    d->fn(d->ctx, i, id);
  }
}

// await returns when there is a job after number seen, or the pool stops.
static void await(kn_dev *d, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load(&d->posted) != seen || atomic_load(&d->stop)) return;
    relax();
  }
  pthread_mutex_lock(&d->mu);
  atomic_fetch_add(&d->parked, 1);
  while (atomic_load(&d->posted) == seen && !atomic_load(&d->stop)) pthread_cond_wait(&d->work, &d->mu);
  atomic_fetch_sub(&d->parked, 1);
  pthread_mutex_unlock(&d->mu);
}

static void *work(void *arg) {
  worker *w = arg;
  kn_dev *d = w->dev;
  unsigned seen = 0;
  for (;;) {
    await(d, seen);
    if (atomic_load(&d->stop)) return NULL;
    seen = atomic_load(&d->posted);
    // Active first, then open: the caller closes first, then looks for actives. So one sees the other.
    atomic_fetch_add(&d->active, 1);
    if (atomic_load(&d->open)) take(d, w->id);
    if (atomic_fetch_sub(&d->active, 1) == 1 && atomic_load(&d->waiting)) {
      pthread_mutex_lock(&d->mu);
      pthread_cond_signal(&d->done);
      pthread_mutex_unlock(&d->mu);
    }
  }
}

void kn_run(kn_dev *d, kn_fn fn, void *ctx, int64_t chunks) {
  if (d->threads == 1 || chunks <= 1) {
    for (int64_t i = 0; i < chunks; i++) fn(ctx, i, 0);
    return;
  }
  d->fn = fn;
  d->ctx = ctx;
  d->chunks = chunks;
  atomic_store(&d->next, 0);
  atomic_store(&d->open, 1);
  atomic_fetch_add(&d->posted, 1);
  if (atomic_load(&d->parked) > 0) {
    pthread_mutex_lock(&d->mu);
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->mu);
  }
  take(d, 0);
  atomic_store(&d->open, 0);
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load(&d->active) == 0) return;
    relax();
  }
  pthread_mutex_lock(&d->mu);
  atomic_store(&d->waiting, 1);
  while (atomic_load(&d->active) != 0) pthread_cond_wait(&d->done, &d->mu);
  atomic_store(&d->waiting, 0);
  pthread_mutex_unlock(&d->mu);
}

// grow makes room. What was there is not kept.
static int grow(scratch *s, size_t bytes) {
  if (bytes <= s->bytes) return KN_OK;
  free(s->p);
  *s = (scratch){0};
  bytes = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
  if (posix_memalign(&s->p, 64, bytes)) {
    s->p = NULL;
    return KN_NOMEM;
  }
  s->bytes = bytes;
  return KN_OK;
}

int kn_reserve(kn_dev *d, size_t bytes) {
  for (int i = 0; i < d->threads; i++)
    if (grow(&d->own[i], bytes)) return KN_NOMEM;
  return KN_OK;
}

int kn_reserve_shared(kn_dev *d, size_t bytes) { return grow(&d->shared, bytes); }

void *kn_scratch(kn_dev *d, int worker) { return worker == KN_SHARED ? d->shared.p : d->own[worker].p; }

kn_run_lora *kn_lora_runs(kn_dev *d, int64_t n) {
  return grow(&d->runs, (size_t)n * sizeof(kn_run_lora)) ? NULL : d->runs.p;
}

kn_group *kn_groups(kn_dev *d, int64_t n) { return grow(&d->runs, (size_t)n * sizeof(kn_group)) ? NULL : d->runs.p; }

const kn_ops *kn_dev_ops(kn_dev *d) { return d->ops; }

int kn_threads(const kn_dev *d) { return d->threads; }

// start makes threads that take none of the process's signals, which are the Go runtime's, but faults of their own.
static int start(kn_dev *d) {
  sigset_t block, old;
  sigfillset(&block);
  sigdelset(&block, SIGSEGV);
  sigdelset(&block, SIGBUS);
  sigdelset(&block, SIGFPE);
  sigdelset(&block, SIGILL);
  pthread_sigmask(SIG_SETMASK, &block, &old);
  for (d->started = 1; d->started < d->threads; d->started++) {
    worker *w = &d->workers[d->started];
    *w = (worker){.dev = d, .id = d->started};
    if (pthread_create(&w->thread, NULL, work, w)) break;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return d->started == d->threads ? KN_OK : KN_NOMEM;
}

kn_dev *kn_open(int variant, int threads) {
  void *p = NULL;
  if (posix_memalign(&p, 64, sizeof(kn_dev))) return NULL;
  kn_dev *d = p;
  *d = (kn_dev){.ops = kn_ops_of(variant), .threads = threads, .started = 1};
  pthread_mutex_init(&d->mu, NULL);
  pthread_cond_init(&d->work, NULL);
  pthread_cond_init(&d->done, NULL);
  d->workers = calloc((size_t)threads, sizeof *d->workers);
  d->own = calloc((size_t)threads, sizeof *d->own);
  if (!d->workers || !d->own || start(d)) {
    kn_close(d);
    return NULL;
  }
  return d;
}

void kn_close(kn_dev *d) {
  pthread_mutex_lock(&d->mu);
  atomic_store(&d->stop, 1);
  pthread_cond_broadcast(&d->work);
  pthread_mutex_unlock(&d->mu);
  for (int i = 1; i < d->started; i++) pthread_join(d->workers[i].thread, NULL);
  for (int i = 0; d->own && i < d->threads; i++) free(d->own[i].p);
  free(d->shared.p);
  free(d->runs.p);
  free(d->own);
  free(d->workers);
  pthread_cond_destroy(&d->work);
  pthread_cond_destroy(&d->done);
  pthread_mutex_destroy(&d->mu);
  free(d);
}

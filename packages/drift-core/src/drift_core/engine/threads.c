/* Threads for the loops.

   Torch's OpenMP threads stay awake for milliseconds after an operation of torch, and would keep the
   processors from others that are started in the meantime. Where the process has an OpenMP runtime, its threads do
   the work instead: GOMP_parallel is the entry point of GNU's runtime, which LLVM's and Intel's have, too. */

#define _GNU_SOURCE
#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

typedef void Parallel(void (*function)(void *), void *argument, unsigned threads, unsigned flags);

static Parallel *parallel;
static int owner; /* the process that has the runtime's threads */

/* An entry point: look for an OpenMP runtime, which a fork of `process` cannot use: it has none of its threads. */
void drift_find_openmp(int process) {
    parallel = (Parallel *)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    owner = process;
}

typedef struct {
    void *(*function)(void *);
    void *argument;
    int64_t count;
    _Atomic int64_t started;
} Call;

/* Weights too small for a float32 are 0: sums of them would take an age on some processors. */
static void call(void *argument) {
    Call *c = argument;
    if (atomic_fetch_add(&c->started, 1) >= c->count) return;
#ifdef __SSE2__
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | _MM_FLUSH_ZERO_ON);
    c->function(c->argument);
    _mm_setcsr(mode);
#else
    c->function(c->argument);
#endif
}

static void *call_in_thread(void *argument) {
    call(argument);
    return NULL;
}

void drift_threads(int64_t threads, int64_t tasks, void *(*function)(void *), void *argument) {
    int64_t started = 0;
    Call c = {function, argument, threads < tasks ? threads : tasks, 0};
    if (c.count > 1 && parallel && getpid() == owner) {
        /* As many as torch wants, so that none of them ends here and has to be started again. */
        parallel(call, &c, (unsigned)threads, 0);
        return;
    }
    pthread_t *others = calloc(c.count > 1 ? c.count : 1, sizeof *others);
    while (others && started < c.count - 1 && pthread_create(others + started, NULL, call_in_thread, &c) == 0)
        started++;
    call(&c);
    for (int64_t t = 0; t < started; t++) pthread_join(others[t], NULL);
    free(others);
}

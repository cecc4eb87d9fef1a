/* Threads for the loops. */

#ifndef DRIFT_THREADS_H
#define DRIFT_THREADS_H

#include <stdint.h>

/* Call a function in `threads` threads, this one included, or in as many as there are tasks or the system gives. */
void drift_threads(int64_t threads, int64_t tasks, void *(*function)(void *), void *argument);

#endif

/* Detached threads, with small stacks: one for each connection on which there is work. A thread
 * that has done its work waits as a spare for the next connection. Any thread may call these
 * functions. */
#ifndef THREAD_H
#define THREAD_H

#include <stdatomic.h>
#include <stdbool.h>

/* A thread's stack in bytes. Builds with sanitizers need more. */
#ifndef THREAD_STACK_SIZE
#define THREAD_STACK_SIZE 98304
#endif

enum {
	/* How many spare threads are kept; thread_end_surplus() ends more. */
	THREAD_SPARES = 12,

	/* How long a quiet connection keeps its thread; less if threads are short. */
	THREAD_QUIET_MS = 1000,
};

struct connection;

/* Starts a thread that runs RUN with ARGUMENT and is never joined. Returns 0, or an errno. */
int thread_start(void *(*run)(void *), void *argument);

/* Allows MAX threads at once, each of which calls SERVE for one connection after another. To be
 * called once, before the others. */
void thread_prepare(unsigned max, void (*serve)(struct connection *c));

/* Gives C to a thread, a spare one or a new one. If none can be had now, returns false, and C is
 * still the caller's; or waits for one, if it WAITS. */
bool thread_spawn(struct connection *c, bool waits);

/* Makes sure that a thread is spare beyond those that callers wait for. Returns 0, or an errno. */
int thread_ensure(void);

/* Ends the spare threads that were not needed for a second, except for THREAD_SPARES. To be
 * called again and again. */
void thread_end_surplus(void);

struct thread_counts {
	unsigned threads; /* now */
	unsigned limit;   /* how many there may be: fewer if the system has refused one of late */
	unsigned waiting; /* how many callers of thread_spawn() wait for one */
};

struct thread_counts thread_count(void);

/* Whether fewer than an eighth of all possible threads are still to be had. */
bool thread_is_short(void);

/* How long a quiet connection keeps its thread now, in milliseconds: 0 if there is no other. */
extern atomic_int thread_quiet_ms;

#endif

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
	/* Number of spare threads that are kept; thread_look_after() ends more. */
	THREAD_SPARES = 12,

	/* How long a quiet connection keeps its thread; shorter if threads are short. */
	THREAD_QUIET_MS = 1000,
};

struct connection;

/* Starts a thread that runs RUN with ARGUMENT and is never joined. Returns 0, or an errno. */
int thread_start(void *(*run)(void *), void *argument);

/* Allows MAX threads at once, each of which calls SERVE for one connection after another. Call it
 * once, before the others. */
void thread_prepare(unsigned max, void (*serve)(struct connection *c));

/* Gives C to a spare or a new thread. If none is available, waits for one if it WAITS; otherwise
 * returns false, and the caller still owns C. */
bool thread_spawn(struct connection *c, bool waits);

/* Makes sure that a thread is spare besides those that callers wait for. Returns 0, or an errno. */
int thread_ensure(void);

/* Ends the spare threads that were not needed for a second, except for THREAD_SPARES. Interrupts
 * calls that last longer, by a signal. Call it regularly. */
void thread_look_after(void);

/* Call this before and after a call that a backend may prolong, although it does not block: if a
 * message passes a descriptor, whoever discards it closes the descriptor, and that waits as long as
 * the backend likes (SO_LINGER). Then thread_look_after() interrupts it. */
void thread_mark_call(void);

struct thread_counts {
	unsigned threads; /* now */
	unsigned limit;   /* of threads; lower if the system has recently refused one */
	unsigned waiting; /* how many callers of thread_spawn() wait for one */
};

struct thread_counts thread_count(void);

/* Whether fewer than an eighth of all possible threads are available. */
bool thread_is_short(void);

/* How long a quiet connection keeps its thread at present, in milliseconds: 0 if all are busy. */
extern atomic_int thread_quiet_ms;

#endif

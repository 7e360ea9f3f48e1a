/* Threads: a pool of them, with small stacks, their interruption, their names. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

/* A thread's stack in bytes. Builds with sanitizers need more. */
#ifndef THREAD_STACK_SIZE
#define THREAD_STACK_SIZE 65536
#endif

/* The longest name of a thread: what is longer is cut off (prctl(2), PR_SET_NAME). */
enum { THREAD_NAME_MAX = 15 };

/* The calling thread's name. All zero at first. */
struct thread_name {
	char text[THREAD_NAME_MAX + 1];
	struct timespec given_at; /* the tick, where that was for a moment */
};

/* Starts a thread that runs RUN with ARGUMENT and is never joined. Returns 0, or an
 * errno. */
int thread_start(void *(*run)(void *), void *argument);

/* Says what the threads of the pool run, how many of them shall be free to work, and how many there
 * may be in all. To be called once, before there are any. */
void thread_pool_prepare(void *(*run)(void *), unsigned wanted, unsigned max);

/* Sees to it that as many threads of the pool are free as shall be. Returns 0, or an errno where not
 * one is: then all work has to wait, and this is to be called again. The main thread is woken where
 * it comes to that. */
int thread_pool_ensure(void);

/* To be called by a thread of the pool before and after a system call in which it may wait for long:
 * meanwhile it is not free, and another takes its place. */
void thread_begin_wait(void);
void thread_end_wait(void);

/* To be called by a thread of the pool that has nothing to do. Returns whether more than SPARE_MAX are
 * free besides those that shall be, so that this one is to end; then it is not counted any more. */
bool thread_is_spare(int spare_max);

/* How many threads the pool has. */
unsigned thread_pool_size(void);

/* Remembers the calling thread as the main one, and makes SIGUSR2 interrupt system calls. The main
 * thread blocks that signal but in pselect(2); threads that it has started, until they allow it. To
 * be called once, before there are others. */
void thread_prepare(void);
void thread_allow_interrupts(void);

/* Whether the calling thread is the main one. */
bool thread_is_main(void);

/* Interrupts the system call in which THREAD is, if it is in one just then. */
void thread_interrupt(pthread_t thread);

/* Ends the main thread's wait, or the next one if it does not wait just then. */
void thread_wake_main(void);

/* Gives the calling thread the name of the HOST that it works for, empty where it works for none,
 * for ps(1) and top(1). Where that will not LAST, it is done once a tick at most, since the
 * system call takes half a microsecond: who looks sees one of the names that it had. */
void thread_set_name(struct thread_name *name, const char *host, bool lasts);

#endif

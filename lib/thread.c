#include "lib/thread.h"

#include "lib/clock.h"
#include "system/system.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

enum {
	/* Threads are short while fewer than 1/SHORT of them are available. */
	SHORT = 8,

	/* How often surplus spare threads are ended, and long calls interrupted. */
	LOOK_MS = 1000,
};

/* A thread; it lies on that thread's stack. */
struct worker {
	struct worker *next, *previous; /* all threads; first members, for insque(3) */
	pthread_t thread;

	struct worker *next_spare;
	sem_t has_work;
	struct connection *connection;

	atomic_uint calls; /* begun and ended: odd during one */
	unsigned seen;     /* its value at the last look */
};

static _Thread_local struct worker *self;

static struct {
	/* Set before any thread starts: */
	unsigned max;
	void (*serve)(struct connection *c);

	atomic_bool is_short; /* any thread may read it */

	pthread_mutex_t mutex;    /* guards what follows */
	pthread_cond_t has_spare; /* for thread_spawn() */
	struct thread_counts counts;
	unsigned spare_count, spare_least; /* now; the least since the last look */
	int64_t looked_ms;
	struct worker *spares; /* the last one first: its stack is in the cache */
	struct worker first;   /* the one that called thread_prepare() */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .has_spare = PTHREAD_COND_INITIALIZER};

atomic_int thread_quiet_ms = THREAD_QUIET_MS;

int
thread_start(void *(*run)(void *), void *argument)
{
	pthread_t thread;
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);
	if (error != 0)
		return error;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* Some machines need more. */
	long size_min = sysconf(_SC_THREAD_STACK_MIN);
	size_t size = size_min > THREAD_STACK_SIZE ? (size_t)size_min : THREAD_STACK_SIZE;
	error = pthread_attr_setstacksize(&attributes, size);
	if (error == 0)
		error = pthread_create(&thread, &attributes, run, argument);
	pthread_attr_destroy(&attributes);
	return error;
}

static void
do_nothing(int signal)
{
	(void)signal;
}

void
thread_prepare(unsigned max, void (*serve)(struct connection *c))
{
	const struct sigaction action = {.sa_handler = do_nothing};
	pool.max = pool.counts.limit = max;
	pool.serve = serve;
	pool.first.next = pool.first.previous = &pool.first;
	pool.first.thread = pthread_self();
	self = &pool.first;
	sigaction(SIGURG, &action, NULL);
}

/* Updates the quiet time, which is shorter the fewer threads are available. Requires the lock. */
static void
adapt_quiet_ms(void)
{
	const struct thread_counts *now = &pool.counts;
	unsigned few = now->limit / SHORT + 1;
	unsigned taken = now->threads - pool.spare_count + now->waiting;
	unsigned free = taken < now->limit ? now->limit - taken : 0;
	int ms = free >= few ? THREAD_QUIET_MS : (int)(THREAD_QUIET_MS * free / few);
	pool.is_short = free < few;
	atomic_store_explicit(&thread_quiet_ms, ms, memory_order_relaxed);
}

/* Waits for the next connection as a spare. Returns NULL if the thread must end. */
static struct connection *
next_connection(struct worker *me)
{
	pthread_mutex_lock(&pool.mutex);
	me->next_spare = pool.spares;
	pool.spares = me;
	pool.spare_count++;
	adapt_quiet_ms();
	pthread_cond_signal(&pool.has_spare);
	pthread_mutex_unlock(&pool.mutex);
	while (sem_wait(&me->has_work) == -1)
		;
	return me->connection;
}

static void *
run(void *first)
{
	struct worker me = {.connection = first, .thread = pthread_self()};
	struct connection *c = first;
	self = &me;
	sem_init(&me.has_work, 0, 0);
	system_schedule_batch();
	pthread_mutex_lock(&pool.mutex);
	insque(&me, &pool.first);
	pthread_mutex_unlock(&pool.mutex);
	while (c != NULL || (c = next_connection(&me)) != NULL) {
		pool.serve(c);
		c = NULL;
	}
	pthread_mutex_lock(&pool.mutex);
	remque(&me);
	pthread_mutex_unlock(&pool.mutex);
	sem_destroy(&me.has_work);
	system_release_stack((size_t)40 * 1024); /* relay_run() uses most of it */
	return NULL;
}

/* Starts a thread for C, or a spare one if C is NULL. Requires the lock, and releases it meanwhile.
 * Returns 0, or an errno. If the system refuses, lowers the limit to the present number of threads;
 * thread_look_after() raises it again. */
static int
make_thread(struct connection *c)
{
	if (pool.counts.threads >= pool.max)
		return EAGAIN;
	pool.counts.threads++;
	pthread_mutex_unlock(&pool.mutex);
	int error = thread_start(run, c);
	pthread_mutex_lock(&pool.mutex);
	if (error != 0)
		pool.counts.limit = --pool.counts.threads;
	return error;
}

/* Takes a spare thread, or returns NULL. Requires the lock. */
static struct worker *
take_spare(void)
{
	struct worker *spare = pool.spares;
	if (spare != NULL) {
		pool.spares = spare->next_spare;
		pool.spare_count--;
		if (pool.spare_count < pool.spare_least)
			pool.spare_least = pool.spare_count;
	}
	return spare;
}

static void
give(struct worker *spare, struct connection *c)
{
	spare->connection = c;
	sem_post(&spare->has_work);
}

/* Interrupts the calls that have lasted since the last look. Requires the lock, so that no thread
 * ends. */
static void
interrupt_calls(void)
{
	struct worker *w = &pool.first;
	do {
		unsigned calls = atomic_load(&w->calls);
		if (calls % 2 != 0 && calls == w->seen)
			pthread_kill(w->thread, SIGURG);
		w->seen = calls;
		w = w->next;
	} while (w != &pool.first);
}

/* Waits for a spare thread, and interrupts long calls meanwhile. Requires the lock. */
static void
wait_for_spare(void)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += LOOK_MS / 1000;
	if (pthread_cond_timedwait(&pool.has_spare, &pool.mutex, &end) == ETIMEDOUT)
		interrupt_calls();
}

/* Only its thread writes this count. */
void
thread_mark_call(void)
{
	if (self != NULL)
		atomic_store_explicit(&self->calls, self->calls + 1, memory_order_relaxed);
}

bool
thread_spawn(struct connection *c, bool waits)
{
	int error = 0;
	struct worker *spare;
	pthread_mutex_lock(&pool.mutex);
	pool.counts.waiting += waits;
	while ((spare = take_spare()) == NULL && (error = make_thread(c)) != 0 && waits) {
		adapt_quiet_ms();
		if (pool.spares == NULL) /* none has become spare while the lock was released */
			wait_for_spare();
	}
	pool.counts.waiting -= waits;
	adapt_quiet_ms();
	pthread_mutex_unlock(&pool.mutex);
	if (spare != NULL)
		give(spare, c);
	return spare != NULL || error == 0;
}

int
thread_ensure(void)
{
	int error = 0;
	pthread_mutex_lock(&pool.mutex);
	if (pool.spares == NULL || pool.counts.waiting > 0)
		error = make_thread(NULL);
	adapt_quiet_ms();
	pthread_mutex_unlock(&pool.mutex);
	return error;
}

void
thread_look_after(void)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&pool.mutex);
	if (now_ms - pool.looked_ms >= LOOK_MS) {
		interrupt_calls();
		for (unsigned n = pool.spare_least; n > THREAD_SPARES; n--) {
			give(take_spare(), NULL);
			pool.counts.threads--;
		}
		pool.spare_least = pool.spare_count;
		pool.looked_ms = now_ms;
		unsigned limit = pool.counts.limit * 3 / 2 + 1; /* more may be allowed by now */
		pool.counts.limit = limit < pool.max ? limit : pool.max;
		adapt_quiet_ms();
	}
	pthread_mutex_unlock(&pool.mutex);
}

bool
thread_is_short(void)
{
	return pool.is_short;
}

struct thread_counts
thread_count(void)
{
	pthread_mutex_lock(&pool.mutex);
	struct thread_counts counts = pool.counts;
	pthread_mutex_unlock(&pool.mutex);
	return counts;
}

/* Tests of thread.c: connections that are only numbers, and a function that serves each until the
 * test lets it end. Each test is a process of its own. */
#include <criterion/criterion.h>

#include "lib/clock.h"
#include "lib/table.h"
#include "lib/thread.h"
#include "tests/unit/check.h"
#include "tests/unit/self.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	JOBS = 20000,

	/* Constants of thread.c: */
	SURPLUS_MS = 1000,
};

/* A connection, and its state. */
static struct job {
	struct connection connection;
	atomic_int thread; /* the ID of the thread that serves it; 0 before that */
	unsigned place;    /* in the order in which they were served */
	atomic_bool may_end;
	bool may_wait; /* for a thread */
	atomic_uint served;
} jobs[JOBS];

static atomic_uint begun, served;
static atomic_bool never_waits; /* jobs end at once */

static struct job *
job_of(struct connection *c)
{
	return &jobs[c->header_length];
}

/* --- What thread.c sees of the system, by the linker's option --wrap --- */

static atomic_int last_begun; /* the id of the thread that has begun last */
static atomic_bool refuses_threads;
static struct job *ends_meanwhile; /* a thread becomes spare before the next one is refused */
static _Atomic int64_t skipped_ms; /* the clock is so far ahead */

int __real_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
void __real_system_schedule_batch(void);
void __wrap_system_schedule_batch(void);
int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real___clock_gettime64(clockid_t id, struct timespec *now) __attribute__((weak));
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);

int
__wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	if (refuses_threads && ends_meanwhile != NULL) {
		ends_meanwhile->may_end = true;
		await_call(&ends_meanwhile->thread, SYS_futex);
		ends_meanwhile = NULL;
	}
	if (refuses_threads)
		return EAGAIN;
	return __real_pthread_create(thread, attributes, run, argument);
}

/* Each thread calls it first. */
void
__wrap_system_schedule_batch(void)
{
	last_begun = gettid();
	begun++;
	__real_system_schedule_batch();
}

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	int result = __real___clock_gettime64 != NULL ? __real___clock_gettime64(id, now)
						      : __real_clock_gettime(id, now);
	if (id == CLOCK_MONOTONIC)
		now->tv_sec += (time_t)(skipped_ms / 1000);
	return result;
}

/* The name of the function on machines whose long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

/* --- What thread.c calls --- */

static void
serve(struct connection *c)
{
	struct job *job = job_of(c);
	job->place = atomic_fetch_add(&served, 1);
	job->served++;
	job->thread = gettid();
	while (!never_waits && !job->may_end)
		poll(NULL, 0, 1); /* not a futex(2), so that a spare thread can be told apart */
}

static void
prepare(unsigned max)
{
	for (size_t i = 0; i < JOBS; i++)
		jobs[i].connection.header_length = i;
	thread_prepare(max, serve);
}

/* A job that waits in one call, as if a backend prolonged it. */
static int never_readable[2];
static atomic_int interrupted_error;

static void
serve_in_a_call(struct connection *c)
{
	char byte;
	thread_mark_call();
	job_of(c)->thread = gettid();
	ssize_t n = read(never_readable[0], &byte, 1);
	interrupted_error = n == -1 ? errno : -1;
	thread_mark_call();
	while (!job_of(c)->may_end)
		poll(NULL, 0, 1);
}

static void
spawn(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		CHECK(thread_spawn(&jobs[i].connection, false), "job %u has no thread", i);
}

#define AWAIT(condition) \
	do { \
		int64_t deadline_ms = clock_ms() + PATIENCE_MS; \
		while (!(condition)) { \
			CHECK(clock_left_ms(deadline_ms) > 0, "never: %s", #condition); \
			poll(NULL, 0, 1); \
		} \
	} while (0)

static void
await_start(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		AWAIT(jobs[i].thread != 0);
}

/* Lets job NUMBER end; its thread becomes spare. */
static void
end_job(unsigned number)
{
	jobs[number].may_end = true;
	await_call(&jobs[number].thread, SYS_futex);
}

/* How many threads of thread.c have not ended. */
static unsigned
count_threads(void)
{
	unsigned count = 0;
	for (unsigned i = 0; i < THREAD_SPARES + 10; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/task/%d", jobs[i].thread);
		count += access(path, F_OK) == 0;
	}
	return count;
}

/* --- Tests --- */

Test(thread, serves_one_connection_after_another)
{
	prepare(64);
	for (unsigned i = 0; i < 100; i++) {
		spawn(i, i + 1);
		await_start(i, i + 1);
		cr_expect(jobs[i].thread == jobs[0].thread, "it is not the spare one");
		end_job(i);
	}
	cr_expect(thread_count().threads == 1 && begun == 1);
}

Test(thread, starts_one_if_none_is_spare_and_uses_the_last_one_first)
{
	enum { BUSY = 5 };
	prepare(64);
	spawn(0, BUSY);
	await_start(0, BUSY);
	cr_expect(thread_count().threads == BUSY && begun == BUSY);
	for (unsigned i = 0; i < BUSY; i++)
		end_job((i + 2) % BUSY);
	for (unsigned i = 0; i < BUSY; i++) {
		spawn(BUSY + i, BUSY + i + 1);
		await_start(BUSY + i, BUSY + i + 1);
		cr_expect(jobs[BUSY + i].thread == jobs[(BUSY - 1 - i + 2) % BUSY].thread);
	}
	cr_expect(thread_count().threads == BUSY && begun == BUSY);
}

/* Waits for a thread for one job after another, from *FROM on. Ends at the first number that is no
 * job. */
static void *
spawn_waiting(void *from)
{
	for (unsigned i = *(unsigned *)from; i < JOBS && jobs[i].may_wait; i++)
		CHECK(thread_spawn(&jobs[i].connection, true), "job %u has no thread", i);
	return NULL;
}

/* Another thread waits for a thread for each of the jobs FROM to TO. */
static pthread_t
start_waiting(unsigned *from, unsigned to)
{
	pthread_t waiter;
	for (unsigned i = *from; i < to; i++)
		jobs[i].may_wait = true;
	CHECK(__real_pthread_create(&waiter, NULL, spawn_waiting, from) == 0, "pthread_create");
	AWAIT(thread_count().waiting == 1);
	return waiter;
}

Test(thread, refuses_or_waits_at_the_bound)
{
	enum { MAX = 2, ALL = 20 };
	unsigned first = MAX;
	prepare(MAX);
	spawn(0, MAX);
	await_start(0, MAX);
	cr_expect(!thread_spawn(&jobs[ALL].connection, false));
	pthread_t waiter = start_waiting(&first, ALL);
	cr_expect(thread_count().threads == MAX && thread_ensure() != 0);
	for (unsigned i = 0; i < ALL - MAX; i++) {
		jobs[i].may_end = true;
		await_start(MAX + i, MAX + i + 1);
		cr_expect(jobs[MAX + i].thread == jobs[i].thread);
		cr_expect(jobs[MAX + i].place == MAX + i);
	}
	pthread_join(waiter, NULL);
	end_job(ALL - 2);
	end_job(ALL - 1);
	spawn(ALL, ALL + 1);
	await_start(ALL, ALL + 1);
	cr_expect(thread_count().threads == MAX && thread_count().waiting == 0);
	cr_expect(begun == MAX);
}

/* The fewer threads are left, the shorter the time until a connection is parked. */
Test(thread, adapts_how_long_a_quiet_connection_keeps_its_thread)
{
	enum { MAX = 64, FEW = MAX / 8 + 1 };
	prepare(MAX);
	for (unsigned i = 0; i < MAX; i++) {
		unsigned left = MAX - 1 - i;
		spawn(i, i + 1);
		cr_expect(thread_quiet_ms ==
			(int)(left >= FEW ? THREAD_QUIET_MS : THREAD_QUIET_MS * left / FEW),
		    "%u left: %d ms", left, thread_quiet_ms);
		cr_expect(thread_is_short() == (left < FEW));
	}
	cr_expect(thread_quiet_ms == 0);
	await_start(0, MAX);
	unsigned last = MAX;
	pthread_t waiter = start_waiting(&last, MAX + 1);
	cr_expect(thread_quiet_ms == 0);
	jobs[0].may_end = true;
	await_start(MAX, MAX + 1);
	pthread_join(waiter, NULL);
	cr_expect(thread_quiet_ms == 0, "there is none that is spare");
	for (unsigned i = 1; i <= FEW; i++)
		end_job(i);
	AWAIT(thread_quiet_ms == THREAD_QUIET_MS);
	cr_expect(!thread_is_short());
}

/* It looks once a second; the largest need since then counts. */
Test(thread, ends_the_spare_threads_that_were_not_needed_for_a_second)
{
	enum { BUSY = THREAD_SPARES + 10, NEEDED = 4 };
	prepare(64);
	spawn(0, BUSY);
	await_start(0, BUSY);
	for (unsigned i = 0; i < BUSY; i++)
		end_job(i);
	thread_look_after(); /* all were needed since the start */
	thread_look_after();
	cr_expect(thread_count().threads == BUSY, "%u", thread_count().threads);
	spawn(BUSY, BUSY + NEEDED);
	await_start(BUSY, BUSY + NEEDED);
	for (unsigned i = 0; i < NEEDED; i++)
		end_job(BUSY + i);
	skipped_ms = SURPLUS_MS;
	thread_look_after();
	cr_expect(thread_count().threads == THREAD_SPARES + NEEDED, "%u", thread_count().threads);
	thread_look_after();
	cr_expect(thread_count().threads == THREAD_SPARES + NEEDED, "it was just now");
	skipped_ms = 2 * SURPLUS_MS;
	thread_look_after();
	cr_expect(thread_count().threads == THREAD_SPARES, "%u", thread_count().threads);
	skipped_ms = 5 * SURPLUS_MS;
	thread_look_after();
	cr_expect(thread_count().threads == THREAD_SPARES, "%u", thread_count().threads);
	AWAIT(count_threads() == THREAD_SPARES);
	spawn(100, 100 + THREAD_SPARES);
	await_start(100, 100 + THREAD_SPARES);
	cr_expect(thread_count().threads == THREAD_SPARES && begun == BUSY);
	cr_expect(!thread_is_short());
}

Test(thread, makes_sure_that_one_is_spare)
{
	prepare(2);
	cr_expect(thread_ensure() == 0 && thread_count().threads == 1);
	AWAIT(begun == 1);
	await_call(&last_begun, SYS_futex); /* it is spare */
	cr_expect(thread_ensure() == 0 && thread_count().threads == 1, "there was one");
	spawn(0, 1);
	await_start(0, 1);
	cr_expect(thread_count().threads == 1);
	cr_expect(thread_ensure() == 0 && thread_count().threads == 2);
	AWAIT(begun == 2);
	await_call(&last_begun, SYS_futex);
	spawn(1, 2);
	await_start(1, 2);
	cr_expect(thread_ensure() != 0 && thread_count().threads == 2);
	jobs[0].may_end = true;
	AWAIT(thread_ensure() == 0);
	spawn(2, 3);
	AWAIT(jobs[2].thread == jobs[0].thread);
}

/* The system has no thread, or no memory for one. Once a second, more are tried. */
Test(thread, lives_with_what_threads_there_are)
{
	enum { MAX = 64 };
	unsigned first = 1;
	prepare(MAX);
	spawn(0, 1);
	await_start(0, 1);
	refuses_threads = true;
	pthread_t waiter = start_waiting(&first, 3);
	AWAIT(thread_count().threads == 1 && thread_count().limit == 1);
	cr_expect(thread_quiet_ms == 0 && thread_is_short());
	cr_expect(thread_ensure() == EAGAIN);
	jobs[0].may_end = true;
	await_start(1, 2);
	cr_expect(jobs[1].thread == jobs[0].thread);
	AWAIT(thread_count().waiting == 1);

	refuses_threads = false;
	cr_expect(thread_ensure() == 0, "for the one that waits");
	await_start(2, 3);
	pthread_join(waiter, NULL);
	cr_expect(thread_count().threads == 2 && thread_count().waiting == 0);
	cr_expect(thread_is_short(), "it was refused just now");
	unsigned limit = 1;
	for (unsigned i = 1; thread_count().limit < MAX; i++) {
		cr_expect(thread_count().limit == limit);
		limit += limit / 2 + 1;
		skipped_ms = i * SURPLUS_MS;
		thread_look_after();
	}
	spawn(3, 5);
	cr_expect(!thread_is_short() && thread_count().limit == MAX);
	await_start(3, 5);
}

/* While the system refuses a thread, one becomes spare, and no other will. */
Test(thread, takes_one_that_becomes_spare_while_none_can_be_made, .timeout = 20)
{
	prepare(64);
	spawn(0, 1);
	await_start(0, 1);
	refuses_threads = true;
	ends_meanwhile = &jobs[0];
	CHECK(thread_spawn(&jobs[1].connection, true), "it has no thread");
	await_start(1, 2);
	cr_expect(jobs[1].thread == jobs[0].thread);
}

/* --- Many at once --- */

enum { SPAWNERS = 4 };

static void *
spawn_some(void *number)
{
	for (size_t i = (size_t)number; i < JOBS; i += SPAWNERS)
		thread_spawn(&jobs[i].connection, true);
	return NULL;
}

/* Meanwhile spare threads end, and more are started. */
static void
spawn_at_once(unsigned max)
{
	pthread_t spawners[SPAWNERS];
	never_waits = true;
	prepare(max);
	for (size_t i = 0; i < SPAWNERS; i++)
		CHECK(pthread_create(&spawners[i], NULL, spawn_some, (void *)i) == 0,
		    "pthread_create");
	while (served < JOBS) {
		skipped_ms += SURPLUS_MS;
		thread_look_after();
		poll(NULL, 0, 1);
	}
	for (int i = 0; i < SPAWNERS; i++)
		pthread_join(spawners[i], NULL);
	for (size_t i = 0; i < JOBS; i++)
		CHECK(jobs[i].served == 1, "number %zu: %u times", i, (unsigned)jobs[i].served);
	CHECK(thread_count().threads <= max && thread_count().waiting == 0, "%u threads",
	    thread_count().threads);
}

Test(thread, serves_each_of_many_once, .timeout = 60)
{
	spawn_at_once(3);
}

Test(thread, serves_each_of_many_once_while_spare_threads_end, .timeout = 60)
{
	spawn_at_once(4 * THREAD_SPARES);
}

/* --- Calls that last --- */

/* The call is interrupted at the second look that sees it, not at the first. */
Test(thread, interrupts_a_call_that_lasts)
{
	cr_assert(pipe(never_readable) == 0);
	thread_prepare(64, serve_in_a_call);
	jobs[0].connection.header_length = 0;
	spawn(0, 1);
	await_call(&jobs[0].thread, SYS_read);
	skipped_ms = SURPLUS_MS;
	thread_look_after();
	poll(NULL, 0, 50);
	cr_expect(interrupted_error == 0, "it was interrupted at once");
	thread_look_after();
	poll(NULL, 0, 50);
	cr_expect(interrupted_error == 0, "it was interrupted without waiting");
	skipped_ms = 2 * SURPLUS_MS;
	thread_look_after();
	AWAIT(interrupted_error == EINTR);
	jobs[0].may_end = true;
}

/* So is one while another connection waits for a thread, and nobody else can look. */
Test(thread, interrupts_a_call_while_a_connection_waits_for_a_thread)
{
	cr_assert(pipe(never_readable) == 0);
	thread_prepare(1, serve_in_a_call);
	jobs[1].connection.header_length = 1;
	jobs[0].may_end = jobs[1].may_end = true;
	spawn(0, 1);
	await_call(&jobs[0].thread, SYS_read);
	cr_expect(thread_spawn(&jobs[1].connection, true));
	cr_expect(interrupted_error == EINTR);
}

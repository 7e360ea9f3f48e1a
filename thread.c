#include "thread.h"

#include "system.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static pthread_t main_thread;

static struct {
	/* Set before it has threads. */
	void *(*run)(void *);
	unsigned wanted, max;

	atomic_uint threads;
	atomic_int free; /* those that do not wait in a call, but for work */
	atomic_bool is_short;
} pool;

int
thread_start(void *(*run)(void *), void *argument)
{
	pthread_t thread;
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);
	if (error != 0)
		return error;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* Some machines need more; then the size stays the usual one, and is too
	 * large. */
	long size_min = sysconf(_SC_THREAD_STACK_MIN);
	size_t size = size_min > THREAD_STACK_SIZE ? (size_t)size_min : THREAD_STACK_SIZE;
	error = pthread_attr_setstacksize(&attributes, size);
	if (error == 0)
		error = pthread_create(&thread, &attributes, run, argument);
	pthread_attr_destroy(&attributes);
	return error;
}

void
thread_pool_prepare(void *(*run)(void *), unsigned wanted, unsigned max)
{
	pool.run = run;
	pool.wanted = wanted;
	pool.max = max;
}

int
thread_pool_ensure(void)
{
	int error = 0;
	while (error == 0 && atomic_load(&pool.free) < (int)pool.wanted) {
		error = EAGAIN;
		atomic_fetch_add(&pool.free, 1);
		if (atomic_fetch_add(&pool.threads, 1) < pool.max)
			error = thread_start(pool.run, NULL);
		if (error == 0)
			continue;
		atomic_fetch_sub(&pool.threads, 1);
		atomic_fetch_sub(&pool.free, 1);
	}
	atomic_store(&pool.is_short, error != 0);
	return atomic_load(&pool.free) > 0 ? 0 : error;
}

void
thread_begin_wait(void)
{
	bool is_short = atomic_load(&pool.is_short);
	if (atomic_fetch_sub(&pool.free, 1) > (int)pool.wanted)
		return;
	/* After a failure, the main thread is the one that goes on trying, once no other is
	 * free. */
	if (!is_short)
		thread_pool_ensure();
	if (atomic_load(&pool.is_short) && atomic_load(&pool.free) <= 0)
		thread_wake_main();
}

void
thread_end_wait(void)
{
	atomic_fetch_add(&pool.free, 1);
}

bool
thread_is_spare(int spare_max)
{
	int free = atomic_load(&pool.free);
	while (free > (int)pool.wanted + spare_max)
		if (atomic_compare_exchange_weak(&pool.free, &free, free - 1)) {
			atomic_fetch_sub(&pool.threads, 1);
			return true;
		}
	return false;
}

unsigned
thread_pool_size(void)
{
	return atomic_load(&pool.threads);
}

static void
interrupt(int signal)
{
	(void)signal;
}

void
thread_prepare(void)
{
	const struct sigaction action = {.sa_handler = interrupt};
	main_thread = pthread_self();
	sigaction(SIGUSR2, &action, NULL);
}

void
thread_allow_interrupts(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

bool
thread_is_main(void)
{
	return pthread_equal(pthread_self(), main_thread) != 0;
}

void
thread_interrupt(pthread_t thread)
{
	pthread_kill(thread, SIGUSR2);
}

void
thread_wake_main(void)
{
	pthread_kill(main_thread, SIGUSR2);
}

void
thread_set_name(struct thread_name *name, const char *host, bool lasts)
{
	const char *text = host[0] == '\0' ? "sniproxy" : host;
	if (strncmp(name->text, text, THREAD_NAME_MAX) == 0)
		return;
	struct timespec tick;
	system_tick(&tick);
	if (!lasts && tick.tv_nsec == name->given_at.tv_nsec)
		return;
	if (!lasts)
		name->given_at = tick;
	size_t length = strnlen(text, THREAD_NAME_MAX);
	memcpy(name->text, text, length);
	name->text[length] = '\0';
	system_name_thread(name->text);
}

#include "thread.h"

#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

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

/* What a test can see of its own process. */
#ifndef SELF_H
#define SELF_H

#include "lib/clock.h"
#include "tests/unit/check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>

/* The kernel's number of a system call. It differs if the program is emulated. */
#ifndef KERNELS_NUMBER
#define KERNELS_NUMBER(call) (call)
#endif

enum { PATIENCE_MS = 20 * 1000 }; /* How long a test waits until it fails. */

static inline int
count_descriptors(void)
{
	int count = 0;
	for (int descriptor = 0; descriptor < 1024; descriptor++)
		count += fcntl(descriptor, F_GETFD) != -1;
	return count;
}

/* Whether the thread with the id THREAD sleeps in the system call CALL. */
static inline bool
is_in_call(int thread, long call)
{
	char path[64];
	long number = -1;
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	if (fscanf(file, "%ld", &number) != 1) /* it is "running" */
		number = -1;
	fclose(file);
	return number == KERNELS_NUMBER(call);
}

/* Waits until THREAD sleeps in CALL. THREAD is 0 until the thread has set it. */
static inline void
await_call(const atomic_int *thread, long call)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (!is_in_call(atomic_load(thread), call)) {
		CHECK(clock_left_ms(deadline_ms) > 0, "it does not wait in call %ld", call);
		poll(NULL, 0, 1);
	}
}

static inline void
do_nothing(int number)
{
	(void)number;
}

/* Makes the signal NUMBER interrupt system calls without any other effect. */
static inline void
let_interrupt(int number)
{
	struct sigaction action = {.sa_handler = do_nothing};
	cr_assert(sigaction(number, &action, NULL) == 0);
}

#endif

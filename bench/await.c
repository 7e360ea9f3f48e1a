/* await ADDRESS [COMMAND...]
 *
 * Waits until a connection to ADDRESS (a port on 127.0.0.1, or a path) gets its answer. With
 * COMMAND, runs that first, prints the milliseconds from then to the answer, and ends it with
 * SIGTERM. Exits with 1 if no answer comes within ten seconds. */
#include "bench/client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int64_t PATIENCE_NS = INT64_C(10000000000);

static pid_t
run(char **command)
{
	pid_t child = fork();
	if (child == -1)
		fail("fork");
	if (child == 0) {
		execvp(command[0], command);
		perror(command[0]);
		_exit(127);
	}
	return child;
}

static bool
is_answered(void)
{
	int s = client_connect();
	if (s == -1)
		return false;
	bool answered =
	    client_wait(s, POLLOUT) && client_hello(s, TASK_ANSWER) && client_read(s, ANSWER_SIZE);
	int error = errno;
	close(s);
	errno = error;
	return answered;
}

/* Returns false if CHILD, unless it is -1, has ended, or after PATIENCE_NS. */
static bool
await_answer(int64_t began, pid_t child)
{
	const struct timespec nap = {.tv_nsec = 50000L};
	while (!is_answered()) {
		if (clock_ns() - began > PATIENCE_NS)
			return false;
		if (child != -1 && waitpid(child, NULL, WNOHANG) == child)
			return false;
		nanosleep(&nap, NULL);
	}
	return true;
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: await ADDRESS [COMMAND...]\n");
		return 2;
	}
	client_init(argv[1]);
	int64_t began = clock_ns();
	pid_t child = argc > 2 ? run(argv + 2) : -1;
	bool answered = await_answer(began, child);
	int64_t ended = clock_ns();
	if (!answered)
		perror("await: no answer");
	if (child != -1) {
		kill(child, SIGTERM);
		waitpid(child, NULL, 0);
		if (answered)
			printf("%.3f\n", (double)(ended - began) / 1e6);
	}
	return answered ? 0 : 1;
}

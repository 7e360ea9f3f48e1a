/* Runs the tests of a program, one after another, each in a process of its own, and reports in TAP.
 *
 * usage: test_MODULE [FILE]
 * FILE names the tests to skip, a line each: SUITE::TEST, and why.
 *
 * HOST_accept and so on are the numbers of the system calls of the machine that emulates this one. */
#include "tests/machines/foreign/criterion/criterion.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	TIMEOUT_S = 60,
	EXIT_SKIPPED = 77, /* the test has skipped itself */
};

static struct criterion_suite *suites;
static struct criterion_test *tests, **tests_end = &tests;

/* In the process of a test. */
static const struct criterion_test *current;
static const struct criterion_suite *current_suite;
static unsigned number;
static atomic_bool has_failed; /* also by one of its threads */

void
criterion_add_suite(struct criterion_suite *suite)
{
	suite->next = suites;
	suites = suite;
}

void
criterion_add_test(struct criterion_test *test)
{
	*tests_end = test;
	tests_end = &test->next;
}

void
criterion_fail(const char *file, int line, const char *condition, const char *format, ...)
{
	char message[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	fprintf(stderr, "%s:%d: %s::%s: %s%s\n", file, line, current->suite, current->name,
	    condition, message);
	atomic_store(&has_failed, true);
}

void
criterion_end(void)
{
	if (current_suite != NULL && current_suite->fini != NULL)
		current_suite->fini();
	fflush(stdout);
	_exit(atomic_load(&has_failed) ? EXIT_FAILURE : EXIT_SUCCESS);
}

void
criterion_skip(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("ok %u - %s::%s # SKIP ", number, current->suite, current->name);
	vprintf(format, arguments);
	putchar('\n');
	va_end(arguments);
	fflush(stdout);
	_exit(EXIT_SKIPPED);
}

long
criterion_kernels_number(long call)
{
	switch (call) {
	case SYS_connect:
		return HOST_connect;
	case SYS_futex:
		return HOST_futex;
#ifdef SYS_poll
	case SYS_poll:
		return HOST_poll;
#endif
	case SYS_ppoll:
		return HOST_ppoll;
	case SYS_recvfrom:
		return HOST_recvfrom;
	case SYS_sendto:
		return HOST_sendto;
	case SYS_splice:
		return HOST_splice;
	case SYS_writev:
		return HOST_writev;
	default:
		criterion_fail(__FILE__, __LINE__, "unknown call", " %ld", call);
		criterion_end();
	}
}

static const struct criterion_suite *
find_suite(const char *name)
{
	const struct criterion_suite *suite = suites;
	while (suite != NULL && strcmp(suite->name, name) != 0)
		suite = suite->next;
	return suite;
}

/* Skips the test if FILE, which may be NULL, names it. */
static void
skip_if_listed(const char *file)
{
	char line[512], its_suite[64], its_name[128];
	int length;
	FILE *list = file != NULL ? fopen(file, "re") : NULL;
	while (list != NULL && fgets(line, sizeof line, list) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%63[^:]::%127s %n", its_suite, its_name, &length) == 2 &&
		    strcmp(its_suite, current->suite) == 0 && strcmp(its_name, current->name) == 0)
			criterion_skip("%s", line + length);
	}
	if (list != NULL)
		fclose(list);
}

_Noreturn static void
run_in_child(const char *skip_list)
{
	current_suite = find_suite(current->suite);
	skip_if_listed(skip_list);
	alarm(current_suite != NULL && current_suite->timeout != 0 ? current_suite->timeout
								   : TIMEOUT_S);
	if (current_suite != NULL && current_suite->init != NULL)
		current_suite->init();
	current->run();
	criterion_end();
}

/* Returns whether the test passed. */
static bool
run(const char *skip_list)
{
	int status;
	fflush(stdout);
	pid_t child = fork();
	if (child == 0)
		run_in_child(skip_list);
	if (child == -1 || waitpid(child, &status, 0) == -1)
		status = -1;
	bool is_skipped = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED;
	bool passed = status == 0 || is_skipped;
	if (!is_skipped)
		printf("%s %u - %s::%s\n", passed ? "ok" : "not ok", number, current->suite,
		    current->name);
	if (status != -1 && WIFSIGNALED(status))
		printf("# %s\n", strsignal(WTERMSIG(status)));
	return passed;
}

int
main(int argc, char *argv[])
{
	bool passed = true;
	for (current = tests; current != NULL; current = current->next) {
		number++;
		passed = run(argc > 1 ? argv[1] : NULL) && passed;
	}
	printf("1..%u\n", number);
	return passed && number > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The part of Criterion that the unit tests use, for `make check-foreign`. Criterion is not available
 * for every machine, and executes itself again for each test, which an emulator of programs leaves
 * to the system. Here, each test is a fork. */
#ifndef FOREIGN_CRITERION_H
#define FOREIGN_CRITERION_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct criterion_suite {
	const char *name;
	void (*init)(void), (*fini)(void); /* before and after each test; may be NULL */
	unsigned timeout;                  /* of a test, in seconds; 0: the usual one */
	struct criterion_suite *next;
};

struct criterion_test {
	const char *suite, *name;
	void (*run)(void);
	struct criterion_test *next;
};

/* Suites and tests stay the caller's, and run in this order. */
void criterion_add_suite(struct criterion_suite *suite);
void criterion_add_test(struct criterion_test *test);

/* Reports that the test has failed: the place, the condition, and a message as by printf(3). The
 * test continues. */
void criterion_fail(const char *file, int line, const char *condition, const char *format,
    ...) __attribute__((format(printf, 4, 5)));

/* Ends the test: as one that has failed, if something did. */
_Noreturn void criterion_end(void);

/* Ends the test as skipped, and says why. */
_Noreturn void
criterion_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The kernel's number of this machine's system call CALL: the emulator's machine has others. */
long criterion_kernels_number(long call);
#define KERNELS_NUMBER(call) criterion_kernels_number(call)

#define TestSuite(its_name, ...) \
	__attribute__((constructor)) static void add_suite_##its_name(void) \
	{ \
		static struct criterion_suite suite = { \
		    .name = #its_name, ##__VA_ARGS__}; \
		criterion_add_suite(&suite); \
	} \
	_Static_assert(true, "it takes a semicolon")

#define Test(its_suite, its_name, ...) \
	static void its_suite##_##its_name##_test(void); \
	__attribute__((constructor)) static void add_##its_suite##_##its_name(void) \
	{ \
		static struct criterion_test test = {.suite = #its_suite, \
		    .name = #its_name, \
		    .run = its_suite##_##its_name##_test}; \
		criterion_add_test(&test); \
	} \
	static void its_suite##_##its_name##_test(void)

#define CRITERION_HOLDS(condition, ...) \
	((condition) || \
	    (criterion_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__), false))

#define cr_expect(...) ((void)CRITERION_HOLDS(__VA_ARGS__))
#define cr_assert(...) (CRITERION_HOLDS(__VA_ARGS__) ? (void)0 : criterion_end())
#define cr_assert_eq(a, b) cr_assert((a) == (b))
#define cr_assert_str_eq(a, b) cr_assert(strcmp(a, b) == 0, "'%s' is not '%s'", a, b)
#define cr_expect_str_eq(a, b) cr_expect(strcmp(a, b) == 0, "'%s' is not '%s'", a, b)
#define cr_assert_fail(...) \
	(criterion_fail(__FILE__, __LINE__, "failed", " " __VA_ARGS__), criterion_end())
#define cr_skip_test(...) criterion_skip(__VA_ARGS__)

#endif

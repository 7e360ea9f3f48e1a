/* An assertion for loops: Criterion sends each of its own to the parent process, also one
 * that holds, and in a loop of thousands that takes longer than what is tested. */
#ifndef CHECK_H
#define CHECK_H

#include <criterion/criterion.h>

/* Ends the test with a message, formatted as by printf(3), unless CONDITION holds. */
#define CHECK(condition, ...) \
	do { \
		if (!(condition)) \
			cr_assert_fail(__VA_ARGS__); \
	} while (0)

#endif

/* An assertion for loops. Criterion sends every assertion to the parent process, even one that
 * holds; in a loop of thousands that takes longer than the test itself. */
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

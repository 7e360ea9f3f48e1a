/* Tests of lookup.c: when one more is too many. */
#include <criterion/criterion.h>

#include "../lookup.h"

enum { MANY = 200 };

static struct lookup lookups[MANY];
static unsigned count;

/* Begins as many for NAME as may be, up to MAX; returns how many those were. */
static unsigned
begin(const char *name, unsigned max, int64_t now_ms)
{
	unsigned begun = 0;
	while (begun < max && lookup_begin(&lookups[count], name, now_ms)) {
		begun++;
		count++;
	}
	return begun;
}

Test(lookup, any_number_at_once)
{
	cr_assert(begin("a.example", MANY, 0) == MANY);
	cr_assert(begin("a.example", 0, 0) == 0);
}

Test(lookup, none_ends)
{
	begin("a.example", 1, 0);
	cr_assert(begin("a.example", MANY, LOOKUP_LATE_MS) == LOOKUP_LATE_MAX - 1);
	cr_assert(begin("b.example", 100, LOOKUP_LATE_MS) == 100);
	lookup_end(&lookups[1], LOOKUP_LATE_MS);
	cr_assert(begin("a.example", 10, LOOKUP_LATE_MS) == 10);
	cr_assert(begin("a.example", 10, 2 * LOOKUP_LATE_MS) == 0);
	lookup_end(&lookups[0], 2 * LOOKUP_LATE_MS);
	cr_assert(begin("a.example", 10, 3 * LOOKUP_LATE_MS - 1) == 10);
}

/* Each takes long, on a busy machine, but they do end. */
Test(lookup, some_end)
{
	int64_t now_ms = 0;
	begin("b.example", 1, 0);
	for (unsigned i = 0; i < LOOKUP_LATE_MAX; i++)
		begin("a.example", 1, 0);
	for (unsigned i = 1; now_ms + LOOKUP_LATE_MS < LOOKUP_STUCK_MS; i++) {
		now_ms += LOOKUP_LATE_MS - 1;
		lookup_end(&lookups[i], now_ms);
		cr_assert(begin("a.example", 1, now_ms) == 1);
	}
}

/* What ends of one host says nothing of another one. */
Test(lookup, those_of_another_host_end)
{
	begin("b.example", 2, 0);
	begin("a.example", LOOKUP_LATE_MAX, 0);
	lookup_end(&lookups[0], LOOKUP_LATE_MS);
	cr_assert(begin("a.example", 1, LOOKUP_LATE_MS) == 0);
	cr_assert(begin("b.example", 1, LOOKUP_LATE_MS) == 1);
}

Test(lookup, some_are_stuck)
{
	begin("a.example", LOOKUP_STUCK_MAX - 1, 0);
	begin("b.example", LOOKUP_STUCK_MAX, 1);
	cr_assert(begin("a.example", 1, LOOKUP_STUCK_MS) == 1);
	cr_assert(begin("b.example", 1, LOOKUP_STUCK_MS) == 1);
	cr_assert(begin("b.example", 1, LOOKUP_STUCK_MS + 1) == 0);
	cr_assert(begin("a.example", 1, 2 * LOOKUP_STUCK_MS) == 0);
	cr_assert(begin("c.example", 1, 2 * LOOKUP_STUCK_MS) == 1);
	lookup_end(&lookups[LOOKUP_STUCK_MAX - 1], 2 * LOOKUP_STUCK_MS);
	lookup_end(&lookups[LOOKUP_STUCK_MAX], 2 * LOOKUP_STUCK_MS);
	cr_assert(begin("b.example", 1, 2 * LOOKUP_STUCK_MS) == 1);
}

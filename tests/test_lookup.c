/* Tests of lookup.c: when one more is too many. */
#include <criterion/criterion.h>

#include "../clock.h"
#include "../lookup.h"

#include <poll.h>

enum { MANY = 200 };

static struct lookup lookups[2 * MANY];
static unsigned count;

/* Begins as many for NAME as may be, up to MOST; returns how many those were. It was all long ago by the
 * clock, so that none is waited for. */
static unsigned
begin(const char *name, unsigned most, int64_t now_ms)
{
	unsigned begun = 0;
	while (begun < most && lookup_begin(&lookups[count], name, now_ms)) {
		begun++;
		count++;
	}
	return begun;
}

Test(lookup, so_many_of_a_host)
{
	lookup_prepare(MANY);
	cr_assert(begin("a.example", MANY, 0) == LOOKUP_HOST_MAX);
	cr_assert(begin("b.example", 10, 0) == 10);
	lookup_end(&lookups[1], 0);
	cr_assert(begin("a.example", 10, 0) == 1);
}

Test(lookup, so_many_of_all)
{
	lookup_prepare(100);
	begin("a.example", LOOKUP_HOST_MAX, 0);
	cr_assert(begin("b.example", MANY, 0) == 100 - LOOKUP_HOST_MAX);
	cr_assert(begin("c.example", 1, 0) == 0);
	lookup_end(&lookups[0], 0);
	cr_assert(begin("c.example", 10, 0) == 1);
}

Test(lookup, some_are_stuck)
{
	lookup_prepare(MANY);
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

/* One of each host. */
Test(lookup, half_of_all_are_stuck)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	lookup_prepare(4);
	for (int i = 0; i < 4; i++)
		cr_assert(begin(names[i], 1, i < 2 ? 0 : LOOKUP_STUCK_MS) == 1);
	int64_t began_ms = clock_ms();
	cr_assert(!lookup_begin(&lookups[count], "e", LOOKUP_STUCK_MS));
	lookups[0].began_ms = lookups[1].began_ms = began_ms - LOOKUP_STUCK_MS;
	cr_assert(!lookup_begin(&lookups[count], "e", began_ms));
	cr_assert(clock_ms() - began_ms < LOOKUP_STUCK_MS / 2, "it waited");
}

/* They have places of their own. */
Test(lookup, so_many_wait_for_room)
{
	enum { SOME = 3 };
	lookup_prepare(SOME);
	for (int i = 0; i < SOME; i++)
		cr_assert(lookup_begin_wait());
	cr_assert(!lookup_begin_wait());
	cr_assert(begin("a.example", SOME, 0) == SOME);
	lookup_end_wait();
	cr_assert(lookup_begin_wait());
	cr_assert(!lookup_begin_wait());
}

/* --- Those who wait --- */

static const char *waits_for;

static void *
wait_for_one(void *lookup)
{
	return lookup_begin(lookup, waits_for, clock_ms()) ? lookup : NULL;
}

/* Has a thread wait for a lookup of NAME, and ends lookups[ENDS] meanwhile. Returns whether it has
 * begun then, and not before. */
static bool
begins_then(const char *name, unsigned ends)
{
	pthread_t thread;
	void *begun;
	int64_t began_ms = clock_ms();
	waits_for = name;
	pthread_create(&thread, NULL, wait_for_one, &lookups[count++]);
	poll(NULL, 0, 100);
	lookup_end(&lookups[ends], clock_ms());
	pthread_join(thread, &begun);
	int64_t took_ms = clock_ms() - began_ms;
	return begun != NULL && took_ms >= 100 && took_ms < LOOKUP_STUCK_MS;
}

Test(lookup, waits_for_one_of_its_host)
{
	lookup_prepare(MANY);
	begin("a.example", LOOKUP_HOST_MAX, clock_ms());
	begin("b.example", 1, clock_ms());
	cr_assert(begins_then("a.example", 5));
	cr_assert(!begins_then("a.example", LOOKUP_HOST_MAX), "that is another host's");
}

Test(lookup, waits_for_any_where_all_are_too_many)
{
	lookup_prepare(2);
	begin("a.example", 2, clock_ms());
	cr_assert(begins_then("b.example", 1));
}

/* Has all places be taken, most of them by one host for which another one waits already. */
static pthread_t
crowd(void)
{
	pthread_t thread;
	lookup_prepare(LOOKUP_HOST_MAX + 2);
	begin("a.example", LOOKUP_HOST_MAX, clock_ms());
	begin("b.example", 1, clock_ms());
	begin("c.example", 1, clock_ms());
	waits_for = "a.example";
	pthread_create(&thread, NULL, wait_for_one, &lookups[count++]);
	poll(NULL, 0, 100);
	return thread;
}

Test(lookup, waits_for_one_of_its_host_though_another_one_came_first)
{
	pthread_t thread = crowd();
	cr_assert(begins_then("b.example", LOOKUP_HOST_MAX));
	pthread_join(thread, NULL);
}

Test(lookup, waits_for_any_though_another_one_came_first)
{
	pthread_t thread = crowd();
	cr_assert(begins_then("b.example", LOOKUP_HOST_MAX + 1));
	pthread_join(thread, NULL);
}

Test(lookup, waits_in_vain)
{
	lookup_prepare(1);
	int64_t began_ms = clock_ms();
	begin("a.example", 1, began_ms);
	cr_assert(!lookup_begin(&lookups[count], "a.example", began_ms));
	cr_assert(clock_ms() - began_ms >= LOOKUP_STUCK_MS);
	lookup_end(&lookups[0], clock_ms());
	cr_assert(lookup_begin(&lookups[count], "a.example", clock_ms()));
}

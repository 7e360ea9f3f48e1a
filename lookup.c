#include "lookup.h"

#include "system.h"

#include <search.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* All that are under way, or wait, in a ring; who came first comes first. */
static struct lookup lookups = {.next = &lookups, .previous = &lookups};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned most = LOOKUP_HOST_MAX, begun, waiting;
static atomic_uint for_room; /* how many wait for that, which none of these does */

struct counts {
	unsigned of_host; /* under way */
	unsigned stuck;   /* of these */
	unsigned stuck_of_all;
};

static struct counts
count(const char *name, int64_t now_ms)
{
	struct counts counts = {0};
	for (const struct lookup *l = lookups.next; l != &lookups; l = l->next) {
		bool is_stuck = now_ms - l->began_ms >= LOOKUP_STUCK_MS;
		bool is_of_host = strcmp(l->name, name) == 0;
		if (l->waits)
			continue;
		counts.of_host += is_of_host;
		counts.stuck += is_of_host && is_stuck;
		counts.stuck_of_all += is_stuck;
	}
	return counts;
}

/* Whether there are so few that nobody need count, as nearly always. */
static bool
are_few(int64_t now_ms)
{
	return begun + waiting < LOOKUP_HOST_MAX && begun < most &&
	    (lookups.next == &lookups ||
		now_ms - lookups.next->began_ms < LOOKUP_STUCK_MS);
}

/* Waits until LOOKUP is told to begin, and returns whether it was. */
static bool
wait_for_another(struct lookup *lookup, int64_t end_ms)
{
	bool is_in_time = true;
	system_init_condition(&lookup->may_begin);
	lookup->waits = true;
	insque(lookup, lookups.previous);
	waiting++;
	while (lookup->waits && is_in_time)
		is_in_time = system_wait_until(&lookup->may_begin, &lock, end_ms);
	if (lookup->waits) {
		remque(lookup);
		waiting--;
	}
	pthread_cond_destroy(&lookup->may_begin);
	return !lookup->waits;
}

void
lookup_prepare(unsigned max)
{
	most = max > 0 ? max : 1;
}

bool
lookup_begin(struct lookup *lookup, const char *name, int64_t now_ms)
{
	bool begins = true;
	*lookup = (struct lookup){.name = name, .began_ms = now_ms};
	pthread_mutex_lock(&lock);
	struct counts counts = {0};
	if (!are_few(now_ms))
		counts = count(name, now_ms);
	if (counts.stuck >= LOOKUP_STUCK_MAX ||
	    (begun >= most && 2 * counts.stuck_of_all >= most)) {
		begins = false;
	} else if (counts.of_host >= LOOKUP_HOST_MAX || begun >= most) {
		begins = wait_for_another(lookup, now_ms + LOOKUP_STUCK_MS);
	} else {
		insque(lookup, lookups.previous);
		begun++;
	}
	pthread_mutex_unlock(&lock);
	return begins;
}

/* Returns who waits for longest of those who may begin now, or NULL. */
static struct lookup *
next_to_begin(int64_t now_ms)
{
	const char *full = NULL; /* of this host, none may */
	struct lookup *l = waiting > 0 && begun < most ? lookups.next : &lookups;
	for (; l != &lookups; l = l->next) {
		if (!l->waits || (full != NULL && strcmp(l->name, full) == 0))
			continue;
		if (count(l->name, now_ms).of_host < LOOKUP_HOST_MAX)
			return l;
		full = l->name;
	}
	return NULL;
}

void
lookup_end(struct lookup *lookup, int64_t now_ms)
{
	pthread_mutex_lock(&lock);
	remque(lookup);
	begun--;
	struct lookup *next = next_to_begin(now_ms);
	if (next != NULL) {
		remque(next);
		insque(next, lookups.previous); /* who begins later stands behind */
		next->waits = false;
		next->began_ms = now_ms;
		waiting--;
		begun++;
		pthread_cond_signal(&next->may_begin);
	}
	pthread_mutex_unlock(&lock);
}

bool
lookup_begin_wait(void)
{
	if (atomic_fetch_add(&for_room, 1) < most)
		return true;
	lookup_end_wait();
	return false;
}

void
lookup_end_wait(void)
{
	atomic_fetch_sub(&for_room, 1);
}

#include "lookup.h"

#include <pthread.h>
#include <search.h>
#include <stddef.h>
#include <string.h>

/* All of them in a ring, those that began first come first. */
static struct lookup lookups = {.next = &lookups, .previous = &lookups};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool
is_one_too_many(const char *name, int64_t now_ms)
{
	unsigned stuck = 0, all = 0;
	bool late = false;
	const struct lookup *l = lookups.next;
	if (l == &lookups || now_ms - l->began_ms < LOOKUP_LATE_MS)
		return false; /* nor are those that began after it */
	for (; l != &lookups; l = l->next) {
		if (strcmp(l->name, name) != 0)
			continue;
		if (all++ == 0)
			late = now_ms - l->moved_ms >= LOOKUP_LATE_MS;
		stuck += now_ms - l->began_ms >= LOOKUP_STUCK_MS;
	}
	return stuck >= LOOKUP_STUCK_MAX || (late && all >= LOOKUP_LATE_MAX);
}

bool
lookup_begin(struct lookup *lookup, const char *name, int64_t now_ms)
{
	pthread_mutex_lock(&lock);
	bool may_be = !is_one_too_many(name, now_ms);
	*lookup = (struct lookup){.name = name, .began_ms = now_ms, .moved_ms = now_ms};
	if (may_be)
		insque(lookup, lookups.previous);
	pthread_mutex_unlock(&lock);
	return may_be;
}

void
lookup_end(struct lookup *lookup, int64_t now_ms)
{
	pthread_mutex_lock(&lock);
	remque(lookup);
	struct lookup *l = lookups.next;
	while (l != &lookups && strcmp(l->name, lookup->name) != 0)
		l = l->next;
	l->moved_ms = now_ms;
	pthread_mutex_unlock(&lock);
}

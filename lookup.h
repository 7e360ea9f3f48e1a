/* The lookups of host directories that are under way. A thread that waits for a file system cannot be
 * interrupted, so one that does not answer may not have all of them. Any thread may call it. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

enum {
	/* Another one of the same host is not begun where so many are stuck, for LOOKUP_STUCK_MS
	 * each, or so many under way of which none has ended for LOOKUP_LATE_MS. On a machine that is
	 * merely busy, some do end. */
	LOOKUP_LATE_MS = 50,
	LOOKUP_LATE_MAX = 64,
	LOOKUP_STUCK_MS = 1000,
	LOOKUP_STUCK_MAX = 4,
};

struct lookup {
	struct lookup *next, *previous; /* first of all, for insque(3) */
	const char *name;
	int64_t began_ms;
	int64_t
	    moved_ms; /* of the host's first: when one of them last ended, or it began */
};

/* Begins LOOKUP, of the host NAME, which stays the caller's. Returns whether it may be; then
 * lookup_end() is to follow. */
bool lookup_begin(struct lookup *lookup, const char *name, int64_t now_ms);
void lookup_end(struct lookup *lookup, int64_t now_ms);

#endif

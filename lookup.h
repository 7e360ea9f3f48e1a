/* The lookups of host directories that are under way. A thread that waits for a file system cannot be
 * interrupted, so one that does not answer may not have all of them. Any thread may call it. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

enum {
	/* One that is not back after LOOKUP_LATE_MS is late, and after LOOKUP_STUCK_MS it is
	 * stuck. Another one of the same host is not begun where so many are stuck, or where one is
	 * late and so many are under way. */
	LOOKUP_LATE_MS = 20,
	LOOKUP_LATE_MAX = 64,
	LOOKUP_STUCK_MS = 1000,
	LOOKUP_STUCK_MAX = 4,
};

struct lookup {
	struct lookup *next, *previous; /* first of all, for insque(3) */
	const char *name;
	int64_t began_ms;
};

/* Begins LOOKUP, of the host NAME, which stays the caller's. Returns whether it may be; then
 * lookup_end() is to follow. */
bool lookup_begin(struct lookup *lookup, const char *name, int64_t now_ms);
void lookup_end(struct lookup *lookup);

#endif

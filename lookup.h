/* The lookups of host directories that are under way. A thread that waits for a file system cannot be
 * interrupted, so one that does not answer may not have all of them. That holds for those who wait for
 * room in a backlog, too: the kernel looks up again before it tells them. Any thread may call it. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	/* How many may be under way of one host. */
	LOOKUP_HOST_MAX = 64,

	/* One that is not back after LOOKUP_STUCK_MS is stuck. Where so many of a host are, or half of
	 * all that may be, another one is not begun. */
	LOOKUP_STUCK_MS = 1000,
	LOOKUP_STUCK_MAX = 4,
};

struct lookup {
	struct lookup *next, *previous; /* first of all, for insque(3) */
	const char *name;
	int64_t began_ms;
	bool waits; /* for one to end */
	pthread_cond_t may_begin;
};

/* Allows MAX of all hosts together, and as many who wait for room. To be called before there are
 * threads. */
void lookup_prepare(unsigned max);

/* Begins LOOKUP, of the host NAME, which stays the caller's; where there are as many as may be, waits
 * for one to end, for LOOKUP_STUCK_MS. Returns whether it has begun; then lookup_end() is to follow. */
bool lookup_begin(struct lookup *lookup, const char *name, int64_t now_ms);
void lookup_end(struct lookup *lookup, int64_t now_ms);

/* Whether one more may wait for room in a backlog; then lookup_end_wait() is to follow. */
bool lookup_begin_wait(void);
void lookup_end_wait(void);

#endif

/* Who is overdue to give way: which of the open connections has made no progress for longest.
 *
 * Any thread may call it, behind the lock of registry.h. */
#ifndef OVERDUE_H
#define OVERDUE_H

#include "connection.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* Nobody gives way who made progress so short a while ago: in general; and where a
	 * side has not taken bytes, so that a lost packet, which TCP repeats after 200 ms,
	 * does not count as no progress. When more than a few wait to be accepted, these
	 * shrink as those grow in number, down to what a busy machine takes to let the other
	 * side run. */
	OVERDUE_AGE_MS = 100,
	OVERDUE_STALL_MS = 500,
	OVERDUE_MIN_MS = 10,
	OVERDUE_FEW = 16,
};

/* Whether there is one that may ever give way. */
bool overdue_is_anyone(int64_t now_ms);

/* Returns the connection that gives way to others, of which WAITING wait, or NULL. Where it is FOR_THREADS
 * that they wait, it is one that keeps a thread. */
struct connection *overdue_choose(int waiting, bool for_threads, int64_t now_ms);

/* How many of the first connections in the hello wait for a thread. */
int overdue_count_unread(void);

/* Has those of the quiet ones that stall stand with those; FOR_THREADS, only those that keep one. */
void overdue_look_at_quiet(bool for_threads, int64_t now_ms);

#endif

/* Where the ways of connections wait that are quiet: an epoll set, in which each has its source. A
 * way belongs to one thread at a time: the one that took it here, until that leaves it here again.
 *
 * Any thread may call it. It shares the set alone. */
#ifndef LOT_H
#define LOT_H

#include "relay.h"

#include <stdbool.h>

/* The system calls by which lot_open() and lot_leave() fail, for the log. */
extern const char lot_open_call[], lot_leave_call[];

/* Makes the set. Returns false with errno set where that cannot be. To be called once. */
bool lot_open(void);

/* Leaves WAY in the lot until something comes from its sender; if ONLY_HANGUP, until that is gone.
 * From then on it is another thread's. Returns false with errno set, and it is still the caller's,
 * where the lot has no room. */
bool lot_leave(struct relay_way *way, bool only_hangup);

/* Waits at the lot for a way that has something to do, and takes it: it is the caller's then. Returns
 * NULL with errno ETIMEDOUT where there was none for TIMEOUT_MS, or EINTR. */
struct relay_way *lot_take(int timeout_ms);

/* Whether a way in the lot has something to do, and no thread has come for it yet. */
bool lot_has_work(void);

#endif

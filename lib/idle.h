/* Idle connections are parked here, without a thread, until something happens on one of their
 * sockets or their time is over. One thread watches them all.
 *
 * Parking saves memory and nothing else: 10,000 idle connections would need 10,000 threads. A
 * parked connection has no state but what is in struct connection, so any thread may go on with
 * it. */
#ifndef IDLE_H
#define IDLE_H

#include "lib/table.h"

#include <stdbool.h>

/* What the thread does that watches. It gives a connection to another thread when there is
 * something to do; if none can be had, it waits for one. */
_Noreturn void *idle_run(void *unused);

/* Parks C, which belongs to no thread from then on. Returns false with errno set if that fails;
 * then C is still the caller's. */
bool idle_park(struct connection *c);

#endif

/* Idle connections are parked here, without a thread, until there is an event on one of their
 * sockets or their timeout expires. One thread watches them all.
 *
 * Parking saves memory and nothing else: 10,000 idle connections would need 10,000 threads. The
 * whole state of a parked connection is in struct connection, so any thread can resume it. */
#ifndef IDLE_H
#define IDLE_H

#include "lib/table.h"

#include <stdbool.h>

/* Runs the watching thread. When there is something to do, it gives the connection to another
 * thread, and waits for one if none is available. */
_Noreturn void *idle_run(void *unused);

/* Parks C, which no thread owns from then on. On failure returns false with errno set; then the
 * caller still owns C. */
bool idle_park(struct connection *c);

#endif

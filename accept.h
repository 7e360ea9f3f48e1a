/* Accepting connections, as long as there is room for them; and what to do where there is none.
 *
 * For the main thread. */
#ifndef ACCEPT_H
#define ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

/* Says for how many connections there is room. */
void accept_prepare(unsigned connections_max);

/* Begins with connections that wait to be accepted, and with those that come meanwhile: as many as are
 * taken at a stretch, until none has come for a moment, or those for which there is room. */
void accept_connections(void);

/* When to accept again, where something is short; 0 where nothing is. */
int64_t accept_again_ms(void);

/* Something may not be short any more. */
void accept_soon(void);

/* The main thread preempts others only as long as there is pressure. */
void accept_calm_down(void);

/* Sees to it that a thread waits at the lot, and returns whether one does; where none can be had, one
 * who keeps a thread without progress gives way. */
bool accept_ensure_thread(void);

#endif

/* The open connections, and when the main thread is to look at them again.
 *
 * Any thread may call it, and all of it but registry_lock() is behind that lock. */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "connection.h"

#include <stdbool.h>
#include <stdint.h>

/* Those who wait for the same thing stand in one ring, who has done so for longest comes first. That
 * is one ring for each state, and some more. */
enum registry_ring {
	REGISTRY_NO_ROOM =
	    CONNECTION_STATES, /* in CONNECTION_BACKEND, which has no room */
	REGISTRY_HALF_CLOSED, /* in CONNECTION_RELAY; the client has just ended its stream */
	REGISTRY_STALLED, /* in CONNECTION_RELAY or CONNECTION_CLOSING, and a side was seen
				 not to take what the other sent */
	REGISTRY_LEAVING, /* about to end */
	REGISTRY_RINGS,
};

/* Says for how many connections there is room. To be called by the main thread, once. */
void registry_init(unsigned places);

void registry_lock(void);
void registry_unlock(void);

/* How many connections are open; how many of them will end by themselves; the most that ever were at
 * once; whether there is room for one more; whether more than seven eighths of all places are taken. */
unsigned registry_connections(void);
unsigned registry_unfinished(void);
unsigned registry_peak(void);
bool registry_has_room(void);
bool registry_is_nearly_full(void);

/* Has the main thread woken, once, when a connection ends and so many PLACES are free then. */
void registry_tell_of_room(unsigned places);

/* Takes C among the open connections. */
void registry_enter(struct connection *c, int64_t now_ms);

/* Has C, which has made progress or whose time begins anew, stand last in RING. */
void registry_move(struct connection *c, unsigned ring, int64_t now_ms);

/* Notes in which state C is now. Where it is about to end, it stays with those. */
void registry_note(struct connection *c, enum connection_state state, int64_t now_ms);

/* Notes that the backend of C, which is in CONNECTION_BACKEND, has no room yet, and that the calling
 * thread waits for it, which may be interrupted, until the next registry_note(). */
void registry_note_waiting(struct connection *c);

/* Notes that the client of C, which is in CONNECTION_RELAY, has ended its stream, and that nobody
 * watches whether it is gone altogether. Returns false where there is no room for that. */
bool registry_note_half_closed(struct connection *c, int64_t now_ms);

/* Returns the first connection of RING, and the one after C in the same, or NULL. */
struct connection *registry_first(unsigned ring);
struct connection *registry_after(const struct connection *c);

/* Returns the connection after C in all rings, the first one after NULL, and NULL after the last. */
struct connection *registry_next(const struct connection *c);

/* Notes that C is over, but that a thread is stuck at it: nobody waits for that. */
void registry_give_up(struct connection *c);

/* C is no more among the open connections, and nobody else looks at it; but it still has its place,
 * which registry_leave() gives back when its descriptors are closed. */
void registry_remove(struct connection *c);
void registry_leave(void);

/* Has the main thread look at AT_MS at the latest: it is woken where it would sleep longer. */
void registry_look_by(int64_t at_ms);

/* When it is to look, INT64_MAX where that is open; and forgets that. */
int64_t registry_next_look(void);
void registry_forget_look(void);

#endif

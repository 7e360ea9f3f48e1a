/* The open connections, and who of them gives way to new ones when no more fit: whoever has made
 * no progress for longest.
 *
 * Any thread may call it, and all of it but pressure_lock() is behind that lock. */
#ifndef PRESSURE_H
#define PRESSURE_H

#include "connection.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* Under pressure, an address may have one in so many of all connections, but at
	 * least so many. IPv6 addresses count by their first 64 bits, since that is what one
	 * customer has. */
	PRESSURE_SHARE = 16,
	PRESSURE_SHARE_MIN = 4,

	/* Nobody gives way who made progress so short a while ago: in general; and where a
	 * side has not taken bytes, so that a lost packet, which TCP repeats after 200 ms,
	 * does not count as no progress. When more than a few wait to be accepted, these
	 * shrink as those grow in number, down to what a busy machine takes to let the other
	 * side run. */
	PRESSURE_AGE_MS = 100,
	PRESSURE_STALL_MS = 500,
	PRESSURE_MIN_MS = 10,
	PRESSURE_FEW = 16,

	/* So many within a second are a flood: of an address, that were turned away; for a
	 * host, that gave way. */
	PRESSURE_MANY = 20,

	/* Pressure is over when fewer than this many eighths of all places are taken, and
	 * for so long nobody has had to give way, and no flood was turned away. */
	PRESSURE_EIGHTHS = 7,
	PRESSURE_REST_MS = 5 * 1000,
};

/* Says for how many connections there is room. To be called by the main thread, once. */
void pressure_init(unsigned connections_max);

void pressure_lock(void);
void pressure_unlock(void);

/* How many connections are open, and whether there is room for one more. */
unsigned pressure_connections(void);
bool pressure_has_room(void);

/* The most that were ever open at once. */
unsigned pressure_connections_peak(void);

/* Has the main thread woken, once, when a connection ends and so many PLACES are free then. */
void pressure_tell_of_room(unsigned places);

/* Takes C, whose ClientHello comes next, among the open connections. Returns false where its
 * address has its share; then it is not to be served, and is not among them. */
bool pressure_enter(struct connection *c, int64_t now_ms);

/* Takes note that C is for the host of its name, while there is pressure. Returns false where there
 * is a flood for that; then, if new connections come faster than they can be served, this one is
 * to be turned away, which pressure_turned_away() counts. */
bool pressure_admit(struct connection *c, int64_t now_ms);
void pressure_turned_away(int64_t now_ms);

/* Notes how far C is now. */
void pressure_note(struct connection *c, enum connection_state state, int64_t now_ms);

/* Notes that the backend of C, which is in CONNECTION_BACKEND, has no room yet, and that the calling
 * thread waits for it, which may be interrupted, until the next pressure_note(). */
void pressure_note_waiting(struct connection *c, int64_t now_ms);

/* Notes that the client of C, which is in CONNECTION_RELAY, has ended its stream, and that nobody
 * watches whether it is gone altogether. Returns false where there is no room for that. */
bool pressure_note_half_closed(struct connection *c, int64_t now_ms);

/* Returns the connection of which that has been so for longest, or NULL. */
struct connection *pressure_first_half_closed(void);

/* Decides that C ends as END. Returns false where that was decided before. This needs no lock. */
bool pressure_decide(struct connection *c, enum status_end end);

/* Has C, which closes, end without further patience; where that fails, it closes from NOW_MS on. */
void pressure_hurry(struct connection *c, int64_t now_ms);

/* Returns the one that has been in STATE for longest, or NULL. Those that stall, or are about to
 * end, are in none. */
struct connection *pressure_first(enum connection_state state);

/* Returns the connection after C, in no order that lasts, the first one after NULL, and NULL after
 * the last one. */
struct connection *pressure_next(const struct connection *c);

/* C is no more among the open connections, and nobody else looks at it; but it still has its place,
 * which pressure_leave() gives back when its descriptors are closed. */
void pressure_remove(struct connection *c);
void pressure_leave(void);

/* What came of an attempt to make way. */
enum pressure_result {
	PRESSURE_SOON,   /* one or more will end at once */
	PRESSURE_LATER,  /* one may soon be worth it */
	PRESSURE_NOBODY, /* there is none that could give way */
};

/* Ends connections for the sake of others, of which WAITING wait: those that have made no progress
 * for longest; where there is want of threads, of those that keep one. To be called by the main
 * thread, again until there is room. */
enum pressure_result pressure_make_way(int waiting, bool for_threads, int64_t now_ms);

/* Whether somebody had to give way, and that is not over yet. */
bool pressure_is_on(void);

/* Has C, which gets nothing, reset when its socket is closed. What the kernel still has for a
 * client that does not take it goes at once. Needs no lock. */
void pressure_reset(const struct connection *c);

/* Has the main thread look at AT_MS at the latest: it is woken where it would sleep longer. */
void pressure_look_by(int64_t at_ms);

/* To be called by the main thread when that time has come. Logs where the pressure is over, and
 * forgets that time; pressure_next_look() is when it comes next, INT64_MAX where it does not. */
void pressure_look(int64_t now_ms);
int64_t pressure_next_look(void);

#endif

/* Who gives way to new connections when no more fit: whoever has made no progress for longest.
 *
 * Any thread may call it, behind the lock of registry.h. */
#ifndef PRESSURE_H
#define PRESSURE_H

#include "connection.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* Under pressure, an address may have one in so many of all connections, but at
	 * least so many. */
	PRESSURE_SHARE = 16,
	PRESSURE_SHARE_MIN = 4,

	/* Pressure is over when an eighth of all places is free, and for so long nobody has
	 * had to give way, and no flood was turned away. */
	PRESSURE_REST_MS = 5 * 1000,
};

/* Says for how many connections there is room. To be called by the main thread, once. */
void pressure_init(unsigned connections_max);

/* Counts C, whose client has just become known, among those of its address. Returns END_OPEN; or how C
 * is to end at once, and then it is not counted: its address has its share. */
enum connection_end pressure_enter(struct connection *c, int64_t now_ms);

/* Takes note that C is for the host of its name, while there is pressure. Returns false where there
 * is a flood for that; then, if new connections come faster than they can be served, this one is
 * to be turned away, which pressure_note() counts. */
bool pressure_admit(struct connection *c, int64_t now_ms);

/* Whether there is a flood for the host NAME. */
bool pressure_is_flooded(const char *name, int64_t now_ms);

/* Counts a connection that others have not to wait for: END_GAVE_WAY, before its hello was there,
 * or END_TURNED_AWAY, since it is for a host of which there is a flood. */
void pressure_note(enum connection_end end, int64_t now_ms);

/* C ends: it is counted no more. */
void pressure_leave(struct connection *c);

/* Has C, which closes, end without further patience; where that fails, it closes from NOW_MS on. */
void pressure_hurry(struct connection *c, int64_t now_ms);

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

/* To be called by the main thread when it looks: logs where the pressure is over. Who was found stalled
 * stands where it was before then, also where nobody had to give way. */
void pressure_look(int64_t now_ms);

#endif

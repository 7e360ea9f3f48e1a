/* Who gives way to new connections when no more fit: whoever has made no progress for
 * longest. And who is turned away then.
 *
 * All of it is behind a lock of the caller's. */
#ifndef PRESSURE_H
#define PRESSURE_H

#include "address.h"
#include "proxy.h"

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

/* A connection's place among the others. All zero at first; OBSTACLE and PROGRESS may be
 * read by who noted them. */
struct pressure_place {
	struct pressure_place *next, *previous; /* first of all, for insque(3) */
	int64_t since_ms;                       /* when it last made progress */
	enum proxy_obstacle obstacle;
	uint64_t progress;
	struct pressure_group *source, *host;
};

/* Says for how many connections there is room. To be called first, once. */
void pressure_init(unsigned connections_max);

/* Takes PLACE for a new connection from PEER, which has no obstacle yet. Returns false where
 * its address has its share; then the connection is not to be served. */
bool
pressure_enter(struct pressure_place *place, const union address *peer, int64_t now_ms);

/* Takes note that the connection of PLACE is for HOST, while there is pressure. Returns
 * false where there is a flood for that; then, if new connections come faster than they can
 * be served, this one is to be turned away. */
bool pressure_admit(struct pressure_place *place, const char *host, int64_t now_ms);

/* Counts that a connection was turned away for the sake of other hosts. */
void pressure_turned_away(int64_t now_ms);

/* Notes what keeps the connection of PLACE from going on, if anything does. PROGRESS is
 * any number that changes when it does go on. */
void pressure_note(struct pressure_place *place, enum proxy_obstacle obstacle,
    uint64_t progress, int64_t now_ms);

/* Returns the place of the connection that gives way when WAITING others wait to be
 * accepted, the first of them to which CONSENTS says true; or NULL. */
struct pressure_place *
pressure_choose(int waiting, int64_t now_ms, bool (*consents)(struct pressure_place *));

/* Whether some connection may give way sooner or later. */
bool pressure_has_obstacles(void);

/* Returns the place of a connection without an obstacle, another one each time, to which
 * CONSENTS says true; or NULL. LEFT says how many may still be asked, and is counted down. */
struct pressure_place *
pressure_quiet(unsigned *left, bool (*consents)(struct pressure_place *));

/* Counts that the connection of PLACE, of CONNECTIONS in all, gives way, and logs where
 * that begins. */
void pressure_gives_way(
    const struct pressure_place *place, unsigned connections, int64_t now_ms);

/* Gives PLACE back, with which the connection has ended. Harmless where it was not
 * taken. */
void pressure_leave(struct pressure_place *place);

/* Logs where the pressure is over. Returns when to call it again, or 0 where there is no
 * pressure. */
int64_t pressure_look(unsigned connections, int64_t now_ms);

#endif

#include "pressure.h"

#include "group.h"
#include "log.h"
#include "overdue.h"
#include "registry.h"
#include "thread.h"

#include <string.h>
#include <sys/socket.h>

enum {
	/* How many are to end at once. */
	LEAVING_MAX = 64,

	/* For how long one may take to leave; then it waits for something that cannot be interrupted,
	 * as a file system. */
	LEAVING_MS = 1000,

	/* How often to look whether an eighth of all places is free. */
	FULL_MS = 250,
};

static struct {
	unsigned share; /* of an address */
	bool is_on;
	int64_t began_ms;
	int64_t looked_ms; /* when it was last looked for someone */
	int64_t last_ms;   /* when one last gave way, or of a flood was turned away */
	unsigned gave_way[REGISTRY_RINGS];
	unsigned over_share, for_flooded_hosts; /* turned away */
} pressure;

void
pressure_init(unsigned connections_max)
{
	unsigned share = connections_max / PRESSURE_SHARE;
	pressure.share = share > PRESSURE_SHARE_MIN ? share : PRESSURE_SHARE_MIN;
}

enum connection_end
pressure_enter(struct connection *c, int64_t now_ms)
{
	c->source = group_join_address(&c->peer);
	if (c->source == NULL || !pressure.is_on ||
	    c->source->connections <= pressure.share)
		return END_OPEN;
	pressure.over_share++;
	group_count_lost(c->source, now_ms);
	if (group_is_flood(c->source, now_ms))
		pressure.last_ms = now_ms;
	group_leave(c->source);
	c->source = NULL;
	return END_TURNED_AWAY;
}

bool
pressure_admit(struct connection *c, int64_t now_ms)
{
	if (!pressure.is_on)
		return true;
	c->host = group_join_host(c->name);
	return c->host == NULL || !group_is_flood(c->host, now_ms);
}

bool
pressure_is_flooded(const char *name, int64_t now_ms)
{
	struct group *host = group_join_host(name);
	bool is_flooded = host != NULL && group_is_flood(host, now_ms);
	if (is_flooded)
		group_count_lost(host, now_ms); /* so that it stays one */
	group_leave(host);
	return is_flooded;
}

void
pressure_note(enum connection_end end, int64_t now_ms)
{
	if (end == END_TURNED_AWAY)
		pressure.for_flooded_hosts++;
	else
		pressure.gave_way[CONNECTION_HELLO]++;
	pressure.last_ms = now_ms;
}

void
pressure_leave(struct connection *c)
{
	group_leave(c->source);
	group_leave(c->host);
}

/* --- Who gives way --- */

/* Ends whatever a thread waits for at C. Returns false where it cannot. */
static bool
interrupt(struct connection *c)
{
	if (c->is_waiting)
		thread_interrupt(c->thread);
	if (c->state == CONNECTION_RELAY)
		shutdown(c->backend, SHUT_RDWR);
	atomic_store(&c->lingered, c->state == CONNECTION_CLOSING);
	return shutdown(c->client, c->ring == REGISTRY_STALLED ? SHUT_RDWR : SHUT_RD) ==
	    0;
}

/* Has C give way; in a HURRY, by a reset, which takes half the time of an alert. */
static void
give_way(struct connection *c, bool hurry, int64_t now_ms)
{
	if (c->ring == REGISTRY_STALLED && c->state == CONNECTION_CLOSING)
		atomic_store(&c->end, END_GAVE_WAY); /* it loses what it was to get */
	bool gives_way =
	    c->state != CONNECTION_CLOSING && connection_decide(c, END_GAVE_WAY);
	if (c->ring == REGISTRY_STALLED || (gives_way && hurry))
		c->resets = true;
	else if (gives_way)
		c->alert =
		    c->ring == CONNECTION_HELLO ? TLS_USER_CANCELED : TLS_INTERNAL_ERROR;
	interrupt(c);
	pressure.gave_way[c->ring]++;
	pressure.last_ms = now_ms;
	if (c->host != NULL)
		group_count_lost(c->host, now_ms);
	registry_move(c, REGISTRY_LEAVING, now_ms);
}

static void
begin(int64_t now_ms)
{
	if (pressure.is_on)
		return;
	pressure.is_on = true;
	pressure.began_ms = now_ms;
	log_notice("sniproxy: %u connections are open, and no more fit; those without "
		   "progress give way",
	    registry_connections());
}

/* Returns how many are about to end; where there is want of threads, of those that keep one: the
 * others may be waiting for it. */
static int
hasten(bool for_threads, int64_t now_ms)
{
	int leaving = 0;
	const struct connection *c = registry_first(REGISTRY_LEAVING);
	for (; c != NULL; c = registry_after(c)) {
		/* The thread may just not have been waiting yet. */
		if (c->is_waiting)
			thread_interrupt(c->thread);
		leaving += now_ms - c->since_ms < LEAVING_MS && !c->is_given_up &&
		    (!for_threads || connection_keeps_a_thread(c));
	}
	return leaving;
}

enum pressure_result
pressure_make_way(int waiting, bool for_threads, int64_t now_ms)
{
	int leaving = hasten(for_threads, now_ms);
	struct connection *c;
	pressure.looked_ms = now_ms;
	registry_look_by(now_ms + PRESSURE_REST_MS);
	if (for_threads && waiting < LEAVING_MAX)
		waiting += overdue_count_unread();
	int wanted = waiting < 1 ? 1 : waiting < LEAVING_MAX ? waiting : LEAVING_MAX;
	while (leaving < wanted &&
	    (c = overdue_choose(waiting, for_threads, now_ms)) != NULL) {
		begin(now_ms);
		give_way(c, waiting > OVERDUE_FEW, now_ms);
		leaving++;
	}
	if (leaving > 0)
		return PRESSURE_SOON;
	overdue_look_at_quiet(for_threads, now_ms);
	return overdue_is_anyone(now_ms) ? PRESSURE_LATER : PRESSURE_NOBODY;
}

void
pressure_hurry(struct connection *c, int64_t now_ms)
{
	unsigned ring = interrupt(c) ? (unsigned)REGISTRY_LEAVING : c->ring;
	registry_move(c, ring, now_ms);
}

bool
pressure_is_on(void)
{
	return pressure.is_on;
}

static void
log_end(int64_t now_ms)
{
	log_notice(
	    "sniproxy: all connections fit again after %lld s; gave way: %u in the "
	    "hello, %u waiting for a backend, %u stalled, %u not closed; turned away: "
	    "%u of addresses with too many, %u for flooded hosts",
	    (long long)(now_ms - pressure.began_ms) / 1000,
	    pressure.gave_way[CONNECTION_HELLO], pressure.gave_way[REGISTRY_NO_ROOM],
	    pressure.gave_way[REGISTRY_STALLED], pressure.gave_way[CONNECTION_CLOSING],
	    pressure.over_share, pressure.for_flooded_hosts);
	memset(pressure.gave_way, 0, sizeof pressure.gave_way);
	pressure.over_share = pressure.for_flooded_hosts = 0;
}

void
pressure_look(int64_t now_ms)
{
	int64_t over_ms =
	    (pressure.is_on ? pressure.last_ms : pressure.looked_ms) + PRESSURE_REST_MS;
	if (now_ms < over_ms || (pressure.is_on && registry_is_nearly_full())) {
		registry_look_by(over_ms > now_ms ? over_ms : now_ms + FULL_MS);
		return;
	}
	if (pressure.is_on)
		log_end(now_ms);
	pressure.is_on = false;
	for (struct connection *c; (c = registry_first(REGISTRY_STALLED)) != NULL;)
		registry_move(c, c->state, now_ms);
}

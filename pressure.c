#include "pressure.h"

#include "log.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

/* The connections of an address. */
struct pressure_source {
	struct in6_addr address;
	unsigned connections;
};

/* Where those wait who are without progress for the same time before they give way; and
 * those that never do. */
enum { QUIET, IN_GENERAL, STALLED, RINGS };

static struct {
	unsigned connections_max;
	unsigned share;
	struct pressure_place rings[RINGS]; /* who has waited for longest comes next */
	void *sources;                      /* a tree of them, see tsearch(3) */
	bool is_on;
	int64_t began_ms;
	int64_t last_ms; /* when someone last gave way */
	unsigned gave_way[PROXY_OBSTACLES];
	unsigned over_share;
} pressure;

void
pressure_init(unsigned connections_max)
{
	unsigned share = connections_max / PRESSURE_SHARE;
	pressure.connections_max = connections_max;
	pressure.share = share > PRESSURE_SHARE_MIN ? share : PRESSURE_SHARE_MIN;
	for (size_t i = 0; i < RINGS; i++)
		pressure.rings[i].next = pressure.rings[i].previous = &pressure.rings[i];
}

static struct pressure_place *
ring_of(const struct pressure_place *place)
{
	switch (place->obstacle) {
	case PROXY_NO_OBSTACLE:
		return &pressure.rings[QUIET];
	case PROXY_UNTAKEN:
		return &pressure.rings[STALLED];
	default:
		return &pressure.rings[IN_GENERAL];
	}
}

static int
compare(const void *a, const void *b)
{
	const struct pressure_source *x = a, *y = b;
	return memcmp(&x->address, &y->address, sizeof x->address);
}

/* What the connections of one customer have in common. */
static struct in6_addr
common_part(const union address *peer)
{
	struct in6_addr common = IN6ADDR_ANY_INIT;
	if (peer->any.sa_family == AF_INET)
		memcpy(&common.s6_addr[12], &peer->v4.sin_addr, sizeof peer->v4.sin_addr);
	else
		memcpy(&common, &peer->v6.sin6_addr, 8);
	return common;
}

/* Returns what is known of the address PEER; NULL where memory is short. */
static struct pressure_source *
find_source(const union address *peer)
{
	const struct pressure_source wanted = {.address = common_part(peer)};
	void *node = tfind(&wanted, &pressure.sources, compare);
	if (node != NULL)
		return *(struct pressure_source **)node;
	struct pressure_source *source = malloc(sizeof *source);
	if (source == NULL)
		return NULL;
	*source = wanted;
	if (tsearch(source, &pressure.sources, compare) != NULL)
		return source;
	free(source);
	return NULL;
}

static void
leave_source(struct pressure_source *source)
{
	if (source == NULL || --source->connections > 0)
		return;
	tdelete(source, &pressure.sources, compare);
	free(source);
}

bool
pressure_enter(struct pressure_place *place, const union address *peer, int64_t now_ms)
{
	struct pressure_source *source = find_source(peer);
	if (source != NULL && pressure.is_on && source->connections >= pressure.share) {
		pressure.over_share++;
		pressure.last_ms = now_ms;
		return false;
	}
	if (source != NULL)
		source->connections++;
	*place = (struct pressure_place){.source = source};
	insque(place, ring_of(place)->previous);
	return true;
}

void
pressure_note(struct pressure_place *place, enum proxy_obstacle obstacle,
    uint64_t progress, int64_t now_ms)
{
	remque(place);
	place->obstacle = obstacle;
	place->progress = progress;
	place->since_ms = now_ms;
	insque(place, ring_of(place)->previous);
}

/* For how long the first one in the ring WHICH from PLACE on is overdue to give way; below
 * zero where it is not. */
static int64_t
overdue_ms(const struct pressure_place *place, int which, int waiting, int64_t now_ms)
{
	int64_t patience_ms = which == STALLED ? PRESSURE_STALL_MS : PRESSURE_AGE_MS;
	if (waiting > PRESSURE_FEW)
		patience_ms = patience_ms * PRESSURE_FEW / waiting;
	return place == &pressure.rings[which] ? INT64_MIN
					       : now_ms - place->since_ms - patience_ms;
}

struct pressure_place *
pressure_choose(int waiting, int64_t now_ms, bool (*consents)(struct pressure_place *))
{
	struct pressure_place *next[RINGS] = {
	    [IN_GENERAL] = pressure.rings[IN_GENERAL].next,
	    [STALLED] = pressure.rings[STALLED].next,
	};
	for (;;) {
		int64_t general_ms =
		    overdue_ms(next[IN_GENERAL], IN_GENERAL, waiting, now_ms);
		int64_t stalled_ms = overdue_ms(next[STALLED], STALLED, waiting, now_ms);
		int which = general_ms >= stalled_ms ? IN_GENERAL : STALLED;
		if (general_ms < 0 && stalled_ms < 0)
			return NULL;
		if (consents(next[which]))
			return next[which];
		next[which] = next[which]->next;
	}
}

bool
pressure_has_obstacles(void)
{
	return pressure.rings[IN_GENERAL].next != &pressure.rings[IN_GENERAL] ||
	    pressure.rings[STALLED].next != &pressure.rings[STALLED];
}

struct pressure_place *
pressure_quiet(unsigned *left, bool (*consents)(struct pressure_place *))
{
	struct pressure_place *ring = &pressure.rings[QUIET];
	while (*left > 0 && ring->next != ring) {
		struct pressure_place *place = ring->next;
		--*left;
		remque(place);
		insque(place, ring->previous);
		if (consents(place))
			return place;
	}
	return NULL;
}

void
pressure_gives_way(
    const struct pressure_place *place, unsigned connections, int64_t now_ms)
{
	pressure.gave_way[place->obstacle]++;
	pressure.last_ms = now_ms;
	if (pressure.is_on)
		return;
	pressure.is_on = true;
	pressure.began_ms = now_ms;
	log_notice("sniproxy: %u connections are open, and no more fit; those without "
		   "progress give way",
	    connections);
}

void
pressure_leave(struct pressure_place *place)
{
	if (place->next != NULL)
		remque(place);
	leave_source(place->source);
	*place = (struct pressure_place){0};
}

int64_t
pressure_look(unsigned connections, int64_t now_ms)
{
	if (!pressure.is_on)
		return 0;
	int64_t over_ms = pressure.last_ms + PRESSURE_REST_MS;
	if (connections >= pressure.connections_max / 8 * PRESSURE_EIGHTHS + 1 ||
	    now_ms < over_ms)
		return over_ms > now_ms ? over_ms : now_ms + PRESSURE_REST_MS;
	log_notice(
	    "sniproxy: all connections fit again after %lld s; gave way: %u in the "
	    "hello, %u waiting for a backend, %u stalled, %u not closed; turned away: "
	    "%u of addresses with too many",
	    (long long)(now_ms - pressure.began_ms) / 1000,
	    pressure.gave_way[PROXY_HELLO_UNFINISHED],
	    pressure.gave_way[PROXY_BACKEND_FULL], pressure.gave_way[PROXY_UNTAKEN],
	    pressure.gave_way[PROXY_UNCLOSED], pressure.over_share);
	pressure.is_on = false;
	memset(pressure.gave_way, 0, sizeof pressure.gave_way);
	pressure.over_share = 0;
	return 0;
}

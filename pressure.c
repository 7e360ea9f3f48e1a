#include "pressure.h"

#include "log.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

/* The connections of an address, or for a host. */
struct pressure_group {
	unsigned connections;
	unsigned lost; /* turned away, or gave way, in the second from LOST_MS on */
	int64_t lost_ms;
	size_t length;
	uint8_t key[]; /* the bytes of an address, or a name, which has no NUL */
};

/* Where those wait who are without progress for the same time before they give way; and
 * those that never do. */
enum { QUIET, IN_GENERAL, STALLED, RINGS };

static struct {
	unsigned connections_max;
	unsigned share;
	struct pressure_place rings[RINGS]; /* who has waited for longest comes next */
	void *groups;                       /* a tree of them, see tsearch(3) */
	bool is_on;
	int64_t began_ms;
	int64_t
	    last_ms; /* when someone last gave way, or one of a flood was turned away */
	unsigned gave_way[PROXY_OBSTACLES];
	unsigned over_share, for_flooded_hosts; /* turned away */
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
	const struct pressure_group *x = a, *y = b;
	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->key, y->key, x->length);
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

/* Returns the group that has the LENGTH bytes at KEY, to which one connection more belongs
 * now; NULL where memory is short. */
static struct pressure_group *
join_group(const void *key, size_t length)
{
	struct pressure_group *group = malloc(sizeof *group + length);
	if (group == NULL)
		return NULL;
	*group = (struct pressure_group){.length = length};
	memcpy(group->key, key, length);
	struct pressure_group **found = tsearch(group, &pressure.groups, compare);
	struct pressure_group *joined = found != NULL ? *found : NULL;
	if (joined != group)
		free(group);
	if (joined != NULL)
		joined->connections++;
	return joined;
}

static void
leave_group(struct pressure_group *group)
{
	if (group == NULL || --group->connections > 0)
		return;
	tdelete(group, &pressure.groups, compare);
	free(group);
}

static void
count_lost(struct pressure_group *group, int64_t now_ms)
{
	if (now_ms >= group->lost_ms + 1000) {
		group->lost_ms = now_ms;
		group->lost = 0;
	}
	group->lost++;
}

/* Whether so many of GROUP were lost of late that they are a flood. */
static bool
is_flood(const struct pressure_group *group, int64_t now_ms)
{
	return group->lost >= PRESSURE_MANY && now_ms < group->lost_ms + 1000;
}

bool
pressure_enter(struct pressure_place *place, const union address *peer, int64_t now_ms)
{
	const struct in6_addr key = common_part(peer);
	struct pressure_group *source = join_group(&key, sizeof key);
	if (source != NULL && pressure.is_on && source->connections > pressure.share) {
		pressure.over_share++;
		count_lost(source, now_ms);
		if (is_flood(source, now_ms))
			pressure.last_ms = now_ms;
		leave_group(source);
		return false;
	}
	*place = (struct pressure_place){.source = source};
	insque(place, ring_of(place)->previous);
	return true;
}

bool
pressure_admit(struct pressure_place *place, const char *host, int64_t now_ms)
{
	if (!pressure.is_on)
		return true;
	place->host = join_group(host, strlen(host));
	return place->host == NULL || !is_flood(place->host, now_ms);
}

void
pressure_turned_away(int64_t now_ms)
{
	pressure.for_flooded_hosts++;
	pressure.last_ms = now_ms;
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
	if (patience_ms < PRESSURE_MIN_MS)
		patience_ms = PRESSURE_MIN_MS;
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
	if (place->host != NULL)
		count_lost(place->host, now_ms);
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
	leave_group(place->source);
	leave_group(place->host);
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
	    "%u of addresses with too many, %u for flooded hosts",
	    (long long)(now_ms - pressure.began_ms) / 1000,
	    pressure.gave_way[PROXY_HELLO_UNFINISHED],
	    pressure.gave_way[PROXY_BACKEND_FULL], pressure.gave_way[PROXY_UNTAKEN],
	    pressure.gave_way[PROXY_UNCLOSED], pressure.over_share,
	    pressure.for_flooded_hosts);
	pressure.is_on = false;
	memset(pressure.gave_way, 0, sizeof pressure.gave_way);
	pressure.over_share = pressure.for_flooded_hosts = 0;
	return 0;
}

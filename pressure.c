#include "pressure.h"

#include "log.h"
#include "thread.h"

#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The connections of an address, or for a host. */
struct pressure_group {
	unsigned connections;
	unsigned lost; /* turned away, or gave way, in the second from LOST_MS on */
	int64_t lost_ms;
	size_t length;
	uint8_t key[]; /* the bytes of an address, or a name, which has no NUL */
};

/* Those who wait for the same thing stand in one ring, who has done so for longest comes first.
 * That is one ring for each state; and for those in CONNECTION_BACKEND whose backend has no room;
 * those in CONNECTION_RELAY whose client has just ended its stream; those in CONNECTION_RELAY and
 * CONNECTION_CLOSING where a side was seen not to take what the other sent; and those that are about
 * to end. */
enum { NO_ROOM = CONNECTION_STATES, HALF_CLOSED, STALLED, LEAVING, RINGS };

static const bool may_give_way[RINGS] = {
    [CONNECTION_HELLO] = true,
    [NO_ROOM] = true,
    [STALLED] = true,
    [CONNECTION_CLOSING] = true,
};

enum {
	/* How many quiet connections are looked at for bytes that a side has not taken, of
	 * which nobody is told, in each look for who gives way. */
	LOOKS_MAX = 64,

	/* How many are to end at once. */
	LEAVING_MAX = 64,
};

static struct {
	pthread_mutex_t mutex;
	struct connection rings[RINGS];
	unsigned connections, connections_max, peak;
	unsigned tells_at;    /* wake the main thread when fewer are open */
	int64_t next_look_ms; /* when it looks again */

	unsigned share;
	void *groups; /* a tree of them, see tsearch(3) */
	bool is_on;
	int64_t began_ms;
	int64_t
	    last_ms; /* when someone last gave way, or one of a flood was turned away */
	unsigned gave_way[RINGS];
	unsigned over_share, for_flooded_hosts; /* turned away */
} pressure = {.mutex = PTHREAD_MUTEX_INITIALIZER, .next_look_ms = INT64_MAX};

void
pressure_init(unsigned connections_max)
{
	unsigned share = connections_max / PRESSURE_SHARE;
	pressure.connections_max = connections_max;
	pressure.share = share > PRESSURE_SHARE_MIN ? share : PRESSURE_SHARE_MIN;
	for (size_t i = 0; i < RINGS; i++)
		pressure.rings[i].next = pressure.rings[i].previous = &pressure.rings[i];
}

void
pressure_lock(void)
{
	pthread_mutex_lock(&pressure.mutex);
}

void
pressure_unlock(void)
{
	pthread_mutex_unlock(&pressure.mutex);
}

unsigned
pressure_connections(void)
{
	return pressure.connections;
}

bool
pressure_has_room(void)
{
	return pressure.connections < pressure.connections_max;
}

unsigned
pressure_connections_peak(void)
{
	return pressure.peak;
}

void
pressure_tell_of_room(unsigned places)
{
	pressure.tells_at = pressure.connections_max - places + 1;
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

/* Puts C, which has made progress, at the end of RING. */
static void
stand_in(struct connection *c, unsigned ring, int64_t now_ms)
{
	c->ring = ring;
	c->since_ms = now_ms;
	insque(c, pressure.rings[ring].previous);
}

static void
move_to(struct connection *c, unsigned ring, int64_t now_ms)
{
	remque(c);
	stand_in(c, ring, now_ms);
}

static struct connection *
first_in(unsigned ring)
{
	struct connection *first = pressure.rings[ring].next;
	return first == &pressure.rings[ring] ? NULL : first;
}

bool
pressure_enter(struct connection *c, int64_t now_ms)
{
	const struct in6_addr key = common_part(&c->peer);
	struct pressure_group *source = join_group(&key, sizeof key);
	if (source != NULL && pressure.is_on && source->connections > pressure.share) {
		pressure.over_share++;
		count_lost(source, now_ms);
		if (is_flood(source, now_ms))
			pressure.last_ms = now_ms;
		leave_group(source);
		return false;
	}
	c->source = source;
	stand_in(c, c->state, now_ms);
	if (++pressure.connections > pressure.peak)
		pressure.peak = pressure.connections;
	return true;
}

bool
pressure_admit(struct connection *c, int64_t now_ms)
{
	if (!pressure.is_on)
		return true;
	c->host = join_group(c->name, strlen(c->name));
	return c->host == NULL || !is_flood(c->host, now_ms);
}

void
pressure_turned_away(int64_t now_ms)
{
	pressure.for_flooded_hosts++;
	pressure.last_ms = now_ms;
}

void
pressure_note(struct connection *c, enum connection_state state, int64_t now_ms)
{
	c->state = state;
	c->is_waiting = false;
	if (c->ring != LEAVING)
		move_to(c, state, now_ms);
}

void
pressure_note_waiting(struct connection *c, int64_t now_ms)
{
	c->is_waiting = true;
	c->thread = pthread_self();
	if (c->ring == CONNECTION_BACKEND)
		move_to(c, NO_ROOM, now_ms);
}

bool
pressure_note_half_closed(struct connection *c, int64_t now_ms)
{
	if (c->ring != CONNECTION_RELAY)
		return false;
	move_to(c, HALF_CLOSED, now_ms);
	return true;
}

struct connection *
pressure_first_half_closed(void)
{
	return first_in(HALF_CLOSED);
}

bool
pressure_decide(struct connection *c, enum status_end end)
{
	enum status_end open = STATUS_OPEN;
	return atomic_compare_exchange_strong(&c->end, &open, end);
}

struct connection *
pressure_first(enum connection_state state)
{
	return first_in(state);
}

struct connection *
pressure_next(const struct connection *c)
{
	unsigned ring = 0;
	if (c != NULL && c->next != &pressure.rings[c->ring])
		return c->next;
	if (c != NULL)
		ring = c->ring + 1;
	while (ring < RINGS && first_in(ring) == NULL)
		ring++;
	return ring < RINGS ? first_in(ring) : NULL;
}

void
pressure_remove(struct connection *c)
{
	remque(c);
	leave_group(c->source);
	leave_group(c->host);
}

static bool
is_nearly_full(void)
{
	return pressure.connections >=
	    pressure.connections_max / 8 * PRESSURE_EIGHTHS + 1;
}

void
pressure_leave(void)
{
	pressure.connections--;
	if (pressure.is_on && !is_nearly_full())
		pressure_look_by(pressure.last_ms + PRESSURE_REST_MS);
	if (pressure.connections >= pressure.tells_at)
		return;
	thread_wake_main();
	pressure.tells_at = 0;
}

/* --- Who gives way --- */

void
pressure_reset(const struct connection *c)
{
	const struct linger at_once = {.l_onoff = 1};
	setsockopt(c->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

static bool
keeps_a_thread(const struct connection *c)
{
	return !c->upload.parked || (c->backend != -1 && !c->download.parked);
}

/* Whether C has sent something that nobody has read yet. */
static bool
is_unread(const struct connection *c)
{
	int bytes = 0;
	return ioctl(c->client, FIONREAD, &bytes) == 0 && bytes > 0;
}

/* Whether a side of C does not take what the other has sent. */
static bool
is_untaken(const struct connection *c)
{
	/* After an alert there is nothing that anybody has to wait for. */
	return (c->state == CONNECTION_RELAY || c->patient) &&
	    (relay_untaken(c->client) > 0 ||
		(c->state == CONNECTION_RELAY && relay_untaken(c->backend) > 0));
}

/* A number that changes when a side of C, which stalls, takes something. */
static uint64_t
progress_of(const struct connection *c)
{
	uint64_t progress = c->download.passed - (uint64_t)relay_untaken(c->client);
	if (c->state == CONNECTION_RELAY)
		progress += c->upload.passed - (uint64_t)relay_untaken(c->backend);
	return progress;
}

/* Has C stand where it belongs when one looks closely. */
static void
look_at(struct connection *c, int64_t now_ms)
{
	move_to(c, is_untaken(c) ? (unsigned)STALLED : c->state, now_ms);
	c->progress = progress_of(c);
}

/* Has those of the quiet ones that stall stand with those; where there is want of threads, only
 * those that keep one. */
static void
look_at_quiet(bool for_threads, int64_t now_ms)
{
	struct connection *c = first_in(CONNECTION_RELAY);
	struct connection *last = pressure.rings[CONNECTION_RELAY].previous;
	for (unsigned i = 0; i < LOOKS_MAX && c != NULL; i++) {
		bool is_last = c == last;
		if (!for_threads || keeps_a_thread(c))
			look_at(c, now_ms);
		else
			move_to(c, CONNECTION_RELAY, now_ms);
		c = is_last ? NULL : first_in(CONNECTION_RELAY);
	}
}

/* Whether it is for others to go on with C, and not for the program. In the hello, and when all is
 * over, a connection keeps no thread. */
static bool
waits_for_others(const struct connection *c, bool for_threads)
{
	if (for_threads)
		return (c->ring == NO_ROOM || c->ring == STALLED) && keeps_a_thread(c);
	return c->ring != CONNECTION_HELLO || (!keeps_a_thread(c) && !is_unread(c));
}

/* How many of the first connections in the hello wait for a thread. */
static int
count_unread(void)
{
	int unread = 0;
	const struct connection *ring = &pressure.rings[CONNECTION_HELLO];
	const struct connection *c = ring->next;
	for (unsigned i = 0; i < LOOKS_MAX && c != ring; i++, c = c->next)
		unread += is_unread(c);
	return unread;
}

/* For how long C is overdue to give way; below zero where it is not. */
static int64_t
overdue_ms(const struct connection *c, int waiting, int64_t now_ms)
{
	int64_t patience_ms = c->ring == STALLED ? PRESSURE_STALL_MS : PRESSURE_AGE_MS;
	if (waiting > PRESSURE_FEW)
		patience_ms = patience_ms * PRESSURE_FEW / waiting;
	if (patience_ms < PRESSURE_MIN_MS)
		patience_ms = PRESSURE_MIN_MS;
	return now_ms - c->since_ms - patience_ms;
}

/* Returns the connection that is most overdue to give way, as far as its ring tells. */
static struct connection *
most_overdue(int waiting, bool for_threads, int64_t now_ms)
{
	struct connection *chosen = NULL;
	int64_t most_ms = -1;
	for (unsigned ring = 0; ring < RINGS; ring++) {
		struct connection *end = &pressure.rings[ring], *c = end->next;
		if (!may_give_way[ring])
			continue;
		while (c != end && overdue_ms(c, waiting, now_ms) > most_ms &&
		    !waits_for_others(c, for_threads))
			c = c->next;
		if (c == end || overdue_ms(c, waiting, now_ms) <= most_ms)
			continue;
		most_ms = overdue_ms(c, waiting, now_ms);
		chosen = c;
	}
	return chosen;
}

/* Returns the connection that gives way, or NULL. */
static struct connection *
choose(int waiting, bool for_threads, int64_t now_ms)
{
	struct connection *c;
	while ((c = most_overdue(waiting, for_threads, now_ms)) != NULL) {
		if (c->ring == STALLED && c->progress == progress_of(c))
			return c;
		if (c->ring != STALLED && !is_untaken(c))
			return c;
		look_at(c, now_ms); /* a side has taken something, or takes nothing */
	}
	return NULL;
}

/* Ends whatever a thread waits for at C. Returns false where it cannot. */
static bool
interrupt(struct connection *c)
{
	if (c->is_waiting)
		thread_interrupt(c->thread);
	if (c->state == CONNECTION_RELAY)
		shutdown(c->backend, SHUT_RDWR);
	atomic_store(&c->lingered, c->state == CONNECTION_CLOSING);
	return shutdown(c->client, c->ring == STALLED ? SHUT_RDWR : SHUT_RD) == 0;
}

/* Has C give way; in a HURRY, by a reset, which takes half the time of an alert. */
static void
give_way(struct connection *c, bool hurry, int64_t now_ms)
{
	if (c->ring == STALLED && c->state == CONNECTION_CLOSING)
		atomic_store(&c->end, STATUS_GAVE_WAY); /* it loses what it was to get */
	bool gives_way =
	    c->state != CONNECTION_CLOSING && pressure_decide(c, STATUS_GAVE_WAY);
	if (c->ring == STALLED || (gives_way && hurry))
		pressure_reset(c);
	else if (gives_way)
		c->alert =
		    c->ring == CONNECTION_HELLO ? TLS_USER_CANCELED : TLS_INTERNAL_ERROR;
	interrupt(c);
	pressure.gave_way[c->ring]++;
	pressure.last_ms = now_ms;
	if (c->host != NULL)
		count_lost(c->host, now_ms);
	move_to(c, LEAVING, now_ms);
}

static void
begin(int64_t now_ms)
{
	pressure_look_by(now_ms + PRESSURE_REST_MS);
	if (pressure.is_on)
		return;
	pressure.is_on = true;
	pressure.began_ms = now_ms;
	log_notice("sniproxy: %u connections are open, and no more fit; those without "
		   "progress give way",
	    pressure.connections);
}

/* Returns how many are about to end; where there is want of threads, of those that keep one: the
 * others may be waiting for it. */
static int
hasten(bool for_threads)
{
	int leaving = 0;
	const struct connection *ring = &pressure.rings[LEAVING];
	for (const struct connection *c = ring->next; c != ring; c = c->next) {
		/* The thread may just not have been waiting yet. */
		if (c->is_waiting)
			thread_interrupt(c->thread);
		leaving += !for_threads || keeps_a_thread(c);
	}
	return leaving;
}

enum pressure_result
pressure_make_way(int waiting, bool for_threads, int64_t now_ms)
{
	int leaving = hasten(for_threads);
	struct connection *c;
	if (for_threads && waiting < LOOKS_MAX)
		waiting += count_unread();
	int wanted = waiting < 1 ? 1 : waiting < LEAVING_MAX ? waiting : LEAVING_MAX;
	while (leaving < wanted && (c = choose(waiting, for_threads, now_ms)) != NULL) {
		begin(now_ms);
		give_way(c, waiting > PRESSURE_FEW, now_ms);
		leaving++;
	}
	if (leaving > 0)
		return PRESSURE_SOON;
	look_at_quiet(for_threads, now_ms);
	for (unsigned ring = 0; ring < LEAVING; ring++)
		if (may_give_way[ring] && first_in(ring) != NULL)
			return PRESSURE_LATER;
	return PRESSURE_NOBODY;
}

void
pressure_hurry(struct connection *c, int64_t now_ms)
{
	move_to(c, interrupt(c) ? (unsigned)LEAVING : c->ring, now_ms);
}

bool
pressure_is_on(void)
{
	return pressure.is_on;
}

/* --- When to look --- */

void
pressure_look_by(int64_t at_ms)
{
	if (at_ms >= pressure.next_look_ms)
		return;
	pressure.next_look_ms = at_ms;
	if (!thread_is_main())
		thread_wake_main();
}

int64_t
pressure_next_look(void)
{
	return pressure.next_look_ms;
}

static void
log_end(int64_t now_ms)
{
	log_notice(
	    "sniproxy: all connections fit again after %lld s; gave way: %u in the "
	    "hello, %u waiting for a backend, %u stalled, %u not closed; turned away: "
	    "%u of addresses with too many, %u for flooded hosts",
	    (long long)(now_ms - pressure.began_ms) / 1000,
	    pressure.gave_way[CONNECTION_HELLO], pressure.gave_way[NO_ROOM],
	    pressure.gave_way[STALLED], pressure.gave_way[CONNECTION_CLOSING],
	    pressure.over_share, pressure.for_flooded_hosts);
	memset(pressure.gave_way, 0, sizeof pressure.gave_way);
	pressure.over_share = pressure.for_flooded_hosts = 0;
}

void
pressure_look(int64_t now_ms)
{
	pressure.next_look_ms = INT64_MAX;
	if (!pressure.is_on)
		return;
	int64_t over_ms = pressure.last_ms + PRESSURE_REST_MS;
	if (is_nearly_full() || now_ms < over_ms) {
		pressure_look_by(over_ms > now_ms ? over_ms : now_ms + PRESSURE_REST_MS);
		return;
	}
	log_end(now_ms);
	pressure.is_on = false;
	for (struct connection *c; (c = first_in(STALLED)) != NULL;)
		move_to(c, c->state, now_ms);
}

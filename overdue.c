#include "overdue.h"

#include "lookup.h"
#include "registry.h"
#include "relay.h"
#include "system.h"

static const bool may_give_way[REGISTRY_RINGS] = {
    [CONNECTION_HELLO] = true,
    [REGISTRY_NO_ROOM] = true,
    [REGISTRY_STALLED] = true,
    [CONNECTION_CLOSING] = true,
};

enum {
	/* How many quiet connections are looked at for bytes that a side has not taken, of
	 * which nobody is told, in each look for who gives way. */
	LOOKS_MAX = 64,
};

/* Whose backend is looked for may turn out to have to wait for it, unless the lookup is stuck. */
static bool
is_any_looked_for(int64_t now_ms)
{
	const struct connection *c = registry_first(CONNECTION_BACKEND);
	while (c != NULL && now_ms - c->since_ms >= LOOKUP_STUCK_MS)
		c = registry_after(c);
	return c != NULL;
}

bool
overdue_is_anyone(int64_t now_ms)
{
	for (unsigned ring = 0; ring < REGISTRY_RINGS; ring++)
		if (may_give_way[ring] && registry_first(ring) != NULL)
			return true;
	return is_any_looked_for(now_ms);
}

/* Whether C has sent something that nobody has read yet. */
static bool
is_unread(const struct connection *c)
{
	return system_has_unread(c->client);
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
	uint64_t progress = relay_taken(c->client, c->download.passed);
	if (c->state == CONNECTION_RELAY)
		progress += relay_taken(c->backend, c->upload.passed);
	return progress;
}

/* Has C stand where it belongs when one looks closely. */
static void
look_at(struct connection *c, int64_t now_ms)
{
	unsigned ring = is_untaken(c) ? (unsigned)REGISTRY_STALLED : c->state;
	registry_move(c, ring, now_ms);
	registry_look_by(now_ms + CONNECTION_LINGER_MS); /* its time begins anew */
	c->progress = progress_of(c);
}

void
overdue_look_at_quiet(bool for_threads, int64_t now_ms)
{
	for (unsigned i = 0; i < LOOKS_MAX; i++) {
		struct connection *c = registry_first(CONNECTION_RELAY);
		if (c == NULL || c->since_ms >= now_ms)
			return;
		if (!for_threads || connection_keeps_a_thread(c))
			look_at(c, now_ms);
		else
			registry_move(c, CONNECTION_RELAY, now_ms);
	}
}

/* Whether it is for others to go on with C, and not for the program. In the hello, and when all is
 * over, a connection keeps no thread; unless that is stuck. */
static bool
waits_for_others(const struct connection *c, bool for_threads)
{
	if (c->is_given_up)
		return false;
	if (for_threads)
		return (c->ring == REGISTRY_NO_ROOM || c->ring == REGISTRY_STALLED) &&
		    connection_keeps_a_thread(c);
	return c->ring != CONNECTION_HELLO ||
	    (!connection_keeps_a_thread(c) && !is_unread(c));
}

int
overdue_count_unread(void)
{
	int unread = 0;
	const struct connection *c = registry_first(CONNECTION_HELLO);
	for (unsigned i = 0; i < LOOKS_MAX && c != NULL; i++, c = registry_after(c))
		unread += is_unread(c);
	return unread;
}

/* For how long C is overdue to give way; below zero where it is not. */
static int64_t
overdue_ms(const struct connection *c, int waiting, int64_t now_ms)
{
	int64_t patience_ms =
	    c->ring == REGISTRY_STALLED ? OVERDUE_STALL_MS : OVERDUE_AGE_MS;
	if (waiting > OVERDUE_FEW)
		patience_ms = patience_ms * OVERDUE_FEW / waiting;
	if (patience_ms < OVERDUE_MIN_MS)
		patience_ms = OVERDUE_MIN_MS;
	return now_ms - c->since_ms - patience_ms;
}

/* Returns the connection that is most overdue to give way, as far as its ring tells. */
static struct connection *
most_overdue(int waiting, bool for_threads, int64_t now_ms)
{
	struct connection *chosen = NULL;
	int64_t most_ms = -1;
	for (unsigned ring = 0; ring < REGISTRY_RINGS; ring++) {
		struct connection *c = may_give_way[ring] ? registry_first(ring) : NULL;
		while (c != NULL && overdue_ms(c, waiting, now_ms) > most_ms &&
		    !waits_for_others(c, for_threads))
			c = registry_after(c);
		if (c == NULL || overdue_ms(c, waiting, now_ms) <= most_ms)
			continue;
		most_ms = overdue_ms(c, waiting, now_ms);
		chosen = c;
	}
	return chosen;
}

struct connection *
overdue_choose(int waiting, bool for_threads, int64_t now_ms)
{
	struct connection *c;
	while ((c = most_overdue(waiting, for_threads, now_ms)) != NULL) {
		if (c->ring == REGISTRY_STALLED && c->progress == progress_of(c))
			return c;
		if (c->ring != REGISTRY_STALLED && !is_untaken(c))
			return c;
		look_at(c, now_ms); /* a side has taken something, or takes nothing */
	}
	return NULL;
}

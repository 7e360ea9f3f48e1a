#include "deadline.h"

#include "clock.h"
#include "hello.h"
#include "lookup.h"
#include "pressure.h"
#include "proxy.h"
#include "registry.h"
#include "route.h"

enum {
	/* How long a client may take nothing of what the backend sent before it was gone:
	 * with it went the one that would have given up on that client. */
	LAST_BYTES_MS = 30 * 1000,
};

/* Returns the first connection of RING, if it has been there for TIME_MS; else the next look is when
 * it will have been. */
static struct connection *
due(unsigned ring, int64_t time_ms, int64_t now_ms)
{
	struct connection *c = registry_first(ring);
	if (c == NULL || now_ms >= c->since_ms + time_ms)
		return c;
	registry_look_by(c->since_ms + time_ms);
	return NULL;
}

/* Whether the client still takes what the backend sent before it was gone. */
static bool
is_receiving(struct connection *c, int64_t now_ms)
{
	int untaken = c->patient ? relay_untaken(c->client) : 0;
	if (untaken != c->untaken)
		c->taken_ms = now_ms;
	c->untaken = untaken;
	return untaken > 0 && now_ms - c->taken_ms < LAST_BYTES_MS;
}

static void
end_linger(struct connection *c, int64_t now_ms)
{
	if (is_receiving(c, now_ms)) {
		registry_note(c, CONNECTION_CLOSING, now_ms);
		return;
	}
	if (c->untaken > 0)
		atomic_store(&c->end, END_CLIENT_TIMEOUT);
	pressure_hurry(c, now_ms);
}

static void
do_what_is_due(int64_t now_ms)
{
	struct connection *c;
	while ((c = due(REGISTRY_HALF_CLOSED, PROXY_HALF_CLOSED_MS, now_ms)) != NULL) {
		registry_note(c, CONNECTION_RELAY, now_ms);
		proxy_watch(c);
	}
	while ((c = due(CONNECTION_HELLO, CONNECTION_HELLO_MS, now_ms)) != NULL) {
		registry_note(c, CONNECTION_HELLO, now_ms); /* it may be about to end */
		hello_end(c);
	}
	while ((c = due(CONNECTION_BACKEND, CONNECTION_HELLO_MS, now_ms)) != NULL) {
		registry_note(c, CONNECTION_BACKEND, now_ms); /* the same */
		route_end(c);
	}
	/* These end their own wait, if they are not stuck. */
	while ((c = due(REGISTRY_NO_ROOM, CONNECTION_HELLO_MS + LOOKUP_STUCK_MS,
		    now_ms)) != NULL) {
		registry_move(c, REGISTRY_NO_ROOM, now_ms);
		route_end(c);
	}
	while ((c = due(CONNECTION_CLOSING, CONNECTION_LINGER_MS, now_ms)) != NULL)
		end_linger(c, now_ms);
}

int64_t
deadline_look(void)
{
	int64_t now_ms = clock_ms();
	registry_lock();
	if (now_ms >= registry_next_look()) {
		registry_forget_look();
		pressure_look(now_ms);
		do_what_is_due(now_ms);
	}
	int64_t next_ms = registry_next_look();
	registry_unlock();
	return next_ms;
}

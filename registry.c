#include "registry.h"

#include "thread.h"

#include <search.h>

static struct {
	pthread_mutex_t mutex;
	struct connection rings[REGISTRY_RINGS];
	unsigned connections, given_up, places, peak;
	unsigned tells_at;    /* wake the main thread when fewer are unfinished */
	int64_t next_look_ms; /* when it looks again */
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER, .next_look_ms = INT64_MAX};

void
registry_init(unsigned places)
{
	registry.places = places;
	for (unsigned i = 0; i < REGISTRY_RINGS; i++) {
		struct connection *ring = &registry.rings[i];
		ring->next = ring->previous = ring;
		ring->ring = i;
	}
}

void
registry_lock(void)
{
	pthread_mutex_lock(&registry.mutex);
}

void
registry_unlock(void)
{
	pthread_mutex_unlock(&registry.mutex);
}

unsigned
registry_connections(void)
{
	return registry.connections;
}

unsigned
registry_unfinished(void)
{
	return registry.connections - registry.given_up;
}

unsigned
registry_peak(void)
{
	return registry.peak;
}

bool
registry_has_room(void)
{
	return registry.connections < registry.places;
}

bool
registry_is_nearly_full(void)
{
	return registry.connections > registry.places / 8 * 7;
}

void
registry_tell_of_room(unsigned places)
{
	registry.tells_at = registry.places - places + 1;
}

static void
stand_in(struct connection *c, unsigned ring, int64_t now_ms)
{
	c->ring = ring;
	c->since_ms = now_ms;
	insque(c, registry.rings[ring].previous);
}

void
registry_enter(struct connection *c, int64_t now_ms)
{
	stand_in(c, c->state, now_ms);
	if (++registry.connections > registry.peak)
		registry.peak = registry.connections;
}

void
registry_move(struct connection *c, unsigned ring, int64_t now_ms)
{
	remque(c);
	stand_in(c, ring, now_ms);
}

void
registry_note(struct connection *c, enum connection_state state, int64_t now_ms)
{
	c->state = state;
	c->is_waiting = false;
	if (c->ring != REGISTRY_LEAVING)
		registry_move(c, state, now_ms);
}

void
registry_note_waiting(struct connection *c)
{
	c->is_waiting = true;
	c->thread = pthread_self();
	if (c->ring == CONNECTION_BACKEND)
		registry_move(c, REGISTRY_NO_ROOM, c->since_ms);
}

bool
registry_note_half_closed(struct connection *c, int64_t now_ms)
{
	if (c->ring != CONNECTION_RELAY)
		return false;
	registry_move(c, REGISTRY_HALF_CLOSED, now_ms);
	return true;
}

struct connection *
registry_first(unsigned ring)
{
	return registry_after(&registry.rings[ring]);
}

struct connection *
registry_after(const struct connection *c)
{
	return c->next == &registry.rings[c->ring] ? NULL : c->next;
}

struct connection *
registry_next(const struct connection *c)
{
	struct connection *next = c != NULL ? registry_after(c) : NULL;
	for (unsigned ring = c != NULL ? c->ring + 1 : 0;
	     next == NULL && ring < REGISTRY_RINGS; ring++)
		next = registry_first(ring);
	return next;
}

static void
tell_of_room(void)
{
	if (registry_unfinished() >= registry.tells_at)
		return;
	thread_wake_main();
	registry.tells_at = 0;
}

void
registry_give_up(struct connection *c)
{
	c->is_given_up = true;
	registry.given_up++;
	tell_of_room();
}

void
registry_remove(struct connection *c)
{
	registry.given_up -= c->is_given_up;
	remque(c);
}

void
registry_leave(void)
{
	registry.connections--;
	tell_of_room();
}

void
registry_look_by(int64_t at_ms)
{
	if (at_ms >= registry.next_look_ms)
		return;
	registry.next_look_ms = at_ms;
	if (!thread_is_main())
		thread_wake_main();
}

int64_t
registry_next_look(void)
{
	return registry.next_look_ms;
}

void
registry_forget_look(void)
{
	registry.next_look_ms = INT64_MAX;
}

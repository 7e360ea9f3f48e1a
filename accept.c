#include "accept.h"

#include "backend.h"
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "lot.h"
#include "pressure.h"
#include "proxy.h"
#include "registry.h"
#include "system.h"
#include "thread.h"

#include <errno.h>
#include <string.h>

enum {
	/* Under pressure, it is worth to be woken for one in so many of all places. */
	PLACES_A_TIME = 32,

	/* How many connections are accepted, and for how long, before anything else is looked at:
	 * accept(2) itself may wait for the next one. */
	ACCEPT_MAX = 64,
	STRETCH_MS = 10,

	/* When to accept again where somebody may soon give way, and after a shortage if no
	 * connection ends before that. */
	AGAIN_MS = 5,
	RETRY_MS = 250,

	/* A shortage that comes and goes is logged this often at most. */
	COMPLAINT_INTERVAL_MS = 10 * 1000,
};

static struct {
	unsigned connections_max;
	int64_t again_ms;          /* when to accept again; 0 where nothing is short */
	int64_t next_complaint_ms; /* when a shortage is worth a log line again */
	bool hurries;
	bool lacks_thread; /* one that is free could not be had when it was last looked */
} accepting;

void
accept_prepare(unsigned connections_max)
{
	accepting.connections_max = connections_max;
}

static void
complain(const char *what, int error)
{
	int64_t now_ms = clock_ms();
	if (now_ms < accepting.next_complaint_ms)
		return;
	accepting.next_complaint_ms = now_ms + COMPLAINT_INTERVAL_MS;
	registry_lock();
	unsigned open = registry_connections();
	registry_unlock();
	log_line("sniproxy: new connections wait while %u are open: %s: %s", open, what,
	    strerror(error));
}

/* Has this thread preempt others when it wakes, which it better does not (see main()), unless there is
 * a HURRY. */
static void
hurry(bool hurries)
{
	if (hurries != accepting.hurries)
		system_work_in_batches(!hurries);
	accepting.hurries = hurries;
}

/* Leaves new connections in the listen backlog until a connection ends, or for some time, after
 * somebody was asked to give way to them. WHAT was short. */
static void
make_way(const char *what, int error)
{
	int waiting = listener_waiting();
	hurry(true);
	registry_lock();
	enum pressure_result result = pressure_make_way(waiting, false, clock_ms());
	registry_tell_of_room(1 + accepting.connections_max / PLACES_A_TIME);
	registry_unlock();
	if (result == PRESSURE_NOBODY)
		complain(what, error);
	accepting.again_ms =
	    clock_ms() + (result == PRESSURE_NOBODY ? RETRY_MS : AGAIN_MS);
}

/* What to do where accept(2) has failed with ERROR. */
static void
bear_failure(int error)
{
	if (error == EAGAIN || error == ECONNABORTED)
		return;
	if (error == EINTR) { /* who stops it, and lets it go on, is not logged */
		accepting.again_ms = clock_ms() + AGAIN_MS;
		return;
	}
	if (backend_is_short(error)) {
		make_way("accept", error);
		return;
	}
	complain("accept", error);
	accepting.again_ms = clock_ms() + RETRY_MS;
}

void
accept_connections(void)
{
	int64_t end_ms = clock_ms() + STRETCH_MS;
	accepting.again_ms = 0;
	for (int i = 0; i < ACCEPT_MAX && clock_ms() < end_ms; i++) {
		union address peer;
		registry_lock();
		bool has_room = registry_has_room();
		registry_unlock();
		if (!has_room) {
			make_way("limit", EMFILE);
			return;
		}
		int client = listener_accept(&peer);
		if (client == -1) {
			bear_failure(errno);
			return;
		}
		proxy_begin(client, &peer, pressure_is_on() && listener_is_crowded());
	}
}

void
accept_calm_down(void)
{
	if (accepting.hurries)
		hurry(pressure_is_on());
}

int64_t
accept_again_ms(void)
{
	return accepting.again_ms;
}

void
accept_soon(void)
{
	accepting.again_ms = 0;
}

bool
accept_ensure_thread(void)
{
	int error = thread_pool_ensure();
	bool has_failed = accepting.lacks_thread;
	accepting.lacks_thread = error != 0;
	if (error == 0)
		return true;
	/* Once is no shortage; nor is it one where there is nothing to do. */
	int waiting = listener_waiting();
	if (!has_failed || (waiting == 0 && !lot_has_work()))
		return false;
	registry_lock();
	enum pressure_result result = pressure_make_way(waiting, true, clock_ms());
	registry_unlock();
	if (result == PRESSURE_NOBODY)
		complain("thread", error);
	return false;
}

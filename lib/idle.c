#include "lib/idle.h"

#include "lib/clock.h"
#include "lib/thread.h"
#include "system/system.h"

#include <errno.h>

enum {
	/* How many events are fetched under one hold of the lock. */
	EVENTS = 64,

	/* How often the thread looks at what no event tells. */
	LOOK_MS = 500,
};

/* A side that has ended its stream is watched for its hang-up, which is always reported. */
static bool
watch(struct connection *c)
{
	struct relay *r = &c->relay;
	if (!system_watch_add(r->client, !r->client_ended, c))
		return false;
	if (c->state == CONNECTION_CLOSING || r->backend == -1 ||
	    system_watch_add(r->backend, !r->backend_ended, c))
		return true;
	int error = errno;
	system_watch_remove(r->client);
	errno = error;
	return false;
}

bool
idle_park(struct connection *c)
{
	table_lock();
	bool parked = watch(c);
	if (parked)
		table_set_parked(c);
	table_unlock();
	return parked;
}

/* Takes connections whose time is over, and those on which something has happened. Returns how
 * many. */
static int
take(struct connection *taken[TABLE_EXPIRED_MAX + EVENTS])
{
	void *owners[EVENTS];
	table_lock();
	int count = table_take_expired(taken, clock_ms());
	int owner_count = system_watch_fetch(owners, EVENTS);
	for (int i = 0; i < owner_count; i++)
		if (table_take(owners[i])) /* or else the event of its other side has done that */
			taken[count++] = owners[i];
	table_unlock();
	return count;
}

_Noreturn void *
idle_run(void *unused)
{
	(void)unused;
	struct connection *taken[TABLE_EXPIRED_MAX + EVENTS];
	for (;;) {
		int count;
		while ((count = take(taken)) > 0)
			for (int i = 0; i < count; i++)
				thread_spawn(taken[i], true);
		thread_end_surplus();
		system_watch_wait(LOOK_MS);
	}
}

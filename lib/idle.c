#include "lib/idle.h"

#include "lib/clock.h"
#include "lib/thread.h"
#include "system/system.h"

#include <errno.h>

enum {
	/* Maximum number of events fetched while the lock is held. */
	EVENTS = 64,

	/* How often the thread checks timeouts and surplus threads. */
	LOOK_MS = 500,
};

/* Watches C's sockets. If a side's stream has ended, only its hang-up, which is always reported. */
static bool
watch(struct connection *c)
{
	struct relay *r = &c->relay;
	if (!system_watch_add(r->client.socket, !r->client.ended, c))
		return false;
	if (c->state == CONNECTION_CLOSING || r->backend.socket == -1 ||
	    system_watch_add(r->backend.socket, !r->backend.ended, c))
		return true;
	int error = errno;
	system_watch_remove(r->client.socket);
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

/* Takes connections whose timeout has expired, and those with events. Returns how many. */
static int
take(struct connection *taken[TABLE_EXPIRED_MAX + EVENTS])
{
	void *owners[EVENTS];
	table_lock();
	int count = table_take_expired(taken, clock_ms());
	int owner_count = system_watch_fetch(owners, EVENTS);
	for (int i = 0; i < owner_count; i++)
		if (table_take(owners[i])) /* false if it was taken above already */
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
		thread_look_after();
		system_watch_wait(LOOK_MS);
	}
}

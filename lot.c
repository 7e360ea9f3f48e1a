#include "lot.h"

#include "backend.h"
#include "connection.h"
#include "proxy.h"
#include "relay.h"
#include "thread.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>

static int lot_hosts; /* set before there are threads */

/* Takes the next way that has something to do, or returns NULL where none has had for long, and this
 * thread is to end. */
static struct relay_way *
take_way(struct thread_name *name)
{
	struct relay_way *way;
	while ((way = relay_take(LOT_IDLE_MS)) == NULL) {
		if (errno == ETIMEDOUT && thread_is_spare())
			return NULL;
		thread_set_name(name, "", true);
	}
	return way;
}

static void *
run(void *unused)
{
	struct proxy_thread thread = {.hosts = backend_hosts(lot_hosts)};
	struct relay_way *way;
	thread_allow_interrupts();
	/* Whatever it is in who started it: it need not preempt who wakes it. */
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	thread_set_name(&thread.name, "", true); /* it has that of who started it */
	while ((way = take_way(&thread.name)) != NULL) {
		thread_set_name(&thread.name, way->connection->name, false);
		proxy_serve(way, &thread);
	}
	return unused;
}

void
lot_prepare(int hosts, unsigned free, unsigned threads_max)
{
	lot_hosts = hosts;
	thread_pool_prepare(run, free, threads_max);
}

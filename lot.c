#include "lot.h"

#include "backend.h"
#include "connection.h"
#include "proxy.h"
#include "relay.h"
#include "thread.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>

/* Set before there are threads. */
static int lot_set, lot_hosts;

/* Takes the next way that has something to do, or returns NULL where none has had for long, and this
 * thread is to end. */
static struct relay_way *
take_way(struct thread_name *name)
{
	struct epoll_event event;
	int count;
	while ((count = epoll_wait(lot_set, &event, 1, LOT_IDLE_MS)) != 1) {
		thread_set_name(name, "", true);
		if (count == 0 && thread_is_spare())
			return NULL;
	}
	struct relay_way *way = event.data.ptr;
	atomic_exchange(&way->parked, false); /* what its last thread wrote can be seen */
	way->is_ready = true;
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
lot_prepare(int lot, int hosts, unsigned free, unsigned threads_max)
{
	lot_set = lot;
	lot_hosts = hosts;
	thread_pool_prepare(run, free, threads_max);
}

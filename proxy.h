/* One connection's life: hello, backend, relay, linger, close. */
#ifndef PROXY_H
#define PROXY_H

#include "address.h"
#include "backend.h"
#include "connection.h"
#include "network.h"
#include "relay.h"
#include "thread.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* How long after a client has ended its stream somebody begins to watch whether it is
	 * gone altogether: most connections are over by then. */
	PROXY_HALF_CLOSED_MS = 20,
};

/* What a thread needs to serve connections. */
struct proxy_thread {
	struct backend_hosts hosts;
	struct thread_name name;
	uint8_t buffer[RELAY_BUFFER_SIZE];
};

/* Has connections FROM these networks, which become the proxy's, begin with a PROXY header, and no others.
 * To be called before there are threads. */
void proxy_await_headers(struct network_list from);

/* Has the connection of CLIENT, just accepted from PEER, wait in the lot for its first bytes; or end,
 * where its address has too many, or where it IS_CROWDED and triage() says so. The socket is the
 * connection's. For the main thread. */
void proxy_begin(int client, const union address *peer, bool is_crowded);

/* Serves WAY, just taken from the lot, until nothing comes. Then it is in the lot again, or its
 * connection is over. */
void proxy_serve(struct relay_way *way, struct proxy_thread *thread);

/* Prepares for THREADS_MAX threads, of which FREE shall not wait for anything but work. They take
 * ways from the lot and serve them, and connect in the hosts directory HOSTS, an O_PATH descriptor
 * that stays open. thread_pool_ensure() starts them. */
void proxy_prepare(int hosts, unsigned free, unsigned threads_max);

/* For the main thread, behind registry.h's lock: the client of C has ended its stream
 * PROXY_HALF_CLOSED_MS ago, and whether it is gone altogether is watched from now on. Gives the lock up
 * meanwhile, and C may have ended after it. */
void proxy_watch(struct connection *c);

#endif

/* The threads that serve connections: one for each connection. A thread whose connection
 * is over waits for another for a while, since that is cheaper than a new thread.
 *
 * All of it is called by the main thread. */
#ifndef WORKER_H
#define WORKER_H

#include "address.h"

#include <stdbool.h>

enum {
	/* Threads that wait for a connection, at most, and for how long. */
	WORKER_IDLE_MAX = 64,
	WORKER_IDLE_MS = 10 * 1000,
};

/* Prepares for threads that serve the hosts directory HOSTS, an O_PATH descriptor, which
 * must stay open. Returns an eventfd(2) that becomes readable as worker_connections()
 * says, or -1 with errno set; the caller reads it. */
int worker_init(int hosts);

/* Makes sure that there is a thread for one more connection. Returns 0, or an errno. */
int worker_reserve(void);

/* Gives the socket CLIENT, just accepted from PEER, to the thread that worker_reserve()
 * found. The socket becomes the thread's. */
void worker_serve(int client, const union address *peer);

/* Returns how many connections are being served. If TELL, the next one to end makes the
 * descriptor from worker_init() readable. */
unsigned worker_connections(bool tell);

#endif

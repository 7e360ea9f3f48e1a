/* One connection's life: reads the hello, finds the backend, relays, lingers, closes. */
#ifndef PROXY_H
#define PROXY_H

#include "address.h"
#include "backend.h"
#include "relay.h"
#include "thread.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* From accept to the end of the hello and a connected backend. */
	PROXY_HELLO_MS = 10 * 1000,

	/* The memory for hellos, of all connections, in bytes, but for the first buffer of
	 * each. Beyond it, hellos that need more are refused. Those that need much get only
	 * half of it. */
	PROXY_MEMORY_MAX = 64 * 1024 * 1024,
};

/* What a thread needs to serve connections. */
struct proxy_thread {
	struct backend_hosts hosts;
	struct thread_name name;
	uint8_t buffer[RELAY_BUFFER_SIZE];
};

/* Has the connection of CLIENT, just accepted from PEER, wait in the lot for its first bytes. The
 * socket is the connection's. For the main thread. */
void proxy_begin(int client, const union address *peer);

/* Serves WAY, just taken from the lot, until nothing comes. Then it is in the lot again, or its
 * connection is over. */
void proxy_serve(struct relay_way *way, struct proxy_thread *thread);

/* For the main thread: does what is to be done now for connections whose time is over. Returns when
 * to call it again, INT64_MAX where that is open; the thread is woken where it comes to be
 * sooner. */
int64_t proxy_look(void);

/* For the main thread: logs a line for some of the open connections, of those that have had none
 * in REPORT, a number that grows with each; adds to PARKED those that had no thread, and to
 * LEFT_OUT those that got no line, since nobody reads the log. Returns whether there are more. */
bool proxy_report(unsigned report, unsigned *parked, unsigned *left_out);

/* For the main thread, at the end of the process: logs a line for each connection that is open, as
 * one that is cut off. Others then wait for ever when they end. */
void proxy_cut_off(void);

#endif

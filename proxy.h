/* One connection's life: reads the hello, finds the backend, relays, closes. */
#ifndef PROXY_H
#define PROXY_H

#include "address.h"
#include "backend.h"

enum {
	/* From accept to the end of the hello and a connected backend. */
	PROXY_HELLO_MS = 10 * 1000,
};

/* Serves the client on the non-blocking socket CLIENT, just accepted from PEER, until the
 * connection is over; closes it, and logs how it failed if it did. Blocks; shares nothing
 * but the log. */
void
proxy_serve(int client, const union address *peer, const struct backend_hosts *hosts);

#endif

/* From a connection's name to its backend: whether it gets one, and the wait for it. */
#ifndef ROUTE_H
#define ROUTE_H

#include "backend.h"
#include "connection.h"

#include <stdbool.h>

/* Connects C to the backend of its name. Returns false where there is none for it; then its end is
 * decided. */
bool route_find_backend(struct connection *c, struct backend_hosts *hosts);

/* For the main thread, behind registry.h's lock: the time for a look into the host directory of C is
 * over. */
void route_end(struct connection *c);

#endif

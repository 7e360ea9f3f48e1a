/* One connection's life: hello, backend, relay, lingering close, end. */
#ifndef PROXY_H
#define PROXY_H

#include "lib/address.h"
#include "lib/network.h"
#include "lib/table.h"

/* Sets the hosts DIRECTORY, from system_open_hosts(), and the networks FROM which connections begin
 * with a PROXY header. The proxy owns that list. HELLOS is the maximum memory for hellos in bytes.
 * Call it before any thread starts. */
void proxy_prepare(int directory, struct network_list from, size_t hellos);

/* Enters the connection of CLIENT, just accepted from PEER, in the table; the socket belongs to it.
 * Gives it to a thread or parks it, or ends it if its address holds too much or memory is short. */
void proxy_accept(int client, const union address *peer);

/* Serves C, which the calling thread owns, from its first byte or from its state when parked.
 * Returns when C has ended, is parked, or was taken from this thread because a lookup hangs. */
void proxy_serve(struct connection *c);

/* Returns how long a quiet connection keeps its thread at present, in milliseconds. */
int proxy_quiet_ms(void);

/* Ends C, an evicted connection that the caller owns: with a reset, unless C is lingering. */
void proxy_end_evicted(struct connection *c);

#endif

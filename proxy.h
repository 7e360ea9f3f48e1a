/* One connection's life: hello, backend, relay, lingering close, end. */
#ifndef PROXY_H
#define PROXY_H

#include "lib/address.h"
#include "lib/network.h"
#include "lib/table.h"

/* Looks backends up in DIRECTORY, which system_open_hosts() made. Connections FROM these
 * networks, a list that becomes the proxy's, begin with a PROXY header, and no others. HELLOS is
 * the memory for large ones, in bytes. To be called before there are threads. */
void proxy_prepare(int directory, struct network_list from, size_t hellos);

/* Enters the connection of CLIENT, just accepted from PEER, in the table, and gives it to a
 * thread, parks it, or ends it if it is too much. The socket is the connection's from then on. */
void proxy_accept(int client, const union address *peer);

/* Serves C, which is the calling thread's: from its first byte, or from where it was when it was
 * parked, until it ends, is parked, or is taken from this thread because a lookup hangs. */
void proxy_serve(struct connection *c);

/* How long a quiet connection keeps its thread now, in milliseconds. */
int proxy_quiet_ms(void);

/* Ends C, which is the caller's, with a reset, because slots or threads are short. */
void proxy_end_evicted(struct connection *c);

#endif

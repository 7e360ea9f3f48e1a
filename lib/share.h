/* Shares: counters of what each client address and each host holds. A share exists as long as
 * connections or lookups are counted in it, and while the table remembers that its host was down.
 * Guarded by the table's lock, except for atomic members. */
#ifndef SHARE_H
#define SHARE_H

#include "lib/address.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Pending lookups in host directories. */
struct lookups {
	unsigned count;
	int64_t since_ms; /* since when none of them has ended */
};

struct share {
	unsigned connections;   /* of a host: and lookups, and how often it is in table.down */
	atomic_uint blocked;    /* of a host's connections; see relay.h */
	struct lookups lookups; /* of a host */
	atomic_size_t memory;   /* of an address's hellos; see proxy.c */

	/* A host's tls-socket and acme-tls-socket: since when it is down, and until when that is
	 * remembered. */
	int64_t down_since_ms[2];
	_Atomic int64_t down_until_ms[2];

	char key[]; /* a host, or '@' and an address */
};

/* Counts a connection in the share of the host NAME, or of PEER's address. Of an IPv6 address, only
 * the first 64 bits count, which usually belong to one customer. Returns the share, or NULL if
 * memory is short. */
struct share *share_join(const char *name);
struct share *share_join_address(const union address *peer);

/* Takes a connection out of SHARE, which may be NULL. Frees the share after the last one. */
void share_leave(struct share *share);

#endif

/* The PROXY protocol's header, versions 1 and 2, by which a balancer in front says whose
 * connection it passes on (HAProxy's proxy-protocol.txt, 2). Bytes only: no sockets, no log, no
 * clock. */
#ifndef PROXY_PROTOCOL_H
#define PROXY_PROTOCOL_H

#include "lib/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest header that is accepted, in bytes. Its syntax allows 64 KiB, nearly all of which
 * would be extensions (TLVs), which are skipped; balancers send a few hundred bytes. */
enum { PROXY_PROTOCOL_MAX = 4096 };

enum proxy_protocol_status {
	PROXY_PROTOCOL_INCOMPLETE,
	PROXY_PROTOCOL_OK,
	PROXY_PROTOCOL_REFUSED,
};

struct proxy_protocol_header {
	size_t length; /* in bytes; the client's own begin after them */

	/* Where the connection comes from and where the client meant it to go, of one family.
	 * Without, it is the sender's own (LOCAL), or of a kind that has none or is not known
	 * (UNKNOWN). */
	bool has_addresses;
	union address client, server;

	const char *reason; /* for people, in English; lives for ever */
};

/* Reads the header that the LENGTH BYTES begin with, which are all that has come so far. Of one
 * that is not there yet, little is looked at, so that it may be called again for each byte.
 *
 * Returns PROXY_PROTOCOL_INCOMPLETE if more is to come; PROXY_PROTOCOL_OK once the header is
 * there, and then all but the reason is set; or PROXY_PROTOCOL_REFUSED, and why. More bytes do
 * not change either of the last two. Neither blocks nor shares anything. */
enum proxy_protocol_status
proxy_protocol_read(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length);

#endif

/* The PROXY protocol header, versions 1 and 2, in which a balancer sends the client's address
 * (HAProxy's proxy-protocol.txt, 2). Bytes only: no sockets, no log, no clock. */
#ifndef PROXY_PROTOCOL_H
#define PROXY_PROTOCOL_H

#include "lib/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Maximum length of a header in bytes. The syntax allows 64 KiB, most of it for extensions (TLVs),
 * which are skipped. Balancers send a few hundred bytes. */
enum { PROXY_PROTOCOL_MAX = 4096 };

enum proxy_protocol_status {
	PROXY_PROTOCOL_INCOMPLETE,
	PROXY_PROTOCOL_OK,
	PROXY_PROTOCOL_REFUSED,
};

struct proxy_protocol_header {
	size_t length; /* in bytes; the client's bytes follow */

	/* The client's address and the one it connected to, of one family. There are none if the
	 * connection is the balancer's own (LOCAL), or its protocol has none or is UNKNOWN. */
	bool has_addresses;
	union address client, server;

	const char *reason; /* for the log, in English; static */
};

/* Reads the header at the beginning of the LENGTH BYTES received so far. Reads little of an
 * incomplete header, so it may be called again for each byte.
 *
 * Returns PROXY_PROTOCOL_INCOMPLETE if more bytes are needed; PROXY_PROTOCOL_OK if the header is
 * complete, and sets all but the reason; PROXY_PROTOCOL_REFUSED, and sets the reason. More bytes do
 * not change either of the last two. Does not block, and shares nothing. */
enum proxy_protocol_status
proxy_protocol_read(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length);

#endif

/* The PROXY protocol header, versions 1 and 2, in which the client's address is sent to this
 * program by a balancer, and by it to a backend (HAProxy's proxy-protocol.txt, 2). Bytes only: no
 * sockets, no log, no clock. */
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

/* Size of the longest header that the functions below write: of version 2, with all extensions. */
enum { PROXY_PROTOCOL_WRITTEN_MAX = 16 + 2 * (16 + 2) + 4 * 3 + 254 + 255 + 16 + 4 };

/* Write the header of a connection from CLIENT to SERVER, both of one family: version 1 (2.1), and
 * version 2 (2.2). Return its length. Version 1 is text, with a NUL that does not count. */
size_t proxy_protocol_write_v1(uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX],
    const union address *client, const union address *server);

/* The extensions of version 2 (2.2), besides a CRC32c. */
struct proxy_protocol_tlvs {
	const uint8_t *alpn;   /* the first protocol that the client offers, if any; */
	size_t alpn_length;    /* up to 255 bytes */
	const char *authority; /* the server name, up to 254 bytes; or NULL */
	uint8_t unique_id[16];
};

size_t
proxy_protocol_write_v2(uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX], const union address *client,
    const union address *server, const struct proxy_protocol_tlvs *tlvs);

#endif

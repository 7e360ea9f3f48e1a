/* The hosts of fuzz_path.c: their directories, the states of their sockets, and the PROXY headers
 * that their backends must get. */
#ifndef PATH_HOSTS_H
#define PATH_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tls.h"

/* The sockets of a host, and what is at the path of each. */
enum host_socket { HOST_TLS, HOST_ACME, HOST_SOCKETS };
enum socket_state { SOCKET_MISSING, SOCKET_DEAD, SOCKET_LISTENING, SOCKET_STATES };

/* The files in a host directory that ask for a PROXY header. */
enum { HOST_V1 = 1, HOST_V2 = 2 };

struct host {
	const char *name;
	unsigned headers;
	enum socket_state at_first[HOST_SOCKETS];

	bool exists; /* its directory */
	enum socket_state states[HOST_SOCKETS];
	int listeners[HOST_SOCKETS]; /* which accept if the state is SOCKET_LISTENING */

	/* When each was found to be down first, and when the proxy no longer remembers that. */
	int64_t down_since_ms[HOST_SOCKETS], down_until_ms[HOST_SOCKETS];
};

/* The hosts; the last ones are special. Any other name has no directory. */
enum {
	HOST_BLOG,
	HOST_HEADER,
	HOST_BINARY,
	HOST_BOTH,
	HOST_WITH_ACME,
	HOST_DEAD,
	HOST_EMPTY,
	HOST_DOMAIN,
	HOST_DEFAULT,
	HOST_NO_SNI,
	HOST_COUNT,
};
extern struct host hosts[HOST_COUNT];

/* Makes a hosts directory below TMPDIR, which is removed at the end of the program. Returns its
 * descriptor. */
int hosts_make(void);

/* Makes everything as it is at the beginning of a run: no special host exists, and no host is
 * remembered as down. */
void hosts_reset(void);

/* Makes those special hosts exist whose bits are set, beginning with that of HOST_DOMAIN. */
void hosts_set_special(unsigned bits);

void host_set_state(struct host *host, enum host_socket which, enum socket_state state);

/* Returns the host NAME, whether it exists or not; NULL if there is none. */
struct host *hosts_find(const char *name);

/* Size of the longest header: of version 2, with all extensions. */
enum { HOST_HEADER_MAX = 16 + 12 + (3 + 255) + (3 + 254) + (3 + 16) + (3 + 4) };

/* Writes what a backend of HOST gets before the bytes of the client of HELLO, which asked for NAME,
 * or for none if that is "". Returns its length. Of a header of version 2, the unique ID is still
 * zero, and the checksum wrong. */
size_t host_header(uint8_t header[HOST_HEADER_MAX], const struct host *host, enum host_socket which,
    const char *name, const struct tls_hello *hello);

/* Where the unique ID is in a HEADER of version 2; NULL in others. */
enum { HOST_ID_SIZE = 16 };
uint8_t *host_header_id(uint8_t *header, size_t length);

/* Corrects the checksum of a HEADER of version 2. */
void host_header_sign(uint8_t *header, size_t length);

#endif

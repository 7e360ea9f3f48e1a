/* A TLS handshake with a backend, as a client that asks for a name, and what its certificate says.
 * By OpenSSL. */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* What handshakes have in common. Threads may share one. */
struct ssl_ctx_st;

/* Opens it; reads OpenSSL's settings. Returns NULL where that is impossible. */
struct ssl_ctx_st *handshake_open(void);

void handshake_close(struct ssl_ctx_st *context);

enum { HANDSHAKE_NAMES_MAX = 100 };

struct handshake {
	bool done;                        /* else: */
	const char *failure;              /*   why not, for people; lives for ever */
	bool talks;                       /*   the backend has sent something */
	const char *protocol;             /* such as "TLSv1.3"; lives for ever */
	char *names[HANDSHAKE_NAMES_MAX]; /* that the certificate is for: bytes of the backend's */
	size_t names_count;
	bool has_name; /* the name that was asked for is one of them */
	time_t not_before, not_after;
	bool is_early, is_expired;
	bool ends_soon; /* within a third of its time, and within two weeks */
};

/* Shakes hands over SOCKET, which becomes non-blocking, asking for NAME, until DEADLINE_MS (see
 * clock.h). Whether clients trust the certificate is not looked at. To be freed by
 * handshake_free(). */
struct handshake
handshake_try(struct ssl_ctx_st *context, int socket, const char *name, int64_t deadline_ms);

void handshake_free(struct handshake *handshake);

#endif

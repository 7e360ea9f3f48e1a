/* A TLS handshake with a backend, as a client makes it, and what its certificate says. Uses
 * OpenSSL. */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* The context of handshakes. Threads may share one. */
struct ssl_ctx_st;

/* Creates a context; reads OpenSSL's settings. Returns NULL on failure. */
struct ssl_ctx_st *handshake_open(void);

void handshake_close(struct ssl_ctx_st *context);

enum { HANDSHAKE_NAMES_MAX = 100 };

struct handshake {
	bool done;                        /* otherwise: */
	const char *failure;              /* why not; static */
	bool talks;                       /* the backend has sent something */
	const char *protocol;             /* such as "TLSv1.3"; static */
	char *names[HANDSHAKE_NAMES_MAX]; /* in the certificate: any bytes */
	size_t names_count;
	bool has_name; /* the certificate is for the name that was asked for */
	time_t not_before, not_after;
	bool is_early, is_expired;
	bool ends_soon; /* within a third of its lifetime, and within two weeks */
};

/* Makes a handshake over SOCKET, which becomes non-blocking, for NAME, until DEADLINE_MS (see
 * clock.h). Does not check whether clients trust the certificate. Free the result with
 * handshake_free(). */
struct handshake
handshake_try(struct ssl_ctx_st *context, int socket, const char *name, int64_t deadline_ms);

void handshake_free(struct handshake *handshake);

#endif

/* The relay: both directions between client and backend. Descriptors only: no TLS, no names, no
 * log.
 *
 * One thread runs it, in one poll(2) loop over both sockets. A direction that holds bytes waits for
 * room at the receiver; one that holds none waits for bytes from the sender. So neither can block
 * the other. Small messages go through a buffer. Bulk goes through a pipe, by splice(2), without
 * being copied, if a pipe is available. */
#ifndef RELAY_H
#define RELAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* Size of one read. A read that fills it is bulk. */
	RELAY_BUFFER_SIZE = 16 * 1024,

	/* How long one side may take nothing after the other has hung up. */
	RELAY_STALL_MS = 120 * 1000,
};

/* One side of a connection. */
struct relay_side {
	int socket;   /* non-blocking; the caller owns it */
	bool ended;   /* its stream is over, and was read whole */
	bool deaf;    /* it takes nothing more: bytes for it are dropped */
	bool hung_up; /* it has closed or failed; what it had sent may still be unread */
	int error;    /* the errno with which it failed, or 0 */

	_Atomic uint64_t taken; /* how many bytes were written to it; other threads may read it */
};

/* All but the sockets is zero at first. */
struct relay {
	struct relay_side client, backend;

	/* What relay_send_first() could not send, and its RELEASE and OWNER until that is sent. */
	const uint8_t *first;
	size_t first_length;
	void (*release)(void *owner);
	void *owner;

	/* Whether the connection is blocked: a side has taken nothing for a moment, or it waits for
	 * its backend, or for the close of the backend's socket. And the count of blocked
	 * connections of the same host, or NULL. */
	atomic_bool is_blocked;
	atomic_uint *blocked;
	int quiet_ms; /* for how long both sides were quiet before RELAY_QUIET */

	/* To end relay_run(), others set this and call shutdown(2) on the client's socket. */
	atomic_bool stop;
};

enum relay_end {
	RELAY_QUIET,        /* no bytes are held here, and none came for a while */
	RELAY_CLOSED,       /* both streams have ended, and all bytes were relayed */
	RELAY_CLIENT_GONE,  /* by client.error; the backend has all it sent, or takes no more */
	RELAY_BACKEND_GONE, /* by backend.error, 0 if it closed; all it had sent was relayed */
	RELAY_STALLED,      /* one side hung up, and the other took nothing for RELAY_STALL_MS */
	RELAY_STOPPED,      /* by another thread */
	RELAY_FAILED,       /* a system call failed unexpectedly: errno */
};

/* Allows PIPES pipes in all threads together. QUIET_MS returns how long relay_run() waits while
 * both sides are quiet. Call it before any thread starts. */
void relay_prepare(unsigned pipes, int (*quiet_ms)(void));

/* Sends LENGTH BYTES to the backend, before all others. relay_run() sends those for which there is
 * no room now, and calls RELEASE for OWNER as soon as BYTES are no longer needed. */
void relay_send_first(struct relay *r, const uint8_t *bytes, size_t length,
    void (*release)(void *owner), void *owner);

/* Relays bytes until one of the above. After RELAY_QUIET it may be called again. */
enum relay_end relay_run(struct relay *r);

/* Sets R->is_blocked, and updates the count of blocked connections. */
void relay_set_blocked(struct relay *r, bool is_blocked);

#endif

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

/* Two non-blocking sockets, which the caller owns. All other members are zero at first. */
struct relay {
	int client, backend;
	bool client_ended, backend_ended; /* its stream is over */
	bool client_deaf, backend_deaf;   /* it takes nothing more: bytes for it are dropped */
	int client_error, backend_error;  /* the errno with which it failed, or 0 */

	/* Bytes that go to the backend before all others. relay_run() frees them and subtracts
	 * FIRST_MEMORY from *MEMORY. */
	uint8_t *first;
	size_t first_start, first_end, first_memory;
	atomic_size_t *memory;

	/* Whether the connection is blocked: a side has taken nothing for a moment, or it waits for
	 * its backend, or for the close of the backend's socket. And the count of blocked
	 * connections of the same host, or NULL. */
	atomic_bool is_blocked;
	atomic_uint *blocked;
	int quiet_ms; /* for how long both sides were quiet before RELAY_QUIET */

	/* Other threads may read the counts of bytes relayed. To end relay_run(), they set STOP and
	 * call shutdown(2) on the client's socket. */
	_Atomic uint64_t to_backend, to_client;
	atomic_bool stop;
};

enum relay_end {
	RELAY_QUIET,        /* no bytes are held here, and none came for a while */
	RELAY_CLOSED,       /* both streams have ended, and all bytes were relayed */
	RELAY_CLIENT_GONE,  /* by client_error; the backend has all it sent, or takes no more */
	RELAY_BACKEND_GONE, /* by backend_error, 0 if it closed; all it had sent was relayed */
	RELAY_STALLED,      /* one side hung up, and the other took nothing for RELAY_STALL_MS */
	RELAY_STOPPED,      /* by another thread */
	RELAY_FAILED,       /* a system call failed unexpectedly: errno */
};

/* Allows PIPES pipes in all threads together. QUIET_MS returns how long relay_run() waits while
 * both sides are quiet. Call it before any thread starts. */
void relay_prepare(unsigned pipes, int (*quiet_ms)(void));

/* Relays bytes until one of the above. After RELAY_QUIET it may be called again. */
enum relay_end relay_run(struct relay *r);

/* Sets R->is_blocked, and updates the count of blocked connections. */
void relay_set_blocked(struct relay *r, bool is_blocked);

#endif

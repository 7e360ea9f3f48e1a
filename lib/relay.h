/* Both directions of a connection: what the client sends goes to the backend, and back. Knows
 * descriptors only: no TLS, no names, no log.
 *
 * One thread runs it, in one poll(2) loop over both sockets. A direction that holds bytes waits
 * for room at their receiver; one that holds none waits for bytes from its sender. So neither
 * can block the other. Small messages go through a buffer; bulk goes through a pipe, by
 * splice(2), without being copied. */
#ifndef RELAY_H
#define RELAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* What is read at once. What fills it is bulk. */
	RELAY_BUFFER_SIZE = 16 * 1024,

	/* How long a side may take nothing after the other one is gone. */
	RELAY_STALL_MS = 120 * 1000,
};

/* Two sockets, both non-blocking, which stay the caller's. All zero but for the sockets is the
 * start. */
struct relay {
	int client, backend;
	bool client_ended, backend_ended; /* its stream is over */
	bool client_deaf, backend_deaf;   /* it takes nothing more: bytes for it are dropped */
	int client_error, backend_error;  /* the errno by which it failed, or 0 */

	/* Bytes that go to the backend before all others. relay_run() frees them, and then takes
	 * FIRST_MEMORY off *MEMORY. */
	uint8_t *first;
	size_t first_start, first_end, first_memory;
	atomic_size_t *memory;

	/* Whether it is blocked: bytes have waited for a side that took nothing for a moment.
	 * And how many connections to the same host are; NULL if nobody counts them. */
	atomic_bool is_blocked;
	atomic_uint *blocked;

	/* Other threads may read the counts of bytes passed on. To end relay_run(), they set
	 * STOP and shut the client's socket down. */
	_Atomic uint64_t to_backend, to_client;
	atomic_bool stop;
};

enum relay_end {
	RELAY_QUIET,        /* no bytes are held here, and none came for a while */
	RELAY_CLOSED,       /* both streams have ended, and all was passed on */
	RELAY_CLIENT_GONE,  /* by client_error; all it had sent was passed on, or nobody takes it */
	RELAY_BACKEND_GONE, /* by backend_error, 0 if it closed; all it had sent was passed on */
	RELAY_STALLED,      /* one side is gone, and the other took nothing for RELAY_STALL_MS */
	RELAY_STOPPED,      /* by another thread */
	RELAY_FAILED,       /* a system call that should not: errno */
};

/* Allows PIPES pipes at once, in all threads together. QUIET_MS says how long relay_run() waits
 * for two quiet sides. To be called before there are threads. */
void relay_prepare(unsigned pipes, int (*quiet_ms)(void));

/* Passes bytes on, until one of the above. After RELAY_QUIET it may be called again. */
enum relay_end relay_run(struct relay *r);

/* Changes R->is_blocked, and the count of those that are. */
void relay_set_blocked(struct relay *r, bool is_blocked);

#endif

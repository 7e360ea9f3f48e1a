/* Passes bytes both ways between two connected sockets until both sides have closed.
 * Knows descriptors only: no TLS, no names, no log. */
#ifndef RELAY_H
#define RELAY_H

#include <stddef.h>
#include <stdint.h>

/* Bytes on their way: those from START to END of the CAPACITY bytes at BYTES, from
 * malloc(3). */
struct relay_buffer {
	uint8_t *bytes;
	size_t capacity;
	size_t start;
	size_t end;
};

enum relay_end {
	RELAY_ENDED, /* both sides have sent their end of stream, and got the other's */
	RELAY_BACKEND_CLOSED, /* the backend closed before the client had ended its stream
			       */
	RELAY_CLIENT_FAILED,  /* the client's connection broke; see error */
	RELAY_FAILED,         /* something broke here; see error */
	RELAY_NOT_BEGUN,      /* the same, before anything was passed on */
};

struct relay_result {
	enum relay_end end;
	int error; /* an errno, or 0; with RELAY_BACKEND_CLOSED, ECONNRESET where it was a
		      reset */
};

/* Sends the bytes in FIRST to BACKEND, which are the first that CLIENT sent, then passes
 * on what either side sends. Neither direction can block the other, whatever the sides
 * do. A side's end of stream is passed on as a half-close. Where the client's connection
 * breaks, it is over at once; where the backend's does, what the backend sent before
 * still goes to the client.
 *
 * Both are non-blocking stream sockets and stay the caller's to close; FIRST is freed.
 * After RELAY_BACKEND_CLOSED there may be bytes of the client that nobody has read.
 * Blocks until the connection is over; shares nothing. */
struct relay_result relay(int client, int backend, struct relay_buffer *first);

/* Frees the bytes of BUFFER and makes it an empty one. */
void relay_buffer_release(struct relay_buffer *buffer);

#endif

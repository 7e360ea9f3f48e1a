/* Passes bytes both ways between two connected sockets until both sides have closed. Knows
 * descriptors only: no TLS, no names, no log.
 *
 * It never waits. Whoever calls it tells it what the sockets are ready for, lets it move what can
 * be moved, and comes back when they are ready for more:
 *
 *	relay_begin(&relay, client, backend, &first, EPOLLIN);
 *	while (relay_move(&relay, room) != RELAY_OVER) {
 *		... wait until a socket is ready for one of relay_wants(&relay, side) ...
 *		relay_ready(&relay, side, events);
 *	}
 *	... see relay.end ...
 *	relay_release(&relay);
 */
#ifndef RELAY_H
#define RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A pipe, through which bytes go without being copied (splice(2)). */
struct relay_pipe {
	int ends[2]; /* to read from, to write to */
	size_t size; /* in bytes; 0 where there is no pipe */
	size_t held; /* bytes in it */
};

/* Where bytes are put between reading and writing. What is read is written at once, so
 * that one room serves a whole thread, and a connection that waits needs none. What stands
 * before the bytes is all zero at first. */
struct relay_room {
	bool splices; /* whether pipes may be used where bytes come in bulk */
	bool frugal;  /* whether memory is short, so that little is read at once */
	struct relay_pipe pipe; /* an empty one, for whoever needs one next */
	uint8_t bytes[64 * 1024];
};

/* Bytes on their way: those from START to END of the CAPACITY bytes at BYTES, from
 * malloc(3). */
struct relay_buffer {
	uint8_t *bytes;
	size_t capacity;
	size_t start;
	size_t end;
};

enum relay_side { RELAY_CLIENT, RELAY_BACKEND };

enum relay_end {
	RELAY_ENDED, /* both sides have sent their end of stream; to close the sockets tells them
			of the other's */
	RELAY_BACKEND_CLOSED, /* the backend closed before the client had ended its stream */
	RELAY_CLIENT_FAILED, /* the client's connection broke; see error */
	RELAY_FAILED,        /* something broke here; see error */
};

/* One of the two directions. */
struct relay_direction {
	int from;
	int to;
	bool readable;            /* as far as is known */
	bool writable;            /* likewise */
	bool reads_short;         /* a short read does not say that nothing is left */
	bool ended;               /* nothing more is to be read or written */
	bool bulky;               /* bytes come faster than they can be copied */
	uint64_t written;         /* how many bytes were so far */
	struct relay_buffer left; /* what was read and could not be written */
	struct relay_pipe pipe;   /* the same, of a bulky direction */
};

/* All zero but for what relay_begin() sets. Others may read backend_gone, how much was
 * written in each direction, and, after RELAY_OVER, end and error. */
struct relay {
	enum relay_end end;
	int error; /* an errno, or 0; with RELAY_BACKEND_CLOSED, ECONNRESET where it was a reset */

	struct relay_direction upload;   /* from the client to the backend */
	struct relay_direction download; /* from the backend to the client */
	bool client_failed;
	bool backend_gone; /* it has closed, or worse; what it sent is still passed on */
	bool discards; /* the backend takes nothing more, but the client still sends */
};

enum relay_status {
	RELAY_WAITS,   /* nothing can be moved */
	RELAY_GOES_ON, /* more can be, but it is somebody else's turn */
	RELAY_OVER,    /* see relay->end */
};

/* Allows for MAX pipes at once, in all threads together; without it there are none, and
 * bytes are copied. A pipe takes two descriptors. To be called before there are
 * threads. */
void relay_allow_pipes(unsigned max);

/* Begins to relay between CLIENT and BACKEND, non-blocking stream sockets, which stay the
 * caller's to close. The bytes in FIRST, the first that the client sent, are the relay's
 * now. EVENTS are those that are known of the client, as for relay_ready(). */
void relay_begin(struct relay *relay, int client, int backend, struct relay_buffer *first,
    uint32_t events);

/* Takes note of EVENTS of epoll(7) on the socket of SIDE, edge-triggered: each is told
 * once. */
void relay_ready(struct relay *relay, enum relay_side side, uint32_t events);

/* Moves what can be moved, in both directions, so that neither blocks the other, and uses
 * ROOM for it. A side's end of stream is passed on as a half-close. Where the client's
 * connection breaks, it is over at once; where the backend's does, what the backend sent
 * before still goes to the client. After RELAY_BACKEND_CLOSED there may be bytes of the
 * client that nobody has read. */
enum relay_status relay_move(struct relay *relay, struct relay_room *room);

/* The events of epoll(7), edge-triggered, that it waits for on the socket of SIDE. */
uint32_t relay_wants(const struct relay *relay, enum relay_side side);

/* How many bytes of memory hold what a side has not taken yet, pipes aside. */
size_t relay_size(const struct relay *relay);

/* Whether a side does not take what has been read for it. */
bool relay_has_left(const struct relay *relay);

/* Frees what RELAY holds; harmless where it holds nothing. */
void relay_release(struct relay *relay);

/* Frees what ROOM holds; the room itself is the caller's. */
void relay_room_release(struct relay_room *room);

/* Frees the bytes of BUFFER and makes it an empty one. */
void relay_buffer_release(struct relay_buffer *buffer);

#endif

/* One way of a connection: what comes from one socket goes to the other. Two of them, from the
 * client to the backend and back, are a relay, and neither knows of the other. Knows descriptors
 * only: no TLS, no names, no log; and tells the pool of threads (thread.h) where one waits.
 *
 * Sockets are blocking. A thread waits for bytes in recv(2), for room in send(2). The one thing
 * that it does not wait for is a sender that stays quiet: then it leaves the way in the lot (lot.h)
 * and goes where there is something to do; whichever thread waits at the lot when bytes come
 * takes the way over.
 *
 * What ends a wait from outside is shutdown(2). */
#ifndef RELAY_H
#define RELAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* What is read at once, and so what a thread needs. What fills it is bulk. */
	RELAY_BUFFER_SIZE = 16 * 1024,

	/* How long a thread waits for a quiet sender, and for a receiver that takes nothing,
	 * before it looks around: SO_RCVTIMEO and SO_SNDTIMEO of all sockets. */
	RELAY_QUIET_MS = 10,
	RELAY_STALL_MS = 2 * 1000,

	/* How often it looks whether the sender of what nobody takes is gone, before that is
	 * given up. */
	RELAY_STALLS_MAX = 15,
};

/* A way, which belongs to one thread at a time. */
struct relay_way {
	struct connection *connection; /* whose it is; for others */
	int from, to;                  /* sockets, which stay the connection's */
	bool watched;                  /* the lot knows FROM */
	bool is_ready;                 /* something has come, as far as is known */
	bool has_timeout;              /* waiting for FROM ends after RELAY_QUIET_MS */
	bool waits_long;               /* for TO, as long as RELAY_STALL_MS */
	unsigned stalls; /* times in a row: nothing was taken, and the sender was gone */

	/* For others to read, at any time: */
	_Atomic uint64_t passed; /* how many bytes TO has been given */
	atomic_bool parked;      /* it is in the lot */
};

enum relay_status {
	RELAY_MOVED, /* some bytes */
	RELAY_QUIET, /* nothing comes: it is for the lot */
	RELAY_ENDED, /* the sender has ended its stream, and all of it was passed on */
	RELAY_READ_FAILED, /* the same, by an error: errno. All that came before is passed on */
	RELAY_WRITE_FAILED, /* the receiver takes nothing more: errno; ETIMEDOUT where it took
			       nothing for half a minute since the sender was gone */
};

/* Says how many threads may wait for quiet senders at once, and how many pipes there may be, in
 * all threads together. To be called before there are threads. */
void relay_prepare(unsigned stay_max, unsigned pipes_max);

/* Receives up to SIZE bytes from the way's sender into BUFFER and says in LENGTH how many. Where
 * nothing has come, it waits for RELAY_QUIET_MS, if few threads do so. Returns RELAY_MOVED,
 * RELAY_QUIET, RELAY_ENDED or RELAY_READ_FAILED. */
enum relay_status
relay_receive(struct relay_way *way, void *buffer, size_t size, size_t *length);

/* Passes on LENGTH BYTES that came from the way's sender, and waits until they are taken. Returns
 * RELAY_MOVED or RELAY_WRITE_FAILED. */
enum relay_status relay_send(struct relay_way *way, const uint8_t *bytes, size_t length);

/* Passes on what comes, for as long as something does: through BUFFER, or where it comes in bulk
 * through a pipe, without a copy. Never returns RELAY_MOVED. */
enum relay_status relay_move(struct relay_way *way, uint8_t buffer[RELAY_BUFFER_SIZE]);

/* Sets how long SOCKET may be waited for: its bytes, and room in it. */
void relay_limit_receive(int socket);
void relay_limit_send(int socket);

/* Whether there is nobody any more at the other end of SOCKET. */
bool relay_has_hung_up(int socket);

/* Takes the error that SOCKET has, an errno or 0. */
int relay_error(int socket);

/* How many bytes the kernel has that the other end of SOCKET has not taken. */
int relay_untaken(int socket);

/* How many bytes the other end of SOCKET has taken, to which PASSED were passed on. Where the system does
 * not tell, those of a piece that is being passed on are left out. */
uint64_t relay_taken(int socket, uint64_t passed);

#endif

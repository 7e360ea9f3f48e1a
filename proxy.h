/* One connection's life: reads the hello, finds the backend, relays, closes.
 *
 * It waits for nobody. Whoever owns the connection lets it do
 * what can be done, and comes back when one of its sockets is ready for more, or its
 * deadline has come. */
#ifndef PROXY_H
#define PROXY_H

#include "address.h"
#include "backend.h"
#include "hostname.h"
#include "relay.h"
#include "status.h"
#include "tls.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	/* From accept to the end of the hello and a connected backend. */
	PROXY_HELLO_MS = 10 * 1000,

	/* The memory for what has been read and not written yet, of all connections, in
	 * bytes, but for the first buffer of each hello. Beyond it, hellos that need more
	 * are refused, and little is read at once. Hellos that need much get only half. */
	PROXY_MEMORY_MAX = 64 * 1024 * 1024,
};

enum proxy_phase { PROXY_HELLO, PROXY_BACKEND, PROXY_RELAY, PROXY_LINGER };

/* A connection. Its memory and the socket of the client are the caller's until
 * proxy_begin(), and again after proxy_end(). Others may read client, backend, deadline_ms
 * and name, and set how it ends before they end it. */
struct connection {
	int client;
	int backend; /* -1 where there is none */
	int64_t
	    deadline_ms; /* when to serve it again at the latest; 0 where that is open */

	enum proxy_phase phase;
	int64_t accepted_ms;
	int retry_ms; /* how long the backend was last left alone, or 0 */
	union address peer;
	char name[HOSTNAME_SIZE]; /* empty until the hello was read */
	size_t memory;            /* how many bytes of PROXY_MEMORY_MAX it has */
	enum status_end end;      /* how it ended, as far as that is known */
	enum tls_alert alert;     /* if it was refused */

	uint32_t client_events; /* all that its socket has had */
	struct tls_hello hello;
	struct relay_buffer received; /* what the client has sent, for the backend */

	struct relay relay;
	size_t header_length; /* of the PROXY header, which no client sent */

	/* Once the backend is gone, or there never was one: */
	bool patient;  /* the client may still be receiving */
	int64_t taken; /* how many bytes it had received when that was last looked at */
	int64_t progress_ms; /* when that had last grown */
	int64_t dropped;     /* how many of its bytes nobody wanted */
};

/* What may keep a connection from going on. One that is merely quiet has none. */
enum proxy_obstacle {
	PROXY_NO_OBSTACLE,
	PROXY_HELLO_UNFINISHED,
	PROXY_BACKEND_FULL, /* the backend has no room for it yet */
	PROXY_UNTAKEN,      /* a side does not take what the other has sent */
	PROXY_UNCLOSED,     /* it is over, but the client does not close */
	PROXY_OBSTACLES,
};

/* What a thread needs to serve connections. */
struct proxy_thread {
	struct backend_hosts hosts;
	struct relay_room room;
};

enum proxy_status {
	PROXY_WAITS,   /* for a socket to be ready, or for the deadline */
	PROXY_BLOCKS,  /* serve it again at once; the file system may make that long */
	PROXY_GOES_ON, /* there is more to do, but it is somebody else's turn */
	PROXY_OVER,    /* proxy_end() it */
};

/* Makes C the connection of the non-blocking socket CLIENT, just accepted from PEER. */
void proxy_begin(struct connection *c, int client, const union address *peer);

/* Whether proxy_serve() looks up the backend next, and the file system may make that
 * long. */
bool proxy_may_block(const struct connection *c);

/* Does what can be done for C. CLIENT_EVENTS and BACKEND_EVENTS are the events of
 * epoll(7), edge-triggered, on its sockets since the last time. Logs how the connection
 * failed if it did. Shares nothing but the log. */
enum proxy_status proxy_serve(struct connection *c, struct proxy_thread *thread,
    uint32_t client_events, uint32_t backend_events);

/* The events that C waits for on the socket of SIDE. */
uint32_t proxy_wants(const struct connection *c, enum relay_side side);

/* What C waits for, where it is something that someone owes it. What the kernel holds, since
 * a side has not taken it, counts only where one looks CLOSELY, which takes system calls. */
enum proxy_obstacle proxy_obstacle(const struct connection *c, bool closely);

/* A number that changes when C, which has an obstacle, comes a step further. What a client
 * sends of its hello is no such step. */
uint64_t proxy_progress(const struct connection *c);

/* Tells the client of C that it had to give way to others; in a HURRY, by a reset, which
 * takes half the time of an alert. To be followed by proxy_end(). */
void proxy_give_way(struct connection *c, bool hurry);

/* Has the client of C, which gets nothing, know that by a reset. To be followed by
 * proxy_end(). */
void proxy_turn_away(struct connection *c);

/* Writes the line about C, which is open, into LINE. */
void proxy_open_line(char line[STATUS_LINE_SIZE], const struct connection *c);

/* Writes the line about C, as one that has ended, into LINE. */
void proxy_end_line(char line[STATUS_LINE_SIZE], const struct connection *c);

/* Whether bytes came in bulk when some came last. */
bool proxy_is_bulky(const struct connection *c);

/* Ends C, closes its sockets, frees what it holds, and counts how it ended. */
void proxy_end(struct connection *c);

#endif

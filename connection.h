/* One connection: what is known of it, its memory, and how its end is decided. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "address.h"
#include "hostname.h"
#include "proxy_protocol.h"
#include "relay.h"
#include "tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* The memory for hellos, of all connections, in bytes, but for the first buffer of
	 * each. Beyond it, hellos that need more are refused. Those that need much get only
	 * half of it. */
	CONNECTION_MEMORY_MAX = 64 * 1024 * 1024,

	/* From accept to the end of the hello and a connected backend. A host directory that does not
	 * answer has as long from the end of the hello. */
	CONNECTION_HELLO_MS = 10 * 1000,

	/* How long a client that gets nothing more is listened to. */
	CONNECTION_LINGER_MS = 5 * 1000,
};

/* What a connection waits for, for others to know. */
enum connection_state {
	CONNECTION_HELLO,   /* its ClientHello is unfinished */
	CONNECTION_BACKEND, /* its backend is looked for, or has no room yet */
	CONNECTION_RELAY,
	CONNECTION_CLOSING, /* it is over, but the client has not closed */
	CONNECTION_STATES,
};

/* How a connection has ended. Each ends in one way. */
enum connection_end {
	END_OPEN,           /* it has not */
	END_FAILED,         /* something broke here */
	END_CLOSED,         /* both sides have ended their streams */
	END_BACKEND_CLOSED, /* the backend closed before the client had ended its stream */
	END_BACKEND_RESET,
	END_CLIENT_RESET,
	END_CLIENT_TIMEOUT, /* it has vanished, or takes nothing */
	END_REFUSED,        /* by an alert */
	END_GAVE_WAY,       /* to a new one, when no more fit */
	END_TURNED_AWAY,    /* its address had too many, or its host was flooded */
	END_CUT_OFF,        /* by the end of the program */
	ENDS,
};

struct connection {
	/* Behind registry.h's lock: */
	struct connection *next, *previous; /* first of all, for insque(3) */
	enum connection_state state;
	unsigned ring;     /* in which of registry.h's it stands */
	int64_t since_ms;  /* when it last made progress */
	uint64_t progress; /* how far it was then */
	unsigned report;   /* the last one that told of it */
	bool is_given_up;  /* it is over, but a thread is stuck at it */
	bool is_waiting;   /* THREAD waits for the backend, and a signal ends that */
	pthread_t thread;
	struct group *source, *host; /* of its client's address, and of its name */
	bool awaits_header;          /* a balancer's PROXY header is to come */
	union address peer;          /* the client; until then the balancer */
	union address server; /* where it connected to, if a balancer has said so */

	/* Set before the ways are shared: */
	int client;
	int backend; /* -1 where there is none */
	int64_t accepted_ms;
	char name[HOSTNAME_SIZE];     /* empty until the hello was read */
	_Atomic size_t header_length; /* of the PROXY header, which no client sent */

	/* How it ends, which is decided once, by any thread. */
	_Atomic(enum connection_end) end;
	enum tls_alert alert;
	atomic_bool told; /* it was counted, and has its line */
	atomic_bool
	    resets; /* the client, which gets nothing more: what the kernel still has for
			       one that does not take it goes at once */

	/* From the client to the backend, and back. Each belongs to the thread that has it. */
	struct relay_way upload, download;
	atomic_int ways; /* how many of them are not over; who ends the last ends all */
	atomic_bool upload_ended, download_ended; /* its sender has ended its stream */

	/* The upload's: */
	bool is_balancers; /* of a balancer itself: its PROXY header names no client */
	bool hello_over;   /* it was read, or there will be none */
	struct tls_hello hello;
	uint8_t *received; /* what the client sent with its hello, or before its end */
	size_t received_start, received_end, received_size;
	size_t memory;    /* how much of the memory for hellos it has */
	bool drops;       /* nobody takes what the client sends */
	uint64_t dropped; /* how many bytes of that, while it lingers */

	/* Once the backend is gone, or where there is none, behind registry.h's lock: */
	atomic_bool lingers;
	atomic_bool lingered; /* long enough */
	bool patient;         /* the client may still be receiving */
	int untaken; /* how many bytes it had not taken when that was last looked at */
	int64_t taken_ms; /* when it had last taken some */
};

/* Returns the connection of the socket CLIENT, which is then the connection's, just accepted from
 * PEER; NULL where memory is short. */
struct connection *connection_new(int client, const union address *peer);

/* Takes note of the PROXY header that C has begun with. Once C is shared, behind registry.h's lock. */
void
connection_announce(struct connection *c, const struct proxy_protocol_header *header);

/* Makes room for more of the hello, if C may have that: first for a PROXY header and the hello of
 * most. Returns whether it has. */
bool connection_grow(struct connection *c);

/* Frees what was received with the hello. */
void connection_release_hello(struct connection *c);

/* Closes the sockets of C, with a reset for the client if C resets it, and frees all of it. */
void connection_release(struct connection *c);

/* Decides that C ends as END. Returns false where that was decided before; any thread may call it. */
bool connection_decide(struct connection *c, enum connection_end end);
bool connection_is_decided(const struct connection *c);

/* Logs that WHAT has failed for C, and WHY. */
void
connection_log_failure(const struct connection *c, const char *what, const char *why);

/* Notes, and logs, that the client's connection has failed with ERROR, unless C ends anyway. */
void connection_note_client_failure(struct connection *c, int error);

/* Whether a thread is at C, and not all of it is in the lot. */
bool connection_keeps_a_thread(const struct connection *c);

#endif

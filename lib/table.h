/* The table of open connections, and the rule by which one of them is evicted.
 *
 * A connection has one owner at a time: the thread that serves it; or, when nobody works on it, the
 * table. Its owner alone reads and writes its sockets, closes and frees it, and needs no lock for
 * that. It changes hands at these moments:
 *
 *   main thread -> its thread    proxy_accept(), by thread_spawn()
 *   its thread -> table          idle_park(), if nothing happens
 *   table -> idle.c -> a thread  table_take(), if something does or its time is over
 *   table -> main thread         table_evict(), to be ended
 *
 * From a thread that hangs in a file system, a connection is taken likewise. While it is in the
 * table, others may look behind the lock at what is behind it, and at its sockets, and may ask the
 * owner to end it: by relay.stop and shutdown(2). It leaves before its sockets are closed. */
#ifndef TABLE_H
#define TABLE_H

#include "lib/address.h"
#include "lib/relay.h"
#include "lib/share.h"
#include "tls.h"

#include <stdbool.h>
#include <stdint.h>

/* What a connection waits for. */
enum connection_state {
	CONNECTION_HELLO,      /* for the rest of its ClientHello */
	CONNECTION_CONNECTING, /* for its backend */
	CONNECTION_RELAYING,   /* for bytes, or for room */
	CONNECTION_CLOSING,    /* for the client to close: a lingering close */
	CONNECTION_STATES,
};

/* How a connection has ended. */
enum connection_end {
	END_OPEN,           /* it has not */
	END_FAILED,         /* something broke here */
	END_SILENT,         /* the client has left, and had sent nothing */
	END_CLOSED,         /* both sides have ended their streams */
	END_BACKEND_CLOSED, /* the backend closed before the client had ended its stream */
	END_BACKEND_RESET,
	END_CLIENT_RESET,
	END_CLIENT_TIMEOUT, /* the client has vanished, or takes nothing */
	END_REJECTED,       /* with an alert */
	END_EVICTED,        /* slots or threads were short */
	END_CUT_OFF,        /* by the end of the program */
	CONNECTION_ENDS,
};

enum {
	/* From accept to the end of the ClientHello, and to the last attempt to connect. */
	TABLE_HELLO_MS = 10 * 1000,

	/* How much longer a lookup may take until its client is told. */
	TABLE_LOOKUP_MS = 1000,

	/* How long a client that gets nothing more is read from. */
	TABLE_LINGER_MS = 5 * 1000,
};

struct connection {
	/* Written behind the table's lock; the owner may read it without: */
	struct connection *next, *previous; /* in its state's list; first of all, for insque(3) */
	enum connection_state state;
	int64_t since_ms;  /* since when it is in this state; if relaying, without progress */
	uint64_t progress; /* 1, and the bytes passed on and taken until then; 0 at first */
	bool all_taken, backend_is_slow; /* no bytes waited to be taken then; some, by a backend */
	bool is_evicted;
	bool is_parked;               /* the table owns it, and idle.c watches it */
	struct lookup *lookup;        /* it is looked up in a file system, which may hang */
	struct share *address, *host; /* host is NULL until the name is known */
	union address peer;           /* the client; before its PROXY header, the balancer */

	/* Its owner's: */
	struct relay relay; /* its sockets; others may use what is said to be for them */
	int64_t accepted_ms;
	union address server; /* the address it connected to, if a balancer has said so */
	struct hello *hello;  /* what was received of it; NULL before and after */
	bool awaits_header;   /* a balancer's PROXY header is to come */
	enum connection_end end;
	enum tls_alert alert; /* if rejected */
	bool resets;          /* close with a reset: what the client has not taken is discarded */
	size_t header_length; /* of the PROXY header to the backend, which no client sent */
	uint64_t dropped;     /* bytes that were read in the lingering close */
};

/* A lookup in a host directory. Nothing ends one that hangs, so the connection may be taken from
 * its thread meanwhile. */
struct lookup {
	struct connection *connection; /* NULL if it was taken */
	struct share *host;
};

/* Prepares for SLOTS connections at once. To be called before there are threads. */
void table_prepare(unsigned slots);

void table_lock(void);
void table_unlock(void);

/* Opens a connection for the socket CLIENT, just accepted from PEER, in the state HELLO. Returns
 * it: the caller's, with the socket. Or returns NULL if memory is short. */
struct connection *table_enter(int client, const union address *peer);

/* C's client has become known by a PROXY header: C is counted by that address from now on. */
void table_set_client(struct connection *c, const union address *client);

/* Counts C as one of the host NAME; it is CONNECTING from now on. Returns false if memory is
 * short. */
bool table_join_host(struct connection *c, const char *name);

/* C is in STATE from now on. */
void table_set_state(struct connection *c, enum connection_state state);

/* The name of C's host, or "-". */
const char *table_host(const struct connection *c);

/* Removes C from the table, so that no other thread finds it. When its sockets are closed,
 * table_free() is to follow, which frees its slot and its memory. */
void table_remove(struct connection *c);
void table_free(struct connection *c);

/* --- Lookups: no host, and no file system, may have all threads --- */

/* Begins LOOKUP, of C's host. Returns 0; EBUSY if as many are under way as may be, so that C
 * has to wait; or ETIMEDOUT if none of these has ended for a second: the file system hangs.
 * After 0, table_end_lookup() is to follow. */
int table_begin_lookup(struct lookup *lookup, struct connection *c);

/* Ends LOOKUP. Returns its connection; or NULL if that was taken meanwhile and is the caller's
 * no more. */
struct connection *table_end_lookup(struct lookup *lookup);

/* --- Slots --- */

/* Evicted connections are counted by their state; among those that relayed, idle ones apart. */
enum { TABLE_IDLE = CONNECTION_STATES, TABLE_EVICTED_KINDS };

struct table_counts {
	unsigned open, parked; /* now */
	unsigned leaving;      /* evicted, and still open */
	unsigned evicted[TABLE_EVICTED_KINDS];
};

struct table_counts table_count(void);

/* Whether no slot is free; whether fewer than an eighth of all slots are. */
bool table_is_full(void);
bool table_is_short(void);

/* Whether C, which is new, is too much for its holder: for an address with more than a sixteenth of
 * all slots, while these are short; for a host that blocks more than an eighth of the slots or
 * threads, while either are. Then it is counted as evicted, and to be ended. */
bool table_rejects(struct connection *c);

/* --- Taking and evicting: see docs/limits.md --- */

enum table_shortage { TABLE_SLOTS, TABLE_THREADS };

/* Evicts a connection because of SHORTAGE. Returns it, or NULL if none may be evicted now. If it
 * IS_TAKEN, it is the caller's, to be ended; or else its thread is asked to end it. */
struct connection *table_evict(enum table_shortage shortage, bool *is_taken);

/* Takes C from the parked connections, or from a lookup. Returns false if another thread owns
 * it. After it, C is the caller's. The caller has the lock. */
bool table_take(struct connection *c);

/* C is parked from now on. The caller has the lock. */
void table_set_parked(struct connection *c);

/* Takes connections whose time is over, so few at once that the lock is not held for long.
 * Returns how many. The caller has the lock. */
enum { TABLE_EXPIRED_MAX = 64 };
int table_take_expired(struct connection *taken[TABLE_EXPIRED_MAX], int64_t now_ms);

/* Calls END for each open connection, and keeps the lock, so that none ends any more. */
void table_end_all(void (*end)(const struct connection *c, enum connection_end how));

#endif

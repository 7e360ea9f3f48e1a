/* The table of open connections, and the rule by which one of them is evicted.
 *
 * A connection has one owner at a time: the thread that serves it or, if no thread works on it, the
 * table. Only its owner reads and writes its sockets, closes and frees it, and needs no lock for
 * that. The owner changes at these moments:
 *
 *   main thread -> its thread    proxy_accept(), by thread_spawn()
 *   its thread -> table          idle_park(), if nothing happens
 *   table -> idle.c -> a thread  table_take(), on an event or a timeout
 *   table -> main thread         table_evict(); the main thread ends it
 *
 * A connection is also taken from a thread whose lookup hangs. With the lock, other threads may
 * read the members that it guards, query the sockets, and ask the owner to end the connection: by
 * relay.stop and shutdown(2). A connection leaves the table before its sockets are closed. */
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

/* How a connection ended. */
enum connection_end {
	END_OPEN,           /* it has not */
	END_FAILED,         /* something broke here */
	END_SILENT,         /* the client left without having sent anything */
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
	/* Time from accept(2) to the end of the ClientHello, and to the last attempt to connect. */
	TABLE_HELLO_MS = 10 * 1000,

	/* Additional time for a lookup, before the client is rejected. */
	TABLE_LOOKUP_MS = 1000,

	/* Maximum time of a lingering close. */
	TABLE_LINGER_MS = 5 * 1000,
};

struct connection {
	/* Written under the table's lock; the owner may read it without: */
	struct connection *next, *previous; /* in its state's list; first members, for insque(3) */
	enum connection_state state;
	int64_t since_ms;                /* start of this state; if relaying, of the stall */
	uint64_t progress;               /* 1 plus the bytes relayed and taken then; 0 at first */
	bool all_taken, backend_is_slow; /* then, no bytes were unsent; some were, to a backend */
	bool is_evicted;
	bool is_parked;               /* the table owns it, and idle.c watches it */
	struct lookup *lookup;        /* the lookup of its backend, which may hang */
	struct share *address, *host; /* host is NULL until the name is known */
	char *name;                   /* the server name; "" for none; NULL until it is known */
	union address peer;           /* the client; before its PROXY header, the balancer */

	/* Its owner's: */
	struct relay relay; /* its sockets; relay.h says what others may use */
	int64_t accepted_ms;
	int64_t down_until_ms; /* until then it waits for a host that is down; 0 before that */
	union address server;  /* the address it connected to, if a balancer sent that */
	struct hello *hello;   /* the received part; NULL before and after */
	bool awaits_header;    /* a balancer must send a PROXY header first */
	enum connection_end end;
	enum tls_alert alert; /* if rejected */
	bool resets;          /* close with SO_LINGER 0: sends RST and discards unsent data */
	size_t header_length; /* of the PROXY header sent to the backend */
	uint64_t id[2];       /* the unique ID in it; 0 if there is none */
	const char *socket;   /* the name of the backend's socket; static */
	uint64_t dropped;     /* bytes read in the lingering close */
};

/* A lookup in a host directory. A hanging one cannot be interrupted, so the connection may be taken
 * from its thread. */
struct lookup {
	struct connection *connection; /* NULL if it was taken */
	struct share *host;
};

/* Allows SLOTS connections at once. Call it before any thread starts. */
void table_prepare(unsigned slots);

void table_lock(void);
void table_unlock(void);

/* Creates a connection for the socket CLIENT, just accepted from PEER, in the state HELLO. Returns
 * it; the caller owns it and the socket. Returns NULL if memory is short. */
struct connection *table_enter(int client, const union address *peer);

/* Sets the address of C's CLIENT from a PROXY header. C is counted by that address from now on. */
void table_set_client(struct connection *c, const union address *client);

/* Sets C's server NAME, "" for none, and its state to CONNECTING. Returns false if memory is
 * short. */
bool table_set_name(struct connection *c, const char *name);

/* Counts C as one of HOST, a name or a special host (hostname.h), and of no other host. Returns
 * false if memory is short. */
bool table_set_host(struct connection *c, const char *host);

/* Sets the state of C. */
void table_set_state(struct connection *c, enum connection_state state);

/* For the log: return C's server name, or "-"; the special host it is counted in, or NULL. */
const char *table_name(const struct connection *c);
const char *table_special_host(const struct connection *c);

/* Writes " id=" and C's unique ID in hexadecimal for the log; nothing if it has none. */
enum { TABLE_ID_SIZE = 4 + 32 + 1 };
void table_id(char text[TABLE_ID_SIZE], const struct connection *c);

/* Removes C from the table, so that no other thread can find it. Then close its sockets and call
 * table_free(), which frees its slot and its memory. */
void table_remove(struct connection *c);
void table_free(struct connection *c);

/* --- Lookups: no host, and no file system, may block all threads --- */

/* Begins LOOKUP, of C's host. Returns 0; EBUSY if as many as allowed are pending, so that C must
 * wait; or ETIMEDOUT if the file system hangs, because no lookup of the host, or none at all of
 * those allowed, has ended for a second. After 0, call table_end_lookup(). */
int table_begin_lookup(struct lookup *lookup, struct connection *c);

/* Ends LOOKUP. Returns its connection; or NULL if that was taken, and the caller no longer owns
 * it. */
struct connection *table_end_lookup(struct lookup *lookup);

/* --- Hosts that are down: their backend may be restarting --- */

/* How long connections wait for a backend, and for how long it is remembered that they did so in
 * vain. */
enum { TABLE_DOWN_MS = 1000 };

/* Records that nobody listens at tls-socket of C's host, or at acme-tls-socket if IS_ACME. Returns
 * whether it is worth waiting for: it was not down before the last TABLE_DOWN_MS, and C has not
 * waited for so long, although the host may have been up meanwhile. */
bool table_record_down(struct connection *c, bool is_acme);

/* Forgets that this socket was down, if it was. */
void table_forget_down(struct connection *c, bool is_acme);

/* --- Slots --- */

/* Evicted connections are counted by state; idle ones apart from others that relayed. */
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

/* Whether the holder of C, which is new, has too much: an address more than a sixteenth of all
 * slots, while these are short; a host that blocks more than an eighth of the slots or threads,
 * while either are. If so, counts C as evicted; the caller must end it. */
bool table_rejects(struct connection *c);

/* --- Taking and evicting: see docs/limits.md --- */

enum table_shortage { TABLE_SLOTS, TABLE_THREADS };

/* Evicts a connection because of SHORTAGE. Returns it, or NULL if none may be evicted now. If it
 * IS_TAKEN, the caller owns it and must end it. Otherwise its thread was asked to end it. */
struct connection *table_evict(enum table_shortage shortage, bool *is_taken);

/* Takes C from the parked connections, or from a lookup. Returns false if a thread works on it;
 * otherwise the caller owns it. Requires the lock. */
bool table_take(struct connection *c);

/* Marks C as parked. Requires the lock. */
void table_set_parked(struct connection *c);

/* Takes connections whose timeout has expired; TABLE_EXPIRED_MAX at most, so that the lock is not
 * held for long. Returns how many. Requires the lock. */
enum { TABLE_EXPIRED_MAX = 64 };
int table_take_expired(struct connection *taken[TABLE_EXPIRED_MAX], int64_t now_ms);

/* Calls END for each open connection. Keeps the lock, so that no connection ends afterwards. */
void table_end_all(void (*end)(const struct connection *c, enum connection_end how));

#endif

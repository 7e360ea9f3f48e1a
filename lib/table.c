#include "lib/table.h"

#include "lib/clock.h"
#include "lib/hostname.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "system/system.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	/* Slots are short while fewer than 1/SHORT of them are free. */
	SHORT = 8,

	/* An address holds too much if it has more than 1/SHARE of all slots and more than
	 * ADDRESS_MIN; a host if it blocks more than 1/SHORT of all slots or threads and more than
	 * HOST_MIN. */
	SHARE = 16,
	ADDRESS_MIN = 4,
	HOST_MIN = 16,

	/* All lookups together may occupy 1/LOOKUPS of the threads. */
	LOOKUPS = 4,

	/* A connection that does not relay may be evicted after PATIENCE_MS in its state. As slots
	 * become fewer, that shrinks, but not below PATIENCE_MIN_MS: an honest client's hello comes
	 * right after the end of the TCP handshake, however far away it is. A connection that
	 * relays may be evicted after PATIENCE_MS without progress: TCP repeats a lost packet after
	 * 200 ms and a round trip. A backend's progress shows only when it has taken a whole write,
	 * so one that has answered has BACKEND_PATIENCE_MS. */
	PATIENCE_MS = 1000,
	BACKEND_PATIENCE_MS = 5000,
	PATIENCE_MIN_MS = 10,

	/* Maximum number of connections of each state that are considered for eviction. */
	LOOKS = 16,

	/* Maximum number of pending lookups in one host's directory: a chain of symlinks may cost
	 * milliseconds of processor time each. They hang if none has ended for LOOKUPS_HANG_MS. */
	LOOKUPS_OF_HOST = 4,
	LOOKUPS_HANG_MS = 1000,

	/* How often it is remembered that a host has gone down. Beyond that, the one that was found
	 * first is forgotten, so that connections wait for it again. A host that was up in between
	 * takes another place. */
	HOSTS_DOWN = 256,

	/* Minimum interval between log lines on evictions. */
	NOTICE_MS = 10 * 1000,
};

static struct {
	pthread_mutex_t mutex;
	struct connection lists[CONNECTION_STATES]; /* the longest in the state first */
	unsigned sizes[CONNECTION_STATES];          /* of the lists */
	int slots;
	atomic_int free; /* free slots and those of evicted ones; any thread may read it */
	struct table_counts counts;
	struct lookups lookups;         /* of all hosts */
	struct share *down[HOSTS_DOWN]; /* hosts that are or were down, in a circle */
	unsigned next_down;             /* where the next one goes */
	int64_t next_notice_ms;
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void
table_prepare(unsigned slots)
{
	table.slots = (int)slots;
	table.free = table.slots;
	for (size_t i = 0; i < CONNECTION_STATES; i++)
		table.lists[i].next = table.lists[i].previous = &table.lists[i];
}

void
table_lock(void)
{
	pthread_mutex_lock(&table.mutex);
}

void
table_unlock(void)
{
	pthread_mutex_unlock(&table.mutex);
}

/* --- Coming and going --- */

/* Appends C to the list of STATE. */
static void
append(struct connection *c, enum connection_state state, int64_t now_ms)
{
	c->state = state;
	c->since_ms = now_ms;
	insque(c, table.lists[state].previous);
	table.sizes[state]++;
}

static void
change_state(struct connection *c, enum connection_state state)
{
	remque(c);
	table.sizes[c->state]--;
	append(c, state, clock_ms());
}

struct connection *
table_enter(int client, const union address *peer)
{
	struct connection *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->relay.client.socket = client;
	c->relay.backend.socket = -1;
	c->peer = *peer;
	c->accepted_ms = clock_ms();
	table_lock();
	c->address = share_join_address(peer);
	bool entered = c->address != NULL;
	if (entered) {
		append(c, CONNECTION_HELLO, c->accepted_ms);
		table.free--;
		table.counts.open++;
	}
	table_unlock();
	if (entered)
		return c;
	free(c);
	return NULL;
}

void
table_set_client(struct connection *c, const union address *client)
{
	table_lock();
	c->peer = *client;
	struct share *address = share_join_address(client);
	if (address != NULL) {
		share_leave(c->address);
		c->address = address;
	}
	table_unlock();
}

bool
table_set_name(struct connection *c, const char *name)
{
	table_lock();
	c->name = strdup(name);
	change_state(c, CONNECTION_CONNECTING);
	table_unlock();
	return c->name != NULL;
}

bool
table_set_host(struct connection *c, const char *host)
{
	table_lock();
	share_leave(c->host);
	c->host = share_join(host);
	c->relay.blocked = c->host != NULL ? &c->host->blocked : NULL;
	table_unlock();
	return c->host != NULL;
}

const char *
table_name(const struct connection *c)
{
	return c->name == NULL || c->name[0] == '\0' ? "-" : c->name;
}

const char *
table_special_host(const struct connection *c)
{
	return c->host != NULL && hostname_is_special(c->host->key) ? c->host->key : NULL;
}

void
table_set_state(struct connection *c, enum connection_state state)
{
	table_lock();
	change_state(c, state);
	table_unlock();
}

void
table_remove(struct connection *c)
{
	table_lock();
	remque(c);
	table.sizes[c->state]--;
	table_unlock();
}

void
table_id(char text[TABLE_ID_SIZE], const struct connection *c)
{
	text[0] = '\0';
	if (c->state >= CONNECTION_RELAYING && c->id[0] != 0)
		snprintf(text, TABLE_ID_SIZE, " id=%016" PRIx64 "%016" PRIx64, c->id[0], c->id[1]);
}

/* --- Slots --- */

void
table_free(struct connection *c)
{
	table_lock();
	share_leave(c->address);
	share_leave(c->host);
	table.counts.open--;
	table.counts.leaving -= c->is_evicted;
	table_unlock();
	table.free += c->is_evicted ? 0 : 1;
	free(c->name);
	free(c);
}

bool
table_is_full(void)
{
	return table_count().open >= (unsigned)table.slots;
}

bool
table_is_short(void)
{
	return table.free * SHORT < table.slots;
}

struct table_counts
table_count(void)
{
	table_lock();
	struct table_counts counts = table.counts;
	table_unlock();
	return counts;
}

/* Marks C as evicted because of SHORTAGE, and counts it under KIND. Its slot counts as free from
 * now on. Logs that from time to time. */
static void
mark_evicted(struct connection *c, unsigned kind, enum table_shortage shortage)
{
	int64_t now_ms = clock_ms();
	table.counts.evicted[kind]++;
	table.counts.leaving++;
	table.free++;
	c->is_evicted = true;
	atomic_store(&c->relay.stop, true);
	if (now_ms < table.next_notice_ms)
		return;
	table.next_notice_ms = now_ms + NOTICE_MS;
	log_line(LOG_PROGRAM,
	    "sniproxy: %s are short, with %u of %d slots in use: connections are evicted",
	    shortage == TABLE_SLOTS ? "slots" : "threads", table.counts.open, table.slots);
}

/* Returns how many slots an address, or a state other than RELAYING, may have without being the
 * cause of a shortage. */
static unsigned
fair_share(void)
{
	unsigned share = (unsigned)table.slots / SHARE;
	return share > ADDRESS_MIN ? share : ADDRESS_MIN;
}

bool
table_rejects(struct connection *c)
{
	if (!table_is_short() && !thread_is_short())
		return false;
	unsigned most = thread_count().limit, slots = (unsigned)table.slots;
	most = (most < slots ? most : slots) / SHORT;
	table_lock();
	/* Checked again: others may have been rejected meanwhile. */
	bool rejects = (table_is_short() && c->address->connections > fair_share()) ||
	    (c->host != NULL && c->host->blocked > (most > HOST_MIN ? most : HOST_MIN));
	if (rejects && !c->is_evicted)
		mark_evicted(c, c->state, table_is_short() ? TABLE_SLOTS : TABLE_THREADS);
	table_unlock();
	return rejects;
}

/* --- Lookups --- */

static bool
are_hanging(const struct lookups *lookups, int64_t now_ms)
{
	return lookups->count > 0 && now_ms - lookups->since_ms >= LOOKUPS_HANG_MS;
}

/* Counts a lookup that begins, or one that ends if BY is -1. */
static void
count_lookup(struct lookups *lookups, int by, int64_t now_ms)
{
	if (lookups->count == 0 || by < 0)
		lookups->since_ms = now_ms;
	lookups->count += (unsigned)by;
}

int
table_begin_lookup(struct lookup *lookup, struct connection *c)
{
	int error = 0;
	int64_t now_ms = clock_ms();
	table_lock();
	bool is_full = table.lookups.count > thread_count().limit / LOOKUPS;
	if (are_hanging(&c->host->lookups, now_ms) ||
	    (is_full && are_hanging(&table.lookups, now_ms))) {
		error = ETIMEDOUT;
	} else if (is_full || c->host->lookups.count >= LOOKUPS_OF_HOST) {
		error = EBUSY;
	} else {
		count_lookup(&c->host->lookups, 1, now_ms);
		count_lookup(&table.lookups, 1, now_ms);
		c->host->connections++; /* the share may outlive C */
		*lookup = (struct lookup){c, c->host};
		c->lookup = lookup;
	}
	table_unlock();
	return error;
}

struct connection *
table_end_lookup(struct lookup *lookup)
{
	int64_t now_ms = clock_ms();
	table_lock();
	count_lookup(&lookup->host->lookups, -1, now_ms);
	count_lookup(&table.lookups, -1, now_ms);
	share_leave(lookup->host);
	struct connection *c = lookup->connection;
	if (c != NULL)
		c->lookup = NULL;
	table_unlock();
	return c;
}

/* --- Hosts that are down --- */

bool
table_record_down(struct connection *c, bool is_acme)
{
	struct share *host = c->host;
	int64_t now_ms = clock_ms();
	if (c->down_until_ms == 0)
		c->down_until_ms = now_ms + TABLE_DOWN_MS;
	table_lock();
	if (now_ms >= host->down_until_ms[is_acme]) {
		struct share **place = &table.down[table.next_down++ % HOSTS_DOWN];
		host->down_since_ms[is_acme] = now_ms;
		host->connections++; /* the share may outlive C */
		share_leave(*place);
		*place = host;
	}
	host->down_until_ms[is_acme] = now_ms + TABLE_DOWN_MS;
	bool may_end = now_ms < host->down_since_ms[is_acme] + TABLE_DOWN_MS;
	table_unlock();
	return may_end && now_ms < c->down_until_ms;
}

void
table_forget_down(struct connection *c, bool is_acme)
{
	c->host->down_until_ms[is_acme] = 0;
}

/* --- Taking --- */

void
table_set_parked(struct connection *c)
{
	c->is_parked = true;
	table.counts.parked++;
	/* If threads are or were short, it was not quiet for long, so unsent bytes may have another
	 * reason. */
	bool was_quiet = c->relay.quiet_ms >= THREAD_QUIET_MS || table_is_short();
	relay_set_blocked(&c->relay,
	    c->state == CONNECTION_RELAYING && was_quiet && !thread_is_short() &&
		(system_unsent(c->relay.client.socket) > 0 ||
		    system_unsent(c->relay.backend.socket) > 0));
}

bool
table_take(struct connection *c)
{
	if (c->is_parked) {
		system_watch_remove(c->relay.client.socket);
		if (c->relay.backend.socket != -1)
			system_watch_remove(c->relay.backend.socket);
		c->is_parked = false;
		table.counts.parked--;
		relay_set_blocked(&c->relay, false);
		return true;
	}
	if (c->lookup == NULL)
		return false;
	c->lookup->connection = NULL;
	c->lookup = NULL;
	return true;
}

/* Whether the timeout of C has expired. */
static bool
is_over(const struct connection *c, int64_t now_ms)
{
	static const int time_ms[CONNECTION_STATES] = {
	    [CONNECTION_HELLO] = TABLE_HELLO_MS,
	    [CONNECTION_CONNECTING] = TABLE_HELLO_MS + TABLE_LOOKUP_MS,
	    [CONNECTION_CLOSING] = TABLE_LINGER_MS,
	};
	return c->state != CONNECTION_RELAYING && now_ms - c->since_ms >= time_ms[c->state];
}

int
table_take_expired(struct connection *taken[TABLE_EXPIRED_MAX], int64_t now_ms)
{
	int count = 0;
	for (size_t state = 0; state < CONNECTION_STATES; state++) {
		const struct connection *list = &table.lists[state];
		for (struct connection *c = list->next;
		     c != list && is_over(c, now_ms) && count < TABLE_EXPIRED_MAX; c = c->next)
			if (table_take(c)) /* otherwise its thread is about to notice */
				taken[count++] = c;
	}
	return count;
}

void
table_end_all(void (*end)(const struct connection *c, enum connection_end how))
{
	table_lock();
	for (size_t state = 0; state < CONNECTION_STATES; state++)
		for (struct connection *c = table.lists[state].next; c != &table.lists[state];
		     c = c->next)
			end(c, END_CUT_OFF);
}

/* --- Evicting --- */

/* Returns how long a connection without a backend may stay in its state at present. */
static int64_t
patience_ms(void)
{
	int free = table.free, few = table.slots / SHORT + 1;
	int64_t ms = free >= few ? PATIENCE_MS : (int64_t)PATIENCE_MS * free / few;
	return ms > PATIENCE_MIN_MS ? ms : PATIENCE_MIN_MS;
}

/* Returns how much C's holder has of what is short: its address, of the slots; its host, of the
 * threads. Addresses that do not hold too much count as equal. */
static unsigned
held_with(const struct connection *c, enum table_shortage shortage)
{
	if (shortage == TABLE_THREADS)
		return atomic_load(&c->host->blocked);
	unsigned share = fair_share();
	return c->address->connections > share ? c->address->connections : share;
}

/* Returns whether C, which relays, may be evicted: no progress since the last check, which costs
 * system calls, and bytes are unsent or its address holds too much. */
static bool
check_progress(struct connection *c, enum table_shortage shortage, int64_t now_ms)
{
	if (c->progress != 0 &&
	    now_ms - c->since_ms < (c->backend_is_slow ? BACKEND_PATIENCE_MS : PATIENCE_MS))
		return false;
	int for_backend = system_unsent(c->relay.backend.socket);
	int waiting = for_backend + system_unsent(c->relay.client.socket);
	c->backend_is_slow = for_backend > 0 && c->relay.client.taken > 0;
	uint64_t taken = c->relay.backend.taken + c->relay.client.taken - (uint64_t)waiting + 1;
	bool may_go = taken == c->progress &&
	    (waiting > 0 || (shortage == TABLE_SLOTS && c->address->connections > fair_share()));
	c->progress = taken;
	c->all_taken = waiting == 0;
	if (c->is_parked && c->all_taken)
		relay_set_blocked(&c->relay, false);
	if (!may_go)
		c->since_ms = now_ms;
	return may_go;
}

/* Returns whether C may be evicted. */
static bool
consider(struct connection *c, enum table_shortage shortage, int64_t now_ms)
{
	bool waits_for_others = c->is_parked || c->lookup != NULL || c->relay.is_blocked;
	if (atomic_load(&c->relay.stop) || (shortage == TABLE_THREADS && !c->relay.is_blocked))
		return false;
	if (c->state == CONNECTION_RELAYING) /* a parked one has no thread */
		return check_progress(c, shortage, now_ms) &&
		    (shortage == TABLE_SLOTS || !c->is_parked);
	return (shortage == TABLE_THREADS || table.sizes[c->state] > fair_share()) &&
	    now_ms - c->since_ms >= patience_ms() && waits_for_others;
}

/* Whether A is evicted before B: it has the larger holder or, of equal ones, has waited longer. */
static bool
pays_before(const struct connection *a, const struct connection *b, enum table_shortage shortage)
{
	unsigned held_a = held_with(a, shortage), held_b = held_with(b, shortage);
	return held_a != held_b ? held_a > held_b : a->since_ms < b->since_ms;
}

/* Returns the connection to evict, or NULL. Considers the longest waits in each state. Moves
 * relaying connections that may stay to the end of their list, so that the next call considers
 * others. */
static struct connection *
choose(enum table_shortage shortage, int64_t now_ms)
{
	struct connection *victim = NULL;
	for (size_t state = 0; state < CONNECTION_STATES; state++) {
		struct connection *list = &table.lists[state], *next;
		struct connection *c = list->next;
		for (int i = 0; i < LOOKS && c != list; i++, c = next) {
			next = c->next;
			bool may_go = consider(c, shortage, now_ms);
			if (may_go && (victim == NULL || pays_before(c, victim, shortage)) &&
			    (state != CONNECTION_HELLO ||
				!system_has_unread(c->relay.client.socket)))
				victim = c;
			if (!may_go && state == CONNECTION_RELAYING) {
				remque(c);
				insque(c, list->previous);
			}
		}
	}
	return victim;
}

struct connection *
table_evict(enum table_shortage shortage, bool *is_taken)
{
	int64_t now_ms = clock_ms();
	table_lock();
	struct connection *c = choose(shortage, now_ms);
	if (c != NULL) {
		bool is_idle = c->state == CONNECTION_RELAYING && c->all_taken;
		mark_evicted(c, is_idle ? (unsigned)TABLE_IDLE : c->state, shortage);
		*is_taken = table_take(c);
		if (!*is_taken)
			shutdown(c->relay.client.socket, SHUT_RDWR);
	}
	table_unlock();
	return c;
}

/* Tests of table.c, with a clock that stands still, and with sockets that are only numbers. The
 * test answers what table.c asks the system about them. Each test is a process of its own. */
#include <criterion/criterion.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/table.h"
#include "lib/thread.h"
#include "system/system.h"
#include "tests/unit/addresses.h"
#include "tests/unit/check.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	SLOTS = 64,
	THREADS = 256,
	FIRST_SOCKET = 1000, /* the client's; the backend's is one more */
	SOCKETS = 1000,

	/* Constants of table.c: */
	SHARE = 4, /* of the slots, for an address, and for each state except RELAYING */
	HOST_MIN = 16,
	PATIENCE_MS = 1000,
	BACKEND_PATIENCE_MS = 5000,
	PATIENCE_MIN_MS = 10,
	NOTICE_MS = 10 * 1000,
	LOOKUPS_OF_HOST = 4,
};

/* --- What table.c sees of the system, by the linker's option --wrap --- */

static int64_t now_ms = 1000 * 1000;
static struct {
	int unsent;
	bool has_unread;
	unsigned watch_removals, shutdowns;
} sockets[SOCKETS];
static bool threads_are_short;
static unsigned notices; /* lines in the log */

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);
int __wrap_shutdown(int socket, int how);
bool __wrap_system_has_unread(int socket);
int __wrap_system_unsent(int socket);
bool __wrap_thread_is_short(void);
void __wrap_log_line(enum log_kind kind, const char *format, ...);
void __wrap_system_watch_remove(int socket);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	(void)id;
	*now = (struct timespec){now_ms / 1000, (long)(now_ms % 1000) * 1000000};
	return 0;
}

int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

int
__wrap_shutdown(int socket, int how)
{
	CHECK(how == SHUT_RDWR, "shutdown(%d, %d)", socket, how);
	sockets[socket - FIRST_SOCKET].shutdowns++;
	return 0;
}

bool
__wrap_system_has_unread(int socket)
{
	return sockets[socket - FIRST_SOCKET].has_unread;
}

int
__wrap_system_unsent(int socket)
{
	return socket == -1 ? 0 : sockets[socket - FIRST_SOCKET].unsent;
}

void
__wrap_system_watch_remove(int socket)
{
	sockets[socket - FIRST_SOCKET].watch_removals++;
}

bool
__wrap_thread_is_short(void)
{
	return threads_are_short;
}

void
__wrap_log_line(enum log_kind kind, const char *format, ...)
{
	CHECK(kind == LOG_PROGRAM, "%s", format);
	notices++;
}

static void
prepare(void)
{
	thread_prepare(THREADS, NULL);
	table_prepare(SLOTS);
}

TestSuite(table, .init = prepare);

/* --- Connections --- */

static struct connection *
enter(const char *host)
{
	static int socket = FIRST_SOCKET;
	const union address peer = address_of(AF_INET, host, 1);
	struct connection *c = table_enter(socket, &peer);
	CHECK(c != NULL && c->state == CONNECTION_HELLO && c->relay.client.socket == socket,
	    "table_enter");
	socket += 2;
	CHECK(socket < FIRST_SOCKET + SOCKETS, "too many");
	return c;
}

static struct connection *
enter_state(const char *host, const char *name, enum connection_state state)
{
	struct connection *c = enter(host);
	CHECK(table_set_name(c, name) && table_set_host(c, name), "table_set_host");
	if (state >= CONNECTION_RELAYING)
		c->relay.backend.socket = c->relay.client.socket + 1;
	c->progress = 1; /* table_evict() has looked at it before anything was taken */
	table_set_state(c, state);
	return c;
}

/* Enters COUNT connections in STATE, each from an address of its own. None may be evicted: those
 * that relay are idle, and a thread works on each of the others. */
static void
enter_many(unsigned count, enum connection_state state)
{
	static unsigned number;
	for (; count > 0; count--, number++) {
		char host[ADDRESS_TEXT_SIZE];
		snprintf(host, sizeof host, "203.0.%u.%u", number / 256, number % 256);
		enter_state(host, "many.example", state);
	}
}

static void
leave(struct connection *c)
{
	table_remove(c);
	table_free(c);
}

static void
park(struct connection *c)
{
	table_lock();
	table_set_parked(c);
	table_unlock();
}

/* Makes C wait for its peer, so that it may be evicted. Returns C. */
static struct connection *
waiting(struct connection *c)
{
	if (c->state == CONNECTION_CONNECTING)
		relay_set_blocked(&c->relay, true);
	else
		park(c);
	return c;
}

static bool
take(struct connection *c)
{
	table_lock();
	bool taken = table_take(c);
	table_unlock();
	return taken;
}

/* --- Coming and going --- */

Test(table, counts_connections_until_their_slots_are_free)
{
	struct connection *c = enter("192.0.2.1");
	enter("192.0.2.2");
	cr_assert(table_count().open == 2);
	cr_assert_str_eq(table_name(c), "-");
	now_ms += 7;
	cr_assert(table_set_name(c, "a.example") && table_set_host(c, "a.example"));
	cr_assert_str_eq(table_name(c), "a.example");
	cr_assert(c->state == CONNECTION_CONNECTING && c->since_ms == now_ms);
	table_remove(c);
	cr_assert(table_count().open == 2, "its descriptors are not closed yet");
	table_free(c);
	cr_assert(table_count().open == 1);
}

Test(table, is_full_until_a_slot_is_free)
{
	enter_many(SLOTS - 1, CONNECTION_RELAYING);
	cr_assert(!table_is_full());
	struct connection *c = enter("192.0.2.1");
	cr_assert(table_is_full());
	table_remove(c);
	cr_assert(table_is_full());
	table_free(c);
	cr_assert(!table_is_full());
}

Test(table, says_when_fewer_than_an_eighth_of_the_slots_are_free)
{
	enter_many(SLOTS - SLOTS / 8, CONNECTION_RELAYING);
	cr_assert(!table_is_short());
	enter("192.0.2.1");
	cr_assert(table_is_short());
}

/* A PROXY header has announced the client. */
Test(table, moves_a_connection_to_the_address_of_its_client)
{
	struct connection *c = enter("192.0.2.1"), *balancers = enter("192.0.2.1");
	struct connection *d = enter("192.0.2.9");
	cr_assert(balancers->address->connections == 2);
	const union address client = address_of(AF_INET, "192.0.2.9", 7);
	table_set_client(c, &client);
	cr_assert(memcmp(&c->peer, &client, sizeof client) == 0);
	cr_assert(c->address == d->address && d->address->connections == 2);
	cr_assert(balancers->address->connections == 1);
}

static unsigned visited;

static void
visit(const struct connection *c, enum connection_end how)
{
	cr_assert(how == END_CUT_OFF);
	visited += c->state == CONNECTION_RELAYING ? 1 : 100;
}

Test(table, ends_all_connections_at_exit)
{
	for (enum connection_state state = CONNECTION_HELLO; state < CONNECTION_STATES; state++)
		enter_state("192.0.2.1", "a.example", state);
	enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	table_end_all(visit);
	cr_assert(visited == 302, "%u", visited);
}

/* --- Taking --- */

Test(table, gives_a_parked_connection_to_the_first_that_takes_it)
{
	struct connection *c = enter("192.0.2.1");
	struct connection *d = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	cr_assert(!take(c), "a thread works on it");
	park(c);
	park(d);
	cr_assert(table_count().parked == 2);
	cr_assert(take(c) && take(d));
	cr_assert(!take(c) && !take(d));
	cr_assert(table_count().parked == 0 && !c->is_parked);
	for (int i = 0; i < 4; i++)
		cr_assert(sockets[i].watch_removals == (i == 1 ? 0 : 1), "socket %d", i);
}

/* --- Lookups --- */

static int
begin(struct connection *c)
{
	struct lookup *lookup = malloc(sizeof *lookup);
	CHECK(lookup != NULL, "malloc");
	int error = table_begin_lookup(lookup, c);
	CHECK((error == 0) == (c->lookup == lookup), "the lookup is not known");
	if (error != 0)
		free(lookup);
	return error;
}

static void
end_lookup(struct connection *c)
{
	struct lookup *lookup = c->lookup;
	CHECK(table_end_lookup(lookup) == c && c->lookup == NULL, "it was taken");
	free(lookup);
}

static struct connection *
connecting(const char *name)
{
	return enter_state("192.0.2.1", name, CONNECTION_CONNECTING);
}

Test(table, allows_so_many_lookups_of_a_host)
{
	thread_prepare(4 * THREADS, NULL);
	struct connection *first = connecting("a.example"), *late = connecting("a.example");
	cr_assert(begin(first) == 0);
	for (int i = 1; i < LOOKUPS_OF_HOST; i++)
		cr_assert(begin(connecting("a.example")) == 0);
	cr_assert(begin(late) == EBUSY);
	cr_assert(begin(connecting("b.example")) == 0);
	end_lookup(first);
	cr_assert(begin(late) == 0);
	cr_assert(begin(first) == EBUSY);
}

/* A quarter of the threads, and one more. */
Test(table, allows_so_many_lookups_in_all)
{
	thread_prepare(16, NULL);
	struct connection *first = connecting("a.example"), *late = connecting("late.example");
	cr_assert(begin(first) == 0);
	for (int i = 0; i < 4; i++)
		cr_assert(begin(connecting(i % 2 == 0 ? "b.example" : "c.example")) == 0);
	cr_assert(begin(late) == EBUSY);
	now_ms += 999;
	cr_assert(begin(late) == EBUSY);
	now_ms += 1;
	cr_assert(begin(late) == ETIMEDOUT, "all hang");
	end_lookup(first);
	cr_assert(begin(late) == 0);
	cr_assert(begin(first) == EBUSY, "one has just ended");
}

Test(table, finds_that_a_host_hangs_if_none_of_its_lookups_ends_for_a_second)
{
	struct connection *a = connecting("a.example"), *b = connecting("a.example"),
			  *c = connecting("a.example");
	cr_assert(begin(a) == 0);
	now_ms += 999;
	cr_assert(begin(b) == 0);
	now_ms += 1;
	cr_assert(begin(c) == ETIMEDOUT);
	cr_assert(begin(connecting("b.example")) == 0, "that is another host");
	end_lookup(b);
	cr_assert(begin(c) == 0);
	now_ms += 1000;
	cr_assert(begin(b) == ETIMEDOUT);
	end_lookup(a);
	end_lookup(c);
	now_ms += 5000;
	cr_assert(begin(a) == 0, "there was none that could hang");
}

/* The thread that has taken it ends it; the lookup ends when the file system answers. */
Test(table, lets_a_connection_be_taken_from_a_lookup)
{
	struct connection *c = connecting("a.example"), *d = connecting("b.example");
	cr_assert(begin(c) == 0);
	struct lookup *lookup = c->lookup;
	struct share *host = c->host;
	cr_assert(take(c) && !take(c));
	cr_assert(c->lookup == NULL);
	leave(c);
	cr_assert(host->connections == 1 && host->lookups.count == 1, "the share is gone");
	now_ms += 1000;
	c = connecting("a.example");
	cr_assert(begin(c) == ETIMEDOUT, "it is forgotten that it hangs");
	cr_assert(table_end_lookup(lookup) == NULL);
	free(lookup);
	cr_assert(host->connections == 1 && host->lookups.count == 0);
	leave(c);
	leave(d);
}

/* --- Hosts --- */

Test(table, tells_names_and_special_hosts)
{
	struct connection *c = enter("192.0.2.1"), *none = enter("192.0.2.1");
	cr_assert_str_eq(table_name(c), "-");
	cr_assert_null(table_special_host(c));
	cr_assert(table_set_name(c, "a.example.com") && table_set_name(none, ""));
	cr_assert_str_eq(table_name(c), "a.example.com");
	cr_assert_str_eq(table_name(none), "-");
	cr_assert(c->state == CONNECTION_CONNECTING && c->host == NULL);
	cr_assert(none->state == CONNECTION_CONNECTING && none->host == NULL);
	cr_assert(table_special_host(c) == NULL && table_special_host(none) == NULL);

	static const char *const hosts[] = {"a.example.com", "_.example.com", "_default"};
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		cr_assert(table_set_host(c, hosts[i]));
		cr_assert_str_eq(c->host->key, hosts[i]);
		cr_assert_str_eq(table_name(c), "a.example.com");
		if (i == 0)
			cr_assert_null(table_special_host(c));
		else
			cr_assert_str_eq(table_special_host(c), hosts[i]);
	}
	cr_assert(table_set_host(none, "_no-sni"));
	cr_assert_str_eq(table_special_host(none), "_no-sni");
	cr_assert_str_eq(table_name(none), "-");
	cr_assert(table_set_host(none, ""));
	cr_assert_null(table_special_host(none));
	leave(c);
	leave(none);
}

/* Of the old host nothing is left; the time in its state goes on. */
Test(table, moves_a_connection_between_hosts)
{
	struct connection *c = connecting("a.example.com"), *other = connecting("a.example.com");
	struct connection *served = connecting("_default");
	struct share *exact = other->host, *fallback = served->host;
	int64_t since_ms = c->since_ms;
	now_ms += 7;
	cr_assert(c->host == exact && exact->connections == 2 && fallback->connections == 1);
	cr_assert(table_set_host(c, "_default"));
	cr_assert(c->host == fallback && exact->connections == 1 && fallback->connections == 2);
	cr_assert(c->state == CONNECTION_CONNECTING && c->since_ms == since_ms);

	relay_set_blocked(&c->relay, true);
	cr_assert(exact->blocked == 0 && fallback->blocked == 1);
	relay_set_blocked(&c->relay, false);
	cr_assert(table_set_host(c, "_default"), "to where it is");
	cr_assert(c->host == fallback && fallback->connections == 2);
	cr_assert(table_set_host(c, "a.example.com"));
	cr_assert(c->host == exact && exact->connections == 2 && fallback->connections == 1);
	leave(c);
	cr_assert(exact->connections == 1 && exact->blocked == 0 && fallback->blocked == 0);
}

/* The last one takes the share with it, and makes it anew. */
Test(table, moves_the_last_connection_of_a_host)
{
	struct connection *c = connecting("a.example.com");
	for (int i = 0; i < 100; i++) {
		const char *host = i % 2 == 0 ? "_.example.com" : "a.example.com";
		cr_assert(table_set_host(c, host));
		cr_assert(c->host->connections == 1 && c->host->lookups.count == 0);
		cr_assert_str_eq(c->host->key, host);
	}
	leave(c);
}

/* A lookup is counted in the host that it began in. */
Test(table, counts_lookups_and_blocked_connections_of_a_special_host_together)
{
	struct connection *c[HOST_MIN + 1], *other = connecting("other.example");
	thread_prepare(4 * THREADS, NULL);
	for (int i = 0; i < HOST_MIN + 1; i++) {
		char name[32];
		snprintf(name, sizeof name, "n%d.example", i);
		c[i] = connecting(name);
		cr_assert(begin(c[i]) == 0, "its own directory");
		end_lookup(c[i]);
		cr_assert(table_set_host(c[i], "_default"));
		cr_assert(begin(c[i]) == (i < LOOKUPS_OF_HOST ? 0 : EBUSY), "%d", i);
		relay_set_blocked(&c[i]->relay, true);
	}
	cr_assert(c[0]->host->blocked == HOST_MIN + 1);
	cr_assert(begin(other) == 0);
	end_lookup(c[0]);
	cr_assert(begin(c[LOOKUPS_OF_HOST]) == 0);
	now_ms += 1000;
	cr_assert(begin(c[0]) == ETIMEDOUT, "it hangs, whatever the name");

	threads_are_short = true;
	struct connection *late = connecting("late.example");
	cr_assert(!table_rejects(late) && !table_rejects(other));
	cr_assert(table_set_host(late, "_default"));
	cr_assert(table_rejects(late) && !table_rejects(other));
}

Test(table, tells_the_unique_id_of_a_connection_that_is_served)
{
	char text[TABLE_ID_SIZE] = "?";
	struct connection *c = enter("192.0.2.1");
	table_id(text, c);
	cr_assert_str_eq(text, "");
	cr_assert(table_set_name(c, "a.example") && table_set_host(c, "a.example"));
	c->id[0] = 0x0123456789abcdef;
	c->id[1] = 0xf;
	table_id(text, c);
	cr_assert_str_eq(text, "", "its thread may be about to set it");
	c->relay.backend.socket = c->relay.client.socket + 1;
	table_set_state(c, CONNECTION_RELAYING);
	table_id(text, c);
	cr_assert_str_eq(text, " id=0123456789abcdef000000000000000f");
	cr_assert(strlen(text) + 1 == TABLE_ID_SIZE);
	table_set_state(c, CONNECTION_CLOSING);
	table_id(text, c);
	cr_assert_str_eq(text, " id=0123456789abcdef000000000000000f");
	c->id[0] = 0;
	table_id(text, c);
	cr_assert_str_eq(text, "");
}

/* --- Rejecting --- */

/* An eighth of the slots or of the threads, whichever are fewer. */
Test(table, rejects_connections_to_a_host_that_blocks_more_than_an_eighth)
{
	static const struct {
		unsigned slots, threads, most;
	} rows[] = {
	    {SLOTS, THREADS, HOST_MIN},
	    {THREADS, SLOTS, HOST_MIN},
	    {1024, 512, 64},
	    {512, 1024, 64},
	};
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		table_prepare(rows[i].slots);
		thread_prepare(rows[i].threads, NULL);
		struct connection *c = connecting("a.example"), *other = connecting("b.example");
		c->host->blocked = rows[i].most + 1;
		threads_are_short = false;
		cr_assert(!table_rejects(c), "%u: nothing is short", i);
		threads_are_short = true;
		cr_assert(table_rejects(c) && !table_rejects(other), "%u", i);
		cr_assert(table_count().evicted[CONNECTION_CONNECTING] == i + 1);
		cr_assert(table_count().leaving == i + 1);
		c->host->blocked--;
		cr_assert(!table_rejects(connecting("a.example")), "%u", i);
	}
}

Test(table, rejects_connections_to_a_host_that_blocks_too_many_while_slots_are_short)
{
	struct connection *c = connecting("a.example"), *other = connecting("b.example");
	c->host->blocked = HOST_MIN + 1;
	enter_many(SLOTS - SLOTS / 8 - 2, CONNECTION_RELAYING);
	cr_assert(!table_rejects(c), "nothing is short");
	enter_many(1, CONNECTION_RELAYING);
	cr_assert(table_rejects(c) && !table_rejects(other));
}

Test(table, rejects_connections_of_an_address_that_holds_more_than_a_share)
{
	struct connection *first = enter("192.0.2.1");
	for (int i = 1; i < SHARE; i++)
		enter("192.0.2.1");
	enter_many(SLOTS - SLOTS / 8 - SHARE, CONNECTION_RELAYING);
	struct connection *small = enter("192.0.2.2");
	cr_assert(table_is_short());
	cr_assert(!table_rejects(first) && !table_rejects(small));
	struct connection *c = enter("192.0.2.1");
	cr_assert(table_rejects(c) && !table_rejects(small));
	leave(c);
	leave(small);
	cr_assert(!table_is_short());
	cr_assert(!table_rejects(first));
}

/* Several threads may find at the same time that slots are short. */
Test(table, rejects_no_more_connections_of_an_address_than_make_room)
{
	struct connection *greedy[SLOTS];
	for (int i = 0; i < SLOTS; i++)
		greedy[i] = enter("192.0.2.1");
	unsigned rejected = 0;
	for (int i = 0; i < SLOTS; i++)
		rejected += table_rejects(greedy[i]);
	cr_assert(rejected == SLOTS / 8 && !table_is_short(), "%u", rejected);
	for (unsigned i = 0; i < rejected; i++)
		leave(greedy[i]);
	cr_assert(!table_is_short() && table_count().leaving == 0);
}

Test(table, counts_a_parked_connection_as_blocked_for_which_bytes_wait)
{
	struct connection *c = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	struct connection *d = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	sockets[c->relay.backend.socket - FIRST_SOCKET].unsent = 1;
	c->relay.quiet_ms = d->relay.quiet_ms = THREAD_QUIET_MS;
	park(c);
	park(d);
	cr_assert(c->host->blocked == 1);
	cr_assert(take(c) && take(d));
	cr_assert(c->host->blocked == 0);
	threads_are_short = true; /* then it was not idle for long */
	park(c);
	cr_assert(c->host->blocked == 0);
	cr_assert(take(c));
	cr_assert(c->host->blocked == 0);
	threads_are_short = false; /* but they were, when it became quiet */
	c->relay.quiet_ms = THREAD_QUIET_MS - 1;
	park(c);
	cr_assert(c->host->blocked == 0);
	cr_assert(take(c));
	enter_many(SLOTS, CONNECTION_RELAYING);
	cr_assert(table_is_short());
	park(c);
	cr_assert(c->host->blocked == 1);
	bool is_taken;
	now_ms += PATIENCE_MS;
	sockets[c->relay.backend.socket - FIRST_SOCKET].unsent =
	    0; /* its backend has read it meanwhile */
	cr_assert(table_evict(TABLE_SLOTS, &is_taken) == NULL);
	cr_assert(c->host->blocked == 0);
	cr_assert(take(c));
}

/* --- Time --- */

static struct connection *expired[TABLE_EXPIRED_MAX];

static int
take_expired(void)
{
	table_lock();
	int count = table_take_expired(expired, now_ms);
	table_unlock();
	return count;
}

Test(table, takes_connections_when_their_time_is_over)
{
	static const struct {
		enum connection_state state;
		int64_t ms;
	} rows[] = {
	    {CONNECTION_HELLO, TABLE_HELLO_MS},
	    {CONNECTION_CONNECTING, TABLE_HELLO_MS + TABLE_LOOKUP_MS},
	    {CONNECTION_CLOSING, TABLE_LINGER_MS},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct connection *c = enter_state("192.0.2.1", "a.example", CONNECTION_HELLO);
		now_ms += 7;
		table_set_state(c, rows[i].state);
		park(c);
		now_ms += rows[i].ms - 1;
		cr_assert(take_expired() == 0);
		now_ms++;
		cr_assert(take_expired() == 1 && expired[0] == c && !c->is_parked);
		leave(c);
	}
	park(enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING));
	now_ms += 1000 * 1000;
	cr_assert(take_expired() == 0, "that one may be idle for ever");
}

Test(table, takes_from_a_lookup_that_hangs)
{
	struct connection *c = connecting("a.example");
	cr_assert(begin(c) == 0);
	struct lookup *lookup = c->lookup;
	now_ms += TABLE_HELLO_MS + TABLE_LOOKUP_MS;
	cr_assert(take_expired() == 1 && expired[0] == c);
	cr_assert(table_end_lookup(lookup) == NULL);
	free(lookup);
}

/* The oldest first, at most TABLE_EXPIRED_MAX at once. A connection that a thread works on belongs
 * to that thread. */
Test(table, takes_many_in_turns)
{
	enum { MANY = TABLE_EXPIRED_MAX + 36 };
	struct connection *all[MANY];
	for (int i = 0; i < MANY; i++) {
		all[i] = enter("192.0.2.1");
		if (i % 10 != 0)
			park(all[i]);
		now_ms++;
	}
	now_ms += TABLE_HELLO_MS;
	int count = take_expired();
	cr_assert(count == TABLE_EXPIRED_MAX, "%d", count);
	for (int i = 0; i < MANY; i++) /* of ten, nine were parked */
		cr_assert(all[i]->is_parked == (i % 10 != 0 && i > TABLE_EXPIRED_MAX + 7), "%d", i);
	park(enter("192.0.2.1"));
	count += take_expired();
	cr_assert(count == MANY - MANY / 10, "%d", count);
	cr_assert(take_expired() == 0 && table_count().parked == 1);
}

/* --- Evicting --- */

/* Evicts a connection. Fails unless it is VICTIM; NULL stands for none. */
static void
expect_victim(enum table_shortage shortage, struct connection *victim)
{
	bool has_no_thread = victim != NULL && (victim->is_parked || victim->lookup != NULL);
	bool is_taken = false;
	struct connection *c = table_evict(shortage, &is_taken);
	CHECK(c == victim, "socket %d, not %d", c == NULL ? -1 : c->relay.client.socket,
	    victim == NULL ? -1 : victim->relay.client.socket);
	CHECK(is_taken == has_no_thread, "it is %s", is_taken ? "taken" : "not taken");
	if (victim == NULL)
		return;
	CHECK(c->relay.stop && !c->is_parked && c->lookup == NULL, "it is not told");
	CHECK(sockets[c->relay.client.socket - FIRST_SOCKET].shutdowns == !is_taken,
	    "its thread is not woken");
}

/* A connection of HOST of which a side takes nothing, since SINCE_MS as table_evict() sees it. */
static struct connection *
stalled(const char *host, const char *name)
{
	struct connection *c = enter_state(host, name, CONNECTION_RELAYING);
	sockets[c->relay.client.socket - FIRST_SOCKET].unsent = 500;
	c->relay.client.taken = 1000;
	c->progress = 500 + 1;
	return c;
}

Test(table, evicts_from_the_address_that_holds_most)
{
	struct connection *small = waiting(enter("192.0.2.1")), *large = NULL;
	for (int i = 0; i < SHARE; i++)
		waiting(enter("192.0.2.1"));
	now_ms++;
	for (int i = 0; i < SHARE + 2; i++) {
		struct connection *c = waiting(enter("192.0.2.2"));
		large = large == NULL ? c : large;
	}
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, large);
	leave(large);
	expect_victim(TABLE_SLOTS, small); /* both have SHARE + 1 now, and this one is older */
}

Test(table, evicts_the_oldest_of_those_that_hold_no_more_than_a_share)
{
	struct connection *oldest = waiting(enter("192.0.2.1")), *next;
	now_ms++;
	next = waiting(enter("192.0.2.2"));
	for (int i = 1; i < SHARE; i++)
		waiting(enter("192.0.2.2"));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, oldest);
	expect_victim(TABLE_SLOTS, next);
}

/* While a thread works on a connection, a delay is not the peer's fault. */
Test(table, evicts_only_connections_that_wait_for_their_peers)
{
	static const enum connection_state parked[] = {CONNECTION_HELLO, CONNECTION_CLOSING};
	for (size_t i = 0; i < sizeof parked / sizeof *parked; i++) {
		enter_many(SHARE, parked[i]);
		struct connection *c = enter_state("192.0.2.1", "a.example", parked[i]);
		now_ms += 2 * PATIENCE_MS;
		expect_victim(TABLE_SLOTS, NULL);
		park(c);
		expect_victim(TABLE_SLOTS, c);
		leave(c);
	}
}

Test(table, evicts_no_hello_of_which_bytes_are_unread)
{
	enter_many(SHARE, CONNECTION_HELLO);
	struct connection *c = waiting(enter("192.0.2.1"));
	bool *has_unread = &sockets[c->relay.client.socket - FIRST_SOCKET].has_unread;
	*has_unread = true;
	now_ms += 2 * PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL);
	*has_unread = false;
	expect_victim(TABLE_SLOTS, c);
}

Test(table, evicts_a_connecting_one_only_in_a_lookup_or_while_the_backlog_is_full)
{
	enter_many(SHARE, CONNECTION_CONNECTING);
	struct connection *c = connecting("a.example"), *d = connecting("b.example");
	now_ms += 2 * PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL);
	expect_victim(TABLE_THREADS, NULL);
	cr_assert(begin(d) == 0);
	struct lookup *lookup = d->lookup;
	expect_victim(TABLE_SLOTS, d);
	cr_assert(table_end_lookup(lookup) == NULL);
	free(lookup);
	cr_assert(begin(c) == 0);
	end_lookup(c);
	expect_victim(TABLE_SLOTS, NULL);
	relay_set_blocked(&c->relay, true);
	expect_victim(TABLE_SLOTS, c);
}

/* A state with few connections does not cause the shortage. */
Test(table, evicts_from_a_state_only_while_that_has_more_than_a_share)
{
	for (enum connection_state state = CONNECTION_HELLO; state < CONNECTION_STATES; state++) {
		if (state == CONNECTION_RELAYING)
			continue;
		struct connection *first = waiting(enter_state("192.0.2.1", "a.example", state));
		for (int i = 1; i < SHARE; i++)
			waiting(enter_state("192.0.2.1", "a.example", state));
		now_ms += 2 * PATIENCE_MS;
		expect_victim(TABLE_SLOTS, NULL);
		enter_state("192.0.2.2", "a.example", state);
		expect_victim(TABLE_SLOTS, first);
		leave(first);
		expect_victim(TABLE_SLOTS, NULL);
	}
	struct connection *c = stalled("192.0.2.3", "b.example");
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, c);
}

Test(table, evicts_for_threads_from_a_state_that_has_few)
{
	struct connection *c = waiting(connecting("a.example"));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL);
	expect_victim(TABLE_THREADS, c);
}

Test(table, is_less_patient_with_hellos_as_slots_become_few)
{
	static const struct {
		unsigned used;
		int64_t ms;
	} rows[] = {
	    {SLOTS / 2, PATIENCE_MS},
	    {SLOTS - 9, PATIENCE_MS}, /* an eighth of the slots, and one */
	    {SLOTS - 8, PATIENCE_MS * 8 / 9},
	    {SLOTS - 4, PATIENCE_MS * 4 / 9},
	    {SLOTS - 1, PATIENCE_MS / 9},
	    {SLOTS, PATIENCE_MIN_MS},
	};
	enter_many(SHARE, CONNECTION_HELLO);
	enter_many(SHARE, CONNECTION_CLOSING);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		enter_many(rows[i].used - 1 - table_count().open, CONNECTION_RELAYING);
		struct connection *c = enter("192.0.2.1");
		if (i % 2 == 1)
			table_set_state(c, CONNECTION_CLOSING);
		park(c);
		now_ms += rows[i].ms - 1;
		expect_victim(TABLE_SLOTS, NULL);
		now_ms++;
		expect_victim(TABLE_SLOTS, c);
		leave(c);
	}
}

Test(table, evicts_nobody_twice)
{
	enter_many(SHARE, CONNECTION_CONNECTING);
	struct connection *c = waiting(connecting("a.example"));
	struct connection *d = waiting(connecting("a.example"));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, c);
	expect_victim(TABLE_SLOTS, d);
	expect_victim(TABLE_SLOTS, NULL);
}

Test(table, takes_the_victim_if_no_thread_works_on_it)
{
	enter_many(SHARE, CONNECTION_HELLO);
	enter_many(SHARE, CONNECTION_CONNECTING);
	struct connection *c = enter("192.0.2.1"), *d = connecting("a.example");
	park(c);
	cr_assert(begin(d) == 0);
	now_ms += PATIENCE_MS;
	struct lookup *lookup = d->lookup;
	expect_victim(TABLE_SLOTS, c);
	expect_victim(TABLE_SLOTS, d);
	cr_assert(table_end_lookup(lookup) == NULL);
	free(lookup);
}

/* However few slots are free. */
Test(table, evicts_an_established_connection_after_a_second_without_progress)
{
	enum { FEW = 8 };
	table_prepare(FEW);
	struct connection *c = stalled("192.0.2.1", "a.example");
	enter_many(FEW - 1, CONNECTION_RELAYING);
	now_ms += PATIENCE_MS - 1;
	expect_victim(TABLE_SLOTS, NULL);
	now_ms++;
	expect_victim(TABLE_SLOTS, c);
}

/* Progress is what a side takes from the relay or from the kernel, not what the kernel takes. */
Test(table, sees_the_progress_of_an_established_connection)
{
	struct connection *c = stalled("192.0.2.1", "a.example");
	int *unsent = &sockets[c->relay.client.socket - FIRST_SOCKET].unsent;
	for (int i = 0; i < 3; i++) {
		now_ms += PATIENCE_MS - 1;
		expect_victim(TABLE_SLOTS, NULL);
		now_ms++;
		if (i == 0)
			*unsent -= 1;
		if (i == 1)
			c->relay.client.taken += 1;
		if (i == 2)
			c->relay.backend.taken += 1;
		expect_victim(TABLE_SLOTS, NULL);
	}
	now_ms += PATIENCE_MS - 1;
	c->relay.client.taken += 100;
	*unsent += 100;
	expect_victim(TABLE_SLOTS, NULL);
	now_ms++;
	expect_victim(TABLE_SLOTS, c);
}

/* The bytes for a backend are taken one write at a time. A backend that never answered may be
 * dead. */
Test(table, waits_longer_for_the_progress_of_a_backend)
{
	struct connection *c = stalled("192.0.2.1", "a.example");
	struct connection *silent = stalled("192.0.2.2", "b.example");
	sockets[c->relay.backend.socket - FIRST_SOCKET].unsent = 1;
	sockets[silent->relay.backend.socket - FIRST_SOCKET].unsent = 1;
	silent->relay.client.taken = 0;
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL); /* they are looked at for the first time */
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, silent);
	now_ms += BACKEND_PATIENCE_MS - PATIENCE_MS - 1;
	expect_victim(TABLE_SLOTS, NULL);
	now_ms++;
	expect_victim(TABLE_SLOTS, c);
}

Test(table, evicts_an_idle_connection_if_its_address_has_more_than_a_share)
{
	bool is_taken;
	for (int i = 0; i < SHARE; i++) {
		struct connection *c = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
		if (i % 2 == 1)
			park(c);
	}
	now_ms += 1000 * 1000;
	expect_victim(TABLE_SLOTS, NULL);
	enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	now_ms += PATIENCE_MS - 1;
	expect_victim(TABLE_SLOTS, NULL);
	now_ms++;
	expect_victim(TABLE_THREADS, NULL);
	now_ms += PATIENCE_MS;
	leave(table_evict(TABLE_SLOTS, &is_taken));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL);
}

Test(table, counts_the_evicted_by_their_state_and_idle_ones_apart)
{
	bool is_taken;
	for (enum connection_state state = CONNECTION_HELLO; state < CONNECTION_STATES; state++)
		if (state != CONNECTION_RELAYING) {
			enter_many(SHARE, state);
			waiting(enter_state("192.0.2.1", "a.example", state));
		}
	stalled("192.0.2.1", "a.example");
	enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	now_ms += PATIENCE_MS;
	while (table_evict(TABLE_SLOTS, &is_taken) != NULL)
		;
	struct table_counts counts = table_count();
	for (int i = 0; i < TABLE_EVICTED_KINDS; i++)
		cr_assert(counts.evicted[i] == 1, "kind %d: %u", i, counts.evicted[i]);
}

/* What waited when table_evict() last looked decides, even if the address has more than its
 * share. */
Test(table, counts_one_as_stalled_if_bytes_wait_for_it)
{
	struct connection *c = stalled("192.0.2.1", "a.example");
	int *unsent = &sockets[c->relay.client.socket - FIRST_SOCKET].unsent;
	for (int i = 0; i < SHARE; i++)
		waiting(enter("192.0.2.1"));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, c);
	cr_assert(table_count().evicted[CONNECTION_RELAYING] == 1);
	leave(c);
	*unsent = 0;
	c = stalled("192.0.2.1", "a.example");
	sockets[c->relay.client.socket - FIRST_SOCKET].unsent = 0;
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL); /* it has taken all */
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, c);
	cr_assert(table_count().evicted[TABLE_IDLE] == 1);
	cr_assert(table_count().evicted[CONNECTION_RELAYING] == 1);
}

Test(table, evicts_no_connection_that_was_rejected)
{
	struct connection *c = connecting("a.example");
	c->host->blocked = HOST_MIN + 1;
	threads_are_short = true;
	cr_assert(table_rejects(c) && table_rejects(c));
	cr_assert(table_count().leaving == 1 && c->relay.stop);
	c->relay.is_blocked = true;
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_THREADS, NULL);
	leave(c);
	cr_assert(table_count().leaving == 0);
}

/* table_rejects() logs the same line. */
Test(table, says_now_and_then_that_it_evicts)
{
	struct connection *c = connecting("a.example");
	c->host->blocked = HOST_MIN + 1;
	threads_are_short = true;
	cr_assert(table_rejects(c) && notices == 1);
	struct connection *d = stalled("192.0.2.2", "b.example");
	now_ms += NOTICE_MS - 1;
	expect_victim(TABLE_SLOTS, d);
	cr_assert(table_rejects(connecting("a.example")) && notices == 1);
	now_ms++;
	cr_assert(table_rejects(connecting("a.example")) && notices == 2);
	d = stalled("192.0.2.2", "b.example");
	now_ms += NOTICE_MS;
	expect_victim(TABLE_SLOTS, d);
	cr_assert(notices == 3);
}

/* A slot that will be free soon counts as free; otherwise too many would be evicted. */
Test(table, counts_those_that_leave)
{
	bool is_taken;
	struct connection *victim, *first = NULL;
	for (int i = 0; i < SLOTS; i++) {
		struct connection *c = waiting(enter("192.0.2.1"));
		first = first == NULL ? c : first;
	}
	now_ms += PATIENCE_MS;
	for (unsigned i = 0; i < SLOTS / 8; i++) {
		cr_assert(table_is_short());
		victim = table_evict(TABLE_SLOTS, &is_taken);
		cr_assert(victim != NULL && is_taken);
		cr_assert(table_count().leaving == i + 1);
	}
	cr_assert(!table_is_short() && table_is_full());
	leave(first);
	cr_assert(!table_is_short() && !table_is_full());
	cr_assert(table_count().leaving == SLOTS / 8 - 1);
	leave(victim);
	cr_assert(table_count().leaving == SLOTS / 8 - 2);
}

/* The share of an address grows with the number of slots. */
Test(table, has_shares_of_a_sixteenth)
{
	enum { LARGE = 10 };
	table_prepare(16 * LARGE);
	bool is_taken;
	struct connection *first = NULL;
	for (int i = 0; i < LARGE; i++) {
		struct connection *c = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
		first = first == NULL ? c : first;
		now_ms++;
	}
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_SLOTS, NULL);
	enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	now_ms += PATIENCE_MS;
	struct connection *victim = table_evict(TABLE_SLOTS, &is_taken);
	CHECK(victim != NULL && !is_taken, "none");
	cr_assert(victim->address == first->address);
}

/* Whatever share of the slots its clients hold. */
Test(table, evicts_from_the_host_that_blocks_most_threads)
{
	for (int i = 0; i < SHARE + 1; i++)
		relay_set_blocked(&stalled("192.0.2.1", "few.example")->relay, i == 0);
	struct connection *c = stalled("192.0.2.2", "many.example");
	struct connection *d = stalled("192.0.2.2", "many.example");
	d->since_ms = c->since_ms += 5;
	relay_set_blocked(&c->relay, true);
	relay_set_blocked(&d->relay, true);
	now_ms += PATIENCE_MS + 5;
	expect_victim(TABLE_THREADS, c);
	expect_victim(TABLE_THREADS, d);
}

/* To evict a connection without a thread frees no thread. One that closes, or has no host yet,
 * keeps its thread for milliseconds. */
Test(table, evicts_only_what_has_a_thread_if_threads_are_short)
{
	struct connection *parked = stalled("192.0.2.1", "a.example");
	park(parked);
	struct connection *looking = connecting("a.example");
	cr_assert(begin(looking) == 0);
	waiting(enter("192.0.2.1"));
	waiting(enter_state("192.0.2.1", "a.example", CONNECTION_CLOSING));
	enter("192.0.2.1");
	enter_state("192.0.2.1", "a.example", CONNECTION_CLOSING);
	now_ms += 1000 * 1000;
	expect_victim(TABLE_THREADS, NULL);
	struct connection *c = waiting(connecting("a.example"));
	now_ms += PATIENCE_MS;
	expect_victim(TABLE_THREADS, c);
}

/* To evict it would free no thread. But it must not count as blocked after its backend has read. */
Test(table, sees_that_a_parked_one_is_no_longer_blocked_if_threads_are_short)
{
	struct connection *c = enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
	sockets[c->relay.backend.socket - FIRST_SOCKET].unsent = 1;
	c->relay.quiet_ms = THREAD_QUIET_MS;
	park(c);
	threads_are_short = true;
	for (int i = 0; i < 2; i++) {
		now_ms += BACKEND_PATIENCE_MS;
		expect_victim(TABLE_THREADS, NULL);
		cr_assert(c->host->blocked == 1);
	}
	sockets[c->relay.backend.socket - FIRST_SOCKET].unsent = 0;
	expect_victim(TABLE_THREADS, NULL);
	cr_assert(c->host->blocked == 0);
	cr_assert(take(c));
}

/* Many idle connections must not hide others: those that were looked at and stay go to the end of
 * the list. */
Test(table, finds_one_that_stalls_among_many_that_are_idle)
{
	enum { MANY = 200 };
	bool is_taken;
	unsigned tries = 0;
	struct connection *victim = NULL, *c = NULL;
	table_prepare(16 * MANY);
	for (int i = 0; i < MANY; i++) {
		enter_state("192.0.2.1", "a.example", CONNECTION_RELAYING);
		if (i == MANY / 2)
			c = stalled("192.0.2.2", "b.example");
	}
	now_ms += PATIENCE_MS;
	while ((victim = table_evict(TABLE_SLOTS, &is_taken)) == NULL)
		CHECK(tries++ < MANY, "it is never found");
	cr_assert(victim == c);
	cr_assert(tries > 0, "all of them were looked at, each time");
}

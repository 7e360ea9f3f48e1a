/* Tests of idle.c: connections whose outer ends the test holds, and a function that counts how
 * often each is given to a thread. Each test is a process of its own. */
#include <criterion/criterion.h>

#include "lib/clock.h"
#include "lib/idle.h"
#include "lib/thread.h"
#include "system/system.h"
#include "tests/unit/addresses.h"
#include "tests/unit/check.h"
#include "tests/unit/self.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	SLOTS = 512,
	MANY = 200,

	/* How long the test waits to conclude that nothing will happen. */
	NOTHING_MS = 50,
};

enum side { CLIENT, BACKEND, SIDES };

/* A connection, and its outer ends. */
struct idle {
	struct connection *connection;
	int ends[SIDES];
	atomic_uint served;
};

static struct idle all[SLOTS];
static atomic_bool parks_again;    /* after it has read what was sent */
static _Atomic int64_t skipped_ms; /* the clock is so far ahead */

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real___clock_gettime64(clockid_t id, struct timespec *now) __attribute__((weak));
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	int result = __real___clock_gettime64 != NULL ? __real___clock_gettime64(id, now)
						      : __real_clock_gettime(id, now);
	if (id != CLOCK_MONOTONIC)
		return result;
	int64_t ms = skipped_ms + now->tv_nsec / 1000000;
	now->tv_sec += (time_t)(ms / 1000);
	now->tv_nsec = now->tv_nsec % 1000000 + (long)(ms % 1000) * 1000000;
	return result;
}

/* The name of the function on machines whose long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

/* --- What idle.c calls --- */

static void
serve(struct connection *c)
{
	char bytes[16];
	struct idle *idle = &all[c->header_length];
	CHECK(idle->connection == c && !c->is_parked, "it is parked still");
	if (parks_again) {
		while (recv(c->relay.client.socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
			;
		while (recv(c->relay.backend.socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
			;
	}
	idle->served++;
	if (parks_again)
		CHECK(idle_park(c), "%s", strerror(errno));
}

static void
prepare(void)
{
	table_prepare(SLOTS);
	thread_prepare(SLOTS, serve);
	cr_assert(system_watch_open());
	cr_assert(thread_start(idle_run, NULL) == 0);
}

TestSuite(idle, .init = prepare, .timeout = 60);

/* --- Connections --- */

static struct idle *
enter(void)
{
	static size_t count;
	int client[2], backend[2];
	struct idle *idle = &all[count];
	const union address peer = address_of(AF_INET, "192.0.2.1", 1);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, client) == 0, "socketpair");
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, backend) == 0, "socketpair");
	idle->connection = table_enter(client[0], &peer);
	CHECK(idle->connection != NULL, "table_enter");
	idle->connection->header_length = count++;
	idle->connection->relay.backend.socket = backend[0];
	idle->ends[CLIENT] = client[1];
	idle->ends[BACKEND] = backend[1];
	return idle;
}

static struct idle *
enter_relaying(void)
{
	struct idle *idle = enter();
	CHECK(table_set_name(idle->connection, "a.example") &&
		table_set_host(idle->connection, "a.example"),
	    "table_set_host");
	table_set_state(idle->connection, CONNECTION_RELAYING);
	return idle;
}

static void
park(struct idle *idle)
{
	CHECK(idle_park(idle->connection), "%s", strerror(errno));
}

static void
send_byte(struct idle *idle, enum side side)
{
	CHECK(send(idle->ends[side], "x", 1, MSG_NOSIGNAL) == 1, "%s", strerror(errno));
}

static void
await_served(struct idle *idle, unsigned times)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (idle->served < times) {
		CHECK(clock_left_ms(deadline_ms) > 0, "%u times", (unsigned)idle->served);
		poll(NULL, 0, 1);
	}
}

/* Fails unless it was served COUNT times, and that does not change. */
static void
expect_served(struct idle *idle, unsigned times)
{
	await_served(idle, times);
	poll(NULL, 0, NOTHING_MS);
	CHECK(idle->served == times, "%u times", (unsigned)idle->served);
}

/* --- Resuming --- */

Test(idle, resumes_once_when_bytes_come)
{
	for (enum side side = CLIENT; side < SIDES; side++) {
		struct idle *idle = enter_relaying();
		park(idle);
		expect_served(idle, 0);
		cr_assert(table_count().parked == 1);
		send_byte(idle, side);
		expect_served(idle, 1);
		cr_assert(table_count().parked == 0);
		send_byte(idle, !side);
		expect_served(idle, 1); /* its socket is not watched any more */
		park(idle);             /* and what arrived before counts, too */
		expect_served(idle, 2);
	}
}

Test(idle, resumes_when_a_stream_ends)
{
	for (enum side side = CLIENT; side < SIDES; side++) {
		struct idle *idle = enter_relaying();
		park(idle);
		shutdown(idle->ends[side], SHUT_WR);
		expect_served(idle, 1);
	}
}

/* The end of its stream is known, and wakes no thread. */
Test(idle, resumes_when_a_half_closed_side_hangs_up)
{
	for (enum side side = CLIENT; side < SIDES; side++) {
		struct idle *idle = enter_relaying();
		struct relay *relay = &idle->connection->relay;
		shutdown(idle->ends[side], SHUT_WR);
		*(side == CLIENT ? &relay->client.ended : &relay->backend.ended) = true;
		park(idle);
		expect_served(idle, 0);
		close(idle->ends[side]);
		expect_served(idle, 1);
	}
}

Test(idle, resumes_a_half_closed_connection_when_bytes_come)
{
	struct idle *idle = enter_relaying();
	shutdown(idle->ends[CLIENT], SHUT_WR);
	idle->connection->relay.client.ended = true;
	park(idle);
	send_byte(idle, BACKEND);
	expect_served(idle, 1);
}

/* It has no backend yet. */
Test(idle, resumes_a_connection_that_waits_for_its_hello)
{
	struct idle *idle = enter();
	close(idle->connection->relay.backend.socket);
	idle->connection->relay.backend.socket = -1;
	park(idle);
	expect_served(idle, 0);
	send_byte(idle, CLIENT);
	expect_served(idle, 1);
}

/* Thousands of times, and both sides at once. */
Test(idle, parks_and_resumes_again_and_again)
{
	enum { FEW = 10, ROUNDS = 300 };
	parks_again = true;
	for (int i = 0; i < FEW; i++)
		park(enter_relaying());
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned served[FEW];
		for (int i = 0; i < FEW; i++)
			served[i] = all[i].served;
		for (int i = 0; i < FEW; i++)
			for (enum side side = CLIENT; side < SIDES; side++)
				send_byte(&all[i], side);
		for (int i = 0; i < FEW; i++)
			await_served(&all[i], served[i] + 1);
	}
	poll(NULL, 0, NOTHING_MS);
	cr_assert(table_count().parked == FEW, "%u", table_count().parked);
}

Test(idle, resumes_many_at_once)
{
	for (int i = 0; i < MANY; i++)
		park(enter_relaying());
	cr_assert(table_count().parked == MANY);
	for (int i = 0; i < MANY; i++)
		for (enum side side = CLIENT; side < SIDES; side++)
			send_byte(&all[i], side);
	for (int i = 0; i < MANY; i++)
		await_served(&all[i], 1);
	poll(NULL, 0, NOTHING_MS);
	for (int i = 0; i < MANY; i++)
		CHECK(all[i].served == 1, "number %d: %u times", i, (unsigned)all[i].served);
	cr_assert(table_count().parked == 0);
}

/* --- Time --- */

Test(idle, resumes_when_the_time_is_over)
{
	struct idle *later = enter(), *idle = enter();
	park(later);
	poll(NULL, 0, NOTHING_MS); /* the thread sleeps, and until then */
	int64_t began_ms = clock_ms();
	table_set_state(idle->connection, CONNECTION_CLOSING);
	table_lock();
	idle->connection->since_ms -= TABLE_LINGER_MS - 2 * NOTHING_MS;
	table_unlock();
	park(idle);
	await_served(idle, 1);
	int64_t ms = clock_ms() - began_ms;
	cr_assert(ms >= 2 * NOTHING_MS - 1 && ms < TABLE_LINGER_MS, "%lld ms", (long long)ms);
	expect_served(later, 0);
}

Test(idle, resumes_many_whose_time_is_over)
{
	for (int i = 0; i < MANY; i++)
		park(enter());
	skipped_ms = TABLE_HELLO_MS;
	park(enter_relaying());
	send_byte(&all[MANY], CLIENT);
	for (int i = 0; i < MANY; i++)
		await_served(&all[i], 1);
	expect_served(&all[0], 1);
	expect_served(&all[MANY], 1);
}

/* The file system hangs, so nothing happens on any socket. */
Test(idle, takes_a_connection_from_a_lookup_whose_time_is_over)
{
	struct lookup lookup;
	struct idle *idle = enter();
	cr_assert(table_set_name(idle->connection, "a.example") &&
	    table_set_host(idle->connection, "a.example"));
	cr_assert(table_begin_lookup(&lookup, idle->connection) == 0);
	table_lock();
	idle->connection->since_ms -= TABLE_HELLO_MS + TABLE_LOOKUP_MS - 2 * NOTHING_MS;
	table_unlock();
	expect_served(idle, 1);
	cr_assert(table_end_lookup(&lookup) == NULL);
}

/* --- Others --- */

Test(idle, leaves_a_connection_alone_that_was_taken)
{
	struct idle *idle = enter_relaying();
	park(idle);
	table_lock();
	cr_assert(table_take(idle->connection));
	table_unlock();
	send_byte(idle, CLIENT);
	send_byte(idle, BACKEND);
	expect_served(idle, 0);
	park(idle); /* it can be parked again */
	expect_served(idle, 1);
}

/* The event has occurred, but nothing has fetched it. */
Test(idle, leaves_a_connection_alone_that_was_taken_just_before)
{
	struct idle *idle = enter_relaying();
	park(idle);
	table_lock();
	send_byte(idle, CLIENT);
	poll(NULL, 0, NOTHING_MS);
	cr_assert(table_take(idle->connection));
	table_unlock();
	expect_served(idle, 0);
}

/* epoll(7) does not take a directory; poll(2) takes all. */
Test(idle, says_if_a_connection_cannot_be_parked)
{
	struct idle *idle = enter_relaying();
	int backend = idle->connection->relay.backend.socket;
	idle->connection->relay.backend.socket = open(".", O_RDONLY | O_DIRECTORY);
	if (strcmp(system_watch_call, "epoll") == 0) {
		cr_assert(!idle_park(idle->connection) && errno == EPERM);
		cr_assert(!idle->connection->is_parked && table_count().parked == 0);
		send_byte(idle, CLIENT);
		expect_served(idle, 0);
	}
	close(idle->connection->relay.backend.socket);
	idle->connection->relay.backend.socket = backend;
	send_byte(idle, CLIENT);
	park(idle);
	expect_served(idle, 1);
}

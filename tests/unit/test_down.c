/* Tests of table.c: which hosts it remembers as down, after the connections for them have ended. A
 * clock that only the test moves. Each test is a process of its own. */
#include <criterion/criterion.h>

#include "lib/hostname.h"
#include "lib/table.h"
#include "tests/unit/addresses.h"
#include "tests/unit/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The sockets of a host. */
static const bool tls_socket = false, acme_socket = true;

enum {
	REMEMBERED = 256, /* hosts at once */
	RETRY_MS = 50,
	NAME_SIZE = 32,
};

static _Atomic int64_t clock_now_ms = 123456;

int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	int64_t ms = clock_now_ms;
	(void)id;
	*now = (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000};
	return 0;
}

/* The name of the function on machines whose long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

static void
prepare(void)
{
	table_prepare(1000);
}

TestSuite(down, .init = prepare, .timeout = 60);

/* --- One connection each --- */

static struct connection *
enter(const char *host)
{
	const union address peer = address_of(AF_INET, "192.0.2.1", 1);
	struct connection *c = table_enter(-1, &peer);
	CHECK(c != NULL && table_set_name(c, host) && table_set_host(c, host), "%s", host);
	return c;
}

static void
leave(struct connection *c)
{
	table_remove(c);
	table_free(c);
}

/* A connection finds that nobody listens at HOST's socket. Returns whether it is worth waiting. */
static bool
record_down(const char *host, bool is_acme)
{
	struct connection *c = enter(host);
	bool may_end = table_record_down(c, is_acme);
	leave(c);
	return may_end;
}

/* Another one is served there. */
static void
forget_down(const char *host, bool is_acme)
{
	struct connection *c = enter(host);
	table_forget_down(c, is_acme);
	leave(c);
}

static void
pass_ms(int ms)
{
	clock_now_ms += ms;
}

/* A client asks for HOST, which is down, and again at each retry. Returns how long it waits until
 * it is rejected. */
static int
wait_in_vain(const char *host)
{
	int waited_ms = 0;
	while (record_down(host, tls_socket)) {
		CHECK(waited_ms <= 2 * TABLE_DOWN_MS, "%s: it waits for %d ms", host, waited_ms);
		pass_ms(RETRY_MS);
		waited_ms += RETRY_MS;
	}
	return waited_ms;
}

static const char *
numbered(char name[NAME_SIZE], int number)
{
	snprintf(name, NAME_SIZE, "%d.example", number);
	return name;
}

/* --- One host --- */

Test(down, ends_after_a_second)
{
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(TABLE_DOWN_MS - 1);
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(1);
	cr_assert(!record_down("a.example", tls_socket));
}

/* A client that comes later waits for the rest of the same second. */
Test(down, is_the_same_second_for_all_clients)
{
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS / 2);
	cr_assert(wait_in_vain("a.example") == 0);
}

Test(down, is_remembered_while_clients_come)
{
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	for (int i = 0; i < 100; i++) {
		pass_ms(TABLE_DOWN_MS - 1);
		CHECK(!record_down("a.example", tls_socket), "client %d", i);
	}
}

Test(down, is_forgotten_after_a_second_without_clients)
{
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	pass_ms(TABLE_DOWN_MS);
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	cr_assert(!record_down("a.example", tls_socket));
}

/* The only client has left meanwhile. */
Test(down, is_forgotten_even_if_no_client_has_waited_for_the_whole_second)
{
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(RETRY_MS);
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(TABLE_DOWN_MS);
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
}

Test(down, ends_if_it_is_up_again)
{
	cr_assert(record_down("a.example", tls_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	forget_down("a.example", tls_socket);
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	cr_assert(!record_down("a.example", tls_socket));
	forget_down("a.example", tls_socket);
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
}

/* The clock may be close to 0, if that is when the machine has started. */
Test(down, works_right_after_the_start_of_the_machine)
{
	clock_now_ms = 0;
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	cr_assert(!record_down("a.example", tls_socket));
}

/* --- Several --- */

Test(down, tells_hosts_apart)
{
	char longest[2][HOSTNAME_SIZE];
	for (int i = 0; i < 2; i++) {
		memset(longest[i], 'a', HOSTNAME_MAX);
		longest[i][HOSTNAME_MAX] = '\0';
	}
	longest[1][HOSTNAME_MAX - 1] = 'b';
	const char *const names[] = {"a.example", "a.exampl", "a.example.com", "b.example",
	    "_.example", "_default", "_no-sni", longest[0], longest[1]};
	const size_t count = sizeof names / sizeof *names;
	for (size_t i = 0; i < count; i++)
		CHECK(record_down(names[i], tls_socket), "%s", names[i]);
	for (size_t i = 0; i < count; i++) {
		pass_ms(TABLE_DOWN_MS / 2);
		for (size_t j = i; j < count; j++)
			CHECK(record_down(names[j], tls_socket) == (i == 0), "%s after %d",
			    names[j], (int)i);
		pass_ms(TABLE_DOWN_MS / 2);
		for (size_t j = i; j < count; j++)
			CHECK(!record_down(names[j], tls_socket), "%s after %d", names[j], (int)i);
		forget_down(names[i], tls_socket);
		CHECK(record_down(names[i], tls_socket), "%s", names[i]);
	}
}

/* The same host may have several. */
Test(down, tells_sockets_apart)
{
	cr_assert(wait_in_vain("a.example") == TABLE_DOWN_MS);
	cr_assert(record_down("a.example", acme_socket));
	cr_assert(!record_down("a.example", tls_socket));
	forget_down("a.example", acme_socket);
	cr_assert(!record_down("a.example", tls_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	cr_assert(record_down("a.example", acme_socket));
	forget_down("a.example", tls_socket);
	pass_ms(TABLE_DOWN_MS / 2);
	cr_assert(record_down("a.example", acme_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	cr_assert(!record_down("a.example", acme_socket));
}

/* As many hosts are down as are remembered. */
static void
fill(void)
{
	char name[NAME_SIZE];
	for (int i = 0; i < REMEMBERED; i++)
		CHECK(record_down(numbered(name, i), tls_socket), "host %d", i);
	pass_ms(TABLE_DOWN_MS - 1);
	for (int i = 0; i < REMEMBERED; i++)
		CHECK(record_down(numbered(name, i), tls_socket), "host %d", i);
	pass_ms(1);
	for (int i = 0; i < REMEMBERED; i++) {
		CHECK(!record_down(numbered(name, i), tls_socket), "host %d", i);
		pass_ms(1);
	}
}

Test(down, remembers_many)
{
	char name[NAME_SIZE];
	fill();
	for (int round = 0; round < 10; round++)
		for (int i = 0; i < REMEMBERED; i++) {
			CHECK(!record_down(numbered(name, i), tls_socket), "host %d", i);
			pass_ms(1);
		}
}

Test(down, forgets_the_one_that_was_found_first)
{
	char name[NAME_SIZE];
	fill();
	cr_assert(!record_down("0.example", tls_socket));
	cr_assert(record_down("new.example", tls_socket));
	for (int i = 1; i < REMEMBERED; i++)
		CHECK(!record_down(numbered(name, i), tls_socket), "host %d", i);
	cr_assert(record_down("0.example", tls_socket));
	cr_assert(record_down("1.example", tls_socket));
}

/* Its connections still know. */
Test(down, is_not_forgotten_while_a_connection_waits)
{
	struct connection *c = enter("0.example");
	fill();
	cr_assert(record_down("new.example", tls_socket));
	cr_assert(!record_down("0.example", tls_socket));
	leave(c);
	cr_assert(record_down("0.example", tls_socket));
}

/* So clients of a host that listens and fails, again and again, do not keep threads. */
Test(down, is_waited_for_for_a_second_even_if_another_client_is_served_meanwhile)
{
	struct connection *c = enter("a.example");
	cr_assert(table_record_down(c, tls_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	forget_down("a.example", tls_socket);
	cr_assert(table_record_down(c, tls_socket));
	pass_ms(TABLE_DOWN_MS / 2);
	cr_assert(!table_record_down(c, tls_socket));
	cr_assert(record_down("a.example", tls_socket), "a new client does not wait");
	leave(c);
}

/* It takes no other's place. */
Test(down, forgets_a_host_that_it_does_not_know)
{
	char name[NAME_SIZE];
	forget_down("up.example", tls_socket);
	fill();
	forget_down("up.example", tls_socket);
	for (int i = 0; i < REMEMBERED; i++)
		CHECK(!record_down(numbered(name, i), tls_socket), "host %d", i);
}

/* --- Threads --- */

enum { THREADS = 8, ROUNDS = 20000, OWN_HOSTS = 4, COMMON_HOSTS = 200 };

static atomic_int failures;

/* Each thread has hosts of its own, which are all remembered. */
static void *
ask(void *argument)
{
	int number = *(const int *)argument;
	char name[NAME_SIZE];
	for (int i = 0; i < ROUNDS; i++) {
		numbered(name, number * OWN_HOSTS + i % OWN_HOSTS);
		failures += !record_down(name, tls_socket);
		forget_down(name, tls_socket);
	}
	return NULL;
}

static void
run_threads(void *(*run)(void *))
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		cr_assert(pthread_create(&threads[i], NULL, run, &numbers[i]) == 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

Test(down, is_asked_by_many_threads)
{
	run_threads(ask);
	cr_assert(failures == 0, "%d failures", failures);
}

/* They all ask for more hosts than are remembered, while time passes. */
static void *
ask_for_all(void *argument)
{
	int number = *(const int *)argument;
	char name[NAME_SIZE];
	for (int i = 0; i < ROUNDS; i++) {
		numbered(name, (number + i) % COMMON_HOSTS);
		record_down(name, tls_socket);
		if (i % 16 == 0)
			pass_ms(1);
		if (i % 64 == 0)
			forget_down(name, tls_socket);
	}
	return NULL;
}

Test(down, remembers_many_after_many_threads)
{
	run_threads(ask_for_all);
	pass_ms(TABLE_DOWN_MS);
	fill();
}

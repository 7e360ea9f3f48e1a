/* What ten seconds limit, and what else ends by itself. These tests mostly wait, so they are best
 * run in parallel. */
#include "tests/program/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000 };

/* --- After the backend has closed: the longest tests, in a suite that starts first --- */

/* How long a client may take nothing after its backend is gone. */
enum { LAST_BYTES_MS = 120 * 1000, AFTER_THE_END_S = LAST_BYTES_MS / 1000 + 90 };

/* The client takes what waits for it, LENGTH bytes of the pattern from OFFSET on, in STEPS pieces.
 * If it TALKS, it sends a byte with each. That may fail when all has been sent to it, but the bytes
 * that it has not read must still arrive. */
static void
read_slowly(int client, size_t offset, size_t length, int steps, int step_ms, bool talks)
{
	for (int step = 0; step < steps; step++) {
		size_t start = length * (size_t)step / (size_t)steps;
		size_t end = length * ((size_t)step + 1) / (size_t)steps;
		testing("%zu of %zu bytes, piece %d", offset + start, offset + length, step);
		poll(NULL, 0, step_ms);
		expect_pattern_from(client, offset + start, end - start);
		if (talks)
			(void)!send(client, "t", 1, MSG_NOSIGNAL);
	}
}

/* The backend sends as much as the proxy and the kernel take at once, so that only the client
 * delays the connection. The client sends something now and then, as with HTTP/2. */
static void
expect_slow_client_gets_all(bool talks)
{
	enum { ANSWER = 1500000, PIECE = 10000, STEPS = 100, STEP_MS = 125 };
	proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	size_t sent = 0, taken = 0;
	while (sent < ANSWER) {
		struct bytes next = pattern(sent, ANSWER - sent);
		ssize_t now =
		    send(pair.backend, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		cr_assert(now > 0 || errno == EAGAIN, "%s", strerror(errno));
		sent += now > 0 ? (size_t)now : 0;
		if (now > 0)
			continue;
		expect_pattern_from(pair.client, taken, PIECE);
		taken += PIECE;
		poll(NULL, 0, STEP_MS);
	}
	close(pair.backend);
	read_slowly(pair.client, taken, ANSWER - taken, STEPS, STEP_MS, talks);
	expect_end(pair.client);
}

PROGRAM_TEST(after_the_end, slow_client_gets_all)
{
	expect_slow_client_gets_all(false);
}

PROGRAM_TEST(after_the_end, slow_client_that_talks_gets_all)
{
	need("SIOCOUTQ");
	expect_slow_client_gets_all(true);
}

/* The backend sends as much as is taken at all, over a longer time than a client may take
 * nothing. */
static void
expect_slow_client_is_not_cut_off(bool talks)
{
	enum { STEPS = 240, STEP_MS = (LAST_BYTES_MS + 3000) / STEPS };
	proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	size_t sent = send_until_stalled(pair.backend);
	close(pair.backend);
	read_slowly(pair.client, 0, sent, STEPS, STEP_MS, talks);
	expect_end(pair.client);
}

LONG_PROGRAM_TEST(after_the_end, client_that_goes_on_reading_is_not_cut_off, AFTER_THE_END_S)
{
	expect_slow_client_is_not_cut_off(false);
}

LONG_PROGRAM_TEST(
    after_the_end, client_that_goes_on_reading_and_talks_is_not_cut_off, AFTER_THE_END_S)
{
	need("SIOCOUTQ");
	expect_slow_client_is_not_cut_off(true);
}

/* The time begins when the backend ends, whenever the client last took something. */
LONG_PROGRAM_TEST(after_the_end, pause_before_it_does_not_count, AFTER_THE_END_S)
{
	proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	size_t sent = send_until_stalled(pair.backend);
	poll(NULL, 0, LAST_BYTES_MS / 2 + 5000);
	close(pair.backend);
	poll(NULL, 0, LAST_BYTES_MS / 2 + 5000);
	expect_pattern(pair.client, sent);
	expect_end(pair.client);
}

static void
log_connections(void)
{
	setenv("SNIPROXY_LOG", "connections", 1);
}

/* Only time can end these, because the clients' systems answer. What the client sent to the second
 * one's backend is lost, too. */
LONG_PROGRAM_TEST(after_the_end, client_that_takes_nothing_is_let_go, AFTER_THE_END_S)
{
	need("to know what a side has not taken");
	server_listen("127.0.0.1");
	struct proxy *proxy = proxy_start(log_connections);
	int backend = backend_listen(HOST);
	struct pair other = pair_open(backend);
	int before = proxy_descriptors(proxy);
	struct pair silent = pair_open(backend);
	struct pair talker = pair_open(backend);
	send_all(talker.client, text("not read"));
	send_until_stalled(silent.backend);
	send_until_stalled(talker.backend);
	close(silent.backend);
	close(talker.backend);

	int64_t start_ms = now_ms();
	expect_idle(proxy);
	while (proxy_descriptors(proxy) > before) {
		cr_assert_lt(now_ms(), start_ms + LAST_BYTES_MS + 8000,
		    "%d descriptors more than before", proxy_descriptors(proxy) - before);
		poll(NULL, 0, 200);
	}
	int took_ms = (int)(now_ms() - start_ms);
	cr_assert_geq(took_ms, LAST_BYTES_MS - 6000, "%d ms", took_ms);
	cr_assert_eq(proxy_total(proxy, "client-timeout"), 2);
	cr_assert(proxy_has_logged(proxy, " end=client-timeout\n"));
	pair_talk(other);
}

static void
few_descriptors(void)
{
	limit_descriptors(32);
}

/* Others need its slot sooner. */
PROGRAM_TEST(after_the_end, client_that_takes_nothing_is_evicted_for_others)
{
	enum { ANSWER = 300000, SLOTS_MAX = 16 };
	struct bytes hello = hello_for(HOST);
	struct pair quiet[SLOTS_MAX];
	const int narrow = 4096;
	int count = 0;
	long evicted = 0;
	need("to know what a side has not taken");
	server_listen("127.0.0.1");
	struct proxy *proxy = proxy_start(few_descriptors);
	int backend = backend_listen(HOST);
	struct pair silent = pair_open(backend);
	setsockopt(silent.client, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
	send_all(silent.backend, pattern(0, ANSWER)); /* the kernel holds it for the client */
	close(silent.backend);
	while (evicted == 0) {
		char address[32];
		cr_assert_lt(count, SLOTS_MAX);
		snprintf(address, sizeof address, "127.0.0.%d", 2 + count);
		int client = client_connect_from(address);
		send_all(client, hello);
		quiet[count] = (struct pair){client, backend_accept(backend)};
		expect_bytes(quiet[count++].backend, hello);
		evicted =
		    proxy_total(proxy, "evicted-closing") + proxy_total(proxy, "evicted-stalled");
	}
	cr_assert_eq(evicted, 1);
	for (int i = 0; i < count; i++)
		pair_talk(quiet[i]);
}

/* --- The hello --- */

/* The alert must come ten seconds after START_MS, and only a little later. */
static void
expect_alert_at_the_deadline(int client, int64_t start_ms, enum alert alert)
{
	cr_assert(readable_within(client, DEADLINE_MS + 3000), "no alert");
	int took_ms = (int)(now_ms() - start_ms);
	check(took_ms >= DEADLINE_MS - 500, "after %d ms", took_ms);
	check(took_ms <= margin_ms(DEADLINE_MS + 1500), "after %d ms", took_ms);
	expect_alert(client, alert);
}

PROGRAM_TEST(deadline, silence_in_the_hello)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	proxy_wait_ready();
	struct bytes hello = hello_for(HOST);
	const size_t lengths[] = {0, 1, 5, 9, hello.length / 2, hello.length - 1};
	enum { CLIENTS = sizeof lengths / sizeof *lengths };
	int clients[CLIENTS];
	int64_t start_ms = now_ms();
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(slice(hello, 0, lengths[i]));
	for (int i = 0; i < CLIENTS; i++) {
		testing("after %zu bytes of %zu", lengths[i], hello.length);
		expect_alert_at_the_deadline(clients[i], start_ms, USER_CANCELED);
	}
	cr_assert(silent_for(backend, 0));
}

/* Each byte would be in time for a deadline that begins anew. One client sends a byte a second, the
 * other one a hundred, each in a record. */
PROGRAM_TEST(deadline, dribble)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	proxy_wait_ready();
	struct bytes hello = hello_for(HOST);
	struct bytes largest = in_records(largest_message(), 1);
	int64_t start_ms = now_ms();
	int slow = client_connect();
	int fast = client_connect();
	for (size_t i = 0; silent_for(slow, 0) && silent_for(fast, 10); i++) {
		cr_assert_lt(i, largest.length);
		send_all(fast, slice(largest, i, 1));
		if (i % 100 == 0)
			send_all(slow, slice(hello, i / 100, 1));
	}
	testing("a byte a second");
	expect_alert_at_the_deadline(slow, start_ms, USER_CANCELED);
	testing("a hundred bytes a second");
	expect_alert_at_the_deadline(fast, start_ms, USER_CANCELED);
	cr_assert(silent_for(backend, 0));
}

/* A slow hello, but in time. */
PROGRAM_TEST(deadline, slow_hello_in_time)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	proxy_wait_ready();
	struct bytes hello = hello_for(HOST);
	int client = client_connect();
	for (size_t i = 0; i < 7; i++) {
		send_all(client, slice(hello, i, 1));
		cr_assert(silent_for(client, 1000));
	}
	send_all(client, slice(hello, 7, hello.length - 7));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	/* The deadline is the hello's, not the connection's. */
	cr_assert(silent_for(client, 4000));
	pair_talk(((struct pair){client, accepted}));
}

/* Its thread has decided how it ends, but is stopped, when it wakes the log's thread, until the
 * time for the hello is over. */
PROGRAM_TEST(deadline, hello_that_has_just_ended)
{
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	proxy_wait_ready();
	int client = client_send(slice(hello_for(HOST), 0, 9));
	poll(NULL, 0, DEADLINE_MS - 1000);
	pid_t tracer = fault_begin(proxy, "futex", "delay_enter=2000000");
	reset_connection(client);
	poll(NULL, 0, 3000);
	fault_end(tracer);
	expect_served(backend, hello_for(HOST));
}

/* --- The backend --- */

/* A backend with a full backlog, and a client that waits for it. */
static int
client_of_full_backend(const char *name, int *backend, int *fillers)
{
	free(host_make(name));
	char *path = host_path(name, "tls-socket");
	*backend = unix_listen(path, 1);
	*fillers = fill_backlog(path);
	free(path);
	return client_send(hello_for(name));
}

PROGRAM_TEST(deadline, backend_with_a_full_backlog)
{
	struct proxy *proxy = proxy_start_default();
	proxy_wait_ready();
	int64_t start_ms = now_ms();
	int backend, fillers;
	int never = client_of_full_backend("never.example", &backend, &fillers);
	int late = client_of_full_backend("late.example", &backend, &fillers);
	expect_idle(proxy);
	cr_assert(silent_for(late, 6000), "the proxy gave up early");

	testing("the one that accepts late");
	for (int i = 0; i < fillers; i++)
		close(backend_accept(backend));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello_for("late.example"));
	pair_talk(((struct pair){late, accepted}));

	testing("the one that never accepts");
	expect_alert_at_the_deadline(never, start_ms, INTERNAL_ERROR);
	pair_talk(((struct pair){late, accepted}));
}

/* --- A refused client --- */

/* The clients have their alerts but stay; one sends a little from time to time. The proxy must
 * close them all the same. */
PROGRAM_TEST(deadline, refused_clients_that_stay)
{
	struct proxy *proxy = proxy_start_default();
	proxy_wait_ready();
	int idle = proxy_descriptors(proxy);
	for (int i = 0; i < 20; i++)
		expect_alert(client_send(text("GET / HTTP/1.1\r\n\r\n")), UNEXPECTED_MESSAGE);
	int talker = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(talker, UNEXPECTED_MESSAGE);

	int64_t end_ms = now_ms() + margin_ms(15000);
	while (send(talker, "more", 4, MSG_NOSIGNAL) == 4) {
		cr_assert_lt(now_ms(), end_ms, "the proxy reads on for ever");
		poll(NULL, 0, 50);
	}
	wait_until(proxy_descriptors(proxy) <= idle, 15000);
}

/* The client floods. What the proxy reads after the alert is at least limited in time. */
PROGRAM_TEST(deadline, refused_client_that_floods)
{
	proxy_start_default();
	int client = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(client, UNEXPECTED_MESSAGE);
	send_all(client, text("x"));
	wait_drained();
	int64_t end_ms = now_ms() + margin_ms(15000);
	struct bytes flood = pattern(0, 65536);
	size_t sent = 0;
	ssize_t now;
	while ((now = send(client, flood.data, flood.length, MSG_NOSIGNAL)) > 0) {
		cr_assert_lt(now_ms(), end_ms, "the proxy reads on for ever");
		sent += (size_t)now;
		cr_assert_lt(sent, (size_t)1 << 30, "the proxy has read 1 GiB");
	}
	cr_assert(errno == EPIPE || errno == ECONNRESET, "%s", strerror(errno));
}

/* Its bytes arrive faster than they are read. It must be told when the time is over: after a
 * close(2) with all bytes read it would wait for room. */
PROGRAM_TEST(deadline, refused_client_that_is_read_slowly)
{
	enum { LINGER_MS = 5000 };
	struct proxy *proxy = proxy_start_default();
	proxy_wait_ready();
	pid_t tracer = fault_begin(proxy, "recvfrom", "delay_enter=100000");
	int client = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(client, UNEXPECTED_MESSAGE);
	send_until_stalled(client);
	struct pollfd entry = {.fd = client};
	cr_assert(poll(&entry, 1, LINGER_MS + 3000) == 1, "it is not told");
	check((entry.revents & POLLERR) != 0, "events %d", entry.revents);
	fault_end(tracer);
}

/* --- Stopping --- */

static void
expect_cut_off_at_the_deadline(int signal)
{
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	struct pair pair = pair_open(backend);
	struct pair ended = pair_open(backend);
	int64_t start_ms = now_ms();
	kill(proxy->pid, signal);
	pair_close(ended);
	while (now_ms() < start_ms + DEADLINE_MS - 1000) {
		pair_talk(pair);
		poll(NULL, 0, 500);
	}
	int status = proxy_wait(proxy, 5000);
	int took_ms = (int)(now_ms() - start_ms);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "wait status is %#x", status);
	cr_assert_geq(took_ms, DEADLINE_MS - 500, "%d ms", took_ms);
	cr_assert_leq(took_ms, margin_ms(DEADLINE_MS + 1500), "%d ms", took_ms);
	expect_gone(pair.client, 1000);
	expect_gone(pair.backend, 1000);
}

PROGRAM_TEST(deadline, sighup_cuts_connections_off)
{
	expect_cut_off_at_the_deadline(SIGHUP);
}

PROGRAM_TEST(deadline, sigterm_cuts_connections_off)
{
	expect_cut_off_at_the_deadline(SIGTERM);
}

/* The exit status is 0 if the last connection ends late, but in time. */
PROGRAM_TEST(deadline, last_connection_ends_in_time)
{
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	struct pair pair = pair_open(backend);
	kill(proxy->pid, SIGHUP);
	poll(NULL, 0, DEADLINE_MS - 3000);
	pair_talk(pair);
	pair_close(pair);
	int status = proxy_wait(proxy, 2000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
}

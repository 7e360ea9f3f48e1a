/* What ten seconds bound, and what else ends by itself. These tests do little but wait,
 * so that they are best run side by side. */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000 };

/* --- The hello --- */

/* The alert must come ten seconds after START_MS, and not much later. */
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

/* Each byte comes in time for a deadline that would begin anew. One client sends a byte a
 * second, the other a hundred, and so many records. */
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

/* A hello that takes its time, but not too much. */
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

/* --- The backend --- */

/* A backend with a backlog that is full, and a client that waits for it. */
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

/* The clients have their alerts but stay; one goes on sending, a little from time to
 * time. The proxy must let go of them all the same. */
PROGRAM_TEST(deadline, refused_clients_that_stay)
{
	struct proxy *proxy = proxy_start_default();
	proxy_wait_ready();
	int idle = proxy_descriptors(proxy);
	for (int i = 0; i < 20; i++)
		expect_alert(
		    client_send(text("GET / HTTP/1.1\r\n\r\n")), UNEXPECTED_MESSAGE);
	int talker = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(talker, UNEXPECTED_MESSAGE);

	int64_t end_ms = now_ms() + margin_ms(15000);
	while (send(talker, "more", 4, MSG_NOSIGNAL) == 4) {
		cr_assert_lt(now_ms(), end_ms, "the proxy reads on for ever");
		poll(NULL, 0, 50);
	}
	wait_until(proxy_descriptors(proxy) <= idle, 15000);
}

/* The client floods. What the proxy reads after the alert is bounded in time, at least.
 */
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
	cr_assert(
	    WIFEXITED(status) && WEXITSTATUS(status) == 1, "wait status is %#x", status);
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

/* A connection that ends late but in time makes no failure of it. */
PROGRAM_TEST(deadline, last_connection_ends_in_time)
{
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	struct pair pair = pair_open(backend);
	kill(proxy->pid, SIGHUP);
	poll(NULL, 0, DEADLINE_MS - 3000);
	pair_talk(pair);
	pair_close(pair);
	int status = proxy_wait(proxy, 1000);
	cr_assert(
	    WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
}

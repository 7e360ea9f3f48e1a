/* Stopping: the socket, the open connections, and the exit status. Tests that take ten seconds are
 * in program_deadline.c. */
#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct proxy *proxy;
static int backend;

static void
start(void)
{
	proxy = proxy_start_default();
	backend = backend_listen(HOST);
	proxy_wait_ready();
}

#define expect_exit(proxy, expected, ms) \
	do { \
		int status = proxy_wait(proxy, ms); \
		check(WIFEXITED(status) && WEXITSTATUS(status) == (expected), \
		    "wait status is %#x", status); \
	} while (0)

static void
expect_stops_without_connections(int signal)
{
	start();
	close(server.listener);
	kill(proxy->pid, signal);
	expect_exit(proxy, 0, 2000);
	cr_assert(is_refused());
}

PROGRAM_TEST(stop, sighup_without_connections)
{
	expect_stops_without_connections(SIGHUP);
}

PROGRAM_TEST(stop, sigterm_without_connections)
{
	expect_stops_without_connections(SIGTERM);
}

/* An open connection continues, silent or not. The exit status is 0 when all have ended. */
static void
expect_finishes_connections(int signal)
{
	start();
	struct pair silent = pair_open(backend);
	struct pair busy = pair_open(backend);
	struct pair half = pair_open(backend);
	shutdown(half.client, SHUT_WR);
	expect_end(half.backend);
	close(server.listener);
	kill(proxy->pid, signal);
	wait_until(is_refused(), 3000);

	for (int i = 0; i < 100; i++) {
		pair_talk(busy);
		wait_a_moment();
	}
	send_all(half.backend, pattern(0, 300000));
	close(half.backend);
	expect_pattern(half.client, 300000);
	expect_end(half.client);
	pair_close(half);
	pair_talk(silent);
	pair_close(busy);
	poll(NULL, 0, 300);
	cr_assert(proxy_runs(proxy), "it left while a connection was open");
	pair_talk(silent);
	close(silent.client);
	expect_end(silent.backend);
	close(silent.backend);
	expect_exit(proxy, 0, 3000);
}

PROGRAM_TEST(stop, sighup_lets_connections_end)
{
	expect_finishes_connections(SIGHUP);
}

PROGRAM_TEST(stop, sigterm_lets_connections_end)
{
	expect_finishes_connections(SIGTERM);
}

static void
socket_once_more(void)
{
	fcntl(0, F_DUPFD, 3);
}

/* systemd passes it beside stdin. A copy that stayed open would go on listening. */
PROGRAM_TEST(stop, socket_on_another_descriptor_too)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(socket_once_more);
	backend = backend_listen(HOST);
	struct pair pair = pair_open(backend);
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	pair_talk(pair);
	pair_close(pair);
	expect_exit(proxy, 0, 3000);
}

/* A client whose hello is incomplete has an open connection too. */
PROGRAM_TEST(stop, hello_on_its_way_is_still_served)
{
	start();
	struct bytes hello = hello_for(HOST);
	struct pair pair = {.client = client_send(slice(hello, 0, 40))};
	wait_drained();
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	send_all(pair.client, slice(hello, 40, hello.length - 40));
	pair.backend = backend_accept(backend);
	expect_bytes(pair.backend, hello);
	pair_talk(pair);
	pair_close(pair);
	expect_exit(proxy, 0, 3000);
}

/* The program does not wait for a rejected client that stays. */
PROGRAM_TEST(stop, refused_client_that_stays_does_not_make_it_fail)
{
	start();
	int client = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(client, UNEXPECTED_MESSAGE);
	kill(proxy->pid, SIGHUP);
	expect_exit(proxy, 0, 8000);
}

/* Returns how many connections wait to be accepted. *MAX is how many may. */
static int
waiting(int *max)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	getsockopt(server.listener, IPPROTO_TCP, TCP_INFO, &info, &size);
	*max = (int)info.tcpi_sacked;
	return (int)info.tcpi_unacked;
}

/* However many wait: connections that were not accepted are left for the next copy. */
PROGRAM_TEST(stop, while_connections_wait)
{
	enum { CLIENTS = 1000, ACCEPTED_AT_ONCE_MAX = 64 };
	int then, max, left = 0;
	start();
	waiting(&max);
	if (max < CLIENTS)
		skip("so many cannot wait here");
	proxy_pause(proxy);
	for (int i = 0; i < CLIENTS; i++)
		close(client_connect());
	kill(proxy->pid, SIGCONT);
	while (waiting(&max) == CLIENTS)
		check(proxy_runs(proxy), "it has left");
	kill(proxy->pid, SIGHUP);
	then = waiting(&max);
	expect_exit(proxy, 0, 2000);
	fcntl(server.listener, F_SETFL, O_NONBLOCK);
	for (int fd; (fd = accept(server.listener, NULL, NULL)) >= 0; left++)
		close(fd);
	check(left >= then - ACCEPTED_AT_ONCE_MAX, "%d waited, and %d are left", then, left);
}

/* --- A second signal --- */

static void
expect_second_signal_exits(int first, int second)
{
	start();
	struct pair pair = pair_open(backend);
	close(server.listener);
	kill(proxy->pid, first);
	wait_until(is_refused(), 3000);
	pair_talk(pair);
	kill(proxy->pid, second);
	int status = proxy_wait(proxy, 3000);
	cr_assert(WIFEXITED(status), "wait status is %#x", status);
	cr_assert_eq(WEXITSTATUS(status), 1, "a connection was cut off");
	expect_gone(pair.client, 1000);
	expect_gone(pair.backend, 1000);
}

PROGRAM_TEST(stop, sighup_twice_exits_at_once)
{
	expect_second_signal_exits(SIGHUP, SIGHUP);
}

PROGRAM_TEST(stop, sigterm_twice_exits_at_once)
{
	expect_second_signal_exits(SIGTERM, SIGTERM);
}

PROGRAM_TEST(stop, sigterm_after_sighup_exits_at_once)
{
	expect_second_signal_exits(SIGHUP, SIGTERM);
}

/* A connection that waits for its backend does not delay the signals. */
PROGRAM_TEST(stop, second_signal_while_a_backend_is_waited_for)
{
	proxy = proxy_start_default();
	proxy_wait_ready();
	host_make(HOST);
	char *path = host_path(HOST, "tls-socket");
	unix_listen(path, 1);
	fill_backlog(path);
	int client = client_send(hello_for(HOST));
	cr_assert(silent_for(client, 300));
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	kill(proxy->pid, SIGHUP);
	int status = proxy_wait(proxy, 3000);
	cr_assert(WIFEXITED(status), "wait status is %#x", status);
}

/* --- The socket is shared with others --- */

/* Between the copies no process accepts, but the socket listens: a client that connects then is
 * served later. */
PROGRAM_TEST(stop, socket_outlives_a_copy)
{
	start();
	kill(proxy->pid, SIGHUP);
	expect_exit(proxy, 0, 2000);
	struct bytes hello = hello_for(HOST);
	int client = client_send(hello);
	cr_assert(silent_for(backend, 50));
	proxy = proxy_start(NULL);
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
}

/* A stopping copy leaves new connections to the other at once, even while one of its own is
 * open. */
PROGRAM_TEST(stop, stopping_copy_accepts_no_more)
{
	start();
	struct pair open = pair_open(backend);
	struct service service = {.listener = backend_listen("new.example"),
	    .hello = hello_for("new.example"),
	    .answer = 'a'};
	struct load load = {.hello = service.hello};
	kill(proxy->pid, SIGHUP);
	/* Without another copy nothing is accepted: the first connection that waits shows that it
	 * has stopped. */
	int waiting;
	for (int i = 0;; i++) {
		cr_assert_lt(i, 1000, "it goes on accepting");
		waiting = client_send(text("GET / HTTP/1.1\r\n\r\n"));
		if (!readable_within(waiting, 100))
			break;
		close(waiting);
	}
	struct proxy *second = proxy_start(NULL);
	expect_alert(waiting, UNEXPECTED_MESSAGE);
	service_start(&service);
	load_start(&load, 2);
	wait_until(load.served > 200, 10000);
	cr_assert_eq(service.last_pid, second->pid);
	load_stop(&load);
	service_stop(&service);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	pair_talk(open);
	pair_close(open);
	expect_exit(proxy, 0, 3000);
}

/* Copies replace each other while clients connect: no connection is refused or cut off. */
PROGRAM_TEST(stop, copies_take_turns_under_load)
{
	start();
	struct service service = {.listener = backend, .hello = hello_for(HOST), .answer = 'a'};
	struct load load = {.hello = service.hello};
	service_start(&service);
	load_start(&load, 4);
	wait_until(service.last_pid == proxy->pid, 5000);
	for (int turn = 0; turn < 3; turn++) {
		struct proxy *next = proxy_start(NULL);
		wait_until(service.last_pid == next->pid, 20000);
		kill(proxy->pid, turn % 2 == 0 ? SIGHUP : SIGTERM);
		expect_exit(proxy, 0, 5000);
		int before = load.served;
		wait_until(load.served > before + 100, 10000);
		proxy = next;
	}
	load_stop(&load);
	service_stop(&service);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	cr_assert_eq(service.wrong, 0);
}

/* Backends that restart: their host's directory is there, and nobody listens at its socket for a
 * moment. Connections wait for up to a second. A host that stays down is remembered. */
#include "tests/program/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	WAIT_MS = 1000, /* how long connections wait for a host that is down, and are rejected after
			   that for the same time */
	DEADLINE_MS = 10000,

	MOMENT_MS = 100,  /* a client that is rejected at once has its alert by then */
	RESTART_MS = 500, /* how long a backend is away */
	AT_ONCE_MS = 500, /* less than the wait */
	LATE_MS = 3000,   /* how late things may happen on a busy machine */
};

static struct proxy *proxy;

/* --- Backends and clients --- */

static char *
socket_path(void)
{
	return host_path(HOST, "tls-socket");
}

/* Listens where nobody does any more. */
static int
listen_again(void)
{
	return unix_listen(socket_path(), SOMAXCONN);
}

/* Leaves the directory, without a socket. */
static void
stop_listening(int listener)
{
	close(listener);
	cr_assert_eq(unlink(socket_path()), 0);
}

/* A client sends HELLO, whose host is down, and waits. If the machine is so busy that the time is
 * over, another one does. */
static int
client_waits(struct bytes hello)
{
	for (;;) {
		int64_t began_ms = now_ms();
		int client = client_send(hello);
		wait_drained_of(client);
		if (silent_for(client, MOMENT_MS))
			return client;
		check(now_ms() - began_ms >= WAIT_MS, "it does not wait");
		expect_alert(client, UNRECOGNIZED_NAME);
		close(client);
		poll(NULL, 0, WAIT_MS + MOMENT_MS);
	}
}

/* The client, which has sent HELLO, gets LISTENER's backend. */
static void
expect_reaches(int client, int listener, struct bytes hello)
{
	int accepted = backend_accept(listener);
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
}

/* A client sends HELLO and must be rejected. Returns how long that takes. */
static int
rejected_after_ms(struct bytes hello)
{
	int64_t began_ms = now_ms();
	expect_refused(hello, UNRECOGNIZED_NAME);
	return (int)(now_ms() - began_ms);
}

static void
expect_rejected_after_the_wait(struct bytes hello)
{
	int ms = rejected_after_ms(hello);
	check(ms >= WAIT_MS, "after %d ms", ms);
	check(ms <= margin_ms(WAIT_MS + LATE_MS), "after %d ms", ms);
}

/* One of several clients shows it: others may be delayed. */
static void
expect_rejected_at_once(struct bytes hello)
{
	enum { CLIENTS = 5 };
	int least_ms = DEADLINE_MS;
	for (int i = 0; i < CLIENTS; i++) {
		int ms = rejected_after_ms(hello);
		least_ms = ms < least_ms ? ms : least_ms;
	}
	check(least_ms < AT_ONCE_MS, "after %d ms", least_ms);
}

/* The same for a host that was not asked for during the last second. */
static void
expect_no_wait(struct bytes hello)
{
	const int attempts = 5; /* on a busy machine */
	int ms = rejected_after_ms(hello);
	for (int i = 1; i < attempts && ms >= WAIT_MS; i++) {
		poll(NULL, 0, WAIT_MS + MOMENT_MS);
		ms = rejected_after_ms(hello);
	}
	check(ms < WAIT_MS, "after %d ms", ms);
}

/* --- Ways to be down --- */

PROGRAM_TEST(restart, socket_is_missing)
{
	proxy_start_default();
	free(host_make(HOST));
	int client = client_waits(hello_for(HOST));
	expect_reaches(client, listen_again(), hello_for(HOST));
}

PROGRAM_TEST(restart, socket_was_left_behind)
{
	proxy_start_default();
	close(backend_listen(HOST));
	int client = client_waits(hello_for(HOST));
	cr_assert_eq(unlink(socket_path()), 0);
	cr_assert(silent_for(client, MOMENT_MS));
	expect_reaches(client, listen_again(), hello_for(HOST));
}

/* Another socket replaces it by rename(2). */
PROGRAM_TEST(restart, socket_is_replaced)
{
	proxy_start_default();
	close(backend_listen(HOST));
	int client = client_waits(hello_for(HOST));
	int listener = unix_listen(host_path(HOST, "new"), SOMAXCONN);
	cr_assert_eq(rename(host_path(HOST, "new"), socket_path()), 0);
	expect_reaches(client, listener, hello_for(HOST));
}

/* Between its bind(2) and its listen(2). */
PROGRAM_TEST(restart, backend_listens_late)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	proxy_start_default();
	free(host_make(HOST));
	int length = snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path());
	if (length >= (int)sizeof address.sun_path)
		skip("TMPDIR is too long");
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	int client = client_waits(hello_for(HOST));
	cr_assert_eq(listen(listener, 1), 0);
	expect_reaches(client, listener, hello_for(HOST));
	close(listener);
}

/* The directory that a symlink leads to is removed when its service stops, as systemd does with a
 * RuntimeDirectory=. */
PROGRAM_TEST(restart, symlink_leads_nowhere_for_a_while)
{
	char *run, *path;
	cr_assert_gt(asprintf(&run, "%s/run", base_directory()), 0);
	cr_assert_gt(asprintf(&path, "%s/socket", run), 0);
	proxy_start_default();
	free(host_make(HOST));
	cr_assert_eq(symlink(path, socket_path()), 0);
	int client = client_waits(hello_for(HOST));
	cr_assert_eq(mkdir(run, 0755), 0);
	expect_reaches(client, unix_listen(path, SOMAXCONN), hello_for(HOST));
}

PROGRAM_TEST(restart, others_do_not_wait)
{
	proxy = proxy_start_default();
	free(host_make("file.example"));
	make_file(host_path("file.example", "tls-socket"), "");
	free(host_make("directory.example"));
	cr_assert_eq(mkdir(host_path("directory.example", "tls-socket"), 0755), 0);
	cr_assert_eq(symlink("nowhere", host_path("symlink.example", NULL)), 0);
	make_file(host_path("no-directory.example", NULL), "");
	const char *const names[] = {"missing.example", "file.example", "directory.example",
	    "symlink.example", "no-directory.example"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		testing("%s", names[i]);
		expect_no_wait(hello_for(names[i]));
	}
}

/* Its host is removed meanwhile. */
PROGRAM_TEST(restart, directory_is_removed_during_the_wait)
{
	proxy_start_default();
	free(host_make(HOST));
	int64_t began_ms = now_ms();
	int client = client_waits(hello_for(HOST));
	cr_assert_eq(rmdir(host_path(HOST, NULL)), 0);
	expect_alert(client, UNRECOGNIZED_NAME);
	check(now_ms() - began_ms < margin_ms(WAIT_MS), "it waits on");
}

/* --- Other sockets and hosts --- */

static struct bytes
acme_hello(void)
{
	static const char protocol[] = "acme-tls/1";
	struct bytes list = {0}, extensions = {0};
	put_integer(&list, sizeof protocol, 2);
	put_integer(&list, sizeof protocol - 1, 1);
	put(&list, protocol, sizeof protocol - 1);
	put_extension(&extensions, 16, list); /* application_layer_protocol_negotiation */
	return hello((struct shape){.extensions = extensions});
}

PROGRAM_TEST(restart, acme_socket)
{
	proxy_start_default();
	int other = backend_listen(HOST);
	close(unix_listen(host_path(HOST, "acme-tls-socket"), SOMAXCONN));
	int client = client_waits(acme_hello());
	expect_served(other, hello_for(HOST));
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	int listener = unix_listen(host_path(HOST, "acme-tls-socket"), SOMAXCONN);
	/* Between the two calls, there is no such socket: then the other is the right one. */
	struct pollfd entries[] = {{listener, POLLIN, 0}, {other, POLLIN, 0}};
	cr_assert(poll(entries, 2, margin_ms(WAIT_MS)) >= 1);
	expect_reaches(client, entries[0].revents != 0 ? listener : other, acme_hello());
}

static void
expect_waits_for(const char *special_host, struct bytes hello)
{
	testing("%s", special_host);
	free(host_make(special_host));
	int client = client_waits(hello);
	int listener = unix_listen(host_path(special_host, "tls-socket"), SOMAXCONN);
	expect_reaches(client, listener, hello);
}

PROGRAM_TEST(restart, special_hosts)
{
	proxy_start_default();
	expect_waits_for("_default", hello_for(HOST));
	expect_waits_for("_.example", hello_for(HOST));
	expect_waits_for("_no-sni", hello((struct shape){.without_server_name = true}));
}

/* A host that is down is no missing host: its clients are nobody else's. */
PROGRAM_TEST(restart, special_hosts_do_not_serve_a_host_that_is_down)
{
	proxy_start_default();
	int other = backend_listen("_default");
	free(host_make(HOST));
	expect_rejected_after_the_wait(hello_for(HOST));
	expect_rejected_at_once(hello_for(HOST));
	cr_assert(silent_for(other, 0));
}

/* --- What the client sent --- */

PROGRAM_TEST(restart, bytes_of_the_wait_are_kept)
{
	enum { PIECES = 10, PIECE = 3000 };
	proxy_start_default();
	free(host_make(HOST));
	int client = client_waits(hello_for(HOST));
	for (int i = 0; i < PIECES; i++) {
		send_all(client, pattern((size_t)i * PIECE, PIECE));
		wait_a_moment();
	}
	int accepted = backend_accept(listen_again());
	expect_bytes(accepted, hello_for(HOST));
	expect_pattern(accepted, (size_t)PIECES * PIECE);
	pair_talk(((struct pair){client, accepted}));
}

/* The client ends its stream, and still receives the answer. */
PROGRAM_TEST(restart, half_closed_during_the_wait)
{
	proxy_start_default();
	free(host_make(HOST));
	int client = client_waits(hello_for(HOST));
	shutdown(client, SHUT_WR);
	int accepted = backend_accept(listen_again());
	expect_bytes(accepted, hello_for(HOST));
	expect_end(accepted);
	send_all(accepted, text("served"));
	close(accepted);
	expect_bytes(client, text("served"));
	expect_end(client);
}

/* The new backend wants a header, and the old one did not. */
PROGRAM_TEST(restart, header_is_that_of_the_new_backend)
{
	proxy_start_default();
	free(host_make(HOST));
	int client = client_waits(hello_for(HOST));
	make_file(host_path(HOST, "send-proxy-v1"), "");
	int accepted = backend_accept(listen_again());
	char header[128];
	snprintf(header, sizeof header, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n",
	    local_port(client), server.port);
	expect_bytes(accepted, text(header));
	expect_bytes(accepted, hello_for(HOST));
}

/* --- Down for good --- */

static void
expect_remembered(const char *why)
{
	char line[128];
	snprintf(line, sizeof line, " " HOST ": tls-socket: %s\n", why);
	expect_rejected_after_the_wait(hello_for(HOST));
	wait_until(proxy_has_logged(proxy, line), 3000);
	expect_rejected_at_once(hello_for(HOST));

	testing("after a second without clients, another waits");
	poll(NULL, 0, WAIT_MS + MOMENT_MS);
	expect_rejected_after_the_wait(hello_for(HOST));
	expect_rejected_at_once(hello_for(HOST));

	testing("it is up again");
	unlink(socket_path());
	expect_served(listen_again(), hello_for(HOST));
}

PROGRAM_TEST(restart, missing_for_good)
{
	proxy = proxy_start_default();
	free(host_make(HOST));
	expect_remembered("No such file or directory");
}

PROGRAM_TEST(restart, left_behind_for_good)
{
	proxy = proxy_start_default();
	close(backend_listen(HOST));
	expect_remembered("Connection refused");
}

/* All wait for the same second. */
PROGRAM_TEST(restart, clients_of_one_host_are_rejected_together)
{
	enum { CLIENTS = 8, INTERVAL_MS = 100 };
	int clients[CLIENTS];
	proxy_start_default();
	free(host_make(HOST));
	int64_t began_ms = now_ms();
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = client_send(hello_for(HOST));
		poll(NULL, 0, INTERVAL_MS);
	}
	for (int i = 0; i < CLIENTS; i++)
		expect_alert(clients[i], UNRECOGNIZED_NAME);
	int64_t ms = now_ms() - began_ms;
	check(ms >= WAIT_MS, "after %d ms", (int)ms);
	check(ms <= margin_ms(WAIT_MS + LATE_MS), "after %d ms", (int)ms);
}

/* A slow restart does not keep clients from waiting for the next, quick one. */
PROGRAM_TEST(restart, up_again_is_noticed)
{
	proxy_start_default();
	free(host_make(HOST));
	expect_rejected_after_the_wait(hello_for(HOST));
	expect_rejected_at_once(hello_for(HOST));
	int listener = listen_again();
	expect_served(listener, hello_for(HOST));
	stop_listening(listener);
	int client = client_waits(hello_for(HOST));
	expect_reaches(client, listen_again(), hello_for(HOST));
}

/* Each connection waits for a second at most, even if more hosts are down than are remembered. */
PROGRAM_TEST(restart, many_hosts_are_down)
{
	enum { HOSTS = 300 };
	int clients[HOSTS];
	struct bytes hellos[HOSTS];
	char name[32];
	proxy_start_default();
	for (int i = 0; i < HOSTS; i++) {
		snprintf(name, sizeof name, "%d.example", i);
		free(host_make(name));
		hellos[i] = hello_for(name);
	}
	int64_t began_ms = now_ms();
	for (int i = 0; i < HOSTS; i++)
		clients[i] = client_send(hellos[i]);
	for (int i = 0; i < HOSTS; i++) {
		testing("host %d", i);
		check(readable_within(clients[i], 5000), "no alert");
		expect_alert(clients[i], UNRECOGNIZED_NAME);
	}
	int64_t ms = now_ms() - began_ms;
	check(ms <= margin_ms(WAIT_MS + LATE_MS), "after %d ms", (int)ms);
}

/* --- Other waits, and the deadline --- */

/* The time for which the backlog was full does not count. */
PROGRAM_TEST(restart, full_backlog_before)
{
	proxy_start_default();
	free(host_make(HOST));
	int listener = unix_listen(socket_path(), 1);
	fill_backlog(socket_path());
	int client = client_send(hello_for(HOST));
	cr_assert(silent_for(client, WAIT_MS + MOMENT_MS));
	stop_listening(listener);
	cr_assert(silent_for(client, 2 * MOMENT_MS));
	expect_reaches(client, listen_again(), hello_for(HOST));
}

PROGRAM_TEST(restart, wait_ends_at_the_deadline)
{
	const int before_ms = WAIT_MS / 2;
	proxy_start_default();
	free(host_make(HOST));
	proxy_wait_ready();
	int64_t began_ms = now_ms();
	int client = client_connect();
	poll(NULL, 0, DEADLINE_MS - before_ms);
	send_all(client, hello_for(HOST));
	cr_assert(readable_within(client, WAIT_MS + LATE_MS), "no alert");
	int64_t ms = now_ms() - began_ms;
	expect_alert(client, UNRECOGNIZED_NAME);
	check(ms >= DEADLINE_MS, "after %d ms", (int)ms);
	check(ms < DEADLINE_MS + margin_ms(WAIT_MS - before_ms), "after %d ms", (int)ms);
}

/* --- Clients that leave, and the end of the program --- */

/* Clients of the host NAME, which is down, are reset. Returns whether that was before the end of
 * their second. */
static bool
leave_while_waiting(const char *name)
{
	enum { CLIENTS = 50 };
	int clients[CLIENTS];
	struct bytes hello = hello_for(name);
	free(host_make(name));
	int64_t began_ms = now_ms();
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(hello);
	wait_drained();
	for (int i = 0; i < CLIENTS; i++)
		reset_connection(clients[i]);
	bool is_in_time = now_ms() - began_ms < WAIT_MS - 2 * MOMENT_MS;
	expect_total(proxy, "open", 0, WAIT_MS + LATE_MS);
	return is_in_time;
}

PROGRAM_TEST(restart, clients_that_leave_free_their_threads)
{
	enum { ATTEMPTS = 10, THREADS = 12 + 3 };
	char name[32], line[80];
	bool is_in_time = false;
	proxy = proxy_start_default();
	for (int i = 0; i < ATTEMPTS && !is_in_time; i++) {
		snprintf(name, sizeof name, "%d.example", i);
		is_in_time = leave_while_waiting(name);
	}
	check(is_in_time, "the machine is too slow");
	snprintf(line, sizeof line, " %s: client: Connection reset by peer\n", name);
	wait_until(proxy_has_logged(proxy, line), 3000);
	wait_until(proxy_threads(proxy) <= THREADS + extra_threads(), 5000);
}

/* They end their streams, after which they could still receive. */
PROGRAM_TEST(restart, clients_that_close_free_their_threads)
{
	proxy = proxy_start_default();
	free(host_make(HOST));
	close(client_waits(hello_for(HOST)));
	expect_total(proxy, "open", 0, WAIT_MS + LATE_MS);
}

static void
expect_exit(void)
{
	int status = proxy_wait(proxy, 3000);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
}

/* Returns a client that waits while the proxy stops because of SIGNAL. */
static int
client_waits_when_stopped(int signal)
{
	proxy = proxy_start_default();
	free(host_make(HOST));
	int client = client_waits(hello_for(HOST));
	close(server.listener);
	kill(proxy->pid, signal);
	wait_until(is_refused(), 3000);
	return client;
}

PROGRAM_TEST(restart, stopped_during_the_wait)
{
	int client = client_waits_when_stopped(SIGTERM);
	struct pair pair = {client, backend_accept(listen_again())};
	expect_bytes(pair.backend, hello_for(HOST));
	pair_talk(pair);
	pair_close(pair);
	expect_exit();
}

PROGRAM_TEST(restart, stopped_during_a_wait_in_vain)
{
	int client = client_waits_when_stopped(SIGHUP);
	expect_alert(client, UNRECOGNIZED_NAME);
	close(client);
	expect_exit();
}

/* --- Many clients --- */

static void
need_files(unsigned count)
{
	struct rlimit files;
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < count)
		skip("too few descriptors");
}

/* COUNT clients of the host NAME send their hellos while nobody listens, for RESTART_MS; fewer if the
 * machine is slow. Returns how many there are; *LOST is how many of them are not served. */
static int
send_while_down(const char *name, int count, int *lost)
{
	const int sending_ms = RESTART_MS - MOMENT_MS;
	int *clients = calloc((size_t)count, sizeof *clients), sent = 0;
	struct service service = {.hello = hello_for(name), .answer = 's'};
	free(host_make(name));
	int64_t began_ms = now_ms();
	while (sent < count && now_ms() - began_ms < sending_ms)
		clients[sent++] = client_send(service.hello);
	int64_t left_ms = began_ms + RESTART_MS - now_ms();
	poll(NULL, 0, left_ms > 0 ? (int)left_ms : 0);
	service.listener = unix_listen(host_path(name, "tls-socket"), SOMAXCONN);
	service_start(&service);
	*lost = 0;
	for (int i = 0; i < sent; i++) {
		char answer[2];
		*lost += read_up_to(clients[i], answer, sizeof answer) != 1 || answer[0] != 's';
		close(clients[i]);
	}
	service_stop(&service);
	cr_assert_eq(service.wrong, 0);
	free(clients);
	return sent;
}

/* On a busy machine, the second of some may end. */
PROGRAM_TEST(restart, none_of_many_clients_is_lost)
{
	enum { CLIENTS = 400, ATTEMPTS = 5, ENOUGH = 10 };
	int count = 0, lost = CLIENTS;
	char name[32];
	need_files(4 * CLIENTS);
	proxy_start_default();
	for (int i = 0; i < ATTEMPTS && (lost > 0 || count < ENOUGH); i++) {
		snprintf(name, sizeof name, "%d.example", i);
		count = send_while_down(name, CLIENTS, &lost);
	}
	check(lost == 0 && count >= ENOUGH, "%d of %d are lost", lost, count);
}

/* Ends the service, after it has accepted all connections: those that still wait for it would be
 * reset. */
static void
service_leaves(struct service *service)
{
	const int quiet_ms = 50;
	cr_assert_eq(unlink(socket_path()), 0);
	while (!silent_for(service->listener, quiet_ms))
		;
	service_stop(service);
	close(service->listener);
}

/* A backend restarts several times under LOAD. Returns how long it was down at most. */
static int
restart_under_load(struct load *load)
{
	enum { ROUNDS = 6, PHASE_MS = 300, CLIENTS = 8 };
	struct service services[ROUNDS];
	int64_t down_ms = 0, longest_ms = 0;
	for (int i = 0; i < ROUNDS; i++) {
		services[i] = (struct service){
		    .hello = load->hello, .answer = 's', .listener = listen_again()};
		service_start(&services[i]);
		if (i == 0)
			load_start(load, CLIENTS);
		else if (now_ms() - down_ms > longest_ms)
			longest_ms = now_ms() - down_ms;
		poll(NULL, 0, PHASE_MS);
		wait_until(services[i].served > 0, 5000);
		down_ms = now_ms();
		if (i < ROUNDS - 1)
			service_leaves(&services[i]);
		poll(NULL, 0, PHASE_MS);
	}
	load_stop(load);
	service_leaves(&services[ROUNDS - 1]);
	return (int)longest_ms;
}

/* On a busy machine, it may be down for longer, and clients may wait in vain. */
PROGRAM_TEST(restart, restarts_again_and_again)
{
	enum { ATTEMPTS = 5 };
	int longest_ms = WAIT_MS, failed = 1;
	proxy_start_default();
	free(host_make(HOST));
	for (int i = 0; i < ATTEMPTS && failed > 0 && longest_ms > WAIT_MS / 2; i++) {
		struct load load = {.hello = hello_for(HOST)};
		longest_ms = restart_under_load(&load);
		failed = load.failed;
		testing("%d of %d failed, one with %d; it was down for %d ms", failed,
		    load.served + failed, load.error, longest_ms);
	}
	check(failed == 0, "a client was not served");
}

/* --- Floods --- */

/* Most of the clients of another host are served without a wait, whatever else the machine does. */
static void
expect_served_quickly(int listener, int clients)
{
	struct bytes hello = hello_for("up.example");
	int slow = 0;
	for (int i = 0; i < clients; i++) {
		testing("client %d of another host", i);
		int64_t began_ms = now_ms();
		expect_served(listener, hello);
		slow += now_ms() - began_ms >= margin_ms(AT_ONCE_MS);
	}
	testing("%s", "");
	check(slow < clients / 2, "%d of %d were slow", slow, clients);
}

/* After the first second, a flood for a host that is down needs no more threads than one for a host
 * that is not there. */
PROGRAM_TEST(restart, flood_for_a_host_that_is_down)
{
	enum { FIRST = 200, AT_ONCE = 16, THREADS = 100, SECONDS = 2 };
	static int first[FIRST];
	struct load load = {.hello = hello_for(HOST)};
	proxy = proxy_start_default();
	int up = backend_listen("up.example");
	free(host_make(HOST));
	for (int i = 0; i < FIRST; i++)
		first[i] = client_send(load.hello);
	load_start(&load, AT_ONCE);
	expect_served_quickly(up, 20);
	for (int i = 0; i < FIRST; i++) {
		expect_alert(first[i], UNRECOGNIZED_NAME);
		close(first[i]);
	}
	wait_until(proxy_threads(proxy) <= THREADS, 10 * WAIT_MS); /* surplus threads end */
	int failed = load.failed, most = 0;
	int64_t end_ms = now_ms() + SECONDS * 1000;
	while (now_ms() < end_ms) {
		int threads = (int)proxy_total(proxy, "threads");
		most = threads > most ? threads : most;
		expect_served_quickly(up, 4);
	}
	check(most <= THREADS, "%d threads", most);
	check(load.failed - failed > AT_ONCE * SECONDS * 2, "they wait: %d were rejected",
	    load.failed - failed);
	cr_assert_eq(load.served, 0);
	load_stop(&load);
}

/* Its host's other socket serves clients meanwhile. Some of these have to try again, since so many
 * lookups are under way. */
PROGRAM_TEST(restart, flood_for_an_acme_socket_that_is_down)
{
	enum { LOADS = 12, AT_ONCE = 16, SECONDS = 2 };
	struct service service = {.hello = hello_for(HOST), .answer = 's'};
	struct load load = {.hello = service.hello};
	static struct load acme[LOADS];
	int before = 0, after = 0;
	proxy = proxy_start_default();
	service.listener = backend_listen(HOST);
	close(unix_listen(host_path(HOST, "acme-tls-socket"), SOMAXCONN));
	service_start(&service);
	load_start(&load, AT_ONCE);
	for (int i = 0; i < LOADS; i++) {
		acme[i].hello = acme_hello();
		load_start(&acme[i], AT_ONCE);
	}
	poll(NULL, 0, 3 * WAIT_MS / 2);
	for (int i = 0; i < LOADS; i++)
		before += acme[i].failed;
	poll(NULL, 0, SECONDS * 1000);
	for (int i = 0; i < LOADS; i++)
		after += acme[i].failed;
	for (int i = 0; i < LOADS; i++)
		load_stop(&acme[i]);
	load_stop(&load);
	service_stop(&service);
	int waiting = LOADS * AT_ONCE * (SECONDS + 1);
	check(after - before > waiting, "they wait: %d were rejected, not %d", after - before,
	    waiting);
	cr_assert_eq(load.failed, 0);
}

/* --- Under pressure --- */

enum { FEW_THREADS = 8, OPEN_FILES = 128 };

static void
few_threads(void)
{
	const rlim_t most = FEW_THREADS + (rlim_t)extra_threads();
	const struct rlimit processes = {.rlim_cur = most, .rlim_max = most};
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* a search for leaks cannot start a thread */
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

/* Each of the clients would be the first of its host, and so wait for a second. */
PROGRAM_TEST(restart, no_wait_while_threads_are_short)
{
	enum { CLIENTS = 60 };
	int clients[CLIENTS];
	char name[32];
	if (sanitized())
		skip("the sanitizers have threads of their own");
	need_own_user();
	server_listen("127.0.0.1");
	int up = backend_listen("up.example");
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(name, sizeof name, "%d.example", i);
		free(host_make(name));
	}
	proxy = proxy_start(few_threads);
	proxy_wait_ready();
	int64_t began_ms = now_ms();
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(name, sizeof name, "%d.example", i);
		clients[i] = client_send(hello_for(name));
	}
	expect_served_quickly(up, 10);
	/* A few may wait: those that come when there are enough threads. If all did, so many threads
	 * would take twice as long. One that has waited for almost a second may be evicted. */
	int evicted = 0;
	for (int i = 0; i < CLIENTS; i++) {
		uint8_t alert[8] = {0};
		testing("host %d", i);
		evicted += read_up_to(clients[i], alert, sizeof alert) == 0;
		cr_assert(alert[0] == 0 || alert[6] == UNRECOGNIZED_NAME);
	}
	check(evicted <= FEW_THREADS, "%d have no alert", evicted);
	int64_t ms = now_ms() - began_ms;
	check(ms < CLIENTS / FEW_THREADS * WAIT_MS / 2, "after %d ms", (int)ms);
}

static void
few_descriptors(void)
{
	limit_descriptors(OPEN_FILES);
}

/* Idle connections hold so many slots that they are short. */
PROGRAM_TEST(restart, no_wait_while_slots_are_short)
{
	enum { ADDRESSES = 14, OF_ADDRESS = 4, OPEN = ADDRESSES * OF_ADDRESS };
	struct pair pairs[OPEN];
	server_listen("127.0.0.1");
	int backend = backend_listen("up.example");
	struct bytes hello = hello_for("up.example");
	proxy = proxy_start(few_descriptors);
	for (int i = 0; i < OPEN; i++) {
		char address[32];
		snprintf(address, sizeof address, "127.0.1.%d", 1 + i / OF_ADDRESS);
		pairs[i].client = client_connect_from(address);
		send_all(pairs[i].client, hello);
		pairs[i].backend = backend_accept(backend);
		expect_bytes(pairs[i].backend, hello);
	}
	free(host_make(HOST));
	expect_no_wait(hello_for(HOST));
	for (int i = 0; i < OPEN; i++) {
		testing("open connection %d", i);
		pair_talk(pairs[i]);
	}
	testing("when there are slots again");
	for (int i = 0; i < OPEN; i++)
		pair_close(pairs[i]);
	expect_total(proxy, "open", 0, 5000);
	expect_rejected_after_the_wait(hello_for(HOST));
}

/* How sniproxy starts: the socket on stdin, odd descriptors, several copies, a chroot. */
#include "tests/program/harness.h"

#include <fcntl.h>
#include <netinet/in.h>
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

/* --- stdin that is no listening TCP socket is rejected --- */

static void
expect_refuses_to_start(void (*prepare)(void))
{
	struct proxy *proxy = proxy_start(prepare);
	int status = proxy_wait(proxy, 3000);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 1, "wait status is %#x", status);

	char *log = proxy_log(proxy);
	char *end = strchr(log, '\n');
	check(end != NULL && end > log && end[1] == '\0', "not one line on stderr: %s", log);
	char *output = read_file(proxy->output);
	check(output[0] == '\0', "something on stdout: %s", output);
	free(output);
	free(log);
}

static void
close_stdin(void)
{
	close(0);
}

PROGRAM_TEST(start, stdin_closed)
{
	server_listen("127.0.0.1");
	expect_refuses_to_start(close_stdin);
}

PROGRAM_TEST(start, stdin_is_no_socket)
{
	int ends[2];
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	server.listener = ends[0];
	testing("a pipe");
	expect_refuses_to_start(NULL);
	close(ends[1]);

	server.listener = open("/dev/null", O_RDONLY | O_CLOEXEC);
	testing("/dev/null");
	expect_refuses_to_start(NULL);
}

PROGRAM_TEST(start, stdin_is_udp)
{
	server.listener = bound_socket("127.0.0.1", SOCK_DGRAM);
	expect_refuses_to_start(NULL);
}

PROGRAM_TEST(start, stdin_is_a_unix_socket)
{
	server.listener = backend_listen("stdin");
	testing("listening");
	expect_refuses_to_start(NULL);

	int pair[2];
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server.listener = pair[0];
	testing("connected");
	expect_refuses_to_start(NULL);
}

PROGRAM_TEST(start, stdin_does_not_listen)
{
	server.listener = bound_socket("127.0.0.1", SOCK_STREAM);
	testing("bound");
	expect_refuses_to_start(NULL);

	server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	testing("not bound");
	expect_refuses_to_start(NULL);
}

PROGRAM_TEST(start, stdin_is_a_connection)
{
	server_listen("127.0.0.1");
	int client = client_connect();
	int accepted = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(accepted, 0);
	server.listener = accepted;
	expect_refuses_to_start(NULL);
	cr_assert(silent_for(client, 0), "something was sent to the peer");
}

/* --- What it accepts --- */

PROGRAM_TEST(start, ipv4)
{
	proxy_start_default();
	expect_served(backend_listen(HOST), hello_for(HOST));
}

PROGRAM_TEST(start, ipv6)
{
	server_listen("::1");
	proxy_start(NULL);
	expect_served(backend_listen(HOST), hello_for(HOST));
}

PROGRAM_TEST(start, dual_stack)
{
	server_listen("::");
	proxy_start(NULL);
	int backend = backend_listen(HOST);
	expect_served(backend, hello_for(HOST));
	strcpy(server.address, "127.0.0.1");
	expect_served(backend, hello_for(HOST));
}

static void
lower_soft_limit(void)
{
	struct rlimit files = {.rlim_cur = 64, .rlim_max = 512};
	setrlimit(RLIMIT_NOFILE, &files);
}

PROGRAM_TEST(start, soft_limit_on_open_files_is_raised)
{
	server_listen("127.0.0.1");
	struct proxy *proxy = proxy_start(lower_soft_limit);
	proxy_wait_ready();
	struct rlimit files;
	cr_assert_eq(prlimit(proxy->pid, RLIMIT_NOFILE, NULL, &files), 0);
	cr_assert_eq(files.rlim_cur, 512);
	cr_assert_eq(files.rlim_max, 512);
}

/* --- Odd descriptors for stdout and stderr --- */

/* Serves and rejects while connections are open; no byte of the log may reach them. */
static void
expect_works_beside_open_connections(void)
{
	enum { PAIRS = 4, REFUSALS = 50 };
	int backend = backend_listen(HOST);
	struct pair pairs[PAIRS];
	for (int i = 0; i < PAIRS; i++)
		pairs[i] = pair_open(backend);
	for (int i = 0; i < REFUSALS; i++) {
		expect_refused(text("GET / HTTP/1.1\r\n\r\n"), UNEXPECTED_MESSAGE);
		expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	}
	for (int i = 0; i < PAIRS; i++) {
		check(silent_for(pairs[i].client, 0), "a client got what no backend sent");
		check(silent_for(pairs[i].backend, 0), "a backend got what no client sent");
		pair_talk(pairs[i]);
		pair_close(pairs[i]);
	}
	expect_served(backend, hello_for(HOST));
}

static void
socket_everywhere(void)
{
	dup2(0, 1);
	dup2(0, 2);
}

PROGRAM_TEST(start, socket_on_descriptors_0_1_and_2)
{
	server_listen("127.0.0.1");
	proxy_start(socket_everywhere);
	expect_works_beside_open_connections();
}

static void
close_stdout(void)
{
	close(1);
}

static void
close_stderr(void)
{
	close(2);
}

static void
close_both(void)
{
	close(1);
	close(2);
}

PROGRAM_TEST(start, stdout_closed)
{
	server_listen("127.0.0.1");
	struct proxy *proxy = proxy_start(close_stdout);
	expect_works_beside_open_connections();
	wait_until(strstr(proxy_log(proxy), "unknown.example") != NULL, 3000);
}

PROGRAM_TEST(start, stderr_closed)
{
	server_listen("127.0.0.1");
	proxy_start(close_stderr);
	expect_works_beside_open_connections();
}

PROGRAM_TEST(start, stdout_and_stderr_closed)
{
	server_listen("127.0.0.1");
	proxy_start(close_both);
	expect_works_beside_open_connections();
}

static int pipe_ends[2];

static void
stderr_to_pipe(void)
{
	dup2(pipe_ends[1], 2);
}

static void
fill(int fd)
{
	char page[4096] = {0};
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, page, sizeof page) > 0) {
	}
	while (write(fd, page, 1) > 0) {
	}
	fcntl(fd, F_SETFL, 0);
}

PROGRAM_TEST(start, stderr_is_a_full_pipe)
{
	server_listen("127.0.0.1");
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	fill(pipe_ends[1]);
	proxy_start(stderr_to_pipe);
	expect_works_beside_open_connections();
}

PROGRAM_TEST(start, stderr_is_a_pipe_without_reader)
{
	server_listen("127.0.0.1");
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	proxy_start(stderr_to_pipe);
	close(pipe_ends[0]);
	expect_works_beside_open_connections();
}

/* The line with the reason is lost, but the status is right. */
PROGRAM_TEST(start, stdin_is_no_socket_and_nobody_reads_stderr)
{
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	close(pipe_ends[0]);
	server.listener = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int status = proxy_wait(proxy_start(stderr_to_pipe), 3000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "wait status is %#x", status);
}

/* --- Two copies on one socket --- */

PROGRAM_TEST(start, two_copies_share_the_socket)
{
	server_listen("127.0.0.1");
	struct proxy *first = proxy_start(NULL);
	struct proxy *second = proxy_start(NULL);
	struct service service = {
	    .listener = backend_listen(HOST), .hello = hello_for(HOST), .answer = 'a'};
	struct load load = {.hello = service.hello};
	service_start(&service);
	load_start(&load, 8);
	wait_until(service.last_pid == first->pid, 20000);
	wait_until(service.last_pid == second->pid, 20000);
	wait_until(service.last_pid == first->pid, 20000);

	/* A copy that waits in accept(2) for a connection that the other took would not notice. */
	kill(first->pid, SIGHUP);
	int status = proxy_wait(first, 5000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
	int before = load.served;
	wait_until(load.served > before + 50, 10000);
	load_stop(&load);
	service_stop(&service);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	cr_assert_eq(service.wrong, 0);
}

/* Starts two copies. Both have served. */
static void
start_two(struct proxy *copies[2], int backend)
{
	copies[0] = proxy_start(NULL);
	proxy_wait_ready();
	proxy_pause(copies[0]);
	copies[1] = proxy_start(NULL);
	expect_served(backend, hello_for(HOST));
	kill(copies[0]->pid, SIGCONT);
}

/* Both copies are stopped while a client connects, and then race for it. The slower one must not
 * wait for the next client: it would react to nothing else. */
PROGRAM_TEST(start, slower_copy_does_not_wait_in_accept)
{
	server_listen("127.0.0.1");
	int backend = backend_listen(HOST);
	struct proxy *copies[2];
	start_two(copies, backend);
	for (int round = 0; round < 400; round++) {
		testing("round %d", round);
		proxy_pause(copies[0]);
		proxy_pause(copies[1]);
		int client = client_send(hello_for(HOST));
		kill(copies[round % 2]->pid, SIGCONT);
		kill(copies[1 - round % 2]->pid, SIGCONT);
		close(backend_accept(backend));
		close(client);
		wait_until(proxy_sleeps_outside_accept(copies[0]), 5000);
		wait_until(proxy_sleeps_outside_accept(copies[1]), 5000);
	}
	kill(copies[0]->pid, SIGHUP);
	int status = proxy_wait(copies[0], 5000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
	expect_served(backend, hello_for(HOST));
}

/* The flags belong to every process that shares the socket, and others may wait in accept(2). */
PROGRAM_TEST(start, listening_socket_keeps_its_flags)
{
	need("accept(2) that heeds SO_RCVTIMEO");
	server_listen("127.0.0.1");
	int flags = fcntl(server.listener, F_GETFL);
	cr_assert((flags & O_NONBLOCK) == 0);
	proxy_start(NULL);
	expect_served(backend_listen(HOST), hello_for(HOST));
	cr_assert_eq(fcntl(server.listener, F_GETFL), flags);
}

/* Whether one connection is open, and has no thread. */
static bool
is_parked(const struct proxy *proxy)
{
	kill(proxy->pid, SIGUSR1);
	char *log = proxy_log(proxy);
	bool found = strstr(log, " open=1 parked=1 ") != NULL;
	free(log);
	return found;
}

/* systemd makes such a socket for SocketProtocol=mptcp. Accepted sockets do not inherit its
 * timeouts, and accept(2) ignores them. */
PROGRAM_TEST(start, socket_of_mptcp)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (listener == -1)
		skip("the kernel has no MPTCP");
	server_listen("127.0.0.1");
	cr_assert(bind(listener, (struct sockaddr *)&address, size) == 0);
	cr_assert(listen(listener, SOMAXCONN) == 0);
	cr_assert(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
	cr_assert(dup2(listener, server.listener) == server.listener);
	close(listener);
	server.port = ntohs(address.sin_port);
	struct proxy *proxy = proxy_start(NULL);
	int backend = backend_listen(HOST);
	struct pair pair = pair_open(backend);
	pair_talk(pair);
	/* So little that it fits into the kernel's buffers. */
	send_all(pair.backend, pattern(0, 500000));
	expect_pattern(pair.client, 500000);
	/* It keeps no thread, although bulk has just passed. */
	wait_until(is_parked(proxy), 5000);
	pair_talk(pair);
	pair_close(pair);
	kill(proxy->pid, SIGHUP);
	int status = proxy_wait(proxy, 5000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
}

/* If the program sets O_NONBLOCK, all processes that share the socket have it; systemd clears it at
 * each start. The test plays the faster copy. */
PROGRAM_TEST(start, stops_although_the_socket_was_made_blocking)
{
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	expect_served(backend, hello_for(HOST));
	int flags = fcntl(server.listener, F_GETFL);
	cr_assert(fcntl(server.listener, F_SETFL, flags & ~O_NONBLOCK) == 0);
	wait_until(proxy_sleeps_outside_accept(proxy), 5000);
	pid_t tracer = fault_begin(proxy, "?accept4,?accept", "delay_enter=1000000");
	int client = client_connect();
	poll(NULL, 0, 300); /* until it is about to enter accept(2) */
	int taken = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(taken != -1);
	poll(NULL, 0, 1000); /* until it is inside, forever or for a moment */
	fault_end(tracer);
	kill(proxy->pid, SIGHUP);
	int status = proxy_wait(proxy, 5000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
	close(taken);
	close(client);
}

/* --- A chroot --- */

static void
enter_chroot(void)
{
	enter_namespace();
	if (chroot(base_directory()) < 0 || chdir("/hosts") < 0)
		_exit(126);
	become_nobody();
}

/* Copies what a dynamic program needs to load; a static one needs nothing. */
static void
copy_libraries(void)
{
	char command[1024];
	int length = snprintf(command, sizeof command,
	    "ldd \"$SNIPROXY\" 2>/dev/null | grep -o '/[^ ]*' | while read -r file; do "
	    "cp -L --parents \"$file\" '%s' || exit 1; done",
	    base_directory());
	cr_assert(length < (int)sizeof command && system(command) == 0, "cannot copy libraries");
}

/* Makes the temporary directory a root directory for the proxy. */
static void
prepare_chroot(void)
{
	if (sanitized())
		skip("the sanitizers need /proc");
	need_namespace();
	server_listen("127.0.0.1");
	if (!proxy_use_static())
		copy_libraries();
}

PROGRAM_TEST(start, empty_chroot_as_an_unprivileged_user)
{
	prepare_chroot();
	int backend = backend_listen(HOST);
	struct proxy *proxy = proxy_start(enter_chroot);
	expect_served(backend, hello_for(HOST));
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	wait_until(strstr(proxy_log(proxy), "unknown.example") != NULL, 3000);
	char *status = proxy_proc(proxy, "status"), uid[32];
	snprintf(uid, sizeof uid, "Uid:\t%u\t", geteuid() == 0 ? 65534 : geteuid());
	cr_assert_not_null(strstr(status, uid));
	cr_assert_not_null(strstr(status, "CapEff:\t0000000000000000\n"));
	free(status);
}

/* --- syslog, which is a socket of the test's in a chroot --- */

static void
socket_everywhere_in_chroot(void)
{
	socket_everywhere();
	enter_chroot();
}

static int
listen_as_syslog(void)
{
	char directory[128], path[160];
	snprintf(directory, sizeof directory, "%s/dev", base_directory());
	snprintf(path, sizeof path, "%s/log", directory);
	cr_assert_eq(mkdir(directory, 0755), 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cr_assert_lt(strlen(path), sizeof address.sun_path);
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	cr_assert_eq(chmod(path, 0777), 0);
	return fd;
}

PROGRAM_TEST(start, syslog_takes_the_log_where_stderr_is_the_socket)
{
	prepare_chroot();
	int syslog = listen_as_syslog();
	proxy_start(socket_everywhere_in_chroot);
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	char line[1024] = {0};
	while (strstr(line, " unknown.example: ") == NULL) { /* the start's lines come first */
		cr_assert(readable_within(syslog, 3000), "not logged: last was %s", line);
		ssize_t length = recv(syslog, line, sizeof line - 1, 0);
		cr_assert_gt(length, 0);
		line[length] = '\0';
	}
}

/* The system's log is there, but its reader has stopped. */
PROGRAM_TEST(start, syslog_that_nobody_reads)
{
	prepare_chroot();
	int syslog = listen_as_syslog();
	proxy_start(socket_everywhere_in_chroot);
	expect_works_beside_open_connections();
	cr_assert(readable_within(syslog, 3000), "nothing was logged");
}

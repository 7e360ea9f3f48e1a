/* sniproxy: lets many TLS services share one address and port. It is given a listening
 * TCP socket as descriptor 0 and the hosts directory as its working directory; see
 * README.md. */
#include "address.h"
#include "clock.h"
#include "log.h"
#include "relay.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	/* How long connections may go on after the signal to stop. */
	GRACE_MS = 10 * 1000,

	/* When to try again after accept(2) or a new thread has failed for want of
	 * something, if no connection ends before that. */
	SHORTAGE_RETRY_MS = 250,

	/* A shortage that comes and goes is logged this often at most. */
	COMPLAINT_INTERVAL_MS = 10 * 1000,

	/* A connection's descriptors: the client's and the backend's. */
	DESCRIPTORS_A_CONNECTION = 2,

	/* Of so many descriptors, two may be a pipe's; and not more pipes than these. */
	DESCRIPTORS_A_PIPE = 64,
	PIPES_MAX = 256,

	/* Where no limit on open files says otherwise. */
	CONNECTIONS_MAX = 1 << 20,

	/* What the log and the workers open. */
	OWN_DESCRIPTORS = 4,

	/* Whoever started the program may have left it descriptors below this, besides 0
	 * to 2. */
	INHERITED_MAX = 1024,

	/* A client that has vanished is noticed after about four minutes in which nothing
	 * was sent (tcp(7)). */
	KEEPALIVE_IDLE_S = 120,
	KEEPALIVE_INTERVAL_S = 30,
	KEEPALIVE_PROBES = 4,
};

/* The descriptors that the main thread waits on. */
enum { SIGNALS, NEWS, LISTENER, DESCRIPTORS };

struct server {
	int hosts; /* the hosts directory, O_PATH */
	struct pollfd wait[DESCRIPTORS];
	bool is_listener[INHERITED_MAX]; /* which inherited descriptors are stdin's */
	unsigned connections_max;
	bool older_ones_wait; /* connections that were made before the options were set */
	int64_t retry_at_ms;  /* when to accept again after a shortage */
	int64_t next_complaint_ms; /* when a shortage is worth a log line again */
};

static _Noreturn void
fail(const char *what, const char *why)
{
	log_line("sniproxy: %s: %s", what, why);
	log_flush();
	exit(EXIT_FAILURE);
}

static _Noreturn void
fail_stdin(const char *why)
{
	log_line(
	    "sniproxy: stdin %s; it must be a listening TCP socket, as from systemd, "
	    "inetd or s6",
	    why);
	exit(EXIT_FAILURE);
}

static int
socket_option(int option)
{
	int value = 0;
	socklen_t size = sizeof value;
	if (getsockopt(STDIN_FILENO, SOL_SOCKET, option, &value, &size) == -1)
		fail_stdin(errno == EBADF ? "is closed" : "is not a socket");
	return value;
}

/* Whether DESCRIPTOR is the same socket as stdin: inetd and systemd put it on 1 and 2
 * too. */
static bool
is_listener(int descriptor)
{
	struct stat listener, other;
	return fstat(STDIN_FILENO, &listener) == 0 && fstat(descriptor, &other) == 0 &&
	    S_ISSOCK(listener.st_mode) && listener.st_dev == other.st_dev &&
	    listener.st_ino == other.st_ino;
}

static void
check_stdin(void)
{
	int domain = socket_option(SO_DOMAIN);
	int protocol = socket_option(SO_PROTOCOL);
	if ((domain != AF_INET && domain != AF_INET6) ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP))
		fail_stdin("is not a TCP socket");
	if (socket_option(SO_ACCEPTCONN) == 0)
		fail_stdin("is not listening");
}

/* Opens the hosts directory. Descriptors 1 and 2, where they are closed, become it too:
 * nothing can be written there, whereas what is written to a client's socket would be
 * sent. */
static void
open_hosts(struct server *server)
{
	do {
		server->hosts = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (server->hosts == -1)
			fail("working directory", strerror(errno));
	} while (server->hosts <= STDERR_FILENO);
}

/* Sets on DESCRIPTOR what connections need: small writes go out at once, and a client
 * that has vanished is noticed. Where one of them is refused, it works without. */
static void
set_options(int descriptor)
{
	const struct {
		int level, option, value;
	} options[] = {
	    {IPPROTO_TCP, TCP_NODELAY, 1},
	    {SOL_SOCKET, SO_KEEPALIVE, 1},
	    {SOL_SOCKET, SO_OOBINLINE,
		1}, /* an urgent byte is passed on like any other */
	    {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
	    {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
	    {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(descriptor, options[i].level, options[i].option,
		    &options[i].value, sizeof options[i].value);
}

/* Prepares the listening socket. Connections that are made from now on inherit its
 * options. */
static void
prepare_listener(struct server *server)
{
	set_options(STDIN_FILENO);
	/* Another copy may be faster; accept(2) must not wait for the next connection
	 * then. As the flag belongs to all who share the socket, and systemd clears it
	 * for each of them that it starts, the wait is bounded too. */
	const struct timeval briefly = {.tv_usec = 100000};
	setsockopt(STDIN_FILENO, SOL_SOCKET, SO_RCVTIMEO, &briefly, sizeof briefly);
	int flags = fcntl(STDIN_FILENO, F_GETFL);
	if (flags == -1 || fcntl(STDIN_FILENO, F_SETFL, flags | O_NONBLOCK) == -1)
		fail("stdin", strerror(errno));
	server->wait[LISTENER].fd = STDIN_FILENO;
	server->older_ones_wait = true;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		server->is_listener[descriptor] = is_listener(descriptor);
}

/* SIGHUP and SIGTERM are read from a descriptor. */
static void
take_signals(struct server *server)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGHUP, SIG_DFL); /* one that is ignored would never be read */
	signal(SIGTERM, SIG_DFL);
	server->wait[SIGNALS].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (server->wait[SIGNALS].fd == -1)
		fail("signalfd", strerror(errno));
}

static void
prepare_log_and_workers(struct server *server)
{
	int error = log_open();
	if (error != 0)
		fail("thread", strerror(error));
	server->wait[NEWS].fd = worker_init(server->hosts, server->connections_max);
	if (server->wait[NEWS].fd == -1)
		fail("eventfd", strerror(errno));
}

/* Raises the soft limit on open files to the hard one, and counts the connections that
 * fit: whoever is accepted must also get a backend. */
static void
raise_open_files(struct server *server)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_NOFILE, &files);

	rlim_t used = OWN_DESCRIPTORS;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		used += fcntl(descriptor, F_GETFD) != -1;
	rlim_t pipes = files.rlim_cur / DESCRIPTORS_A_PIPE;
	relay_allow_pipes(pipes < PIPES_MAX ? (unsigned)pipes : PIPES_MAX);
	used += 2 * (pipes < PIPES_MAX ? pipes : PIPES_MAX);
	rlim_t connections = (files.rlim_cur - used) / DESCRIPTORS_A_CONNECTION;
	if (files.rlim_cur < used + DESCRIPTORS_A_CONNECTION)
		fail("limit on open files", "too low for even one connection");
	server->connections_max =
	    connections < CONNECTIONS_MAX ? (unsigned)connections : CONNECTIONS_MAX;
}

static bool
is_signalled(const struct server *server)
{
	struct signalfd_siginfo signal;
	return server->wait[SIGNALS].revents != 0 &&
	    read(server->wait[SIGNALS].fd, &signal, sizeof signal) == sizeof signal;
}

/* Leaves new connections in the listen backlog for a while. */
static void
hold(struct server *server, const char *what, int error)
{
	int64_t now_ms = clock_ms();
	server->retry_at_ms = now_ms + SHORTAGE_RETRY_MS;
	unsigned connections = worker_connections(true);
	if (now_ms < server->next_complaint_ms)
		return;
	server->next_complaint_ms = now_ms + COMPLAINT_INTERVAL_MS;
	log_line("sniproxy: new connections wait while %u are open: %s: %s", connections,
	    what, strerror(error));
}

/* A thread is found before the connection is accepted, so that it can wait in the listen
 * backlog if there is none. */
static void
accept_one(struct server *server)
{
	union address peer;
	socklen_t size = sizeof peer;
	int error = worker_reserve();
	if (error != 0) {
		hold(server, "thread", error);
		return;
	}
	int client =
	    accept4(STDIN_FILENO, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (client != -1) {
		if (server->older_ones_wait)
			set_options(client);
		address_unmap(&peer);
		worker_serve(client, &peer);
	} else if (errno == EAGAIN) {
		server->older_ones_wait = false;
	} else if (errno != ECONNABORTED) {
		hold(server, "accept", errno);
	}
}

/* Waits for what the main thread waits for, for TIMEOUT_MS at most. */
static void
wait_for_events(struct server *server, int timeout_ms)
{
	uint64_t ends;
	if (poll(server->wait, DESCRIPTORS, timeout_ms) <= 0)
		for (size_t i = 0; i < DESCRIPTORS; i++)
			server->wait[i].revents = 0;
	if (server->wait[NEWS].revents != 0) {
		(void)!read(server->wait[NEWS].fd, &ends, sizeof ends);
		server->retry_at_ms = 0;
	}
}

static int
timeout_ms(const struct server *server)
{
	if (server->retry_at_ms != 0)
		return clock_left_ms(server->retry_at_ms);
	return server->older_ones_wait ? 0 : -1; /* 0 tells that none waits any more */
}

/* Accepts connections until a signal says to stop. */
static void
serve(struct server *server)
{
	for (;;) {
		if (worker_connections(false) >= server->connections_max)
			hold(server, "limit", EMFILE);
		bool held = server->retry_at_ms != 0;
		server->wait[LISTENER].fd = held ? -1 : STDIN_FILENO;
		wait_for_events(server, timeout_ms(server));
		if (is_signalled(server))
			return;
		if (held && clock_left_ms(server->retry_at_ms) == 0)
			server->retry_at_ms = 0;
		if (server->wait[LISTENER].revents != 0)
			accept_one(server);
		else if (!held)
			server->older_ones_wait = false;
	}
}

/* Gives up the listening socket, which others may go on using. What takes its place on
 * the descriptors keeps connections off them, as in open_hosts(). */
static void
stop_listening(struct server *server)
{
	server->wait[LISTENER].fd = -1;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		if (server->is_listener[descriptor])
			dup2(server->hosts, descriptor);
}

/* Waits for the open connections, until the grace or a second signal ends it. Returns how
 * many are left. */
static unsigned
wait_for_connections(struct server *server)
{
	int64_t deadline_ms = clock_ms() + GRACE_MS;
	unsigned left;
	while ((left = worker_connections(true)) > 0 && clock_left_ms(deadline_ms) > 0) {
		wait_for_events(server, clock_left_ms(deadline_ms));
		if (is_signalled(server))
			break;
	}
	return left;
}

int
main(int argc, char *argv[])
{
	struct server server = {0};
	for (size_t i = 0; i < DESCRIPTORS; i++)
		server.wait[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	signal(SIGPIPE, SIG_IGN); /* it tells nothing that errno does not */
	if (fcntl(STDERR_FILENO, F_GETFD) == -1 || is_listener(STDERR_FILENO))
		log_to_syslog();
	if (argc > 1)
		fail(argv[1],
		    "no argument is taken: the listening socket is stdin, the hosts "
		    "directory is the working directory");
	check_stdin();
	open_hosts(&server);
	/* A woken thread need not preempt the one that woke it. */
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	take_signals(&server);
	prepare_listener(&server);
	raise_open_files(&server);
	prepare_log_and_workers(&server);

	serve(&server);

	stop_listening(&server);
	unsigned cut_off = wait_for_connections(&server);
	if (cut_off > 0)
		log_line("sniproxy: stopped; %u connections were cut off", cut_off);
	log_flush();
	/* Threads may still run: nothing of theirs may be torn down by exit(3). */
	if (cut_off > 0)
		_exit(EXIT_FAILURE);
	return EXIT_SUCCESS;
}

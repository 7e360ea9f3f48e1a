/* sniproxy: lets many TLS services share one address and port. It is given a listening
 * TCP socket as descriptor 0 and the hosts directory as its working directory; see
 * README.md. */
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "relay.h"
#include "status.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
	/* How long connections may go on after the signal to stop. */
	GRACE_MS = 10 * 1000,

	/* A connection's descriptors: the client's and the backend's. */
	DESCRIPTORS_A_CONNECTION = 2,

	/* Of so many descriptors, two may be a pipe's; and not more pipes than these. */
	DESCRIPTORS_A_PIPE = 64,
	PIPES_MAX = 256,

	/* Where no limit on open files says otherwise. */
	CONNECTIONS_MAX = 1 << 20,

	/* When to try again where not even one thread can be started. */
	RETRY_MS = 250,

	/* What the log and the workers open. */
	OWN_DESCRIPTORS = 5,

	/* The main thread and the log's. */
	OWN_THREADS = 2,

	/* Whoever started the program may have left it descriptors below this, besides 0
	 * to 2. */
	INHERITED_MAX = 1024,
};

/* The descriptors that the main thread waits on. */
enum { SIGNALS, NEWS, DESCRIPTORS };

struct server {
	int hosts; /* the hosts directory, O_PATH */
	struct pollfd wait[DESCRIPTORS];
	unsigned connections_max;
	unsigned reports; /* how many are to be written, the one begun included */
	struct worker_report report;
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

/* Has all threads allocate from one arena. With one for each thread, as glibc has it, what
 * one thread frees is not there for the next, and memory grows beyond the budget. */
static void
share_memory(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
#endif
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

/* Signals are read from a descriptor. */
static void
take_signals(struct server *server)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGHUP, SIG_DFL); /* one that is ignored would never be read */
	signal(SIGTERM, SIG_DFL);
	signal(SIGUSR1, SIG_DFL);
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
		fail("watching sockets", strerror(errno));
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

/* Takes note of signals that have come. Returns whether one says to stop. */
static bool
is_told_to_stop(struct server *server)
{
	struct signalfd_siginfo signal;
	while (server->wait[SIGNALS].revents != 0 &&
	    read(server->wait[SIGNALS].fd, &signal, sizeof signal) == sizeof signal) {
		if (signal.ssi_signo != SIGUSR1)
			return true;
		/* What has begun does not tell all of what is now. */
		server->reports = server->reports == 0 ? 1 : 2;
	}
	return false;
}

/* How many descriptors are open. The kernel hands out the lowest ones, so that none is
 * above what was ever needed at once. */
static unsigned
count_descriptors(void)
{
	unsigned count = 0,
		 end = INHERITED_MAX + 2 * PIPES_MAX +
	    DESCRIPTORS_A_CONNECTION * worker_connections_peak();
	for (unsigned descriptor = 0; descriptor < end; descriptor++)
		count += fcntl((int)descriptor, F_GETFD) != -1;
	return count;
}

/* Goes on with the report that was asked for, for a moment. */
static void
go_on_reporting(struct server *server)
{
	struct worker_report *report = &server->report;
	if (worker_report(report))
		return;
	const struct status_moment moment = {
	    .parked = report->parked,
	    .threads = worker_threads() + OWN_THREADS,
	    .descriptors = count_descriptors(),
	    .left_out = report->left_out,
	};
	status_log_totals(&moment);
	*report = (struct worker_report){0};
	server->reports--;
}

/* Waits for what the main thread waits for, for TIMEOUT_MS at most, unless a report is to
 * be written. */
static void
wait_for_events(struct server *server, int timeout_ms)
{
	uint64_t ends;
	if (server->reports > 0)
		go_on_reporting(server);
	if (server->reports > 0)
		timeout_ms = 0;
	if (poll(server->wait, DESCRIPTORS, timeout_ms) <= 0)
		for (size_t i = 0; i < DESCRIPTORS; i++)
			server->wait[i].revents = 0;
	if (server->wait[NEWS].revents != 0)
		(void)!read(server->wait[NEWS].fd, &ends, sizeof ends);
}

/* Has connections accepted until a signal says to stop. */
static void
serve(struct server *server)
{
	bool complained = false;
	int error;
	while ((error = worker_accept()) != 0 && !is_told_to_stop(server)) {
		if (!complained)
			log_line("sniproxy: new connections wait: thread: %s",
			    strerror(error));
		complained = true;
		wait_for_events(server, RETRY_MS);
	}
	while (!is_told_to_stop(server))
		wait_for_events(server, -1);
}

/* Gives up the listening socket. What takes its place on the descriptors keeps
 * connections off them, as in open_hosts(). */
static void
stop_listening(const struct server *server)
{
	worker_stop_accepting();
	listener_give_up(server->hosts);
}

/* Learns from the environment whether each connection that ends gets a line. */
static void
read_environment(void)
{
	const char *log = getenv("SNIPROXY_LOG");
	bool logs_connections = log != NULL && strcmp(log, "connections") == 0;
	if (log != NULL && log[0] != '\0' && !logs_connections)
		fail("SNIPROXY_LOG", "the only value is connections");
	status_begin(logs_connections);
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
		if (is_told_to_stop(server))
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
	share_memory();
	/* These tell nothing that errno does not. The second is for a log in a file that
	 * has reached a limit. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (fcntl(STDERR_FILENO, F_GETFD) == -1 || listener_is(STDERR_FILENO))
		log_to_syslog();
	if (argc > 1)
		fail(argv[1],
		    "no argument is taken: the listening socket is stdin, the hosts "
		    "directory is the working directory");
	read_environment();
	const char *stdin_is = listener_check();
	if (stdin_is != NULL)
		fail_stdin(stdin_is);
	open_hosts(&server);
	/* A woken thread need not preempt the one that woke it. */
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	take_signals(&server);
	int error = listener_prepare();
	if (error != 0)
		fail("stdin", strerror(error));
	raise_open_files(&server);
	prepare_log_and_workers(&server);

	serve(&server);

	stop_listening(&server);
	unsigned cut_off = wait_for_connections(&server);
	if (cut_off > 0)
		log_line("sniproxy: stopped; %u connections were cut off", cut_off);
	if (cut_off > 0 && status_logs_connections())
		worker_cut_off();
	log_flush();
	/* Threads may still run: nothing of theirs may be torn down by exit(3). */
	if (cut_off > 0)
		_exit(EXIT_FAILURE);
	return EXIT_SUCCESS;
}

/* sniproxy: lets many TLS services share one address and port. Standard input is the listening TCP
 * socket; the working directory is the hosts directory. See README.md.
 *
 * The main thread accepts connections. Each is served by a thread of its own: proxy.c. */
#include "lib/backend.h"
#include "lib/capacity.h"
#include "lib/clock.h"
#include "lib/idle.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/network.h"
#include "lib/relay.h"
#include "lib/status.h"
#include "lib/table.h"
#include "lib/thread.h"
#include "proxy.h"
#include "system/sandbox.h"
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum {
	/* Maximum time for open connections after the signal to stop. */
	GRACE_MS = 10 * 1000,

	/* Maximum number of connections accepted before the main thread does anything else. */
	ACCEPT_MAX = 64,

	/* Maximum wait of the main thread: normally; during a shortage or while stopping. */
	LOOK_MS = 500,
	SHORT_MS = 2,

	/* Delay before the next accept(2) if it failed for a reason other than a shortage. */
	ACCEPT_FAILED_MS = 250,

	/* Minimum interval between log lines on shortages. */
	COMPLAINT_INTERVAL_MS = 10 * 1000,
};

/* Signals received. */
static volatile sig_atomic_t stops, reports_wanted;

struct server {
	int hosts;                     /* system_open_hosts() */
	struct network_list balancers; /* in front of this proxy */
	sigset_t waiting_mask;         /* the signal mask of pselect(2) */
	int64_t next_complaint_ms;     /* earliest time for a log line on a shortage */
};

static _Noreturn void
fail(const char *what, const char *why)
{
	log_line(LOG_PROGRAM, "sniproxy: %s: %s", what, why);
	log_flush();
	exit(EXIT_FAILURE);
}

/* --- Signals --- */

static void
take_signal(int signal)
{
	if (signal == SIGUSR1)
		reports_wanted = 1;
	else
		stops++;
}

/* Installs the handlers. Signals are blocked except while the main thread waits. */
static void
take_signals(struct server *server)
{
	const int signals[] = {SIGHUP, SIGTERM, SIGUSR1};
	const struct sigaction action = {.sa_handler = take_signal};
	pthread_sigmask(SIG_SETMASK, NULL, &server->waiting_mask);
	sigset_t blocked = server->waiting_mask;
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		sigaddset(&blocked, signals[i]);
		sigdelset(&server->waiting_mask, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &blocked, NULL);
}

/* Waits up to MS milliseconds for a signal or, if ACCEPTS, a connection. Returns whether a
 * connection may be pending. */
static bool
wait_for_events(const struct server *server, bool accepts, int ms)
{
	const struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
	fd_set listener;
	sigset_t blocked;
	FD_ZERO(&listener);
	FD_SET(STDIN_FILENO, &listener);
	int ready = pselect(
	    accepts ? STDIN_FILENO + 1 : 0, &listener, NULL, NULL, &time, &server->waiting_mask);
	if (ready > 0) { /* pselect(2) delivers no signals then */
		pthread_sigmask(SIG_SETMASK, &server->waiting_mask, &blocked);
		pthread_sigmask(SIG_SETMASK, &blocked, NULL);
	}
	return ready > 0 && stops == 0;
}

/* --- Start --- */

/* Opens the hosts directory; on descriptors 1 and 2 too, if they are closed. Otherwise these could
 * become clients' sockets, and clients would receive what is written to them. */
static void
open_hosts(struct server *server)
{
	do {
		server->hosts = system_open_hosts();
		if (server->hosts == -1)
			fail("working directory", strerror(errno));
	} while (server->hosts <= STDERR_FILENO);
}

/* Logs which sandbox layers are in ENTERED, and which are missing. */
static void
log_sandbox(unsigned entered)
{
	static const char *const names[] = {"no_new_privs", "Landlock files", "Landlock TCP",
	    "Landlock scopes", "seccomp"}; /* in the order of enum sandbox_layer */
	char lists[2][128] = {"", ""};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *list = lists[(entered >> i & 1) == 0];
		size_t length = strlen(list);
		snprintf(list + length, sizeof lists[0] - length, ", %s", names[i]);
	}
	log_line(LOG_PROGRAM, "sniproxy: sandbox: %s%s%s", entered == 0 ? "none" : lists[0] + 2,
	    lists[1][0] != '\0' ? "; missing: " : "", lists[1][0] != '\0' ? lists[1] + 2 : "");
}

/* Reads SNIPROXY_LOG, and SNIPROXY_ACCEPT_PROXY: the networks whose connections must begin with a
 * PROXY header. */
static void
read_environment(struct server *server)
{
	const char *log = getenv("SNIPROXY_LOG"), *networks = getenv("SNIPROXY_ACCEPT_PROXY");
	char why[NETWORK_WHY_SIZE];
	bool logs_connections = log != NULL && strcmp(log, "connections") == 0;
	if (log != NULL && log[0] != '\0' && !logs_connections)
		fail("SNIPROXY_LOG", "the only value is connections");
	status_begin(logs_connections);
	if (networks != NULL && networks[0] != '\0' &&
	    !network_read_list(&server->balancers, networks, why))
		fail("SNIPROXY_ACCEPT_PROXY", why);
}

static void
start(void *(*run)(void *))
{
	int error = thread_start(run, NULL);
	if (error != 0)
		fail("thread", strerror(error));
}

/* Prepares what connections need; enters the sandbox; starts the first threads, which are inside
 * it. */
static void
prepare(struct server *server)
{
	if (!system_watch_open())
		fail(system_watch_call, strerror(errno));
	const struct capacity capacity = capacity_find();
	if (capacity.connections == 0)
		fail("limit on open files", "too low for even one connection");
	table_prepare(capacity.connections);
	relay_prepare(capacity.pipes, proxy_quiet_ms);
	proxy_prepare(server->hosts, server->balancers, capacity.hellos);
	thread_prepare(capacity.threads, proxy_serve);
	bool is_root = geteuid() == 0;
	unsigned layers = sandbox_enter(SANDBOX_ALL);
	start(log_run);
	log_open();
	start(idle_run);
	log_line(LOG_PROGRAM, "sniproxy: at most %u connections, %u threads (memory %llu MiB)",
	    capacity.connections, capacity.threads,
	    (unsigned long long)capacity.memory / 1024 / 1024);
	log_sandbox(layers);
	if (is_root)
		log_line(LOG_PROGRAM,
		    "sniproxy: running as root is unnecessary: start it as an "
		    "unprivileged user of its own");
}

/* --- Accepting --- */

/* Leaves connections in the listen backlog for MS milliseconds, because of WHAT, and WHY. Logs that
 * from time to time, unless evicted connections are about to free their slots. */
static void
pause_accepting(struct server *server, int ms, const char *what, const char *why)
{
	int64_t now_ms = clock_ms();
	struct table_counts counts = table_count();
	if (counts.leaving == 0 && now_ms >= server->next_complaint_ms) {
		server->next_complaint_ms = now_ms + COMPLAINT_INTERVAL_MS;
		log_line(LOG_PROGRAM, "sniproxy: new connections wait while %u are open: %s: %s",
		    counts.open, what, why);
	}
	wait_for_events(server, false, ms);
}

/* Evicts a connection because of SHORTAGE. Returns whether there was one to evict. */
static bool
evict(enum table_shortage shortage)
{
	bool is_taken;
	struct connection *victim = table_evict(shortage, &is_taken);
	if (victim != NULL && is_taken)
		proxy_end_evicted(victim);
	return victim != NULL;
}

/* Handles ERROR of accept(2). EINTR is caused only by SIGSTOP and SIGCONT. */
static void
handle_failure(struct server *server, int error)
{
	if (error == EAGAIN || error == ECONNABORTED || error == EINTR)
		return;
	bool is_short = backend_is_short(error);
	if (is_short)
		evict(TABLE_SLOTS);
	pause_accepting(server, is_short ? SHORT_MS : ACCEPT_FAILED_MS, "accept", strerror(error));
}

/* Makes sure that a slot and a thread are free for one more connection; evicts others if few are.
 * Returns whether both are free; if not, it has waited for SHORT_MS. */
static bool
make_room(struct server *server)
{
	while (table_is_short() && evict(TABLE_SLOTS))
		;
	if (thread_is_short() && table_count().leaving == 0)
		evict(TABLE_THREADS);
	if (table_is_full()) {
		pause_accepting(server, SHORT_MS, "slots", "all are in use");
		return false;
	}
	int error = thread_ensure();
	if (error != 0)
		pause_accepting(server, SHORT_MS, "thread", strerror(error));
	return error == 0;
}

/* Accepts up to ACCEPT_MAX connections, until none arrives in time or make_room() fails. */
static void
accept_connections(struct server *server)
{
	for (int i = 0; i < ACCEPT_MAX && make_room(server); i++) {
		union address peer;
		int client = listener_accept(&peer);
		if (client == -1) {
			handle_failure(server, errno);
			return;
		}
		proxy_accept(client, &peer);
	}
}

/* Runs one iteration of the main loop. */
static void
turn(struct server *server, bool accepts)
{
	log_count_left_out();
	if (reports_wanted) {
		reports_wanted = 0;
		status_report();
	}
	/* A connection may wait for a thread until another one is evicted. */
	if (thread_count().waiting > 0 && !make_room(server))
		return;
	if (wait_for_events(server, accepts, accepts ? LOOK_MS : SHORT_MS))
		accept_connections(server);
}

/* --- Stop --- */

/* Waits until all connections have ended, the grace time is over, or a second signal arrives.
 * Returns how many are left. */
static unsigned
wait_for_connections(struct server *server)
{
	int64_t end_ms = clock_ms() + GRACE_MS;
	while (table_count().open > 0 && stops == 1 && clock_ms() < end_ms)
		turn(server, false);
	return table_count().open;
}

/* Closes the listening socket and waits for open connections. Returns the exit status. */
static int
stop(struct server *server)
{
	/* Other processes may go on using the socket. The hosts directory replaces it, so that no
	 * connection gets its descriptor. */
	dup2(server->hosts, STDIN_FILENO);
	unsigned cut_off = wait_for_connections(server);
	if (cut_off > 0) {
		log_line(LOG_PROGRAM, "sniproxy: stopped; %u connections were cut off", cut_off);
		table_end_all(status_ended);
	}
	log_flush();
	/* Threads may still run, and exit(3) would free what they use. */
	if (cut_off > 0)
		_exit(EXIT_FAILURE);
	return EXIT_SUCCESS;
}

int
main(int argc, char *argv[])
{
	struct server server = {0};
	system_share_memory();
	/* Failed calls set errno instead. SIGXFSZ is for a log file that has reached its limit. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* If stdout is a listening socket, dprintf(3) fails at once. */
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return dprintf(STDOUT_FILENO, "sniproxy " VERSION "\n") < 0;
	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return dprintf(STDOUT_FILENO,
			   "stdin is the listening TCP socket, as from systemd, inetd or s6\n"
			   "the working directory is the hosts directory: NAME/tls-socket\n") < 0;
	if (fcntl(STDERR_FILENO, F_GETFD) == -1 || listener_is(STDERR_FILENO))
		log_to_syslog();
	if (argc > 1)
		fail(argv[1],
		    "no argument is taken: the listening socket is stdin, the hosts "
		    "directory is the working directory");
	read_environment(&server);
	const char *stdin_is = listener_check();
	if (stdin_is != NULL) {
		log_line(LOG_PROGRAM,
		    "sniproxy: stdin %s; it must be a listening TCP socket, as from "
		    "systemd, inetd or s6",
		    stdin_is);
		return EXIT_FAILURE;
	}
	if (!listener_prepare())
		fail("stdin", strerror(errno));
	open_hosts(&server);
	system_schedule_batch();
	take_signals(&server);
	prepare(&server);

	while (stops == 0)
		turn(&server, true);
	return stop(&server);
}

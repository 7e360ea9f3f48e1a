/* sniproxy: lets many TLS services share one address and port. It is given a listening
 * TCP socket as descriptor 0 and the hosts directory as its working directory; see
 * README.md. */
#include "accept.h"
#include "clock.h"
#include "deadline.h"
#include "limits.h"
#include "listener.h"
#include "log.h"
#include "lot.h"
#include "network.h"
#include "pressure.h"
#include "proxy.h"
#include "registry.h"
#include "relay.h"
#include "sandbox.h"
#include "status.h"
#include "system.h"
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum {
	/* How long connections may go on after the signal to stop. */
	GRACE_MS = 10 * 1000,

	/* When to look again for a thread where there is none. */
	AGAIN_MS = 5,
};

/* Signals that have come. */
static volatile sig_atomic_t stops, reports_wanted;

struct server {
	int hosts;             /* system_open_directory() */
	sigset_t waiting_mask; /* of signals, while waiting for them */
	unsigned connections_max;
	bool is_reporting;
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

/* Opens the hosts directory. Descriptors 1 and 2, where they are closed, become it too:
 * nothing can be written there, whereas what is written to a client's socket would be
 * sent. */
static void
open_hosts(struct server *server)
{
	do {
		server->hosts = system_open_directory();
		if (server->hosts == -1)
			fail("working directory", strerror(errno));
	} while (server->hosts <= STDERR_FILENO);
}

static void
take_signal(int signal)
{
	if (signal == SIGUSR1)
		reports_wanted = 1;
	else
		stops++;
}

/* Signals come only while the main thread waits for them. */
static void
take_signals(struct server *server)
{
	const int signals[] = {SIGHUP, SIGTERM, SIGUSR1, SIGUSR2};
	const struct sigaction action = {.sa_handler = take_signal};
	sigset_t blocked;
	sigemptyset(&blocked);
	thread_prepare(); /* SIGUSR2 */
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		sigaddset(&blocked, signals[i]);
		if (signals[i] != SIGUSR2)
			sigaction(signals[i], &action, NULL);
	}
	pthread_sigmask(SIG_BLOCK, &blocked, &server->waiting_mask);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigdelset(&server->waiting_mask, signals[i]);
}

/* Logs which of all walls are among those RAISED. */
static void
log_sandbox(unsigned raised)
{
	static const struct {
		enum sandbox_wall wall;
		const char *name;
	} walls[] = {
	    {SANDBOX_NO_NEW_PRIVS, "no_new_privs"},
	    {SANDBOX_FILES, "Landlock files"},
	    {SANDBOX_TCP, "Landlock TCP"},
	    {SANDBOX_SCOPES, "Landlock scopes"},
	    {SANDBOX_CALLS, "seccomp"},
	};
	char stand[128] = "", missing[128] = "";
	for (size_t i = 0; i < sizeof walls / sizeof *walls; i++) {
		char *list = (raised & walls[i].wall) != 0 ? stand : missing;
		size_t length = strlen(list);
		snprintf(list + length, sizeof stand - length, "%s%s",
		    length > 0 ? ", " : "", walls[i].name);
	}
	if (missing[0] == '\0')
		log_notice("sniproxy: sandbox: %s", stand);
	else if (stand[0] == '\0')
		log_notice("sniproxy: no sandbox");
	else
		log_notice("sniproxy: sandbox: %s; missing: %s", stand, missing);
}

static void
prepare_log_and_threads(struct server *server)
{
	if (!lot_open())
		fail(lot_open_call, strerror(errno));
	const struct limits limits = limits_find();
	if (limits.connections == 0)
		fail("limit on open files", "too low for even one connection");
	bool is_root = geteuid() == 0;
	/* From here on nothing is opened. Threads that there were already would be outside. */
	unsigned walls = sandbox_enter(SANDBOX_ALL);
	int error = log_open();
	if (error != 0)
		fail("thread", strerror(error));
	log_sandbox(walls);
	if (is_root)
		log_notice("sniproxy: runs as root, and has no use for that: start it as "
			   "a user of its own");
	server->connections_max = limits.connections;
	registry_init(limits.connections);
	pressure_init(limits.connections);
	accept_prepare(limits.connections);
	relay_prepare(limits.free_threads, limits.pipes);
	proxy_prepare(server->hosts, limits.free_threads, limits.threads);
}

/* --- Waiting --- */

/* Goes on with the report that was asked for. One that has begun does not tell all of what is when
 * one more is asked for, so that has another one begin. */
static void
go_on_reporting(struct server *server)
{
	if (!server->is_reporting) {
		reports_wanted = 0;
		status_begin_report();
	}
	server->is_reporting = status_go_on_reporting();
}

static int64_t
earlier(int64_t a_ms, int64_t b_ms)
{
	return a_ms < b_ms ? a_ms : b_ms;
}

/* pselect(2) takes none where there is a connection already, as there may be for ever. */
static void
let_signals_in(const struct server *server)
{
	sigset_t blocked;
	pthread_sigmask(SIG_SETMASK, &server->waiting_mask, &blocked);
	pthread_sigmask(SIG_SETMASK, &blocked, NULL);
}

/* Does what is due, and waits for what comes next, until END_MS at the latest. Returns whether
 * there may be connections to accept, where it ACCEPTS any. */
static bool
wait_for_events(struct server *server, bool accepts, int64_t end_ms)
{
	int64_t next_look_ms = deadline_look();
	accept_calm_down();
	if (server->is_reporting || reports_wanted)
		go_on_reporting(server);
	bool has_thread = accept_ensure_thread();
	int64_t now_ms = clock_ms();
	bool is_short = now_ms < accept_again_ms();
	end_ms = earlier(end_ms, next_look_ms);
	if (server->is_reporting || reports_wanted)
		end_ms = now_ms;
	if (!has_thread)
		end_ms = earlier(end_ms, now_ms + AGAIN_MS);
	if (is_short && accepts)
		end_ms = earlier(end_ms, accept_again_ms());

	int64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
	struct timespec left = {left_ms / 1000, (long)(left_ms % 1000) * 1000000};
	fd_set listener;
	FD_ZERO(&listener);
	FD_SET(STDIN_FILENO, &listener);
	int descriptors = accepts && !is_short && has_thread ? STDIN_FILENO + 1 : 0;
	int ready = pselect(descriptors, &listener, NULL, NULL,
	    end_ms == INT64_MAX ? NULL : &left, &server->waiting_mask);
	if (ready > 0)
		let_signals_in(server);
	if (ready == -1) /* a connection may have ended */
		accept_soon();
	return ready > 0 && stops == 0;
}

/* Accepts connections until a signal says to stop. */
static void
serve(struct server *server)
{
	while (stops == 0)
		if (wait_for_events(server, true, INT64_MAX))
			accept_connections();
}

/* --- Start and end --- */

/* Learns from the environment from which addresses connections begin with a PROXY header. */
static void
read_balancers(void)
{
	struct network_list balancers;
	const char *wrong, *value = getenv("SNIPROXY_ACCEPT_PROXY");
	if (value == NULL || value[0] == '\0')
		return;
	char *text = strdup(value);
	if (text == NULL)
		fail("SNIPROXY_ACCEPT_PROXY", strerror(ENOMEM));
	if (!network_read_list(&balancers, text, &wrong)) {
		if (wrong == NULL)
			fail("SNIPROXY_ACCEPT_PROXY", strerror(ENOMEM));
		log_line("sniproxy: SNIPROXY_ACCEPT_PROXY: neither an address nor a "
			 "network: '%s'",
		    wrong);
		exit(EXIT_FAILURE);
	}
	free(text);
	proxy_await_headers(balancers);
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
	read_balancers();
}

/* Waits for the open connections, until the grace or a second signal ends it. Returns how
 * many are left. */
static unsigned
wait_for_connections(struct server *server)
{
	int64_t end_ms = clock_ms() + GRACE_MS;
	for (;;) {
		registry_lock();
		unsigned left = registry_unfinished();
		registry_tell_of_room(server->connections_max);
		registry_unlock();
		if (left == 0 || stops > 1 || clock_left_ms(end_ms) == 0)
			return left;
		wait_for_events(server, false, end_ms);
	}
}

/* Logs a line for each connection that is open, as one that is cut off, and keeps the lock, so that
 * none ends any more. */
static void
cut_off_connections(void)
{
	registry_lock();
	for (struct connection *c = registry_next(NULL); c != NULL; c = registry_next(c))
		status_ended(c, END_CUT_OFF);
}

/* Ends what is still open, and returns with which status. */
static int
stop(struct server *server)
{
	/* What takes its place on the descriptors keeps connections off them, as in
	 * open_hosts(). */
	listener_give_up(server->hosts);
	unsigned cut_off = wait_for_connections(server);
	registry_lock();
	bool are_left = registry_connections() > 0;
	registry_unlock();
	if (cut_off > 0) {
		log_line("sniproxy: stopped; %u connections were cut off", cut_off);
		cut_off_connections();
	}
	log_flush();
	/* Threads may still run, or be stuck: nothing of theirs may be torn down by exit(3). */
	if (cut_off > 0 || are_left)
		_exit(cut_off > 0 ? EXIT_FAILURE : EXIT_SUCCESS);
	return EXIT_SUCCESS;
}

int
main(int argc, char *argv[])
{
	struct server server = {0};
	system_share_memory();
	/* These tell nothing that errno does not. The second is for a log in a file that
	 * has reached a limit. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* Where stdout is a listening socket, that fails at once. */
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return dprintf(STDOUT_FILENO, "sniproxy " VERSION "\n") < 0;
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
	system_work_in_batches(true);
	take_signals(&server);
	int error = listener_prepare();
	if (error != 0)
		fail("stdin", strerror(error));
	prepare_log_and_threads(&server);

	serve(&server);
	return stop(&server);
}

/* sniproxy: lets many TLS services share one address and port. It is given a listening
 * TCP socket as descriptor 0 and the hosts directory as its working directory; see
 * README.md. */
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "lot.h"
#include "pressure.h"
#include "proxy.h"
#include "relay.h"
#include "status.h"
#include "thread.h"

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
#include <sys/sysinfo.h>
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

	/* For so much memory there may be a thread, which takes an eighth of that at most: its
	 * stack, what the kernel keeps for it, and some for what it works with. */
	MEMORY_A_THREAD = 1024 * 1024,
	THREADS_MIN = 16,

	/* Under pressure, it is worth to be woken for one in so many of all places. */
	PLACES_A_TIME = 32,

	/* How many connections are accepted before anything else is looked at. */
	ACCEPT_MAX = 64,

	/* When to accept again where somebody may soon give way, and after a shortage if no
	 * connection ends before that. */
	AGAIN_MS = 5,
	RETRY_MS = 250,

	/* A shortage that comes and goes is logged this often at most. */
	COMPLAINT_INTERVAL_MS = 10 * 1000,

	/* How long to write at a stretch about open connections. */
	REPORT_MS = 50,

	/* What the log and the lot open. */
	OWN_DESCRIPTORS = 2,

	/* The main thread and the log's. */
	OWN_THREADS = 2,

	/* Whoever started the program may have left it descriptors below this, besides 0
	 * to 2. */
	INHERITED_MAX = 1024,
};

/* Signals that have come. */
static volatile sig_atomic_t stops, reports_wanted;

struct server {
	int hosts;             /* the hosts directory, O_PATH */
	sigset_t waiting_mask; /* of signals, while waiting for them */
	unsigned connections_max;
	int64_t accept_ms;         /* when to accept again; 0 where nothing is short */
	int64_t next_complaint_ms; /* when a shortage is worth a log line again */
	unsigned report;           /* the number of the report that is being written */
	unsigned parked, left_out; /* what it has found so far */
	bool is_reporting;
	bool hurries;
	bool lacks_thread; /* one that is free could not be had when it was last looked */
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

static unsigned
count_processors(void)
{
	cpu_set_t processors;
	if (sched_getaffinity(0, sizeof processors, &processors) == -1)
		return 1;
	return (unsigned)CPU_COUNT(&processors);
}

/* How many threads there may be. */
static unsigned
count_threads(void)
{
	struct sysinfo info;
	if (sysinfo(&info) == -1)
		return THREADS_MIN;
	uint64_t threads = (uint64_t)info.totalram * info.mem_unit / MEMORY_A_THREAD;
	return threads < THREADS_MIN ? THREADS_MIN : (unsigned)threads;
}

static void
prepare_log_and_lot(const struct server *server, unsigned pipes_max)
{
	int error = log_open();
	if (error != 0)
		fail("thread", strerror(error));
	/* Two at least: one that is slow does not hold up all, and a connection has two ways. */
	unsigned processors = count_processors();
	unsigned threads = processors > 2 ? processors : 2;
	if (!relay_open(threads, pipes_max))
		fail("epoll_create1", strerror(errno));
	pressure_init(server->connections_max);
	lot_prepare(server->hosts, threads, count_threads());
}

/* Raises the soft limit on open files to the hard one, and counts the connections that
 * fit: whoever is accepted must also get a backend. Returns for how many pipes there is room
 * besides. */
static unsigned
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
	if (pipes > PIPES_MAX)
		pipes = PIPES_MAX;
	used += 2 * pipes;
	rlim_t connections = (files.rlim_cur - used) / DESCRIPTORS_A_CONNECTION;
	if (files.rlim_cur < used + DESCRIPTORS_A_CONNECTION)
		fail("limit on open files", "too low for even one connection");
	server->connections_max =
	    connections < CONNECTIONS_MAX ? (unsigned)connections : CONNECTIONS_MAX;
	return (unsigned)pipes;
}

/* --- Accepting --- */

static void
complain(struct server *server, const char *what, int error)
{
	int64_t now_ms = clock_ms();
	if (now_ms < server->next_complaint_ms)
		return;
	server->next_complaint_ms = now_ms + COMPLAINT_INTERVAL_MS;
	log_line("sniproxy: new connections wait while %u are open: %s: %s",
	    pressure_connections(), what, strerror(error));
}

/* Has this thread preempt others when it wakes, which it better does not (main()), unless there is
 * a HURRY. */
static void
hurry(struct server *server, bool hurries)
{
	if (hurries != server->hurries)
		sched_setscheduler(
		    0, hurries ? SCHED_OTHER : SCHED_BATCH, &(struct sched_param){0});
	server->hurries = hurries;
}

/* Leaves new connections in the listen backlog until a connection ends, or for some time, after
 * somebody was asked to give way to them. WHAT was short. */
static void
make_way(struct server *server, const char *what, int error)
{
	int waiting = listener_waiting();
	hurry(server, true);
	pressure_lock();
	enum pressure_result result = pressure_make_way(waiting, false, clock_ms());
	pressure_tell_of_room(1 + server->connections_max / PLACES_A_TIME);
	pressure_unlock();
	if (result == PRESSURE_NOBODY)
		complain(server, what, error);
	server->accept_ms =
	    clock_ms() + (result == PRESSURE_NOBODY ? RETRY_MS : AGAIN_MS);
}

/* What to do where accept(2) has failed with ERROR. */
static void
bear_failure(struct server *server, int error)
{
	if (error == EAGAIN || error == ECONNABORTED || error == EINTR)
		return;
	if (backend_is_short(error)) {
		make_way(server, "accept", error);
		return;
	}
	complain(server, "accept", error);
	server->accept_ms = clock_ms() + RETRY_MS;
}

/* Accepts connections, as long as there is room. */
static void
accept_connections(struct server *server)
{
	server->accept_ms = 0;
	for (int i = 0; i < ACCEPT_MAX; i++) {
		union address peer;
		pressure_lock();
		bool has_room = pressure_has_room();
		pressure_unlock();
		if (!has_room) {
			make_way(server, "limit", EMFILE);
			return;
		}
		int client = listener_accept(&peer);
		if (client == -1) {
			bear_failure(server, errno);
			return;
		}
		proxy_begin(client, &peer);
	}
}

/* Sees to it that a thread waits at the lot; where none can be had, that one who keeps a thread
 * without progress gives way. */
static bool
ensure_thread(struct server *server)
{
	int error = thread_pool_ensure();
	bool has_failed = server->lacks_thread;
	server->lacks_thread = error != 0;
	if (error == 0)
		return true;
	/* Once is no shortage; nor is it one where there is nothing to do. */
	int waiting = listener_waiting();
	if (!has_failed || (waiting == 0 && !relay_has_work()))
		return false;
	pressure_lock();
	enum pressure_result result = pressure_make_way(waiting, true, clock_ms());
	pressure_unlock();
	if (result == PRESSURE_NOBODY)
		complain(server, "thread", error);
	return false;
}

/* --- Waiting --- */

/* How many descriptors are open. The kernel hands out the lowest ones, so that none is
 * above what was ever needed at once. */
static unsigned
count_descriptors(void)
{
	unsigned count = 0,
		 end = INHERITED_MAX + 2 * PIPES_MAX +
	    DESCRIPTORS_A_CONNECTION * pressure_connections_peak();
	for (unsigned descriptor = 0; descriptor < end; descriptor++)
		count += fcntl((int)descriptor, F_GETFD) != -1;
	return count;
}

/* Goes on with the report that was asked for, for a moment. What has begun does not tell all of
 * what is when one more is asked for, so that has another one begin. */
static void
go_on_reporting(struct server *server)
{
	int64_t end_ms = clock_ms() + REPORT_MS;
	if (!server->is_reporting) {
		reports_wanted = 0;
		server->report++;
		server->parked = server->left_out = 0;
	}
	server->is_reporting = true;
	while (proxy_report(server->report, &server->parked, &server->left_out))
		if (clock_ms() >= end_ms)
			return;
	server->is_reporting = false;
	const struct status_moment moment = {
	    .parked = server->parked,
	    .threads = thread_pool_size() + OWN_THREADS,
	    .descriptors = count_descriptors(),
	    .left_out = server->left_out,
	};
	status_log_totals(&moment);
}

static int64_t
earlier(int64_t a_ms, int64_t b_ms)
{
	return a_ms < b_ms ? a_ms : b_ms;
}

/* Does what is due, and waits for what comes next, until END_MS at the latest. Returns whether
 * there may be connections to accept, where it ACCEPTS any. */
static bool
wait_for_events(struct server *server, bool accepts, int64_t end_ms)
{
	int64_t next_look_ms = proxy_look();
	if (server->hurries)
		hurry(server, pressure_is_on());
	if (server->is_reporting || reports_wanted)
		go_on_reporting(server);
	bool has_thread = ensure_thread(server);
	int64_t now_ms = clock_ms();
	bool is_short = now_ms < server->accept_ms;
	end_ms = earlier(end_ms, next_look_ms);
	if (server->is_reporting || reports_wanted)
		end_ms = now_ms;
	if (!has_thread)
		end_ms = earlier(end_ms, now_ms + AGAIN_MS);
	if (is_short && accepts)
		end_ms = earlier(end_ms, server->accept_ms);

	int64_t left_ms = end_ms > now_ms ? end_ms - now_ms : 0;
	struct timespec left = {left_ms / 1000, left_ms % 1000 * 1000000};
	struct pollfd listener = {.fd = STDIN_FILENO, .events = POLLIN};
	if (!accepts || is_short || !has_thread)
		listener.fd = -1;
	int ready = ppoll(
	    &listener, 1, end_ms == INT64_MAX ? NULL : &left, &server->waiting_mask);
	if (ready == -1) /* a connection may have ended */
		server->accept_ms = 0;
	return ready > 0;
}

/* Accepts connections until a signal says to stop. */
static void
serve(struct server *server)
{
	while (stops == 0)
		if (wait_for_events(server, true, INT64_MAX))
			accept_connections(server);
}

/* --- Start and end --- */

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
	int64_t end_ms = clock_ms() + GRACE_MS;
	for (;;) {
		pressure_lock();
		unsigned left = pressure_connections();
		pressure_tell_of_room(server->connections_max);
		pressure_unlock();
		if (left == 0 || stops > 1 || clock_left_ms(end_ms) == 0)
			return left;
		wait_for_events(server, false, end_ms);
	}
}

int
main(int argc, char *argv[])
{
	struct server server = {0};
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
	unsigned pipes = raise_open_files(&server);
	prepare_log_and_lot(&server, pipes);

	serve(&server);

	/* What takes its place on the descriptors keeps connections off them, as in
	 * open_hosts(). */
	listener_give_up(server.hosts);
	unsigned cut_off = wait_for_connections(&server);
	if (cut_off > 0) {
		log_line("sniproxy: stopped; %u connections were cut off", cut_off);
		proxy_cut_off();
	}
	log_flush();
	/* Threads may still run: nothing of theirs may be torn down by exit(3). */
	if (cut_off > 0)
		_exit(EXIT_FAILURE);
	return EXIT_SUCCESS;
}

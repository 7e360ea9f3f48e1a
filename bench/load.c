/* load [-w WARM_UP] [-p PID]... ADDRESS SECONDS ROLE:COUNT[:PAUSE]...
 *
 * Puts a load on ADDRESS (a port on 127.0.0.1, or the path of a Unix socket), and prints the
 * results, a metric and its value on each line. Each role has COUNT connections:
 *
 *	connect		opens a connection, sends a hello, reads the answer, closes, again
 *	echo		sends 1 KiB, waits until it has come back, pauses for PAUSE
 *			milliseconds (0 if not given), again
 *	idle		one echo, then nothing
 *	download	reads as much as it gets
 *	upload		sends as much as it can
 *
 * After WARM_UP seconds it counts for SECONDS seconds. If SECONDS is "-", it prints "ready" when
 * all connections are open, and continues until its input ends. PIDs are the processes of the
 * proxy: their CPU time is measured too.
 *
 * Metrics: ROLE.rate (operations or gigabytes a second), ROLE.p50 and ROLE.p99 (latency
 * in microseconds), ROLE.cpu (the proxy's CPU time in microseconds an operation or
 * milliseconds a gigabyte, if there is one role), ROLE.errors (connections that failed).
 *
 * Each role is a thread with an epoll set, so that no role delays another. An upload is sent
 * without a copy, which would hide the proxy's. */
#include "bench/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MESSAGE_SIZE = 1024,       /* of an echo */
	BUFFER_SIZE = 1024 * 1024, /* of bulk */
	EVENTS = 64,
	SAMPLES_MAX = 4 * 1024 * 1024, /* pages that are not needed are never touched */
	ERRORS_MAX = 1000,
	ROLES_MAX = 4,
	PIDS_MAX = 64,
	LOOK_UP_MS = 100, /* how often a thread checks whether it is over */
};

static const int64_t SECOND = 1000000000;
static const int64_t MILLISECOND = 1000000;

struct connection {
	int socket;
	enum { CONNECTING, WAITING } state;
	size_t received; /* bytes received of those expected */
	int64_t began;   /* when this operation began */
	int64_t due;     /* when the next one begins, in the queue */
	STAILQ_ENTRY(connection) next;
};

STAILQ_HEAD(queue, connection);

struct role {
	const struct kind *kind;
	unsigned count;
	int64_t pause;
	struct connection *connections;
	int set;             /* epoll */
	struct queue paused; /* ordered by when they are due */
	char *buffer;
	pthread_t thread;

	uint64_t done;     /* operations or bytes */
	uint32_t *samples; /* latencies in nanoseconds, as many as SAMPLES_MAX allows */
	size_t sample_count;
	unsigned errors;
};

/* What all roles have. */
struct kind {
	const char *name;
	void (*open)(struct role *, struct connection *);
	void (*serve)(struct role *, struct connection *);
	bool bulk; /* counts bytes, not operations */
};

static int bulk; /* a file of BUFFER_SIZE bytes in memory, which is sent without a copy */

/* What ends in this time counts. */
static int64_t window_start;
static atomic_int_least64_t window_end;

static bool
is_over(int64_t now)
{
	return now >= atomic_load_explicit(&window_end, memory_order_relaxed);
}

static void
tally(struct role *role, uint64_t amount, int64_t began)
{
	int64_t now = clock_ns();
	if (now < window_start || is_over(now))
		return;
	role->done += amount;
	if (!role->kind->bulk && role->sample_count < SAMPLES_MAX) {
		int64_t latency = now - began;
		role->samples[role->sample_count++] =
		    latency < UINT32_MAX ? (uint32_t)latency : UINT32_MAX;
	}
}

static void
watch(const struct role *role, int operation, struct connection *c, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = c};
	if (epoll_ctl(role->set, operation, c->socket, &event) == -1)
		fail("epoll_ctl");
}

/* connect */

static void
open_anew(struct role *role, struct connection *c)
{
	c->began = clock_ns();
	c->state = CONNECTING;
	c->received = 0;
	c->socket = client_connect();
	if (c->socket == -1)
		fail("connect");
	watch(role, EPOLL_CTL_ADD, c, EPOLLOUT);
}

static void
note_error(struct role *role)
{
	if (++role->errors == ERRORS_MAX)
		fail("connect: too many errors, the last");
}

static void
serve_connect(struct role *role, struct connection *c)
{
	if (c->state == CONNECTING && client_hello(c->socket, TASK_ANSWER)) {
		c->state = WAITING;
		watch(role, EPOLL_CTL_MOD, c, EPOLLIN);
		return;
	}
	ssize_t n = -1;
	if (c->state == WAITING)
		n = recv(c->socket, role->buffer, BUFFER_SIZE, 0);
	if (n > 0 && (c->received += (size_t)n) < ANSWER_SIZE)
		return;
	if (n > 0)
		tally(role, 1, c->began);
	else
		note_error(role);
	close(c->socket);
	open_anew(role, c);
}

/* Common to the other roles: connections that stay. */

/* Connects, and sends a hello. At its end the connection is reset, so that it leaves no trace that
 * would change the next measurement. */
static void
open_lasting(struct connection *c, enum task task)
{
	const struct linger reset = {.l_onoff = 1};
	c->socket = client_connect();
	if (c->socket == -1 || !client_wait(c->socket, POLLOUT) || !client_hello(c->socket, task))
		fail("connect");
	setsockopt(c->socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

/* echo, idle */

static void
send_message(struct role *role, struct connection *c)
{
	c->began = clock_ns();
	c->received = 0;
	if (send(c->socket, role->buffer, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE)
		fail("echo: send");
}

/* Makes C pause; EXTRA is added to the pause. */
static void
pause_for(struct role *role, struct connection *c, int64_t extra)
{
	c->due = clock_ns() + role->pause + extra;
	STAILQ_INSERT_TAIL(&role->paused, c, next);
}

static void
open_idle(struct role *role, struct connection *c)
{
	open_lasting(c, TASK_ECHO);
	send_message(role, c);
	if (!client_read(c->socket, MESSAGE_SIZE))
		fail("echo: first message");
	watch(role, EPOLL_CTL_ADD, c, EPOLLIN);
}

/* The connections begin one after another, evenly over the length of a pause. */
static void
open_echo(struct role *role, struct connection *c)
{
	open_idle(role, c);
	pause_for(role, c, role->pause * (c - role->connections) / role->count);
}

static void
serve_echo(struct role *role, struct connection *c)
{
	ssize_t n = recv(c->socket, role->buffer, BUFFER_SIZE, 0);
	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		fail("echo");
	c->received += (size_t)n;
	if (c->received < MESSAGE_SIZE)
		return;
	tally(role, 1, c->began);
	if (role->pause == 0)
		send_message(role, c);
	else
		pause_for(role, c, 0);
}

static void
serve_idle(struct role *role, struct connection *c)
{
	ssize_t n = recv(c->socket, role->buffer, BUFFER_SIZE, 0);
	if (n >= 0)
		errno = n == 0 ? ECONNRESET : EBADMSG;
	fail("idle");
}

/* download, upload */

static void
open_download(struct role *role, struct connection *c)
{
	open_lasting(c, TASK_SEND);
	watch(role, EPOLL_CTL_ADD, c, EPOLLIN);
}

static void
open_upload(struct role *role, struct connection *c)
{
	open_lasting(c, TASK_TAKE);
	watch(role, EPOLL_CTL_ADD, c, EPOLLOUT);
}

static void
count_bulk(struct role *role, ssize_t n)
{
	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		fail(role->kind->name);
	tally(role, (uint64_t)n, 0);
}

static void
serve_download(struct role *role, struct connection *c)
{
	count_bulk(role, recv(c->socket, role->buffer, BUFFER_SIZE, 0));
}

static void
serve_upload(struct role *role, struct connection *c)
{
	count_bulk(role, sendfile(c->socket, bulk, &(off_t){0}, BUFFER_SIZE));
}

static const struct kind kinds[] = {
    {"connect", open_anew, serve_connect, false},
    {"echo", open_echo, serve_echo, false},
    {"idle", open_idle, serve_idle, false},
    {"download", open_download, serve_download, true},
    {"upload", open_upload, serve_upload, true},
};

/* A role's thread */

/* Ends the pauses that are over. Returns the milliseconds until the next one is, as for
 * epoll_wait(2). */
static int
end_pauses(struct role *role)
{
	struct connection *first;
	while ((first = STAILQ_FIRST(&role->paused)) != NULL) {
		int64_t left = first->due - clock_ns();
		if (left > LOOK_UP_MS * MILLISECOND)
			break;
		if (left > 0)
			return (int)((left + MILLISECOND - 1) / MILLISECOND);
		STAILQ_REMOVE_HEAD(&role->paused, next);
		send_message(role, first);
	}
	return LOOK_UP_MS;
}

static void *
run(void *argument)
{
	struct role *role = argument;
	while (!is_over(clock_ns())) {
		struct epoll_event events[EVENTS];
		int ready = epoll_wait(role->set, events, EVENTS, end_pauses(role));
		for (int i = 0; i < ready; i++)
			role->kind->serve(role, events[i].data.ptr);
	}
	return NULL;
}

static void
open_role(struct role *role)
{
	role->set = epoll_create1(EPOLL_CLOEXEC);
	role->connections = calloc(role->count, sizeof *role->connections);
	role->samples = calloc(SAMPLES_MAX, sizeof *role->samples);
	role->buffer = calloc(1, BUFFER_SIZE);
	if (role->set == -1 || role->connections == NULL || role->samples == NULL ||
	    role->buffer == NULL)
		fail(role->kind->name);
	STAILQ_INIT(&role->paused);
	for (unsigned i = 0; i < role->count; i++)
		role->kind->open(role, &role->connections[i]);
}

/* What main does */

struct load {
	double warm_up;
	double seconds; /* negative: until stdin ends */
	struct role roles[ROLES_MAX];
	unsigned role_count;
	clockid_t clocks[PIDS_MAX]; /* the CPU time of the proxy's processes */
	unsigned clock_count;
};

static _Noreturn void
usage(void)
{
	fprintf(stderr,
	    "usage: load [-w WARM_UP] [-p PID]... ADDRESS SECONDS "
	    "ROLE:COUNT[:PAUSE_MS]...\n");
	exit(2);
}

/* Reads the number at *TEXT and moves *TEXT behind it. The next character must be one of AFTER, or
 * the end. */
static unsigned
parse_number(const char **text, const char *after)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(*text, &end, 10);
	if (end == *text || errno != 0 || number > INT_MAX || strchr(after, *end) == NULL)
		usage();
	*text = end;
	return (unsigned)number;
}

static struct role
parse_role(const char *text)
{
	const char *colon = strchr(text, ':');
	for (size_t i = 0; colon != NULL && i < sizeof kinds / sizeof *kinds; i++) {
		size_t length = strlen(kinds[i].name);
		if (length != (size_t)(colon - text) || strncmp(kinds[i].name, text, length) != 0)
			continue;
		struct role role = {.kind = &kinds[i]};
		const char *rest = colon + 1;
		role.count = parse_number(&rest, ":");
		if (*rest++ == ':')
			role.pause = parse_number(&rest, "") * MILLISECOND;
		if (role.count > 0)
			return role;
	}
	usage();
}

static void
add_process(struct load *load, const char *pid)
{
	const char *text = pid;
	if (load->clock_count == PIDS_MAX)
		usage();
	pid_t process = (pid_t)parse_number(&text, "");
	errno = clock_getcpuclockid(process, &load->clocks[load->clock_count++]);
	if (errno != 0)
		fail(pid);
}

static void
parse(struct load *load, int argc, char **argv)
{
	int option;
	while ((option = getopt(argc, argv, "w:p:")) != -1) {
		if (option == 'w')
			load->warm_up = strtod(optarg, NULL);
		else if (option == 'p')
			add_process(load, optarg);
		else
			usage();
	}
	if (argc - optind < 2 || argc - optind > 2 + ROLES_MAX)
		usage();
	client_init(argv[optind]);
	load->seconds = strcmp(argv[optind + 1], "-") == 0 ? -1 : strtod(argv[optind + 1], NULL);
	for (int i = optind + 2; i < argc; i++)
		load->roles[load->role_count++] = parse_role(argv[i]);
}

static void
make_bulk(void)
{
	bulk = memfd_create("bulk", MFD_CLOEXEC);
	if (bulk == -1 || ftruncate(bulk, BUFFER_SIZE) == -1)
		fail("memfd_create");
}

static void
raise_limits(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* The CPU time of the proxy's processes so far, in nanoseconds. */
static int64_t
cpu_ns(const struct load *load)
{
	int64_t sum = 0;
	for (unsigned i = 0; i < load->clock_count; i++) {
		struct timespec time;
		if (clock_gettime(load->clocks[i], &time) == -1)
			fail("the proxy has died");
		sum += time.tv_sec * SECOND + time.tv_nsec;
	}
	return sum;
}

static void
sleep_until(int64_t time)
{
	const struct timespec until = {time / SECOND, time % SECOND};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
		;
}

static void
wait_for_end(const struct load *load)
{
	if (load->seconds >= 0) {
		sleep_until(window_end);
		return;
	}
	char byte;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	window_end = clock_ns();
}

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

/* Prints the latency that FRACTION of the sorted samples do not exceed. */
static void
print_quantile(const struct role *role, const char *name, double fraction)
{
	size_t i = (size_t)(fraction * (double)(role->sample_count - 1));
	printf("%s.%s\t%.1f\n", role->kind->name, name, role->samples[i] / 1e3);
}

static void
print_role(const struct role *role, double seconds, bool alone, int64_t cpu)
{
	const char *name = role->kind->name;
	double done = (double)role->done;
	if (role->done == 0)
		return;
	printf("%s.rate\t%.3f\n", name, done / seconds / (role->kind->bulk ? 1e9 : 1));
	if (role->sample_count > 0) {
		qsort(role->samples, role->sample_count, sizeof *role->samples, compare);
		print_quantile(role, "p50", 0.5);
		print_quantile(role, "p99", 0.99);
	}
	if (alone && cpu > 0)
		printf(
		    "%s.cpu\t%.3f\n", name, (double)cpu / done * (role->kind->bulk ? 1e3 : 1e-3));
	if (role->errors > 0)
		printf("%s.errors\t%u\n", name, role->errors);
}

int
main(int argc, char **argv)
{
	static struct load load;
	parse(&load, argc, argv);
	signal(SIGPIPE, SIG_IGN); /* sendfile(2) has no MSG_NOSIGNAL */
	raise_limits();
	make_bulk();
	for (unsigned i = 0; i < load.role_count; i++)
		open_role(&load.roles[i]);

	window_start = clock_ns() + (int64_t)(load.warm_up * (double)SECOND);
	window_end = INT64_MAX;
	if (load.seconds >= 0)
		window_end = window_start + (int64_t)(load.seconds * (double)SECOND);
	for (unsigned i = 0; i < load.role_count; i++) {
		errno = pthread_create(&load.roles[i].thread, NULL, run, &load.roles[i]);
		if (errno != 0)
			fail("pthread_create");
	}
	if (load.seconds < 0)
		dprintf(STDOUT_FILENO, "ready\n");

	sleep_until(window_start);
	int64_t cpu = cpu_ns(&load);
	wait_for_end(&load);
	cpu = cpu_ns(&load) - cpu;
	double seconds = (double)(window_end - window_start) / (double)SECOND;
	for (unsigned i = 0; i < load.role_count; i++) {
		pthread_join(load.roles[i].thread, NULL);
		print_role(&load.roles[i], seconds, load.role_count == 1, cpu);
	}
	if (load.role_count == 0)
		printf("cpu\t%.6f\n", (double)cpu / (double)SECOND);
}

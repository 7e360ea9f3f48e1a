/* The most memory that any number of clients can make the proxy take: a budget limits it. What
 * exceeds the budget is rejected or read in small pieces, and others are served meanwhile. The
 * number of threads is limited too, and the memory of each. */
#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	/* In KiB: for hellos, as docs/limits.md states; for each connection besides, less than the
	 * 12 there; for the rest. A thread counts with what is in the process's own memory. */
	HELLOS_KIB = 64 * 1024,
	STACK_KIB = 48,
	CONNECTION_KIB = 9,
	REST_KIB = 16 * 1024,

	/* How much more the same load may take another time, in KiB. With a thread for each
	 * connection, also in percent: on a busy machine, the number of connections that have their
	 * stacks at the same moment varies. */
	REUSE_KIB = 4 * 1024,
	REUSE_STACKS_PERCENT = 5,
	MORE_WAVES = 3,

	/* If nothing goes on, there are fewer threads than these after some seconds. */
	THREADS_LEFT = 16,

	WORST_HELLOS = 3000,
	WORST_HELLOS_AGAIN = 300,
	FEW_WORST_HELLOS = 8,
	STALLED_DOWNLOADS = 4000,

	/* How much the kernel buffers for each of many clients, in bytes: otherwise they would take
	 * gigabytes. */
	KERNEL_BUFFER = 32 * 1024,

	/* Enough for the whole budget, which is less if there is less memory, and far less than those
	 * connections could take. */
	ADDRESS_SPACE_MIB = 640,
	GROUP_MIB = 512,

	/* So that threads are not short with one for each of the downloads. */
	DOWNLOADS_MIB = STALLED_DOWNLOADS * 5 / 4,

	/* A small machine. */
	SMALL_MIB = 64,
	SMALL_CONNECTIONS = SMALL_MIB * 1024 / 32,
	FEW_THREADS = 40,
	PAUSED_DOWNLOADS = 1200,
	HALF_HELLOS = 9000,

	/* What docs/limits.md states for a thread, of which there is one for each MiB. */
	THREAD_KIB = 128,
	THREADS = 256,
	OTHER_THREADS = 3, /* the main one, the log's, and the one that watches idle connections */
	SPARE_THREADS = 8, /* so that none is evicted meanwhile */

	/* No counter shows this: the kernel keeps a page fragment for each thread that has sent on
	 * TCP. */
	FRAGMENT_KIB = 32,

	/* The part of its stack that a thread has not used if it has only waited for a backend. */
	BUFFERS_KIB = 32,

	HONEST_PAUSE_MS = 20,
	HONEST_MIN = 20,

	/* They must be served; how soon depends on the load of the machine. */
	HONEST_PATIENCE_MS = 20 * 1000,
	EVENTS = 256,
	ALERT_SIZE = 7,
};

#define HONEST_HOST "honest.example"

static const int kernel_buffer = KERNEL_BUFFER;
static struct proxy *proxy;
static int backend;
static struct bytes worst; /* the largest hello, in records of a byte each */

/* --- Honest clients --- */

static struct service service;

static struct {
	atomic_int served;
	atomic_int failed;
	atomic_bool stop;
	pthread_t thread;
} honest;

static bool
is_served(void)
{
	char answer = 0;
	int fd = client_try_connect(NULL);
	bool served = fd >= 0 &&
	    send(fd, service.hello.data, service.hello.length, MSG_NOSIGNAL) ==
		(ssize_t)service.hello.length &&
	    readable_within(fd, HONEST_PATIENCE_MS) && read_up_to(fd, &answer, 1) == 1 &&
	    answer == service.answer;
	if (fd >= 0)
		close(fd);
	return served;
}

static void *
run_honest_clients(void *unused)
{
	(void)unused;
	while (!honest.stop) {
		if (is_served())
			honest.served++;
		else
			honest.failed++;
		poll(NULL, 0, HONEST_PAUSE_MS);
	}
	return NULL;
}

static void
start_honest_clients(void)
{
	service = (struct service){
	    .listener = backend_listen(HONEST_HOST),
	    .hello = hello_for(HONEST_HOST),
	    .answer = '!',
	};
	service_start(&service);
	check(
	    pthread_create(&honest.thread, NULL, run_honest_clients, NULL) == 0, "pthread_create");
}

static void
expect_honest_clients_served(void)
{
	wait_until(honest.served >= HONEST_MIN || honest.failed > 0, HONEST_PATIENCE_MS);
	honest.stop = true;
	pthread_join(honest.thread, NULL);
	service_stop(&service);
	check(honest.failed == 0, "%d honest clients failed, %d were served", honest.failed,
	    honest.served);
	check(service.wrong == 0, "%d hellos came otherwise", service.wrong);
}

/* --- Memory --- */

/* A number of KiB from /proc/PID/status of the proxy. */
static long
memory_kib(const char *field)
{
	char *status = proxy_proc(proxy, "status");
	const char *line = strstr(status, field);
	check(line != NULL, "the proxy has ended, or has no %s", field);
	long kib = strtol(line + strlen(field), NULL, 10);
	free(status);
	return kib;
}

/* The most memory that the proxy has had so far. */
static long
peak_kib(void)
{
	return memory_kib("VmHWM:");
}

/* Checks that the proxy never had more than BUDGET_KIB, besides what so many connections may take.
 * The sanitizers have memory of their own. */
static void
expect_within_budget(int connections, long budget_kib)
{
	long most_kib = budget_kib + REST_KIB + CONNECTION_KIB * (long)connections;
	fprintf(stderr, "[MEMORY] %d connections: %ld KiB at most, of %ld\n", connections,
	    peak_kib(), most_kib);
	if (!sanitized())
		check(peak_kib() <= most_kib, "%ld KiB in memory, not %ld at most", peak_kib(),
		    most_kib);
}

static void
limit_address_space_to(rlim_t mib)
{
	/* The sanitizers reserve terabytes. */
	struct rlimit space = {.rlim_cur = mib << 20, .rlim_max = mib << 20};
	if (!sanitized())
		setrlimit(RLIMIT_AS, &space);
}

static void
limit_address_space(void)
{
	limit_address_space_to(ADDRESS_SPACE_MIB);
}

static void
limit_address_space_for_downloads(void)
{
	limit_address_space_to(DOWNLOADS_MIB);
}

/* Fewer if everything is slower. */
static int
scaled(int count)
{
	return sanitized() ? count / 30 : count;
}

static void
start(void (*prepare)(void))
{
	server_listen("127.0.0.1");
	/* An accepted socket inherits it. */
	setsockopt(server.listener, SOL_SOCKET, SO_RCVBUF, &kernel_buffer, sizeof kernel_buffer);
	backend = backend_listen(HOST);
	proxy = proxy_start(prepare);
	worst = in_records(largest_message(), 1);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2 * STALLED_DOWNLOADS + 500)
		skip("too few descriptors");
}

/* --- Many clients at once --- */

struct member {
	int fd; /* -1 once it has ended */
	size_t sent;
	uint8_t answer[ALERT_SIZE];
	size_t answer_length;
};

static struct crowd {
	int set;
	int size;
	struct member *members;
	int left;      /* those that have neither sent everything nor ended */
	size_t length; /* how many bytes each has to send */
} crowd;

static void
crowd_connect(int size, size_t length)
{
	crowd = (struct crowd){
	    .set = epoll_create1(EPOLL_CLOEXEC),
	    .size = size,
	    .members = calloc((size_t)size, sizeof *crowd.members),
	    .left = size,
	    .length = length,
	};
	check(crowd.set >= 0 && crowd.members != NULL, "no memory for the clients");
	for (int i = 0; i < size; i++) {
		struct member *m = &crowd.members[i];
		struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = m};
		m->fd = client_connect_from("127.0.0.2"); /* no honest address */
		setsockopt(m->fd, SOL_SOCKET, SO_SNDBUF, &kernel_buffer, sizeof kernel_buffer);
		int flags = fcntl(m->fd, F_GETFL);
		check(fcntl(m->fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
			epoll_ctl(crowd.set, EPOLL_CTL_ADD, m->fd, &event) == 0,
		    "client %d: %s", i, strerror(errno));
	}
}

static void
member_ends(struct member *m)
{
	if (m->sent < crowd.length)
		crowd.left--;
	close(m->fd);
	m->fd = -1;
}

static void
member_reads(struct member *m)
{
	ssize_t got =
	    recv(m->fd, m->answer + m->answer_length, sizeof m->answer - m->answer_length, 0);
	if (got > 0)
		m->answer_length += (size_t)got;
	else if (got == 0 || errno != EAGAIN)
		member_ends(m);
}

static void
member_sends(struct member *m)
{
	ssize_t sent = send(m->fd, worst.data + m->sent, crowd.length - m->sent, MSG_NOSIGNAL);
	if (sent > 0)
		m->sent += (size_t)sent;
	if (m->sent == crowd.length) {
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = m};
		epoll_ctl(crowd.set, EPOLL_CTL_MOD, m->fd, &event);
		crowd.left--;
	}
}

/* Each sends and reads what it can. Waits up to MS milliseconds if there is nothing to do. */
static void
crowd_goes_on(int ms)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(crowd.set, events, EVENTS, ms);
	for (int i = 0; i < count; i++) {
		struct member *m = events[i].data.ptr;
		if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
			member_reads(m);
		if (m->fd != -1 && m->sent < crowd.length)
			member_sends(m);
	}
}

/* How many have ended after ALERT. */
static int
crowd_refused(enum alert alert)
{
	const uint8_t record[] = {0x15, 3, 3, 0, 2, 2, (uint8_t)alert};
	int count = 0;
	for (int i = 0; i < crowd.size; i++) {
		const struct member *m = &crowd.members[i];
		count += m->fd == -1 && m->answer_length == sizeof record &&
		    memcmp(m->answer, record, sizeof record) == 0;
	}
	return count;
}

static int
crowd_open(void)
{
	int count = 0;
	for (int i = 0; i < crowd.size; i++)
		count += crowd.members[i].fd != -1;
	return count;
}

static void
crowd_close(void)
{
	for (int i = 0; i < crowd.size; i++)
		if (crowd.members[i].fd != -1)
			close(crowd.members[i].fd);
	free(crowd.members);
	close(crowd.set);
}

/* --- The worst hellos --- */

/* So many clients send the worst hello at once, except for its last byte. Half of the budget is for
 * them; the others get internal_error. */
static void
send_worst_hellos(int size)
{
	int fitting = (int)(HELLOS_KIB / 2 * 1024L / (long)worst.length);
	crowd_connect(size, worst.length - 1);
	int64_t end_ms = now_ms() + margin_ms(30000);
	while (crowd.left > 0 || crowd_open() > fitting) {
		crowd_goes_on(100);
		check(now_ms() < end_ms, "%d clients are neither done nor refused",
		    crowd_open() - fitting);
	}
	int open = crowd_open(), refused = crowd_refused(INTERNAL_ERROR);
	int late = crowd_refused(USER_CANCELED);
	fprintf(stderr, "[MEMORY] %d worst hellos: %d wait, %d refused, %d late\n", size, open,
	    refused, late);
	check(
	    open + refused + late == size, "%d have ended otherwise", size - open - refused - late);
	check(refused > size / 2, "only %d of %d were refused", refused, size);
}

/* A few at once are served, even with records of one byte. */
static void
expect_few_served(void)
{
	/* With a sanitizer, each takes seconds. */
	const int few = sanitized() ? 2 : FEW_WORST_HELLOS;
	struct pair pairs[FEW_WORST_HELLOS];
	struct bytes all_but_one = slice(worst, 0, worst.length - 1);
	for (int i = 0; i < few; i++)
		pairs[i].client = client_send(all_but_one);
	for (int i = 0; i < few; i++) {
		testing("worst hello %d", i);
		send_all(pairs[i].client, slice(worst, worst.length - 1, 1));
		pairs[i].backend = backend_accept(backend);
		expect_bytes(pairs[i].backend, worst);
		pair_talk(pairs[i]);
	}
	for (int i = 0; i < few; i++)
		pair_close(pairs[i]);
	testing("%d worst hellos", few);
}

/* Checks that freed memory is used again, except for MORE_KIB; in the portable core, by the threads
 * of the same heap. */
static void
expect_no_growth(long first_kib, long more_kib)
{
	long most_kib = first_kib + (is_portable() ? 4 : 1) * REUSE_KIB + more_kib;
	fprintf(stderr, "[MEMORY] again: %ld KiB, after %ld\n", peak_kib(), first_kib);
	check(sanitized() || peak_kib() <= most_kib, "another time it took %ld KiB, after %ld",
	    peak_kib(), first_kib);
}

static void
withstand_worst_hellos(void)
{
	int size = scaled(WORST_HELLOS);
	start_honest_clients();
	expect_few_served();
	send_worst_hellos(size);
	check(proxy_runs(proxy), "the proxy has ended");
	expect_within_budget(size, HELLOS_KIB);
	crowd_close();
	expect_honest_clients_served();
	long first_kib = 0;
	for (int i = 0; i < MORE_WAVES && !sanitized(); i++) {
		send_worst_hellos(WORST_HELLOS_AGAIN);
		crowd_close();
		if (i == 0) /* how many were under way at once in the first wave is chance */
			first_kib = peak_kib();
	}
	expect_no_growth(first_kib, 0);
	wait_until(proxy_total(proxy, "open") == 0, 8000); /* these hold memory */
	expect_few_served();
}

PROGRAM_TEST(memory, worst_hellos)
{
	start(limit_address_space);
	withstand_worst_hellos();
}

/* --- The same in a control group, where too much memory means death --- */

static struct {
	char directory[512];
	char procs[544];
	bool is_v1;
	int guard; /* while it is open, the group stays */
} group;

static void
join_group(void)
{
	int procs = open(group.procs, O_WRONLY | O_CLOEXEC);
	if (procs < 0 || write(procs, "0", 1) != 1)
		_exit(127);
	close(procs);
}

static bool
try_group(const char *parent, const char *file, const char *limit)
{
	char path[1024];
	snprintf(
	    group.directory, sizeof group.directory, "%s/sniproxy-test.%d", parent, (int)getpid());
	snprintf(group.procs, sizeof group.procs, "%s/cgroup.procs", group.directory);
	if (mkdir(group.directory, 0755) == -1)
		return false;
	snprintf(path, sizeof path, "%s/%s", group.directory, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool set = fd >= 0 && write(fd, limit, strlen(limit)) > 0;
	if (fd >= 0)
		close(fd);
	if (!set)
		rmdir(group.directory);
	return set;
}

/* Makes a group with LIMIT in FILE, if version 2 of control groups has CONTROLLER; in version 1,
 * the file is FILE_V1. */
static bool
make_group(const char *controller, const char *file, const char *file_v1, const char *limit)
{
	char own[256] = "", parent[320], field[32];
	snprintf(field, sizeof field, ":%s:", controller);
	char *groups = read_file("/proc/self/cgroup");
	const char *line = strstr(groups, field);
	if (line != NULL)
		sscanf(line + strlen(field), "%255s", own);
	free(groups);
	snprintf(parent, sizeof parent, "/sys/fs/cgroup/%s%s", controller, own);
	group.is_v1 = !try_group("/sys/fs/cgroup", file, limit);
	return !group.is_v1 || (line != NULL && try_group(parent, file_v1, limit));
}

/* The proxy joins a group inside the group. */
static void
make_inner_group(void)
{
	char path[544];
	snprintf(path, sizeof path, "%s/inner", group.directory);
	check(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
	snprintf(group.procs, sizeof group.procs, "%.500s/cgroup.procs", path);
}

/* A process that removes the group when the test is over, however it ends: by then all processes in
 * the group have ended, or will soon. */
static void
guard_group(void)
{
	int ends[2];
	check(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
	pid_t pid = fork();
	check(pid >= 0, "fork");
	if (pid == 0) {
		char byte, inner[544];
		dup2(ends[0], 0);
		close_range(1, ~0U, 0);
		while (read(0, &byte, 1) > 0) {
		}
		snprintf(inner, sizeof inner, "%s/inner", group.directory);
		while (rmdir(inner) == -1 && errno == EBUSY)
			poll(NULL, 0, 10);
		while (rmdir(group.directory) == -1 && errno == EBUSY)
			poll(NULL, 0, 10);
		_exit(0);
	}
	close(ends[0]);
	group.guard = ends[1];
}

static long
kills(void)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/%s", group.directory,
	    group.is_v1 ? "memory.oom_control" : "memory.events");
	char *events = read_file(path);
	const char *line = strstr(events, "oom_kill ");
	check(line != NULL, "%s: %s", path, events);
	long count = strtol(line + strlen("oom_kill "), NULL, 10);
	free(events);
	return count;
}

/* What the kernel accounts to the proxy: its pages, stacks and page tables, and the kernel's memory
 * for its threads and sockets. */
static long
group_kib(void)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/%s", group.directory,
	    group.is_v1 ? "memory.usage_in_bytes" : "memory.current");
	char *usage = read_file(path);
	check(usage[0] != '\0', "%s is empty", path);
	long kib = strtol(usage, NULL, 10) / 1024;
	free(usage);
	return kib;
}

static void
need_group(const char *controller, const char *file, const char *file_v1, const char *limit)
{
	if (!make_group(controller, file, file_v1, limit))
		skip(geteuid() != 0 ? "needs root, to make a control group"
				    : "no control group with such a limit can be made");
	guard_group();
}

static void
need_memory_group(int mib)
{
	char limit[32];
	if (sanitized())
		skip("the sanitizers take more memory than the program");
	snprintf(limit, sizeof limit, "%dM", mib);
	need_group("memory", "memory.max", "memory.limit_in_bytes", limit);
}

static void
start_in_group(void (*prepare)(void))
{
	need_memory_group(GROUP_MIB);
	start(prepare);
}

PROGRAM_TEST(memory, worst_hellos_in_a_control_group)
{
	start_in_group(join_group);
	withstand_worst_hellos();
	check(kills() == 0, "the kernel has killed the proxy");
}

/* --- Stalled downloads --- */

/* A download whose client has taken so little that the proxy holds the most. */
struct download {
	struct pair pair;
	size_t sent;
	size_t received;
	int queued; /* what the kernel holds of the bytes sent, until the proxy reads it */
	bool full;  /* the proxy has read much lately, and could write little of it */
};

static struct download *downloads;

/* A client for whom the kernel buffers little. */
static int
connect_narrow(void)
{
	const int narrow = 4096, segment = 536;
	const struct sockaddr_in address = {
	    .sin_family = AF_INET,
	    .sin_port = htons(server.port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(fd >= 0, "socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
	setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
	check(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0, "connect: %s",
	    strerror(errno));
	return fd;
}

static void
open_downloads(int size)
{
	struct bytes request = hello_for(HOST);
	downloads = calloc((size_t)size, sizeof *downloads);
	check(downloads != NULL, "no memory for the downloads");
	for (int i = 0; i < size; i++) {
		testing("download %d", i);
		struct pair *pair = &downloads[i].pair;
		pair->client = connect_narrow();
		send_all(pair->client, request);
		pair->backend = backend_accept(backend);
		expect_bytes(pair->backend, request);
	}
	testing("%d stalled downloads", size);
}

/* The backend sends the pattern until nothing more is taken. */
static void
download_sends(struct download *d)
{
	ssize_t sent;
	do {
		struct bytes next = pattern(d->sent, 65536);
		sent = send(d->pair.backend, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		d->sent += sent > 0 ? (size_t)sent : 0;
	} while (sent > 0);
	check(errno == EAGAIN, "send: %s", strerror(errno));
}

/* The client takes a bit, unless the proxy has just read a lot for it, and had to keep most of
 * that. */
static void
download_takes(struct download *d)
{
	const int lot = 40 * 1024;
	uint8_t bytes[2048];
	int queued = 0;
	ioctl(d->pair.backend, SIOCOUTQ, &queued);
	d->full = d->full || queued <= d->queued - lot;
	if (!d->full) {
		ssize_t got = recv(d->pair.client, bytes, sizeof bytes, MSG_DONTWAIT);
		d->received += got > 0 ? (size_t)got : 0;
	}
	download_sends(d);
	ioctl(d->pair.backend, SIOCOUTQ, &d->queued);
}

/* Opens downloads whose backends send until nothing more is taken. The proxy holds as much as
 * possible for each. */
static void
stall_downloads(int size)
{
	const int rounds = 60;
	open_downloads(size);
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < size; i++)
			download_takes(&downloads[i]);
		/* The proxy may be working on it. */
		poll(NULL, 0, 5);
	}
	int full = 0;
	for (int i = 0; i < size; i++)
		full += downloads[i].full;
	fprintf(stderr, "[MEMORY] %d stalled downloads, %d of them full: %ld KiB\n", size, full,
	    peak_kib());
}

static void
end_downloads(int size)
{
	for (int i = 0; i < size; i++)
		pair_close(downloads[i].pair);
	free(downloads);
}

/* What is under way is neither lost nor mixed up. */
static void
expect_download_goes_on(const struct download *d)
{
	const int wide = 1024 * 1024;
	setsockopt(d->pair.client, SOL_SOCKET, SO_RCVBUF, &wide, sizeof wide);
	expect_pattern_from(d->pair.client, d->received, d->sent - d->received);
	pair_talk(d->pair);
}

PROGRAM_TEST(memory, stalled_downloads)
{
	int size = scaled(STALLED_DOWNLOADS);
	need("a way to ask how much memory there is, for threads");
	start(limit_address_space_for_downloads);
	start_honest_clients();
	stall_downloads(size);
	expect_within_budget(size, STACK_KIB * (long)size);
	for (int i = 0; i < size; i += size / 10) {
		testing("download %d", i);
		expect_download_goes_on(&downloads[i]);
	}
	testing("%d stalled downloads", size);
	expect_honest_clients_served();
	end_downloads(size);
	long first_kib = peak_kib();
	/* Until only the spare threads are left: otherwise the stacks of both rounds would
	 * count. */
	wait_until(proxy_threads(proxy) < THREADS_LEFT + extra_threads(), 15000);

	stall_downloads(size);
	end_downloads(size);
	expect_no_growth(first_kib, first_kib * REUSE_STACKS_PERCENT / 100);
}

/* --- Threads --- */

static void
join_group_with_few_threads(void)
{
	struct rlimit processes = {.rlim_cur = THREADS, .rlim_max = THREADS};
	join_group();
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

/* Sends as much as FD takes at once. Returns how much. */
static size_t
send_some(int fd)
{
	static const uint8_t bulk[256 * 1024];
	ssize_t sent = send(fd, bulk, sizeof bulk, MSG_NOSIGNAL | MSG_DONTWAIT);
	check(sent > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	return sent > 0 ? (size_t)sent : 0;
}

/* Opens COUNT connections that block a thread each: both sides have sent in bulk what the other
 * does not take. */
static void
keep_threads(struct pair *pairs, int count)
{
	for (int i = 0; i < count; i++) {
		testing("connection %d", i);
		pairs[i] = pair_open(backend);
		setsockopt(
		    pairs[i].client, SOL_SOCKET, SO_RCVBUF, &kernel_buffer, sizeof kernel_buffer);
	}
	testing("%d connections that keep a thread each", count);
	int64_t end_ms = now_ms() + margin_ms(30000);
	size_t sent = 1;
	while (sent > 0 || proxy_threads(proxy) < OTHER_THREADS + count) {
		check(now_ms() < end_ms, "%d threads", proxy_threads(proxy));
		sent = 0;
		for (int i = 0; i < count; i++)
			sent += send_some(pairs[i].client) + send_some(pairs[i].backend);
		poll(NULL, 0, 50); /* the proxy may be working on it */
	}
}

/* COUNT clients wait for a backend whose backlog is full; each takes a thread, and little else.
 * Returns how many KiB each takes. */
static long
measure_threads(int count)
{
	static int clients[THREADS];
	long before_kib = group_kib();
	char *path = host_path("full.example", "tls-socket");
	free(host_make("full.example"));
	int full = unix_listen(path, 1);
	fill_backlog(path);
	for (int i = 0; i < count; i++)
		clients[i] = client_send(hello_for("full.example"));
	wait_until(proxy_threads(proxy) >= OTHER_THREADS + count, 5000);
	long kib = (group_kib() - before_kib) / count;
	close(full);
	unlink(path);
	free(path);
	for (int i = 0; i < count; i++) {
		testing("client %d of a full backend", i);
		expect_alert(clients[i], UNRECOGNIZED_NAME);
		close(clients[i]);
	}
	return kib;
}

PROGRAM_TEST(memory, threads_in_a_control_group)
{
	/* Few enough that the system refuses none: otherwise threads are short, and some are
	 * rejected. */
	enum { MOST = THREADS * 3 / 4 - OTHER_THREADS - SPARE_THREADS };
	need("splice(2)");
	static struct pair pairs[MOST];
	need_own_user();
	start_in_group(join_group_with_few_threads);
	pair_close(pair_open(backend));
	long kib = measure_threads(MOST) + FRAGMENT_KIB + BUFFERS_KIB;
	fprintf(stderr, "[MEMORY] %d threads: %ld KiB each\n", MOST, kib);
	check(kib <= THREAD_KIB, "a thread took %ld KiB; %d are stated", kib, THREAD_KIB);
	wait_until(proxy_threads(proxy) < 2 * THREADS_LEFT, 5000);
	keep_threads(pairs, MOST);
	for (int i = 0; i < MOST; i++)
		pair_close(pairs[i]);
	check(kills() == 0, "the kernel has killed the proxy");
}

/* --- What the program allows follows the limits --- */

static void
expect_capacity(const char *line)
{
	wait_until(proxy_has_logged(proxy, line), 5000);
}

static void
limit_address_space_to_little(void)
{
	limit_address_space_to(SMALL_MIB);
}

PROGRAM_TEST(memory, limit_on_address_space_is_found)
{
	char line[128];
	if (sanitized())
		skip("the sanitizers reserve terabytes");
	start(limit_address_space_to_little);
	snprintf(line, sizeof line,
	    "sniproxy: at most %d connections, %d threads (memory %d MiB)\n", SMALL_CONNECTIONS,
	    SMALL_MIB, SMALL_MIB);
	expect_capacity(line);
}

static void
limit_processes(void)
{
	struct rlimit processes = {.rlim_cur = FEW_THREADS, .rlim_max = FEW_THREADS};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

PROGRAM_TEST(memory, limit_on_processes_is_found)
{
	char part[64];
	need("a limit on processes");
	need_own_user();
	start(limit_processes);
	snprintf(part, sizeof part, " connections, %d threads (memory ", FEW_THREADS);
	expect_capacity(part);
}

/* It would be 2^32 threads, one for each MiB: 0 in 32 bits. */
static void
allow_more_address_space_than_memory(void)
{
	limit_address_space_to((rlim_t)1 << 32);
}

PROGRAM_TEST(memory, a_limit_allows_no_more_threads)
{
	const char *counted = " connections, 512 threads (memory 4294967296 MiB)\n";
	if (sanitized())
		skip("the sanitizers reserve terabytes");
	start(allow_more_address_space_than_memory);
	if (is_portable()) /* otherwise the memory is known */
		expect_capacity(counted);
	pair_close(pair_open(backend));
}

/* Sets the soft limit on open files to those that are open before the program reads limits. */
static void
join_group_with_few_files(void)
{
	struct rlimit files;
	join_group();
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = 5; /* stdin, stdout, stderr, the hosts directory, epoll */
	setrlimit(RLIMIT_NOFILE, &files);
}

PROGRAM_TEST(memory, limit_of_an_outer_control_group_is_found)
{
	char line[128];
	need("control groups");
	need_memory_group(SMALL_MIB);
	make_inner_group();
	start(join_group_with_few_files);
	snprintf(line, sizeof line,
	    "sniproxy: at most %d connections, %d threads (memory %d MiB)\n", SMALL_CONNECTIONS,
	    SMALL_MIB, SMALL_MIB);
	expect_capacity(line);
}

PROGRAM_TEST(memory, threads_of_a_control_group_are_found)
{
	need("control groups");
	need_group("pids", "pids.max", "pids.max", "100");
	start(join_group);
	expect_capacity(" connections, 100 threads (memory ");
}

/* Connects from an address that no honest client has. Returns -1 if the proxy rejects the client
 * before connect(2) returns. */
static int
connect_other(void)
{
	int client = client_try_connect("127.0.0.2");
	check(client >= 0 || errno == ECONNRESET, "connect: %s", strerror(errno));
	return client;
}

/* Their threads and sockets would take more than there is. */
PROGRAM_TEST(memory, paused_downloads_on_a_small_machine)
{
	need("control groups");
	need_memory_group(SMALL_MIB);
	start(join_group);
	start_honest_clients();
	struct bytes request = hello_for(HOST);
	for (int i = 0; i < PAUSED_DOWNLOADS; i++) {
		int client = connect_other();
		setsockopt(client, SOL_SOCKET, SO_RCVBUF, &kernel_buffer, sizeof kernel_buffer);
		send(client, request.data, request.length, MSG_NOSIGNAL);
		while (readable_within(backend, 0)) {
			int accepted = backend_accept(backend);
			for (int pieces = 0; pieces < 16 && send_some(accepted) > 0; pieces++)
				;
		}
	}
	expect_honest_clients_served();
	check(kills() == 0 && proxy_runs(proxy), "the kernel has killed the proxy");
}

PROGRAM_TEST(memory, half_hellos_on_a_small_machine)
{
	need("control groups");
	need_memory_group(SMALL_MIB / 2);
	start(join_group);
	start_honest_clients();
	struct bytes half = slice(worst, 0, 4096);
	for (int i = 0; i < HALF_HELLOS; i++) {
		int client = connect_other();
		send(client, half.data, half.length, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	expect_honest_clients_served();
	check(kills() == 0 && proxy_runs(proxy), "the kernel has killed the proxy");
}

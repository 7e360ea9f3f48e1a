/* Fuzz test of the whole path, from a client's first byte to the alert or to the last byte that
 * the backend sent: proxy.c and all that it calls, but no network, no thread, and no waiting.
 *
 * The input is a list of steps of the client, of the backend, and of the clock. Client and proxy
 * are connected by a socketpair; the backends listen on Unix sockets in a directory of their own.
 * The linker's option --wrap replaces calls that create threads, wait, or tell the time by
 * functions of this file. So each thread of the proxy is a task with a stack of its own; while one
 * waits, the others and the next steps run.
 *
 * The bytes that the client sent decide, by tls.h alone, what the proxy must do:
 *
 * - A rejected client gets the seven bytes of the alert, the end of the stream, no reset unless it
 *   still sends after LINGER_MS, and one line in the log.
 * - Otherwise the backend of that name gets each byte that the client sent, and the client each
 *   byte that the backend sent, in order, and then the end; neither direction waits for the other.
 *   This holds even if the sender has closed since, with or without unread bytes.
 * - If the sender is gone and the receiver takes nothing for RELAY_STALL_MS, the connection may
 *   end before; soon after, it must. If a side closes, the connection ends soon.
 * - An evicted connection ends at once, or a second later if its client's stream had ended. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "lib/hostname.h"
#include "lib/idle.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "proxy.h"
#include "system/system.h"
#include "tests/fuzz/fuzz.h"
#include "tls.h"

enum {
	STREAM_MAX = 512 * 1024, /* in each direction */
	HEADER_ROOM = 128,       /* room before the client's bytes */
	BLOCK_SIZE = 4096,
	NOISE_PERIOD = 251, /* so that successive blocks differ */
	STEPS_MAX = 256,

	/* How often tasks may run without a step, and in a second without an event: more is
	 * spinning. */
	TURNS_MAX = 10000,
	TURNS_IN_SECOND_MAX = 60,

	/* One for the thread that watches idle connections, and one for a connection. A stack is
	 * large enough for sanitizers. */
	TASKS = 2,
	STACK_SIZE = 256 * 1024,

	/* After this time without a byte taken, a connection whose sender is gone must have ended:
	 * the relay's time, and the time that the proxy needs to notice. */
	GIVEN_UP_MS = RELAY_STALL_MS + 20 * 1000,

	/* How long a connection that is over may stay open; and a lingering close. */
	LINGER_MS = TABLE_LINGER_MS,
	SOON_MS = LINGER_MS + 2000,
};

#define PROXY_HEADER "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"

/* The hosts. Any other name has no directory. */
static struct host {
	const char *name;
	bool is_acme; /* its socket is acme-tls-socket; tls-socket is another's of that name */
	const char *header; /* what precedes the client's bytes */
	int listener;       /* -1 if nothing listens */
} hosts[] = {
    {"blog.example", false, "", -1},
    {"blog.example", true, "", -1},
    {"header.example", false, PROXY_HEADER, -1},
    {"header.example", true, "", -1},
    {"dead.example", false, NULL, -1},
    {"empty.example", false, NULL, -1},
};
enum { HOST_COUNT = sizeof hosts / sizeof *hosts };

/* Stands for a thread of the proxy. */
struct task {
	ucontext_t context;
	void *(*run)(void *);
	void *argument;
	struct pollfd *entries; /* it waits for one of these, */
	nfds_t count;
	int64_t until_ms; /* until then; -1 means without end */
	sem_t *semaphore; /* or for this */
	uint8_t stack[STACK_SIZE];
};

static struct {
	char path[4096];
	int before;     /* the former working directory */
	int directory;  /* the hosts directory */
	int64_t now_ms; /* the time of the clock */
	bool runs;      /* outside of a run, the clock is the real one */
	ucontext_t driver;
	struct task tasks[TASKS];
	int task_count;
	struct task *task; /* the task that runs; NULL means the driver */
	unsigned turns;
	atomic_int quiet_ms; /* how long an idle connection keeps its thread */
	uint8_t noise[BLOCK_SIZE + NOISE_PERIOD];
} world = {.now_ms = 1000 * 1000};

/* Bytes under way from one end to the other. */
struct stream {
	uint8_t *bytes; /* STREAM_MAX and room for a header before them */
	size_t start;   /* the first that has not arrived */
	size_t end;
	bool ended; /* by the sender, as far as the receiver can tell */
	bool seen;  /* the receiver saw the end */

	/* When the sender is gone: */
	int64_t idle_ms;  /* for how long the receiver has not taken everything, */
	int64_t stall_ms; /* and for how long it has taken nothing */
	bool may_break;   /* the proxy may end it before all has arrived */
};

/* A connection, and what must happen to it. */
static struct run {
	int64_t begin_ms;
	int client, backend;           /* -1 if they are closed, or not yet open */
	int client_side, backend_side; /* the proxy's ends, as long as it is not over */

	enum { UNDECIDED, REJECTED, SERVED, SILENT } fate;
	bool was_silent; /* the client had sent nothing before that was decided */
	bool had_faults;
	int64_t over_ms; /* when it was rejected, or the backend closed */
	struct tls_hello hello;
	size_t fed; /* up to where */
	struct host *host;

	struct stream upload, download;
	bool client_closed, backend_closed, backend_deaf, evicted;
	unsigned busy, busy_errno; /* how many connects must fail, and the error */
	unsigned faults;           /* how many calls must be interrupted, or transfer less */
	unsigned lines;            /* in the log */
} run;

static bool
is_over(void)
{
	return table_count().open == 0;
}

static void expect_alert(enum tls_alert alert);

/* --- Tasks --- */

static void
run_task(void)
{
	world.task->run(world.task->argument);
	PROPERTY(false, "a thread has ended");
}

/* Replaces the creation of a thread. */
int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument);

int
__wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument)
{
	(void)thread;
	(void)attributes;
	PROPERTY(world.task_count < TASKS, "a thread too many");
	struct task *task = &world.tasks[world.task_count++];
	task->run = function;
	task->argument = argument;
	PROPERTY(getcontext(&task->context) == 0, "getcontext: %s", strerror(errno));
	task->context.uc_stack.ss_sp = task->stack;
	task->context.uc_stack.ss_size = sizeof task->stack;
	makecontext(&task->context, run_task, 0);
	return 0;
}

/* Runs the driver until the calling task may continue. */
static void
wait_as_task(void)
{
	PROPERTY(world.task != NULL, "the main thread waits");
	PROPERTY(swapcontext(&world.task->context, &world.driver) == 0, "swapcontext");
}

int __real_poll(struct pollfd *entries, nfds_t count, int ms);
int __wrap_poll(struct pollfd *entries, nfds_t count, int ms);
int __wrap_sem_wait(sem_t *semaphore);
int __real_sem_wait(sem_t *semaphore);

static bool
can_go_on(const struct task *task)
{
	int value;
	if (task->semaphore != NULL)
		return sem_getvalue(task->semaphore, &value) == 0 && value > 0;
	return __real_poll(task->entries, task->count, 0) != 0 ||
	    (task->until_ms != -1 && world.now_ms >= task->until_ms);
}

/* Whether one of the faults hits this call. */
static bool
meets_fault(void)
{
	if (world.task == NULL || run.faults == 0)
		return false;
	run.faults--;
	return true;
}

int
__wrap_poll(struct pollfd *entries, nfds_t count, int ms)
{
	struct task *task = world.task;
	int ready = __real_poll(entries, count, 0);
	if (ready != 0 || ms == 0 || task == NULL)
		return ready;
	if (run.faults % 4 == 1 && meets_fault()) {
		errno = EINTR;
		return -1;
	}
	task->entries = entries;
	task->count = count;
	task->until_ms = ms == -1 ? -1 : world.now_ms + ms;
	wait_as_task();
	return __real_poll(entries, count, 0);
}

int
__wrap_sem_wait(sem_t *semaphore)
{
	struct task *task = world.task;
	task->semaphore = semaphore;
	wait_as_task();
	task->semaphore = NULL;
	return __real_sem_wait(semaphore);
}

/* --- What else the proxy sees of the system --- */

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real___clock_gettime64(clockid_t id, struct timespec *now) __attribute__((weak));
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __real_recv(int fd, void *bytes, size_t length, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t length, int flags);
ssize_t __real_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __real_system_splice(int from, int to, size_t length);
ssize_t __wrap_system_splice(int from, int to, size_t length);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (id != CLOCK_MONOTONIC || !world.runs)
		return __real___clock_gettime64 != NULL ? __real___clock_gettime64(id, now)
							: __real_clock_gettime(id, now);
	now->tv_sec = world.now_ms / 1000;
	now->tv_nsec = (long)(world.now_ms % 1000) * 1000000;
	return 0;
}

/* The name of the function on machines whose long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

/* The address that the client connected to: a socketpair has none. */
int
__wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
	(void)fd;
	struct sockaddr_in local = {
	    .sin_family = AF_INET,
	    .sin_port = htons(443),
	    .sin_addr.s_addr = htonl(0xc6336401),
	};
	PROPERTY(*size >= sizeof local, "no room for an address");
	memcpy(address, &local, sizeof local);
	*size = sizeof local;
	return 0;
}

static bool
is_late(void)
{
	return world.now_ms >= run.begin_ms + TABLE_HELLO_MS;
}

/* The backlog has room, unless it must be full. */
int
__wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
	if (run.busy > 0 && run.fate == SERVED) {
		run.busy--;
		if (is_late())
			expect_alert(TLS_INTERNAL_ERROR);
		errno = (int)run.busy_errno;
		return -1;
	}
	if (__real_connect(fd, address, size) == -1)
		return -1;
	PROPERTY(run.fate == SERVED && run.backend_side == -1, "a connection too many");
	run.backend_side = fd;
	run.backend = accept4(run.host->listener, NULL, NULL, SOCK_CLOEXEC);
	PROPERTY(run.backend != -1, "connected to another host");
	return 0;
}

/* Decides about a call that would transfer LENGTH bytes: returns how many it may, or -1 with errno
 * set. */
static ssize_t
shorten(size_t length)
{
	if (!meets_fault())
		return (ssize_t)length;
	errno = run.faults % 4 == 3 ? EINTR : EAGAIN;
	return run.faults % 2 == 0 ? 1 : -1;
}

ssize_t
__wrap_recv(int fd, void *bytes, size_t length, int flags)
{
	ssize_t most = shorten(length);
	return most == -1 ? -1 : __real_recv(fd, bytes, (size_t)most, flags);
}

/* An alert is sent whole, or not at all. */
ssize_t
__wrap_send(int fd, const void *bytes, size_t length, int flags)
{
	ssize_t most = run.backend_side == -1 ? (ssize_t)length : shorten(length);
	return most == -1 ? -1 : __real_send(fd, bytes, (size_t)most, flags);
}

ssize_t
__wrap_system_splice(int from, int to, size_t length)
{
	ssize_t most = shorten(length);
	return most == -1 ? -1 : __real_system_splice(from, to, (size_t)most);
}

/* Stacks are switched, which this option of AddressSanitizer cannot know. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_stack_use_after_return=0";
}

/* Replaces log.c: a line must be text, and name the client. */
void
log_line(enum log_kind kind, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	PROPERTY(length > 0 && length < LOG_LINE_MAX, "a line of %d bytes", length);
	if (kind == LOG_PROGRAM && strstr(line, "evicted") != NULL)
		return;
	bool has_host = strncmp(strchr(line, ' '), " -:", 3) != 0;
	PROPERTY(kind == (has_host ? LOG_HOST : LOG_CLIENT), "kind %u: %s", (unsigned)kind, line);
	PROPERTY(strncmp(line, "192.0.2.7:51234 ", 16) == 0, "a line without the client");
	for (int i = 0; i < length; i++)
		PROPERTY(line[i] >= ' ' && line[i] <= '~', "byte %d in the log", line[i]);
	run.lines++;
}

void
log_count_left_out(void)
{
}

/* --- The hosts directory --- */

static int
listen_in(const char *directory, bool is_acme)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, is_acme ? "acme-tls-socket" : "tls-socket");
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	PROPERTY(listener != -1 && chdir(directory) == 0 &&
		bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
		listen(listener, 8) == 0 && fchdir(world.directory) == 0,
	    "%s: %s", directory, strerror(errno));
	return listener;
}

static void
make_host(struct host *host)
{
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, host->name);
	PROPERTY(
	    host->is_acme || mkdir(directory, 0700) == 0, "%s: %s", directory, strerror(errno));
	if (strcmp(host->name, "empty.example") == 0)
		return;
	int listener = listen_in(directory, host->is_acme);
	if (host->header == NULL) {
		close(listener);
		return;
	}
	host->listener = listener;
	if (host->header[0] != '\0') {
		char flag[HOSTNAME_SIZE + 16];
		snprintf(flag, sizeof flag, "%s/send-proxy-v1", directory);
		PROPERTY(mkdir(flag, 0700) == 0, "%s: %s", flag, strerror(errno));
	}
}

static void
remove_hosts(void)
{
	static const char *const files[] = {"tls-socket", "acme-tls-socket", "send-proxy-v1", "."};
	for (size_t i = 0; i < HOST_COUNT; i++) {
		char directory[HOSTNAME_SIZE], path[HOSTNAME_SIZE + 16];
		hostname_directory(directory, hosts[i].name);
		for (size_t j = 0; j < sizeof files / sizeof *files; j++) {
			snprintf(path, sizeof path, "%s/%s", directory, files[j]);
			if (unlinkat(world.directory, path, 0) == -1)
				unlinkat(world.directory, path, AT_REMOVEDIR);
		}
		unlinkat(world.directory, directory, AT_REMOVEDIR);
	}
	rmdir(world.path);
}

static int
get_quiet_ms(void)
{
	return world.quiet_ms;
}

/* Does what the program does before it serves. */
static void
prepare_proxy(void)
{
	signal(SIGPIPE, SIG_IGN); /* splice(2) raises SIGPIPE */
	table_prepare(16);
	proxy_prepare(world.directory, (struct network_list){0}, 64 * 1024 * 1024);
	thread_prepare(TASKS - 1, proxy_serve);
	PROPERTY(system_watch_open(), "epoll_create1: %s", strerror(errno));
	PROPERTY(thread_start(idle_run, NULL) == 0, "no thread");
}

/* Makes the hosts directory, below TMPDIR, and everything else that outlives a run. */
static void
make_world(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(world.path, sizeof world.path, "%s/sniproxy-fuzz-XXXXXX",
	    temporary != NULL ? temporary : "/tmp");
	PROPERTY(mkdtemp(world.path) != NULL, "%s: %s", world.path, strerror(errno));
	world.before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	world.directory = open(world.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	PROPERTY(world.before != -1 && world.directory != -1 && fchdir(world.directory) == 0,
	    "%s: %s", world.path, strerror(errno));
	for (size_t i = 0; i < HOST_COUNT; i++)
		make_host(&hosts[i]);
	atexit(remove_hosts);
	prepare_proxy();
	for (size_t i = 0; i < sizeof world.noise; i++)
		world.noise[i] = (uint8_t)(i * 167 + (i >> 8));
	run.upload.bytes = malloc(HEADER_ROOM + STREAM_MAX);
	run.download.bytes = malloc(HEADER_ROOM + STREAM_MAX);
	PROPERTY(run.upload.bytes != NULL && run.download.bytes != NULL, "out of memory");
}

/* --- The streams --- */

static void
add(struct stream *stream, const void *bytes, size_t length)
{
	PROPERTY(stream->end + length <= HEADER_ROOM + STREAM_MAX, "no room");
	memcpy(stream->bytes + stream->end, bytes, length);
	stream->end += length;
}

/* Sends as many of LENGTH bytes as the socket takes, and notes those. Returns whether it took
 * all. */
static bool
send_some(int fd, struct stream *stream, const uint8_t *bytes, size_t length)
{
	size_t room = HEADER_ROOM + STREAM_MAX - stream->end;
	if (fd == -1 || stream->ended || length > room)
		return false;
	ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0)
		add(stream, bytes, (size_t)sent);
	return sent == (ssize_t)length;
}

static void
see_end(struct stream *stream)
{
	stream->seen = true;
	PROPERTY(stream->may_break || stream->ended, "an end that was not sent");
	PROPERTY(stream->may_break || stream->start == stream->end,
	    "the end before the last %zu bytes", stream->end - stream->start);
}

/* Whether STREAM may end with a reset: the backend's, if the client did not take everything; the
 * client's, if it still sent when the lingering close was over. */
static bool
may_be_reset(const struct stream *stream)
{
	bool has_lingered = (run.fate == REJECTED || run.backend_closed) &&
	    world.now_ms >= run.over_ms + LINGER_MS && run.upload.end > run.fed;
	return stream->may_break || (stream == &run.upload ? run.client_closed : has_lingered);
}

/* Receives up to SIZE bytes, which must be the next ones of STREAM. Returns whether any arrived. */
static bool
receive(int fd, struct stream *stream, size_t size)
{
	static uint8_t room[64 * 1024];
	if (fd == -1 || stream->seen || size == 0)
		return false;
	size = size < sizeof room ? size : sizeof room;
	ssize_t length = recv(fd, room, size, MSG_DONTWAIT);
	if (length < (ssize_t)size)
		stream->idle_ms = 0;
	if (length == -1 && errno == EAGAIN)
		return false;
	if (length == -1)
		PROPERTY(errno == ECONNRESET && may_be_reset(stream), "%s", strerror(errno));
	if (length <= 0) {
		see_end(stream);
		return true;
	}
	PROPERTY((size_t)length <= stream->end - stream->start &&
		memcmp(room, stream->bytes + stream->start, (size_t)length) == 0,
	    "other bytes than were sent");
	stream->start += (size_t)length;
	stream->stall_ms = 0;
	return true;
}

/* --- What must happen to the client --- */

static void
expect_alert(enum tls_alert alert)
{
	run.fate = REJECTED;
	run.over_ms = world.now_ms;
	const uint8_t record[] = {21, 3, 3, 0, 2, 2, (uint8_t)alert};
	add(&run.download, record, sizeof record);
	run.download.ended = true;
}

static bool
has_sent(void)
{
	return run.upload.end > HEADER_ROOM;
}

/* A client that closes without having sent anything gets nothing. */
static void
expect_nothing(void)
{
	run.fate = SILENT;
	run.download.ended = true;
}

static void
expect_backend(const uint8_t *bytes, size_t length)
{
	static const char acme[] = "acme-tls/1";
	char name[HOSTNAME_SIZE];
	bool valid = hostname_canonical(name, bytes, length);
	bool is_acme = run.hello.protocols == 1 && run.hello.protocol_length == sizeof acme - 1 &&
	    memcmp(run.hello.protocol, acme, sizeof acme - 1) == 0;
	for (size_t i = 0; valid && i < HOST_COUNT; i++)
		if (hosts[i].listener != -1 && strcmp(hosts[i].name, name) == 0 &&
		    hosts[i].is_acme == is_acme)
			run.host = &hosts[i];
	if (run.host == NULL) {
		expect_alert(TLS_UNRECOGNIZED_NAME);
		return;
	}
	run.fate = SERVED;
	size_t header = strlen(run.host->header);
	run.upload.start -= header;
	memcpy(run.upload.bytes + run.upload.start, run.host->header, header);
}

/* Predicts the proxy's decision from what it can read now. */
static void
decide(void)
{
	if (run.fate != UNDECIDED)
		return;
	run.was_silent = !has_sent();
	if (is_late()) {
		expect_alert(TLS_USER_CANCELED);
		return;
	}
	const uint8_t *name;
	size_t length;
	enum tls_status status =
	    tls_hello_feed(&run.hello, run.upload.bytes + run.fed, run.upload.end - run.fed);
	run.fed = run.upload.end;
	if (status == TLS_OK)
		status = tls_hello_server_name(&run.hello, &name, &length);
	if (status == TLS_OK)
		expect_backend(name, length);
	else if (status == TLS_REFUSED)
		expect_alert(run.hello.alert);
	else if (run.upload.ended && has_sent())
		expect_alert(TLS_DECODE_ERROR);
	else if (run.upload.ended)
		expect_nothing();
}

/* --- Time --- */

/* Runs the tasks as far as they can. Returns whether there may be more to do. */
static bool
serve(void)
{
	bool moves = false;
	decide();
	for (struct task *task = world.tasks; task < world.tasks + world.task_count; task++) {
		if (task->entries != NULL || task->semaphore != NULL)
			if (!can_go_on(task))
				continue;
		moves = true;
		world.turns++;
		world.task = task;
		PROPERTY(swapcontext(&world.driver, &task->context) == 0, "swapcontext");
		world.task = NULL;
	}
	return moves;
}

static void
serve_until_quiet(void)
{
	for (unsigned turns = 0; serve(); turns++)
		PROPERTY(turns < TURNS_MAX, "it spins");
}

/* Until the next task's wait is over, at most MOST_MS. */
static int64_t
next_ms(int64_t most_ms)
{
	for (const struct task *task = world.tasks; task < world.tasks + TASKS; task++)
		if (task->semaphore == NULL && task->entries != NULL && task->until_ms != -1 &&
		    task->until_ms < most_ms)
			most_ms = task->until_ms > world.now_ms ? task->until_ms : world.now_ms + 1;
	return most_ms;
}

/* The sender of STREAM is gone if it has CLOSED, or if both sides have ended their streams. */
static void
idle(struct stream *stream, const struct stream *other, bool closed, int64_t passed_ms)
{
	if (closed || (stream->ended && other->ended))
		stream->idle_ms += passed_ms;
	if (closed)
		stream->stall_ms += passed_ms;
	if (stream->idle_ms >= RELAY_STALL_MS)
		stream->may_break = true;
}

static void
add_time(int64_t passed_ms)
{
	world.now_ms += passed_ms;
	idle(&run.upload, &run.download, run.client_closed, passed_ms);
	idle(&run.download, &run.upload, run.backend_closed, passed_ms);
}

/* To close while the client may still send would reset the connection, and destroy what the client
 * has not taken; not with these sockets, but with others. */
static void
expect_patience(void)
{
	if (run.fate == SERVED && !run.upload.ended && !run.download.may_break &&
	    run.download.start < run.download.end)
		PROPERTY(!is_over(), "closed before the client has taken all");
}

/* Time passes, and the tasks continue when their time has come. */
static void
advance(int64_t passed_ms)
{
	int64_t until_ms = world.now_ms + passed_ms;
	world.turns = 0;
	while (world.now_ms < until_ms) {
		add_time(next_ms(until_ms) - world.now_ms);
		serve_until_quiet();
		expect_patience();
		PROPERTY(
		    run.upload.stall_ms < GIVEN_UP_MS || is_over(), "it waits for the backend");
		PROPERTY(
		    run.download.stall_ms < GIVEN_UP_MS || is_over(), "it waits for the client");
	}
	PROPERTY(world.turns <= TURNS_IN_SECOND_MAX * (1 + passed_ms / 1000),
	    "%u turns in %lld ms in which nothing happens", world.turns, (long long)passed_ms);
}

/* --- The steps --- */

struct input {
	const uint8_t *bytes;
	size_t length;
	bool at_once; /* the proxy does not run before the next step */
};

static uint8_t
next(struct input *in)
{
	if (in->length == 0)
		return 0;
	in->length--;
	return *in->bytes++;
}

/* Sends the bytes that follow in the input. */
static void
send_literal(struct input *in, int fd, struct stream *stream)
{
	size_t length = next(in);
	length = length < in->length ? length : in->length;
	send_some(fd, stream, in->bytes, length);
	in->bytes += length;
	in->length -= length;
}

/* Sends some blocks of noise; each differs. */
static void
send_blocks(struct input *in, int fd, struct stream *stream)
{
	for (unsigned count = next(in); count > 0; count--)
		if (!send_some(fd, stream, world.noise + stream->end % NOISE_PERIOD, BLOCK_SIZE))
			return;
}

static void
close_client(struct input *in)
{
	(void)in;
	if (run.client != -1)
		close(run.client);
	run.client = -1;
	run.client_closed = run.upload.ended = true;
}

/* It makes no difference whether it has closed its socket. */
static void
leave_backend(void)
{
	if (!run.backend_closed)
		run.over_ms = world.now_ms;
	run.backend_closed = run.download.ended = true;
}

static void
close_backend(struct input *in)
{
	(void)in;
	if (run.backend == -1)
		return;
	close(run.backend);
	run.backend = -1;
	leave_backend();
}

static void
end_upload(struct input *in)
{
	(void)in;
	if (run.client != -1)
		shutdown(run.client, SHUT_WR);
	run.upload.ended = true;
}

static void
end_download(struct input *in)
{
	(void)in;
	if (run.backend == -1)
		return;
	shutdown(run.backend, SHUT_WR);
	run.download.ended = true;
	if (run.backend_deaf)
		leave_backend();
}

static void
client_sends(struct input *in)
{
	send_literal(in, run.client, &run.upload);
}

static void
client_sends_blocks(struct input *in)
{
	send_blocks(in, run.client, &run.upload);
}

static void
client_receives(struct input *in)
{
	receive(run.client, &run.download, next(in) * (size_t)256);
}

static void
backend_sends(struct input *in)
{
	send_literal(in, run.backend, &run.download);
}

static void
backend_sends_blocks(struct input *in)
{
	send_blocks(in, run.backend, &run.download);
}

static void
backend_receives(struct input *in)
{
	receive(run.backend, &run.upload, next(in) * (size_t)256);
}

/* Makes the buffers of the proxy's sockets as small as possible. */
static void
shrink_buffers(struct input *in)
{
	(void)in;
	if (is_over())
		return;
	const int size = 1;
	setsockopt(run.client_side, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	if (run.backend_side != -1)
		setsockopt(run.backend_side, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

/* The backend reads no more: what the client sends is dropped. */
static void
deafen_backend(struct input *in)
{
	(void)in;
	if (run.backend == -1)
		return;
	shutdown(run.backend, SHUT_RD);
	run.backend_deaf = run.upload.may_break = true;
	if (run.download.ended)
		leave_backend();
}

/* So many of the next connects fail because the backlog is full, or the proxy's memory is short. */
static void
make_busy(struct input *in)
{
	static const unsigned errors[] = {EAGAIN, EINTR, EMFILE, ENOMEM};
	unsigned count = next(in);
	run.busy = count / 4 * 4;
	run.busy_errno = errors[count % 4];
}

static void
make_faults(struct input *in)
{
	run.faults = next(in);
	run.had_faults = true;
}

/* Slots are short: the connection is evicted, if it may be. */
static void
evict(struct input *in)
{
	bool is_taken;
	(void)in;
	struct connection *victim = table_evict(TABLE_SLOTS, &is_taken);
	if (victim == NULL)
		return;
	run.evicted = run.upload.may_break = run.download.may_break = true;
	if (is_taken)
		proxy_end_evicted(victim);
	serve_until_quiet();
	if (run.upload.ended) /* shutdown(2) may wake no thread then: it looks once a second */
		advance(1000);
	PROPERTY(is_over(), "evicted, and still open");
}

static void
pass_time(struct input *in)
{
	int64_t passed_ms = next(in) * INT64_C(100);
	if (!in->at_once) {
		advance(passed_ms);
		return;
	}
	add_time(passed_ms); /* the tasks are late: they take longer to give up a side */
	run.upload.stall_ms = run.download.stall_ms = 0;
}

static void (*const steps[STEP_COUNT])(struct input *in) = {
    [STEP_CLIENT_SENDS] = client_sends,
    [STEP_CLIENT_SENDS_BLOCKS] = client_sends_blocks,
    [STEP_CLIENT_RECEIVES] = client_receives,
    [STEP_CLIENT_ENDS] = end_upload,
    [STEP_CLIENT_CLOSES] = close_client,
    [STEP_BACKEND_SENDS] = backend_sends,
    [STEP_BACKEND_SENDS_BLOCKS] = backend_sends_blocks,
    [STEP_BACKEND_RECEIVES] = backend_receives,
    [STEP_BACKEND_ENDS] = end_download,
    [STEP_BACKEND_CLOSES] = close_backend,
    [STEP_TIME_PASSES] = pass_time,
    [STEP_BUFFERS_SHRINK] = shrink_buffers,
    [STEP_BACKEND_DEAF] = deafen_backend,
    [STEP_BACKEND_BUSY] = make_busy,
    [STEP_FAULTS] = make_faults,
    [STEP_EVICT] = evict,
};

static void
take_steps(struct input *in)
{
	for (unsigned count = 0; count < STEPS_MAX && in->length > 0; count++) {
		uint8_t step = next(in);
		in->at_once = step >= STEP_AT_ONCE;
		steps[step % STEP_AT_ONCE % STEP_COUNT](in);
		if (!in->at_once)
			serve_until_quiet();
	}
}

/* --- A run --- */

/* The LENGTH of the input decides how long an idle connection keeps its thread, and whether there
 * are pipes. */
static void
begin_run(size_t length)
{
	int pair[2];
	PROPERTY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair: %s",
	    strerror(errno));
	PROPERTY(fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0, "fcntl: %s", strerror(errno));
	const struct stream fresh = {.start = HEADER_ROOM, .end = HEADER_ROOM};
	uint8_t *upload = run.upload.bytes, *download = run.download.bytes;
	run = (struct run){.client = pair[0],
	    .client_side = pair[1],
	    .backend = -1,
	    .backend_side = -1,
	    .upload = fresh,
	    .download = fresh};
	run.fed = HEADER_ROOM;
	run.upload.bytes = upload;
	run.download.bytes = download;
	world.runs = true;
	world.quiet_ms = length % 4 < 2 ? THREAD_QUIET_MS : 0;
	relay_prepare(length % 8 < 6 ? 2 : 0, get_quiet_ms);
	/* Each run begins just after a check of the idle connections. */
	world.now_ms = next_ms(INT64_MAX) == INT64_MAX ? world.now_ms : next_ms(INT64_MAX);
	run.fate = SERVED; /* which serve() leaves as it is */
	serve_until_quiet();
	run.fate = UNDECIDED;
	run.begin_ms = world.now_ms;
	const union address peer = {.v4 = {.sin_family = AF_INET,
					.sin_port = htons(51234),
					.sin_addr.s_addr = htonl(0xc0000207)}};
	proxy_accept(run.client_side, &peer);
}

/* Lets everything of one stream arrive that is under way. */
static void
settle_upload(void)
{
	do
		serve_until_quiet();
	while (receive(run.backend, &run.upload, SIZE_MAX));
}

static void
settle_download(void)
{
	do
		serve_until_quiet();
	while (receive(run.client, &run.download, SIZE_MAX));
}

static void
expect_arrived(int fd, const struct stream *stream, const char *what)
{
	if (fd == -1 || stream->may_break)
		return;
	PROPERTY(stream->start == stream->end, "%s: %zu bytes did not arrive", what,
	    stream->end - stream->start);
	PROPERTY(stream->seen == stream->ended, "%s: %s", what,
	    stream->ended ? "the end did not arrive" : "an end that was not sent");
}

static void
expect_upload(void)
{
	settle_upload();
	expect_arrived(run.backend, &run.upload, "upload");
}

static void
expect_download(void)
{
	settle_download();
	if (run.fate != UNDECIDED)
		expect_arrived(run.client, &run.download, "download");
}

/* If one side is enough to end the connection, the other need not close. */
static void
expect_end(void)
{
	bool is_served = run.fate == SERVED || run.fate == UNDECIDED;
	if (is_served && !run.client_closed && !run.backend_closed)
		return;
	advance(SOON_MS);
	settle_upload();
	settle_download();
	PROPERTY(is_over(), "the connection does not end soon");
}

/* Ends both streams properly; then the proxy must have finished. */
static void
end_run(bool upload_first)
{
	run.busy = run.faults = 0;
	advance(1000); /* timeouts are noticed at intervals */
	if (run.fate == REJECTED)
		advance(1000);
	if (upload_first)
		expect_upload();
	expect_download();
	expect_upload();
	expect_end();
	end_upload(NULL);
	expect_upload();
	PROPERTY(run.fate != UNDECIDED || run.evicted, "nothing became of it");
	end_download(NULL);
	expect_download();
	close_backend(NULL);
	close_client(NULL);
	serve_until_quiet();
	PROPERTY(is_over(), "the connection does not end");

	PROPERTY(run.lines <= 1, "%u log lines", run.lines);
	/* Because of a fault or a reset, the bytes may never have been read. */
	bool may_be_silent = run.was_silent || run.had_faults || run.upload.may_break;
	PROPERTY(run.lines == 1 || run.fate == SERVED || run.evicted || may_be_silent,
	    "rejected, and not logged");
	PROPERTY(run.lines == 0 || has_sent(), "logged, though nothing was sent");
	PROPERTY(
	    (run.fate == SERVED) == (run.backend_side != -1) || run.client_closed || run.evicted,
	    "no backend");
	for (size_t i = 0; i < HOST_COUNT; i++)
		if (hosts[i].listener != -1)
			PROPERTY(accept(hosts[i].listener, NULL, NULL) == -1,
			    "one more connection to %s", hosts[i].name);
	tls_hello_release(&run.hello);
	world.runs = false;
}

/* How many descriptors with low numbers are open; new ones get those numbers. */
static unsigned
count_descriptors(void)
{
	unsigned count = 0;
	for (int fd = 0; fd < 32; fd++)
		count += fcntl(fd, F_GETFD) != -1;
	return count;
}

int
LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	if (world.directory == 0)
		make_world();
	/* If threads do not change the directory themselves. */
	PROPERTY(fchdir(world.directory) == 0, "fchdir: %s", strerror(errno));
	unsigned descriptors = count_descriptors();
	struct input in = {.bytes = input, .length = length};
	begin_run(length);
	take_steps(&in);
	end_run(length % 2 == 0);
	PROPERTY(count_descriptors() == descriptors, "a descriptor was left open");
	/* The caller may have relative paths. */
	PROPERTY(fchdir(world.before) == 0, "fchdir: %s", strerror(errno));
	return 0;
}

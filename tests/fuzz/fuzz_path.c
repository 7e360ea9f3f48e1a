/* Fuzz test of the whole path, from a client's first byte to the alert or to the last byte that
 * the backend sent: proxy.c and all that it calls, but no network, no thread, and no waiting.
 *
 * The input is a list of steps of the client, of the backends, and of the clock. Client and proxy
 * are connected by a socketpair; the backends listen on Unix sockets below a hosts directory.
 * The linker's option --wrap replaces calls that create threads, wait, or tell the time by
 * functions of this file. So each thread of the proxy is a task with a stack of its own; while one
 * waits, the others and the next steps run.
 *
 * What the proxy must do depends on the bytes that the client sent, by tls.h alone, and on the
 * hosts directory:
 *
 * - A rejected client gets the seven bytes of the alert, the end of the stream, no reset unless it
 *   still sends after LINGER_MS, and one line in the log.
 * - Otherwise a backend gets its PROXY header and each byte that the client sent, and the client
 *   each byte that the backend sent, in order, and then the end; neither direction waits for the
 *   other. This holds even if the sender has closed since, with or without unread bytes.
 * - The backend is that of the first directory that exists: the name's, then _.DOMAIN, then
 *   _default; without a name, _no-sni. Its acme-tls-socket, if there is one, serves a client that
 *   offers acme-tls/1 and nothing else.
 * - For a backend that is down, the proxy waits for RESTART_MS, and tries again every RETRY_MS. It
 *   does not wait while threads are short, nor for a backend that it remembers as down.
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
#include "tests/fuzz/path_hosts.h"
#include "tls.h"

enum {
	STREAM_MAX = 512 * 1024,       /* in each direction */
	HEADER_ROOM = HOST_HEADER_MAX, /* room before the client's bytes */
	BLOCK_SIZE = 4096,
	NOISE_PERIOD = 251, /* so that successive blocks differ */
	CANDIDATES = 3,     /* hosts that may serve a client */
	ID_TEXT_SIZE = 64,  /* in the log */
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

	/* How long the proxy waits for a host that is down, and then remembers it; and how often it
	 * tries to connect meanwhile, at least. */
	RESTART_MS = 1000,
	RETRY_MS = 50,
};

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
	bool threads_are_short;
	bool knows_taken;              /* the system tells which bytes a side has not taken */
	uint8_t last_id[HOST_ID_SIZE]; /* the last unique ID that a backend got */
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
	int64_t wait_ms;  /* for how long the receiver has not taken everything, */
	int64_t idle_ms;  /* the same, as far as the proxy has certainly seen, */
	int64_t stall_ms; /* and for how long the receiver has taken nothing */
	bool may_break;   /* the proxy may end it before all has arrived */
};

/* A connection, and what must happen to it. */
static struct run {
	int64_t begin_ms;
	int client, backend;           /* -1 if they are closed, or not yet open */
	int client_side, backend_side; /* the proxy's ends, as long as it is not over */

	enum { UNDECIDED, CONNECTING, REJECTED, SERVED, SILENT } fate;
	bool was_silent; /* the client had sent nothing before that was decided */
	bool had_faults;
	int64_t over_ms; /* when it was rejected, or the backend closed */
	struct tls_hello hello;
	size_t fed;               /* up to where */
	char name[HOSTNAME_SIZE]; /* "" if the client has sent none */

	struct host *candidates[CANDIDATES]; /* the hosts that may serve it, or NULL */
	struct host *host;                   /* the one that the proxy has tried last, or NULL */
	int64_t failed_ms;                   /* when the first attempt has failed, or 0 */
	int64_t attempt_ms;                  /* when that was, or when the hello was complete */
	uint8_t *header, *id; /* the PROXY header, and the unique ID in it; NULL if there is none */
	size_t header_length;

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

static bool
is_late(void)
{
	return world.now_ms >= run.begin_ms + TABLE_HELLO_MS;
}

/* Whether the bytes before START have a unique ID, which the backend tells when it receives it. */
static bool
has_learned_id(size_t start)
{
	return run.id != NULL && run.upload.bytes + start >= run.id + HOST_ID_SIZE;
}

static void expect_alert(enum tls_alert alert);
static void expect_attempt(enum host_socket which);
static void expect_connection(int fd, enum host_socket which);
static void expect_retry(enum host_socket which);
static void expect_no_host(void);

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

bool __wrap_thread_is_short(void);

bool
__wrap_thread_is_short(void)
{
	return world.threads_are_short;
}

/* Returns which socket of a host has this address. */
static enum host_socket
socket_at(const struct sockaddr *address)
{
	const char *path = ((const struct sockaddr_un *)address)->sun_path;
	const char *slash = strrchr(path, '/');
	return strcmp(slash != NULL ? slash + 1 : path, "tls-socket") == 0 ? HOST_TLS : HOST_ACME;
}

/* The backlog has room, unless it must be full. */
int
__wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
	enum host_socket which = socket_at(address);
	expect_attempt(which);
	if (run.busy > 0) {
		run.busy--;
		if (is_late())
			expect_alert(TLS_INTERNAL_ERROR);
		errno = (int)run.busy_errno;
		return -1;
	}
	int error = __real_connect(fd, address, size) == -1 ? errno : 0;
	if (error == 0)
		expect_connection(fd, which);
	else if (which == HOST_TLS || error != ENOENT) /* otherwise tls-socket is next */
		expect_retry(which);
	errno = error;
	return error == 0 ? 0 : -1;
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
	bool is_alert = run.backend_side == -1 && world.task != NULL;
	if (is_alert && run.fate == CONNECTING)
		expect_no_host();
	PROPERTY(!is_alert || run.fate == REJECTED, "an alert that nothing calls for");
	ssize_t most = is_alert ? (ssize_t)length : shorten(length);
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

/* Writes what follows the host in a log line: the unique ID, if there is one, as far as it is
 * known. */
static void
id_text(char text[ID_TEXT_SIZE])
{
	strcpy(text, run.id != NULL ? " id=" : ":");
	if (!has_learned_id(run.upload.start))
		return;
	for (size_t i = 0; i < HOST_ID_SIZE; i++)
		snprintf(text + 4 + 2 * i, 3, "%02x", run.id[i]);
	strcat(text, ":");
}

/* A line names the client, the name that it asked for, the special host, and the unique ID. */
static void
judge_beginning(const char *line, enum log_kind kind)
{
	char expected[LOG_LINE_MAX], id[ID_TEXT_SIZE];
	bool is_special = run.host != NULL && hostname_is_special(run.host->name);
	id_text(id);
	int length = snprintf(expected, sizeof expected, "192.0.2.7:51234 %s%s%s%s%s",
	    run.name[0] != '\0' ? run.name : "-", is_special ? " (" : "",
	    is_special ? run.host->name : "", is_special ? ")" : "", id);
	PROPERTY(strncmp(line, expected, (size_t)length) == 0, "%s, not %s", line, expected);
	PROPERTY(kind == (run.name[0] != '\0' || is_special ? LOG_HOST : LOG_CLIENT), "kind %u: %s",
	    (unsigned)kind, line);
}

/* Replaces log.c: a line must be text. */
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
	judge_beginning(line, kind);
	for (int i = 0; i < length; i++)
		PROPERTY(line[i] >= ' ' && line[i] <= '~', "byte %d in the log", line[i]);
	run.lines++;
}

void
log_count_left_out(void)
{
}

/* --- The world --- */

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

/* Whether the system tells that a side has not taken a byte. */
static bool
knows_taken(void)
{
	int pair[2];
	PROPERTY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 &&
		send(pair[0], "", 1, 0) == 1,
	    "socketpair: %s", strerror(errno));
	bool knows = system_unacknowledged(pair[0]) > 0;
	close(pair[0]);
	close(pair[1]);
	return knows;
}

/* Makes everything that outlives a run. */
static void
make_world(void)
{
	world.before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	PROPERTY(world.before != -1, "open: %s", strerror(errno));
	world.directory = hosts_make();
	world.knows_taken = knows_taken();
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

/* Takes the unique ID from what the backend RECEIVED. It must be a new one. */
static void
learn_id(const uint8_t *received, size_t length)
{
	size_t start = run.upload.start;
	if (run.id == NULL || has_learned_id(start))
		return;
	size_t at = (size_t)(run.id - run.upload.bytes);
	for (size_t i = 0; i < length; i++)
		if (start + i >= at && start + i < at + HOST_ID_SIZE)
			run.upload.bytes[start + i] = received[i];
	host_header_sign(run.header, run.header_length);
	if (!has_learned_id(start + length))
		return;
	PROPERTY(memcmp(run.id, world.last_id, HOST_ID_SIZE) != 0, "a unique ID again");
	memcpy(world.last_id, run.id, HOST_ID_SIZE);
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
		stream->wait_ms = 0;
	if (length == -1 && errno == EAGAIN)
		return false;
	if (length == -1)
		PROPERTY(errno == ECONNRESET && may_be_reset(stream), "%s", strerror(errno));
	if (length <= 0) {
		see_end(stream);
		return true;
	}
	if (stream == &run.upload)
		learn_id(room, (size_t)length);
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

/* The client has sent a complete hello with this NAME. */
static void
expect_name(const uint8_t *name, size_t length)
{
	char special[HOSTNAME_SIZE] = "_";
	if (!hostname_canonical(run.name, name, length)) {
		run.name[0] = '\0';
		expect_alert(TLS_UNRECOGNIZED_NAME);
		return;
	}
	const char *domain = strchr(run.name, '.');
	strcpy(special + 1, domain != NULL ? domain : "");
	run.fate = CONNECTING;
	run.attempt_ms = world.now_ms;
	run.candidates[0] = hosts_find(run.name);
	run.candidates[1] = hosts_find(special);
	run.candidates[2] = hosts_find("_default");
}

/* The client has sent a complete hello without a name. */
static void
expect_no_name(void)
{
	run.fate = CONNECTING;
	run.attempt_ms = world.now_ms;
	run.candidates[0] = hosts_find("_no-sni");
}

/* Returns the first candidate that exists, and drops those before it: the proxy does not return to
 * them. */
static struct host *
next_host(void)
{
	for (size_t i = 0; i < CANDIDATES; i++) {
		if (run.candidates[i] != NULL && run.candidates[i]->exists)
			return run.candidates[i];
		run.candidates[i] = NULL;
	}
	return NULL;
}

/* The proxy rejects the client instead of trying a socket: there must be no host. */
static void
expect_no_host(void)
{
	run.host = next_host();
	if (run.host == NULL)
		expect_alert(TLS_UNRECOGNIZED_NAME);
}

static bool
offers_acme_alone(void)
{
	static const char acme[] = "acme-tls/1";
	return run.hello.protocols == 1 && run.hello.protocol_length == sizeof acme - 1 &&
	    memcmp(run.hello.protocol, acme, sizeof acme - 1) == 0;
}

/* The proxy tries a socket. */
static void
expect_attempt(enum host_socket which)
{
	PROPERTY(run.fate == CONNECTING, "an attempt to connect too many");
	run.host = next_host();
	PROPERTY(run.host != NULL, "an attempt to connect to no host");
	run.attempt_ms = world.now_ms;
	bool is_for_acme = offers_acme_alone();
	PROPERTY(which == HOST_TLS || is_for_acme, "acme-tls-socket for another client");
	PROPERTY(
	    which == HOST_ACME || !is_for_acme || run.host->states[HOST_ACME] == SOCKET_MISSING,
	    "not acme-tls-socket");
}

/* The backend gets its header before the client's bytes. */
static void
expect_header(enum host_socket which)
{
	uint8_t header[HOST_HEADER_MAX];
	run.header_length = host_header(header, run.host, which, run.name, &run.hello);
	run.upload.start -= run.header_length;
	run.header = run.upload.bytes + run.upload.start;
	memcpy(run.header, header, run.header_length);
	run.id = host_header_id(run.header, run.header_length);
}

/* The proxy has connected, so the host is no longer down. */
static void
expect_connection(int fd, enum host_socket which)
{
	PROPERTY(run.host->states[which] == SOCKET_LISTENING, "connected to another host");
	run.fate = SERVED;
	run.backend_side = fd;
	run.backend = accept4(run.host->listeners[which], NULL, NULL, SOCK_CLOEXEC);
	PROPERTY(run.backend != -1, "connected to another host");
	run.host->down_until_ms[which] = 0;
	expect_header(which);
}

/* Whether HOST, which is down, has not been down for RESTART_MS, as far as the proxy remembers, and
 * the client has not waited for so long. */
static bool
is_worth_waiting(struct host *host, enum host_socket which)
{
	if (world.now_ms >= host->down_until_ms[which])
		host->down_since_ms[which] = world.now_ms;
	host->down_until_ms[which] = world.now_ms + RESTART_MS;
	return world.now_ms < host->down_since_ms[which] + RESTART_MS &&
	    world.now_ms < run.failed_ms + RESTART_MS;
}

/* The host is down: the proxy tries again, or rejects the client. */
static void
expect_retry(enum host_socket which)
{
	if (run.failed_ms == 0)
		run.failed_ms = world.now_ms;
	if (is_late() || world.threads_are_short || !is_worth_waiting(run.host, which))
		expect_alert(TLS_UNRECOGNIZED_NAME);
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
		expect_name(name, length);
	else if (status == TLS_REFUSED && run.hello.alert == TLS_UNRECOGNIZED_NAME)
		expect_no_name();
	else if (status == TLS_REFUSED)
		expect_alert(run.hello.alert);
	else if (run.upload.ended && has_sent())
		expect_alert(TLS_DECODE_ERROR);
	else if (run.upload.ended)
		expect_nothing();
}

/* --- Time --- */

/* The proxy sees whether the receiver has taken anything. If its calls are interrupted, it may see
 * nothing. */
static void
see_wait(struct stream *stream)
{
	if (run.faults == 0)
		stream->idle_ms = stream->wait_ms;
	if (stream->idle_ms >= RELAY_STALL_MS)
		stream->may_break = true;
}

/* Runs the tasks as far as they can. Returns whether there may be more to do. */
static bool
serve(void)
{
	bool moves = false;
	decide();
	see_wait(&run.upload);
	see_wait(&run.download);
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
	if (closed || (stream->ended && other->ended)) {
		stream->wait_ms += passed_ms;
		stream->idle_ms += passed_ms;
	}
	if (closed)
		stream->stall_ms += passed_ms;
}

static void
add_time(int64_t passed_ms)
{
	world.now_ms += passed_ms;
	idle(&run.upload, &run.download, run.client_closed, passed_ms);
	idle(&run.download, &run.upload, run.backend_closed, passed_ms);
}

/* To close while the client may still send would reset the connection, and destroy what the client
 * has not taken; not with these sockets, but with others. Where the system does not tell what the
 * client has taken, the proxy waits only while there is no room for more. */
static void
expect_patience(void)
{
	if (run.fate == SERVED && !run.upload.ended && !run.download.may_break &&
	    run.download.start < run.download.end && world.knows_taken)
		PROPERTY(!is_over(), "closed before the client has taken all");
}

/* The proxy tries again as often as it must, unless the client is gone. */
static void
expect_attempts(void)
{
	if (run.fate == CONNECTING && !is_over())
		PROPERTY(world.now_ms <= run.attempt_ms + RETRY_MS, "no attempt for %lld ms",
		    (long long)(world.now_ms - run.attempt_ms));
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
		expect_attempts();
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
change_special_hosts(struct input *in)
{
	hosts_set_special(next(in));
}

static void
change_socket(struct input *in)
{
	unsigned what = next(in);
	host_set_state(
	    &hosts[what / 8 % HOST_COUNT], what / 4 % HOST_SOCKETS, what % 4 % SOCKET_STATES);
}

static void
change_threads(struct input *in)
{
	(void)in;
	world.threads_are_short = !world.threads_are_short;
}

static void
make_faults(struct input *in)
{
	run.faults = next(in);
	run.had_faults = true;
}

/* Slots are short, or threads: the connection is evicted, if it may be. */
static void
evict(struct input *in)
{
	bool is_taken;
	(void)in;
	struct connection *victim =
	    table_evict(world.threads_are_short ? TABLE_THREADS : TABLE_SLOTS, &is_taken);
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

/* --- A run --- */

/* The LENGTH of the input decides how long an idle connection keeps its thread, and whether there
 * are pipes. */
static void
begin_run(size_t length)
{
	hosts_reset();
	world.runs = true;
	world.threads_are_short = false;
	world.quiet_ms = length % 4 < 2 ? THREAD_QUIET_MS : 0;
	relay_prepare(length % 8 < 6 ? 2 : 0, get_quiet_ms);
	/* Each run begins just after a check of the idle connections, and no host is down. */
	world.now_ms += 2 * RESTART_MS;
	run.fate = SERVED; /* which serve() leaves as it is */
	serve_until_quiet();
}

static void
begin_connection(void)
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
	bool ends = run.fate == REJECTED || run.fate == SILENT;
	if (!ends && !run.client_closed && !run.backend_closed)
		return;
	advance(SOON_MS);
	settle_upload();
	settle_download();
	PROPERTY(is_over(), "the connection does not end soon");
}

/* The connection is over. */
static void
end_connection(void)
{
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
	for (const struct host *host = hosts; host < hosts + HOST_COUNT; host++)
		for (unsigned which = 0; which < HOST_SOCKETS; which++)
			PROPERTY(accept(host->listeners[which], NULL, NULL) == -1,
			    "one more connection to %s", host->name);
	tls_hello_release(&run.hello);
}

/* Ends both streams properly; then the proxy must have finished. */
static void
end_run(bool upload_first)
{
	run.busy = run.faults = 0;
	advance(1000); /* timeouts are noticed at intervals */
	if (run.fate == CONNECTING)
		advance(RESTART_MS + RETRY_MS);
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
	PROPERTY(run.fate != CONNECTING || run.evicted || run.client_closed, "it waits for a host");
	end_download(NULL);
	expect_download();
	close_backend(NULL);
	close_client(NULL);
	serve_until_quiet();
	end_connection();
	world.runs = false;
}

/* A client that is served, or was rejected because of its host, leaves at once, and the next one
 * comes. */
static void
change_client(struct input *in)
{
	(void)in;
	bool is_rejected = run.fate == REJECTED && run.host != NULL;
	if ((run.fate != SERVED && !is_rejected) || run.client_closed || run.evicted)
		return;
	run.faults = 0;
	expect_download();
	close_backend(NULL);
	close_client(NULL);
	serve_until_quiet();
	end_connection();
	begin_connection();
}

/* --- The input --- */

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
    [STEP_SPECIAL_HOSTS] = change_special_hosts,
    [STEP_SOCKET] = change_socket,
    [STEP_THREADS_SHORT] = change_threads,
    [STEP_NEXT_CLIENT] = change_client,
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
	begin_connection();
	take_steps(&in);
	end_run(length % 2 == 0);
	PROPERTY(count_descriptors() == descriptors, "a descriptor was left open");
	/* The caller may have relative paths. */
	PROPERTY(fchdir(world.before) == 0, "fchdir: %s", strerror(errno));
	return 0;
}

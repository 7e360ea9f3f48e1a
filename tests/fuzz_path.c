/* Fuzz test of the whole path, from a client's first byte to the alert or to the last byte that
 * the backend sent: proxy.c and all it stands on, but no network, no thread, and no waiting.
 *
 * The input is a list of steps: what the client does, what the backend does, and how time goes
 * by. Client and proxy are joined by a socketpair, the backends listen on Unix sockets in a
 * directory of their own, and ways come from the lot as they do in lot.c. Each is served on a
 * stack of its own, so that a way that waits for room in a socket lets the next steps be taken,
 * and goes on when there is some, or when it has waited for RELAY_STALL_MS.
 *
 * What the proxy has to do follows from the bytes that the client sent, by tls.h alone:
 *
 * - A client that is to be refused gets the seven bytes of that alert, the end of the stream,
 *   no reset but where it still sends after LINGER_MS, and one line in the log.
 * - Otherwise the backend of that name gets each byte that the client sent, and the client each
 *   byte that the backend sent, in order, and then the end; one way does not wait for the other.
 *   That is so, too, where who sent them has closed since, with or without unread bytes.
 * - Where that one is gone, and the other takes nothing for half a minute, it may end before;
 *   in the end it must. Whoever closes ends the connection, and soon. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "../connection.h"
#include "../deadline.h"
#include "../log.h"
#include "../lot.h"
#include "../pressure.h"
#include "../proxy.h"
#include "../registry.h"
#include "../system.h"
#include "../tls.h"
#include "fuzz.h"

enum {
	STREAM_MAX = 512 * 1024, /* in each direction */
	BLOCK_SIZE = 4096,
	NOISE_PERIOD = 251, /* so that no two blocks in a row are the same */
	STEPS_MAX = 256,
	TURNS_MAX = 10000, /* more is spinning */

	/* A connection has two ways, and a stack is large enough for sanitizers. */
	TASKS = 2,
	STACK_SIZE = 256 * 1024,

	BEGIN_MS = 1000 * 1000, /* what the clock says when a connection is accepted */

	/* What is given to one that takes nothing, once the one that sent it is gone; and
	 * after how many times RELAY_STALL_MS the proxy must have given up. */
	PATIENCE_MS = 30 * 1000,
	STALLS_MAX = 50,

	/* How long a connection that is over may still be open. */
	SOON_MS = 6 * 1000,

	/* How long a client is listened to when nobody takes what it sends. */
	LINGER_MS = 5 * 1000,
};

#define PROXY_HEADER "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"

/* The hosts. Any other name has no directory. */
static struct host {
	const char *name;
	const char *header; /* what goes before the client's bytes */
	int listener;       /* -1 where nobody listens */
} hosts[] = {
    {"blog.example", "", -1},
    {"header.example", PROXY_HEADER, -1},
    {"dead.example", NULL, -1},
    {"empty.example", NULL, -1},
};
enum { HOST_COUNT = sizeof hosts / sizeof *hosts };

/* What would be a thread of the proxy. */
struct task {
	ucontext_t context;
	struct relay_way *way; /* null where it has none */
	int full;              /* the socket that has no room for what it sends */
	int64_t since_ms;      /* when it began to wait for that */
	struct proxy_thread thread;
	uint8_t stack[STACK_SIZE];
};

static struct {
	char path[4096];
	int before;     /* the working directory that was */
	int directory;  /* the hosts directory */
	int64_t now_ms; /* 0 outside of a run, where the clock is the real one */
	ucontext_t driver;
	struct task tasks[TASKS];
	struct task *task; /* that runs; null where the driver does */
	uint8_t noise[BLOCK_SIZE + NOISE_PERIOD];
} world;

/* Bytes on their way from one end to the other. */
struct stream {
	uint8_t *bytes; /* STREAM_MAX and room for a header before them */
	size_t start;   /* the first that has not arrived */
	size_t end;
	bool ended; /* by the sender, or as far as the receiver can tell */
	bool seen;  /* the receiver saw the end */

	/* Once nobody waits for the receiver any more: */
	int64_t idle_ms; /* for how long it has not taken all there was */
	unsigned stalls; /* how often it has taken nothing for RELAY_STALL_MS */
	bool may_break;  /* the proxy may end it before all has arrived */
};

enum { HEADER_ROOM = 128 };

/* A connection, and what must become of it. */
static struct run {
	int client, backend;           /* -1 where they are closed, or not yet open */
	int client_side, backend_side; /* the proxy's ends, as long as it is not over */

	enum { UNDECIDED, REFUSED, SERVED } fate;
	int64_t over_ms; /* when it was refused, or the backend closed */
	struct tls_hello hello;
	size_t fed; /* up to where */
	struct host *host;

	struct stream upload, download;
	bool client_closed, backend_closed;
	unsigned lines; /* in the log */
} run;

static bool
is_over(void)
{
	return registry_connections() == 0;
}

/* --- What the proxy sees of the world --- */

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real___clock_gettime64(clockid_t id, struct timespec *now) __attribute__((weak));
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t __real_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t length, int flags);
ssize_t __real_splice(int from, off64_t *from_offset, int to, off64_t *to_offset,
    size_t length, unsigned flags);
ssize_t __wrap_splice(int from, off64_t *from_offset, int to, off64_t *to_offset,
    size_t length, unsigned flags);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (id != CLOCK_MONOTONIC || world.now_ms == 0)
		return __real___clock_gettime64 != NULL
		    ? __real___clock_gettime64(id, now)
		    : __real_clock_gettime(id, now);
	now->tv_sec = world.now_ms / 1000;
	now->tv_nsec = (long)(world.now_ms % 1000) * 1000000;
	return 0;
}

/* Its name where a long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

/* Where the client connected to: a socketpair has no address. */
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

static void
accept_backend(int backend_side)
{
	PROPERTY(run.fate == SERVED && run.backend_side == -1, "a connection too many");
	run.backend_side = backend_side;
	run.backend = accept4(run.host->listener, NULL, NULL, SOCK_CLOEXEC);
	PROPERTY(run.backend != -1, "connected to another host");
}

/* The backend has room, so that this does not wait. What follows would wait, but for
 * O_NONBLOCK: see below. */
int
__wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
	if (__real_connect(fd, address, size) == -1)
		return -1;
	PROPERTY(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl: %s", strerror(errno));
	accept_backend(fd);
	return 0;
}

/* Lets others go on until there is room in SOCKET, or it has taken RELAY_STALL_MS. */
static void
wait_for_room(int socket)
{
	struct task *task = world.task;
	PROPERTY(task != NULL, "the main thread waits for room");
	task->full = socket;
	task->since_ms = world.now_ms;
	PROPERTY(swapcontext(&task->context, &world.driver) == 0, "swapcontext");
}

/* Fails for lack of room only after RELAY_STALL_MS, as a blocking socket does. */
ssize_t
__wrap_send(int fd, const void *bytes, size_t length, int flags)
{
	ssize_t sent = __real_send(fd, bytes, length, flags);
	if (sent != -1 || errno != EAGAIN || (flags & MSG_DONTWAIT) != 0)
		return sent;
	wait_for_room(fd);
	return __real_send(fd, bytes, length, flags);
}

/* The same. Where nothing comes from a socket, RELAY_QUIET_MS are over at once. */
ssize_t
__wrap_splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length,
    unsigned flags)
{
	ssize_t sent = __real_splice(from, from_offset, to, to_offset, length, flags);
	bool is_write = to == run.client_side || to == run.backend_side;
	if (sent != -1 || errno != EAGAIN || !is_write)
		return sent;
	wait_for_room(to);
	return __real_splice(from, from_offset, to, to_offset, length, flags);
}

/* Stacks are changed, which this option of AddressSanitizer cannot know. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_stack_use_after_return=0";
}

/* As without SNIPROXY_LOG. */
void
log_connection(const char *format, ...)
{
	(void)format;
	PROPERTY(false, "a line that nobody asked for");
}

void
log_notice(const char *format, ...)
{
	(void)format;
	PROPERTY(false, "totals that nobody asked for");
}

bool
log_report(const char *format, ...)
{
	(void)format;
	PROPERTY(false, "a report that nobody asked for");
	return false;
}

/* In place of log.c: what is logged must be text, and say who. */
void
log_line(const char *format, ...)
{
	char line[LOG_LINE_MAX];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	PROPERTY(length > 0 && length < LOG_LINE_MAX, "a line of %d bytes", length);
	PROPERTY(strncmp(line, "192.0.2.7:51234 ", 16) == 0, "a line of nobody");
	for (int i = 0; i < length; i++)
		PROPERTY(line[i] >= ' ' && line[i] <= '~', "byte %d in the log", line[i]);
	run.lines++;
}

/* --- The hosts directory --- */

static int
listen_in(const char *directory)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "tls-socket"};
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
	PROPERTY(mkdir(directory, 0700) == 0, "%s: %s", directory, strerror(errno));
	if (strcmp(host->name, "empty.example") == 0)
		return;
	int listener = listen_in(directory);
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
	static const char *const files[] = {"tls-socket", "send-proxy-v1", "."};
	for (size_t i = 0; i < HOST_COUNT; i++) {
		char directory[HOSTNAME_SIZE], path[HOSTNAME_SIZE + 16];
		hostname_directory(directory, hosts[i].name);
		for (size_t j = 0; j < 3; j++) {
			snprintf(path, sizeof path, "%s/%s", directory, files[j]);
			if (unlinkat(world.directory, path, 0) == -1)
				unlinkat(world.directory, path, AT_REMOVEDIR);
		}
		unlinkat(world.directory, directory, AT_REMOVEDIR);
	}
	rmdir(world.path);
}

/* What the program does before there are threads, and each thread for itself. */
static void
prepare_proxy(void)
{
	signal(SIGPIPE, SIG_IGN); /* splice(2) raises it */
	thread_prepare();
	thread_pool_prepare(NULL, 0, 0);
	thread_end_wait(); /* there is always one that is free, and so no need of more */
	registry_init(16);
	pressure_init(16);
	relay_prepare(0, TASKS);
	PROPERTY(lot_open(), "epoll_create1: %s", strerror(errno));
	for (size_t i = 0; i < TASKS; i++)
		world.tasks[i].thread.hosts =
		    (struct backend_hosts){.directory = world.directory,
			.own_working_directory = system_can_enter()};
}

/* Makes the hosts directory, below TMPDIR, and all else that outlives a run. */
static void
make_world(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(world.path, sizeof world.path, "%s/sniproxy-fuzz-XXXXXX",
	    temporary != NULL ? temporary : "/tmp");
	PROPERTY(mkdtemp(world.path) != NULL, "%s: %s", world.path, strerror(errno));
	world.before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	world.directory = open(world.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	PROPERTY(
	    world.before != -1 && world.directory != -1 && fchdir(world.directory) == 0,
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

/* Sends as many of LENGTH bytes as the socket takes, and notes those. Returns whether that
 * was all. */
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
	PROPERTY(stream->may_break || stream->ended, "an end that nobody sent");
	PROPERTY(stream->may_break || stream->start == stream->end,
	    "the end before the last %zu bytes", stream->end - stream->start);
}

/* Whether STREAM may end by a reset: the backend's may where the client did not take all; the
 * client's where it still sent when it had been listened to, in vain, for long enough. */
static bool
may_be_reset(const struct stream *stream)
{
	bool has_lingered = (run.fate == REFUSED || run.backend_closed) &&
	    world.now_ms >= run.over_ms + LINGER_MS && run.upload.end > run.fed;
	return stream->may_break ||
	    (stream == &run.upload ? run.client_closed : has_lingered);
}

/* Receives up to SIZE bytes, which must be those that come next in STREAM. Returns whether
 * anything came. */
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
		PROPERTY(
		    errno == ECONNRESET && may_be_reset(stream), "%s", strerror(errno));
	if (length <= 0) {
		see_end(stream);
		return true;
	}
	PROPERTY((size_t)length <= stream->end - stream->start &&
		memcmp(room, stream->bytes + stream->start, (size_t)length) == 0,
	    "other bytes than were sent");
	stream->start += (size_t)length;
	stream->stalls = 0;
	return true;
}

/* --- What must become of the client --- */

static void
expect_alert(enum tls_alert alert)
{
	run.fate = REFUSED;
	run.over_ms = world.now_ms;
	const uint8_t record[] = {21, 3, 3, 0, 2, 2, (uint8_t)alert};
	add(&run.download, record, sizeof record);
	run.download.ended = true;
}

static void
expect_backend(const uint8_t *bytes, size_t length)
{
	char name[HOSTNAME_SIZE];
	bool valid = hostname_canonical(name, bytes, length);
	for (size_t i = 0; valid && i < HOST_COUNT; i++)
		if (hosts[i].listener != -1 && strcmp(hosts[i].name, name) == 0)
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

/* Foretells what the proxy makes of what it can read now. */
static void
decide(void)
{
	if (run.fate != UNDECIDED)
		return;
	if (world.now_ms >= BEGIN_MS + CONNECTION_HELLO_MS) {
		expect_alert(TLS_USER_CANCELED);
		return;
	}
	const uint8_t *name;
	size_t length;
	enum tls_status status = tls_hello_feed(
	    &run.hello, run.upload.bytes + run.fed, run.upload.end - run.fed);
	run.fed = run.upload.end;
	if (status == TLS_OK)
		status = tls_hello_server_name(&run.hello, &name, &length);
	if (status == TLS_OK)
		expect_backend(name, length);
	else if (status == TLS_REFUSED)
		expect_alert(run.hello.alert);
	else if (run.upload.ended)
		expect_alert(TLS_DECODE_ERROR);
}

/* --- In place of lot.c --- */

static void
go_on(struct task *task)
{
	world.task = task;
	PROPERTY(swapcontext(&world.driver, &task->context) == 0, "swapcontext");
	world.task = NULL;
}

static void
serve_way(void)
{
	struct task *task = world.task;
	proxy_serve(task->way, &task->thread);
	task->way = NULL;
}

/* Has TASK serve WAY, on a fresh stack. */
static void
begin_task(struct task *task, struct relay_way *way)
{
	task->way = way;
	PROPERTY(getcontext(&task->context) == 0, "getcontext: %s", strerror(errno));
	task->context.uc_stack.ss_sp = task->stack;
	task->context.uc_stack.ss_size = sizeof task->stack;
	task->context.uc_link = &world.driver;
	makecontext(&task->context, serve_way, 0);
	go_on(task);
}

static void
take_way(struct relay_way *way)
{
	size_t i = 0;
	while (i < TASKS && world.tasks[i].way != NULL)
		i++;
	PROPERTY(i < TASKS, "more ways than there are");
	begin_task(&world.tasks[i], way);
}

/* Whether what TASK waits for is there, or that has taken too long. */
static bool
can_go_on(const struct task *task)
{
	struct pollfd entry = {.fd = task->full, .events = POLLOUT};
	return task->way != NULL &&
	    (poll(&entry, 1, 0) == 1 || world.now_ms >= task->since_ms + RELAY_STALL_MS);
}

/* Lets the main thread and the others do what they can. Returns whether there may be more to
 * do. */
static bool
serve(void)
{
	bool moves = false;
	struct relay_way *way;
	decide();
	deadline_look();
	for (struct task *task = world.tasks; task < world.tasks + TASKS; task++)
		if (can_go_on(task)) {
			go_on(task);
			moves = true;
		}
	if ((way = lot_take(0)) != NULL) {
		take_way(way);
		moves = true;
	}
	return moves;
}

static void
serve_until_quiet(void)
{
	for (unsigned turns = 0; serve(); turns++)
		PROPERTY(turns < TURNS_MAX, "it spins");
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

/* Sends some blocks of noise, each another. */
static void
send_blocks(struct input *in, int fd, struct stream *stream)
{
	for (unsigned count = next(in); count > 0; count--)
		if (!send_some(
			fd, stream, world.noise + stream->end % NOISE_PERIOD, BLOCK_SIZE))
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

static void
close_backend(struct input *in)
{
	(void)in;
	if (run.backend == -1)
		return;
	close(run.backend);
	run.backend = -1;
	run.backend_closed = run.download.ended = true;
	run.over_ms = world.now_ms;
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

/* Makes the buffers of the proxy's sockets as small as they can be. */
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

/* Counts PASSED_MS in which nothing was taken from STREAM, if its sender is gone: it has CLOSED,
 * or both have ended their streams. */
static void
idle(struct stream *stream, const struct stream *other, bool closed, int64_t passed_ms)
{
	if (!closed && !(stream->ended && other->ended))
		return;
	stream->idle_ms += passed_ms;
	if (stream->idle_ms >= PATIENCE_MS)
		stream->may_break = true;
}

static void
advance(int64_t passed_ms)
{
	world.now_ms += passed_ms;
	idle(&run.upload, &run.download, run.client_closed, passed_ms);
	idle(&run.download, &run.upload, run.backend_closed, passed_ms);
}

/* The proxy has run, and nothing was taken from STREAM for RELAY_STALL_MS. */
static void
stall(struct stream *stream, bool closed)
{
	stream->stalls += closed;
	PROPERTY(stream->stalls < STALLS_MAX || is_over(),
	    "it waits for ever for one that takes nothing");
}

/* To close while the client may still send would destroy what it has not taken yet, by a reset;
 * not with these sockets, but with others. */
static void
expect_patience(void)
{
	if (run.fate == SERVED && !run.upload.ended && !run.download.may_break &&
	    run.download.start < run.download.end)
		PROPERTY(!is_over(), "closed before the client has taken all");
}

static void
pass_time(struct input *in)
{
	int64_t left_ms = next(in) * INT64_C(100);
	for (; left_ms >= RELAY_STALL_MS && !in->at_once; left_ms -= RELAY_STALL_MS) {
		advance(RELAY_STALL_MS);
		serve_until_quiet();
		expect_patience();
		stall(&run.upload, run.client_closed);
		stall(&run.download, run.backend_closed);
	}
	advance(left_ms);
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

static void
begin_run(void)
{
	int pair[2];
	PROPERTY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0,
	    "socketpair: %s", strerror(errno));
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

	world.now_ms = BEGIN_MS;
	registry_forget_look(); /* of the last run */
	const union address peer = {.v4 = {.sin_family = AF_INET,
					.sin_port = htons(51234),
					.sin_addr.s_addr = htonl(0xc0000207)}};
	proxy_begin(run.client_side, &peer, false);
}

/* Lets all of one stream arrive that is on its way. */
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
	    stream->ended ? "the end did not arrive" : "an end that nobody sent");
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

/* Where one side is enough to end the connection, it does not take the other to close. */
static void
expect_end(void)
{
	if (run.fate != REFUSED && !run.client_closed && !run.backend_closed)
		return;
	advance(SOON_MS);
	settle_upload();
	settle_download();
	PROPERTY(is_over(), "the connection does not end soon");
}

/* Ends in good order whatever is still open; then the proxy must be done. */
static void
end_run(bool upload_first)
{
	if (upload_first)
		expect_upload();
	expect_download();
	expect_upload();
	expect_end();
	end_upload(NULL);
	expect_upload();
	PROPERTY(run.fate != UNDECIDED, "nothing became of it");
	end_download(NULL);
	expect_download();
	close_backend(NULL);
	close_client(NULL);
	serve_until_quiet();
	PROPERTY(is_over(), "the connection does not end");

	PROPERTY(run.lines <= 1, "%u log lines", run.lines);
	PROPERTY(run.lines == 1 || run.fate == SERVED, "refused, and not logged");
	PROPERTY((run.fate == SERVED) == (run.backend_side != -1), "no backend");
	for (size_t i = 0; i < HOST_COUNT; i++)
		if (hosts[i].listener != -1)
			PROPERTY(accept(hosts[i].listener, NULL, NULL) == -1,
			    "one more connection to %s", hosts[i].name);
	tls_hello_release(&run.hello);
	world.now_ms = 0;
}

/* How many descriptors are open, of those with low numbers, from which new ones come. */
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
	/* Where threads do not go there by themselves. */
	PROPERTY(fchdir(world.directory) == 0, "fchdir: %s", strerror(errno));
	unsigned descriptors = count_descriptors();
	struct input in = {.bytes = input, .length = length};
	begin_run();
	take_steps(&in);
	end_run(length % 2 == 0);
	PROPERTY(count_descriptors() == descriptors, "a descriptor was left open");
	/* Whoever calls this may have relative paths. */
	PROPERTY(fchdir(world.before) == 0, "fchdir: %s", strerror(errno));
	for (size_t i = 0; i < TASKS; i++)
		world.tasks[i].thread.hosts.at_home = false;
	return 0;
}

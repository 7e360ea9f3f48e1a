/* Fuzz test of the whole path, from a client's first byte to the alert or to the last byte that
 * the backend sent: proxy.c and all it stands on, but no network, no thread, and no waiting.
 *
 * The input is a list of steps: what the client does, what the backend does, and how time goes
 * by. Client and proxy are joined by a socketpair, the backends listen on Unix sockets in a
 * directory of their own, events come from epoll(7) as they do in worker.c. What the proxy has
 * to do follows from the bytes that the client sent, by tls.h alone:
 *
 * - A client that is to be refused gets the seven bytes of that alert, the end of the stream,
 *   no reset, and one line in the log.
 * - Otherwise the backend of that name gets each byte that the client sent, and the client each
 *   byte that the backend sent, in order, and then the end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../clock.h"
#include "../log.h"
#include "../proxy.h"
#include "fuzz.h"

enum {
	STREAM_MAX = 512 * 1024, /* in each direction */
	BLOCK_SIZE = 4096,
	NOISE_PERIOD = 251, /* so that no two blocks in a row are the same */
	STEPS_MAX = 256,
	TURNS_MAX = 10000, /* more is spinning */

	BEGIN_MS = 1000 * 1000, /* what the clock says when a connection is accepted */

	/* Half of what is given to a client that takes nothing once the backend is gone. */
	PATIENCE_MS = 15 * 1000,
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

static struct {
	char path[4096];
	int before;    /* the working directory that was */
	int directory; /* the hosts directory */
	int epoll;
	int64_t now_ms; /* 0 outside of a run, where the clock is the real one */
	struct proxy_thread proxy;
	uint8_t noise[BLOCK_SIZE + NOISE_PERIOD];
} world;

/* Bytes on their way from one end to the other. */
struct stream {
	uint8_t *bytes; /* STREAM_MAX and room for a header before them */
	size_t start;   /* the first that has not arrived */
	size_t end;
	bool ended; /* by the sender, or as far as the receiver can tell */
	bool seen;  /* the receiver saw the end */
};

enum { HEADER_ROOM = 128 };

/* A connection, and what must become of it. */
static struct run {
	struct connection *connection; /* null once it is over */
	struct epoll_event watched[2];
	int client,
	    backend; /* the other ends; -1 where they are closed, or not yet open */

	enum { UNDECIDED, REFUSED, SERVED } fate;
	struct tls_hello hello;
	size_t fed; /* up to where */
	struct host *host;

	struct stream upload, download;
	bool client_closed, backend_closed;
	bool may_break;     /* the proxy may end it before all has arrived */
	int64_t patient_ms; /* for how long the backend has been gone */
	unsigned lines;     /* in the log */
} run;

/* --- What the proxy sees of the world --- */

int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (id != CLOCK_MONOTONIC || world.now_ms == 0)
		return __real_clock_gettime(id, now);
	*now = (struct timespec){world.now_ms / 1000, world.now_ms % 1000 * 1000000};
	return 0;
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

/* libFuzzer's timer would make splice(2) fail with EINTR. That is nothing to sniproxy: it
 * handles no signal, it reads them from a descriptor. */
static void
restart_after_timer(void)
{
	struct sigaction action;
	PROPERTY(
	    sigaction(SIGALRM, NULL, &action) == 0, "sigaction: %s", strerror(errno));
	action.sa_flags |= SA_RESTART;
	PROPERTY(
	    sigaction(SIGALRM, &action, NULL) == 0, "sigaction: %s", strerror(errno));
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
	world.epoll = epoll_create1(EPOLL_CLOEXEC);
	PROPERTY(world.before != -1 && world.directory != -1 && world.epoll != -1 &&
		fchdir(world.directory) == 0,
	    "%s: %s", world.path, strerror(errno));
	for (size_t i = 0; i < HOST_COUNT; i++)
		make_host(&hosts[i]);
	atexit(remove_hosts);
	restart_after_timer();
	world.proxy.hosts = (struct backend_hosts){
	    .directory = world.directory, .own_working_directory = true};
	signal(SIGPIPE, SIG_IGN); /* as in the program: splice(2) raises it */
	relay_allow_pipes(2);
	world.proxy.room.splices = true;
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
	PROPERTY(run.may_break || stream->ended, "an end that nobody sent");
	PROPERTY(run.may_break || stream->start == stream->end,
	    "the end before the last %zu bytes", stream->end - stream->start);
}

/* Receives up to SIZE bytes, which must be those that come next in STREAM. Returns whether
 * anything came. */
static bool
receive(int fd, struct stream *stream, size_t size)
{
	static uint8_t room[64 * 1024];
	if (fd == -1 || stream->seen || size == 0)
		return false;
	ssize_t length =
	    recv(fd, room, size < sizeof room ? size : sizeof room, MSG_DONTWAIT);
	if (length == -1 && errno == EAGAIN)
		return false;
	if (length == -1)
		PROPERTY(run.may_break && errno == ECONNRESET, "%s", strerror(errno));
	if (length <= 0) {
		see_end(stream);
		return true;
	}
	PROPERTY((size_t)length <= stream->end - stream->start &&
		memcmp(room, stream->bytes + stream->start, (size_t)length) == 0,
	    "other bytes than were sent");
	stream->start += (size_t)length;
	return true;
}

/* --- What must become of the client --- */

static void
expect_alert(enum tls_alert alert)
{
	run.fate = REFUSED;
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
	if (world.now_ms >= BEGIN_MS + PROXY_HELLO_MS) {
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

/* --- In place of worker.c --- */

static void
watch_side(enum relay_side side, int fd, bool again)
{
	struct epoll_event *watched = &run.watched[side];
	uint32_t events = proxy_wants(run.connection, side);
	if (fd == -1 || (watched->events == events && !again))
		return;
	int operation = watched->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	*watched = (struct epoll_event){.events = events, .data.u32 = side};
	PROPERTY(epoll_ctl(world.epoll, operation, fd, watched) == 0, "epoll_ctl: %s",
	    strerror(errno));
}

static void
watch(bool again)
{
	watch_side(RELAY_CLIENT, run.connection->client, again);
	watch_side(RELAY_BACKEND, run.connection->backend, again);
}

static void
end_connection(void)
{
	proxy_end(run.connection);
	relay_room_release(&world.proxy.room);
	free(run.connection);
	run.connection = NULL;
}

static void
accept_backend(void)
{
	if (run.fate != SERVED || run.host->listener == -1 || run.backend != -1 ||
	    run.backend_closed)
		return;
	run.backend = accept4(run.host->listener, NULL, NULL, SOCK_CLOEXEC);
	/* One that has gone before it needs none. */
	PROPERTY(run.backend != -1 || run.may_break, "no connection to the backend");
}

/* Lets the proxy do what it can where it has events, or its deadline has come. Returns
 * whether it may have more to do. */
static bool
serve(void)
{
	struct connection *c = run.connection;
	if (c == NULL)
		return false;
	struct epoll_event ready[2];
	uint32_t events[2] = {0, 0};
	int count = epoll_wait(world.epoll, ready, 2, 0);
	bool expired = c->deadline_ms != 0 && c->deadline_ms <= world.now_ms;
	if (count == 0 && !expired)
		return false;
	for (int i = 0; i < count; i++)
		events[ready[i].data.u32] |= ready[i].events;

	decide();
	enum proxy_status status =
	    proxy_serve(c, &world.proxy, events[RELAY_CLIENT], events[RELAY_BACKEND]);
	if (status == PROXY_BLOCKS)
		status = proxy_serve(c, &world.proxy, 0, 0);
	accept_backend();
	if (status == PROXY_OVER)
		end_connection();
	else
		watch(status == PROXY_GOES_ON);
	return true;
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
	run.client_closed = run.upload.ended = run.may_break = true;
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
	const struct connection *c = run.connection;
	if (c == NULL)
		return;
	const int size = 1;
	setsockopt(c->client, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	if (c->backend != -1)
		setsockopt(c->backend, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

static void
pass_time(struct input *in)
{
	int64_t passed_ms = next(in) * INT64_C(100);
	world.now_ms += passed_ms;
	if (run.fate == SERVED && run.download.ended)
		run.patient_ms += passed_ms;
	if (run.patient_ms >= PATIENCE_MS)
		run.may_break = true;
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
		steps[step % STEP_AT_ONCE % STEP_COUNT](in);
		if (step < STEP_AT_ONCE)
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
	run = (struct run){
	    .client = pair[0], .backend = -1, .upload = fresh, .download = fresh};
	run.fed = HEADER_ROOM;
	run.upload.bytes = upload;
	run.download.bytes = download;
	run.connection = malloc(sizeof *run.connection);
	PROPERTY(run.connection != NULL, "out of memory");

	world.now_ms = BEGIN_MS;
	const union address peer = {.v4 = {.sin_family = AF_INET,
					.sin_port = htons(51234),
					.sin_addr.s_addr = htonl(0xc0000207)}};
	proxy_begin(run.connection, pair[1], &peer);
	watch(false);
}

/* Lets all arrive that is on its way. */
static void
settle(void)
{
	bool moved;
	do {
		serve_until_quiet();
		moved = receive(run.client, &run.download, SIZE_MAX);
		moved |= receive(run.backend, &run.upload, SIZE_MAX);
	} while (moved);
}

static void
expect_arrived(int fd, const struct stream *stream, const char *what)
{
	if (fd == -1 || run.may_break)
		return;
	PROPERTY(stream->start == stream->end, "%s: %zu bytes did not arrive", what,
	    stream->end - stream->start);
	PROPERTY(stream->seen == stream->ended, "%s: %s", what,
	    stream->ended ? "the end did not arrive" : "an end that nobody sent");
}

/* Ends in good order whatever is still open; then the proxy must be done. */
static void
end_run(void)
{
	settle();
	if (run.fate == SERVED) {
		expect_arrived(run.backend, &run.upload, "upload");
		expect_arrived(run.client, &run.download, "download");
	}
	end_upload(NULL);
	settle();
	PROPERTY(run.fate != UNDECIDED, "nothing became of it");
	expect_arrived(run.backend, &run.upload, "upload");
	end_download(NULL);
	settle();
	expect_arrived(run.client, &run.download, "download");
	close_backend(NULL);
	close_client(NULL);
	serve_until_quiet();
	PROPERTY(run.connection == NULL, "the connection does not end");

	PROPERTY(run.lines <= 1, "%u log lines", run.lines);
	PROPERTY(run.lines == 1 || run.fate == SERVED, "refused, and not logged");
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
	if (world.epoll == 0)
		make_world();
	unsigned descriptors = count_descriptors();
	struct input in = {input, length};
	begin_run();
	take_steps(&in);
	end_run();
	PROPERTY(count_descriptors() == descriptors, "a descriptor was left open");
	/* Whoever calls this may have relative paths. */
	PROPERTY(fchdir(world.before) == 0, "fchdir: %s", strerror(errno));
	world.proxy.hosts.at_home = false;
	return 0;
}

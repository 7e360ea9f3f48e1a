/* System calls that fail in service: strace(1) makes each of them fail in each way that the kernel
 * has, always and now and then, under traffic of all kinds. A connection may end because of it. The
 * program must serve on, lose neither descriptors nor memory, and never spin. FAULTS lists what is
 * injected; a call that the program makes in service, and that is not listed, fails the test. */
#include "tests/program/harness.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- What is injected --- */

/* When the fault occurs. */
enum when {
	/* Each thread's first call fails, and then each fourth one: the three openat(2) calls of a
	 * symlink would otherwise always fail at the same place. */
	SOME = 1,
	ALWAYS = 2, /* all calls fail, for a second */
	BOTH = SOME | ALWAYS,
};

/* What a fault may do to connections. */
enum harm {
	NONE, /* nothing: they wait, or continue without */
	HIT,  /* each fault may end one */
};

/* The traffic that causes the call. */
enum traffic {
	MIXED,    /* small and bulky, both directions, closed, reset, with a PROXY header */
	BUSY,     /* the same, and clients of a backend that does not accept for a while */
	FRESH,    /* the same as BUSY, and the proxy has hardly served before */
	BULKY,    /* the same as FRESH, and much bulk */
	IDLE,     /* the same as FRESH, and then silence until threads end */
	SILENT,   /* the same, and the fault lasts until then */
	SLOW,     /* MIXED, but less: each fault takes a client some seconds */
	SHARED,   /* MIXED, if several users may write to the hosts directory; with a symlink */
	PATIENT,  /* MIXED, and clients that take the last bytes of a backend slowly */
	LATE,     /* the same as BUSY, and clients whose hello never ends */
	PRESSURE, /* clients that stall are evicted for others */
	STOP,     /* the proxy is told to stop, and connections end one after another */
};

/* What the kernel can return. Some errors are missing, because a false one would not be a fault,
 * but a lie about the state of a socket or a file: EAGAIN if there are bytes or room, ENOTCONN from
 * shutdown(2) of a connection that exists, ENOENT for a send-proxy-v1 that exists. SOME alone is
 * for what the kernel does not return again and again, such as EINTR from a wait, or ECONNABORTED,
 * which removes the connection.
 *
 * If accept4(2) is short of something, a connection that has waited for long enough is evicted;
 * on a slow machine there may be one. */
#define FAULTS(ROW) \
	ROW(accept4, EMFILE, BOTH, HIT, MIXED) \
	ROW(accept4, ENFILE, BOTH, HIT, MIXED) \
	ROW(accept4, ENOMEM, BOTH, HIT, MIXED) \
	ROW(accept4, ENOBUFS, BOTH, HIT, MIXED) \
	ROW(accept4, EPERM, BOTH, NONE, MIXED) \
	ROW(accept4, EPROTO, BOTH, NONE, MIXED) \
	ROW(accept4, ENETDOWN, BOTH, NONE, MIXED) \
	ROW(accept4, ECONNABORTED, SOME, NONE, MIXED) \
	ROW(accept4, EINTR, BOTH, NONE, MIXED) \
	ROW(accept4, EAGAIN, SOME, NONE, MIXED) \
	ROW(clone, EAGAIN, BOTH, HIT, IDLE) \
	ROW(clone, ENOMEM, BOTH, HIT, FRESH) \
	ROW(clone, EPERM, BOTH, HIT, FRESH) \
	ROW(mmap, ENOMEM, BOTH, HIT, IDLE) \
	ROW(mprotect, ENOMEM, BOTH, HIT, IDLE) \
	ROW(brk, ENOMEM, SOME, HIT, FRESH) \
	ROW(madvise, ENOMEM, SOME, NONE, SILENT) \
	ROW(unshare, EPERM, BOTH, HIT, FRESH) \
	ROW(unshare, ENOMEM, BOTH, HIT, IDLE) \
	ROW(fchdir, EACCES, BOTH, HIT, MIXED) \
	ROW(fchdir, EIO, BOTH, HIT, MIXED) \
	ROW(newfstatat, EACCES, BOTH, HIT, MIXED) \
	ROW(newfstatat, EIO, BOTH, HIT, MIXED) \
	ROW(newfstatat, ENOMEM, BOTH, HIT, MIXED) \
	ROW(newfstatat, ENOTDIR, BOTH, HIT, MIXED) \
	ROW(openat, EMFILE, BOTH, NONE, SHARED) \
	ROW(openat, ENFILE, BOTH, NONE, SHARED) \
	ROW(openat, ENOMEM, BOTH, NONE, SHARED) \
	ROW(openat, EACCES, BOTH, HIT, SHARED) \
	ROW(openat, EIO, BOTH, HIT, SHARED) \
	ROW(openat, ELOOP, BOTH, HIT, SHARED) \
	ROW(openat, ENOTDIR, BOTH, HIT, SHARED) \
	ROW(readlinkat, EACCES, BOTH, HIT, SHARED) \
	ROW(readlinkat, EIO, BOTH, HIT, SHARED) \
	ROW(readlinkat, ENOMEM, BOTH, NONE, SHARED) \
	ROW(socket, EMFILE, BOTH, NONE, MIXED) \
	ROW(socket, ENFILE, BOTH, NONE, MIXED) \
	ROW(socket, ENOBUFS, BOTH, NONE, MIXED) \
	ROW(socket, ENOMEM, BOTH, NONE, MIXED) \
	ROW(socket, EACCES, BOTH, HIT, MIXED) \
	ROW(connect, EAGAIN, BOTH, HIT, BUSY) \
	ROW(connect, ECONNREFUSED, BOTH, HIT, MIXED) \
	ROW(connect, EACCES, BOTH, HIT, MIXED) \
	ROW(connect, ENOENT, BOTH, HIT, MIXED) \
	ROW(connect, ENOMEM, BOTH, HIT, MIXED) \
	ROW(connect, ENOBUFS, BOTH, HIT, MIXED) \
	ROW(connect, EPERM, BOTH, HIT, MIXED) \
	ROW(connect, EPROTOTYPE, BOTH, HIT, MIXED) \
	ROW(connect, EINTR, SOME, HIT, BUSY) \
	ROW(setsockopt, ENOMEM, BOTH, NONE, PRESSURE) \
	ROW(setsockopt, EPERM, BOTH, NONE, PRESSURE) \
	ROW(getsockopt, EACCES, BOTH, HIT, SHARED) \
	ROW(getsockname, ENOBUFS, BOTH, HIT, MIXED) \
	ROW(recvfrom, ECONNRESET, BOTH, HIT, MIXED) \
	ROW(recvfrom, ENOMEM, BOTH, HIT, MIXED) \
	ROW(recvfrom, ETIMEDOUT, BOTH, HIT, MIXED) \
	ROW(sendto, ECONNRESET, BOTH, HIT, MIXED) \
	ROW(sendto, ENOBUFS, BOTH, HIT, MIXED) \
	ROW(sendto, ENOMEM, BOTH, HIT, MIXED) \
	ROW(sendto, EPIPE, BOTH, HIT, MIXED) \
	ROW(sendto, EACCES, BOTH, HIT, MIXED) \
	ROW(splice, ECONNRESET, BOTH, HIT, BULKY) \
	ROW(splice, EINVAL, BOTH, HIT, BULKY) \
	ROW(splice, ENOMEM, BOTH, HIT, BULKY) \
	ROW(splice, EPIPE, BOTH, HIT, BULKY) \
	ROW(pipe2, EMFILE, BOTH, NONE, BULKY) \
	ROW(sched_setscheduler, EPERM, BOTH, NONE, FRESH) \
	ROW(pipe2, ENFILE, BOTH, NONE, BULKY) \
	ROW(pipe2, ENOMEM, BOTH, NONE, BULKY) \
	ROW(fcntl, EBUSY, BOTH, NONE, BULKY) \
	ROW(fcntl, ENOMEM, BOTH, NONE, BULKY) \
	ROW(fcntl, EPERM, BOTH, NONE, BULKY) \
	ROW(shutdown, EACCES, SOME, HIT, SLOW) \
	ROW(ioctl, EINVAL, SOME, HIT, PRESSURE) \
	ROW(epoll_ctl, ENOMEM, BOTH, HIT, LATE) \
	ROW(epoll_ctl, ENOSPC, BOTH, HIT, LATE) \
	ROW(epoll_wait, EINTR, SOME, NONE, SILENT) \
	ROW(pselect6, EINTR, SOME, NONE, LATE) \
	ROW(poll, EINTR, SOME, NONE, BUSY) \
	ROW(dup2, EBUSY, BOTH, NONE, STOP) \
	ROW(write, EINTR, SOME, NONE, MIXED) \
	ROW(write, EIO, BOTH, NONE, MIXED) \
	ROW(write, ENOSPC, BOTH, NONE, MIXED) \
	ROW(write, EPIPE, BOTH, NONE, MIXED)

/* What is not injected, and why. */
static const struct {
	const char *call;
	const char *why;
} cannot_fail[] = {
    {"close", "it frees the descriptor even if it fails; see close_fails.c"},
    {"exit", "it does not return"},
    {"exit_group", "likewise"},
    {"futex", "it fails only if a lock is broken, and the C library aborts then"},
    {"getpid", "it cannot fail"},
    {"munmap", "only musl makes it in service, and does not mind if it fails"},
    {"restart_syscall", "the kernel's own way to go on with a call"},
    {"rseq", "the C library does without"},
    {"rt_sigprocmask", "it fails only if its arguments are wrong"},
    {"rt_sigreturn", "it does not return"},
    {"set_robust_list", "likewise"},
    {"tgkill", "likewise"},
    {"tkill", "likewise"},
};

struct fault {
	const char *call;
	const char *error;
	int when;
	enum harm harm;
	enum traffic traffic;
};

static const struct fault faults[] = {
#define ROW(call, error, when, harm, traffic) {#call, #error, when, harm, traffic},
    FAULTS(ROW)
#undef ROW
};

/* Calls that another C library or machine makes under another name. strace(1) takes a name
 * with a question mark although the machine has none such. */
static const char *const synonyms[][3] = {
    {"accept4", "?accept4", "?accept"}, {"clone", "?clone", "?clone3"},
    {"newfstatat", "?newfstatat", "?stat,?lstat,?fstat,?statx"}, {"pipe2", "?pipe2", "?pipe"},
    {"dup2", "?dup2", "?dup3"}, {"epoll_wait", "?epoll_wait", "?epoll_pwait"},
    {"pselect6", "?pselect6", "?ppoll"}, /* see tsan_pselect.c */
};
enum { SYNONYMS = sizeof synonyms / sizeof *synonyms };

/* --- Sending and receiving, for a bounded time --- */

enum {
	SOME_BYTES = 1 << 20,

	/* More than the sockets between a backend and a client hold. */
	BULK = 1 << 24,

	/* How long a connection may take: ten seconds for a hello, and five for the lingering close
	 * after an alert. */
	PATIENCE_MS = 17 * 1000,

	/* A backend, and the client of a download, begin to read so late that the proxy must
	 * wait. */
	STALL_MS = 30,
};

/* The result of an exchange. */
enum outcome {
	DONE,
	CUT,   /* an end, a reset or an alert came too early */
	WRONG, /* other bytes than were sent */
	HUNG,  /* nothing more came */
	OUTCOMES,
};

static int64_t
patience_end_ms(void)
{
	return now_ms() + margin_ms(PATIENCE_MS);
}

static bool
ready(int fd, short events, int64_t end_ms)
{
	int64_t left_ms = end_ms - now_ms();
	struct pollfd entry = {.fd = fd, .events = events};
	return left_ms > 0 && poll(&entry, 1, (int)left_ms) == 1;
}

static enum outcome
give(int fd, struct bytes bytes, int64_t end_ms)
{
	while (bytes.length > 0) {
		if (!ready(fd, POLLOUT, end_ms))
			return HUNG;
		ssize_t sent = send(fd, bytes.data, bytes.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent == -1 && errno != EAGAIN)
			return CUT;
		if (sent > 0)
			bytes = slice(bytes, (size_t)sent, bytes.length - (size_t)sent);
	}
	return DONE;
}

/* Whether the bytes are a fatal alert, or begin like one. */
static bool
is_alert(const uint8_t *bytes, size_t length)
{
	static const uint8_t alert[] = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02};
	return memcmp(bytes, alert, length < sizeof alert ? length : sizeof alert) == 0;
}

/* Receives exactly BYTES. An alert may come instead. */
static enum outcome
take(int fd, struct bytes bytes, int64_t end_ms)
{
	uint8_t got[65536];
	for (size_t have = 0; have < bytes.length;) {
		if (!ready(fd, POLLIN, end_ms))
			return HUNG;
		size_t left = bytes.length - have;
		ssize_t length = recv(fd, got, left < sizeof got ? left : sizeof got, MSG_DONTWAIT);
		if (length <= 0)
			return CUT;
		if (memcmp(got, bytes.data + have, (size_t)length) != 0)
			return have == 0 && is_alert(got, (size_t)length) ? CUT : WRONG;
		have += (size_t)length;
	}
	return DONE;
}

static enum outcome
take_end(int fd, int64_t end_ms)
{
	uint8_t byte;
	if (!ready(fd, POLLIN, end_ms))
		return HUNG;
	ssize_t length = recv(fd, &byte, 1, MSG_DONTWAIT);
	return length == 0 ? DONE : length == -1 ? CUT : WRONG;
}

static enum outcome
each_piece(enum outcome (*move)(int, struct bytes, int64_t), int fd, size_t size, int64_t end_ms)
{
	enum outcome outcome = DONE;
	for (size_t done = 0; done < size && outcome == DONE;) {
		struct bytes piece = pattern(done, size - done);
		outcome = move(fd, piece, end_ms);
		done += piece.length;
	}
	return outcome;
}

static void
stall(void)
{
	poll(NULL, 0, STALL_MS);
}

/* --- Backends --- */

/* What a client asks for with the byte after its hello. */
enum {
	ECHO = 'e',
	UPLOAD = 'u',
	SLOW_UPLOAD = 's', /* the backend begins to read late */
	DOWNLOAD = 'd',
	BULK_DOWNLOAD = 'b',
	VANISH = 'v', /* the backend closes with bytes unread */
};

struct host {
	const char *name;
	bool wants_header;
	atomic_bool busy; /* does not accept */
	int listener;
	struct bytes hello;
	pthread_t thread;
};

static struct host hosts[] = {
    {.name = HOST},
    {.name = "header.example", .wants_header = true},
    {.name = "busy.example"},
};
enum { PLAIN_HOST, HEADER_HOST, BUSY_HOST, HOSTS };

static struct {
	atomic_int open;
	atomic_int wrong;
	atomic_int hung;
} backends;

struct visit {
	const struct host *host;
	int fd;
};

static enum outcome
take_header(int fd, int64_t end_ms)
{
	char line[108] = "";
	for (size_t length = 0; strchr(line, '\n') == NULL; length++) {
		if (length == sizeof line - 1)
			return WRONG;
		if (!ready(fd, POLLIN, end_ms))
			return HUNG;
		if (recv(fd, line + length, 1, MSG_DONTWAIT) != 1)
			return CUT;
	}
	unsigned client_port = 0;
	char expected[sizeof line];
	sscanf(line, "PROXY TCP4 127.0.0.1 127.0.0.1 %u", &client_port);
	snprintf(expected, sizeof expected, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n", client_port,
	    (unsigned)server.port);
	return strcmp(line, expected) == 0 ? DONE : WRONG;
}

/* Sends back what arrives, until the end. */
static enum outcome
echo(int fd, int64_t end_ms)
{
	uint8_t some[4096];
	enum outcome outcome = DONE;
	while (outcome == DONE) {
		if (!ready(fd, POLLIN, end_ms))
			return HUNG;
		ssize_t length = recv(fd, some, sizeof some, MSG_DONTWAIT);
		if (length <= 0)
			return length == 0 ? DONE : CUT;
		outcome = give(fd, (struct bytes){some, (size_t)length, 0}, end_ms);
	}
	return outcome;
}

static enum outcome
take_upload(int fd, int64_t end_ms)
{
	enum outcome outcome = each_piece(take, fd, SOME_BYTES, end_ms);
	if (outcome == DONE)
		outcome = take_end(fd, end_ms);
	return outcome == DONE ? give(fd, text("k"), end_ms) : outcome;
}

static enum outcome
receive_visitor(const struct visit *visit, int64_t end_ms)
{
	int fd = visit->fd;
	uint8_t request;
	enum outcome outcome = DONE;
	if (visit->host->wants_header)
		outcome = take_header(fd, end_ms);
	if (outcome == DONE)
		outcome = take(fd, visit->host->hello, end_ms);
	if (outcome != DONE)
		return outcome;
	if (!ready(fd, POLLIN, end_ms))
		return HUNG;
	if (recv(fd, &request, 1, MSG_DONTWAIT) != 1)
		return CUT;
	switch (request) {
	case ECHO:
		return echo(fd, end_ms);
	case SLOW_UPLOAD:
		stall();
		return take_upload(fd, end_ms);
	case UPLOAD:
		return take_upload(fd, end_ms);
	case DOWNLOAD:
		return each_piece(give, fd, SOME_BYTES, end_ms);
	case BULK_DOWNLOAD:
		return each_piece(give, fd, BULK, end_ms);
	case VANISH:
		return DONE;
	default:
		return WRONG;
	}
}

static void *
serve_visitor(void *argument)
{
	struct visit *visit = argument;
	enum outcome outcome = receive_visitor(visit, patience_end_ms());
	backends.wrong += outcome == WRONG;
	backends.hung += outcome == HUNG;
	close(visit->fd);
	free(visit);
	backends.open--;
	return NULL;
}

/* The test itself fills the backlog, with connections that expect nothing. */
static bool
is_filler(int fd)
{
	struct ucred peer = {0};
	socklen_t length = sizeof peer;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
	return peer.pid == getpid();
}

_Noreturn static void *
run_host(void *argument)
{
	const struct host *host = argument;
	for (;;) {
		if (host->busy) {
			wait_a_moment();
			continue;
		}
		if (!readable_within(host->listener, 20))
			continue;
		int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC);
		pthread_t thread;
		struct visit *visit = malloc(sizeof *visit);
		if (fd == -1 || visit == NULL || is_filler(fd)) {
			free(visit);
			close(fd);
			continue;
		}
		*visit = (struct visit){host, fd};
		backends.open++;
		if (pthread_create(&thread, NULL, serve_visitor, visit) != 0)
			abort();
		pthread_detach(thread);
	}
}

static void
start_host(struct host *host, int backlog)
{
	host->hello = hello_for(host->name);
	free(host_make(host->name));
	if (host->wants_header)
		make_file(host_path(host->name, "send-proxy-v1"), "");
	host->listener = unix_listen(host_path(host->name, "tls-socket"), backlog);
	cr_assert_eq(pthread_create(&host->thread, NULL, run_host, host), 0);
}

/* --- Clients --- */

typedef enum outcome client_kind(int fd, int64_t end_ms);

static const struct bytes words = {(uint8_t *)"a few words and no more", 24, 0};

static enum outcome
ask(int fd, const struct host *host, uint8_t request, int64_t end_ms)
{
	struct bytes bytes = {0};
	put_bytes(&bytes, host->hello);
	put(&bytes, &request, 1);
	enum outcome outcome = give(fd, bytes, end_ms);
	free(bytes.data);
	return outcome;
}

/* Sends a few words, and receives them back. */
static enum outcome
talk(int fd, int64_t end_ms)
{
	enum outcome outcome = give(fd, words, end_ms);
	return outcome == DONE ? take(fd, words, end_ms) : outcome;
}

static enum outcome
ask_for_echo(int fd, const struct host *host, int64_t end_ms)
{
	enum outcome outcome = ask(fd, host, ECHO, end_ms);
	if (outcome == DONE)
		outcome = talk(fd, end_ms);
	shutdown(fd, SHUT_WR);
	return outcome == DONE ? take_end(fd, end_ms) : outcome;
}

static enum outcome
client_echo(int fd, int64_t end_ms)
{
	return ask_for_echo(fd, &hosts[PLAIN_HOST], end_ms);
}

static enum outcome
client_header(int fd, int64_t end_ms)
{
	return ask_for_echo(fd, &hosts[HEADER_HOST], end_ms);
}

static enum outcome
client_busy(int fd, int64_t end_ms)
{
	return ask_for_echo(fd, &hosts[BUSY_HOST], end_ms);
}

static enum outcome
upload(int fd, uint8_t request, int64_t end_ms)
{
	enum outcome outcome = ask(fd, &hosts[PLAIN_HOST], request, end_ms);
	if (outcome == DONE)
		outcome = each_piece(give, fd, SOME_BYTES, end_ms);
	shutdown(fd, SHUT_WR);
	if (outcome == DONE)
		outcome = take(fd, text("k"), end_ms);
	return outcome == DONE ? take_end(fd, end_ms) : outcome;
}

static enum outcome
client_upload(int fd, int64_t end_ms)
{
	return upload(fd, UPLOAD, end_ms);
}

static enum outcome
client_slow_upload(int fd, int64_t end_ms)
{
	return upload(fd, SLOW_UPLOAD, end_ms);
}

static enum outcome
download(int fd, int wait_ms, int64_t end_ms)
{
	enum outcome outcome = ask(fd, &hosts[PLAIN_HOST], DOWNLOAD, end_ms);
	poll(NULL, 0, wait_ms);
	if (outcome == DONE)
		outcome = each_piece(take, fd, SOME_BYTES, end_ms);
	return outcome == DONE ? take_end(fd, end_ms) : outcome;
}

static enum outcome
client_download(int fd, int64_t end_ms)
{
	return download(fd, 0, end_ms);
}

static enum outcome
client_slow_download(int fd, int64_t end_ms)
{
	return download(fd, STALL_MS, end_ms);
}

static enum outcome
client_bulk(int fd, int64_t end_ms)
{
	enum outcome outcome = ask(fd, &hosts[PLAIN_HOST], BULK_DOWNLOAD, end_ms);
	if (outcome == DONE)
		outcome = each_piece(take, fd, BULK, end_ms);
	return outcome == DONE ? take_end(fd, end_ms) : outcome;
}

/* Its backend has sent all and closed. The client takes that after the proxy has begun to check
 * whether it still does. */
static enum outcome
client_patient(int fd, int64_t end_ms)
{
	return download(fd, 6000, end_ms);
}

/* It ends with a reset while the proxy waits for it. */
static enum outcome
client_reset(int fd, int64_t end_ms)
{
	const struct linger reset = {.l_onoff = 1};
	enum outcome outcome = ask(fd, &hosts[PLAIN_HOST], ECHO, end_ms);
	if (outcome == DONE)
		outcome = talk(fd, end_ms);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	return outcome;
}

/* Its backend's end is equivalent to a reset. */
static enum outcome
client_of_vanishing(int fd, int64_t end_ms)
{
	struct bytes bytes = {0};
	put_bytes(&bytes, hosts[PLAIN_HOST].hello);
	put(&bytes, &(uint8_t){VANISH}, 1);
	put_bytes(&bytes, words);
	uint8_t got[16];
	enum outcome outcome = give(fd, bytes, end_ms);
	free(bytes.data);
	if (outcome != DONE)
		return outcome;
	if (!ready(fd, POLLIN, end_ms))
		return HUNG;
	ssize_t length = recv(fd, got, sizeof got, MSG_DONTWAIT);
	if (length > 0)
		return is_alert(got, (size_t)length) ? CUT : WRONG;
	return length == 0 ? DONE : CUT;
}

static enum outcome
refused(int fd, struct bytes bytes, uint8_t description, int64_t end_ms)
{
	uint8_t alert[] = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, description};
	enum outcome outcome = give(fd, bytes, end_ms);
	if (outcome == DONE)
		outcome = take(fd, (struct bytes){alert, sizeof alert, 0}, end_ms);
	return outcome == DONE ? take_end(fd, end_ms) : outcome;
}

static enum outcome
client_without_tls(int fd, int64_t end_ms)
{
	return refused(fd, text("GET / HTTP/1.1\r\n\r\n"), UNEXPECTED_MESSAGE, end_ms);
}

static enum outcome
client_without_host(int fd, int64_t end_ms)
{
	return refused(fd, hello_for("no.example"), UNRECOGNIZED_NAME, end_ms);
}

/* It never ends its hello. */
static enum outcome
client_late(int fd, int64_t end_ms)
{
	return refused(fd, slice(hosts[PLAIN_HOST].hello, 0, 20), USER_CANCELED, end_ms);
}

static client_kind *const kinds[] = {
    client_echo,
    client_upload,
    client_without_tls,
    client_header,
    client_download,
    client_without_host,
    client_reset,
    client_slow_upload,
    client_of_vanishing,
    client_slow_download,
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* --- Traffic --- */

enum {
	CLIENTS = 12,
	BULK_CLIENTS = 2,
	CLIENTS_MAX = CLIENTS + 12 + 6,
};

/* The additional clients of a traffic. */
static const struct {
	client_kind *kind;
	size_t count;
} specials[][2] = {
    [BUSY] = {{client_busy, 12}},
    [FRESH] = {{client_busy, 12}},
    [BULKY] = {{client_bulk, BULK_CLIENTS}},
    [IDLE] = {{client_busy, 12}},
    [SILENT] = {{client_busy, 12}},
    [PATIENT] = {{client_patient, 6}},
    [LATE] = {{client_busy, 12}, {client_late, 6}},
    [STOP] = {{NULL, 0}},
};

struct client {
	client_kind *special; /* otherwise KINDS, from FIRST on, in turn */
	size_t first;
	size_t rounds;
	pthread_t thread;
};

static struct {
	struct client clients[CLIENTS_MAX];
	size_t count;
	atomic_int outcomes[OUTCOMES];
} load;

static void *
run_client(void *argument)
{
	const struct client *client = argument;
	for (size_t i = 0; i < client->rounds; i++) {
		client_kind *kind =
		    client->special != NULL ? client->special : kinds[(client->first + i) % KINDS];
		int fd = client_try_connect(NULL);
		enum outcome outcome = fd == -1 ? HUNG : kind(fd, patience_end_ms());
		load.outcomes[outcome]++;
		close(fd);
		if (outcome == HUNG)
			break;
	}
	return NULL;
}

static void
begin_client(struct client client)
{
	struct client *place = &load.clients[load.count++];
	*place = client;
	check(pthread_create(&place->thread, NULL, run_client, place) == 0, "pthread");
}

static void
begin_specials(client_kind *kind, size_t count)
{
	for (size_t i = 0; i < count; i++)
		begin_client((struct client){kind, 0, 1, 0});
}

/* Starts the clients of TRAFFIC, with ROUNDS connections of each that is not special. */
static void
begin_load(enum traffic traffic, size_t rounds)
{
	load.count = 0;
	for (size_t i = 0; i < OUTCOMES; i++)
		load.outcomes[i] = 0;
	if (specials[traffic][0].kind == client_busy) {
		hosts[BUSY_HOST].busy = true;
		fill_backlog(host_path(hosts[BUSY_HOST].name, "tls-socket"));
	}
	begin_specials(specials[traffic][0].kind, specials[traffic][0].count);
	begin_specials(specials[traffic][1].kind, specials[traffic][1].count);
	for (size_t i = 0; i < CLIENTS; i++)
		begin_client((struct client){NULL, i, rounds, 0});
}

static void
join_load(void)
{
	hosts[BUSY_HOST].busy = false;
	for (size_t i = 0; i < load.count; i++)
		pthread_join(load.clients[i].thread, NULL);
	load.count = 0;
}

/* Waits until all have ended. Fails if bytes were wrong, one hangs, or more than CUT_MAX were cut
 * off. */
static void
end_load(int cut_max)
{
	join_load();
	check(load.outcomes[WRONG] == 0 && backends.wrong == 0,
	    "%d clients and %d backends got wrong bytes", load.outcomes[WRONG], backends.wrong);
	wait_until(backends.open == 0, 3000);
	check(load.outcomes[HUNG] == 0 && backends.hung == 0,
	    "%d connections of clients and %d of backends hung", load.outcomes[HUNG],
	    backends.hung);
	check(load.outcomes[CUT] <= cut_max,
	    "%d connections were cut off, %d may be, and %d were served", load.outcomes[CUT],
	    cut_max, load.outcomes[DONE]);
}

/* --- The proxy --- */

static struct proxy *proxy;

/* Whether CALL fails because of memory. */
static bool
is_of_memory(const char *call)
{
	static const char *const calls[] = {"brk", "madvise", "mmap", "mprotect"};
	bool is = false;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		is = is || strcmp(calls[i], call) == 0;
	return is;
}

static void
room_for_few(void)
{
	limit_descriptors(21);
}

static void
start_with(void (*prepare)(void))
{
	if (hosts[PLAIN_HOST].listener == 0) {
		pattern(0, 1); /* computes the pattern, before there are threads */
		server_listen("127.0.0.1");
		start_host(&hosts[PLAIN_HOST], SOMAXCONN);
		start_host(&hosts[HEADER_HOST], SOMAXCONN);
		start_host(&hosts[BUSY_HOST], 2);
	}
	proxy = proxy_start(prepare);
	proxy_wait_ready();
}

/* The leak sanitizer cannot check a traced program at its end. */
static void
end_under_trace(void)
{
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
}

static bool
is_fresh(enum traffic traffic)
{
	return traffic == FRESH || traffic == BULKY || traffic == IDLE || traffic == SILENT ||
	    traffic == LATE || traffic == PRESSURE;
}

/* Lets others write to the hosts directory, and makes a host a symlink. */
static void
share_hosts(void)
{
	char path[128];
	const char *other = directory_name("other.example", strlen("other.example"));
	snprintf(path, sizeof path, "%s/hosts", base_directory());
	check(chmod(path, 01777) == 0, "%s: %s", path, strerror(errno));
	check(rename(host_path(HOST, NULL), host_path("other.example", NULL)) == 0 &&
		symlink(other, host_path(HOST, NULL)) == 0,
	    "%s: %s", HOST, strerror(errno));
}

static void
start(const struct fault *fault)
{
	bool is_first = hosts[PLAIN_HOST].listener == 0;
	start_with(fault->traffic == STOP    ? end_under_trace
		: fault->traffic == PRESSURE ? room_for_few
					     : NULL);
	if (is_first && fault->traffic == SHARED)
		share_hosts();
	if (is_fresh(fault->traffic))
		return;
	begin_load(MIXED, 1);
	end_load(0);
}

/* What the proxy holds. */
struct holdings {
	int sockets;
	int pipes;
	int others;
	int threads;
	long memory_kib; /* its own memory */
};

static void
count_descriptors(struct holdings *holdings)
{
	char path[64], target[64];
	snprintf(path, sizeof path, "/proc/%d/fd", (int)proxy->pid);
	DIR *directory = opendir(path);
	const struct dirent *entry;
	check(directory != NULL, "%s: %s", path, strerror(errno));
	while ((entry = readdir(directory)) != NULL) {
		ssize_t length =
		    readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
		if (length == -1)
			continue; /* "." and "..", or just closed */
		target[length] = '\0';
		if (strncmp(target, "socket:", 7) == 0)
			holdings->sockets++;
		else if (strncmp(target, "pipe:", 5) == 0)
			holdings->pipes++;
		else
			holdings->others++;
	}
	closedir(directory);
}

static int
count_sockets(void)
{
	struct holdings holdings = {0};
	count_descriptors(&holdings);
	return holdings.sockets;
}

static struct holdings
look(void)
{
	struct holdings holdings = {.threads = proxy_threads(proxy)};
	count_descriptors(&holdings);
	/* The count in /proc/PID/status is inexact. */
	char *maps = proxy_proc(proxy, "smaps_rollup");
	const char *memory = strstr(maps, "\nAnonymous:");
	check(memory != NULL, "no Anonymous in /proc/PID/smaps_rollup");
	holdings.memory_kib = strtol(memory + strlen("\nAnonymous:"), NULL, 10);
	free(maps);
	return holdings;
}

/* Without connections, the listening socket is the proxy's only socket. */
static struct holdings
look_at_rest(void)
{
	wait_until(count_sockets() == 1 + is_portable(), 8000);
	return look();
}

enum {
	/* How much more memory the same load may take: the arena grows with time, and more threads
	 * have a stack each. To lose the 4 KiB of a hello with each fault would be more. */
	MEMORY_SLACK_KIB = 512,
	THREAD_KIB = 120,
};

/* How many threads the proxy keeps: its own, and spare ones. */
static int
threads_kept(void)
{
	enum { OWN_THREADS = 3, SPARE_THREADS = 12 };
	return OWN_THREADS + SPARE_THREADS + extra_threads();
}

static void
expect_nothing_lost(const struct holdings *before)
{
	struct holdings after = look_at_rest();
	check(after.others == before->others, "%d descriptors were %d before", after.others,
	    before->others);
	check(after.pipes == before->pipes, "%d ends of pipes were %d before", after.pipes,
	    before->pipes);
	/* The client that vanished may still have a thread when the next one has arrived. */
	wait_until(proxy_threads(proxy) <= threads_kept() + CLIENTS_MAX, 8000);
}

/* Fails unless, after some seconds of silence, the proxy has its permanent threads, and the
 * holdings BEFORE. */
static void
expect_rest_after_silence(const struct holdings *before)
{
	wait_until(proxy_threads(proxy) <= threads_kept(), 8000);
	expect_nothing_lost(before);
}

static void
expect_no_more_memory(const struct holdings *before, const struct holdings *after)
{
	int more = after->threads - before->threads;
	long allowed = before->memory_kib + MEMORY_SLACK_KIB + (more > 0 ? more * THREAD_KIB : 0);
	/* With these, the memory is not the proxy's alone. */
	check(sanitized() || emulated() || after->memory_kib <= allowed,
	    "%ld KiB of memory were %ld before, with %d more threads", after->memory_kib,
	    before->memory_kib, more);
}

/* While a fault lasts, what is possible is done soon. The rest waits with little work, such as a
 * new attempt to connect now and then. */
static void
expect_quiet(void)
{
	enum { WATCHED_MS = 200 };
	int64_t end_ms = now_ms() + margin_ms(5000);
	int64_t used_us = INT64_MAX;
	while (used_us > margin_ms(WATCHED_MS) * 1000 / 10) {
		check(now_ms() < end_ms, "the proxy never stops using CPU time");
		int64_t before_us = proxy_cpu_us(proxy);
		poll(NULL, 0, WATCHED_MS);
		used_us = proxy_cpu_us(proxy) - before_us;
	}
}

/* --- Faults --- */

/* The names of CALL for strace(1). */
static void
spell(char *calls, size_t size, const char *call)
{
	snprintf(calls, size, "%s", call);
	for (size_t i = 0; i < SYNONYMS; i++)
		if (strcmp(synonyms[i][0], call) == 0)
			snprintf(calls, size, "%s,%s", synonyms[i][1], synonyms[i][2]);
}

static pid_t
inject(const struct fault *fault, enum when when)
{
	char calls[64], what[64];
	spell(calls, sizeof calls, fault->call);
	/* brk(2) reports no error, but returns another end than the requested one. */
	bool is_brk = strcmp(fault->call, "brk") == 0;
	snprintf(what, sizeof what, "%s%s%s",
	    is_brk ? "retval=" : "error=", is_brk ? "0" : fault->error,
	    when == ALWAYS ? "" : ":when=1+4");
	return fault_begin(proxy, calls, fault->error == NULL ? "delay_enter=1" : what);
}

/* How often TEXT is in what strace(1) wrote. */
static int
count_traced(const char *text_in_trace)
{
	char path[128];
	snprintf(path, sizeof path, "%s/strace", base_directory());
	char *trace = read_file(path);
	int count = 0;
	for (const char *hit = trace; (hit = strstr(hit, text_in_trace)) != NULL; hit++)
		count++;
	free(trace);
	return count;
}

/* How many calls got ENOSYS because strace(1) detached from the thread in them. It reports that for
 * the last one; the others stay unfinished in its output. Only for calls that all fail: others may
 * take long. */
static int
count_let_go(enum when when)
{
	int let_go = count_traced("<detached ...>");
	if (when == ALWAYS)
		let_go += count_traced("<unfinished ...>") - count_traced(" resumed>");
	return let_go;
}

enum {
	/* How long a lasting fault takes the first time, and later; and how long, at least, one
	 * that occurs now and then takes. */
	ALWAYS_MS = 1000,
	AGAIN_MS = 200,

	/* The limit of calls that fail all the time. Each connection makes some in a second; a loop
	 * that spins makes thousands. */
	ALWAYS_INJECTED_MAX = 1000,

	/* The limit if bulk passes in pieces of 16 KiB, two calls for each. */
	BULK_INJECTED_MAX = BULK_CLIENTS * BULK / 16384 * 2,
};

static int
injected_max(const struct fault *fault, enum when when, int64_t ms)
{
	if (when == SOME)
		return INT_MAX;
	return ALWAYS_INJECTED_MAX * (1 + (int)(ms / 1000)) +
	    (fault->traffic == BULKY ? BULK_INJECTED_MAX : 0);
}

/* Whether the load ends while the fault lasts. */
static bool
ends_under(const struct fault *fault, enum when when)
{
	return fault->traffic == PATIENT || (when == SOME && fault->traffic != LATE);
}

/* Waits some seconds for the first call that fails: a proxy that waits for a processor looks quiet,
 * too. Not longer, even if everything is slower: clients of a busy host have ten seconds in all. */
static void
await_fault(void)
{
	const int interval_ms = 20, patience_ms = 3000;
	int64_t end_ms = now_ms() + patience_ms;
	while (count_traced("(INJECTED)") == 0 && now_ms() < end_ms)
		poll(NULL, 0, interval_ms);
}

/* Injects FAULT under traffic once, for at least MS. Returns how many calls failed because of
 * it. */
static int
suffer(const struct fault *fault, enum when when, int ms)
{
	int64_t began_ms = now_ms();
	pid_t tracer = inject(fault, when);
	begin_load(fault->traffic, when == SOME && fault->traffic != SLOW ? KINDS / 2 : 1);
	poll(NULL, 0, ms);
	await_fault();
	expect_quiet();
	if (ends_under(fault, when))
		join_load();
	if (fault->traffic == SILENT)
		wait_until(proxy_threads(proxy) <= threads_kept(), 8000);
	check(proxy_runs(proxy), "the proxy has ended");
	fault_end(tracer);
	int64_t lasted_ms = now_ms() - began_ms;
	int injected = count_traced("(INJECTED)");
	int let_go = count_let_go(when);
	check(injected <= injected_max(fault, when, lasted_ms), "%d calls were made", injected);
	/* A sanitizer or an emulator is slow: one more may be evicted for each fault. */
	int harmed = fault->harm == NONE ? 0 : sanitized() || emulated() ? 2 * injected : injected;
	end_load(let_go + harmed);
	begin_load(MIXED, 1);
	end_load(0);
	return injected;
}

static void
stop(void)
{
	kill(proxy->pid, SIGTERM);
	int status = proxy_wait(proxy, 8000);
	check(status == 0, "the proxy ended with wait status %#x", (unsigned)status);
}

/* Clients that take nothing have all slots, and are evicted for others. */
static int
suffer_under_pressure(const struct fault *fault, enum when when)
{
	enum { SLOTS = 7, OTHERS = 3, STALLED_MS = 1200 };
	int stalling[SLOTS];
	for (int i = 0; i < SLOTS; i++) {
		char from[16];
		snprintf(from, sizeof from, "127.0.0.%d", 2 + i);
		stalling[i] = client_try_connect(from);
		check(stalling[i] != -1, "connect: %s", strerror(errno));
		ask(stalling[i], &hosts[PLAIN_HOST], BULK_DOWNLOAD, patience_end_ms());
	}
	wait_until(count_sockets() == 1 + 2 * SLOTS, 5000);
	poll(NULL, 0, margin_ms(STALLED_MS));
	pid_t tracer = inject(fault, when);
	for (int i = 0; i < OTHERS; i++) {
		int fd = client_try_connect(NULL);
		enum outcome outcome = client_echo(fd, patience_end_ms());
		check(outcome == DONE, "none was evicted: outcome %d", (int)outcome);
		close(fd);
	}
	expect_quiet();
	check(proxy_runs(proxy), "the proxy has ended");
	fault_end(tracer);
	for (int i = 0; i < SLOTS; i++)
		close(stalling[i]);
	wait_until(backends.open == 0, 5000);
	proxy_wait_ready();
	return count_traced("(INJECTED)");
}

/* Whether only a part is tested (FAULTS=brief). */
static bool
is_brief(void)
{
	const char *extent = getenv("FAULTS");
	return extent != NULL && strcmp(extent, "brief") == 0;
}

/* Traffic that takes so long, or depends so much on the first time, that it runs once. */
static bool
is_slow(enum traffic traffic)
{
	return traffic == IDLE || traffic == SILENT || traffic == SLOW || traffic == PATIENT ||
	    traffic == LATE || traffic == PRESSURE;
}

static void
test(const struct fault *fault, enum when when)
{
	start(fault);
	struct holdings before = look_at_rest();
	struct holdings first = before;
	int injected = 0;
	int repetitions = is_slow(fault->traffic) ? 1 : is_brief() ? 2 : 3;
	for (int i = 0; i < repetitions; i++) {
		int ms = when == ALWAYS && i == 0 ? ALWAYS_MS : AGAIN_MS;
		injected += fault->traffic == PRESSURE ? suffer_under_pressure(fault, when)
						       : suffer(fault, when, ms);
		expect_nothing_lost(&before);
		struct holdings now = look();
		if (i == 0)
			first = now;
		expect_no_more_memory(&first, &now);
	}
	check(injected > 0, "nothing made this call");
	if (fault->traffic == IDLE)
		expect_rest_after_silence(&before);
	stop();
}

/* --- Stopping --- */

enum { HELD = 5 };

static void
hold_connections(int held[HELD])
{
	for (int i = 0; i < HELD; i++) {
		held[i] = client_try_connect(NULL);
		check(held[i] != -1, "connect: %s", strerror(errno));
		enum outcome outcome = ask(held[i], &hosts[PLAIN_HOST], ECHO, patience_end_ms());
		check(outcome == DONE && talk(held[i], patience_end_ms()) == DONE, "not served");
	}
}

/* Tells the proxy to stop. The connections are still served, and end one after another. */
static void
stop_with(const int held[HELD])
{
	kill(proxy->pid, SIGTERM);
	expect_quiet();
	for (int i = 0; i < HELD; i++) {
		check(talk(held[i], patience_end_ms()) == DONE,
		    "connection %d is not served any more", i);
		shutdown(held[i], SHUT_WR);
		check(
		    take_end(held[i], patience_end_ms()) == DONE, "connection %d has not ended", i);
		close(held[i]);
	}
}

/* If the main thread cannot be woken when a connection has ended, it waits as long as for one that
 * does not end. */
static void
test_stop(const struct fault *fault, enum when when)
{
	int held[HELD];
	start(fault);
	hold_connections(held);
	pid_t tracer = inject(fault, when);
	stop_with(held);
	int status = proxy_wait(proxy, strcmp(fault->call, "write") == 0 ? 12000 : 3000);
	check(status == 0, "the proxy ended with wait status %#x", (unsigned)status);
	fault_end(tracer);
	int injected = count_traced("(INJECTED)");
	check(injected > 0, "nothing made this call");
	check(injected <= injected_max(fault, when, 0), "%d calls were made", injected);
}

static void
test_when(const struct fault *fault, enum when when)
{
	testing("%s: %s, %s", fault->call, fault->error, when == SOME ? "now and then" : "always");
	if (fault->traffic == STOP)
		test_stop(fault, when);
	else
		test(fault, when);
}

/* Whether the row is the first of its call. */
static bool
is_first(const struct fault *fault)
{
	size_t i = 0;
	while (strcmp(faults[i].call, fault->call) != 0)
		i++;
	return strcmp(faults[i].error, fault->error) == 0;
}

/* Whether a program built with POSIX alone does not make CALL, or makes it like others: it writes
 * to a pipe that wakes a thread, and allocates from several arenas. */
static bool
is_beyond_posix(const char *call)
{
	static const char *const calls[] = {"unshare", "openat", "readlinkat", "fchdir", "chdir",
	    "splice", "pipe2", "prctl", "sched_setscheduler", "epoll_ctl", "epoll_wait", "ioctl",
	    "getsockopt", "write", "brk"};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (strcmp(calls[i], call) == 0)
			return true;
	return false;
}

/* With FAULTS=brief, each call fails always, in only one way. A program with sanitizers, which is
 * slow, has only that row for each call. */
static void
test_row(const struct fault *fault)
{
	bool brief = is_brief();
	if (is_beyond_posix(fault->call))
		need(fault->call);
	if (fault->traffic == PRESSURE)
		need("pipes that take some of the descriptors");
	if (sanitized() && is_of_memory(fault->call))
		skip("the sanitizers fail if memory is short");
	if (sanitized() && brief && !is_first(fault))
		skip("the call fails in another way already");
	if ((fault->when & SOME) != 0)
		test_when(fault, SOME);
	if ((fault->when & ALWAYS) != 0 && (!brief || is_first(fault)))
		test_when(fault, ALWAYS);
}

#define ROW(call, error, when, harm, traffic) \
	PROGRAM_TEST(faults, call##_##error) \
	{ \
		test_row(&(struct fault){#call, #error, when, harm, traffic}); \
	}
FAULTS(ROW)
#undef ROW

/* The end of the backend's stream cannot be passed on, and the client waits only for that. */
PROGRAM_TEST(faults, end_of_stream_that_is_not_passed_on)
{
	proxy = proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	pid_t tracer = fault_begin(proxy, "shutdown", "error=EACCES:when=1");
	shutdown(pair.backend, SHUT_WR);
	expect_end(pair.client);
	expect_end(pair.backend);
	fault_end(tracer);
}

/* --- What strace(1) cannot do --- */

static void
preload_close_fails(void)
{
	setenv("LD_PRELOAD", getenv("CLOSE_FAILS"), 1);
}

/* A close(2) that fails has closed the descriptor: another attempt would close another's. */
PROGRAM_TEST(faults, close_EINTR_EIO)
{
	if (getenv("CLOSE_FAILS") == NULL || sanitized())
		skip("the sanitizers' library must be the first one");
	start_with(preload_close_fails);
	struct holdings before = look_at_rest();
	for (int i = 0; i < 2; i++) {
		begin_load(BUSY, KINDS);
		expect_quiet();
		end_load(0);
		expect_nothing_lost(&before);
	}
	check(strstr(proxy_proc(proxy, "maps"), "close_fails") != NULL,
	    "the failing close(2) was not used");
}

static void
refuse_unshare(void)
{
	refuse_call(SYS_unshare, ANY_ARGUMENT, 0, EPERM);
}

/* Some containers refuse it: a path leads to each backend. */
PROGRAM_TEST(faults, unshare_refused_for_good)
{
	need("unshare(2)");
	start_with(refuse_unshare);
	struct holdings before = look_at_rest();
	begin_load(BUSY, KINDS);
	expect_quiet();
	end_load(0);
	expect_nothing_lost(&before);
	stop();
}

/* --- Whether the list is complete --- */

static bool
is_listed(const char *call)
{
	char calls[64];
	for (size_t i = 0; i < sizeof cannot_fail / sizeof *cannot_fail; i++)
		if (strcmp(cannot_fail[i].call, call) == 0)
			return true;
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
		spell(calls, sizeof calls, faults[i].call);
		for (char *rest = calls, *one; (one = strsep(&rest, ",?")) != NULL;)
			if (strcmp(one, call) == 0)
				return true;
	}
	return false;
}

/* A line is "123 call(...", "123 <... call resumed>...", or a report on a process. */
static void
check_line(const char *line)
{
	char call[64];
	if (sscanf(line, "%*d <... %63[a-z0-9_] resumed", call) != 1 &&
	    sscanf(line, "%*d %63[a-z0-9_](", call) != 1)
		return;
	check(is_listed(call), "%s is made in service, but is not in the list of faults", call);
}

static void
serve_under_trace(enum traffic traffic)
{
	begin_load(traffic, KINDS);
	poll(NULL, 0, ALWAYS_MS);
	end_load(0);
}

/* Serves TRAFFIC while strace(1) writes down each call. */
static void
trace_service(enum traffic traffic)
{
	static const struct fault none = {.call = "all", .traffic = PRESSURE};
	int held[HELD];
	start_with(traffic == PRESSURE ? room_for_few : NULL);
	if (traffic == SHARED)
		share_hosts();
	struct holdings before = look_at_rest();
	if (traffic == PRESSURE) {
		suffer_under_pressure(&none, 0);
		stop();
		return;
	}
	if (traffic == STOP)
		hold_connections(held);
	pid_t tracer = inject(&none, 0);
	if (traffic == STOP) {
		stop_with(held);
		check(proxy_wait(proxy, 3000) == 0, "the proxy has failed");
	} else {
		serve_under_trace(traffic);
		if (traffic == IDLE)
			expect_rest_after_silence(&before);
	}
	fault_end(tracer);
	if (traffic != STOP)
		stop();
}

static void
expect_all_listed(void)
{
	static const struct {
		const char *what;
		enum traffic traffic;
		int calls_min;
	} services[] = {
	    {"a backlog that is full, then silence", IDLE, 1000},
	    {"slow clients", PATIENT, 1000},
	    {"pressure", PRESSURE, 50},
	    {"stopping", STOP, 20},
	    {"a hosts directory of several users", SHARED, 1000},
	};
	for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
		char path[128];
		testing("%s", services[i].what);
		trace_service(services[i].traffic);
		snprintf(path, sizeof path, "%s/strace", base_directory());
		char *trace = read_file(path);
		int lines = 0;
		for (char *rest = trace, *line; (line = strsep(&rest, "\n")) != NULL;) {
			check_line(line);
			lines++;
		}
		check(lines > services[i].calls_min, "strace(1) saw %d calls only", lines);
		free(trace);
	}
}

PROGRAM_TEST(faults, whole_list)
{
	need("the calls of the list");
	if (sanitized())
		skip("the sanitizers make calls of their own");
	expect_all_listed();
}

PROGRAM_TEST(faults, whole_list_of_the_static_program)
{
	need("the calls of the list");
	if (sanitized() || !proxy_use_static())
		skip("there is no static program");
	expect_all_listed();
}

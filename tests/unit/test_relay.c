/* Tests of relay.c: a client and a backend at the outer ends of two connections, and a thread that
 * runs the relay between them. The backend's connection is a pair of Unix sockets; the client's is
 * TCP or a pair of Unix sockets. Each test is a process of its own. */
#include <criterion/criterion.h>

#include "lib/clock.h"
#include "lib/relay.h"
#include "system/system.h"
#include "tests/unit/check.h"
#include "tests/unit/self.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	PIPES = 4,
	BLOCK = 32 * 1024,
	MIB = 1024 * 1024,

	/* How long the test waits to conclude that nothing will happen. */
	NOTHING_MS = 50,
};

enum side { CLIENT, BACKEND, SIDES };

/* The family of the client's connection. */
static const int families[] = {AF_INET, AF_UNIX};
enum { FAMILIES = 2 };

struct session {
	struct relay relay;
	int ends[SIDES]; /* the outer ones, -1 if closed */
	size_t sent[SIDES], received[SIDES];
	atomic_uint blocked;
	int descriptors; /* how many were open before */
	uint8_t *first;  /* the first bytes; NULL if they were released, or there are none */
	atomic_uint releases;

	pthread_t thread;
	atomic_int id; /* of the thread */
	sem_t over;    /* then, the result of relay_run(): */
	enum relay_end end;
	int error;
};

static atomic_int quiet_ms = -1;

static int
get_quiet_ms(void)
{
	return quiet_ms;
}

static void
prepare(unsigned pipes)
{
	signal(SIGPIPE, SIG_IGN); /* splice(2) raises SIGPIPE */
	relay_prepare(pipes, get_quiet_ms);
}

static void
prepare_process(void)
{
	prepare(PIPES);
}

TestSuite(relay, .init = prepare_process, .timeout = 90);

/* --- What relay.c sees of the system, by the linker's option --wrap --- */

static enum { PIPES_USUAL, PIPES_SMALL, PIPES_FAIL } pipe_kind;
static atomic_size_t spliced;      /* bytes spliced into or out of pipes */
static _Atomic int64_t skipped_ms; /* the clock is so far ahead */

bool __real_system_open_pipe(int ends[2], int size, int size_min);
bool __wrap_system_open_pipe(int ends[2], int size, int size_min);
ssize_t __real_system_splice(int from, int to, size_t length);
ssize_t __wrap_system_splice(int from, int to, size_t length);
int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real___clock_gettime64(clockid_t id, struct timespec *now) __attribute__((weak));
int __wrap___clock_gettime64(clockid_t id, struct timespec *now);

bool
__wrap_system_open_pipe(int ends[2], int size, int size_min)
{
	return pipe_kind != PIPES_FAIL &&
	    __real_system_open_pipe(ends, pipe_kind == PIPES_SMALL ? size_min : size, size_min);
}

ssize_t
__wrap_system_splice(int from, int to, size_t length)
{
	ssize_t n = __real_system_splice(from, to, length);
	atomic_fetch_add(&spliced, n > 0 ? (size_t)n : 0);
	return n;
}

int
__wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	int result = __real___clock_gettime64 != NULL ? __real___clock_gettime64(id, now)
						      : __real_clock_gettime(id, now);
	if (id == CLOCK_MONOTONIC)
		now->tv_sec += (time_t)(atomic_load(&skipped_ms) / 1000);
	return result;
}

/* The name of the function on machines whose long is too short for the time. */
int
__wrap___clock_gettime64(clockid_t id, struct timespec *now)
{
	return __wrap_clock_gettime(id, now);
}

static bool
has_splice(void)
{
	int ends[2];
	bool has = __real_system_open_pipe(ends, MIB, MIB / 16);
	for (int i = 0; has && i < 2; i++)
		close(ends[i]);
	return has;
}

static void
need_splice(void)
{
	if (!has_splice())
		cr_skip_test("needs splice(2)");
}

/* --- Connections --- */

/* Makes a TCP connection. The first end is the accepted one. */
static void
connect_tcp(int ends[2])
{
	const int on = 1;
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(listener, (struct sockaddr *)&address, size) == 0, "bind");
	CHECK(listen(listener, 1) == 0, "listen");
	CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
	ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(ends[1], (struct sockaddr *)&address, size) == 0, "connect");
	ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	for (int i = 0; i < 2; i++)
		CHECK(setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0,
		    "TCP_NODELAY");
	setsockopt(ends[0], SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
	close(listener);
}

/* Connects an outer end, which is returned, to a non-blocking end for the relay. */
static int
connect_end(int family, int *inner)
{
	int ends[2];
	const struct timeval patience = {PATIENCE_MS / 1000, 0};
	if (family == AF_INET)
		connect_tcp(ends);
	else
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0, "fcntl");
	setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(ends[1], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	*inner = ends[0];
	return ends[1];
}

static void
open_session(struct session *s, int family)
{
	memset(s, 0, sizeof *s);
	s->descriptors = count_descriptors();
	s->ends[CLIENT] = connect_end(family, &s->relay.client.socket);
	s->ends[BACKEND] = connect_end(AF_UNIX, &s->relay.backend.socket);
	s->relay.blocked = &s->blocked;
	CHECK(sem_init(&s->over, 0, 0) == 0, "sem_init");
}

/* Keeps small what the kernel holds for the side. */
static void
hold_little(struct session *s, enum side side)
{
	const int size = 4096;
	setsockopt(side == CLIENT ? s->relay.client.socket : s->relay.backend.socket, SOL_SOCKET,
	    SO_SNDBUF, &size, sizeof size);
	setsockopt(s->ends[side], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

static void *
run(void *argument)
{
	struct session *s = argument;
	s->id = gettid();
	s->end = relay_run(&s->relay);
	s->error = errno;
	sem_post(&s->over);
	return NULL;
}

static void
start(struct session *s)
{
	CHECK(pthread_create(&s->thread, NULL, run, s) == 0, "pthread_create");
}

static void
start_one(struct session *s, int family)
{
	open_session(s, family);
	start(s);
}

/* The same, but the kernel's buffers do not grow while a direction is to stall. */
static void
start_small(struct session *s, int family)
{
	open_session(s, family);
	hold_little(s, CLIENT);
	hold_little(s, BACKEND);
	start(s);
}

static bool
is_over(struct session *s)
{
	int value;
	sem_getvalue(&s->over, &value);
	return value > 0;
}

static void
wait_for_end(struct session *s, enum relay_end end)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	CHECK(sem_timedwait(&s->over, &until) == 0, "it goes on and on");
	pthread_join(s->thread, NULL);
	CHECK(s->end == end, "it has ended as %u, not %u", (unsigned)s->end, (unsigned)end);
	CHECK(s->blocked == 0, "a thread is still blocked");
	CHECK(s->first == NULL, "the first bytes are still there");
}

static void
hang_up(struct session *s, enum side side)
{
	close(s->ends[side]);
	s->ends[side] = -1;
}

/* Closes all. Fails if the number of open descriptors has changed. */
static void
close_session(struct session *s)
{
	for (enum side side = CLIENT; side < SIDES; side++)
		if (s->ends[side] != -1)
			hang_up(s, side);
	close(s->relay.client.socket);
	close(s->relay.backend.socket);
	sem_destroy(&s->over);
	CHECK(count_descriptors() == s->descriptors, "%d descriptors, not %d", count_descriptors(),
	    s->descriptors);
}

static void
finish(struct session *s, enum relay_end end)
{
	wait_for_end(s, end);
	close_session(s);
}

/* --- Bytes --- */

/* The bytes of the stream of SIDE. They differ by position and by side. */
static void
make_bytes(uint8_t *bytes, size_t length, size_t offset, enum side side)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)((offset + i) * 31 + (offset + i) / 251 + 101 * side);
}

/* SIDE sends LENGTH bytes with FLAGS, or fewer if there is less room. Returns how many, or -1. */
static ssize_t
send_some(struct session *s, enum side side, size_t length, int flags)
{
	uint8_t block[BLOCK];
	length = length < sizeof block ? length : sizeof block;
	make_bytes(block, length, s->sent[side], side);
	ssize_t n = send(s->ends[side], block, length, MSG_NOSIGNAL | flags);
	s->sent[side] += n > 0 ? (size_t)n : 0;
	return n;
}

/* SIDE receives up to LENGTH bytes. Fails unless they are the next ones of the stream. Returns how
 * many, or -1. */
static ssize_t
receive_some(struct session *s, enum side side, size_t length, int flags)
{
	uint8_t block[BLOCK], expected[BLOCK];
	length = length < sizeof block ? length : sizeof block;
	ssize_t n = recv(s->ends[side], block, length, flags);
	if (n <= 0)
		return n;
	make_bytes(expected, (size_t)n, s->received[side], !side);
	CHECK(memcmp(block, expected, (size_t)n) == 0, "side %u: other bytes after %zu",
	    (unsigned)side, s->received[side]);
	s->received[side] += (size_t)n;
	return n;
}

static void
send_all(struct session *s, enum side side, size_t length)
{
	for (size_t end = s->sent[side] + length; s->sent[side] < end;)
		CHECK(send_some(s, side, end - s->sent[side], 0) > 0, "side %u: %s", (unsigned)side,
		    strerror(errno));
}

/* SIDE receives all that the other side has sent. */
static void
receive_all(struct session *s, enum side side)
{
	while (s->received[side] < s->sent[!side]) {
		ssize_t n = receive_some(s, side, s->sent[!side] - s->received[side], 0);
		CHECK(n > 0, "side %u: after %zu of %zu bytes: %s", (unsigned)side,
		    s->received[side], s->sent[!side], n == 0 ? "end" : strerror(errno));
	}
}

static void
pass(struct session *s, enum side from, size_t length)
{
	send_all(s, from, length);
	receive_all(s, !from);
}

static bool
waits(const struct session *s)
{
#ifdef SYS_poll
	if (is_in_call(s->id, SYS_poll))
		return true;
#endif
	return is_in_call(s->id, SYS_ppoll);
}

/* The relay waits without end now, until it has passed on what comes next. */
static void
be_quiet_soon(struct session *s)
{
	while (!waits(s))
		poll(NULL, 0, 1);
	quiet_ms = NOTHING_MS;
}

/* SIDE sends until there is no room and the relay waits, or MOST bytes are sent. */
static void
fill(struct session *s, enum side side, size_t most)
{
	struct pollfd end = {.fd = s->ends[side], .events = POLLOUT};
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (s->sent[side] < most) {
		ssize_t n = send_some(s, side, most - s->sent[side], MSG_DONTWAIT);
		CHECK(n > 0 || errno == EAGAIN, "side %u: %s", (unsigned)side, strerror(errno));
		if (n == -1 && poll(&end, 1, NOTHING_MS) == 0 && waits(s))
			return;
		CHECK(clock_left_ms(deadline_ms) > 0, "there is always room");
	}
}

/* The sides send and receive at the same time, until they have sent these numbers of bytes, and
 * received them. A side that is not in READERS (a set of bits) only sends. */
static void
exchange(struct session *s, size_t from_client, size_t from_backend, unsigned readers)
{
	const size_t goals[] = {from_client, from_backend};
	for (;;) {
		struct pollfd ends[SIDES];
		for (enum side side = CLIENT; side < SIDES; side++) {
			bool reads = (readers >> side & 1) != 0 && s->received[side] < goals[!side];
			ends[side] = (struct pollfd){.fd = s->ends[side],
			    .events = (short)((reads ? POLLIN : 0) |
				(s->sent[side] < goals[side] ? POLLOUT : 0))};
		}
		if (ends[CLIENT].events == 0 && ends[BACKEND].events == 0)
			return;
		CHECK(poll(ends, SIDES, PATIENCE_MS) > 0,
		    "it stalls: sent %zu, %zu; received %zu, %zu", s->sent[0], s->sent[1],
		    s->received[0], s->received[1]);
		for (enum side side = CLIENT; side < SIDES; side++) {
			if ((ends[side].revents & POLLOUT) != 0)
				send_some(s, side, goals[side] - s->sent[side], MSG_DONTWAIT);
			if ((ends[side].revents & POLLIN) != 0)
				CHECK(receive_some(s, side, BLOCK, MSG_DONTWAIT) != 0, "an end");
			CHECK((ends[side].revents & (POLLERR | POLLHUP)) == 0, "a hang-up");
		}
	}
}

enum { ONLY_CLIENT = 1 << CLIENT, ONLY_BACKEND = 1 << BACKEND, BOTH = ONLY_CLIENT | ONLY_BACKEND };

static void
end_stream(struct session *s, enum side side)
{
	CHECK(shutdown(s->ends[side], SHUT_WR) == 0, "shutdown: %s", strerror(errno));
}

static void
expect_end_of_stream(struct session *s, enum side side)
{
	uint8_t byte;
	ssize_t n = recv(s->ends[side], &byte, 1, 0);
	CHECK(n == 0, "side %u: %zd: %s", (unsigned)side, n, strerror(errno));
}

static void
pass_end(struct session *s, enum side from)
{
	end_stream(s, from);
	expect_end_of_stream(s, !from);
}

/* Fails unless every byte that the sides have sent was counted. */
static void
expect_counted(struct session *s)
{
	CHECK(
	    s->relay.backend.taken == s->sent[CLIENT] && s->relay.client.taken == s->sent[BACKEND],
	    "%zu to the backend, not %zu; %zu to the client, not %zu",
	    (size_t)s->relay.backend.taken, s->sent[CLIENT], (size_t)s->relay.client.taken,
	    s->sent[BACKEND]);
}

/* SIDE ends its stream last. The caller's close(2) tells the other side. */
static void
end_last(struct session *s, enum side side)
{
	end_stream(s, side);
	wait_for_end(s, RELAY_CLOSED);
	expect_counted(s);
	close_session(s);
}

static void
end_both(struct session *s)
{
	pass_end(s, CLIENT);
	end_last(s, BACKEND);
}

static void
await_blocked(struct session *s, unsigned count)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (s->blocked != count) {
		CHECK(clock_left_ms(deadline_ms) > 0, "not blocked: %u", (unsigned)s->blocked);
		poll(NULL, 0, 1);
	}
}

/* How many bytes that SIDE has sent have not arrived. Waits until all have, or nothing moves any
 * more. */
static size_t
count_unarrived(struct session *s, enum side side)
{
	int bytes = 0, before = -1, protocol = 0;
	socklen_t size = sizeof protocol;
	getsockopt(s->ends[side], SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
	if (protocol != IPPROTO_TCP) /* bytes on a Unix socket arrive when they are sent */
		return 0;
	while (ioctl(s->ends[side], TIOCOUTQ, &bytes) == 0 && bytes > 0 && bytes != before) {
		before = bytes;
		poll(NULL, 0, 5 * NOTHING_MS); /* an acknowledgement may be late */
	}
	return (size_t)bytes;
}

/* SIDE closes with unread bytes, which resets the connection. TCP drops what has not arrived.
 * Returns how many of the bytes that SIDE has sent have certainly arrived. */
static size_t
reset(struct session *s, enum side side)
{
	struct pollfd end = {.fd = s->ends[side], .events = POLLIN};
	if (poll(&end, 1, 0) == 0)
		send_all(s, !side, 1);
	CHECK(poll(&end, 1, PATIENCE_MS) == 1, "nothing comes to be left unread");
	size_t arrived = s->sent[side] - count_unarrived(s, side);
	hang_up(s, side);
	return arrived;
}

/* SIDE receives AT_ONCE bytes at a time, until the relay has ended and all that it has passed on
 * was received. */
static void
receive_until_end(struct session *s, enum side side, size_t at_once)
{
	struct pollfd end = {.fd = s->ends[side], .events = POLLIN};
	_Atomic uint64_t *passed =
	    side == CLIENT ? &s->relay.client.taken : &s->relay.backend.taken;
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (!is_over(s) || s->received[side] < *passed) {
		if (poll(&end, 1, 1) == 1)
			receive_some(s, side, at_once, MSG_DONTWAIT);
		CHECK(clock_left_ms(deadline_ms) > 0, "after %zu of %zu bytes", s->received[side],
		    s->sent[!side]);
	}
}

static const enum relay_end gone[] = {RELAY_CLIENT_GONE, RELAY_BACKEND_GONE};

/* --- What is passed on --- */

Test(relay, passes_messages_on)
{
	for (int i = 0; i < FAMILIES; i++) {
		struct session s;
		start_one(&s, families[i]);
		for (size_t length = 1; length < 200; length++) {
			pass(&s, CLIENT, length);
			pass(&s, BACKEND, 2 * length);
			pass(&s, length % 2 == 0 ? CLIENT : BACKEND, 1);
		}
		CHECK(spliced == 0, "messages went through a pipe");
		end_both(&s);
	}
}

static void
pass_bulk(bool by_pipe)
{
	enum { BULK = 10 * MIB + 1 };
	for (int i = 0; i < FAMILIES; i++) {
		struct session s;
		start_one(&s, families[i]);
		atomic_store(&spliced, 0);
		exchange(&s, BULK, BULK, BOTH);
		pass(&s, CLIENT, 1);
		pass(&s, BACKEND, 100);
		CHECK(by_pipe ? spliced > BULK : spliced == 0, "%zu bytes through pipes",
		    (size_t)spliced);
		end_both(&s);
	}
}

Test(relay, passes_bulk_on_by_pipes)
{
	need_splice();
	pass_bulk(true);
}

Test(relay, passes_bulk_on_by_small_pipes)
{
	need_splice();
	pipe_kind = PIPES_SMALL;
	pass_bulk(true);
}

Test(relay, passes_bulk_on_without_pipes)
{
	prepare(0);
	pass_bulk(false);
}

Test(relay, passes_bulk_on_if_no_pipe_can_be_made)
{
	pipe_kind = PIPES_FAIL;
	pass_bulk(false);
	pipe_kind = PIPES_USUAL; /* and failed pipes are not counted as open */
	if (has_splice())
		pass_bulk(true);
}

Test(relay, shares_a_number_of_pipes)
{
	struct session s[2];
	need_splice();
	prepare(1);
	start_one(&s[0], AF_UNIX);
	fill(&s[0], CLIENT, SIZE_MAX);
	size_t spliced_by_first = spliced;
	cr_assert(spliced_by_first > 0);
	start_one(&s[1], AF_UNIX);
	fill(&s[1], BACKEND, SIZE_MAX);
	cr_assert(spliced == spliced_by_first, "there was a second pipe");
	receive_all(&s[1], CLIENT);
	end_both(&s[1]);
	receive_all(&s[0], BACKEND);
	end_both(&s[0]);
	size_t spliced_before = spliced;
	start_one(&s[1], AF_INET);
	fill(&s[1], CLIENT, SIZE_MAX);
	cr_assert(spliced > spliced_before, "the pipe is lost");
	receive_all(&s[1], BACKEND);
	end_both(&s[1]);
}

/* Sizes around those of the buffer and of a pipe. */
Test(relay, passes_the_end_on_behind_any_number_of_bytes)
{
	static const size_t lengths[] = {0, 1, RELAY_BUFFER_SIZE - 1, RELAY_BUFFER_SIZE,
	    RELAY_BUFFER_SIZE + 1, 2 * RELAY_BUFFER_SIZE, 3 * RELAY_BUFFER_SIZE + 7, 65536, MIB - 1,
	    MIB, MIB + 1, MIB + RELAY_BUFFER_SIZE, 3000000};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		for (enum side side = CLIENT; side < SIDES; side++) {
			struct session s;
			start_one(&s, AF_INET);
			exchange(&s, side == CLIENT ? lengths[i] : 0,
			    side == BACKEND ? lengths[i] : 0, BOTH);
			pass_end(&s, side);
			pass(&s, !side, 3);
			end_last(&s, !side);
		}
}

/* The end of the stream arrives with the bytes, before the receiver takes them. */
Test(relay, passes_the_end_on_after_bytes_that_had_to_wait)
{
	for (int i = 0; i < FAMILIES; i++)
		for (enum side side = CLIENT; side < SIDES; side++) {
			struct session s;
			start_one(&s, families[i]);
			fill(&s, side, SIZE_MAX);
			end_stream(&s, side);
			poll(NULL, 0, NOTHING_MS);
			receive_all(&s, !side);
			expect_end_of_stream(&s, !side);
			pass(&s, !side, MIB / 16);
			end_last(&s, !side);
		}
}

/* One side sends 8 MiB before it reads; the other has filled all buffers, too. */
Test(relay, lets_neither_direction_block_the_other)
{
	enum { ALL = 8 * MIB };
	for (int i = 0; i < FAMILIES; i++)
		for (enum side side = CLIENT; side < SIDES; side++) {
			struct session s;
			start_one(&s, families[i]);
			fill(&s, CLIENT, ALL);
			fill(&s, BACKEND, ALL);
			size_t sent[] = {s.sent[CLIENT], s.sent[BACKEND]};
			sent[side] = ALL;
			exchange(&s, sent[CLIENT], sent[BACKEND],
			    side == CLIENT ? ONLY_BACKEND : ONLY_CLIENT);
			CHECK(s.received[!side] == ALL && s.received[side] == 0, "%zu, %zu",
			    s.received[!side], s.received[side]);
			exchange(&s, ALL, ALL, BOTH);
			end_both(&s);
		}
}

static void
release_first(void *session)
{
	struct session *s = session;
	free(s->first);
	s->first = NULL;
	s->releases++;
}

/* Sends the client's first LENGTH bytes. */
static void
send_first(struct session *s, size_t length)
{
	s->first = malloc(length);
	CHECK(s->first != NULL, "malloc");
	make_bytes(s->first, length, 0, CLIENT);
	relay_send_first(&s->relay, s->first, length, release_first, s);
	s->sent[CLIENT] = length;
}

/* A ClientHello in records of one byte has as many; the backend's socket takes fewer. */
Test(relay, sends_the_first_bytes_though_the_backend_writes_before_it_reads)
{
	static const size_t lengths[] = {1, 517, 131400 * 6};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		for (int slow = 0; slow < 2; slow++) {
			struct session s;
			open_session(&s, AF_INET);
			if (slow)
				hold_little(&s, BACKEND);
			send_first(&s, lengths[i]);
			CHECK((s.relay.first_length > 0) == (i == 2), "%zu bytes are left",
			    s.relay.first_length);
			start(&s);
			exchange(&s, lengths[i], 4 * MIB, ONLY_CLIENT);
			send_all(&s, CLIENT, 10);
			receive_all(&s, BACKEND);
			CHECK(s.releases == 1, "released %u times", s.releases);
			end_both(&s);
		}
}

/* The client may only read after it has sent everything, so what it sends is dropped. */
Test(relay, drops_the_first_bytes_for_a_backend_that_has_closed)
{
	struct session s;
	open_session(&s, AF_INET);
	send_all(&s, BACKEND, 100);
	hang_up(&s, BACKEND);
	send_first(&s, 1000);
	CHECK(s.relay.first_length == 0 && s.relay.backend.deaf && s.relay.backend.error == EPIPE,
	    "%zu bytes are left, error %d", s.relay.first_length, s.relay.backend.error);
	start(&s);
	receive_all(&s, CLIENT);
	wait_for_end(&s, RELAY_BACKEND_GONE);
	close_session(&s);
}

/* The client goes before the backend has read. */
Test(relay, releases_the_first_bytes_at_its_end)
{
	struct session s;
	open_session(&s, AF_INET);
	send_first(&s, MIB);
	start(&s);
	poll(NULL, 0, 50);
	CHECK(s.releases == 0, "released before they are sent");
	s.relay.stop = true;
	shutdown(s.relay.client.socket, SHUT_RDWR);
	wait_for_end(&s, RELAY_STOPPED);
	CHECK(s.releases == 1, "released %u times", s.releases);
	close_session(&s);
}

/* With SO_OOBINLINE an urgent byte is like any other, but splice(2) stops at it. */
Test(relay, leaves_urgent_bytes_in_their_places)
{
	enum { EVERY = 100 * 1000, URGENT = 20 };
	struct session s;
	start_one(&s, AF_INET);
	for (int i = 0; i < URGENT; i++) {
		send_all(&s, CLIENT, EVERY);
		CHECK(send_some(&s, CLIENT, 1, MSG_OOB) == 1, "%s", strerror(errno));
		pass(&s, CLIENT, i % 2 == 0 ? 1 : EVERY);
	}
	end_both(&s);
}

/* Sends LENGTH bytes from the backend, with descriptor 0 attached. */
static void
send_with_descriptor(struct session *s, size_t length)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
			 .cmsg_level = SOL_SOCKET,
			 .cmsg_type = SCM_RIGHTS}};
	uint8_t block[BLOCK];
	struct iovec bytes = {block, length};
	struct msghdr message = {.msg_iov = &bytes,
	    .msg_iovlen = 1,
	    .msg_control = &control,
	    .msg_controllen = sizeof control.room};
	memset(CMSG_DATA(&control.header), 0, sizeof(int));
	make_bytes(block, length, s->sent[BACKEND], BACKEND);
	CHECK(sendmsg(s->ends[BACKEND], &message, MSG_NOSIGNAL) == (ssize_t)length, "%s",
	    strerror(errno));
	s->sent[BACKEND] += length;
}

/* close_session() counts descriptors. */
Test(relay, drops_descriptors_that_a_backend_sends_along)
{
	struct session s;
	start_one(&s, AF_INET);
	for (int i = 0; i < 200; i++) {
		send_with_descriptor(&s, i % 3 == 0 ? BLOCK : 1);
		if (i % 5 == 0)
			send_all(&s, BACKEND, 2 * BLOCK);
		receive_all(&s, CLIENT);
	}
	end_both(&s);
}

static atomic_bool stops_interrupting;

static void *
interrupt(void *argument)
{
	const struct session *s = argument;
	while (!stops_interrupting) {
		pthread_kill(s->thread, SIGUSR1);
		poll(NULL, 0, 1);
	}
	return NULL;
}

Test(relay, does_not_mind_signals)
{
	struct session s;
	pthread_t interrupter;
	let_interrupt(SIGUSR1);
	start_one(&s, AF_INET);
	hold_little(&s, BACKEND);
	CHECK(pthread_create(&interrupter, NULL, interrupt, &s) == 0, "pthread_create");
	for (int i = 0; i < 50; i++) {
		pass(&s, CLIENT, 1);
		pass(&s, BACKEND, 1);
		poll(NULL, 0, 2);
	}
	exchange(&s, 4 * MIB, 4 * MIB, BOTH);
	stops_interrupting = true;
	pthread_join(interrupter, NULL);
	end_both(&s);
}

/* --- A side that is gone --- */

/* The bytes are in a buffer, in a pipe, or not read yet when their sender is gone. */
Test(relay, passes_on_what_was_sent_before_a_reset)
{
	static const size_t lengths[] = {
	    0, 200, RELAY_BUFFER_SIZE, RELAY_BUFFER_SIZE + 1, 100 * 1000, SIZE_MAX};
	for (size_t i = 0; i < 2 * SIDES * sizeof lengths / sizeof *lengths; i++) {
		struct session s;
		enum side side = i % 2 == 0 ? CLIENT : BACKEND;
		bool is_slow = i / 2 % 2 == 1;
		start_one(&s, AF_INET);
		if (is_slow)
			hold_little(&s, !side);
		fill(&s, side, lengths[i / 4]);
		size_t arrived = reset(&s, side);
		receive_until_end(&s, !side, is_slow ? 5000 : BLOCK);
		wait_for_end(&s, gone[side]);
		CHECK((side == CLIENT ? s.relay.client.error : s.relay.backend.error) == ECONNRESET,
		    "row %zu: %d, %d", i, s.relay.client.error, s.relay.backend.error);
		CHECK(s.received[!side] >= arrived, "row %zu: %zu of %zu bytes", i,
		    s.received[!side], arrived);
		if (side == BACKEND)
			expect_end_of_stream(&s, CLIENT);
		close_session(&s);
	}
}

/* The hang-up may be known before the other side begins to take the bytes. */
Test(relay, waits_until_what_was_sent_by_a_side_that_is_gone_is_taken)
{
	for (int i = 0; i < 2 * SIDES; i++) {
		struct session s;
		enum side side = i % 2 == 0 ? CLIENT : BACKEND;
		start_small(&s, AF_INET);
		fill(&s, side, SIZE_MAX);
		size_t arrived = s.sent[side];
		if (i < 2)
			arrived = reset(&s, side);
		else
			hang_up(&s, side);
		if (i != 2) /* or TCP would send a reset, and drop what the client has sent */
			send_all(&s, !side, MIB); /* is dropped */
		poll(NULL, 0, NOTHING_MS);
		CHECK(!is_over(&s), "it has ended as %u", (unsigned)s.end);
		if (i == 2) {
			receive_all(&s, BACKEND);
			expect_end_of_stream(&s, BACKEND);
			end_last(&s, BACKEND);
			continue;
		}
		receive_until_end(&s, !side, BLOCK);
		CHECK(s.received[!side] >= arrived, "%zu of %zu bytes", s.received[!side], arrived);
		finish(&s, gone[side]);
	}
}

/* Whatever the other side does, whether or not it has ended its stream. */
Test(relay, ends_at_once_when_a_side_is_gone)
{
	for (int i = 0; i < 4 * SIDES; i++) {
		struct session s;
		enum side side = i % 2 == 0 ? CLIENT : BACKEND;
		start_one(&s, AF_INET);
		pass(&s, CLIENT, 10);
		if (i / 2 % 2 == 1)
			pass_end(&s, side); /* it hangs up when its own stream has ended */
		if (i / 4 == 1)
			fill(&s, !side, SIZE_MAX); /* what the other side has sent is dropped */
		reset(&s, side);
		finish(&s, gone[side]);
	}
}

/* A backend that reads no more, but sends 4 MiB, which is more than all buffers hold. The relay may
 * hold bytes for it: it finds out that they cannot be sent when there is room for more. */
Test(relay, drops_what_a_deaf_backend_does_not_take)
{
	for (int i = 0; i < 2 * FAMILIES; i++) {
		struct session s;
		start_one(&s, families[i % 2]);
		pass(&s, CLIENT, 10);
		if (i / 2 == 1)
			fill(&s, CLIENT, SIZE_MAX);
		CHECK(shutdown(s.ends[BACKEND], SHUT_RD) == 0, "shutdown");
		while (i / 2 == 1 && receive_some(&s, BACKEND, BLOCK, 0) > 0)
			;
		send_all(&s, CLIENT, 4 * MIB);
		pass(&s, BACKEND, MIB / 16);
		send_all(&s, CLIENT, 1);
		pass(&s, BACKEND, 1);
		CHECK(!is_over(&s), "it has ended as %u", (unsigned)s.end);
		pass_end(&s, BACKEND);
		wait_for_end(&s, RELAY_BACKEND_GONE);
		CHECK(s.relay.backend.error == EPIPE, "%s", strerror(s.relay.backend.error));
		CHECK(s.relay.backend.taken == s.received[BACKEND], "%zu, not %zu",
		    (size_t)s.relay.backend.taken, s.received[BACKEND]);
		close_session(&s);
	}
}

/* --- Waits --- */

Test(relay, goes_on_after_it_was_quiet)
{
	struct session s;
	open_session(&s, AF_INET);
	for (int i = 0; i < 3; i++) {
		quiet_ms = -1;
		start(&s);
		pass(&s, CLIENT, 10);
		pass(&s, BACKEND, 10);
		be_quiet_soon(&s);
		int64_t began_ms = clock_ms();
		pass(&s, CLIENT, 10);
		wait_for_end(&s, RELAY_QUIET);
		CHECK(clock_ms() - began_ms >= NOTHING_MS, "it has not waited");
		CHECK(s.relay.quiet_ms == NOTHING_MS, "%d ms", s.relay.quiet_ms);
		expect_counted(&s);
	}
	quiet_ms = -1;
	start(&s);
	pass(&s, CLIENT, 10);
	end_both(&s);
}

Test(relay, is_quiet_at_once_if_threads_are_short)
{
	struct session s;
	quiet_ms = 0;
	open_session(&s, AF_INET);
	start(&s);
	wait_for_end(&s, RELAY_QUIET);
	send_all(&s, CLIENT, 10);
	start(&s);
	receive_all(&s, BACKEND);
	finish(&s, RELAY_QUIET);
}

Test(relay, is_not_quiet_while_bytes_are_held)
{
	for (int i = 0; i < 2 * SIDES; i++) {
		struct session s;
		enum side side = i % 2 == 0 ? CLIENT : BACKEND;
		prepare(i < 2 ? PIPES : 0);
		quiet_ms = -1; /* the sides are run by the test, which may be late */
		start_one(&s, AF_INET);
		fill(&s, side, SIZE_MAX);
		quiet_ms = 1;
		poll(NULL, 0, NOTHING_MS);
		CHECK(!is_over(&s), "it is quiet and holds bytes");
		receive_all(&s, !side);
		wait_for_end(&s, RELAY_QUIET);
		expect_counted(&s);
		close_session(&s);
	}
}

/* What is known of a side stays known; its hang-up is reported even then. */
Test(relay, goes_on_with_a_half_closed_side)
{
	for (int i = 0; i < 3 * SIDES; i++) {
		struct session s;
		enum side side = i % 2 == 0 ? CLIENT : BACKEND;
		quiet_ms = -1;
		open_session(&s, i % 4 < 2 ? AF_INET : AF_UNIX);
		start(&s);
		pass(&s, side, 10);
		be_quiet_soon(&s);
		pass_end(&s, side);
		wait_for_end(&s, RELAY_QUIET);
		CHECK(s.relay.client.ended == (side == CLIENT) &&
			s.relay.backend.ended == (side == BACKEND),
		    "it does not know which side has ended");
		quiet_ms = -1;
		start(&s);
		pass(&s, !side, MIB / 8);
		if (i / 2 == 2) {
			reset(&s, side);
			finish(&s, gone[side]);
			continue;
		}
		end_last(&s, !side);
	}
}

/* When a side has taken nothing for a second. */
/* The kernel's buffers for a stalled stream grow while it is filled. */
static void
fill_until_blocked(struct session *s, enum side side)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (s->blocked == 0) {
		CHECK(clock_left_ms(deadline_ms) > 0, "never blocked");
		fill(s, side, SIZE_MAX);
		poll(NULL, 0, 10);
	}
}

Test(relay, counts_a_connection_that_is_blocked)
{
	for (enum side side = CLIENT; side < SIDES; side++) {
		struct session s;
		start_one(&s, AF_INET);
		pass(&s, side, 100);
		CHECK(s.blocked == 0, "blocked at once");
		fill_until_blocked(&s, side);
		poll(NULL, 0, 1200);
		CHECK(s.blocked == 1, "it is blocked, and not counted");
		receive_all(&s, !side);
		await_blocked(&s, 0);
		end_both(&s);

		start_one(&s, AF_INET);
		fill_until_blocked(&s, side);
		s.relay.stop = true;
		shutdown(s.relay.client.socket, SHUT_RDWR);
		finish(&s, RELAY_STOPPED); /* fails if it is still counted */
	}
}

/* What a relay may wait for. */
enum wait {
	SILENT,
	CLIENT_ENDED,
	BACKEND_ENDED,
	CLIENT_STALLS,
	BACKEND_STALLS,
	BOTH_STALL,
	ENDED_AND_STALLS, /* the client */
	CLIENT_IS_GONE,   /* and the backend stalls */
	BACKEND_IS_GONE,
	BACKEND_IS_SHUT, /* it takes nothing more, but does not close; both stall */
	WAITS,
};

static void
begin_wait(struct session *s, enum wait wait)
{
	const unsigned backend_stalls =
	    1U << BACKEND_STALLS | 1U << BOTH_STALL | 1U << CLIENT_IS_GONE | 1U << BACKEND_IS_SHUT;
	const unsigned client_stalls = 1U << CLIENT_STALLS | 1U << BOTH_STALL |
	    1U << ENDED_AND_STALLS | 1U << BACKEND_IS_GONE | 1U << BACKEND_IS_SHUT;
	start_small(s, AF_INET);
	pass(s, CLIENT, 1);
	if (wait == CLIENT_ENDED || wait == ENDED_AND_STALLS)
		pass_end(s, CLIENT);
	if (wait == BACKEND_ENDED)
		pass_end(s, BACKEND);
	if ((backend_stalls >> wait & 1) != 0)
		fill(s, CLIENT, SIZE_MAX);
	if ((client_stalls >> wait & 1) != 0)
		fill(s, BACKEND, SIZE_MAX);
	if (wait == CLIENT_IS_GONE)
		reset(s, CLIENT);
	if (wait == BACKEND_IS_GONE)
		hang_up(s, BACKEND);
	if (wait == BACKEND_IS_SHUT)
		shutdown(s->ends[BACKEND], SHUT_RDWR);
	poll(NULL, 0, NOTHING_MS);
	CHECK(!is_over(s), "wait %u: it has ended as %u", (unsigned)wait, (unsigned)s->end);
}

/* If the client is gone, shutdown(2) does not wake the relay: it looks once a second. */
Test(relay, is_stopped_in_every_wait)
{
	for (enum wait wait = SILENT; wait < WAITS; wait++) {
		struct session s;
		begin_wait(&s, wait);
		int64_t began_ms = clock_ms();
		s.relay.stop = true;
		shutdown(s.relay.client.socket, SHUT_RDWR);
		wait_for_end(&s, RELAY_STOPPED);
		int64_t ms = clock_ms() - began_ms;
		CHECK(ms < 3000, "wait %u: %lld ms", (unsigned)wait, (long long)ms);
		close_session(&s);
	}
}

Test(relay, takes_no_time_of_the_processor_while_it_waits)
{
	for (enum wait wait = SILENT; wait < WAITS; wait++) {
		struct session s;
		clockid_t clock;
		struct timespec before, after;
		begin_wait(&s, wait);
		CHECK(pthread_getcpuclockid(s.thread, &clock) == 0, "pthread_getcpuclockid");
		clock_gettime(clock, &before);
		poll(NULL, 0, 300);
		clock_gettime(clock, &after);
		int64_t us = (after.tv_sec - before.tv_sec) * 1000000 +
		    (after.tv_nsec - before.tv_nsec) / 1000;
		CHECK(us < 10000, "wait %u: %lld us of 300,000", (unsigned)wait, (long long)us);
		s.relay.stop = true;
		shutdown(s.relay.client.socket, SHUT_RDWR);
		finish(&s, RELAY_STOPPED);
	}
}

/* The clock leaps by MS. A thread that looks once a second has noticed after this. */
static void
skip(int64_t ms)
{
	atomic_fetch_add(&skipped_ms, ms);
	poll(NULL, 0, 1500);
}

/* Only after its sender is gone; and not if it takes some of the bytes now and then. */
Test(relay, gives_a_side_up_that_takes_nothing)
{
	for (enum side side = CLIENT; side < SIDES; side++) {
		struct session s;
		start_small(&s, AF_INET);
		fill(&s, side, SIZE_MAX);
		skip(2 * RELAY_STALL_MS);
		CHECK(!is_over(&s), "the sender is there: %u", (unsigned)s.end);
		if (side == CLIENT)
			reset(&s, side);
		else
			hang_up(&s, side);
		poll(NULL, 0, 1500);
		skip(RELAY_STALL_MS - 10000);
		CHECK(!is_over(&s), "too soon: %u", (unsigned)s.end);
		uint64_t passed = s.relay.backend.taken + s.relay.client.taken;
		while (s.relay.backend.taken + s.relay.client.taken == passed)
			CHECK(receive_some(&s, !side, 1000, 0) > 0, "%s", strerror(errno));
		poll(NULL, 0, 1500);
		skip(RELAY_STALL_MS - 10000);
		CHECK(!is_over(&s), "too soon, since it has taken some: %u", (unsigned)s.end);
		skip(10000);
		finish(&s, RELAY_STALLED);
	}
}

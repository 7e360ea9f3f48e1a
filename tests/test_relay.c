/* Tests of relay.c: a relay in a thread of its own between a TCP connection and a pair of
 * Unix sockets, whose other ends the test holds. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "../relay.h"
#include "check.h"

enum { PATIENCE_S = 20 }; /* how long anything may take before the test fails */

/* One connection: its two outer ends, and what the relay has. */
struct session {
	int client;
	int backend;
	int inner_client;
	int inner_backend;
	struct relay_buffer first;
	pthread_t thread;
	struct relay relay;
	int epoll;
	uint32_t watched[2];
};

TestSuite(relay, .timeout = 90);

static void
be_patient(int s)
{
	struct timeval timeout = {.tv_sec = PATIENCE_S};
	cr_assert(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
	cr_assert(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0);
}

/* Makes a TCP connection; the first end is the relay's. */
static void
connect_tcp(int ends[2])
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(listener != -1);
	cr_assert(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
	cr_assert(listen(listener, 1) == 0);
	cr_assert(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(connect(ends[1], (struct sockaddr *)&address, sizeof address) == 0);
	ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert(ends[0] != -1);
	for (int i = 0, on = 1; i < 2; i++)
		cr_assert(
		    setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	close(listener);
}

/* Tells epoll what the relay waits for on the socket of SIDE, if that has changed. */
static void
watch(struct session *session, enum relay_side side)
{
	struct epoll_event event = {
	    .events = relay_wants(&session->relay, side), .data.u32 = side};
	int operation = session->watched[side] == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	int s = side == RELAY_CLIENT ? session->inner_client : session->inner_backend;
	if (event.events == session->watched[side])
		return;
	cr_assert(epoll_ctl(session->epoll, operation, s, &event) == 0);
	session->watched[side] = event.events;
}

/* Relays until it is over, as the program does. */
static void *
run_relay(void *argument)
{
	struct session *session = argument;
	struct relay_room *room = calloc(1, sizeof *room);
	session->epoll = epoll_create1(EPOLL_CLOEXEC);
	cr_assert(room != NULL && session->epoll != -1);
	room->splices = true;
	relay_begin(&session->relay, session->inner_client, session->inner_backend,
	    &session->first, EPOLLIN);
	enum relay_status status;
	while ((status = relay_move(&session->relay, room)) != RELAY_OVER) {
		struct epoll_event event;
		if (status == RELAY_GOES_ON)
			continue;
		watch(session, RELAY_CLIENT);
		watch(session, RELAY_BACKEND);
		while (epoll_wait(session->epoll, &event, 1, -1) != 1)
			continue;
		relay_ready(&session->relay, event.data.u32, event.events);
	}
	/* As whoever runs it does; it tells both sides. */
	close(session->inner_client);
	close(session->inner_backend);
	relay_release(&session->relay);
	close(session->epoll);
	relay_room_release(room);
	free(room);
	return NULL;
}

enum { UP, DOWN }; /* the two streams: to the backend, to the client */

/* The bytes of a stream, which differ from place to place and from stream to stream. */
static void
make_bytes(uint8_t *bytes, size_t length, size_t offset, unsigned stream)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] =
		    (uint8_t)((offset + i) * 31 + (offset + i) / 251 + 101 * stream);
}

/* Makes the two connections. */
static struct session *
prepare(void)
{
	static struct session session;
	int ends[2];
	connect_tcp(ends);
	session.inner_client = ends[0];
	session.client = ends[1];
	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	session.inner_backend = ends[0];
	session.backend = ends[1];
	cr_assert(fcntl(session.inner_backend, F_SETFL, O_NONBLOCK) == 0);
	be_patient(session.client);
	be_patient(session.backend);
	return &session;
}

/* Starts the relay; the client has sent the first LENGTH bytes of its stream already. */
static void
begin(struct session *session, size_t length)
{
	enum { BEFORE = 7, BEHIND = 20 };
	session->first = (struct relay_buffer){0};
	memset(session->watched, 0, sizeof session->watched);
	if (length > 0)
		session->first = (struct relay_buffer){
		    .bytes = malloc(BEFORE + length + BEHIND),
		    .capacity = BEFORE + length + BEHIND,
		    .start = BEFORE,
		    .end = BEFORE + length,
		};
	cr_assert(session->first.bytes != NULL || length == 0);
	if (length > 0)
		make_bytes(session->first.bytes + BEFORE, length, 0, UP);
	cr_assert(pthread_create(&session->thread, NULL, run_relay, session) == 0);
}

static struct session *
start(void)
{
	struct session *session = prepare();
	begin(session, 0);
	return session;
}

/* Waits for the relay to end, closes what it had, and sees how it ended. */
static void
expect_end(struct session *session, enum relay_end end, int error)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE_S;
	int joined = pthread_timedjoin_np(session->thread, NULL, &deadline);
	cr_assert(joined == 0, "the relay goes on and on");
	cr_expect(session->relay.end == end, "end %u", (unsigned)session->relay.end);
	cr_expect(session->relay.error == error, "%s", strerror(session->relay.error));
	cr_expect(session->first.bytes == NULL, "the first bytes were not freed");
}

static void
close_ends(struct session *session)
{
	close(session->client);
	close(session->backend);
}

enum { BLOCK = 32 * 1024 };

/* Sends the bytes of STREAM from OFFSET up to END. */
static bool
send_stream(int s, unsigned stream, size_t offset, size_t end)
{
	uint8_t block[BLOCK];
	while (offset < end) {
		size_t length = end - offset < sizeof block ? end - offset : sizeof block;
		make_bytes(block, length, offset, stream);
		ssize_t sent = send(s, block, length, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		offset += (size_t)sent;
	}
	return true;
}

/* Receives as many bytes and compares them. */
static void
expect_stream(int s, unsigned stream, size_t offset, size_t end)
{
	uint8_t block[BLOCK], expected[BLOCK];
	while (offset < end) {
		size_t length = end - offset < sizeof block ? end - offset : sizeof block;
		ssize_t received = recv(s, block, length, 0);
		CHECK(received > 0, "stream %u: after %zu of %zu bytes: %s", stream,
		    offset, end, received == 0 ? "ended" : strerror(errno));
		make_bytes(expected, (size_t)received, offset, stream);
		CHECK(memcmp(block, expected, (size_t)received) == 0,
		    "stream %u: other bytes after %zu", stream, offset);
		offset += (size_t)received;
	}
}

static void
expect_end_of_stream(int s)
{
	uint8_t byte;
	ssize_t received = recv(s, &byte, 1, 0);
	cr_assert(received == 0, "%zd: %s", received, strerror(errno));
}

Test(relay, sends_the_first_bytes_first)
{
	struct session *session = prepare();
	begin(session, 300);
	cr_assert(send_stream(session->client, UP, 300, 500));
	expect_stream(session->backend, UP, 0, 500);
	cr_assert(send_stream(session->backend, DOWN, 0, 70));
	expect_stream(session->client, DOWN, 0, 70);

	shutdown(session->client, SHUT_WR);
	expect_end_of_stream(session->backend);
	shutdown(session->backend, SHUT_WR);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);
}

/* As many as the largest ClientHello has, and a socket that takes few at a time. */
Test(relay, sends_many_first_bytes_to_a_slow_backend)
{
	enum { FIRST = 131400 + 5 * 9 };
	struct session *session = prepare();
	int size = 4096;
	cr_assert(setsockopt(session->inner_backend, SOL_SOCKET, SO_SNDBUF, &size,
		      sizeof size) == 0);
	begin(session, FIRST);
	cr_assert(send_stream(session->client, UP, FIRST, FIRST + 1000));
	for (size_t offset = 0; offset < FIRST; offset += 501)
		expect_stream(session->backend, UP, offset, offset + 501);
	close(session->client);
	expect_stream(session->backend, UP, FIRST - FIRST % 501 + 501, FIRST + 1000);
	expect_end_of_stream(session->backend);
	close(session->backend);
	expect_end(session, RELAY_ENDED, 0);
}

Test(relay, goes_on_when_the_client_has_ended_its_stream)
{
	struct session *session = start();
	cr_assert(send_stream(session->client, UP, 0, 10));
	shutdown(session->client, SHUT_WR);
	expect_stream(session->backend, UP, 0, 10);
	expect_end_of_stream(session->backend);
	for (size_t offset = 0; offset < 500000; offset += 50000) {
		cr_assert(send_stream(session->backend, DOWN, offset, offset + 50000));
		expect_stream(session->client, DOWN, offset, offset + 50000);
	}
	close(session->backend);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_ENDED, 0);
	close(session->client);
}

Test(relay, goes_on_when_the_backend_has_ended_its_stream)
{
	struct session *session = start();
	cr_assert(send_stream(session->backend, DOWN, 0, 10));
	shutdown(session->backend, SHUT_WR);
	expect_stream(session->client, DOWN, 0, 10);
	expect_end_of_stream(session->client);
	for (size_t offset = 0; offset < 500000; offset += 50000) {
		cr_assert(send_stream(session->client, UP, offset, offset + 50000));
		expect_stream(session->backend, UP, offset, offset + 50000);
	}
	close(session->client);
	expect_end_of_stream(session->backend);
	expect_end(session, RELAY_ENDED, 0);
	close(session->backend);
}

Test(relay, tells_the_client_what_a_backend_said_before_it_closed)
{
	struct session *session = start();
	cr_assert(send_stream(session->backend, DOWN, 0, 100000));
	close(session->backend);
	expect_stream(session->client, DOWN, 0, 100000);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_BACKEND_CLOSED, 0);
	close(session->client);
}

/* A Unix socket that is closed with something unread in it resets the connection. */
Test(relay, tells_the_client_what_a_backend_said_before_it_reset)
{
	struct session *session = start();
	cr_assert(send_stream(session->client, UP, 0, 10));
	expect_stream(session->backend, UP, 0, 5);
	cr_assert(send_stream(session->backend, DOWN, 0, 100000));
	close(session->backend);
	expect_stream(session->client, DOWN, 0, 100000);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_BACKEND_CLOSED, ECONNRESET);
	close(session->client);
}

/* So do servers that do not wait for their clients' close_notify. */
Test(relay, takes_a_reset_of_the_backend_after_the_client_has_ended_as_an_end)
{
	struct session *session = start();
	cr_assert(send_stream(session->client, UP, 0, 10));
	shutdown(session->client, SHUT_WR);
	expect_stream(session->backend, UP, 0, 5);
	cr_assert(send_stream(session->backend, DOWN, 0, 1000));
	expect_stream(session->client, DOWN, 0, 1000);
	close(session->backend);
	expect_end(session, RELAY_ENDED, 0);
	expect_end_of_stream(session->client);
	close(session->client);
}

/* Closes S so that its peer gets a reset. */
static void
reset(int s)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	cr_assert(setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
	close(s);
}

Test(relay, ends_when_the_client_resets)
{
	struct session *session = start();
	cr_assert(send_stream(session->client, UP, 0, 10));
	expect_stream(session->backend, UP, 0, 10);
	reset(session->client);
	expect_end(session, RELAY_CLIENT_FAILED, ECONNRESET);
	expect_end_of_stream(session->backend);
	close(session->backend);
}

/* To the system that is a broken pipe. */
Test(relay, ends_when_the_client_resets_after_the_end_of_its_stream)
{
	struct session *session = start();
	shutdown(session->client, SHUT_WR);
	expect_end_of_stream(session->backend);
	reset(session->client);
	expect_end(session, RELAY_CLIENT_FAILED, EPIPE);
	close(session->backend);
}

/* Sends bytes of STREAM until nobody takes any for a while; returns how many. */
static size_t
send_until_stalled(int s, unsigned stream)
{
	enum { QUIET_MS = 100 };
	size_t offset = 0;
	struct pollfd descriptor = {.fd = s, .events = POLLOUT};
	while (poll(&descriptor, 1, QUIET_MS) == 1) {
		uint8_t block[BLOCK];
		make_bytes(block, sizeof block, offset, stream);
		ssize_t sent = send(s, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent == -1 && errno == EAGAIN)
			continue;
		CHECK(sent > 0, "%s", strerror(errno));
		offset += (size_t)sent;
	}
	return offset;
}

Test(relay, ends_when_the_client_resets_while_the_backend_stalls)
{
	struct session *session = start();
	send_until_stalled(session->client, UP);
	reset(session->client);
	expect_end(session, RELAY_CLIENT_FAILED, ECONNRESET);
	close(session->backend);
}

Test(relay, ends_when_a_client_resets_that_stalls)
{
	struct session *session = start();
	send_until_stalled(session->backend, DOWN);
	reset(session->client);
	expect_end(session, RELAY_CLIENT_FAILED, ECONNRESET);
	close(session->backend);
}

/* A side that has stalled does not keep its own bytes from arriving. */
static void
use_the_other_direction(
    int stalled, unsigned its_stream, int other, unsigned other_stream)
{
	enum { MANY = 8 * 1000 * 1000, AT_ONCE = 20000 };
	size_t pending = send_until_stalled(other, other_stream);
	for (size_t offset = 0; offset < MANY; offset += AT_ONCE) {
		cr_assert(send_stream(stalled, its_stream, offset, offset + AT_ONCE));
		expect_stream(other, its_stream, offset, offset + AT_ONCE);
	}
	shutdown(other, SHUT_WR);
	expect_stream(stalled, other_stream, 0, pending);
	expect_end_of_stream(stalled);
	shutdown(stalled, SHUT_WR);
	expect_end_of_stream(other);
}

Test(relay, sends_up_while_the_client_stalls)
{
	struct session *session = start();
	use_the_other_direction(session->client, UP, session->backend, DOWN);
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);
}

Test(relay, sends_down_while_the_backend_stalls)
{
	struct session *session = start();
	use_the_other_direction(session->backend, DOWN, session->client, UP);
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);
}

struct sender {
	int socket;
	unsigned stream;
	pthread_t thread;
	bool sent;
};

enum { BULK = 50 * 1000 * 1000 + 1 };

static void *
send_bulk(void *argument)
{
	struct sender *sender = argument;
	sender->sent = send_stream(sender->socket, sender->stream, 0, BULK);
	shutdown(sender->socket, SHUT_WR);
	return NULL;
}

/* Reads from both sockets what comes, as it comes. */
static void
expect_bulk_on_both(int client, int backend)
{
	struct pollfd found[] = {
	    {.fd = client, .events = POLLIN}, {.fd = backend, .events = POLLIN}};
	size_t offset[2] = {0};
	const unsigned stream[] = {DOWN, UP};
	while (found[0].fd != -1 || found[1].fd != -1) {
		CHECK(poll(found, 2, PATIENCE_S * 1000) > 0, "nothing comes any more");
		for (size_t i = 0; i < 2; i++) {
			static uint8_t block[BLOCK], expected[BLOCK];
			if (found[i].revents == 0)
				continue;
			ssize_t received =
			    recv(found[i].fd, block, sizeof block, MSG_DONTWAIT);
			CHECK(received >= 0, "%s", strerror(errno));
			make_bytes(expected, (size_t)received, offset[i], stream[i]);
			CHECK(memcmp(block, expected, (size_t)received) == 0,
			    "other bytes");
			offset[i] += (size_t)received;
			if (received == 0)
				found[i].fd = -1;
		}
	}
	cr_expect(
	    offset[0] == BULK && offset[1] == BULK, "%zu, %zu", offset[0], offset[1]);
}

Test(relay, carries_bulk_both_ways_at_once)
{
	struct session *session = start();
	struct sender senders[] = {
	    {session->client, UP, 0, false}, {session->backend, DOWN, 0, false}};
	for (size_t i = 0; i < 2; i++)
		cr_assert(pthread_create(
			      &senders[i].thread, NULL, send_bulk, &senders[i]) == 0);
	expect_bulk_on_both(session->client, session->backend);
	for (size_t i = 0; i < 2; i++) {
		pthread_join(senders[i].thread, NULL);
		cr_expect(senders[i].sent);
	}
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);
}

Test(relay, carries_bulk_after_small_messages_and_small_ones_after_it)
{
	enum { SMALL = 100, LARGE = 4 * 1000 * 1000 };
	struct session *session = start();
	size_t offset = 0;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 200; i++, offset += SMALL) {
			cr_assert(
			    send_stream(session->client, UP, offset, offset + SMALL));
			expect_stream(session->backend, UP, offset, offset + SMALL);
			cr_assert(
			    send_stream(session->backend, DOWN, offset, offset + SMALL));
			expect_stream(session->client, DOWN, offset, offset + SMALL);
		}
		for (size_t i = 0; i < LARGE / 50000; i++, offset += 50000) {
			cr_assert(
			    send_stream(session->backend, DOWN, offset, offset + 50000));
			cr_assert(
			    send_stream(session->client, UP, offset, offset + 50000));
			expect_stream(session->client, DOWN, offset, offset + 50000);
			expect_stream(session->backend, UP, offset, offset + 50000);
		}
	}
	close(session->client);
	expect_end_of_stream(session->backend);
	close(session->backend);
	expect_end(session, RELAY_ENDED, 0);
}

/* The processor time, in milliseconds, that the relay uses up in a while. */
static int64_t
busy_ms(const struct session *session)
{
	enum { WHILE_MS = 300 };
	clockid_t clock;
	struct timespec before, after;
	cr_assert(pthread_getcpuclockid(session->thread, &clock) == 0);
	cr_assert(clock_gettime(clock, &before) == 0);
	poll(NULL, 0, WHILE_MS);
	cr_assert(clock_gettime(clock, &after) == 0);
	return (after.tv_sec - before.tv_sec) * 1000 +
	    (after.tv_nsec - before.tv_nsec) / 1000000;
}

static void
expect_idle(const struct session *session, const char *when)
{
	int64_t ms = busy_ms(session);
	cr_expect(ms < 60, "%lld ms, %s", (long long)ms, when);
}

Test(relay, rests_while_a_side_has_ended_its_stream)
{
	struct session *session = start();
	expect_idle(session, "when nobody speaks");
	shutdown(session->client, SHUT_WR);
	expect_end_of_stream(session->backend);
	expect_idle(session, "when the client has ended");
	shutdown(session->backend, SHUT_WR);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);

	session = start();
	shutdown(session->backend, SHUT_WR);
	expect_end_of_stream(session->client);
	expect_idle(session, "when the backend has ended");
	reset(session->client);
	expect_end(session, RELAY_CLIENT_FAILED, ECONNRESET);
	close(session->backend);
}

Test(relay, rests_while_the_client_stalls)
{
	struct session *session = start();
	size_t pending = send_until_stalled(session->backend, DOWN);
	expect_idle(session, "when the client stalls");
	shutdown(session->client, SHUT_WR);
	expect_end_of_stream(session->backend);
	expect_idle(session, "when the client stalls and has ended");
	close(session->backend);
	expect_idle(session, "when the client stalls and both have ended");
	expect_stream(session->client, DOWN, 0, pending);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_ENDED, 0);
	close(session->client);
}

Test(relay, rests_while_the_client_stalls_and_the_backend_is_gone)
{
	struct session *session = start();
	size_t pending = send_until_stalled(session->backend, DOWN);
	close(session->backend);
	expect_idle(session, "when the backend is gone");
	cr_assert(send_stream(session->client, UP, 0, 10));
	expect_idle(session, "when the backend is gone and the client speaks");
	expect_stream(session->client, DOWN, 0, pending);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_BACKEND_CLOSED, 0);
	close(session->client);
}

Test(relay, rests_while_the_backend_stalls)
{
	struct session *session = start();
	size_t pending = send_until_stalled(session->client, UP);
	expect_idle(session, "when the backend stalls");
	shutdown(session->backend, SHUT_WR);
	expect_end_of_stream(session->client);
	expect_idle(session, "when the backend stalls and has ended");
	shutdown(session->client, SHUT_WR);
	expect_idle(session, "when the backend stalls and both have ended");
	expect_stream(session->backend, UP, 0, pending);
	expect_end_of_stream(session->backend);
	expect_end(session, RELAY_ENDED, 0);
	close_ends(session);
}

Test(relay, lets_a_backend_speak_that_does_not_listen)
{
	struct session *session = start();
	shutdown(session->backend, SHUT_RD);
	cr_assert(send_stream(session->client, UP, 0, 10));
	expect_idle(session, "when the backend does not listen");
	cr_assert(send_stream(session->backend, DOWN, 0, 100000));
	close(session->backend);
	expect_stream(session->client, DOWN, 0, 100000);
	expect_end_of_stream(session->client);
	expect_end(session, RELAY_BACKEND_CLOSED, 0);
	close(session->client);
}

static void
do_nothing(int signal)
{
	(void)signal;
}

Test(relay, does_not_mind_signals)
{
	struct sigaction action = {.sa_handler = do_nothing};
	cr_assert(sigaction(SIGUSR1, &action, NULL) == 0);
	struct session *session = start();
	for (size_t i = 0; i < 300; i++) {
		pthread_kill(session->thread, SIGUSR1);
		cr_assert(send_stream(session->client, UP, i, i + 1));
		pthread_kill(session->thread, SIGUSR1);
		expect_stream(session->backend, UP, i, i + 1);
	}
	close(session->client);
	expect_end_of_stream(session->backend);
	close(session->backend);
	expect_end(session, RELAY_ENDED, 0);
}

static int
count_descriptors(void)
{
	int count = 0;
	for (int descriptor = 0; descriptor < 1024; descriptor++)
		count += fcntl(descriptor, F_GETFD) != -1;
	return count;
}

/* Bulk, small messages, and each way to end. */
Test(relay, keeps_no_descriptors)
{
	int before = count_descriptors();
	for (int round = 0; round < 4; round++) {
		struct session *session = start();
		size_t pending = send_until_stalled(session->client, UP);
		expect_stream(session->backend, UP, 0, pending);
		switch (round) {
		case 0:
			reset(session->client);
			expect_end(session, RELAY_CLIENT_FAILED, ECONNRESET);
			close(session->backend);
			break;
		case 1:
			close(session->backend);
			expect_end(session, RELAY_BACKEND_CLOSED, 0);
			close(session->client);
			break;
		default:
			close(session->client);
			expect_end_of_stream(session->backend);
			close(session->backend);
			expect_end(session, RELAY_ENDED, 0);
			break;
		}
		cr_expect(count_descriptors() == before, "round %d", round);
	}
}

Test(relay, frees_a_buffer)
{
	struct relay_buffer buffer = {malloc(10), 10, 3, 5};
	relay_buffer_release(&buffer);
	cr_expect(buffer.bytes == NULL && buffer.capacity == 0);
	cr_expect(buffer.start == 0 && buffer.end == 0);
	relay_buffer_release(&buffer);
	cr_expect(buffer.bytes == NULL);
}

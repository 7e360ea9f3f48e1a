/* Tests of relay.c: ways between a TCP connection and a pair of Unix sockets, in either direction,
 * whose outer ends the test holds. Threads serve them as the program's do: each takes the way that
 * the lot gives it. Each test is a process of its own, with limits of its own. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "../clock.h"
#include "../lot.h"
#include "../relay.h"
#include "../system.h"
#include "../thread.h"
#include "check.h"
#include "self.h"

enum {
	STAY = 4,
	PIPES = 4,

	/* How long nothing has to come before it is taken for nothing. */
	NOTHING_MS = 50,
};

/* From TCP to Unix, and back. Each carries a stream of its own. */
enum direction { UP, DOWN, DIRECTIONS };

/* A way, and who is at its ends. */
struct session {
	struct relay_way way;
	enum direction direction;
	int sender, receiver;
	atomic_int thread; /* the id of who serves the way */
	sem_t over;        /* then, how it ended: */
	enum relay_status status;
	int error;
};

/* As the program does. There is no pool of threads, so that the main thread is woken when one
 * should be started, which it does not mind. */
static void
prepare_process(void)
{
	sigset_t signals;
	signal(SIGPIPE, SIG_IGN);
	thread_prepare();
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	cr_assert(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0);
}

TestSuite(relay, .init = prepare_process, .timeout = 90);

static void
open_lot(unsigned stay_max, unsigned pipes_max)
{
	relay_prepare(stay_max, pipes_max);
	cr_assert(lot_open(), "%s", strerror(errno));
}

static void
need_splice(void)
{
	if (!system_has_splice())
		cr_skip_test("needs splice(2)");
}

/* --- Connections --- */

static void
set_timeout(int s, int option, int ms)
{
	struct timeval timeout = {ms / 1000, ms % 1000 * 1000};
	cr_assert(setsockopt(s, SOL_SOCKET, option, &timeout, sizeof timeout) == 0);
}

static void
be_patient(int s)
{
	set_timeout(s, SO_RCVTIMEO, PATIENCE_MS);
	set_timeout(s, SO_SNDTIMEO, PATIENCE_MS);
}

/* Makes a TCP connection; the first end is the one that was accepted. */
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
	ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(ends[0] != -1);
	for (int i = 0, on = 1; i < 2; i++)
		cr_assert(
		    setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	close(listener);
}

static void
connect_unix(int ends[2])
{
	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
}

static void
hang_up(int *s)
{
	close(*s);
	*s = -1;
}

static void
prepare(struct session *session, enum direction direction)
{
	int in[2], out[2];
	(direction == UP ? connect_tcp : connect_unix)(in);
	(direction == UP ? connect_unix : connect_tcp)(out);
	*session = (struct session){
	    .way = {.from = in[0], .to = out[0]},
	    .direction = direction,
	    .sender = in[1],
	    .receiver = out[1],
	};
	session->way.connection = (struct connection *)session;
	cr_assert(sem_init(&session->over, 0, 0) == 0);
	be_patient(session->sender);
	be_patient(session->receiver);
	relay_limit_send(session->way.to);
}

/* Makes BACK the way from the receiver of SESSION to its sender. */
static void
prepare_back(struct session *back, const struct session *session)
{
	*back = (struct session){
	    .way = {.from = session->way.to, .to = session->way.from},
	    .direction = session->direction == UP ? DOWN : UP,
	    .sender = session->receiver,
	    .receiver = session->sender,
	};
	back->way.connection = (struct connection *)back;
	cr_assert(sem_init(&back->over, 0, 0) == 0);
	relay_limit_send(back->way.to);
}

/* Makes a thread that waits for the way's sender wait until something comes. */
static void
never_be_quiet(struct session *session)
{
	session->way.has_timeout = true;
	be_patient(session->way.from);
}

/* Makes the kernel hold little that the receiver has not taken. */
static void
hold_little(struct session *session)
{
	int size = 4096;
	cr_assert(
	    setsockopt(session->way.to, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
}

/* As lot_take(), whatever interrupts it. */
static struct relay_way *
take(int timeout_ms)
{
	struct relay_way *way;
	do
		way = lot_take(timeout_ms);
	while (way == NULL && errno == EINTR);
	return way;
}

/* Serves the way of the session at ARGUMENT, and others that the lot gives it, until one is
 * over. Whoever began that one serves another then. */
static void *
serve(void *argument)
{
	struct session *session = argument;
	uint8_t buffer[RELAY_BUFFER_SIZE];
	for (;;) {
		atomic_store(&session->thread, gettid());
		session->status = relay_move(&session->way, buffer);
		session->error = errno;
		if (session->status != RELAY_QUIET)
			break;
		CHECK(lot_leave(&session->way, false), "%s", strerror(errno));
		session = (struct session *)take(10 * PATIENCE_MS)->connection;
	}
	shutdown(session->way.to, SHUT_WR);
	sem_post(&session->over);
	return NULL;
}

static pthread_t
start(struct session *session)
{
	pthread_t thread;
	cr_assert(pthread_create(&thread, NULL, serve, session) == 0);
	cr_assert(pthread_detach(thread) == 0);
	return thread;
}

static void
start_one(struct session *session, enum direction direction)
{
	prepare(session, direction);
	start(session);
}

/* Waits for the way to be over, and sees how it ended. */
static void
expect_status(struct session *session, enum relay_status status)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE_MS / 1000;
	cr_assert(sem_timedwait(&session->over, &deadline) == 0, "it goes on and on");
	cr_expect(session->status == status, "status %u", (unsigned)session->status);
}

static void
expect_over(struct session *session, enum relay_status status, int error)
{
	expect_status(session, status);
	if (status != RELAY_ENDED)
		cr_expect(session->error == error, "%s", strerror(session->error));
}

static void
close_all(struct session *session)
{
	hang_up(&session->way.from);
	hang_up(&session->way.to);
	if (session->sender != -1)
		hang_up(&session->sender);
	if (session->receiver != -1)
		hang_up(&session->receiver);
}

/* --- Bytes --- */

/* The bytes of a stream, which differ from place to place and from stream to stream. */
static void
make_bytes(uint8_t *bytes, size_t length, size_t offset, unsigned stream)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] =
		    (uint8_t)((offset + i) * 31 + (offset + i) / 251 + 101 * stream);
}

enum { BLOCK = 32 * 1024 };

/* Sends the bytes of the session's stream from OFFSET up to END, with FLAGS. */
static bool
send_flagged(struct session *session, size_t offset, size_t end, int flags)
{
	uint8_t block[BLOCK];
	while (offset < end) {
		size_t length = end - offset < sizeof block ? end - offset : sizeof block;
		make_bytes(block, length, offset, session->direction);
		ssize_t sent = send(session->sender, block, length, MSG_NOSIGNAL | flags);
		if (sent <= 0)
			return false;
		offset += (size_t)sent;
	}
	return true;
}

static bool
send_stream(struct session *session, size_t offset, size_t end)
{
	return send_flagged(session, offset, end, 0);
}

/* Receives as many bytes, up to AT_ONCE at once, and compares them. */
static void
expect_pieces(struct session *session, size_t offset, size_t end, size_t at_once)
{
	uint8_t block[BLOCK], expected[BLOCK];
	while (offset < end) {
		size_t length = end - offset < at_once ? end - offset : at_once;
		ssize_t received = recv(session->receiver, block, length, 0);
		CHECK(received > 0, "stream %u: after %zu of %zu bytes: %s",
		    (unsigned)session->direction, offset, end,
		    received == 0 ? "ended" : strerror(errno));
		make_bytes(expected, (size_t)received, offset, session->direction);
		CHECK(memcmp(block, expected, (size_t)received) == 0,
		    "stream %u: other bytes after %zu", (unsigned)session->direction,
		    offset);
		offset += (size_t)received;
	}
}

static void
expect_stream(struct session *session, size_t offset, size_t end)
{
	expect_pieces(session, offset, end, BLOCK);
}

static void
pass_on(struct session *session, size_t offset, size_t end)
{
	CHECK(send_stream(session, offset, end), "%s", strerror(errno));
	expect_stream(session, offset, end);
}

static void
expect_end_of_stream(struct session *session)
{
	uint8_t byte;
	ssize_t received = recv(session->receiver, &byte, 1, 0);
	cr_assert(received == 0, "%zd: %s", received, strerror(errno));
}

/* The sender ends its stream after LENGTH bytes, which have been received. */
static void
expect_end_after(struct session *session, size_t length)
{
	shutdown(session->sender, SHUT_WR);
	expect_end_of_stream(session);
	expect_over(session, RELAY_ENDED, 0);
	cr_expect(session->way.passed == length, "%zu", (size_t)session->way.passed);
}

static void
await_parked(struct session *session)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (!session->way.parked)
		CHECK(clock_left_ms(deadline_ms) > 0, "it is never quiet");
}

/* It is counted when it has been given to the receiver, who may be faster. */
static void
await_passed(struct session *session, size_t length)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (session->way.passed != length)
		CHECK(clock_left_ms(deadline_ms) > 0, "%zu bytes, not %zu",
		    (size_t)session->way.passed, length);
}

/* Sends bytes from OFFSET on until there is no room for more, for a while; returns up to where. */
static size_t
send_on(struct session *session, size_t offset)
{
	enum { QUIET_MS = 100 };
	struct pollfd descriptor = {.fd = session->sender, .events = POLLOUT};
	for (;;) {
		uint8_t block[BLOCK];
		make_bytes(block, sizeof block, offset, session->direction);
		ssize_t sent = send(
		    session->sender, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent == -1 && errno == EAGAIN && poll(&descriptor, 1, QUIET_MS) == 0)
			return offset;
		CHECK(sent > 0 || errno == EAGAIN, "%s", strerror(errno));
		offset += sent > 0 ? (size_t)sent : 0;
	}
}

static size_t
send_until_stalled(struct session *session)
{
	return send_on(session, 0);
}

/* The same until the thread waits for its reader, in CALL: on a busy machine it may just have been late to
 * take what there was room for. */
static size_t
send_until_call(struct session *session, long call)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	size_t sent = 0;
	do {
		sent = send_on(session, sent);
		CHECK(
		    clock_left_ms(deadline_ms) > 0, "it does not wait in call %ld", call);
	} while (!is_in_call(atomic_load(&session->thread), call));
	return sent;
}

/* A sender that is a thread of its own. */
struct sender {
	struct session *session;
	size_t length;
	void (*end)(struct session *session);
	pthread_t thread;
	bool sent;
};

static void *
run_sender(void *argument)
{
	struct sender *sender = argument;
	sender->sent = send_stream(sender->session, 0, sender->length);
	sender->end(sender->session);
	return NULL;
}

static void
start_sender(struct sender *sender)
{
	cr_assert(pthread_create(&sender->thread, NULL, run_sender, sender) == 0);
}

static void
join_sender(struct sender *sender)
{
	pthread_join(sender->thread, NULL);
	cr_expect(sender->sent);
}

static void
end_stream(struct session *session)
{
	shutdown(session->sender, SHUT_WR);
}

static void
await_hang_up(int s)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (!relay_has_hung_up(s)) {
		CHECK(clock_left_ms(deadline_ms) > 0, "it is still there");
		poll(NULL, 0, 1);
	}
}

static void
await_taken(int s)
{
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	int bytes;
	while (ioctl(s, TIOCOUTQ, &bytes) == 0 && bytes > 0) {
		CHECK(clock_left_ms(deadline_ms) > 0, "%d bytes stay", bytes);
		poll(NULL, 0, 1);
	}
}

/* Closes the sender's socket with something unread in it, which resets the connection. TCP drops
 * what the other end does not have by then; Unix sockets have it at once. */
static void
reset_sender(struct session *session)
{
	struct pollfd descriptor = {.fd = session->sender, .events = POLLIN};
	CHECK(send(session->way.from, "x", 1, MSG_NOSIGNAL) == 1, "%s", strerror(errno));
	CHECK(poll(&descriptor, 1, PATIENCE_MS) == 1, "it does not come");
	if (session->direction == UP)
		await_taken(session->sender);
	hang_up(&session->sender);
}

/* Closes S, of TCP, so that its peer gets a reset. */
static void
reset(int *s)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	cr_assert(setsockopt(*s, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
	hang_up(s);
}

/* --- What passes --- */

/* Small messages, both ways at once; then both ways are left in the lot. */
static void
pass_small_messages(void)
{
	enum { MESSAGES = 200, LENGTH = 100 };
	struct session up, down;
	prepare(&up, UP);
	prepare_back(&down, &up);
	start(&up);
	start(&down);
	for (size_t i = 0; i < MESSAGES; i++) {
		pass_on(&up, i * LENGTH, (i + 1) * LENGTH);
		pass_on(&down, i * LENGTH, (i + 1) * LENGTH);
	}
	await_parked(&up);
	await_parked(&down);
	pass_on(&up, MESSAGES * LENGTH, MESSAGES * LENGTH + 1);
	expect_end_after(&up, MESSAGES * LENGTH + 1);
	pass_on(&down, MESSAGES * LENGTH, MESSAGES * LENGTH + 2);
	expect_end_after(&down, MESSAGES * LENGTH + 2);
	close_all(&up);
}

Test(relay, passes_small_messages_on)
{
	open_lot(STAY, PIPES);
	pass_small_messages();
}

Test(relay, passes_small_messages_on_where_nobody_may_wait_for_them)
{
	open_lot(0, 0);
	pass_small_messages();
}

Test(relay, waits_a_while_for_a_quiet_sender)
{
	enum { ROUNDS = 10 };
	open_lot(1, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		uint8_t buffer[RELAY_BUFFER_SIZE];
		struct session session;
		prepare(&session, direction);
		int64_t began_ms = clock_ms();
		for (size_t i = 0; i < ROUNDS; i++) {
			cr_assert(send_stream(&session, i, i + 1));
			cr_expect(relay_move(&session.way, buffer) == RELAY_QUIET);
			expect_stream(&session, i, i + 1);
		}
		int64_t ms = clock_ms() - began_ms;
		cr_expect(ms >= ROUNDS * RELAY_QUIET_MS / 2, "%lld ms", (long long)ms);
		cr_expect(ms < ROUNDS * RELAY_QUIET_MS * 10, "%lld ms", (long long)ms);
		close_all(&session);
	}
}

Test(relay, carries_bulk_after_small_messages_and_small_ones_after_it)
{
	enum { ROUNDS = 3, SMALL = 100, MESSAGES = 100, LARGE = 4 * 1000 * 1000 };
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		size_t offset = 0;
		start_one(&session, direction);
		for (size_t round = 0; round < ROUNDS; round++) {
			for (size_t i = 0; i < MESSAGES; i++, offset += SMALL)
				pass_on(&session, offset, offset + SMALL);
			for (size_t i = 0; i < LARGE / 50000; i++, offset += 50000)
				pass_on(&session, offset, offset + 50000);
			await_passed(&session, offset);
		}
		pass_on(&session, offset, offset + SMALL);
		expect_end_after(&session, offset + SMALL);
		close_all(&session);
	}
}

static void
pass_bulk_both_ways(void)
{
	enum { BULK = 10 * 1000 * 1000 + 1 };
	struct session up, down;
	prepare(&up, UP);
	prepare_back(&down, &up);
	struct sender senders[] = {
	    {&up, BULK, end_stream, 0, false}, {&down, BULK, end_stream, 0, false}};
	start(&up);
	start(&down);
	start_sender(&senders[0]);
	start_sender(&senders[1]);
	for (size_t offset = 0; offset < BULK - 1; offset += 10000) {
		expect_stream(&up, offset, offset + 10000);
		expect_stream(&down, offset, offset + 10000);
	}
	expect_stream(&up, BULK - 1, BULK);
	expect_stream(&down, BULK - 1, BULK);
	join_sender(&senders[0]);
	join_sender(&senders[1]);
	expect_end_after(&up, BULK);
	expect_end_after(&down, BULK);
	close_all(&up);
}

Test(relay, carries_bulk_both_ways_at_once)
{
	open_lot(STAY, PIPES);
	pass_bulk_both_ways();
}

Test(relay, carries_bulk_where_nobody_may_wait)
{
	open_lot(0, PIPES);
	pass_bulk_both_ways();
}

Test(relay, carries_bulk_where_there_are_no_pipes)
{
	open_lot(STAY, 0);
	pass_bulk_both_ways();
}

/* Nobody has waited for it yet, and splice(2) is the first to. */
Test(relay, is_quiet_after_bulk_where_nobody_may_wait)
{
	enum { LENGTH = RELAY_BUFFER_SIZE };
	open_lot(0, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		start_one(&session, direction);
		await_parked(&session);
		pass_on(&session, 0, LENGTH);
		await_passed(&session, LENGTH);
		await_parked(&session);
		pass_on(&session, LENGTH, 2 * LENGTH);
		expect_end_after(&session, 2 * LENGTH);
		close_all(&session);
	}
}

/* Sizes about those of the buffer and of the pipe. */
Test(relay, notices_the_end_behind_bulk)
{
	static const size_t lengths[] = {0, 1, RELAY_BUFFER_SIZE - 1, RELAY_BUFFER_SIZE,
	    RELAY_BUFFER_SIZE + 1, 2 * RELAY_BUFFER_SIZE, 3 * RELAY_BUFFER_SIZE + 7,
	    65536, 1048576 - 1, 1048576, 1048576 + 1, 1048576 + RELAY_BUFFER_SIZE,
	    3000000};
	open_lot(STAY, PIPES);
	for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
		struct session session;
		prepare(&session, i % 2 == 0 ? UP : DOWN);
		struct sender sender = {&session, lengths[i / 2], end_stream, 0, false};
		start_sender(&sender);
		start(&session);
		expect_stream(&session, 0, sender.length);
		expect_end_after(&session, sender.length);
		join_sender(&sender);
		close_all(&session);
	}
}

/* A byte that is urgent is one like others where SO_OOBINLINE says so, but splice(2) stops
 * there. */
Test(relay, leaves_urgent_bytes_in_their_places)
{
	enum { EVERY = 100 * 1000, URGENT = 20 };
	int on = 1;
	struct session session;
	open_lot(STAY, PIPES);
	prepare(&session, UP);
	cr_assert(
	    setsockopt(session.way.from, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
	start(&session);
	for (size_t offset = 0; offset < URGENT * EVERY; offset += EVERY) {
		size_t urgent = offset + EVERY / 2;
		cr_assert(send_stream(&session, offset, urgent));
		cr_assert(send_flagged(&session, urgent, urgent + 1, MSG_OOB));
		cr_assert(send_stream(&session, urgent + 1, offset + EVERY));
		expect_stream(&session, offset, offset + EVERY);
	}
	expect_end_after(&session, URGENT * EVERY);
	close_all(&session);
}

static atomic_bool stop_interrupting;

static void *
interrupt(void *argument)
{
	while (!atomic_load(&stop_interrupting)) {
		pthread_kill(*(pthread_t *)argument, SIGUSR1);
		poll(NULL, 0, 1);
	}
	return NULL;
}

/* A signal that interrupts system calls, as the one that ends a wait for the backend does. */
Test(relay, does_not_mind_signals)
{
	enum { SMALL = 300, BULK = 4 * 1000 * 1000 };
	let_interrupt(SIGUSR1);
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		pthread_t interrupter;
		prepare(&session, direction);
		hold_little(&session);
		never_be_quiet(&session);
		pthread_t thread = start(&session);
		size_t offset = 0;
		for (; offset < SMALL; offset++) {
			await_call(&session.thread, SYS_recvfrom);
			pthread_kill(thread, SIGUSR1);
			pass_on(&session, offset, offset + 1);
		}
		atomic_store(&stop_interrupting, false);
		cr_assert(pthread_create(&interrupter, NULL, interrupt, &thread) == 0);
		for (; offset < BULK; offset += 40000)
			pass_on(&session, offset, offset + 40000);
		atomic_store(&stop_interrupting, true);
		pthread_join(interrupter, NULL);
		expect_end_after(&session, offset);
		close_all(&session);
	}
}

/* --- How it ends --- */

/* The relay has them in a buffer, in a pipe, or not read yet when the sender is gone. */
Test(relay, passes_on_what_was_sent_before_a_reset)
{
	static const size_t lengths[] = {
	    200, RELAY_BUFFER_SIZE, RELAY_BUFFER_SIZE + 1, 100 * 1000, 1000 * 1000};
	open_lot(STAY, PIPES);
	for (size_t i = 0; i < 4 * sizeof lengths / sizeof *lengths; i++) {
		struct session session;
		bool is_slow = i % 4 >= 2;
		prepare(&session, i % 2 == 0 ? UP : DOWN);
		if (is_slow)
			hold_little(&session);
		struct sender sender = {&session, lengths[i / 4], reset_sender, 0, false};
		start(&session);
		start_sender(&sender);
		expect_pieces(&session, 0, sender.length, is_slow ? 500 : BLOCK);
		expect_end_of_stream(&session);
		expect_over(&session, RELAY_READ_FAILED, ECONNRESET);
		cr_expect(session.way.passed == sender.length);
		join_sender(&sender);
		close_all(&session);
	}
}

Test(relay, passes_on_what_was_sent_before_a_reset_though_nobody_takes_it_yet)
{
	enum { LENGTH = 50 * 1000 };
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		prepare(&session, direction);
		hold_little(&session);
		start(&session);
		cr_assert(send_stream(&session, 0, LENGTH));
		reset_sender(&session);
		await_hang_up(session.way.from);
		expect_stream(&session, 0, LENGTH);
		expect_end_of_stream(&session);
		expect_over(&session, RELAY_READ_FAILED, ECONNRESET);
		close_all(&session);
	}
}

/* Begins a way, and makes its thread wait: for the first bytes, or if IN_BULK for more of them.
 * Returns how many have passed. */
static size_t
start_waiting(struct session *session, enum direction direction, bool in_bulk)
{
	size_t length = in_bulk ? RELAY_BUFFER_SIZE : 0;
	prepare(session, direction);
	never_be_quiet(session);
	start(session);
	await_call(&session->thread, SYS_recvfrom);
	pass_on(session, 0, length);
	await_call(
	    &session->thread, in_bulk && system_has_splice() ? SYS_splice : SYS_recvfrom);
	return length;
}

/* It tells its error once, and nobody else may have taken it. */
Test(relay, notices_a_reset_while_it_waits)
{
	open_lot(STAY, PIPES);
	for (int round = 0; round < 4; round++) {
		struct session session;
		start_waiting(&session, round < 2 ? UP : DOWN, round % 2 == 1);
		reset_sender(&session);
		expect_end_of_stream(&session);
		expect_over(&session, RELAY_READ_FAILED, ECONNRESET);
		close_all(&session);
	}
}

Test(relay, notices_in_the_lot_how_the_sender_has_ended)
{
	open_lot(STAY, PIPES);
	for (int round = 0; round < 4; round++) {
		struct session session;
		start_one(&session, round % 2 == 0 ? UP : DOWN);
		pass_on(&session, 0, 10);
		await_parked(&session);
		if (round < 2) {
			expect_end_after(&session, 10);
		} else {
			reset_sender(&session);
			expect_over(&session, RELAY_READ_FAILED, ECONNRESET);
		}
		close_all(&session);
	}
}

Test(relay, ends_where_its_source_is_shut_down)
{
	open_lot(STAY, PIPES);
	for (int round = 0; round < 4; round++) {
		struct session session;
		start_waiting(&session, round < 2 ? UP : DOWN, round % 2 == 1);
		shutdown(session.way.from, SHUT_RD);
		expect_end_of_stream(&session);
		expect_over(&session, RELAY_ENDED, 0);
		close_all(&session);
	}
}

Test(relay, ends_in_the_lot_where_its_source_is_shut_down)
{
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		start_one(&session, direction);
		await_parked(&session);
		shutdown(session.way.from, SHUT_RD);
		expect_over(&session, RELAY_ENDED, 0);
		close_all(&session);
	}
}

/* Waits until the reader stalls, with CALL, and ends that from outside. */
static void
expect_failure_by_shutdown(enum direction direction, long call)
{
	struct session session;
	start_one(&session, direction);
	send_until_call(&session, call);
	uint64_t passed = session.way.passed;
	poll(NULL, 0, NOTHING_MS);
	cr_expect(is_in_call(session.thread, call), "it has not waited");
	cr_expect(session.way.passed == passed);
	shutdown(session.way.to, SHUT_RDWR);
	expect_over(&session, RELAY_WRITE_FAILED, EPIPE);
	close_all(&session);
}

Test(relay, waits_for_a_reader_until_it_is_shut_down)
{
	need_splice();
	open_lot(STAY, PIPES);
	expect_failure_by_shutdown(UP, SYS_splice);
	expect_failure_by_shutdown(DOWN, SYS_splice);
}

Test(relay, waits_without_a_pipe_for_a_reader_until_it_is_shut_down)
{
	open_lot(STAY, 0);
	expect_failure_by_shutdown(UP, SYS_sendto);
	expect_failure_by_shutdown(DOWN, SYS_sendto);
}

Test(relay, fails_where_the_reader_is_gone)
{
	open_lot(STAY, PIPES);
	for (size_t length = 1; length < 100 * 1000; length += 50 * 1000) {
		for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
			struct session session;
			start_one(&session, direction);
			if (direction == UP)
				hang_up(&session.receiver);
			else
				reset(&session.receiver);
			await_hang_up(session.way.to);
			cr_assert(send_stream(&session, 0, length));
			expect_over(&session, RELAY_WRITE_FAILED,
			    direction == UP ? EPIPE : ECONNRESET);
			cr_expect(session.way.passed == 0);
			close_all(&session);
		}
	}
}

/* That it was a reset may be lost on a splice(2) that has passed on some bytes. */
Test(relay, fails_where_the_reader_goes_in_the_midst_of_bulk)
{
	need_splice();
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		start_one(&session, direction);
		send_until_call(&session, SYS_splice);
		expect_stream(&session, 0, 1000);
		if (direction == UP)
			hang_up(&session.receiver);
		else
			reset(&session.receiver);
		expect_status(&session, RELAY_WRITE_FAILED);
		cr_expect(session.error == EPIPE || session.error == ECONNRESET, "%s",
		    strerror(session.error));
		close_all(&session);
	}
}

/* --- A reader that takes nothing --- */

enum { STALL_MS = 20 }; /* instead of RELAY_STALL_MS */

/* Begins a way from Unix to Unix whose reader is not waited for as long as others, and sends until
 * a thread waits in CALL; returns how much that is. */
static size_t
stall(struct session *session, long call)
{
	int ends[2];
	prepare(session, DOWN);
	hang_up(&session->way.to);
	hang_up(&session->receiver);
	connect_unix(ends);
	session->way.to = ends[0];
	session->receiver = ends[1];
	be_patient(session->receiver);
	set_timeout(session->way.to, SO_SNDTIMEO, STALL_MS);
	session->way.waits_long = true; /* or that would be set anew */
	start(session);
	return send_until_call(session, call);
}

static void
wait_for_a_reader(long call)
{
	struct session session;
	size_t sent = stall(&session, call);
	poll(NULL, 0, 2 * STALL_MS * RELAY_STALLS_MAX);
	shutdown(session.sender, SHUT_WR);
	poll(NULL, 0, 2 * STALL_MS * RELAY_STALLS_MAX);
	expect_stream(&session, 0, sent);
	expect_end_of_stream(&session);
	expect_over(&session, RELAY_ENDED, 0);
	cr_expect(session.way.passed == sent);
	close_all(&session);
}

Test(relay, waits_for_a_reader_while_the_sender_is_there)
{
	need_splice();
	open_lot(STAY, PIPES);
	wait_for_a_reader(SYS_splice);
}

Test(relay, waits_without_a_pipe_for_a_reader_while_the_sender_is_there)
{
	open_lot(STAY, 0);
	wait_for_a_reader(SYS_sendto);
}

static void
give_a_reader_up(long call)
{
	struct session session;
	size_t sent = stall(&session, call);
	size_t passed = (size_t)session.way.passed;
	int64_t gone_ms = clock_ms();
	hang_up(&session.sender);
	expect_over(&session, RELAY_WRITE_FAILED, ETIMEDOUT);
	int64_t ms = clock_ms() - gone_ms;
	cr_expect(ms >= STALL_MS * (RELAY_STALLS_MAX - 1), "%lld ms", (long long)ms);
	cr_expect(session.way.passed == passed && passed < sent);
	expect_stream(&session, 0, passed);
	expect_end_of_stream(&session);
	close_all(&session);
}

Test(relay, gives_a_reader_up_once_the_sender_is_gone)
{
	need_splice();
	open_lot(STAY, PIPES);
	give_a_reader_up(SYS_splice);
}

Test(relay, gives_a_reader_up_without_a_pipe_once_the_sender_is_gone)
{
	open_lot(STAY, 0);
	give_a_reader_up(SYS_sendto);
}

/* Half a minute is what a receiver may take nothing, not what it may take. */
static void
wait_for_a_slow_reader(long call)
{
	enum { PIECE = 20 * 1000 };
	struct session session;
	size_t offset = 0, sent = stall(&session, call);
	hang_up(&session.sender);
	int64_t deadline_ms = clock_ms() + 2 * STALL_MS * RELAY_STALLS_MAX;
	for (; clock_left_ms(deadline_ms) > 0 && offset + PIECE < sent; offset += PIECE) {
		expect_stream(&session, offset, offset + PIECE);
		poll(NULL, 0, 3 * STALL_MS); /* there may be room once 64 KiB are taken */
	}
	cr_expect(clock_left_ms(deadline_ms) == 0, "there was too little");
	expect_stream(&session, offset, sent);
	expect_end_of_stream(&session);
	expect_over(&session, RELAY_ENDED, 0);
	close_all(&session);
}

Test(relay, waits_for_a_slow_reader_though_the_sender_is_gone)
{
	need_splice();
	open_lot(STAY, PIPES);
	wait_for_a_slow_reader(SYS_splice);
}

Test(relay, waits_without_a_pipe_for_a_slow_reader_though_the_sender_is_gone)
{
	open_lot(STAY, 0);
	wait_for_a_slow_reader(SYS_sendto);
}

/* --- What all ways share --- */

Test(relay, lets_few_threads_wait_for_senders)
{
	struct session waiting[2], quiet;
	uint8_t byte;
	size_t length;
	open_lot(2, PIPES);
	for (size_t i = 0; i < 2; i++) {
		prepare(&waiting[i], i == 0 ? UP : DOWN);
		never_be_quiet(&waiting[i]);
		start(&waiting[i]);
		await_call(&waiting[i].thread, SYS_recvfrom);
	}
	prepare(&quiet, UP);
	never_be_quiet(&quiet); /* so if it waited, it would fail */
	int64_t began_ms = clock_ms();
	cr_expect(relay_receive(&quiet.way, &byte, 1, &length) == RELAY_QUIET);
	cr_expect(length == 0);
	quiet.way.is_ready = true;
	cr_expect(relay_receive(&quiet.way, &byte, 1, &length) == RELAY_QUIET);
	cr_expect(clock_ms() - began_ms < PATIENCE_MS / 2, "it has waited");

	/* What the lot has told of is taken. */
	cr_assert(send_stream(&quiet, 0, 1));
	quiet.way.is_ready = true;
	cr_expect(relay_receive(&quiet.way, &byte, 1, &length) == RELAY_MOVED);
	cr_expect(length == 1);

	/* When one waits no more, another may. */
	expect_end_after(&waiting[0], 0);
	start(&quiet);
	await_call(&quiet.thread, SYS_recvfrom);
	shutdown(quiet.sender, SHUT_WR);
	expect_over(&quiet, RELAY_ENDED, 0);
	expect_end_after(&waiting[1], 0);
}

/* Fails unless a way that is in bulk and whose reader stalls waits in CALL. */
static void
expect_bulk_by(struct session *session, enum direction direction, long call)
{
	start_one(session, direction);
	send_until_call(session, call);
}

static void
expect_no_more(struct session *session)
{
	shutdown(session->way.to, SHUT_RDWR);
	expect_over(session, RELAY_WRITE_FAILED, EPIPE);
	close_all(session);
}

Test(relay, shares_a_number_of_pipes)
{
	struct session first, second, third;
	need_splice();
	open_lot(STAY, 1);
	expect_bulk_by(&first, UP, SYS_splice);
	expect_bulk_by(&second, DOWN, SYS_sendto);
	expect_no_more(&first);
	expect_bulk_by(&third, UP, SYS_splice);
	expect_no_more(&second);
	expect_no_more(&third);
}

/* Allows for no descriptors but those that are open, or for as many as may be. */
static void
limit_descriptors(bool limits)
{
	struct rlimit limit;
	cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = limits ? 3 : limit.rlim_max;
	cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

Test(relay, copies_where_there_are_no_descriptors_for_a_pipe)
{
	struct session session;
	need_splice();
	open_lot(STAY, 1);
	prepare(&session, UP);
	limit_descriptors(true);
	start(&session);
	size_t sent = send_until_stalled(&session);
	limit_descriptors(false);
	await_call(&session.thread, SYS_sendto);
	expect_stream(&session, 0, sent);
	expect_end_after(&session, sent);
	close_all(&session);

	/* And is none the poorer. */
	expect_bulk_by(&session, UP, SYS_splice);
	expect_no_more(&session);
}

/* Bulk, small messages, and each way to end. */
Test(relay, keeps_no_descriptors)
{
	open_lot(STAY, PIPES);
	int before = count_descriptors();
	for (int round = 0; round < 6; round++) {
		struct session session;
		start_one(&session, round % 2 == 0 ? UP : DOWN);
		size_t sent = send_until_stalled(&session);
		if (round < 4) {
			expect_stream(&session, 0, sent);
			pass_on(&session, sent, sent + 10);
		}
		if (round < 2) {
			expect_end_after(&session, sent + 10);
		} else if (round < 4) {
			reset_sender(&session);
			expect_over(&session, RELAY_READ_FAILED, ECONNRESET);
		} else {
			shutdown(session.way.to, SHUT_RDWR);
			expect_over(&session, RELAY_WRITE_FAILED, EPIPE);
		}
		close_all(&session);
		cr_expect(count_descriptors() == before, "round %d", round);
	}
}

/* Fails unless COUNT threads have said that they wait. */
static void
expect_waiting(int count)
{
	for (int i = 0; i < count; i++)
		thread_end_wait();
	cr_expect(!thread_is_spare(0), "there are fewer than %d", count);
	thread_end_wait();
	cr_expect(!thread_is_spare(1), "one is not more than one");
	cr_expect(thread_is_spare(0), "there are more than %d", count);
	for (int i = 0; i < count; i++)
		thread_begin_wait();
}

Test(relay, says_when_a_thread_waits)
{
	struct session reading, writing;
	open_lot(STAY, 1);
	start_waiting(&reading, UP, false);
	expect_waiting(1);
	expect_end_after(&reading, 0);
	expect_waiting(0);
	size_t length = start_waiting(&reading, UP, true); /* it has the pipe */
	expect_waiting(1);

	expect_bulk_by(&writing, DOWN, SYS_sendto);
	expect_waiting(2);
	expect_no_more(&writing);
	expect_waiting(1);
	expect_end_after(&reading, length);
	expect_waiting(0);
	expect_bulk_by(&writing, DOWN, system_has_splice() ? SYS_splice : SYS_sendto);
	expect_waiting(1);
	expect_no_more(&writing);
	expect_waiting(0);
}

/* --- The lot --- */

static void
expect_told_of(struct session *session)
{
	cr_expect(session->way.parked);
	cr_expect(take(PATIENCE_MS) == &session->way);
	cr_expect(take(NOTHING_MS) == NULL, "it tells twice");
}

static void
leave(struct session *session, bool only_hangup)
{
	cr_assert(lot_leave(&session->way, only_hangup), "%s", strerror(errno));
}

Test(relay, tells_once_of_what_comes)
{
	open_lot(STAY, PIPES);
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		uint8_t bytes[10];
		size_t length;
		prepare(&session, direction);
		leave(&session, false);
		cr_expect(take(NOTHING_MS) == NULL, "nothing has come");
		cr_assert(send_stream(&session, 0, 5));
		expect_told_of(&session);
		cr_assert(send_stream(&session, 5, 6));
		cr_expect(take(NOTHING_MS) == NULL, "it is not there");

		leave(&session, false); /* what has come before counts too */
		expect_told_of(&session);
		cr_expect(relay_receive(&session.way, bytes, sizeof bytes, &length) ==
		    RELAY_MOVED);
		cr_expect(length == 6, "%zu", length);
		leave(&session, false);
		cr_expect(take(NOTHING_MS) == NULL, "nothing has come");
		shutdown(session.sender, SHUT_WR);
		expect_told_of(&session);
		close_all(&session);
	}
}

/* Neither bytes nor the end of the stream are one. */
Test(relay, tells_of_a_hang_up_only)
{
	open_lot(STAY, PIPES);
	for (int round = 0; round < 4; round++) {
		struct session session;
		prepare(&session, round % 2 == 0 ? UP : DOWN);
		if (round < 2) {
			leave(&session, false);
			cr_assert(send_stream(&session, 0, 1));
			expect_told_of(&session);
		}
		leave(&session, true);
		cr_assert(send_stream(&session, 1, 2));
		cr_expect(take(NOTHING_MS) == NULL, "a byte is no hang-up");
		shutdown(session.sender, SHUT_WR);
		cr_expect(take(NOTHING_MS) == NULL, "an end is no hang-up");
		reset_sender(&session);
		expect_told_of(&session);
		leave(&session, true);
		expect_told_of(&session);
		close_all(&session);
	}
}

Test(relay, says_when_the_lot_does_not_take_a_way)
{
	struct session session;
	if (strcmp(lot_leave_call, "epoll_ctl") != 0)
		cr_skip_test("needs epoll(7), which does not take a directory");
	open_lot(STAY, PIPES);
	prepare(&session, UP);
	int from = session.way.from;
	session.way.from = open(".", O_RDONLY | O_DIRECTORY); /* which it cannot watch */
	cr_expect(!lot_leave(&session.way, false) && errno == EPERM);
	cr_expect(!session.way.parked);
	close(session.way.from);
	session.way.from = from;
	leave(&session, false);
	cr_assert(send_stream(&session, 0, 1));
	expect_told_of(&session);
	close_all(&session);
}

/* --- Sockets --- */

Test(relay, receives_as_much_as_there_is_room_for)
{
	struct session session;
	uint8_t bytes[12] = "", expected[10];
	size_t length;
	open_lot(STAY, PIPES);
	prepare(&session, UP);
	make_bytes(expected, 10, 0, UP);
	cr_assert(send_stream(&session, 0, 10));
	cr_expect(relay_receive(&session.way, bytes, 7, &length) == RELAY_MOVED);
	cr_expect(length == 7 && bytes[7] == 0);
	cr_expect(relay_receive(&session.way, bytes + 7, 5, &length) == RELAY_MOVED);
	cr_expect(length == 3);
	cr_expect(memcmp(bytes, expected, 10) == 0);
	cr_expect(relay_receive(&session.way, bytes, 12, &length) == RELAY_QUIET);
	cr_expect(length == 0);
	shutdown(session.sender, SHUT_WR);
	cr_expect(relay_receive(&session.way, bytes, 12, &length) == RELAY_ENDED);
	cr_expect(length == 0);
	cr_expect(session.way.passed == 0);
}

struct reader {
	struct session *session;
	size_t length;
};

/* Begins when the socket has taken some bytes, but no more for a while. */
static void *
run_reader(void *argument)
{
	struct reader *reader = argument;
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (reader->session->way.passed == 0)
		CHECK(clock_left_ms(deadline_ms) > 0, "it waits for all to be taken");
	expect_pieces(reader->session, 0, reader->length, 501);
	return NULL;
}

/* As many as the largest ClientHello has, and a socket that takes few at a time. */
Test(relay, sends_many_bytes_to_a_slow_reader)
{
	enum { LENGTH = 131400 + 5 * 9 };
	static uint8_t bytes[LENGTH];
	struct session session;
	struct reader reader = {&session, LENGTH};
	pthread_t thread;
	open_lot(STAY, PIPES);
	prepare(&session, UP);
	hold_little(&session);
	set_timeout(session.way.to, SO_SNDTIMEO, STALL_MS);
	make_bytes(bytes, LENGTH, 0, UP);
	cr_expect(relay_send(&session.way, bytes, 0) == RELAY_MOVED);
	cr_assert(pthread_create(&thread, NULL, run_reader, &reader) == 0);
	cr_expect(relay_send(&session.way, bytes, LENGTH) == RELAY_MOVED);
	cr_expect(session.way.passed == LENGTH);
	pthread_join(thread, NULL);
	hang_up(&session.receiver);
	cr_expect(relay_send(&session.way, bytes, 1) == RELAY_WRITE_FAILED);
	cr_expect(errno == EPIPE, "%s", strerror(errno));
	cr_expect(session.way.passed == LENGTH);
}

static int
timeout_of(int s, int option)
{
	struct timeval timeout;
	socklen_t size = sizeof timeout;
	CHECK(getsockopt(s, SOL_SOCKET, option, &timeout, &size) == 0, "no timeout");
	return (int)(timeout.tv_sec * 1000 + timeout.tv_usec / 1000);
}

/* The kernel counts in ticks, of up to 10 ms. */
static void
expect_timeout(int s, int option, int ms)
{
	int set_ms = timeout_of(s, option);
	cr_expect(set_ms >= ms && set_ms <= ms + 10, "%d ms", set_ms);
}

Test(relay, limits_waits)
{
	int ends[2];
	connect_unix(ends);
	relay_limit_receive(ends[0]);
	expect_timeout(ends[0], SO_RCVTIMEO, RELAY_QUIET_MS);
	expect_timeout(ends[0], SO_SNDTIMEO, 0);
	relay_limit_send(ends[0]);
	expect_timeout(ends[0], SO_RCVTIMEO, RELAY_QUIET_MS);
	expect_timeout(ends[0], SO_SNDTIMEO, RELAY_STALL_MS);
}

/* The backend's socket has a timeout for connect(2) at first. */
Test(relay, limits_waits_for_a_reader_once_it_stalls)
{
	struct session session;
	open_lot(STAY, PIPES);
	prepare(&session, UP);
	set_timeout(session.way.to, SO_SNDTIMEO, STALL_MS);
	start(&session);
	pass_on(&session, 0, 1);
	expect_timeout(session.way.to, SO_SNDTIMEO, STALL_MS);
	send_until_stalled(&session);
	int64_t deadline_ms = clock_ms() + PATIENCE_MS;
	while (timeout_of(session.way.to, SO_SNDTIMEO) < RELAY_STALL_MS)
		CHECK(clock_left_ms(deadline_ms) > 0, "it waits in vain");
	expect_no_more(&session);
}

Test(relay, sees_whether_the_other_end_is_gone)
{
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		prepare(&session, direction);
		int s = session.way.from;
		cr_expect(!relay_has_hung_up(s));
		cr_assert(send_stream(&session, 0, 10));
		shutdown(session.sender, SHUT_WR);
		struct pollfd ended = {.fd = s, .events = POLLRDHUP};
		cr_assert(poll(&ended, 1, PATIENCE_MS) == 1);
		cr_expect(!relay_has_hung_up(s), "it has ended its stream only");
		reset_sender(&session);
		await_hang_up(s);
		close_all(&session);

		/* A TCP socket cannot tell an end of stream from a close; but with both
		 * streams ended there is nobody. */
		prepare(&session, direction);
		s = session.way.from;
		shutdown(s, SHUT_WR);
		cr_expect(!relay_has_hung_up(s));
		hang_up(&session.sender);
		await_hang_up(s);
		close_all(&session);
	}
}

Test(relay, takes_the_error_of_a_socket)
{
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		struct session session;
		prepare(&session, direction);
		cr_expect(relay_error(session.way.from) == 0);
		reset_sender(&session);
		await_hang_up(session.way.from);
		cr_expect(relay_has_hung_up(session.way.from), "it has looked only");
		cr_expect(relay_error(session.way.from) == ECONNRESET);
		cr_expect(relay_error(session.way.from) == 0);
		cr_expect(relay_has_hung_up(session.way.from));
		close_all(&session);
	}
}

Test(relay, knows_how_much_has_not_been_taken)
{
	for (enum direction direction = UP; direction < DIRECTIONS; direction++) {
		uint8_t buffer[1000];
		struct session session;
		prepare(&session, direction);
		cr_expect(relay_untaken(session.sender) == 0);
		size_t sent = send_until_stalled(&session);
		int untaken = relay_untaken(session.sender);
		cr_expect(untaken > 0);
		be_patient(session.way.from);
		while (sent > 0) {
			ssize_t received =
			    recv(session.way.from, buffer, sizeof buffer, 0);
			CHECK(received > 0, "%s", strerror(errno));
			sent -= (size_t)received;
		}
		await_taken(session.sender);
		close_all(&session);
	}
}

static uint64_t
taken_of(const struct relay_way *way)
{
	return relay_taken(way->to, way->passed);
}

/* Waits until it can be seen that the way's receiver has taken something since it had taken so many. Where
 * TCP finds that a window too small to tell, that may be later. */
static bool
is_seen(const struct relay_way *way, uint64_t taken)
{
	int64_t deadline_ms = clock_ms() + 10 * NOTHING_MS;
	while (taken_of(way) == taken && clock_left_ms(deadline_ms) > 0)
		poll(NULL, 0, 1);
	return taken_of(way) != taken;
}

/* However much is on its way: of what is in a pipe, all may be passed on at once. */
Test(relay, sees_that_a_slow_reader_takes_something)
{
	enum { SIP = 64 * 1024, SIPS = 40 };
	const int held = 2 * SIP;
	int seen = 0;
	struct session session;
	need_splice();
	open_lot(STAY, PIPES);
	prepare(&session, DOWN);
	setsockopt(session.way.to, SOL_SOCKET, SO_SNDBUF, &held, sizeof held);
	setsockopt(session.receiver, SOL_SOCKET, SO_RCVBUF, &held, sizeof held);
	start(&session);
	size_t sent = send_until_call(&session, SYS_splice), offset = 0;
	for (int i = 0; i < SIPS; i++, offset += SIP) {
		uint64_t taken = taken_of(&session.way);
		expect_stream(&session, offset, offset + SIP);
		bool was_seen = is_seen(&session.way, taken);
		sent = send_on(&session, sent); /* until it is refilled */
		CHECK(!was_seen || taken_of(&session.way) > taken,
		    "sip %d is not seen any more", i);
		seen += was_seen;
	}
	cr_expect(seen > SIPS / 2, "%d sips were seen", seen);
	shutdown(session.sender, SHUT_WR);
	expect_stream(&session, offset, sent);
	expect_over(&session, RELAY_ENDED, 0);
	close_all(&session);
}

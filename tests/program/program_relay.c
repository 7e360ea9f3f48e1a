/* The relay: both directions at once, ends and resets, and the cost of a connection that waits. */
#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static struct proxy *proxy;
static int backend;

static struct pair
start(void)
{
	proxy = proxy_start_default();
	backend = backend_listen(HOST);
	return pair_open(backend);
}

/* For tests of a connection that has been silent for a while, which the proxy may hold in another
 * way than a busy one. That cannot be seen from outside, so this waits. */
static void
fall_silent(int ms)
{
	testing("after %d ms of silence", ms);
	poll(NULL, 0, ms);
}

/* The last is long enough for the connection to be parked. */
static const int silences_ms[] = {0, 100, 2500};
enum { SILENCES = sizeof silences_ms / sizeof *silences_ms };

/* --- Bytes --- */

/* One direction of a transfer. The pattern is sent from START on. */
struct flow {
	int from;
	int to;
	size_t start;
	size_t length;
	size_t chunk; /* what is sent at once */
	size_t sent;
	size_t received;
};

/* Sends what is taken now. Returns false if the stream is broken. */
static bool
flow_send(struct flow *flow)
{
	size_t left = flow->length - flow->sent;
	struct bytes next =
	    pattern(flow->start + flow->sent, left < flow->chunk ? left : flow->chunk);
	ssize_t now = send(flow->from, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (now < 0)
		return errno == EAGAIN;
	flow->sent += (size_t)now;
	return true;
}

/* Receives what has arrived, up to MOST bytes. Returns false if it is wrong. */
static bool
flow_receive_up_to(struct flow *flow, size_t most)
{
	static uint8_t buffer[MIB / 4];
	size_t size = most < sizeof buffer ? most : sizeof buffer;
	ssize_t now = recv(flow->to, buffer, size, MSG_DONTWAIT);
	if (now <= 0)
		return now < 0 && errno == EAGAIN;
	for (size_t done = 0; done < (size_t)now;) {
		struct bytes next = pattern(flow->start + flow->received, (size_t)now - done);
		if (memcmp(buffer + done, next.data, next.length) != 0)
			return false;
		done += next.length;
		flow->received += next.length;
	}
	return flow->received <= flow->length;
}

static bool
flow_receive(struct flow *flow)
{
	return flow_receive_up_to(flow, SIZE_MAX);
}

/* Runs all flows to their ends at the same time. */
#define exchange(flows, count) exchange_at(HERE, flows, count)

static void
exchange_at(const char *where, struct flow *flows, size_t count)
{
	for (;;) {
		struct pollfd entries[4] = {0};
		size_t open = 0;
		for (size_t i = 0; i < count; i++) {
			struct flow *flow = &flows[i];
			bool more = flow->sent < flow->length;
			open += flow->received < flow->length;
			entries[2 * i] = (struct pollfd){more ? flow->from : -1, POLLOUT, 0};
			entries[2 * i + 1] = (struct pollfd){flow->to, POLLIN, 0};
		}
		if (open == 0)
			return;
		if (poll(entries, (nfds_t)(2 * count), margin_ms(5000)) <= 0)
			fail_at(where, "stalled at %zu and %zu of %zu bytes", flows[0].sent,
			    flows[0].received, flows[0].length);
		for (size_t i = 0; i < count; i++)
			if ((entries[2 * i].revents != 0 && !flow_send(&flows[i])) ||
			    (entries[2 * i + 1].revents != 0 && !flow_receive(&flows[i])))
				fail_at(where, "flow %zu broke at %zu and %zu of %zu bytes: %s", i,
				    flows[i].sent, flows[i].received, flows[i].length,
				    strerror(errno));
	}
}

static size_t
bulk(void)
{
	return (size_t)(sanitized() ? 16 : 96) * MIB;
}

PROGRAM_TEST(relay, bulk_upload)
{
	struct pair pair = start();
	struct flow flow = {pair.client, pair.backend, 0, bulk(), MIB, 0, 0};
	exchange(&flow, 1);
	pair_talk(pair);
}

PROGRAM_TEST(relay, bulk_download)
{
	struct pair pair = start();
	struct flow flow = {pair.backend, pair.client, 0, bulk(), MIB, 0, 0};
	exchange(&flow, 1);
	pair_talk(pair);
}

PROGRAM_TEST(relay, bulk_both_ways)
{
	struct pair pair = start();
	struct flow flows[] = {
	    {pair.client, pair.backend, 0, bulk(), MIB, 0, 0},
	    {pair.backend, pair.client, 77777, bulk(), MIB, 0, 0},
	};
	exchange(flows, 2);
	pair_talk(pair);
}

/* Small messages between large ones: a direction may change the way it carries bytes, never the
 * bytes. */
PROGRAM_TEST(relay, bulk_and_small_messages_in_turn)
{
	static const size_t chunks[] = {1, 17, 1000, 4096, 16384, 16385, 65536, 300000, MIB};
	struct pair pair = start();
	for (int round = 0; round < 6; round++) {
		for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
			testing("round %d, %zu bytes at once", round, chunks[i]);
			size_t length = chunks[i] < 100 ? 200 * chunks[i] : 4 * chunks[i] + 3;
			struct flow up = {pair.client, pair.backend, i, length, chunks[i], 0, 0};
			struct flow down = {pair.backend, pair.client, i, length, chunks[i], 0, 0};
			exchange(&up, 1);
			exchange(&down, 1);
			pair_talk(pair);
		}
	}
}

PROGRAM_TEST(relay, end_right_behind_bulk)
{
	struct pair pair = start();
	struct flow up = {pair.client, pair.backend, 0, 8 * MIB, MIB, 0, 0};
	while (up.sent < up.length) {
		if (readable_within(pair.backend, 0))
			cr_assert(flow_receive(&up));
		cr_assert(flow_send(&up));
	}
	close(pair.client);
	while (up.received < up.length) {
		cr_assert(readable_within(pair.backend, 5000));
		cr_assert(flow_receive(&up), "at %zu bytes", up.received);
	}
	expect_end(pair.backend);
}

/* --- Neither direction can block the other --- */

PROGRAM_TEST(relay, download_while_the_upload_is_stalled)
{
	struct pair pair = start();
	size_t stalled = send_until_stalled(pair.client);
	struct flow down = {pair.backend, pair.client, 0, 8 * MIB, MIB, 0, 0};
	exchange(&down, 1);
	expect_pattern(pair.backend, stalled);
	pair_talk(pair);
}

PROGRAM_TEST(relay, upload_while_the_download_is_stalled)
{
	struct pair pair = start();
	size_t stalled = send_until_stalled(pair.backend);
	struct flow up = {pair.client, pair.backend, 0, 8 * MIB, MIB, 0, 0};
	exchange(&up, 1);
	expect_pattern(pair.client, stalled);
	pair_talk(pair);
}

/* Both sides write until nothing more is taken; only then they read. */
PROGRAM_TEST(relay, both_sides_write_before_they_read)
{
	struct pair pair = start();
	size_t up = send_until_stalled(pair.client);
	size_t down = send_until_stalled(pair.backend);
	struct flow flows[] = {
	    {pair.client, pair.backend, 0, up + 8 * MIB, MIB, up, 0},
	    {pair.backend, pair.client, 0, down + 8 * MIB, MIB, down, 0},
	};
	exchange(flows, 2);
	pair_talk(pair);
}

/* After that, either direction continues while the other is still stalled. */
PROGRAM_TEST(relay, each_direction_goes_on_while_the_other_is_stalled)
{
	pair_close(start());
	for (int i = 0; i < 2; i++) {
		testing("%s is stalled", i == 0 ? "the download" : "the upload");
		struct pair pair = pair_open(backend);
		size_t up = send_until_stalled(pair.client);
		size_t down = send_until_stalled(pair.backend);
		if (i == 0)
			expect_pattern(pair.backend, up);
		else
			expect_pattern(pair.client, down);
		struct flow flow = i == 0
		    ? (struct flow){pair.client, pair.backend, 7, 8 * MIB, MIB, 0, 0}
		    : (struct flow){pair.backend, pair.client, 7, 8 * MIB, MIB, 0, 0};
		exchange(&flow, 1);
		if (i == 0)
			expect_pattern(pair.client, down);
		else
			expect_pattern(pair.backend, up);
		pair_talk(pair);
		pair_close(pair);
	}
}

/* Both sides write 8 MiB, for which their own buffers have room, before they read a byte. */
PROGRAM_TEST(relay, both_sides_write_all_before_they_read)
{
	enum { LENGTH = 8 * MIB, BUFFER = 32 * MIB };
	const int buffer = BUFFER;
	struct pair pair = start();
	int fds[] = {pair.client, pair.backend};
	for (int i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) == -1)
			skip("needs root, for large buffers");
	for (size_t sent = 0; sent < LENGTH;) {
		struct bytes next = pattern(sent, LENGTH - sent);
		send_all(pair.client, next);
		send_all(pair.backend, next);
		sent += next.length;
	}
	expect_pattern(pair.client, LENGTH);
	expect_pattern(pair.backend, LENGTH);
	pair_talk(pair);
}

PROGRAM_TEST(relay, stalled_readers_do_not_slow_others)
{
	enum { STALLED = 8 };
	struct pair pair = start();
	struct pair stalled[STALLED];
	for (int i = 0; i < STALLED; i++) {
		stalled[i] = pair_open(backend);
		send_until_stalled(i % 2 == 0 ? stalled[i].backend : stalled[i].client);
	}
	int64_t start_ms = now_ms();
	for (int i = 0; i < 200; i++)
		pair_talk(pair);
	for (int i = 0; i < 20; i++)
		expect_served(backend, hello_for(HOST));
	int64_t took_ms = now_ms() - start_ms;
	cr_assert_lt(took_ms, margin_ms(10000), "%d ms", (int)took_ms);
}

/* --- Ends --- */

PROGRAM_TEST(relay, answer_after_the_client_has_ended)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		send_all(pair.client, text("request"));
		shutdown(pair.client, SHUT_WR);
		expect_bytes(pair.backend, text("request"));
		expect_end(pair.backend);
		poll(NULL, 0, silences_ms[i]);
		struct flow down = {pair.backend, pair.client, 0, 3 * MIB, MIB, 0, 0};
		exchange(&down, 1);
		close(pair.backend);
		expect_end(pair.client);
		close(pair.client);
	}
}

PROGRAM_TEST(relay, request_after_the_backend_has_ended)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		send_all(pair.backend, text("greeting"));
		shutdown(pair.backend, SHUT_WR);
		expect_bytes(pair.client, text("greeting"));
		expect_end(pair.client);
		poll(NULL, 0, silences_ms[i]);
		struct flow up = {pair.client, pair.backend, 0, 3 * MIB, MIB, 0, 0};
		exchange(&up, 1);
		close(pair.client);
		expect_end(pair.backend);
		close(pair.backend);
	}
}

/* A side that takes nothing more may still send. */
PROGRAM_TEST(relay, answer_of_a_backend_that_reads_no_more)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		shutdown(pair.backend, SHUT_RD);
		fall_silent(silences_ms[i]);
		send_all(pair.client, text("not taken"));
		wait_drained_of(pair.client);
		struct flow down = {pair.backend, pair.client, 0, 3 * MIB, MIB, 0, 0};
		exchange(&down, 1);
		send_all(pair.client, text("nor this"));
		close(pair.backend);
		expect_end(pair.client);
		close(pair.client);
	}
}

PROGRAM_TEST(relay, both_end)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		shutdown(pair.client, SHUT_WR);
		shutdown(pair.backend, SHUT_WR);
		expect_end(pair.client);
		expect_end(pair.backend);
	}
}

/* The connection ends when both directions have, and not before. The proxy then closes its
 * descriptors although neither side has closed its own. */
PROGRAM_TEST(relay, connection_ends_with_both_directions)
{
	struct pair pair = start();
	proxy_wait_ready();
	int more = proxy_descriptors(proxy);
	shutdown(pair.client, SHUT_WR);
	expect_end(pair.backend);
	cr_assert_geq(proxy_descriptors(proxy), more - 2);
	send_all(pair.backend, text("still here"));
	expect_bytes(pair.client, text("still here"));
	shutdown(pair.backend, SHUT_WR);
	expect_end(pair.client);
	wait_until(proxy_descriptors(proxy) <= more - 2, 3000);
}

/* What was sent before the end arrives, however late it is read. */
PROGRAM_TEST(relay, end_behind_a_stalled_direction)
{
	struct pair down = start();
	struct pair up = pair_open(backend);
	size_t sent_down = send_until_stalled(down.backend);
	size_t sent_up = send_until_stalled(up.client);
	close(down.backend);
	close(up.client);
	expect_idle(proxy);
	expect_pattern(down.client, sent_down);
	expect_end(down.client);
	expect_pattern(up.backend, sent_up);
	expect_end(up.backend);
}

/* --- Resets --- */

PROGRAM_TEST(relay, client_reset_closes_the_backend)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		reset_connection(pair.client);
		expect_gone(pair.backend, 1000);
	}
}

/* How many bytes of what FD has sent its own kernel still holds, because the other end has not
 * acknowledged them. A reset discards them. */
static size_t
unacknowledged(int fd)
{
	int bytes = -1;
	cr_assert(ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes >= 0);
	return (size_t)bytes;
}

/* A backend that writes what the client never reads. */
PROGRAM_TEST(relay, client_reset_closes_a_stalled_backend)
{
	struct pair pair = start();
	send_until_stalled(pair.backend);
	reset_connection(pair.client);
	expect_gone(pair.backend, 1000);
	struct pollfd entry = {.fd = pair.backend, .events = POLLOUT};
	cr_assert(poll(&entry, 1, margin_ms(1000)) == 1 && (entry.revents & (POLLERR | POLLHUP)));
}

/* A backend that does not read, for longer than the proxy waits in its calls: two that take a part,
 * and one that takes nothing. */
PROGRAM_TEST(relay, client_reset_leaves_a_stalled_backend_what_was_sent)
{
	struct pair pair = start();
	struct flow up = {.from = pair.client, .to = pair.backend};
	up.sent = send_until_stalled(pair.client);
	up.length = up.sent - unacknowledged(pair.client);
	reset_connection(pair.client);
	fall_silent(6500);
	while (up.received < up.length) {
		cr_assert(readable_within(pair.backend, 3000));
		cr_assert(flow_receive(&up), "at %zu of %zu bytes", up.received, up.length);
	}
	expect_gone(pair.backend, 1000);
}

PROGRAM_TEST(relay, client_reset_after_its_end_closes_the_backend)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		shutdown(pair.client, SHUT_WR);
		expect_end(pair.backend);
		fall_silent(silences_ms[i]);
		reset_connection(pair.client);
		struct pollfd entry = {.fd = pair.backend, .events = POLLOUT};
		wait_until(poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP), 1000);
	}
}

/* A Unix socket is reset if one side closes with bytes unread. */
PROGRAM_TEST(relay, backend_reset_closes_the_client)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		send_all(pair.client, text("not read"));
		cr_assert(readable_within(pair.backend, 3000));
		close(pair.backend);
		expect_gone(pair.client, 1000);
		close(pair.client);
	}
}

PROGRAM_TEST(relay, backend_reset_closes_a_client_that_does_not_read)
{
	struct pair pair = start();
	send_until_stalled(pair.client);
	close(pair.backend);
	expect_gone(pair.client, 1000);
}

/* A server that refuses an upload answers, and closes with bytes unread. */
PROGRAM_TEST(relay, answer_before_a_backend_reset_arrives)
{
	struct pair pair = start();
	for (int i = 0; i < 20; i++) {
		testing("round %d", i);
		send_all(pair.client, text("not read"));
		cr_assert(readable_within(pair.backend, 3000));
		send_all(pair.backend, pattern(0, 100000));
		close(pair.backend);
		expect_bytes(pair.client, pattern(0, 100000));
		expect_gone(pair.client, 1000);
		close(pair.client);
		pair = pair_open(backend);
	}
}

/* Whether or not the connection was parked. */
PROGRAM_TEST(relay, bytes_before_a_reset_arrive_after_silence)
{
	enum { LENGTH = 12000 };
	for (int i = 0; i < SILENCES; i++) {
		struct pair up = i == 0 ? start() : pair_open(backend);
		struct pair down = pair_open(backend);
		fall_silent(silences_ms[i]);
		send_all(up.client, pattern(0, LENGTH));
		wait_until(unacknowledged(up.client) == 0, 3000);
		reset_connection(up.client);
		expect_pattern(up.backend, LENGTH);
		expect_gone(up.backend, 1000);

		send_all(down.client, text("not read"));
		cr_assert(readable_within(down.backend, 3000));
		send_all(down.backend, pattern(0, LENGTH));
		close(down.backend);
		expect_pattern(down.client, LENGTH);
		expect_gone(down.client, 1000);
	}
}

PROGRAM_TEST(relay, backend_that_closes_at_once)
{
	struct pair pair = start();
	pair_close(pair);
	struct bytes hello = hello_for(HOST);
	for (int i = 0; i < 50; i++) {
		int client = client_send(hello);
		close(backend_accept(backend));
		expect_gone(client, 2000);
		close(client);
	}
}

/* The backend answers and closes while the client writes. The client reads only after it has
 * written everything; neither may block it. */
static void
expect_answer_after_writing(struct pair pair, size_t answer, size_t write_length)
{
	close(pair.backend);
	for (size_t written = 0; written < write_length; written += 65536)
		send_all(pair.client, pattern(0, 65536));
	expect_pattern(pair.client, answer);
	expect_end(pair.client);
	close(pair.client);
}

PROGRAM_TEST(relay, client_that_writes_before_it_reads_gets_the_answer)
{
	/* If nothing limits what the kernel takes, it may take the rest when the client writes; and
	 * the lingering close reads 8 MiB at most. */
	size_t most = (is_portable() ? 7 : 16) * (size_t)MIB;
	testing("an answer that the proxy cannot get rid of");
	struct pair pair = start();
	expect_answer_after_writing(pair, send_until_stalled(pair.backend), most);

	testing("the same, and the backend has left bytes unread");
	pair = pair_open(backend);
	send_all(pair.client, text("not read"));
	cr_assert(readable_within(pair.backend, 3000));
	expect_answer_after_writing(pair, send_until_stalled(pair.backend), most);

	testing("the same, and the upload was stalled before");
	/* Otherwise the kernel might take as much as the client will ever write: up to tcp_rmem, if
	 * the proxy was slow at first. */
	const int narrow = MIB;
	setsockopt(server.listener, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
	pair = pair_open(backend);
	size_t stalled = send_until_stalled(pair.client);
	cr_assert_lt(stalled, most);
	expect_answer_after_writing(pair, send_until_stalled(pair.backend), most - stalled);

	testing("a short answer");
	pair = pair_open(backend);
	send_all(pair.backend, pattern(0, 1000));
	expect_answer_after_writing(pair, 1000, 4 * MIB);
}

/* --- What a side sent before it closed --- */

/* How a side closes that has sent something, and how the other side behaves. */
struct leaving {
	bool is_client;
	bool resets; /* by SO_LINGER; a close with unread bytes makes the kernel do so */
	/* The other side: */
	enum manner { SILENT, ANSWERS_LATE, ANSWERS } manner; /* late: after the first has closed */
	bool is_slow;                                         /* reads a little, and pauses */
	/* The proxy is stopped meanwhile, so that it finds everything at once. */
	bool is_hidden;
};

static const char *const manners[] = {"silent", "answers late", "answers"};

/* Bytes that no side reads, and that may not arrive any more. */
static void
answer(int fd)
{
	(void)!send(fd, "not read", 8, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
flow_take(struct flow *flow, const struct leaving *leaving)
{
	if (leaving->is_slow && leaving->manner == ANSWERS)
		answer(flow->to);
	if (leaving->is_slow)
		wait_a_moment();
	check(flow_receive_up_to(flow, leaving->is_slow ? flow->length / 50 : SIZE_MAX),
	    "broke at %zu of %zu bytes: %s", flow->received, flow->length, strerror(errno));
}

/* Sends everything, and waits until the proxy's kernel has what the client sent. */
static void
flow_send_all(struct flow *flow, const struct leaving *leaving)
{
	for (;;) {
		if (flow->sent < flow->length)
			check(flow_send(flow), "sent %zu bytes: %s", flow->sent, strerror(errno));
		if (flow->sent == flow->length &&
		    (!leaving->is_client || unacknowledged(flow->from) == 0))
			return;
		if (readable_within(flow->to, 2))
			flow_take(flow, leaving);
	}
}

/* One side of PAIR sends LENGTH bytes and closes. The other must receive them all, and then the
 * end; the backend may learn that its last bytes did not arrive. */
static void
expect_all_before_the_end(struct pair pair, struct leaving leaving, size_t length)
{
	int from = leaving.is_client ? pair.client : pair.backend;
	int to = leaving.is_client ? pair.backend : pair.client;
	struct flow flow = {from, to, 0, length, MIB, 0, 0};
	if (leaving.manner == ANSWERS)
		answer(to);
	check(leaving.manner != ANSWERS || readable_within(from, 3000), "no answer");
	if (leaving.is_hidden)
		proxy_pause(proxy);
	flow_send_all(&flow, &leaving);
	if (leaving.resets)
		reset_connection(from);
	else
		close(from);
	if (leaving.manner != SILENT)
		answer(to);
	if (leaving.is_hidden)
		kill(proxy->pid, SIGCONT);
	while (flow.received < flow.length) {
		check(readable_within(to, 5000), "stalled at %zu of %zu bytes", flow.received,
		    flow.length);
		flow_take(&flow, &leaving);
	}
	if (leaving.is_client)
		expect_gone(to, 3000);
	else
		expect_end(to);
	close(to);
}

/* With lengths from what fits everywhere to what must be waited for, several times. */
static void
expect_all_lengths_before_the_end(struct leaving leaving)
{
	static const size_t lengths[] = {200, 12000, 100000, 1000000};
	size_t most = leaving.is_hidden ? 12000 : 1000000;
	int rounds = leaving.is_slow ? 1 : 5;
	for (size_t i = 0; i < 4 && lengths[i] <= most; i++) {
		for (int round = 0; round < rounds; round++) {
			testing("%zu bytes, %s, the other one %s%s%s, round %d", lengths[i],
			    leaving.resets ? "reset" : "close", manners[leaving.manner],
			    leaving.is_slow ? ", slow" : "",
			    leaving.is_hidden ? ", all at once" : "", round);
			expect_all_before_the_end(pair_open(backend), leaving, lengths[i]);
		}
	}
}

/* SO_LINGER resets only TCP. */
static void
expect_all_before_each_end(struct leaving leaving)
{
	for (enum manner manner = SILENT; manner <= ANSWERS; manner++) {
		leaving.manner = manner;
		leaving.resets = false;
		expect_all_lengths_before_the_end(leaving);
		leaving.resets = true;
		if (leaving.is_client)
			expect_all_lengths_before_the_end(leaving);
	}
}

PROGRAM_TEST(relay, all_that_a_client_sent_before_it_left_arrives)
{
	pair_close(start());
	expect_all_before_each_end((struct leaving){.is_client = true});
	expect_all_before_each_end((struct leaving){.is_client = true, .is_slow = true});
}

PROGRAM_TEST(relay, all_that_a_client_sent_right_before_it_left_arrives)
{
	pair_close(start());
	expect_all_before_each_end((struct leaving){.is_client = true, .is_hidden = true});
}

PROGRAM_TEST(relay, all_that_a_backend_sent_before_it_left_arrives)
{
	pair_close(start());
	expect_all_before_each_end((struct leaving){.is_slow = false});
	expect_all_before_each_end((struct leaving){.is_slow = true});
}

PROGRAM_TEST(relay, all_that_a_backend_sent_right_before_it_left_arrives)
{
	pair_close(start());
	expect_all_before_each_end((struct leaving){.is_hidden = true});
}

/* The client is gone before there is a backend, or before the proxy has accepted its connection. */
PROGRAM_TEST(relay, hello_of_a_client_that_resets_at_once_arrives)
{
	static const size_t more[] = {0, 200, 12000};
	struct bytes hello = hello_for(HOST);
	pair_close(start());
	for (size_t i = 0; i < 6; i++) {
		size_t length = more[i / 2];
		testing(
		    "%zu bytes behind the hello, %s", length, i % 2 == 0 ? "stopped" : "running");
		if (i % 2 == 0)
			proxy_pause(proxy);
		int client = client_send(hello);
		send_all(client, pattern(0, length));
		wait_until(unacknowledged(client) == 0, 3000);
		reset_connection(client);
		if (i % 2 == 0)
			kill(proxy->pid, SIGCONT);
		int accepted = backend_accept(backend);
		expect_bytes(accepted, hello);
		expect_pattern(accepted, length);
		expect_gone(accepted, 3000);
		close(accepted);
	}
}

/* --- Urgent bytes (RFC 6093), which most programs do not distinguish from others --- */

static void
send_urgent(int fd, struct bytes byte)
{
	cr_assert_eq(byte.length, 1);
	cr_assert_eq(send(fd, byte.data, 1, MSG_OOB | MSG_NOSIGNAL), 1);
}

PROGRAM_TEST(relay, urgent_byte_stays_in_its_place)
{
	for (int i = 0; i < SILENCES; i++) {
		struct pair pair = i == 0 ? start() : pair_open(backend);
		fall_silent(silences_ms[i]);
		send_all(pair.client, text("before"));
		send_urgent(pair.client, text("!"));
		send_all(pair.client, text("after"));
		expect_bytes(pair.backend, text("before!after"));
		expect_idle(proxy);
		send_urgent(pair.client, text("!"));
		expect_bytes(pair.backend, text("!"));
		pair_talk(pair);
		send_urgent(pair.client, text("!"));
		close(pair.client);
		expect_bytes(pair.backend, text("!"));
		expect_end(pair.backend);
		close(pair.backend);
	}
}

PROGRAM_TEST(relay, urgent_byte_in_the_hello)
{
	pair_close(start());
	struct bytes hello = hello_for(HOST);
	for (size_t i = 0; i < hello.length; i += 7) {
		testing("byte %zu", i);
		struct pair pair = {.client = client_send(slice(hello, 0, i))};
		send_urgent(pair.client, slice(hello, i, 1));
		send_all(pair.client, slice(hello, i + 1, hello.length - i - 1));
		pair.backend = backend_accept(backend);
		expect_bytes(pair.backend, hello);
		pair_close(pair);
	}
}

/* splice(2) stops before an urgent byte, with the same result as if nothing is left. If STOPPED,
 * the proxy finds all bytes at once; otherwise as they arrive. */
static void
expect_urgent_byte_in_bulk(struct pair pair, bool stopped)
{
	enum { AROUND = 150000 };
	if (stopped)
		proxy_pause(proxy);
	send_all(pair.client, pattern(0, AROUND));
	send_urgent(pair.client, text("!"));
	send_all(pair.client, pattern(0, AROUND));
	if (stopped)
		kill(proxy->pid, SIGCONT);
	expect_pattern(pair.backend, AROUND);
	expect_bytes(pair.backend, text("!"));
	expect_pattern(pair.backend, AROUND);
	pair_talk(pair);
}

PROGRAM_TEST(relay, urgent_byte_in_bulk)
{
	struct pair pair = start();
	for (int i = 0; i < 10; i++) {
		testing("round %d", i);
		struct flow up = {pair.client, pair.backend, 0, 4 * MIB, MIB, 0, 0};
		exchange(&up, 1);
		expect_urgent_byte_in_bulk(pair, i % 2 == 0);
	}
	expect_idle(proxy);
}

/* Before any other bulk, and followed by the end. */
PROGRAM_TEST(relay, urgent_byte_in_the_first_bulk)
{
	for (int i = 0; i < 2; i++) {
		testing("round %d", i);
		struct pair pair = i == 0 ? start() : pair_open(backend);
		expect_urgent_byte_in_bulk(pair, i == 0);
		send_all(pair.client, pattern(0, 200000));
		send_urgent(pair.client, text("!"));
		close(pair.client);
		expect_pattern(pair.backend, 200000);
		expect_bytes(pair.backend, text("!"));
		expect_end(pair.backend);
	}
}

/* --- Descriptors that a backend passes --- */

/* Sends BYTES to the proxy with as many descriptors attached as are allowed (SCM_MAX_FD), all of
 * one end of a pipe that no other process has; or without them, if the kernel does not pass
 * descriptors. Returns the other end. */
static int
send_with_descriptors(int fd, struct bytes bytes)
{
	enum { COUNT = 253 };
	int ends[2], passed[COUNT];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof passed)];
	} control = {0};
	struct iovec vector = {bytes.data, bytes.length};
	struct msghdr message = {.msg_iov = &vector,
	    .msg_iovlen = 1,
	    .msg_control = &control,
	    .msg_controllen = sizeof control};
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	for (int i = 0; i < COUNT; i++)
		passed[i] = ends[0];
	control.header = (struct cmsghdr){
	    .cmsg_len = CMSG_LEN(sizeof passed), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), passed, sizeof passed);
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	if (sent == -1 && errno == EPERM)
		sent = send(fd, bytes.data, bytes.length, MSG_NOSIGNAL);
	check(sent == (ssize_t)bytes.length, "sendmsg: %s", strerror(errno));
	close(ends[0]);
	return ends[1];
}

/* Whether no process has the other end of the pipe any more. */
static bool
is_lost(int end)
{
	struct pollfd entry = {.fd = end, .events = 0};
	return poll(&entry, 1, 0) == 1 && (entry.revents & POLLERR) != 0;
}

/* They are not accepted, however the bytes with them are read, and none stays open. */
static void
expect_no_descriptors_taken(struct pair pair)
{
	enum { AROUND = 60000, ROUNDS = 10 };
	int before = proxy_descriptors(proxy);
	for (int i = 0; i < ROUNDS; i++) {
		testing("round %d, a few bytes", i);
		int small = send_with_descriptors(pair.backend, text("few"));
		expect_bytes(pair.client, text("few"));
		wait_until(is_lost(small), 2000);

		testing("round %d, amid bulk", i);
		struct flow bulk = {pair.backend, pair.client, 0, 4 * MIB, MIB, 0, 0};
		exchange(&bulk, 1);
		send_all(pair.backend, pattern(0, AROUND));
		int first = send_with_descriptors(pair.backend, text("amid"));
		send_all(pair.backend, pattern(0, AROUND));
		int last = send_with_descriptors(pair.backend, text("last"));
		expect_pattern(pair.client, AROUND);
		expect_bytes(pair.client, text("amid"));
		expect_pattern(pair.client, AROUND);
		expect_bytes(pair.client, text("last"));
		wait_until(is_lost(first) && is_lost(last), 2000);
		close(small), close(first), close(last);
	}
	fall_silent(silences_ms[SILENCES - 1]);
	int parked = send_with_descriptors(pair.backend, text("few"));
	expect_bytes(pair.client, text("few"));
	wait_until(is_lost(parked), 2000);
	close(parked);
	testing("the rest");
	pair_talk(pair);
	/* A pipe for bulk in each direction. */
	check(proxy_descriptors(proxy) <= before + 2 * 2, "%d descriptors were %d",
	    proxy_descriptors(proxy), before);
}

PROGRAM_TEST(relay, descriptors_from_a_backend)
{
	expect_no_descriptors_taken(start());
}

static struct pair
start_on_older_kernel(void)
{
	server_listen("127.0.0.1");
	backend = backend_listen(HOST);
	proxy = proxy_start(let_descriptors_pass);
	return pair_open(backend);
}

/* Before Linux 6.16, they arrive with the bytes. */
PROGRAM_TEST(relay, descriptors_from_a_backend_on_an_older_kernel)
{
	expect_no_descriptors_taken(start_on_older_kernel());
}

PROGRAM_TEST(relay, descriptors_that_a_backend_leaves_behind)
{
	struct pair pair = start_on_older_kernel();
	proxy_pause(proxy);
	int end = send_with_descriptors(pair.backend, text("last"));
	close(pair.backend);
	kill(proxy->pid, SIGCONT);
	expect_bytes(pair.client, text("last"));
	expect_end(pair.client);
	close(pair.client);
	wait_until(is_lost(end), 2000);
	close(end);
}

/* On a Unix socket, an urgent byte is not part of the stream. The bytes around it are. */
PROGRAM_TEST(relay, urgent_byte_from_the_backend_blocks_nothing)
{
	struct pair pair = start();
	for (int i = 0; i < 10; i++) {
		testing("round %d", i);
		size_t around = i % 2 == 0 ? 10 : 150000;
		send_all(pair.backend, pattern(0, around));
		if (send(pair.backend, "!", 1, MSG_OOB | MSG_NOSIGNAL) < 0 && errno == EOPNOTSUPP)
			skip("no urgent bytes on Unix sockets here");
		send_all(pair.backend, pattern(0, around));
		expect_pattern(pair.client, around);
		uint8_t next;
		cr_assert_eq(read_up_to(pair.client, &next, 1), 1);
		size_t have = next != '!';
		expect_pattern_from(pair.client, have, around - have);
		pair_talk(pair);
	}
	expect_idle(proxy);
}

/* --- A failure in the proxy's own system --- */

/* Each thread's first attempt to send fails because the kernel's memory is short. */
static pid_t
fail_to_send(void)
{
	return fault_begin(proxy, "sendto,sendmsg,splice", "error=ENOBUFS:when=1");
}

/* The connection ends on both sides, the READER's and the SENDER's. OTHER, in which nothing failed,
 * continues. */
static void
expect_only_one_lost(pid_t tracer, int reader, int sender, struct pair other)
{
	read_to_the_end(reader, 3000);
	read_to_the_end(sender, 3000);
	fault_end(tracer);
	pair_talk(other);
	expect_served(backend, hello_for(HOST));
}

PROGRAM_TEST(relay, failure_to_send_to_the_backend)
{
	struct pair other = start();
	struct pair lost = pair_open(backend);
	pair_talk(lost);
	pid_t tracer = fail_to_send();
	send_all(lost.client, text("lost"));
	expect_only_one_lost(tracer, lost.backend, lost.client, other);
}

PROGRAM_TEST(relay, failure_to_send_to_the_client)
{
	struct pair other = start();
	struct pair lost = pair_open(backend);
	pair_talk(lost);
	pid_t tracer = fail_to_send();
	send_all(lost.backend, text("lost"));
	expect_only_one_lost(tracer, lost.client, lost.backend, other);
}

PROGRAM_TEST(relay, failure_to_send_the_hello)
{
	struct pair other = start();
	pid_t tracer = fail_to_send();
	struct pair lost = {.client = client_send(hello_for(HOST))};
	lost.backend = backend_accept(backend);
	expect_only_one_lost(tracer, lost.backend, lost.client, other);
}

PROGRAM_TEST(relay, failure_to_send_in_bulk)
{
	struct pair other = start();
	struct pair up = pair_open(backend);
	send_until_stalled(up.client);
	pid_t tracer = fail_to_send();
	expect_only_one_lost(tracer, up.backend, up.client, other);

	struct pair down = pair_open(backend);
	send_until_stalled(down.backend);
	tracer = fail_to_send();
	expect_only_one_lost(tracer, down.client, down.backend, other);
}

/* --- What waiting costs: no CPU time, whatever it waits for --- */

PROGRAM_TEST(relay, idle_costs_no_cpu)
{
	start();
	for (int i = 0; i < 20; i++)
		pair_open(backend);
	expect_idle(proxy);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, stalled_client_costs_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.backend);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, stalled_backend_costs_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.client);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, both_stalled_cost_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.client);
	send_until_stalled(pair.backend);
	expect_idle(proxy);
}

/* Each of these waits with a persistent event: the end of a stream, a hang-up. */
PROGRAM_TEST(relay, client_ended_costs_no_cpu)
{
	struct pair pair = start();
	shutdown(pair.client, SHUT_WR);
	expect_end(pair.backend);
	expect_idle(proxy);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, backend_ended_costs_no_cpu)
{
	struct pair pair = start();
	shutdown(pair.backend, SHUT_WR);
	expect_end(pair.client);
	expect_idle(proxy);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, client_closed_behind_a_stalled_backend_costs_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.client);
	close(pair.client);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, backend_closed_behind_a_stalled_client_costs_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.backend);
	close(pair.backend);
	expect_idle(proxy);
}

/* So little that the proxy has all of it, and sees the client's end. */
PROGRAM_TEST(relay, client_gone_before_a_stalled_backend_costs_no_cpu)
{
	struct pair pair = start();
	send_until_stalled(pair.client);
	uint8_t some[100000];
	cr_assert_eq(read_up_to(pair.backend, some, sizeof some), sizeof some);
	shutdown(pair.client, SHUT_WR);
	shutdown(pair.backend, SHUT_WR);
	expect_end(pair.client);
	close(pair.client);
	expect_idle(proxy);
}

PROGRAM_TEST(relay, part_of_a_hello_costs_no_cpu)
{
	start();
	client_send(slice(hello_for(HOST), 0, 30));
	client_connect();
	expect_idle(proxy);
}

PROGRAM_TEST(relay, refused_client_that_stays_costs_no_cpu)
{
	start();
	int stays = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(stays, UNEXPECTED_MESSAGE);
	int ended = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	shutdown(ended, SHUT_WR);
	expect_idle(proxy);
}

/* --- The client's socket --- */

/* A duplicate of the proxy's end of the connection; -1 if that is impossible. */
static int
socket_of_the_proxy(int client)
{
	struct sockaddr_in ours, theirs;
	socklen_t length = sizeof ours;
	cr_assert_eq(getsockname(client, (struct sockaddr *)&ours, &length), 0);
	int process = (int)syscall(SYS_pidfd_open, proxy->pid, 0);
	for (int i = 0; process >= 0 && i < 64; i++) {
		int fd = (int)syscall(SYS_pidfd_getfd, process, i, 0);
		if (fd < 0 && (errno == EPERM || errno == ENOSYS))
			break;
		length = sizeof theirs;
		if (fd >= 0 && getpeername(fd, (struct sockaddr *)&theirs, &length) == 0 &&
		    length == sizeof theirs && theirs.sin_port == ours.sin_port)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

static int
option(int fd, int level, int name)
{
	int value = 0;
	socklen_t length = sizeof value;
	cr_assert_eq(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static void
expect_options(int client)
{
	int fd = socket_of_the_proxy(client);
	if (fd < 0)
		skip("no right to look into the proxy's descriptors");
	cr_assert_neq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0, "no keepalive");
	cr_assert_neq(option(fd, IPPROTO_TCP, TCP_NODELAY), 0, "no TCP_NODELAY");
	cr_assert(is_portable() || option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 240 * 1000);
	close(fd);
}

PROGRAM_TEST(relay, client_has_keepalive_and_nodelay)
{
	pair_close(start());
	expect_options(pair_open(backend).client);
}

/* The kernel has completed the connection before the proxy ran, as with a socket unit. */
PROGRAM_TEST(relay, client_from_before_the_start_has_keepalive_and_nodelay)
{
	server_listen("127.0.0.1");
	int client = client_send(hello_for(HOST));
	backend = backend_listen(HOST);
	proxy = proxy_start(NULL);
	backend_accept(backend);
	expect_options(client);
}

/* Seen from outside: the connection's timer is the keepalive timer, 02. */
PROGRAM_TEST(relay, keepalive_timer_runs)
{
	pair_close(start());
	struct pair pair = pair_open(backend);
	char ends[64];
	snprintf(ends, sizeof ends, ":%04X 0100007F:%04X 01 00000000:00000000 02:", server.port,
	    local_port(pair.client));
	wait_until(strstr(read_file("/proc/net/tcp"), ends) != NULL, 3000);
}

/* Too few descriptors or threads: connections wait for each other, and nothing spins. */
#include "tests/program/harness.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	CLIENTS = 64,
	ADDRESS_FEW = 4, /* an address may always have so many connections */
};

static struct proxy *proxy;
static int backend;
static struct bytes request;
static int clients[CLIENTS];

static void
start(void (*prepare)(void))
{
	server_listen("127.0.0.1");
	backend = backend_listen(HOST);
	proxy = proxy_start(prepare);
	request = hello_for(HOST);
}

/* A client of the address 127.0.1.NUMBER sends BYTES. */
static int
send_from(int number, struct bytes bytes)
{
	char address[32];
	snprintf(address, sizeof address, "127.0.1.%d", number);
	int client = client_connect_from(address);
	send_all(client, bytes);
	return client;
}

/* COUNT clients send their requests; each address has as many as it always may have. */
static void
send_requests(int count)
{
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = i < count ? send_from(1 + i / ADDRESS_FEW, request) : -1;
}

/* Whether no client has received anything yet: neither an alert nor the end. */
static bool
all_silent(void)
{
	struct pollfd entries[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		entries[i] = (struct pollfd){clients[i], POLLIN, 0};
	return poll(entries, CLIENTS, 0) == 0;
}

/* Accepts what arrives at the backend, LEAST connections and more until none arrives for MS
 * milliseconds. Reads the requests: a backend that leaves them unread is stalled. Returns how many
 * arrived. */
static int
accept_all(int *accepted, int least, int ms)
{
	const int patience_ms = 5000;
	int count = 0;
	for (; count < CLIENTS && readable_within(backend, count < least ? patience_ms : ms);
	     count++) {
		accepted[count] = backend_accept(backend);
		expect_bytes(accepted[count], request);
	}
	return count;
}

static void
answer(int *accepted, int count)
{
	for (int i = 0; i < count; i++) {
		send_all(accepted[i], text("served"));
		close(accepted[i]);
	}
}

/* Reads the answers that clients have got, and closes those clients. */
static int
take_answers(void)
{
	int taken = 0;
	for (int i = 0; i < CLIENTS; i++) {
		if (clients[i] < 0 || silent_for(clients[i], 0))
			continue;
		testing("client %d", i);
		expect_bytes(clients[i], text("served"));
		expect_end(clients[i]);
		close(clients[i]);
		clients[i] = -1;
		taken++;
	}
	return taken;
}

/* Answers and closes what has reached the backend, again and again, until all were served. */
static void
serve_all(void)
{
	int left = 0;
	for (int i = 0; i < CLIENTS; i++)
		left += clients[i] >= 0;
	int64_t end_ms = now_ms() + margin_ms(8000);
	while ((left -= take_answers()) > 0) {
		check(now_ms() < end_ms, "%d clients are still waiting", left);
		int accepted[CLIENTS];
		int count = accept_all(accepted, 0, 10);
		answer(accepted, count);
	}
}

/* --- Descriptors --- */

static void
few_descriptors(void)
{
	limit_descriptors(32);
}

/* As many clients as there are descriptors for are served, the others wait. */
PROGRAM_TEST(limits, out_of_descriptors)
{
	start(few_descriptors);
	send_requests(28);
	int accepted[CLIENTS];
	int count = accept_all(accepted, 12, 500);
	cr_assert_geq(count, 12, "only %d were served at once", count);
	cr_assert_lt(count, 28, "there was no shortage");
	cr_assert(all_silent(), "a client was refused");
	expect_idle(proxy);
	expect_idle(proxy);
	cr_assert(all_silent(), "a client was refused");

	/* The connections that wait do not prevent the open ones from working. */
	send_all(accepted[0], text("s"));
	wait_until(!all_silent(), 5000);
	close(accepted[0]);
	testing("the one that was answered first");
	for (int i = 0; i < CLIENTS; i++) {
		if (silent_for(clients[i], 0))
			continue;
		expect_bytes(clients[i], text("s"));
		close(clients[i]);
		clients[i] = send_from(1 + i / ADDRESS_FEW, request);
		break;
	}
	answer(accepted + 1, count - 1);
	serve_all();
}

/* COUNT clients get descriptors before they have named a host. When they do, one must be left for
 * the backend of each. */
static void
expect_served_after_silence(int count)
{
	size_t half = request.length / 2;
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = i < count ? client_send(slice(request, 0, half)) : -1;
	expect_idle(proxy);
	for (int i = 0; i < count; i++)
		send_all(clients[i], slice(request, half, request.length - half));
	serve_all();
}

PROGRAM_TEST(limits, out_of_descriptors_before_the_hello)
{
	start(few_descriptors);
	expect_served_after_silence(8);
}

static void
many_descriptors(void)
{
	limit_descriptors(64);
	for (int descriptor = 12; descriptor < 60; descriptor++)
		dup2(1, descriptor);
}

/* Descriptors that the program was started with take no room. */
PROGRAM_TEST(limits, inherited_descriptors_are_closed)
{
	enum { FIT = 24 };
	start(many_descriptors);
	send_requests(FIT);
	int accepted[CLIENTS];
	int count = accept_all(accepted, FIT, 500);
	cr_assert_eq(count, FIT, "only %d were served at once", count);
	answer(accepted, count);
	serve_all();
}

/* Bulk may want more descriptors than there are; then it must pass without. */
PROGRAM_TEST(limits, bulk_while_out_of_descriptors)
{
	start(few_descriptors);
	/* As many as there are slots: if others waited, a stalled one would be evicted. */
	enum { FIT = 10 };
	int accepted[FIT];
	int count = 0;
	for (; count < FIT; count++) {
		clients[count] = client_send(request);
		accepted[count] = backend_accept(backend);
		expect_bytes(accepted[count], request);
	}
	/* The first byte tells which client has which connection. */
	for (int i = 0; i < count; i++) {
		char byte = (char)i;
		send_all(accepted[i], ((struct bytes){(uint8_t *)&byte, 1, 1}));
	}
	const int enough = 4;
	int done = 0;
	for (int i = 0; i < count && done < enough; i++) {
		uint8_t number;
		if (!readable_within(clients[i], 100))
			continue;
		cr_assert_eq(read_up_to(clients[i], &number, 1), 1);
		size_t sent = send_until_stalled(accepted[number]);
		expect_pattern(clients[i], sent);
		sent = send_until_stalled(clients[i]);
		expect_pattern(accepted[number], sent);
		done++;
	}
	cr_assert_eq(done, enough);
}

/* --- More connections than slots --- */

enum {
	OPEN_FILES = 128,
	SLOTS_MAX = OPEN_FILES / 2,
	SLOTS_MIN = SLOTS_MAX * 3 / 4,
	OTHERS = 20, /* established connections, each of an address of its own */
	STRANGERS_MAX = 1000,
};

static struct echo echo;
static struct bytes echo_request;
static int others[OTHERS];

static void
some_descriptors(void)
{
	limit_descriptors(OPEN_FILES);
}

/* A client that has received its hello back from the echo host. */
static void
expect_echo(int client)
{
	expect_bytes(client, echo_request);
}

static void
expect_echo_goes_on(int client)
{
	send_all(client, text("ping"));
	expect_bytes(client, text("ping"));
}

static void
start_with_others(void)
{
	start(some_descriptors);
	echo.listener = backend_listen("echo.example");
	echo_request = hello_for("echo.example");
	echo_start(&echo);
	for (int i = 0; i < OTHERS; i++) {
		others[i] = send_from(1 + i, echo_request);
		expect_echo(others[i]);
	}
}

static void
expect_others_remain(void)
{
	for (int i = 0; i < OTHERS; i++) {
		testing("established connection %d", i);
		expect_echo_goes_on(others[i]);
	}
	testing("%s", "");
}

/* Whether the peer of FD has reset the connection. */
static bool
is_reset(int fd)
{
	struct pollfd entry = {.fd = fd};
	return poll(&entry, 1, 0) == 1 && (entry.revents & POLLERR) != 0;
}

/* One address takes all slots it can with valid hellos and silence. Others get a slot within about
 * a second, at its expense alone. */
PROGRAM_TEST(limits, idle_connections_of_one_address_are_evicted)
{
	enum { ATTACKERS = SLOTS_MAX - OTHERS, ROUNDS = 20, ABOUT_A_SECOND_MS = 2500 };
	int attackers[ATTACKERS], resets = 0;
	start_with_others();
	for (int i = 0; i < ATTACKERS; i++) {
		/* It is rejected if slots are short, maybe before it has connected or sent. */
		attackers[i] = client_try_connect(NULL);
		(void)!send(attackers[i], echo_request.data, echo_request.length, MSG_NOSIGNAL);
	}
	wait_until(proxy_total(proxy, "open") >= SLOTS_MIN, 3000);
	/* Those that are not yet served would be rejected first. */
	wait_until(proxy_total(proxy, "accepted") ==
		proxy_total(proxy, "routed") + proxy_total(proxy, "evicted"),
	    3000);
	for (int i = 0; i < ROUNDS; i++) {
		testing("client %d of another address", i);
		int64_t began_ms = now_ms();
		int client = send_from(100 + i, echo_request);
		expect_echo(client);
		int took_ms = (int)(now_ms() - began_ms);
		check(took_ms < margin_ms(ABOUT_A_SECOND_MS), "it took %d ms", took_ms);
	}
	expect_others_remain();
	cr_assert_gt(proxy_total(proxy, "evicted-idle"), 0);
	for (int i = 0; i < ATTACKERS; i++)
		resets += is_reset(attackers[i]);
	cr_assert_geq(resets, ROUNDS / 2);
	wait_until(proxy_has_logged(proxy, " slots in use: connections are evicted\n"), 5000);
	echo_stop(&echo);
}

/* A client of the address that has many. */
struct guest {
	int fd; /* -1 if it was rejected at once */
	int64_t until_ms;
};

/* Whether the guest received its hello back, and was not reset since. Closes it. */
static bool
guest_leaves(struct guest *guest)
{
	uint8_t bytes[2048];
	struct pollfd entry = {.fd = guest->fd};
	bool is_served =
	    recv(guest->fd, bytes, sizeof bytes, MSG_DONTWAIT) == (ssize_t)echo_request.length &&
	    poll(&entry, 1, 0) == 0;
	close(guest->fd);
	guest->fd = -1;
	return is_served;
}

/* For MS milliseconds, A_SECOND guests arrive each second, and stay for a second and a half each.
 * Returns how many of those that left meanwhile were not served. */
static int
receive_guests(int a_second, int ms)
{
	enum { GUESTS_MAX = 512, STAY_MS = 1500, AT_ONCE = 4 };
	static struct guest guests[GUESTS_MAX];
	static int first, count;
	int failed = 0;
	int64_t began_ms = now_ms();
	for (int come = 0; now_ms() < began_ms + ms; poll(NULL, 0, 5)) {
		for (; count > 0 && guests[first].until_ms <= now_ms(); count--) {
			failed += !guest_leaves(&guests[first]);
			first = (first + 1) % GUESTS_MAX;
		}
		/* Few at once after a delay: those that have left may still have slots. */
		int due = (int)(now_ms() - began_ms) * a_second / 1000 - come;
		for (int i = 0; i < due && i < AT_ONCE; i++, come++) {
			struct guest *guest = &guests[(first + count++) % GUESTS_MAX];
			*guest = (struct guest){client_try_connect(NULL), now_ms() + STAY_MS};
			(void)!send(
			    guest->fd, echo_request.data, echo_request.length, MSG_NOSIGNAL);
		}
	}
	return failed;
}

/* When an eighth of the slots is free again, an address that had too many loses none. */
PROGRAM_TEST(limits, a_spike_of_one_address_has_no_consequences)
{
	enum { A_SECOND = 20, A_SECOND_IN_THE_SPIKE = 100 };
	start_with_others();
	for (int i = OTHERS / 2; i < OTHERS; i++)
		close(others[i]);
	cr_assert_eq(receive_guests(A_SECOND / 2, 3000), 0);
	int failed = receive_guests(A_SECOND_IN_THE_SPIKE, 2000);
	cr_assert(failed > 0 || proxy_total(proxy, "evicted") > 0, "the spike filled no slots");
	receive_guests(A_SECOND / 2, 3000);
	long evicted = proxy_total(proxy, "evicted");
	cr_assert_lt(proxy_total(proxy, "open"), SLOTS_MIN);
	cr_assert_eq(receive_guests(A_SECOND, 3000), 0);
	cr_assert_eq(proxy_total(proxy, "evicted"), evicted);
	echo_stop(&echo);
}

/* While COUNT silent clients of new addresses arrive, the client takes some of the SENT bytes now
 * and then, and its backend sends as many again. Returns how many it took. */
static size_t
take_slowly_in_a_flood(struct pair slow, size_t *sent, int count)
{
	enum { INTERVAL_MS = 10, TAKES_AFTER_MS = 300, PIECE = 64 * 1024 };
	static int silent[STRANGERS_MAX];
	size_t taken = 0;
	int64_t next_ms = now_ms();
	for (int i = 0; i < count; i++) {
		char address[32];
		snprintf(address, sizeof address, "127.1.%d.%d", i / 200, 1 + i % 200);
		silent[i] = client_connect_from(address);
		poll(NULL, 0, INTERVAL_MS);
		if (now_ms() < next_ms)
			continue;
		expect_pattern_from(slow.client, taken, PIECE);
		taken += PIECE;
		struct bytes next = pattern(*sent, PIECE);
		ssize_t n = send(slow.backend, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		*sent += n > 0 ? (size_t)n : 0;
		next_ms = now_ms() + TAKES_AFTER_MS;
	}
	for (int i = 0; i < count; i++)
		close(silent[i]);
	return taken;
}

/* A connection with bytes under way may be evicted only after a second without progress. */
PROGRAM_TEST(limits, bytes_under_way_have_a_second)
{
	enum { SILENT = 500 };
	/* The loopback device's segments are so large that a piece that the client takes may not
	 * make room for one. */
	const int narrow = 64 * 1024, segment = 1400;
	need("to know what a side has not taken");
	start_with_others();
	setsockopt(server.listener, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
	struct pair slow = pair_open(backend);
	struct pair stalled = pair_open(backend);
	setsockopt(slow.client, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
	size_t sent = send_until_stalled(slow.backend);
	send_until_stalled(stalled.backend);
	size_t taken = take_slowly_in_a_flood(slow, &sent, SILENT);
	cr_assert(is_reset(stalled.client), "the stalled one is left");
	cr_assert_eq(proxy_total(proxy, "evicted-stalled"), 1);
	cr_assert_gt(proxy_total(proxy, "evicted-hello"), SILENT / 2);
	expect_pattern_from(slow.client, taken, sent - taken);
	pair_talk(slow);
	expect_others_remain();
	echo_stop(&echo);
}

/* A backend that takes an upload slowly but steadily makes progress: the kernel tells that only
 * when it has taken a whole write, of 64 KiB maybe. */
PROGRAM_TEST(limits, slow_upload_is_not_evicted)
{
	enum { SILENT = 400, BYTES_A_MS = 32, INTERVAL_MS = 20 };
	need("to know what a side has not taken");
	start_with_others();
	struct pair slow = pair_open(backend);
	pair_talk(slow); /* as TLS does: one that has never answered has less time */
	size_t sent = send_until_stalled(slow.client), taken = 0;
	int64_t began_ms = now_ms();
	for (int i = 0; i < SILENT; i++) {
		char address[32];
		snprintf(address, sizeof address, "127.1.%d.%d", i / 200, 1 + i % 200);
		client_connect_from(address);
		poll(NULL, 0, INTERVAL_MS);
		/* By the clock, so that a busy machine makes it no slower. */
		size_t due = (size_t)(now_ms() - began_ms) * BYTES_A_MS;
		due = due < sent ? due : sent;
		expect_pattern_from(slow.backend, taken, due - taken);
		taken = due;
	}
	cr_assert_gt(proxy_total(proxy, "evicted-hello"), SILENT / 2);
	cr_assert_eq(proxy_total(proxy, "evicted-stalled"), 0);
	expect_pattern_from(slow.backend, taken, sent - taken);
	pair_talk(slow);
	expect_others_remain();
	echo_stop(&echo);
}

/* --- Threads --- */

enum {
	THREADS_MAX = 8,
	OWN_THREADS = 3, /* the main thread, the log's, and the one that watches idle connections */
	SPARE_THREADS = 12,
	EXTRA_THREADS_MAX = 2, /* besides */
	SOME_THREADS = 64,
};

enum {
	KEPT = THREADS_MAX - OWN_THREADS,
	SIP = 16 * 1024, /* how much a client that makes progress takes at once */
	SIP_INTERVAL_MS = 20,
	WINDOW = 4 * SIP,
	SERVED_MEANWHILE = 20,
};

static void
allow_threads_at_most(int count)
{
	/* The sanitizers have threads of their own, and a search for leaks cannot start its
	 * thread. */
	rlim_t most = (rlim_t)(count + extra_threads());
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	struct rlimit processes = {.rlim_cur = most, .rlim_max = most};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

static void
few_threads(void)
{
	allow_threads_at_most(THREADS_MAX);
}

static void
some_threads(void)
{
	allow_threads_at_most(SOME_THREADS);
}

static void
start_with_few_threads(void)
{
	/* An accepted socket inherits it: a thread has something left to send even if its client
	 * takes some. */
	const int narrow = WINDOW;
	need_own_user();
	start(few_threads);
	setsockopt(server.listener, SOL_SOCKET, SO_SNDBUF, &narrow, sizeof narrow);
}

PROGRAM_TEST(limits, out_of_threads)
{
	start_with_few_threads();
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(request);
	int accepted[CLIENTS];
	int count = accept_all(accepted, 2, 500);
	cr_assert_geq(count, 2, "only %d were served at once", count);
	cr_assert(all_silent(), "a client was refused");
	expect_idle(proxy);
	cr_assert(all_silent(), "a client was refused");
	answer(accepted, count);
	serve_all();
}

PROGRAM_TEST(limits, out_of_threads_before_the_hello)
{
	start_with_few_threads();
	size_t half = request.length / 2;
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(slice(request, 0, half));
	expect_idle(proxy);
	cr_assert(all_silent(), "a client was refused");
	for (int i = 0; i < CLIENTS; i++)
		send_all(clients[i], slice(request, half, request.length - half));
	serve_all();
}

/* Open, silent connections may block no thread, or only so many; the others are served when those
 * have ended. The proxy can be stopped meanwhile. */
PROGRAM_TEST(limits, stops_while_out_of_threads)
{
	start_with_few_threads();
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(slice(request, 0, 10));
	expect_idle(proxy);
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	for (int i = 0; i < 10; i++)
		expect_served(backend, request);
}

/* --- Threads that are blocked --- */

/* Downloads whose clients always take less than there is, and so block a thread each. */
static struct {
	struct pair pairs[KEPT];
	size_t sent[KEPT], received[KEPT];
	atomic_int count;
	atomic_int failed; /* how many were reset, or received anything else */
	atomic_bool stop;
	pthread_t thread;
} sippers;

/* The backend sends the pattern until nothing more is taken. */
static void
fill(int i)
{
	ssize_t sent;
	do {
		struct bytes next = pattern(sippers.sent[i], SIP);
		sent = send(
		    sippers.pairs[i].backend, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		sippers.sent[i] += sent > 0 ? (size_t)sent : 0;
	} while (sent > 0);
	sippers.failed += errno != EAGAIN;
}

static void
sip(int i)
{
	static uint8_t bytes[SIP];
	struct bytes next = pattern(sippers.received[i], SIP);
	ssize_t got = recv(sippers.pairs[i].client, bytes, next.length, MSG_DONTWAIT);
	if (got > 0)
		sippers.received[i] += (size_t)got;
	sippers.failed +=
	    got > 0 ? memcmp(bytes, next.data, (size_t)got) != 0 : got == 0 || errno != EAGAIN;
}

static void *
run_sippers(void *unused)
{
	while (!sippers.stop && sippers.failed == 0) {
		for (int i = 0; i < sippers.count; i++) {
			fill(i);
			sip(i);
		}
		poll(NULL, 0, SIP_INTERVAL_MS);
	}
	return unused;
}

/* Whether COUNT connections are open, and each blocks a thread. */
static bool
all_keep_a_thread(int count)
{
	char totals[64];
	snprintf(totals, sizeof totals, " open=%d parked=0 ", count);
	kill(proxy->pid, SIGUSR1);
	return proxy_has_logged(proxy, totals);
}

static void
start_sippers(int count)
{
	const int narrow = WINDOW, moment_ms = 200;
	check(pthread_create(&sippers.thread, NULL, run_sippers, NULL) == 0, "pthread_create");
	for (int i = 0; i < count; i++) {
		struct pair pair = pair_open(backend);
		struct pollfd entry = {.fd = pair.backend, .events = POLLOUT};
		setsockopt(pair.client, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
		sippers.pairs[i] = pair;
		while (poll(&entry, 1, moment_ms) == 1)
			fill(i);
		sippers.count++;
	}
	wait_until(all_keep_a_thread(count), 10000);
}

/* Checks that they have received what was sent to them, and closes them. */
static void
end_sippers(void)
{
	sippers.stop = true;
	pthread_join(sippers.thread, NULL);
	check(sippers.failed == 0, "one that makes progress was reset, or lost bytes");
	for (int i = 0; i < sippers.count; i++) {
		testing("sipper %d", i);
		expect_pattern_from(sippers.pairs[i].client, sippers.received[i],
		    sippers.sent[i] - sippers.received[i]);
		pair_talk(sippers.pairs[i]);
		pair_close(sippers.pairs[i]);
	}
}

static bool
is_any_reset(const struct pair *pairs, int count)
{
	bool is_any = false;
	for (int i = 0; i < count; i++)
		is_any = is_any || is_reset(pairs[i].client);
	return is_any;
}

/* A stalled connection is reset so that others are served; one that takes something now and then is
 * not. */
PROGRAM_TEST(limits, stalled_connections_are_evicted_where_threads_are_kept)
{
	struct pair stalled[KEPT + EXTRA_THREADS_MAX];
	const int most = KEPT + extra_threads();
	need("splice(2)");
	start_with_few_threads();
	start_sippers(1);
	for (int i = 0; i < most; i++) {
		stalled[i] = pair_open(backend);
		send_until_stalled(stalled[i].backend);
	}
	for (int i = 0; i < SERVED_MEANWHILE; i++)
		expect_served(backend, request);
	/* Which is the first is unknown: the kernel may take a little more for one, much later. */
	wait_until(is_any_reset(stalled, most), 5000);
	wait_until(proxy_has_logged(proxy, " slots in use: connections are evicted\n"), 5000);
	cr_assert_gt(proxy_total(proxy, "evicted-stalled"), 0);
	end_sippers();
}

/* So is one that waits for a backend. */
PROGRAM_TEST(limits, connections_for_a_full_backlog_are_evicted_where_threads_are_kept)
{
	int waiting[KEPT + EXTRA_THREADS_MAX];
	const int most = KEPT + extra_threads();
	start_with_few_threads();
	start_sippers(1);
	host_make("busy.example");
	unix_listen(host_path("busy.example", "tls-socket"), 1);
	fill_backlog(host_path("busy.example", "tls-socket"));
	for (int i = 0; i < most; i++)
		waiting[i] = client_send(hello_for("busy.example"));
	for (int i = 0; i < SERVED_MEANWHILE; i++)
		expect_served(backend, request);
	cr_assert_gt(proxy_total(proxy, "evicted-connecting"), 0);
	int resets = 0;
	for (int i = 0; i < most; i++)
		resets += is_reset(waiting[i]);
	cr_assert_gt(resets, 0);
	end_sippers();
}

/* If all that block a thread make progress, others wait, and none is lost. */
PROGRAM_TEST(limits, others_wait_where_all_make_progress)
{
	need("splice(2)");
	if (sanitized())
		skip("the sanitizers have threads of their own");
	start_with_few_threads();
	start_sippers(KEPT);
	int client = client_send(request);
	cr_assert(silent_for(backend, 500), "there was a thread left");
	cr_assert(silent_for(client, 0), "one that waits was rejected");
	check(sippers.failed == 0, "one that makes progress was reset");
	end_sippers();
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	pair_talk(((struct pair){client, accepted}));
}

/* --- Many names of one special host --- */

/* The first names leave threads for others; with the rest, threads are short. */
enum { NAMES = 100, FIRST_NAMES = 24, FEW = 4 };

/* A client that asks for NAME. It may be rejected at any time. */
static int
ask_for(const char *name)
{
	struct bytes bytes = hello_for(name);
	int client = client_connect();
	(void)!send(client, bytes.data, bytes.length, MSG_NOSIGNAL);
	free(bytes.data);
	return client;
}

/* All send, until nothing was taken from any of them for a moment. */
static void
send_until_all_stalled(const int *fds, int count)
{
	static const uint8_t bytes[64 * 1024];
	const int moment_ms = 300;
	for (int64_t end_ms = now_ms() + moment_ms; now_ms() < end_ms; wait_a_moment())
		for (int i = 0; i < count; i++)
			while (send(fds[i], bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
				end_ms = now_ms() + moment_ms;
}

/* The backends of few.example and _default take nothing. The first has few clients, which came
 * first; the other has many, and each asks for another name. They pay as one host, so that the few
 * remain, and clients of a third host are served. */
static void
expect_names_to_pay_as_one(bool send_more)
{
	int all[FEW + NAMES], rejected = 0;
	expect_served(backend, request); /* so that it handles signals */
	for (int i = 0; i < FEW + NAMES; i++) {
		char name[32];
		snprintf(name, sizeof name, i < FEW ? "few.example" : "n%d.example", i);
		all[i] = ask_for(name);
		if (send_more && i + 1 == FEW + FIRST_NAMES)
			send_until_all_stalled(all, i + 1);
		if (i + 1 == FEW + FIRST_NAMES)
			wait_until(all_keep_a_thread(i + 1), 5000);
	}
	for (int i = 0; i < SERVED_MEANWHILE; i++) {
		testing("client %d", i);
		expect_served(backend, request);
	}
	for (int i = FEW; i < FEW + NAMES; i++)
		rejected += is_reset(all[i]);
	cr_assert_gt(rejected, 0, "threads were not short");
	for (int i = 0; i < FEW; i++)
		cr_assert(!is_reset(all[i]), "one of few pays for many");
}

PROGRAM_TEST(limits, names_of_a_special_host_that_accepts_nothing)
{
	static const char *const hosts[] = {"few.example", "_default"};
	need_own_user();
	start(some_threads);
	for (int i = 0; i < 2; i++) {
		char *path = host_path(hosts[i], "tls-socket");
		host_make(hosts[i]);
		unix_listen(path, 1);
		fill_backlog(path);
	}
	expect_names_to_pay_as_one(false);
	cr_assert_gt(proxy_total(proxy, "evicted-connecting"), 0);
}

PROGRAM_TEST(limits, names_of_a_special_host_that_reads_nothing)
{
	need_own_user();
	start(some_threads);
	backend_listen("few.example");
	backend_listen("_default");
	expect_names_to_pay_as_one(true);
	cr_assert_gt(proxy_total(proxy, "evicted"), 0);
}

static void
no_threads(void)
{
	rlim_t extra = (rlim_t)extra_threads();
	struct rlimit processes = {
	    .rlim_cur = OWN_THREADS + extra, .rlim_max = THREADS_MAX + extra};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

/* As the user of the process, who needs no privilege for it. */
static void
allow_threads(void)
{
	const rlim_t most = THREADS_MAX + (rlim_t)extra_threads();
	const struct rlimit processes = {most, most};
	int status;
	pid_t pid = fork();
	check(pid != -1, "fork");
	if (pid == 0) {
		become_own_user();
		_exit(prlimit(proxy->pid, RLIMIT_NPROC, &processes, NULL) == 0 ? 0 : 1);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0, "prlimit");
}

/* If no thread can be started, connections wait, and the log says so; when one can, all are
 * served. */
PROGRAM_TEST(limits, no_threads_at_all)
{
	if (sanitized())
		skip("the sanitizers have threads of their own");
	need_own_user();
	start(no_threads);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(request);
	wait_until(proxy_has_logged(proxy,
		       "sniproxy: new connections wait while 0 are open: thread: "
		       "Resource temporarily unavailable\n"),
	    5000);
	expect_idle(proxy);
	cr_assert(all_silent(), "a client was refused");
	cr_assert(silent_for(backend, 0));
	allow_threads();
	serve_all();
	cr_assert_leq(proxy_threads(proxy), THREADS_MAX + extra_threads());
}

PROGRAM_TEST(limits, stops_while_out_of_descriptors)
{
	start(few_descriptors);
	proxy_wait_ready();
	int before = proxy_descriptors(proxy);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = client_try_connect(NULL);
		/* It may have been evicted already, maybe before it has connected. */
		(void)!send(clients[i], request.data, 10, MSG_NOSIGNAL);
	}
	expect_idle(proxy);
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	/* Until then, their address has more than its share. */
	wait_until(proxy_descriptors(proxy) <= before, 5000);
	for (int i = 0; i < 10; i++)
		expect_served(backend, request);
}

/* --- No permission to accept --- */

/* A packet filter or a security module may forbid it for a while. */
PROGRAM_TEST(limits, accept_is_not_permitted)
{
	start(NULL);
	struct pair pair = pair_open(backend);
	wait_until(proxy_sleeps_outside_accept(proxy), 5000);
	pid_t tracer = fault_begin(proxy, "accept,accept4", "error=EPERM");
	int client = client_send(request);
	for (int i = 0; i < 3; i++)
		expect_idle(proxy);
	pair_talk(pair);
	cr_assert(silent_for(backend, 0));
	fault_end(tracer);
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	pair_talk(((struct pair){client, accepted}));
	expect_served(backend, request);
}

/* --- Many --- */

enum { MANY = 1000 };

static struct pair *
open_many(void)
{
	start(NULL);
	struct pair *pairs = calloc(MANY, sizeof *pairs);
	for (int i = 0; i < MANY; i++)
		pairs[i] = pair_open(backend);
	return pairs;
}

/* Waits until COUNT idle connections have no thread, and spare threads have ended. */
static void
wait_for_rest(int count)
{
	expect_total(proxy, "parked", count, 10000);
	wait_until(proxy_threads(proxy) <= SPARE_THREADS + OWN_THREADS + extra_threads(), 5000);
}

/* A thousand connections at once; each is used in turn. */
PROGRAM_TEST(limits, a_thousand_connections)
{
	struct pair *pairs = open_many();
	for (int i = 0; i < MANY; i++)
		pair_talk(pairs[i]);
	wait_for_rest(MANY);
	expect_idle(proxy);
	for (int i = MANY - 1; i >= 0; i--)
		pair_talk(pairs[i]);
	free(pairs);
}

/* A second after a burst, connections give up their threads; within two more, as few threads are
 * left as before. */
PROGRAM_TEST(limits, threads_end_after_a_burst)
{
	enum { BURST = 500, SETTLED_MS = 1000 + 2000, MARGIN_MS = 3000 };
	static struct pair pairs[BURST];
	start(NULL);
	for (int i = 0; i < BURST; i++)
		pairs[i] = pair_open(backend);
	for (int round = 0; round < 2; round++) {
		testing("round %d", round);
		/* All at once: on a slow machine, one after the other would take seconds. */
		for (int i = 0; i < BURST; i++)
			send_all(pairs[i].client, text("ping"));
		for (int i = 0; i < BURST; i++)
			expect_bytes(pairs[i].backend, text("ping"));
		cr_assert_gt(proxy_threads(proxy), BURST / 4, "there was no burst");
		wait_until(proxy_threads(proxy) <= SPARE_THREADS + OWN_THREADS + extra_threads(),
		    SETTLED_MS + MARGIN_MS);
	}
	for (int i = 0; i < BURST; i++)
		pair_talk(pairs[i]);
}

static void
need_files(unsigned count)
{
	struct rlimit files;
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < count)
		skip("too few descriptors");
}

/* Idle connections have no thread, however many there are. */
PROGRAM_TEST(limits, idle_connections_have_no_thread)
{
	enum { IDLE = 5000, FILES = 3 * IDLE };
	const int count = sanitized() ? IDLE / 10 : IDLE;
	static struct pair pairs[IDLE];
	need_files(FILES);
	start(NULL);
	for (int i = 0; i < count; i++)
		pairs[i] = pair_open(backend);
	wait_for_rest(count);
	expect_idle(proxy);
	for (int i = 0; i < count; i += 100)
		pair_talk(pairs[i]);
}

/* --- More busy connections than threads --- */

enum { BUSY = 1000, MESSAGES = 10, MESSAGE = 64 };

/* A client that sends messages, each after it has received the one before. */
struct talker {
	int fd;
	size_t got;    /* of the hello, and of all messages */
	size_t wanted; /* before the next is sent */
	int sent;
};

/* Sends the next message, or nothing after the last. */
static void
talk(struct talker *t, int number)
{
	uint8_t message[MESSAGE];
	memset(message, number + t->sent, sizeof message);
	if (t->sent++ < MESSAGES)
		send_all(t->fd, ((struct bytes){message, sizeof message, 0}));
	t->wanted += sizeof message;
}

/* Reads what has come back. Returns whether everything has. */
static bool
listen_to(struct talker *t, int number, size_t hello)
{
	uint8_t bytes[4096];
	ssize_t got = recv(t->fd, bytes, sizeof bytes, MSG_DONTWAIT);
	check(got > 0, "connection %d has ended after %zu bytes: %s", number, t->got,
	    got < 0 ? strerror(errno) : "end of stream");
	for (ssize_t i = 0; i < got; i++, t->got++)
		check(t->got < hello ||
			bytes[i] == (uint8_t)(number + (int)((t->got - hello) / MESSAGE)),
		    "connection %d: byte %zu is wrong", number, t->got);
	if (t->got == t->wanted)
		talk(t, number);
	return t->got == hello + (size_t)MESSAGES * MESSAGE;
}

/* Each has its turn. */
PROGRAM_TEST(limits, more_busy_connections_than_threads)
{
	static struct talker talkers[BUSY];
	static struct pollfd entries[BUSY];
	need_own_user();
	start(some_threads);
	echo.listener = backend_listen("echo.example");
	echo_request = hello_for("echo.example");
	echo_start(&echo);
	for (int i = 0; i < BUSY; i++) {
		talkers[i] = (struct talker){client_send(echo_request), 0, echo_request.length, 0};
		entries[i] = (struct pollfd){talkers[i].fd, POLLIN, 0};
	}
	int left = BUSY;
	int64_t end_ms = now_ms() + margin_ms(20000);
	while (left > 0) {
		poll(entries, BUSY, 100);
		check(now_ms() < end_ms, "%d connections are not served", left);
		for (int i = 0; i < BUSY; i++)
			if (entries[i].revents != 0 &&
			    listen_to(&talkers[i], i, echo_request.length)) {
				entries[i].fd = -1;
				left--;
			}
	}
	cr_assert_eq(proxy_total(proxy, "open"), BUSY);
	cr_assert_eq(proxy_total(proxy, "evicted"), 0);
	cr_assert_leq(proxy_threads(proxy), SOME_THREADS + extra_threads());
	echo_stop(&echo);
}

/* --- Hellos that need more memory --- */

/* One address has thousands of hellos that need a second buffer and never end. Those of another
 * address are served. */
PROGRAM_TEST(limits, unfinished_hellos_of_one_address_leave_memory_for_others)
{
	enum { UNFINISHED = 3500, OTHERS_SERVED = 20, FILES = 4 * UNFINISHED };
	static int unfinished[UNFINISHED];
	need_files(FILES);
	start(NULL);
	struct bytes large = hello((struct shape){.name = HOST, .padding = 6000});
	for (int i = 0; i < UNFINISHED; i++) {
		unfinished[i] = client_connect_from("127.0.0.2");
		send_all(unfinished[i], slice(large, 0, 4200));
	}
	wait_until(proxy_total(proxy, "internal_error") > 0, 10000);
	for (int i = 0; i < OTHERS_SERVED; i++) {
		testing("client %d", i);
		expect_served(backend, large);
	}
	testing("%s", "");
	for (int i = 0; i < UNFINISHED; i++)
		close(unfinished[i]);
}

/* --- A backend whose descriptors take long to close --- */

/* Passes the socket of a connection with a byte, and keeps no copy: its last close(2) waits for a
 * minute for bytes that the other end does not take. Returns whether the kernel passes it. */
static bool
pass_lingering_socket(int fd)
{
	const struct linger linger = {.l_onoff = 1, .l_linger = 60};
	const int narrow = 4096;
	static const char bulk[64 * 1024];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec vector = {(char[]){"!"}, 1};
	struct msghdr message = {.msg_iov = &vector,
	    .msg_iovlen = 1,
	    .msg_control = &control,
	    .msg_controllen = sizeof control};
	struct sockaddr_in address;
	socklen_t size = sizeof address;
	int listener = bound_socket("127.0.0.1", SOCK_STREAM);
	int passed = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
	setsockopt(passed, SOL_SOCKET, SO_SNDBUF, &narrow, sizeof narrow);
	setsockopt(passed, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	cr_assert_eq(listen(listener, 1), 0);
	getsockname(listener, (struct sockaddr *)&address, &size);
	cr_assert_eq(connect(passed, (struct sockaddr *)&address, size), 0);
	while (send(passed, bulk, sizeof bulk, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	control.header = (struct cmsghdr){
	    .cmsg_len = CMSG_LEN(sizeof passed), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), &passed, sizeof passed);
	bool passes = sendmsg(fd, &message, MSG_NOSIGNAL) == 1;
	if (!passes)
		setsockopt(passed, SOL_SOCKET, SO_LINGER, &(struct linger){0}, sizeof linger);
	close(passed);
	return passes; /* the listener stays open, with the other end in its backlog */
}

PROGRAM_TEST(limits, descriptors_do_not_pass)
{
	enum { PASSRIGHTS = 83 };
	const int none = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (is_portable() || emulated() ||
	    setsockopt(fd, SOL_SOCKET, PASSRIGHTS, &none, sizeof none) == -1)
		skip("needs SO_PASSRIGHTS, of Linux 6.16");
	start(NULL);
	struct pair pair = pair_open(backend);
	cr_assert(!pass_lingering_socket(pair.backend));
	pair_talk(pair);
}

static void
few_threads_on_an_older_kernel(void)
{
	few_threads();
	let_descriptors_pass();
}

/* Before Linux 6.16, a tenant's backend can make each read from it last a minute, and each close of
 * its socket. Such calls are interrupted, so that others are served. The backends pass on some
 * sockets before the proxy reads, and go. */
PROGRAM_TEST(limits, descriptors_that_linger_keep_no_thread_for_long)
{
	enum { PASSED = 3, FROZEN_MS = 60 * 1000, SOON_MS = 20 * 1000 };
	struct pair lingering[KEPT + EXTRA_THREADS_MAX];
	const int most = KEPT + extra_threads();
	if (is_portable() || emulated())
		skip("needs Linux's way to close descriptors");
	need_own_user();
	start(few_threads_on_an_older_kernel);
	int other = backend_listen("other.example");
	struct pair open = pair_open(backend);
	for (int i = 0; i < most; i++)
		lingering[i] = pair_open(backend);
	int64_t began_ms = now_ms();
	proxy_pause(proxy);
	for (int i = 0; i < most; i++) {
		for (int n = 0; n < PASSED; n++)
			cr_assert(pass_lingering_socket(lingering[i].backend), "it was not passed");
		close(lingering[i].backend);
	}
	kill(proxy->pid, SIGCONT);
	int client = client_send(hello_for("other.example"));
	wait_until(!silent_for(other, 0), SOON_MS);
	expect_bytes(backend_accept(other), hello_for("other.example"));
	pair_talk(open);
	for (int i = 0; i < SERVED_MEANWHILE; i++)
		expect_served(backend, request);
	close(client);
	cr_assert(now_ms() - began_ms < FROZEN_MS, "the proxy was frozen");
}

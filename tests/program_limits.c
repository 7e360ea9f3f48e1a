/* Too few descriptors or threads: connections wait for one another, and nothing spins. */
#include "harness.h"

#include <errno.h>
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

enum { CLIENTS = 64 };

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

/* COUNT clients send their requests. While no more than 16 of them wait, who is slow to take something has
 * half a second before it gives way, as this test's backend may be. */
static void
send_requests(int count)
{
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = i < count ? client_send(request) : -1;
}

/* Whether no client has heard anything yet: neither an alert nor the end. */
static bool
all_silent(void)
{
	struct pollfd entries[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		entries[i] = (struct pollfd){clients[i], POLLIN, 0};
	return poll(entries, CLIENTS, 0) == 0;
}

/* Accepts what comes to the backend until nothing does for a while, and reads the requests:
 * who leaves them untaken would give way. Returns how many came. */
static int
accept_all(int *accepted, int ms)
{
	int count = 0;
	for (; count < CLIENTS && readable_within(backend, ms); count++) {
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

/* Takes the answers that have come to clients, and closes those. */
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

/* Answers and ends what has reached the backend, again and again, until all were served.
 */
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
		int count = accept_all(accepted, 10);
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
	int count = accept_all(accepted, 500);
	cr_assert_geq(count, 12, "only %d were served at once", count);
	cr_assert_lt(count, 28, "there was no shortage");
	cr_assert(all_silent(), "a client was refused");
	expect_idle(proxy);
	expect_idle(proxy);
	cr_assert(all_silent(), "a client was refused");

	/* The connections that wait do not keep those that are open from working. */
	send_all(accepted[0], text("s"));
	wait_until(!all_silent(), 1000);
	close(accepted[0]);
	testing("the one that was answered first");
	for (int i = 0; i < CLIENTS; i++) {
		if (silent_for(clients[i], 0))
			continue;
		expect_bytes(clients[i], text("s"));
		close(clients[i]);
		clients[i] = client_send(request);
		break;
	}
	answer(accepted + 1, count - 1);
	serve_all();
}

/* Descriptors go to COUNT clients that have not said whom they want to talk to. When they
 * do, there must be one left for the backend of each. */
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

/* What the program was started with takes room wherever it is. Here it leaves some for a
 * few connections. */
static void
descriptors_above_a_gap(void)
{
	limit_descriptors(64);
	for (int descriptor = 12; descriptor < 60; descriptor++)
		dup2(1, descriptor);
}

PROGRAM_TEST(limits, descriptors_above_a_gap_before_the_hello)
{
	start(descriptors_above_a_gap);
	expect_served_after_silence(2);
}

/* Nobody is let in who then waits for a descriptor until the hello's ten seconds are
 * over. */
PROGRAM_TEST(limits, descriptors_above_a_gap)
{
	start(descriptors_above_a_gap);
	send_requests(16);
	int accepted[CLIENTS];
	int count = accept_all(accepted, 500);
	cr_assert_geq(count, 2, "only %d were served at once", count);
	cr_assert(!readable_within(backend, 0));
	poll(NULL, 0, 11000);
	cr_assert(all_silent(), "a client was refused");
	answer(accepted, count);
	serve_all();
}

/* Bulk may want more descriptors than there are; then it must do without. */
PROGRAM_TEST(limits, bulk_while_out_of_descriptors)
{
	start(few_descriptors);
	/* As many as fit: if others waited, a stalled one would have to give way. */
	enum { FIT = 10 };
	int accepted[FIT];
	int count = 0;
	for (; count < FIT; count++) {
		clients[count] = client_send(request);
		accepted[count] = backend_accept(backend);
		expect_bytes(accepted[count], request);
	}
	/* Which client has which connection is told by the first byte. */
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

/* --- More connections than can be served --- */

enum {
	FLOOD = 20, /* so many that give way within a second are one */
	LATER = 20, /* as many as fit, so that all places are taken anew */
	STRANGERS_MAX = 254,
	ADDRESS_SHARE = 4,
};

static int strangers[STRANGERS_MAX], strangers_count;

static void
some_descriptors(void)
{
	limit_descriptors(48);
}

/* A client of its own address sends BYTES. */
static int
stranger_send(struct bytes bytes)
{
	char address[32];
	check(strangers_count < STRANGERS_MAX, "too many strangers");
	snprintf(address, sizeof address, "127.0.1.%d", strangers_count + 1);
	int client = client_connect_from(address);
	send_all(client, bytes);
	return strangers[strangers_count++] = client;
}

static void
close_strangers(void)
{
	while (strangers_count > 0)
		close(strangers[--strangers_count]);
}

static bool
has_logged(const char *what)
{
	char *log = proxy_log(proxy);
	bool found = strstr(log, what) != NULL;
	free(log);
	return found;
}

/* Has all places taken by connections for busy.example, whose backend has no room, one
 * after another, so that some had to give way. */
static void
take_all_places(void)
{
	start(some_descriptors);
	host_make("busy.example");
	unix_listen(host_path("busy.example", "tls-socket"), 1);
	fill_backlog(host_path("busy.example", "tls-socket"));
	struct bytes busy = hello_for("busy.example");
	while (!has_logged("no more fit")) {
		stranger_send(busy);
		wait_drained();
	}
	for (int i = 0; i < LATER; i++) {
		stranger_send(busy);
		wait_drained();
	}
	poll(NULL, 0, 200); /* so that each of them may give way */
}

/* Has COUNT connections for busy.example and two for HOST wait for the proxy at once: HOST's
 * are served. */
static void
come_at_once(int count)
{
	struct bytes busy = hello_for("busy.example");
	int served[2], accepted[2];
	proxy_pause(proxy);
	for (int i = 0; i < count; i++) {
		if (i == FLOOD + FLOOD / 2)
			served[0] = stranger_send(request);
		stranger_send(busy);
	}
	if (count <= FLOOD + FLOOD / 2)
		served[0] = stranger_send(request);
	served[1] = stranger_send(request);
	kill(proxy->pid, SIGCONT);
	for (int i = 0; i < 2; i++) {
		accepted[i] = backend_accept(backend);
		expect_bytes(accepted[i], request);
	}
	answer(accepted, 2);
	for (int i = 0; i < 2; i++) {
		expect_bytes(served[i], text("served"));
		expect_end(served[i]);
	}
}

/* Closes all, and returns how many connections for busy.example were turned away. */
static int
count_turned_away(void)
{
	const char *counts = " of addresses with too many, ";
	close_strangers();
	wait_until(has_logged(counts), 15000);
	return atoi(strstr(proxy_log(proxy), counts) + strlen(counts));
}

/* What is more than a crowd is turned away, but for some that several threads serve at once, and
 * those that come before it is known for a flood, if it is not known from before. */
PROGRAM_TEST(limits, a_crowd_for_a_flooded_host)
{
	enum { BACKLOG = 256, CROWD = BACKLOG / 4, MORE = 90 };
	need("TCP_INFO");
	take_all_places();
	cr_assert_eq(listen(server.listener, BACKLOG), 0);
	come_at_once(CROWD + FLOOD + MORE);
	int turned_away = count_turned_away();
	cr_assert_leq(turned_away, FLOOD + MORE + 4, "%d were turned away", turned_away);
	/* All of MORE, unless the machine is so busy that 20 do not give way within a second. */
	cr_assert_gt(turned_away, 0, "none was turned away");
}

/* As many give way as in a flood, but so many can be served. */
PROGRAM_TEST(limits, fewer_than_a_crowd_for_a_flooded_host)
{
	enum { BACKLOG = 128, CROWD = BACKLOG / 4 };
	take_all_places();
	cr_assert_eq(listen(server.listener, BACKLOG), 0);
	come_at_once(CROWD - 2);
	int turned_away = count_turned_away();
	cr_assert_eq(turned_away, 0, "%d were turned away", turned_away);
}

/* Where the backlog is short, a few are not a crowd yet. */
PROGRAM_TEST(limits, a_short_backlog_for_a_flooded_host)
{
	enum { BACKLOG = 16, ROUNDS = 3 };
	take_all_places();
	cr_assert_eq(listen(server.listener, BACKLOG), 0);
	for (int round = 0; round < ROUNDS; round++) {
		come_at_once(BACKLOG - 2);
		wait_drained();
	}
	int turned_away = count_turned_away();
	cr_assert_eq(turned_away, 0, "%d were turned away", turned_away);
}

/* Whether CLIENT is told something, as that it is turned away, or the pressure is over. */
static bool
is_gone_or_all_fit(int client)
{
	return !silent_for(client, 0) || has_logged("all connections fit again");
}

/* An address that has its share, and asks for more now and then, does not keep all from
 * being as it was. */
PROGRAM_TEST(limits, one_address_does_not_keep_up_the_pressure)
{
	take_all_places();
	for (int i = 0; i < ADDRESS_SHARE; i++)
		pair_talk(pair_open(backend));
	close_strangers();
	int64_t end_ms = now_ms() + margin_ms(15000);
	while (!has_logged("all connections fit again")) {
		check(now_ms() < end_ms, "the pressure does not end");
		int client = client_connect();
		wait_until(is_gone_or_all_fit(client), 1000);
		close(client);
		poll(NULL, 0, 1000);
	}
}

static void
some_descriptors_and_lines(void)
{
	some_descriptors();
	setenv("SNIPROXY_LOG", "connections", 1);
}

/* How many strangers, from the one that was the FIRST after so many others, COUNT in all, have
 * given way as soon as they were accepted: whoever is begun with has ten milliseconds. */
static int
count_at_once(int first, int count)
{
	char *log = proxy_log(proxy), *rest = log, *line;
	int found = 0, stranger;
	while ((line = strsep(&rest, "\n")) != NULL)
		found += sscanf(line, "client=127.0.1.%d:", &stranger) == 1 &&
		    stranger > first && stranger <= first + count &&
		    strstr(line, " seconds=0.00") != NULL &&
		    strstr(line, " end=gave-way") != NULL;
	free(log);
	return found;
}

/* Of those that have waited for long in a crowd, who has not sent a whole hello is not even begun
 * with; who has is served, or told what is wrong. */
PROGRAM_TEST(limits, a_crowd_that_sends_no_hello)
{
	enum { BACKLOG = 128, UNFINISHED = 20, SILENT = 80 };
	need("TCP_INFO");
	start(some_descriptors_and_lines);
	while (!has_logged("no more fit")) {
		stranger_send(text(""));
		wait_drained();
	}
	int first = strangers_count;
	cr_assert_eq(listen(server.listener, BACKLOG), 0);
	proxy_pause(proxy);
	for (int i = 0; i < UNFINISHED; i++)
		stranger_send(slice(request, 0, request.length - 1));
	for (int i = 0; i < SILENT; i++)
		stranger_send(text(""));
	int served = stranger_send(request);
	int refused = stranger_send(text("GET / HTTP/1.1\r\n\r\n"));
	poll(NULL, 0, 50); /* so that each of them has waited for long enough */
	kill(proxy->pid, SIGCONT);
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	answer(&accepted, 1);
	expect_bytes(served, text("served"));
	expect_alert(refused, UNEXPECTED_MESSAGE);
	wait_until(count_at_once(first, UNFINISHED) > UNFINISHED / 2, 3000);
	wait_until(count_at_once(first + UNFINISHED, SILENT) > SILENT / 2, 3000);
}

/* --- Threads --- */

enum {
	THREADS_MAX = 8,
	EXTRA_THREADS_MAX = 2, /* besides */
};

static void
few_threads(void)
{
	/* The sanitizers have threads of their own, and a search for leaks cannot start
	 * its. */
	rlim_t most = THREADS_MAX + (rlim_t)extra_threads();
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	struct rlimit processes = {.rlim_cur = most, .rlim_max = most};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

static void
start_with_few_threads(void)
{
	need_own_user();
	start(few_threads);
}

PROGRAM_TEST(limits, out_of_threads)
{
	start_with_few_threads();
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(request);
	int accepted[CLIENTS];
	int count = accept_all(accepted, 500);
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

/* Open, silent connections may hold no thread, or then only so many; the others are
 * served when those have ended. Stopping works meanwhile. */
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

/* --- Threads that are kept --- */

enum {
	KEPT = THREADS_MAX - 2, /* all but the main thread and the log's */
	SIP = 16 * 1024,        /* what a client that makes progress takes at once */
	SIP_INTERVAL_MS = 20,
	WINDOW = 4 * SIP,
	SERVED_MEANWHILE = 20,
};

/* Downloads whose clients always take less than there is, and so keep a thread each. */
static struct {
	struct pair pairs[KEPT];
	size_t sent[KEPT], received[KEPT];
	atomic_int count;
	atomic_int failed; /* how many were reset, or brought anything else */
	atomic_bool stop;
	pthread_t thread;
} sippers;

/* The backend sends as much of the pattern as is taken. */
static void
fill(int i)
{
	ssize_t sent;
	do {
		struct bytes next = pattern(sippers.sent[i], SIP);
		sent = send(sippers.pairs[i].backend, next.data, next.length,
		    MSG_NOSIGNAL | MSG_DONTWAIT);
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
	sippers.failed += got > 0 ? memcmp(bytes, next.data, (size_t)got) != 0
				  : got == 0 || errno != EAGAIN;
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

/* Whether COUNT connections are open, and each keeps a thread. */
static bool
all_keep_a_thread(int count)
{
	char totals[64];
	snprintf(totals, sizeof totals, " open=%d parked=0 ", count);
	kill(proxy->pid, SIGUSR1);
	return has_logged(totals);
}

static void
start_sippers(int count)
{
	const int narrow = WINDOW, moment_ms = 200;
	check(pthread_create(&sippers.thread, NULL, run_sippers, NULL) == 0,
	    "pthread_create");
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

/* Checks that they have got what was sent to them, and closes them. */
static void
end_sippers(void)
{
	sippers.stop = true;
	pthread_join(sippers.thread, NULL);
	check(sippers.failed == 0, "who makes progress gave way, or lost bytes");
	for (int i = 0; i < sippers.count; i++) {
		testing("sipper %d", i);
		expect_pattern_from(sippers.pairs[i].client, sippers.received[i],
		    sippers.sent[i] - sippers.received[i]);
		pair_talk(sippers.pairs[i]);
		pair_close(sippers.pairs[i]);
	}
}

/* Whether there is nobody any more at the other end of FD, by a reset. */
static bool
is_reset(int fd)
{
	struct pollfd entry = {.fd = fd};
	return poll(&entry, 1, 0) == 1 && (entry.revents & POLLERR) != 0;
}

static bool
is_any_reset(const struct pair *pairs, int count)
{
	bool is_any = false;
	for (int i = 0; i < count; i++)
		is_any = is_any || is_reset(pairs[i].client);
	return is_any;
}

/* Who stalls is reset, for the sake of others; who takes something now and then is
 * not. */
PROGRAM_TEST(limits, who_stalls_gives_way_where_threads_are_kept)
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
	/* Which is first cannot be told: the kernel may take a little more for one, much later. */
	wait_until(is_any_reset(stalled, most), 5000);
	wait_until(has_logged("connections are open, and no more fit"), 1000);
	end_sippers();
}

/* Waits until one of COUNT clients has heard something, and returns which. */
static int
await_any(const int *fds, int count)
{
	for (int64_t end_ms = now_ms() + margin_ms(5000); now_ms() < end_ms;)
		for (int i = 0; i < count; i++)
			if (readable_within(fds[i], 1))
				return i;
	check(false, "nobody gave way");
	return count;
}

/* Who waits for a backend gives way as well, and is told so. */
PROGRAM_TEST(limits, who_waits_for_a_backend_gives_way_where_threads_are_kept)
{
	/* Its hello's time is ten seconds. Only after some time is it the backend that has no room, and who
	 * was found so first gives way, which is one of the first here. */
	const int soon_ms = 3000, moment_ms = 30;
	int waiting[KEPT + EXTRA_THREADS_MAX + 1], count = 0;
	start_with_few_threads();
	start_sippers(1);
	host_make("busy.example");
	unix_listen(host_path("busy.example", "tls-socket"), 1);
	fill_backlog(host_path("busy.example", "tls-socket"));
	int64_t began_ms = now_ms();
	while (!has_logged("no more fit")) {
		cr_assert_lt(count, (int)(sizeof waiting / sizeof *waiting));
		waiting[count++] = client_send(hello_for("busy.example"));
		wait_drained();
		poll(NULL, 0, moment_ms);
	}
	int gone = await_any(waiting, count);
	cr_assert(gone < count - 1, "the last one gave way");
	expect_alert(waiting[gone], INTERNAL_ERROR);
	cr_assert_lt(now_ms() - began_ms, margin_ms(soon_ms));
	for (int i = 0; i < SERVED_MEANWHILE; i++)
		expect_served(backend, request);
	end_sippers();
}

/* Where all that keep a thread make progress, others wait, and nobody is lost. */
PROGRAM_TEST(limits, others_wait_where_all_make_progress)
{
	need("splice(2)");
	if (sanitized())
		skip("the sanitizers have threads of their own");
	start_with_few_threads();
	start_sippers(KEPT);
	int client = client_send(request);
	cr_assert(silent_for(backend, 500), "there was a thread left");
	cr_assert(silent_for(client, 0), "who waits was refused");
	check(sippers.failed == 0, "who makes progress gave way");
	end_sippers();
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	pair_talk(((struct pair){client, accepted}));
}

static void
no_threads(void)
{
	rlim_t extra = (rlim_t)extra_threads();
	struct rlimit processes = {
	    .rlim_cur = 2 + extra, .rlim_max = THREADS_MAX + extra};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

/* As the user whose process it is, for whom that is no privilege. */
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

/* Where no thread can be had, connections wait, and the log says so; as soon as one can, all are
 * served. */
PROGRAM_TEST(limits, no_threads_at_all)
{
	if (sanitized())
		skip("the sanitizers have threads of their own");
	need_own_user();
	start(no_threads);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(request);
	wait_until(has_logged("sniproxy: new connections wait while 0 are open: thread: "
			      "Resource temporarily unavailable\n"),
	    1000);
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
		clients[i] = client_connect();
		/* It may have had to give way already. */
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

/* --- No right to accept --- */

/* As a packet filter or a security module may have it, for as long as they do. */
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
	struct rlimit files;
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < 3 * MANY)
		skip("too few descriptors");
	struct pair *pairs = calloc(MANY, sizeof *pairs);
	for (int i = 0; i < MANY; i++)
		pairs[i] = pair_open(backend);
	return pairs;
}

/* A thousand connections at once, each talked to in turn. */
PROGRAM_TEST(limits, a_thousand_connections)
{
	struct pair *pairs = open_many();
	for (int i = 0; i < MANY; i++)
		pair_talk(pairs[i]);
	expect_idle(proxy);
	for (int i = MANY - 1; i >= 0; i--)
		pair_talk(pairs[i]);
	free(pairs);
}

/* Connections that have nothing to say for long, which is what most connections do, hold
 * no thread each; and they are there when they do have something to say. */
PROGRAM_TEST(limits, quiet_connections_hold_few_threads)
{
	struct pair *pairs = open_many();
	for (int round = 0; round < 2; round++) {
		testing("round %d", round);
		wait_until(proxy_threads(proxy) < MANY / 8, 2000);
		for (int i = 0; i < MANY; i++)
			pair_talk(pairs[i]);
	}
	free(pairs);
}

/* Floods of connections that make no progress, while the limit on open files, or on threads, is
 * low: honest clients are served nevertheless, and established connections stay.
 *
 * FLOOD is the path of the load, see flood.c. FLOOD_SECONDS says how long each flood lasts (by
 * default 3), and FLOOD_RATE how many attacks a second there are; 0 means as many as the machine
 * allows. */
#include "tests/program/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	OPEN_FILES = 1024,
	THREADS_LEFT = 12 + 3, /* the spare ones, and the proxy's own */
	THREADS = 64,
	FEWER_THAN_SLOTS = 300,
	ESTABLISHED = 20,
	P99_MS = 1500, /* established connections that stall are not evicted for a second */
	P99_BESIDE_OTHERS_MS = 5000, /* if FLOOD_RATE is set, other work runs beside it */
	P99_FEW_THREADS_MS = 3000,

	/* If FLOOD_RATE is not set; and if threads are few, which all must pass. As many as the
	 * machine allows are more than it can accept beside the attackers: SYNs are lost then, and
	 * with them up to one honest client in thirty. */
	RATE = 5000,
	FEW_THREADS_RATE = 700,

	/* A flood of this length counts as a whole. Of a shorter one, the first second, in which
	 * all attackers arrive at once, would be too large a part. */
	WHOLE_S = 30,

	/* One honest client of so many may fail. */
	ONE_FAILURE_IN = 1000,

	/* A flood takes longer than its attacks: the last clients end, and then threads. */
	TIMEOUT_S = 3600,

	BUSY_BACKLOG = 4,
	BUSY_ROOM = BUSY_BACKLOG + 1, /* as unix(7) counts it */

	FIRST_LISTENER = 3,
	LISTENERS = 3,
};

/* What the flood has printed. */
struct result {
	long honest, failed, p50_us, p99_us, later_p99_us, max_us;
	long established, attacks, first_failure;
};

/* How many connections the proxy has evicted because of the flood. */
struct evicted {
	long hello, connecting, stalled, closing, idle;
};

static struct proxy *proxy;
static bool few_threads; /* few threads, instead of few descriptors */
static int most_threads; /* the most that the proxy was seen with */
static int held;         /* how many connections attackers may hold; 0: no limit */
static int listeners[LISTENERS];
static int busy, asleep;
static struct bytes request;

static void
limit_open_files(void)
{
	limit_descriptors(OPEN_FILES);
}

static int
threads_max(void)
{
	return THREADS + extra_threads();
}

static void
limit_threads(void)
{
	const rlim_t most = (rlim_t)threads_max();
	struct rlimit processes = {.rlim_cur = most, .rlim_max = most};
	/* A search for leaks cannot start its thread. */
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	limit_open_files();
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
}

static int
setting(const char *name, int otherwise)
{
	const char *value = getenv(name);
	return value != NULL && value[0] != '\0' ? atoi(value) : otherwise;
}

static int
flood_seconds(void)
{
	return setting("FLOOD_SECONDS", 3);
}

/* Starts the proxy, after PREPARE, and all backends: those that flood serves, one that never
 * accepts and has a short backlog, and one that never accepts and has room for all. */
static void
start(void (*prepare)(void))
{
	server_listen("127.0.0.1");
	listeners[0] = backend_listen("answer.example");
	listeners[1] = backend_listen("echo.example");
	listeners[2] = backend_listen("bulk.example");
	host_make("busy.example");
	busy = unix_listen(host_path("busy.example", "tls-socket"), BUSY_BACKLOG);
	asleep = backend_listen("asleep.example");
	free(host_make("down.example"));
	proxy = proxy_start(prepare);

	int backend = backend_listen(HOST);
	request = hello_for(HOST);
	for (int i = 0; i < 3; i++)
		expect_served(backend, request);
}

/* --- The load --- */

/* In the child: becomes flood. */
_Noreturn static void
execute_flood(const char *scenario, const char *addresses, int output)
{
	char port[8], seconds[16], rate[16], most[16];
	snprintf(port, sizeof port, "%u", server.port);
	snprintf(seconds, sizeof seconds, "%d", flood_seconds());
	snprintf(
	    rate, sizeof rate, "%d", setting("FLOOD_RATE", few_threads ? FEW_THREADS_RATE : RATE));
	snprintf(most, sizeof most, "%d", held);
	/* The sources are moved first, so that none overwrites another. */
	int sources[LISTENERS];
	for (int i = 0; i < LISTENERS; i++)
		sources[i] = fcntl(listeners[i], F_DUPFD_CLOEXEC, FIRST_LISTENER + LISTENERS);
	dup2(output, STDOUT_FILENO);
	for (int i = 0; i < LISTENERS; i++)
		dup2(sources[i], FIRST_LISTENER + i);
	close_range(FIRST_LISTENER + LISTENERS, ~0U, CLOSE_RANGE_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(
	    getenv("FLOOD"), "flood", port, scenario, seconds, addresses, rate, most, (char *)NULL);
	_exit(127);
}

/* Reads up to LENGTH bytes from FD. Counts the proxy's threads while nothing arrives. */
static ssize_t
read_and_watch(int fd, char *bytes, size_t length)
{
	const int interval_ms = 10;
	struct pollfd entry = {.fd = fd, .events = POLLIN};
	while (poll(&entry, 1, interval_ms) == 0) {
		int threads = proxy_threads(proxy);
		if (threads > most_threads)
			most_threads = threads;
	}
	return read(fd, bytes, length);
}

static struct result
flood(const char *scenario, const char *addresses)
{
	check(getenv("FLOOD") != NULL, "FLOOD is not set");
	int output[2];
	check(pipe2(output, O_CLOEXEC) == 0, "pipe2");
	pid_t pid = fork();
	check(pid != -1, "fork");
	if (pid == 0)
		execute_flood(scenario, addresses, output[1]);
	close(output[1]);
	char text[512] = "";
	size_t length = 0;
	ssize_t got;
	while ((got = read_and_watch(output[0], text + length, sizeof text - 1 - length)) > 0)
		length += (size_t)got;
	close(output[0]);
	int status;
	waitpid(pid, &status, 0);
	check(status == 0, "flood has ended with wait status %#x", status);

	struct result r;
	check(sscanf(text,
		  "honest %ld\nfailed %ld\np50_us %ld\np99_us %ld\nlater_p99_us %ld\n"
		  "max_us %ld\nestablished %ld\nattacks %ld\nfirst_failure %ld\n",
		  &r.honest, &r.failed, &r.p50_us, &r.p99_us, &r.later_p99_us, &r.max_us,
		  &r.established, &r.attacks, &r.first_failure) == 9,
	    "flood has printed: %s", text);
	return r;
}

/* --- The log --- */

static int
count(const char *text, const char *part)
{
	int found = 0;
	while ((text = strstr(text, part)) != NULL) {
		found++;
		text += strlen(part);
	}
	return found;
}

#define NOTICE " slots in use: connections are evicted\n"
enum { NOTICE_INTERVAL_S = 10 };

/* The line of TEXT that PLACE is in. */
static const char *
line_of(const char *text, const char *place)
{
	while (place != text && place[-1] != '\n')
		place--;
	return place;
}

/* Checks that the log says that connections are evicted, not too often, and says little besides.
 * If slots are short first, LEAST or more are in use. */
static void
expect_notice(unsigned least)
{
	char what[16] = "";
	unsigned used = 0, slots = 0;
	char *log = proxy_log(proxy);
	int notices = count(log, NOTICE), seconds = flood_seconds() + 20;
	check(notices >= 1, "the log does not say that connections are evicted");
	check(
	    notices <= 1 + seconds / NOTICE_INTERVAL_S, "it says %d times that they are", notices);
	check(sscanf(line_of(log, strstr(log, NOTICE)),
		  "sniproxy: %15s are short, with %u of %u slots", what, &used, &slots) == 3,
	    "the log tells no counts");
	bool are_slots = strcmp(what, "slots") == 0;
	check(are_slots || strcmp(what, "threads") == 0, "'%s' are short", what);
	check((!are_slots || used >= least) && used <= slots && slots <= OPEN_FILES / 2,
	    "it began with %u of %u slots in use, since %s were short", used, slots, what);
	/* Lines for clients that reset or were rejected are right, if they are limited. There are
	 * two such limits: for failures with the name of a host, and for those without. */
	int lines = count(log, "\n"), most = 2 * (60 + 6 * seconds);
	check(lines <= most, "%d lines were logged, not %d at most", lines, most);
	free(log);
}

static struct evicted
count_evicted(void)
{
	return (struct evicted){
	    .hello = proxy_total(proxy, "evicted-hello"),
	    .connecting = proxy_total(proxy, "evicted-connecting"),
	    .stalled = proxy_total(proxy, "evicted-stalled"),
	    .closing = proxy_total(proxy, "evicted-closing"),
	    .idle = proxy_total(proxy, "evicted-idle"),
	};
}

static long
sum(struct evicted e)
{
	return e.hello + e.connecting + e.stalled + e.closing + e.idle;
}

/* --- The scenarios --- */

static void
print_result(const char *scenario, const char *addresses, struct result r)
{
	fprintf(stderr,
	    "[FLOOD] %s from %s addresses: %ld attacks; %ld honest, %ld failed, p50 %.1f "
	    "ms, p99 %.1f ms (%.1f ms after the first second), max %.1f ms\n",
	    scenario, strcmp(addresses, "0") == 0 ? "ever new" : addresses, r.attacks, r.honest,
	    r.failed, (double)r.p50_us / 1000, (double)r.p99_us / 1000,
	    (double)r.later_p99_us / 1000, (double)r.max_us / 1000);
}

static void
print_evicted(struct evicted e, int64_t cpu_us)
{
	fprintf(stderr,
	    "[FLOOD]     evicted: %ld in the hello, %ld connecting, %ld stalled, %ld "
	    "closing, %ld idle; %ld us of processor time each\n",
	    e.hello, e.connecting, e.stalled, e.closing, e.idle,
	    cpu_us / (sum(e) > 0 ? sum(e) : 1));
}

/* Checks that honest clients were served as without a flood. */
static void
expect_served_meanwhile(struct result r)
{
	check(r.honest == 50L * flood_seconds(), "%ld honest clients", r.honest);
	check(r.failed * ONE_FAILURE_IN <= r.honest,
	    "%ld honest clients of %ld failed, first with errno %ld", r.failed, r.honest,
	    r.first_failure);
	long p99_us = flood_seconds() >= WHOLE_S ? r.p99_us : r.later_p99_us;
	int limit_ms = setting("FLOOD_RATE", 0) != 0 ? P99_BESIDE_OTHERS_MS
	    : few_threads                            ? P99_FEW_THREADS_MS
						     : P99_MS;
	check(p99_us < margin_ms(limit_ms) * 1000L,
	    "the 99th percentile of honest clients was %ld us", p99_us);
	check(r.established == ESTABLISHED, "%ld of %d established connections have survived",
	    r.established, ESTABLISHED);
	long enough = setting("FLOOD_RATE", 0) != 0 ? OPEN_FILES / 8 : OPEN_FILES;
	check(r.attacks > enough, "there were but %ld attacks", r.attacks);
}

/* How many descriptors the proxy has after it has closed those of ended connections. */
static int
settled_descriptors(void)
{
	int before, now = proxy_descriptors(proxy);
	do {
		before = now;
		poll(NULL, 0, margin_ms(100));
		now = proxy_descriptors(proxy);
	} while (now != before);
	return now;
}

/* Waits until the proxy has no more than these descriptors and threads, or as few threads as it
 * always may have. */
static void
expect_as_before(int descriptors, int threads)
{
	const int patience_ms = 25000;
	if (threads < THREADS_LEFT + extra_threads())
		threads = THREADS_LEFT + extra_threads();
	int64_t end_ms = now_ms() + margin_ms(patience_ms);
	while (proxy_descriptors(proxy) > descriptors || proxy_threads(proxy) > threads) {
		check(now_ms() < end_ms, "%d descriptors and %d threads, after %d and %d before",
		    proxy_descriptors(proxy), proxy_threads(proxy), descriptors, threads);
		poll(NULL, 0, 10);
	}
}

/* Floods the proxy, which has started, and checks that it serves honest clients and recovers. At
 * least LEAST connections are open when the first is evicted. Returns how many were. */
static struct evicted
withstand_with(unsigned least, const char *scenario, const char *addresses)
{
	int descriptors = settled_descriptors();
	int threads = proxy_threads(proxy);
	testing("%s from %s addresses", scenario, addresses);

	struct result r = flood(scenario, addresses);
	print_result(scenario, addresses, r);
	/* What they have not accepted stays open until they close. */
	close(busy);
	close(asleep);
	for (int i = 0; i < LISTENERS; i++)
		close(listeners[i]);
	expect_total(proxy, "open", 0, 15000);
	struct evicted e = count_evicted();
	print_evicted(e, proxy_cpu_us(proxy));
	expect_notice(least);
	expect_served_meanwhile(r);

	check(sum(e) <= r.attacks + r.honest, "%ld were evicted, which are too many", sum(e));
	expect_as_before(descriptors, threads);
	expect_idle(proxy);
	check(sum(count_evicted()) == sum(e), "some were evicted after the flood");
	return e;
}

static struct evicted
withstand(const char *scenario, const char *addresses)
{
	start(limit_open_files);
	return withstand_with(OPEN_FILES / 4 + 1, scenario, addresses);
}

static void
start_with_few_threads(void)
{
	if (sanitized())
		skip("the sanitizers have threads of their own");
	need_own_user();
	few_threads = true;
	start(limit_threads);
}

static struct evicted
withstand_with_few_threads(const char *scenario, const char *addresses)
{
	start_with_few_threads();
	struct evicted e = withstand_with(THREADS / 4, scenario, addresses);
	/* The most was sampled only now and then. */
	check(most_threads * 4 >= threads_max() * 3, "there were %d threads at most, not %d",
	    most_threads, threads_max());
	return e;
}

/* With ThreadSanitizer, a connection takes so long that attackers seem to make progress, and honest
 * clients none. */
static void
need_speed(void)
{
	const char *sanitize = getenv("SANITIZE");
	if (sanitize != NULL && strstr(sanitize, "thread") != NULL)
		skip("ThreadSanitizer is too slow for this");
}

#define FLOOD_TEST(name) \
	static void flood_##name(void); \
	Test(flood, name, .timeout = TIMEOUT_S) \
	{ \
		harness_run("flood/" #name, flood_##name); \
	} \
	static void flood_##name(void)

#define ONE "1"
#define HANDFUL "5"
#define BOTNET "0"

/* Of several hundred connections at a time, most must be evicted. */
#define expect_many(count) check((count) > 100, "only %ld: " #count, count)
/* A connection that a sanitizer slows down may seem to make no progress. */
#define expect_none(count) check((count) <= (sanitized() ? 20 : 0), "%ld: " #count, count)

/* --- Silent connections, and hellos that never end --- */

static void
expect_hellos_evicted(const char *scenario, const char *addresses)
{
	struct evicted e = withstand(scenario, addresses);
	expect_many(e.hello);
	expect_none(e.connecting + e.stalled + e.idle);
}

FLOOD_TEST(silent)
{
	expect_hellos_evicted("silent", HANDFUL);
}

FLOOD_TEST(silent_botnet)
{
	expect_hellos_evicted("silent", BOTNET);
}

FLOOD_TEST(half_hellos)
{
	expect_hellos_evicted("half", HANDFUL);
}

FLOOD_TEST(half_hellos_botnet)
{
	expect_hellos_evicted("half", BOTNET);
}

FLOOD_TEST(dribble)
{
	expect_hellos_evicted("dribble", HANDFUL);
}

FLOOD_TEST(dribble_botnet)
{
	expect_hellos_evicted("dribble", BOTNET);
}

/* --- Whole hellos for backends that do nothing --- */

/* A handful of addresses soon holds too much: then further connections of theirs do not reach the
 * backend. */
static void
expect_handful_evicted(const char *scenario)
{
	struct evicted e = withstand(scenario, HANDFUL);
	expect_many(e.hello);
	expect_none(e.idle);
}

FLOOD_TEST(unaccepted)
{
	expect_handful_evicted("unaccepted");
}

FLOOD_TEST(unaccepted_botnet)
{
	need_speed();
	struct evicted e = withstand("unaccepted", BOTNET);
	expect_many(e.connecting);
	expect_none(e.idle);
	/* The backend of those that fit into the backlog takes nothing. */
	expect_none(e.stalled - (e.stalled < BUSY_ROOM ? e.stalled : BUSY_ROOM));
}

static void
expect_stalled_evicted(const char *scenario)
{
	need("SIOCOUTQ");
	struct evicted e = withstand(scenario, BOTNET);
	expect_many(e.connecting + e.stalled); /* or rejected, for their host */
	expect_none(e.idle);
}

/* This backend does not accept either, but its backlog has room for all: what was sent to it stays
 * unread. */
FLOOD_TEST(unread)
{
	expect_handful_evicted("unread");
}

FLOOD_TEST(unread_botnet)
{
	need_speed();
	expect_stalled_evicted("unread");
}

/* --- Downloads that are not read --- */

FLOOD_TEST(stalled)
{
	expect_handful_evicted("stalled");
}

FLOOD_TEST(stalled_botnet)
{
	need_speed();
	expect_stalled_evicted("stalled");
}

/* --- Others --- */

/* They got their alert, and stay. */
FLOOD_TEST(rejected_botnet)
{
	struct evicted e = withstand("rejected", BOTNET);
	expect_many(e.closing);
	expect_none(e.connecting + e.stalled + e.idle);
}

/* They wait for a backend that may be restarting, for a second in all. */
FLOOD_TEST(down_botnet)
{
	struct evicted e = withstand("down", BOTNET);
	expect_many(e.closing);
	expect_none(e.stalled + e.idle);
}

/* Idle established connections of one address that takes all slots it can. */
FLOOD_TEST(idle)
{
	need_speed();
	struct evicted e = withstand("idle", ONE);
	expect_many(e.hello + e.idle);
	check(e.idle > 0, "the address has kept its slots");
	expect_none(e.stalled);
}

FLOOD_TEST(mixture)
{
	struct evicted e = withstand("mixture", HANDFUL);
	expect_many(e.hello);
}

FLOOD_TEST(mixture_botnet)
{
	struct evicted e = withstand("mixture", BOTNET);
	expect_many(e.hello);
	expect_none(e.idle);
}

/* --- Connections that block a thread each, while there are few --- */

static void
expect_stalled_evicted_for_threads(const char *scenario, const char *addresses)
{
	need("SIOCOUTQ");
	struct evicted e = withstand_with_few_threads(scenario, addresses);
	/* A host that blocks too many threads gets no further connections. */
	expect_many(e.connecting + e.stalled);
	expect_none(e.idle);
}

FLOOD_TEST(stalled_few_threads)
{
	expect_stalled_evicted_for_threads("stalled", HANDFUL);
}

FLOOD_TEST(stalled_botnet_few_threads)
{
	expect_stalled_evicted_for_threads("stalled", BOTNET);
}

FLOOD_TEST(sipped_botnet_few_threads)
{
	expect_stalled_evicted_for_threads("sipped", BOTNET);
}

FLOOD_TEST(upload_botnet_few_threads)
{
	expect_stalled_evicted_for_threads("upload", BOTNET);
}

/* A client that sends a byte now and then, and takes the answer, is like an honest one, and blocks
 * no thread: while there are slots, none is evicted. */
FLOOD_TEST(trickle_few_threads)
{
	start_with_few_threads();
	int descriptors = settled_descriptors();
	int threads = proxy_threads(proxy);
	held = FEWER_THAN_SLOTS;
	struct result r = flood("trickle", BOTNET);
	print_result("trickle", BOTNET, r);
	expect_served_meanwhile(r);
	/* Clients may still be in the backlog, and nobody waits for a host that is down then. */
	check(sum(count_evicted()) == 0, "some were evicted");
	for (int i = 0; i < LISTENERS; i++)
		close(listeners[i]);
	expect_as_before(descriptors, threads);
}

/* While threads are short, nobody waits. */
FLOOD_TEST(down_botnet_few_threads)
{
	held = FEWER_THAN_SLOTS;
	start_with_few_threads();
	int descriptors = settled_descriptors();
	int threads = proxy_threads(proxy);
	struct result r = flood("down", BOTNET);
	print_result("down", BOTNET, r);
	for (int i = 0; i < LISTENERS; i++)
		close(listeners[i]);
	expect_served_meanwhile(r);
	expect_none(count_evicted().stalled + count_evicted().idle);
	expect_as_before(descriptors, threads);
}

FLOOD_TEST(unaccepted_botnet_few_threads)
{
	struct evicted e = withstand_with_few_threads("unaccepted", BOTNET);
	expect_many(e.connecting);
	expect_none(e.idle);
}

FLOOD_TEST(threads_botnet_few_threads)
{
	held = FEWER_THAN_SLOTS; /* because trickles are not evicted */
	struct evicted e = withstand_with_few_threads("threads", BOTNET);
	expect_many(e.connecting + e.stalled);
	expect_none(e.idle);
}

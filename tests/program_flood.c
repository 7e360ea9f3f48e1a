/* Floods of connections that make no progress, while the limit on open files is low, or that on
 * threads: honest clients are served all the same, and what was there before stays.
 *
 * FLOOD is the path of the load, see flood.c; FLOOD_SECONDS says how long each flood lasts
 * (3 where it is not set), and FLOOD_RATE how many attacks a second there are (as many as the
 * machine allows). */
#include "harness.h"

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
	THREADS = 64,
	FEWER_THAN_PLACES = 300,
	ESTABLISHED = 20,
	P99_MS = 500,
	P99_BESIDE_OTHERS_MS = 5000, /* where FLOOD_RATE is set, others are at work too */
	P99_FEW_THREADS_MS = 3000,

	/* Where FLOOD_RATE is not set, and threads are few, which all have to go through: at as
	 * many as the machine allows, a hundred and more for each thread, nobody was lost, but the
	 * 99th percentile was up to six seconds. */
	FEW_THREADS_RATE = 1000,

	/* A flood that lasts so long counts whole; of a shorter one, the first second, in
	 * which the attackers come all at once, would be too large a part. */
	WHOLE_S = 30,

	/* One honest client of so many may fail. */
	ONE_FAILURE_IN = 1000,

	/* A flood takes longer than it lasts: the last clients, and up to ten seconds until
	 * the proxy has forgotten all. */
	TIMEOUT_S = 3600,

	BUSY_BACKLOG = 4,
	BUSY_PLACES = BUSY_BACKLOG + 1, /* as unix(7) counts them */

	FIRST_LISTENER = 3,
	LISTENERS = 3,
};

/* What the flood has printed. */
struct result {
	long honest, failed, p50_us, p99_us, later_p99_us, max_us;
	long established, attacks, first_failure;
};

/* What the proxy has logged of the flood. */
struct pressure {
	long seconds, hello, waiting, stalled, refused, share, hosts;
};

static struct proxy *proxy;
static bool few_threads; /* which is another matter than few descriptors */
static int most_threads; /* that the proxy was seen to have */
static int held;         /* how many connections attackers may hold; 0: all they can */
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
	snprintf(rate, sizeof rate, "%d",
	    setting("FLOOD_RATE", few_threads ? FEW_THREADS_RATE : 0));
	snprintf(most, sizeof most, "%d", held);
	/* First out of the way of one another. */
	int sources[LISTENERS];
	for (int i = 0; i < LISTENERS; i++)
		sources[i] =
		    fcntl(listeners[i], F_DUPFD_CLOEXEC, FIRST_LISTENER + LISTENERS);
	dup2(output, STDOUT_FILENO);
	for (int i = 0; i < LISTENERS; i++)
		dup2(sources[i], FIRST_LISTENER + i);
	close_range(FIRST_LISTENER + LISTENERS, ~0U, CLOSE_RANGE_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(getenv("FLOOD"), "flood", port, scenario, seconds, addresses, rate, most,
	    (char *)NULL);
	_exit(127);
}

/* Reads up to LENGTH bytes from FD, and counts the proxy's threads while nothing comes. */
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
	while ((got = read_and_watch(
		    output[0], text + length, sizeof text - 1 - length)) > 0)
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

#define BEGINS " connections are open, and no more fit; those without progress give way\n"
#define ENDS "sniproxy: all connections fit again after "

static bool
is_over(void)
{
	char *log = proxy_log(proxy);
	const char *ends = strstr(log, ENDS);
	bool over = ends != NULL && strchr(ends, '\n') != NULL;
	free(log);
	return over;
}

/* The line that PLACE in TEXT is in. */
static const char *
line_of(const char *text, const char *place)
{
	while (place != text && place[-1] != '\n')
		place--;
	return place;
}

/* Checks that the log tells of the pressure once when it begins, with LEAST connections or more,
 * and once when it ends, and says little besides. Returns the counts. */
static struct pressure
expect_pressure_logged(unsigned least)
{
	struct pressure p;
	unsigned open = 0;
	wait_until(is_over(), 40000);
	char *log = proxy_log(proxy);
	int begins = count(log, BEGINS), ends = count(log, ENDS);
	check(begins == 1, "pressure began %d times", begins);
	check(ends == 1, "pressure ended %d times", ends);
	sscanf(line_of(log, strstr(log, BEGINS)), "sniproxy: %u connections", &open);
	check(open >= least && open <= OPEN_FILES / 2, "it began with %u connections",
	    open);
	check(sscanf(strstr(log, ENDS),
		  ENDS
		  "%ld s; gave way: %ld in the hello, %ld waiting for a backend, "
		  "%ld stalled, %ld not closed; turned away: %ld of addresses with too "
		  "many, %ld for flooded hosts",
		  &p.seconds, &p.hello, &p.waiting, &p.stalled, &p.refused, &p.share,
		  &p.hosts) == 7,
	    "the log tells no counts");
	/* Lines for clients that reset or were refused are fine, if those are bounded. */
	int lines = count(log, "\n"), most = 60 + 6 * (flood_seconds() + 20);
	check(lines <= most, "%d lines were logged, not %d at most", lines, most);
	free(log);
	return p;
}

static long
sum(struct pressure p)
{
	return p.hello + p.waiting + p.stalled + p.refused + p.share + p.hosts;
}

/* --- The scenarios --- */

static void
print_result(const char *scenario, const char *addresses, struct result r)
{
	fprintf(stderr,
	    "[FLOOD] %s from %s addresses: %ld attacks; %ld honest, %ld failed, p50 %.1f "
	    "ms, p99 %.1f ms (%.1f ms after the first second), max %.1f ms\n",
	    scenario, strcmp(addresses, "0") == 0 ? "ever new" : addresses, r.attacks,
	    r.honest, r.failed, (double)r.p50_us / 1000, (double)r.p99_us / 1000,
	    (double)r.later_p99_us / 1000, (double)r.max_us / 1000);
}

static void
print_pressure(struct pressure p, int64_t cpu_us)
{
	fprintf(stderr,
	    "[FLOOD]     gave way: %ld in the hello, %ld waiting, %ld stalled, %ld "
	    "refused; %ld over the share, %ld for flooded hosts; %ld us of processor "
	    "time "
	    "each\n",
	    p.hello, p.waiting, p.stalled, p.refused, p.share, p.hosts,
	    cpu_us / (sum(p) > 0 ? sum(p) : 1));
}

/* Checks that honest clients were served, and as if nothing were. */
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
	check(r.established == ESTABLISHED,
	    "%ld of %d established connections have survived", r.established,
	    ESTABLISHED);
	long enough = setting("FLOOD_RATE", 0) != 0 ? OPEN_FILES / 8 : OPEN_FILES;
	check(r.attacks > enough, "there were but %ld attacks", r.attacks);
}

/* How many descriptors the proxy has once it has closed those of connections that have
 * ended. */
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

/* Waits until the proxy has no more descriptors and threads than that; a thread without
 * work lives for ten seconds. */
static void
expect_as_before(int descriptors, int threads)
{
	const int patience_ms = 25000;
	int64_t end_ms = now_ms() + margin_ms(patience_ms);
	while (proxy_descriptors(proxy) > descriptors || proxy_threads(proxy) > threads) {
		check(now_ms() < end_ms,
		    "%d descriptors and %d threads, after %d and %d before",
		    proxy_descriptors(proxy), proxy_threads(proxy), descriptors, threads);
		poll(NULL, 0, 10);
	}
}

/* Floods the proxy, which has started, and checks that it treats honest clients as it should and
 * is afterwards as before; LEAST connections are open when the first gives way. Returns how many
 * did. */
static struct pressure
withstand_with(unsigned least, const char *scenario, const char *addresses)
{
	int descriptors = settled_descriptors();
	int threads = proxy_threads(proxy);
	testing("%s from %s addresses", scenario, addresses);

	struct result r = flood(scenario, addresses);
	print_result(scenario, addresses, r);
	/* What they have not accepted stays open until they go. */
	close(busy);
	close(asleep);
	for (int i = 0; i < LISTENERS; i++)
		close(listeners[i]);
	struct pressure p = expect_pressure_logged(least);
	print_pressure(p, proxy_cpu_us(proxy));
	expect_served_meanwhile(r);

	check(sum(p) <= r.attacks + r.honest, "%ld gave way, which are too many", sum(p));
	expect_as_before(descriptors, threads);
	expect_idle(proxy);
	return p;
}

static struct pressure
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

/* A connection of the attackers may keep two threads. */
static struct pressure
withstand_with_few_threads(const char *scenario, const char *addresses)
{
	start_with_few_threads();
	struct pressure p = withstand_with(THREADS / 4, scenario, addresses);
	/* The most is what was seen now and then. */
	check(most_threads * 4 >= threads_max() * 3,
	    "there were %d threads at most, not %d", most_threads, threads_max());
	return p;
}

#define FLOOD_TEST(name) \
	static void flood_##name(void); \
	Test(flood, name, .timeout = TIMEOUT_S) \
	{ \
		harness_run("flood/" #name, flood_##name); \
	} \
	static void flood_##name(void)

#define HANDFUL "5"
#define BOTNET "0"

/* Of several hundred connections at a time most have to give way. */
#define expect_many(count) check((count) > 100, "only %ld: " #count, count)
/* What a sanitizer slows down may look as if it made no progress. */
#define expect_none(count) check((count) <= (sanitized() ? 20 : 0), "%ld: " #count, count)

/* --- Silent connections --- */

FLOOD_TEST(silent)
{
	struct pressure p = withstand("silent", HANDFUL);
	expect_many(p.share);
	expect_none(p.waiting + p.stalled);
}

FLOOD_TEST(silent_botnet)
{
	struct pressure p = withstand("silent", BOTNET);
	expect_many(p.hello);
	expect_none(p.waiting + p.stalled + p.share + p.hosts);
}

/* --- Hellos that never end --- */

FLOOD_TEST(half_hellos)
{
	struct pressure p = withstand("half", HANDFUL);
	expect_many(p.share);
	expect_none(p.waiting + p.stalled);
}

FLOOD_TEST(half_hellos_botnet)
{
	struct pressure p = withstand("half", BOTNET);
	expect_many(p.hello);
	expect_none(p.waiting + p.stalled + p.share + p.hosts);
}

FLOOD_TEST(dribble)
{
	struct pressure p = withstand("dribble", HANDFUL);
	expect_many(p.share);
	expect_none(p.waiting + p.stalled);
}

FLOOD_TEST(dribble_botnet)
{
	struct pressure p = withstand("dribble", BOTNET);
	expect_many(p.hello);
	expect_none(p.waiting + p.stalled + p.share + p.hosts);
}

/* --- Whole hellos for backends that do nothing --- */

FLOOD_TEST(unaccepted)
{
	struct pressure p = withstand("unaccepted", HANDFUL);
	expect_many(p.share);
	expect_none(p.stalled);
}

FLOOD_TEST(unaccepted_botnet)
{
	struct pressure p = withstand("unaccepted", BOTNET);
	expect_many(p.waiting);
	expect_none(p.share);
	/* Those that fit into the backlog wait for one that takes nothing. */
	expect_none(p.stalled - (p.stalled < BUSY_PLACES ? p.stalled : BUSY_PLACES));
}

/* The backend does not accept either, but its backlog has room for all: what it was sent
 * lies there untaken. */
FLOOD_TEST(unread)
{
	need("SIOCOUTQ");
	struct pressure p = withstand("unread", HANDFUL);
	expect_many(p.share);
}

FLOOD_TEST(unread_botnet)
{
	need("SIOCOUTQ");
	struct pressure p = withstand("unread", BOTNET);
	expect_many(p.waiting + p.stalled);
	expect_none(p.share);
}

/* --- Downloads that nobody reads --- */

FLOOD_TEST(stalled)
{
	struct pressure p = withstand("stalled", HANDFUL);
	expect_many(p.share);
	expect_none(p.waiting);
}

FLOOD_TEST(stalled_botnet)
{
	need("SIOCOUTQ");
	struct pressure p = withstand("stalled", BOTNET);
	expect_many(p.stalled);
	expect_none(p.waiting + p.share);
}

/* --- Others --- */

/* They got their alert, and stay. */
FLOOD_TEST(refused_botnet)
{
	struct pressure p = withstand("refused", BOTNET);
	expect_many(p.refused);
	expect_none(p.waiting + p.stalled + p.share);
}

FLOOD_TEST(mixture)
{
	struct pressure p = withstand("mixture", HANDFUL);
	expect_many(p.share);
}

FLOOD_TEST(mixture_botnet)
{
	struct pressure p = withstand("mixture", BOTNET);
	expect_many(p.hello);
	expect_none(p.share);
}

/* --- Connections that keep a thread each, where there are few --- */

FLOOD_TEST(stalled_few_threads)
{
	need("SIOCOUTQ");
	struct pressure p = withstand_with_few_threads("stalled", HANDFUL);
	expect_many(p.share);
}

/* Where those keep threads of which a side takes nothing. */
static void
expect_stalled_give_way(const char *scenario)
{
	struct pressure p = withstand_with_few_threads(scenario, BOTNET);
	expect_many(p.stalled);
	expect_none(p.share);
}

FLOOD_TEST(stalled_botnet_few_threads)
{
	need("SIOCOUTQ");
	expect_stalled_give_way("stalled");
}

FLOOD_TEST(sipped_botnet_few_threads)
{
	need("SIOCOUTQ");
	expect_stalled_give_way("sipped");
}

FLOOD_TEST(upload_botnet_few_threads)
{
	need("SIOCOUTQ");
	expect_stalled_give_way("upload");
}

/* Who sends a byte now and then, and takes the answer, is like an honest client, and keeps no
 * thread: where they leave places, nobody gives way. */
FLOOD_TEST(trickle_few_threads)
{
	start_with_few_threads();
	int descriptors = settled_descriptors();
	int threads = proxy_threads(proxy);
	held = FEWER_THAN_PLACES;
	struct result r = flood("trickle", BOTNET);
	print_result("trickle", BOTNET, r);
	expect_served_meanwhile(r);
	char *log = proxy_log(proxy);
	check(strstr(log, BEGINS) == NULL, "some had to give way");
	free(log);
	expect_as_before(descriptors, threads);
}

FLOOD_TEST(unaccepted_botnet_few_threads)
{
	struct pressure p = withstand_with_few_threads("unaccepted", BOTNET);
	expect_many(p.waiting);
	expect_none(p.share);
}

FLOOD_TEST(threads_botnet_few_threads)
{
	held = FEWER_THAN_PLACES; /* since trickles do not give way */
	struct pressure p = withstand_with_few_threads("threads", BOTNET);
	expect_many(p.waiting + p.stalled);
	expect_none(p.share);
}

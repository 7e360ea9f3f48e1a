/* soak PROGRAM DIRECTORY SECONDS SEED
 *
 * Runs PROGRAM, a sniproxy, under load for SECONDS, with its hosts and logs in DIRECTORY, which
 * must be empty. SEED decides the load. Exits with 0 if nothing was wrong. For three fifths of the
 * time copies of the proxy replace each other. Then one copy is loaded twice, and must keep nothing
 * of the second load: no descriptors, no threads, and, with MEMORY in the environment, no memory.
 * (A sanitizer's memory would tell nothing.) */
#include "tests/load/soak.h"

#include "lib/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	ROLES_MAX = 64,
	PROBLEMS_SHOWN = 40,

	/* How many threads may be left: the proxy's own three, its spare ones, and a
	 * sanitizer's. */
	THREADS_KEPT = 3 + 12 + 2,

	/* How long a client that closed early gives the backend to begin. */
	LATE_SESSION_MS = 500,

	/* How long, if the client knows that the session has begun. */
	SESSION_MS = 5000,

	/* How long connections may last after the last one was started. */
	OVERTIME_MS = 3000,

	/* How much memory a second round of the same load may add: the allocator's, which depends
	 * on the order of events. */
	MEMORY_KIB = 512,

	/* What a new thread takes: its memory, and what it has used of its stack. */
	THREAD_KIB = 128,
};

uint64_t soak_seed;
struct record records[CLIENTS + CROWD];

static atomic_uint problem_count;
static struct sockaddr_in proxy_address;

static struct {
	pthread_mutex_t mutex; /* for all that follows */
	uint64_t next_number;
	unsigned begun[ROLES_MAX];
	unsigned whole[ROLES_MAX];   /* ended as planned */
	unsigned cut[ROLES_MAX];     /* cut off by a copy of the proxy that stopped */
	unsigned evicted[ROLES_MAX]; /* evicted during a crowd */
	uint64_t up, down;           /* bytes that arrived */
	unsigned open, most_open;
	int64_t crowd_since_ms; /* 0: there is none */
	int64_t crowd_until_ms; /* of the last crowd */
} soak = {.mutex = PTHREAD_MUTEX_INITIALIZER, .next_number = 1};

/* --- Failures, time and chance --- */

void
problem(const char *format, ...)
{
	char line[1400];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (problem_count++ < PROBLEMS_SHOWN)
		fprintf(stderr, "soak: %s\n", line);
}

unsigned
problems(void)
{
	return problem_count;
}

void
broken(const char *what)
{
	fprintf(stderr, "soak: cannot go on: %s: %s\n", what, strerror(errno));
	_exit(2);
}

int64_t
now_ms(void)
{
	return clock_ms();
}

void
sleep_ms(int64_t ms)
{
	if (ms > 0)
		nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

struct chance
chance_of(uint64_t number)
{
	struct chance chance = {soak_seed ^ number * UINT64_C(0xd6e8feb86659fd93)};
	between(&chance, 0, 1);
	return chance;
}

/* splitmix64. */
uint64_t
between(struct chance *chance, uint64_t least, uint64_t most)
{
	uint64_t z = chance->state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	uint64_t range = most - least + 1; /* 0 means all of them */
	return range == 0 ? z : least + z % range;
}

bool
one_in(struct chance *chance, uint64_t count)
{
	return between(chance, 1, count) == 1;
}

/* --- The result of a connection --- */

static bool
is_alert(const struct tally *client, uint8_t alert)
{
	const uint8_t wanted[ALERT_LENGTH] = {21, 3, 3, 0, 2, 2, alert};
	return client->read == ALERT_LENGTH && memcmp(client->first, wanted, ALERT_LENGTH) == 0;
}

static const char *
judge_served(const struct record *record)
{
	const struct plan *plan = &record->plan;
	if (record->session == NONE)
		return "no backend got it";
	if (record->opening_read != plan->opening.length)
		return "the hello did not arrive whole";
	if (record->backend.read != plan->client.bytes)
		return "not all that the client wrote arrived";
	if (record->client.read != plan->backend.bytes)
		return "not all that the backend wrote arrived";
	if (record->backend.end != ENDED || record->client.end != ENDED)
		return "it did not end by half-closes";
	if (record->client.error != 0 || record->backend.error != 0)
		return "writing failed";
	return NULL;
}

static const char *
judge_backend_cuts(const struct record *record)
{
	if (record->session == NONE)
		return "no backend got it";
	if (record->client.read != record->plan.backend.bytes)
		return "not all that the backend wrote arrived";
	if (record->client.end != ENDED)
		return "the client did not get the end";
	return NULL;
}

static const char *
judge_refused(const struct record *record)
{
	if (record->session != NONE)
		return "a backend got it";
	if (!is_alert(&record->client, record->plan.alert))
		return "the client did not get its alert";
	return record->client.end == ENDED ? NULL : "no end after the alert";
}

static const char *
judge_unanswered(const struct record *record)
{
	if (record->session != NONE || record->client.read != 0)
		return "it was answered";
	return record->client.end == ENDED ? NULL : "the client did not get the end";
}

static const char *
judge_client_cuts(const struct record *record)
{
	if (record->client.end == STUCK || record->backend.end == STUCK)
		return "it did not end";
	if (record->client.end == WAS_RESET || record->client.error != 0)
		return "the client was cut off";
	return NULL;
}

/* Returns what differs from the plan, or NULL. */
static const char *
judge(const struct record *record)
{
	switch (record->plan.role->outcome) {
	case SERVED:
		return judge_served(record);
	case CLIENT_CUTS:
		return judge_client_cuts(record);
	case BACKEND_CUTS:
		return judge_backend_cuts(record);
	case REFUSED:
		return judge_refused(record);
	case UNANSWERED:
		return judge_unanswered(record);
	case GONE:
		return record->session != NONE ? "a backend got it" : NULL;
	case RESTARTED:
		if (record->session != NONE)
			return judge_served(record);
		return record->client.read != 0 ? judge_refused(record) : judge_unanswered(record);
	}
	return "no such outcome";
}

/* Whether it was evicted, or its backend had no room in time. */
static bool
is_evicted(const struct tally *client)
{
	return is_alert(client, TLS_INTERNAL_ERROR) || is_alert(client, TLS_USER_CANCELED);
}

/* In every connection, each byte must be right, and must have been written. Returns what is wrong,
 * or NULL. */
static const char *
judge_bytes(const struct record *record, bool alert_allowed)
{
	const struct plan *plan = &record->plan;
	const struct tally *client = &record->client, *backend = &record->backend;
	if (record->session != NONE && backend->wrong)
		return "a wrong byte reached the backend";
	if (record->session != NONE && backend->read > client->written)
		return "more reached the backend than was sent";
	bool is_refused = is_alert(client, plan->alert) || (alert_allowed && is_evicted(client));
	if (is_refused && record->session == NONE)
		return NULL;
	if (client->wrong && client->read > 0)
		return "a wrong byte reached the client";
	uint64_t written = record->session == NONE ? 0 : backend->written;
	return client->read > written ? "more reached the client than was sent" : NULL;
}

static void
report(const struct record *record, const char *what)
{
	static const char *const ends[] = {"open", "ended", "reset", "stuck", "left"};
	const struct plan *plan = &record->plan;
	const struct tally *c = &record->client, *b = &record->backend;
	problem("connection %llu (%s, %s, port %u): %s\n"
		"\tclient: wrote %llu of %llu, read %llu (wrong: %d at %llu), %s, error %d\n"
		"\tbackend: session %d, copy %d, hello %zu of %zu, wrote %llu of %llu, read "
		"%llu "
		"(wrong: %d at %llu), %s, error %d; %lld ms",
	    (unsigned long long)plan->number, plan->role->name,
	    plan->host == NULL ? "-" : plan->host, ntohs(record->address.sin_port), what,
	    (unsigned long long)c->written, (unsigned long long)plan->client.bytes,
	    (unsigned long long)c->read, c->wrong, (unsigned long long)c->wrong_at, ends[c->end],
	    c->error, record->session, (int)record->copy, record->opening_read,
	    plan->opening.length, (unsigned long long)b->written,
	    (unsigned long long)plan->backend.bytes, (unsigned long long)b->read, b->wrong,
	    (unsigned long long)b->wrong_at, ends[b->end], b->error,
	    (long long)(c->ended_ms - record->began_ms));
}

/* Whether it happened during a crowd. */
static bool
was_crowded(const struct record *record)
{
	pthread_mutex_lock(&soak.mutex);
	bool crowded = soak.crowd_since_ms != 0 || record->began_ms <= soak.crowd_until_ms;
	pthread_mutex_unlock(&soak.mutex);
	return crowded;
}

static void
count_record(const struct record *record, unsigned *of_role)
{
	pthread_mutex_lock(&soak.mutex);
	of_role[record->plan.role - roles]++;
	soak.down += record->client.read;
	if (record->session != NONE)
		soak.up += record->opening_read + record->backend.read;
	pthread_mutex_unlock(&soak.mutex);
}

/* When the connection ended, for the side that noticed first. */
static int64_t
end_of(const struct record *record)
{
	int64_t ended_ms = record->client.ended_ms;
	if (record->session != NONE && record->backend.ended_ms < ended_ms)
		ended_ms = record->backend.ended_ms;
	return ended_ms;
}

static void
conclude(const struct record *record)
{
	bool crowded = was_crowded(record);
	const char *wrong = judge_bytes(record, crowded);
	const char *unplanned = judge(record);
	if (wrong != NULL)
		report(record, wrong);
	else if (unplanned == NULL)
		count_record(record, soak.whole);
	else if (record->plan.role->seconds * 1000 > GRACE_MS &&
	    copies_cut(record->copy, record->began_ms, end_of(record)))
		count_record(record, soak.cut);
	else if (crowded && record->client.end != STUCK)
		count_record(record, soak.evicted);
	else
		report(record, unplanned);
}

/* --- Clients --- */

static int
connect_to_proxy(struct record *record)
{
	const int on = 1, small = 4096;
	record->address = (struct sockaddr_in){.sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK + record->plan.slot % 200)};
	socklen_t size = sizeof record->address;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s == -1)
		broken("socket");
	setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	if (record->plan.small_buffers)
		setsockopt(s, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	if (bind(s, (struct sockaddr *)&record->address, size) == -1)
		broken("bind");
	if (connect(s, (struct sockaddr *)&proxy_address, sizeof proxy_address) == -1) {
		problem("connection %llu was refused: %s", (unsigned long long)record->plan.number,
		    strerror(errno));
		close(s);
		return -1;
	}
	getsockname(s, (struct sockaddr *)&record->address, &size);
	fcntl(s, F_SETFL, O_NONBLOCK);
	return s;
}

/* Sends the opening. Returns false if the proxy does not take it. */
static bool
send_opening(int s, const struct plan *plan, int64_t deadline_ms)
{
	size_t sent = 0;
	const struct bytes *opening = &plan->opening;
	while (sent < opening->length && now_ms() < deadline_ms) {
		size_t length = plan->opening_pause_us > 0 ? 1 : opening->length - sent;
		ssize_t now = send(s, opening->data + sent, length, MSG_NOSIGNAL);
		if (now == -1 && errno != EAGAIN)
			return false;
		if (now == -1)
			poll(&(struct pollfd){.fd = s, .events = POLLOUT}, 1, 1000);
		sent += now == -1 ? 0 : (size_t)now;
		if (plan->opening_pause_us > 0)
			nanosleep(&(struct timespec){0, plan->opening_pause_us * 1000L}, NULL);
	}
	return sent == opening->length;
}

static void
count_open(int change)
{
	pthread_mutex_lock(&soak.mutex);
	soak.open += (unsigned)change;
	if (soak.open > soak.most_open)
		soak.most_open = soak.open;
	pthread_mutex_unlock(&soak.mutex);
}

/* Waits until the backend has finished with the connection, if it has begun or is about to. */
static void
await_session(struct record *record)
{
	const struct plan *plan = &record->plan;
	enum outcome outcome = plan->role->outcome;
	int64_t begin_ms = outcome == CLIENT_CUTS ? LATE_SESSION_MS
	    : outcome == SERVED || outcome == BACKEND_CUTS || record->client.read > 0 ? SESSION_MS
										      : 0;
	if (is_alert(&record->client, plan->alert))
		begin_ms = 0;
	int64_t deadline_ms = now_ms() + begin_ms;
	pthread_mutex_lock(&record->mutex);
	while (record->session == RUNNING || (record->session == NONE && now_ms() < deadline_ms)) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 20 * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&record->changed, &record->mutex, &until);
	}
	record->awaited = 0;
	pthread_mutex_unlock(&record->mutex);
}

static void
leave(int s, enum finish how)
{
	const struct linger at_once = {.l_onoff = 1};
	if (how == RESET)
		setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(s);
}

static void
use_socket(struct record *record, int s)
{
	const struct plan *plan = &record->plan;
	int64_t deadline_ms = record->began_ms + plan->role->seconds * 1000 + STUCK_MS;
	count_open(1);
	/* If it is not taken completely, an alert or a reset follows. */
	send_opening(s, plan, deadline_ms);
	stream_run(s, &plan->client, plan->number, CLIENT, &record->client, deadline_ms);
	leave(s, plan->client.finish);
	count_open(-1);
}

static void
run_connection(struct record *record, uint64_t number, unsigned role)
{
	struct plan plan;
	plan_make(&plan, number, role, (unsigned)(record - records));
	pthread_mutex_lock(&record->mutex);
	record->plan = plan;
	record->awaited = number;
	record->client = record->backend = (struct tally){0};
	record->session = NONE;
	record->copy = 0;
	record->opening_read = 0;
	record->began_ms = now_ms();
	int s = connect_to_proxy(record);
	pthread_mutex_unlock(&record->mutex);
	if (s != -1) {
		use_socket(record, s);
		await_session(record);
		copies_note(record->copy, record->began_ms, record->client.ended_ms);
		conclude(record);
	}
	bytes_release(&record->plan.opening);
}

static uint64_t
take_number(void)
{
	pthread_mutex_lock(&soak.mutex);
	uint64_t number = soak.next_number++;
	pthread_mutex_unlock(&soak.mutex);
	return number;
}

static void
count_begun(unsigned role)
{
	pthread_mutex_lock(&soak.mutex);
	soak.begun[role]++;
	pthread_mutex_unlock(&soak.mutex);
}

/* --- Load --- */

static atomic_uint clients_running;
static int64_t load_until_ms; /* set before there are clients */
static pthread_barrier_t crowd_is_there;

static void *
run_client(void *argument)
{
	struct record *record = argument;
	while (now_ms() < load_until_ms) {
		uint64_t number = take_number();
		unsigned role = role_of(number);
		/* A role that would last longer than the load is left out, except for its first
		 * connection. */
		if (number > role_count && roles[role].seconds > 1 &&
		    now_ms() + roles[role].seconds * 1000 > load_until_ms + OVERTIME_MS)
			continue;
		count_begun(role);
		run_connection(record, number, role);
	}
	clients_running--;
	return NULL;
}

static void *
run_one_of_the_crowd(void *argument)
{
	count_begun(crowd_role);
	pthread_barrier_wait(&crowd_is_there);
	run_connection(argument, take_number(), crowd_role);
	clients_running--;
	return NULL;
}

static void
start_clients(pthread_t *threads, void *(*run)(void *), size_t first, size_t count)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	for (size_t i = first; i < first + count; i++) {
		clients_running++;
		if (pthread_create(&threads[i], &attributes, run, &records[i]) != 0)
			broken("pthread_create");
	}
	pthread_attr_destroy(&attributes);
}

/* Replaces *COPY by a new one, which takes over the socket before or after the other is told to
 * stop. */
static void
hand_over(struct copy **copy, struct chance *chance)
{
	if (one_in(chance, 2)) {
		copies_hang_up(*copy);
		*copy = copies_start();
	} else {
		struct copy *old = *copy;
		*copy = copies_start();
		copies_hang_up(old);
	}
}

/* Loads the proxy for SECONDS, and waits until all connections have ended. Copies replace each
 * other meanwhile. */
static void
load_with_handovers(int seconds, struct copy **copy)
{
	pthread_t threads[CLIENTS];
	struct chance chance = chance_of(UINT64_C(1) << 41);
	load_until_ms = now_ms() + seconds * 1000;
	start_clients(threads, run_client, 0, CLIENTS);
	int64_t next_ms = now_ms() + 1000;
	while (clients_running > 0 || hosts_sessions() > 0) {
		copies_reap();
		if (now_ms() > next_ms && now_ms() < load_until_ms && copy_has_served(*copy)) {
			hand_over(copy, &chance);
			next_ms = now_ms() + (int64_t)between(&chance, 1000, 5000);
		}
		sleep_ms(20);
	}
	for (size_t i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
}

/* Loads the proxy for SECONDS, and waits until all connections have ended. It begins with more
 * connections than its limit on open files allows. Returns the most descriptors that it had. */
static int
load_with_crowd(int seconds, const struct copy *copy)
{
	pthread_t threads[CLIENTS + CROWD];
	int most = 0;
	load_until_ms = now_ms() + seconds * 1000;
	pthread_mutex_lock(&soak.mutex);
	soak.crowd_since_ms = now_ms();
	pthread_mutex_unlock(&soak.mutex);
	start_clients(threads, run_client, 0, CLIENTS);
	start_clients(threads, run_one_of_the_crowd, CLIENTS, CROWD);
	pthread_barrier_wait(&crowd_is_there); /* the crowd begins when this thread looks */
	do {
		int descriptors = copy_usage(copy).descriptors;
		most = descriptors > most ? descriptors : most;
		copies_reap();
		sleep_ms(20);
	} while (clients_running > CLIENTS);
	pthread_mutex_lock(&soak.mutex);
	soak.crowd_since_ms = 0;
	soak.crowd_until_ms = now_ms();
	pthread_mutex_unlock(&soak.mutex);
	while (clients_running > 0 || hosts_sessions() > 0) {
		copies_reap();
		sleep_ms(20);
	}
	for (size_t i = 0; i < CLIENTS + CROWD; i++)
		pthread_join(threads[i], NULL);
	return most;
}

/* --- What is left --- */

/* Serves connections of ROLE, one after another. */
static void
serve_some(unsigned role, int count)
{
	for (int i = 0; i < count; i++) {
		count_begun(role);
		run_connection(&records[0], take_number(), role);
	}
	copies_reap();
}

/* Waits until COPY uses no more descriptors and threads than WANTED. Returns what it uses. */
static struct usage
await_usage(const struct copy *copy, struct usage wanted, int ms)
{
	int64_t deadline_ms = now_ms() + ms;
	struct usage usage = copy_usage(copy);
	while ((usage.descriptors != wanted.descriptors || usage.threads > wanted.threads) &&
	    now_ms() < deadline_ms) {
		sleep_ms(50);
		copies_reap();
		usage = copy_usage(copy);
	}
	return usage;
}

/* Whether there is more memory after a load than WARM, which was before it. */
static bool
has_grown(struct usage warm, struct usage after)
{
	int more = after.threads > warm.threads ? after.threads - warm.threads : 0;
	return getenv("MEMORY") != NULL &&
	    after.anonymous_kib > warm.anonymous_kib + MEMORY_KIB + more * THREAD_KIB;
}

static void
check_left(struct usage before, struct usage warm, struct usage after)
{
	printf("left over: %d descriptors, %d threads, %ld KiB\n",
	    after.descriptors - before.descriptors, after.threads - before.threads,
	    after.anonymous_kib - warm.anonymous_kib);
	if (after.descriptors != before.descriptors)
		problem("%d descriptors instead of %d", after.descriptors, before.descriptors);
	if (after.threads > before.threads)
		problem("%d threads instead of %d", after.threads, before.threads);
	if (has_grown(warm, after))
		problem("%ld KiB of memory, %ld before the last load", after.anonymous_kib,
		    warm.anonymous_kib);
}

static void
check_idle(const struct copy *copy)
{
	const int watched_ms = 500;
	int64_t before_us = copy_usage(copy).cpu_us;
	sleep_ms(watched_ms);
	int64_t used_us = copy_usage(copy).cpu_us - before_us;
	if (used_us > watched_ms * 1000 / 10)
		problem("it used %lld us of CPU time in %d ms with nothing to do",
		    (long long)used_us, watched_ms);
}

/* Loads COPY again and again. Its memory must not grow each time. Once it may: the C library's
 * memory for a new thread may be above much that is free again. */
static void
load_again(const struct copy *copy, int seconds)
{
	const int threads_end_ms = 8000; /* the spare ones, except for some */
	serve_some(tiny_role, 32);
	sleep_ms(500); /* the last of them may not have ended yet */
	struct usage before = copy_usage(copy);
	serve_some(bulk_role, 32);
	before.threads = THREADS_KEPT;
	int most = load_with_crowd(seconds, copy);
	/* Each thread has memory too. */
	struct usage warm = before;
	if (getenv("MEMORY") != NULL)
		warm = await_usage(copy, before, threads_end_ms);
	load_with_crowd(seconds, copy);
	struct usage after = await_usage(copy, before, threads_end_ms);
	if (has_grown(warm, after)) {
		warm = after;
		load_with_crowd(seconds, copy);
		after = await_usage(copy, before, threads_end_ms);
	}
	check_left(before, warm, after);
	check_idle(copy);
	if (most < OPEN_FILES / 2) /* an eighth of the slots is kept free */
		problem("the crowd was no crowd: %d descriptors at most", most);
}

/* --- The whole --- */

static void
print_summary(void)
{
	printf("%-24s %8s %8s %8s %8s\n", "", "begun", "right", "cut off", "evicted");
	unsigned begun = 0, anonymous = 0;
	for (unsigned i = 0; i < role_count; i++) {
		printf("%-24s %8u %8u %8u %8u\n", roles[i].name, soak.begun[i], soak.whole[i],
		    soak.cut[i], soak.evicted[i]);
		begun += soak.begun[i];
		anonymous += soak.cut[i] + soak.evicted[i];
		if (roles[i].outcome == CLIENT_CUTS)
			anonymous += soak.begun[i];
		if (soak.whole[i] + soak.cut[i] == 0)
			problem("no connection did this: %s", roles[i].name);
	}
	if (hosts_nameless() > anonymous)
		problem("%u connections reached backends without a hello", hosts_nameless());
	printf("connections: %u, up to %u at once; bytes: %llu up, %llu down\n", begun,
	    soak.most_open, (unsigned long long)soak.up, (unsigned long long)soak.down);
	copies_print();
}

static int
listen_for_clients(void)
{
	proxy_address =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof proxy_address;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s == -1 || bind(s, (struct sockaddr *)&proxy_address, size) == -1 ||
	    listen(s, SOMAXCONN) == -1 ||
	    getsockname(s, (struct sockaddr *)&proxy_address, &size) == -1)
		broken("listen");
	return s;
}

int
main(int argc, char *argv[])
{
	char program[4096];
	if (argc != 5 || realpath(argv[1], program) == NULL || chdir(argv[2]) == -1) {
		fprintf(stderr, "usage: soak PROGRAM DIRECTORY SECONDS SEED\n");
		return 2;
	}
	int seconds = (int)strtol(argv[3], NULL, 10);
	soak_seed = strtoull(argv[4], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < CLIENTS + CROWD; i++) {
		pthread_mutex_init(&records[i].mutex, NULL);
		pthread_cond_init(&records[i].changed, NULL);
	}
	pthread_barrier_init(&crowd_is_there, NULL, CROWD + 1);
	int listener = listen_for_clients();
	copies_init(program, listener);
	hosts_start(ntohs(proxy_address.sin_port));

	struct copy *copy = copies_start();
	load_with_handovers(seconds * 3 / 5, &copy);
	struct copy *last = copies_start();
	copies_hang_up(copy);
	load_again(last, seconds / 5);
	copies_stop(last);
	copies_judge();
	hosts_stop();
	print_summary();
	printf("%s\n", problems() == 0 ? "nothing was wrong" : "FAILED");
	return problems() == 0 ? 0 : 1;
}

/* The totals that SIGUSR1 asks for, and the lines of ended connections. */
#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_SIZE = 1024 };

static struct proxy *proxy;

/* --- Lines --- */

/* Copies the last line of the log that begins with START and contains PART to LINE. Returns how
 * many such lines there are. */
static int
find_lines(char line[LINE_SIZE], const char *start, const char *part)
{
	char *log = proxy_log(proxy), *rest = log, *one;
	int count = 0;
	while ((one = strsep(&rest, "\n")) != NULL) {
		/* The text after the last newline is still being written. */
		if (rest == NULL || strncmp(one, start, strlen(start)) != 0 ||
		    strstr(one, part) == NULL)
			continue;
		count++;
		snprintf(line, LINE_SIZE, "%s", one);
	}
	free(log);
	return count;
}

static int
count_lines(const char *start, const char *part)
{
	char line[LINE_SIZE];
	return find_lines(line, start, part);
}

/* The value of KEY in LINE; as a number in number_in(). */
static char *
value_in(const char *line, const char *key)
{
	static char value[LINE_SIZE];
	char wanted[64];
	snprintf(wanted, sizeof wanted, " %s=", key);
	const char *found = strstr(line, wanted);
	check(found != NULL, "no %s in: %s", key, line);
	found += strlen(wanted);
	snprintf(value, sizeof value, "%.*s", (int)strcspn(found, " "), found);
	return value;
}

static int
number_in(const char *line, const char *key)
{
	char *end, *value = value_in(line, key);
	long number = strtol(value, &end, 10);
	check(end != value && *end == '\0', "%s is no number in: %s", key, line);
	return (int)number;
}

/* The beginning of a line about the client at PORT. */
static const char *
start_of(uint16_t port)
{
	static char start[128];
	snprintf(start, sizeof start,
	    strchr(server.address, ':') != NULL ? "client=[%s]:%u " : "client=%s:%u ",
	    server.address, port);
	return start;
}

#define TOTALS "sniproxy: seconds="

/* What docs/troubleshooting.md says of the lines. No value has characters that logfmt would quote:
 * a space, a quote or an equals sign. */
#define CLIENT "client=([0-9.]+|\\[[0-9a-f:.]+(%[^ =\"]+)?\\]):[0-9]+ "
#define NUMBERS "seconds=[0-9]+\\.[0-9]{3} up=[0-9]+ down=[0-9]+"
#define ENDS \
	"closed|backend-closed|backend-reset|client-reset|client-timeout|evicted|" \
	"failed|" \
	"cut-off"
#define ALERTS \
	"unexpected_message|record_overflow|illegal_parameter|decode_error|" \
	"internal_error|user_canceled|unrecognized_name"
#define GRAMMAR \
	"^(" CLIENT "name=(-|[a-z0-9][a-z0-9.-]*) " NUMBERS " end=(" ENDS \
	"|rejected alert=(" ALERTS "))" \
	"|sniproxy: seconds=[0-9]+\\.[0-9]{3}( [a-z_-]+=[0-9]+)+)$"

/* Checks the form of each such line in the log. Returns how many there are. */
static int
expect_grammar(void)
{
	regex_t grammar;
	char *log = proxy_log(proxy), *rest = log, *line;
	int count = 0;
	cr_assert_eq(regcomp(&grammar, GRAMMAR, REG_EXTENDED | REG_NOSUB), 0);
	while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
		if (strstr(line, "seconds=") == NULL && strstr(line, "client=") == NULL)
			continue;
		count++;
		if (regexec(&grammar, line, 0, NULL, 0) != 0)
			fail_at(HERE, "other grammar: %s", line);
	}
	regfree(&grammar);
	free(log);
	return count;
}

static int
count_totals(void)
{
	return count_lines(TOTALS, " accepted=");
}

/* Asks for the totals, and copies their line to LINE. */
static void
report(char line[LINE_SIZE])
{
	int before = count_totals();
	kill(proxy->pid, SIGUSR1);
	wait_until(find_lines(line, TOTALS, " accepted=") > before, 5000);
	check(expect_grammar() > before, "lines are lost");
}

/* Each connection that was accepted is open, or has ended in one way. */
static void
expect_adds_up(const char *line)
{
	static const char *const parts[] = {"open", "failed", "closed", "backend-closed",
	    "backend-reset", "client-reset", "client-timeout", "rejected", "evicted"};
	static const char *const alerts[] = {"unexpected_message", "record_overflow",
	    "illegal_parameter", "decode_error", "internal_error", "user_canceled",
	    "unrecognized_name"};
	static const char *const kinds[] = {"evicted-hello", "evicted-connecting",
	    "evicted-stalled", "evicted-closing", "evicted-idle"};
	int sum = 0, rejected = 0, evicted = 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		sum += number_in(line, parts[i]);
	for (size_t i = 0; i < sizeof alerts / sizeof *alerts; i++)
		rejected += number_in(line, alerts[i]);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		evicted += number_in(line, kinds[i]);
	check(sum == number_in(line, "accepted"), "%d ends in: %s", sum, line);
	check(rejected == number_in(line, "rejected"), "%d alerts in: %s", rejected, line);
	/* A connection that is evicted while it closes has ended in another way; others are about
	 * to end. */
	check(evicted >= number_in(line, "evicted"), "%d evicted in: %s", evicted, line);
}

/* --- SIGUSR1 --- */

/* One connection in each state; only the one that waits for its backend has a thread. */
PROGRAM_TEST(status, totals_of_each_state)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	host_make("full.example");
	unix_listen(host_path("full.example", "tls-socket"), 1);
	fill_backlog(host_path("full.example", "tls-socket"));

	client_send(slice(hello_for(HOST), 0, 7));
	client_send(hello_for("Full.Example"));
	struct pair pair = pair_open(backend);
	pair_talk(pair);
	int closing = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(closing, UNEXPECTED_MESSAGE);
	wait_until((report(totals), number_in(totals, "parked") == 3), 3000);

	cr_assert_eq(number_in(totals, "accepted"), 4, "%s", totals);
	cr_assert_eq(number_in(totals, "open"), 4, "%s", totals);
	cr_assert_eq(number_in(totals, "routed"), 1, "%s", totals);
	expect_adds_up(totals);
}

/* The main thread logs the totals, so a blocked thread does not delay them. */
PROGRAM_TEST(status, totals_while_a_thread_is_held_up)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	pid_t tracer = fault_begin(proxy, "connect", "delay_enter=2s");
	int client = client_send(hello_for(HOST));
	wait_until(proxy_is_in(proxy, SYS_connect), 5000);
	report(totals);
	cr_assert_eq(number_in(totals, "open"), 1, "%s", totals);
	cr_assert_eq(number_in(totals, "parked"), 0, "%s", totals);
	cr_assert(proxy_is_in(proxy, SYS_connect), "the thread is not held up");
	fault_end(tracer);
	struct pair pair = {client, backend_accept(backend)};
	expect_bytes(pair.backend, hello_for(HOST));
	pair_talk(pair);
}

/* Whether the proxy has COUNT threads, besides those of a sanitizer. */
static bool
has_threads(int count)
{
	int threads = proxy_threads(proxy);
	return count <= threads && count >= threads - extra_threads();
}

PROGRAM_TEST(status, threads_are_counted)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	for (int i = 0; i < 20; i++)
		pair_open(backend);
	/* They are counted here a moment later, when a thread may have ended. */
	wait_until((report(totals), has_threads(number_in(totals, "threads"))), 5000);
}

/* --- The ends of known connections --- */

static void
reset(int socket)
{
	struct linger now = {.l_onoff = 1};
	setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(socket);
}

static int listener;

static void
log_connections(void)
{
	setenv("SNIPROXY_LOG", "connections", 1);
}

static void
start_with_lines(void)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(log_connections);
	listener = backend_listen(HOST);
}

/* The line of the ended connection from PORT. END must follow its seconds, in the form " up=1
 * down=2 end=closed". */
static void
expect_ended(uint16_t port, const char *name, const char *end)
{
	char line[LINE_SIZE], expected[LINE_SIZE];
	const char *start = start_of(port);
	testing("%s", end);
	wait_until(find_lines(line, start, " end=") > 0, 8000);
	int whole, thousandths, length = 0;
	snprintf(expected, sizeof expected, "%sname=%s seconds=", start, name);
	check(strncmp(line, expected, strlen(expected)) == 0, "%s", line);
	check(sscanf(line + strlen(expected), "%d.%3d%n", &whole, &thousandths, &length) == 2 &&
		strchr(line + strlen(expected), '.')[4] == ' ',
	    "%s", line);
	check(strcmp(line + strlen(expected) + length, end) == 0, "%s", line);
	check(count_lines(start, " end=") == 1, "more than one line");
	check(expect_grammar() > 0, "no lines");
	testing("%s", "");
}

static void
expect_pair_ended(struct pair pair, uint16_t port, int up, int down, const char *how)
{
	char end[128];
	(void)pair;
	snprintf(
	    end, sizeof end, " up=%d down=%d end=%s", (int)hello_for(HOST).length + up, down, how);
	expect_ended(port, HOST, end);
}

PROGRAM_TEST(status, closed_by_both)
{
	start_with_lines();
	struct pair pair = pair_open(listener);
	uint16_t port = local_port(pair.client);
	pair_talk(pair);
	shutdown(pair.client, SHUT_WR);
	expect_end(pair.backend);
	send_all(pair.backend, text("last"));
	close(pair.backend);
	expect_bytes(pair.client, text("last"));
	expect_end(pair.client);
	expect_pair_ended(pair, port, 4, 8, "closed");
}

PROGRAM_TEST(status, closed_by_the_backend)
{
	start_with_lines();
	struct pair pair = pair_open(listener);
	uint16_t port = local_port(pair.client);
	pair_talk(pair);
	close(pair.backend);
	expect_end(pair.client);
	close(pair.client);
	expect_pair_ended(pair, port, 4, 4, "backend-closed");
}

PROGRAM_TEST(status, reset_by_the_client)
{
	start_with_lines();
	struct pair pair = pair_open(listener);
	uint16_t port = local_port(pair.client);
	pair_talk(pair);
	reset(pair.client);
	expect_gone(pair.backend, 3000);
	expect_pair_ended(pair, port, 4, 4, "client-reset");
}

PROGRAM_TEST(status, reset_by_the_client_in_the_hello)
{
	start_with_lines();
	int client = client_send(text("\x16\x03\x01"));
	uint16_t port = local_port(client);
	expect_idle(proxy);
	reset(client);
	expect_ended(port, "-", " up=0 down=0 end=client-reset");
}

/* A Unix socket resets if bytes were not read. */
PROGRAM_TEST(status, reset_by_the_backend)
{
	start_with_lines();
	struct pair pair = pair_open(listener);
	uint16_t port = local_port(pair.client);
	send_all(pair.client, text("unread"));
	cr_assert(readable_within(pair.backend, 3000));
	close(pair.backend);
	expect_end(pair.client);
	close(pair.client);
	expect_pair_ended(pair, port, 6, 0, "backend-reset");
}

PROGRAM_TEST(status, ipv6_address_in_brackets)
{
	server_listen("::1");
	proxy = proxy_start(log_connections);
	int client = client_send(text("\x16"));
	uint16_t port = local_port(client);
	shutdown(client, SHUT_WR);
	expect_alert(client, DECODE_ERROR);
	close(client);
	expect_ended(port, "-", " up=0 down=0 end=rejected alert=decode_error");
}

PROGRAM_TEST(status, rejected_with_each_alert)
{
	static const struct {
		const char *name;
		const char *alert;
	} rejections[] = {
	    {"-", "unexpected_message"},
	    {"-", "record_overflow"},
	    {"-", "illegal_parameter"},
	    {"-", "decode_error"},
	    {"-", "unrecognized_name"},
	    {"unknown.example", "unrecognized_name"},
	};
	start_with_lines();
	struct bytes sent[] = {
	    text("GET / HTTP/1.1\r\n\r\n"),
	    text("\x16\x03\x01\xff\xff"),
	    hello((struct shape){.two_server_names = true}),
	    hello((struct shape){.trailing = 1}),
	    hello_for("in valid"),
	    hello_for("unknown.example"),
	};
	for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
		char end[128], totals[LINE_SIZE];
		int client = client_send(sent[i]);
		uint16_t port = local_port(client);
		read_to_the_end(client, 3000);
		close(client);
		snprintf(
		    end, sizeof end, " up=0 down=0 end=rejected alert=%s", rejections[i].alert);
		expect_ended(port, rejections[i].name, end);
		report(totals);
		cr_assert_eq(number_in(totals, rejections[i].alert), i < 5 ? 1 : 2, "%s", totals);
		expect_adds_up(totals);
	}
}

/* The two alerts for clients that have waited in vain. */
PROGRAM_TEST(status, rejected_after_ten_seconds)
{
	char totals[LINE_SIZE];
	start_with_lines();
	host_make("full.example");
	unix_listen(host_path("full.example", "tls-socket"), 1);
	fill_backlog(host_path("full.example", "tls-socket"));
	int waiting = client_send(hello_for("full.example"));
	int silent = client_send(text("\x16\x03"));
	uint16_t waiting_port = local_port(waiting), silent_port = local_port(silent);
	cr_assert(readable_within(waiting, 12000));
	cr_assert(readable_within(silent, 12000));
	expect_alert(waiting, INTERNAL_ERROR);
	expect_alert(silent, USER_CANCELED);
	close(waiting);
	close(silent);
	expect_ended(
	    waiting_port, "full.example", " up=0 down=0 end=rejected alert=internal_error");
	expect_ended(silent_port, "-", " up=0 down=0 end=rejected alert=user_canceled");
	report(totals);
	cr_assert_eq(number_in(totals, "internal_error"), 1, "%s", totals);
	cr_assert_eq(number_in(totals, "user_canceled"), 1, "%s", totals);
	expect_adds_up(totals);
}

/* The kernel cannot watch the sockets of one more connection. */
PROGRAM_TEST(status, failed)
{
	char totals[LINE_SIZE];
	need("epoll_ctl(2)");
	start_with_lines();
	expect_served(listener, hello_for(HOST));
	pid_t tracer = fault_begin(proxy, "epoll_ctl", "error=ENOSPC");
	int client = client_send(text("\x16\x03"));
	uint16_t port = local_port(client);
	expect_gone(client, 3000);
	close(client);
	expect_ended(port, "-", " up=0 down=0 end=failed");
	fault_end(tracer);
	expect_served(listener, hello_for(HOST));
	wait_until((report(totals), number_in(totals, "open") == 0), 3000);
	cr_assert_eq(number_in(totals, "failed"), 1, "%s", totals);
	expect_adds_up(totals);
}

PROGRAM_TEST(status, cut_off)
{
	start_with_lines();
	struct pair pair = pair_open(listener);
	uint16_t port = local_port(pair.client);
	pair_talk(pair);
	/* What has arrived is counted a moment later; before a connection is parked. */
	expect_total(proxy, "parked", 1, 5000);
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	kill(proxy->pid, SIGTERM);
	int status = proxy_wait(proxy, 4000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	expect_pair_ended(pair, port, 4, 4, "cut-off");
}

/* Without SNIPROXY_LOG, or with an empty value. */
static void
log_nothing_more(void)
{
	setenv("SNIPROXY_LOG", "", 1);
}

PROGRAM_TEST(status, no_lines_unless_asked_for)
{
	void (*const prepare[])(void) = {NULL, log_nothing_more};
	server_listen("127.0.0.1");
	listener = backend_listen(HOST);
	for (size_t i = 0; i < 2; i++) {
		char totals[LINE_SIZE];
		testing("environment %zu", i);
		proxy = proxy_start(prepare[i]);
		expect_served(listener, hello_for(HOST));
		wait_until((report(totals), number_in(totals, "open") == 0), 3000);
		cr_assert_eq(number_in(totals, "backend-closed"), 1, "%s", totals);
		cr_assert_eq(count_lines("client=", " end="), 0);
		kill(proxy->pid, SIGHUP);
		cr_assert_eq(proxy_wait(proxy, 3000), 0);
	}
}

static void
log_something_else(void)
{
	setenv("SNIPROXY_LOG", "connection", 1);
}

PROGRAM_TEST(status, wrong_environment_is_told_at_once)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(log_something_else);
	int status = proxy_wait(proxy, 3000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	cr_assert_str_eq(
	    proxy_log(proxy), "sniproxy: SNIPROXY_LOG: the only value is connections\n");
}

PROGRAM_TEST(status, invalid_names_are_not_printed)
{
	char totals[LINE_SIZE];
	start_with_lines();
	int client = client_send(hello_for("mark\nclient=1.2.3.4:5"));
	expect_alert(client, UNRECOGNIZED_NAME);
	report(totals);
	uint16_t port = local_port(client);
	close(client);
	expect_ended(port, "-", " up=0 down=0 end=rejected alert=unrecognized_name");
	char *log = proxy_log(proxy);
	cr_assert_null(strstr(log, "mark"), "%s", log);
	cr_assert_null(strstr(log, "1.2.3.4"), "%s", log);
}

/* --- Many --- */

/* The totals add up at any moment, and traffic under load continues. */
PROGRAM_TEST(status, a_thousand_connections_under_load)
{
	enum { MANY = 1000 };
	static struct pair pairs[MANY];
	char line[LINE_SIZE];
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	proxy = proxy_start_default();
	listener = backend_listen(HOST);
	for (int i = 0; i < MANY; i++)
		pairs[i] = pair_open(listener);
	struct service service = {.listener = backend_listen("load.example"),
	    .hello = hello_for("load.example"),
	    .answer = 'x'};
	struct load load = {.hello = service.hello};
	service_start(&service);
	load_start(&load, 4);
	for (int i = 1; i <= 10; i++) {
		int served = load.served;
		report(line);
		expect_adds_up(line);
		cr_assert_geq(number_in(line, "open"), MANY, "%s", line);
		wait_until(load.served > served + 10, 10000);
	}
	load_stop(&load);
	service_stop(&service);
	cr_assert_eq(load.failed, 0);
	for (int i = 0; i < MANY; i += 100)
		pair_talk(pairs[i]);
	cr_assert_eq(count_lines("sniproxy: ", "left out"), 0);
}

static void
stderr_to_nobody(void)
{
	dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
}

static atomic_bool signals_end;

static void *
send_signals(void *unused)
{
	(void)unused;
	while (!signals_end) {
		kill(proxy->pid, SIGUSR1);
		poll(NULL, 0, 1);
	}
	return NULL;
}

/* No event of a connection is lost while the main thread is interrupted. */
PROGRAM_TEST(status, signals_keep_nothing_from_connections)
{
	enum { PAIRS = 100, ROUNDS = 40 };
	struct pair pairs[PAIRS];
	pthread_t thread;
	server_listen("127.0.0.1");
	proxy = proxy_start(stderr_to_nobody);
	listener = backend_listen(HOST);
	for (int i = 0; i < PAIRS; i++)
		pairs[i] = pair_open(listener);
	cr_assert_eq(pthread_create(&thread, NULL, send_signals, NULL), 0);
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < PAIRS; i++) {
			testing("round %d, pair %d", round, i);
			pair_talk(pairs[i]);
		}
	signals_end = true;
	pthread_join(thread, NULL);
}

/* Two signals that arrive together may count as one. */
PROGRAM_TEST(status, signals_one_after_another)
{
	proxy = proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	for (int i = 0; i < 20; i++)
		kill(proxy->pid, SIGUSR1);
	wait_until(count_totals() > 0, 3000);
	int before = count_totals();
	kill(proxy->pid, SIGUSR1);
	wait_until(count_totals() > before, 3000);
	pair_talk(pair);
	cr_assert_leq(count_totals(), 21);
}

PROGRAM_TEST(status, while_it_stops)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	report(totals);
	cr_assert_eq(number_in(totals, "open"), 1, "%s", totals);
	cr_assert_eq(number_in(totals, "routed"), 1, "%s", totals);
	pair_talk(pair);
	pair_close(pair);
	cr_assert_eq(proxy_wait(proxy, 3000), 0);
}

/* --- Shortage --- */

static void
few_descriptors_and_lines(void)
{
	limit_descriptors(32);
	log_connections();
}

/* Each has ended, or will, so that later ones are served. */
PROGRAM_TEST(status, evicted)
{
	enum { CLIENTS = 40, SLOTS_MAX = 16 };
	char totals[LINE_SIZE];
	server_listen("127.0.0.1");
	proxy = proxy_start(few_descriptors_and_lines);
	for (int i = 0; i < CLIENTS; i++) /* each may be gone before it has sent */
		(void)!send(client_connect(), "\x16", 1, MSG_NOSIGNAL);
	wait_until(count_lines("client=", " name=- ") >= CLIENTS - SLOTS_MAX, 8000);
	wait_until((report(totals), number_in(totals, "accepted") == CLIENTS), 3000);
	int evicted = count_lines("client=", " up=0 down=0 end=evicted");
	cr_assert_geq(evicted, CLIENTS - SLOTS_MAX, "%s", totals);
	cr_assert_eq(number_in(totals, "evicted"), evicted, "%s", totals);
	cr_assert_eq(number_in(totals, "evicted-hello"), evicted, "%s", totals);
	expect_adds_up(totals);
}

/* --- A log that nothing reads --- */

static int pipe_ends[2];

static void
stderr_to_pipe(void)
{
	dup2(pipe_ends[1], 2);
}

static void
connections_to_pipe(void)
{
	stderr_to_pipe();
	log_connections();
}

/* Reads the pipe until nothing more comes. */
static char *
read_pipe(void)
{
	enum { SIZE = 1 << 21 };
	char *log = calloc(1, SIZE);
	size_t length = 0;
	fcntl(pipe_ends[0], F_SETPIPE_SZ, SIZE); /* so that its thread waits rarely */
	while (readable_within(pipe_ends[0], 2500)) {
		ssize_t more = read(pipe_ends[0], log + length, SIZE - 1 - length);
		check(more > 0, "the log has ended, or is too long");
		length += (size_t)more;
	}
	return log;
}

/* Whether SIGNAL was sent to the proxy, and has not come yet. */
static bool
is_pending(int signal)
{
	char *status = proxy_proc(proxy, "status");
	const char *pending = strstr(status, "\nShdPnd:\t");
	check(pending != NULL, "no ShdPnd in /proc/PID/status");
	bool is = (strtoull(pending + strlen("\nShdPnd:\t"), NULL, 16) >> (signal - 1) & 1) != 0;
	free(status);
	return is;
}

/* No connection waits for the log. What is not written is counted, and totals have room. */
PROGRAM_TEST(status, nobody_reads_the_log)
{
	/* More lines than the queue, the log's thread and the pipe hold. */
	enum { ENDED = 4000, REPORTS = 10 };
	int lines = 0, totals = 0, left_out, sum = 0;
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	cr_assert_gt(fcntl(pipe_ends[1], F_SETPIPE_SZ, 4096), 0);
	server_listen("127.0.0.1");
	proxy = proxy_start(connections_to_pipe);
	close(pipe_ends[1]);
	listener = backend_listen(HOST);
	for (int i = 0; i < ENDED; i++)
		expect_served(listener, hello_for(HOST));
	for (int i = 0; i < REPORTS; i++) {
		kill(proxy->pid, SIGUSR1);
		wait_until(!is_pending(SIGUSR1), 5000); /* two that are pending are one */
		expect_served(listener, hello_for(HOST));
		poll(NULL, 0, 100); /* until it reports */
	}
	char *log = read_pipe();
	for (char *line; (line = strsep(&log, "\n")) != NULL;) {
		lines += strstr(line, " end=") != NULL;
		totals += strncmp(line, TOTALS, strlen(TOTALS)) == 0;
		if (sscanf(line, "sniproxy: %d lines of ended connections left out", &left_out) ==
		    1)
			sum += left_out;
	}
	cr_assert_eq(totals, REPORTS);
	cr_assert_gt(sum, 0, "%d lines", lines);
	cr_assert_eq(lines + sum, ENDED + REPORTS, "%d lines, %d left out", lines, sum);
	expect_served(listener, hello_for(HOST));
}

static void
stderr_to_listener(void)
{
	dup2(0, 1);
	dup2(0, 2);
	log_connections();
}

PROGRAM_TEST(status, stderr_is_the_listening_socket)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(stderr_to_listener);
	listener = backend_listen(HOST);
	struct pair pair = pair_open(listener);
	for (int i = 0; i < 5; i++) {
		kill(proxy->pid, SIGUSR1);
		expect_served(listener, hello_for(HOST));
		pair_talk(pair);
	}
	expect_idle(proxy);
}

/* --- The rate --- */

/* The sum of the numbers in the lines that count what was left out. */
static int
count_left_out(const char *what)
{
	char *log = proxy_log(proxy), *rest = log, *line;
	int sum = 0, count;
	while ((line = strsep(&rest, "\n")) != NULL)
		if (strstr(line, what) != NULL && sscanf(line, "sniproxy: %d ", &count) == 1)
			sum += count;
	free(log);
	return sum;
}

/* A stranger cannot fill the disk. What is not written is counted. */
PROGRAM_TEST(status, rate_of_lines_is_bounded)
{
	enum { REFUSALS = 6000, A_SECOND = 1000 };
	start_with_lines();
	int64_t start_ms = now_ms();
	for (int i = 0; i < REFUSALS; i++) {
		int client = client_send(text("GET / HTTP/1.1\r\n\r\n"));
		expect_alert(client, UNEXPECTED_MESSAGE);
		close(client);
	}
	int seconds = (int)((now_ms() - start_ms) / 1000) + 1;
	int lines = count_lines("client=", " end=rejected");
	cr_assert_geq(lines, REFUSALS < A_SECOND ? REFUSALS : A_SECOND / 2);
	cr_assert_leq(lines, A_SECOND * (seconds + 1), "%d in %d s", lines, seconds);
	wait_until(count_lines("client=", " end=rejected") +
		    count_left_out("lines of ended connections left out") ==
		REFUSALS,
	    5000);
	cr_assert_geq(expect_grammar(), lines);
}

/* What goes on: the report that SIGUSR1 asks for, the lines of connections that have
 * ended, and the names of threads. */
#include "harness.h"

#include <dirent.h>
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

/* Copies the last line in the log that begins with START and has PART in it to LINE.
 * Returns how many such lines there are. */
static int
find_lines(char line[LINE_SIZE], const char *start, const char *part)
{
	char *log = proxy_log(proxy), *rest = log, *one;
	int count = 0;
	while ((one = strsep(&rest, "\n")) != NULL) {
		/* What is after the last newline is still being written. */
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

/* How a line about the client at PORT begins. */
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

/* What docs/log.md says of the lines. No value has what logfmt would have quoted: a space, a
 * quote or an equals sign. */
#define CLIENT "client=([0-9.]+|\\[[0-9a-f:.]+(%[^ =\"]+)?\\]):[0-9]+ "
#define NUMBERS "seconds=[0-9]+\\.[0-9]{3} up=[0-9]+ down=[0-9]+"
#define ENDS \
	"closed|backend-closed|backend-reset|client-reset|client-timeout|gave-way|" \
	"turned-away|failed|cut-off"
#define ALERTS \
	"unexpected_message|record_overflow|illegal_parameter|decode_error|" \
	"internal_error|user_canceled|unrecognized_name"
#define GRAMMAR \
	"^(" CLIENT \
	"name=(-|[a-z0-9][a-z0-9.-]*) (state=(hello|backend|relay|closing) " NUMBERS \
	"|" NUMBERS " end=(" ENDS "|refused alert=(" ALERTS ")))" \
	"|sniproxy: seconds=[0-9]+\\.[0-9]{3}( [a-z_-]+=[0-9]+)+)$"

/* Each line in the log that tells what goes on is of that form. Returns how many there are. */
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

/* Asks for a report, and copies its last line, the totals, to LINE. */
static void
report(char line[LINE_SIZE])
{
	int before = count_totals();
	kill(proxy->pid, SIGUSR1);
	wait_until(find_lines(line, TOTALS, " accepted=") > before, 5000);
	check(expect_grammar() > before, "lines are lost");
}

/* Whether nobody listens any more. The test has closed its own descriptor of the socket. */
static bool
is_refused(void)
{
	int client = client_try_connect(NULL);
	bool refused = client < 0 && errno == ECONNREFUSED;
	if (client >= 0)
		close(client);
	return refused;
}

/* Each connection that was accepted is open, or has ended in one way. */
static void
expect_adds_up(const char *line)
{
	static const char *const parts[] = {"open", "failed", "closed", "backend-closed",
	    "backend-reset", "client-reset", "client-timeout", "refused", "gave-way",
	    "turned-away"};
	static const char *const alerts[] = {"unexpected_message", "record_overflow",
	    "illegal_parameter", "decode_error", "internal_error", "user_canceled",
	    "unrecognized_name"};
	int sum = 0, refused = 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		sum += number_in(line, parts[i]);
	for (size_t i = 0; i < sizeof alerts / sizeof *alerts; i++)
		refused += number_in(line, alerts[i]);
	check(sum == number_in(line, "accepted"), "%d ends in: %s", sum, line);
	check(refused == number_in(line, "refused"), "%d alerts in: %s", refused, line);
}

/* --- SIGUSR1 --- */

/* The line of the client's connection in the last report. */
static void
expect_open(int client, const char *name, const char *state, int up, int down)
{
	char line[LINE_SIZE];
	const char *start = start_of(local_port(client));
	testing("%s in state %s", name, state);
	wait_until(find_lines(line, start, " state=") > 0, 3000);
	check(strcmp(value_in(line, "state"), state) == 0, "%s", line);
	check(number_in(line, "up") == up && number_in(line, "down") == down,
	    "not %d and %d bytes: %s", up, down, line);
	check(strcmp(value_in(line, "name"), name) == 0, "%s", line);
	double seconds = strtod(value_in(line, "seconds"), NULL);
	check(seconds > 0.05 && seconds < 20, "%s", line);
	testing("%s", "");
}

PROGRAM_TEST(status, one_line_for_each_state)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	int with_header = backend_listen("header.example");
	make_file(host_path("header.example", "send-proxy-v1"), "");
	host_make("full.example");
	unix_listen(host_path("full.example", "tls-socket"), 1);
	fill_backlog(host_path("full.example", "tls-socket"));

	struct bytes request = hello_for(HOST), headed = hello_for("header.example");
	int in_hello = client_send(slice(request, 0, 7));
	int waiting = client_send(hello_for("Full.Example"));
	struct pair pair = pair_open(backend);
	pair_talk(pair);
	send_all(pair.backend, text("more"));
	expect_bytes(pair.client, text("more"));
	int headed_client = client_send(headed);
	int headed_backend = backend_accept(with_header);
	char header[108];
	cr_assert_gt(read_up_to(headed_backend, header, 6), 0);
	int closing = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(closing, UNEXPECTED_MESSAGE);
	poll(NULL, 0, 100); /* how old they are is told */

	report(totals);
	expect_open(in_hello, "-", "hello", 0, 0);
	expect_open(waiting, "full.example", "backend", 0, 0);
	expect_open(pair.client, HOST, "relay", (int)request.length + 4, 8);
	expect_open(headed_client, "header.example", "relay", (int)headed.length, 0);
	expect_open(closing, "-", "closing", 0, 0);
	cr_assert_eq(number_in(totals, "accepted"), 5, "%s", totals);
	cr_assert_eq(number_in(totals, "open"), 5, "%s", totals);
	cr_assert_eq(number_in(totals, "routed"), 2, "%s", totals);
	/* A thread may just have asked the backend again. */
	cr_assert_leq(number_in(totals, "parked"), 5, "%s", totals);
	cr_assert_geq(number_in(totals, "parked"), 4, "%s", totals);
	expect_adds_up(totals);
}

/* The main thread logs the line, so that one whose thread is held up has it at once. */
PROGRAM_TEST(status, line_of_a_connection_with_a_thread)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	pid_t tracer = fault_begin(proxy, "connect", "delay_enter=2s");
	int client = client_send(hello_for(HOST));
	const char *start = start_of(local_port(client));
	wait_until(proxy_is_in(proxy, SYS_connect), 5000);
	report(totals);
	cr_assert_eq(number_in(totals, "open"), 1, "%s", totals);
	cr_assert_eq(number_in(totals, "parked"), 0, "%s", totals);
	cr_assert_eq(count_lines(start, " state=backend "), 1);
	cr_assert(proxy_is_in(proxy, SYS_connect), "the thread is not held up");
	fault_end(tracer);
	struct pair pair = {client, backend_accept(backend)};
	expect_bytes(pair.backend, hello_for(HOST));
	pair_talk(pair);
	cr_assert_eq(count_lines(start, " state="), 1);
}

PROGRAM_TEST(status, descriptors_and_threads_are_counted)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	for (int i = 0; i < 20; i++)
		pair_open(backend);
	report(totals);
	cr_assert_eq(
	    number_in(totals, "descriptors"), proxy_descriptors(proxy), "%s", totals);
	cr_assert_leq(number_in(totals, "threads"), proxy_threads(proxy), "%s", totals);
	cr_assert_geq(number_in(totals, "threads"),
	    proxy_threads(proxy) - extra_threads(), "%s", totals);
}

PROGRAM_TEST(status, ipv6_address_in_brackets)
{
	char line[LINE_SIZE];
	server_listen("::1");
	proxy = proxy_start(NULL);
	int client = client_send(text("\x16"));
	expect_idle(proxy);
	report(line);
	wait_until(count_lines(start_of(local_port(client)), " state=hello ") == 1, 3000);
}

/* --- What becomes of a known set of connections --- */

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

/* The line of the connection from PORT, which has ended: what follows its seconds must be
 * END, whose form is " up=1 down=2 end=closed". */
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
	check(sscanf(line + strlen(expected), "%d.%3d%n", &whole, &thousandths,
		  &length) == 2 &&
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
	snprintf(end, sizeof end, " up=%d down=%d end=%s",
	    (int)hello_for(HOST).length + up, down, how);
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

/* A Unix socket resets where bytes were not read. */
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

/* The client takes nothing of what the backend sent before it closed, and the proxy has the
 * rest of it. */
PROGRAM_TEST(status, client_that_takes_nothing)
{
	need("to know what a side has not taken");
	start_with_lines();
	struct pair pair = pair_open(listener);
	cr_assert_gt(send_until_stalled(pair.backend), 0);
	close(pair.backend);
	const char *start = start_of(local_port(pair.client));
	wait_until(count_lines(start, " end=client-timeout") == 1, 45000);
}

PROGRAM_TEST(status, refused_with_each_alert)
{
	static const struct {
		const char *name;
		const char *alert;
	} refusals[] = {
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
		snprintf(end, sizeof end, " up=0 down=0 end=refused alert=%s",
		    refusals[i].alert);
		expect_ended(port, refusals[i].name, end);
		report(totals);
		cr_assert_eq(
		    number_in(totals, refusals[i].alert), i < 5 ? 1 : 2, "%s", totals);
		expect_adds_up(totals);
	}
}

/* The two alerts that are for those who have waited in vain. */
PROGRAM_TEST(status, refused_after_ten_seconds)
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
	expect_ended(waiting_port, "full.example",
	    " up=0 down=0 end=refused alert=internal_error");
	expect_ended(silent_port, "-", " up=0 down=0 end=refused alert=user_canceled");
	report(totals);
	cr_assert_eq(number_in(totals, "internal_error"), 1, "%s", totals);
	cr_assert_eq(number_in(totals, "user_canceled"), 1, "%s", totals);
	expect_adds_up(totals);
}

/* The kernel does not watch the sockets of one more connection. */
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
	char totals[LINE_SIZE], bytes[64];
	pair_talk(pair);
	/* What has arrived is counted a moment later. */
	snprintf(bytes, sizeof bytes, " up=%d down=4", (int)hello_for(HOST).length + 4);
	wait_until((report(totals), count_lines(start_of(port), bytes) > 0), 3000);
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	kill(proxy->pid, SIGTERM);
	int status = proxy_wait(proxy, 4000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	expect_pair_ended(pair, port, 4, 4, "cut-off");
}

/* Without SNIPROXY_LOG, and where it is empty. */
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
	expect_ended(port, "-", " up=0 down=0 end=refused alert=unrecognized_name");
	char *log = proxy_log(proxy);
	cr_assert_null(strstr(log, "mark"), "%s", log);
	cr_assert_null(strstr(log, "1.2.3.4"), "%s", log);
}

/* --- Many --- */

/* Each connection that rests is told of once, and what is under load goes on. */
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
		wait_until(load.served > served + 10, 3000);
		cr_assert_eq(
		    count_lines("client=", " name=" HOST " state=relay "), i * MANY);
	}
	load_stop(&load);
	service_stop(&service);
	cr_assert_eq(load.failed, 0);
	for (int i = 0; i < MANY; i += 100) {
		cr_assert_eq(
		    count_lines(start_of(local_port(pairs[i].client)), " state="), 10);
		pair_talk(pairs[i]);
	}
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

/* What happens to a connection while a line is written about it is not lost. */
PROGRAM_TEST(status, reports_keep_nothing_from_connections)
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

/* Two signals that come together are one, or two. */
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
	cr_assert_eq(count_lines("client=", " state=relay "), count_totals());
}

PROGRAM_TEST(status, while_it_stops)
{
	char totals[LINE_SIZE];
	proxy = proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	poll(NULL, 0, 100); /* how old it is is told */
	close(server.listener);
	kill(proxy->pid, SIGHUP);
	wait_until(is_refused(), 3000);
	wait_until((report(totals), number_in(totals, "open") == 1), 3000);
	expect_open(pair.client, HOST, "relay", (int)hello_for(HOST).length, 0);
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

PROGRAM_TEST(status, gave_way_and_turned_away)
{
	enum { CLIENTS = 40 };
	char totals[LINE_SIZE];
	server_listen("127.0.0.1");
	proxy = proxy_start(few_descriptors_and_lines);
	for (int i = 0; i < CLIENTS; i++) /* each may be gone before it has sent */
		(void)!send(client_connect(), "\x16", 1, MSG_NOSIGNAL);
	/* Not always the first: whose byte is unread waits for the proxy, and not in vain. */
	wait_until(count_lines("client=", " up=0 down=0 end=gave-way") > 0, 5000);
	wait_until(count_lines("client=", " end=turned-away") > 0, 5000);
	report(totals);
	cr_assert_gt(number_in(totals, "gave-way"), 0, "%s", totals);
	cr_assert_gt(number_in(totals, "turned-away"), 0, "%s", totals);
	expect_adds_up(totals);
}

/* --- A log that nobody reads --- */

static int pipe_ends[2];

static void
stderr_to_pipe(void)
{
	dup2(pipe_ends[1], 2);
}

/* Reads the pipe until there are totals with something left out in it, and no more comes. */
static char *
read_reports(void)
{
	enum { SIZE = 1 << 20 };
	char *log = calloc(1, SIZE);
	size_t length = 0;
	int64_t end_ms = now_ms() + margin_ms(20000);
	fcntl(pipe_ends[0], F_SETPIPE_SZ,
	    SIZE); /* its thread need not wait for each page */
	while (strstr(log, " left-out=") == NULL || readable_within(pipe_ends[0], 100)) {
		check(now_ms() < end_ms, "%zu bytes of log, %.500s", length,
		    length > 500 ? log + length - 500 : log);
		if (!readable_within(pipe_ends[0], 100))
			continue;
		ssize_t more = read(pipe_ends[0], log + length, SIZE - 1 - length);
		check(more > 0, "the log has ended");
		length += (size_t)more;
	}
	return log;
}

/* Each report tells of CONNECTIONS at least, or says how many it leaves out. A connection at
 * which a thread happens to be is told of by that thread, it may be after the totals; but
 * that must not add up. */
static void
expect_accounts(char *log, int connections)
{
	const int threads_max = 16;
	int told = 0, told_in_all = 0, missing = 0;
	for (char *line; (line = strsep(&log, "\n")) != NULL;) {
		told += strstr(line, " state=") != NULL;
		if (strncmp(line, TOTALS, strlen(TOTALS)) != 0)
			continue;
		int left_out =
		    strstr(line, " left-out=") != NULL ? number_in(line, "left-out") : 0;
		missing += connections - told - left_out;
		check(missing <= threads_max, "%d told of, %d left out, %d missing", told,
		    left_out, missing);
		told_in_all += told;
		told = 0;
	}
	check(told_in_all >= connections, "%d told of", told_in_all);
}

/* The report does not wait for ever, and nobody waits for the report. */
PROGRAM_TEST(status, nobody_reads_the_log)
{
	/* More lines than the queue, the log's thread and the pipe hold. */
	enum { MANY = 1000, REPORTS = 10 };
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	cr_assert_gt(fcntl(pipe_ends[1], F_SETPIPE_SZ, 4096), 0);
	server_listen("127.0.0.1");
	proxy = proxy_start(stderr_to_pipe);
	close(pipe_ends[1]);
	listener = backend_listen(HOST);
	for (int i = 0; i < MANY; i++)
		pair_open(listener);
	for (int i = 0; i < REPORTS; i++) {
		kill(proxy->pid, SIGUSR1);
		expect_served(listener, hello_for(HOST));
		poll(NULL, 0, 50);
	}
	expect_served(listener, hello_for(HOST));
	poll(NULL, 0, margin_ms(3000)); /* until it has given up, with the queue full */
	expect_accounts(read_reports(), MANY);
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

/* The sum of the numbers in the lines that say how much was left out. */
static int
count_left_out(const char *what)
{
	char *log = proxy_log(proxy), *rest = log, *line;
	int sum = 0, count;
	while ((line = strsep(&rest, "\n")) != NULL)
		if (strstr(line, what) != NULL &&
		    sscanf(line, "sniproxy: %d ", &count) == 1)
			sum += count;
	free(log);
	return sum;
}

/* A stranger cannot fill the disk, and what is not written is counted. */
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
	int lines = count_lines("client=", " end=refused");
	cr_assert_geq(lines, REFUSALS < A_SECOND ? REFUSALS : A_SECOND / 2);
	cr_assert_leq(lines, A_SECOND * (seconds + 1), "%d in %d s", lines, seconds);
	wait_until(count_lines("client=", " end=refused") +
		    count_left_out("lines of ended connections left out") ==
		REFUSALS,
	    5000);
	cr_assert_geq(expect_grammar(), lines);
}

/* --- Names of threads --- */

/* Whether a thread of the proxy, its first one aside, is called NAME. */
static bool
has_thread(const char *name)
{
	char path[300], wanted[32];
	bool found = false;
	snprintf(path, sizeof path, "/proc/%d/task", (int)proxy->pid);
	snprintf(wanted, sizeof wanted, "%.15s\n", name);
	DIR *tasks = opendir(path);
	cr_assert_not_null(tasks);
	for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
		snprintf(path, sizeof path, "task/%s/comm", task->d_name);
		if (task->d_name[0] == '.' || atoi(task->d_name) == (int)proxy->pid)
			continue;
		char *comm = proxy_proc(proxy, path);
		found |= strcmp(comm, wanted) == 0;
		free(comm);
	}
	closedir(tasks);
	return found;
}

PROGRAM_TEST(status, threads_are_named)
{
	need("names of threads");
	static const char *const names[] = {
	    "a.example", "fifteen.example", "www.very-long-name.example"};
	proxy = proxy_start_default();
	for (size_t i = 0; i < 3; i++) {
		testing("%s", names[i]);
		struct bytes request = hello_for(names[i]);
		int backend = backend_listen(names[i]);
		cr_assert(!has_thread(names[i]));
		int client = client_send(request);
		int accepted = backend_accept(backend);
		expect_bytes(accepted, request);
		cr_assert(has_thread(names[i]));
		struct pair pair = {client, accepted};
		pair_talk(pair);
		cr_assert(has_thread(names[i]));
	}
	/* The program keeps its name, for whoever looks for it; an emulator has its own. */
	cr_assert(emulated() || strcmp(proxy_proc(proxy, "comm"), "sniproxy\n") == 0);
}

/* So are those that pass bulk on, and who is long done with it is called as at first. */
PROGRAM_TEST(status, threads_that_rest_are_not_named)
{
	need("names of threads");
	proxy = proxy_start_default();
	struct pair pair = pair_open(backend_listen(HOST));
	size_t length = send_until_stalled(pair.backend);
	expect_pattern(pair.client, length);
	cr_assert(has_thread(HOST));
	wait_until(!has_thread(HOST), 15000);
	cr_assert(has_thread("sniproxy"));
	pair_talk(pair);
	cr_assert(has_thread(HOST));
}

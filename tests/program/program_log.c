/* The log: one line for a connection that failed, at a limited rate, without unchecked bytes. */
#include "tests/program/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct proxy *proxy;

/* The line of the log that begins with START, without its newline; NULL if there is none. */
static char *
find_line(const char *start)
{
	char *log = proxy_log(proxy);
	for (char *line = log; line[0] != '\0';) {
		char *end = strchr(line, '\n');
		if (end == NULL)
			break; /* It is still being written. */
		*end = '\0';
		if (strncmp(line, start, strlen(start)) == 0)
			return line;
		line = end + 1;
	}
	return NULL;
}

static int
count_lines(const char *start)
{
	char *log = proxy_log(proxy);
	int count = 0;
	for (const char *line = log; line[0] != '\0';) {
		count += strncmp(line, start, strlen(start)) == 0;
		const char *end = strchr(line, '\n');
		line = end != NULL ? end + 1 : "";
	}
	free(log);
	return count;
}

/* A client is rejected. Its line must be the only one. Returns what follows the client's
 * address. */
static char *
line_of_refusal(struct bytes bytes, enum alert alert)
{
	int client = client_send(bytes);
	char start[128];
	bool ipv6 = strchr(server.address, ':') != NULL;
	snprintf(
	    start, sizeof start, ipv6 ? "[%s]:%u " : "%s:%u ", server.address, local_port(client));
	expect_alert(client, alert);
	close(client);
	wait_until(find_line(start) != NULL, 3000);
	cr_assert_eq(count_lines(start), 1, "more than one line");
	return find_line(start) + strlen(start);
}

PROGRAM_TEST(log, permission_denied)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(become_nobody);
	backend_listen("blog.example");
	cr_assert_eq(chmod(host_path("blog.example", "tls-socket"), 0), 0);
	cr_assert_str_eq(line_of_refusal(hello_for("Blog.Example"), UNRECOGNIZED_NAME),
	    "blog.example: tls-socket: Permission denied");
}

PROGRAM_TEST(log, ipv6_address_in_brackets)
{
	server_listen("::1");
	proxy = proxy_start(become_nobody);
	backend_listen("blog.example");
	cr_assert_eq(chmod(host_path("blog.example", "tls-socket"), 0), 0);
	cr_assert_str_eq(line_of_refusal(hello_for("blog.example"), UNRECOGNIZED_NAME),
	    "blog.example: tls-socket: Permission denied");
}

PROGRAM_TEST(log, what_failed_is_told_apart)
{
	proxy = proxy_start_default();
	host_make("empty.example");
	close(backend_listen("stopped.example"));
	cr_assert_str_eq(line_of_refusal(hello_for("empty.example"), UNRECOGNIZED_NAME),
	    "empty.example: tls-socket: No such file or directory");
	cr_assert_str_eq(line_of_refusal(hello_for("stopped.example"), UNRECOGNIZED_NAME),
	    "stopped.example: tls-socket: Connection refused");
	const char *unknown = line_of_refusal(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	cr_assert_eq(strncmp(unknown, "unknown.example: ", 17), 0, "%s", unknown);
	cr_assert_not_null(strstr(unknown, "No such file or directory"), "%s", unknown);
}

/* One line for each way to fail before the name is known. */
PROGRAM_TEST(log, each_failure_has_a_line)
{
	proxy = proxy_start_default();
	line_of_refusal(text("GET / HTTP/1.1\r\n\r\n"), UNEXPECTED_MESSAGE);
	line_of_refusal(text("\x16\x03\x01\xff\xff"), RECORD_OVERFLOW);
	line_of_refusal(hello_for("in valid"), UNRECOGNIZED_NAME);
	struct shape twice = {.two_server_names = true};
	line_of_refusal(hello(twice), ILLEGAL_PARAMETER);
	line_of_refusal(hello((struct shape){.trailing = 1}), DECODE_ERROR);
}

/* A connection that succeeds has not failed. */
PROGRAM_TEST(log, success_is_no_failure)
{
	proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	for (int i = 0; i < 10; i++)
		expect_served(backend, hello_for(HOST));
	line_of_refusal(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	cr_assert_eq(count_lines("127.0.0.1:"), 1);
}

/* --- Bytes from clients --- */

static void
expect_clean_log(void)
{
	char *log = proxy_log(proxy);
	check(strstr(log, "MARK") == NULL, "unchecked bytes in the log: %s", log);
	for (const char *c = log; *c != '\0'; c++)
		check(*c == '\n' || (*c >= ' ' && *c <= '~'), "byte %#x in the log",
		    (unsigned)(unsigned char)*c);
	free(log);
}

PROGRAM_TEST(log, invalid_names_are_not_printed)
{
	static const char *const names[] = {
	    "MARK.example\n127.0.0.1:1 forged.example: a line",
	    "MARK\r.example",
	    "\x1b[31mMARK",
	    "MARK\x07\x08\x7f",
	    "MARK\xff\xfe\x80",
	    "MARK%s%n%s",
	    "MARK..example",
	    "MARK.example.",
	    "-MARK",
	    "MARK/../MARK",
	    "_mark.MARK",
	};
	proxy = proxy_start_default();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		testing("name %zu", i);
		line_of_refusal(hello_for(names[i]), UNRECOGNIZED_NAME);
		expect_clean_log();
	}
	cr_assert_eq(count_lines("127.0.0.1:"), (int)(sizeof names / sizeof *names));
	char *log = proxy_log(proxy);
	cr_assert_null(strstr(log, "forged"));
	cr_assert_null(strcasestr(log, "mark"), "an invalid name is in the log");
}

PROGRAM_TEST(log, garbage_is_not_printed)
{
	proxy = proxy_start_default();
	line_of_refusal(text("GET /MARK HTTP/1.1\r\nMARK: MARK\r\n\r\n"), UNEXPECTED_MESSAGE);
	line_of_refusal(text("\x1b[31mMARK\n"), UNEXPECTED_MESSAGE);
	struct shape marked = {.extensions = text("MARKMARK")};
	line_of_refusal(hello(marked), DECODE_ERROR);
	expect_clean_log();
}

/* A valid name is printed in lowercase, like the name of its directory. */
PROGRAM_TEST(log, valid_names_are_printed)
{
	proxy = proxy_start_default();
	const char *line = line_of_refusal(hello_for("No.Such-Host.EXAMPLE"), UNRECOGNIZED_NAME);
	cr_assert_eq(strncmp(line, "no.such-host.example: ", 22), 0, "%s", line);
}

PROGRAM_TEST(log, longest_name_is_printed_whole)
{
	char name[255] = {0};
	memset(name, 'n', 254);
	proxy = proxy_start_default();
	const char *line = line_of_refusal(hello_for(name), UNRECOGNIZED_NAME);
	cr_assert_eq(strncmp(line, name, 254), 0, "%s", line);
	cr_assert_eq(strncmp(line + 254, ": ", 2), 0, "%s", line);
}

/* --- A pipe that another program writes to as well --- */

static int pipe_ends[2];

static void
stderr_to_pipe(void)
{
	dup2(pipe_ends[1], 2);
}

/* The smallest pipe, for the log and for what else this test writes. */
static void
start_with_pipe(void)
{
	cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
	cr_assert_gt(fcntl(pipe_ends[1], F_SETPIPE_SZ, 4096), 0);
	server_listen("127.0.0.1");
	proxy = proxy_start(stderr_to_pipe);
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	cr_assert(readable_within(pipe_ends[0], 3000), "nothing was logged");
}

static void
fill_pipe(void)
{
	/* Without O_NONBLOCK, which would also be set for the proxy. */
	struct pollfd entry = {.fd = pipe_ends[1], .events = POLLOUT};
	static const char page[4096];
	while (poll(&entry, 1, 0) == 1)
		cr_assert_eq(write(pipe_ends[1], page, sizeof page), sizeof page);
}

static void
empty_pipe(void)
{
	char page[4096];
	while (readable_within(pipe_ends[0], 0))
		cr_assert_gt(read(pipe_ends[0], page, sizeof page), 0);
}

/* Nothing can be logged: the proxy still works, and ends soon. */
static void
expect_works_and_stops(void)
{
	int backend = backend_listen(HOST);
	for (int i = 0; i < 100; i++)
		expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	expect_served(backend, hello_for(HOST));
	kill(proxy->pid, SIGHUP);
	int status = proxy_wait(proxy, 4000);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
}

PROGRAM_TEST(log, pipe_filled_by_another_writer)
{
	start_with_pipe();
	empty_pipe();
	fill_pipe();
	expect_works_and_stops();
}

/* The pipe has room when the proxy checks, if it does, and none when it writes. */
PROGRAM_TEST(log, pipe_filled_by_another_writer_at_the_last_moment)
{
	start_with_pipe();
	empty_pipe();
	pid_t tracer = fault_begin(proxy, "write,writev", "delay_enter=10s");
	int client = client_send(hello_for("unknown.example"));
	wait_until(proxy_is_in(proxy, SYS_write) || proxy_is_in(proxy, SYS_writev), 5000);
	fill_pipe();
	fault_end(tracer);
	expect_alert(client, UNRECOGNIZED_NAME);
	close(client);
	expect_works_and_stops();
}

/* --- A file that may not grow --- */

enum { FILE_SIZE_MAX = 1 << 30 }; /* ThreadSanitizer writes files of its own */

static int full_file;

static void
stderr_to_full_file(void)
{
	const struct rlimit size = {FILE_SIZE_MAX, FILE_SIZE_MAX};
	dup2(full_file, 2);
	setrlimit(RLIMIT_FSIZE, &size);
}

PROGRAM_TEST(log, file_as_large_as_files_may_be)
{
	full_file = memfd_create("log", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(full_file, FILE_SIZE_MAX), 0); /* it holds no block */
	cr_assert_eq(lseek(full_file, 0, SEEK_END), FILE_SIZE_MAX);
	server_listen("127.0.0.1");
	proxy = proxy_start(stderr_to_full_file);
	expect_works_and_stops();
	cr_assert_eq(lseek(full_file, 0, SEEK_CUR), FILE_SIZE_MAX, "it was written to");
}

/* --- Rate --- */

/* How many lines were left out, as the log says. */
static int
count_left_out(void)
{
	char *log = proxy_log(proxy);
	int sum = 0;
	char *rest = log, *line;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (strstr(line, " left out") != NULL)
			sum += (int)strtol(line + strcspn(line, "0123456789"), NULL, 10);
	}
	free(log);
	return sum;
}

static void
refuse_one(void)
{
	int client = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	expect_alert(client, UNEXPECTED_MESSAGE);
	close(client);
}

/* Thousands of alerts: few lines, and what was left out is counted. The count may come with a later
 * line, so more alerts follow, slowly, until it has. */
PROGRAM_TEST(log, rate_is_bounded_and_the_rest_counted)
{
	enum { REFUSALS = 4000 };
	proxy = proxy_start_default();
	int64_t start_ms = now_ms();
	for (int i = 0; i < REFUSALS; i++)
		refuse_one();
	int took_ms = (int)(now_ms() - start_ms);
	int lines = count_lines("");
	cr_assert_geq(lines, 1);
	cr_assert_lt(lines, REFUSALS / 4 + took_ms / 5, "%d lines in %d ms", lines, took_ms);

	int refusals = REFUSALS;
	int64_t end_ms = now_ms() + margin_ms(10000);
	while (count_lines("127.0.0.1:") + count_left_out() != refusals) {
		cr_assert_lt(now_ms(), end_ms, "%d refusals, %d lines, %d left out", refusals,
		    count_lines("127.0.0.1:"), count_left_out());
		poll(NULL, 0, 250);
		refuse_one();
		refusals++;
		poll(NULL, 0, 50);
	}
	cr_assert_gt(count_left_out(), 0);
}

/* Health checks and port scans do not keep a failure out of the log. */
PROGRAM_TEST(log, who_sends_nothing_has_no_line)
{
	enum { PROBES = 300, FAILURES = 10 };
	const struct linger at_once = {.l_onoff = 1};
	proxy = proxy_start_default();
	for (int i = 0; i < PROBES; i++) {
		int probe = client_connect();
		if (i % 2 == 0)
			setsockopt(probe, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		close(probe);
		if (i % (PROBES / FAILURES) == 0)
			refuse_one();
	}
	wait_until(proxy_total(proxy, "silent") == PROBES, 5000);
	cr_assert_eq(count_lines("127.0.0.1:"), FAILURES);
}

/* The proxy ends before it would have told by itself. */
PROGRAM_TEST(log, what_was_left_out_is_counted_at_the_end)
{
	enum { REFUSALS = 300 };
	proxy = proxy_start_default();
	for (int i = 0; i < REFUSALS; i++)
		refuse_one();
	kill(proxy->pid, SIGHUP);
	int status = proxy_wait(proxy, 8000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
	int lines = count_lines("127.0.0.1:"), left_out = count_left_out();
	cr_assert_gt(left_out, 0);
	cr_assert_eq(lines + left_out, REFUSALS, "%d refusals, %d lines, %d left out", REFUSALS,
	    lines, left_out);
}

/* Noise must not silence later lines. */
PROGRAM_TEST(log, lines_come_again_after_a_flood)
{
	proxy = proxy_start_default();
	for (int i = 0; i < 2000; i++)
		refuse_one();
	int64_t end_ms = now_ms() + margin_ms(10000);
	while (find_line("127.0.0.1:") == NULL ||
	    strstr(proxy_log(proxy), "after-the-flood.example: ") == NULL) {
		cr_assert_lt(now_ms(), end_ms);
		poll(NULL, 0, 250);
		expect_refused(hello_for("after-the-flood.example"), UNRECOGNIZED_NAME);
	}
}

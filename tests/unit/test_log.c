/* Tests of log.c. Each test is a process of its own; its descriptor 2 is a pipe that the test
 * reads. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/thread.h"
#include "tests/unit/check.h"

enum {
	TEXT_SIZE = 64 * 1024,

	/* Bounds for calls that do not wait for a reader: such a wait would not end. */
	AT_ONCE_MS = 3000,
	FLUSHED_MS = 3000, /* besides */
};

static int reader = -1; /* the other end of descriptor 2 */

static void
open_log(void)
{
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	cr_assert(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
	close(ends[1]);
	reader = ends[0];
	cr_assert(fcntl(reader, F_SETFL, O_NONBLOCK) == 0);
	signal(SIGPIPE, SIG_IGN);
	cr_assert(thread_start(log_run, NULL) == 0);
	log_open();
}

TestSuite(log, .init = open_log, .timeout = 60);

/* Reads what the log has by now. */
static void
read_written(char text[TEXT_SIZE])
{
	size_t length = 0;
	ssize_t result;
	while ((result = read(reader, text + length, TEXT_SIZE - 1 - length)) > 0)
		length += (size_t)result;
	text[length] = '\0';
}

/* Reads all that was logged. */
static void
read_log(char text[TEXT_SIZE])
{
	log_flush();
	read_written(text);
}

static void
expect_log(const char *expected)
{
	char text[TEXT_SIZE];
	read_log(text);
	cr_expect(strcmp(text, expected) == 0, "logged: %s", text);
}

/* How many lines a log has, and how many it says were left out. */
struct counts {
	unsigned written;
	unsigned left_out;
};

/* Adds what TEXT says to COUNTS. */
static void
count_lines(struct counts *counts, char *text)
{
	char *rest = NULL;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		unsigned left_out;
		int end = 0;
		sscanf(line, "sniproxy: %u log lines left out%n", &left_out, &end);
		if (end > 0 && line[end] == '\0')
			counts->left_out += left_out;
		else
			counts->written++;
	}
}

/* Adds what the log says until LINES are accounted for, or some seconds are over. */
static void
count_until(struct counts *counts, unsigned lines)
{
	int64_t deadline_ms = clock_ms() + 5000;
	char text[TEXT_SIZE];
	size_t held = 0; /* bytes of an incomplete line */
	do {
		struct pollfd descriptor = {.fd = reader, .events = POLLIN};
		log_count_left_out();
		poll(&descriptor, 1, 100);
		ssize_t length = read(reader, text + held, sizeof text - 1 - held);
		held += length > 0 ? (size_t)length : 0;
		text[held] = '\0';
		char *end = strrchr(text, '\n');
		if (end == NULL)
			continue;
		*end++ = '\0';
		count_lines(counts, text);
		held -= (size_t)(end - text);
		memmove(text, end, held);
	} while (counts->written + counts->left_out < lines && clock_ms() < deadline_ms);
	cr_expect(counts->written + counts->left_out == lines, "%u written, %u left out of %u",
	    counts->written, counts->left_out, lines);
}

Test(log, writes_a_line)
{
	errno = EXDEV;
	log_line(LOG_HOST, "%s: %d%%", "load", 7);
	cr_expect(errno == EXDEV);
	expect_log("load: 7%\n");
	log_line(LOG_HOST, "%s", "");
	expect_log("\n");
	expect_log("");
}

Test(log, cuts_what_is_too_long)
{
	for (size_t length = LOG_LINE_MAX - 10; length < LOG_LINE_MAX + 10; length++) {
		char line[2 * LOG_LINE_MAX] = "", text[TEXT_SIZE];
		memset(line, 'a', length);
		log_line(LOG_HOST, "%s", line);
		read_log(text);
		size_t written = strlen(text);
		cr_expect(written <= LOG_LINE_MAX, "%zu for %zu", written, length);
		cr_expect(written >= LOG_LINE_MAX - 10, "%zu for %zu", written, length);
		cr_expect(strspn(text, "a") == written - 1 && text[written - 1] == '\n');
	}
}

/* How many lines may have been written if logging began at BEGIN_MS. */
static unsigned
allowed_since(int64_t begin_ms)
{
	return LOG_BURST + LOG_LINES_A_SECOND * (unsigned)((clock_ms() - begin_ms) / 1000 + 1);
}

Test(log, leaves_out_what_is_too_much_and_says_so)
{
	enum { LINES = 1000 };
	struct counts counts = {0};
	int64_t begin_ms = clock_ms();
	for (int i = 0; i < LINES; i++)
		log_line(LOG_HOST, "line %d", i);
	unsigned allowed = allowed_since(begin_ms);
	count_until(&counts, LINES);
	cr_expect(counts.written >= LOG_BURST, "%u written", counts.written);
	cr_expect(counts.written <= allowed, "%u written", counts.written);
	log_line(LOG_HOST, "after");
	expect_log("after\n");
}

/* The lines of one kind that are left out do not reduce the budget of another. */
Test(log, has_a_budget_for_each_kind)
{
	char text[TEXT_SIZE];
	errno = EXDEV;
	for (int i = 0; i < 2 * LOG_BURST; i++)
		log_line(LOG_CLIENT, "client %d", i);
	for (int i = 0; i < LOG_BURST; i++)
		log_line(LOG_HOST, "host %d", i);
	for (int i = 0; i < 2 * LOG_BURST; i++)
		log_line(LOG_PROGRAM, "program %d", i);
	cr_expect(errno == EXDEV);
	read_log(text);
	unsigned lines[3] = {0}, left_out = 0;
	char *rest = NULL;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		lines[0] += strncmp(line, "client ", 7) == 0;
		lines[1] += strncmp(line, "host ", 5) == 0;
		lines[2] += strncmp(line, "program ", 8) == 0;
		sscanf(line, "sniproxy: %u log lines without a name", &left_out);
	}
	cr_expect(lines[0] >= LOG_BURST && lines[0] + left_out == 2 * LOG_BURST);
	cr_expect(lines[1] == LOG_BURST, "%u of hosts", lines[1]);
	cr_expect(lines[2] == 2 * LOG_BURST, "%u of the program", lines[2]);
}

Test(log, counts_what_it_left_out_before_the_next_line)
{
	char text[TEXT_SIZE], first[100], last[100];
	for (int i = 0; i < 2 * LOG_BURST; i++)
		log_line(LOG_HOST, "line %d", i);
	poll(NULL, 0, 1200); /* until more are allowed */
	log_line(LOG_HOST, "the next");
	read_log(text);
	snprintf(first, sizeof first, "line 0\nline 1\nline 2\n");
	cr_expect(strncmp(text, first, strlen(first)) == 0, "%s", text);
	snprintf(last, sizeof last, "log lines left out\nthe next\n");
	cr_expect(
	    strlen(text) > strlen(last) && strcmp(text + strlen(text) - strlen(last), last) == 0,
	    "%s", text);
	struct counts counts = {0};
	count_lines(&counts, text);
	cr_expect(counts.written + counts.left_out == 2 * LOG_BURST + 1);
}

Test(log, says_so_of_a_single_line_too)
{
	struct counts counts = {0};
	for (int i = 0; i < LOG_BURST + 1; i++)
		log_line(LOG_HOST, "line %d", i);
	count_until(&counts, LOG_BURST + 1);
	cr_expect(counts.left_out == 1, "%u left out", counts.left_out);
}

Test(log, flushes_the_count_at_once)
{
	struct counts counts = {0};
	char text[TEXT_SIZE];
	for (int i = 0; i < 2 * LOG_BURST; i++)
		log_line(LOG_HOST, "line %d", i);
	read_log(text);
	count_lines(&counts, text);
	cr_expect(counts.written + counts.left_out == 2 * LOG_BURST);
}

/* An endless flood: one line a millisecond. */
Test(log, is_bounded_in_the_long_run)
{
	struct counts counts = {0};
	unsigned logged = 0;
	int64_t begin_ms = clock_ms();
	for (; clock_ms() - begin_ms < 2500; logged++) {
		log_line(LOG_HOST, "line");
		poll(NULL, 0, 1);
	}
	cr_expect(logged > 5 * LOG_BURST, "only %u lines", logged);
	count_until(&counts, logged);
	cr_expect(counts.written <= allowed_since(begin_ms), "%u written", counts.written);
}

/* Fills the pipe at descriptor 2. Returns how many bytes that took. */
static size_t
fill_pipe(void)
{
	char block[4096] = "";
	size_t filled = 0;
	struct pollfd descriptor = {.fd = STDERR_FILENO, .events = POLLOUT};
	cr_assert(fcntl(STDERR_FILENO, F_SETPIPE_SZ, 4096) != -1);
	for (; poll(&descriptor, 1, 0) == 1; filled += sizeof block)
		cr_assert(write(STDERR_FILENO, block, sizeof block) == sizeof block);
	return filled;
}

/* Each line that is logged while nothing reads the pipe is written later, or is counted. */
static void
expect_no_waiting(int stderr_flags)
{
	enum { LINES = 1000 };
	char text[TEXT_SIZE];
	struct counts counts = {0};
	size_t filled = fill_pipe();
	cr_assert(fcntl(STDERR_FILENO, F_SETFL, stderr_flags) == 0);
	int64_t begin_ms = clock_ms();
	for (int i = 0; i < LINES; i++)
		log_line(LOG_HOST, "line %d", i);
	cr_expect(clock_ms() - begin_ms < AT_ONCE_MS, "logging waited");
	log_flush();
	cr_expect(clock_ms() - begin_ms < AT_ONCE_MS + FLUSHED_MS, "flushing waited");
	cr_assert(read(reader, text, filled) == (ssize_t)filled);
	count_until(&counts, LINES);
	log_line(LOG_HOST, "after");
	expect_log("after\n");
}

Test(log, waits_for_no_reader)
{
	expect_no_waiting(0);
}

/* Every process that shares descriptor 2 may set or clear O_NONBLOCK. */
Test(log, waits_for_no_reader_where_writing_would_fail)
{
	expect_no_waiting(O_NONBLOCK);
}

Test(log, does_without_a_reader)
{
	close(reader);
	reader = -1;
	errno = EXDEV;
	log_line(LOG_HOST, "nobody reads this");
	cr_expect(errno == EXDEV);

	close(STDERR_FILENO);
	log_line(LOG_HOST, "nor this");
	cr_expect(errno == EXDEV);
	log_flush();
}

/* Lines of ended connections have a budget of their own, and leave room for failures. */
Test(log, bounds_connections_apart_from_failures)
{
	enum { CONNECTIONS = 5 * LOG_CONNECTIONS };
	unsigned written = 0, left_out = 0, failures = 0;
	size_t filled = fill_pipe();
	char *text = malloc(TEXT_SIZE);
	int64_t begin_ms = clock_ms();
	for (int i = 0; i < CONNECTIONS; i++)
		log_line(LOG_END, "connection %d", i);
	cr_expect(clock_ms() - begin_ms < AT_ONCE_MS, "logging waited");
	for (int i = 0; i < LOG_BURST; i++)
		log_line(LOG_HOST, "failure %d", i);
	cr_assert(read(reader, text, filled) == (ssize_t)filled);
	int64_t deadline_ms = clock_ms() + 5000;
	while (written + left_out < CONNECTIONS && clock_ms() < deadline_ms) {
		char *rest = NULL;
		poll(NULL, 0, 50);
		log_count_left_out();
		read_written(text);
		for (char *line = strtok_r(text, "\n", &rest); line != NULL;
		     line = strtok_r(NULL, "\n", &rest)) {
			unsigned count;
			written += strncmp(line, "connection ", 11) == 0;
			failures += strncmp(line, "failure ", 8) == 0;
			if (sscanf(line, "sniproxy: %u lines of ended", &count) == 1)
				left_out += count;
		}
	}
	cr_expect(written == LOG_CONNECTIONS, "%u written", written);
	cr_expect(written + left_out == CONNECTIONS, "%u left out", left_out);
	cr_expect(failures == LOG_BURST, "%u failures", failures);
	free(text);
}

enum { THREADS = 5, LINES_EACH = 8 };

static void *
log_lines(void *letter)
{
	char line[200] = "";
	memset(line, *(const char *)letter, sizeof line - 1);
	for (int i = 0; i < LINES_EACH; i++)
		log_line(LOG_HOST, "%s", line);
	return NULL;
}

Test(log, keeps_the_lines_of_threads_apart)
{
	static const char letters[] = "abcde";
	pthread_t threads[THREADS];
	char text[TEXT_SIZE];
	unsigned seen[THREADS] = {0};
	for (size_t i = 0; i < THREADS; i++)
		cr_assert(pthread_create(&threads[i], NULL, log_lines, (void *)&letters[i]) == 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	read_log(text);
	char *rest = NULL;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		const char *letter = strchr(letters, line[0]);
		char one[] = {line[0], '\0'};
		cr_assert(letter != NULL && strlen(line) == 199, "%s", line);
		cr_expect(strspn(line, one) == 199, "%s", line);
		seen[letter - letters]++;
	}
	for (size_t i = 0; i < THREADS; i++)
		cr_expect(seen[i] == LINES_EACH, "%c: %u", letters[i], seen[i]);
}

/* Puts a datagram socket at /dev/log, in a /dev that only this process sees. */
static int
listen_at_dev_log(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	if (unshare(CLONE_NEWNS) == -1 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mount("none", "/dev", "tmpfs", 0, NULL) == -1)
		cr_skip_test("needs root, or user namespaces: %s", strerror(errno));
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(s != -1 && bind(s, (struct sockaddr *)&address, sizeof address) == 0);
	return s;
}

static int dev_log = -1;

/* The log's thread must be started in the namespace that has this /dev/log. */
static void
open_syslog(void)
{
	dev_log = listen_at_dev_log();
	log_to_syslog();
	open_log();
}

TestSuite(syslog, .init = open_syslog, .timeout = 60);

Test(syslog, gets_a_line)
{
	char text[TEXT_SIZE] = "";
	errno = EXDEV;
	log_line(LOG_HOST, "%s: %d%%", "load", 7);
	cr_expect(errno == EXDEV);
	log_flush();
	cr_assert(recv(dev_log, text, sizeof text - 1, 0) > 0, "nothing came");
	cr_expect(strncmp(text, "<29>", 4) == 0, "not from a daemon, or no notice: %s", text);
	const char *message = strstr(text, "sniproxy[");
	cr_assert(message != NULL, "%s", text);
	cr_expect(strcmp(strchr(message, ']'), "]: load: 7%") == 0, "%s", text);
	expect_log("");
}

Test(syslog, may_be_absent)
{
	close(dev_log);
	log_line(LOG_HOST, "nobody reads this");
	cr_assert(unlink("/dev/log") == 0);
	log_line(LOG_HOST, "nor this");
	expect_log("");
}

/* Sends to /dev/log until a sender would block. */
static void
fill_dev_log(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(s != -1);
	while (sendto(s, "x", 1, 0, (struct sockaddr *)&address, sizeof address) == 1)
		continue;
	cr_assert(errno == EAGAIN, "%s", strerror(errno));
}

Test(syslog, is_not_waited_for)
{
	enum { LINES = 10 };
	fill_dev_log();
	int64_t begin_ms = clock_ms();
	for (int i = 0; i < LINES; i++)
		log_line(LOG_HOST, "line %d", i);
	cr_expect(clock_ms() - begin_ms < AT_ONCE_MS, "logging waited");

	for (int i = 0; i < LINES;) {
		char text[TEXT_SIZE] = "", expected[100];
		struct pollfd descriptor = {.fd = dev_log, .events = POLLIN};
		cr_assert(poll(&descriptor, 1, 5000) == 1, "line %d did not come", i);
		cr_assert(recv(dev_log, text, sizeof text - 1, 0) > 0);
		if (strcmp(text, "x") == 0) /* what filled it */
			continue;
		snprintf(expected, sizeof expected, "]: line %d", i++);
		cr_expect(strstr(text, expected) != NULL, "%s", text);
	}
}

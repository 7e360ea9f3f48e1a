#include "lib/log.h"

#include "lib/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum {
	/* How long to wait for a reader of the log that has stopped reading. */
	FLUSH_MS = 1000,

	/* The queue in lines: those reserved for failures and notices, a burst of each kind of
	 * failure; and the rest, which holds a second's lines on ended connections. */
	RESERVE = 2 * LOG_BURST,
	LINES = RESERVE + LOG_CONNECTIONS,
};

/* The rate limit of one kind of line. */
struct budget {
	unsigned burst, a_second;
	const char *name;

	/* Guarded by the mutex: */
	unsigned allowed;      /* how many lines may be queued now */
	int64_t allowed_at_ms; /* when ALLOWED last grew */
	unsigned long left_out;
};

static struct budget budgets[LOG_KINDS] = {
    [LOG_PROGRAM] = {.burst = LOG_CONNECTIONS, .a_second = LOG_CONNECTIONS, .name = "notices"},
    [LOG_HOST] = {.burst = LOG_BURST, .a_second = LOG_LINES_A_SECOND, .name = "log lines"},
    [LOG_CLIENT] = {.burst = LOG_BURST,
	.a_second = LOG_LINES_A_SECOND,
	.name = "log lines without a name"},
    [LOG_END] = {.burst = LOG_CONNECTIONS,
	.a_second = LOG_CONNECTIONS,
	.name = "lines of ended connections"},
};

static struct {
	bool to_syslog; /* both set while no line is queued */
	bool open;

	pthread_mutex_t mutex; /* guards all that follows */
	pthread_cond_t queued; /* a line was queued */
	size_t first, count;   /* the queue: COUNT lines from FIRST on, in a circle */

	/* The thread writes the first line of the queue without the mutex. */
	char lines[LINES][LOG_LINE_MAX];
} logger = {.mutex = PTHREAD_MUTEX_INITIALIZER, .queued = PTHREAD_COND_INITIALIZER};

/* Writes LINE, and changes it. On descriptor 2 it gets a newline, and is written by one call, so
 * that other processes' lines in a pipe stay apart. A process that shares that descriptor may have
 * set O_NONBLOCK; then poll(2) waits, but only for FLUSH_MS before log_open(). If writing fails,
 * drops the rest. */
static void
write_line(char *line)
{
	struct pollfd descriptor = {.fd = STDERR_FILENO, .events = POLLOUT};
	size_t length = strlen(line);
	if (logger.to_syslog) {
		syslog(LOG_NOTICE, "%s", line);
		return;
	}
	line[length++] = '\n';
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, line, length);
		if (written > 0) {
			line += written;
			length -= (size_t)written;
		} else if (written == 0 || errno != EAGAIN ||
		    poll(&descriptor, 1, logger.open ? -1 : FLUSH_MS) <= 0) {
			return;
		}
	}
}

/* Queues LINE if RESERVED more lines fit. Returns whether it did. */
static bool
queue_line(const char *line, size_t reserved)
{
	if (logger.count + reserved >= LINES)
		return false;
	size_t next = (logger.first + logger.count++) % LINES;
	snprintf(logger.lines[next], LOG_LINE_MAX, "%s", line);
	pthread_cond_signal(&logger.queued);
	return true;
}

/* Queues the count of lines left out, if there are any. */
static void
queue_left_out(struct budget *budget)
{
	char line[LOG_LINE_MAX];
	if (budget->left_out == 0)
		return;
	snprintf(line, sizeof line, "sniproxy: %lu %s left out", budget->left_out, budget->name);
	if (queue_line(line, 0))
		budget->left_out = 0;
}

/* Raises the budget as time passes, and queues the count of lines left out first. */
static void
allow_lines(struct budget *budget)
{
	int64_t seconds = (clock_ms() - budget->allowed_at_ms) / 1000;
	if (seconds == 0)
		return;
	budget->allowed_at_ms += seconds * 1000;
	int64_t allowed = budget->allowed + seconds * budget->a_second;
	budget->allowed = allowed < budget->burst ? (unsigned)allowed : budget->burst;
	queue_left_out(budget);
}

_Noreturn void *
log_run(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&logger.mutex);
	for (;;) {
		while (logger.count == 0)
			pthread_cond_wait(&logger.queued, &logger.mutex);
		char *line = logger.lines[logger.first];
		pthread_mutex_unlock(&logger.mutex);
		write_line(line);
		pthread_mutex_lock(&logger.mutex);
		/* An empty queue begins anew, so that memory it never needs is not used. */
		logger.count--;
		logger.first = logger.count == 0 ? 0 : (logger.first + 1) % LINES;
	}
}

void
log_to_syslog(void)
{
	tzset(); /* for syslog(3): the sandbox allows no file to be read later */
	openlog("sniproxy", LOG_PID, LOG_DAEMON);
	logger.to_syslog = true;
}

void
log_open(void)
{
	for (size_t i = 0; i < LOG_KINDS; i++) {
		budgets[i].allowed = budgets[i].burst;
		budgets[i].allowed_at_ms = clock_ms();
	}
	logger.open = true;
}

/* Queues LINE of KIND if its budget allows it, or counts it as left out. */
static void
queue_or_leave_out(enum log_kind kind, const char *line)
{
	struct budget *budget = &budgets[kind];
	pthread_mutex_lock(&logger.mutex);
	allow_lines(budget);
	if (budget->allowed > 0 && queue_line(line, kind == LOG_END ? RESERVE : 0))
		budget->allowed--;
	else
		budget->left_out++;
	pthread_mutex_unlock(&logger.mutex);
}

void
log_line(enum log_kind kind, const char *format, ...)
{
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	va_list arguments;
	va_start(arguments, format);
	if (vsnprintf(line, sizeof line, format, arguments) < 0)
		line[0] = '\0';
	va_end(arguments);
	if (logger.open)
		queue_or_leave_out(kind, line);
	else
		write_line(line);
	errno = saved_errno;
}

void
log_count_left_out(void)
{
	pthread_mutex_lock(&logger.mutex);
	for (size_t i = 0; i < LOG_KINDS; i++)
		allow_lines(&budgets[i]);
	pthread_mutex_unlock(&logger.mutex);
}

void
log_flush(void)
{
	int64_t end_ms = clock_ms() + FLUSH_MS;
	pthread_mutex_lock(&logger.mutex);
	for (size_t i = 0; i < LOG_KINDS; i++)
		queue_left_out(&budgets[i]);
	while (logger.count > 0 && clock_ms() < end_ms) {
		pthread_mutex_unlock(&logger.mutex);
		poll(NULL, 0, 1);
		pthread_mutex_lock(&logger.mutex);
	}
	pthread_mutex_unlock(&logger.mutex);
}

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

	/* The queue in bytes: the part reserved for failures and notices, and the rest, which holds
	 * about a second's lines on ended connections. */
	RESERVE = LOG_LINE_MAX * LOG_BURST,
	COMMON = 128 * 1024,
};

/* Lines, each ended by a newline. */
struct lines {
	char bytes[RESERVE + COMMON];
	size_t length;
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
	struct lines queue;    /* to be written */
	struct lines written;  /* the thread writes these, without the mutex */
} logger = {.mutex = PTHREAD_MUTEX_INITIALIZER, .queued = PTHREAD_COND_INITIALIZER};

/* Writes to descriptor 2. A process that shares it may have set O_NONBLOCK; then poll(2) waits, but
 * only for FLUSH_MS before log_open(). If writing fails, drops the rest. */
static void
write_stderr(const char *bytes, size_t length)
{
	struct pollfd descriptor = {.fd = STDERR_FILENO, .events = POLLOUT};
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, bytes, length);
		if (written > 0) {
			bytes += written;
			length -= (size_t)written;
		} else if (written == 0 || errno != EAGAIN ||
		    poll(&descriptor, 1, logger.open ? -1 : FLUSH_MS) <= 0) {
			return;
		}
	}
}

/* Writes each line with one call, so that other processes' lines in a pipe stay apart. */
static void
write_lines(const char *line, size_t length)
{
	for (const char *end = line + length; line < end; line += length) {
		length = strcspn(line, "\n") + 1;
		if (logger.to_syslog)
			syslog(LOG_NOTICE, "%.*s", (int)length - 1, line);
		else
			write_stderr(line, length);
	}
}

/* Queues LENGTH bytes of LINE, which ends with a newline, if RESERVED bytes stay free. Returns
 * whether it did. */
static bool
queue_line(const char *line, size_t length, size_t reserved)
{
	struct lines *queue = &logger.queue;
	if (length + reserved > sizeof queue->bytes - queue->length)
		return false;
	memcpy(queue->bytes + queue->length, line, length);
	queue->length += length;
	pthread_cond_signal(&logger.queued);
	return true;
}

/* Queues the count of lines left out, if there are any. */
static void
queue_left_out(struct budget *budget)
{
	char line[LOG_LINE_MAX];
	int length = snprintf(
	    line, sizeof line, "sniproxy: %lu %s left out\n", budget->left_out, budget->name);
	if (budget->left_out > 0 && queue_line(line, (size_t)length, 0))
		budget->left_out = 0;
}

/* Raises the budget as time passes, and uses it first for the count of lines left out. */
static void
allow_lines(struct budget *budget)
{
	int64_t seconds = (clock_ms() - budget->allowed_at_ms) / 1000;
	if (seconds == 0)
		return;
	budget->allowed_at_ms += seconds * 1000;
	int64_t allowed = budget->allowed + seconds * budget->a_second;
	budget->allowed = allowed < budget->burst ? (unsigned)allowed : budget->burst;
	if (budget->left_out > 0) {
		budget->allowed--;
		queue_left_out(budget);
	}
}

_Noreturn void *
log_run(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&logger.mutex);
	for (;;) {
		while (logger.queue.length == 0)
			pthread_cond_wait(&logger.queued, &logger.mutex);
		memcpy(&logger.written, &logger.queue, sizeof logger.queue);
		logger.queue.length = 0;
		pthread_mutex_unlock(&logger.mutex);
		write_lines(logger.written.bytes, logger.written.length);
		pthread_mutex_lock(&logger.mutex);
		logger.written.length = 0;
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

/* Queues LENGTH bytes of LINE, if BUDGET allows it, or counts the line as left out. */
static void
queue_or_leave_out(struct budget *budget, const char *line, size_t length)
{
	size_t reserved = budget == &budgets[LOG_END] ? RESERVE : 0;
	pthread_mutex_lock(&logger.mutex);
	allow_lines(budget);
	if (budget->allowed > 0 && queue_line(line, length, reserved))
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
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	size_t end = length < 0 ? 0 : (size_t)length;
	if (end > sizeof line - 2)
		end = sizeof line - 2;
	line[end++] = '\n';
	line[end] = '\0';
	if (logger.open)
		queue_or_leave_out(&budgets[kind], line, end);
	else
		write_lines(line, end);
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
	while (logger.queue.length + logger.written.length > 0 && clock_ms() < end_ms) {
		pthread_mutex_unlock(&logger.mutex);
		poll(NULL, 0, 1);
		pthread_mutex_lock(&logger.mutex);
	}
	pthread_mutex_unlock(&logger.mutex);
}

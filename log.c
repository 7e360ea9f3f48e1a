#include "log.h"

#include "clock.h"
#include "system.h"
#include "thread.h"

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
	/* How long log_flush() waits for a reader of the log that has stopped. */
	FLUSH_MS = 1000,

	/* What stays free in the queue for failures and notices, and what there is for
	 * other lines, in bytes: a second's lines on connections with names of some length. */
	RESERVE = LOG_LINE_MAX * LOG_BURST,
	COMMON = 128 * 1024,
};

/* Lines, each with the newline at its end. */
struct lines {
	char bytes[RESERVE + COMMON];
	size_t length;
};

/* Lines of one kind, of which only so many are written. */
struct budget {
	unsigned burst;
	unsigned a_second;
	unsigned allowed;      /* how many lines may be queued now */
	int64_t allowed_at_ms; /* when that last grew */
	unsigned long left_out;
};

enum { FAILURES, CONNECTIONS, BUDGETS };

static struct {
	bool to_syslog; /* set before there are threads, as is the next */
	bool open;

	pthread_mutex_t mutex;  /* for all that follows */
	pthread_cond_t changed; /* a line was queued or left out, or all is written */
	struct lines queue;     /* to be written */
	struct lines written; /* the thread has taken these, to write without the mutex */
} logger = {
    .mutex = PTHREAD_MUTEX_INITIALIZER}; /* all zero, so not in the program's file */

/* Behind the same mutex. */
static struct budget budgets[BUDGETS] = {
    [FAILURES] = {.burst = LOG_BURST, .a_second = LOG_LINES_A_SECOND},
    [CONNECTIONS] = {.burst = LOG_CONNECTIONS, .a_second = LOG_CONNECTIONS},
};

/* Writes to descriptor 2. Whoever shares it may have set O_NONBLOCK: then this waits by
 * itself, but where the program has not started, not for long. Where writing fails, nobody
 * reads it. */
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

static void
write_line(const char *line, size_t length)
{
	if (logger.to_syslog)
		syslog(LOG_NOTICE, "%.*s", (int)length - 1, line);
	else
		write_stderr(line, length);
}

/* Writes each line by itself: in a pipe, that keeps it apart from other processes'
 * lines. */
static void
write_lines(const struct lines *lines)
{
	const char *line = lines->bytes, *end = line + lines->length;
	while (line < end) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		size_t length = (size_t)(newline + 1 - line);
		write_line(line, length);
		line += length;
	}
}

/* Whether LENGTH more bytes fit into the queue, so that RESERVED ones stay free. */
static bool
fits(size_t length, size_t reserved)
{
	return length + reserved <= sizeof logger.queue.bytes - logger.queue.length;
}

/* Queues LENGTH bytes of LINE, which end with a newline. Returns false where there is no
 * room. */
static bool
queue_line(const char *line, size_t length, size_t reserved)
{
	struct lines *queue = &logger.queue;
	if (!fits(length, reserved))
		return false;
	memcpy(queue->bytes + queue->length, line, length);
	queue->length += length;
	pthread_cond_broadcast(&logger.changed);
	return true;
}

/* Queues the count of what was left out, if anything was. */
static void
queue_left_out(struct budget *budget)
{
	char line[LOG_LINE_MAX];
	if (budget->left_out == 0)
		return;
	int length = snprintf(line, sizeof line,
	    budget == &budgets[FAILURES]
		? "sniproxy: %lu log lines left out\n"
		: "sniproxy: %lu lines of ended connections left out\n",
	    budget->left_out);
	if (queue_line(line, (size_t)length, 0))
		budget->left_out = 0;
}

/* Lets lines through as time goes by, the count of those left out first. */
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

static bool
has_left_out(void)
{
	return budgets[FAILURES].left_out > 0 || budgets[CONNECTIONS].left_out > 0;
}

/* Waits until something has changed, until DEADLINE_MS at most. Returns false when that
 * is over. */
static bool
wait_for_change(int64_t deadline_ms)
{
	return system_wait_until(&logger.changed, &logger.mutex, deadline_ms);
}

/* Takes what was queued, to write it. */
static void
take_queue(void)
{
	memcpy(logger.written.bytes, logger.queue.bytes, logger.queue.length);
	logger.written.length = logger.queue.length;
	logger.queue.length = 0;
}

static _Noreturn void *
write_log(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&logger.mutex);
	for (;;) {
		for (size_t i = 0; i < BUDGETS; i++)
			allow_lines(&budgets[i]);
		if (logger.queue.length == 0) {
			if (has_left_out())
				wait_for_change(clock_ms() + 1000);
			else
				pthread_cond_wait(&logger.changed, &logger.mutex);
			continue;
		}
		take_queue();
		pthread_cond_broadcast(&logger.changed); /* there is room again */
		pthread_mutex_unlock(&logger.mutex);
		write_lines(&logger.written);
		pthread_mutex_lock(&logger.mutex);
		logger.written.length = 0;
		pthread_cond_broadcast(&logger.changed);
	}
}

void
log_to_syslog(void)
{
	tzset(); /* syslog(3) tells the time of day, and reads no file later */
	openlog("sniproxy", LOG_PID, LOG_DAEMON);
	logger.to_syslog = true;
}

int
log_open(void)
{
	system_init_condition(&logger.changed);
	for (size_t i = 0; i < BUDGETS; i++) {
		budgets[i].allowed = budgets[i].burst;
		budgets[i].allowed_at_ms = clock_ms();
	}
	int error = thread_start(write_log, NULL);
	logger.open = error == 0;
	return error;
}

/* Queues LENGTH bytes of LINE, or counts them in BUDGET: only as many lines as that allows
 * where it is LIMITED. */
static void
queue_or_leave_out(struct budget *budget, const char *line, size_t length, bool limited)
{
	size_t reserved = budget == &budgets[CONNECTIONS] ? RESERVE : 0;
	pthread_mutex_lock(&logger.mutex);
	allow_lines(budget);
	if ((!limited || budget->allowed > 0) && queue_line(line, length, reserved))
		budget->allowed -= limited;
	else if (budget->left_out++ == 0)
		pthread_cond_broadcast(&logger.changed);
	pthread_mutex_unlock(&logger.mutex);
}

/* Queues LENGTH bytes of LINE when there is room. Returns false where there was none for
 * too long. */
static bool
wait_and_queue(const char *line, size_t length)
{
	int64_t deadline_ms = clock_ms() + LOG_REPORT_MS;
	pthread_mutex_lock(&logger.mutex);
	while (!fits(length, RESERVE))
		if (!wait_for_change(deadline_ms))
			break;
	bool queued = queue_line(line, length, RESERVE);
	pthread_mutex_unlock(&logger.mutex);
	return queued;
}

/* What becomes of a line. */
enum manner { FAILURE, NOTICE, CONNECTION, REPORT };

static bool
log_arguments(const char *format, va_list arguments, enum manner manner)
{
	bool queued = true;
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	if (length < 0)
		length = 0;
	if (length > (int)sizeof line - 2)
		length = (int)sizeof line - 2;
	line[length++] = '\n';
	if (!logger.open)
		write_line(line, (size_t)length);
	else if (manner == REPORT)
		queued = wait_and_queue(line, (size_t)length);
	else
		queue_or_leave_out(
		    &budgets[manner == CONNECTION ? CONNECTIONS : FAILURES], line,
		    (size_t)length, manner != NOTICE);
	errno = saved_errno;
	return queued;
}

void
log_line(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_arguments(format, arguments, FAILURE);
	va_end(arguments);
}

void
log_notice(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_arguments(format, arguments, NOTICE);
	va_end(arguments);
}

void
log_connection(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_arguments(format, arguments, CONNECTION);
	va_end(arguments);
}

bool
log_report(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	bool queued = log_arguments(format, arguments, REPORT);
	va_end(arguments);
	return queued;
}

void
log_flush(void)
{
	if (!logger.open)
		return;
	int64_t deadline_ms = clock_ms() + FLUSH_MS;
	pthread_mutex_lock(&logger.mutex);
	for (size_t i = 0; i < BUDGETS; i++)
		queue_left_out(&budgets[i]);
	while (logger.queue.length > 0 || logger.written.length > 0)
		if (!wait_for_change(deadline_ms))
			break;
	pthread_mutex_unlock(&logger.mutex);
}

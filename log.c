#include "log.h"

#include "clock.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* How long log_flush() waits for a reader of the log that has stopped. */
enum { FLUSH_MS = 1000 };

/* Lines, each with the newline at its end. */
struct lines {
	char bytes[LOG_LINE_MAX * LOG_BURST];
	size_t length;
};

static struct {
	bool to_syslog; /* set before there are threads, as is the next */
	bool open;

	pthread_mutex_t mutex;  /* for all that follows */
	pthread_cond_t changed; /* a line was queued or left out, or all is written */
	struct lines queue;     /* to be written */
	struct lines written; /* the thread has taken these, to write without the mutex */
	unsigned lines_allowed; /* how many lines may be queued now */
	int64_t allowed_at_ms;  /* when lines_allowed last grew */
	unsigned long left_out;
} logger = {
    .mutex = PTHREAD_MUTEX_INITIALIZER}; /* all zero, so not in the program's file */

static void
write_line(const char *line, size_t length)
{
	if (logger.to_syslog)
		syslog(LOG_NOTICE, "%.*s", (int)length - 1, line);
	else
		(void)!write(
		    STDERR_FILENO, line, length); /* where it fails, nobody reads it */
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

/* Queues LENGTH bytes of LINE, which end with a newline. Returns false where there is no
 * room. */
static bool
queue_line(const char *line, size_t length)
{
	struct lines *queue = &logger.queue;
	if (length > sizeof queue->bytes - queue->length)
		return false;
	memcpy(queue->bytes + queue->length, line, length);
	queue->length += length;
	pthread_cond_broadcast(&logger.changed);
	return true;
}

static void
queue_left_out(void)
{
	char line[LOG_LINE_MAX];
	int length = snprintf(
	    line, sizeof line, "sniproxy: %lu log lines left out\n", logger.left_out);
	if (queue_line(line, (size_t)length))
		logger.left_out = 0;
}

/* Lets lines through as time goes by, the count of those left out first. */
static void
allow_lines(void)
{
	int64_t seconds = (clock_ms() - logger.allowed_at_ms) / 1000;
	logger.allowed_at_ms += seconds * 1000;
	int64_t allowed = logger.lines_allowed + seconds * LOG_LINES_A_SECOND;
	logger.lines_allowed = allowed < LOG_BURST ? (unsigned)allowed : LOG_BURST;
	if (logger.left_out > 0 && logger.lines_allowed > 0) {
		logger.lines_allowed--;
		queue_left_out();
	}
}

/* Waits until something has changed, until DEADLINE_MS at most. Returns false when that
 * is over. */
static bool
wait_for_change(int64_t deadline_ms)
{
	struct timespec until = {deadline_ms / 1000, deadline_ms % 1000 * 1000000};
	return pthread_cond_timedwait(&logger.changed, &logger.mutex, &until) !=
	    ETIMEDOUT;
}

static _Noreturn void *
write_log(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&logger.mutex);
	for (;;) {
		allow_lines();
		if (logger.queue.length == 0) {
			if (logger.left_out > 0)
				wait_for_change(clock_ms() + 1000);
			else
				pthread_cond_wait(&logger.changed, &logger.mutex);
			continue;
		}
		logger.written = logger.queue;
		logger.queue.length = 0;
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
	openlog("sniproxy", LOG_PID, LOG_DAEMON);
	logger.to_syslog = true;
}

int
log_open(void)
{
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&logger.changed, &attributes);
	pthread_condattr_destroy(&attributes);
	logger.lines_allowed = LOG_BURST;
	logger.allowed_at_ms = clock_ms();
	int error = thread_start(write_log, NULL);
	logger.open = error == 0;
	return error;
}

/* Queues LENGTH bytes of LINE; where it is LIMITED, only as many as are allowed. */
static void
queue_or_leave_out(const char *line, size_t length, bool limited)
{
	pthread_mutex_lock(&logger.mutex);
	allow_lines();
	if ((!limited || logger.lines_allowed > 0) && queue_line(line, length))
		logger.lines_allowed -= limited;
	else if (logger.left_out++ == 0)
		pthread_cond_broadcast(&logger.changed);
	pthread_mutex_unlock(&logger.mutex);
}

static void
log_arguments(const char *format, va_list arguments, bool limited)
{
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	if (length < 0)
		length = 0;
	if (length > (int)sizeof line - 2)
		length = (int)sizeof line - 2;
	line[length++] = '\n';
	if (logger.open)
		queue_or_leave_out(line, (size_t)length, limited);
	else
		write_line(line, (size_t)length);
	errno = saved_errno;
}

void
log_line(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_arguments(format, arguments, true);
	va_end(arguments);
}

void
log_notice(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_arguments(format, arguments, false);
	va_end(arguments);
}

void
log_flush(void)
{
	if (!logger.open)
		return;
	int64_t deadline_ms = clock_ms() + FLUSH_MS;
	pthread_mutex_lock(&logger.mutex);
	if (logger.left_out > 0)
		queue_left_out();
	while (logger.queue.length > 0 || logger.written.length > 0)
		if (!wait_for_change(deadline_ms))
			break;
	pthread_mutex_unlock(&logger.mutex);
}

/* The one place that writes log lines. Any thread may call it; none waits for whoever
 * reads the log, since a thread of the log's own does the writing. What a stranger can
 * make it write is bounded: LOG_BURST lines at once, LOG_LINES_A_SECOND for as long as it
 * goes on; where an administrator wants a line for each connection, LOG_CONNECTIONS of
 * those at once and each second. What is left out is counted, and the count is logged. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

enum {
	LOG_BURST = 50,
	LOG_LINES_A_SECOND = 5,
	LOG_CONNECTIONS = 1000,

	/* A line's longest length in bytes; more is cut off. Two addresses and a name
	 * fit. */
	LOG_LINE_MAX = 1024,

	/* How long a report waits for whoever reads the log. */
	LOG_REPORT_MS = 1000,
};

/* Makes lines go to syslog(3) instead of descriptor 2. To be called before log_open(). */
void log_to_syslog(void);

/* Starts the thread that writes. Until then, each line is written by whoever logs it. To
 * be called once. Returns 0, or an errno. */
int log_open(void);

/* Logs one line, formatted as by printf(3), without a newline. Bytes from a client go in
 * only after they were validated. errno is left as it was. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for what must not be left out because strangers have had much written. Whoever
 * calls it sees to it that there are few. */
void log_notice(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for a connection that has ended, where an administrator wants to see each. */
void log_connection(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for what an administrator has just asked for, which may be many lines. Waits for
 * room, for LOG_REPORT_MS at most. Returns whether there was any; where there was none, the
 * line is not logged, and it is for the caller to count it. */
bool log_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Logs the count of lines left out, if any were, and waits until all is written, for a
 * second at most. */
void log_flush(void);

#endif

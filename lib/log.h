/* The log. Any thread may call these functions. Only log_flush() waits for the reader of the log,
 * because a thread of its own does the writing. Each kind of line is limited in rate; the lines
 * left out are counted, and the count is logged. */
#ifndef LOG_H
#define LOG_H

/* The kinds of lines; each has a budget of its own. */
enum log_kind {
	LOG_PROGRAM, /* about the program itself; there are few */
	LOG_HOST,    /* the connection of a known host has failed */
	LOG_CLIENT,  /* a connection has failed before its host was known */
	LOG_END,     /* a connection has ended (SNIPROXY_LOG=connections) */
	LOG_KINDS,
};

enum {
	/* Maximum number of lines on failures: in a burst, and per second. */
	LOG_BURST = 50,
	LOG_LINES_A_SECOND = 5,

	/* Both limits for other kinds of lines. */
	LOG_CONNECTIONS = 1000,

	/* Maximum length of a line in bytes; the rest is cut off. Two addresses and a name fit. */
	LOG_LINE_MAX = 1024,
};

/* Sends lines to syslog(3) instead of descriptor 2. Call it before log_open(). */
void log_to_syslog(void);

/* Runs the writing thread. */
_Noreturn void *log_run(void *unused);

/* Leaves the writing to that thread. Until then, the caller of log_line() writes. Call it once,
 * after that thread was started. */
void log_open(void);

/* Logs one line of KIND, formatted as by printf(3), without a newline. Pass bytes from a client
 * only after they were validated. Preserves errno. */
void log_line(enum log_kind kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Logs the counts of lines left out, if the budgets allow that by now. */
void log_count_left_out(void);

/* Logs the counts of lines left out. Waits up to a second until everything is written. */
void log_flush(void);

#endif

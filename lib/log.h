/* The log. Any thread may call these functions; none waits for the reader of the log, since a
 * thread of its own does the writing. Of each kind of line, only so many are written, whoever
 * causes them; what is left out is counted, and the count is logged. */
#ifndef LOG_H
#define LOG_H

/* The kinds of lines; each has a budget of its own. */
enum log_kind {
	LOG_PROGRAM, /* of the program itself; there are few */
	LOG_HOST,    /* a connection has failed whose host is known */
	LOG_CLIENT,  /* one has failed before that */
	LOG_END,     /* a connection has ended, if each gets a line */
	LOG_KINDS,
};

enum {
	/* How many lines of failures are written at once, and then each second. */
	LOG_BURST = 50,
	LOG_LINES_A_SECOND = 5,

	/* How many of ended connections, at once and each second. */
	LOG_CONNECTIONS = 1000,

	/* A line's longest length in bytes; more is cut off. Two addresses and a name fit. */
	LOG_LINE_MAX = 1024,
};

/* Makes lines go to syslog(3) instead of descriptor 2. To be called before log_open(). */
void log_to_syslog(void);

/* What the thread does that writes. */
_Noreturn void *log_run(void *unused);

/* Leaves the writing to that thread. Until then, each line is written by the caller. To be
 * called once, after that thread was started. */
void log_open(void);

/* Logs one line of KIND, formatted as by printf(3), without a newline. Bytes from a client go in
 * only after they were validated. errno is left as it was. */
void log_line(enum log_kind kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Logs the counts of lines left out, as far as the budgets allow that by now. */
void log_count_left_out(void);

/* Logs the counts of lines left out, and waits until all is written, for a second at most. */
void log_flush(void);

#endif

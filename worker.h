/* The threads that serve connections. A connection waits without a thread until it has
 * something to do; then a thread takes it, does what can be done, and leaves it again. A
 * connection is served by one thread at a time.
 *
 * All of it is called by the main thread. */
#ifndef WORKER_H
#define WORKER_H

#include <stdbool.h>

enum {
	/* A thread that has had nothing to do for so long ends, if there are others. */
	WORKER_IDLE_MS = 10 * 1000,

	/* How exactly the deadlines of connections are kept. */
	WORKER_TICK_MS = 10,

	/* How long the main thread may write at a stretch about connections. */
	WORKER_REPORT_MS = 50,
	WORKER_CUT_OFF_MS = 1000,
};

/* Prepares for CONNECTIONS_MAX connections to hosts in the directory HOSTS, an O_PATH
 * descriptor, which must stay open. Returns an eventfd(2) that becomes readable as
 * worker_connections() says, or -1 with errno set; the caller reads it. */
int worker_init(int hosts, unsigned connections_max);

/* Starts the threads, which accept connections and serve them. Returns 0, or an errno where
 * not one could be started; then it may be called again. */
int worker_accept(void);

/* Has no more connections accepted. One that is just being accepted is still served. */
void worker_stop_accepting(void);

/* How far a report has come. All zero at first. */
struct worker_report {
	unsigned next;     /* the next place to look at */
	unsigned parked;   /* how many connections had no thread */
	unsigned left_out; /* how many were not told of, since nobody reads the log */
};

/* Logs a line for some of the open connections, which takes WORKER_REPORT_MS or, where the
 * log's reader has stopped, LOG_REPORT_MS. Of those at which a thread is just then, that
 * thread logs it. Returns whether there are more to look at. */
bool worker_report(struct worker_report *report);

/* How many threads there are. */
unsigned worker_threads(void);

/* How many connections there have been at once, or somewhat more. */
unsigned worker_connections_peak(void);

/* Logs a line for each connection that is still open, as one that is cut off. It waits for
 * threads that are at some, for WORKER_CUT_OFF_MS at most. To be followed by the end of the
 * process: nobody serves those connections any more. */
void worker_cut_off(void);

/* Returns how many connections are being served. If TELL, the next one to end makes the
 * descriptor from worker_init() readable. */
unsigned worker_connections(bool tell);

#endif

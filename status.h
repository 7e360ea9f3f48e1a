/* What goes on: counts of connections since the start, and lines about connections in
 * logfmt, which is key=value, key=value. No value needs quotes: names were validated.
 *
 * Any thread may call it. It shares nothing but counters, which are atomic, and the log. */
#ifndef STATUS_H
#define STATUS_H

#include "address.h"
#include "tls.h"

#include <stdbool.h>
#include <stdint.h>

/* How a connection has ended. Each ends in one way. */
enum status_end {
	STATUS_FAILED,         /* something broke here */
	STATUS_CLOSED,         /* both sides have ended their streams */
	STATUS_BACKEND_CLOSED, /* the backend closed before the client had ended its stream */
	STATUS_BACKEND_RESET,
	STATUS_CLIENT_RESET,
	STATUS_CLIENT_TIMEOUT, /* it has vanished, or takes nothing */
	STATUS_REFUSED,        /* by an alert */
	STATUS_GAVE_WAY,       /* to a new one, when no more fit */
	STATUS_TURNED_AWAY,    /* its address had too many, or its host was flooded */
	STATUS_CUT_OFF,        /* by the end of the program */
	STATUS_ENDS,
	STATUS_OPEN = STATUS_ENDS, /* it has not ended */
};

/* What a line tells of a connection. */
struct status_connection {
	const union address *peer;
	const char *name; /* empty where it is not known */
	int64_t age_ms;
	uint64_t up, down; /* the bytes passed on to the backend, and to the client */
};

/* What totals tell of this moment. */
struct status_moment {
	unsigned parked; /* connections at which no thread is */
	unsigned threads;
	unsigned descriptors;
	unsigned left_out; /* connections that got no line */
};

enum {
	/* Room for a line about a connection, with the longest name. */
	STATUS_LINE_SIZE = 512,
};

/* Notes when the program began, and whether each connection that ends gets a line. To be
 * called once, before there are threads. */
void status_begin(bool logs_connections);

/* Whether each connection that ends gets a line. */
bool status_logs_connections(void);

/* Counts a connection that was accepted, one that got a backend, and one that ended; ALERT
 * says why it was refused if it was. */
void status_accepted(void);
void status_routed(void);
void status_ended(enum status_end end, enum tls_alert alert);

/* Writes the line of a connection that is open, and in STATE, into LINE. */
void status_open_line(char line[STATUS_LINE_SIZE],
    const struct status_connection *connection, const char *state);

/* Writes the line of one that has ended into LINE. */
void
status_end_line(char line[STATUS_LINE_SIZE], const struct status_connection *connection,
    enum status_end end, enum tls_alert alert);

/* Logs the totals. */
void status_log_totals(const struct status_moment *moment);

#endif

/* Statistics: counts of connections since the start, and a line for each connection that ends, in
 * logfmt: key=value key=value. No value needs quotes, because names were validated. */
#ifndef STATUS_H
#define STATUS_H

#include "lib/table.h"

#include <stdbool.h>

/* Records the time of the start, and whether each connection that ends gets a line. Call it once,
 * before any thread starts. */
void status_begin(bool logs_connections);

/* Events that are counted, other than the ends of connections. */
enum status_event {
	STATUS_ACCEPTED,
	STATUS_ROUTED, /* it got a backend */
	STATUS_EVENTS,
};
void status_count(enum status_event event);

/* Counts that C has ended as END, and logs it if each connection gets a line. If memory was too
 * short for the connection, C is NULL. */
void status_ended(const struct connection *c, enum connection_end end);

/* Logs a line with all counts. */
void status_report(void);

#endif

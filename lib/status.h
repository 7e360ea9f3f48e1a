/* What goes on: counts of connections since the start, and a line for each connection that ends,
 * in logfmt: key=value, key=value. No value needs quotes: names were validated.
 *
 * Any thread may call these functions. They share counters, which are atomic. */
#ifndef STATUS_H
#define STATUS_H

#include "lib/table.h"

#include <stdbool.h>

/* Notes when the program began, and whether each connection that ends gets a line. To be called
 * once, before there are threads. */
void status_begin(bool logs_connections);

/* What is counted besides ends. */
enum status_event {
	STATUS_ACCEPTED,
	STATUS_ROUTED, /* it got a backend */
	STATUS_LOST,   /* it could not be served because memory was short */
	STATUS_EVENTS,
};
void status_count(enum status_event event);

/* Counts that C has ended as END, and logs it if each connection gets a line. */
void status_ended(const struct connection *c, enum connection_end end);

/* Logs a line with all counts. */
void status_report(void);

#endif

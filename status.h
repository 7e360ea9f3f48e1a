/* What goes on: counts of connections since the start, and lines about connections in
 * logfmt, which is key=value, key=value. No value needs quotes: names were validated.
 *
 * Any thread may call what does not say otherwise. It shares counters, which are atomic. */
#ifndef STATUS_H
#define STATUS_H

#include "connection.h"

#include <stdbool.h>

/* Notes when the program began, and whether each connection that ends gets a line. To be
 * called once, before there are threads. */
void status_begin(bool logs_connections);

/* Counts a connection that was accepted, one of those that could not be served for want of memory,
 * and one that got a backend. */
void status_accepted(void);
void status_lost(void);
void status_routed(void);

/* Counts that C has ended as END, once, and logs it where each connection gets such a line. */
void status_ended(struct connection *c, enum connection_end end);

/* Begins a report, and goes on with the one that has begun, for a moment: a line for each open
 * connection, and then the totals. Returns whether there is more to write. For the main thread. */
void status_begin_report(void);
bool status_go_on_reporting(void);

#endif

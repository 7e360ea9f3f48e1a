/* Who of a crowd that waits to be accepted is not even begun with, by what has come of the hello.
 * For the main thread. */
#ifndef TRIAGE_H
#define TRIAGE_H

#include "connection.h"

/* Looks at what the client of C, which was just accepted, has sent, and leaves it unread, but for a
 * PROXY header, which makes its client known. Returns END_OPEN where C is to be served; END_GAVE_WAY
 * where the hello is not there yet and nothing more has come for OVERDUE_MIN_MS: the first bytes come
 * with what completes the handshake; END_TURNED_AWAY where it is for a host of which there is a flood,
 * and then C has its name. */
enum connection_end triage(struct connection *c);

#endif

/* How a client is told that there is nothing for it, or nothing more.
 *
 * Any thread may call it. */
#ifndef REFUSAL_H
#define REFUSAL_H

#include "connection.h"
#include "tls.h"

#include <stdbool.h>

/* Sends the alert of C, if there is room for it. */
void refusal_send_alert(const struct connection *c);

/* From now on, what the client of C sends is read and dropped, until it has closed or for
 * CONNECTION_LINGER_MS; where it is PATIENT, and the client may still receive what the backend sent,
 * for as long as it does. Behind registry.h's lock. */
void refusal_linger(struct connection *c, bool patient);

/* Tells the client of C, by ALERT, and the log, by WHAT and WHY, that there is nothing for it, unless
 * it ends anyway; returns whether it does not. Behind registry.h's lock. */
bool refuse_locked(
    struct connection *c, enum tls_alert alert, const char *what, const char *why);

/* The same, and takes the lock. */
void
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why);

#endif

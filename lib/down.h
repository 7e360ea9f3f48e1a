/* Hosts that are down: their backend may be restarting, so connections wait for it, but not for
 * long. Any thread may call these functions. */
#ifndef DOWN_H
#define DOWN_H

#include <stdbool.h>

/* How long connections wait for a backend, and for how long it is remembered that they did so in
 * vain. */
enum { DOWN_MS = 1000 };

/* Records that nobody listens at HOST's SOCKET, a static string. Returns whether it is worth
 * waiting for it: it was not down before the last DOWN_MS. */
bool down_record(const char *host, const char *socket);

/* Forgets that HOST's SOCKET was down, if it was. */
void down_forget(const char *host, const char *socket);

#endif

/* The listening socket: descriptor 0, which other processes may share. Main thread only. */
#ifndef LISTENER_H
#define LISTENER_H

#include "lib/address.h"

#include <stdbool.h>

/* Returns NULL if descriptor 0 is a listening TCP socket. Otherwise returns what it is, such as "is
 * closed". */
const char *listener_check(void);

/* Whether DESCRIPTOR is the listening socket too. inetd and systemd put it on 1 and 2. */
bool listener_is(int descriptor);

/* Sets the options that connections inherit, and bounds the wait of accept(2). Closes descriptors 1
 * and 2 if they are the listening socket too, and those from 3 to 1023. Returns false with errno
 * set on failure. Call it once, before any descriptor is opened. */
bool listener_prepare(void);

/* Accepts a connection, waiting for one for a moment at most. Sets PEER to the client's address,
 * unmapped. Returns a non-blocking socket that the caller owns; or -1 with errno set, EAGAIN if
 * none has come. */
int listener_accept(union address *peer);

#endif

/* The listening socket, which is descriptor 0, and which other processes may share. For the main
 * thread. */
#ifndef LISTENER_H
#define LISTENER_H

#include "lib/address.h"

#include <stdbool.h>

/* Returns NULL if descriptor 0 is a listening TCP socket, else what it is instead, as in "stdin
 * is ...". */
const char *listener_check(void);

/* Whether DESCRIPTOR is the listening socket too: inetd and systemd put it on 1 and 2. */
bool listener_is(int descriptor);

/* Sets what connections inherit, and makes sure that accept(2) does not wait for ever. Returns
 * 0, or an errno. To be called once, before there are threads. */
int listener_prepare(void);

/* Accepts a connection, for which it waits a moment, and puts its client's address into PEER, as
 * IPv4 if it is one. Returns its socket, which is non-blocking and the caller's; or -1 with
 * errno set, EAGAIN if none has come. */
int listener_accept(union address *peer);

/* Gives up the listening socket, which others may go on using. OTHER takes its place on its
 * descriptors. */
void listener_give_up(int other);

#endif

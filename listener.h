/* The listening socket, which is descriptor 0 and which other processes may share. For the main
 * thread, but for listener_is_crowded(). */
#ifndef LISTENER_H
#define LISTENER_H

#include "address.h"

#include <stdbool.h>

/* Returns NULL where descriptor 0 is a listening TCP socket, else what it is instead, as
 * in "stdin is ...". */
const char *listener_check(void);

/* Whether DESCRIPTOR is the listening socket too: inetd and systemd put it on 1 and 2. To
 * be called before there are threads. */
bool listener_is(int descriptor);

/* Sets what the connections are to inherit, and makes it non-blocking where accept(2) would wait for
 * ever. Returns 0, or an errno. To be called once, before there are threads. */
int listener_prepare(void);

/* Accepts a connection, for which it may wait as long as RELAY_QUIET_MS, and puts its client's address
 * into PEER, as IPv4 where it is one. Returns its socket, which is blocking and the caller's, or -1 with
 * errno set; EAGAIN where none has come. */
int listener_accept(union address *peer);

/* How many connections wait to be accepted. Where the system does not tell, and some do, those stand for
 * them that were accepted in a row, and never was none there. */
int listener_waiting(void);

/* Whether many wait, and there may soon be no room for more. */
bool listener_is_crowded(void);

/* Gives up the listening socket, which others may go on using. What takes its place on
 * its descriptors is OTHER. */
void listener_give_up(int other);

#endif

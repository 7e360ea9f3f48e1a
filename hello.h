/* How a connection begins: the PROXY header, where a balancer in front sends one; the ClientHello; the
 * server name. */
#ifndef HELLO_H
#define HELLO_H

#include "connection.h"

#include <stdbool.h>

/* Reads what comes of the ClientHello of C, and in the end the name in it. Returns false where more is
 * to come. Else C has its name, or its end is decided. */
bool hello_read(struct connection *c);

/* For the main thread, behind registry.h's lock: the time for the hello of C is over. */
void hello_end(struct connection *c);

#endif

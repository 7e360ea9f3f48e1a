/* The client's end of a connection: opens it and sends the hello. */
#ifndef CLIENT_H
#define CLIENT_H

#include "bench/hello.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The time in nanoseconds since some point in the past. */
int64_t clock_ns(void);

/* Prints WHAT and what errno says, and exits with 1. */
_Noreturn void fail(const char *what);

/* Sets the address to connect to: a port on 127.0.0.1, or the path of a Unix socket. Exits with 2
 * if ADDRESS is neither. Call it once, before there are threads. */
void client_init(const char *address);

/* Returns a socket on its way to the address; or -1 with errno set. It is non-blocking;
 * it is connected once it can be written to. Connections come from several source
 * addresses in turn, because the ports of one would run out: each stays in use for a
 * minute. */
int client_connect(void);

/* Sends the hello that asks the backend for TASK over the connected SOCKET. Returns
 * false, with errno set, if that failed. */
bool client_hello(int socket, enum task task);

/* Waits until SOCKET has one of EVENTS, as for poll(2). Returns false, with errno set, if
 * that takes more than ten seconds. */
bool client_wait(int socket, short events);

/* Reads LENGTH bytes from SOCKET, waiting for them, and forgets them. Returns false, with
 * errno set, if they do not come. */
bool client_read(int socket, size_t length);

#endif

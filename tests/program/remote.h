/* A server whose clients are far away: their packets take half of a round trip each way.
 *
 * A process of its own has a network namespace with a TUN device, and makes the sockets in it. A
 * packet to another address of the device's network leaves through the device. The process
 * exchanges the packet's source and destination, and writes it back half a round trip later. So
 * the server sees a client of that other address, and its packets to the client take the same way.
 * The exchange leaves the checksums as they are.
 *
 * The sockets are the test's, and so are the proxy and its backends outside of that namespace. What
 * goes wrong fails the test. */
#ifndef REMOTE_H
#define REMOTE_H

#include <stdbool.h>

enum { REMOTE_CLIENTS_MAX = 252 }; /* SCM_RIGHTS passes 253 descriptors */

/* Sets server.listener, which listens on all addresses of the namespace, and server.port. Stores
 * COUNT sockets in CLIENTS, which block for PATIENCE_S at most. Skips the test without root or user
 * namespaces, and without access to /dev/net/tun. */
void remote_start(int rtt_ms, int *clients, int count, int patience_s);

/* Connects CLIENT from the address number NUMBER, 0 to 65535. Returns false and sets errno if that
 * fails. */
bool remote_connect(int client, int number);

/* Starts a flood of silent connections from nearby, each from another address, RATE of them a
 * second, or as many as the machine allows if RATE is 0. More are open than fit into 1024 files of
 * the proxy; then the oldest is reset. */
void remote_flood(int rate);

/* Closes the connections of the flood. Far clients go on. */
void remote_end_flood(void);

/* Removes the namespace. */
void remote_stop(void);

#endif

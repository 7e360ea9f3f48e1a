/* The hosts directory: finds the host directory of a name, and connects to the backend in it. */
#ifndef BACKEND_H
#define BACKEND_H

#include "lib/address.h"
#include "lib/owner.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A backend, or why there is none. */
struct backend {
	int socket;               /* connected and non-blocking; or -1 */
	bool send_proxy_v1;       /* each connection starts with a PROXY protocol header */
	const char *failed;       /* if socket is -1: what failed; static */
	int error;                /* if socket is -1: how it failed, an errno */
	char why[OWNER_WHY_SIZE]; /* details beyond that errno; may be empty */
};

/* Connects to tls-socket in the directory NAME of the hosts directory, at the descriptor HOSTS. All
 * files of the host are looked up in one directory, even if another replaces it meanwhile. The
 * caller owns the socket. If the backend's backlog is full, fails immediately with EAGAIN. If other
 * users may write to the hosts directory, fails with EACCES unless the host belongs to one user or
 * to root (owner.h). Shares nothing. Blocks only on the file system. */
struct backend backend_connect(int hosts, const char *name);

/* Returns how BACKEND has failed, in words. They may be inside BACKEND, or be overwritten by the
 * thread's next strerror(3). */
const char *backend_why(const struct backend *backend);

/* Whether ERROR is a shortage of descriptors or memory, so that a later attempt may succeed. */
bool backend_is_short(int error);

/* Whether ERROR means that the name is not served here. The client then gets unrecognized_name,
 * otherwise internal_error. */
bool backend_is_absent(int error);

/* Size of the longest PROXY protocol header, version 1, in bytes, with its NUL. */
enum { BACKEND_PROXY_HEADER_SIZE = 108 };

/* Writes the PROXY protocol header, version 1 (haproxy's proxy-protocol.txt, 2.1), of a
 * connection from CLIENT to SERVER, both of one family. Returns its length, without the NUL. */
size_t backend_proxy_header(char header[BACKEND_PROXY_HEADER_SIZE], const union address *client,
    const union address *server);

#endif

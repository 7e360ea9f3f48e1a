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
	const char *failed;       /* if socket is -1: what failed, for people; lives for ever */
	int error;                /* if socket is -1: how it failed, an errno */
	char why[OWNER_WHY_SIZE]; /* what that errno does not say; may be empty */
};

/* Connects to tls-socket in the directory NAME of the hosts directory, at the descriptor HOSTS.
 * All that belongs to the host is looked up in one directory, even while another is put in its
 * place. The socket becomes the caller's. If the backend's backlog is full, the error is EAGAIN,
 * at once. If others than its owner may write to the hosts directory by now, the error is EACCES
 * unless the host is all of one user, or of root (owner.h). Shares nothing. Waits for the file
 * system alone. */
struct backend backend_connect(int hosts, const char *name);

/* How BACKEND has failed, for people. It may point into BACKEND, or be overwritten by a later
 * strerror(3) of the thread. */
const char *backend_why(const struct backend *backend);

/* Whether ERROR means that descriptors or memory were short, which may be over when one tries
 * again. */
bool backend_is_short(int error);

/* Whether ERROR means that the name is not served here, and not that something broke: the client
 * gets unrecognized_name then, and internal_error otherwise. */
bool backend_is_absent(int error);

/* The longest PROXY protocol header, version 1, in bytes, with the NUL that ends it. */
enum { BACKEND_PROXY_HEADER_SIZE = 108 };

/* Writes the PROXY protocol header, version 1 (haproxy's proxy-protocol.txt, 2.1), of a
 * connection from CLIENT to SERVER, both of one family. Returns its length, without the NUL. */
size_t backend_proxy_header(char header[BACKEND_PROXY_HEADER_SIZE], const union address *client,
    const union address *server);

#endif

/* The hosts directory: finds the host directory of a name, and connects to the backend in it. */
#ifndef BACKEND_H
#define BACKEND_H

#include "lib/owner.h"

#include <stdbool.h>

/* A backend, or why there is none. */
struct backend {
	int socket;               /* connected and non-blocking; or -1 */
	unsigned proxy_version;   /* of the PROXY header each connection starts with; 0 for none */
	const char *failed;       /* if socket is -1: what failed; otherwise its name; static */
	int error;                /* if socket is -1: how it failed, an errno */
	bool is_missing;          /* there is no such host directory; WHY may say why not */
	bool is_acme;             /* its socket is acme-tls-socket */
	bool is_down;             /* nobody listens at the socket, which may be missing */
	char why[OWNER_WHY_SIZE]; /* details beyond that errno; may be empty */
};

/* What is connected to. */
enum {
	BACKEND_SPECIAL = 1, /* the directory is that of a special host; see owner.h */
	BACKEND_ACME = 2,    /* acme-tls-socket, if there is one */
};

/* Connects to tls-socket in the directory NAME of the hosts directory, at the descriptor HOSTS.
 * KIND is a sum of the values above. All files of the host are looked up in one directory, even if
 * another replaces it meanwhile. The caller owns the socket. If the backend's backlog is full,
 * fails immediately with EAGAIN. If other users may write to the hosts directory, fails with EACCES
 * unless the host belongs to one user or to root (owner.h). Shares nothing. Blocks only on the file
 * system. */
struct backend backend_connect(int hosts, const char *name, unsigned kind);

/* Returns how BACKEND has failed, in words. They may be inside BACKEND, or be overwritten by the
 * thread's next strerror(3). */
const char *backend_why(const struct backend *backend);

/* Whether ERROR is a shortage of descriptors or memory, so that a later attempt may succeed. */
bool backend_is_short(int error);

/* Whether ERROR means that the name is not served here. The client then gets unrecognized_name,
 * otherwise internal_error. */
bool backend_is_absent(int error);

#endif

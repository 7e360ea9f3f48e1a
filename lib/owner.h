/* Ownership of hosts, in a hosts directory that several users may write to. The proxy connects with
 * its own rights. So a user could make it connect to another user's service, by a symlink in place
 * of the socket or the host directory. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

enum { OWNER_WHY_SIZE = 80 };

/* A host, set by owner_open_host() but for IS_SPECIAL; all else is zero at first. */
struct owner_host {
	bool is_special;          /* it serves names of others (hostname.h) */
	uid_t uid;                /* the owner of its directory */
	char why[OWNER_WHY_SIZE]; /* why it is rejected; or empty */
};

/* Whether users other than its owner and root may write to a directory with this STATUS. The group
 * bits of the mode include the rights that an ACL gives. The sticky bit does not matter: it does
 * not prevent users from making hosts. */
bool owner_is_shared(const struct stat *status);

/* Opens the host directory NAME (O_PATH) in the hosts directory at the descriptor HOSTS, which has
 * STATUS and is shared. Sets HOST to its owner. Returns a descriptor that the caller owns, or -1
 * with errno set. EACCES may mean that HOST says why it is rejected: a symlink must belong to the
 * owner of its target, to the owner of the hosts directory, or to root. A special host must belong
 * to one of the last two, because whoever receives the connections for a name can have a
 * certificate for it (RFC 8737); otherwise ENOENT, and HOST says why. What was checked is what is
 * opened, even if something else replaces it meanwhile. */
int
owner_open_host(int hosts, const struct stat *status, const char *name, struct owner_host *host);

/* Whether HOST's owner or root called listen(2) at the other end of SOCKET, a connected Unix
 * socket. If not, sets errno: to EACCES, and HOST says why; or to the reason why the listener is
 * unknown. */
bool owner_listens(int socket, struct owner_host *host);

#endif

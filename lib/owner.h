/* Whose a host is, in a hosts directory that several users may write to. The proxy connects with
 * its own rights, so there a user could have it connect to what is somebody else's: by a symlink
 * in the place of the socket, or of the host directory. */
#ifndef OWNER_H
#define OWNER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

enum { OWNER_WHY_SIZE = 80 };

/* A host, as owner_open_host() finds it. */
struct owner_host {
	uid_t uid;                /* whose its directory is */
	char why[OWNER_WHY_SIZE]; /* not empty: why it is refused, for people */
};

/* Whether others than its owner, and root, may write to a directory with this STATUS. What an
 * ACL lets others do shows in the group's part of the mode. The sticky bit does not matter: it
 * keeps nobody from making hosts. */
bool owner_is_shared(const struct stat *status);

/* Opens the host directory NAME (O_PATH), in the hosts directory at the descriptor HOSTS, which
 * has the STATUS and is shared, and says in HOST whose it is. Returns the descriptor, which is
 * the caller's; or -1 with errno set, EACCES where HOST says why it is refused: a symlink is
 * followed where it belongs to whom it leads to, to the owner of the hosts directory, or to
 * root. Whatever is put in its place meanwhile, what was judged is what is opened. */
int
owner_open_host(int hosts, const struct stat *status, const char *name, struct owner_host *host);

/* Whether whoever listens at the other end of SOCKET, a connected Unix socket, may do so for
 * HOST: its owner may, and root. Where not, HOST says why, and errno is EACCES; or errno says
 * why it is not known. */
bool owner_listens(int socket, struct owner_host *host);

#endif

#include "lib/owner.h"

#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

enum {
	ROOT = 0,

	/* In a user namespace, the number of all users that it does not map (user_namespaces(7)).
	 * So two users with it may differ. */
	UNKNOWN = 65534,
};

bool
owner_is_shared(const struct stat *status)
{
	return (status->st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

static bool
is_same(uid_t a, uid_t b)
{
	return a == b && a != UNKNOWN;
}

/* Whether the owner UID of an entry may decide about all hosts in the directory with STATUS. */
static bool
is_trusted(uid_t uid, const struct stat *status)
{
	return uid == ROOT || is_same(uid, status->st_uid);
}

/* Sets FOUND to the status of ENTRY. Returns 0 if HOST may be that, otherwise an errno. A special
 * host that may not counts as missing, and HOST says why. So does one whose owner is unknown: a
 * user may have mounted a file system there. */
static int
identify(struct owner_host *host, int entry, struct stat *found, const struct stat *status)
{
	int error = fstat(entry, found) == -1 ? errno : 0;
	if (!host->is_special || (error == 0 && is_trusted(found->st_uid, status)))
		return error;
	if (error == 0)
		snprintf(host->why, sizeof host->why,
		    "not served: it belongs to user %u, who may not serve others' names",
		    (unsigned)found->st_uid);
	else
		snprintf(host->why, sizeof host->why, "not served: its owner is unknown");
	return ENOENT;
}

/* Replaces ENTRY, a symlink with the status FOUND, by the directory that it leads to. Returns 0, or
 * an errno. Reads the symlink from its descriptor, because its name may belong to another one by
 * now. */
static int
follow_link(
    struct owner_host *host, int hosts, const struct stat *status, int *entry, struct stat *found)
{
	char target[PATH_MAX];
	uid_t owner = found->st_uid;
	ssize_t length = readlinkat(*entry, "", target, sizeof target - 1);
	if (length == -1)
		return errno;
	target[length] = '\0';
	int directory = system_open_path(hosts, target, O_DIRECTORY);
	if (directory == -1)
		return errno;
	close(*entry);
	*entry = directory;
	int error = identify(host, directory, found, status);
	if (error != 0 || is_trusted(owner, status) || is_same(owner, found->st_uid))
		return error;
	snprintf(host->why, sizeof host->why, "a symlink of user %u to a directory of user %u",
	    (unsigned)owner, (unsigned)found->st_uid);
	return EACCES;
}

int
owner_open_host(int hosts, const struct stat *status, const char *name, struct owner_host *host)
{
	struct stat found;
	/* O_DIRECTORY triggers an automount. */
	int entry = system_open_path(hosts, name, O_NOFOLLOW | O_DIRECTORY);
	if (entry == -1 && errno == ENOTDIR)
		entry = system_open_path(hosts, name, O_NOFOLLOW);
	if (entry == -1 && errno == ENOSYS) { /* this system cannot tell the owner */
		snprintf(
		    host->why, sizeof host->why, "the hosts directory is writable by other users");
		errno = EACCES;
	}
	if (entry == -1)
		return -1;
	int error = identify(host, entry, &found, status);
	if (error == 0 && S_ISLNK(found.st_mode))
		error = follow_link(host, hosts, status, &entry, &found);
	if (error == 0 && !S_ISDIR(found.st_mode))
		error = ENOTDIR;
	if (error == 0) {
		host->uid = found.st_uid;
		return entry;
	}
	close(entry);
	errno = error;
	return -1;
}

bool
owner_listens(int socket, struct owner_host *host)
{
	uid_t user;
	if (!system_know_listener(socket, &user))
		return false;
	if (user == ROOT || is_same(user, host->uid))
		return true;
	snprintf(host->why, sizeof host->why, "user %u listens in the host directory of user %u",
	    (unsigned)user, (unsigned)host->uid);
	errno = EACCES;
	return false;
}

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

/* Sets FOUND to the status of ENTRY. Returns whether HOST may be that, otherwise sets errno. A
 * special host that may not counts as missing, and HOST says why. So does one whose owner is
 * unknown: a user may have mounted a file system there. */
static bool
identify(struct owner_host *host, int entry, struct stat *found, const struct stat *status)
{
	bool is_known = fstat(entry, found) == 0;
	if (!host->is_special || (is_known && is_trusted(found->st_uid, status)))
		return is_known;
	if (is_known)
		snprintf(host->why, sizeof host->why,
		    "not served: it belongs to user %u, who may not serve others' names",
		    (unsigned)found->st_uid);
	else
		snprintf(host->why, sizeof host->why, "not served: its owner is unknown");
	errno = ENOENT;
	return false;
}

/* Sets HOST to the owner of DIRECTORY and returns DIRECTORY, or closes it and returns -1. LINK, the
 * symlink that led to it, is NULL or judged by its owner; STATUS is that of the hosts directory. */
static int
judge(int directory, const struct stat *link, const struct stat *status, struct owner_host *host)
{
	struct stat found;
	int error = identify(host, directory, &found, status) ? 0 : errno;
	if (error == 0) {
		host->uid = found.st_uid;
		if (link == NULL || is_trusted(link->st_uid, status) ||
		    is_same(link->st_uid, found.st_uid))
			return directory;
		snprintf(host->why, sizeof host->why,
		    "a symlink of user %u to a directory of user %u", (unsigned)link->st_uid,
		    (unsigned)found.st_uid);
		error = EACCES;
	}
	close(directory);
	errno = error;
	return -1;
}

/* Opens the directory that the symlink at the descriptor LINK leads to, and closes LINK. Uses the
 * descriptor, because LINK's name may belong to another symlink by now. */
static int
follow(int hosts, int link)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(link, "", target, sizeof target);
	int error = length == -1 ? errno : 0;
	close(link);
	if (length == sizeof target)
		error = ENAMETOOLONG;
	errno = error;
	if (error != 0)
		return -1;
	target[length] = '\0';
	return system_open_path(hosts, target, O_DIRECTORY);
}

/* Continues owner_open_host() if NAME was no directory. Takes over its descriptor ENTRY. */
static int
open_entry(int hosts, const struct stat *status, int entry, struct owner_host *host)
{
	struct stat found;
	int error = identify(host, entry, &found, status) ? 0 : errno;
	if (error == 0 && S_ISDIR(found.st_mode)) /* a directory has replaced it */
		return judge(entry, NULL, status, host);
	if (error == 0 && S_ISLNK(found.st_mode)) {
		int directory = follow(hosts, entry);
		return directory == -1 ? -1 : judge(directory, &found, status, host);
	}
	close(entry);
	errno = error == 0 ? ENOTDIR : error;
	return -1;
}

int
owner_open_host(int hosts, const struct stat *status, const char *name, struct owner_host *host)
{
	/* O_DIRECTORY triggers an automount. */
	int entry = system_open_path(hosts, name, O_NOFOLLOW | O_DIRECTORY);
	if (entry != -1)
		return judge(entry, NULL, status, host);
	if (errno == ENOSYS) { /* this system cannot tell the owner */
		snprintf(
		    host->why, sizeof host->why, "the hosts directory is writable by other users");
		errno = EACCES;
	}
	if (errno != ENOTDIR)
		return -1;
	entry = system_open_path(hosts, name, O_NOFOLLOW);
	return entry == -1 ? -1 : open_entry(hosts, status, entry, host);
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

/* Users who do not trust each other: any users, if root runs the tests; otherwise those that
 * newuidmap(1) allows in a user namespace. Children act for them. */
#ifndef USERS_H
#define USERS_H

#include "tests/unit/check.h"

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* SELF is the user who runs the tests. */
enum user { SELF, ALICE, BOB, CAROL, USERS };

/* The first user ID that subuid(5) grants to an ordinary user, or 0. */
static inline uid_t
users_first(void)
{
	const struct passwd *self = getpwuid(getuid());
	FILE *file = fopen("/etc/subuid", "re");
	char line[256];
	unsigned first = 0, count = 0;
	while (self != NULL && file != NULL && count < USERS &&
	    fgets(line, sizeof line, file) != NULL) {
		size_t length = strlen(self->pw_name);
		if (strncmp(line, self->pw_name, length) != 0 ||
		    sscanf(line + length, ":%u:%u", &first, &count) != 2)
			count = 0;
	}
	if (file != NULL)
		fclose(file);
	return count < USERS ? 0 : first;
}

static inline uid_t
user_id(enum user user)
{
	if (user == SELF)
		return getuid();
	return (getuid() == 0 ? 70000 : users_first()) + user;
}

/* In a child: becomes USER. Returns whether that succeeded. */
static inline bool
users_become(enum user user)
{
	uid_t id = user_id(user);
	char command[128];
	umask(0);
	if (user == SELF)
		return true;
	if (getuid() != 0) {
		snprintf(command, sizeof command, "exec newuidmap %d 0 %u %d >/dev/null 2>&1",
		    (int)getpid(), (unsigned)users_first(), USERS);
		/* The process that writes the map must be outside of the namespace. */
		int ready[2];
		char byte;
		pid_t parent = getpid(), mapper;
		if (users_first() == 0 || pipe(ready) == -1 || (mapper = fork()) == -1)
			return false;
		if (mapper == 0) {
			bool is_ready = read(ready[0], &byte, 1) == 1;
			_exit(is_ready && getppid() == parent ? system(command) : 1);
		}
		int status;
		if (unshare(CLONE_NEWUSER) == -1 || write(ready[1], "r", 1) != 1 ||
		    waitpid(mapper, &status, 0) != mapper || status != 0)
			return false;
		id = user;
	} else if (setgroups(0, NULL) == -1 || setresgid(id, id, id) == -1) {
		return false;
	}
	return setresuid(id, id, id) == 0;
}

/* Calls DEED with ARGUMENT as USER. Returns whether DEED returned 0. */
static inline bool
user_does(enum user user, int (*deed)(const void *), const void *argument)
{
	int status;
	pid_t pid = fork();
	CHECK(pid != -1, "fork");
	if (pid == 0)
		_exit(users_become(user) && deed(argument) == 0 ? 0 : 1);
	CHECK(waitpid(pid, &status, 0) == pid, "waitpid");
	return status == 0;
}

static inline int
users_nothing(const void *unused)
{
	(void)unused;
	return 0;
}

/* Returns why there are no other users, or NULL. */
static inline const char *
users_missing(void)
{
	return user_does(ALICE, users_nothing, NULL)
	    ? NULL
	    : "needs root, or newuidmap(1) and a line in /etc/subuid";
}

static inline int
users_mkdir(const void *path)
{
	return mkdir(path, 0777);
}

static inline int
users_symlink(const void *paths)
{
	const char *const *path = paths;
	return symlink(path[0], path[1]);
}

static inline int
users_listen(const void *socket)
{
	return listen(*(const int *)socket, 4096);
}

/* Everybody may then remove what is in it. */
static inline void
user_makes(enum user user, const char *path)
{
	CHECK(user_does(user, users_mkdir, path), "mkdir %s", path);
}

static inline void
user_links(enum user user, const char *target, const char *path)
{
	CHECK(user_does(user, users_symlink, (const char *[]){target, path}), "%s", path);
}

/* SOCKET must be bound. */
static inline void
user_listens(enum user user, int socket)
{
	CHECK(user_does(user, users_listen, &socket), "listen");
}

#endif

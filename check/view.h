/* What the proxy may do and see: its user and its root directory, which the calling program can
 * take on for itself. Failures are told on stderr. */
#ifndef VIEW_H
#define VIEW_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { VIEW_BINDS_MAX = 64 };

/* A folder that is to be seen in the root directory, at another place, or at its own. */
struct view_bind {
	char *source;
	char *target;
	bool may_be_missing;
};

/* All zero is that of the calling program. Its strings live as long as the program. */
struct view {
	const char *user; /* whose rights it has; or NULL */
	const char *root; /* its root directory; or NULL */
	bool is_made;     /* there is nothing in ROOT but these: */
	struct view_bind binds[VIEW_BINDS_MAX];
	size_t binds_count;
};

/* Takes the root directory of VIEW on, for good; the working directory is its top then. What is
 * mounted for that is in a mount namespace of the process's own. Needs root, and a single thread.
 * Returns whether that was possible. */
bool view_enter(const struct view *view);

/* Whether VIEW shows PATH, which is absolute, if it exists. */
bool view_shows(const struct view *view, const char *path);

/* A user's name, number and group. */
struct view_user {
	char name[LOGIN_NAME_MAX];
	uid_t user;
	gid_t group;
};

/* Looks NAME up, a name or a number. Returns false where there is no such user. */
bool view_find_user(struct view_user *user, const char *name);

/* Gives up all rights but those of USER and of the groups that it is in, for good. Needs root. */
bool view_become(const struct view_user *user);

#endif

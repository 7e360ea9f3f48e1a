/* The proxy's rights and view: its user and its root directory, which the calling process can
 * adopt. Failures are printed on stderr. */
#ifndef VIEW_H
#define VIEW_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { VIEW_BINDS_MAX = 64 };

/* A folder that is mounted in the root directory, at another place or at its own. */
struct view_bind {
	char *source;
	char *target;
	bool may_be_missing;
};

/* All zero is the view of the calling process. The strings are never freed. */
struct view {
	const char *user; /* the user; or NULL */
	const char *root; /* the root directory; or NULL */
	bool is_made;     /* ROOT contains only these: */
	struct view_bind binds[VIEW_BINDS_MAX];
	size_t binds_count;
};

/* Changes to the root directory of VIEW, for good, and to its top. Mounts go into a mount namespace
 * of this process. Needs root and a single thread. Returns whether that succeeded. */
bool view_enter(const struct view *view);

/* Whether VIEW shows PATH, which is absolute, if it exists. */
bool view_shows(const struct view *view, const char *path);

/* A user's name, number and group. */
struct view_user {
	char name[LOGIN_NAME_MAX];
	uid_t user;
	gid_t group;
};

/* Looks up NAME, a name or a number. Returns false if there is no such user. */
bool view_find_user(struct view_user *user, const char *name);

/* Drops all rights except those of USER and its groups, for good. Needs root. Returns whether that
 * succeeded. */
bool view_become(const struct view_user *user);

#endif

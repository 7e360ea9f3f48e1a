#include "check/view.h"

#include "check/path.h"

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- The root directory --- */

/* Creates the directory PATH, which is absolute, in ROOT, with its parents. */
static bool
make_directories(const char *root, const char *path, char made[PATH_MAX])
{
	size_t length = strlen(root);
	if (snprintf(made, PATH_MAX, "%s%s", root, path) >= PATH_MAX)
		return false;
	for (char *end = made + length + 1; *end != '\0'; end++) {
		if (*end != '/')
			continue;
		*end = '\0';
		mkdir(made, 0755);
		*end = '/';
	}
	return mkdir(made, 0755) == 0 || errno == EEXIST;
}

/* Opens the folders before a mount covers them. Leaves out files. */
static bool
open_binds(const struct view *view, int folders[VIEW_BINDS_MAX])
{
	for (size_t i = 0; i < view->binds_count; i++) {
		const struct view_bind *bind = &view->binds[i];
		folders[i] = open(bind->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (folders[i] == -1 && errno != ENOTDIR &&
		    !(bind->may_be_missing && errno == ENOENT)) {
			warn("%s", bind->source);
			return false;
		}
	}
	return true;
}

/* Mounts FOLDER, which it closes, at TARGET in the root directory. Musl has no move_mount(2). */
static bool
put_folder(int folder, const char *root, const char *target)
{
	char source[sizeof "/proc/self/fd/" + 3 * sizeof folder], made[PATH_MAX];
	snprintf(source, sizeof source, "/proc/self/fd/%d", folder);
	bool is_put = make_directories(root, target, made) &&
	    mount(source, made, NULL, MS_BIND | MS_REC, NULL) == 0;
	if (!is_put)
		warn("%s", target);
	close(folder);
	return is_put;
}

/* Mounts the folders in an empty root directory, as systemd does. */
static bool
make_root(const struct view *view)
{
	int folders[VIEW_BINDS_MAX];
	if (unshare(CLONE_NEWNS) == -1 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1) {
		warn("a mount namespace");
		return false;
	}
	if (!open_binds(view, folders))
		return false;
	if (mount("tmpfs", view->root, "tmpfs", 0, "mode=0755") == -1) {
		warn("%s", view->root);
		return false;
	}
	for (size_t i = 0; i < view->binds_count; i++)
		if (folders[i] != -1 && !put_folder(folders[i], view->root, view->binds[i].target))
			return false;
	return true;
}

bool
view_enter(const struct view *view)
{
	if (view->root == NULL)
		return true;
	if (view->is_made && !make_root(view))
		return false;
	if (chroot(view->root) == 0 && chdir("/") == 0)
		return true;
	warn("%s", view->root);
	return false;
}

bool
view_shows(const struct view *view, const char *path)
{
	bool shows = !view->is_made;
	for (size_t i = 0; i < view->binds_count; i++)
		shows |= path_is_below(path, view->binds[i].target);
	return shows;
}

/* --- The user --- */

bool
view_find_user(struct view_user *user, const char *name)
{
	const struct passwd *entry = getpwnam(name);
	if (entry == NULL && isdigit((unsigned char)name[0])) {
		char *end;
		unsigned long number = strtoul(name, &end, 10);
		entry = *end == '\0' ? getpwuid((uid_t)number) : NULL;
	}
	if (entry == NULL)
		return false;
	*user = (struct view_user){.user = entry->pw_uid, .group = entry->pw_gid};
	snprintf(user->name, sizeof user->name, "%s", entry->pw_name);
	return true;
}

bool
view_become(const struct view_user *user)
{
	if (initgroups(user->name, user->group) == 0 &&
	    setresgid(user->group, user->group, user->group) == 0 &&
	    setresuid(user->user, user->user, user->user) == 0)
		return true;
	warn("cannot become %s", user->name);
	return false;
}

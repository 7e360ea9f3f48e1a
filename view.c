#include "view.h"

#include "path.h"

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- What systemd says of a unit --- */

/* Starts systemctl; returns its output as a stream, or NULL. */
static FILE *
start_systemctl(pid_t *pid, const char *unit)
{
	const char *const arguments[] = {"systemctl", "show", "--property=LoadState",
	    "--property=User", "--property=WorkingDirectory", "--property=RootDirectory",
	    "--property=BindPaths", "--property=BindReadOnlyPaths", "--", unit, NULL};
	int ends[2];
	posix_spawn_file_actions_t actions;
	if (pipe2(ends, O_CLOEXEC) == -1)
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	/* It takes no argument to be its own, but the type has no const. */
	int error = posix_spawnp(pid, arguments[0], &actions, NULL,
	    (char *const *)(const void *)arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	FILE *output = error == 0 ? fdopen(ends[0], "r") : NULL;
	if (output == NULL) {
		close(ends[0]);
		errno = error;
	}
	return output;
}

/* Adds the binds in LIST: words such as "-/run/backends:/run/backends:rbind". */
static void
add_binds(struct view *view, char *list)
{
	char *rest;
	for (char *word = strtok_r(list, " ", &rest); word != NULL;
	     word = strtok_r(NULL, " ", &rest)) {
		if (view->binds_count == VIEW_BINDS_MAX) {
			warnx("more than %d folders are bound; the rest is left out",
			    VIEW_BINDS_MAX);
			return;
		}
		struct view_bind *bind = &view->binds[view->binds_count++];
		bind->may_be_missing = word[0] == '-';
		bind->source = strsep(&word, ":") + bind->may_be_missing;
		bind->target = word == NULL ? bind->source : strsep(&word, ":");
	}
}

/* Takes what a LINE of systemctl's says, which lives on. */
static void
take_property(struct view *view, const char **directory, char *line)
{
	char *value = strchr(line, '=');
	if (value == NULL)
		return;
	*value++ = '\0';
	if (*value == '\0')
		return;
	if (strcmp(line, "User") == 0)
		view->user = value;
	else if (strcmp(line, "WorkingDirectory") == 0)
		*directory = value + (value[0] == '!'); /* where it may be missing */
	else if (strcmp(line, "RootDirectory") == 0)
		view->root = value;
	else if (strncmp(line, "Bind", strlen("Bind")) == 0)
		add_binds(view, value);
}

bool
view_of_unit(struct view *view, const char **directory, const char *unit)
{
	pid_t pid;
	FILE *output = start_systemctl(&pid, unit);
	if (output == NULL) {
		warn("systemctl");
		return false;
	}
	bool is_loaded = false;
	char *line = NULL;
	for (size_t size = 0; getline(&line, &size, output) != -1;
	     line = NULL, size = 0) {
		line[strcspn(line, "\n")] = '\0';
		is_loaded |= strcmp(line, "LoadState=loaded") == 0;
		take_property(view, directory, line);
	}
	free(line);
	fclose(output);
	int status;
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	if (status == 0 && !is_loaded)
		warnx("systemctl: there is no such unit");
	view->is_made = view->root != NULL;
	return status == 0 && is_loaded;
}

/* --- The root directory --- */

/* Makes the directory PATH, which is absolute, in the root directory, with those above it. */
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

/* Opens the folders, before anything covers them. Files are left out. */
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

/* Puts FOLDER, which it closes, at TARGET in the root directory. Musl has no move_mount(2). */
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

/* Puts the folders into an empty root directory, as systemd does. */
static bool
make_root(const struct view *view)
{
	int folders[VIEW_BINDS_MAX];
	if (unshare(CLONE_NEWNS) == -1 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1) {
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
		if (folders[i] != -1 &&
		    !put_folder(folders[i], view->root, view->binds[i].target))
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

#include "check/path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Maximum number of symlinks in one lookup (path_resolution(7)). */
enum { LINKS_MAX = 40 };

/* Appends the component NAME of LENGTH bytes. Returns false if there is no room. */
static bool
go_down(char path[PATH_MAX], const char *name, size_t length)
{
	size_t end = strlen(path);
	const char *slash = end == 0 || path[end - 1] == '/' ? "" : "/";
	return snprintf(path + end, PATH_MAX - end, "%s%.*s", slash, (int)length, name) <
	    (int)(PATH_MAX - end);
}

/* Removes the last component of PATH, or appends "..". */
static void
go_up(char path[PATH_MAX])
{
	char *slash = strrchr(path, '/');
	const char *last = slash == NULL ? path : slash + 1;
	size_t length = strlen(path);
	if (path[0] != '/' && (length == 0 || strcmp(last, "..") == 0)) {
		go_down(path, "..", 2);
	} else if (slash == NULL) {
		path[0] = '\0';
	} else {
		*(slash == path ? slash + 1 : slash) = '\0';
	}
}

static bool
protects_symlinks(void)
{
	static const char setting[] = "/proc/sys/fs/protected_symlinks";
	FILE *file = fopen(setting, "re");
	if (file == NULL)
		return true; /* most systems do; without /proc, nothing tells */
	int value = fgetc(file);
	fclose(file);
	return value != '0';
}

/* Whether the kernel refuses to follow LINK, in DIRECTORY (proc(5), protected_symlinks). */
static bool
is_forbidden(const char *directory, const struct stat *link)
{
	struct stat status;
	const mode_t shared = S_ISVTX | S_IWOTH;
	return stat(directory[0] == '\0' ? "." : directory, &status) == 0 &&
	    (status.st_mode & shared) == shared && link->st_uid != geteuid() &&
	    link->st_uid != status.st_uid && protects_symlinks();
}

/* Prepends the target of the symlink PATH to LEFT, the rest of the path. Returns false on
 * failure. */
static bool
read_link(const char *path, char left[PATH_MAX])
{
	char target[2 * PATH_MAX];
	ssize_t length = readlink(path, target, PATH_MAX - 1);
	if (length <= 0)
		return false;
	size_t end = (size_t)length;
	snprintf(target + end, sizeof target - end, "%s%s", left[0] == '\0' ? "" : "/", left);
	return snprintf(left, PATH_MAX, "%s", target) < PATH_MAX;
}

/* Returns how a path ends if lstat(2) of AT fails with ERROR. Sets AT to the directory that is the
 * cause. */
static enum path_end
end_by(char at[PATH_MAX], int error)
{
	switch (error) {
	case ENOENT:
		return PATH_MISSING;
	case EACCES:
		go_up(at);
		return PATH_NOT_SEARCHABLE;
	case ENOTDIR:
		go_up(at);
		return PATH_NOT_A_DIRECTORY;
	default:
		return PATH_UNKNOWN;
	}
}

/* Goes one step, to the component NAME. If that is a symlink, sets *IS_LINK and prepends its target
 * to LEFT. IS_READ is as for path_walk(). Returns PATH_THERE if the path can go on. */
static enum path_end
step(struct path_walk *walk, char left[PATH_MAX], const char *name, bool is_read, bool *is_link)
{
	char before[PATH_MAX];
	memcpy(before, walk->at, sizeof before);
	if (strcmp(name, "..") == 0) {
		go_up(walk->at);
		return PATH_THERE;
	}
	if (!go_down(walk->at, name, strlen(name)))
		return PATH_UNKNOWN;
	if (lstat(walk->at, &walk->status) == -1)
		return end_by(walk->at, errno);
	if (!S_ISLNK(walk->status.st_mode))
		return PATH_THERE;
	if (!is_read && is_forbidden(before, &walk->status))
		return PATH_LINK_FORBIDDEN;
	if (!read_link(walk->at, left))
		return PATH_UNKNOWN;
	*is_link = true;
	snprintf(walk->at, sizeof walk->at, "%s", left[0] == '/' ? "/" : before);
	return PATH_THERE;
}

/* Removes the first component of LEFT. Returns false if there is none. */
static bool
next_name(char name[PATH_MAX], char left[PATH_MAX])
{
	do {
		size_t start = strspn(left, "/"), length = strcspn(left + start, "/");
		const char *rest = left + start + length;
		memcpy(name, left + start, length);
		name[length] = '\0';
		memmove(left, rest, strlen(rest) + 1);
	} while (strcmp(name, ".") == 0);
	return name[0] != '\0';
}

void
path_walk(struct path_walk *walk, const char *path, bool is_read)
{
	char left[PATH_MAX], name[PATH_MAX];
	*walk = (struct path_walk){.end = PATH_UNKNOWN};
	if (snprintf(left, sizeof left, "%s", path) >= (int)sizeof left)
		return;
	if (left[0] == '/')
		strcpy(walk->at, "/");
	walk->end = PATH_THERE;
	int links = 0;
	while (walk->end == PATH_THERE && next_name(name, left)) {
		char before[PATH_MAX];
		memcpy(before, walk->at, sizeof before);
		bool is_link = false;
		walk->end = step(walk, left, name, is_read, &is_link);
		is_read = false;
		walk->was_link |= is_link;
		if (is_link && ++links > LINKS_MAX) {
			walk->end = PATH_LOOP;
			memcpy(walk->at, before, sizeof before);
			go_down(walk->at, name, strlen(name));
		}
	}
	if (walk->end == PATH_MISSING && left[0] != '\0')
		go_down(walk->at, left + strspn(left, "/"), strlen(left));
	if (walk->end == PATH_THERE &&
	    lstat(walk->at[0] == '\0' ? "." : walk->at, &walk->status) == -1)
		walk->end = end_by(walk->at, errno);
}

void
path_absolute(char absolute[PATH_MAX], const char *directory, const char *at)
{
	snprintf(absolute, PATH_MAX, "%s", at[0] == '/' ? at : directory);
	for (const char *name = at; at[0] != '/' && *name != '\0';) {
		size_t length = strcspn(name, "/");
		if (length == 2 && memcmp(name, "..", 2) == 0)
			go_up(absolute);
		else if (!go_down(absolute, name, length))
			return;
		name += length + (name[length] == '/');
	}
}

bool
path_is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	while (length > 0 && directory[length - 1] == '/')
		length--;
	return strncmp(path, directory, length) == 0 &&
	    (path[length] == '/' || path[length] == '\0');
}

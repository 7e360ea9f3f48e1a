/* Explains why a lookup failed: follows the path as the kernel does, step by step, and reports
 * where it ends. It decides nothing. */
#ifndef PATH_H
#define PATH_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

/* How a path ends. */
enum path_end {
	PATH_THERE,
	PATH_MISSING,         /* AT, or a directory on the path to it, does not exist */
	PATH_NOT_SEARCHABLE,  /* the directory AT may not be searched */
	PATH_NOT_A_DIRECTORY, /* AT is not a directory, but the path goes on */
	PATH_LINK_FORBIDDEN,  /* AT is a symlink that fs.protected_symlinks forbids to follow */
	PATH_LOOP,            /* too many symlinks */
	PATH_UNKNOWN,         /* anything else */
};

struct path_walk {
	enum path_end end;
	char at[PATH_MAX];  /* where it ended; relative unless a symlink was absolute */
	bool was_link;      /* a symlink was followed */
	struct stat status; /* of AT, if that exists */
};

/* Follows PATH from the working directory, with the rights of the process. If IS_READ, reads a
 * symlink that PATH begins with and follows its target, as owner.c does: fs.protected_symlinks does
 * not forbid that. Shares nothing. */
void path_walk(struct path_walk *walk, const char *path, bool is_read);

/* Writes AT, if it is relative to DIRECTORY, as an absolute path without "..". DIRECTORY is
 * absolute. */
void path_absolute(char absolute[PATH_MAX], const char *directory, const char *at);

/* Whether PATH is DIRECTORY or below it; both are absolute. */
bool path_is_below(const char *path, const char *directory);

#endif

/* Why a lookup fails: goes the way that the kernel goes, step by step, and tells where it ends. It
 * explains what has happened already, and decides nothing. */
#ifndef PATH_H
#define PATH_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

/* How a way ends. */
enum path_end {
	PATH_THERE,
	PATH_MISSING,         /* AT does not exist, or a directory on the way to it */
	PATH_NOT_SEARCHABLE,  /* the directory AT may not be searched */
	PATH_NOT_A_DIRECTORY, /* AT is none, and there is more to come */
	PATH_LINK_FORBIDDEN,  /* AT is a symlink that fs.protected_symlinks forbids to follow */
	PATH_LOOP,            /* too many symlinks */
	PATH_UNKNOWN,         /* anything else */
};

struct path_walk {
	enum path_end end;
	char at[PATH_MAX];  /* where it ended; relative where no symlink was absolute */
	bool was_link;      /* a symlink was followed */
	struct stat status; /* if it is there: of what it is */
};

/* Follows PATH from the working directory, with the rights of the process. Where IS_READ, a symlink
 * that PATH begins with is read, and what it says is followed: as owner.c does, which
 * fs.protected_symlinks does not forbid. Shares nothing. */
void path_walk(struct path_walk *walk, const char *path, bool is_read);

/* Writes AT, if it is relative to DIRECTORY, as an absolute path without "..". DIRECTORY is
 * absolute. */
void path_absolute(char absolute[PATH_MAX], const char *directory, const char *at);

/* Whether PATH is DIRECTORY or below it; both are absolute. */
bool path_is_below(const char *path, const char *directory);

#endif

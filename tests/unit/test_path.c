/* Tests of path.c: the end of a path, in a directory of the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "check/path.h"

static char root[] = "/tmp/sniproxy-path-XXXXXX";

static void
make_file(const char *path, const char *content)
{
	FILE *file = fopen(path, "we");
	cr_assert(file != NULL && fputs(content, file) >= 0 && fclose(file) == 0);
}

static void
set_up(void)
{
	cr_assert(mkdtemp(root) != NULL && chdir(root) == 0);
	cr_assert(mkdir("a", 0755) == 0 && mkdir("a/b", 0755) == 0);
	make_file("a/b/file", "");
}

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status, (void)type, (void)walk;
	return remove(path);
}

static void
tear_down(void)
{
	cr_assert(nftw(root, remove_one, 10, FTW_DEPTH | FTW_PHYS) == 0);
}

/* Criterion does not clean up after a test that skips itself. */
static void
skip_test(const char *why)
{
	tear_down();
	cr_skip_test("%s", why);
}

TestSuite(path, .init = set_up, .fini = tear_down, .timeout = 60);

/* Fails unless WALK, along PATH, ended as END, at AT. */
static void
expect(const struct path_walk *walk, const char *path, enum path_end end, const char *at)
{
	cr_expect(walk->end == end && strcmp(walk->at, at) == 0, "%s: %d at %s", path, walk->end,
	    walk->at);
}

static void
expect_end(const char *path, enum path_end end, const char *at)
{
	struct path_walk walk;
	path_walk(&walk, path, false);
	expect(&walk, path, end, at);
}

/* The same, if path_walk() reads a symlink that PATH begins with. */
static void
expect_end_where_read(const char *path, enum path_end end, const char *at)
{
	struct path_walk walk;
	path_walk(&walk, path, true);
	expect(&walk, path, end, at);
}

static void
link_to(const char *target, const char *path)
{
	cr_assert(symlink(target, path) == 0, "%s", strerror(errno));
}

Test(path, goes_down_and_up)
{
	expect_end("a/b/file", PATH_THERE, "a/b/file");
	expect_end("./a//b/../b/./file", PATH_THERE, "a/b/file");
	expect_end("a/..", PATH_THERE, "");
	expect_end("../sniproxy-none", PATH_MISSING, "../sniproxy-none");
	expect_end("a/../../..", PATH_THERE, "../..");
	expect_end("/../..", PATH_THERE, "/");
}

Test(path, follows_links_from_where_they_are)
{
	char absolute[PATH_MAX];
	link_to("b", "a/to-b");
	link_to("../a/to-b/file", "a/to-file");
	snprintf(absolute, sizeof absolute, "%s/a/", root);
	link_to(absolute, "to-a");
	expect_end("a/to-file", PATH_THERE, "a/b/file");
	snprintf(absolute, sizeof absolute, "%s/a/b/file", root);
	expect_end("to-a/to-b/file", PATH_THERE, absolute);
}

Test(path, says_what_is_missing)
{
	link_to("/nothing/at/all", "a/out");
	link_to("../none", "a/none");
	expect_end("a/c", PATH_MISSING, "a/c");
	expect_end("a/c/d/e", PATH_MISSING, "a/c/d/e");
	expect_end("a/none", PATH_MISSING, "none");
	expect_end("a/out", PATH_MISSING, "/nothing/at/all");
	expect_end("a/b/file/x", PATH_NOT_A_DIRECTORY, "a/b/file");
}

Test(path, finds_circles)
{
	link_to("one", "two");
	link_to("two", "one");
	struct path_walk walk;
	path_walk(&walk, "one/x", false);
	cr_expect(walk.end == PATH_LOOP, "%d", walk.end);
	/* The kernel follows as many. */
	char name[16], target[16] = "a";
	for (int i = 1; i <= 41; i++) {
		snprintf(name, sizeof name, "link-%d", i);
		link_to(target, name);
		strcpy(target, name);
	}
	expect_end("link-40", PATH_THERE, "a");
	cr_expect(access("link-40", F_OK) == 0);
	expect_end("link-41", PATH_LOOP, "link-1");
	cr_expect(access("link-41", F_OK) == -1 && errno == ELOOP);
}

Test(path, says_what_may_not_be_searched)
{
	if (geteuid() != 0)
		skip_test("needs root, to become another user");
	cr_assert(chmod(root, 0755) == 0 && chmod("a/b", 0700) == 0 && seteuid(65534) == 0);
	expect_end("a/b/file", PATH_NOT_SEARCHABLE, "a/b");
	expect_end("a/b", PATH_THERE, "a/b");
	cr_assert(seteuid(0) == 0);
}

/* Makes the setting appear as VALUE to this process. */
static void
set_protection(const char *value)
{
	make_file("setting", value);
	cr_assert(mount("setting", "/proc/sys/fs/protected_symlinks", NULL, MS_BIND, NULL) == 0);
}

Test(path, knows_which_links_are_forbidden)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) == -1 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1)
		skip_test("needs root, and a mount namespace");
	cr_assert(mkdir("sticky", 0755) == 0 && chmod("sticky", 01777) == 0);
	link_to("../a", "sticky/own");
	link_to("../a", "sticky/other");
	link_to("other", "sticky/link");
	link_to("../a", "a/other");
	cr_assert(lchown("sticky/other", 1, 1) == 0 && lchown("a/other", 1, 1) == 0);
	set_protection("1\n");
	expect_end("sticky/own/b", PATH_THERE, "a/b");
	expect_end("a/other/b", PATH_THERE, "a/b");
	expect_end("sticky/other/b", PATH_LINK_FORBIDDEN, "sticky/other");
	cr_assert(chdir("sticky") == 0);
	expect_end_where_read("other/b", PATH_THERE, "../a/b");
	expect_end_where_read("link/b", PATH_LINK_FORBIDDEN, "other");
	cr_assert(chdir("..") == 0);
	set_protection("0\n");
	expect_end("sticky/other/b", PATH_THERE, "a/b");
	cr_assert(umount("/proc/sys/fs/protected_symlinks") == 0);
	cr_assert(umount("/proc/sys/fs/protected_symlinks") == 0);
}

Test(path, makes_paths_absolute)
{
	static const struct {
		const char *directory, *at, *absolute;
	} rows[] = {
	    {"/srv/sniproxy", "a/b", "/srv/sniproxy/a/b"},
	    {"/srv/sniproxy", "", "/srv/sniproxy"},
	    {"/srv/sniproxy", "../x", "/srv/x"},
	    {"/srv/sniproxy", "../../../x", "/x"},
	    {"/srv/sniproxy", "/x/y", "/x/y"},
	    {"/", "x", "/x"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char absolute[PATH_MAX];
		path_absolute(absolute, rows[i].directory, rows[i].at);
		cr_expect(strcmp(absolute, rows[i].absolute) == 0, "%s", absolute);
	}
}

Test(path, knows_what_is_below)
{
	cr_expect(path_is_below("/srv/sniproxy", "/srv/sniproxy"));
	cr_expect(path_is_below("/srv/sniproxy/a", "/srv/sniproxy"));
	cr_expect(path_is_below("/srv/sniproxy/a", "/srv/sniproxy/"));
	cr_expect(path_is_below("/a", "/"));
	cr_expect(!path_is_below("/srv/sniproxy2", "/srv/sniproxy"));
	cr_expect(!path_is_below("/srv", "/srv/sniproxy"));
}

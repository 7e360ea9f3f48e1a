/* The sandbox: the program enters it however it is started, serves even if layers are missing, and
 * logs which are in force. What they forbid is tried in test_sandbox.c. */
#include "tests/program/harness.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

/* --- Missing layers --- */

/* An older kernel, or one that was started without Landlock. */
static void
without_landlock(void)
{
	refuse_call(SYS_landlock_create_ruleset, ANY_ARGUMENT, 0, ENOSYS);
}

/* A container may forbid it. */
static void
with_landlock_forbidden(void)
{
	refuse_call(SYS_landlock_create_ruleset, ANY_ARGUMENT, 0, EPERM);
}

static void
without_seccomp(void)
{
	refuse_call(SYS_prctl, 0, PR_SET_SECCOMP, EINVAL);
}

static void
without_either(void)
{
	without_landlock();
	without_seccomp();
}

/* --- What the log says --- */

#define NO_NEW_PRIVS "no_new_privs"
#define LANDLOCK "Landlock files, Landlock TCP, Landlock scopes"

/* The line that begins with START, without its end, or null. */
static char *
find_line(const struct proxy *proxy, const char *start)
{
	char *log = proxy_log(proxy), *line = strstr(log, start);
	if (line == NULL || (line != log && line[-1] != '\n'))
		return NULL;
	char *end = strchr(line, '\n');
	if (end == NULL)
		return NULL;
	*end = '\0';
	return line;
}

/* Starts a proxy with PREPARE. It must serve, and log LINE. WHY says why this kernel may have fewer
 * layers. */
static struct proxy *
expect_line(void (*prepare)(void), const char *line)
{
	server_listen("127.0.0.1");
	struct proxy *proxy = proxy_start(prepare);
	expect_served(backend_listen(HOST), hello_for(HOST));
	wait_until(find_line(proxy, "sniproxy: sandbox: ") != NULL, 3000);
	const char *said = find_line(proxy, "sniproxy: sandbox: ");
	check(strcmp(said, line) == 0, "\"%s\", and not \"%s\"", said, line);
	return proxy;
}

/* Whether the program is built with a sandbox. */
static void
need_sandbox(void)
{
	need("walls");
	if (sanitized())
		skip("the sanitizers make calls of their own");
	if (emulated())
		skip("the emulator makes calls of its own");
}

/* The version of Landlock, or less than 1. */
static void
need_landlock(void)
{
	need_sandbox();
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 6)
		skip("the kernel lacks a part of Landlock");
}

/* Each thread's /proc/PID/task/TID/status has VALUE after NAME. */
static void
expect_of_threads(const struct proxy *proxy, const char *name, const char *value)
{
	char path[300], line[64];
	int threads = 0;
	snprintf(line, sizeof line, "\n%s:\t%s\n", name, value);
	snprintf(path, sizeof path, "/proc/%d/task", (int)proxy->pid);
	DIR *tasks = opendir(path);
	const struct dirent *entry;
	check(tasks != NULL, "%s: %s", path, strerror(errno));
	while ((entry = readdir(tasks)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "task/%s/status", entry->d_name);
		check(strstr(proxy_proc(proxy, path), line) != NULL, "%s is not %s of %s", name,
		    value, entry->d_name);
		threads++;
	}
	closedir(tasks);
	check(threads > 2, "%d threads", threads);
}

PROGRAM_TEST(sandbox, all_walls_stand)
{
	need_landlock();
	const struct proxy *proxy =
	    expect_line(NULL, "sniproxy: sandbox: " NO_NEW_PRIVS ", " LANDLOCK ", seccomp");
	expect_of_threads(proxy, "NoNewPrivs", "1");
	expect_of_threads(proxy, "Seccomp", "2");
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
}

PROGRAM_TEST(sandbox, static_program_has_them_too)
{
	need_landlock();
	if (!proxy_use_static())
		skip("there is no static program");
	expect_line(NULL, "sniproxy: sandbox: " NO_NEW_PRIVS ", " LANDLOCK ", seccomp");
}

PROGRAM_TEST(sandbox, serves_where_the_kernel_has_no_landlock)
{
	need_sandbox();
	expect_line(
	    without_landlock, "sniproxy: sandbox: " NO_NEW_PRIVS ", seccomp; missing: " LANDLOCK);
}

PROGRAM_TEST(sandbox, serves_where_landlock_is_forbidden)
{
	need_sandbox();
	expect_line(with_landlock_forbidden,
	    "sniproxy: sandbox: " NO_NEW_PRIVS ", seccomp; missing: " LANDLOCK);
}

PROGRAM_TEST(sandbox, serves_where_there_is_no_filter)
{
	need_landlock();
	expect_line(
	    without_seccomp, "sniproxy: sandbox: " NO_NEW_PRIVS ", " LANDLOCK "; missing: seccomp");
}

PROGRAM_TEST(sandbox, serves_without_either)
{
	need_sandbox();
	expect_line(
	    without_either, "sniproxy: sandbox: " NO_NEW_PRIVS "; missing: " LANDLOCK ", seccomp");
}

PROGRAM_TEST(sandbox, builds_without_any_say_so)
{
	if (!is_portable() && !sanitized())
		skip("this build has a sandbox");
	expect_line(
	    NULL, "sniproxy: sandbox: none; missing: " NO_NEW_PRIVS ", " LANDLOCK ", seccomp");
}

/* --- Root --- */

static const char as_root[] = "sniproxy: running as root is unnecessary: start it as an "
			      "unprivileged user of its own";

PROGRAM_TEST(sandbox, root_is_told_what_to_do)
{
	if (geteuid() != 0)
		skip("needs root");
	const struct proxy *proxy = proxy_start_default();
	expect_served(backend_listen(HOST), hello_for(HOST));
	wait_until(find_line(proxy, "sniproxy: running") != NULL, 3000);
	cr_assert_str_eq(find_line(proxy, "sniproxy: running"), as_root);
}

PROGRAM_TEST(sandbox, others_are_not)
{
	server_listen("127.0.0.1");
	const struct proxy *proxy = proxy_start(become_nobody);
	expect_served(backend_listen(HOST), hello_for(HOST));
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	wait_until(strstr(proxy_log(proxy), "unknown.example") != NULL, 3000);
	cr_assert_null(strstr(proxy_log(proxy), "root"));
}

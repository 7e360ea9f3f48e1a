/* Tests of the limits that linux.c finds in control groups. The files are strings here. */
#include <criterion/criterion.h>

#include "system/system.h"
#include "tests/unit/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { FILES_MAX = 8 };

#define TEN "aaaaaaaaaa"
#define LONG TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

/* What linux.c sees of the file system, by the linker's option --wrap. */
static struct {
	const char *path, *text;
} files[FILES_MAX];
static int count;

FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);

FILE *
__wrap_fopen(const char *path, const char *mode)
{
	CHECK(strcmp(mode, "re") == 0, "%s", mode);
	for (int i = 0; i < count; i++)
		if (strcmp(files[i].path, path) == 0)
			return fmemopen((char *)files[i].text, strlen(files[i].text), "r");
	errno = ENOENT;
	return NULL;
}

FILE *
__wrap_fopen64(const char *path, const char *mode)
{
	return __wrap_fopen(path, mode);
}

static void
add(const char *path, const char *text)
{
	cr_assert(count < FILES_MAX);
	files[count].path = path;
	files[count++].text = text;
}

static void
add_groups(const char *groups)
{
	add("/proc/self/cgroup", groups);
}

Test(groups, takes_the_least_limit_of_nested_groups)
{
	add_groups("0::/outer/inner\n");
	add("/sys/fs/cgroup//outer/inner/memory.max", "max\n");
	add("/sys/fs/cgroup//outer/memory.max", "5000\n");
	add("/sys/fs/cgroup//memory.max", "6000\n");
	add("/sys/fs/cgroup//outer/inner/pids.max", "7\n");
	add("/sys/fs/cgroup//outer/pids.max", "max\n");
	cr_assert(system_memory() == 5000);
	cr_assert(system_threads() == 7);
}

/* As in a container with a namespace of its own. */
Test(groups, finds_the_limit_of_the_root_group)
{
	add_groups("0::/\n");
	add("/sys/fs/cgroup//memory.max", "5000\n");
	cr_assert(system_memory() == 5000);
}

/* As in a container without one: the path is the host's, and the files are the container's. */
Test(groups, finds_limits_of_version_1)
{
	add_groups("12:cpu,cpuacct:/x\n5:pids:/a b:c\n4:memory:/docker/id\n0::/x\n");
	add("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
	add("/sys/fs/cgroup/pids/a b:c/pids.max", "7\n");
	cr_assert(system_memory() == 5000);
	cr_assert(system_threads() == 7);
}

Test(groups, finds_the_limit_after_a_group_with_a_long_name)
{
	add_groups("12:name=" TEN TEN TEN TEN TEN TEN ":/\n"
		   "11:cpuset,cpu,cpuacct,blkio,devices,freezer,net_cls,perf_event,net_prio:/\n"
		   "10:hugetlb:/" LONG LONG LONG LONG "\n4:memory:/" LONG "\n");
	add("/sys/fs/cgroup/memory/" LONG "/memory.limit_in_bytes", "5000\n");
	cr_assert(system_memory() == 5000);
}

/* Without a limit, version 1 has the largest number. */
Test(groups, has_the_machines_memory_if_no_group_has_a_limit)
{
	uint64_t machine = system_memory();
	struct rlimit threads;
	cr_assert(machine > 1024 * 1024 && machine < 1ULL << 60);
	add_groups("4:memory:/\n0::/a\n");
	add("/sys/fs/cgroup/memory//memory.limit_in_bytes", "9223372036854771712\n");
	add("/sys/fs/cgroup//a/memory.max", "max\n");
	add("/sys/fs/cgroup//memory.max", "0\n");
	cr_assert(system_memory() == machine);
	getrlimit(RLIMIT_NPROC, &threads);
	threads.rlim_cur = 9;
	cr_assert(setrlimit(RLIMIT_NPROC, &threads) == 0);
	cr_assert(system_threads() == 9);
}

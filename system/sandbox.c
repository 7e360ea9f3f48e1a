#include "system/sandbox.h"

#include "system/filter.h"

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* System calls for which C libraries have no functions, and old headers no numbers. The numbers are
 * the same on all machines that filter.c supports. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

enum {
	GET_VERSION = 1, /* LANDLOCK_CREATE_RULESET_VERSION */

	/* LANDLOCK_ACCESS_NET_*: bind and connect, from version 4 on. */
	TCP_4 = 3,

	/* LANDLOCK_SCOPE_*: abstract Unix sockets and signals, from version 6 on. */
	SCOPES_6 = 3,
};

/* LANDLOCK_ACCESS_FS_*: execute, write, read, list, remove and make of all kinds; from version 2 on
 * refer, 3 truncate, 5 ioctl of a device. */
static const uint64_t files_by_version[] = {0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};

/* struct landlock_ruleset_attr: what is denied unless a rule allows it. An older kernel accepts it
 * if the members that it does not know are 0. */
struct ruleset {
	uint64_t files, tcp, scopes;
};

/* Enters the Landlock layers in WANTED. No rules are needed: Landlock does not restrict looking up
 * names, changing directories, and connecting to Unix sockets by their path. */
static unsigned
enter_landlock(unsigned wanted)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, GET_VERSION);
	unsigned raised = version >= 1 ? wanted & SANDBOX_FILES : 0;
	raised |= version >= 4 ? wanted & SANDBOX_TCP : 0;
	raised |= version >= 6 ? wanted & SANDBOX_SCOPES : 0;
	const struct ruleset ruleset = {
	    .files =
		(raised & SANDBOX_FILES) != 0 ? files_by_version[version < 5 ? version : 5] : 0,
	    .tcp = (raised & SANDBOX_TCP) != 0 ? TCP_4 : 0,
	    .scopes = (raised & SANDBOX_SCOPES) != 0 ? SCOPES_6 : 0,
	};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof ruleset, 0);
	if (rules == -1) /* ENOMSG: it is empty */
		return 0;
	bool entered = syscall(SYS_landlock_restrict_self, rules, 0) == 0;
	close(rules);
	return entered ? raised : 0;
}

static unsigned
enter_filter(void)
{
	/* The kernel only reads it. */
	const struct sock_fprog program = {filter_length, (struct sock_filter *)filter_program};
	if (filter_length == 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == -1)
		return 0;
	return SANDBOX_CALLS;
}

unsigned
sandbox_enter(unsigned wanted)
{
	unsigned raised = 0;
	if ((wanted & SANDBOX_NO_NEW_PRIVS) != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		raised |= SANDBOX_NO_NEW_PRIVS;
	raised |= enter_landlock(wanted);
	/* Entered last, because it denies the calls for the others. */
	if ((wanted & SANDBOX_CALLS) != 0)
		raised |= enter_filter();
	return raised;
}

/* The walls that the program has around itself while it serves, whoever started it. One of two
 * files gives them: sandbox.c, by Linux; or sandbox_none.c, which has none. See docs/sandbox.md. */
#ifndef SANDBOX_H
#define SANDBOX_H

enum sandbox_wall {
	/* No program that is executed has more rights than this one (PR_SET_NO_NEW_PRIVS). */
	SANDBOX_NO_NEW_PRIVS = 1,

	/* Landlock: nothing is read, written, executed, made or removed in any file system; */
	SANDBOX_FILES = 2,
	/* no TCP socket is bound or connected; */
	SANDBOX_TCP = 4,
	/* no abstract Unix socket, and no other process by a signal, is reached. */
	SANDBOX_SCOPES = 8,

	/* seccomp: no system call but those of calls.h. */
	SANDBOX_CALLS = 16,

	SANDBOX_ALL = 31,
};

/* Raises those of the walls WANTED that the kernel has and lets it raise. They stay, also for
 * threads that the calling one starts from now on; not for those that there are already. Without
 * the first one, the others are only for who is privileged. Returns those that stand. */
unsigned sandbox_enter(unsigned wanted);

#endif

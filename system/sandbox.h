/* The sandbox: layers that restrict the program while it serves. One of two files provides them:
 * sandbox.c for Linux, or sandbox_none.c, which has none. See SECURITY.md. */
#ifndef SANDBOX_H
#define SANDBOX_H

enum sandbox_layer {
	/* An executed program gets no more rights than this one (PR_SET_NO_NEW_PRIVS). */
	SANDBOX_NO_NEW_PRIVS = 1,

	/* Landlock: nothing is read, written, executed, made or removed in any file system; */
	SANDBOX_FILES = 2,
	/* no TCP socket is bound or connected; */
	SANDBOX_TCP = 4,
	/* no abstract Unix socket is connected to, and no signal reaches another process. */
	SANDBOX_SCOPES = 8,

	/* seccomp: only the system calls in calls.h are allowed. */
	SANDBOX_CALLS = 16,

	SANDBOX_ALL = 31,
};

/* Enters those of the layers WANTED that the kernel supports and allows. They are permanent, and
 * apply to the calling thread and to those that it starts afterwards, not to others. Without the
 * first layer, the others need privileges. Returns the layers entered. */
unsigned sandbox_enter(unsigned wanted);

#endif

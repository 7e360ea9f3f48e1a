/* The system calls that are made in service, by glibc, by musl, and by this program. filter.c makes
 * a filter for seccomp(2) of them. Tests compare it with one by libseccomp, and the list with the
 * output of strace(1). The first entry that matches decides:
 *   ALLOW(call), REFUSE(call)
 *   ALLOW_IF(call, argument, mask, value)   if that argument, and MASK, are VALUE
 *   ALLOW_IF_BOTH(call, argument, mask, value, argument, mask, value)
 * Arguments are counted from 0. Their low 32 bits are compared, because they are of type int, or
 * flags. They are compared if the kernel does much by one call, of which little is used. */
#ifndef CALLS_H
#define CALLS_H

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define CALLS_ALL 0xffffffffU

/* The flags with which only threads are started. musl adds CLONE_DETACHED, which has no effect. */
#define CALLS_THREAD \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
	    CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)
#define CALLS_THREAD_MASK (CALLS_ALL & ~(unsigned)CLONE_DETACHED)

#define CALLS_OPTION(ALLOW_IF_BOTH, call, level, name) \
	ALLOW_IF_BOTH(call, 1, CALLS_ALL, level, 2, CALLS_ALL, name)

/* With MSG_FASTOPEN or an address, sendto(2) would connect a socket. Only Unix sockets are created,
 * and only these options are used. */
#define CALLS_OF_SOCKETS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	ALLOW_IF_BOTH(sendto, 3, ~(unsigned)MSG_NOSIGNAL, 0, 5, CALLS_ALL, 0) \
	REFUSE(sendto) \
	ALLOW(recvfrom) \
	ALLOW(accept4) \
	ALLOW_IF(socket, 0, CALLS_ALL, AF_UNIX) \
	REFUSE(socket) \
	ALLOW(connect) \
	ALLOW(shutdown) \
	ALLOW(getsockname) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, SOL_SOCKET, SO_LINGER) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, SOL_SOCKET, SO_KEEPALIVE) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, SOL_SOCKET, SO_OOBINLINE) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, SOL_SOCKET, 83) /* SO_PASSRIGHTS */ \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_NODELAY) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_KEEPIDLE) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_KEEPINTVL) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_KEEPCNT) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_NOTSENT_LOWAT) \
	CALLS_OPTION(ALLOW_IF_BOTH, setsockopt, IPPROTO_TCP, TCP_USER_TIMEOUT) \
	REFUSE(setsockopt) \
	CALLS_OPTION(ALLOW_IF_BOTH, getsockopt, SOL_SOCKET, SO_ERROR) \
	CALLS_OPTION(ALLOW_IF_BOTH, getsockopt, SOL_SOCKET, SO_PEERCRED) \
	CALLS_OPTION(ALLOW_IF_BOTH, getsockopt, IPPROTO_TCP, TCP_NODELAY) \
	REFUSE(getsockopt) \
	ALLOW_IF(ioctl, 1, CALLS_ALL, FIONREAD) \
	ALLOW_IF(ioctl, 1, CALLS_ALL, SIOCOUTQNSD) \
	ALLOW_IF(ioctl, 1, CALLS_ALL, TIOCOUTQ) \
	REFUSE(ioctl)

/* No file is opened for reading or writing. */
#define CALLS_OF_FILES(ALLOW, ALLOW_IF, REFUSE) \
	ALLOW_IF(openat, 2, O_PATH, O_PATH) \
	REFUSE(openat) \
	ALLOW(fchdir) \
	ALLOW(fstat) \
	ALLOW(newfstatat) \
	ALLOW(readlinkat) \
	ALLOW(faccessat) \
	ALLOW(close) \
	ALLOW(dup3) \
	ALLOW(pipe2) \
	ALLOW(splice) \
	ALLOW_IF(fcntl, 1, CALLS_ALL, F_GETFD) \
	ALLOW_IF(fcntl, 1, CALLS_ALL, F_SETPIPE_SZ) \
	ALLOW_IF(fcntl, 1, CALLS_ALL, F_GETPIPE_SZ) \
	REFUSE(fcntl) \
	ALLOW(epoll_ctl) \
	ALLOW(epoll_pwait) \
	ALLOW(ppoll) \
	ALLOW(pselect6) \
	ALLOW(write) \
	ALLOW(writev) /* a message of the C library before it aborts */

/* Threads are started with clone(2): a filter cannot compare the arguments of clone3(2), and the C
 * library does without that call if it fails. */
#define CALLS_OF_THREADS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	ALLOW(futex) \
	ALLOW_IF(clone, 0, CALLS_THREAD_MASK, CALLS_THREAD) \
	REFUSE(clone) \
	ALLOW(set_robust_list) \
	ALLOW(rseq) \
	ALLOW_IF(unshare, 0, CALLS_ALL, CLONE_FS) \
	REFUSE(unshare) \
	ALLOW_IF_BOTH(sched_setscheduler, 0, CALLS_ALL, 0, 1, CALLS_ALL, SCHED_BATCH) \
	REFUSE(sched_setscheduler) \
	ALLOW(rt_sigaction) \
	ALLOW(rt_sigprocmask) \
	ALLOW(rt_sigreturn) \
	ALLOW(restart_syscall) \
	ALLOW(tgkill) \
	ALLOW(tkill) \
	ALLOW(getpid) \
	ALLOW(gettid) \
	ALLOW(exit) \
	ALLOW(exit_group)

/* No memory is executable or maps a file. */
#define CALLS_OF_MEMORY(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	ALLOW_IF_BOTH(mmap, 2, PROT_EXEC, 0, 3, MAP_ANONYMOUS, MAP_ANONYMOUS) \
	REFUSE(mmap) \
	ALLOW_IF(mprotect, 2, PROT_EXEC, 0) \
	REFUSE(mprotect) \
	ALLOW(mremap) \
	ALLOW(munmap) \
	ALLOW(madvise) \
	ALLOW(brk) \
	ALLOW(getrandom) \
	ALLOW(clock_gettime)

/* Calls of x86-64 that newer machines replace by one from above. */
#ifdef __x86_64__
#define CALLS_OF_OLD(ALLOW) \
	ALLOW(access) \
	ALLOW(dup2) \
	ALLOW(epoll_wait) \
	ALLOW(poll) \
	ALLOW(time)
#else
#define CALLS_OF_OLD(ALLOW)
#endif

#define CALLS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	CALLS_OF_SOCKETS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	CALLS_OF_FILES(ALLOW, ALLOW_IF, REFUSE) \
	CALLS_OF_THREADS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	CALLS_OF_MEMORY(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) \
	CALLS_OF_OLD(ALLOW)

#endif

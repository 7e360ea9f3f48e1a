/* What each system does in a way of its own, or cannot do. The Makefile takes one of these
 * files: linux.c, freebsd.c, macos.c; or posix.c, which needs nothing but POSIX.1-2008 (with
 * XSI) and so runs on any of them. All but linux.c take poll.c besides. No other source file
 * asks which system it is.
 *
 * Any thread may call these functions. They share nothing, and wait for nothing, unless it is
 * said. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/* --- Sockets --- */

/* Makes a non-blocking stream socket of the family DOMAIN, and accepts one from LISTENER, which
 * may wait as LISTENER has it. No program that is executed inherits them. Return -1 with errno
 * set. */
int system_socket(int domain);
int system_accept(int listener, struct sockaddr *peer, socklen_t *size);

/* Whether SOCKET, which is of AF_INET or AF_INET6, is one of TCP, as far as the system tells. */
bool system_is_tcp(int socket);

/* Whether accept(2) heeds the SO_RCVTIMEO of LISTENER. */
bool system_accept_heeds_timeout(int listener);

/* Sets what TCP has beyond POSIX: when the other end is taken to have vanished (PROBES
 * unanswered, INTERVAL_S apart, after IDLE_S of silence; or, for as long as that takes, none of
 * the bytes taken that wait for it), and how many bytes the kernel takes beyond what it has sent.
 * Where a system lacks one of them, it is as usual there. */
void system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max);

/* Whether bytes have come on SOCKET that this program has not read yet. */
bool system_has_unread(int socket);

/* How many bytes the kernel holds because the other end of SOCKET, of TCP or a Unix socket,
 * takes none: they are not even under way. If a system does not tell, 1 if there is no room for
 * more, and 0. */
int system_unsent(int socket);

/* How many bytes the other end of the TCP socket SOCKET has not acknowledged; likewise. */
int system_unacknowledged(int socket);

/* --- Watching many sockets: by epoll(7), or by poll(2) --- */

/* Makes the set of watched sockets, of which there is one. Returns false with errno set. To be
 * called once. */
bool system_watch_open(void);

/* What the system has for it, for the log. */
extern const char system_watch_call[];

/* Watches SOCKET, for OWNER: for a hang-up; and for bytes, or the end of the stream, if READS.
 * Returns false with errno set. It is watched until it is removed, which does nothing otherwise. */
bool system_watch_add(int socket, bool reads, void *owner);
void system_watch_remove(int socket);

/* Waits until something has happened on a watched socket, for TIMEOUT_MS at most, for ever if
 * that is -1. Only one thread may wait. */
void system_watch_wait(int timeout_ms);

/* Says in OWNERS on whose sockets something has happened, at most MOST. Returns how many. Does
 * not wait. */
int system_watch_fetch(void *owners[], int most);

/* --- Bytes that are not copied --- */

/* Makes a pipe that holds SIZE bytes, or SIZE_MIN at least. Returns whether there is one. */
bool system_open_pipe(int ends[2], int size, int size_min);

/* Moves up to LENGTH bytes between a pipe and a non-blocking socket, one of which is FROM.
 * Returns how many, 0 at the end of the stream, -1 with errno set. */
ssize_t system_splice(int from, int to, size_t length);

/* --- Directories --- */

/* Opens the working directory, which is the hosts directory, as the descriptor that the
 * functions below take. Takes the right to search it alone. -1 with errno set. */
int system_open_hosts(void);

/* fstat(2) of it. */
int system_stat_hosts(int hosts, struct stat *status);

/* Opens the directory NAME of HOSTS. Returns a descriptor, the caller's, or AT_FDCWD: from
 * there, a path that begins with PREFIX leads into it. -1 with errno set. */
int system_open_host(int hosts, const char *name, char prefix[256]);

/* Connects SOCKET to the Unix socket at PATH, which begins at DIRECTORY. Returns 0, or -1 with
 * errno set; if that is not for the socket's sake, says in FAILED what has failed. */
int system_connect(int hosts, int directory, const char *path, int socket, const char **failed);

/* What FAILED is if the path is too long for the system. */
extern const char system_long_path[];

/* --- Whose a host is --- */

/* openat(2) with FLAGS, O_DIRECTORY or O_NOFOLLOW, without the right to read: the descriptor,
 * which is the caller's, can be asked whose it is, and connected from; that of a symlink can be
 * read by readlinkat(2) with an empty path. -1 with errno ENOSYS if the system has no such
 * thing. */
int system_open_path(int directory, const char *name, int flags);

/* Asks which USER called listen(2) at the other end of SOCKET, a connected Unix socket. Returns
 * false with errno set where that is not known. */
bool system_know_listener(int socket, uid_t *user);

/* --- Threads --- */

/* Lets the calling thread, and those that it starts, not preempt the one that wakes it: batch
 * scheduling. */
void system_schedule_batch(void);

/* Gives back the memory of SIZE bytes of the calling thread's stack, below what is in use. */
void system_release_stack(size_t size);

/* --- The machine --- */

/* How many bytes of memory, and how many threads, there may be, by the machine and by the
 * control groups of this process; 0 if the system does not tell. */
uint64_t system_memory(void);
uint64_t system_threads(void);

/* How many files a process may have open if the hard limit does not say it; 0 if it does. */
uint64_t system_open_files(void);

/* Has all threads allocate from one arena. With one for each thread, as glibc has it, what one
 * thread frees is not there for the next, and memory grows beyond the budget. */
void system_share_memory(void);

#endif

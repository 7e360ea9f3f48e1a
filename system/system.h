/* System-dependent functions. The Makefile selects one file: linux.c, freebsd.c, macos.c; or
 * posix.c, which needs nothing beyond POSIX.1-2008 (with XSI) and so runs on any of them. All
 * except linux.c use poll.c too. No other source file depends on the system.
 *
 * Any thread may call these functions. They share nothing and do not block, unless stated
 * otherwise. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/* --- Sockets --- */

/* Creates a stream socket of the family DOMAIN; accepts one from LISTENER, and blocks as LISTENER
 * does. Both are non-blocking, and closed by exec(3). Return -1 with errno set. */
int system_socket(int domain);
int system_accept(int listener, struct sockaddr *peer, socklen_t *size);

/* Whether SOCKET, of AF_INET or AF_INET6, is a TCP socket, as far as the system tells. */
bool system_is_tcp(int socket);

/* Whether accept(2) heeds the SO_RCVTIMEO of LISTENER. */
bool system_accept_heeds_timeout(int listener);

/* Sets TCP options beyond POSIX. The peer counts as vanished after PROBES unanswered probes,
 * INTERVAL_S apart, after IDLE_S of silence; or if it has acknowledged no bytes for the sum of
 * these times. The kernel holds UNSENT_MAX unsent bytes at most. If the system lacks an option, its
 * default stays. */
void system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max);

/* Whether SOCKET has received bytes that this program has not read yet. */
bool system_has_unread(int socket);

/* Returns how many bytes for SOCKET, a TCP or Unix socket, the kernel has not sent yet, because the
 * peer takes none. If the system does not tell, returns 1 if there is no room for more, otherwise
 * 0. */
int system_unsent(int socket);

/* Returns how many bytes the peer of the TCP socket SOCKET has not acknowledged; or the same as
 * above. */
int system_unacknowledged(int socket);

/* --- Watching many sockets: by epoll(7), or by poll(2) --- */

/* Creates the only set of watched sockets. Returns false with errno set on failure. Call it
 * once. */
bool system_watch_open(void);

/* The name of the mechanism, for the log. */
extern const char system_watch_call[];

/* Watches SOCKET for OWNER, until it is removed: for a hang-up and, if READS, for bytes or the end
 * of the stream. Returns false with errno set on failure. Removing an unwatched socket has no
 * effect. */
bool system_watch_add(int socket, bool reads, void *owner);
void system_watch_remove(int socket);

/* Waits for an event on a watched socket, for TIMEOUT_MS at most; without limit if that is -1. Only
 * one thread may wait. */
void system_watch_wait(int timeout_ms);

/* Stores in OWNERS up to MOST owners of sockets with events. Returns how many. Does not block. */
int system_watch_fetch(void *owners[], int most);

/* --- Bytes that are not copied --- */

/* Creates a pipe that holds SIZE bytes, or at least SIZE_MIN. Returns whether that succeeded. */
bool system_open_pipe(int ends[2], int size, int size_min);

/* Moves up to LENGTH bytes between a pipe and a non-blocking socket, one of which is FROM.
 * Returns how many, 0 at the end of the stream, -1 with errno set. */
ssize_t system_splice(int from, int to, size_t length);

/* --- Directories --- */

/* Opens the working directory, which is the hosts directory, for the functions below. Needs only
 * the right to search it. Returns a descriptor, or -1 with errno set. */
int system_open_hosts(void);

/* Calls fstat(2) for HOSTS. */
int system_stat_hosts(int hosts, struct stat *status);

/* Opens the directory NAME in HOSTS. Returns a descriptor that the caller owns, or AT_FDCWD: then
 * paths that begin with PREFIX lead into the directory. Returns -1 with errno set on failure. */
int system_open_host(int hosts, const char *name, char prefix[256]);

/* Connects SOCKET to the Unix socket at PATH, relative to DIRECTORY. Returns 0, or -1 with errno
 * set. If the cause is not the socket, sets FAILED to what has failed. */
int system_connect(int hosts, int directory, const char *path, int socket, const char **failed);

/* The value of FAILED if the path is too long for the system. */
extern const char system_long_path[];

/* --- Whose a host is --- */

/* Calls openat(2) with FLAGS, O_DIRECTORY or O_NOFOLLOW; needs no right to read. The caller owns
 * the descriptor, which fstat(2) and system_connect() accept; for a symlink, readlinkat(2) with an
 * empty path does too. Returns -1 with errno set, ENOSYS if the system has no such descriptors. */
int system_open_path(int directory, const char *name, int flags);

/* Sets USER to the user that called listen(2) at the other end of SOCKET, a connected Unix socket.
 * Returns false with errno set if that is unknown. */
bool system_know_listener(int socket, uid_t *user);

/* --- Threads --- */

/* Sets batch scheduling for the calling thread and those that it starts: they do not preempt the
 * thread that wakes them. */
void system_schedule_batch(void);

/* Frees the memory of SIZE bytes of the calling thread's stack, below the part in use. */
void system_release_stack(size_t size);

/* --- The machine --- */

/* How many bytes of memory, and how many threads, there may be, by the machine and by the control
 * groups of this process; and how many open files, besides the hard limit on them. UINT64_MAX if
 * the system does not tell. */
uint64_t system_memory(void);
uint64_t system_threads(void);
uint64_t system_open_files(void);

/* Makes all threads allocate from one arena. With one for each thread, glibc's default, memory that
 * one thread frees is not available to others, and usage grows beyond the budget. */
void system_share_memory(void);

#endif

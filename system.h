/* What each system does in a way of its own, or cannot do. One source file a system gives all of it,
 * and the Makefile takes one of them: system_linux.c, system_freebsd.c, system_macos.c; or
 * system_posix.c, which knows nothing but POSIX.1-2008 (with XSI), and so runs on any of them. No
 * other source file asks which system it is.
 *
 * Any thread may call it. It shares nothing, and waits for nothing where it does not say so. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

/* --- Sockets --- */

/* Makes a blocking stream socket of the family DOMAIN; one that accept(2) gives is blocking, too,
 * whatever LISTENER is. No program that is executed inherits them. Return -1 with errno set; accept(2)
 * may wait, as LISTENER has it. */
int system_socket(int domain);
int system_accept(int listener, struct sockaddr *peer, socklen_t *size);

/* Whether SOCKET, which is of AF_INET or AF_INET6, is one of TCP, as far as the system tells. */
bool system_is_tcp(int socket);

/* Whether accept(2) heeds the SO_RCVTIMEO of LISTENER, and what it gives has all options of that. */
bool system_accepted_inherit(int listener);

/* recv(2) and send(2) that do not wait: where they would have to, errno is EAGAIN. To peek leaves what
 * there is to be received. */
ssize_t system_receive_now(int socket, void *buffer, size_t size);
ssize_t system_peek(int socket, void *buffer, size_t size);
ssize_t system_send_now(int socket, const void *bytes, size_t length);

/* Sets what TCP has beyond POSIX: when the other end is taken to have vanished (PROBES unanswered,
 * INTERVAL_S apart, after IDLE_S of silence), and how many bytes the kernel takes beyond what it has
 * sent. Where a system lacks one of them, it is as usual there. */
void system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max);

/* Whether something has come on SOCKET that nobody has read. */
bool system_has_unread(int socket);

/* How many bytes the kernel has that the other end of SOCKET has not taken; where a system does not
 * tell, 1 where there is no room for more, and 0. */
int system_untaken(int socket);

/* Asks how many bytes the other end of SOCKET has taken so far. Returns false where the system does not
 * tell. */
bool system_know_taken(int socket, uint64_t *bytes);

/* Asks how many connections wait at LISTENER to be accepted, and how many may. Returns false where
 * the system does not tell. */
bool system_know_queue(int listener, unsigned *waiting, unsigned *places);

/* Whether nothing has come on the TCP socket SOCKET for MS milliseconds; false where the system does
 * not tell. */
bool system_was_silent(int socket, int ms);

/* --- Bytes that are not copied --- */

/* Whether there is splice(2). */
bool system_has_splice(void);

/* Makes a pipe that holds SIZE bytes, or SIZE_MIN at least. Returns whether there is one. */
bool system_open_pipe(int ends[2], int size, int size_min);

/* Moves up to LENGTH bytes between a pipe and a socket, one of which is FROM. Waits as recv(2) and
 * send(2) do. Returns how many, 0 at the end, -1 with errno set. */
ssize_t system_splice(int from, int to, size_t length);

/* --- Directories --- */

/* Opens the working directory to be gone back to, which takes the right to search it alone; or, where
 * a system does not need that, something else that nobody can write to. -1 with errno set. */
int system_open_directory(void);

/* Sees to it that the calling thread can go into a directory without the others noticing. Returns
 * false with errno set where that cannot be. Then the path of a backend's socket may be too long, and
 * is called SYSTEM_LONG_PATH, which says why it is needed. */
bool system_can_enter(void);
extern const char system_long_path[];

/* Goes into the directory NAME of HOME, where the thread is. Returns a place, from which fstatat(2)
 * and system_connect() take relative paths, or -1 with errno set. */
int system_enter(int home, const char *name);

/* The same for the directory at the descriptor DIRECTORY, which is closed then, or is the place. */
int system_enter_opened(int directory);

/* Leaves PLACE, and goes back to HOME; AT_FDCWD is wherever the thread is. Returns whether it is
 * there. */
bool system_leave(int place, int home);

/* connect(2), with a path from PLACE, or from AT_FDCWD. */
int system_connect(int place, int socket, const struct sockaddr *address, socklen_t size);

/* --- Whose a host is --- */

/* openat(2) with FLAGS, of which there are O_DIRECTORY and O_NOFOLLOW, without the right to read: so that
 * the descriptor, which is the caller's, can be asked whose it is, and entered; that of a symlink can be
 * read by readlinkat(2) with an empty path. -1 with errno ENOSYS where the system has no such thing. */
int system_open_path(int directory, const char *name, int flags);

/* Where such a descriptor is a directory for paths, and what is to be said where that is missing. */
extern const char system_descriptors[], system_no_descriptors[];

/* Asks which USER called listen(2) at the other end of SOCKET, a connected Unix socket. Returns false
 * with errno set where that is not known. */
bool system_know_listener(int socket, uid_t *user);

/* --- Threads --- */

/* Has the calling thread not preempt who wakes it while it works in BATCHES. */
void system_work_in_batches(bool batches);

/* Gives the calling thread a NAME of up to 15 bytes, for ps(1) and top(1). */
void system_name_thread(const char *name);

/* A clock that is cheap to ask, and only moves with each tick of the kernel. */
void system_tick(struct timespec *tick);

/* Makes a condition, and waits for it, until DEADLINE_MS of clock.h's clock at the latest. Returns
 * false when that is over. */
void system_init_condition(pthread_cond_t *condition);
bool
system_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t deadline_ms);

/* --- The machine --- */

/* How many processors the program may use, and how many bytes of memory there are; 0 where the
 * system does not tell. */
unsigned system_processors(void);
uint64_t system_memory(void);

/* How many files a process may have open where the system does not say so by the hard limit (it may be
 * unlimited, and yet there are no more than these); 0 where it does. */
uint64_t system_open_files(void);

/* Has all threads allocate from one arena. With one for each thread, as glibc has it, what one
 * thread frees is not there for the next, and memory grows beyond the budget. */
void system_share_memory(void);

#endif

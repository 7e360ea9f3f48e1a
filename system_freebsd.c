/* FreeBSD 13, from its headers and manuals: connectat(2), accept4(2), getsockopt(2), tcp(4),
 * pthread_set_name_np(3). Older ones have no O_SEARCH. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread_np.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* --- Sockets --- */

int
system_socket(int domain)
{
	return socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* Without SOCK_NONBLOCK, it is blocking. */
int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	return accept4(listener, peer, size, SOCK_CLOEXEC);
}

bool
system_is_tcp(int socket)
{
	int protocol;
	socklen_t size = sizeof protocol;
	return getsockopt(socket, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
	    protocol == IPPROTO_TCP;
}

bool
system_accepted_inherit(int listener)
{
	(void)listener;
	return false;
}

ssize_t
system_receive_now(int socket, void *buffer, size_t size)
{
	return recv(socket, buffer, size, MSG_DONTWAIT);
}

ssize_t
system_peek(int socket, void *buffer, size_t size)
{
	return recv(socket, buffer, size, MSG_PEEK | MSG_DONTWAIT);
}

ssize_t
system_send_now(int socket, const void *bytes, size_t length)
{
	return send(socket, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* There is nothing for UNSENT_MAX. */
void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	(void)unsent_max;
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

bool
system_has_unread(int socket)
{
	int bytes = 0;
	return ioctl(socket, FIONREAD, &bytes) == 0 && bytes > 0;
}

int
system_untaken(int socket)
{
	int bytes = 0;
	ioctl(socket, FIONWRITE, &bytes);
	return bytes;
}

bool
system_know_taken(int socket, uint64_t *bytes)
{
	(void)socket;
	*bytes = 0;
	return false;
}

bool
system_know_queue(int listener, unsigned *waiting, unsigned *places)
{
	int length, limit;
	socklen_t length_size = sizeof length, limit_size = sizeof limit;
	if (getsockopt(listener, SOL_SOCKET, SO_LISTENQLEN, &length, &length_size) ==
		-1 ||
	    getsockopt(listener, SOL_SOCKET, SO_LISTENQLIMIT, &limit, &limit_size) == -1)
		return false;
	*waiting = (unsigned)length;
	*places = (unsigned)limit;
	return true;
}

bool
system_was_silent(int socket, int ms)
{
	(void)socket, (void)ms;
	return false;
}

/* --- Bytes that are not copied --- */

bool
system_has_splice(void)
{
	return false;
}

bool
system_open_pipe(int ends[2], int size, int size_min)
{
	ends[0] = ends[1] = -1;
	(void)size, (void)size_min;
	return false;
}

ssize_t
system_splice(int from, int to, size_t length)
{
	(void)from, (void)to, (void)length;
	errno = ENOSYS;
	return -1;
}

/* --- Directories: a thread has the host directory open, and does not move --- */

const char system_long_path[] = "tls-socket";

int
system_open_directory(void)
{
	return open(".", O_SEARCH | O_DIRECTORY | O_CLOEXEC);
}

bool
system_can_enter(void)
{
	return true;
}

int
system_enter(int home, const char *name)
{
	return openat(home, name, O_SEARCH | O_DIRECTORY | O_CLOEXEC);
}

int
system_enter_opened(int directory)
{
	return directory;
}

bool
system_leave(int place, int home)
{
	(void)home;
	if (place != AT_FDCWD)
		close(place);
	return true;
}

int
system_connect(int place, int socket, const struct sockaddr *address, socklen_t size)
{
	return connectat(place, socket, address, size);
}

/* --- Whose a host is --- */

const char system_descriptors[] = "";
const char system_no_descriptors[] = "";

int
system_open_path(int directory, const char *name, int flags)
{
	(void)directory, (void)name, (void)flags;
	errno = ENOSYS;
	return -1;
}

bool
system_know_listener(int socket, uid_t *user)
{
	(void)socket;
	*user = (uid_t)-1;
	errno = ENOSYS;
	return false;
}

/* --- Threads --- */

void
system_work_in_batches(bool batches)
{
	(void)batches;
}

void
system_name_thread(const char *name)
{
	pthread_set_name_np(pthread_self(), name);
}

void
system_tick(struct timespec *tick)
{
	clock_gettime(CLOCK_MONOTONIC_FAST, tick);
}

void
system_init_condition(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

bool
system_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t deadline_ms)
{
	struct timespec until = {
	    deadline_ms / 1000, (long)(deadline_ms % 1000) * 1000000};
	return pthread_cond_timedwait(condition, mutex, &until) != ETIMEDOUT;
}

/* --- The machine --- */

unsigned
system_processors(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	return processors > 0 ? (unsigned)processors : 0;
}

uint64_t
system_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

uint64_t
system_open_files(void)
{
	return 0;
}

void
system_share_memory(void)
{
}

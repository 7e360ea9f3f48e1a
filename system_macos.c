/* macOS 13, from its headers and manuals: pthread_chdir_np(3), pthread_fchdir_np(3), getsockopt(2),
 * tcp(4), sysctl(3). Older ones have no O_SEARCH. */
#include "system.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/sysctl.h>
#include <unistd.h>

/* --- Sockets --- */

int
system_socket(int domain)
{
	int s = socket(domain, SOCK_STREAM, 0);
	if (s != -1)
		fcntl(s, F_SETFD, FD_CLOEXEC);
	return s;
}

/* It is non-blocking where the listening socket is. */
int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	int s = accept(listener, peer, size);
	if (s == -1)
		return -1;
	fcntl(s, F_SETFD, FD_CLOEXEC);
	int flags = fcntl(s, F_GETFL);
	if ((flags & O_NONBLOCK) != 0)
		fcntl(s, F_SETFL, flags & ~O_NONBLOCK);
	return s;
}

bool
system_is_tcp(int socket)
{
	int type;
	socklen_t size = sizeof type;
	return getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
	    type == SOCK_STREAM;
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

void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPALIVE, &idle_s, sizeof idle_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
	setsockopt(
	    socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof unsent_max);
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
	socklen_t size = sizeof bytes;
	getsockopt(socket, SOL_SOCKET, SO_NWRITE, &bytes, &size);
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
	(void)listener;
	*waiting = *places = 0;
	return false;
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

/* --- Directories: a thread may have a working directory of its own --- */

/* The C library has them, and no header that is installed with it does. */
int pthread_chdir_np(const char *path);
int pthread_fchdir_np(int directory);

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
	(void)home;
	return pthread_chdir_np(name) == 0 ? AT_FDCWD : -1;
}

int
system_enter_opened(int directory)
{
	(void)directory;
	errno = ENOSYS;
	return -1;
}

bool
system_leave(int place, int home)
{
	(void)place;
	return pthread_fchdir_np(home) == 0;
}

int
system_connect(int place, int socket, const struct sockaddr *address, socklen_t size)
{
	(void)place;
	return connect(socket, address, size);
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
	pthread_setname_np(name);
}

void
system_tick(struct timespec *tick)
{
	clock_gettime(CLOCK_MONOTONIC_RAW_APPROX, tick);
}

void
system_init_condition(pthread_cond_t *condition)
{
	pthread_cond_init(condition, NULL);
}

/* No condition has that clock, so that it waits for what is left. */
bool
system_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t deadline_ms)
{
	int left_ms = clock_left_ms(deadline_ms);
	struct timespec left = {left_ms / 1000, left_ms % 1000 * 1000000L};
	return pthread_cond_timedwait_relative_np(condition, mutex, &left) != ETIMEDOUT;
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
	int files = 0;
	size_t size = sizeof files;
	bool is_known = sysctlbyname("kern.maxfilesperproc", &files, &size, NULL, 0) == 0;
	return is_known && files > 0 ? (uint64_t)files : 0;
}

void
system_share_memory(void)
{
}

/* Any system with POSIX.1-2008 and XSI: nothing here, nor in any other source file but those of other
 * systems and lot.c, is beyond that. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* --- Sockets --- */

/* Whether one of EVENTS is there on SOCKET. */
static bool
is_there(int socket, short events)
{
	int count;
	struct pollfd entry = {.fd = socket, .events = events};
	do
		count = poll(&entry, 1, 0);
	while (count == -1 && errno == EINTR);
	return count == 1;
}

int
system_socket(int domain)
{
	int s = socket(domain, SOCK_STREAM, 0);
	if (s != -1)
		fcntl(s, F_SETFD, FD_CLOEXEC);
	return s;
}

/* On some systems, the socket is non-blocking where the listening one is. */
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

/* Of SOCK_STREAM, there is nothing else on most systems. */
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
	if (is_there(socket, POLLIN))
		return recv(socket, buffer, size, 0);
	errno = EAGAIN;
	return -1;
}

ssize_t
system_peek(int socket, void *buffer, size_t size)
{
	if (is_there(socket, POLLIN))
		return recv(socket, buffer, size, MSG_PEEK);
	errno = EAGAIN;
	return -1;
}

ssize_t
system_send_now(int socket, const void *bytes, size_t length)
{
	if (is_there(socket, POLLOUT))
		return send(socket, bytes, length, MSG_NOSIGNAL);
	errno = EAGAIN;
	return -1;
}

void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	(void)socket, (void)idle_s, (void)interval_s, (void)probes, (void)unsent_max;
}

bool
system_has_unread(int socket)
{
	return is_there(socket, POLLIN);
}

int
system_untaken(int socket)
{
	return !is_there(socket, POLLOUT);
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

/* --- Directories: all threads have one working directory, and stay in it --- */

const char system_long_path[] =
    "tls-socket (by its path, because threads share one working directory)";

/* Nobody goes back there, and to open it would take the right to read it. What is written to a socket
 * that is not connected goes nowhere. */
int
system_open_directory(void)
{
	return system_socket(AF_UNIX);
}

bool
system_can_enter(void)
{
	errno = ENOSYS;
	return false;
}

int
system_enter(int home, const char *name)
{
	(void)home, (void)name;
	errno = ENOSYS;
	return -1;
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
	(void)place, (void)home;
	return true;
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
	(void)name;
}

void
system_tick(struct timespec *tick)
{
	clock_gettime(CLOCK_MONOTONIC, tick);
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
	return 0;
}

uint64_t
system_memory(void)
{
	return 0;
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

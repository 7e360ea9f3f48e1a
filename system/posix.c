/* Any system with POSIX.1-2008 and XSI. The proxy uses nothing beyond that, except in the files of
 * other systems. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* --- Sockets --- */

/* Makes SOCKET, which may be -1, non-blocking and closed by exec(3). Returns it. */
static int
prepare(int socket)
{
	if (socket != -1) {
		fcntl(socket, F_SETFD, FD_CLOEXEC);
		fcntl(socket, F_SETFL, O_NONBLOCK);
	}
	return socket;
}

int
system_socket(int domain)
{
	return prepare(socket(domain, SOCK_STREAM, 0));
}

int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	return prepare(accept(listener, peer, size));
}

/* On most systems, TCP is the only protocol of SOCK_STREAM. */
bool
system_is_tcp(int socket)
{
	int type;
	socklen_t size = sizeof type;
	return getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

bool
system_accept_heeds_timeout(int listener)
{
	(void)listener;
	return false;
}

void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	(void)socket, (void)idle_s, (void)interval_s, (void)probes, (void)unsent_max;
}

bool
system_has_unread(int socket)
{
	struct pollfd entry = {.fd = socket, .events = POLLIN};
	return poll(&entry, 1, 0) == 1;
}

int
system_unsent(int socket)
{
	struct pollfd entry = {.fd = socket, .events = POLLOUT};
	return poll(&entry, 1, 0) == 0;
}

int
system_unacknowledged(int socket)
{
	return system_unsent(socket);
}

/* --- Bytes that are not copied --- */

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

/* Returns an unconnected socket instead: opening the directory would need the right to read it, and
 * no function uses the descriptor. Writing to that socket fails. */
int
system_open_hosts(void)
{
	return system_socket(AF_UNIX);
}

int
system_stat_hosts(int hosts, struct stat *status)
{
	(void)hosts;
	return stat(".", status);
}

int
system_open_host(int hosts, const char *name, char prefix[256])
{
	char path[256 + 1];
	struct stat status;
	(void)hosts;
	snprintf(prefix, 256, "%s/", name);
	snprintf(path, sizeof path, "%s.", prefix);
	return stat(path, &status) == 0 ? AT_FDCWD : -1;
}

/* No known system needs a NUL at the end of the path. */
int
system_connect(int hosts, int directory, const char *path, int socket, const char **failed)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	(void)hosts, (void)directory;
	if (length > sizeof address.sun_path) {
		*failed = system_long_path;
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, length);
	return connect(socket, (const struct sockaddr *)&address, sizeof address);
}

/* --- Whose a host is --- */

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
system_schedule_batch(void)
{
}

void
system_release_stack(size_t size)
{
	(void)size;
}

/* --- The machine --- */

uint64_t
system_memory(void)
{
	return UINT64_MAX;
}

uint64_t
system_threads(void)
{
	return UINT64_MAX;
}

uint64_t
system_open_files(void)
{
	return UINT64_MAX;
}

void
system_share_memory(void)
{
}

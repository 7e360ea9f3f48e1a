/* macOS 13, from its headers and manuals: pthread_fchdir_np(3), getsockopt(2), tcp(4), sysctl(3).
 * Older versions have no O_SEARCH. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/sysctl.h>
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
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPALIVE, &idle_s, sizeof idle_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
	setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof unsent_max);
}

static bool
has_room(int socket)
{
	struct pollfd entry = {.fd = socket, .events = POLLOUT};
	return poll(&entry, 1, 0) != 0;
}

bool
system_has_unread(int socket)
{
	struct pollfd entry = {.fd = socket, .events = POLLIN};
	return poll(&entry, 1, 0) == 1;
}

/* The system does not tell how many unacknowledged bytes are unsent. If there is no room for more,
 * all count as unsent, otherwise none. Bytes for a Unix socket are counted at the other end. */
int
system_unsent(int socket)
{
	int bytes = system_unacknowledged(socket);
	if (has_room(socket))
		return 0;
	return bytes > 0 ? bytes : 1;
}

int
system_unacknowledged(int socket)
{
	int bytes = 0;
	socklen_t size = sizeof bytes;
	getsockopt(socket, SOL_SOCKET, SO_NWRITE, &bytes, &size);
	return bytes;
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

/* --- Directories: a thread may have a working directory of its own --- */

/* The C library has this function, but no installed header declares it. */
int pthread_fchdir_np(int directory);

const char system_long_path[] = "tls-socket";

int
system_open_hosts(void)
{
	return open(".", O_SEARCH | O_DIRECTORY | O_CLOEXEC);
}

int
system_stat_hosts(int hosts, struct stat *status)
{
	return fstat(hosts, status);
}

int
system_open_host(int hosts, const char *name, char prefix[256])
{
	prefix[0] = '\0';
	return openat(hosts, name, O_SEARCH | O_DIRECTORY | O_CLOEXEC);
}

/* The path is short, since it begins in the host directory. Changes back, because otherwise the
 * directory could not be unmounted. */
int
system_connect(int hosts, int directory, const char *path, int socket, const char **failed)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	(void)failed;
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (pthread_fchdir_np(directory) != 0)
		return -1;
	int result = connect(socket, (const struct sockaddr *)&address, sizeof address);
	int error = errno;
	(void)pthread_fchdir_np(hosts);
	errno = error;
	return result;
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
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_MAX;
}

uint64_t
system_threads(void)
{
	return UINT64_MAX;
}

/* poll(2) takes OPEN_MAX entries at most, and poll.c has one for each descriptor. */
uint64_t
system_open_files(void)
{
	int files = 0;
	size_t size = sizeof files;
	bool is_known = sysctlbyname("kern.maxfilesperproc", &files, &size, NULL, 0) == 0;
	return is_known && files > 0 && files < OPEN_MAX ? (uint64_t)files : OPEN_MAX;
}

void
system_share_memory(void)
{
}

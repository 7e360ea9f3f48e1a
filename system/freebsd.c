/* FreeBSD 13, from its headers and manuals: connectat(2), accept4(2), getsockopt(2), tcp(4). Older
 * versions have no O_SEARCH. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

/* --- Sockets --- */

int
system_socket(int domain)
{
	return socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	return accept4(listener, peer, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
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
system_accept_heeds_timeout(int listener)
{
	(void)listener;
	return false;
}

/* There is no option for UNSENT_MAX. */
void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	(void)unsent_max;
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
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
	ioctl(socket, FIONWRITE, &bytes);
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

/* --- Directories --- */

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

/* The path is short, since it begins in the host directory. */
int
system_connect(int hosts, int directory, const char *path, int socket, const char **failed)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	(void)hosts, (void)failed;
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	return connectat(directory, socket, (const struct sockaddr *)&address, sizeof address);
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
	return UINT64_MAX; /* RLIMIT_NPROC is for processes here */
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

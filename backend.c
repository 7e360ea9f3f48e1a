#include "backend.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME "tls-socket"
#define PROXY_FLAG_NAME "send-proxy-v1"

/* How often descriptors or memory are asked for again where they are short. */
enum { SHORTAGE_RETRY_MS = 50 };

struct backend_hosts
backend_hosts(int directory)
{
	return (struct backend_hosts){directory, unshare(CLONE_FS) == 0};
}

static struct backend
failure(const char *failed, int error)
{
	return (struct backend){.socket = -1, .failed = failed, .error = error};
}

static bool
is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static int
open_socket(int64_t deadline_ms)
{
	for (;;) {
		int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (s != -1 || !is_shortage(errno) || clock_left_ms(deadline_ms) == 0)
			return s;
		poll(NULL, 0, SHORTAGE_RETRY_MS);
	}
}

/* Waits for room in the backlog of the listening socket. Only a blocking connect(2) can,
 * and it waits for ever unless a send timeout is set. */
static int
connect_blocking(int s, const struct sockaddr_un *address, int64_t deadline_ms)
{
	int result = -1;
	if (fcntl(s, F_SETFL, 0) == -1)
		return -1;
	do {
		int left_ms = clock_left_ms(deadline_ms);
		struct timeval left = {left_ms / 1000, left_ms % 1000 * 1000L};
		errno = EAGAIN;
		if (left_ms == 0 ||
		    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof left) == -1)
			break;
		result = connect(s, (const struct sockaddr *)address, sizeof *address);
	} while (result == -1 && errno == EINTR);
	if (result == 0)
		result = fcntl(s, F_SETFL, O_NONBLOCK);
	return result;
}

/* Connects to the socket at PATH; returns it, or -1 with errno set. */
static int
connect_to(const char *path, int64_t deadline_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	if (length > sizeof address.sun_path) { /* Linux needs no NUL at the end of it */
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, length);

	int s = open_socket(deadline_ms);
	if (s == -1)
		return -1;
	int result = connect(s, (const struct sockaddr *)&address, sizeof address);
	if (result == -1 && errno == EAGAIN)
		result = connect_blocking(s, &address, deadline_ms);
	if (result == -1) {
		int error = errno;
		close(s);
		errno = error;
		return -1;
	}
	return s;
}

/* Connects in the host directory that PREFIX leads to from the working directory: "" or
 * "NAME/". */
static struct backend
connect_in(const char *prefix, int64_t deadline_ms)
{
	char path[NAME_MAX + 1 + sizeof PROXY_FLAG_NAME];
	struct stat flag;
	snprintf(path, sizeof path, "%s" PROXY_FLAG_NAME, prefix);
	bool send_proxy_v1 = lstat(path, &flag) == 0;
	if (!send_proxy_v1 && errno != ENOENT && errno != ENOTDIR && errno != EACCES)
		return failure(
		    PROXY_FLAG_NAME, errno); /* those will be the socket's too */

	snprintf(path, sizeof path, "%s" SOCKET_NAME, prefix);
	int s = connect_to(path, deadline_ms);
	if (s == -1)
		return failure(SOCKET_NAME, errno);
	return (struct backend){.socket = s, .send_proxy_v1 = send_proxy_v1};
}

static struct backend
connect_by_path(const char *name, int64_t deadline_ms)
{
	char prefix[NAME_MAX + 2];
	snprintf(prefix, sizeof prefix, "%s/", name);
	struct backend backend = connect_in(prefix, deadline_ms);
	if (backend.socket == -1 && backend.error == ENAMETOOLONG)
		backend.failed =
		    SOCKET_NAME " (by its path, because unshare(2) is refused)";
	return backend;
}

/* A path in sun_path is too short for long names, and Linux has no connectat(2). So the
 * thread goes into the host directory, and does not stay: that would keep it from being
 * unmounted. */
struct backend
backend_connect(const struct backend_hosts *hosts, const char *name, int64_t deadline_ms)
{
	if (!hosts->own_working_directory)
		return connect_by_path(name, deadline_ms);
	if (fchdir(hosts->directory) == -1)
		return failure("hosts directory", errno);
	if (chdir(name) == -1)
		return failure("host directory", errno);
	struct backend backend = connect_in("", deadline_ms);
	(void)!fchdir(hosts->directory);
	return backend;
}

size_t
backend_proxy_header(char header[BACKEND_PROXY_HEADER_SIZE], const union address *client,
    const union address *server)
{
	char source[ADDRESS_TEXT_SIZE], destination[ADDRESS_TEXT_SIZE];
	address_text(source, client);
	address_text(destination, server);
	int length =
	    snprintf(header, BACKEND_PROXY_HEADER_SIZE, "PROXY %s %s %s %u %u\r\n",
		client->any.sa_family == AF_INET ? "TCP4" : "TCP6", source, destination,
		(unsigned)address_port(client), (unsigned)address_port(server));
	return (size_t)length;
}

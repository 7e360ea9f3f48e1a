#include "backend.h"

#include "owner.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME "tls-socket"
#define PROXY_FLAG_NAME "send-proxy-v1"

/* Whether any thread has a working directory of its own, and so moves about. One that has
 * none shares that of the thread that started it. */
static atomic_bool threads_move;

struct backend_hosts
backend_hosts(int directory)
{
	bool own = system_can_enter();
	if (own)
		atomic_store(&threads_move, true);
	/* Until then it was where the thread that started it happened to be. */
	bool at_home = own && system_leave(AT_FDCWD, directory);
	return (struct backend_hosts){directory, own, at_home};
}

static struct backend
failure(const char *failed, int error)
{
	return (struct backend){.socket = -1, .failed = failed, .error = error};
}

bool
backend_is_short(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

bool
backend_is_absent(int error)
{
	switch (error) {
	case EACCES:
	case ECONNREFUSED:
	case ELOOP:
	case ENOENT:
	case ENOTDIR:
	case EPERM:
	case EPROTOTYPE:
		return true;
	default:
		return false;
	}
}

/* Connects to the socket at PATH, which begins at PLACE; returns it, or -1 with errno set. */
static int
connect_to(int place, const char *path, int timeout_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	if (length > sizeof address.sun_path) { /* Linux needs no NUL at the end of it */
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, length);

	int s = system_socket(AF_UNIX);
	if (s == -1)
		return -1;
	/* Zero is for ever there. */
	struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000 + 1};
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	if (system_connect(place, s, (const struct sockaddr *)&address, sizeof address) ==
	    -1) {
		int error = errno;
		close(s);
		errno = error;
		return -1;
	}
	return s;
}

/* Connects in the host directory that PREFIX leads to from PLACE: "", "NAME/", or that of a
 * descriptor. */
static struct backend
connect_in(int place, const char *prefix, int timeout_ms)
{
	char path[NAME_MAX + 1 + sizeof PROXY_FLAG_NAME];
	struct stat flag;
	snprintf(path, sizeof path, "%s" PROXY_FLAG_NAME, prefix);
	int flag_error =
	    fstatat(place, path, &flag, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
	/* ENOTDIR and EACCES will be the socket's too. */
	if (flag_error != 0 && flag_error != ENOENT && flag_error != ENOTDIR &&
	    flag_error != EACCES)
		return failure(PROXY_FLAG_NAME, flag_error);

	snprintf(path, sizeof path, "%s" SOCKET_NAME, prefix);
	int s = connect_to(place, path, timeout_ms);
	if (s == -1)
		return failure(SOCKET_NAME, errno);
	if (flag_error == ENOTDIR || flag_error == EACCES) {
		/* Not any more; but whether there is a flag is not known. */
		close(s);
		return failure(PROXY_FLAG_NAME, flag_error);
	}
	return (struct backend){.socket = s, .send_proxy_v1 = flag_error == 0};
}

static struct backend
connect_by_path(const char *name, int timeout_ms)
{
	char prefix[NAME_MAX + sizeof "/."];
	snprintf(prefix, sizeof prefix, "%s/", name);
	struct backend backend = connect_in(AT_FDCWD, prefix, timeout_ms);
	if (backend.socket != -1)
		return backend;
	if (backend.error == ENAMETOOLONG)
		backend.failed = system_long_path;
	/* As to go there would say; a path does not tell what it fails at. */
	struct stat directory;
	snprintf(prefix, sizeof prefix, "%s/.", name);
	if (stat(prefix, &directory) == -1)
		return failure("host directory", errno);
	return backend;
}

/* Connects in the host directory at the descriptor DIRECTORY, which it closes, without going there. */
static struct backend
connect_by_descriptor(int directory, int timeout_ms)
{
	char prefix[NAME_MAX];
	snprintf(prefix, sizeof prefix, "%s/%d/", system_descriptors, directory);
	struct backend backend = connect_in(AT_FDCWD, prefix, timeout_ms);
	if (backend.error == ENOENT && access(system_descriptors, X_OK) == -1)
		backend.failed = system_no_descriptors;
	close(directory);
	return backend;
}

/* Connects at PLACE, a host directory, and comes back: to stay would keep it from being unmounted. */
static struct backend
connect_there(struct backend_hosts *hosts, int place, int timeout_ms)
{
	if (place == -1)
		return failure("host directory", errno);
	struct backend backend = connect_in(place, "", timeout_ms);
	hosts->at_home = system_leave(place, hosts->directory);
	return backend;
}

/* FAILED has failed with errno, or HOST is refused. */
static struct backend
refusal(const char *failed, const struct owner_host *host)
{
	struct backend backend = failure(failed, errno);
	memcpy(backend.why, host->why, sizeof backend.why);
	return backend;
}

/* Connects where others than its owner may write to the hosts directory, which has the STATUS: to
 * what belongs to whoever made the host, or to root. The thread MOVES, or cannot. */
static struct backend
connect_if_owned(struct backend_hosts *hosts, const struct stat *status, const char *name,
    bool moves, int timeout_ms)
{
	struct owner_host host;
	int directory = owner_open_host(hosts->directory, status, name, &host);
	if (directory == -1)
		return refusal("host directory", &host);
	struct backend backend = moves
	    ? connect_there(hosts, system_enter_opened(directory), timeout_ms)
	    : connect_by_descriptor(directory, timeout_ms);
	if (backend.socket == -1 || owner_listens(backend.socket, &host))
		return backend;
	close(backend.socket);
	return refusal(SOCKET_NAME, &host);
}

/* Whether the thread may leave the hosts directory; then it is there. A path would lead from
 * wherever another thread is, so where others move, this one waits for a directory of its own; to
 * ask again for what it has costs nothing. Says in FAILED, with errno, what went wrong, if anything
 * did. */
static bool
can_move(struct backend_hosts *hosts, const char **failed)
{
	if (!hosts->own_working_directory && !atomic_load(&threads_move))
		return false;
	if (!hosts->own_working_directory && !system_can_enter())
		*failed = "unshare";
	else if (!hosts->at_home && !system_leave(AT_FDCWD, hosts->directory))
		*failed = "hosts directory";
	else
		hosts->at_home = true;
	return true;
}

/* A path in sun_path is too short for long names, and Linux has no connectat(2). So the
 * thread goes into the host directory. */
struct backend
backend_connect(struct backend_hosts *hosts, const char *name, int timeout_ms)
{
	const char *failed = NULL;
	struct stat status;
	bool moves = can_move(hosts, &failed);
	/* The hosts directory is the working directory, however that is so. Its mode may have changed. */
	if (failed == NULL && stat(".", &status) == -1)
		failed = "hosts directory";
	if (failed != NULL)
		return failure(failed, errno);
	if (owner_is_shared(&status))
		return connect_if_owned(hosts, &status, name, moves, timeout_ms);
	if (!moves)
		return connect_by_path(name, timeout_ms);
	return connect_there(hosts, system_enter(hosts->directory, name), timeout_ms);
}

const char *
backend_why(const struct backend *backend)
{
	if (backend->why[0] != '\0')
		return backend->why;
	return backend->error == EAGAIN ? "did not accept in time"
					: strerror(backend->error);
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

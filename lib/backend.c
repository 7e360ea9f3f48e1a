#include "lib/backend.h"

#include "lib/hostname.h"
#include "lib/owner.h"
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOCKET_NAME "tls-socket"
#define PROXY_FLAG_NAME "send-proxy-v1"

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
	return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES ||
	    error == EPERM || error == ECONNREFUSED || error == EPROTOTYPE || error == ENOTSOCK;
}

/* Returns the failure of FAILED: errno, and what HOST says. */
static struct backend
refusal(const char *failed, const struct owner_host *host)
{
	struct backend backend = failure(failed, errno);
	memcpy(backend.why, host->why, sizeof backend.why);
	return backend;
}

/* Connects to the backend in the host directory at PREFIX, relative to DIRECTORY. */
static struct backend
connect_in(int hosts, int directory, const char *prefix)
{
	char path[NAME_MAX + 1 + sizeof PROXY_FLAG_NAME];
	struct stat flag;
	snprintf(path, sizeof path, "%s" PROXY_FLAG_NAME, prefix);
	int flag_error = fstatat(directory, path, &flag, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
	if (flag_error == EACCES) /* the directory may not be searched */
		return failure("host directory", flag_error);
	if (flag_error != 0 && flag_error != ENOENT)
		return failure(PROXY_FLAG_NAME, flag_error);

	int s = system_socket(AF_UNIX);
	if (s == -1)
		return failure(SOCKET_NAME, errno);
	snprintf(path, sizeof path, "%s" SOCKET_NAME, prefix);
	const char *failed = SOCKET_NAME;
	if (system_connect(hosts, directory, path, s, &failed) == 0)
		return (struct backend){.socket = s, .send_proxy_v1 = flag_error == 0};
	int error = errno;
	if (error == ECONNREFUSED && fstatat(directory, path, &flag, 0) == 0 &&
	    !S_ISSOCK(flag.st_mode))
		error = ENOTSOCK;
	close(s);
	return failure(failed, error);
}

struct backend
backend_connect(int hosts, const char *name)
{
	struct stat status;
	struct owner_host owner = {0};
	char prefix[HOSTNAME_SIZE + 1] = "";
	int error = system_stat_hosts(hosts, &status) == -1 ? errno : 0;
	if (error != 0 || status.st_nlink == 0) /* it was removed */
		return failure("hosts directory", error != 0 ? error : ENOENT);
	bool is_shared = owner_is_shared(&status);
	int directory = is_shared ? owner_open_host(hosts, &status, name, &owner)
				  : system_open_host(hosts, name, prefix);
	if (directory == -1)
		return refusal("host directory", &owner);
	struct backend backend = connect_in(hosts, directory, prefix);
	if (directory != AT_FDCWD)
		close(directory);
	if (backend.socket == -1 || !is_shared || owner_listens(backend.socket, &owner))
		return backend;
	int s = backend.socket;
	backend = refusal(SOCKET_NAME, &owner);
	close(s);
	return backend;
}

const char *
backend_why(const struct backend *backend)
{
	if (backend->why[0] != '\0')
		return backend->why;
	return backend->error == EAGAIN ? "did not accept in time" : strerror(backend->error);
}

size_t
backend_proxy_header(char header[BACKEND_PROXY_HEADER_SIZE], const union address *client,
    const union address *server)
{
	char source[ADDRESS_TEXT_SIZE], destination[ADDRESS_TEXT_SIZE];
	address_text(source, client);
	address_text(destination, server);
	int length = snprintf(header, BACKEND_PROXY_HEADER_SIZE, "PROXY %s %s %s %u %u\r\n",
	    client->any.sa_family == AF_INET ? "TCP4" : "TCP6", source, destination,
	    (unsigned)address_port(client), (unsigned)address_port(server));
	return (size_t)length;
}

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

static const char socket_name[] = "tls-socket";
static const char acme_socket_name[] = "acme-tls-socket";

/* The files that ask for a PROXY header: that of version 1 first. The last one wins. */
static const char *const flag_names[] = {"send-proxy-v1", "send-proxy-v2"};
enum { FLAGS = sizeof flag_names / sizeof *flag_names };

/* Size of the path of one of these files, relative to a host directory or to the hosts
 * directory. */
enum { PATH_SIZE = NAME_MAX + 1 + sizeof acme_socket_name };

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

/* Connects to the socket NAME in the host directory at PREFIX, relative to DIRECTORY. */
static struct backend
connect_to(int hosts, int directory, const char *prefix, const char *name)
{
	char path[PATH_SIZE];
	struct stat found;
	int s = system_socket(AF_UNIX);
	if (s == -1)
		return failure(name, errno);
	snprintf(path, sizeof path, "%s%s", prefix, name);
	const char *failed = name;
	if (system_connect(hosts, directory, path, s, &failed) == 0)
		return (struct backend){.socket = s, .failed = name};
	int error = errno;
	if (error == ECONNREFUSED && fstatat(directory, path, &found, 0) == 0 &&
	    !S_ISSOCK(found.st_mode))
		error = ENOTSOCK;
	close(s);
	struct backend backend = failure(failed, error);
	backend.is_down = failed == name && (error == ENOENT || error == ECONNREFUSED);
	return backend;
}

/* Connects to the backend in the host directory at PREFIX, relative to DIRECTORY. */
static struct backend
connect_in(int hosts, int directory, const char *prefix, bool is_acme)
{
	char path[PATH_SIZE];
	struct stat flag;
	unsigned version = FLAGS;
	for (; version > 0; version--) {
		snprintf(path, sizeof path, "%s%s", prefix, flag_names[version - 1]);
		if (fstatat(directory, path, &flag, AT_SYMLINK_NOFOLLOW) == 0)
			break;
		if (errno == EACCES) /* the directory may not be searched */
			return failure("host directory", errno);
		if (errno != ENOENT)
			return failure(flag_names[version - 1], errno);
	}
	if (is_acme) {
		struct backend acme = connect_to(hosts, directory, prefix, acme_socket_name);
		acme.is_acme = true;
		if (acme.error != ENOENT && acme.error != ENAMETOOLONG)
			return acme;
	}
	struct backend backend = connect_to(hosts, directory, prefix, socket_name);
	backend.proxy_version = version;
	return backend;
}

struct backend
backend_connect(int hosts, const char *name, unsigned kind)
{
	struct stat status;
	struct owner_host owner = {.is_special = (kind & BACKEND_SPECIAL) != 0};
	char prefix[HOSTNAME_SIZE + 1] = "";
	int error = system_stat_hosts(hosts, &status) == -1 ? errno : 0;
	if (error != 0 || status.st_nlink == 0) /* it was removed */
		return failure("hosts directory", error != 0 ? error : ENOENT);
	bool is_shared = owner_is_shared(&status);
	int directory = is_shared ? owner_open_host(hosts, &status, name, &owner)
				  : system_open_host(hosts, name, prefix);
	struct backend backend;
	if (directory == -1) {
		backend = refusal("host directory", &owner);
		backend.is_missing = backend.error == ENOENT;
		return backend;
	}
	backend = connect_in(hosts, directory, prefix, (kind & BACKEND_ACME) != 0);
	if (directory != AT_FDCWD)
		close(directory);
	if (backend.socket == -1 || !is_shared || owner_listens(backend.socket, &owner))
		return backend;
	int s = backend.socket;
	backend = refusal(backend.failed, &owner);
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

#include "tests/machines/macos/stubs.h"

#undef getsockopt

#include "tests/machines/macos/sys/sysctl.h"
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

int pthread_fchdir_np(int directory);

/* A thread may ask again for a working directory of its own. */
int
pthread_fchdir_np(int directory)
{
	return unshare(CLONE_FS) == 0 ? fchdir(directory) : -1;
}

int
macos_getsockopt(int socket, int level, int name, void *value, socklen_t *size)
{
	if (level == SOL_SOCKET && name == SO_NWRITE)
		return ioctl(socket, TIOCOUTQ, value);
	if (level == SOL_SOCKET && name == SO_ACCEPTCONN) {
		errno = ENOPROTOOPT;
		return -1;
	}
	return getsockopt(socket, level, name, value, size);
}

int
sysctlbyname(const char *name, void *value, size_t *size, void *to_set, size_t set_size)
{
	struct rlimit files;
	if (strcmp(name, "kern.maxfilesperproc") != 0 || *size != sizeof(int) || to_set != NULL ||
	    set_size != 0 || getrlimit(RLIMIT_NOFILE, &files) == -1) {
		errno = EINVAL;
		return -1;
	}
	int most = files.rlim_max < 1000000 ? (int)files.rlim_max : 1000000;
	memcpy(value, &most, sizeof most);
	return 0;
}

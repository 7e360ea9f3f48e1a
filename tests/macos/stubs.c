#include "stubs.h"

#undef getsockopt
#undef pthread_setname_np

#include "sys/sysctl.h"
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int pthread_chdir_np(const char *path);
int pthread_fchdir_np(int directory);

/* To ask again for a working directory of its own costs a thread nothing. */
int
pthread_chdir_np(const char *path)
{
	return unshare(CLONE_FS) == 0 ? chdir(path) : -1;
}

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
macos_setname(const char *name)
{
	return prctl(PR_SET_NAME, name);
}

int
pthread_cond_timedwait_relative_np(
    pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *left)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	long ns = until.tv_nsec + left->tv_nsec;
	until.tv_sec += left->tv_sec + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	return pthread_cond_timedwait(condition, mutex, &until);
}

int
sysctlbyname(const char *name, void *value, size_t *size, void *to_set, size_t set_size)
{
	struct rlimit files;
	if (strcmp(name, "kern.maxfilesperproc") != 0 || *size != sizeof(int) ||
	    to_set != NULL || set_size != 0 || getrlimit(RLIMIT_NOFILE, &files) == -1) {
		errno = EINVAL;
		return -1;
	}
	int most = files.rlim_max < 1000000 ? (int)files.rlim_max : 1000000;
	memcpy(value, &most, sizeof most);
	return 0;
}

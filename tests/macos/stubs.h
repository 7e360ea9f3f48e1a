/* What macOS has in headers that Linux has, too, for a build of system_macos.c on Linux; made of what is
 * alike here. */
#ifndef MACOS_STUBS_H
#define MACOS_STUBS_H

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#define O_SEARCH O_PATH
#define TCP_KEEPALIVE TCP_KEEPIDLE
#define CLOCK_MONOTONIC_RAW_APPROX CLOCK_MONOTONIC_COARSE

enum { SO_NWRITE = 0x1024 };

/* With that option, and without SO_ACCEPTCONN. */
int macos_getsockopt(int socket, int level, int name, void *value, socklen_t *size);
#define getsockopt macos_getsockopt

/* For the calling thread. */
int macos_setname(const char *name);
#define pthread_setname_np macos_setname

int pthread_cond_timedwait_relative_np(
    pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *left);

#endif

/* What FreeBSD has in headers that Linux has, too, for a build of system_freebsd.c on Linux; made of what
 * is alike here. */
#ifndef FREEBSD_STUBS_H
#define FREEBSD_STUBS_H

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#define O_SEARCH O_PATH
#define FIONWRITE TIOCOUTQ
#define CLOCK_MONOTONIC_FAST CLOCK_MONOTONIC_COARSE

enum { SO_LISTENQLIMIT = 0x1011, SO_LISTENQLEN = 0x1012 };

int connectat(int directory, int socket, const struct sockaddr *address, socklen_t size);

/* With those two options. */
int freebsd_getsockopt(int socket, int level, int name, void *value, socklen_t *size);
#define getsockopt freebsd_getsockopt

#endif

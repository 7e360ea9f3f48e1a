/* What FreeBSD declares in headers that Linux has too, for a build of system/freebsd.c on Linux,
 * made of what is similar here. */
#ifndef FREEBSD_STUBS_H
#define FREEBSD_STUBS_H

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define O_SEARCH O_PATH
#define FIONWRITE TIOCOUTQ

int connectat(int directory, int socket, const struct sockaddr *address, socklen_t size);

#endif

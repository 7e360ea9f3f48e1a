/* What macOS declares in headers that Linux has too, for a build of system/macos.c on Linux, made
 * of what is similar here. */
#ifndef MACOS_STUBS_H
#define MACOS_STUBS_H

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define O_SEARCH O_PATH
#define OPEN_MAX 10240
#define TCP_KEEPALIVE TCP_KEEPIDLE

enum { SO_NWRITE = 0x1024 };

/* With that option, and without SO_ACCEPTCONN. */
int macos_getsockopt(int socket, int level, int name, void *value, socklen_t *size);
#define getsockopt macos_getsockopt

#endif

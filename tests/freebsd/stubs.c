#include "stubs.h"

#undef getsockopt

#include "pthread_np.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/un.h>

/* Linux has a path to each directory that is open. */
int
connectat(int directory, int socket, const struct sockaddr *address, socklen_t size)
{
	const struct sockaddr_un *relative = (const struct sockaddr_un *)address;
	struct sockaddr_un absolute = {.sun_family = AF_UNIX};
	if (directory == AT_FDCWD)
		return connect(socket, address, size);
	snprintf(absolute.sun_path, sizeof absolute.sun_path, "/proc/self/fd/%d/%.64s",
	    directory, relative->sun_path);
	return connect(socket, (const struct sockaddr *)&absolute, sizeof absolute);
}

int
freebsd_getsockopt(int socket, int level, int name, void *value, socklen_t *size)
{
	struct tcp_info info;
	socklen_t info_size = sizeof info;
	if (level != SOL_SOCKET || (name != SO_LISTENQLIMIT && name != SO_LISTENQLEN))
		return getsockopt(socket, level, name, value, size);
	if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &info_size) == -1)
		return -1;
	*(int *)value =
	    (int)(name == SO_LISTENQLEN ? info.tcpi_unacked : info.tcpi_sacked);
	return 0;
}

void
pthread_set_name_np(pthread_t thread, const char *name)
{
	pthread_setname_np(thread, name);
}

#include "tests/machines/freebsd/stubs.h"

#include <stdio.h>
#include <sys/un.h>

/* Linux has a path to each open directory. */
int
connectat(int directory, int socket, const struct sockaddr *address, socklen_t size)
{
	const struct sockaddr_un *relative = (const struct sockaddr_un *)address;
	struct sockaddr_un absolute = {.sun_family = AF_UNIX};
	if (directory == AT_FDCWD)
		return connect(socket, address, size);
	snprintf(absolute.sun_path, sizeof absolute.sun_path, "/proc/self/fd/%d/%.64s", directory,
	    relative->sun_path);
	return connect(socket, (const struct sockaddr *)&absolute, sizeof absolute);
}

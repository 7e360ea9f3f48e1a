#include "lib/listener.h"

#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	LISTENER = STDIN_FILENO,

	/* Inherited descriptors are closed below this. */
	INHERITED_MAX = 1024,

	/* How long accept(2) waits for one more connection. */
	MOMENT_MS = 10,

	/* A client that has vanished is noticed after about four minutes (tcp(7)). */
	KEEPALIVE_IDLE_S = 120,
	KEEPALIVE_INTERVAL_S = 30,
	KEEPALIVE_PROBES = 4,

	/* Maximum number of unsent bytes that the kernel holds for a client. More would cost memory
	 * for each stalled download; fewer would cost processor time. */
	UNSENT_MAX = 1024 * 1024,
};

/* Returns an option's value, or -1 with errno set. */
static int
option(int socket, int level, int name)
{
	int value;
	socklen_t size = sizeof value;
	return getsockopt(socket, level, name, &value, &size) == 0 ? value : -1;
}

/* Some systems do not tell whether a socket listens. There, accept(2) fails if it does not. */
const char *
listener_check(void)
{
	union address address = {.any.sa_family = AF_UNSPEC};
	socklen_t size = sizeof address;
	if (getsockname(LISTENER, &address.any, &size) == -1)
		return errno == EBADF ? "is closed" : "is not a socket";
	if ((address.any.sa_family != AF_INET && address.any.sa_family != AF_INET6) ||
	    !system_is_tcp(LISTENER))
		return "is not a TCP socket";
	bool listens = getpeername(LISTENER, &address.any, &size) == -1 &&
	    option(LISTENER, SOL_SOCKET, SO_ACCEPTCONN) != 0;
	return listens ? NULL : "is not listening";
}

/* Compares the addresses, because on some systems all sockets have the same inode number. */
bool
listener_is(int descriptor)
{
	union address listener, other;
	socklen_t listener_size = sizeof listener, other_size = sizeof other;
	memset(&listener, 0, sizeof listener);
	memset(&other, 0, sizeof other);
	return getsockname(LISTENER, &listener.any, &listener_size) == 0 &&
	    getsockname(descriptor, &other.any, &other_size) == 0 &&
	    memcmp((const char *)&listener, (const char *)&other, sizeof listener) == 0;
}

/* Sets the options that connections need: small writes are sent immediately, vanished clients are
 * noticed, urgent bytes are relayed like any other. Ignores options that the system rejects. */
static void
set_options(int descriptor)
{
	const int on = 1;
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(descriptor, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
	system_tune_tcp(
	    descriptor, KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES, UNSENT_MAX);
}

/* Another copy may accept the connection first, so accept(2) needs a timeout. It also lets the next
 * connection arrive meanwhile. If accept(2) ignores the timeout, O_NONBLOCK is set, which applies
 * to all processes that share the socket. */
bool
listener_prepare(void)
{
	const struct timeval moment = {.tv_usec = MOMENT_MS * 1000L};
	/* What is inherited besides the standard descriptors, or is the listening socket, too. */
	for (int descriptor = LISTENER + 1; descriptor < INHERITED_MAX; descriptor++)
		if (descriptor > STDERR_FILENO || listener_is(descriptor))
			close(descriptor);
	set_options(LISTENER);
	setsockopt(LISTENER, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment);
	int flags = fcntl(LISTENER, F_GETFL);
	return system_accept_heeds_timeout(LISTENER) ||
	    (flags != -1 && fcntl(LISTENER, F_SETFL, flags | O_NONBLOCK) != -1);
}

int
listener_accept(union address *peer)
{
	socklen_t size = sizeof *peer;
	int client = system_accept(LISTENER, &peer->any, &size);
	if (client == -1)
		return -1;
	/* A connection lacks the options if it was queued before the listening socket had them, or
	 * if the system does not pass them on. */
	if (option(client, IPPROTO_TCP, TCP_NODELAY) <= 0)
		set_options(client);
	address_unmap(peer);
	return client;
}

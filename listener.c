#include "listener.h"

#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	LISTENER = STDIN_FILENO,

	/* Whoever started the program may have left it descriptors below this. */
	INHERITED_MAX = 1024,

	/* A client that has vanished is noticed after about four minutes in which nothing
	 * was sent (tcp(7)). */
	KEEPALIVE_IDLE_S = 120,
	KEEPALIVE_INTERVAL_S = 30,
	KEEPALIVE_PROBES = 4,

	/* The queue is crowded where one in so many of its places is taken, and more than a
	 * browser opens at once. */
	CROWD = 4,
	CROWD_MIN = 16,

	/* How many bytes the kernel takes for a client beyond what it has sent. */
	UNSENT_MAX = 512 * 1024,
};

/* Which of the descriptors are the listening socket. */
static bool is_listener[INHERITED_MAX];

/* Connections that were made before the options were set, and are still to be
 * accepted. */
static int older;

static int
option(int level, int name, int *value)
{
	socklen_t size = sizeof *value;
	return getsockopt(LISTENER, level, name, value, &size);
}

const char *
listener_check(void)
{
	int domain, protocol, accepts;
	if (option(SOL_SOCKET, SO_DOMAIN, &domain) == -1)
		return errno == EBADF ? "is closed" : "is not a socket";
	if (option(SOL_SOCKET, SO_PROTOCOL, &protocol) == -1 ||
	    (domain != AF_INET && domain != AF_INET6) ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP))
		return "is not a TCP socket";
	if (option(SOL_SOCKET, SO_ACCEPTCONN, &accepts) == -1 || accepts == 0)
		return "is not listening";
	return NULL;
}

bool
listener_is(int descriptor)
{
	struct stat listener, other;
	return fstat(LISTENER, &listener) == 0 && fstat(descriptor, &other) == 0 &&
	    S_ISSOCK(listener.st_mode) && listener.st_dev == other.st_dev &&
	    listener.st_ino == other.st_ino;
}

/* Sets on DESCRIPTOR what connections need: small writes go out at once, a client that
 * has vanished is noticed, an urgent byte is passed on like any other. Where one of them
 * is refused, it works without. */
static void
set_options(int descriptor)
{
	const struct {
		int level, name, value;
	} options[] = {
	    {IPPROTO_TCP, TCP_NODELAY, 1},
	    {SOL_SOCKET, SO_KEEPALIVE, 1},
	    {SOL_SOCKET, SO_OOBINLINE, 1},
	    {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
	    {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
	    {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
	    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_MAX},
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(descriptor, options[i].level, options[i].name,
		    &options[i].value, sizeof options[i].value);
	relay_limit_receive(descriptor);
	relay_limit_send(descriptor);
}

/* Asks about the queue. For a listening socket, tcpi_unacked is its length, and tcpi_sacked
 * how long it may be. */
static bool
know_queue(struct tcp_info *info)
{
	socklen_t size = sizeof *info;
	return getsockopt(LISTENER, IPPROTO_TCP, TCP_INFO, info, &size) == 0 &&
	    info->tcpi_state == TCP_LISTEN;
}

int
listener_waiting(void)
{
	struct tcp_info info;
	return know_queue(&info) ? (int)info.tcpi_unacked : INT_MAX;
}

bool
listener_is_crowded(void)
{
	struct tcp_info info;
	return know_queue(&info) && info.tcpi_unacked > CROWD_MIN &&
	    info.tcpi_unacked > info.tcpi_sacked / CROWD;
}

int
listener_prepare(void)
{
	set_options(LISTENER);
	older = listener_waiting();
	/* Another copy may be faster; accept(2) must not wait for the next connection
	 * then. As the flag belongs to all who share the socket, and systemd clears it
	 * for each of them that it starts, RELAY_QUIET_MS bounds the wait too. */
	int flags = fcntl(LISTENER, F_GETFL);
	if (flags == -1 || fcntl(LISTENER, F_SETFL, flags | O_NONBLOCK) == -1)
		return errno;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		is_listener[descriptor] = listener_is(descriptor);
	return 0;
}

int
listener_accept(union address *peer)
{
	socklen_t size = sizeof *peer;
	int client = accept4(LISTENER, &peer->any, &size, SOCK_CLOEXEC);
	if (client == -1)
		return -1;
	if (older > 0) {
		older--;
		set_options(client);
	}
	address_unmap(peer);
	return client;
}

void
listener_give_up(int other)
{
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		if (is_listener[descriptor])
			dup2(other, descriptor);
}

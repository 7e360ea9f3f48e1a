#include "listener.h"

#include "relay.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
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

	/* The same where the system does not tell: that so many were accepted, and never was the
	 * queue empty. More than IN_A_ROW_MAX are not counted. */
	CROWD_IN_A_ROW = 64,
	IN_A_ROW_MAX = 256,

	/* How many bytes the kernel takes for a client beyond what it has sent. */
	UNSENT_MAX = 512 * 1024,
};

/* Which of the descriptors are the listening socket. */
static bool is_listener[INHERITED_MAX];

/* Connections that do not have the options from the listening socket: those that were made before
 * it had them, and are still to be accepted; or all. */
static unsigned older;

/* Others may have it; here it is given up. */
static atomic_bool is_given_up;

/* How many were accepted since the queue was last seen empty. */
static atomic_int in_a_row;

static int
option(int level, int name, int *value)
{
	socklen_t size = sizeof *value;
	return getsockopt(LISTENER, level, name, value, &size);
}

/* Some systems do not tell of a TCP socket whether it listens. One that is not connected is taken to
 * do so there; where it does not, accept(2) says so. */
static bool
listens(void)
{
	int accepts;
	union address peer;
	socklen_t size = sizeof peer;
	if (option(SOL_SOCKET, SO_ACCEPTCONN, &accepts) == 0)
		return accepts != 0;
	return errno == ENOPROTOOPT && getpeername(LISTENER, &peer.any, &size) == -1;
}

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
	return listens() ? NULL : "is not listening";
}

static bool
have_one_name(int a, int b)
{
	union address a_name, b_name;
	socklen_t a_size = sizeof a_name, b_size = sizeof b_name;
	memset(&a_name, 0, sizeof a_name);
	memset(&b_name, 0, sizeof b_name);
	return getsockname(a, &a_name.any, &a_size) == 0 &&
	    getsockname(b, &b_name.any, &b_size) == 0 && a_size == b_size &&
	    memcmp((const char *)&a_name, (const char *)&b_name, sizeof a_name) == 0;
}

/* On some systems all sockets have the same number. */
bool
listener_is(int descriptor)
{
	struct stat listener, other;
	return fstat(LISTENER, &listener) == 0 && fstat(descriptor, &other) == 0 &&
	    S_ISSOCK(listener.st_mode) && S_ISSOCK(other.st_mode) &&
	    listener.st_dev == other.st_dev && listener.st_ino == other.st_ino &&
	    have_one_name(LISTENER, descriptor);
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
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(descriptor, options[i].level, options[i].name,
		    &options[i].value, sizeof options[i].value);
	system_tune_tcp(descriptor, KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S,
	    KEEPALIVE_PROBES, UNSENT_MAX);
	relay_limit_receive(descriptor);
	relay_limit_send(descriptor);
}

int
listener_waiting(void)
{
	unsigned waiting, places;
	struct pollfd listener = {.fd = LISTENER, .events = POLLIN};
	if (atomic_load(&is_given_up))
		return 0;
	if (system_know_queue(LISTENER, &waiting, &places))
		return (int)waiting;
	if (poll(&listener, 1, 0) != 1)
		atomic_store(&in_a_row, 0);
	else if (atomic_load(&in_a_row) == 0)
		return 1;
	return atomic_load(&in_a_row);
}

bool
listener_is_crowded(void)
{
	unsigned waiting, places;
	if (atomic_load(&is_given_up))
		return false;
	if (!system_know_queue(LISTENER, &waiting, &places))
		return atomic_load(&in_a_row) > CROWD_IN_A_ROW;
	return waiting > CROWD_MIN && waiting > places / CROWD;
}

int
listener_prepare(void)
{
	unsigned places;
	bool inherit = system_accepted_inherit(LISTENER);
	set_options(LISTENER);
	if (!inherit || !system_know_queue(LISTENER, &older, &places))
		older = UINT_MAX;
	/* Another copy may be faster; accept(2) must not wait for ever then. Where RELAY_QUIET_MS
	 * bounds its wait, that is worth it: the next one may come. Else it takes a flag, which
	 * belongs to all who share the socket. */
	int flags = inherit ? 0 : fcntl(LISTENER, F_GETFL);
	if (!inherit &&
	    (flags == -1 || fcntl(LISTENER, F_SETFL, flags | O_NONBLOCK) == -1))
		return errno;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		is_listener[descriptor] = listener_is(descriptor);
	return 0;
}

int
listener_accept(union address *peer)
{
	socklen_t size = sizeof *peer;
	int client = system_accept(LISTENER, &peer->any, &size);
	if (client == -1) {
		if (errno == EAGAIN)
			atomic_store_explicit(&in_a_row, 0, memory_order_relaxed);
		return -1;
	}
	int row = atomic_load_explicit(&in_a_row, memory_order_relaxed);
	if (row < IN_A_ROW_MAX)
		atomic_store_explicit(&in_a_row, row + 1, memory_order_relaxed);
	if (older > 0) {
		older -= older < UINT_MAX;
		set_options(client);
	}
	address_unmap(peer);
	return client;
}

void
listener_give_up(int other)
{
	atomic_store(&is_given_up, true);
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		if (is_listener[descriptor])
			dup2(other, descriptor);
}

/* listen ADDRESS PORT COMMAND...
 *
 * Runs COMMAND with a listening TCP socket as its stdin, as systemd or inetd would.
 * ADDRESS is numeric, IPv4 or IPv6; "::" and "::ffff:127.0.0.1" take IPv4 clients on an
 * IPv6 socket. For PORT 0 the kernel chooses one. When clients can connect, the port and a newline
 * are written to descriptor 3, or to stderr if 3 is not open. Descriptor 3 is closed for COMMAND.
 *
 * Exits with 2 if the arguments are wrong, 1 if it cannot listen, 127 if COMMAND cannot
 * be run. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT_DESCRIPTOR = 3 };

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "listen: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct addrinfo *
resolve(const char *address, const char *port)
{
	const struct addrinfo hints = {
	    .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
	    .ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *info = NULL;
	int error = getaddrinfo(address, port, &hints, &info);
	if (error) {
		fprintf(stderr, "listen: %s port %s: %s\n", address, port, gai_strerror(error));
		exit(2);
	}
	return info;
}

/* Returns the listening socket. If ADDRESS allows it, the socket accepts IPv4 clients too. */
static int
open_listener(const char *address, const char *port)
{
	const int on = 1, off = 0;
	struct addrinfo *info = resolve(address, port);
	int listener = socket(info->ai_family, SOCK_STREAM, 0);
	if (listener == -1)
		fail("socket");
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1)
		fail("SO_REUSEADDR");
	if (info->ai_family == AF_INET6 &&
	    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == -1)
		fail("IPV6_V6ONLY");
	if (bind(listener, info->ai_addr, info->ai_addrlen) == -1)
		fail(address);
	if (listen(listener, SOMAXCONN) == -1)
		fail("listen");
	freeaddrinfo(info);
	return listener;
}

static unsigned
port_of(int listener)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof address;
	if (getsockname(listener, (struct sockaddr *)&address, &length) == -1)
		fail("getsockname");
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int
main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: listen ADDRESS PORT COMMAND...\n");
		return 2;
	}

	/* Checked before the socket exists, because that could be descriptor 3. */
	bool has_port_descriptor = fcntl(PORT_DESCRIPTOR, F_GETFD) != -1;

	int listener = open_listener(argv[1], argv[2]);
	int report = has_port_descriptor ? PORT_DESCRIPTOR : STDERR_FILENO;
	if (dprintf(report, "%u\n", port_of(listener)) < 0)
		fail("port");

	if (listener != STDIN_FILENO) {
		if (dup2(listener, STDIN_FILENO) == -1)
			fail("dup2");
		close(listener);
	}
	if (has_port_descriptor)
		close(PORT_DESCRIPTOR);

	execvp(argv[3], argv + 3);
	fprintf(stderr, "listen: %s: %s\n", argv[3], strerror(errno));
	return 127;
}

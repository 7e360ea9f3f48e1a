/* hasty PORT NAME AUTHORITY
 *
 * A TLS 1.3 client in a hurry: connects to PORT on 127.0.0.1, asks for NAME, whose certificate must
 * be issued by AUTHORITY (a file), sends its stdin, and closes while the server's session tickets
 * are unread, so that the kernel sends a reset. It waits until its bytes are acknowledged: it would
 * lose the others itself.
 *
 * Exits with 2 if the arguments are wrong, 1 if anything fails, or if no tickets came. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 5000 };

static void
expect(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "hasty: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static int
connect_to(const char *port)
{
	const struct sockaddr_in address = {
	    .sin_family = AF_INET,
	    .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	expect(fd != -1, "socket");
	expect(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0, "connect");
	return fd;
}

static SSL *
shake_hands(SSL_CTX *context, int fd, const char *name, const char *authority)
{
	expect(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1, "TLS 1.3");
	expect(SSL_CTX_load_verify_locations(context, authority, NULL) == 1, authority);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL *tls = SSL_new(context);
	expect(tls != NULL && SSL_set_fd(tls, fd) == 1, "SSL_new");
	expect(SSL_set_tlsext_host_name(tls, name) == 1 && SSL_set1_host(tls, name) == 1, name);
	expect(SSL_connect(tls) == 1, "SSL_connect");
	return tls;
}

static void
send_stdin(SSL *tls)
{
	uint8_t buffer[65536];
	ssize_t length;
	while ((length = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
		expect(SSL_write(tls, buffer, (int)length) == length, "SSL_write");
	expect(length == 0, "stdin");
	expect(SSL_shutdown(tls) == 0, "SSL_shutdown"); /* sent, and none received */
}

/* Waits until the kernel has received something from the server, and has nothing to send to it. */
static void
wait_for_the_kernel(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};
	int left = -1;
	expect(poll(&entry, 1, PATIENCE_MS) == 1, "no tickets");
	for (int ms = 0; ms < PATIENCE_MS && left != 0; ms++) {
		expect(ioctl(fd, SIOCOUTQ, &left) == 0, "SIOCOUTQ");
		if (left != 0)
			poll(NULL, 0, 1);
	}
	expect(left == 0, "not acknowledged");
}

int
main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: hasty PORT NAME AUTHORITY\n");
		return 2;
	}
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	expect(context != NULL, "SSL_CTX_new");
	int fd = connect_to(argv[1]);
	SSL *tls = shake_hands(context, fd, argv[2], argv[3]);
	send_stdin(tls);
	wait_for_the_kernel(fd);
	expect(close(fd) == 0, "close");
	SSL_free(tls);
	SSL_CTX_free(context);
	return 0;
}

#include "bench/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	SOURCES = 32, /* source addresses: 127.1.0.1 and those after it */
	PATIENCE_MS = 10 * 1000,
};

static struct {
	union {
		struct sockaddr any;
		struct sockaddr_in tcp;
		struct sockaddr_un local;
	} address;
	socklen_t size;
} target;

/* RFC 8446, 4.1.2. Bytes that are not listed are zero. */
static const uint8_t hello_template[HELLO_SIZE] = {
    22, 3, 1, 0x02, 0x00,                   /* record: handshake, 512 bytes */
    1, 0, 0x01, 0xfc,                       /* ClientHello, 508 bytes */
    3, 3,                                   /* legacy_version */
    [HELLO_TASK + 1] = 32,                  /* legacy_session_id: 32 bytes */
    [HELLO_TASK + 34] = 0, 6,               /* cipher_suites */
    0x13, 0x01, 0x13, 0x02, 0x13, 0x03,     /*    AES-128, AES-256, ChaCha20 */
    1, 0,                                   /* legacy_compression_methods */
    0x01, 0xad,                             /* extensions: 429 bytes */
    0x00, 0x00, 0, 18, 0, 16, 0, 0, 13,     /* server_name: a host_name of 13 bytes */
    'b', 'e', 'n', 'c', 'h', '.',           /*    bench. */
    'e', 'x', 'a', 'm', 'p', 'l', 'e',      /*    example */
    0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x1d,     /* supported_groups: x25519 */
    0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03,     /* signature_algorithms: P-256 */
    0x00, 0x2b, 0, 3, 2, 0x03, 0x04,        /* supported_versions: 1.3 */
    0x00, 0x2d, 0, 2, 1, 1,                 /* psk_key_exchange_modes */
    0x00, 0x33, 0, 38, 0, 36, 0x00, 0x1d,   /* key_share: x25519, */
    0, 32, 9,                               /*    32 bytes: the base point */
    [HELLO_SIZE - 336] = 0x00, 0x15, 1, 76, /* padding: 332 bytes */
};

int64_t
clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

_Noreturn void
fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

void
client_init(const char *address)
{
	size_t length = strlen(address);
	if (address[0] == '/' && length < sizeof target.address.local.sun_path) {
		target.address.local.sun_family = AF_UNIX;
		memcpy(target.address.local.sun_path, address, length);
		target.size = sizeof target.address.local;
		return;
	}
	char *end;
	unsigned long port = strtoul(address, &end, 10);
	if (end == address || *end != '\0' || port == 0 || port > UINT16_MAX) {
		fprintf(stderr, "%s: neither a port nor a path\n", address);
		exit(2);
	}
	target.address.tcp = (struct sockaddr_in){
	    .sin_family = AF_INET,
	    .sin_port = htons((uint16_t)port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	target.size = sizeof target.address.tcp;
}

/* Gives SOCKET a source address; the port is chosen when it connects. */
static bool
set_source(int socket)
{
	static atomic_uint turn;
	const uint32_t first = 0x7f010001;
	const int on = 1;
	struct sockaddr_in source = {
	    .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(first + atomic_fetch_add(&turn, 1) % SOURCES),
	};
	return setsockopt(socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0 &&
	    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
	    bind(socket, (struct sockaddr *)&source, sizeof source) == 0;
}

int
client_connect(void)
{
	int family = target.address.any.sa_family;
	int s = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s == -1)
		return -1;
	if ((family == AF_INET && !set_source(s)) ||
	    (connect(s, &target.address.any, target.size) == -1 && errno != EINPROGRESS)) {
		int error = errno;
		close(s);
		errno = error;
		return -1;
	}
	return s;
}

bool
client_hello(int socket, enum task task)
{
	uint8_t hello[HELLO_SIZE];
	memcpy(hello, hello_template, sizeof hello);
	hello[HELLO_TASK] = (uint8_t)task;
	return send(socket, hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello;
}

bool
client_wait(int socket, short events)
{
	struct pollfd wait = {.fd = socket, .events = events};
	int count = poll(&wait, 1, PATIENCE_MS);
	if (count == 0)
		errno = ETIMEDOUT;
	return count == 1;
}

bool
client_read(int socket, size_t length)
{
	char bytes[4096];
	while (length > 0) {
		if (!client_wait(socket, POLLIN))
			return false;
		ssize_t n = recv(socket, bytes, length < sizeof bytes ? length : sizeof bytes, 0);
		if (n == 0)
			errno = ECONNRESET;
		if (n <= 0)
			return false;
		length -= (size_t)n;
	}
	return true;
}

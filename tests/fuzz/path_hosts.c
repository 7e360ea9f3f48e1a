#include "tests/fuzz/path_hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/hostname.h"
#include "tests/fuzz/fuzz.h"

/* Holds the directories of hosts that do not exist. No host has that name. */
#define HIDDEN ".hidden/"

enum { PATH_SIZE = sizeof HIDDEN + HOSTNAME_SIZE + 16 };

struct host hosts[HOST_COUNT] = {
    [HOST_BLOG] = {.name = "blog.example", .at_first = {SOCKET_LISTENING}},
    [HOST_HEADER] = {.name = "header.example", .headers = HOST_V1, .at_first = {SOCKET_LISTENING}},
    [HOST_BINARY] = {.name = "binary_2.example",
	.headers = HOST_V2,
	.at_first = {SOCKET_LISTENING}},
    [HOST_BOTH] = {.name = "both.example",
	.headers = HOST_V1 | HOST_V2,
	.at_first = {SOCKET_LISTENING}},
    [HOST_WITH_ACME] = {.name = "acme.example",
	.headers = HOST_V1,
	.at_first = {SOCKET_LISTENING, SOCKET_LISTENING}},
    [HOST_DEAD] = {.name = "dead.example", .at_first = {SOCKET_DEAD}},
    [HOST_EMPTY] = {.name = "empty.example", .at_first = {SOCKET_MISSING}},
    [HOST_DOMAIN] = {.name = "_.example",
	.headers = HOST_V2,
	.at_first = {SOCKET_LISTENING, SOCKET_LISTENING}},
    [HOST_DEFAULT] = {.name = "_default",
	.headers = HOST_V1 | HOST_V2,
	.at_first = {SOCKET_LISTENING}},
    [HOST_NO_SNI] = {.name = "_no-sni", .headers = HOST_V2, .at_first = {SOCKET_LISTENING}},
};

static const char *const socket_names[] = {"tls-socket", "acme-tls-socket"};
static const char *const flag_names[] = {"send-proxy-v1", "send-proxy-v2"};

/* Names of the same sockets that always exist, and of one at which nobody listens. */
static const char *const live_names[] = {"live", "acme-live"};
static const char dead_name[] = "dead";

static char root[4096];
static int directory;

/* --- The directories --- */

/* Writes the path of a FILE of HOST, relative to the hosts directory. */
static void
host_path(char path[PATH_SIZE], const struct host *host, const char *file)
{
	char name[HOSTNAME_SIZE];
	hostname_directory(name, host->name);
	snprintf(path, PATH_SIZE, "%s%s/%s", host->exists ? "" : HIDDEN, name, file);
}

/* Returns a socket that listens at the path of FILE. */
static int
listen_at(const struct host *host, const char *file)
{
	char path[PATH_SIZE];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	host_path(path, host, file);
	PROPERTY(strlen(path) < sizeof address.sun_path, "%s: too long", path);
	memcpy(address.sun_path, path, strlen(path));
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	PROPERTY(listener != -1 &&
		bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
		listen(listener, 8) == 0,
	    "%s: %s", path, strerror(errno));
	return listener;
}

static void
make_host(struct host *host)
{
	char path[PATH_SIZE];
	host->exists = true;
	host_path(path, host, "");
	PROPERTY(mkdir(path, 0700) == 0, "%s: %s", path, strerror(errno));
	for (unsigned which = 0; which < HOST_SOCKETS; which++)
		host->listeners[which] = listen_at(host, live_names[which]);
	close(listen_at(host, dead_name));
	for (unsigned i = 0; i < 2; i++) {
		host_path(path, host, flag_names[i]);
		if ((host->headers & 1U << i) != 0)
			PROPERTY(mkdir(path, 0700) == 0, "%s: %s", path, strerror(errno));
	}
}

static void
remove_hosts(void)
{
	const char *const files[] = {socket_names[0], socket_names[1], flag_names[0], flag_names[1],
	    live_names[0], live_names[1], dead_name, ""};
	char path[PATH_SIZE];
	for (struct host *host = hosts; host < hosts + HOST_COUNT; host++)
		for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
			host_path(path, host, files[i]);
			if (unlinkat(directory, path, 0) == -1)
				unlinkat(directory, path, AT_REMOVEDIR);
		}
	unlinkat(directory, HIDDEN, AT_REMOVEDIR);
	rmdir(root);
}

int
hosts_make(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(
	    root, sizeof root, "%s/sniproxy-fuzz-XXXXXX", temporary != NULL ? temporary : "/tmp");
	PROPERTY(mkdtemp(root) != NULL, "%s: %s", root, strerror(errno));
	directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	PROPERTY(directory != -1 && fchdir(directory) == 0 && mkdir(HIDDEN, 0700) == 0, "%s: %s",
	    root, strerror(errno));
	for (struct host *host = hosts; host < hosts + HOST_COUNT; host++)
		make_host(host);
	atexit(remove_hosts);
	return directory;
}

/* --- Changes --- */

static void
set_existing(struct host *host, bool exists)
{
	char from[PATH_SIZE], to[PATH_SIZE];
	if (host->exists == exists)
		return;
	host_path(from, host, "");
	host->exists = exists;
	host_path(to, host, "");
	PROPERTY(renameat(directory, from, directory, to) == 0, "%s: %s", to, strerror(errno));
}

void
hosts_set_special(unsigned bits)
{
	for (unsigned i = HOST_DOMAIN; i < HOST_COUNT; i++)
		set_existing(&hosts[i], (bits >> (i - HOST_DOMAIN) & 1) != 0);
}

void
host_set_state(struct host *host, enum host_socket which, enum socket_state state)
{
	char from[PATH_SIZE], to[PATH_SIZE];
	if (host->states[which] == state)
		return;
	host->states[which] = state;
	host_path(from, host, state == SOCKET_DEAD ? dead_name : live_names[which]);
	host_path(to, host, socket_names[which]);
	unlinkat(directory, to, 0);
	if (state != SOCKET_MISSING)
		PROPERTY(
		    linkat(directory, from, directory, to, 0) == 0, "%s: %s", to, strerror(errno));
}

void
hosts_reset(void)
{
	hosts_set_special(0);
	for (struct host *host = hosts; host < hosts + HOST_COUNT; host++) {
		for (unsigned which = 0; which < HOST_SOCKETS; which++) {
			host_set_state(host, which, host->at_first[which]);
			host->down_until_ms[which] = 0;
		}
	}
}

struct host *
hosts_find(const char *name)
{
	for (struct host *host = hosts; host < hosts + HOST_COUNT; host++)
		if (strcmp(host->name, name) == 0)
			return host;
	return NULL;
}

/* --- Headers --- */

static const char header_v1[] = "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";

/* PROXY and TCP over IPv4, a length that is not known yet, and the same addresses and ports. */
static const uint8_t header_v2[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49,
    0x54, 0x0a, 0x21, 0x11, 0, 0, 192, 0, 2, 7, 198, 51, 100, 1, 200, 34, 1, 187};
enum { AT_LENGTH = 14, V2_START = 16, CRC_SIZE = 4 };

/* Appends an extension at END. Returns the new end. */
static uint8_t *
append_tlv(uint8_t *end, uint8_t type, const void *value, size_t length)
{
	*end++ = type;
	*end++ = (uint8_t)(length >> 8);
	*end++ = (uint8_t)length;
	memcpy(end, value, length);
	return end + length;
}

size_t
host_header(uint8_t header[HOST_HEADER_MAX], const struct host *host, enum host_socket which,
    const char *name, const struct tls_hello *hello)
{
	static const uint8_t unknown[HOST_ID_SIZE];
	if (which == HOST_ACME || host->headers == 0)
		return 0;
	if ((host->headers & HOST_V2) == 0) {
		memcpy(header, header_v1, sizeof header_v1 - 1);
		return sizeof header_v1 - 1;
	}
	memcpy(header, header_v2, sizeof header_v2);
	uint8_t *end = header + sizeof header_v2;
	if (hello->protocols > 0)
		end = append_tlv(end, 0x01, hello->protocol, hello->protocol_length);
	if (name[0] != '\0')
		end = append_tlv(end, 0x02, name, strlen(name));
	end = append_tlv(end, 0x05, unknown, HOST_ID_SIZE);
	end = append_tlv(end, 0x03, unknown, CRC_SIZE);
	size_t length = (size_t)(end - header) - V2_START;
	header[AT_LENGTH] = (uint8_t)(length >> 8);
	header[AT_LENGTH + 1] = (uint8_t)length;
	return (size_t)(end - header);
}

uint8_t *
host_header_id(uint8_t *header, size_t length)
{
	bool is_v2 = length > V2_START && header[0] == header_v2[0];
	return is_v2 ? header + length - CRC_SIZE - 3 - HOST_ID_SIZE : NULL;
}

/* Returns the CRC32c (RFC 9260, appendix A), by its definition: BYTES, the least significant bit
 * first, are divided by the polynomial. The bits of the remainder are in reverse order. */
static uint32_t
crc32c(const uint8_t *bytes, size_t length)
{
	uint32_t remainder = 0xffffffff, reversed = 0;
	for (size_t i = 0; i < 8 * length; i++) {
		unsigned bit = bytes[i / 8] >> i % 8 & 1;
		bool divides = (remainder >> 31 ^ bit) != 0;
		remainder = remainder << 1 ^ (divides ? 0x1edc6f41 : 0);
	}
	for (unsigned i = 0; i < 32; i++)
		reversed |= (remainder >> i & 1) << (31 - i);
	return ~reversed;
}

void
host_header_sign(uint8_t *header, size_t length)
{
	uint8_t *at = header + length - CRC_SIZE;
	memset(at, 0, CRC_SIZE);
	uint32_t crc = crc32c(header, length);
	for (unsigned i = 0; i < CRC_SIZE; i++)
		at[i] = (uint8_t)(crc >> (24 - 8 * i));
}

#include "lib/proxy_protocol.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char text_signature[] = "PROXY ";
static const char binary_signature[] = "\r\n\r\n\0\r\nQUIT\n";

enum {
	/* Version 1: length of the longest line, with its CRLF. */
	LINE_MAX_LENGTH = 107,

	/* Version 2: length of the part before the addresses, and offsets in it. */
	BINARY_START = 16,
	AT_COMMAND = 12,
	AT_FAMILY = 13,
	AT_LENGTH = 14,

	COMMAND_LOCAL = 0x20, /* with the version */
	COMMAND_PROXY = 0x21,

	FAMILY_MAX = 3,    /* unspecified, IPv4, IPv6, Unix */
	TRANSPORT_MAX = 2, /* unspecified, stream, datagram */
	TCP_OVER_IPV4 = 0x11,
	TCP_OVER_IPV6 = 0x21,
};

static enum proxy_protocol_status
refuse(struct proxy_protocol_header *header, const char *reason)
{
	header->reason = reason;
	return PROXY_PROTOCOL_REFUSED;
}

/* Whether BYTES, which may be incomplete, begin like SIGNATURE. */
static bool
begin_with(const uint8_t *bytes, size_t length, const char *signature, size_t size)
{
	return memcmp(bytes, signature, length < size ? length : size) == 0;
}

/* Returns an address of FAMILY. HOST and PORT are in network byte order. */
static union address
endpoint(int family, const void *host, const void *port)
{
	union address address;
	memset(&address, 0, sizeof address);
	if (family == AF_INET) {
		address.v4.sin_family = AF_INET;
		memcpy(&address.v4.sin_addr, host, sizeof address.v4.sin_addr);
		memcpy(&address.v4.sin_port, port, sizeof address.v4.sin_port);
	} else {
		address.v6.sin6_family = AF_INET6;
		memcpy(&address.v6.sin6_addr, host, sizeof address.v6.sin6_addr);
		memcpy(&address.v6.sin6_port, port, sizeof address.v6.sin6_port);
	}
	return address;
}

/* Sets the addresses. Unmaps them only if they stay of one family. */
static void
set_addresses(struct proxy_protocol_header *header, union address client, union address server)
{
	header->has_addresses = true;
	header->client = client;
	header->server = server;
	address_unmap(&client);
	address_unmap(&server);
	if (client.any.sa_family != server.any.sa_family)
		return;
	header->client = client;
	header->server = server;
}

/* --- Version 1 --- */

/*	PROXY TCP4 192.0.2.7 198.51.100.1 51234 443
 *	PROXY TCP6 2001:db8::7 2001:db8::1 51234 443
 *	PROXY UNKNOWN and whatever follows
 *
 * sscanf(3) also accepts repeated spaces, signs and leading zeros. The line has none of them if it
 * equals its fields printed again. */
static bool
read_line(struct proxy_protocol_header *header, const char *line)
{
	char protocol[8] = "", source[46], destination[46], again[LINE_MAX_LENGTH + 16];
	char source_digits[6], destination_digits[6];
	struct in6_addr from, to; /* large enough for IPv4 too */
	int fields = sscanf(line, "PROXY %7s %45s %45s %5s %5s", protocol, source, destination,
	    source_digits, destination_digits);
	if (strncmp(line, "PROXY UNKNOWN", 13) == 0 && (line[13] == ' ' || line[13] == '\0'))
		return true;
	bool is_ipv4 = strcmp(protocol, "TCP4") == 0;
	if (fields != 5 || (!is_ipv4 && strcmp(protocol, "TCP6") != 0))
		return false;
	unsigned long source_port = strtoul(source_digits, NULL, 10);
	unsigned long destination_port = strtoul(destination_digits, NULL, 10);
	snprintf(again, sizeof again, "PROXY %s %s %s %lu %lu", protocol, source, destination,
	    source_port, destination_port);
	int family = is_ipv4 ? AF_INET : AF_INET6;
	uint16_t ports[] = {htons((uint16_t)source_port), htons((uint16_t)destination_port)};
	if (strcmp(line, again) != 0 || source_port > UINT16_MAX || destination_port > UINT16_MAX ||
	    inet_pton(family, source, &from) != 1 || inet_pton(family, destination, &to) != 1)
		return false;
	set_addresses(header, endpoint(family, &from, &ports[0]), endpoint(family, &to, &ports[1]));
	return true;
}

static enum proxy_protocol_status
read_text(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	char line[LINE_MAX_LENGTH];
	size_t looked_at = length < LINE_MAX_LENGTH ? length : LINE_MAX_LENGTH;
	const uint8_t *newline = memchr(bytes, '\n', looked_at);
	if (newline == NULL)
		return length < LINE_MAX_LENGTH ? PROXY_PROTOCOL_INCOMPLETE
						: refuse(header, "too long");
	header->length = (size_t)(newline - bytes) + 1;
	memcpy(line, bytes, header->length);
	char *end = line + header->length - strlen("\r\n");
	if (*end != '\r')
		return refuse(header, "malformed");
	*end = '\0';
	if (strlen(line) != (size_t)(end - line) || !read_line(header, line))
		return refuse(header, "malformed");
	return PROXY_PROTOCOL_OK;
}

/* --- Version 2 --- */

/* Length of the addresses and ports of each family. */
static const size_t addresses_length[FAMILY_MAX + 1] = {0, 4 + 4 + 4, 16 + 16 + 4, 108 + 108};

/* Reads the source and destination addresses, then their ports. Ignores those that are not
 * TCP's. */
static void
read_addresses(struct proxy_protocol_header *header, const uint8_t *bytes, uint8_t protocol)
{
	if (protocol != TCP_OVER_IPV4 && protocol != TCP_OVER_IPV6)
		return;
	int family = protocol == TCP_OVER_IPV4 ? AF_INET : AF_INET6;
	size_t size = protocol == TCP_OVER_IPV4 ? 4 : 16;
	const uint8_t *ports = bytes + 2 * size;
	set_addresses(
	    header, endpoint(family, bytes, ports), endpoint(family, bytes + size, ports + 2));
}

/*	struct {
 *		uint8_t sig[12];
 *		uint8_t ver_cmd;
 *		uint8_t fam;
 *		uint16_t len;
 *	} and LEN bytes: addresses, and extensions		proxy-protocol.txt, 2.2
 *
 * Unknown values must be rejected. If the command is LOCAL, everything after it is ignored.
 */
static enum proxy_protocol_status
read_binary(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	if (length < BINARY_START)
		return PROXY_PROTOCOL_INCOMPLETE;
	uint8_t command = bytes[AT_COMMAND], protocol = bytes[AT_FAMILY];
	unsigned family = protocol >> 4, transport = protocol & 0xf;
	size_t left = (size_t)bytes[AT_LENGTH] << 8 | bytes[AT_LENGTH + 1];
	if (command != COMMAND_LOCAL && command != COMMAND_PROXY)
		return refuse(header, "malformed");
	if (command == COMMAND_PROXY &&
	    (family > FAMILY_MAX || transport > TRANSPORT_MAX || left < addresses_length[family]))
		return refuse(header, "malformed");
	header->length = BINARY_START + left;
	if (header->length > PROXY_PROTOCOL_MAX)
		return refuse(header, "too long");
	if (length < header->length)
		return PROXY_PROTOCOL_INCOMPLETE;
	if (command == COMMAND_PROXY)
		read_addresses(header, bytes + BINARY_START, protocol);
	return PROXY_PROTOCOL_OK;
}

enum proxy_protocol_status
proxy_protocol_read(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	*header = (struct proxy_protocol_header){0};
	if (length == 0)
		return PROXY_PROTOCOL_INCOMPLETE;
	if (begin_with(bytes, length, text_signature, sizeof text_signature - 1))
		return read_text(header, bytes, length);
	if (begin_with(bytes, length, binary_signature, sizeof binary_signature - 1))
		return read_binary(header, bytes, length);
	return refuse(header, "missing");
}

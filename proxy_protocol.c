#include "proxy_protocol.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static const char text_signature[] = "PROXY ";
static const char binary_signature[] = "\r\n\r\n\0\r\nQUIT\n";

enum {
	/* Version 1: the longest line, with what ends it. */
	LINE_MAX_LENGTH = 107,

	/* Version 2: what comes before the addresses, and where in it. */
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

/* Whether BYTES begin with SIGNATURE, as far as they have come. */
static bool
begin_with(const uint8_t *bytes, size_t length, const char *signature, size_t size)
{
	return memcmp(bytes, signature, length < size ? length : size) == 0;
}

/* PORT is in network byte order. */
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

/* IPv4 in IPv6's dress is IPv4, where both are: they stay of one family. */
static void
set_addresses(
    struct proxy_protocol_header *header, union address client, union address server)
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

/* Cuts the next field off REST, at a single space; empty where there is none. */
static const char *
field(char **rest)
{
	static char none[] = "";
	char *start = *rest != NULL ? *rest : none;
	char *space = strchr(start, ' ');
	if (space != NULL)
		*space++ = '\0';
	*rest = space;
	return start;
}

static bool
read_endpoint(union address *address, int family, const char *host, const char *port)
{
	struct in6_addr bytes; /* has room for the other */
	size_t digits = strspn(port, "0123456789");
	bool has_zero_before = port[0] == '0' && digits > 1;
	if (digits == 0 || digits > 5 || port[digits] != '\0' || has_zero_before)
		return false;
	unsigned long number = strtoul(port, NULL, 10);
	uint16_t in_order = htons((uint16_t)number);
	if (number > UINT16_MAX || inet_pton(family, host, &bytes) != 1)
		return false;
	*address = endpoint(family, &bytes, &in_order);
	return true;
}

/*	PROXY TCP4 192.0.2.7 198.51.100.1 51234 443
 *	PROXY TCP6 2001:db8::7 2001:db8::1 51234 443
 *	PROXY UNKNOWN and whatever follows
 */
static bool
read_line(struct proxy_protocol_header *header, char *line)
{
	char *rest = line;
	field(&rest); /* PROXY */
	const char *protocol = field(&rest);
	if (strcmp(protocol, "UNKNOWN") == 0)
		return true;
	bool is_ipv4 = strcmp(protocol, "TCP4") == 0;
	if (!is_ipv4 && strcmp(protocol, "TCP6") != 0)
		return false;
	const char *source = field(&rest), *destination = field(&rest);
	const char *source_port = field(&rest), *destination_port = field(&rest);
	int family = is_ipv4 ? AF_INET : AF_INET6;
	union address client, server;
	if (rest != NULL || !read_endpoint(&client, family, source, source_port) ||
	    !read_endpoint(&server, family, destination, destination_port))
		return false;
	set_addresses(header, client, server);
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

/* How long the addresses of FAMILY are. */
static size_t
addresses_length(unsigned family)
{
	static const size_t lengths[FAMILY_MAX + 1] = {
	    0, 4 + 4 + 2 + 2, 16 + 16 + 2 + 2, 108 + 108};
	return lengths[family];
}

/* The addresses, the source's and the destination's, and then their ports. Those that are not TCP's
 * are left alone. */
static void
read_addresses(
    struct proxy_protocol_header *header, const uint8_t *bytes, uint8_t protocol)
{
	if (protocol != TCP_OVER_IPV4 && protocol != TCP_OVER_IPV6)
		return;
	int family = protocol == TCP_OVER_IPV4 ? AF_INET : AF_INET6;
	size_t size = protocol == TCP_OVER_IPV4 ? 4 : 16;
	const uint8_t *ports = bytes + 2 * size;
	set_addresses(header, endpoint(family, bytes, ports),
	    endpoint(family, bytes + size, ports + 2));
}

/*	struct {
 *		uint8_t sig[12];
 *		uint8_t ver_cmd;
 *		uint8_t fam;
 *		uint16_t len;
 *	} and LEN bytes: addresses, and extensions		proxy-protocol.txt, 2.2
 *
 * Values that it does not know must be refused; where the command is LOCAL, all that follows is
 * ignored.
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
	    (family > FAMILY_MAX || transport > TRANSPORT_MAX ||
		left < addresses_length(family)))
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
proxy_protocol_read(
    struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
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

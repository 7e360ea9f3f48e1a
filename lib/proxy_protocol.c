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

	/* Types of extensions (TLVs). */
	TYPE_ALPN = 0x01,
	TYPE_AUTHORITY = 0x02,
	TYPE_CRC32C = 0x03,
	TYPE_UNIQUE_ID = 0x05,

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

/* --- Writing --- */

size_t
proxy_protocol_write_v1(uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX], const union address *client,
    const union address *server)
{
	char source[ADDRESS_TEXT_SIZE], destination[ADDRESS_TEXT_SIZE];
	address_text(source, client);
	address_text(destination, server);
	int length = snprintf((char *)header, PROXY_PROTOCOL_WRITTEN_MAX,
	    "PROXY %s %s %s %u %u\r\n", client->any.sa_family == AF_INET ? "TCP4" : "TCP6", source,
	    destination, (unsigned)address_port(client), (unsigned)address_port(server));
	return (size_t)length;
}

/* Appends LENGTH BYTES at END. Returns the new end. */
static uint8_t *
append(uint8_t *end, const void *bytes, size_t length)
{
	memcpy(end, bytes, length);
	return end + length;
}

/* Appends LENGTH in network byte order. */
static uint8_t *
append_length(uint8_t *end, size_t length)
{
	uint16_t bytes = htons((uint16_t)length);
	return append(end, &bytes, sizeof bytes);
}

/* Appends an extension of TYPE. */
static uint8_t *
append_tlv(uint8_t *end, uint8_t type, const void *value, size_t length)
{
	end = append(end, &type, sizeof type);
	return append(append_length(end, length), value, length);
}

static uint8_t *
append_addresses(uint8_t *end, const union address *client, const union address *server)
{
	if (client->any.sa_family == AF_INET) {
		end = append(end, &client->v4.sin_addr, sizeof client->v4.sin_addr);
		end = append(end, &server->v4.sin_addr, sizeof server->v4.sin_addr);
	} else {
		end = append(end, &client->v6.sin6_addr, sizeof client->v6.sin6_addr);
		end = append(end, &server->v6.sin6_addr, sizeof server->v6.sin6_addr);
	}
	return append_length(append_length(end, address_port(client)), address_port(server));
}

/* Returns the CRC32c of LENGTH BYTES (RFC 9260, appendix A): its polynomial with the bits reversed,
 * one bit at a time. */
static uint32_t
crc32c(const uint8_t *bytes, size_t length)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc % 2 != 0 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

size_t
proxy_protocol_write_v2(uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX], const union address *client,
    const union address *server, const struct proxy_protocol_tlvs *tlvs)
{
	bool is_ipv4 = client->any.sa_family == AF_INET;
	uint32_t crc = 0;
	memcpy(header, binary_signature, sizeof binary_signature - 1);
	header[AT_COMMAND] = COMMAND_PROXY;
	header[AT_FAMILY] = is_ipv4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
	uint8_t *end = append_addresses(header + BINARY_START, client, server);
	if (tlvs->alpn_length > 0)
		end = append_tlv(end, TYPE_ALPN, tlvs->alpn, tlvs->alpn_length);
	if (tlvs->authority != NULL)
		end = append_tlv(end, TYPE_AUTHORITY, tlvs->authority, strlen(tlvs->authority));
	end = append_tlv(end, TYPE_UNIQUE_ID, tlvs->unique_id, sizeof tlvs->unique_id);
	end = append_tlv(end, TYPE_CRC32C, &crc, sizeof crc);
	append_length(header + AT_LENGTH, (size_t)(end - header) - BINARY_START);
	crc = htonl(crc32c(header, (size_t)(end - header))); /* with 0 in its own place */
	append(end - sizeof crc, &crc, sizeof crc);
	return (size_t)(end - header);
}

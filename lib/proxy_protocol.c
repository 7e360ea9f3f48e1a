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

	/* Version 2: types of extensions (TLVs). */
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

/* Whether BYTES, which may be incomplete or none, begin like SIGNATURE. */
static bool
begin_with(const uint8_t *bytes, size_t length, const char *signature, size_t size)
{
	return memcmp(bytes, signature, length < size ? length : size) == 0;
}

/* Sets the addresses: the HOSTS and PORTS of the client and the server, in network byte order. An
 * IPv4 address is mapped here. Both are unmapped, or neither, so that they stay of one family. */
static void
set_addresses(
    struct proxy_protocol_header *header, const struct in6_addr hosts[2], const uint16_t ports[2])
{
	union address *const addresses[] = {&header->client, &header->server};
	bool are_ipv4 = IN6_IS_ADDR_V4MAPPED(&hosts[0]) && IN6_IS_ADDR_V4MAPPED(&hosts[1]);
	for (size_t i = 0; i < 2; i++) {
		addresses[i]->v6 = (struct sockaddr_in6){
		    .sin6_family = AF_INET6, .sin6_addr = hosts[i], .sin6_port = ports[i]};
		if (are_ipv4)
			address_unmap(addresses[i]);
	}
	header->has_addresses = true;
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
	char version, source[46], destination[46], source_digits[6], destination_digits[6];
	char again[LINE_MAX_LENGTH + 16];
	if (strncmp(line, "PROXY UNKNOWN ", 14) == 0 || strcmp(line, "PROXY UNKNOWN\r\n") == 0)
		return true;
	int fields = sscanf(line, "PROXY TCP%c %45s %45s %5s %5s", &version, source, destination,
	    source_digits, destination_digits);
	if (fields != 5 || (version != '4' && version != '6'))
		return false;
	unsigned long from = strtoul(source_digits, NULL, 10);
	unsigned long to = strtoul(destination_digits, NULL, 10);
	snprintf(again, sizeof again, "PROXY TCP%c %s %s %lu %lu\r\n", version, source, destination,
	    from, to);
	int family = version == '4' ? AF_INET : AF_INET6;
	size_t start = version == '4' ? ADDRESS_MAPPED : 0;
	struct in6_addr hosts[] = {address_mapped, address_mapped};
	if (strcmp(line, again) != 0 || from > UINT16_MAX || to > UINT16_MAX ||
	    inet_pton(family, source, hosts[0].s6_addr + start) != 1 ||
	    inet_pton(family, destination, hosts[1].s6_addr + start) != 1)
		return false;
	set_addresses(header, hosts, (uint16_t[]){htons((uint16_t)from), htons((uint16_t)to)});
	return true;
}

static enum proxy_protocol_status
read_text(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	char line[LINE_MAX_LENGTH + 1] = "";
	size_t looked_at = length < LINE_MAX_LENGTH ? length : LINE_MAX_LENGTH;
	const uint8_t *newline = memchr(bytes, '\n', looked_at);
	if (newline == NULL)
		return length < LINE_MAX_LENGTH ? PROXY_PROTOCOL_INCOMPLETE
						: refuse(header, "too long");
	header->length = (size_t)(newline - bytes) + 1;
	memcpy(line, bytes, header->length);
	if (newline[-1] != '\r' || !read_line(header, line))
		return refuse(header, "malformed");
	return PROXY_PROTOCOL_OK;
}

/* --- Version 2 --- */

/* What comes before the addresses and the extensions (proxy-protocol.txt, 2.2). */
struct start {
	uint8_t sig[12];
	uint8_t ver_cmd;
	uint8_t fam;
	uint16_t len; /* of what follows, in network byte order */
};

/* Length of the addresses and ports of each family. */
static const size_t addresses_length[FAMILY_MAX + 1] = {0, 4 + 4 + 4, 16 + 16 + 4, 108 + 108};

/* Reads the source and destination addresses, then their ports. Ignores those that are not
 * TCP's. */
static void
read_addresses(struct proxy_protocol_header *header, const uint8_t *bytes, uint8_t protocol)
{
	if (protocol != TCP_OVER_IPV4 && protocol != TCP_OVER_IPV6)
		return;
	struct in6_addr hosts[] = {address_mapped, address_mapped};
	uint16_t ports[2];
	size_t start = protocol == TCP_OVER_IPV4 ? ADDRESS_MAPPED : 0;
	size_t size = sizeof hosts[0] - start;
	memcpy(hosts[0].s6_addr + start, bytes, size);
	memcpy(hosts[1].s6_addr + start, bytes + size, size);
	memcpy(ports, bytes + 2 * size, sizeof ports);
	set_addresses(header, hosts, ports);
}

/* Unknown values must be rejected. If the command is LOCAL, everything after it is ignored. */
static enum proxy_protocol_status
read_binary(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	struct start start;
	if (length < sizeof start)
		return PROXY_PROTOCOL_INCOMPLETE;
	memcpy(&start, bytes, sizeof start);
	unsigned family = start.fam >> 4, transport = start.fam & 0xf;
	size_t left = ntohs(start.len);
	if (start.ver_cmd != COMMAND_LOCAL && start.ver_cmd != COMMAND_PROXY)
		return refuse(header, "malformed");
	if (start.ver_cmd == COMMAND_PROXY &&
	    (family > FAMILY_MAX || transport > TRANSPORT_MAX || left < addresses_length[family]))
		return refuse(header, "malformed");
	header->length = sizeof start + left;
	if (header->length > PROXY_PROTOCOL_MAX)
		return refuse(header, "too long");
	if (length < header->length)
		return PROXY_PROTOCOL_INCOMPLETE;
	if (start.ver_cmd == COMMAND_PROXY)
		read_addresses(header, bytes + sizeof start, start.fam);
	return PROXY_PROTOCOL_OK;
}

enum proxy_protocol_status
proxy_protocol_read(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	*header = (struct proxy_protocol_header){0};
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

/* Appends NUMBER in network byte order. */
static uint8_t *
append_uint16(uint8_t *end, size_t number)
{
	uint16_t bytes = htons((uint16_t)number);
	return append(end, &bytes, sizeof bytes);
}

/* Appends an extension of TYPE. */
static uint8_t *
append_tlv(uint8_t *end, uint8_t type, const void *value, size_t length)
{
	end = append(end, &type, sizeof type);
	return append(append_uint16(end, length), value, length);
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
	struct start start = {
	    .ver_cmd = COMMAND_PROXY, .fam = is_ipv4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6};
	memcpy(start.sig, binary_signature, sizeof start.sig);
	size_t size = is_ipv4 ? sizeof client->v4.sin_addr : sizeof client->v6.sin6_addr;
	uint8_t *end = append(header + sizeof start, address_host(client), size);
	end = append(end, address_host(server), size);
	end = append_uint16(append_uint16(end, address_port(client)), address_port(server));
	if (tlvs->alpn_length > 0)
		end = append_tlv(end, TYPE_ALPN, tlvs->alpn, tlvs->alpn_length);
	if (tlvs->authority != NULL)
		end = append_tlv(end, TYPE_AUTHORITY, tlvs->authority, strlen(tlvs->authority));
	end = append_tlv(end, TYPE_UNIQUE_ID, tlvs->unique_id, sizeof tlvs->unique_id);
	end = append_tlv(end, TYPE_CRC32C, &crc, sizeof crc);
	start.len = htons((uint16_t)((size_t)(end - header) - sizeof start));
	memcpy(header, &start, sizeof start);
	crc = htonl(crc32c(header, (size_t)(end - header))); /* with 0 in its own place */
	append(end - sizeof crc, &crc, sizeof crc);
	return (size_t)(end - header);
}

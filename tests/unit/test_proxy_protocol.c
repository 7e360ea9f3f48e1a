/* Tests of proxy_protocol.c: its result for every header in the table, for each prefix of one, and
 * for what follows it. Blocks have exactly the size of their bytes, so that AddressSanitizer
 * detects any read past the end. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/addresses.h"
#include "tests/unit/check.h"
#include "tests/unit/proxy_headers.h"

static enum proxy_protocol_status
read_copy(struct proxy_protocol_header *header, const uint8_t *bytes, size_t length)
{
	uint8_t *copy = malloc(length > 0 ? length : 1);
	CHECK(copy != NULL, "out of memory");
	memcpy(copy, bytes, length);
	enum proxy_protocol_status status = proxy_protocol_read(header, copy, length);
	free(copy);
	return status;
}

/* The bytes of a case, with room for SPARE more. */
static uint8_t *
bytes_of(const struct proxy_header_case *this, size_t *length, size_t spare)
{
	*length = this->size + this->zeros;
	uint8_t *bytes = calloc(*length + spare + 1, 1);
	CHECK(bytes != NULL, "out of memory");
	memcpy(bytes, this->bytes, this->size);
	return bytes;
}

static void
expect_endpoint(const char *what, const union address *address, const char *expected)
{
	char text[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(text, address);
	CHECK(strcmp(text, expected) == 0, "%s: %s, not %s", what, text, expected);
}

static void
expect_result(const struct proxy_header_case *this, enum proxy_protocol_status status,
    const struct proxy_protocol_header *header)
{
	CHECK(status == this->status, "%s: status %d", this->what, (int)status);
	if (status == PROXY_PROTOCOL_REFUSED)
		CHECK(strcmp(header->reason, this->reason) == 0, "%s: %s", this->what,
		    header->reason);
	if (status != PROXY_PROTOCOL_OK)
		return;
	CHECK(header->length == this->size + this->zeros, "%s: %zu bytes", this->what,
	    header->length);
	CHECK(header->has_addresses == (this->client != NULL), "%s: addresses", this->what);
	if (!header->has_addresses)
		return;
	expect_endpoint(this->what, &header->client, this->client);
	expect_endpoint(this->what, &header->server, this->server);
}

Test(proxy_protocol, reads_the_table)
{
	for (size_t i = 0; i < proxy_header_case_count; i++) {
		struct proxy_protocol_header header;
		size_t length;
		uint8_t *bytes = bytes_of(&proxy_header_cases[i], &length, 0);
		expect_result(&proxy_header_cases[i], read_copy(&header, bytes, length), &header);
		free(bytes);
	}
}

/* A prefix of an invalid header may be rejected; none is accepted. */
Test(proxy_protocol, no_part_of_a_header_is_enough)
{
	for (size_t i = 0; i < proxy_header_case_count; i++) {
		const struct proxy_header_case *this = &proxy_header_cases[i];
		struct proxy_protocol_header header;
		size_t length;
		uint8_t *bytes = bytes_of(this, &length, 0);
		for (size_t part = 0; part < length; part++) {
			enum proxy_protocol_status status = read_copy(&header, bytes, part);
			if (status == PROXY_PROTOCOL_INCOMPLETE)
				continue;
			CHECK(status == this->status && status == PROXY_PROTOCOL_REFUSED,
			    "%s: %zu bytes: status %d", this->what, part, (int)status);
		}
		free(bytes);
	}
}

Test(proxy_protocol, what_follows_does_not_matter)
{
	enum { MORE = 32 };
	static const uint8_t fills[] = {0x00, '\n', '\r', ' ', '1', 0x16, 0xff};
	for (size_t i = 0; i < proxy_header_case_count; i++) {
		const struct proxy_header_case *this = &proxy_header_cases[i];
		if (this->status == PROXY_PROTOCOL_INCOMPLETE)
			continue;
		struct proxy_protocol_header header;
		size_t length;
		uint8_t *bytes = bytes_of(this, &length, MORE);
		for (size_t fill = 0; fill < sizeof fills; fill++) {
			memset(bytes + length, fills[fill], MORE);
			expect_result(this, read_copy(&header, bytes, length + MORE), &header);
		}
		free(bytes);
	}
}

/* A balancer that sends no header sends a ClientHello, or whatever else a client sends. The first
 * byte shows that. */
Test(proxy_protocol, each_first_byte_is_judged)
{
	for (unsigned byte = 0; byte <= 0xff; byte++) {
		struct proxy_protocol_header header;
		const uint8_t first = (uint8_t)byte;
		bool may_go_on = byte == 'P' || byte == '\r';
		CHECK(read_copy(&header, &first, 1) ==
			(may_go_on ? PROXY_PROTOCOL_INCOMPLETE : PROXY_PROTOCOL_REFUSED),
		    "0x%02x", byte);
	}
}

/* An IPv4 address beside an IPv6 address becomes IPv4-mapped. */
Test(proxy_protocol, both_addresses_are_of_one_family)
{
	for (size_t i = 0; i < proxy_header_case_count; i++) {
		struct proxy_protocol_header header;
		size_t length;
		uint8_t *bytes = bytes_of(&proxy_header_cases[i], &length, 0);
		if (read_copy(&header, bytes, length) == PROXY_PROTOCOL_OK)
			CHECK(header.client.any.sa_family == header.server.any.sa_family, "%s",
			    proxy_header_cases[i].what);
		free(bytes);
	}
}

/* --- Writing --- */

static const struct {
	int family;
	const char *client;
	uint16_t client_port;
	const char *server;
	uint16_t server_port;
	const char *header;
} headers[] = {
    {AF_INET, "192.0.2.7", 51234, "198.51.100.1", 443,
	"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"},
    {AF_INET, "255.255.255.255", 65535, "255.255.255.255", 65535,
	"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"},
    {AF_INET6, "2001:db8::7", 51234, "2001:db8::1", 443,
	"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"},
    {AF_INET6, "::1", 1, "::1", 2, "PROXY TCP6 ::1 ::1 1 2\r\n"},
    {AF_INET6, "1111:2222:3333:4444:5555:6666:7777:8888", 65535,
	"9999:aaaa:bbbb:cccc:dddd:eeee:ffff:1234", 65534,
	"PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 "
	"9999:aaaa:bbbb:cccc:dddd:eeee:ffff:1234 65535 65534\r\n"},

    /* IPv4 in IPv6, as a dual-stack socket has it */
    {AF_INET6, "::ffff:192.0.2.7", 51234, "::ffff:198.51.100.1", 443,
	"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"},
};

Test(proxy_protocol, version_1_tells_the_addresses)
{
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
		union address client =
		    address_of(headers[i].family, headers[i].client, headers[i].client_port);
		union address server =
		    address_of(headers[i].family, headers[i].server, headers[i].server_port);
		address_unmap(&client);
		address_unmap(&server);

		uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX];
		memset(header, 'X', sizeof header);
		size_t length = proxy_protocol_write_v1(header, &client, &server);
		cr_expect(strcmp((const char *)header, headers[i].header) == 0, "%s",
		    (const char *)header);
		cr_expect(length == strlen(headers[i].header), "%zu", length);
	}
}

/* A header of version 2 as a receiver reads it, by proxy-protocol.txt, 2.2, alone. */
struct received {
	int family;
	uint8_t client[16], server[16];
	unsigned client_port, server_port;
	const uint8_t *values[256]; /* of the extensions, by type */
	size_t lengths[256];
};

static unsigned
number_at(const uint8_t *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* The CRC32c with its polynomial as RFC 9260 writes it, most significant bit first. */
static uint32_t
crc_of(const uint8_t *bytes, size_t length)
{
	uint32_t crc = 0xffffffff, reversed = 0;
	for (size_t i = 0; i < 8 * length; i++) {
		unsigned bit = bytes[i / 8] >> i % 8 & 1;
		crc = (crc >> 31 ^ bit) != 0 ? crc << 1 ^ 0x1edc6f41 : crc << 1;
	}
	for (size_t i = 0; i < 32; i++)
		reversed |= (crc >> i & 1) << (31 - i);
	return ~reversed;
}

static void
receive(struct received *received, uint8_t *header, size_t length)
{
	memset(received, 0, sizeof *received);
	cr_assert(length > 16 &&
	    memcmp(header, "\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A", 12) == 0);
	cr_assert(header[12] == 0x21, "not version 2, or not PROXY");
	cr_assert(header[13] == 0x11 || header[13] == 0x21, "not TCP");
	cr_assert(number_at(header + 14) == length - 16, "another length");
	size_t size = header[13] == 0x11 ? 4 : 16;
	received->family = size == 4 ? AF_INET : AF_INET6;
	memcpy(received->client, header + 16, size);
	memcpy(received->server, header + 16 + size, size);
	received->client_port = number_at(header + 16 + 2 * size);
	received->server_port = number_at(header + 18 + 2 * size);
	for (size_t at = 20 + 2 * size; at < length;) {
		cr_assert(at + 3 <= length, "half an extension");
		uint8_t type = header[at];
		cr_assert(received->values[type] == NULL, "type %u twice", type);
		received->lengths[type] = number_at(header + at + 1);
		received->values[type] = header + at + 3;
		at += 3 + received->lengths[type];
		cr_assert(at <= length, "an extension longer than the header");
	}
	cr_assert(received->lengths[3] == 4, "no CRC32c");
	for (size_t type = 6; type < 256; type++)
		cr_expect(received->values[type] == NULL, "type %zu, which nobody wants", type);
	cr_expect(received->values[0] == NULL && received->values[4] == NULL);
	uint8_t *at = header + (received->values[3] - header);
	uint32_t sent = (uint32_t)number_at(at) << 16 | number_at(at + 2);
	memset(at, 0, 4);
	cr_expect(crc_of(header, length) == sent, "another CRC32c");
}

/* Fails unless the extension of TYPE has LENGTH bytes at VALUE, or is missing if VALUE is NULL. */
static void
expect_tlv(const struct received *received, uint8_t type, const void *value, size_t length)
{
	cr_expect((received->values[type] != NULL) == (value != NULL), "type %u", type);
	if (value != NULL && received->values[type] != NULL)
		cr_expect(received->lengths[type] == length &&
			memcmp(received->values[type], value, length) == 0,
		    "type %u has another value", type);
}

/* The address and port of ENDPOINT are those at BYTES. */
static void
expect_received(const union address *endpoint, const uint8_t *bytes, unsigned port)
{
	bool is_ipv4 = endpoint->any.sa_family == AF_INET;
	const void *sent = is_ipv4 ? (const void *)&endpoint->v4.sin_addr : &endpoint->v6.sin6_addr;
	cr_expect(memcmp(bytes, sent, is_ipv4 ? 4 : 16) == 0, "another address");
	cr_expect(port == address_port(endpoint), "port %u", port);
}

Test(proxy_protocol, crc32c_is_that_of_the_rfc)
{
	/* RFC 3720, B.4 */
	uint8_t bytes[32] = {0};
	cr_expect(crc_of(bytes, sizeof bytes) == 0x8a9136aa);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)i;
	cr_expect(crc_of(bytes, sizeof bytes) == 0x46dd794e);
}

/* The receiver here takes what another sender sends. */
Test(proxy_protocol, haproxy_is_received)
{
	static const char authority[] = "blog.example",
			  id[] = "95106aeb-6747-4ab6-b484-460f12056d14";
	const struct proxy_header_case *theirs = proxy_header_cases;
	while (strcmp(theirs->what, "v2 of HAProxy") != 0)
		theirs++;
	struct received received;
	size_t length;
	uint8_t *bytes = bytes_of(theirs, &length, 0);
	receive(&received, bytes, length);
	cr_expect(received.family == AF_INET);
	cr_expect(received.client_port == 51234 && received.server_port == 443);
	expect_tlv(&received, 1, NULL, 0);
	expect_tlv(&received, 2, authority, sizeof authority - 1);
	expect_tlv(&received, 5, id, sizeof id - 1);
	free(bytes);
}

Test(proxy_protocol, version_2_tells_everything)
{
	char longest[254 + 1];
	uint8_t alpn[255];
	memset(longest, 'a', sizeof longest - 1);
	longest[254] = '\0';
	memset(alpn, 0xff, sizeof alpn);
	const struct {
		const uint8_t *alpn;
		size_t alpn_length;
		const char *authority;
	} told[] = {{NULL, 0, NULL}, {(const uint8_t *)"h2", 2, "a.example"}, {NULL, 0, "b"},
	    {alpn, 1, NULL}, {alpn, sizeof alpn, longest}};
	for (size_t i = 0; i < sizeof told / sizeof *told * 5; i++) {
		union address client = address_of(
		    headers[i % 5].family, headers[i % 5].client, headers[i % 5].client_port);
		union address server = address_of(
		    headers[i % 5].family, headers[i % 5].server, headers[i % 5].server_port);
		struct proxy_protocol_tlvs tlvs = {
		    told[i / 5].alpn, told[i / 5].alpn_length, told[i / 5].authority, {0}};
		for (size_t n = 0; n < sizeof tlvs.unique_id; n++)
			tlvs.unique_id[n] = (uint8_t)(i * 16 + n);

		struct received received;
		struct proxy_protocol_header header;
		uint8_t bytes[PROXY_PROTOCOL_WRITTEN_MAX];
		size_t length = proxy_protocol_write_v2(bytes, &client, &server, &tlvs);
		cr_assert(length <= sizeof bytes);
		cr_expect(read_copy(&header, bytes, length) == PROXY_PROTOCOL_OK);
		cr_expect(header.length == length && header.has_addresses);
		receive(&received, bytes, length);
		cr_expect(received.family == headers[i % 5].family);
		expect_received(&client, received.client, received.client_port);
		expect_received(&server, received.server, received.server_port);
		expect_received(&header.client, received.client, received.client_port);
		expect_received(&header.server, received.server, received.server_port);
		expect_tlv(&received, 1, tlvs.alpn, tlvs.alpn_length);
		expect_tlv(&received, 2, tlvs.authority,
		    tlvs.authority != NULL ? strlen(tlvs.authority) : 0);
		expect_tlv(&received, 5, tlvs.unique_id, sizeof tlvs.unique_id);
		bool is_longest = i / 5 == 4 && client.any.sa_family == AF_INET6;
		cr_expect(!is_longest || length == PROXY_PROTOCOL_WRITTEN_MAX, "%zu", length);
	}
}

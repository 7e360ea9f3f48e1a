/* Tests of proxy_protocol.c: its result for every header in the table, for each prefix of one, and
 * for what follows it. Blocks have exactly the size of their bytes, so that AddressSanitizer
 * detects any read past the end. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

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

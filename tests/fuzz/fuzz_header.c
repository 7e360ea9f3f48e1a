/* Fuzz test of proxy_protocol.c: a balancer's PROXY header, and what follows it. */
#include <stdbool.h>

#include "lib/hostname.h"
#include "lib/proxy_protocol.h"
#include "tests/fuzz/fuzz.h"

enum {
	LINE_MAX_LENGTH = 107, /* proxy-protocol.txt, 2.1 */
	PROTOCOL_MAX = 255,    /* RFC 7301, 3.1 */
};

/* Reads a block of exactly LENGTH bytes. */
static enum proxy_protocol_status
read_part(struct proxy_protocol_header *header, const uint8_t *input, size_t length)
{
	uint8_t *bytes = fuzz_copy(input, length);
	enum proxy_protocol_status status = proxy_protocol_read(header, bytes, length);
	free(bytes);
	return status;
}

static bool
are_equal(const union address *a, const union address *b)
{
	char a_text[ADDRESS_ENDPOINT_SIZE], b_text[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(a_text, a);
	address_endpoint(b_text, b);
	return a->any.sa_family == b->any.sa_family && strcmp(a_text, b_text) == 0;
}

static bool
say_the_same(const struct proxy_protocol_header *a, const struct proxy_protocol_header *b)
{
	return a->has_addresses == b->has_addresses &&
	    (!a->has_addresses ||
		(are_equal(&a->client, &b->client) && are_equal(&a->server, &b->server)));
}

/* The CRC32c of BYTES, least significant bit first. */
static uint32_t
crc_of(const uint8_t *bytes, size_t length)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

/* Finds the extension of TYPE among those from TLVS to END. Returns the length of its VALUE;
 * SIZE_MAX if there is none. */
static size_t
find_tlv(const uint8_t *tlvs, const uint8_t *end, uint8_t type, const uint8_t **value)
{
	size_t found = SIZE_MAX;
	while (tlvs < end) {
		PROPERTY(end - tlvs >= 3, "half an extension");
		size_t length = (size_t)tlvs[1] << 8 | tlvs[2];
		PROPERTY(length <= (size_t)(end - tlvs - 3), "an extension past the end");
		PROPERTY(tlvs[0] != type || found == SIZE_MAX, "type %u twice", type);
		if (tlvs[0] == type) {
			found = length;
			*value = tlvs + 3;
		}
		tlvs += 3 + length;
	}
	return found;
}

/* The extensions of the header of LENGTH BYTES are TLVS and its CRC32c. */
static void
judge_tlvs(uint8_t *bytes, size_t length, bool is_ipv4, const struct proxy_protocol_tlvs *tlvs)
{
	const uint8_t *at = bytes + 16 + 2 * ((is_ipv4 ? 4 : 16) + 2), *end = bytes + length;
	const uint8_t *value = NULL;
	size_t size = find_tlv(at, end, 1, &value);
	PROPERTY(tlvs->alpn_length == 0
		? size == SIZE_MAX
		: size == tlvs->alpn_length && memcmp(value, tlvs->alpn, size) == 0,
	    "another protocol");
	size = find_tlv(at, end, 2, &value);
	PROPERTY(tlvs->authority == NULL
		? size == SIZE_MAX
		: size == strlen(tlvs->authority) && memcmp(value, tlvs->authority, size) == 0,
	    "another authority");
	size = find_tlv(at, end, 5, &value);
	PROPERTY(size == 16 && memcmp(value, tlvs->unique_id, size) == 0, "another unique ID");
	size = find_tlv(at, end, 3, &value);
	PROPERTY(size == 4, "no CRC32c");
	uint32_t sent = 0;
	for (size_t i = 0; i < size; i++)
		sent = sent << 8 | value[i];
	memset(bytes + (value - bytes), 0, size);
	PROPERTY(crc_of(bytes, length) == sent, "another CRC32c");
}

/* The header for a backend has the same addresses. Its extensions are made of the INPUT. */
static void
judge_addresses(const struct proxy_protocol_header *header, const uint8_t *input, size_t length)
{
	char authority[HOSTNAME_SIZE];
	memset(authority, 'a', sizeof authority);
	authority[input[length - 1] % HOSTNAME_SIZE] = '\0';
	size_t protocol_length = length % 5 == 0 ? 0 : length;
	if (protocol_length > PROTOCOL_MAX)
		protocol_length = PROTOCOL_MAX;
	struct proxy_protocol_tlvs tlvs = {
	    .alpn = input,
	    .alpn_length = protocol_length,
	    .authority = length % 3 == 0 ? NULL : authority,
	};
	memcpy(tlvs.unique_id, input + length - sizeof tlvs.unique_id, sizeof tlvs.unique_id);
	uint8_t bytes[PROXY_PROTOCOL_WRITTEN_MAX];
	struct proxy_protocol_header again;
	PROPERTY(header->client.any.sa_family == header->server.any.sa_family,
	    "addresses of two families");
	length = proxy_protocol_write_v1(bytes, &header->client, &header->server);
	PROPERTY(length <= LINE_MAX_LENGTH, "a line that is too long");
	PROPERTY(read_part(&again, bytes, length) == PROXY_PROTOCOL_OK && again.length == length &&
		say_the_same(header, &again),
	    "the line that is passed on says something else");
	length = proxy_protocol_write_v2(bytes, &header->client, &header->server, &tlvs);
	PROPERTY(length <= sizeof bytes, "a header that is too long");
	PROPERTY(read_part(&again, bytes, length) == PROXY_PROTOCOL_OK && again.length == length &&
		say_the_same(header, &again),
	    "the header that is passed on says something else");
	judge_tlvs(bytes, length, header->client.any.sa_family == AF_INET, &tlvs);
}

static void
judge_header(const struct proxy_protocol_header *header, const uint8_t *input, size_t length)
{
	struct proxy_protocol_header alone;
	PROPERTY(
	    header->length > 0 && header->length <= length && header->length <= PROXY_PROTOCOL_MAX,
	    "a header of %zu bytes", header->length);
	PROPERTY(read_part(&alone, input, header->length) == PROXY_PROTOCOL_OK &&
		alone.length == header->length && say_the_same(header, &alone),
	    "what follows matters");
	if (header->has_addresses)
		judge_addresses(header, input, length);
}

/* The result is the same however the bytes arrive, and final. */
static void
judge_parts(
    enum proxy_protocol_status whole, size_t header_length, const uint8_t *input, size_t length)
{
	struct proxy_protocol_header header;
	bool was_decided = false;
	for (size_t part = 0; part < length; part++) {
		enum proxy_protocol_status status = read_part(&header, input, part);
		PROPERTY(status == PROXY_PROTOCOL_INCOMPLETE || status == whole,
		    "%zu bytes: status %d, of all %d", part, (int)status, (int)whole);
		PROPERTY(status != PROXY_PROTOCOL_OK || part >= header_length,
		    "%zu bytes are enough of %zu", part, header_length);
		PROPERTY(!was_decided || status == whole, "decided, and then not");
		was_decided = status != PROXY_PROTOCOL_INCOMPLETE;
		if (part > header_length + 1 && was_decided)
			break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	struct proxy_protocol_header header;
	enum proxy_protocol_status status = read_part(&header, input, length);
	PROPERTY(status != PROXY_PROTOCOL_INCOMPLETE || length < PROXY_PROTOCOL_MAX,
	    "more than the longest, and no end");
	PROPERTY((status == PROXY_PROTOCOL_REFUSED) == (header.reason != NULL),
	    "refused for no reason, or not for a reason");
	if (status == PROXY_PROTOCOL_OK)
		judge_header(&header, input, length);
	judge_parts(status, status == PROXY_PROTOCOL_OK ? header.length : 0, input, length);
	return 0;
}

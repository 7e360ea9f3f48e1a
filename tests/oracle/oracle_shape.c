/* Finds what is odd about a hello. Reads past errors as far as possible, and shares no code with
 * tls.c. */
#include <string.h>

#include "tests/oracle/oracle.h"

enum { HANDSHAKE = 22, EXTENSION_ALPN = 16, EXTENSION_PRE_SHARED_KEY = 41 };

/* The number of WIDTH bytes at OFFSET; 0 past the end. */
static size_t
number(const struct bytes *bytes, size_t offset, size_t width)
{
	size_t value = 0;
	for (size_t i = 0; i < width; i++)
		value = value << 8 | (offset + i < bytes->length ? bytes->data[offset + i] : 0);
	return value;
}

static bool
is_whole(const struct bytes *message)
{
	return message->length >= 4 && message->length >= 4 + number(message, 1, 3);
}

/* Joins the fragments of the handshake records up to the hello's end, and ignores what is between
 * them. */
static void
join_records(const struct bytes *stream, struct shape *shape, struct bytes *message)
{
	size_t offset = 0;
	while (!is_whole(message) && offset + 5 <= stream->length) {
		size_t type = stream->data[offset];
		size_t length = number(stream, offset + 3, 2);
		offset += 5;
		shape->other_record |= type != HANDSHAKE;
		shape->empty_record |= length == 0;
		shape->other_bytes |= type != HANDSHAKE && length > 0;
		shape->long_record |= length > 1 << 14;
		shape->odd_version |= stream->data[offset - 4] != 3;
		shape->unended_record = length > stream->length - offset;
		if (shape->unended_record)
			length = stream->length - offset;
		if (type == HANDSHAKE)
			bytes_add(message, stream->data + offset, length);
		offset += length;
	}
	shape->whole = is_whole(message);
	if (!shape->whole)
		return;
	size_t length = 4 + number(message, 1, 3);
	shape->after_in_record = message->length > length;
	message->length = length;
}

static void
see_name(const struct bytes *message, size_t offset, size_t length, struct shape *shape)
{
	char canonical[HOSTNAME_SIZE];
	if (shape->host_names++ > 0)
		return;
	shape->valid_name = hostname_canonical(canonical, message->data + offset, length);
	shape->underscore = memchr(message->data + offset, '_', length) != NULL;
}

/* The content of a server_name extension. */
static void
see_names(const struct bytes *message, size_t offset, size_t end, struct shape *shape)
{
	size_t list_end = offset + 2 + number(message, offset, 2);
	shape->list_overrun = list_end != end || end < offset + 2;
	offset += 2;
	while (offset + 3 <= end) {
		size_t length = number(message, offset + 1, 2);
		if (offset + 3 + length > end) {
			shape->list_overrun = true;
			return;
		}
		if (message->data[offset] == 0) {
			see_name(message, offset + 3, length, shape);
		} else {
			shape->other_names++;
			shape->empty_other_name |= length == 0;
		}
		offset += 3 + length;
	}
	shape->list_overrun |= offset != end;
}

/* The content of an ALPN extension. */
static bool
is_malformed_alpn(const struct bytes *message, size_t offset, size_t end)
{
	bool malformed = end < offset + 4 || offset + 2 + number(message, offset, 2) != end;
	for (offset += 2; !malformed && offset < end; offset += 1 + number(message, offset, 1))
		malformed = number(message, offset, 1) == 0;
	return malformed || offset != end;
}

/* The offset of the extensions' length; past the end if there are none. */
static size_t
extensions_offset(const struct bytes *message, struct shape *shape)
{
	size_t offset = 4 + 2 + 32;
	offset += 1 + number(message, offset, 1);
	offset += 2 + number(message, offset, 2);
	size_t methods = number(message, offset, 1);
	shape->compression_methods = methods;
	for (size_t i = 1; i <= methods && offset + i < message->length; i++)
		shape->null_compression |= message->data[offset + i] == 0;
	return offset + 1 + methods;
}

static void
see_extensions(const struct bytes *message, size_t offset, struct shape *shape)
{
	static bool seen[0x10000];
	memset(seen, 0, sizeof seen);
	bool psk = false;
	while (offset + 4 <= message->length) {
		size_t type = number(message, offset, 2);
		size_t end = offset + 4 + number(message, offset + 2, 2);
		if (end > message->length)
			return;
		shape->psk_not_last |= psk;
		psk = type == EXTENSION_PRE_SHARED_KEY;
		if (type == EXTENSION_ALPN && !seen[type])
			shape->malformed_alpn = is_malformed_alpn(message, offset + 4, end);
		else if (type != 0 && type != EXTENSION_ALPN)
			shape->extension_twice |= seen[type];
		else if (type == 0 && shape->server_names++ == 0)
			see_names(message, offset + 4, end, shape);
		seen[type] = true;
		offset = end;
	}
}

void
shape_read(const struct bytes *stream, struct shape *shape)
{
	*shape = (struct shape){0};
	shape->sslv2 = stream->length > 2 && (stream->data[0] & 0x80) != 0 && stream->data[2] == 1;
	struct bytes message = {0};
	join_records(stream, shape, &message);
	if (shape->whole) {
		size_t offset = extensions_offset(&message, shape);
		see_extensions(&message, offset + 2, shape);
	}
	bytes_release(&message);
}

/* The byte of the stream that is the message's byte at OFFSET: record headers come in between. */
static uint8_t *
stream_byte(struct bytes *stream, size_t offset)
{
	size_t record = 0;
	while (record + 5 <= stream->length) {
		size_t length = number(stream, record + 3, 2);
		if (offset < length && record + 5 + offset < stream->length)
			return &stream->data[record + 5 + offset];
		offset -= length;
		record += 5 + length;
	}
	return NULL;
}

bool
shape_neutralize(const struct bytes *stream, struct bytes *out)
{
	struct shape shape = {0};
	struct bytes message = {0};
	join_records(stream, &shape, &message);
	bool clean = shape.whole && !shape.other_record;
	if (clean) {
		bytes_add(out, stream->data, stream->length);
		size_t unknown = 0x5000; /* not assigned */
		size_t offset = extensions_offset(&message, &shape) + 2;
		while (offset + 4 <= message.length) {
			if (number(&message, offset, 2) != 0) {
				*stream_byte(out, offset) = (uint8_t)(unknown >> 8);
				*stream_byte(out, offset + 1) = (uint8_t)unknown++;
			}
			offset += 4 + number(&message, offset + 2, 2);
		}
	}
	bytes_release(&message);
	return clean;
}

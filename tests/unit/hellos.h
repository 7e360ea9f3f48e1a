/* Builders for ClientHellos that are too large for the table in hello_cases.h. They do not know the
 * test framework. They abort if memory is short. */
#ifndef HELLOS_H
#define HELLOS_H

#include <stddef.h>
#include <stdint.h>

#include "tests/unit/hello_cases.h"

/* Bytes that grow. All zero is the start. */
struct bytes {
	uint8_t *data;
	size_t length;
	size_t capacity;
};

void bytes_add(struct bytes *out, const uint8_t *data, size_t length);
void bytes_add_fill(struct bytes *out, uint8_t value, size_t count);

/* Adds VALUE as an unsigned integer of WIDTH bytes, the most significant first. */
void bytes_add_integer(struct bytes *out, size_t value, size_t width);

/* Frees the bytes; OUT is empty then. */
void bytes_release(struct bytes *out);

/* Omits a vector and its length from a hello. */
#define HELLO_ABSENT SIZE_MAX

/* The sizes of a ClientHello's vectors in bytes, without their lengths. */
struct hello_sizes {
	size_t legacy_session_id;
	size_t cipher_suites;
	size_t legacy_compression_methods;
	size_t extensions;
	size_t host_name; /* in the first extension; another one pads the rest */
};

/* Adds a handshake message, a ClientHello with vectors of these SIZES, whether RFC 8446 allows them
 * or not. Its host_name is all 'a'. The rest of the extensions is nothing, or a header of four
 * bytes and padding. */
void hello_add_message(struct bytes *out, const struct hello_sizes *sizes);

/* Adds a handshake message of type client_hello with this BODY and the length of that. */
void hello_add_body(struct bytes *out, const uint8_t *body, size_t length);

/* Adds MESSAGE in records of up to RECORD_SIZE bytes each. */
void
hello_add_records(struct bytes *out, const uint8_t *message, size_t length, size_t record_size);

#endif

#include "tests/unit/hellos.h"

#include <stdlib.h>
#include <string.h>

void
bytes_add(struct bytes *out, const uint8_t *data, size_t length)
{
	if (length == 0)
		return;
	if (out->length + length > out->capacity) {
		out->capacity = 2 * (out->length + length);
		out->data = realloc(out->data, out->capacity);
		if (out->data == NULL)
			abort();
	}
	memcpy(out->data + out->length, data, length);
	out->length += length;
}

void
bytes_add_fill(struct bytes *out, uint8_t value, size_t count)
{
	uint8_t block[256];
	memset(block, value, sizeof block);
	while (count > 0) {
		size_t length = count < sizeof block ? count : sizeof block;
		bytes_add(out, block, length);
		count -= length;
	}
}

void
bytes_add_integer(struct bytes *out, size_t value, size_t width)
{
	for (size_t i = 0; i < width; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * (width - 1 - i));
		bytes_add(out, &byte, 1);
	}
}

void
bytes_release(struct bytes *out)
{
	free(out->data);
	*out = (struct bytes){0};
}

/* Adds a vector of SIZE bytes that are all VALUE, behind a length of WIDTH bytes. */
static void
add_vector(struct bytes *out, size_t width, uint8_t value, size_t size)
{
	if (size == HELLO_ABSENT)
		return;
	bytes_add_integer(out, size, width);
	bytes_add_fill(out, value, size);
}

static void
add_extensions(struct bytes *out, const struct hello_sizes *sizes)
{
	size_t left = sizes->extensions;
	bytes_add_integer(out, left, 2);
	if (sizes->host_name != HELLO_ABSENT) {
		bytes_add_integer(out, 0, 2);                    /* server_name */
		bytes_add_integer(out, sizes->host_name + 5, 2); /* extension_data */
		bytes_add_integer(out, sizes->host_name + 3, 2); /* server_name_list */
		bytes_add_integer(out, 0, 1);                    /* host_name */
		add_vector(out, 2, 'a', sizes->host_name);
		left -= sizes->host_name + 9;
	}
	if (left > 0) {
		bytes_add_integer(out, 21, 2); /* padding (RFC 7685) */
		add_vector(out, 2, 0, left - 4);
	}
}

void
hello_add_message(struct bytes *out, const struct hello_sizes *sizes)
{
	struct bytes body = {0};
	bytes_add_integer(&body, 0x0303, 2); /* legacy_version */
	bytes_add_fill(&body, 0xaa, 32);     /* random */
	add_vector(&body, 1, 0xbb, sizes->legacy_session_id);
	add_vector(&body, 2, 0x13, sizes->cipher_suites);
	add_vector(&body, 1, 0x00, sizes->legacy_compression_methods);
	if (sizes->extensions != HELLO_ABSENT)
		add_extensions(&body, sizes);
	hello_add_body(out, body.data, body.length);
	bytes_release(&body);
}

void
hello_add_body(struct bytes *out, const uint8_t *body, size_t length)
{
	bytes_add_integer(out, 1, 1); /* msg_type: client_hello */
	bytes_add_integer(out, length, 3);
	bytes_add(out, body, length);
}

void
hello_add_records(struct bytes *out, const uint8_t *message, size_t length, size_t record_size)
{
	while (length > 0) {
		size_t fragment = length < record_size ? length : record_size;
		bytes_add_integer(out, 22, 1);     /* type: handshake */
		bytes_add_integer(out, 0x0301, 2); /* legacy_record_version */
		bytes_add_integer(out, fragment, 2);
		bytes_add(out, message, fragment);
		message += fragment;
		length -= fragment;
	}
}

/* The hellos of the table. A length is a number if a hello is shown whole, or if the test is about
 * that length; otherwise RECORD and CLIENT_HELLO compute it. */

#define COUNT(...) sizeof((const uint8_t[]){__VA_ARGS__})
#define LENGTH16(...) (uint8_t)(COUNT(__VA_ARGS__) >> 8), (uint8_t)COUNT(__VA_ARGS__)

/* A record of type handshake: type, legacy_record_version, length, fragment. */
#define RECORD(...) 22, 0x03, 0x01, LENGTH16(__VA_ARGS__), __VA_ARGS__

/* The same with a ClientHello in it: msg_type, length, body. */
#define CLIENT_HELLO(...) RECORD(1, 0, LENGTH16(__VA_ARGS__), __VA_ARGS__)

#define REPEAT_4(byte) byte, byte, byte, byte
#define REPEAT_16(byte) REPEAT_4(byte), REPEAT_4(byte), REPEAT_4(byte), REPEAT_4(byte)
#define REPEAT_32(byte) REPEAT_16(byte), REPEAT_16(byte)
#define REPEAT_64(byte) REPEAT_32(byte), REPEAT_32(byte)
#define REPEAT_304(byte) \
	REPEAT_64(byte), REPEAT_64(byte), REPEAT_64(byte), REPEAT_64(byte), REPEAT_32(byte), \
	    REPEAT_16(byte)
#define REPEAT_1216(byte) REPEAT_304(byte), REPEAT_304(byte), REPEAT_304(byte), REPEAT_304(byte)

#define RANDOM REPEAT_32(0xaa)

/* clang-format off */

/* 12 bytes */
#define BLOG_EXAMPLE 'b', 'l', 'o', 'g', '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e'

/* The shortest ClientHello up to its extensions: 41 bytes. */
#define HEAD \
	0x03, 0x03,                     /* legacy_version */ \
	RANDOM, \
	0x00,                           /* legacy_session_id */ \
	0x00, 0x02,                     /* cipher_suites */ \
		0x13, 0x01,             /* TLS_AES_128_GCM_SHA256 */ \
	0x01,                           /* legacy_compression_methods */ \
		0x00                    /* null */

/* A well-formed extension: 21 bytes. */
#define SERVER_NAME \
	0x00, 0x00,                     /* extension_type: server_name */ \
	0x00, 0x11,                     /* extension_data */ \
		0x00, 0x0f,             /* server_name_list */ \
			0x00,           /* name_type: host_name */ \
			0x00, 0x0c,     /* HostName */ \
				BLOG_EXAMPLE

/* Another one: 6 bytes. */
#define PSK_MODES \
	0x00, 0x2d,                     /* extension_type: psk_key_exchange_modes */ \
	0x00, 0x02,                     /* extension_data */ \
		0x01,                   /* ke_modes */ \
			0x01            /* psk_dhe_ke */

#define BYTES(...) .bytes = (const uint8_t[]){__VA_ARGS__}, .length = COUNT(__VA_ARGS__)

#define NAMED(text, ...) \
	.status = TLS_OK, .name = text, .name_length = sizeof text - 1, BYTES(__VA_ARGS__)

#define REFUSED(why, ...) .status = TLS_REFUSED, .alert = why, BYTES(__VA_ARGS__)

/* Precedes the two above: ALPN offers COUNT protocols, TEXT first. */
#define OFFERS(count, text) \
	.protocols = count, .protocol = text, .protocol_length = sizeof text - 1

const struct hello_case hello_cases[] = {

/* Hellos that name a server. */

{"a TLS 1.2 hello", NAMED("blog.example",
	22,                                     /* type: handshake */
	0x03, 0x01,                             /* legacy_record_version */
	0x00, 0x68,                             /* length */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x64,               /* length */
			0x03, 0x03,             /* legacy_version */
			RANDOM,
			0x00,                   /* legacy_session_id */
			0x00, 0x08,             /* cipher_suites */
				0xc0, 0x2b,     /* ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 */
				0xc0, 0x2f,     /* ECDHE_RSA_WITH_AES_128_GCM_SHA256 */
				0x00, 0x9c,     /* RSA_WITH_AES_128_GCM_SHA256 */
				0x00, 0xff,     /* EMPTY_RENEGOTIATION_INFO_SCSV */
			0x01,                   /* legacy_compression_methods */
				0x00,           /* null */
			0x00, 0x33,             /* extensions */
				0x00, 0x00,     /* extension_type: server_name */
				0x00, 0x11,     /* extension_data */
					0x00, 0x0f,             /* server_name_list */
						0x00,           /* name_type: host_name */
						0x00, 0x0c,     /* HostName */
							BLOG_EXAMPLE,
				0x00, 0x0a,     /* extension_type: supported_groups */
				0x00, 0x06,     /* extension_data */
					0x00, 0x04,             /* named_group_list */
						0x00, 0x1d,     /* x25519 */
						0x00, 0x17,     /* secp256r1 */
				0x00, 0x0b,     /* extension_type: ec_point_formats */
				0x00, 0x02,     /* extension_data */
					0x01,                   /* ec_point_format_list */
						0x00,           /* uncompressed */
				0x00, 0x0d,     /* extension_type: signature_algorithms */
				0x00, 0x06,     /* extension_data */
					0x00, 0x04,   /* supported_signature_algorithms */
						0x08, 0x07,     /* ed25519 */
						0x08, 0x04,     /* rsa_pss_rsae_sha256 */
				0x00, 0x17,   /* extension_type: extended_master_secret */
				0x00, 0x00      /* extension_data */
)},
{"a TLS 1.3 hello", OFFERS(2, "h2"), NAMED("blog.example",
	22,                                     /* type: handshake */
	0x03, 0x01,                             /* legacy_record_version */
	0x00, 0xc5,                             /* length */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0xc1,               /* length */
			0x03, 0x03,             /* legacy_version */
			RANDOM,
			0x20,                   /* legacy_session_id */
				REPEAT_32(0xbb),
			0x00, 0x06,             /* cipher_suites */
				0x13, 0x01,     /* TLS_AES_128_GCM_SHA256 */
				0x13, 0x02,     /* TLS_AES_256_GCM_SHA384 */
				0x13, 0x03,     /* TLS_CHACHA20_POLY1305_SHA256 */
			0x01,                   /* legacy_compression_methods */
				0x00,           /* null */
			0x00, 0x72,             /* extensions */
				0x00, 0x2b,     /* extension_type: supported_versions */
				0x00, 0x05,     /* extension_data */
					0x04,                   /* versions */
						0x03, 0x04,     /* TLS 1.3 */
						0x03, 0x03,     /* TLS 1.2 */
				0x00, 0x00,     /* extension_type: server_name */
				0x00, 0x11,     /* extension_data */
					0x00, 0x0f,             /* server_name_list */
						0x00,           /* name_type: host_name */
						0x00, 0x0c,     /* HostName */
							BLOG_EXAMPLE,
				0x00, 0x0a,     /* extension_type: supported_groups */
				0x00, 0x04,     /* extension_data */
					0x00, 0x02,             /* named_group_list */
						0x00, 0x1d,     /* x25519 */
				0x00, 0x0d,     /* extension_type: signature_algorithms */
				0x00, 0x06,     /* extension_data */
					0x00, 0x04,   /* supported_signature_algorithms */
						0x08, 0x07,     /* ed25519 */
						0x08, 0x04,     /* rsa_pss_rsae_sha256 */
				0x00, 0x33,     /* extension_type: key_share */
				0x00, 0x26,     /* extension_data */
					0x00, 0x24,             /* client_shares */
						0x00, 0x1d,     /* group: x25519 */
						0x00, 0x20,     /* key_exchange */
							REPEAT_32(0xcc),
				0x00, 0x2d,   /* extension_type: psk_key_exchange_modes */
				0x00, 0x02,     /* extension_data */
					0x01,                   /* ke_modes */
						0x01,           /* psk_dhe_ke */
				0x00, 0x10,     /* extension_type: ALPN */
				0x00, 0x0e,     /* extension_data */
					0x00, 0x0c,             /* protocol_name_list */
						0x02, 'h', '2',
						0x08, 'h', 't', 't', 'p', '/',
						      '1', '.', '1'
)},
{"a post-quantum key share beside a classic one", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x05, 0x03,                     /* extensions */
			0x00, 0x33,             /* extension_type: key_share */
			0x04, 0xea,             /* extension_data */
				0x04, 0xe8,             /* client_shares */
					0x11, 0xec,     /* group: X25519MLKEM768 */
					0x04, 0xc0,     /* key_exchange */
						REPEAT_1216(0xcc),
					0x00, 0x1d,     /* group: x25519 */
					0x00, 0x20,     /* key_exchange */
						REPEAT_32(0xcc),
			SERVER_NAME)
)},
{"GREASE wherever it may be (RFC 8701)", NAMED("blog.example",
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x00,                           /* legacy_session_id */
		0x00, 0x04,                     /* cipher_suites */
			0x0a, 0x0a,             /* GREASE */
			0x13, 0x01,             /* TLS_AES_128_GCM_SHA256 */
		0x01,                           /* legacy_compression_methods */
			0x00,                   /* null */
		0x00, 0x3e,                     /* extensions */
			0x1a, 0x1a,             /* extension_type: GREASE */
			0x00, 0x00,             /* extension_data */
			SERVER_NAME,
			0x00, 0x0a,             /* extension_type: supported_groups */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* named_group_list */
					0x2a, 0x2a,     /* GREASE */
					0x00, 0x1d,     /* x25519 */
			0x00, 0x2b,             /* extension_type: supported_versions */
			0x00, 0x07,             /* extension_data */
				0x06,                   /* versions */
					0x3a, 0x3a,     /* GREASE */
					0x03, 0x04,     /* TLS 1.3 */
					0x03, 0x03,     /* TLS 1.2 */
			0x00, 0x33,             /* extension_type: key_share */
			0x00, 0x07,             /* extension_data */
				0x00, 0x05,             /* client_shares */
					0x4a, 0x4a,     /* group: GREASE */
					0x00, 0x01,     /* key_exchange */
						0x00,
			0x5a, 0x5a,             /* extension_type: GREASE */
			0x00, 0x01,             /* extension_data */
				0x00)
)},
{"encrypted_client_hello: the outer name counts", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x58,                     /* extensions */
			0xfe, 0x0d,           /* extension_type: encrypted_client_hello */
			0x00, 0x3f,             /* extension_data */
				0x00,                   /* type: outer */
				0x00, 0x01, 0x00, 0x01, /* cipher_suite */
				0x2a,                   /* config_id */
				0x00, 0x20,             /* enc */
					REPEAT_32(0xcc),
				0x00, 0x15,     /* payload, which is not read */
					0x00, 0x00,
					0x00, 0x11,
						0x00, 0x0f,
							0x00,
							0x00, 0x0c,
								'e', 'v', 'i', 'l',
								'.', 'e', 'x', 'a',
								'm', 'p', 'l', 'e',
			SERVER_NAME)
)},
{"versions that nobody speaks", NAMED("blog.example",
	22,                                     /* type: handshake */
	0x7f, 0xff,                             /* legacy_record_version */
	0x00, 0x44,                             /* length */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x40,               /* length */
			0x00, 0x02,             /* legacy_version */
			RANDOM,
			0x00,                   /* legacy_session_id */
			0x00, 0x02,             /* cipher_suites */
				0x00, 0x05,     /* RSA_WITH_RC4_128_SHA */
			0x01,                   /* legacy_compression_methods */
				0x00,           /* null */
			0x00, 0x15,             /* extensions */
				SERVER_NAME
)},
{"a handshake header split over records of different versions", NAMED("blog.example",
	22, 0x03, 0x01, 0x00, 0x01,             /* record */
		1,                              /* msg_type: client_hello */
	22, 0x03, 0x03, 0x00, 0x02,             /* record */
		0x00, 0x00,                     /* length: its upper two thirds */
	22, 0x03, 0x00, 0x00, 0x41,             /* record */
		0x40,                           /* length: the rest */
			HEAD,
			0x00, 0x15,             /* extensions */
				SERVER_NAME
)},
{"early data after the hello", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1f,                     /* extensions */
			SERVER_NAME,
			0x00, 0x2a,             /* extension_type: early_data */
			0x00, 0x00,             /* extension_data */
			PSK_MODES),
	20,                                     /* type: change_cipher_spec */
	0x03, 0x03,                             /* legacy_record_version */
	0x00, 0x01,                             /* length */
		0x01,
	23,                                     /* type: application_data */
	0x03, 0x03,                             /* legacy_record_version */
	0x00, 0x20,                             /* length */
		REPEAT_32(0xdd)
)},
{"another message in the same record", NAMED("blog.example",
	22,                                     /* type: handshake */
	0x03, 0x01,                             /* legacy_record_version */
	0x00, 0x48,                             /* length */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x40,               /* length */
			HEAD,
			0x00, 0x15,             /* extensions */
				SERVER_NAME,
		2,                              /* msg_type: server_hello */
		0xff, 0xff, 0xff                /* length */
)},
{"an empty record after the hello", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME),
	22, 0x03, 0x01, 0x00, 0x00              /* record */
)},
{"server_name before others", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			SERVER_NAME,
			PSK_MODES)
)},
{"server_name after others", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			PSK_MODES,
			SERVER_NAME)
)},
{"an unknown extension twice, with nothing in it", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1d,                     /* extensions */
			0x7a, 0x7b,             /* extension_type: unknown */
			0x00, 0x00,             /* extension_data */
			SERVER_NAME,
			0x7a, 0x7b,             /* extension_type: unknown */
			0x00, 0x00)             /* extension_data */
)},
{"a name of another type before the host_name", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1a,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x16,             /* extension_data */
				0x00, 0x14,             /* server_name_list */
					0x07,           /* name_type: unknown */
					0x00, 0x02,     /* its length */
						0x00, 0xff,
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE)
)},
{"names of another type after the host_name", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x17,             /* extension_data */
				0x00, 0x15,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
					0xff,           /* name_type: unknown */
					0x00, 0x00,     /* its length */
					0xff,           /* name_type: unknown */
					0x00, 0x00)     /* its length */
)},
{"a name in capitals is handed on as it is", NAMED("BLOG.Example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x11,             /* extension_data */
				0x00, 0x0f,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						'B', 'L', 'O', 'G', '.', 'E',
						'x', 'a', 'm', 'p', 'l', 'e')
)},
{"bytes that no name has are handed on as they are", NAMED("a\0/\xff",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0d,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x09,             /* extension_data */
				0x00, 0x07,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x04,     /* HostName */
						'a', 0x00, '/', 0xff)
)},
{"an empty host_name is handed on for others to judge", NAMED("",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x09,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x00)     /* HostName */
)},

/* Hellos that offer protocols by ALPN (RFC 7301). */

{"one ALPN protocol", OFFERS(1, "h2"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1e,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2')
)},
{"acme-tls/1 as the one ALPN protocol", OFFERS(1, "acme-tls/1"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x2c,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x0d,             /* extension_data */
				0x00, 0x0b,             /* protocol_name_list */
					0x0a, 'a', 'c', 'm', 'e', '-',
					      't', 'l', 's', '/', '1',
			PSK_MODES,
			SERVER_NAME)
)},
{"ALPN before server_name", OFFERS(3, "http/1.1"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x32,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x19,             /* extension_data */
				0x00, 0x17,             /* protocol_name_list */
					0x08, 'h', 't', 't', 'p', '/',
					      '1', '.', '1',
					0x0a, 'a', 'c', 'm', 'e', '-',
					      't', 'l', 's', '/', '1',
					0x02, 'h', '2',
			SERVER_NAME)
)},
{"the same ALPN protocol twice", OFFERS(2, "h2"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x21,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x08,             /* extension_data */
				0x00, 0x06,             /* protocol_name_list */
					0x02, 'h', '2',
					0x02, 'h', '2')
)},
{"GREASE as the first ALPN protocol (RFC 8701)", OFFERS(2, "\x0a\x0a"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x21,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x08,             /* extension_data */
				0x00, 0x06,             /* protocol_name_list */
					0x02, 0x0a, 0x0a,
					0x02, 'h', '2')
)},
{"an ALPN protocol that is a NUL", OFFERS(1, "\0"), NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1d,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x04,             /* extension_data */
				0x00, 0x02,             /* protocol_name_list */
					0x01, 0x00)
)},
{"ALPN inside another extension", NAMED("blog.example",
	CLIENT_HELLO(
		HEAD,
		0x00, 0x22,                     /* extensions */
			0x7a, 0x7b,             /* extension_type: unknown */
			0x00, 0x09,             /* extension_data */
				0x00, 0x10,
				0x00, 0x05,
					0x00, 0x03,
						0x02, 'h', '2',
			SERVER_NAME)
)},

/* Hellos that name none. */

{"no extensions field", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(HEAD)
)},
{"extensions of no bytes", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x00)                     /* extensions */
)},
{"extensions of 4 bytes", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x04,                     /* extensions */
			0x00, 0x17,   /* extension_type: extended_master_secret */
			0x00, 0x00)             /* extension_data */
)},
{"extensions of 6 bytes", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x06,                     /* extensions */
			PSK_MODES)
)},
{"no server_name extension", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0c,                     /* extensions */
			PSK_MODES,
			PSK_MODES)
)},
{"no host_name among the names", REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x11,             /* extension_data */
				0x00, 0x0f,             /* server_name_list */
					0x01,           /* name_type: unknown */
					0x00, 0x0c,     /* its length */
						BLOG_EXAMPLE)
)},
{"ALPN in a hello without a name", OFFERS(2, "h2"), REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0d,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x09,             /* extension_data */
				0x00, 0x07,             /* protocol_name_list */
					0x02, 'h', '2',
					0x03, 'f', 'o', 'o')
)},
{"ALPN after a name of another type", OFFERS(1, "h2"), REFUSED(TLS_UNRECOGNIZED_NAME,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x13,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* server_name_list */
					0x01,           /* name_type: unknown */
					0x00, 0x01,     /* its length */
						'a',
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2')
)},

/* Bytes that are not TLS, or not its beginning. */

{"HTTP", REFUSED(TLS_UNEXPECTED_MESSAGE,
	'G', 'E', 'T', ' ', '/', ' ', 'H', 'T', 'T', 'P', '/', '1', '.', '1', '\r', '\n'
)},
{"SSH", REFUSED(TLS_UNEXPECTED_MESSAGE,
	'S', 'S', 'H', '-', '2', '.', '0', '-', 'x', '\r', '\n'
)},
{"an SSLv2 hello", REFUSED(TLS_UNEXPECTED_MESSAGE,
	0x80, 0x1c,                             /* length */
		1,                              /* MSG-TYPE: CLIENT-HELLO */
		0x03, 0x01,                     /* version */
		0x00, 0x03,                     /* cipher specs */
		0x00, 0x00,                     /* session id */
		0x00, 0x10,                     /* challenge */
			0x00, 0x00, 0x2f,
			REPEAT_16(0xaa)
)},
{"an alert first", REFUSED(TLS_UNEXPECTED_MESSAGE,
	21,                                     /* type: alert */
	0x03, 0x01,                             /* legacy_record_version */
	0x00, 0x02,                             /* length */
		0x01, 0x00,                     /* warning, close_notify */
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"a change_cipher_spec first", REFUSED(TLS_UNEXPECTED_MESSAGE,
	20,                                     /* type: change_cipher_spec */
	0x03, 0x03,                             /* legacy_record_version */
	0x00, 0x01,                             /* length */
		0x01,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"application data first", REFUSED(TLS_UNEXPECTED_MESSAGE,
	23,                                     /* type: application_data */
	0x03, 0x03,                             /* legacy_record_version */
	0x00, 0x01,                             /* length */
		0x01
)},
{"an alert between fragments", REFUSED(TLS_UNEXPECTED_MESSAGE,
	22, 0x03, 0x01, 0x00, 0x2d,             /* record */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x40,               /* length */
			HEAD,
	21, 0x03, 0x01, 0x00, 0x02,             /* record of type alert */
		0x01, 0x00,                     /* warning, close_notify */
	22, 0x03, 0x01, 0x00, 0x17,             /* record */
			0x00, 0x15,             /* extensions */
				SERVER_NAME
)},
{"application data inside the handshake header", REFUSED(TLS_UNEXPECTED_MESSAGE,
	22, 0x03, 0x01, 0x00, 0x02,             /* record */
		1,                              /* msg_type: client_hello */
		0x00,                           /* length: its upper third */
	23, 0x03, 0x01, 0x00, 0x01,             /* record of type application_data */
		0x00
)},
{"a hello_request", REFUSED(TLS_UNEXPECTED_MESSAGE,
	RECORD(
		0,                              /* msg_type: hello_request */
		0x00, 0x00, 0x00)               /* length */
)},
{"a server_hello", REFUSED(TLS_UNEXPECTED_MESSAGE,
	RECORD(
		2,                              /* msg_type: server_hello */
		0x00, 0x00, 0x40,               /* length */
			HEAD,
			0x00, 0x15,             /* extensions */
				SERVER_NAME)
)},

/* Records and messages with a wrong length of their own. */

{"an empty record first", REFUSED(TLS_DECODE_ERROR,
	22, 0x03, 0x01, 0x00, 0x00,             /* record */
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"an empty record between fragments", REFUSED(TLS_DECODE_ERROR,
	22, 0x03, 0x01, 0x00, 0x2d,             /* record */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x40,               /* length */
			HEAD,
	22, 0x03, 0x01, 0x00, 0x00,             /* record */
	22, 0x03, 0x01, 0x00, 0x17,             /* record */
			0x00, 0x15,             /* extensions */
				SERVER_NAME
)},
{"a record of 2^14 + 1 bytes", REFUSED(TLS_RECORD_OVERFLOW,
	22, 0x03, 0x01, 0x40, 0x01              /* record */
)},
{"a record of 2^16 - 1 bytes", REFUSED(TLS_RECORD_OVERFLOW,
	22, 0x03, 0x01, 0xff, 0xff              /* record */
)},
{"a second record of 2^14 + 1 bytes", REFUSED(TLS_RECORD_OVERFLOW,
	22, 0x03, 0x01, 0x00, 0x01,             /* record */
		1,                              /* msg_type: client_hello */
	22, 0x03, 0x01, 0x40, 0x01              /* record */
)},
{"a hello one byte longer than any can be", REFUSED(TLS_DECODE_ERROR,
	22, 0x03, 0x01, 0x40, 0x00,             /* record */
		1,                              /* msg_type: client_hello */
		0x02, 0x01, 0x45                /* length: 131397 */
)},
{"a hello of 2^24 - 1 bytes", REFUSED(TLS_DECODE_ERROR,
	22, 0x03, 0x01, 0x40, 0x00,             /* record */
		1,                              /* msg_type: client_hello */
		0xff, 0xff, 0xff                /* length */
)},
{"a hello of no bytes", REFUSED(TLS_DECODE_ERROR,
	RECORD(
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x00)               /* length */
)},
{"a hello that ends inside its random", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		REPEAT_16(0xaa))
)},
{"a message one byte shorter than its extensions", REFUSED(TLS_DECODE_ERROR,
	22, 0x03, 0x01, 0x00, 0x44,             /* record */
		1,                              /* msg_type: client_hello */
		0x00, 0x00, 0x3f,               /* length: without the last byte */
			HEAD,
			0x00, 0x15,             /* extensions */
				SERVER_NAME
)},

/* Vectors shorter than their floor, longer than their ceiling, or of another length than their
 * content. */

{"a legacy_session_id of 33 bytes", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x21,                           /* legacy_session_id */
			REPEAT_32(0xbb), 0xbb,
		0x00, 0x02,                     /* cipher_suites */
			0x13, 0x01,
		0x01,                           /* legacy_compression_methods */
			0x00,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"no cipher_suites", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x00,                           /* legacy_session_id */
		0x00, 0x00,                     /* cipher_suites */
		0x01,                           /* legacy_compression_methods */
			0x00,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"one and a half cipher_suites", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x00,                           /* legacy_session_id */
		0x00, 0x03,                     /* cipher_suites */
			0x13, 0x01,
			0x13,
		0x01,                           /* legacy_compression_methods */
			0x00,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"cipher_suites that swallow the rest", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x00,                           /* legacy_session_id */
		0xff, 0xfe,                     /* cipher_suites */
			0x13, 0x01,
		0x01,                           /* legacy_compression_methods */
			0x00,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"no legacy_compression_methods", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		0x03, 0x03,                     /* legacy_version */
		RANDOM,
		0x00,                           /* legacy_session_id */
		0x00, 0x02,                     /* cipher_suites */
			0x13, 0x01,
		0x00,                           /* legacy_compression_methods */
		0x00, 0x15,                     /* extensions */
			SERVER_NAME)
)},
{"half a length of the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00)                           /* extensions */
)},
{"extensions of 3 bytes", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x03,                     /* extensions */
			0x00, 0x2d,             /* extension_type */
			0x00)                   /* extension_data: half its length */
)},
{"extensions of 5 bytes, the last one too many", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x05,                     /* extensions */
			0x00, 0x17,   /* extension_type: extended_master_secret */
			0x00, 0x00,             /* extension_data */
			0x00)                   /* extension_type: its upper half */
)},
{"extensions of 4 bytes, a server_name with nothing in it", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x04,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x00)             /* extension_data */
)},
{"extensions longer than the message", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x16,                     /* extensions: one more than there is */
			SERVER_NAME)
)},
{"a byte after the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME,
		0x00)
)},
{"other extensions after the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			SERVER_NAME,
		0x00, 0x15,
			SERVER_NAME)
)},
{"a byte after the last extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x16,                     /* extensions */
			SERVER_NAME,
			0x00)                   /* extension_type: its upper half */
)},
{"three bytes after the last extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x18,                     /* extensions */
			SERVER_NAME,
			0x00, 0x2d,             /* extension_type */
			0x00)                   /* extension_data: half its length */
)},
{"an extension longer than the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			SERVER_NAME,
			0x00, 0x2d,             /* extension_type */
			0x00, 0x03,             /* extension_data: one more */
				0x01, 0x01)
)},
{"a server_name extension longer than the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x12,             /* extension_data: one more */
				0x00, 0x0f,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE)
)},
{"a server_name extension with nothing in it", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0a,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x00,             /* extension_data */
			PSK_MODES)
)},
{"a server_name_list with nothing in it", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0c,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x02,             /* extension_data */
				0x00, 0x00,             /* server_name_list */
			PSK_MODES)
)},
{"half a length of the server_name_list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x0b,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x01,             /* extension_data */
				0x00,                   /* server_name_list */
			PSK_MODES)
)},
{"a server_name_list longer than its extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x11,             /* extension_data */
				0x00, 0x10,             /* server_name_list: one more */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
			PSK_MODES)
)},
{"a server_name_list shorter than its extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x16,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x12,             /* extension_data: one more */
				0x00, 0x0f,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
				0x00)
)},
{"a host_name longer than the server_name_list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1b,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x11,             /* extension_data */
				0x00, 0x0f,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0d,     /* HostName: one more */
						BLOG_EXAMPLE,
			PSK_MODES)
)},
{"a host_name shorter than the server_name_list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x15,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x11,             /* extension_data */
				0x00, 0x0f,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0b,     /* HostName: one less */
						BLOG_EXAMPLE)
)},
{"a name of another type longer than the server_name_list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x18,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x14,             /* extension_data */
				0x00, 0x12,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
					0x01,           /* name_type: unknown */
					0x00, 0x01)     /* its length: one more */
)},
{"a name_type without a name", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x16,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x12,             /* extension_data */
				0x00, 0x10,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
					0x00)           /* name_type: host_name */
)},

/* ALPN extensions that are malformed, or too many. */

{"an ALPN extension with nothing in it", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x19,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x00)             /* extension_data */
)},
{"half a length of the protocol_name_list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1a,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x01,             /* extension_data */
				0x00)                   /* protocol_name_list */
)},
{"a protocol_name_list with nothing in it", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x21,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x02,             /* extension_data */
				0x00, 0x00,             /* protocol_name_list */
			PSK_MODES)
)},
{"a protocol_name_list of one byte", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1c,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x03,             /* extension_data */
				0x00, 0x01,             /* protocol_name_list */
					0x00)
)},
{"an empty ALPN protocol first", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1f,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* protocol_name_list */
					0x00,
					0x02, 'h', '2')
)},
{"an empty ALPN protocol between others", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x22,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x09,             /* extension_data */
				0x00, 0x07,             /* protocol_name_list */
					0x02, 'h', '2',
					0x00,
					0x02, 'h', '2',
			SERVER_NAME)
)},
{"an empty ALPN protocol last", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1f,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* protocol_name_list */
					0x02, 'h', '2',
					0x00)
)},
{"a protocol_name_list longer than its extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x24,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x04,             /* protocol_name_list: one more */
					0x02, 'h', '2',
			PSK_MODES)
)},
{"a protocol_name_list shorter than its extension", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1f,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x06,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
					0x00)
)},
{"a protocol_name_list beside other bytes", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x21,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x08,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
					0x02, 'h', '2')
)},
{"an ALPN protocol longer than the list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x24,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x03, 'h', '2',
			PSK_MODES)
)},
{"a second ALPN protocol longer than the list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x27,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x08,             /* extension_data */
				0x00, 0x06,             /* protocol_name_list */
					0x02, 'h', '2',
					0xff, 'h', '2',
			PSK_MODES)
)},
{"an ALPN protocol shorter than the list", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1e,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x01, 'h', '2')
)},
{"an ALPN extension longer than the extensions", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1e,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x06,             /* extension_data: one more */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2')
)},
{"a malformed ALPN extension and no server_name", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x06,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x02,             /* extension_data */
				0x00, 0x00)             /* protocol_name_list */
)},
{"two ALPN extensions", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x28,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* protocol_name_list */
					0x03, 'f', 'o', 'o')
)},
{"the same ALPN extension twice", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x27,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2')
)},
{"two ALPN extensions, the second empty", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x22,                     /* extensions */
			SERVER_NAME,
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x00)             /* extension_data */
)},
{"two ALPN extensions and no server_name", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x12,                     /* extensions */
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2',
			0x00, 0x10,             /* extension_type: ALPN */
			0x00, 0x05,             /* extension_data */
				0x00, 0x03,             /* protocol_name_list */
					0x02, 'h', '2')
)},

/* More names than one. */

{"two host_names", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x19,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x15,             /* extension_data */
				0x00, 0x13,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE,
					0x00,           /* name_type: host_name */
					0x00, 0x01,     /* HostName */
						'a')
)},
{"two host_names, the first empty", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x18,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x14,             /* extension_data */
				0x00, 0x12,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x00,     /* HostName */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE)
)},
{"two host_names around a name of another type", REFUSED(TLS_DECODE_ERROR,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1c,                     /* extensions */
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x18,             /* extension_data */
				0x00, 0x16,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x01,     /* HostName */
						'a',
					0x01,           /* name_type: unknown */
					0x00, 0x00,     /* its length */
					0x00,           /* name_type: host_name */
					0x00, 0x0c,     /* HostName */
						BLOG_EXAMPLE)
)},
{"two server_name extensions", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x1f,                     /* extensions */
			SERVER_NAME,
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x06,             /* extension_data */
				0x00, 0x04,             /* server_name_list */
					0x00,           /* name_type: host_name */
					0x00, 0x01,     /* HostName */
						'a')
)},
{"the same server_name extension twice", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x30,                     /* extensions */
			SERVER_NAME,
			PSK_MODES,
			SERVER_NAME)
)},
{"two server_name extensions, the second empty", REFUSED(TLS_ILLEGAL_PARAMETER,
	CLIENT_HELLO(
		HEAD,
		0x00, 0x19,                     /* extensions */
			SERVER_NAME,
			0x00, 0x00,             /* extension_type: server_name */
			0x00, 0x00)             /* extension_data */
)},
};
/* clang-format on */

const size_t hello_case_count = sizeof hello_cases / sizeof *hello_cases;

/* The intended differences, the more special ones first: each hello counts for the first that
 * matches. */
#include "tests/oracle/oracle.h"

static bool
invalid_name(const struct difference *difference)
{
	return difference->ours->alert == TLS_UNRECOGNIZED_NAME &&
	    difference->shape->host_names > 0 && !difference->shape->valid_name;
}

static bool
empty_record(const struct difference *difference)
{
	const struct shape *shape = difference->shape;
	int alert = shape->other_record ? TLS_UNEXPECTED_MESSAGE : TLS_DECODE_ERROR;
	return difference->ours->alert == alert && shape->empty_record && !shape->other_bytes;
}

static bool
other_record(const struct difference *difference)
{
	return difference->ours->alert == TLS_UNEXPECTED_MESSAGE &&
	    difference->shape->other_record && !difference->shape->sslv2;
}

static bool
sslv2(const struct difference *difference)
{
	return difference->ours->alert == TLS_UNEXPECTED_MESSAGE && difference->shape->sslv2;
}

static bool
long_record(const struct difference *difference)
{
	return difference->ours->alert == TLS_RECORD_OVERFLOW && difference->shape->long_record;
}

static bool
two_host_names(const struct difference *difference)
{
	return difference->ours->alert == TLS_DECODE_ERROR && difference->shape->host_names > 1;
}

static bool
list_overrun(const struct difference *difference)
{
	return difference->ours->alert == TLS_DECODE_ERROR && difference->shape->list_overrun;
}

static bool
malformed_alpn(const struct difference *difference)
{
	return difference->ours->alert == TLS_DECODE_ERROR && difference->shape->malformed_alpn;
}

static bool
underscore(const struct difference *difference)
{
	return difference->shape->underscore;
}

static bool
other_name_type(const struct difference *difference)
{
	return difference->shape->other_names > 0;
}

static bool
empty_other_name(const struct difference *difference)
{
	return difference->shape->empty_other_name;
}

static bool
unended_record(const struct difference *difference)
{
	return difference->shape->whole && difference->shape->unended_record;
}

static bool
after_in_record(const struct difference *difference)
{
	return difference->theirs->alert == TLS_UNEXPECTED_MESSAGE &&
	    difference->shape->after_in_record;
}

static bool
odd_version(const struct difference *difference)
{
	return difference->theirs->alert == NO_ALERT && difference->shape->odd_version;
}

static bool
compression(const struct difference *difference)
{
	const struct shape *shape = difference->shape;
	return shape->compression_methods > 1 ||
	    (shape->compression_methods == 1 && !shape->null_compression);
}

static bool
extension_twice(const struct difference *difference)
{
	return difference->shape->extension_twice;
}

static bool
psk_not_last(const struct difference *difference)
{
	return difference->shape->psk_not_last;
}

static bool
inside_another(const struct difference *difference)
{
	return difference->neutral_is_fine;
}

#define BOTH \
	{ \
		true, true \
	}
#define OPENSSL_ALONE \
	{ \
		true, false \
	}
#define GNUTLS_ALONE \
	{ \
		false, true \
	}

static const char same[] = "as sniproxy";
static const char takes[] = "takes it";
static const char harmless[] = "the name stays the same, and the backend refuses by itself";

/* clang-format off */

const struct decision decisions[] = {

/* Rejected here, accepted there. */
{BOTH, UNWILLING, ACCEPTED, invalid_name,
    "a name that is not valid, such as `_a`, `..`, `-a` or `blog.example.`",
    "unrecognized_name",
    {"takes it, up to 255 bytes without a NUL", "takes it where it is all of `a-z 0-9 - .`"},
    "a name is a directory's name"},
{OPENSSL_ALONE, MALFORMED, ACCEPTED, empty_record,
    "a record without bytes before the hello's end",
    "decode_error; unexpected_message where it is a change_cipher_spec",
    {"takes up to 32 of them", "unexpected_message"},
    "RFC 8446, 5.1: \"MUST NOT send zero-length fragments of Handshake types\""},
{BOTH, MALFORMED, ACCEPTED, sslv2,
    "a hello in SSL 2.0's format",
    "unexpected_message", {takes, takes},
    "it has no extensions, so no name"},
{GNUTLS_ALONE, MALFORMED, ACCEPTED, other_record,
    "a change_cipher_spec record before the hello's end",
    "unexpected_message", {same, "skips it"},
    "RFC 8446, 5.1: \"MUST NOT be interleaved with other record types\"; 5: a "
    "change_cipher_spec before the first hello is unexpected"},
{GNUTLS_ALONE, MALFORMED, ACCEPTED, long_record,
    "a record over 2^14 bytes",
    "record_overflow", {same, "takes it, up to some more bytes"},
    "RFC 8446, 5.1: \"MUST NOT exceed 2^14 bytes\""},
{GNUTLS_ALONE, MALFORMED, ACCEPTED, two_host_names,
    "two host_names",
    "decode_error", {same, "takes the first"},
    "RFC 6066, 3: \"MUST NOT contain more than one name of the same name_type\"; which one "
    "counts would be anyone's guess"},
{GNUTLS_ALONE, MALFORMED, ACCEPTED, list_overrun,
    "a server_name_list shorter or longer than its extension, or than its names",
    "decode_error", {same, "looks no further than the first host_name"},
    "what else is in there could be a name to another reader"},
{GNUTLS_ALONE, MALFORMED, ACCEPTED, malformed_alpn,
    "an ALPN extension that is malformed inside",
    "decode_error", {same, takes},
    "RFC 7301, 3.1; what it offers decides between two sockets"},

/* Routed here, rejected there. */
{GNUTLS_ALONE, ACCEPTED, MALFORMED, underscore,
    "a name with `_` inside a label, such as `a_b`",
    "routes it", {takes, "illegal_parameter"},
    "such names are in use; the backend refuses by itself"},
{OPENSSL_ALONE, ACCEPTED, MALFORMED, other_name_type,
    "a name of another type beside the host_name",
    "skips it", {"decode_error", same},
    "RFC 6066, 3 leaves room for other types; the host_name stays the same"},
{GNUTLS_ALONE, ACCEPTED, MALFORMED, empty_other_name,
    "the same, and the other name is empty",
    "skips it", {"decode_error", "decode_error"},
    "RFC 6066, 3 says nothing of what is in a name of another type; the host_name stays the "
    "same"},
{BOTH, ACCEPTED, WANTS_MORE, unended_record,
    "a record that goes on after the hello and has not all arrived",
    "routes it", {"waits for the rest", "waits for the rest"},
    "the hello is whole; the backend waits for the rest by itself"},
{OPENSSL_ALONE, ACCEPTED, MALFORMED, after_in_record,
    "bytes after the hello in its record",
    "routes it", {"unexpected_message in TLS 1.3", takes},
    "the name stays the same, and what follows the hello is the backend's to judge"},
{OPENSSL_ALONE, ACCEPTED, MALFORMED, odd_version,
    "a record version other than 3.x",
    "routes it", {"closes without an alert", "protocol_version"},
    "RFC 8446, 5.1: \"MUST be ignored for all purposes\""},
{BOTH, ACCEPTED, MALFORMED, compression,
    "compression methods without null, or with others in TLS 1.3",
    "routes it", {"illegal_parameter, decode_error", "illegal_parameter without null"},
    harmless},
{BOTH, ACCEPTED, MALFORMED, extension_twice,
    "an extension twice, other than server_name and ALPN",
    "routes it", {"illegal_parameter", "unsupported_extension, illegal_parameter"},
    harmless},
{BOTH, ACCEPTED, MALFORMED, psk_not_last,
    "pre_shared_key before another extension",
    "routes it", {"illegal_parameter", "illegal_parameter"},
    harmless},
{BOTH, ACCEPTED, MALFORMED, inside_another,
    "another extension that is malformed inside, or does not fit the others",
    "routes it", {"decode_error, illegal_parameter", "decode_error, illegal_parameter"},
    "sniproxy does not look into it; the name stays the same, and the backend refuses by "
    "itself"},
};

const size_t decision_count = sizeof decisions / sizeof *decisions;

#include "tls.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CONTENT_ALERT = 21, CONTENT_HANDSHAKE = 22 };     /* RFC 8446, 5.1 */
enum { HANDSHAKE_CLIENT_HELLO = 1 };                     /* RFC 8446, 4 */
enum { EXTENSION_SERVER_NAME = 0, EXTENSION_ALPN = 16 }; /* RFC 8446, 4.2 */
enum { NAME_TYPE_HOST_NAME = 0 };                        /* RFC 6066, 3 */
enum { RECORD_FRAGMENT_MAX = 1 << 14 };                  /* RFC 8446, 5.1 */

/* The bounded reader: what is left to read of some bytes. Reading past the end sets
 * failed and leaves nothing to read, so a struct is read straight down and checked once
 * at its end. */
struct reader {
	const uint8_t *bytes;
	size_t length;
	bool failed;
};

/* Takes the next SIZE bytes. Returns NULL if fewer are left. */
static const uint8_t *
fixed(struct reader *in, size_t size)
{
	if (in->failed || size > in->length) {
		*in = (struct reader){.failed = true};
		return NULL;
	}
	const uint8_t *bytes = in->bytes;
	in->bytes += size;
	in->length -= size;
	return bytes;
}

/* Takes an unsigned integer of SIZE bytes, most significant first. Returns 0 on failure. */
static uint32_t
integer(struct reader *in, size_t size)
{
	const uint8_t *bytes = fixed(in, size);
	uint32_t value = 0;
	for (size_t i = 0; bytes != NULL && i < size; i++)
		value = value << 8 | bytes[i];
	return value;
}

static uint32_t
uint8(struct reader *in)
{
	return integer(in, 1);
}

static uint32_t
uint16(struct reader *in)
{
	return integer(in, 2);
}

static uint32_t
uint24(struct reader *in)
{
	return integer(in, 3);
}

/* Takes a variable-length vector <FLOOR..CEILING>, both in bytes. Returns a reader that cannot
 * leave it; on failure, a failed one. The ceiling tells how wide the length field is (RFC 8446,
 * 3.4). */
static struct reader
vector(struct reader *in, size_t floor, size_t ceiling)
{
	size_t length = ceiling > 0xff ? uint16(in) : uint8(in);
	if (length < floor || length > ceiling)
		*in = (struct reader){.failed = true};
	const uint8_t *bytes = fixed(in, length);
	return in->failed ? *in : (struct reader){bytes, length, false};
}

/* Whether all reads succeeded and no bytes are left. */
static bool
ended(const struct reader *in)
{
	return !in->failed && in->length == 0;
}

static enum tls_status
refuse(struct tls_hello *hello, enum tls_alert alert, const char *reason)
{
	hello->alert = alert;
	hello->reason = reason;
	return TLS_REFUSED;
}

/* The record layer: fragments are joined into one handshake message.
 *
 *	struct {
 *		ContentType type;
 *		ProtocolVersion legacy_record_version;
 *		uint16 length;
 *		opaque fragment[TLSPlaintext.length];
 *	} TLSPlaintext;						RFC 8446, 5.1
 *
 * legacy_record_version must be ignored. Handshake messages "MUST NOT be interleaved with
 * other record types", and their fragments must not be empty.
 */
static enum tls_status
read_record_header(struct tls_hello *hello, struct reader *in)
{
	hello->record_header[hello->record_header_length++] = (uint8_t)uint8(in);
	if (hello->record_header[0] != CONTENT_HANDSHAKE)
		return refuse(hello, TLS_UNEXPECTED_MESSAGE, "not a TLS handshake record");
	if (hello->record_header_length < TLS_RECORD_HEADER_SIZE)
		return TLS_INCOMPLETE;

	struct reader header = {hello->record_header, TLS_RECORD_HEADER_SIZE, false};
	uint8(&header);  /* type */
	uint16(&header); /* legacy_record_version */
	size_t length = uint16(&header);
	if (length == 0)
		return refuse(hello, TLS_DECODE_ERROR, "empty record");
	if (length > RECORD_FRAGMENT_MAX)
		return refuse(hello, TLS_RECORD_OVERFLOW, "record longer than 2^14 bytes");
	hello->record_header_length = 0;
	hello->fragment_left = length;
	return TLS_INCOMPLETE;
}

/* The handshake layer:
 *
 *	struct {
 *		HandshakeType msg_type;
 *		uint24 length;
 *		select (Handshake.msg_type) { ... };
 *	} Handshake;						RFC 8446, 4
 *
 * Returns how many bytes of the message, or first of its header, are still missing.
 */
static size_t
message_left(const struct tls_hello *hello)
{
	if (hello->message_length < TLS_HANDSHAKE_HEADER_SIZE)
		return TLS_HANDSHAKE_HEADER_SIZE - hello->message_length;
	struct reader message = {hello->message, hello->message_length, false};
	uint8(&message); /* msg_type */
	return TLS_HANDSHAKE_HEADER_SIZE + uint24(&message) - hello->message_length;
}

static bool
append(struct tls_hello *hello, const uint8_t *bytes, size_t length)
{
	size_t needed = hello->message_length + length;
	if (needed > hello->message_capacity) {
		size_t capacity = 2 * needed < 512 ? 512 : 2 * needed;
		uint8_t *message = realloc(hello->message, capacity);
		if (message == NULL)
			return false;
		hello->message = message;
		hello->message_capacity = capacity;
	}
	memcpy(hello->message + hello->message_length, bytes, length);
	hello->message_length = needed;
	return true;
}

static enum tls_status
read_fragment(struct tls_hello *hello, struct reader *in)
{
	size_t length = message_left(hello);
	if (length > hello->fragment_left)
		length = hello->fragment_left;
	if (length > in->length)
		length = in->length;
	if (!append(hello, fixed(in, length), length))
		return refuse(hello, TLS_INTERNAL_ERROR, "out of memory");
	hello->fragment_left -= length;

	if (hello->message[0] != HANDSHAKE_CLIENT_HELLO)
		return refuse(hello, TLS_UNEXPECTED_MESSAGE, "not a ClientHello");
	size_t left = message_left(hello);
	if (hello->message_length + left > TLS_HELLO_MAX)
		return refuse(hello, TLS_DECODE_ERROR, "longer than any ClientHello");
	return left == 0 ? TLS_OK : TLS_INCOMPLETE;
}

enum tls_status
tls_hello_feed(struct tls_hello *hello, const uint8_t *bytes, size_t length)
{
	struct reader in = {bytes, length, false};
	while (in.length > 0) {
		bool in_record = hello->fragment_left > 0;
		enum tls_status status =
		    in_record ? read_fragment(hello, &in) : read_record_header(hello, &in);
		if (status != TLS_INCOMPLETE)
			return status;
	}
	return TLS_INCOMPLETE;
}

/*	struct {
 *		NameType name_type;
 *		select (name_type) {
 *			case host_name: HostName;
 *		} name;
 *	} ServerName;
 *
 *	opaque HostName<1..2^16-1>;
 *
 *	struct {
 *		ServerName server_name_list<1..2^16-1>
 *	} ServerNameList;					RFC 6066, 3
 *
 * Names of other types are skipped; all types begin with a 16-bit length. Two names of one type are
 * forbidden. An empty HostName is accepted here, and rejected by hostname.c.
 */
static bool
read_server_name_list(struct reader in, struct reader *host_name)
{
	struct reader server_name_list = vector(&in, 1, 0xffff);
	if (!ended(&in))
		return false;

	while (server_name_list.length > 0) {
		uint32_t name_type = uint8(&server_name_list);
		struct reader name = vector(&server_name_list, 0, 0xffff);
		if (name_type != NAME_TYPE_HOST_NAME)
			continue;
		if (host_name->bytes != NULL)
			return false;
		*host_name = name;
	}
	return ended(&server_name_list);
}

/*	opaque ProtocolName<1..2^8-1>;
 *
 *	struct {
 *		ProtocolName protocol_name_list<2..2^16-1>
 *	} ProtocolNameList;					RFC 7301, 3.1
 */
static bool
read_protocol_name_list(struct reader in, struct tls_hello *hello)
{
	struct reader protocol_name_list = vector(&in, 2, 0xffff);
	if (!ended(&in))
		return false;

	while (protocol_name_list.length > 0) {
		struct reader protocol_name = vector(&protocol_name_list, 1, 0xff);
		if (++hello->protocols > 1)
			continue;
		hello->protocol = protocol_name.bytes;
		hello->protocol_length = protocol_name.length;
	}
	return ended(&protocol_name_list);
}

/*	struct {
 *		ExtensionType extension_type;
 *		opaque extension_data<0..2^16-1>;
 *	} Extension;						RFC 8446, 4.2
 *
 * Extensions of other types are skipped.
 */
static enum tls_status
read_extensions(struct tls_hello *hello, struct reader extensions, struct reader *host_name)
{
	unsigned server_names = 0, alpns = 0;
	bool server_name_is_well_formed = true, alpn_is_well_formed = true;
	while (extensions.length > 0) {
		uint32_t extension_type = uint16(&extensions);
		struct reader extension_data = vector(&extensions, 0, 0xffff);
		if (extension_type == EXTENSION_SERVER_NAME && ++server_names == 1)
			server_name_is_well_formed =
			    read_server_name_list(extension_data, host_name);
		if (extension_type == EXTENSION_ALPN && ++alpns == 1)
			alpn_is_well_formed = read_protocol_name_list(extension_data, hello);
	}
	if (!ended(&extensions))
		return refuse(hello, TLS_DECODE_ERROR, "malformed extensions");
	if (server_names > 1)
		return refuse(hello, TLS_ILLEGAL_PARAMETER, "two server_name extensions");
	if (!server_name_is_well_formed)
		return refuse(hello, TLS_DECODE_ERROR, "malformed server_name extension");
	if (alpns > 1)
		return refuse(hello, TLS_ILLEGAL_PARAMETER, "two ALPN extensions");
	if (!alpn_is_well_formed)
		return refuse(hello, TLS_DECODE_ERROR, "malformed ALPN extension");
	return TLS_OK;
}

/*	struct {
 *		ProtocolVersion legacy_version = 0x0303;
 *		Random random;
 *		opaque legacy_session_id<0..32>;
 *		CipherSuite cipher_suites<2..2^16-2>;
 *		opaque legacy_compression_methods<1..2^8-1>;
 *		Extension extensions<8..2^16-1>;
 *	} ClientHello;						RFC 8446, 4.1.2
 *
 * legacy_version is ignored: SNI is the same in all versions. In TLS 1.2 the extensions may be
 * absent, and their floor is 0 (RFC 5246, 7.4.1.2). So they are here: such a hello is well-formed,
 * and only lacks a name.
 */
enum tls_status
tls_hello_server_name(struct tls_hello *hello, const uint8_t **name, size_t *name_length)
{
	struct reader in = {hello->message, hello->message_length, false};
	hello->protocols = 0;
	fixed(&in, TLS_HANDSHAKE_HEADER_SIZE);

	uint16(&in);        /* legacy_version */
	fixed(&in, 32);     /* random */
	vector(&in, 0, 32); /* legacy_session_id */
	struct reader cipher_suites = vector(&in, 2, 0xfffe);
	vector(&in, 1, 0xff); /* legacy_compression_methods */
	bool has_extensions = in.length > 0;
	struct reader extensions = has_extensions ? vector(&in, 0, 0xffff) : (struct reader){0};
	if (!ended(&in) || cipher_suites.length % 2 != 0)
		return refuse(hello, TLS_DECODE_ERROR, "malformed ClientHello");

	struct reader host_name = {0};
	enum tls_status status = read_extensions(hello, extensions, &host_name);
	if (status != TLS_OK)
		return status;
	if (host_name.bytes == NULL)
		return refuse(hello, TLS_UNRECOGNIZED_NAME, "no server name");
	*name = host_name.bytes;
	*name_length = host_name.length;
	return TLS_OK;
}

void
tls_hello_release(struct tls_hello *hello)
{
	free(hello->message);
	*hello = (struct tls_hello){0};
}

void
tls_alert_record(uint8_t record[TLS_ALERT_SIZE], enum tls_alert alert)
{
	const uint8_t bytes[TLS_ALERT_SIZE] = {
	    CONTENT_ALERT,  /* type */
	    0x03, 0x03,     /* legacy_record_version */
	    0x00, 0x02,     /* length */
	    2,              /* level: fatal */
	    (uint8_t)alert, /* description */
	};
	memcpy(record, bytes, sizeof bytes);
}

const struct tls_alert_name tls_alert_names[TLS_ALERTS] = {
    {TLS_UNEXPECTED_MESSAGE, "unexpected_message"},
    {TLS_RECORD_OVERFLOW, "record_overflow"},
    {TLS_ILLEGAL_PARAMETER, "illegal_parameter"},
    {TLS_DECODE_ERROR, "decode_error"},
    {TLS_INTERNAL_ERROR, "internal_error"},
    {TLS_USER_CANCELED, "user_canceled"},
    {TLS_UNRECOGNIZED_NAME, "unrecognized_name"},
};

const char *
tls_alert_name(enum tls_alert alert)
{
	for (size_t i = 0; i < TLS_ALERTS; i++)
		if (tls_alert_names[i].alert == alert)
			return tls_alert_names[i].name;
	return "unknown alert";
}

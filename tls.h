/* Reads the server name from a TLS client's first message, and makes the alerts that reject it.
 * Bytes only: no sockets, no log, no clock.
 *
 * Pass received bytes to tls_hello_feed() until it no longer returns TLS_INCOMPLETE. Then call
 * tls_hello_server_name():
 *
 *	struct tls_hello hello = {0};
 *	while ((status = tls_hello_feed(&hello, bytes, length)) == TLS_INCOMPLETE)
 *		... read more bytes ...
 *	if (status == TLS_OK)
 *		status = tls_hello_server_name(&hello, &name, &name_length);
 *	if (status == TLS_REFUSED)
 *		... send hello.alert, log hello.reason ...
 *	tls_hello_release(&hello);
 */
#ifndef TLS_H
#define TLS_H

#include <stddef.h>
#include <stdint.h>

/* The alerts sniproxy sends (RFC 8446, 6). */
enum tls_alert {
	TLS_UNEXPECTED_MESSAGE = 10,
	TLS_RECORD_OVERFLOW = 22,
	TLS_ILLEGAL_PARAMETER = 47,
	TLS_DECODE_ERROR = 50,
	TLS_INTERNAL_ERROR = 80,
	TLS_USER_CANCELED = 90,
	TLS_UNRECOGNIZED_NAME = 112,
};

enum tls_status { TLS_INCOMPLETE, TLS_OK, TLS_REFUSED };

enum {
	TLS_ALERT_SIZE = 7,
	TLS_RECORD_HEADER_SIZE = 5,
	TLS_HANDSHAKE_HEADER_SIZE = 4,

	/* The largest ClientHello that its syntax allows, in bytes, its header included:
	 * every vector at its ceiling (RFC 8446, 4.1.2). */
	TLS_HELLO_MAX = TLS_HANDSHAKE_HEADER_SIZE + 2 /* legacy_version */ + 32 /* random */ +
	    (1 + 32) /* legacy_session_id */ + (2 + 65534) /* cipher_suites */ +
	    (1 + 255) /* legacy_compression_methods */ + (2 + 65535) /* extensions */,
};

/* The state of a ClientHello that is being received. All zero at first. Callers read only the first
 * five members. */
struct tls_hello {
	/* Set with TLS_REFUSED: */
	enum tls_alert alert;
	const char *reason; /* for the log, in English; static */

	/* Set by tls_hello_server_name(): how many protocols the client offers by ALPN (RFC 7301),
	 * and the first, which lies inside the message. */
	unsigned protocols;
	const uint8_t *protocol;
	size_t protocol_length;

	uint8_t record_header[TLS_RECORD_HEADER_SIZE];
	size_t record_header_length; /* how many bytes of it have arrived */
	size_t fragment_left;        /* bytes of the record's fragment still to come */

	uint8_t *message; /* the handshake message, joined from its fragments */
	size_t message_length;
	size_t message_capacity;
};

/* Takes the next LENGTH bytes that the client sent. Reads each byte once, however the message is
 * split into records and reads (RFC 8446, 5.1). Memory grows with the bytes received, not with the
 * length announced.
 *
 * Returns TLS_INCOMPLETE if more bytes are needed; TLS_OK if the message is complete, and ignores
 * the bytes after it; TLS_REFUSED if it cannot be a ClientHello, or memory is short. Do not call it
 * again after TLS_OK or TLS_REFUSED. */
enum tls_status tls_hello_feed(struct tls_hello *hello, const uint8_t *bytes, size_t length);

/* Checks the whole ClientHello and finds the server name in it (RFC 6066, 3). Call it after
 * tls_hello_feed() has returned TLS_OK.
 *
 * Returns TLS_OK and the host_name as the client sent it: any bytes, or none, which the caller must
 * validate. It lies inside HELLO and lives until tls_hello_release(). Otherwise returns
 * TLS_REFUSED, with TLS_UNRECOGNIZED_NAME if only a host_name is missing. */
enum tls_status
tls_hello_server_name(struct tls_hello *hello, const uint8_t **name, size_t *name_length);

/* Frees what HELLO holds, if anything, and sets it to zero. */
void tls_hello_release(struct tls_hello *hello);

/* Writes the record that carries ALERT, level fatal (RFC 8446, 6). */
void tls_alert_record(uint8_t record[TLS_ALERT_SIZE], enum tls_alert alert);

/* All alerts, with their names in RFC 8446. */
enum { TLS_ALERTS = 7 };
struct tls_alert_name {
	enum tls_alert alert;
	const char *name;
};
extern const struct tls_alert_name tls_alert_names[TLS_ALERTS];

/* Returns the alert's name, such as "decode_error"; static. */
const char *tls_alert_name(enum tls_alert alert);

#endif

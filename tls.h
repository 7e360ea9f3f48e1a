/* Reads the server name out of a TLS client's first message, and makes the alert that
 * refuses it. Bytes only: no sockets, no log, no clock.
 *
 * Feed what arrives to tls_hello_feed() until it no longer says TLS_INCOMPLETE; then ask
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

/* A ClientHello on its way in. All zero is the start. Only alert and reason are for
 * others to read, and only after TLS_REFUSED. */
struct tls_hello {
	enum tls_alert alert;
	const char *reason; /* for people, in English; lives for ever */

	uint8_t record_header[TLS_RECORD_HEADER_SIZE];
	size_t record_header_length; /* how many bytes of it have arrived */
	size_t fragment_left;        /* bytes of the record's fragment still to come */

	uint8_t *message; /* the handshake message, joined from its fragments */
	size_t message_length;
	size_t message_capacity;
};

/* Takes the next LENGTH bytes that the client sent. Each byte is looked at once, however
 * the message was split into records and reads, and memory grows with what has arrived,
 * not with what was announced (RFC 8446, 5.1).
 *
 * Returns TLS_INCOMPLETE if the message goes on after these bytes, TLS_OK once it is
 * there whole (what follows it is not looked at), TLS_REFUSED if it cannot be a
 * ClientHello, or if memory is short. After TLS_OK or TLS_REFUSED it must not be called
 * again. */
enum tls_status tls_hello_feed(struct tls_hello *hello, const uint8_t *bytes, size_t length);

/* Checks the whole ClientHello and finds the server name in it (RFC 6066, 3). It must
 * follow a tls_hello_feed() that returned TLS_OK.
 *
 * Returns TLS_OK and the host_name as the client sent it, which may be any bytes, or
 * none, so that it is for the caller to judge; it lies inside HELLO and lives until
 * tls_hello_release(). Or returns TLS_REFUSED. */
enum tls_status
tls_hello_server_name(struct tls_hello *hello, const uint8_t **name, size_t *name_length);

/* Frees what HELLO holds, if anything, and makes it ready for another. */
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

/* The alert's name, such as "decode_error"; lives for ever. */
const char *tls_alert_name(enum tls_alert alert);

#endif

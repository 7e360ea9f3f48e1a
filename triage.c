#include "triage.h"

#include "clock.h"
#include "overdue.h"
#include "pressure.h"
#include "registry.h"
#include "system.h"

#include <string.h>

/* More than most hellos have. One that is longer is served. */
enum { PEEK_MAX = 4096 };

static bool
is_for_flooded_host(struct connection *c, struct tls_hello *hello)
{
	const uint8_t *sent;
	size_t length;
	char name[HOSTNAME_SIZE];
	if (tls_hello_server_name(hello, &sent, &length) != TLS_OK ||
	    !hostname_canonical(name, sent, length))
		return false;
	registry_lock();
	bool is_flooded = pressure_is_flooded(name, clock_ms());
	registry_unlock();
	if (is_flooded)
		memcpy(c->name, name, sizeof name);
	return is_flooded;
}

/* Looks at the LENGTH BYTES that wait on C's socket. Only a PROXY header is taken off it, for C to be
 * counted among those of its client. */
static enum tls_status
look_at(struct connection *c, struct tls_hello *hello, uint8_t *bytes, size_t length)
{
	struct proxy_protocol_header header = {0};
	if (c->awaits_header) {
		enum proxy_protocol_status status =
		    proxy_protocol_read(&header, bytes, length);
		if (status == PROXY_PROTOCOL_INCOMPLETE)
			return TLS_INCOMPLETE;
		if (status == PROXY_PROTOCOL_REFUSED ||
		    system_receive_now(c->client, bytes, header.length) !=
			(ssize_t)header.length)
			return TLS_REFUSED; /* whoever serves it will say so */
		connection_announce(c, &header);
	}
	return tls_hello_feed(hello, bytes + header.length, length - header.length);
}

enum connection_end
triage(struct connection *c)
{
	uint8_t bytes[PEEK_MAX];
	struct tls_hello hello = {0};
	enum tls_status status = TLS_INCOMPLETE;
	enum connection_end ends = END_OPEN;
	ssize_t length = system_peek(c->client, bytes, sizeof bytes);
	if (length > 0)
		status = look_at(c, &hello, bytes, (size_t)length);
	if (status == TLS_INCOMPLETE && length < PEEK_MAX &&
	    system_was_silent(c->client, OVERDUE_MIN_MS))
		ends = END_GAVE_WAY;
	if (status == TLS_OK && is_for_flooded_host(c, &hello))
		ends = END_TURNED_AWAY;
	tls_hello_release(&hello);
	return ends;
}

#include "hello.h"

#include "clock.h"
#include "hostname.h"
#include "pressure.h"
#include "proxy_protocol.h"
#include "refusal.h"
#include "registry.h"
#include "relay.h"
#include "tls.h"

#include <errno.h>
#include <string.h>

/* Refuses C, where what the client sent is to blame. */
static void
refuse_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	refuse(c, alert, tls_alert_name(alert), why);
}

/* --- The PROXY header, which a balancer in front sends --- */

/* Takes the PROXY header that C begins with off what was received, and counts C among those of the
 * client that is named there. Returns whether the header is over, and C has not ended. */
static bool
read_header(struct connection *c)
{
	struct proxy_protocol_header header;
	enum proxy_protocol_status status = proxy_protocol_read(&header,
	    c->received + c->received_start, c->received_end - c->received_start);
	if (status == PROXY_PROTOCOL_REFUSED)
		refuse(c, TLS_INTERNAL_ERROR, "PROXY header", header.reason);
	if (status != PROXY_PROTOCOL_OK)
		return false;
	c->received_start += header.length;
	registry_lock();
	connection_announce(c, &header);
	bool is_over_share = pressure_enter(c, clock_ms()) != END_OPEN;
	registry_unlock();
	if (is_over_share && connection_decide(c, END_TURNED_AWAY))
		c->resets = true;
	return !connection_is_decided(c);
}

/* Whether C, of which no more comes, was nothing but a balancer's look whether somebody listens. */
static bool
is_health_check(const struct connection *c)
{
	return (c->awaits_header || c->is_balancers) &&
	    c->received_end == c->received_start;
}

/* --- The hello --- */

static void
read_name(struct connection *c)
{
	const uint8_t *sent;
	size_t length;
	char name[HOSTNAME_SIZE];
	if (tls_hello_server_name(&c->hello, &sent, &length) != TLS_OK) {
		refuse_hello(c, c->hello.alert, c->hello.reason);
	} else if (!hostname_canonical(name, sent, length)) {
		refuse_hello(c, TLS_UNRECOGNIZED_NAME, "not a valid name");
	} else {
		registry_lock();
		memcpy(c->name, name, sizeof name);
		if (!connection_is_decided(c)) /* its time may just be over */
			registry_note(c, CONNECTION_BACKEND, clock_ms());
		registry_unlock();
	}
}

/* The client of C has ended its stream; or its connection has failed with an ERROR, if not 0. */
static void
end_in_hello(struct connection *c, int error)
{
	if (is_health_check(c))
		connection_decide(c, END_CLOSED);
	else if (error != 0)
		connection_note_client_failure(c, error);
	else if (c->awaits_header)
		refuse(c, TLS_INTERNAL_ERROR, "PROXY header", "end of stream inside it");
	else
		refuse_hello(c, TLS_DECODE_ERROR, "end of stream inside the ClientHello");
}

/* Feeds the parsers with what was received from FROM on. */
static enum tls_status
feed(struct connection *c, size_t from)
{
	if (c->awaits_header && !read_header(c))
		return TLS_INCOMPLETE;
	if (from < c->received_start) /* that was the header */
		from = c->received_start;
	return tls_hello_feed(&c->hello, c->received + from, c->received_end - from);
}

bool
hello_read(struct connection *c)
{
	size_t length;
	enum tls_status status = TLS_INCOMPLETE;
	while (status == TLS_INCOMPLETE && !connection_is_decided(c)) {
		if (c->received_end == c->received_size && !connection_grow(c)) {
			refuse(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
			return true;
		}
		uint8_t *bytes = c->received + c->received_end;
		switch (relay_receive(
		    &c->upload, bytes, c->received_size - c->received_end, &length)) {
		case RELAY_QUIET:
			return false;
		case RELAY_ENDED:
			end_in_hello(c, 0);
			return true;
		case RELAY_READ_FAILED:
			end_in_hello(c, errno);
			return true;
		default:
			c->received_end += length;
			status = feed(c, c->received_end - length);
		}
	}
	if (status == TLS_REFUSED)
		refuse_hello(c, c->hello.alert, c->hello.reason);
	if (status == TLS_OK)
		read_name(c);
	return true;
}

void
hello_end(struct connection *c)
{
	if (c->awaits_header)
		refuse_locked(c, TLS_INTERNAL_ERROR, "PROXY header", "none in time");
	else
		refuse_locked(c, TLS_USER_CANCELED, tls_alert_name(TLS_USER_CANCELED),
		    "no ClientHello in time");
}

#include "proxy.h"

#include "clock.h"
#include "hostname.h"
#include "log.h"
#include "relay.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* Most hellos fit; for others it grows. */
	FIRST_BUFFER_SIZE = 4 * 1024,

	/* How long and for how many bytes a refused client is listened to, so that it can
	 * read its alert before it meets a reset. */
	LINGER_MS = 5 * 1000,
	LINGER_BYTES = 8 * 1024 * 1024,
};

struct connection {
	int client;
	int backend; /* -1 until there is one */
	const union address *peer;
	int64_t deadline_ms;      /* for the hello and the backend */
	char name[HOSTNAME_SIZE]; /* empty until the hello was read */
	struct tls_hello hello;
	struct relay_buffer received; /* all that the client has sent, for the backend */
};

static void
log_failure(const struct connection *c, const char *what, const char *why)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, c->peer);
	log_line("%s %s: %s: %s", client, c->name[0] == '\0' ? "-" : c->name, what, why);
}

/* Waits until the client has sent something. Returns false when the deadline has come,
 * whatever the client has sent. */
static bool
wait_for_client(int client, int64_t deadline_ms)
{
	struct pollfd descriptor = {.fd = client, .events = POLLIN};
	while (clock_left_ms(deadline_ms) > 0)
		if (poll(&descriptor, 1, clock_left_ms(deadline_ms)) > 0)
			return true;
	return false;
}

/* Half-closes, then reads until the client has closed: to close with unread bytes makes
 * the kernel send a reset, and that destroys what the client has not received yet (RFC
 * 1122, 4.2.2.13). Where PATIENT, the client has as long as it goes on to receive. */
static void
linger(int client, bool patient)
{
	uint8_t unwanted[1024];
	int unsent = 0, unsent_before;
	ssize_t length, total = 0;
	shutdown(client, SHUT_WR);
	do {
		int64_t deadline_ms = clock_ms() + LINGER_MS;
		while (wait_for_client(client, deadline_ms) && total < LINGER_BYTES) {
			length = recv(client, unwanted, sizeof unwanted, 0);
			if (length == 0 || (length == -1 && errno != EAGAIN))
				return;
			total += length > 0 ? length : 0;
		}
		unsent_before = unsent;
		unsent = 0;
		ioctl(
		    client, TIOCOUTQ, &unsent); /* another name of SIOCOUTQ, see tcp(7) */
	} while (
	    patient && unsent > 0 && unsent != unsent_before && total < LINGER_BYTES);
}

/* Tells the client and the log why there is nothing for it. Always returns false. */
static bool
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_record(record, alert);
	send(c->client, record, sizeof record, MSG_NOSIGNAL);
	log_failure(c, what, why);
	/* Whoever has to linger need not do so with all of this. */
	tls_hello_release(&c->hello);
	relay_buffer_release(&c->received);
	linger(c->client, false);
	return false;
}

/* The same, where what the client sent is to blame. */
static bool
refuse_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	return refuse(c, alert, tls_alert_name(alert), why);
}

/* Makes room for more of the hello. What has arrived bounds it: a hello whose records
 * hold a byte each is TLS_HELLO_MAX times the six bytes of such a record long. */
static bool
grow(struct relay_buffer *buffer)
{
	size_t capacity =
	    buffer->capacity == 0 ? FIRST_BUFFER_SIZE : 2 * buffer->capacity;
	uint8_t *bytes = realloc(buffer->bytes, capacity);
	if (bytes == NULL)
		return false;
	if (buffer->capacity ==
	    0) /* a PROXY header may have to go before the first byte */
		buffer->start = buffer->end = BACKEND_PROXY_HEADER_SIZE;
	buffer->bytes = bytes;
	buffer->capacity = capacity;
	return true;
}

/* Reads until the ClientHello is there. Returns false where the connection is over. */
static bool
read_hello(struct connection *c)
{
	struct relay_buffer *received = &c->received;
	enum tls_status status = TLS_INCOMPLETE;
	while (status == TLS_INCOMPLETE) {
		if (received->end == received->capacity && !grow(received))
			return refuse(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
		uint8_t *bytes = received->bytes + received->end;
		ssize_t length =
		    recv(c->client, bytes, received->capacity - received->end, 0);
		if (length > 0) {
			received->end += (size_t)length;
			status = tls_hello_feed(&c->hello, bytes, (size_t)length);
		} else if (length == 0) {
			return refuse(c, TLS_DECODE_ERROR,
			    tls_alert_name(TLS_DECODE_ERROR),
			    "end of stream inside the ClientHello");
		} else if (errno != EAGAIN) {
			log_failure(c, "client", strerror(errno));
			return false;
		} else if (!wait_for_client(c->client, c->deadline_ms)) {
			return refuse(c, TLS_USER_CANCELED,
			    tls_alert_name(TLS_USER_CANCELED), "no ClientHello in time");
		}
	}
	return status == TLS_OK || refuse_hello(c, c->hello.alert, c->hello.reason);
}

/* Takes the name from the hello, and no more of it is needed then. */
static bool
read_name(struct connection *c)
{
	const uint8_t *name;
	size_t length;
	if (tls_hello_server_name(&c->hello, &name, &length) != TLS_OK)
		return refuse_hello(c, c->hello.alert, c->hello.reason);
	if (!hostname_canonical(c->name, name, length)) {
		c->name[0] = '\0'; /* what is not valid is not logged */
		return refuse(c, TLS_UNRECOGNIZED_NAME,
		    tls_alert_name(TLS_UNRECOGNIZED_NAME), "not a valid name");
	}
	tls_hello_release(&c->hello);
	return true;
}

/* Which alert tells the client that there is no backend: those that mean that the name is
 * not served here, or that something broke. */
static enum tls_alert
alert_for(int error)
{
	switch (error) {
	case EACCES:
	case ECONNREFUSED:
	case ELOOP:
	case ENOENT:
	case ENOTDIR:
	case EPERM:
	case EPROTOTYPE:
		return TLS_UNRECOGNIZED_NAME;
	default:
		return TLS_INTERNAL_ERROR;
	}
}

/* Puts the PROXY header into the room before the first byte, so that both go out at
 * once. */
static bool
prepend_proxy_header(struct connection *c)
{
	union address local = {.any.sa_family = AF_UNSPEC};
	socklen_t size = sizeof local;
	if (getsockname(c->client, &local.any, &size) == -1)
		return refuse(c, TLS_INTERNAL_ERROR, "getsockname", strerror(errno));
	address_unmap(&local);
	char header[BACKEND_PROXY_HEADER_SIZE];
	size_t length = backend_proxy_header(header, c->peer, &local);
	c->received.start -= length;
	memcpy(c->received.bytes + c->received.start, header, length);
	return true;
}

static bool
find_backend(struct connection *c, const struct backend_hosts *hosts)
{
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, c->name);
	struct backend backend = backend_connect(hosts, directory, c->deadline_ms);
	c->backend = backend.socket;
	if (backend.socket == -1)
		return refuse(c, alert_for(backend.error), backend.failed,
		    backend.error == EAGAIN ? "did not accept in time"
					    : strerror(backend.error));
	return !backend.send_proxy_v1 || prepend_proxy_header(c);
}

static void
relay_until_end(struct connection *c)
{
	struct relay_result result = relay(c->client, c->backend, &c->received);
	if (result.end == RELAY_NOT_BEGUN)
		refuse(c, TLS_INTERNAL_ERROR, "relay", strerror(result.error));
	else if (result.end == RELAY_CLIENT_FAILED)
		log_failure(c, "client", strerror(result.error));
	else if (result.error != 0)
		log_failure(c, "tls-socket", strerror(result.error));
	if (result.end == RELAY_BACKEND_CLOSED)
		linger(c->client, true);
}

void
proxy_serve(int client, const union address *peer, const struct backend_hosts *hosts)
{
	struct connection c = {
	    .client = client,
	    .backend = -1,
	    .peer = peer,
	    .deadline_ms = clock_ms() + PROXY_HELLO_MS,
	};
	if (read_hello(&c) && read_name(&c) && find_backend(&c, hosts))
		relay_until_end(&c);

	tls_hello_release(&c.hello);
	relay_buffer_release(&c.received);
	if (c.backend != -1)
		close(c.backend);
	close(c.client);
}

/* The result of GnuTLS's server for a hello. It is set to be as lenient as possible. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/oracle.h"

static gnutls_certificate_credentials_t credentials;
static gnutls_priority_t priority;
static gnutls_datum_t ticket_key;

/* One connection. */
struct transport {
	gnutls_session_t session;
	struct verdict *verdict;
	const struct bytes *stream;
	size_t read;
	size_t written;
	uint8_t first[7]; /* of what the server sent */
};

static void
check(int code, const char *what)
{
	if (code >= 0)
		return;
	fprintf(stderr, "oracle: GnuTLS: %s: %s\n", what, gnutls_strerror(code));
	exit(1);
}

static ssize_t
pull(gnutls_transport_ptr_t argument, void *data, size_t size)
{
	struct transport *transport = argument;
	size_t left = transport->stream->length - transport->read;
	if (left == 0) {
		gnutls_transport_set_errno(transport->session, EAGAIN);
		return -1;
	}
	size_t count = left < size ? left : size;
	memcpy(data, transport->stream->data + transport->read, count);
	transport->read += count;
	return (ssize_t)count;
}

static int
pull_timeout(gnutls_transport_ptr_t argument, unsigned timeout_ms)
{
	(void)timeout_ms;
	const struct transport *transport = argument;
	return transport->read < transport->stream->length;
}

static ssize_t
push(gnutls_transport_ptr_t argument, const void *data, size_t size)
{
	struct transport *transport = argument;
	const uint8_t *bytes = data;
	for (size_t i = 0; i < size && transport->written + i < sizeof transport->first; i++)
		transport->first[transport->written + i] = bytes[i];
	transport->written += size;
	return (ssize_t)size;
}

/* Called after the hello and its extensions were read, and before the server answers. */
static int
on_client_hello(gnutls_session_t session)
{
	struct transport *transport = gnutls_session_get_ptr(session);
	static uint8_t name[NAME_ROOM];
	size_t length = sizeof name;
	unsigned type = 0;
	transport->verdict->parsed = true;
	if (gnutls_server_name_get(session, name, &length, &type, 0) == 0)
		verdict_set_name(transport->verdict, name, length);
	return 0;
}

void
gnutls_start(const struct identity *identity)
{
	const gnutls_datum_t certificate = {
	    identity->certificate.data, (unsigned)identity->certificate.length};
	const gnutls_datum_t key = {identity->key.data, (unsigned)identity->key.length};
	check(gnutls_global_init(), "set-up");
	check(gnutls_certificate_allocate_credentials(&credentials), "credentials");
	check(gnutls_certificate_set_x509_key_mem(
		  credentials, &certificate, &key, GNUTLS_X509_FMT_PEM),
	    "certificate");
	check(gnutls_priority_init(&priority,
		  "NORMAL:+VERS-TLS1.0:+VERS-TLS1.1:+VERS-TLS1.2:+VERS-TLS1.3:%COMPAT", NULL),
	    "priorities");
	check(gnutls_session_ticket_key_generate(&ticket_key), "ticket key");
}

static void
read_answer(const struct transport *transport, int code)
{
	struct verdict *verdict = transport->verdict;
	if (transport->written >= 6 && transport->first[0] == 22) {
		verdict->outcome = ACCEPTED;
		return;
	}
	if (!gnutls_error_is_fatal(code)) {
		verdict->outcome = WANTS_MORE;
		return;
	}
	/* The caller must send most alerts. */
	int level = 0;
	bool sent = transport->written >= 7 && transport->first[0] == 21;
	verdict->alert = sent ? transport->first[6] : gnutls_error_to_alert(code, &level);
	verdict->outcome = outcome_of_alert(verdict->alert);
	snprintf(verdict->reason, sizeof verdict->reason, "%s", gnutls_strerror_name(code));
}

void
gnutls_judge(const struct bytes *stream, struct verdict *verdict)
{
	gnutls_session_t session = NULL;
	check(gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NONBLOCK), "out of memory");
	check(gnutls_priority_set(session, priority), "priorities");
	check(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials), "credentials");
	check(gnutls_session_ticket_enable_server(session, &ticket_key), "ticket key");
	struct transport transport = {.session = session, .verdict = verdict, .stream = stream};
	gnutls_session_set_ptr(session, &transport);
	gnutls_transport_set_ptr(session, &transport);
	gnutls_transport_set_pull_function(session, pull);
	gnutls_transport_set_pull_timeout_function(session, pull_timeout);
	gnutls_transport_set_push_function(session, push);
	gnutls_handshake_set_post_client_hello_function(session, on_client_hello);

	/* A call ends with each record, and with a warning from the client, which does not end the
	 * handshake. */
	int code = 0;
	size_t read = 0;
	do {
		read = transport.read;
		code = gnutls_handshake(session);
	} while (code < 0 && !gnutls_error_is_fatal(code) && transport.read > read);
	read_answer(&transport, code);
	gnutls_deinit(session);
}

void
gnutls_stop(void)
{
	gnutls_free(ticket_key.data);
	gnutls_priority_deinit(priority);
	gnutls_certificate_free_credentials(credentials);
	gnutls_global_deinit();
}

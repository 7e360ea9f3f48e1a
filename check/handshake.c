#include "check/handshake.h"

#include "lib/clock.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { DAY_SECONDS = 24 * 60 * 60, SOON_DAYS = 14 };

struct ssl_ctx_st *
handshake_open(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	if (context != NULL)
		SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
	return context;
}

void
handshake_close(struct ssl_ctx_st *context)
{
	SSL_CTX_free(context);
}

/* Waits for the event that OpenSSL needs. Returns false if the deadline has passed. */
static bool
wait_for(SSL *ssl, int error, int64_t deadline_ms)
{
	struct pollfd ready = {
	    .fd = SSL_get_fd(ssl), .events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
	return poll(&ready, 1, clock_left_ms(deadline_ms)) == 1;
}

/* Returns OpenSSL's description of the error; static. */
static const char *
describe(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_error());
	return reason != NULL ? reason : "the backend closed the connection";
}

/* Returns NULL if the handshake succeeded, otherwise why it did not. */
static const char *
shake_hands(SSL *ssl, int64_t deadline_ms)
{
	ERR_clear_error();
	for (;;) {
		int result = SSL_connect(ssl);
		if (result == 1)
			return NULL;
		int error = SSL_get_error(ssl, result);
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			return describe();
		if (!wait_for(ssl, error, deadline_ms))
			return "no answer in time";
	}
}

static void
add_name(struct handshake *handshake, const void *bytes, size_t length)
{
	if (handshake->names_count == HANDSHAKE_NAMES_MAX)
		return;
	char *name = strndup(bytes, length);
	if (name != NULL)
		handshake->names[handshake->names_count++] = name;
}

/* Reads the DNS names of CERTIFICATE (RFC 6125, 6.4). Clients ask for no others. */
static void
read_names(struct handshake *handshake, const X509 *certificate)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type;
		const ASN1_STRING *name =
		    GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
		if (type == GEN_DNS)
			add_name(handshake, ASN1_STRING_get0_data(name),
			    (size_t)ASN1_STRING_length(name));
	}
	GENERAL_NAMES_free(names);
}

static time_t
seconds(const ASN1_TIME *time)
{
	struct tm parts;
	return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

/* A certificate for six days always expires within two weeks, so a third of its lifetime counts
 * too. */
static void
read_times(struct handshake *handshake, const X509 *certificate)
{
	time_t now = time(NULL);
	handshake->not_before = seconds(X509_get0_notBefore(certificate));
	handshake->not_after = seconds(X509_get0_notAfter(certificate));
	time_t left = handshake->not_after - now;
	handshake->is_early = handshake->not_before > now;
	handshake->is_expired = left < 0;
	handshake->ends_soon = left < (time_t)SOON_DAYS * DAY_SECONDS &&
	    left < (handshake->not_after - handshake->not_before) / 3;
}

static void
read_certificate(struct handshake *handshake, const SSL *ssl, const char *name)
{
	X509 *certificate = SSL_get1_peer_certificate(ssl);
	if (certificate == NULL) {
		handshake->done = false;
		handshake->failure = "no certificate";
		return;
	}
	read_names(handshake, certificate);
	read_times(handshake, certificate);
	handshake->has_name = X509_check_host(certificate, name, strlen(name),
				  X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
	X509_free(certificate);
}

struct handshake
handshake_try(struct ssl_ctx_st *context, int socket, const char *name, int64_t deadline_ms)
{
	struct handshake handshake = {.failure = "out of memory"};
	SSL *ssl = SSL_new(context);
	if (ssl == NULL)
		return handshake;
	int flags = fcntl(socket, F_GETFL);
	if (fcntl(socket, F_SETFL, flags | O_NONBLOCK) == -1 || SSL_set_fd(ssl, socket) != 1 ||
	    SSL_set_tlsext_host_name(ssl, name) != 1) {
		SSL_free(ssl);
		return handshake;
	}
	handshake.failure = shake_hands(ssl, deadline_ms);
	handshake.done = handshake.failure == NULL;
	handshake.talks = BIO_number_read(SSL_get_rbio(ssl)) > 0;
	handshake.protocol = SSL_get_version(ssl);
	if (handshake.done) {
		read_certificate(&handshake, ssl, name);
		SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	return handshake;
}

void
handshake_free(struct handshake *handshake)
{
	for (size_t i = 0; i < handshake->names_count; i++)
		free(handshake->names[i]);
	handshake->names_count = 0;
}

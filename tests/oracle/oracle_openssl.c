/* The result of OpenSSL's server for a hello. It is set to be as lenient as possible, so that it
 * rejects few hellos because of a missing common algorithm. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/oracle.h"

static SSL_CTX *context;

static void
check(bool condition, const char *what)
{
	if (condition)
		return;
	ERR_print_errors_fp(stderr);
	fprintf(stderr, "oracle: OpenSSL: %s\n", what);
	exit(1);
}

/* Called after the hello was parsed and before its extensions are read. Servers that choose a
 * certificate here read the extension themselves, and only the first name. */
static int
on_client_hello(SSL *ssl, int *alert, void *argument)
{
	(void)alert, (void)argument;
	struct verdict *verdict = SSL_get_app_data(ssl);
	verdict->parsed = true;

	const unsigned char *data = NULL;
	size_t length = 0;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &length) != 1 ||
	    length < 5 || data[2] != TLSEXT_NAMETYPE_host_name)
		return SSL_CLIENT_HELLO_SUCCESS;
	size_t name_length = (size_t)(data[3] << 8 | data[4]);
	if (name_length <= length - 5)
		verdict_set_name(verdict, data + 5, name_length);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static int
on_server_name(SSL *ssl, int *alert, void *argument)
{
	(void)alert, (void)argument;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	if (name != NULL)
		verdict_set_name(SSL_get_app_data(ssl), name, strlen(name));
	return SSL_TLSEXT_ERR_OK;
}

static void
copy_pem(BIO *pem, struct bytes *out)
{
	char *data = NULL;
	long length = BIO_get_mem_data(pem, &data);
	check(length > 0, "PEM");
	bytes_add(out, (const uint8_t *)data, (size_t)length);
	BIO_free(pem);
}

static void
make_identity(struct identity *identity)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	check(key != NULL && certificate != NULL, "no key");
	check(X509_gmtime_adj(X509_getm_notBefore(certificate), 0) != NULL &&
		X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL &&
		X509_set_pubkey(certificate, key) == 1 &&
		X509_sign(certificate, key, EVP_sha256()) > 0,
	    "no certificate");
	check(SSL_CTX_use_certificate(context, certificate) == 1 &&
		SSL_CTX_use_PrivateKey(context, key) == 1,
	    "certificate refused");

	BIO *pem = BIO_new(BIO_s_mem());
	check(pem != NULL && PEM_write_bio_X509(pem, certificate) == 1, "PEM");
	copy_pem(pem, &identity->certificate);
	pem = BIO_new(BIO_s_mem());
	check(pem != NULL && PEM_write_bio_PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) == 1,
	    "PEM");
	copy_pem(pem, &identity->key);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

void
openssl_start(struct identity *identity)
{
	context = SSL_CTX_new(TLS_server_method());
	check(context != NULL, "no context");
	SSL_CTX_set_security_level(context, 0);
	check(SSL_CTX_set_min_proto_version(context, 0) == 1 &&
		SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0") == 1,
	    "set-up");
	SSL_CTX_set_dh_auto(context, 1);
	SSL_CTX_set_client_hello_cb(context, on_client_hello, NULL);
	SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
	make_identity(identity);
}

/* The first record that the server sent is its reaction to the hello; what follows a ServerHello is
 * its reaction to what followed the hello. */
static void
read_answer(BIO *answer, bool waits, struct verdict *verdict)
{
	char *data = NULL;
	long length = BIO_get_mem_data(answer, &data);
	if (length >= 6 && data[0] == 22) {
		verdict->outcome = ACCEPTED;
	} else if (length >= 7 && data[0] == 21) {
		verdict->alert = (uint8_t)data[6];
		verdict->outcome = outcome_of_alert(verdict->alert);
	} else if (waits) {
		verdict->outcome = WANTS_MORE;
	} else {
		verdict->alert = NO_ALERT;
		verdict->outcome = MALFORMED;
	}
}

static void
note_error(struct verdict *verdict)
{
	const char *function = "";
	unsigned long error = ERR_peek_error_all(NULL, NULL, &function, NULL, NULL);
	const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);
	snprintf(verdict->reason, sizeof verdict->reason, "%s: %s", function,
	    reason == NULL ? "" : reason);
	ERR_clear_error();
}

void
openssl_judge(const struct bytes *stream, struct verdict *verdict)
{
	SSL *ssl = SSL_new(context);
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	check(ssl != NULL && in != NULL && out != NULL, "out of memory");
	BIO_set_mem_eof_return(in, -1); /* more may come */
	check(stream->length == 0 ||
		BIO_write(in, stream->data, (int)stream->length) == (int)stream->length,
	    "out of memory");
	SSL_set_bio(ssl, in, out);
	SSL_set_app_data(ssl, verdict);

	ERR_clear_error();
	int status = SSL_accept(ssl);
	bool waits = status <= 0 && SSL_get_error(ssl, status) == SSL_ERROR_WANT_READ;
	read_answer(out, waits, verdict);
	if (!waits)
		note_error(verdict);
	SSL_free(ssl);
}

void
openssl_stop(void)
{
	SSL_CTX_free(context);
}

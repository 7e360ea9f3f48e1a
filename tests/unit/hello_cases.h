/* A table of what clients send, and of the result. Knows tls.h, but not the test framework. */
#ifndef HELLO_CASES_H
#define HELLO_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "tls.h"

struct hello_case {
	const char *what;
	const uint8_t *bytes; /* what the client sends, with its records */
	size_t length;
	enum tls_status status;
	enum tls_alert alert; /* after TLS_REFUSED */
	const char *name;     /* after TLS_OK; it may hold a NUL */
	size_t name_length;

	/* After TLS_OK, and after TLS_UNRECOGNIZED_NAME: how many protocols ALPN offers, and the
	 * first, which may hold a NUL. */
	unsigned protocols;
	const char *protocol;
	size_t protocol_length;
};

extern const struct hello_case hello_cases[];
extern const size_t hello_case_count;

#endif

/* PROXY headers, valid and invalid ones, for the unit test of proxy_protocol.c and for its fuzz
 * test. */
#ifndef PROXY_HEADERS_H
#define PROXY_HEADERS_H

#include "lib/proxy_protocol.h"

struct proxy_header_case {
	const char *what;
	const char *bytes;
	size_t size;  /* of TEXT */
	size_t zeros; /* how many zeros follow */
	enum proxy_protocol_status status;
	const char *client; /* NULL if it has none */
	const char *server;
	const char *reason;
};

extern const struct proxy_header_case proxy_header_cases[];
extern const size_t proxy_header_case_count;

#endif

/* PROXY headers, true and false ones, for the unit test of proxy_protocol.c and for the fuzz test. */
#ifndef PROXY_HEADERS_H
#define PROXY_HEADERS_H

#include "lib/proxy_protocol.h"

struct proxy_header_case {
	const char *what;
	const char *bytes;
	size_t size;  /* of what is written here */
	size_t zeros; /* so many follow */
	enum proxy_protocol_status status;
	const char *client; /* null where it names none */
	const char *server;
	const char *reason;
};

extern const struct proxy_header_case proxy_header_cases[];
extern const size_t proxy_header_case_count;

#endif

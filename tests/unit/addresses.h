/* Addresses for tests, from text. */
#ifndef ADDRESSES_H
#define ADDRESSES_H

#include "lib/address.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>

/* The address HOST of FAMILY, AF_INET or AF_INET6, with PORT. */
static inline union address
address_of(int family, const char *host, uint16_t port)
{
	union address address = {0};
	if (family == AF_INET) {
		address.v4.sin_family = AF_INET;
		address.v4.sin_port = htons(port);
		cr_assert(inet_pton(AF_INET, host, &address.v4.sin_addr) == 1, "%s", host);
	} else {
		address.v6.sin6_family = AF_INET6;
		address.v6.sin6_port = htons(port);
		cr_assert(inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1, "%s", host);
	}
	return address;
}

#endif

/* Networks in text form, such as "10.0.0.0/8", and the addresses in them. */
#ifndef NETWORK_H
#define NETWORK_H

#include "lib/address.h"

#include <stdbool.h>
#include <stddef.h>

/* A network of IPv4 is one of IPv6, in ::ffff:0:0/96. */
struct network {
	struct in6_addr address;
	unsigned prefix; /* in bits */
};

struct network_list {
	struct network *networks;
	size_t count;
};

enum { NETWORK_WHY_SIZE = 128 };

/* Reads the LENGTH bytes of TEXT, an address or a network. Returns false if they are neither, or if
 * bits after the prefix are set. */
bool network_read(struct network *network, const char *text, size_t length);

/* Reads TEXT, networks separated by commas. The caller owns them in any case. Returns false, and
 * says WHY, if a part is no network, or if memory is short. */
bool network_read_list(struct network_list *list, const char *text, char why[NETWORK_WHY_SIZE]);

/* Whether ADDRESS, unmapped, is in a network of LIST. No IPv4 address is in an IPv6 network. */
bool network_list_has(const struct network_list *list, const union address *address);

#endif

/* Networks in text form, such as "10.0.0.0/8", and the addresses in them. */
#ifndef NETWORK_H
#define NETWORK_H

#include "lib/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A network of IPv4 is one of IPv6, in ::ffff:0:0/96. */
struct network {
	uint8_t bytes[16];
	unsigned prefix; /* in bits */
};

struct network_list {
	struct network *networks;
	size_t count;
};

/* Reads TEXT, an address or a network. Returns false if it is neither, or if bits after the prefix
 * are set. */
bool network_read(struct network *network, const char *text);

/* Reads TEXT, networks separated by commas, which it overwrites. The caller owns LIST, which does
 * not point into TEXT. Returns false, and no LIST, if a part is not a network, which is then WRONG;
 * or if memory is short, when WRONG is NULL. */
bool network_read_list(struct network_list *list, char *text, const char **wrong);

/* Whether ADDRESS, unmapped, is in a network of LIST. No IPv4 address is in an IPv6 network. */
bool network_list_has(const struct network_list *list, const union address *address);

#endif

/* Networks as text, such as "10.0.0.0/8", and which addresses are in them. */
#ifndef NETWORK_H
#define NETWORK_H

#include "lib/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A network of IPv4 is one of IPv6, in ::ffff:0:0/96. */
struct network {
	uint8_t bytes[16];
	unsigned prefix; /* how many bits all addresses in it have in common */
};

struct network_list {
	struct network *networks;
	size_t count;
};

/* Reads TEXT, an address or a network. Returns false where it is neither, as where bits after
 * the prefix are set. */
bool network_read(struct network *network, const char *text);

/* Reads TEXT, networks with commas between them, which it cuts there. LIST is then the caller's,
 * and holds nothing of TEXT. Returns false where a part is no network, and that is WRONG; or
 * where memory is short, and WRONG is NULL. Then there is no LIST. */
bool network_read_list(struct network_list *list, char *text, const char **wrong);

/* Whether ADDRESS, unmapped, is in one of LIST. No IPv4 address is in a network of IPv6. */
bool network_list_has(const struct network_list *list, const union address *address);

#endif

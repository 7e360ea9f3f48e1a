/* Socket addresses as text. An IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2) is treated as
 * the IPv4 address that it is. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

/* The address and port of one end of a TCP connection. */
union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

enum {
	ADDRESS_TEXT_SIZE = INET6_ADDRSTRLEN,

	/* '[', an address, ']', ':', five digits; the NUL is in the address's size. */
	ADDRESS_ENDPOINT_SIZE = ADDRESS_TEXT_SIZE + 8,

	/* Where the IPv4 address begins in an IPv4-mapped one. */
	ADDRESS_MAPPED = 12,
};

extern const struct in6_addr address_mapped; /* ::ffff:0.0.0.0 */

/* Turns an IPv4-mapped ADDRESS into the plain IPv4 one, and leaves others as they are. */
void address_unmap(union address *address);

/* Writes ADDRESS without its port, such as "192.0.2.7" or "2001:db8::7". */
void address_text(char text[ADDRESS_TEXT_SIZE], const union address *address);

/* Returns the struct in_addr or struct in6_addr inside ADDRESS. */
const void *address_host(const union address *address);

/* Returns the port of ADDRESS in host byte order. */
uint16_t address_port(const union address *address);

/* Writes ADDRESS and its port, such as "192.0.2.7:51234" or "[2001:db8::7]:51234". */
void address_endpoint(char text[ADDRESS_ENDPOINT_SIZE], const union address *address);

#endif

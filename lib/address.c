#include "lib/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

const struct in6_addr address_mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

void
address_unmap(union address *address)
{
	if (address->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return;
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = address->v6.sin6_port};
	memcpy(&v4.sin_addr, address->v6.sin6_addr.s6_addr + ADDRESS_MAPPED, sizeof v4.sin_addr);
	address->v4 = v4;
}

const void *
address_host(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return &address->v4.sin_addr;
	return &address->v6.sin6_addr;
}

void
address_text(char text[ADDRESS_TEXT_SIZE], const union address *address)
{
	if (inet_ntop(address->any.sa_family, address_host(address), text, ADDRESS_TEXT_SIZE) ==
	    NULL)
		text[0] = '\0';
}

uint16_t
address_port(const union address *address)
{
	return ntohs(
	    address->any.sa_family == AF_INET ? address->v4.sin_port : address->v6.sin6_port);
}

void
address_endpoint(char text[ADDRESS_ENDPOINT_SIZE], const union address *address)
{
	char host[ADDRESS_TEXT_SIZE];
	address_text(host, address);
	snprintf(text, ADDRESS_ENDPOINT_SIZE,
	    address->any.sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
	    (unsigned)address_port(address));
}

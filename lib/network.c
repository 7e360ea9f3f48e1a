#include "lib/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An address has so many bits; those of IPv4 begin after so many that are the same for all. */
enum { BITS = 128, MAPPED = 8 * ADDRESS_MAPPED };

static bool
bit_of(const struct in6_addr *address, unsigned bit)
{
	return (address->s6_addr[bit / 8] >> (7 - bit % 8) & 1) != 0;
}

/* Accepts only digits without leading zeros. strtoul(3) alone would accept signs and spaces too. */
static bool
read_prefix(unsigned *prefix, const char *text, unsigned bits)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 3 || text[digits] != '\0' || (digits > 1 && text[0] == '0'))
		return false;
	*prefix = (unsigned)strtoul(text, NULL, 10);
	return *prefix <= bits;
}

bool
network_read(struct network *network, const char *text, size_t length)
{
	char address[ADDRESS_TEXT_SIZE + sizeof "/128"] = "";
	if (length >= sizeof address)
		return false;
	memcpy(address, text, length);
	char *slash = strchr(address, '/');
	if (slash != NULL)
		*slash = '\0';
	network->address = address_mapped;
	bool is_ipv4 = inet_pton(AF_INET, address, network->address.s6_addr + ADDRESS_MAPPED) == 1;
	if (!is_ipv4 && inet_pton(AF_INET6, address, &network->address) != 1)
		return false;
	unsigned first = is_ipv4 ? MAPPED : 0, prefix = BITS - first;
	if (slash != NULL && !read_prefix(&prefix, slash + 1, prefix))
		return false;
	network->prefix = first + prefix;
	for (unsigned bit = network->prefix; bit < BITS; bit++)
		if (bit_of(&network->address, bit))
			return false;
	return true;
}

bool
network_read_list(struct network_list *list, const char *text, char why[NETWORK_WHY_SIZE])
{
	/* There is room for more networks than TEXT can have. */
	*list = (struct network_list){.networks = calloc(strlen(text) + 1, sizeof *list->networks)};
	if (list->networks == NULL) {
		snprintf(why, NETWORK_WHY_SIZE, "%s", strerror(errno));
		return false;
	}
	for (;; text++) { /* past the comma */
		size_t length = strcspn(text, ",");
		if (!network_read(&list->networks[list->count++], text, length)) {
			snprintf(why, NETWORK_WHY_SIZE, "neither an address nor a network: '%.*s'",
			    (int)length, text);
			return false;
		}
		text += length;
		if (*text == '\0')
			return true;
	}
}

static bool
has(const struct network *network, const union address *address)
{
	struct in6_addr host = address_mapped;
	bool is_ipv4 = address->any.sa_family == AF_INET;
	size_t start = is_ipv4 ? ADDRESS_MAPPED : 0;
	memcpy(host.s6_addr + start, address_host(address), sizeof host - start);
	for (unsigned bit = 0; bit < network->prefix; bit++)
		if (bit_of(&host, bit) != bit_of(&network->address, bit))
			return false;
	return !is_ipv4 || network->prefix >= MAPPED;
}

bool
network_list_has(const struct network_list *list, const union address *address)
{
	for (size_t i = 0; i < list->count; i++)
		if (has(&list->networks[i], address))
			return true;
	return false;
}

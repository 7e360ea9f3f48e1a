#include "lib/network.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* An address has so many bits; one of IPv4 begins with so many that are the same for all
 * (RFC 4291, 2.5.5.2). */
enum { BITS = 128, MAPPED = 96 };

static const uint8_t mapped[MAPPED / 8] = {[10] = 0xff, [11] = 0xff};

static bool
bit_of(const uint8_t *bytes, unsigned bit)
{
	return (bytes[bit / 8] >> (7 - bit % 8) & 1) != 0;
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
network_read(struct network *network, const char *text)
{
	char address[ADDRESS_TEXT_SIZE];
	size_t length = strcspn(text, "/");
	if (length >= sizeof address)
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	memcpy(network->bytes, mapped, sizeof mapped);
	bool is_ipv4 = inet_pton(AF_INET, address, network->bytes + sizeof mapped) == 1;
	if (!is_ipv4 && inet_pton(AF_INET6, address, network->bytes) != 1)
		return false;
	unsigned first = is_ipv4 ? MAPPED : 0, prefix = BITS - first;
	if (text[length] == '/' && !read_prefix(&prefix, text + length + 1, prefix))
		return false;
	network->prefix = first + prefix;
	for (unsigned bit = network->prefix; bit < BITS; bit++)
		if (bit_of(network->bytes, bit))
			return false;
	return true;
}

bool
network_read_list(struct network_list *list, char *text, const char **wrong)
{
	*wrong = NULL;
	/* There is room for more networks than TEXT can have. */
	*list = (struct network_list){.networks = calloc(strlen(text) + 1, sizeof *list->networks)};
	for (char *next; list->networks != NULL && text != NULL; text = next) {
		next = strchr(text, ',');
		if (next != NULL)
			*next++ = '\0';
		if (!network_read(&list->networks[list->count++], text)) {
			*wrong = text;
			free(list->networks);
			*list = (struct network_list){0};
		}
	}
	return list->networks != NULL;
}

static bool
has(const struct network *network, const union address *address)
{
	uint8_t bytes[BITS / 8];
	bool is_ipv4 = address->any.sa_family == AF_INET;
	memcpy(bytes, mapped, sizeof mapped);
	if (is_ipv4)
		memcpy(bytes + sizeof mapped, &address->v4.sin_addr, sizeof address->v4.sin_addr);
	else
		memcpy(bytes, &address->v6.sin6_addr, sizeof bytes);
	for (unsigned bit = 0; bit < network->prefix; bit++)
		if (bit_of(bytes, bit) != bit_of(network->bytes, bit))
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

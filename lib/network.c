#include "lib/network.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of ADDRESS, and how many bits they are. */
static const uint8_t *
bytes_of(const union address *address, unsigned *bits)
{
	bool is_ipv4 = address->any.sa_family == AF_INET;
	*bits = is_ipv4 ? 32 : 128;
	return is_ipv4 ? (const uint8_t *)&address->v4.sin_addr : address->v6.sin6_addr.s6_addr;
}

static bool
read_address(union address *address, const char *text)
{
	memset(address, 0, sizeof *address);
	bool is_ipv4 = inet_pton(AF_INET, text, &address->v4.sin_addr) == 1;
	address->any.sa_family = is_ipv4 ? AF_INET : AF_INET6;
	return is_ipv4 || inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1;
}

/* Digits alone, none of them a zero that says nothing; strtoul(3) takes signs and spaces, too. */
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
	unsigned bits;
	size_t length = strcspn(text, "/");
	if (length >= sizeof address)
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	if (!read_address(&network->address, address))
		return false;
	const uint8_t *bytes = bytes_of(&network->address, &bits);
	network->prefix = bits;
	if (text[length] == '/' && !read_prefix(&network->prefix, text + length + 1, bits))
		return false;
	for (unsigned bit = network->prefix; bit < bits; bit++)
		if ((bytes[bit / 8] >> (7 - bit % 8) & 1) != 0)
			return false;
	/* Of IPv4 in IPv6's dress, 96 bits are the dress. */
	address_unmap(&network->address);
	if (bits == 128 && network->address.any.sa_family == AF_INET)
		network->prefix -= 96;
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
	unsigned bits;
	if (address->any.sa_family != network->address.any.sa_family)
		return false;
	const uint8_t *a = bytes_of(&network->address, &bits);
	const uint8_t *b = bytes_of(address, &bits);
	unsigned whole = network->prefix / 8, rest = network->prefix % 8;
	return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

bool
network_list_has(const struct network_list *list, const union address *address)
{
	for (size_t i = 0; i < list->count; i++)
		if (has(&list->networks[i], address))
			return true;
	return false;
}

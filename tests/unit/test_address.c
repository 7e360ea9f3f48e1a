/* Tests of address.c: addresses as text, and IPv4-mapped addresses. */
#include "tests/unit/addresses.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct {
	int family;
	const char *host;
	uint16_t port;
	const char *text;
	const char *endpoint;
} addresses[] = {
    {AF_INET, "192.0.2.7", 51234, "192.0.2.7", "192.0.2.7:51234"},
    {AF_INET, "0.0.0.0", 0, "0.0.0.0", "0.0.0.0:0"},
    {AF_INET, "255.255.255.255", 65535, "255.255.255.255", "255.255.255.255:65535"},
    {AF_INET6, "2001:db8::7", 443, "2001:db8::7", "[2001:db8::7]:443"},
    {AF_INET6, "::", 1, "::", "[::]:1"},
    {AF_INET6, "2001:0DB8:0:0:1:0:0:1", 256, "2001:db8::1:0:0:1", "[2001:db8::1:0:0:1]:256"},
    {AF_INET6, "1234:5678:9abc:def0:1234:5678:9abc:def0", 65535,
	"1234:5678:9abc:def0:1234:5678:9abc:def0",
	"[1234:5678:9abc:def0:1234:5678:9abc:def0]:65535"},
};

Test(address, writes_addresses_and_ports)
{
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		union address address =
		    address_of(addresses[i].family, addresses[i].host, addresses[i].port);
		char text[ADDRESS_TEXT_SIZE], endpoint[ADDRESS_ENDPOINT_SIZE];
		address_text(text, &address);
		cr_expect(strcmp(text, addresses[i].text) == 0, "%s", text);
		cr_expect(address_port(&address) == addresses[i].port, "%s", addresses[i].host);
		address_endpoint(endpoint, &address);
		cr_expect(strcmp(endpoint, addresses[i].endpoint) == 0, "%s", endpoint);
	}
}

Test(address, has_room_for_the_longest_endpoint)
{
	size_t longest = strlen("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535");
	cr_expect(ADDRESS_ENDPOINT_SIZE > longest);
}

/* Unmaps ADDRESS and reads it as text. */
static void
expect_unmapped(union address address, int family, const char *endpoint)
{
	char text[ADDRESS_ENDPOINT_SIZE];
	address_unmap(&address);
	cr_expect(address.any.sa_family == family, "%s", endpoint);
	address_endpoint(text, &address);
	cr_expect(strcmp(text, endpoint) == 0, "%s became %s", endpoint, text);
}

Test(address, unmaps_mapped_addresses_alone)
{
	expect_unmapped(
	    address_of(AF_INET6, "::ffff:192.0.2.7", 51234), AF_INET, "192.0.2.7:51234");
	expect_unmapped(address_of(AF_INET6, "::ffff:0.0.0.0", 1), AF_INET, "0.0.0.0:1");
	expect_unmapped(address_of(AF_INET, "192.0.2.7", 443), AF_INET, "192.0.2.7:443");
	expect_unmapped(address_of(AF_INET6, "2001:db8::7", 443), AF_INET6, "[2001:db8::7]:443");
	expect_unmapped(address_of(AF_INET6, "::1", 443), AF_INET6, "[::1]:443");

	/* IPv4-compatible, IPv4-translated, and NAT64's: none of them is a mapped one. */
	expect_unmapped(address_of(AF_INET6, "::192.0.2.7", 443), AF_INET6, "[::192.0.2.7]:443");
	expect_unmapped(
	    address_of(AF_INET6, "::ffff:0:192.0.2.7", 443), AF_INET6, "[::ffff:0:c000:207]:443");
	expect_unmapped(
	    address_of(AF_INET6, "64:ff9b::192.0.2.7", 443), AF_INET6, "[64:ff9b::c000:207]:443");
}

Test(address, leaves_what_it_does_not_unmap_as_it_was)
{
	union address address = address_of(AF_INET6, "fe80::1", 443), before;
	address.v6.sin6_flowinfo = htonl(7);
	address.v6.sin6_scope_id = 3;
	memcpy(&before, &address, sizeof before);
	address_unmap(&address);
	cr_expect(memcmp(&address, &before, sizeof before) == 0);
}

/* Tests of group.c: whose connections are counted together. */
#include <criterion/criterion.h>

#include "../group.h"

#include <arpa/inet.h>

static union address
ipv6(const char *text)
{
	union address address = {.v6.sin6_family = AF_INET6};
	cr_assert(inet_pton(AF_INET6, text, &address.v6.sin6_addr) == 1);
	return address;
}

static union address
ipv4(const char *text)
{
	union address address = {.v4.sin_family = AF_INET};
	cr_assert(inet_pton(AF_INET, text, &address.v4.sin_addr) == 1);
	return address;
}

Test(group, addresses_of_ipv6_by_their_first_64_bits)
{
	union address a = ipv6("2001:db8::1"), b = ipv6("2001:db8::2"),
		      c = ipv6("2001:db8:0:1::1");
	struct group *group = group_join_address(&a);
	cr_assert(group_join_address(&b) == group);
	cr_assert(group->connections == 2);
	cr_assert(group_join_address(&c) != group);
}

/* As a PROXY header has them where the server's address is one of IPv6. */
Test(group, ipv4_in_ipv6_is_ipv4)
{
	union address a = ipv4("192.0.2.1"), b = ipv6("::ffff:192.0.2.1"),
		      c = ipv6("::ffff:192.0.2.2");
	struct group *group = group_join_address(&a);
	cr_assert(group_join_address(&b) == group);
	cr_assert(group_join_address(&c) != group);
}

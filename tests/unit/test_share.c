/* Tests of share.c: which connections are counted together. */
#include <criterion/criterion.h>

#include "lib/share.h"
#include "tests/unit/addresses.h"

static struct share *
join(int family, const char *host, uint16_t port)
{
	const union address address = address_of(family, host, port);
	return share_join_address(&address);
}

Test(share, counts_an_ipv4_address_whatever_its_port)
{
	struct share *share = join(AF_INET, "192.0.2.1", 1);
	cr_assert(share->connections == 1);
	cr_assert(join(AF_INET, "192.0.2.1", 2) == share);
	cr_assert(share->connections == 2);
	cr_assert(join(AF_INET, "192.0.2.2", 1) != share);
}

Test(share, counts_an_ipv6_address_by_its_first_64_bits)
{
	struct share *share = join(AF_INET6, "2001:db8::1", 1);
	cr_assert(join(AF_INET6, "2001:db8::ffff:ffff:ffff:ffff", 2) == share);
	cr_assert(share->connections == 2);
	cr_assert(join(AF_INET6, "2001:db8:0:1::1", 1) != share);
}

/* A PROXY header has such an address if the server's is an IPv6 address. */
Test(share, counts_a_mapped_address_as_the_ipv4_address_that_it_is)
{
	struct share *share = join(AF_INET, "192.0.2.1", 1);
	cr_assert(join(AF_INET6, "::ffff:192.0.2.1", 2) == share);
	cr_assert(join(AF_INET6, "::ffff:192.0.2.2", 2) != share);
	cr_assert(join(AF_INET6, "::192.0.2.1", 2) != share, "that is not mapped");
}

/* The first 64 bits of an IPv6 address may be those of an IPv4 address, and 0. */
Test(share, counts_ipv4_and_ipv6_apart)
{
	cr_assert(join(AF_INET, "32.1.13.184", 1) != join(AF_INET6, "2001:db8::", 1));
}

Test(share, counts_hosts_by_name)
{
	struct share *share = share_join("a.example");
	cr_assert(share_join("a.example") == share);
	cr_assert(share->connections == 2 && share->blocked == 0 && share->lookups.count == 0);
	cr_assert_str_eq(share->key, "a.example");
	cr_assert(share_join("a.exampl") != share);
	cr_assert(share_join("a.example.org") != share);
}

/* The key of an address is nine bytes long, too. */
Test(share, counts_a_host_and_an_address_apart)
{
	cr_assert(share_join("192.0.2.1") != join(AF_INET, "192.0.2.1", 1));
}

Test(share, is_freed_after_the_last_connection)
{
	struct share *share = share_join("a.example");
	struct share *other = join(AF_INET, "192.0.2.1", 1);
	cr_assert(share_join("a.example") == share);
	share->blocked = 7;
	share_leave(share);
	cr_assert(share->connections == 1);
	share_leave(share);
	share = share_join("a.example");
	cr_assert(share->connections == 1 && share->blocked == 0, "it was not a new one");
	cr_assert(other->connections == 1);
	share_leave(NULL);
}

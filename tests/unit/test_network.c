/* Tests of network.c: which texts are networks, and which addresses are in them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/network.h"
#include "tests/unit/addresses.h"

static bool
reads(const char *text)
{
	struct network network;
	return network_read(&network, text, strlen(text));
}

Test(network, reads_addresses_and_networks)
{
	static const char *const texts[] = {"192.0.2.7", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32",
	    "192.0.2.6/31", "128.0.0.0/1", "2001:db8::7", "2001:db8::/32", "::/0",
	    "2001:db8::7/128", "8000::/1", "::ffff:10.0.0.0/104", "::ffff:192.0.2.7",
	    "2001:DB8:1234:5678:9abc:def0:255.255.255.255/128"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		cr_expect(reads(texts[i]), "%s", texts[i]);
}

Test(network, refuses_what_is_neither)
{
	static const char *const texts[] = {"", "/", "/8", "10.0.0.0/", "10.0.0.0/33",
	    "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8 ", " 10.0.0.0/8",
	    "10.0.0.0/8/8", "10.0.0.0/0008", "10.0.0.0/08", "0.0.0.0/00", "10.0.0.0/4294967304",
	    "10.0.0/8", "10/8", "10.0.0.256", "010.0.0.0/8", "localhost", "*", "all",
	    "2001:db8::/129", "2001:db8::/1000", "2001:db8:/32", "[2001:db8::]/32", "fe80::1%lo",
	    "10.0.0.0/255.0.0.0", "10.0.0.0:443", "1111:2222:3333:4444:5555:6666:7777:8888:9999",
	    "1111:2222:3333:4444:5555:6666:255.255.255.2555555",
	    /* bits after the prefix */
	    "10.0.0.1/8", "10.0.0.0/6", "192.0.2.7/31", "0.0.0.1/0", "2001:db8::1/127",
	    "2001:db8::/28", "::1/0", "::ffff:10.0.0.0/95"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		cr_expect(!reads(texts[i]), "%s", texts[i]);
}

static const struct {
	const char *network;
	int family;
	const char *address;
	bool is_in;
} cases[] = {
    {"192.0.2.7", AF_INET, "192.0.2.7", true},
    {"192.0.2.7", AF_INET, "192.0.2.6", false},
    {"10.0.0.0/8", AF_INET, "10.0.0.0", true},
    {"10.0.0.0/8", AF_INET, "10.255.255.255", true},
    {"10.0.0.0/8", AF_INET, "11.0.0.0", false},
    {"10.0.0.0/8", AF_INET, "9.255.255.255", false},
    {"10.64.0.0/10", AF_INET, "10.127.255.255", true},
    {"10.64.0.0/10", AF_INET, "10.128.0.0", false},
    {"10.64.0.0/10", AF_INET, "10.63.255.255", false},
    {"192.0.2.6/31", AF_INET, "192.0.2.7", true},
    {"192.0.2.6/31", AF_INET, "192.0.2.5", false},
    {"0.0.0.0/0", AF_INET, "255.255.255.255", true},
    {"0.0.0.0/0", AF_INET6, "::", false},
    {"::/0", AF_INET6, "ffff::1", true},
    {"::/0", AF_INET, "0.0.0.0", false},
    {"2001:db8::/32", AF_INET6, "2001:db8:ffff::", true},
    {"2001:db8::/32", AF_INET6, "2001:db9::", false},
    {"2001:db8::8/125", AF_INET6, "2001:db8::f", true},
    {"2001:db8::8/125", AF_INET6, "2001:db8::10", false},
    {"2001:db8::7", AF_INET6, "2001:db8::7", true},
    {"2001:db8::7", AF_INET6, "2001:db8::6", false},
    {"::ffff:10.0.0.0/104", AF_INET, "10.1.2.3", true},
    {"::ffff:10.0.0.0/104", AF_INET, "11.1.2.3", false},
    {"::ffff:192.0.2.7", AF_INET, "192.0.2.7", true},
    {"::ffff:0.0.0.0/96", AF_INET, "192.0.2.7", true},
};

Test(network, knows_what_is_in_it)
{
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct network network;
		union address address = address_of(cases[i].family, cases[i].address, 51234);
		const struct network_list list = {&network, 1}, none = {&network, 0};
		cr_assert(network_read(&network, cases[i].network, strlen(cases[i].network)));
		cr_expect(network_list_has(&list, &address) == cases[i].is_in, "%s in %s",
		    cases[i].address, cases[i].network);
		cr_expect(!network_list_has(&none, &address));
	}
}

Test(network, reads_lists)
{
	struct network_list list;
	char why[NETWORK_WHY_SIZE];
	char text[] = "10.0.0.0/8,2001:db8::/32,192.0.2.7";
	cr_assert(network_read_list(&list, text, why));
	cr_expect(list.count == 3);
	memset(text, 0, sizeof text); /* no pointer into TEXT is kept */
	static const char *const in[] = {"10.1.2.3", "192.0.2.7"};
	for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
		union address address = address_of(AF_INET, in[i], 1);
		cr_expect(network_list_has(&list, &address), "%s", in[i]);
	}
	union address other = address_of(AF_INET, "192.0.2.8", 1);
	cr_expect(!network_list_has(&list, &other));
	other = address_of(AF_INET6, "2001:db8::1", 1);
	cr_expect(network_list_has(&list, &other));
	free(list.networks);
}

Test(network, says_which_part_of_a_list_is_none)
{
	static const struct {
		const char *text, *wrong;
	} lists[] = {{"", ""}, {",", ""}, {"10.0.0.0/8,", ""}, {",10.0.0.0/8", ""},
	    {"10.0.0.0/8,,::1", ""}, {"10.0.0.0/8, ::1", " ::1"}, {"10.0.0.0/8,here,there", "here"},
	    {"10.0.0.0/8 ::1", "10.0.0.0/8 ::1"}};
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		struct network_list list;
		char why[NETWORK_WHY_SIZE], expected[NETWORK_WHY_SIZE];
		snprintf(expected, sizeof expected, "neither an address nor a network: '%s'",
		    lists[i].wrong);
		cr_expect(!network_read_list(&list, lists[i].text, why), "%s", lists[i].text);
		cr_expect_str_eq(why, expected);
		free(list.networks);
	}
}

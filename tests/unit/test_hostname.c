/* Tests of hostname.c: which names are valid, compared with a table and with the rule in another
 * form; and the names of directories. */
#include <criterion/criterion.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hostname.h"
#include "tests/unit/check.h"

#define TEXT_10 "0123456789"
#define TEXT_50 TEXT_10 TEXT_10 TEXT_10 TEXT_10 TEXT_10
#define TEXT_63 TEXT_50 TEXT_10 "abc"
#define TEXT_64 TEXT_63 "d"
#define TEXT_250 TEXT_50 TEXT_50 TEXT_50 TEXT_50 TEXT_50
#define LABELS_255 TEXT_63 "." TEXT_63 "." TEXT_63 "." TEXT_63

/* A name, which may hold NULs, and its canonical form, or NULL if it is invalid. */
#define NAME(text) text, sizeof text - 1

static const struct {
	const char *bytes;
	size_t length;
	const char *canonical;
} names[] = {
    {NAME("example.com"), "example.com"},
    {NAME("EXAMPLE.Com"), "example.com"},
    {NAME("AZ.az.09"), "az.az.09"},
    {NAME("a"), "a"},
    {NAME("7"), "7"},
    {NAME("localhost"), "localhost"},
    {NAME("xn--sr8hvo.ws"), "xn--sr8hvo.ws"},
    {NAME("a-b.c--d"), "a-b.c--d"},
    {NAME("a-.b-"), "a-.b-"}, /* RFC 1035 knows no such label, but it does no harm */
    {NAME("192.0.2.7"), "192.0.2.7"},
    {NAME("my_app.EXAMPLE"), "my_app.example"},
    {NAME("a_.b__c.example"), "a_.b__c.example"},
    {NAME("a.b.c.d.e.f"), "a.b.c.d.e.f"},

    {NAME(TEXT_63 ".example"), TEXT_63 ".example"},
    {NAME(TEXT_64 ".example"), TEXT_64 ".example"},
    {NAME(TEXT_250 "abc"), TEXT_250 "abc"},
    {NAME(TEXT_250 "abcd"), TEXT_250 "abcd"},
    {NAME(TEXT_250 "abcde"), NULL},
    {NAME(TEXT_250 TEXT_250), NULL},
    {NAME(LABELS_255), NULL},

    {NAME(""), NULL},
    {NAME("."), NULL},
    {NAME(".."), NULL},
    {NAME("..."), NULL},
    {NAME("-"), NULL},
    {NAME(".a"), NULL},
    {NAME("a."), NULL},
    {NAME("a.."), NULL},
    {NAME("a..b"), NULL},
    {NAME("-a"), NULL},
    {NAME("a.-b"), NULL},
    {NAME("a.-"), NULL},

    /* As special hosts and service labels (RFC 8552) begin */
    {NAME("_"), NULL},
    {NAME("_default"), NULL},
    {NAME("_no-sni"), NULL},
    {NAME("_.example.com"), NULL},
    {NAME("_dmarc.example.com"), NULL},
    {NAME("a._tcp.example"), NULL},

    {NAME("../a"), NULL},
    {NAME("a/b"), NULL},
    {NAME("/"), NULL},
    {NAME("*.example"), NULL},
    {NAME("a b"), NULL},
    {NAME(" a"), NULL},
    {NAME("a\n"), NULL},
    {NAME("a:443"), NULL},
    {NAME("[::1]"), NULL},
    {NAME("\0"), NULL},
    {NAME("a\0"), NULL},
    {NAME("a\0.example"), NULL},
    {NAME("b\xc3\xbc"
	  "cher.example"),
	NULL},
    {NAME("\xff"), NULL},
    {NAME("a\x81"), NULL},

    /* What a careless conversion to lowercase would accept: each differs from a valid byte by
     * 0x20. */
    {NAME("a\x0e"), NULL},
    {NAME("a\r"), NULL},
    {NAME("a\x10"), NULL},
    {NAME("a@"), NULL},
    {NAME("a["), NULL},
    {NAME("a`"), NULL},
    {NAME("a{"), NULL},
};

Test(hostname, judges_each_name_of_the_table)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char name[HOSTNAME_SIZE];
		bool valid =
		    hostname_canonical(name, (const uint8_t *)names[i].bytes, names[i].length);
		cr_expect(valid == (names[i].canonical != NULL), "row %zu: %s", i, names[i].bytes);
		if (valid && names[i].canonical != NULL)
			cr_expect(strcmp(name, names[i].canonical) == 0, "row %zu: %s", i, name);
	}
}

/* The rule of hostname.h as a regular expression. */
static regex_t rule;

static void
compile_rule(void)
{
	const char *label = "[A-Za-z0-9][A-Za-z0-9_-]*";
	char pattern[100];
	snprintf(pattern, sizeof pattern, "^%s(\\.%s)*$", label, label);
	cr_assert(regcomp(&rule, pattern, REG_EXTENDED | REG_NOSUB) == 0);
}

static void
free_rule(void)
{
	regfree(&rule);
}

TestSuite(hostname_rule, .init = compile_rule, .fini = free_rule);

/* Asks both, and compares the canonical form. The block has exactly the size of the bytes, so that
 * AddressSanitizer detects a read past the end. */
static void
compare(const char *bytes, size_t length)
{
	char text[HOSTNAME_SIZE + 1], name[HOSTNAME_SIZE];
	memcpy(text, bytes, length);
	text[length] = '\0';
	bool expected =
	    length <= 254 && strlen(text) == length && regexec(&rule, text, 0, NULL, 0) == 0;

	uint8_t *block = malloc(length);
	CHECK(block != NULL || length == 0, "out of memory");
	memcpy(block, bytes, length);
	bool valid = hostname_canonical(name, block, length);
	free(block);
	CHECK(valid == expected, "%zu bytes, %s: %s", length, text, valid ? "valid" : "not valid");
	if (!valid)
		return;
	for (char *c = text; *c != '\0'; c++)
		if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ", *c) != NULL)
			*c += 'a' - 'A';
	CHECK(strcmp(name, text) == 0, "%s became %s", text, name);
}

Test(hostname_rule, holds_for_each_byte_in_each_place)
{
	const struct {
		const char *before, *after;
	} places[] = {{"", ""}, {"", "a"}, {"a", "a"}, {"a", ""}, {"a.", ".a"}, {"a.", ""},
	    {"", ".a"}, {"a.", "a"}, {"a", ".a"}, {"a-", "-a"}};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		for (int byte = 0; byte < 256; byte++) {
			char bytes[8];
			size_t before = strlen(places[i].before), after = strlen(places[i].after);
			memcpy(bytes, places[i].before, before);
			bytes[before] = (char)byte;
			memcpy(bytes + before + 1, places[i].after, after);
			compare(bytes, before + 1 + after);
		}
}

Test(hostname_rule, holds_for_all_short_names_of_a_few_bytes)
{
	enum { LENGTH = 5 };
	static const char alphabet[] = {'a', 'Z', '0', '-', '_', '.', '/', '\0', '\xe9'};
	enum { COUNT = sizeof alphabet };
	size_t total = 1;
	for (size_t length = 0; length <= LENGTH; length++, total *= COUNT)
		for (size_t number = 0; number < total; number++) {
			char bytes[LENGTH + 1];
			size_t rest = number;
			for (size_t i = 0; i < length; i++, rest /= COUNT)
				bytes[i] = alphabet[rest % COUNT];
			compare(bytes, length);
		}
}

Test(hostname_rule, holds_for_each_length)
{
	for (size_t length = 0; length <= 255; length++) {
		char letters[HOSTNAME_SIZE] = "", labels[HOSTNAME_SIZE] = "";
		for (size_t i = 0; i < length; i++) {
			letters[i] = 'A';
			labels[i] = i % 2 == 0 ? 'a' : '.';
		}
		compare(letters, length);
		compare(labels, length);
	}
}

/* The last byte of a name must be read, and none after it. */
Test(hostname, looks_at_its_bytes_and_no_others)
{
	char name[HOSTNAME_SIZE];
	const uint8_t bytes[] = {'a', '.', 'b', '/'};
	cr_expect(hostname_canonical(name, bytes, 3));
	cr_expect(strcmp(name, "a.b") == 0);
	cr_expect(!hostname_canonical(name, bytes, 4));
	cr_expect(!hostname_canonical(name, bytes, 2));
	cr_expect(hostname_canonical(name, bytes, 1));
	cr_expect(strcmp(name, "a") == 0);
}

/* The hashes are those of `printf %s NAME | xxh128sum`. */
static const struct {
	const char *name;
	const char *hash;
} directories[] = {
    {"a", "a96faf705af16834e6c632b61e964e1f"},
    {"7", "dbd6a1e71414294c06eed105b82285fa"},
    {"a.b", "cb8b8a8f342fbf7e390c9ebbbb7402f6"},
    {"localhost", "06db4335d170472f64e327c5e0214467"},
    {"example.com", "c481d7301ccf29bb4bfbb7c48c9c3712"},
    {"blog.example", "2f746db4a13534a2218026535bb79ea7"},
    {"xn--sr8hvo.ws", "733df781a17aa4d496f7b3caf512635a"},
    {TEXT_10 "abcdef", "ccba8085a0434e9e0befb4873dbe58f8"},
    {TEXT_10 "abcdefg", "d54994a55733db61c7401fb9f6fbf86b"},
    {TEXT_50 TEXT_50 TEXT_10 TEXT_10 "abcdefgh", "199a0d34f52a058d12c2d73526dc8fb4"},
    {TEXT_50 TEXT_50 TEXT_10 TEXT_10 "abcdefghi", "bab2a28f767c7126cfe8e9cc1d19c391"},
    {TEXT_250 "abc", "e3339b1b7b8f2807d5a43f2a0285b8d0"},
    {TEXT_250 "abcd", "828bce76aa6f8d5ed92bdd6625147578"},
};

Test(hostname, names_the_directory)
{
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
#ifdef HASHED
		const char *expected = directories[i].hash;
#else
		const char *expected = directories[i].name;
#endif
		char directory[HOSTNAME_SIZE];
		memset(directory, 'X', sizeof directory);
		hostname_directory(directory, directories[i].name);
		cr_expect(
		    strcmp(directory, expected) == 0, "%s: %s", directories[i].name, directory);
	}
}

/* --- Special hosts --- */

Test(hostname, each_host_has_the_next_of_the_table)
{
	static const struct {
		const char *host, *next; /* NULL if there is none */
	} hosts[] = {
	    {"example.com", "_.com"},
	    {"a.example.com", "_.example.com"},
	    {"a.b.example.com", "_.b.example.com"},
	    {"a_b.example.com", "_.example.com"},
	    {"localhost", "_default"},
	    {"192.0.2.7", "_.0.2.7"},
	    {"_.com", "_default"},
	    {"_.example.com", "_default"},
	    {"_default", NULL},
	    {"_no-sni", NULL},
	};
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		char host[HOSTNAME_SIZE];
		snprintf(host, sizeof host, "%s", hosts[i].host);
		cr_expect(hostname_is_special(host) == (host[0] == '_'));
		bool has_next = hostname_next(host);
		cr_expect(has_next == (hosts[i].next != NULL), "%s", hosts[i].host);
		cr_expect(
		    !has_next || strcmp(host, hosts[i].next) == 0, "%s: %s", hosts[i].host, host);
	}
}

/* Each name leads to two special hosts at most, whatever its length, and no name is one. */
Test(hostname, a_name_leads_to_two_special_hosts_at_most)
{
	for (size_t length = 1; length <= HOSTNAME_MAX; length++)
		for (size_t dot = 1; dot <= length; dot += 1 + length / 7) {
			char name[HOSTNAME_SIZE], host[HOSTNAME_SIZE];
			memset(host, 'a', length);
			host[length] = '\0';
			if (dot + 1 < length)
				host[dot] = '.';
			int count = 0;
			for (; hostname_next(host); count++)
				CHECK(hostname_is_special(host) &&
					!hostname_canonical(
					    name, (const uint8_t *)host, strlen(host)),
				    "%s", host);
			CHECK(count == (dot + 1 < length ? 2 : 1), "%zu bytes: %d", length, count);
		}
}

/* Server names: the valid ones, and the directory in which each is looked up. */
#include "tests/program/harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A name of LENGTH bytes in labels of 63. */
static char *
long_name(size_t length)
{
	char *name = malloc(length + 1);
	cr_assert_not_null(name);
	for (size_t i = 0; i < length; i++)
		name[i] = i % 64 == 63 ? '.' : 'a';
	name[length - 1] = 'z';
	name[length] = '\0';
	return name;
}

PROGRAM_TEST(name, valid_names_are_served)
{
	static const char *const names[] = {
	    "a",
	    "0",
	    "a.b",
	    "example.com",
	    "xn--sr8hvo.ws",
	    "label-.example",
	    "ends-with-",
	    "a--b.example",
	    "my_app.example",
	    "a_",
	    "a__b_.example-.com_",
	    "127.0.0.1",
	    "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z",
	};
	proxy_start_default();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		testing("%s", names[i]);
		expect_served(backend_listen(names[i]), hello_for(names[i]));
	}
}

/* The path in an address has 108 bytes, of which /tls-socket takes eleven. */
enum { LONGEST_BY_PATH = 97 };

PROGRAM_TEST(name, names_of_all_lengths_are_served)
{
	static const size_t lengths[] = {63, 64, 96, 97, 98, 107, 108, 109, 200, 253, 254};
	proxy_start_default();
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		testing("%zu bytes", lengths[i]);
		if (is_portable() && !is_hashed() && lengths[i] > LONGEST_BY_PATH)
			break;
		char *name = long_name(lengths[i]);
		expect_served(backend_listen(name), hello_for(name));
		free(name);
	}
}

PROGRAM_TEST(name, one_label_of_254_bytes)
{
	char name[255] = {0};
	if (!is_hashed())
		need("working directories of threads");
	memset(name, 'x', 254);
	proxy_start_default();
	expect_served(backend_listen(name), hello_for(name));
}

PROGRAM_TEST(name, upper_case_is_routed_to_lower_case)
{
	proxy_start_default();
	int backend = backend_listen("www.example.com");
	expect_served(backend, hello_for("WWW.Example.COM"));
	expect_served(backend, hello_for("www.example.coM"));

	/* Each letter has its own lower case. */
	int alphabet = backend_listen("abcdefghijklmnopqrstuvwxyz");
	expect_served(alphabet, hello_for("ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
}

PROGRAM_TEST(name, different_names_are_kept_apart)
{
	proxy_start_default();
	int one = backend_listen("one.example");
	int two = backend_listen("two.example");
	for (int i = 0; i < 20; i++) {
		expect_served(one, hello_for("one.example"));
		expect_served(two, hello_for("two.example"));
	}
	cr_assert(silent_for(one, 0) && silent_for(two, 0));
}

/* An invalid name is rejected even if a directory of that name, its hash's name, or the place it
 * might lead to has a backend. */
static int
listen_as(const char *directory)
{
	char *path;
	cr_assert_gt(asprintf(&path, "%s/hosts/%s", base_directory(), directory), 0);
	mkdir(path, 0755);
	free(path);
	cr_assert_gt(asprintf(&path, "%s/hosts/%s/tls-socket", base_directory(), directory), 0);
	int backend = unix_listen(path, 16);
	free(path);
	return backend;
}

static void
expect_invalid(const char *name, size_t length)
{
	int as_hashed = -1, as_is = -1;
	if (strcmp(directory_name("a", 1), "a") != 0)
		as_hashed = listen_as(directory_name(name, length));
	bool can_exist = length > 0 && length < 256 && memchr(name, '/', length) == NULL &&
	    memchr(name, '\0', length) == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
	if (can_exist)
		as_is = listen_as(name);

	expect_refused(
	    hello((struct shape){.name = name, .name_length = length}), UNRECOGNIZED_NAME);
	cr_assert(as_hashed < 0 || silent_for(as_hashed, 0), "its hash was looked up");
	cr_assert(as_is < 0 || silent_for(as_is, 0), "it was looked up");
}

static const char *const invalid_names[] = {
    "",
    ".",
    "..",
    "...",
    "example.com.",
    ".example.com",
    "example..com",
    "example.com..",
    "-",
    "-example.com",
    "example.-com",
    "example.com.-",
    "/",
    "good.example/",
    "a/b",
    "../hosts/good.example",
    "./good.example",
    "exam ple.com",
    " good.example",
    "good.example ",
    "_",
    "_good.example",
    "_acme.example.com",
    "good._acme.example",
    "*.example.com",
    "good.example:443",
    "[::1]",
    "good@example",
    "good\\example",
    "`id`.example",
    "caf\xc3\xa9.example",
    "\xff\xfe.example",
    "good.example\n",
    "good\r.example",
    "\t.example",
    "\x1b[31m.example",
    "\x7f.example",
    "good\x80.example",
};

PROGRAM_TEST(name, invalid_names_are_refused)
{
	proxy_start_default();
	int good = backend_listen("good.example");
	int above = listen_as("..");
	int here = listen_as(".");
	listen_as("a");
	int below = listen_as("a/b");
	for (size_t i = 0; i < sizeof invalid_names / sizeof *invalid_names; i++) {
		testing("name %zu: %s", i, invalid_names[i]);
		expect_invalid(invalid_names[i], strlen(invalid_names[i]));
	}
	cr_assert(silent_for(good, 0) && silent_for(above, 0) && silent_for(here, 0) &&
	    silent_for(below, 0));
}

/* A name with a valid byte reaches the host that serves all of them. */
PROGRAM_TEST(name, every_other_byte_is_refused)
{
	proxy_start_default();
	backend_listen("a");
	int fallback = backend_listen("_default");
	for (int byte = 0; byte < 256; byte++) {
		char name[] = {'a', (char)byte, 'b'};
		bool valid = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
		    (byte >= '0' && byte <= '9') || byte == '-' || byte == '_' || byte == '.';
		struct bytes bytes =
		    hello((struct shape){.name = name, .name_length = sizeof name});
		testing("byte %#x", (unsigned)byte);
		if (valid)
			expect_served(fallback, bytes);
		else
			expect_refused(bytes, UNRECOGNIZED_NAME);
	}
	cr_assert(silent_for(fallback, 0));
}

PROGRAM_TEST(name, nul_inside_is_refused)
{
	proxy_start_default();
	int good = backend_listen("good.example");
	testing("after the name");
	expect_invalid("good.example\0", 13);
	testing("between two names");
	expect_invalid("good.example\0evil.example", 25);
	testing("first");
	expect_invalid("\0good.example", 13);
	testing("alone");
	expect_invalid("\0", 1);
	cr_assert(silent_for(good, 0));
}

PROGRAM_TEST(name, over_254_bytes_is_refused)
{
	static const size_t lengths[] = {255, 256, 257, 300, 510, 4096, 16000};
	proxy_start_default();
	int cut = backend_listen(long_name(254));
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		testing("%zu bytes", lengths[i]);
		char *name = long_name(lengths[i]);
		expect_invalid(name, lengths[i]);
		free(name);
	}
	cr_assert(silent_for(cut, 0), "a name was cut off");
}

PROGRAM_TEST(name, hashed_directory_only)
{
	if (!is_hashed())
		skip("only if directories are hashed");
	proxy_start_default();
	int plain = listen_as("example.com");
	expect_refused(hello_for("example.com"), UNRECOGNIZED_NAME);
	cr_assert(silent_for(plain, 0), "the name itself was looked up");
	expect_served(backend_listen("example.com"), hello_for("example.com"));
}

/* A hello that offers the one protocol acme-tls/1 (RFC 8737, 3) goes to acme-tls-socket, if the
 * host's directory has one. */
#include "tests/program/harness.h"
#include "tests/unit/users.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct proxy *proxy;
static int tls_socket, acme_socket;

/* A hello for NAME that offers the PROTOCOLS, each with its length before it. */
static struct bytes
hello_offering(const char *name, const void *protocols, size_t length)
{
	struct bytes data = {0}, extension = {0};
	put_integer(&data, length, 2);
	put(&data, protocols, length);
	put_extension(&extension, 16, data);
	return hello((struct shape){
	    .name = name, .without_server_name = name == NULL, .extensions = extension});
}

#define ACME "\012acme-tls/1"
#define H2 "\x02h2"

static struct bytes
acme_hello(const char *name)
{
	return hello_offering(name, ACME, strlen(ACME));
}

static int
acme_listen(const char *name)
{
	char *path = host_path(name, "acme-tls-socket");
	int fd = unix_listen(path, SOMAXCONN);
	free(path);
	return fd;
}

static void
start(void)
{
	proxy = proxy_start_default();
	tls_socket = backend_listen(HOST);
	acme_socket = acme_listen(HOST);
}

/* Neither socket of the host gets a connection. */
static void
expect_neither(void)
{
	check(silent_for(tls_socket, 0), "tls-socket got a connection");
	check(silent_for(acme_socket, 0), "acme-tls-socket got a connection");
}

static void
expect_why(const char *name, const char *why)
{
	char line[384];
	snprintf(line, sizeof line, " %s: %s\n", name, why);
	wait_until(proxy_has_logged(proxy, line), 3000);
}

/* --- Which hello --- */

#define OFFER(literal) literal, sizeof literal - 1

static const struct offer {
	const char *what, *protocols;
	size_t length;
	bool is_acme;
} offers[] = {
    {"alone", OFFER(ACME), true},
    {"another", OFFER(H2), false},
    {"before another", OFFER(ACME H2), false},
    {"after another", OFFER(H2 ACME), false},
    {"between others", OFFER(H2 ACME "\x08http/1.1"), false},
    {"twice", OFFER(ACME ACME), false},
    {"before one of a byte", OFFER(ACME "\x01-"), false},
    {"after GREASE", OFFER("\x02\x0a\x0a" ACME), false},
    {"before GREASE", OFFER(ACME "\x02\xfa\xfa"), false},
    {"a prefix", OFFER("\011acme-tls/"), false},
    {"the first byte", OFFER("\001a"), false},
    {"a suffix", OFFER("\011cme-tls/1"), false},
    {"one byte more", OFFER("\013acme-tls/1 "), false},
    {"a NUL more", OFFER("\013acme-tls/1\0"), false},
    {"a byte before", OFFER("\x0b acme-tls/1"), false},
    {"a NUL inside", OFFER("\012acme\0tls/1"), false},
    {"another version", OFFER("\012acme-tls/2"), false},
    {"upper case", OFFER("\012ACME-TLS/1"), false},
    {"one letter in upper case", OFFER("\012acme-tlS/1"), false},
};

PROGRAM_TEST(acme, exactly_the_one_protocol)
{
	start();
	for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) {
		testing("%s", offers[i].what);
		struct bytes hello_bytes =
		    hello_offering(HOST, offers[i].protocols, offers[i].length);
		expect_served(offers[i].is_acme ? acme_socket : tls_socket, hello_bytes);
		expect_neither();
	}
	testing("no ALPN");
	expect_served(tls_socket, hello_for(HOST));
	expect_neither();
}

PROGRAM_TEST(acme, malformed_offers_reach_neither)
{
	static const struct {
		const char *what;
		struct bytes data;
	} rows[] = {
	    {"nothing", {(uint8_t *)"", 0, 0}},
	    {"a list longer than the extension", {(uint8_t *)"\0\x0c" ACME, 13, 0}},
	    {"a list shorter than the extension", {(uint8_t *)"\0\x0a" ACME, 13, 0}},
	    {"a byte after the list", {(uint8_t *)"\0\x0b" ACME "x", 14, 0}},
	    {"an empty protocol after it", {(uint8_t *)"\0\x0c" ACME "\0", 14, 0}},
	    {"a protocol longer than the list", {(uint8_t *)"\0\x0b\013acme-tls/1", 13, 0}},
	};
	start();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("%s", rows[i].what);
		struct bytes extensions = {0};
		put_extension(&extensions, 16, rows[i].data);
		expect_refused(hello((struct shape){.extensions = extensions}), DECODE_ERROR);
		expect_neither();
	}
	testing("twice");
	struct bytes twice = {0}, data = {0};
	put(&data, "\0\x0b" ACME, 13);
	put_extension(&twice, 16, data);
	put_extension(&twice, 16, data);
	expect_refused(hello((struct shape){.extensions = twice}), ILLEGAL_PARAMETER);
	expect_neither();
}

PROGRAM_TEST(acme, however_the_hello_is_split)
{
	start();
	struct bytes hello_bytes = acme_hello(HOST);
	struct bytes message = slice(hello_bytes, 5, hello_bytes.length - 5);
	for (size_t size = 1; size <= message.length; size += 3) {
		testing("records of %zu bytes", size);
		expect_served(acme_socket, in_records(message, size));
	}
	testing("byte by byte");
	int client = client_connect();
	send_bytewise(client, hello_bytes);
	int accepted = backend_accept(acme_socket);
	expect_bytes(accepted, hello_bytes);
	pair_talk(((struct pair){client, accepted}));
	testing("a name in upper case");
	expect_served(acme_socket, acme_hello("Host.EXAMPLE"));
	expect_neither();
}

/* --- Without it --- */

PROGRAM_TEST(acme, without_the_socket_it_goes_to_tls_socket)
{
	start();
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	close(acme_socket);
	expect_served(tls_socket, acme_hello(HOST));
	testing("and each connection is looked up anew");
	acme_socket = acme_listen(HOST);
	expect_served(acme_socket, acme_hello(HOST));
	expect_served(tls_socket, hello_for(HOST));
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	expect_served(tls_socket, acme_hello(HOST));
	expect_neither();
}

PROGRAM_TEST(acme, a_host_with_nothing_else)
{
	start();
	cr_assert_eq(unlink(host_path(HOST, "tls-socket")), 0);
	expect_served(acme_socket, acme_hello(HOST));
	expect_refused(hello_for(HOST), UNRECOGNIZED_NAME);
	expect_neither();
	testing("and neither");
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	expect_neither();
}

/* Nobody listens there any more. */
PROGRAM_TEST(acme, a_stale_socket_is_not_replaced_by_tls_socket)
{
	start();
	int other = backend_listen("other.example");
	close(acme_socket);
	acme_socket = other;
	for (int i = 0; i < 3; i++) {
		expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
		expect_neither();
		expect_served(tls_socket, hello_for(HOST));
	}
	expect_why(HOST, "acme-tls-socket: Connection refused");
}

PROGRAM_TEST(acme, a_file_that_is_no_socket_is_not_replaced)
{
	const char *path;
	start();
	path = host_path(HOST, "acme-tls-socket");
	testing("a file");
	cr_assert_eq(unlink(path), 0);
	make_file(path, "");
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	testing("a directory");
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(mkdir(path, 0755), 0);
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	testing("a symlink to itself");
	cr_assert_eq(rmdir(path), 0);
	cr_assert_eq(symlink("acme-tls-socket", path), 0);
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	expect_served(tls_socket, hello_for(HOST));
	expect_neither();
}

PROGRAM_TEST(acme, a_socket_without_the_right_is_not_replaced)
{
	server_listen("127.0.0.1");
	proxy = proxy_start(become_nobody);
	tls_socket = backend_listen(HOST);
	acme_socket = acme_listen(HOST);
	cr_assert_eq(chmod(host_path(HOST, "acme-tls-socket"), 0), 0);
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	expect_why(HOST, "acme-tls-socket: Permission denied");
	expect_neither();
	cr_assert_eq(chmod(host_path(HOST, "acme-tls-socket"), 0777), 0);
	expect_served(acme_socket, acme_hello(HOST));
}

PROGRAM_TEST(acme, a_full_backlog_is_waited_for)
{
	start();
	char *path = host_path(HOST, "acme-tls-socket");
	cr_assert_eq(unlink(path), 0);
	acme_socket = unix_listen(path, 1);
	int fillers = fill_backlog(path);
	struct bytes hello_bytes = acme_hello(HOST);
	int client = client_send(hello_bytes);
	cr_assert(silent_for(client, 500), "the proxy gave up at once");
	cr_assert(silent_for(tls_socket, 0), "tls-socket got it");
	for (int i = 0; i < fillers; i++)
		close(backend_accept(acme_socket));
	int accepted = backend_accept(acme_socket);
	expect_bytes(accepted, hello_bytes);
	pair_talk(((struct pair){client, accepted}));
}

/* A stale acme-tls-socket, which anybody can ask for, must not keep the host's other clients from
 * waiting for their backend. */
PROGRAM_TEST(acme, a_stale_socket_does_not_spoil_a_restart)
{
	start();
	const char *path = host_path(HOST, "tls-socket");
	close(acme_socket);
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	close(tls_socket);
	cr_assert_eq(unlink(path), 0);
	struct bytes hello_bytes = hello_for(HOST);
	int client = client_send(hello_bytes);
	cr_assert(silent_for(client, 200), "the client was rejected at once");
	tls_socket = unix_listen(path, 16);
	int accepted = backend_accept(tls_socket);
	expect_bytes(accepted, hello_bytes);
	pair_talk(((struct pair){client, accepted}));
}

/* Nor does a missing backend keep acme-tls-socket from being waited for. */
PROGRAM_TEST(acme, a_missing_backend_does_not_spoil_a_restart)
{
	start();
	const char *path = host_path(HOST, "acme-tls-socket");
	close(tls_socket);
	expect_refused(hello_for(HOST), UNRECOGNIZED_NAME);
	close(acme_socket);
	struct bytes hello_bytes = acme_hello(HOST);
	int client = client_send(hello_bytes);
	cr_assert(silent_for(client, 200), "the client was rejected at once");
	cr_assert_eq(unlink(path), 0);
	acme_socket = unix_listen(path, 16);
	int accepted = backend_accept(acme_socket);
	expect_bytes(accepted, hello_bytes);
	pair_talk(((struct pair){client, accepted}));
}

/* The backend closes with the hello unread, which resets the connection. */
static void
expect_why_of_reset(int listener, struct bytes hello_bytes, const char *why)
{
	int client = client_send(hello_bytes), accepted = backend_accept(listener);
	check(readable_within(accepted, 3000), "no hello");
	close(accepted);
	expect_why(HOST, why);
	close(client);
}

PROGRAM_TEST(acme, the_log_names_its_socket)
{
	start();
	expect_why_of_reset(
	    acme_socket, acme_hello(HOST), "acme-tls-socket: Connection reset by peer");
	expect_why_of_reset(tls_socket, hello_for(HOST), "tls-socket: Connection reset by peer");
}

/* --- The PROXY header --- */

PROGRAM_TEST(acme, no_proxy_header)
{
	start();
	for (int version = 1; version <= 2; version++) {
		testing("version %d", version);
		make_file(host_path(HOST, version == 1 ? "send-proxy-v1" : "send-proxy-v2"), "");
		expect_served(acme_socket, acme_hello(HOST));
		int client = client_send(hello_for(HOST));
		expect_bytes(
		    backend_accept(tls_socket), text(version == 1 ? "PROXY TCP4 " : "\r\n\r\n"));
		close(client);
	}
	testing("to tls-socket in its place");
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	int client = client_send(acme_hello(HOST));
	expect_bytes(backend_accept(tls_socket), text("\r\n\r\n"));
	close(client);
}

/* --- Symlinks --- */

PROGRAM_TEST(acme, symlinked_socket)
{
	start();
	char *path;
	cr_assert_gt(asprintf(&path, "%s/acme", base_directory()), 0);
	close(acme_socket);
	acme_socket = unix_listen(path, 16);
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	cr_assert_eq(symlink(path, host_path(HOST, "acme-tls-socket")), 0);
	expect_served(acme_socket, acme_hello(HOST));
	testing("from a symlinked host directory");
	cr_assert_eq(symlink(host_path(HOST, NULL), host_path("www.example", NULL)), 0);
	expect_served(acme_socket, acme_hello("www.example"));
	expect_served(tls_socket, hello_for("www.example"));
	testing("the socket of another host");
	int other = backend_listen("other.example");
	cr_assert_eq(symlink(host_path(HOST, "acme-tls-socket"),
			 host_path("other.example", "acme-tls-socket")),
	    0);
	expect_served(acme_socket, acme_hello("other.example"));
	expect_served(other, hello_for("other.example"));
	expect_neither();
}

/* --- Special hosts --- */

PROGRAM_TEST(acme, special_hosts)
{
	static const char *const special[] = {"_.wild.example", "_default"};
	static const char *const names[] = {"any.wild.example", "else.where"};
	proxy = proxy_start_default();
	for (int i = 0; i < 2; i++) {
		testing("%s", special[i]);
		tls_socket = backend_listen(special[i]);
		expect_served(tls_socket, acme_hello(names[i]));
		acme_socket = acme_listen(special[i]);
		expect_served(acme_socket, acme_hello(names[i]));
		expect_served(tls_socket, hello_for(names[i]));
		expect_served(tls_socket, hello_offering(names[i], H2 ACME, strlen(H2 ACME)));
		expect_neither();
	}
}

/* A host that has a directory is served from there alone. */
PROGRAM_TEST(acme, special_hosts_do_not_stand_in)
{
	proxy = proxy_start_default();
	backend_listen("_default");
	backend_listen("_.wild.example");
	acme_socket = acme_listen("_default");
	int wild = acme_listen("_.wild.example");
	tls_socket = backend_listen("own.wild.example");
	expect_served(tls_socket, acme_hello("own.wild.example"));
	expect_neither();
	testing("a directory with nothing in it");
	host_make("empty.wild.example");
	expect_refused(acme_hello("empty.wild.example"), UNRECOGNIZED_NAME);
	expect_neither();
	cr_assert(silent_for(wild, 0), "the wildcard host got a connection");
	testing("the wildcard host before the default");
	expect_served(wild, acme_hello("any.wild.example"));
	expect_neither();
}

/* --- Users who do not trust each other --- */

static void
start_among_users(void)
{
	const char *missing = is_linux() ? users_missing() : "needs Linux";
	if (missing != NULL)
		skip(missing);
	server_listen("127.0.0.1");
	proxy = proxy_start(become_nobody);
	char path[128];
	snprintf(path, sizeof path, "%s/hosts", base_directory());
	cr_assert_eq(chmod(path, 01777), 0);
}

/* USER listens on FILE in the directory of NAME. */
static int
user_listens_at(enum user user, const char *name, const char *file)
{
	int fd = unix_listen(host_path(name, file), 16);
	user_listens(user, fd);
	return fd;
}

PROGRAM_TEST(acme, the_owner_or_root_must_listen)
{
	char why[128];
	start_among_users();
	user_makes(ALICE, host_path(HOST, NULL));
	tls_socket = user_listens_at(ALICE, HOST, "tls-socket");
	acme_socket = user_listens_at(ALICE, HOST, "acme-tls-socket");
	expect_served(acme_socket, acme_hello(HOST));

	testing("somebody else");
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	close(acme_socket);
	acme_socket = user_listens_at(BOB, HOST, "acme-tls-socket");
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	snprintf(why, sizeof why,
	    "acme-tls-socket: user %u listens in the host directory of user %u",
	    (unsigned)user_id(BOB), (unsigned)user_id(ALICE));
	expect_why(HOST, why);
	expect_end(backend_accept(acme_socket));
	expect_served(tls_socket, hello_for(HOST));
	expect_neither();

	testing("root");
	if (getuid() != 0)
		return;
	cr_assert_eq(unlink(host_path(HOST, "acme-tls-socket")), 0);
	close(acme_socket);
	acme_socket = user_listens_at(SELF, HOST, "acme-tls-socket");
	expect_served(acme_socket, acme_hello(HOST));
}

/* A symlink does not make it another user's. */
PROGRAM_TEST(acme, a_symlink_to_somebody_elses_socket)
{
	start_among_users();
	user_makes(BOB, host_path("bob.example", NULL));
	acme_socket = user_listens_at(BOB, "bob.example", "acme-tls-socket");
	user_makes(ALICE, host_path(HOST, NULL));
	tls_socket = user_listens_at(ALICE, HOST, "tls-socket");
	user_links(
	    ALICE, host_path("bob.example", "acme-tls-socket"), host_path(HOST, "acme-tls-socket"));
	expect_refused(acme_hello(HOST), UNRECOGNIZED_NAME);
	expect_end(backend_accept(acme_socket));
	expect_served(acme_socket, acme_hello("bob.example"));
	expect_neither();
}

/* Whoever answers for all names could have a certificate for each. */
PROGRAM_TEST(acme, special_hosts_of_other_users_are_not_served)
{
	static const char *const special[] = {"_default", "_.wild.example"};
	start_among_users();
	for (int i = 0; i < 2; i++) {
		testing("%s", special[i]);
		user_makes(ALICE, host_path(special[i], NULL));
		tls_socket = user_listens_at(ALICE, special[i], "tls-socket");
		acme_socket = user_listens_at(ALICE, special[i], "acme-tls-socket");
		expect_refused(acme_hello("any.wild.example"), UNRECOGNIZED_NAME);
		expect_neither();
	}
}

PROGRAM_TEST(acme, special_hosts_of_root_are_served)
{
	start_among_users();
	if (getuid() != 0)
		skip("needs root");
	tls_socket = backend_listen("_default");
	acme_socket = acme_listen("_default");
	expect_served(acme_socket, acme_hello("any.wild.example"));
	testing("but not by another user");
	close(acme_socket);
	cr_assert_eq(unlink(host_path("_default", "acme-tls-socket")), 0);
	acme_socket = user_listens_at(ALICE, "_default", "acme-tls-socket");
	expect_refused(acme_hello("any.wild.example"), UNRECOGNIZED_NAME);
	expect_end(backend_accept(acme_socket));
	expect_served(tls_socket, hello_for("any.wild.example"));
	expect_neither();
}

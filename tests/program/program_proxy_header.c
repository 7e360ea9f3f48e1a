/* PROXY headers from a balancer in front: which addresses must send them, what the addresses in
 * them are used for, and what is rejected. Balancers are in 127.0.3.0/24 here. */
#include "tests/program/harness.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BALANCER "127.0.3.1"
#define BALANCERS "2001:db8::/32,127.0.3.0/24,::1"

static struct proxy *proxy;
static int backend;
static struct bytes request;

static void
accept_proxy(void)
{
	setenv("SNIPROXY_ACCEPT_PROXY", BALANCERS, 1);
}

static void
accept_proxy_and_log(void)
{
	accept_proxy();
	setenv("SNIPROXY_LOG", "connections", 1);
}

static void
start_at(const char *address, void (*prepare)(void))
{
	request = hello_for(HOST);
	server_listen(address);
	proxy = proxy_start(prepare);
	backend = backend_listen(HOST);
}

static void
start(void)
{
	start_at("127.0.0.1", accept_proxy);
}

/* --- Headers --- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define LITERAL(string) \
	{ \
		(uint8_t *)(string), sizeof(string) - 1, 0 \
	}

#define V1_IPV4 "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"
#define V1_IPV6 "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"
#define V2_IPV4 "\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb"
#define V2_IPV6 \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07" \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01" \
	"\xc8\x22\x01\xbb"

/* Version 2, IPv4, with extensions, LENGTH bytes in all. */
static struct bytes
header_of(size_t length)
{
	struct bytes header = {0};
	put(&header, SIGNATURE "\x21\x11", sizeof SIGNATURE - 1 + 2);
	put_integer(&header, length - 16, 2);
	put(&header, V2_IPV4, 12);
	put_fill(&header, 0xff, length - header.length);
	return header;
}

/* Version 1, from the address 198.51.NETWORK.HOST_NUMBER. */
static struct bytes
header_from(int network, int number)
{
	char line[108];
	snprintf(
	    line, sizeof line, "PROXY TCP4 198.51.%d.%d 192.0.2.1 1024 443\r\n", network, number);
	struct bytes header = {0};
	put(&header, line, strlen(line));
	return header;
}

static struct bytes
joined(struct bytes a, struct bytes b)
{
	struct bytes both = {0};
	put_bytes(&both, a);
	put_bytes(&both, b);
	return both;
}

static int
balancer_send(struct bytes bytes)
{
	int client = client_connect_from(BALANCER);
	send_all(client, bytes);
	return client;
}

/* --- What the address is used for --- */

static const struct {
	const char *what;
	struct bytes header;
	const char *passed_on;
} headers[] = {
    {"v1, IPv4", LITERAL(V1_IPV4), V1_IPV4},
    {"v1, IPv6", LITERAL(V1_IPV6), V1_IPV6},
    {"v1, mapped", LITERAL("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 443\r\n"),
	V1_IPV4},
    {"v1, one mapped", LITERAL("PROXY TCP6 2001:db8::7 ::ffff:192.0.2.1 51234 443\r\n"),
	"PROXY TCP6 2001:db8::7 ::ffff:192.0.2.1 51234 443\r\n"},
    {"v2, IPv4", LITERAL(SIGNATURE "\x21\x11\x00\x0c" V2_IPV4), V1_IPV4},
    {"v2, IPv6", LITERAL(SIGNATURE "\x21\x21\x00\x24" V2_IPV6), V1_IPV6},
    {"v2, extensions", LITERAL(SIGNATURE "\x21\x11\x00\x10" V2_IPV4 "\x04\x00\x01x"), V1_IPV4},
};
enum { HEADERS = sizeof headers / sizeof *headers };

/* The backend gets HEADER, the hello, and the rest; the client gets the answer. */
static void
expect_passed_on(int client, const char *header)
{
	int accepted = backend_accept(backend);
	expect_bytes(accepted, text(header));
	expect_bytes(accepted, request);
	struct pair pair = {client, accepted};
	pair_talk(pair);
	pair_close(pair);
}

PROGRAM_TEST(proxy_header, the_address_is_passed_on)
{
	start();
	make_file(host_path(HOST, "send-proxy-v1"), "");
	for (size_t i = 0; i < HEADERS; i++) {
		testing("%s", headers[i].what);
		int client = balancer_send(joined(headers[i].header, request));
		expect_passed_on(client, headers[i].passed_on);

		testing("%s, and then the hello", headers[i].what);
		client = balancer_send(headers[i].header);
		wait_drained();
		send_all(client, request);
		expect_passed_on(client, headers[i].passed_on);
	}
}

PROGRAM_TEST(proxy_header, one_byte_at_a_time)
{
	start();
	make_file(host_path(HOST, "send-proxy-v1"), "");
	for (size_t i = 0; i < HEADERS; i++) {
		testing("%s", headers[i].what);
		int client = client_connect_from(BALANCER);
		send_bytewise(client, headers[i].header);
		send_bytewise(client, request);
		expect_passed_on(client, headers[i].passed_on);
	}
}

/* In each way that two reads can divide them. */
PROGRAM_TEST(proxy_header, in_two_parts)
{
	start();
	make_file(host_path(HOST, "send-proxy-v1"), "");
	struct bytes all = joined(headers[6].header, slice(request, 0, 8));
	for (size_t part = 1; part < all.length; part++) {
		testing("%zu bytes", part);
		int client = balancer_send(slice(all, 0, part));
		wait_drained();
		send_all(client, slice(all, part, all.length - part));
		send_all(client, slice(request, 8, request.length - 8));
		expect_passed_on(client, headers[6].passed_on);
	}
}

PROGRAM_TEST(proxy_header, the_longest)
{
	start();
	make_file(host_path(HOST, "send-proxy-v1"), "");
	expect_passed_on(balancer_send(joined(header_of(4096), request)), V1_IPV4);
	request = in_records(largest_message(), 1 << 14);
	expect_passed_on(balancer_send(joined(header_of(4096), request)), V1_IPV4);
}

/* Only a backend that wants a header gets one. */
PROGRAM_TEST(proxy_header, the_header_itself_is_not_passed_on)
{
	start();
	for (size_t i = 0; i < HEADERS; i++) {
		testing("%s", headers[i].what);
		expect_passed_on(balancer_send(joined(headers[i].header, request)), "");
	}
}

/* Without an address in the header, the balancer's counts. */
PROGRAM_TEST(proxy_header, a_connection_of_the_balancers)
{
	static const struct {
		const char *what;
		struct bytes header;
	} rows[] = {
	    {"UNKNOWN", LITERAL("PROXY UNKNOWN\r\n")},
	    {"UNKNOWN, and more", LITERAL("PROXY UNKNOWN 192.0.2.7 ::1 x\r\n")},
	    {"LOCAL", LITERAL(SIGNATURE "\x20\x00\x00\x00")},
	    {"LOCAL with addresses", LITERAL(SIGNATURE "\x20\x11\x00\x0c" V2_IPV4)},
	    {"unspecified", LITERAL(SIGNATURE "\x21\x00\x00\x00")},
	    {"UDP", LITERAL(SIGNATURE "\x21\x12\x00\x0c" V2_IPV4)},
	};
	start();
	make_file(host_path(HOST, "send-proxy-v1"), "");
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char line[108];
		testing("%s", rows[i].what);
		int client = balancer_send(joined(rows[i].header, request));
		snprintf(line, sizeof line, "PROXY TCP4 %s 127.0.0.1 %u %u\r\n", BALANCER,
		    local_port(client), server.port);
		expect_passed_on(client, line);
	}
}

/* --- From whom --- */

PROGRAM_TEST(proxy_header, others_are_served_without)
{
	start();
	expect_served(backend, request);
	static const char *const others[] = {"127.0.0.2", "127.0.2.255", "127.0.4.0"};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		testing("%s", others[i]);
		int client = client_connect_from(others[i]);
		send_all(client, request);
		expect_passed_on(client, "");
		client = client_connect_from(others[i]);
		send_all(client, joined(headers[0].header, request));
		expect_alert(client, UNEXPECTED_MESSAGE);
	}
}

static void
accept_nothing(void)
{
	setenv("SNIPROXY_ACCEPT_PROXY", "", 1);
}

PROGRAM_TEST(proxy_header, nobody_may_send_one_by_default)
{
	start_at("127.0.0.1", accept_nothing);
	int client = balancer_send(joined(headers[0].header, request));
	expect_alert(client, UNEXPECTED_MESSAGE);
	expect_passed_on(balancer_send(request), "");
}

PROGRAM_TEST(proxy_header, a_balancer_with_ipv6)
{
	start_at("::1", accept_proxy);
	make_file(host_path(HOST, "send-proxy-v1"), "");
	expect_passed_on(client_send(joined(headers[0].header, request)), V1_IPV4);
	expect_alert(client_send(request), INTERNAL_ERROR);
}

/* An IPv4 balancer, through an IPv6 socket. */
PROGRAM_TEST(proxy_header, a_balancer_that_is_mapped)
{
	start_at("::", accept_proxy);
	make_file(host_path(HOST, "send-proxy-v1"), "");
	strcpy(server.address, "127.0.0.1");
	int client = balancer_send(joined(headers[1].header, request));
	expect_passed_on(client, V1_IPV6);
	expect_alert(balancer_send(request), INTERNAL_ERROR);
}

/* --- What is rejected --- */

static bool
has_logged(const char *what)
{
	char *log = proxy_log(proxy);
	bool found = strstr(log, what) != NULL;
	free(log);
	return found;
}

/* BYTES, in any parts, get the alert, and a line with WHY. */
static void
expect_header_refused(struct bytes bytes, const char *why)
{
	char line[128];
	int client = balancer_send(bytes);
	expect_alert(client, INTERNAL_ERROR);
	snprintf(
	    line, sizeof line, "\n%s:%u -: PROXY header: %s\n", BALANCER, local_port(client), why);
	wait_until(has_logged(line), 3000);
	client = client_connect_from(BALANCER);
	send_bytewise(client, bytes);
	expect_alert(client, INTERNAL_ERROR);
	check(silent_for(backend, 0), "the backend got a connection");
}

PROGRAM_TEST(proxy_header, what_is_none_is_refused)
{
	static const struct {
		struct bytes bytes;
		const char *why;
	} rows[] = {
	    {LITERAL("GET / HTTP/1.1\r\n\r\n"), "missing"},
	    {LITERAL("PROXY TCP4 192.0.2.7 198.51.100.1 51234 65536\r\n"), "malformed"},
	    {LITERAL("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n"), "malformed"},
	    {LITERAL("PROXY TCP4 ::1 ::1 51234 443\r\n"), "malformed"},
	    {LITERAL(SIGNATURE "\x11\x11\x00\x0c"), "malformed"},
	    {LITERAL(SIGNATURE "\x21\x11\x00\x0b"), "malformed"},
	    {LITERAL(SIGNATURE "\x21\x11\x0f\xf1"), "too long"},
	};
	start();
	client_send(text("x")); /* so that each line follows another */
	wait_until(has_logged("\n"), 3000);
	expect_header_refused(request, "missing");
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("row %zu", i);
		expect_header_refused(rows[i].bytes, rows[i].why);
	}
	struct bytes endless = {0};
	put(&endless, "PROXY UNKNOWN ", 14);
	put_fill(&endless, ' ', 107 - 14);
	expect_header_refused(endless, "too long");
}

PROGRAM_TEST(proxy_header, a_second_header_is_no_hello)
{
	start();
	int client = balancer_send(joined(headers[0].header, headers[4].header));
	expect_alert(client, UNEXPECTED_MESSAGE);
	wait_until(has_logged("192.0.2.7:51234 -: unexpected_message: "), 3000);
}

PROGRAM_TEST(proxy_header, one_that_ends_early)
{
	start();
	for (size_t i = 0; i < HEADERS; i++) {
		testing("%s", headers[i].what);
		struct bytes header = headers[i].header;
		int client = balancer_send(slice(header, 0, header.length - 1));
		shutdown(client, SHUT_WR);
		expect_alert(client, INTERNAL_ERROR);
	}
	wait_until(has_logged(" -: PROXY header: end of stream inside it\n"), 3000);
}

/* The time for the hello includes the header. */
PROGRAM_TEST(proxy_header, one_that_does_not_come_in_time)
{
	enum { COUNT = 3, STEPS = 9 };
	int clients[COUNT];
	start();
	for (int i = 0; i < COUNT; i++)
		clients[i] = client_connect_from(BALANCER);
	int64_t begin_ms = now_ms();
	for (size_t i = 0; i < STEPS; i++) {
		send_all(clients[1], slice(headers[0].header, i, 1));
		poll(NULL, 0, 1000);
	}
	send_all(clients[2], headers[0].header);
	expect_alert(clients[0], USER_CANCELED);
	expect_alert(clients[1], INTERNAL_ERROR);
	expect_alert(clients[2], USER_CANCELED);
	cr_assert_lt(now_ms() - begin_ms, margin_ms(11500));
	cr_assert_geq(now_ms() - begin_ms, 9900);
	wait_until(has_logged(" -: PROXY header: none in time\n"), 3000);
	check(!has_logged("no ClientHello in time"), "it had sent nothing: %s", proxy_log(proxy));
}

/* --- Health checks --- */

static void
end(int client, bool resets)
{
	if (resets)
		reset_connection(client);
	else
		close(client);
}

/* How many lines say that a connection from the balancer has ended without a byte. */
static int
count_silent(void)
{
	char *log = proxy_log(proxy), *rest = log, *line;
	int count = 0;
	while ((line = strsep(&rest, "\n")) != NULL)
		count += strncmp(line, "client=" BALANCER ":", 17) == 0 &&
		    strstr(line, " up=0 down=0 end=silent") != NULL;
	free(log);
	return count;
}

/* A balancer's health checks are not logged: they would fill the log. */
PROGRAM_TEST(proxy_header, health_checks_have_no_line)
{
	static const struct bytes rows[] = {
	    LITERAL(""),
	    LITERAL("PROXY UNKNOWN\r\n"),
	    LITERAL(SIGNATURE "\x20\x00\x00\x00"),
	};
	enum { ROWS = sizeof rows / sizeof *rows };
	start_at("127.0.0.1", accept_proxy_and_log);
	for (size_t i = 0; i < 2 * ROWS; i++) {
		testing("row %zu", i / 2);
		int client = balancer_send(rows[i / 2]);
		wait_drained_of(client);
		end(client, i % 2 == 0);
		wait_until(count_silent() == (int)i + 1, 3000);
	}
	check(!has_logged(BALANCER ":") || !has_logged(" -: "), "%s", proxy_log(proxy));
}

/* A client that sends nothing has no line, even if it was announced; one that begins has. */
PROGRAM_TEST(proxy_header, who_is_announced_and_says_nothing_has_no_line)
{
	start();
	int client = balancer_send(joined(text("PROXY UNKNOWN\r\n"), text("\x16")));
	shutdown(client, SHUT_WR);
	expect_alert(client, DECODE_ERROR);
	wait_until(has_logged("\n" BALANCER ":"), 3000);
	close(balancer_send(headers[0].header));
	wait_until(proxy_total(proxy, "silent") == 1, 3000);
	check(!has_logged("192.0.2.7:51234"), "%s", proxy_log(proxy));
}

/* --- The log --- */

PROGRAM_TEST(proxy_header, the_log_has_the_address)
{
	start_at("127.0.0.1", accept_proxy_and_log);
	int client = balancer_send(joined(headers[1].header, hello_for("no.example")));
	expect_alert(client, UNRECOGNIZED_NAME);
	close(client);
	wait_until(has_logged("[2001:db8::7]:51234 no.example: host directory: "), 3000);
	wait_until(has_logged("\nclient=[2001:db8::7]:51234 name=no.example seconds=0."), 3000);

	client = balancer_send(joined(headers[4].header, request));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	send_all(accepted, text("answer"));
	close(accepted);
	expect_bytes(client, text("answer"));
	close(client);
	char bytes[64];
	snprintf(bytes, sizeof bytes, " up=%zu down=6 end=", request.length);
	wait_until(has_logged(bytes), 3000);
	check(has_logged("\nclient=192.0.2.7:51234 name=" HOST " "), "%s", proxy_log(proxy));
}

/* --- More connections than slots --- */

enum { OPEN_FILES = 128, SLOTS_MAX = OPEN_FILES / 2, SLOTS_MIN = SLOTS_MAX * 3 / 4 };

static void
some_descriptors(void)
{
	limit_descriptors(OPEN_FILES);
	accept_proxy_and_log();
}

static struct pair
pair_from(int network, int number)
{
	int client = balancer_send(joined(header_from(network, number), request));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, request);
	struct pair pair = {client, accepted};
	pair_talk(pair);
	return pair;
}

/* The backend reads requests until none arrives for MS milliseconds. A connection that was evicted
 * while it was connected sends nothing. */
static void
read_requests(int ms)
{
	uint8_t received[1024];
	while (readable_within(backend, ms))
		read_up_to(backend_accept(backend), received, request.length);
}

/* The announced address that holds the most pays, not the balancer's, from which all connections
 * come. */
PROGRAM_TEST(proxy_header, eviction_is_by_announced_address)
{
	enum { OTHERS = 20, GREEDY = SLOTS_MAX - OTHERS, LATER = 20 };
	struct pair others[OTHERS], later[LATER];
	start_at("127.0.0.1", some_descriptors);
	for (int i = 0; i < OTHERS; i++)
		others[i] = pair_from(100, i);
	/* Some are rejected as soon as slots are short. Bytes that the backend left unread for a
	 * second would block its host. */
	for (int sent = 0; sent < GREEDY || proxy_total(proxy, "open") < SLOTS_MIN; sent++) {
		cr_assert_lt(sent, 10 * GREEDY);
		balancer_send(joined(header_from(101, 1), request));
		read_requests(0);
	}
	read_requests(1500); /* some wait for slots of the others */
	for (int i = 0; i < LATER; i++)
		later[i] = pair_from(102, i);
	for (int i = 0; i < OTHERS; i++) {
		testing("established connection %d", i);
		pair_talk(others[i]);
	}
	for (int i = 0; i < LATER; i++)
		pair_talk(later[i]);
	cr_assert_gt(proxy_total(proxy, "evicted-idle"), 0);
	wait_until(has_logged("client=198.51.101.1:1024 name=" HOST " "), 3000);
	check(has_logged(" end=evicted\n"), "not evicted");
}

/* --- The environment --- */

static const char *environment;

static void
accept_something_else(void)
{
	setenv("SNIPROXY_ACCEPT_PROXY", environment, 1);
}

PROGRAM_TEST(proxy_header, wrong_environment_is_told_at_once)
{
	static const struct {
		const char *value, *wrong;
	} rows[] = {
	    {"10.0.0.0/33", "10.0.0.0/33"},
	    {"10.0.0.1/8", "10.0.0.1/8"},
	    {"10.0.0.0/8, 192.0.2.1", " 192.0.2.1"},
	    {"10.0.0.0/8,", ""},
	    {"192.0.2.1,haproxy.example,::1", "haproxy.example"},
	};
	server_listen("127.0.0.1");
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char line[256];
		testing("%s", rows[i].value);
		environment = rows[i].value;
		proxy = proxy_start(accept_something_else);
		int status = proxy_wait(proxy, 3000);
		check(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %d", status);
		snprintf(line, sizeof line,
		    "sniproxy: SNIPROXY_ACCEPT_PROXY: neither an address nor a network: "
		    "'%s'\n",
		    rows[i].wrong);
		check(strcmp(proxy_log(proxy), line) == 0, "%s", proxy_log(proxy));
	}
}

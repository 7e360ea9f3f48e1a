/* The PROXY header of version 2 for a backend with send-proxy-v2. It is read here by
 * proxy-protocol.txt, 2.2, alone: by no code of the proxy. */
#include "tests/program/harness.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct proxy *proxy;
static int backend;

static void
log_connections(void)
{
	setenv("SNIPROXY_LOG", "connections", 1);
}

#define BALANCER "127.0.3.1"

static void
accept_proxy(void)
{
	setenv("SNIPROXY_ACCEPT_PROXY", BALANCER ",::1", 1);
	log_connections();
}

/* Starts the proxy at ADDRESS, and a backend that wants the header. */
static void
start_at(const char *address, void (*prepare)(void))
{
	server_listen(address);
	proxy = proxy_start(prepare);
	backend = backend_listen(HOST);
	make_file(host_path(HOST, "send-proxy-v2"), "");
}

static void
start(void)
{
	start_at("127.0.0.1", log_connections);
}

/* --- Reading it --- */

enum { TYPE_ALPN = 1, TYPE_AUTHORITY = 2, TYPE_CRC32C = 3, TYPE_UNIQUE_ID = 5 };
enum { FIXED = 16, ADDRESSES_V4 = 12, ADDRESSES_V6 = 36, TLV_HEADER = 3, ID_SIZE = 16 };

struct value {
	const uint8_t *bytes; /* NULL if there is none; points into the header */
	size_t length;
};

struct received {
	uint8_t header[FIXED + 65535];
	size_t length;
	char client[INET6_ADDRSTRLEN], server[INET6_ADDRSTRLEN];
	unsigned client_port, server_port;
	bool is_ipv4;
	struct value values[256]; /* by type */
	char id[2 * ID_SIZE + 1]; /* PP2_TYPE_UNIQUE_ID in hexadecimal */
};

static unsigned
number16(const uint8_t *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* The remainder of the polynomial division that RFC 4960, appendix B, describes: a message's bits,
 * each byte's least significant bit first, the first 32 of them inverted, and 32 zeros, divided by
 * 0x11EDC6F41. The result is inverted and mirrored. */
static uint32_t
crc32c(const uint8_t *bytes, size_t length)
{
	uint64_t remainder = 0;
	uint32_t mirrored = 0;
	for (size_t bit = 0; bit < 8 * (length + 4); bit++) {
		unsigned next = bit < 8 * length ? bytes[bit / 8] >> bit % 8 & 1 : 0;
		remainder = remainder << 1 | (next ^ (bit < 32));
		if ((remainder >> 32 & 1) != 0)
			remainder ^= 0x11edc6f41;
	}
	for (size_t i = 0; i < 32; i++)
		if ((remainder >> i & 1) != 0)
			mirrored |= UINT32_C(1) << (31 - i);
	return ~mirrored;
}

static void
check_crc(struct received *received)
{
	const struct value *value = &received->values[TYPE_CRC32C];
	check(value->bytes != NULL && value->length == 4, "no CRC32c");
	uint8_t *field = received->header + (value->bytes - received->header), kept[4];
	memcpy(kept, field, sizeof kept);
	memset(field, 0, sizeof kept);
	uint32_t sent = (uint32_t)number16(kept) << 16 | number16(kept + 2);
	uint32_t right = crc32c(received->header, received->length);
	check(sent == right, "CRC32c %08x, not %08x", (unsigned)sent, (unsigned)right);
	memcpy(field, kept, sizeof kept);
}

static void
read_extensions(struct received *received, size_t at)
{
	while (at < received->length) {
		check(received->length - at >= TLV_HEADER, "half an extension");
		const uint8_t *tlv = received->header + at;
		struct value *value = &received->values[tlv[0]];
		size_t length = number16(tlv + 1);
		check(length <= received->length - at - TLV_HEADER, "an extension past the end");
		check(value->bytes == NULL, "two extensions of type %u", tlv[0]);
		*value = (struct value){tlv + TLV_HEADER, length};
		at += TLV_HEADER + length;
	}
	for (size_t type = 0; type < 256; type++)
		if (type != TYPE_ALPN && type != TYPE_AUTHORITY && type != TYPE_CRC32C &&
		    type != TYPE_UNIQUE_ID)
			check(received->values[type].bytes == NULL, "type %zu", type);
	check_crc(received);
	const struct value *id = &received->values[TYPE_UNIQUE_ID];
	check(id->bytes != NULL && id->length == ID_SIZE, "no unique ID of 16 bytes");
	for (size_t i = 0; i < ID_SIZE; i++)
		sprintf(received->id + 2 * i, "%02x", id->bytes[i]);
}

/* Reads the header from a backend's connection. */
static void
receive(int fd, struct received *received)
{
	memset(received, 0, sizeof *received);
	uint8_t *header = received->header;
	check(read_up_to(fd, header, FIXED) == FIXED, "no header");
	check(memcmp(header, "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a", 12) == 0,
	    "no signature");
	check(header[12] == 0x21, "version and command %#x", header[12]);
	check(header[13] == 0x11 || header[13] == 0x21, "family and transport %#x", header[13]);
	received->is_ipv4 = header[13] == 0x11;
	size_t rest = number16(header + 14), size = received->is_ipv4 ? 4 : 16;
	size_t addresses = received->is_ipv4 ? ADDRESSES_V4 : ADDRESSES_V6;
	check(rest >= addresses, "%zu bytes are too few", rest);
	check(read_up_to(fd, header + FIXED, rest) == rest, "the header ends early");
	received->length = FIXED + rest;
	int family = received->is_ipv4 ? AF_INET : AF_INET6;
	inet_ntop(family, header + FIXED, received->client, sizeof received->client);
	inet_ntop(family, header + FIXED + size, received->server, sizeof received->server);
	received->client_port = number16(header + FIXED + 2 * size);
	received->server_port = number16(header + FIXED + 2 * size + 2);
	read_extensions(received, FIXED + addresses);
}

/* Fails unless the extension of TYPE has this value; or is missing if VALUE is NULL. */
static void
expect_value(const struct received *received, uint8_t type, const void *value, size_t length)
{
	const struct value *got = &received->values[type];
	if (value == NULL)
		check(got->bytes == NULL, "type %u has %zu bytes", type, got->length);
	else
		check(got->bytes != NULL && got->length == length &&
			memcmp(got->bytes, value, length) == 0,
		    "type %u: %zu bytes: %.*s", type, got->length, (int)got->length,
		    got->bytes != NULL ? (const char *)got->bytes : "");
}

static void
expect_authority(const struct received *received, const char *name)
{
	expect_value(received, TYPE_AUTHORITY, name, name != NULL ? strlen(name) : 0);
}

static void
expect_addresses(const struct received *received, const char *client, unsigned client_port,
    const char *their_server, unsigned server_port)
{
	check(strcmp(received->client, client) == 0, "client %s", received->client);
	check(strcmp(received->server, their_server) == 0, "server %s", received->server);
	check(received->client_port == client_port, "client's port %u", received->client_port);
	check(received->server_port == server_port, "server's port %u", received->server_port);
	check(received->is_ipv4 == (strchr(client, ':') == NULL), "another family");
}

/* --- Connections --- */

/* The backend's end of CLIENT's connection gets a header, the hello, and what the sides then send.
 * Both are closed. */
static void
expect_header_and_hello(int client, struct bytes hello, struct received *received)
{
	int accepted = backend_accept(backend);
	receive(accepted, received);
	expect_bytes(accepted, hello);
	struct pair pair = {client, accepted};
	pair_talk(pair);
	close(client);
	expect_end(accepted);
	close(accepted);
}

/* The same for a new client. */
static void
expect_header(struct bytes hello, struct received *received)
{
	expect_header_and_hello(client_send(hello), hello, received);
}

/* ALPN's extension_data for protocols, each with its length before it. */
static struct bytes
protocol_list(const void *protocols, size_t length)
{
	struct bytes data = {0}, extension = {0};
	put_integer(&data, length, 2);
	put(&data, protocols, length);
	put_extension(&extension, 16, data);
	return extension;
}

#define PROTOCOLS(literal) protocol_list(literal, sizeof literal - 1)

/* --- Addresses --- */

static void
expect_told(const char *from, const char *to)
{
	static struct received received;
	strcpy(server.address, to);
	int client = client_connect_from(from);
	unsigned port = local_port(client);
	struct bytes hello = hello_for(HOST);
	send_all(client, hello);
	expect_header_and_hello(client, hello, &received);
	expect_addresses(&received, from, port, to, server.port);
	expect_authority(&received, HOST);
	expect_value(&received, TYPE_ALPN, NULL, 0);
}

/* The address is the one that the client connected to, not the one that the socket is bound to. */
PROGRAM_TEST(proxy_v2, ipv4)
{
	start_at("0.0.0.0", NULL);
	expect_told("127.0.0.2", "127.0.0.3");
	expect_told("127.200.201.202", "127.100.200.250");
}

PROGRAM_TEST(proxy_v2, ipv6)
{
	start_at("::1", NULL);
	expect_told("::1", "::1");
}

PROGRAM_TEST(proxy_v2, ipv4_of_an_ipv6_socket)
{
	start_at("::", NULL);
	expect_told("127.0.0.2", "127.0.0.1");
	expect_told("::1", "::1");
}

/* --- The name --- */

/* The host NAME, which a client asks for as ASKED, or by no name if that is NULL. */
static void
expect_name(const char *name, const char *asked, const char *authority)
{
	static struct received received;
	testing("%s for %s", name, asked != NULL ? asked : "nobody");
	close(backend);
	backend = backend_listen(name);
	make_file(host_path(name, "send-proxy-v2"), "");
	expect_header(
	    hello((struct shape){.name = asked, .without_server_name = asked == NULL}), &received);
	expect_authority(&received, authority);
	expect_value(&received, TYPE_ALPN, NULL, 0);
}

PROGRAM_TEST(proxy_v2, the_authority_is_the_name_as_routed)
{
	char longest[254 + 1] = {0};
	memset(longest, 'x', 254);
	start();
	expect_name("a", "a", "a");
	expect_name("www.example.com", "WWW.Example.COM", "www.example.com");
	expect_name("my_app.example", "My_App.Example", "my_app.example");
	if (!is_portable())
		expect_name(longest, longest, longest);
}

/* It is the client's name, not that of the special host. */
PROGRAM_TEST(proxy_v2, the_authority_of_special_hosts)
{
	start();
	expect_name("_.wild.example", "Any.wild.EXAMPLE", "any.wild.example");
	expect_name("_default", "Else.Where", "else.where");
	expect_name("_no-sni", NULL, NULL);
}

PROGRAM_TEST(proxy_v2, no_authority_of_a_hello_with_another_kind_of_name)
{
	static struct received received;
	start();
	close(backend);
	backend = backend_listen("_no-sni");
	make_file(host_path("_no-sni", "send-proxy-v2"), "");
	expect_header(
	    hello((struct shape){.other_name_only = true, .extensions = PROTOCOLS("\x02h2")}),
	    &received);
	expect_authority(&received, NULL);
	expect_value(&received, TYPE_ALPN, "h2", 2);
	expect_header(hello((struct shape){.without_extensions = true}), &received);
	expect_authority(&received, NULL);
	expect_value(&received, TYPE_ALPN, NULL, 0);
}

/* --- ALPN --- */

PROGRAM_TEST(proxy_v2, alpn_is_the_first_offer)
{
	char longest[1 + 255];
	static struct received received;
	memset(longest, 0xff, sizeof longest);
	const struct {
		const char *what;
		struct bytes extension;
		const char *first;
		size_t length;
	} rows[] = {
	    {"absent", {0}, NULL, 0},
	    {"one", PROTOCOLS("\x02h2"), "h2", 2},
	    {"two", PROTOCOLS("\x02h2\x08http/1.1"), "h2", 2},
	    {"two, the longer first", PROTOCOLS("\x08http/1.1\x02h2"), "http/1.1", 8},
	    {"acme-tls/1 without a socket for it", PROTOCOLS("\012acme-tls/1"), "acme-tls/1", 10},
	    {"GREASE first", PROTOCOLS("\x02\x0a\x0a\x02h2"), "\x0a\x0a", 2},
	    {"a NUL", PROTOCOLS("\x03\0\0\0\x02h2"), "\0\0\0", 3},
	    {"the shortest", PROTOCOLS("\x01-"), "-", 1},
	    {"the longest", protocol_list(longest, sizeof longest), longest + 1, 255},
	};
	start();
	for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
		testing("%s%s", rows[i / 2].what, i % 2 == 0 ? "" : ", before the name");
		struct bytes hello_bytes = hello((struct shape){
		    .extensions = rows[i / 2].extension, .server_name_last = i % 2 == 1});
		expect_header(hello_bytes, &received);
		expect_value(&received, TYPE_ALPN, rows[i / 2].first, rows[i / 2].length);
		expect_authority(&received, HOST);
	}
}

/* --- Sizes --- */

/* The longest name, the longest protocol, and IPv6 make the longest header. */
static struct received longest_header;
static char longest_name[254 + 1], longest_protocol[1 + 255];

static void
start_longest(const char *address)
{
	size_t length = is_portable() && !is_hashed() ? 97 : 254;
	memset(longest_name, 'n', length);
	memset(longest_protocol, 0xff, sizeof longest_protocol);
	start_at(address, log_connections);
	close(backend);
	backend = backend_listen(longest_name);
	make_file(host_path(longest_name, "send-proxy-v2"), "");
}

/* A hello for them of LENGTH bytes, in one record if it fits. */
static struct bytes
longest_hello(size_t length)
{
	struct shape shape = {.name = longest_name,
	    .padding = 1,
	    .extensions = protocol_list(longest_protocol, sizeof longest_protocol)};
	shape.padding += length - hello(shape).length;
	return hello(shape);
}

/* The hello and MORE bytes, sent at once, arrive after the header. */
static void
expect_all(struct bytes hello, size_t more)
{
	struct bytes stream = {0};
	put_bytes(&stream, hello);
	put_bytes(&stream, pattern(0, more));
	testing("%zu bytes and %zu more", hello.length, more);
	expect_header(stream, &longest_header);
	expect_authority(&longest_header, longest_name);
	expect_value(&longest_header, TYPE_ALPN, longest_protocol + 1, 255);
}

/* Header, hello and what follows do not fit into one buffer of any usual size. */
static void
fill_buffers(const char *address)
{
	static const size_t ends[] = {2048, 4096, 8192, 16384};
	enum { BEFORE = 610, AFTER = 10 };
	start_longest(address);
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		for (size_t length = ends[i] - BEFORE; length < ends[i] + AFTER;
		     length += ends[i] == 4096 ? 1 : 7)
			expect_all(longest_hello(length), 0);
	for (size_t length = 4096 - BEFORE; length < 4096 + AFTER; length += 3)
		expect_all(longest_hello(1000), length - 1000);
	expect_all(longest_hello(3500), 100000);
}

LONG_PROGRAM_TEST(proxy_v2, hellos_that_fill_a_buffer, 180)
{
	fill_buffers("127.0.0.1");
}

LONG_PROGRAM_TEST(proxy_v2, hellos_that_fill_a_buffer_after_ipv6, 180)
{
	fill_buffers("::1");
}

/* As long as the syntax allows with this name and this protocol: the extensions' ceiling counts
 * both. */
static void
send_the_largest(const char *address)
{
	start_longest(address);
	struct bytes alpn = protocol_list(longest_protocol, sizeof longest_protocol);
	struct shape shape = {.name = longest_name,
	    .extensions = alpn,
	    .cipher_suites_more = 65534 - 6,
	    .compression_more = 255 - 1,
	    .padding = 65535 - 4 - alpn.length - (9 + strlen(longest_name))};
	struct bytes message = hello_message(shape);
	cr_assert_eq(message.length, LARGEST_MESSAGE);
	expect_all(in_records(message, 1 << 14), 0);
	expect_all(in_records(message, 1000), 1);
	expect_all(in_records(message, 1 << 14), 5000);
}

PROGRAM_TEST(proxy_v2, the_largest_hello)
{
	send_the_largest("127.0.0.1");
}

PROGRAM_TEST(proxy_v2, the_largest_hello_after_ipv6)
{
	send_the_largest("::1");
}

PROGRAM_TEST(proxy_v2, one_byte_at_a_time)
{
	static struct received received;
	struct bytes hello_bytes = hello((struct shape){.extensions = PROTOCOLS("\x02h2")});
	start();
	int client = client_connect();
	send_bytewise(client, hello_bytes);
	expect_header_and_hello(client, hello_bytes, &received);
	expect_value(&received, TYPE_ALPN, "h2", 2);
}

/* "The sender must ensure that all the protocol header is sent at once" (2.2). */
PROGRAM_TEST(proxy_v2, the_first_read_has_the_whole_header)
{
	start_longest("127.0.0.1");
	for (int i = 0; i < 50; i++) {
		static uint8_t first[65536];
		int client = client_send(longest_hello(i % 2 == 0 ? 1000 : 60000));
		int accepted = backend_accept(backend);
		ssize_t length = recv(accepted, first, sizeof first, 0);
		check(length >= FIXED && length >= FIXED + (ssize_t)number16(first + 14),
		    "%zd bytes", length);
		close(client);
		close(accepted);
	}
}

/* The backend gets the end after the hello, too. */
PROGRAM_TEST(proxy_v2, a_client_that_ends_after_its_hello)
{
	static struct received received;
	start();
	struct bytes hello = hello_for(HOST);
	int client = client_send(hello);
	shutdown(client, SHUT_WR);
	int accepted = backend_accept(backend);
	receive(accepted, &received);
	expect_bytes(accepted, hello);
	expect_end(accepted);
	send_all(accepted, text("bye"));
	close(accepted);
	expect_bytes(client, text("bye"));
	expect_end(client);
}

/* --- The unique ID, and the log --- */

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, 2 * ID_SIZE);
}

/* Waits for the line of the client's connection at PORT, and compares it. */
static void
expect_line(unsigned port, const char *name, const char *id, const char *numbers)
{
	char start[512];
	const char *line;
	snprintf(start, sizeof start, "client=127.0.0.1:%u name=%s id=%s seconds=", port, name, id);
	wait_until(proxy_has_logged(proxy, start), 3000);
	line = strstr(proxy_log(proxy), start);
	char *end = strchr(line, '\n');
	check(end != NULL, "half a line");
	*end = '\0';
	check(strstr(line, numbers) != NULL, "%s", line);
	check(strstr(line + strlen(start), "id=") == NULL, "%s", line);
}

PROGRAM_TEST(proxy_v2, ids_are_unique_and_in_the_log)
{
	enum { COUNT = 300 };
	static char ids[COUNT][2 * ID_SIZE];
	static struct received received;
	struct bytes hello = hello_for(HOST);
	char numbers[64];
	start();
	/* "ping" and "pong" follow the hello. The header does not count. */
	snprintf(numbers, sizeof numbers, " up=%zu down=4 end=", hello.length + 4);
	for (int i = 0; i < COUNT; i++) {
		int client = client_send(hello);
		unsigned port = local_port(client);
		expect_header_and_hello(client, hello, &received);
		memcpy(ids[i], received.id, sizeof ids[i]);
		if (i % 10 == 0)
			expect_line(port, HOST, received.id, numbers);
	}
	qsort(ids, COUNT, sizeof ids[0], compare_ids);
	for (int i = 1; i < COUNT; i++)
		check(memcmp(ids[i - 1], ids[i], sizeof ids[i]) != 0, "twice: %.32s", ids[i]);
}

/* A copy of the proxy, started at the same time or later, has other IDs. */
PROGRAM_TEST(proxy_v2, ids_of_copies_differ)
{
	enum { COPIES = 3, COUNT = 20 };
	static char ids[COPIES * COUNT][2 * ID_SIZE];
	static struct received received;
	start();
	for (int i = 0; i < COPIES * COUNT; i++) {
		if (i > 0 && i % COUNT == 0) {
			kill(proxy->pid, SIGTERM);
			proxy_wait(proxy, 8000);
			proxy = proxy_start(log_connections);
		}
		expect_header(hello_for(HOST), &received);
		memcpy(ids[i], received.id, sizeof ids[i]);
	}
	qsort(ids, COPIES * COUNT, sizeof ids[0], compare_ids);
	for (int i = 1; i < COPIES * COUNT; i++)
		check(memcmp(ids[i - 1], ids[i], sizeof ids[i]) != 0, "twice: %.32s", ids[i]);
}

/* Connections at the same time have IDs and lines of their own. */
PROGRAM_TEST(proxy_v2, connections_at_the_same_time)
{
	enum { COUNT = 40 };
	static struct received received[COUNT];
	int clients[COUNT], accepted[COUNT];
	unsigned ports[COUNT];
	struct bytes hello = hello_for(HOST);
	char numbers[64];
	start();
	snprintf(numbers, sizeof numbers, " up=%zu down=0 end=", hello.length);
	for (int i = 0; i < COUNT; i++) {
		clients[i] = client_send(hello);
		ports[i] = local_port(clients[i]);
	}
	for (int i = 0; i < COUNT; i++) {
		accepted[i] = backend_accept(backend);
		receive(accepted[i], &received[i]);
		expect_bytes(accepted[i], hello);
	}
	for (int i = 0; i < COUNT; i++) {
		close(clients[i]);
		close(accepted[i]);
	}
	for (int i = 0; i < COUNT; i++) {
		unsigned port = received[i].client_port;
		expect_line(port, HOST, received[i].id, numbers);
	}
	for (int i = 0; i < COUNT; i++) {
		int seen = 0;
		for (int j = 0; j < COUNT; j++)
			seen += received[j].client_port == ports[i];
		check(seen == 1, "port %u %d times", ports[i], seen);
	}
}

/* One side of a connection for NAME ends it with a reset: the backend by a close with bytes unread.
 * The line has the name as LOGGED. */
static void
expect_line_of_reset(const char *name, const char *logged, bool by_client)
{
	static struct received received;
	char line[256];
	struct bytes hello = hello_for(name);
	int client = client_send(hello), accepted = backend_accept(backend);
	unsigned port = local_port(client);
	receive(accepted, &received);
	if (by_client) {
		expect_bytes(accepted, hello);
		reset_connection(client);
	} else {
		close(accepted);
	}
	snprintf(line, sizeof line, "\n127.0.0.1:%u %s id=%s: %s: Connection reset by peer\n", port,
	    logged, received.id, by_client ? "client" : "tls-socket");
	testing("%s", line + 1);
	wait_until(proxy_has_logged(proxy, line), 3000);
	close(by_client ? accepted : client);
}

PROGRAM_TEST(proxy_v2, lines_of_failures_have_the_id)
{
	start();
	expect_line_of_reset(HOST, HOST, false);
	expect_line_of_reset(HOST, HOST, true);
	close(backend);
	backend = backend_listen("_default");
	make_file(host_path("_default", "send-proxy-v2"), "");
	expect_line_of_reset("else.where", "else.where (_default)", false);
	expect_line_of_reset("else.where", "else.where (_default)", true);
}

/* Without send-proxy-v2 there is no ID. */
PROGRAM_TEST(proxy_v2, no_id_without_it)
{
	start();
	cr_assert_eq(unlink(host_path(HOST, "send-proxy-v2")), 0);
	expect_served(backend, hello_for(HOST));
	make_file(host_path(HOST, "send-proxy-v1"), "");
	int client = client_send(hello_for(HOST));
	expect_bytes(backend_accept(backend), text("PROXY TCP4 "));
	close(client);
	expect_refused(hello_for("unknown.example"), UNRECOGNIZED_NAME);
	wait_until(proxy_has_logged(proxy, "name=unknown.example seconds="), 3000);
	wait_until(proxy_has_logged(proxy, "name=" HOST " seconds="), 3000);
	check(!proxy_has_logged(proxy, "id="), "%s", proxy_log(proxy));
}

PROGRAM_TEST(proxy_v2, the_line_of_a_hello_without_a_name)
{
	static struct received received;
	start();
	close(backend);
	backend = backend_listen("_no-sni");
	make_file(host_path("_no-sni", "send-proxy-v2"), "");
	struct bytes nameless = hello((struct shape){.without_server_name = true});
	int client = client_send(nameless);
	unsigned port = local_port(client);
	expect_header_and_hello(client, nameless, &received);
	expect_line(port, "- host=_no-sni", received.id, " down=4 end=");
}

/* --- Which files --- */

static void
expect_v1(void)
{
	int client = client_send(hello_for(HOST)), accepted = backend_accept(backend);
	char header[128];
	snprintf(header, sizeof header, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n",
	    local_port(client), server.port);
	expect_bytes(accepted, text(header));
	expect_bytes(accepted, hello_for(HOST));
	close(client);
	close(accepted);
}

PROGRAM_TEST(proxy_v2, the_file_comes_and_goes)
{
	static struct received received;
	start();
	for (int i = 0; i < 3; i++) {
		testing("round %d", i);
		expect_header(hello_for(HOST), &received);
		make_file(host_path(HOST, "send-proxy-v1"), "");
		testing("round %d, version 2 wins", i);
		expect_header(hello_for(HOST), &received);
		cr_assert_eq(unlink(host_path(HOST, "send-proxy-v2")), 0);
		expect_v1();
		cr_assert_eq(unlink(host_path(HOST, "send-proxy-v1")), 0);
		expect_served(backend, hello_for(HOST));
		make_file(host_path(HOST, "send-proxy-v2"), "");
	}
}

/* What counts is the name. */
PROGRAM_TEST(proxy_v2, any_kind_of_file)
{
	static struct received received;
	start_at("127.0.0.1", become_nobody);
	const char *path = host_path(HOST, "send-proxy-v2");
	testing("without any right");
	cr_assert_eq(chmod(path, 0), 0);
	expect_header(hello_for(HOST), &received);
	testing("a directory");
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(mkdir(path, 0), 0);
	expect_header(hello_for(HOST), &received);
	testing("a dangling symlink");
	cr_assert_eq(rmdir(path), 0);
	cr_assert_eq(symlink("nowhere", path), 0);
	expect_header(hello_for(HOST), &received);
	testing("a symlink to itself");
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(symlink("send-proxy-v2", path), 0);
	expect_header(hello_for(HOST), &received);
	testing("a dangling symlink, beside version 1");
	make_file(host_path(HOST, "send-proxy-v1"), "");
	expect_header(hello_for(HOST), &received);
}

/* A name that only resembles it does not matter. */
PROGRAM_TEST(proxy_v2, other_files)
{
	static const char *const others[] = {"send-proxy-v3", "send-proxy-v20", "send-proxy-v",
	    "SEND-PROXY-V2", "send-proxy-v2.bak", "send-proxy"};
	start();
	cr_assert_eq(unlink(host_path(HOST, "send-proxy-v2")), 0);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		make_file(host_path(HOST, others[i]), "");
	expect_served(backend, hello_for(HOST));
}

/* --- A balancer in front --- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define PORTS "\xc8\x22\x01\xbb"
#define V2_IPV4 "\xc0\x00\x02\x07\xc6\x33\x64\x01" PORTS
#define V2_IPV6 \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07" \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01" PORTS
#define V2_MAPPED \
	"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07" \
	"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x01" PORTS
#define LITERAL(string) \
	{ \
		(uint8_t *)(string), sizeof(string) - 1, 0 \
	}

PROGRAM_TEST(proxy_v2, a_balancers_addresses_are_taken_over)
{
	static struct received received;
	static const struct {
		const char *what;
		struct bytes header;
		bool is_ipv4;
	} rows[] = {
	    {"v1, IPv4", LITERAL("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"), true},
	    {"v1, IPv6", LITERAL("PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"), false},
	    {"v2, IPv4", LITERAL(SIGNATURE "\x21\x11\x00\x0c" V2_IPV4), true},
	    {"v2, IPv6", LITERAL(SIGNATURE "\x21\x21\x00\x24" V2_IPV6), false},
	    {"v2, mapped", LITERAL(SIGNATURE "\x21\x21\x00\x24" V2_MAPPED), true},
	    {"v2, with extensions of its own",
		LITERAL(SIGNATURE "\x21\x11\x00\x28" V2_IPV4 "\x02\x00\x03pqr\x01\x00\x02h3"
				  "\x05\x00\x0a"
				  "0123456789"
				  "\x04\x00\x01x"),
		true},
	};
	struct bytes hello_bytes = hello((struct shape){.extensions = PROTOCOLS("\x02h2")});
	start_at("127.0.0.1", accept_proxy);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("%s", rows[i].what);
		int client = client_connect_from(BALANCER);
		send_all(client, rows[i].header);
		send_all(client, hello_bytes);
		expect_header_and_hello(client, hello_bytes, &received);
		bool is_ipv4 = rows[i].is_ipv4;
		expect_addresses(&received, is_ipv4 ? "192.0.2.7" : "2001:db8::7", 51234,
		    is_ipv4 ? "198.51.100.1" : "2001:db8::1", 443);
		expect_authority(&received, HOST);
		expect_value(&received, TYPE_ALPN, "h2", 2);
		char line[128], up[32];
		snprintf(line, sizeof line, "client=%s:51234 name=" HOST " id=%s seconds=",
		    is_ipv4 ? "192.0.2.7" : "[2001:db8::7]", received.id);
		snprintf(up, sizeof up, " up=%zu ", hello_bytes.length + 4);
		wait_until(proxy_has_logged(proxy, line), 3000);
		char *logged = strstr(proxy_log(proxy), line);
		logged[strcspn(logged, "\n")] = '\0';
		check(strstr(logged, up) != NULL, "%s", logged);
	}
}

PROGRAM_TEST(proxy_v2, a_balancers_own_connection)
{
	static struct received received;
	static const struct bytes rows[] = {
	    LITERAL("PROXY UNKNOWN\r\n"),
	    LITERAL(SIGNATURE "\x20\x00\x00\x00"),
	    LITERAL(SIGNATURE "\x20\x11\x00\x0c" V2_IPV4),
	    LITERAL(SIGNATURE "\x21\x00\x00\x00"),
	};
	start_at("127.0.0.1", accept_proxy);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("row %zu", i);
		int client = client_connect_from(BALANCER);
		unsigned port = local_port(client);
		send_all(client, rows[i]);
		send_all(client, hello_for(HOST));
		expect_header_and_hello(client, hello_for(HOST), &received);
		expect_addresses(&received, BALANCER, port, "127.0.0.1", server.port);
	}
}

/* --- A backend that is busy, or starts --- */

PROGRAM_TEST(proxy_v2, a_full_backlog)
{
	static struct received received;
	start();
	close(backend);
	char *path = host_path(HOST, "tls-socket");
	cr_assert_eq(unlink(path), 0);
	backend = unix_listen(path, 1);
	int fillers = fill_backlog(path);
	struct bytes hello = hello_for(HOST);
	int client = client_send(hello);
	cr_assert(silent_for(client, 300), "the proxy gave up at once");
	for (int i = 0; i < fillers; i++)
		close(backend_accept(backend));
	expect_header_and_hello(client, hello, &received);
}

PROGRAM_TEST(proxy_v2, a_backend_that_starts)
{
	static struct received received;
	start();
	close(backend);
	char *path = host_path(HOST, "tls-socket");
	struct bytes hello = hello_for(HOST);
	int client = client_send(hello);
	cr_assert(silent_for(client, 100), "the proxy gave up at once");
	cr_assert_eq(unlink(path), 0);
	backend = unix_listen(path, SOMAXCONN);
	expect_header_and_hello(client, hello, &received);
}

/* --- Without files --- */

/* In an empty chroot, as a user without rights, nothing but the kernel makes IDs. */
static char hosts[128];

static void
enter_chroot(void)
{
	snprintf(hosts, sizeof hosts, "%s/hosts", base_directory());
	if (chroot(hosts) == -1 || chdir("/") == -1)
		_exit(127);
	become_nobody();
}

PROGRAM_TEST(proxy_v2, in_an_empty_chroot)
{
	static struct received received;
	if (geteuid() != 0)
		skip("needs root");
	if (emulated() || !proxy_use_static())
		skip("no static program");
	start_at("127.0.0.1", enter_chroot);
	for (int i = 0; i < 3; i++)
		expect_header(hello_for(HOST), &received);
}

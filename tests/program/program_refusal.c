/* What is rejected, with which alert, and that the alert arrives. No backend may see any of it. */
#include "tests/program/harness.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The backend that these hellos name, and those of special hosts, or -1. They must receive
 * nothing. */
static int backend, specials[] = {-1, -1, -1};

static void
start(void)
{
	proxy_start_default();
	backend = backend_listen(HOST);
	expect_served(backend, hello_for(HOST));
}

/* For hellos that cannot be parsed: they must not reach a special host either. */
static void
start_among_special_hosts(void)
{
	start();
	specials[0] = backend_listen("_.example");
	specials[1] = backend_listen("_default");
	specials[2] = backend_listen("_no-sni");
}

static void
expect_untouched(void)
{
	check(silent_for(backend, 0), "the backend got a connection");
	for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
		check(specials[i] == -1 || silent_for(specials[i], 0),
		    "special host %zu got a connection", i);
}

/* The alert must come, whether the bytes are sent at once or one by one. */
static void
expect_refused_both_ways(const char *what, struct bytes bytes, enum alert alert)
{
	testing("%s", what);
	expect_refused(bytes, alert);

	testing("%s, one byte at a time", what);
	int client = client_connect();
	send_bytewise(client, bytes);
	expect_alert(client, alert);
	close(client);
	expect_untouched();
}

/* --- What is no ClientHello --- */

/* The bytes as a string literal, NULs included. */
#define LITERAL(string) \
	{ \
		(uint8_t *)(string), sizeof(string) - 1, 0 \
	}

PROGRAM_TEST(refusal, other_protocols)
{
	static const struct {
		const char *what;
		struct bytes bytes;
	} rows[] = {
	    {"HTTP", LITERAL("GET / HTTP/1.1\r\nHost: host.example\r\n\r\n")},
	    {"HTTP/2", LITERAL("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
	    {"SSH", LITERAL("SSH-2.0-OpenSSH_9.2\r\n")},
	    {"SMTP", LITERAL("EHLO host.example\r\n")},
	    {"PROXY", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")},
	    {"SSLv2", LITERAL("\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80")},
	    {"zeros", LITERAL("\0\0\0\0\0\0\0\0\0\0")},
	    {"alert", LITERAL("\x15\x03\x03\x00\x02\x02\x28")},
	    {"change_cipher_spec", LITERAL("\x14\x03\x03\x00\x01\x01")},
	    {"application_data", LITERAL("\x17\x03\x03\x00\x05hello")},
	    {"heartbeat", LITERAL("\x18\x03\x02\x00\x03\x01\x40\x00")},
	};
	start_among_special_hosts();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		expect_refused_both_ways(rows[i].what, rows[i].bytes, UNEXPECTED_MESSAGE);
}

PROGRAM_TEST(refusal, other_handshake_messages)
{
	start_among_special_hosts();
	expect_refused_both_ways(
	    "ServerHello", hello((struct shape){.message_type = 2}), UNEXPECTED_MESSAGE);
	expect_refused_both_ways(
	    "Finished", hello((struct shape){.message_type = 20}), UNEXPECTED_MESSAGE);
	struct bytes hello_request = LITERAL("\x16\x03\x01\x00\x04\x00\x00\x00\x00");
	expect_refused_both_ways("HelloRequest", hello_request, UNEXPECTED_MESSAGE);
}

/* --- Records --- */

/* The hello in two records with BETWEEN between them. */
static struct bytes
hello_around(struct bytes between, size_t first)
{
	struct bytes message = hello_message((struct shape){0});
	struct bytes stream = in_records(slice(message, 0, first), 1 << 14);
	put_bytes(&stream, between);
	put_bytes(&stream, in_records(slice(message, first, message.length - first), 1 << 14));
	return stream;
}

PROGRAM_TEST(refusal, another_type_between_the_fragments)
{
	struct bytes alert = LITERAL("\x15\x03\x03\x00\x02\x01\x00");
	struct bytes change = LITERAL("\x14\x03\x03\x00\x01\x01");
	struct bytes application_data = LITERAL("\x17\x03\x03\x00\x05hello");
	start_among_special_hosts();
	expect_refused_both_ways("alert", hello_around(alert, 50), UNEXPECTED_MESSAGE);
	expect_refused_both_ways("change_cipher_spec", hello_around(change, 2), UNEXPECTED_MESSAGE);
	expect_refused_both_ways(
	    "application_data", hello_around(application_data, 1), UNEXPECTED_MESSAGE);
}

PROGRAM_TEST(refusal, empty_records)
{
	struct bytes empty = LITERAL("\x16\x03\x01\x00\x00");
	struct bytes first = {0};
	put_bytes(&first, empty);
	put_bytes(&first, hello_for(HOST));
	start_among_special_hosts();
	expect_refused_both_ways("alone", empty, DECODE_ERROR);
	expect_refused_both_ways("first", first, DECODE_ERROR);
	expect_refused_both_ways("in the header", hello_around(empty, 2), DECODE_ERROR);
	expect_refused_both_ways("in the middle", hello_around(empty, 60), DECODE_ERROR);
}

PROGRAM_TEST(refusal, long_records)
{
	start_among_special_hosts();
	struct bytes message = largest_message();
	struct bytes most = in_records(message, 1 << 14);
	testing("2^14 bytes are none too many");
	expect_served(backend, most);

	struct bytes more = in_records(message, (1 << 14) + 1);
	testing("2^14 + 1 bytes");
	expect_refused(more, RECORD_OVERFLOW);
	expect_refused_both_ways("its header", slice(more, 0, 5), RECORD_OVERFLOW);
	struct bytes longest = LITERAL("\x16\x03\x01\xff\xff\x01");
	expect_refused_both_ways("65535 bytes", longest, RECORD_OVERFLOW);

	struct bytes second = in_records(slice(message, 0, 100), 100);
	put_bytes(&second, slice(more, 0, 5));
	expect_refused_both_ways("the second record", second, RECORD_OVERFLOW);
}

/* --- Messages --- */

static const struct {
	const char *what;
	enum alert alert;
	struct shape shape;
} malformed[] = {
    {"server_name twice", ILLEGAL_PARAMETER, {.two_server_names = true}},

    {"session id of 33 bytes", DECODE_ERROR, {.session_id_more = 1}},
    {"session id of 255 bytes", DECODE_ERROR, {.session_id_more = 255 - 32}},
    {"session id to beyond the end", DECODE_ERROR,
	{.session_id_more = -32, .session_id_lie = 32, .without_extensions = true}},
    {"no cipher suites", DECODE_ERROR, {.cipher_suites_more = -6}},
    {"half a cipher suite", DECODE_ERROR, {.cipher_suites_more = -5}},
    {"three cipher suites and a half", DECODE_ERROR, {.cipher_suites_more = 1}},
    {"cipher suites to beyond the end", DECODE_ERROR, {.cipher_suites_lie = 60000}},
    {"no compression methods", DECODE_ERROR, {.compression_more = -1}},
    {"compression methods to beyond the end", DECODE_ERROR, {.compression_lie = 254}},

    {"extensions one byte short", DECODE_ERROR, {.extensions_lie = -1}},
    {"extensions one byte long", DECODE_ERROR, {.extensions_lie = 1}},
    {"extensions of 65535 bytes that are not there", DECODE_ERROR, {.extensions_lie = 65000}},
    {"a byte after the extensions", DECODE_ERROR, {.trailing = 1}},
    {"100 bytes after the extensions", DECODE_ERROR, {.trailing = 100}},
    {"a byte where the extensions' length belongs", DECODE_ERROR,
	{.without_extensions = true, .trailing = 1}},
    {"a byte after extensions of no bytes", DECODE_ERROR,
	{.without_extensions = true, .trailing = 3}},
    {"extensions of 5 bytes that are said to be 4", DECODE_ERROR,
	{.without_server_name = true, .padding = 1, .extensions_lie = -1}},
    {"extensions of 5 bytes that are said to be 6", DECODE_ERROR,
	{.without_server_name = true, .padding = 1, .extensions_lie = 1}},

    {"server_name one byte short", DECODE_ERROR, {.server_name_lie = -1}},
    {"server_name one byte long", DECODE_ERROR, {.server_name_lie = 1}},
    {"server_name longer than the extensions", DECODE_ERROR,
	{.server_name_lie = 1, .server_name_last = true}},
    {"server_name without a list", DECODE_ERROR, {.without_list = true}},
    {"an empty list", DECODE_ERROR, {.empty_list = true}},
    {"the list one byte short", DECODE_ERROR, {.list_lie = -1}},
    {"the list one byte long", DECODE_ERROR, {.list_lie = 1}},
    {"the list much too long", DECODE_ERROR, {.list_lie = 1000}},
    {"the name one byte short", DECODE_ERROR, {.name_lie = -1}},
    {"the name one byte long", DECODE_ERROR, {.name_lie = 1}},
    {"the name much too long", DECODE_ERROR, {.name_lie = 1000}},
    {"two host_names", DECODE_ERROR, {.two_host_names = true}},
};

/* Well-formed hellos without a name that is served. */
static const struct {
	const char *what;
	struct shape shape;
} nameless[] = {
    {"no extensions", {.without_extensions = true}},
    {"extensions of no bytes", {.without_extensions = true, .trailing = 2}},
    {"extensions of 5 bytes", {.without_server_name = true, .padding = 1}},
    {"extensions of 7 bytes", {.without_server_name = true}},
    {"no server_name", {.without_server_name = true, .padding = 100}},
    {"only a name of another type", {.other_name_only = true}},
    {"an empty name", {.name = ""}},
    {"a name that nobody has", {.name = "nobody.example"}},
};

PROGRAM_TEST(refusal, malformed_hellos)
{
	start_among_special_hosts();
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
		expect_refused_both_ways(
		    malformed[i].what, hello(malformed[i].shape), malformed[i].alert);
}

PROGRAM_TEST(refusal, hellos_without_a_name)
{
	start();
	for (size_t i = 0; i < sizeof nameless / sizeof *nameless; i++)
		expect_refused_both_ways(
		    nameless[i].what, hello(nameless[i].shape), UNRECOGNIZED_NAME);
}

/* The same with each byte in a record of its own: the split must not matter. */
PROGRAM_TEST(refusal, malformed_hellos_in_records_of_one_byte)
{
	start_among_special_hosts();
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
		testing("%s", malformed[i].what);
		expect_refused(
		    in_records(hello_message(malformed[i].shape), 1), malformed[i].alert);
	}
	expect_untouched();
}

PROGRAM_TEST(refusal, hellos_without_a_name_in_records_of_one_byte)
{
	start();
	for (size_t i = 0; i < sizeof nameless / sizeof *nameless; i++) {
		testing("%s", nameless[i].what);
		expect_refused(in_records(hello_message(nameless[i].shape), 1), UNRECOGNIZED_NAME);
	}
	expect_untouched();
}

/* An extension whose own length is wrong, before and after the name is known. */
PROGRAM_TEST(refusal, an_extension_beyond_the_end)
{
	struct bytes beyond = LITERAL("\xab\xcd\xff\x00");
	start_among_special_hosts();
	expect_refused_both_ways(
	    "after the name", hello((struct shape){.extensions = beyond}), DECODE_ERROR);
	expect_refused_both_ways("before the name",
	    hello((struct shape){.extensions = beyond, .server_name_last = true}), DECODE_ERROR);
}

/* A hello that was cut off at each byte, with lengths that are right to its end. Only if it ends
 * before the extensions it is a hello, of the time before extensions. */
PROGRAM_TEST(refusal, hello_cut_off_with_a_matching_length)
{
	start();
	struct bytes message = hello_message((struct shape){0});
	size_t without = hello_message((struct shape){.without_extensions = true}).length;
	for (size_t length = 4; length < message.length; length++) {
		struct bytes cut = {0};
		put_integer(&cut, 1, 1);
		put_integer(&cut, length - 4, 3);
		put_bytes(&cut, slice(message, 4, length - 4));
		testing("%zu bytes of %zu", length, message.length);
		expect_refused(
		    in_records(cut, 1 << 14), length == without ? UNRECOGNIZED_NAME : DECODE_ERROR);
		free(cut.data);
	}
	cr_assert(silent_for(backend, 0));
}

/* The message's own length. One that exceeds any hello is rejected as soon as it is announced; the
 * connection does not wait for bytes that no client can send. */
PROGRAM_TEST(refusal, length_of_the_message)
{
	start_among_special_hosts();
	struct bytes longer = LITERAL("\x16\x03\x01\x00\x04\x01\x02\x01\x45");
	struct bytes longest = LITERAL("\x16\x03\x01\x00\x04\x01\xff\xff\xff");
	cr_assert_eq(LARGEST_MESSAGE - 4 + 1, 0x020145);
	expect_refused_both_ways("one byte more than the largest", longer, DECODE_ERROR);
	expect_refused_both_ways("2^24 - 1", longest, DECODE_ERROR);
	expect_refused_both_ways(
	    "one byte less than there is", hello((struct shape){.message_lie = -1}), DECODE_ERROR);
	struct bytes empty = LITERAL("\x16\x03\x01\x00\x04\x01\x00\x00\x00");
	expect_refused_both_ways("0", empty, DECODE_ERROR);
}

/* --- The end of the stream --- */

PROGRAM_TEST(refusal, end_of_stream_inside_the_hello)
{
	start_among_special_hosts();
	struct bytes stream = in_records(hello_message((struct shape){0}), 50);
	int *clients = calloc(stream.length, sizeof *clients);
	for (size_t i = 1; i < stream.length; i++) {
		clients[i] = client_send(slice(stream, 0, i));
		shutdown(clients[i], SHUT_WR);
	}
	for (size_t i = 1; i < stream.length; i++) {
		testing("after %zu bytes of %zu", i, stream.length);
		expect_alert(clients[i], DECODE_ERROR);
	}
	expect_untouched();
	free(clients);
}

/* Health checks connect and close. The proxy must end such a connection; tear-down checks it. */
PROGRAM_TEST(refusal, end_of_stream_before_the_hello)
{
	start();
	for (int i = 0; i < 50; i++)
		close(client_connect());
	for (int i = 0; i < 50; i++)
		reset_connection(client_connect());
	expect_served(backend, hello_for(HOST));
}

/* --- The alert arrives --- */

/* The client has sent far more than the proxy read before it rejected the hello. A close with
 * unread input would reset the connection, and the alert would be lost. */
PROGRAM_TEST(refusal, alert_arrives_though_more_was_sent)
{
	start_among_special_hosts();
	struct bytes request = text("POST / HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n");
	put_bytes(&request, pattern(0, 500000));
	put_bytes(&request, pattern(0, 500000));
	put_bytes(&request, pattern(0, 1048576 + 46 - request.length));
	for (int i = 0; i < 50; i++) {
		testing("client %d", i);
		int client = client_connect();
		send_all(client, request);
		expect_alert(client, UNEXPECTED_MESSAGE);
		close(client);
	}
}

PROGRAM_TEST(refusal, alert_arrives_though_more_follows_a_hello)
{
	start();
	struct bytes stream = hello_for("unknown.example");
	for (int i = 0; i < 4; i++)
		put_bytes(&stream, pattern(0, 250000));
	for (int i = 0; i < 50; i++) {
		testing("client %d", i);
		int client = client_connect();
		send_all(client, stream);
		shutdown(client, SHUT_WR);
		expect_alert(client, UNRECOGNIZED_NAME);
		close(client);
	}
}

/* What the client sends after the alert does not destroy it either. */
PROGRAM_TEST(refusal, alert_arrives_though_the_client_goes_on)
{
	start();
	for (int i = 0; i < 50; i++) {
		testing("client %d", i);
		int client = client_send(text("SSH-2.0-client\r\n"));
		check(readable_within(client, 3000), "no alert");
		send_all(client, pattern(0, 100000));
		expect_alert(client, UNEXPECTED_MESSAGE);
		close(client);
	}
}

/* The end of the stream comes at once, although the client neither closes nor reads further. */
PROGRAM_TEST(refusal, many_clients_that_do_not_close)
{
	start();
	int clients[100];
	int64_t start_ms = now_ms();
	for (int i = 0; i < 100; i++)
		clients[i] = client_send(text("GET / HTTP/1.1\r\n\r\n"));
	for (int i = 0; i < 100; i++)
		expect_alert(clients[i], UNEXPECTED_MESSAGE);
	cr_assert_lt(now_ms() - start_ms, margin_ms(4000));
	expect_served(backend, hello_for(HOST));
}

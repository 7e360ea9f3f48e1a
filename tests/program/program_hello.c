/* ClientHellos that must be routed, however they are split, and passed on unchanged. */
#include "tests/program/harness.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- Segments --- */

/* Sends FIRST of the hello on many connections at once. The proxy must have read it and opened no
 * backend. Then the rest is sent: each way to split the hello in two. */
PROGRAM_TEST(hello, every_split_into_two_segments)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes hello = hello_for(HOST);
	int *clients = calloc(hello.length, sizeof *clients);
	for (size_t i = 1; i < hello.length; i++)
		clients[i] = client_send(slice(hello, 0, i));
	wait_drained();
	cr_assert(silent_for(backend, 50), "routed before the whole hello was there");
	for (size_t i = 1; i < hello.length; i++) {
		testing("after %zu bytes of %zu", i, hello.length);
		send_all(clients[i], slice(hello, i, hello.length - i));
		int accepted = backend_accept(backend);
		expect_bytes(accepted, hello);
		pair_talk(((struct pair){clients[i], accepted}));
		pair_close(((struct pair){clients[i], accepted}));
	}
	free(clients);
}

/* The proxy has read what was sent before the next byte is sent: after each byte of the headers,
 * and then after some bytes at a time. */
PROGRAM_TEST(hello, one_byte_at_a_time)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes hello = hello_for(HOST);
	int client = client_connect();
	for (size_t i = 0; i < hello.length; i++) {
		check(silent_for(backend, 0), "routed after %zu bytes of %zu", i, hello.length);
		send_all(client, slice(hello, i, 1));
		wait_drained_of(client);
	}
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
}

PROGRAM_TEST(hello, one_byte_at_a_time_in_records_of_one_byte)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes hello = in_records(hello_message((struct shape){0}), 1);
	int client = client_connect();
	send_bytewise(client, hello);
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
}

/* --- Records --- */

PROGRAM_TEST(hello, every_length_of_records)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes message = hello_message((struct shape){0});
	for (size_t fragment = 1; fragment <= message.length; fragment++) {
		testing("records of %zu bytes", fragment);
		expect_served(backend, in_records(message, fragment));
	}
}

PROGRAM_TEST(hello, every_split_into_two_records)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes message = hello_message((struct shape){0});
	for (size_t first = 1; first < message.length; first++) {
		testing("a record of %zu bytes first", first);
		struct bytes hello = in_records(slice(message, 0, first), 1 << 14);
		put_bytes(
		    &hello, in_records(slice(message, first, message.length - first), 1 << 14));
		expect_served(backend, hello);
		free(hello.data);
	}
}

/* With some length of the hello, the end of a record of 2^14 bytes is in a header, in the name, or
 * just behind the end. */
PROGRAM_TEST(hello, full_records)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	size_t ordinary = hello_message((struct shape){.padding = 1}).length - 1;
	for (int more = -8; more <= 8; more++) {
		testing("2^14 %+d bytes", more);
		size_t padding = (size_t)((1 << 14) - (int)ordinary + more);
		expect_served(
		    backend, hello((struct shape){.padding = padding, .server_name_last = true}));
	}
}

/* --- The largest hello --- */

/* Sends the largest hello in records of FRAGMENT bytes, with more bytes after it. All must
 * arrive. */
static void
expect_largest_served(size_t fragment)
{
	testing("records of %zu bytes", fragment);
	int backend = backend_listen(HOST);
	struct bytes stream = in_records(largest_message(), fragment);
	struct pair pair = {.client = client_send(stream)};
	pair.backend = backend_accept(backend);
	expect_bytes(pair.backend, stream);
	pair_talk(pair);
}

PROGRAM_TEST(hello, largest_in_full_records)
{
	proxy_start_default();
	expect_largest_served(1 << 14);
}

PROGRAM_TEST(hello, largest_in_records_of_one_byte)
{
	proxy_start_default();
	expect_largest_served(1);
}

PROGRAM_TEST(hello, largest_in_records_of_odd_length)
{
	proxy_start_default();
	expect_largest_served(997);
}

/* The hello ends with the server name, behind all that can precede it. */
PROGRAM_TEST(hello, name_at_the_end_of_a_large_hello)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes message = hello_message((struct shape){
	    .cipher_suites_more = 60000, .padding = 60000, .server_name_last = true});
	expect_served(backend, in_records(message, 1 << 14));
	expect_served(backend, in_records(message, 100));
}

/* --- What follows the hello --- */

PROGRAM_TEST(hello, bytes_after_it_in_the_same_record)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes message = hello_message((struct shape){0});
	put_bytes(&message, text("the next handshake message"));
	testing("one record");
	expect_served(backend, in_records(message, 1 << 14));
	testing("one byte more in the last record");
	expect_served(backend, in_records(message, message.length - 25));
}

PROGRAM_TEST(hello, bytes_after_it_in_the_same_segment)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	static const size_t lengths[] = {1, 5, 100, 4096, 70000, 1000000};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		testing("%zu bytes", lengths[i]);
		struct bytes stream = hello_for(HOST);
		put_bytes(&stream, pattern(0, lengths[i]));
		struct pair pair = {.client = client_connect()};
		struct bytes start = slice(stream, 0, stream.length < 5000 ? stream.length : 5000);
		send_all(pair.client, start);
		pair.backend = backend_accept(backend);
		expect_bytes(pair.backend, start);
		for (size_t at = start.length; at < stream.length; at += 5000) {
			size_t left = stream.length - at;
			struct bytes more = slice(stream, at, left < 5000 ? left : 5000);
			send_all(pair.client, more);
			expect_bytes(pair.backend, more);
		}
		pair_talk(pair);
		pair_close(pair);
	}
}

/* A client that sends its request as early data may end its stream before the proxy has opened the
 * backend. */
PROGRAM_TEST(hello, early_data_and_the_end_right_behind_it)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes stream = hello_for(HOST);
	put_bytes(&stream, text("\x17\x03\x03 early data"));
	int client = client_send(stream);
	shutdown(client, SHUT_WR);
	int accepted = backend_accept(backend);
	expect_bytes(accepted, stream);
	expect_end(accepted);
	send_all(accepted, text("answer"));
	close(accepted);
	expect_bytes(client, text("answer"));
	expect_end(client);
}

/* --- What is in it --- */

PROGRAM_TEST(hello, versions_are_not_judged)
{
	static const unsigned versions[] = {0x0000, 0x0200, 0x0300, 0x0301, 0x0304, 0x7f1c, 0xffff};
	proxy_start_default();
	int backend = backend_listen(HOST);
	for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
		testing("legacy_version %#06x", versions[i]);
		unsigned version = versions[i] != 0 ? versions[i] : 1;
		expect_served(backend, hello((struct shape){.legacy_version = version}));

		testing("record version %#06x", versions[i]);
		struct bytes stream = hello_for(HOST);
		stream.data[1] = (uint8_t)(versions[i] >> 8);
		stream.data[2] = (uint8_t)versions[i];
		expect_served(backend, stream);
	}
	testing("a version of its own in each record");
	struct bytes stream = in_records(hello_message((struct shape){0}), 16);
	for (size_t at = 0; at < stream.length; at += 5 + 16)
		stream.data[at + 2] = (uint8_t)at;
	expect_served(backend, stream);
}

/* GREASE (RFC 8701): reserved values among the extensions, an empty one first. */
static struct bytes
grease(void)
{
	struct bytes extensions = {0};
	put_extension(&extensions, 0x0a0a, text(""));
	put_extension(&extensions, 0xfafa, text("x"));
	return extensions;
}

/* A key share of X25519MLKEM768 makes a hello that no segment of 1460 bytes holds. */
static struct bytes
post_quantum(void)
{
	struct bytes shares = {0};
	put_integer(&shares, 2 + 2 + 1216, 2);
	put_integer(&shares, 0x11ec, 2);
	put_integer(&shares, 1216, 2);
	put_bytes(&shares, pattern(0, 1216));
	struct bytes extensions = {0};
	put_extension(&extensions, 51, shares);
	return extensions;
}

/* encrypted_client_hello (RFC 9849): the name inside cannot be read; the outer one is routed. */
static struct bytes
encrypted_hello(void)
{
	struct bytes data = {0};
	put_integer(&data, 0, 1);          /* outer */
	put_integer(&data, 0x00010001, 4); /* cipher_suite */
	put_integer(&data, 7, 1);          /* config_id */
	put_integer(&data, 32, 2);
	put_bytes(&data, pattern(0, 32)); /* enc */
	put_integer(&data, 239, 2);
	put_bytes(&data, pattern(32, 239)); /* payload */
	struct bytes extensions = {0};
	put_extension(&extensions, 0xfe0d, data);
	return extensions;
}

PROGRAM_TEST(hello, all_that_clients_send)
{
	struct bytes many = {0};
	for (unsigned type = 100; type < 400; type++)
		put_extension(&many, type, text("abc"));
	const struct {
		const char *what;
		struct shape shape;
	} rows[] = {
	    {"ordinary", {0}},
	    {"no session id", {.session_id_more = -32}},
	    {"one cipher suite", {.cipher_suites_more = -4}},
	    {"255 compression methods", {.compression_more = 254}},
	    {"server_name last", {.server_name_last = true}},
	    {"GREASE", {.extensions = grease()}},
	    {"GREASE before the name", {.extensions = grease(), .server_name_last = true}},
	    {"post-quantum", {.extensions = post_quantum()}},
	    {"post-quantum before the name",
		{.extensions = post_quantum(), .server_name_last = true}},
	    {"ECH", {.extensions = encrypted_hello()}},
	    {"300 extensions", {.extensions = many, .server_name_last = true}},
	    {"padding", {.padding = 512}},
	    {"a name of another type first", {.other_name_first = true}},
	};
	proxy_start_default();
	int backend = backend_listen(HOST);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("%s", rows[i].what);
		expect_served(backend, hello(rows[i].shape));
		testing("%s, in small records", rows[i].what);
		expect_served(backend, in_records(hello_message(rows[i].shape), 7));
	}
}

/* --- Many at once --- */

PROGRAM_TEST(hello, half_hellos_finished_in_reverse_order)
{
	enum { CLIENTS = 200 };
	proxy_start_default();
	int backend = backend_listen(HOST);
	struct bytes hello = hello_for(HOST);
	size_t half = hello.length / 2;
	int clients[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(slice(hello, 0, half));
	wait_drained();
	cr_assert(silent_for(backend, 0));
	for (int i = CLIENTS - 1; i >= 0; i--) {
		testing("client %d", i);
		send_all(clients[i], slice(hello, half, hello.length - half));
		struct pair pair = {clients[i], backend_accept(backend)};
		expect_bytes(pair.backend, hello);
		pair_talk(pair);
	}
}

/* --- Memory --- */

static long
resident_kib(const struct proxy *proxy)
{
	char *status = proxy_proc(proxy, "status");
	const char *line = strstr(status, "VmRSS:");
	cr_assert_not_null(line);
	long kib = strtol(line + strlen("VmRSS:"), NULL, 10);
	free(status);
	return kib;
}

/* Sends BYTES on connections of its own. Returns how much memory each takes. */
static long
memory_of_each(const struct proxy *proxy, struct bytes bytes, int connections)
{
	proxy_wait_ready();
	long before = resident_kib(proxy);
	for (int i = 0; i < connections; i++)
		client_send(bytes);
	wait_drained();
	return (resident_kib(proxy) - before) / connections;
}

/* The header announces the largest hello, and no more arrives. A connection has a thread with its
 * stack and buffer; they must take a fraction of the announced 128 KiB. */
PROGRAM_TEST(hello, memory_does_not_follow_what_is_announced)
{
	if (sanitized())
		skip("the sanitizers take memory of their own");
	struct proxy *proxy = proxy_start_default();
	struct bytes start = slice(in_records(largest_message(), 1 << 14), 0, 64);
	long kib = memory_of_each(proxy, start, 200);
	cr_assert_lt(kib, 64, "%ld KiB for each connection that sent 64 bytes", kib);
}

/* Records of one byte have six bytes for each: 770 KiB, which the backend must receive
 * unchanged. */
PROGRAM_TEST(hello, memory_is_bounded_for_the_worst_split)
{
	if (sanitized())
		skip("the sanitizers take memory of their own");
	struct proxy *proxy = proxy_start_default();
	struct bytes stream = in_records(largest_message(), 1);
	long kib = memory_of_each(proxy, slice(stream, 0, stream.length - 1), 16);
	cr_assert_lt(kib, 3 * 1024, "%ld KiB for each connection", kib);
}

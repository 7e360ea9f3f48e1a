/* Makes the inputs that fuzzing starts from.
 *
 * usage: corpus DIRECTORY
 *
 * DIRECTORY must have the directories hello, name, path, and header; each input becomes a file in
 * one of them. */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/path_hosts.h"
#include "tests/unit/hellos.h"
#include "tests/unit/proxy_headers.h"
#include "tls.h"

static const char *root;

/* Writes BYTES to a file with a name made of WHAT. */
static void
write_input(const char *kind, const char *prefix, const char *what, const struct bytes *bytes)
{
	char name[128];
	size_t length = 0;
	for (const char *c = what; *c != '\0' && length < sizeof name - 1; c++)
		if (isalnum((unsigned char)*c))
			name[length++] = *c;
		else if (length > 0 && name[length - 1] != '-')
			name[length++] = '-';
	while (length > 0 && name[length - 1] == '-')
		length--;
	name[length] = '\0';

	char path[4096];
	snprintf(path, sizeof path, "%s/%s/%s%s", root, kind, prefix, name);
	FILE *file = fopen(path, "wb");
	bool written = file != NULL && fwrite(bytes->data, 1, bytes->length, file) == bytes->length;
	if (file == NULL || fclose(file) != 0 || !written) {
		perror(path);
		exit(1);
	}
}

/* --- Hellos --- */

/* A client's stream; and, if it has a whole message, the body of that. */
static void
make_hello(const struct hello_case *from)
{
	struct bytes stream = {0};
	bytes_add(&stream, from->bytes, from->length);
	write_input("hello", "", from->what, &stream);
	bytes_release(&stream);

	struct tls_hello hello = {0};
	if (tls_hello_feed(&hello, from->bytes, from->length) == TLS_OK) {
		struct bytes body = {0};
		bytes_add_integer(&body, 1, 1);
		bytes_add(&body, hello.message + TLS_HANDSHAKE_HEADER_SIZE,
		    hello.message_length - TLS_HANDSHAKE_HEADER_SIZE);
		write_input("hello", "body-", from->what, &body);
		bytes_release(&body);
	}
	tls_hello_release(&hello);
}

/* --- PROXY headers --- */

static void
make_header(const struct proxy_header_case *from)
{
	struct bytes bytes = {0};
	bytes_add(&bytes, (const uint8_t *)from->bytes, from->size);
	bytes_add_fill(&bytes, 0, from->zeros);
	write_input("header", "", from->what, &bytes);
	bytes_release(&bytes);
}

/* --- Names --- */

static const char *const names[] = {"a", "7", "localhost", "blog.example", "EXAMPLE.Com",
    "xn--sr8hvo.ws", "a-b.c--d", "a-.b-", "192.0.2.7", "a.b.c.d.e.f", ".", "..", "-", ".a", "a.",
    "a..b", "-a", "a.-b", "../a", "a/b", "a_b", "*.example", "a b", "a\n", "a:443",
    "\xc3\xbc.example", "a\x0e", "a\r", "a\x10", "a@", "a[", "a`", "a{"};

static void
make_name(const char *name, size_t length)
{
	char what[16];
	static unsigned count;
	snprintf(what, sizeof what, "%02u", count++);
	struct bytes bytes = {0};
	bytes_add(&bytes, (const uint8_t *)name, length);
	write_input("name", "", what, &bytes);
	bytes_release(&bytes);
}

static void
make_names(void)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		make_name(names[i], strlen(names[i]));
	make_name("a\0b", 3);
	char longest[256];
	memset(longest, 'a', sizeof longest);
	for (size_t i = 63; i < sizeof longest; i += 64)
		longest[i] = '.';
	for (size_t length = 253; length <= 256; length++)
		make_name(longest, length);
}

/* --- Paths --- */

static struct bytes script;

static void
step(unsigned which)
{
	bytes_add_integer(&script, which, 1);
}

static void
step_counted(unsigned which, unsigned count)
{
	step(which);
	bytes_add_integer(&script, count, 1);
}

/* Sends BYTES in steps of up to CHUNK bytes. */
static void
step_literal(unsigned which, const void *bytes, size_t length, size_t chunk)
{
	for (size_t sent = 0; sent < length; sent += chunk) {
		size_t size = length - sent < chunk ? length - sent : chunk;
		step_counted(which, (unsigned)size);
		bytes_add(&script, (const uint8_t *)bytes + sent, size);
	}
}

static void
end_script(const char *prefix, const char *what)
{
	write_input("path", prefix, what, &script);
	bytes_release(&script);
}

enum { BLOCK = 4096, RECORD_BLOCKS = 4 };

/* Adds the server_name extension. */
static void
add_server_name(struct bytes *extensions, const char *name)
{
	size_t length = strlen(name);
	bytes_add_integer(extensions, 0, 2);          /* server_name */
	bytes_add_integer(extensions, length + 5, 2); /* extension_data */
	bytes_add_integer(extensions, length + 3, 2); /* server_name_list */
	bytes_add_integer(extensions, 0, 1);          /* host_name */
	bytes_add_integer(extensions, length, 2);     /* its length */
	bytes_add(extensions, (const uint8_t *)name, length);
}

/* Adds the ALPN extension, with PROTOCOLS that are separated by commas. */
static void
add_alpn(struct bytes *extensions, const char *protocols)
{
	struct bytes list = {0};
	while (*protocols != '\0') {
		size_t length = strcspn(protocols, ",");
		bytes_add_integer(&list, length, 1);
		bytes_add(&list, (const uint8_t *)protocols, length);
		protocols += length + (protocols[length] == ',');
	}
	bytes_add_integer(extensions, 16, 2); /* application_layer_protocol_negotiation */
	bytes_add_integer(extensions, list.length + 2, 2);
	bytes_add_integer(extensions, list.length, 2);
	bytes_add(extensions, list.data, list.length);
	bytes_release(&list);
}

/* A hello with these EXTENSIONS, which it releases; their last BLOCKS blocks are missing. */
static struct bytes
hello_with(struct bytes *extensions, size_t blocks)
{
	struct bytes body = {0}, message = {0}, stream = {0};
	bytes_add_integer(&body, 0x0303, 2);     /* legacy_version */
	bytes_add_fill(&body, 0xaa, 32);         /* random */
	bytes_add_integer(&body, 0, 1);          /* legacy_session_id */
	bytes_add_integer(&body, 0x00021301, 4); /* cipher_suites */
	bytes_add_integer(&body, 0x0100, 2);     /* legacy_compression_methods */
	bytes_add_integer(&body, extensions->length + blocks * BLOCK, 2);
	bytes_add(&body, extensions->data, extensions->length);
	bytes_add_integer(&message, 1, 1); /* msg_type: client_hello */
	bytes_add_integer(&message, body.length + blocks * BLOCK, 3);
	bytes_add(&message, body.data, body.length);
	hello_add_records(&stream, message.data, message.length, message.length);
	bytes_release(&message);
	bytes_release(&body);
	bytes_release(extensions);
	return stream;
}

/* A short hello for NAME; or the beginning of a long one, of which the end is BLOCKS blocks of
 * padding. */
static struct bytes
hello_for(const char *name, size_t blocks)
{
	struct bytes extensions = {0};
	add_server_name(&extensions, name);
	if (blocks > 0) {
		bytes_add_integer(&extensions, 21, 2); /* padding (RFC 7685) */
		bytes_add_integer(&extensions, blocks * BLOCK, 2);
	}
	return hello_with(&extensions, blocks);
}

static void
step_bytes(const struct bytes *hello, size_t chunk)
{
	step_literal(STEP_CLIENT_SENDS, hello->data, hello->length, chunk);
}

static void
step_hello(const char *name, size_t chunk)
{
	struct bytes hello = hello_for(name, 0);
	step_bytes(&hello, chunk);
	bytes_release(&hello);
}

/* Stands for the steps that send a hello. */
enum { STEP_HELLO = STEP_COUNT + 1 };

/* A step and its count, which is 0 for steps without one. */
struct counted_step {
	unsigned step, count;
};

/* What follows the hello. */
struct scenario {
	const char *what;
	const char *name;
	struct counted_step steps[12];
};

#define CLIENT_BLOCKS(count) \
	{ \
		STEP_CLIENT_SENDS_BLOCKS, count \
	}
#define BACKEND_BLOCKS(count) \
	{ \
		STEP_BACKEND_SENDS_BLOCKS, count \
	}
#define CLIENT_READS \
	{ \
		STEP_CLIENT_RECEIVES, 255 \
	}
#define BACKEND_READS \
	{ \
		STEP_BACKEND_RECEIVES, 255 \
	}
#define CLIENT_BLOCKS_AT_ONCE(count) \
	{ \
		STEP_CLIENT_SENDS_BLOCKS | STEP_AT_ONCE, count \
	}
#define BACKEND_BLOCKS_AT_ONCE(count) \
	{ \
		STEP_BACKEND_SENDS_BLOCKS | STEP_AT_ONCE, count \
	}
#define SECONDS(count) \
	{ \
		STEP_TIME_PASSES, 10 * (count) \
	}
#define SECONDS_AT_ONCE(count) \
	{ \
		STEP_TIME_PASSES | STEP_AT_ONCE, 10 * (count) \
	}
#define SHRINK \
	{ \
		STEP_BUFFERS_SHRINK, 0 \
	}
#define CLIENT_ENDS \
	{ \
		STEP_CLIENT_ENDS, 0 \
	}
#define BACKEND_ENDS \
	{ \
		STEP_BACKEND_ENDS, 0 \
	}
#define CLIENT_CLOSES \
	{ \
		STEP_CLIENT_CLOSES, 0 \
	}
#define BACKEND_CLOSES \
	{ \
		STEP_BACKEND_CLOSES, 0 \
	}
#define FAULTS(count) \
	{ \
		STEP_FAULTS, count \
	}
#define EVICT \
	{ \
		STEP_EVICT, 0 \
	}
#define END \
	{ \
		STEP_COUNT, 0 \
	}

static const struct scenario scenarios[] = {
    {"no such host", "other.example", {END}},
    {"nobody listens", "dead.example", {END}},
    {"no socket", "empty.example", {END}},
    {"PROXY header", "header.example", {BACKEND_READS, BACKEND_BLOCKS(1), END}},
    {"refused, then time", "other.example", {SECONDS(4), SECONDS(4), END}},
    {"refused, and more is sent", "other.example", {CLIENT_BLOCKS(20), SECONDS(6), END}},
    {"refused, and closed", "other.example", {CLIENT_CLOSES, END}},
    {"upload", "blog.example",
	{CLIENT_BLOCKS(60), BACKEND_READS, CLIENT_BLOCKS(60), BACKEND_READS, CLIENT_ENDS, END}},
    {"download", "blog.example",
	{BACKEND_BLOCKS(60), CLIENT_READS, BACKEND_BLOCKS(60), CLIENT_READS, BACKEND_ENDS, END}},
    {"both with small buffers", "blog.example",
	{SHRINK, CLIENT_BLOCKS(60), BACKEND_BLOCKS(60), BACKEND_READS, CLIENT_READS, CLIENT_ENDS,
	    BACKEND_ENDS, END}},
    {"backend closes", "blog.example",
	{BACKEND_READS, BACKEND_BLOCKS(2), BACKEND_CLOSES, CLIENT_BLOCKS(2), END}},
    {"backend closes unread", "blog.example",
	{CLIENT_BLOCKS(20), BACKEND_BLOCKS(20), BACKEND_CLOSES, SECONDS(6), CLIENT_READS, END}},
    {"client closes", "blog.example", {CLIENT_BLOCKS(9), CLIENT_CLOSES, END}},
    {"client closes unread", "blog.example",
	{BACKEND_BLOCKS(20), CLIENT_CLOSES, BACKEND_BLOCKS(20), END}},
    {"client closes unread, and the backend is slow", "blog.example",
	{BACKEND_BLOCKS(2), CLIENT_BLOCKS(60), CLIENT_BLOCKS(30), CLIENT_CLOSES, BACKEND_BLOCKS(2),
	    BACKEND_READS, END}},
    {"client closes unread, seen by the way back", "blog.example",
	{BACKEND_BLOCKS(2), BACKEND_BLOCKS_AT_ONCE(1), CLIENT_BLOCKS_AT_ONCE(2), CLIENT_CLOSES,
	    END}},
    {"backend closes unread, seen by the way there", "blog.example",
	{CLIENT_BLOCKS(2), CLIENT_BLOCKS_AT_ONCE(1), BACKEND_BLOCKS_AT_ONCE(2), BACKEND_CLOSES,
	    END}},
    {"client takes nothing", "blog.example",
	{SHRINK, BACKEND_BLOCKS(60), BACKEND_CLOSES, SECONDS(25), SECONDS(25), SECONDS(25),
	    SECONDS(25), SECONDS(25), SECONDS(25), END}},
    {"client takes none of the last bytes", "blog.example",
	{BACKEND_BLOCKS(20), BACKEND_CLOSES, SECONDS(25), SECONDS(25), SECONDS(25), SECONDS(25),
	    SECONDS(25), SECONDS(25), END}},
    {"backend takes nothing", "blog.example",
	{SHRINK, CLIENT_BLOCKS(60), CLIENT_CLOSES, SECONDS(25), SECONDS(25), SECONDS(25),
	    SECONDS(25), SECONDS(25), SECONDS(25), END}},
    {"backend takes something, seen late", "blog.example",
	{SHRINK, CLIENT_BLOCKS(28), CLIENT_CLOSES, SECONDS(20), {STEP_FAULTS | STEP_AT_ONCE, 222},
	    SECONDS_AT_ONCE(25), SECONDS_AT_ONCE(25), SECONDS_AT_ONCE(25),
	    {STEP_BACKEND_RECEIVES | STEP_AT_ONCE, 255}, SECONDS_AT_ONCE(25), SECONDS(2), END}},
    {"client takes it slowly", "blog.example",
	{SHRINK, BACKEND_READS, BACKEND_BLOCKS(40), BACKEND_CLOSES, SECONDS(6), CLIENT_READS,
	    SECONDS(6), CLIENT_READS, END}},
    {"backend reads no more", "blog.example",
	{BACKEND_READS, {STEP_BACKEND_DEAF, 0}, CLIENT_BLOCKS(60), CLIENT_BLOCKS(60),
	    BACKEND_BLOCKS(2), CLIENT_READS, BACKEND_ENDS, END}},
    {"interrupted calls", "blog.example",
	{FAULTS(250), CLIENT_BLOCKS(60), BACKEND_BLOCKS(60), FAULTS(250), BACKEND_READS,
	    CLIENT_READS, FAULTS(250), CLIENT_CLOSES, END}},
    {"idle, evicted", "blog.example", {SECONDS(2), EVICT, END}},
    {"stalled, evicted", "blog.example",
	{CLIENT_BLOCKS(60), CLIENT_BLOCKS(60), EVICT, SECONDS(2), EVICT, END}},
    {"last bytes, evicted", "blog.example",
	{BACKEND_BLOCKS(20), BACKEND_CLOSES, SECONDS(2), EVICT, SECONDS(4), EVICT, END}},
    {"rejected, evicted", "other.example", {SECONDS(2), EVICT, END}},
    {"quiet for long", "blog.example",
	{SECONDS(25), SECONDS(25), BACKEND_READS, BACKEND_BLOCKS(1), END}},
};

/* Takes steps up to END; HELLO stands for those that send the client's hello. */
static void
take_steps(const struct counted_step *steps, const struct bytes *hello)
{
	for (; steps->step != STEP_COUNT; steps++) {
		if (steps->step == STEP_HELLO) {
			step_bytes(hello, 255);
			continue;
		}
		step(steps->step);
		switch (steps->step % STEP_AT_ONCE) {
		case STEP_CLIENT_SENDS_BLOCKS:
		case STEP_CLIENT_RECEIVES:
		case STEP_BACKEND_SENDS_BLOCKS:
		case STEP_BACKEND_RECEIVES:
		case STEP_TIME_PASSES:
		case STEP_BACKEND_BUSY:
		case STEP_FAULTS:
		case STEP_SPECIAL_HOSTS:
		case STEP_SOCKET:
			bytes_add_integer(&script, steps->count, 1);
			break;
		default:
			break;
		}
	}
}

static void
make_scenario(const struct scenario *scenario)
{
	step_hello(scenario->name, 255);
	take_steps(scenario->steps, NULL);
	end_script("", scenario->what);
}

/* Scenarios of hosts: what they are like before the hello, and afterwards. */

#define HELLO \
	{ \
		STEP_HELLO, 0 \
	}
#define TENTHS(count) \
	{ \
		STEP_TIME_PASSES, count \
	}
#define SPECIAL(bits) \
	{ \
		STEP_SPECIAL_HOSTS, bits \
	}
#define SOCKET(host, which, state) \
	{ \
		STEP_SOCKET, 8 * (host) + 4 * (which) + (state) \
	}
#define TLS_SOCKET(host, state) SOCKET(host, HOST_TLS, state)
#define ACME_SOCKET(host, state) SOCKET(host, HOST_ACME, state)
#define THREADS_SHORT \
	{ \
		STEP_THREADS_SHORT, 0 \
	}
#define NEXT_CLIENT \
	{ \
		STEP_NEXT_CLIENT, 0 \
	}
/* So many attempts to connect fail because the backlog is full. */
#define BUSY(count) \
	{ \
		STEP_BACKEND_BUSY, (count) / 4 * 4 \
	}

/* The bits of special hosts. */
enum { DOMAIN = 1, DEFAULT = 2, NO_SNI = 4 };

#define LABEL_62 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LABEL_63 LABEL_62 "a"
#define LONGEST_NAME LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_62
#define LONGEST_PROTOCOL LABEL_63 LABEL_63 LABEL_63 LABEL_63 "aaa"

static const struct {
	const char *what;
	const char *name;         /* NULL for no server_name extension */
	const char *protocols[2]; /* of one ALPN extension each, see add_alpn() */
	struct counted_step steps[12];
} host_scenarios[] = {
    {"special host of a domain", "a.example", {NULL}, {SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"special host of another domain", "a.b.example", {NULL}, {SPECIAL(DOMAIN), HELLO, END}},
    {"special host of a domain, asked for", "_.example", {NULL}, {SPECIAL(7), HELLO, END}},
    {"special host for all names", "a.b.example", {NULL}, {SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"special host for all names, one label", "example", {NULL},
	{SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"special host for no name", NULL, {NULL}, {SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"special hosts, none for no name", NULL, {NULL}, {SPECIAL(DOMAIN | DEFAULT), HELLO, END}},
    {"special hosts, malformed hello", "a.example", {""}, {SPECIAL(7), HELLO, END}},
    {"special hosts, name is down", "dead.example", {NULL},
	{SPECIAL(7), HELLO, TENTHS(12), CLIENT_READS, END}},
    {"special host of a domain, down", "a.example", {NULL},
	{SPECIAL(7), TLS_SOCKET(HOST_DOMAIN, SOCKET_MISSING), HELLO, TENTHS(12), END}},
    {"special host of a domain, down and removed", "a.example", {NULL},
	{SPECIAL(7), TLS_SOCKET(HOST_DOMAIN, SOCKET_DEAD), HELLO, TENTHS(3),
	    SPECIAL(DEFAULT | NO_SNI), TENTHS(1), BACKEND_READS, END}},
    {"special hosts, all removed", "a.example", {NULL},
	{SPECIAL(7), TLS_SOCKET(HOST_DOMAIN, SOCKET_DEAD), HELLO, TENTHS(3), SPECIAL(0), TENTHS(1),
	    END}},

    {"version 2", "binary_2.example", {"h2,http/1.1"},
	{HELLO, BACKEND_READS, BACKEND_BLOCKS(1), END}},
    {"version 2, no protocols", "BINARY_2.example", {NULL}, {HELLO, BACKEND_READS, END}},
    {"version 2, longest", LONGEST_NAME, {LONGEST_PROTOCOL},
	{SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"version 2 twice", "binary_2.example", {"h2"},
	{HELLO, BACKEND_READS, NEXT_CLIENT, HELLO, BACKEND_READS, END}},
    {"versions 1 and 2", "both.example", {"h2"}, {HELLO, BACKEND_READS, END}},
    {"no list of protocols", "binary_2.example", {""}, {HELLO, END}},
    {"two lists of protocols", "binary_2.example", {"h2", "http/1.1"}, {HELLO, END}},

    {"ACME", "acme.example", {"acme-tls/1"}, {HELLO, BACKEND_READS, END}},
    {"ACME and another", "acme.example", {"acme-tls/1,h2"}, {HELLO, BACKEND_READS, END}},
    {"ACME after another", "acme.example", {"h2,acme-tls/1"}, {HELLO, BACKEND_READS, END}},
    {"ACME, too long", "acme.example", {"acme-tls/10"}, {HELLO, BACKEND_READS, END}},
    {"ACME, too short", "acme.example", {"acme-tls/"}, {HELLO, BACKEND_READS, END}},
    {"ACME, no such socket", "both.example", {"acme-tls/1"}, {HELLO, BACKEND_READS, END}},
    {"ACME, special host", "a.example", {"acme-tls/1"}, {SPECIAL(7), HELLO, BACKEND_READS, END}},
    {"ACME, down", "acme.example", {"acme-tls/1"},
	{ACME_SOCKET(HOST_WITH_ACME, SOCKET_DEAD), HELLO, TENTHS(5),
	    ACME_SOCKET(HOST_WITH_ACME, SOCKET_LISTENING), TENTHS(1), BACKEND_READS, END}},
    {"ACME, down and then no such socket", "acme.example", {"acme-tls/1"},
	{ACME_SOCKET(HOST_WITH_ACME, SOCKET_DEAD), HELLO, TENTHS(5),
	    ACME_SOCKET(HOST_WITH_ACME, SOCKET_MISSING), TENTHS(1), BACKEND_READS, END}},

    {"backend busy", "blog.example", {NULL}, {BUSY(20), HELLO, TENTHS(5), END}},
    {"backend busy for too long", "blog.example", {NULL}, {BUSY(250), HELLO, SECONDS(12), END}},
    {"backend busy, client closes", "blog.example", {NULL}, {BUSY(250), HELLO, CLIENT_CLOSES, END}},
    {"backend busy, client ends", "blog.example", {NULL}, {BUSY(80), HELLO, CLIENT_ENDS, END}},
    {"backend busy, evicted", "blog.example", {NULL},
	{BUSY(250), HELLO, SECONDS(2), THREADS_SHORT, EVICT, END}},

    {"restart", "dead.example", {NULL},
	{HELLO, TENTHS(5), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1), BACKEND_READS,
	    BACKEND_BLOCKS(1), END}},
    {"restart, no socket meanwhile", "empty.example", {NULL},
	{HELLO, CLIENT_BLOCKS(2), TENTHS(9), TLS_SOCKET(HOST_EMPTY, SOCKET_LISTENING), TENTHS(1),
	    BACKEND_READS, END}},
    {"restart, just in time", "dead.example", {NULL},
	{HELLO, TENTHS(10), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1), END}},
    {"restart, too late", "dead.example", {NULL},
	{HELLO, TENTHS(11), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1), END}},
    {"restart, late hello", "dead.example", {NULL}, {TENTHS(95), HELLO, TENTHS(6), END}},
    {"restart, client closes", "dead.example", {NULL},
	{HELLO, TENTHS(5), CLIENT_CLOSES, TENTHS(1), END}},
    {"restart, client ends", "dead.example", {NULL},
	{HELLO, CLIENT_ENDS, TENTHS(5), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1),
	    BACKEND_READS, END}},
    {"restart, busy", "dead.example", {NULL}, {BUSY(40), HELLO, TENTHS(8), TENTHS(5), END}},
    {"restart, threads are short", "dead.example", {NULL}, {THREADS_SHORT, HELLO, END}},
    {"restart, threads become short", "dead.example", {NULL},
	{HELLO, TENTHS(5), THREADS_SHORT, TENTHS(1), END}},
    {"restart, evicted", "dead.example", {NULL}, {HELLO, TENTHS(10), THREADS_SHORT, EVICT, END}},
    {"restart, interrupted calls", "dead.example", {NULL},
	{HELLO, FAULTS(250), TENTHS(5), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1),
	    BACKEND_READS, END}},
    {"down, next client", "dead.example", {NULL},
	{HELLO, TENTHS(11), NEXT_CLIENT, TENTHS(3), HELLO, NEXT_CLIENT, HELLO, END}},
    {"down, next client a second later", "empty.example", {NULL},
	{HELLO, TENTHS(11), NEXT_CLIENT, TENTHS(11), HELLO, TENTHS(5),
	    TLS_SOCKET(HOST_EMPTY, SOCKET_LISTENING), TENTHS(1), END}},
    {"down, up and down again", "dead.example", {NULL},
	{HELLO, TENTHS(11), NEXT_CLIENT, TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), HELLO,
	    NEXT_CLIENT, TLS_SOCKET(HOST_DEAD, SOCKET_MISSING), HELLO, TENTHS(12), END}},
    {"down, two restarts", "dead.example", {NULL},
	{HELLO, TENTHS(9), TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1), NEXT_CLIENT,
	    TLS_SOCKET(HOST_DEAD, SOCKET_MISSING), HELLO, TENTHS(9),
	    TLS_SOCKET(HOST_DEAD, SOCKET_LISTENING), TENTHS(1), END}},
};

static void
make_host_scenarios(void)
{
	for (size_t i = 0; i < sizeof host_scenarios / sizeof *host_scenarios; i++) {
		struct bytes extensions = {0};
		if (host_scenarios[i].name != NULL)
			add_server_name(&extensions, host_scenarios[i].name);
		for (size_t j = 0; j < 2; j++)
			if (host_scenarios[i].protocols[j] != NULL)
				add_alpn(&extensions, host_scenarios[i].protocols[j]);
		struct bytes hello = hello_with(&extensions, 0);
		take_steps(host_scenarios[i].steps, &hello);
		end_script("", host_scenarios[i].what);
		bytes_release(&hello);
	}
}

static void
make_late_hellos(void)
{
	struct bytes hello = hello_for("blog.example", 0);
	step_literal(STEP_CLIENT_SENDS, hello.data, 40, 40);
	step_counted(STEP_TIME_PASSES, 100);
	step_literal(STEP_CLIENT_SENDS, hello.data + 40, hello.length - 40, 255);
	end_script("", "half a hello in time");

	step_literal(STEP_CLIENT_SENDS, hello.data, 40, 40);
	step_counted(STEP_TIME_PASSES, 99);
	step_literal(STEP_CLIENT_SENDS, hello.data + 40, hello.length - 40, 255);
	end_script("", "just in time");

	step_literal(STEP_CLIENT_SENDS, hello.data, 40, 40);
	step(STEP_CLIENT_ENDS);
	end_script("", "half a hello");

	step_literal(STEP_CLIENT_SENDS, hello.data, 40, 40);
	step_counted(STEP_TIME_PASSES, 20);
	step(STEP_EVICT);
	end_script("", "half a hello, evicted");

	step_hello("blog.example", 1);
	step_literal(STEP_BACKEND_SENDS, "hello", 5, 1);
	end_script("", "byte by byte");

	step_literal(STEP_CLIENT_SENDS | STEP_AT_ONCE, hello.data, hello.length, 255);
	step(STEP_CLIENT_ENDS);
	step_literal(STEP_BACKEND_SENDS | STEP_AT_ONCE, "bye", 3, 3);
	step(STEP_BACKEND_CLOSES);
	end_script("", "all at once");
	bytes_release(&hello);
}

/* As many blocks as the extensions have room for, in records as full as possible. */
static void
make_long_hello(void)
{
	size_t blocks = 15;
	struct bytes hello = hello_for("header.example", blocks);
	step_literal(STEP_CLIENT_SENDS, hello.data, hello.length, 255);
	for (size_t left = blocks; left > 0;) {
		size_t count = left < RECORD_BLOCKS ? left : RECORD_BLOCKS;
		struct bytes header = {0};
		bytes_add_integer(&header, 0x160303, 3);
		bytes_add_integer(&header, count * BLOCK, 2);
		step_literal(STEP_CLIENT_SENDS, header.data, header.length, 255);
		step_counted(STEP_CLIENT_SENDS_BLOCKS, (unsigned)count);
		bytes_release(&header);
		left -= count;
	}
	step_literal(STEP_BACKEND_SENDS, "answer", 6, 6);
	end_script("", "a hello of 60 KiB");
	bytes_release(&hello);
}

/* A hello that offers acme-tls/1 alone, for a host with a socket for these and a PROXY header for
 * others. */
static void
make_acme_hello(void)
{
	static const uint8_t alpn[] = {
	    0, 16, 0, 13, 0, 11, 10, 'a', 'c', 'm', 'e', '-', 't', 'l', 's', '/', '1'};
	struct bytes plain = hello_for("header.example", 0), body = {0}, message = {0};
	struct bytes stream = {0};
	const uint8_t *plain_body = plain.data + TLS_RECORD_HEADER_SIZE + TLS_HANDSHAKE_HEADER_SIZE;
	size_t length = plain.length - TLS_RECORD_HEADER_SIZE - TLS_HANDSHAKE_HEADER_SIZE;
	size_t head = 2 + 32 + 1 + 4 + 2; /* up to the extensions */
	bytes_add(&body, plain_body, head);
	bytes_add_integer(&body, length - head - 2 + sizeof alpn, 2);
	bytes_add(&body, plain_body + head + 2, length - head - 2);
	bytes_add(&body, alpn, sizeof alpn);
	hello_add_body(&message, body.data, body.length);
	hello_add_records(&stream, message.data, message.length, message.length);
	step_literal(STEP_CLIENT_SENDS, stream.data, stream.length, 255);
	step_literal(STEP_BACKEND_SENDS, "answer", 6, 6);
	end_script("", "acme-tls/1");
	bytes_release(&stream);
	bytes_release(&message);
	bytes_release(&body);
	bytes_release(&plain);
}

/* More than the proxy reads before it rejects. */
static void
make_early_refusal(void)
{
	step_counted(STEP_CLIENT_SENDS_BLOCKS, 10);
	step_counted(STEP_TIME_PASSES, 60);
	step_counted(STEP_CLIENT_SENDS_BLOCKS, 10);
	end_script("", "much that is no hello");
}

/* Sends a hello of the table, and the backend answers. */
static void
make_path(const struct hello_case *from)
{
	step_literal(STEP_CLIENT_SENDS, from->bytes, from->length, 200);
	step_literal(STEP_BACKEND_SENDS, "answer", 6, 6);
	end_script("hello-", from->what);
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	root = argv[1];
	for (size_t i = 0; i < hello_case_count; i++) {
		make_hello(&hello_cases[i]);
		make_path(&hello_cases[i]);
	}
	for (size_t i = 0; i < proxy_header_case_count; i++)
		make_header(&proxy_header_cases[i]);
	make_names();
	make_late_hellos();
	make_long_hello();
	make_acme_hello();
	make_early_refusal();
	for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
		make_scenario(&scenarios[i]);
	make_host_scenarios();
	return 0;
}

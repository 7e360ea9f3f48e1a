/* Tests of tls.c: its result for every hello in the table, for every way to split one, and for
 * every damage that a fixed sequence of pseudo-random numbers produces.
 *
 * Blocks have exactly the size of their bytes, and the joined message is cut to its size before it
 * is parsed, so that AddressSanitizer detects any read past the end. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/unit/check.h"
#include "tests/unit/hellos.h"
#include "tls.h"

enum { RECORD_MAX = 1 << 14 };

static void *
allocate(size_t size)
{
	void *memory = malloc(size);
	CHECK(memory != NULL, "out of memory");
	return memory;
}

struct result {
	enum tls_status status;
	const uint8_t *name; /* after TLS_OK; lives as long as the hello */
	size_t name_length;
};

/* Frees the spare capacity of the message. */
static void
fit_message(struct tls_hello *hello)
{
	uint8_t *message = allocate(hello->message_length);
	memcpy(message, hello->message, hello->message_length);
	free(hello->message);
	hello->message = message;
	hello->message_capacity = hello->message_length;
}

static bool
lies_inside(const struct tls_hello *hello, const uint8_t *bytes, size_t length)
{
	uintptr_t begin = (uintptr_t)hello->message;
	uintptr_t end = begin + hello->message_length;
	return (uintptr_t)bytes >= begin && (uintptr_t)bytes <= end &&
	    length <= end - (uintptr_t)bytes;
}

/* The first protocol must be inside the message, after its length. */
static void
check_offer(const struct tls_hello *hello)
{
	if (hello->protocols == 0) {
		CHECK(hello->protocol_length == 0, "no protocol, but a length");
		return;
	}
	CHECK(lies_inside(hello, hello->protocol - 1, 1 + hello->protocol_length),
	    "the protocol lies outside the message");
	CHECK(hello->protocol_length > 0 && hello->protocol[-1] == hello->protocol_length,
	    "the protocol is none of the list");
}

static bool
is_offered(const struct tls_hello *hello, unsigned count, const void *protocol, size_t length)
{
	return hello->protocols == count && hello->protocol_length == length &&
	    (length == 0 || memcmp(hello->protocol, protocol, length) == 0);
}

/* Feeds BYTES in chunks of up to CHUNK bytes, and asks for the name if the status is TLS_OK. */
static struct result
read_hello(struct tls_hello *hello, const uint8_t *bytes, size_t length, size_t chunk)
{
	struct result result = {.status = TLS_INCOMPLETE};
	while (result.status == TLS_INCOMPLETE && length > 0) {
		size_t size = length < chunk ? length : chunk;
		uint8_t *block = allocate(size);
		memcpy(block, bytes, size);
		result.status = tls_hello_feed(hello, block, size);
		free(block);
		bytes += size;
		length -= size;
	}
	if (result.status == TLS_OK) {
		fit_message(hello);
		result.status = tls_hello_server_name(hello, &result.name, &result.name_length);
	}
	if (result.status == TLS_OK)
		CHECK(lies_inside(hello, result.name, result.name_length),
		    "the name lies outside the message");
	if (result.status == TLS_OK || hello->alert == TLS_UNRECOGNIZED_NAME)
		check_offer(hello);
	if (result.status == TLS_REFUSED)
		CHECK(hello->reason != NULL && hello->reason[0] != '\0', "no reason given");
	return result;
}

static bool
is_named(const struct result *result, const void *name, size_t length)
{
	return result->status == TLS_OK && result->name_length == length &&
	    (length == 0 || memcmp(result->name, name, length) == 0);
}

/* Whether the result is the one of WANTED in the table. */
static bool
is_as_expected(const struct hello_case *wanted, size_t chunk)
{
	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, wanted->bytes, wanted->length, chunk);
	bool as_expected = wanted->status == TLS_OK
	    ? is_named(&result, wanted->name, wanted->name_length)
	    : result.status == wanted->status && hello.alert == wanted->alert;
	if (wanted->status == TLS_OK || wanted->alert == TLS_UNRECOGNIZED_NAME)
		as_expected &= is_offered(
		    &hello, wanted->protocols, wanted->protocol, wanted->protocol_length);
	tls_hello_release(&hello);
	return as_expected;
}

Test(tls, judges_each_hello_of_the_table)
{
	for (size_t i = 0; i < hello_case_count; i++) {
		const struct hello_case *wanted = &hello_cases[i];
		cr_expect(is_as_expected(wanted, SIZE_MAX), "%s", wanted->what);
		for (size_t chunk = 1; chunk < wanted->length; chunk++)
			CHECK(is_as_expected(wanted, chunk), "%s, in chunks of %zu", wanted->what,
			    chunk);
	}
}

/* A ClientHello with a server name, without records. */
struct good_hello {
	const char *what;
	struct bytes message;
	struct bytes name;
	unsigned protocols;
	struct bytes protocol; /* the first of them */
};

static void
release_good_hello(struct good_hello *good)
{
	bytes_release(&good->message);
	bytes_release(&good->name);
	bytes_release(&good->protocol);
}

static const struct hello_sizes largest = {
    .legacy_session_id = 32,
    .cipher_suites = 65534,
    .legacy_compression_methods = 255,
    .extensions = 65535,
    .host_name = 65526,
};

static struct good_hello
good_hello_of_case(const struct hello_case *wanted)
{
	struct good_hello good = {.what = wanted->what};
	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, wanted->bytes, wanted->length, SIZE_MAX);
	CHECK(result.status == TLS_OK, "%s", wanted->what);
	bytes_add(&good.message, hello.message, hello.message_length);
	bytes_add(&good.name, (const uint8_t *)wanted->name, wanted->name_length);
	good.protocols = wanted->protocols;
	bytes_add(&good.protocol, (const uint8_t *)wanted->protocol, wanted->protocol_length);
	tls_hello_release(&hello);
	return good;
}

static struct good_hello
good_hello_of_sizes(const char *what, const struct hello_sizes *sizes)
{
	struct good_hello good = {.what = what};
	hello_add_message(&good.message, sizes);
	bytes_add_fill(&good.name, 'a', sizes->host_name);
	return good;
}

/* Adds a ClientHello for a name of NAME_LENGTH bytes, or for none if that is 0. It offers COUNT
 * protocols of SIZE bytes each, the first of them all 'p'. */
static void
add_offering_message(struct bytes *out, size_t name_length, size_t count, size_t size)
{
	const uint8_t fixed[] = {0, 0, 2, 0x13, 0x01, 1, 0}; /* up to the extensions */
	struct bytes body = {0};
	size_t list = count * (1 + size), named = name_length == 0 ? 0 : 9 + name_length;
	bytes_add_integer(&body, 0x0303, 2); /* legacy_version */
	bytes_add_fill(&body, 0xaa, 32);     /* random */
	bytes_add(&body, fixed, sizeof fixed);
	bytes_add_integer(&body, named + 6 + list, 2); /* extensions */
	if (named != 0) {
		bytes_add_integer(&body, 0, 2); /* server_name */
		bytes_add_integer(&body, name_length + 5, 2);
		bytes_add_integer(&body, name_length + 3, 2);
		bytes_add_integer(&body, 0, 1); /* host_name */
		bytes_add_integer(&body, name_length, 2);
		bytes_add_fill(&body, 'a', name_length);
	}
	bytes_add_integer(&body, 16, 2); /* ALPN */
	bytes_add_integer(&body, list + 2, 2);
	bytes_add_integer(&body, list, 2);
	for (size_t i = 0; i < count; i++) {
		bytes_add_integer(&body, size, 1);
		bytes_add_fill(&body, i == 0 ? 'p' : 'q', size);
	}
	hello_add_body(out, body.data, body.length);
	bytes_release(&body);
}

static struct good_hello
good_hello_offering(const char *what, size_t name_length, unsigned count, size_t size)
{
	struct good_hello good = {.what = what, .protocols = count};
	add_offering_message(&good.message, name_length, count, size);
	bytes_add_fill(&good.name, 'a', name_length);
	bytes_add_fill(&good.protocol, 'p', size);
	return good;
}

/* The good hellos that are too large for the table: one that just fills a record, the largest one,
 * one with the longest protocol, and one whose extensions are filled by a name of two bytes and the
 * longest list of protocols. */
enum { LARGE_HELLOS = 4 };

static struct good_hello
large_good_hello(size_t number)
{
	const struct hello_sizes record_filling = {0, 2, 1, RECORD_MAX - 4 - 43, 12};
	switch (number) {
	case 0:
		return good_hello_of_sizes("a hello of 2^14 bytes", &record_filling);
	case 1:
		return good_hello_of_sizes("the largest hello", &largest);
	case 2:
		return good_hello_offering("the longest protocol", 12, 1, 255);
	default:
		return good_hello_offering("the longest list of protocols", 2, 32759, 1);
	}
}

/* Calls TEST for the good hellos of the table, and for the large ones. */
static void
for_each_good_hello(void (*test)(const struct good_hello *good))
{
	size_t count = 0;
	for (size_t i = 0; i < hello_case_count + LARGE_HELLOS; i++) {
		if (i < hello_case_count && hello_cases[i].status != TLS_OK)
			continue;
		struct good_hello good = i < hello_case_count
		    ? good_hello_of_case(&hello_cases[i])
		    : large_good_hello(i - hello_case_count);
		test(&good);
		release_good_hello(&good);
		count++;
	}
	cr_assert(count > 10, "only %zu hellos", count);
}

/* Hellos are cut everywhere; large ones near their ends, and at intervals in between. */
enum { LARGE = 2048, NEAR = 200, STEP = 1021 };

static size_t
next_cut(size_t cut, size_t length)
{
	bool closely = length <= LARGE || cut < NEAR || length - cut < NEAR;
	return cut + (closely ? 1 : STEP);
}

static void
feed_prefixes(const struct good_hello *good, size_t record_size)
{
	struct bytes stream = {0};
	hello_add_records(&stream, good->message.data, good->message.length, record_size);
	for (size_t cut = 1; cut < stream.length; cut = next_cut(cut, stream.length)) {
		struct tls_hello hello = {0};
		struct result result = read_hello(&hello, stream.data, cut, SIZE_MAX);
		CHECK(result.status == TLS_INCOMPLETE, "%s: %zu bytes in records of %zu",
		    good->what, cut, record_size);
		tls_hello_release(&hello);
	}
	bytes_release(&stream);
}

static void
feed_every_prefix(const struct good_hello *good)
{
	feed_prefixes(good, RECORD_MAX);
	if (good->message.length <= LARGE) {
		feed_prefixes(good, 1);
		feed_prefixes(good, 50);
	}
}

Test(tls, asks_for_more_after_every_prefix)
{
	for_each_good_hello(feed_every_prefix);
}

static enum tls_alert
alert_for_body(const uint8_t *body, size_t length)
{
	struct bytes message = {0}, stream = {0};
	hello_add_body(&message, body, length);
	hello_add_records(&stream, message.data, message.length, RECORD_MAX);

	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, stream.data, stream.length, SIZE_MAX);
	CHECK(result.status == TLS_REFUSED, "status %u", (unsigned)result.status);
	enum tls_alert alert = hello.alert;

	tls_hello_release(&hello);
	bytes_release(&stream);
	bytes_release(&message);
	return alert;
}

static void
cut_the_body(const struct good_hello *good)
{
	const uint8_t *body = good->message.data + TLS_HANDSHAKE_HEADER_SIZE;
	size_t length = good->message.length - TLS_HANDSHAKE_HEADER_SIZE;
	unsigned nameless = 0;
	for (size_t cut = 0; cut < length; cut = next_cut(cut, length)) {
		enum tls_alert alert = alert_for_body(body, cut);
		nameless += alert == TLS_UNRECOGNIZED_NAME;
		CHECK(alert == TLS_DECODE_ERROR || alert == TLS_UNRECOGNIZED_NAME,
		    "%s: %s for %zu bytes", good->what, tls_alert_name(alert), cut);
	}
	/* Only the cut before the extensions leaves a well-formed hello. */
	if (length <= LARGE)
		cr_expect(nameless == 1, "%s: %u cuts pass", good->what, nameless);
	else
		cr_expect(nameless <= 1, "%s: %u cuts pass", good->what, nameless);
}

Test(tls, refuses_every_message_that_ends_early)
{
	for_each_good_hello(cut_the_body);
}

static void
read_split(const struct good_hello *good, size_t record_size, size_t chunk)
{
	struct bytes stream = {0};
	hello_add_records(&stream, good->message.data, good->message.length, record_size);
	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, stream.data, stream.length, chunk);
	CHECK(is_named(&result, good->name.data, good->name.length),
	    "%s: in records of %zu and chunks of %zu", good->what, record_size, chunk);
	CHECK(is_offered(&hello, good->protocols, good->protocol.data, good->protocol.length),
	    "%s: %u protocols in records of %zu and chunks of %zu", good->what, hello.protocols,
	    record_size, chunk);
	tls_hello_release(&hello);
	bytes_release(&stream);
}

/* Records of every size, and one record in chunks of every size; for a small hello also all
 * combinations. Large hellos use fewer sizes. */
static void
split_in_every_way(const struct good_hello *good)
{
	enum { SMALL = 80 };
	size_t length = good->message.length;
	size_t last = length < RECORD_MAX ? length : RECORD_MAX;
	size_t step = length > LARGE ? STEP : 1;
	for (size_t size = 1; size <= last; size += step) {
		read_split(good, size, SIZE_MAX);
		read_split(good, last, size);
		for (size_t chunk = 1; length <= SMALL && chunk <= length; chunk++)
			read_split(good, size, chunk);
	}
	read_split(good, 1, 1);
}

Test(tls, finds_the_same_name_however_the_hello_is_split)
{
	for_each_good_hello(split_in_every_way);
}

/* Valid and invalid sizes of a hello's vectors. */
static const struct sized_case {
	struct hello_sizes sizes;
	enum tls_status status;
	enum tls_alert alert;
} sized_cases[] = {
    /* legacy_session_id<0..32> */
    {{0, 2, 1, 21, 12}, TLS_OK, 0},
    {{32, 2, 1, 21, 12}, TLS_OK, 0},
    {{33, 2, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{255, 2, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},

    /* cipher_suites<2..2^16-2> of two bytes each */
    {{0, 0, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{0, 1, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{0, 3, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{0, 4, 1, 21, 12}, TLS_OK, 0},
    {{0, 65533, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{0, 65534, 1, 21, 12}, TLS_OK, 0},
    {{0, 65535, 1, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},

    /* legacy_compression_methods<1..2^8-1> */
    {{0, 2, 0, 21, 12}, TLS_REFUSED, TLS_DECODE_ERROR},
    {{0, 2, 2, 21, 12}, TLS_OK, 0},
    {{0, 2, 255, 21, 12}, TLS_OK, 0},

    /* extensions<0..2^16-1>, which may be absent before TLS 1.3 */
    {{0, 2, 1, HELLO_ABSENT, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 0, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 4, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 5, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 7, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 8, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 65535, HELLO_ABSENT}, TLS_REFUSED, TLS_UNRECOGNIZED_NAME},
    {{0, 2, 1, 25, 12}, TLS_OK, 0},
    {{0, 2, 1, 65535, 12}, TLS_OK, 0},

    /* HostName: tls.c does not judge names */
    {{0, 2, 1, 9, 0}, TLS_OK, 0},
    {{0, 2, 1, 10, 1}, TLS_OK, 0},
    {{0, 2, 1, 264, 255}, TLS_OK, 0},
    {{0, 2, 1, 65535, 65526}, TLS_OK, 0},
};

static void
read_sized(const struct sized_case *wanted)
{
	const struct hello_sizes *sizes = &wanted->sizes;
	struct bytes message = {0}, stream = {0}, name = {0};
	hello_add_message(&message, sizes);
	hello_add_records(&stream, message.data, message.length, RECORD_MAX);
	if (sizes->host_name != HELLO_ABSENT)
		bytes_add_fill(&name, 'a', sizes->host_name);

	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, stream.data, stream.length, SIZE_MAX);
	cr_expect(wanted->status == TLS_OK
		? is_named(&result, name.data, name.length)
		: result.status == wanted->status && hello.alert == wanted->alert,
	    "{%zu, %zu, %zu, %zu, %zu}", sizes->legacy_session_id, sizes->cipher_suites,
	    sizes->legacy_compression_methods, sizes->extensions, sizes->host_name);

	tls_hello_release(&hello);
	bytes_release(&name);
	bytes_release(&stream);
	bytes_release(&message);
}

Test(tls, knows_the_floor_and_the_ceiling_of_each_vector)
{
	for (size_t i = 0; i < sizeof sized_cases / sizeof *sized_cases; i++)
		read_sized(&sized_cases[i]);
}

Test(tls, takes_the_largest_hello_there_is)
{
	struct good_hello good = good_hello_of_sizes("the largest hello", &largest);
	cr_expect(good.message.length == 131396 + 4);
	cr_expect(good.message.length == TLS_HELLO_MAX);
	read_split(&good, RECORD_MAX, SIZE_MAX);
	read_split(&good, 1, 1);

	/* One byte more is too many, even with a matching length. */
	enum tls_alert alert = alert_for_body(good.message.data + 4, good.message.length - 3);
	cr_expect(alert == TLS_DECODE_ERROR, "%s", tls_alert_name(alert));
	release_good_hello(&good);
}

/* How many protocols of how many bytes fit into a hello with a name of two bytes, or without. */
Test(tls, counts_the_protocols_of_the_longest_lists)
{
	static const struct {
		size_t name_length;
		unsigned count;
		size_t size;
	} offers[] = {{2, 1, 1}, {2, 1, 255}, {2, 2, 255}, {2, 255, 255}, {2, 256, 254},
	    {2, 257, 1}, {2, 32759, 1}, {0, 1, 255}, {0, 32764, 1}, {0, 21843, 2}};
	for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) {
		size_t name_length = offers[i].name_length, size = offers[i].size;
		struct bytes message = {0}, stream = {0}, protocol = {0};
		struct tls_hello hello = {0};
		add_offering_message(&message, name_length, offers[i].count, size);
		hello_add_records(&stream, message.data, message.length, RECORD_MAX);
		bytes_add_fill(&protocol, 'p', size);
		struct result result = read_hello(&hello, stream.data, stream.length, SIZE_MAX);
		cr_expect(name_length > 0
			? is_named(&result, "aa", name_length)
			: result.status == TLS_REFUSED && hello.alert == TLS_UNRECOGNIZED_NAME,
		    "row %zu", i);
		cr_expect(is_offered(&hello, offers[i].count, protocol.data, size),
		    "row %zu: %u protocols", i, hello.protocols);
		tls_hello_release(&hello);
		bytes_release(&protocol);
		bytes_release(&stream);
		bytes_release(&message);
	}
}

/* Hellos that are rejected at their last byte, not before. */
static const struct {
	const char *bytes;
	size_t length;
	enum tls_alert alert;
} refused_at_once[] = {
    {"G", 1, TLS_UNEXPECTED_MESSAGE},
    {"\x80", 1, TLS_UNEXPECTED_MESSAGE},
    {"\x15", 1, TLS_UNEXPECTED_MESSAGE},
    {"\x16\x03\x01\x00\x00", 5, TLS_DECODE_ERROR},
    {"\x16\x03\x01\x40\x01", 5, TLS_RECORD_OVERFLOW},
    {"\x16\x03\x01\x40\x00\x02", 6, TLS_UNEXPECTED_MESSAGE},
    {"\x16\x03\x01\x40\x00\x01\x02\x01\x45", 9, TLS_DECODE_ERROR},
    {"\x16\x03\x01\x40\x00\x01\xff\xff\xff", 9, TLS_DECODE_ERROR},
    {"\x16\x03\x01\x00\x01\x01\x15", 7, TLS_UNEXPECTED_MESSAGE},
    {"\x16\x03\x01\x00\x01\x01\x16\x03\x03\x00\x00", 11, TLS_DECODE_ERROR},
};

Test(tls, refuses_with_the_first_byte_that_is_wrong)
{
	for (size_t i = 0; i < sizeof refused_at_once / sizeof *refused_at_once; i++) {
		const uint8_t *bytes = (const uint8_t *)refused_at_once[i].bytes;
		size_t length = refused_at_once[i].length;
		struct tls_hello hello = {0};
		struct result before = {.status = TLS_INCOMPLETE};
		if (length > 1)
			before = read_hello(&hello, bytes, length - 1, SIZE_MAX);
		cr_expect(before.status == TLS_INCOMPLETE, "row %zu: refused too early", i);
		struct result result = read_hello(&hello, bytes + length - 1, 1, 1);
		cr_expect(result.status == TLS_REFUSED, "row %zu: not refused", i);
		cr_expect(hello.alert == refused_at_once[i].alert, "row %zu: %s", i,
		    tls_alert_name(hello.alert));
		tls_hello_release(&hello);
	}
}

Test(tls, needs_no_bytes_to_ask_for_more)
{
	struct tls_hello hello = {0};
	cr_expect(tls_hello_feed(&hello, NULL, 0) == TLS_INCOMPLETE);
	tls_hello_release(&hello);
}

Test(tls, can_read_another_hello_after_release)
{
	struct tls_hello hello = {0};
	tls_hello_release(&hello);
	for (int round = 0; round < 3; round++) {
		const struct hello_case *wanted = &hello_cases[0];
		read_hello(&hello, wanted->bytes, wanted->length / 2, SIZE_MAX);
		tls_hello_release(&hello);
		struct result result = read_hello(&hello, wanted->bytes, wanted->length, SIZE_MAX);
		cr_expect(is_named(&result, wanted->name, wanted->name_length));
		tls_hello_release(&hello);
		cr_expect(hello.message == NULL);
		tls_hello_release(&hello);
	}
}

/* Feeds a whole hello in chunks. Fails if memory grows out of proportion. */
static void
watch_memory(const struct bytes *stream, size_t chunk)
{
	struct tls_hello hello = {0};
	enum tls_status status = TLS_INCOMPLETE;
	for (size_t fed = 0; fed < stream->length; fed += chunk) {
		size_t size = stream->length - fed < chunk ? stream->length - fed : chunk;
		status = tls_hello_feed(&hello, stream->data + fed, size);
		CHECK(hello.message_capacity <= 1024 + 2 * hello.message_length,
		    "capacity %zu for %zu bytes", hello.message_capacity, hello.message_length);
	}
	cr_expect(status == TLS_OK);
	tls_hello_release(&hello);
}

Test(tls, takes_memory_for_what_has_arrived_and_not_for_what_was_announced)
{
	const uint8_t announcement[] = {22, 3, 1, 0x40, 0x00, 1, 0x02, 0x01, 0x44};
	struct tls_hello hello = {0};
	cr_expect(tls_hello_feed(&hello, announcement, sizeof announcement) == TLS_INCOMPLETE);
	cr_expect(hello.message_capacity <= 1024, "capacity %zu", hello.message_capacity);
	tls_hello_release(&hello);

	const size_t record_sizes[] = {1, 100, RECORD_MAX};
	struct bytes message = {0};
	hello_add_message(&message, &largest);
	for (size_t i = 0; i < sizeof record_sizes / sizeof *record_sizes; i++) {
		struct bytes stream = {0};
		hello_add_records(&stream, message.data, message.length, record_sizes[i]);
		watch_memory(&stream, 1);
		watch_memory(&stream, 4096);
		bytes_release(&stream);
	}
	bytes_release(&message);
}

#ifdef __has_feature
#define HAS_SANITIZER \
	(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	    __has_feature(memory_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#else
#define HAS_SANITIZER 0
#endif

/* The sanitizers' own allocators take no such limit. */
#if !HAS_SANITIZER
Test(tls, blames_itself_when_memory_is_short)
{
	struct bytes message = {0}, stream = {0};
	hello_add_message(&message, &largest);
	hello_add_records(&stream, message.data, message.length, RECORD_MAX);
	struct rlimit limit;
	cr_assert(getrlimit(RLIMIT_AS, &limit) == 0);
	struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};

	struct tls_hello hello = {0};
	cr_assert(setrlimit(RLIMIT_AS, &none) == 0);
	enum tls_status status = tls_hello_feed(&hello, stream.data, stream.length);
	cr_assert(setrlimit(RLIMIT_AS, &limit) == 0);

	cr_expect(status == TLS_REFUSED);
	cr_expect(hello.alert == TLS_INTERNAL_ERROR, "%s", tls_alert_name(hello.alert));
	tls_hello_release(&hello);
	bytes_release(&stream);
	bytes_release(&message);
}
#endif

Test(tls, writes_each_alert)
{
	static const struct {
		enum tls_alert alert;
		uint8_t description;
		const char *name;
	} wanted[] = {
	    {TLS_UNEXPECTED_MESSAGE, 10, "unexpected_message"},
	    {TLS_RECORD_OVERFLOW, 22, "record_overflow"},
	    {TLS_ILLEGAL_PARAMETER, 47, "illegal_parameter"},
	    {TLS_DECODE_ERROR, 50, "decode_error"},
	    {TLS_INTERNAL_ERROR, 80, "internal_error"},
	    {TLS_USER_CANCELED, 90, "user_canceled"},
	    {TLS_UNRECOGNIZED_NAME, 112, "unrecognized_name"},
	};
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		const uint8_t expected[7] = {
		    21,                    /* type: alert */
		    0x03, 0x03,            /* legacy_record_version */
		    0x00, 0x02,            /* length */
		    2,                     /* level: fatal */
		    wanted[i].description, /* description */
		};
		uint8_t record[TLS_ALERT_SIZE];
		cr_assert(sizeof record == sizeof expected);
		tls_alert_record(record, wanted[i].alert);
		cr_expect(memcmp(record, expected, sizeof expected) == 0, "%s", wanted[i].name);
		const char *name = tls_alert_name(wanted[i].alert);
		cr_expect(strcmp(name, wanted[i].name) == 0, "%s", name);
	}
	cr_expect(strcmp(tls_alert_name((enum tls_alert)0), "unknown alert") == 0);
}

/* A source of numbers that are the same in each run (xorshift64*, Vigna). */
static size_t
pick(uint64_t *state, size_t count)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (size_t)(*state * 0x2545f4914f6cdd1dU >> 33) % count;
}

enum { MUTANT_ROOM = 4096 };

struct mutant {
	uint8_t bytes[MUTANT_ROOM];
	size_t length;
};

/* Replaces LENGTH bytes at OFFSET by REPLACEMENT of them. */
static void
put_room(struct mutant *mutant, size_t offset, size_t length, size_t replacement)
{
	size_t rest = mutant->length - offset - length;
	if (offset + replacement + rest > MUTANT_ROOM)
		return;
	memmove(mutant->bytes + offset + replacement, mutant->bytes + offset + length, rest);
	mutant->length = offset + replacement + rest;
}

/* Damages MUTANT in one place: a byte, a bit, a length; or bytes removed or repeated. */
static void
mutate(struct mutant *mutant, uint64_t *state)
{
	size_t offset = pick(state, mutant->length);
	size_t left = mutant->length - offset;
	size_t size = 1 + pick(state, left < 24 ? left : 24);
	switch (pick(state, 6)) {
	case 0:
		mutant->bytes[offset] = (uint8_t)pick(state, 256);
		break;
	case 1:
		mutant->bytes[offset] ^= (uint8_t)(1 << pick(state, 8));
		break;
	case 2:
		mutant->bytes[offset]++;
		break;
	case 3:
		mutant->bytes[offset]--;
		break;
	case 4:
		put_room(mutant, offset, size < mutant->length ? size : 0, 0);
		break;
	default:
		put_room(mutant, offset, 0, size);
		break;
	}
}

/* What the mutants led to, so that no missing result goes unnoticed. */
struct tally {
	unsigned named, incomplete, refused;
	unsigned alerts[256];
};

static void
judge_mutant(const uint8_t *bytes, size_t length, size_t chunk, struct tally *tally)
{
	struct tls_hello hello = {0};
	struct result result = read_hello(&hello, bytes, length, chunk);
	switch (result.status) {
	case TLS_OK: {
		/* A host_name is preceded by its name_type and its length. */
		const uint8_t *name = result.name;
		CHECK(lies_inside(&hello, name - 3, 3), "a name without a header");
		CHECK(name[-3] == 0 && (size_t)(name[-2] << 8 | name[-1]) == result.name_length,
		    "the name is no host_name");
		tally->named++;
		break;
	}
	case TLS_REFUSED:
		tally->refused++;
		tally->alerts[(uint8_t)hello.alert]++;
		break;
	case TLS_INCOMPLETE:
		tally->incomplete++;
		break;
	}
	tls_hello_release(&hello);
}

/* Damages what the client of SEED sends; or, half the time, only the body of its hello, so that the
 * headers around it stay right. */
static void
read_mutant(const struct hello_case *seed, uint64_t *state, struct tally *tally)
{
	struct tls_hello hello = {0};
	bool body = pick(state, 2) == 0 &&
	    tls_hello_feed(&hello, seed->bytes, seed->length) == TLS_OK &&
	    hello.message_length > TLS_HANDSHAKE_HEADER_SIZE;
	size_t header = TLS_HANDSHAKE_HEADER_SIZE;
	struct mutant mutant = {.length = body ? hello.message_length - header : seed->length};
	CHECK(mutant.length <= MUTANT_ROOM, "%s is too long", seed->what);
	memcpy(mutant.bytes, body ? hello.message + header : seed->bytes, mutant.length);
	tls_hello_release(&hello);

	for (size_t count = 1 + pick(state, 3); count > 0 && mutant.length > 0; count--)
		mutate(&mutant, state);
	if (!body) {
		judge_mutant(mutant.bytes, mutant.length, 1 + pick(state, 600), tally);
		return;
	}
	struct bytes message = {0}, stream = {0};
	hello_add_body(&message, mutant.bytes, mutant.length);
	hello_add_records(&stream, message.data, message.length, 1 + pick(state, 600));
	judge_mutant(stream.data, stream.length, SIZE_MAX, tally);
	bytes_release(&stream);
	bytes_release(&message);
}

Test(tls, survives_damaged_hellos)
{
	uint64_t state = 0x5e55105e55105e55;
	struct tally tally = {0};
	for (int round = 0; round < 100000; round++)
		read_mutant(&hello_cases[pick(&state, hello_case_count)], &state, &tally);

	/* Each kind of result occurs often; and no damage is taken for an internal error. */
	cr_expect(tally.named > 500, "%u named", tally.named);
	cr_expect(tally.incomplete > 500, "%u incomplete", tally.incomplete);
	static const enum tls_alert alerts[] = {TLS_UNEXPECTED_MESSAGE, TLS_RECORD_OVERFLOW,
	    TLS_ILLEGAL_PARAMETER, TLS_DECODE_ERROR, TLS_UNRECOGNIZED_NAME};
	for (size_t i = 0; i < sizeof alerts / sizeof *alerts; i++) {
		unsigned count = tally.alerts[alerts[i]];
		cr_expect(count > 500, "%u %s", count, tls_alert_name(alerts[i]));
		tally.refused -= count;
	}
	cr_expect(tally.refused == 0, "%u other alerts", tally.refused);
}

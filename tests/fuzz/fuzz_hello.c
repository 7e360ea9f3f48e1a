/* Fuzz test of tls.c: its result for any bytes, and that this does not depend on how they are
 * split.
 *
 * The input is a client's stream. If it begins with 1 instead of a record's type, the rest is the
 * body of a ClientHello, and the headers around it are made here, so that a fuzzer need not find
 * their lengths. The input also decides how the stream is split. */
#include <stdbool.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/hellos.h"
#include "tls.h"

enum { CLIENT_HELLO = 1, RECORD_MAX = 1 << 14, EXTENSIONS_MAX = 65535, EXTENSION_ALPN = 16 };

/* A source of numbers that depend only on the input (FNV-1a; xorshift64*, Vigna). */
static uint64_t random_state;

static void
seed(const uint8_t *input, size_t length)
{
	random_state = 0xcbf29ce484222325;
	for (size_t i = 0; i < length; i++)
		random_state = (random_state ^ input[i]) * 0x100000001b3;
	random_state |= 1;
}

static size_t
pick(size_t count)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (size_t)(random_state * 0x2545f4914f6cdd1dU >> 33) % count;
}

/* A size of 1 or more; small ones are as frequent as large ones. */
static size_t
pick_size(void)
{
	return 1 + pick((size_t)1 << pick(13));
}

/* The result for a stream. */
struct verdict {
	enum tls_status status;
	bool whole;   /* the message has arrived */
	size_t taken; /* how many bytes were needed to know that, or that it is rejected */
	const uint8_t *name;
	size_t name_length;
	struct tls_hello hello; /* the name points into it */
};

/* Feeds a block of exactly LENGTH bytes. */
static enum tls_status
feed(struct tls_hello *hello, const uint8_t *bytes, size_t length)
{
	static uint8_t *single; /* if bytes come one by one, malloc(3) is most of the work */
	if (single == NULL)
		single = fuzz_copy(bytes, 1);
	*single = *bytes;
	uint8_t *block = length == 1 ? single : fuzz_copy(bytes, length);
	enum tls_status status = tls_hello_feed(hello, block, length);
	if (block != single)
		free(block);
	PROPERTY(hello->message_capacity <= 1024 + 2 * hello->message_length,
	    "capacity %zu for %zu bytes", hello->message_capacity, hello->message_length);
	return status;
}

/* Frees the spare capacity of the message. */
static void
fit_message(struct tls_hello *hello)
{
	uint8_t *message = fuzz_copy(hello->message, hello->message_length);
	free(hello->message);
	hello->message = message;
	hello->message_capacity = hello->message_length;
}

/* The name must be inside the message, after its name_type and its length. */
static void
judge_name(const struct verdict *verdict)
{
	uintptr_t begin = (uintptr_t)verdict->hello.message;
	uintptr_t end = begin + verdict->hello.message_length;
	uintptr_t name = (uintptr_t)verdict->name;
	PROPERTY(name >= begin + TLS_HANDSHAKE_HEADER_SIZE + 3 && name <= end &&
		verdict->name_length <= end - name,
	    "the name lies outside the message");
	const uint8_t *header = verdict->name - 3;
	PROPERTY(header[0] == 0 && (size_t)(header[1] << 8 | header[2]) == verdict->name_length,
	    "the name is no host_name");
}

/* What a whole message offers by ALPN, read by its lengths alone. */
struct offer {
	size_t extensions_at; /* the offset of the extensions' length; past the end if none */
	unsigned extensions;  /* of type ALPN */
	bool malformed;       /* the last of these */
	unsigned protocols;   /* in the last of these */
	size_t protocol_at;   /* the offset of the first one's length */
};

/* The number of WIDTH bytes at OFFSET of the message; 0 past its end. */
static size_t
number(const struct tls_hello *hello, size_t offset, size_t width)
{
	size_t value = 0;
	if (offset + width > hello->message_length)
		return 0;
	for (size_t i = 0; i < width; i++)
		value = value << 8 | hello->message[offset + i];
	return value;
}

/* Reads the extension_data from AT to END. */
static void
read_protocols(const struct tls_hello *hello, size_t at, size_t end, struct offer *offer)
{
	offer->extensions++;
	offer->protocols = 0;
	offer->protocol_at = at + 2;
	offer->malformed = end < at + 2 || at + 2 + number(hello, at, 2) != end;
	for (at += 2; at < end && !offer->malformed; at += 1 + number(hello, at, 1)) {
		offer->malformed = number(hello, at, 1) == 0;
		offer->protocols++;
	}
	offer->malformed |= at != end || offer->protocols == 0;
}

static struct offer
read_offer(const struct tls_hello *hello)
{
	struct offer offer = {0};
	size_t at = TLS_HANDSHAKE_HEADER_SIZE + 2 + 32;
	at += 1 + number(hello, at, 1); /* legacy_session_id */
	at += 2 + number(hello, at, 2); /* cipher_suites */
	at += 1 + number(hello, at, 1); /* legacy_compression_methods */
	offer.extensions_at = at;
	for (at += 2; at + 4 <= hello->message_length; at += 4 + number(hello, at + 2, 2))
		if (number(hello, at, 2) == EXTENSION_ALPN)
			read_protocols(hello, at + 4, at + 4 + number(hello, at + 2, 2), &offer);
	return offer;
}

/* The protocols of a well-formed hello are those of its one ALPN extension, if it has one. */
static void
judge_offer(const struct tls_hello *hello)
{
	struct offer offer = read_offer(hello);
	PROPERTY(offer.extensions <= 1, "%u ALPN extensions", offer.extensions);
	PROPERTY(!offer.malformed, "a malformed ALPN extension");
	PROPERTY(hello->protocols == offer.protocols, "%u protocols, not %u", hello->protocols,
	    offer.protocols);
	if (offer.protocols > 0)
		PROPERTY(hello->protocol == hello->message + offer.protocol_at + 1 &&
			hello->protocol_length == number(hello, offer.protocol_at, 1),
		    "another protocol than the first");
}

static void
judge_alert(const struct verdict *verdict)
{
	enum tls_alert alert = verdict->hello.alert;
	bool fits = verdict->whole ? alert == TLS_DECODE_ERROR || alert == TLS_ILLEGAL_PARAMETER ||
		alert == TLS_UNRECOGNIZED_NAME
				   : alert == TLS_DECODE_ERROR || alert == TLS_RECORD_OVERFLOW ||
		alert == TLS_UNEXPECTED_MESSAGE;
	PROPERTY(fits, "alert %d", (int)alert);
	PROPERTY(
	    verdict->hello.reason != NULL && verdict->hello.reason[0] != '\0', "no reason given");
}

static size_t
one(void)
{
	return 1;
}

static size_t
all(void)
{
	return SIZE_MAX;
}

/* Feeds BYTES in chunks of the sizes that NEXT_SIZE returns. The caller releases the verdict. */
static struct verdict
read_stream(const uint8_t *bytes, size_t length, size_t (*next_size)(void))
{
	struct verdict verdict = {.status = TLS_INCOMPLETE};
	while (verdict.status == TLS_INCOMPLETE && verdict.taken < length) {
		size_t left = length - verdict.taken, size = next_size();
		size = size < left ? size : left;
		verdict.status = feed(&verdict.hello, bytes + verdict.taken, size);
		verdict.taken += size;
	}
	verdict.whole = verdict.status == TLS_OK;
	if (verdict.whole) {
		fit_message(&verdict.hello);
		verdict.status =
		    tls_hello_server_name(&verdict.hello, &verdict.name, &verdict.name_length);
	}
	if (verdict.status == TLS_OK)
		judge_name(&verdict);
	if (verdict.whole &&
	    (verdict.status == TLS_OK || verdict.hello.alert == TLS_UNRECOGNIZED_NAME))
		judge_offer(&verdict.hello);
	if (verdict.status == TLS_REFUSED)
		judge_alert(&verdict);
	return verdict;
}

static void
release(struct verdict *verdict)
{
	tls_hello_release(&verdict->hello);
}

static bool
is_same(const struct verdict *a, const struct verdict *b)
{
	if (a->status != b->status || a->whole != b->whole)
		return false;
	if (a->status == TLS_REFUSED)
		return a->hello.alert == b->hello.alert &&
		    strcmp(a->hello.reason, b->hello.reason) == 0 &&
		    a->hello.protocols == b->hello.protocols;
	return a->status == TLS_INCOMPLETE ||
	    (a->name_length == b->name_length && memcmp(a->name, b->name, a->name_length) == 0 &&
		a->hello.protocols == b->hello.protocols);
}

/* Splits BYTES in some way. The result must be EXPECTED. */
static void
expect_same(
    const struct verdict *expected, const uint8_t *bytes, size_t length, size_t (*next_size)(void))
{
	struct verdict verdict = read_stream(bytes, length, next_size);
	PROPERTY(is_same(&verdict, expected), "another split, another result");
	release(&verdict);
}

static void
expect_incomplete(const uint8_t *bytes, size_t length)
{
	struct verdict verdict = read_stream(bytes, length, all);
	PROPERTY(verdict.status == TLS_INCOMPLETE, "%zu bytes do not ask for more", length);
	release(&verdict);
}

/* BYTES must be rejected, with ALERT, or with any alert if that is 0. */
static void
expect_refused(const struct bytes *bytes, unsigned alert, const char *what)
{
	struct verdict verdict = read_stream(bytes->data, bytes->length, pick_size);
	PROPERTY(verdict.status == TLS_REFUSED, "%s: status %d", what, (int)verdict.status);
	PROPERTY(alert == 0 || verdict.hello.alert == alert, "%s: alert %d", what,
	    (int)verdict.hello.alert);
	release(&verdict);
}

static void
split_into_records(const struct verdict *expected)
{
	const struct tls_hello *hello = &expected->hello;
	struct bytes stream = {0};
	for (size_t left = hello->message_length; left > 0;) {
		size_t size = pick_size();
		size = size < left ? size : left;
		hello_add_records(
		    &stream, hello->message + hello->message_length - left, size, RECORD_MAX);
		left -= size;
	}
	expect_same(expected, stream.data, stream.length, pick_size);
	bytes_release(&stream);
}

/* Between the records of a message, other records and empty ones are forbidden. */
static void
put_between_records(const struct verdict *whole)
{
	static const struct {
		uint8_t record[6];
		size_t length;
		enum tls_alert alert;
	} others[] = {
	    {{22, 3, 3, 0, 0}, 5, TLS_DECODE_ERROR},
	    {{20, 3, 3, 0, 1, 1}, 6, TLS_UNEXPECTED_MESSAGE},
	};
	const struct tls_hello *hello = &whole->hello;
	size_t cut = 1 + pick(hello->message_length - 1), i = pick(2);
	struct bytes stream = {0};
	hello_add_records(&stream, hello->message, cut, RECORD_MAX);
	bytes_add(&stream, others[i].record, others[i].length);
	hello_add_records(&stream, hello->message + cut, hello->message_length - cut, RECORD_MAX);
	expect_refused(&stream, others[i].alert, "another record between");
	bytes_release(&stream);
}

static void
expect_body_refused(const struct bytes *body, unsigned alert, const char *what)
{
	struct bytes message = {0}, stream = {0};
	hello_add_body(&message, body->data, body->length);
	hello_add_records(&stream, message.data, message.length, RECORD_MAX);
	expect_refused(&stream, alert, what);
	bytes_release(&stream);
	bytes_release(&message);
}

/* A hello that names a server is well-formed. If it ends earlier or later, with matching headers,
 * it names none. */
static void
change_length(const struct verdict *named)
{
	struct bytes body = {0};
	bytes_add(&body, named->hello.message + TLS_HANDSHAKE_HEADER_SIZE,
	    named->hello.message_length - TLS_HANDSHAKE_HEADER_SIZE);
	size_t length = body.length;

	body.length = pick(length);
	expect_body_refused(&body, 0, "a part of the body");
	body.length = length - 1;
	expect_body_refused(&body, TLS_DECODE_ERROR, "the body without its last byte");

	body.length = length;
	bytes_add_fill(&body, (uint8_t)pick(256), pick_size());
	expect_body_refused(&body, TLS_DECODE_ERROR, "bytes after the body");
	bytes_release(&body);
}

/* The body of HELLO with one more extension, ALPN, at its end: LIST, whose length is LIE more. */
static struct bytes
body_offering(const struct tls_hello *hello, const struct bytes *list, int lie)
{
	struct bytes body = {0};
	size_t at = read_offer(hello).extensions_at, header = TLS_HANDSHAKE_HEADER_SIZE;
	bytes_add(&body, hello->message + header, at - header);
	bytes_add_integer(&body, number(hello, at, 2) + 6 + list->length, 2);
	bytes_add(&body, hello->message + at + 2, hello->message_length - at - 2);
	bytes_add_integer(&body, EXTENSION_ALPN, 2);
	bytes_add_integer(&body, list->length + 2, 2);
	bytes_add_integer(&body, list->length + (size_t)lie, 2);
	bytes_add(&body, list->data, list->length);
	return body;
}

/* The hello with this BODY names the same server as EXPECTED, and offers COUNT protocols, of which
 * the first has SIZE bytes. */
static void
expect_offer(const struct verdict *expected, const struct bytes *body, unsigned count, size_t size)
{
	struct bytes message = {0}, stream = {0};
	hello_add_body(&message, body->data, body->length);
	hello_add_records(&stream, message.data, message.length, RECORD_MAX);
	struct verdict verdict = read_stream(stream.data, stream.length, all);
	PROPERTY(verdict.status == TLS_OK && verdict.name_length == expected->name_length &&
		memcmp(verdict.name, expected->name, verdict.name_length) == 0,
	    "another name beside protocols");
	PROPERTY(verdict.hello.protocols == count && verdict.hello.protocol_length == size,
	    "%u protocols, not %u", verdict.hello.protocols, count);
	release(&verdict);
	bytes_release(&stream);
	bytes_release(&message);
}

/* Another ALPN extension is one too many, a first one is taken, and a malformed one is not. */
static void
offer_more(const struct verdict *named)
{
	const struct tls_hello *hello = &named->hello;
	unsigned count = 1 + (unsigned)pick(3), before = read_offer(hello).extensions;
	size_t first_size = 1 + pick(255);
	struct bytes list = {0};
	for (unsigned i = 0; i < count; i++) {
		size_t size = i == 0 ? first_size : 1 + pick(255);
		bytes_add_integer(&list, size, 1);
		bytes_add_fill(&list, (uint8_t)pick(256), size);
	}
	if (number(hello, read_offer(hello).extensions_at, 2) + 6 + list.length > EXTENSIONS_MAX) {
		bytes_release(&list);
		return;
	}
	struct bytes body = body_offering(hello, &list, 0);
	if (before > 0)
		expect_body_refused(&body, TLS_ILLEGAL_PARAMETER, "two ALPN extensions");
	else
		expect_offer(named, &body, count, first_size);
	bytes_release(&body);

	int lie = (int)pick(3) - 1;
	if (lie == 0)
		list.data[0] = 0;
	body = body_offering(hello, &list, lie);
	expect_body_refused(&body, before > 0 ? 0 : TLS_DECODE_ERROR, "a malformed ALPN extension");
	bytes_release(&body);
	bytes_release(&list);
}

static void
judge_stream(const uint8_t *bytes, size_t length)
{
	struct verdict verdict = read_stream(bytes, length, one);
	expect_same(&verdict, bytes, length, all);
	expect_same(&verdict, bytes, length, pick_size);
	expect_same(&verdict, bytes, verdict.taken, all);
	if (verdict.status != TLS_INCOMPLETE) {
		expect_incomplete(bytes, verdict.taken - 1);
		expect_incomplete(bytes, pick(verdict.taken));
	}
	if (verdict.whole) {
		split_into_records(&verdict);
		put_between_records(&verdict);
	}
	if (verdict.status == TLS_OK) {
		change_length(&verdict);
		offer_more(&verdict);
	}
	release(&verdict);
}

static void
judge_body(const uint8_t *body, size_t length)
{
	struct bytes message = {0}, stream = {0};
	hello_add_body(&message, body, length);
	hello_add_records(&stream, message.data, message.length, pick_size());
	judge_stream(stream.data, stream.length);
	bytes_release(&stream);
	bytes_release(&message);
}

int
LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	seed(input, length);
	if (length > 0 && input[0] == CLIENT_HELLO)
		judge_body(input + 1, length - 1);
	else
		judge_stream(input, length);
	return 0;
}

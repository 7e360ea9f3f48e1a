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

enum { CLIENT_HELLO = 1, RECORD_MAX = 1 << 14 };

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
		    strcmp(a->hello.reason, b->hello.reason) == 0;
	return a->status == TLS_INCOMPLETE ||
	    (a->name_length == b->name_length && memcmp(a->name, b->name, a->name_length) == 0);
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
	if (verdict.status == TLS_OK)
		change_length(&verdict);
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

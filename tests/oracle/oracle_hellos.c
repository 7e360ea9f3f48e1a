/* Makes hellos: a legal one of TLS 1.2 or 1.3, often with damage. A draft holds the parts of the
 * hello while it is changed. Then it is written, with lengths that are right unless a mutation has
 * skewed them. */
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/oracle.h"

enum { RECORD_MAX = 1 << 14 };
enum { EXTENSIONS_ROOM = 40, NAMES_ROOM = 4 };

/* The vectors of a hello, from the inside to the outside. */
enum level {
	HOST_NAME,
	SERVER_NAME_LIST,
	SERVER_NAME_DATA,
	OTHER_DATA, /* of one other extension */
	EXTENSIONS,
	COMPRESSION_METHODS,
	CIPHER_SUITES,
	SESSION_ID,
	MESSAGE,
	RECORD, /* the first one */
	LEVELS
};

struct draft_name {
	uint8_t type;
	struct bytes bytes;
};

struct draft_extension {
	size_t type;
	bool is_server_name; /* written from the names */
	struct bytes data;
};

struct draft {
	uint64_t random;
	bool tls13;
	size_t grease_group; /* or 0 */
	bool has_extensions;
	size_t legacy_version, record_version;
	size_t record_type, message_type;
	struct bytes session_id, cipher_suites, compression_methods;
	struct draft_extension extensions[EXTENSIONS_ROOM];
	size_t extension_count;
	size_t other; /* the extension whose length OTHER_DATA skews */
	struct draft_name names[NAMES_ROOM];
	size_t name_count;

	int skew[LEVELS];     /* added to the length that is written */
	size_t extra[LEVELS]; /* bytes that are added inside, at the end */

	size_t record_size;
	size_t damage;          /* bytes of the message to change blindly */
	size_t stream_damage;   /* bytes of the stream to change */
	size_t message_cut;     /* bytes missing at the end, which the lengths count */
	bool body_cut;          /* cut the body, with a matching length */
	struct bytes intruder;  /* a record between the others */
	bool intruder_first;    /* before all others */
	struct bytes in_record; /* after the hello, in its last record */
	struct bytes after;     /* after the hello's last record */
	bool stream_cut;
	bool sslv2;
};

/* xorshift64* (Vigna): the same numbers in each run. */
static size_t
pick(struct draft *draft, size_t count)
{
	uint64_t *state = &draft->random;
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (size_t)(*state * 0x2545f4914f6cdd1dU >> 33) % count;
}

/* True in ODDS of a hundred cases. */
static bool
chance(struct draft *draft, size_t odds)
{
	return pick(draft, 100) < odds;
}

static void
add_random(struct draft *draft, struct bytes *out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		bytes_add_integer(out, pick(draft, 256), 1);
}

static void
add_text(struct bytes *out, const char *text)
{
	bytes_add(out, (const uint8_t *)text, strlen(text));
}

/* 0x0a0a, 0x1a1a to 0xfafa (RFC 8701). */
static size_t
grease(struct draft *draft)
{
	return 0x0a0a + 0x1010 * pick(draft, 16);
}

static struct bytes *
add_extension(struct draft *draft, size_t type)
{
	if (draft->extension_count == EXTENSIONS_ROOM)
		abort();
	struct draft_extension *extension = &draft->extensions[draft->extension_count++];
	*extension = (struct draft_extension){.type = type};
	return &extension->data;
}

/* Adds an extension whose data are COUNT bytes. */
static void
add_plain_extension(struct draft *draft, size_t type, const uint8_t *data, size_t count)
{
	bytes_add(add_extension(draft, type), data, count);
}

#define PLAIN(draft, type, ...) \
	add_plain_extension( \
	    draft, type, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct bytes *
add_name(struct draft *draft, uint8_t type)
{
	if (draft->name_count == NAMES_ROOM)
		abort();
	struct draft_name *name = &draft->names[draft->name_count++];
	*name = (struct draft_name){.type = type};
	return &name->bytes;
}

/* A name of LENGTH bytes in labels of up to 63. */
static void
add_long_name(struct bytes *out, size_t length)
{
	for (size_t i = 0; i < length; i++)
		add_text(out, i % 64 == 63 && i + 1 < length ? "." : "a");
}

static void
add_good_name(struct draft *draft, struct bytes *out)
{
	static const char *const names[] = {"blog.example", "a", "192.0.2.1", "x.y.z",
	    "xn--sr8hvo.ws", "WWW.Blog.EXAMPLE", "a-b.c--d.example", "0", "e-.example", "localhost",
	    "1234567890.example"};
	size_t choice = pick(draft, sizeof names / sizeof *names + 3);
	if (choice < sizeof names / sizeof *names) {
		add_text(out, names[choice]);
		return;
	}
	if (chance(draft, 20)) {
		add_long_name(out, 200 + pick(draft, 55));
		return;
	}
	for (size_t length = 1 + pick(draft, 20); length > 0; length--)
		bytes_add(out, (const uint8_t *)&"abcxyzABZ0189"[pick(draft, 13)], 1);
	add_text(out, ".test");
}

static void
add_server_name(struct draft *draft)
{
	add_extension(draft, 0);
	draft->extensions[draft->extension_count - 1].is_server_name = true;
	add_good_name(draft, add_name(draft, 0));
}

/* The generator of secp256r1, which is a valid public key. */
static const uint8_t p256_point[65] = {0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8,
    0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4,
    0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e,
    0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb,
    0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5};

static void
add_key_share(struct draft *draft)
{
	struct bytes shares = {0};
	if (draft->grease_group != 0) {
		bytes_add_integer(&shares, draft->grease_group, 2);
		bytes_add_integer(&shares, 1, 2);
		bytes_add_integer(&shares, 0, 1);
	}
	if (chance(draft, 20)) {
		bytes_add_integer(&shares, 0x11ec, 2); /* X25519MLKEM768 */
		bytes_add_integer(&shares, 1216, 2);
		bytes_add_fill(&shares, 0x5a, 1216);
	}
	size_t choice = pick(draft, 10); /* 9: none, so there is a HelloRetryRequest */
	if (choice < 6) {
		bytes_add_integer(&shares, 0x001d, 2); /* x25519 */
		bytes_add_integer(&shares, 32, 2);
		add_random(draft, &shares, 32);
	} else if (choice < 9) {
		bytes_add_integer(&shares, 0x0017, 2); /* secp256r1 */
		bytes_add_integer(&shares, sizeof p256_point, 2);
		bytes_add(&shares, p256_point, sizeof p256_point);
	}
	struct bytes *out = add_extension(draft, 51);
	bytes_add_integer(out, shares.length, 2);
	bytes_add(out, shares.data, shares.length);
	bytes_release(&shares);
}

/* Both versions need these, or nearly. */
static void
add_groups_and_signatures(struct draft *draft)
{
	static const uint8_t groups[] = {0x11, 0xec, 0, 0x1d, 0, 0x17, 0, 0x18};
	draft->grease_group = chance(draft, 40) ? grease(draft) : 0;
	struct bytes *out = add_extension(draft, 10);
	bytes_add_integer(out, sizeof groups + (draft->grease_group == 0 ? 0 : 2), 2);
	if (draft->grease_group != 0)
		bytes_add_integer(out, draft->grease_group, 2);
	bytes_add(out, groups, sizeof groups);
	PLAIN(draft, 13, 0, 14, 4, 3, 5, 3, 8, 4, 4, 1, 8, 5, 5, 1, 8, 6);
}

static void
add_tls13_extensions(struct draft *draft)
{
	if (chance(draft, 50))
		PLAIN(draft, 43, 6, 0x2a, 0x2a, 3, 4, 3, 3);
	else
		PLAIN(draft, 43, 2, 3, 4);
	PLAIN(draft, 45, 1, 1); /* psk_key_exchange_modes */
	add_key_share(draft);
}

static void
add_tls12_extensions(struct draft *draft)
{
	if (chance(draft, 80))
		PLAIN(draft, 11, 1, 0); /* ec_point_formats */
	if (chance(draft, 50))
		add_extension(draft, 22); /* encrypt_then_mac */
}

/* Random bytes in an extension of an unknown type, or of a type that these libraries do not parse:
 * ECH, ALPS, delegated credentials, GREASE. */
static void
add_unknown_extension(struct draft *draft)
{
	static const size_t types[] = {0xfe0d, 17513, 17613, 34, 0xfafa, 0x0a0a, 4242, 65280};
	size_t type = types[pick(draft, sizeof types / sizeof *types)];
	for (size_t i = 0; i < draft->extension_count; i++)
		if (draft->extensions[i].type == type)
			return;
	struct bytes *out = add_extension(draft, type);
	add_random(draft, out, chance(draft, 20) ? 0 : pick(draft, 300));
}

/* The outer hello of ECH (RFC 9849, 5): type, suite, config_id, enc, payload. */
static void
add_ech(struct draft *draft)
{
	struct bytes *out = add_extension(draft, 0xfe0d);
	const uint8_t head[] = {0, 0, 1, 0, 1, 77, 0, 32};
	bytes_add(out, head, sizeof head);
	add_random(draft, out, 32);
	bytes_add_integer(out, 144, 2);
	add_random(draft, out, 144);
}

static void
add_optional_extensions(struct draft *draft)
{
	if (chance(draft, 60))
		add_extension(draft, 23); /* extended_master_secret */
	if (chance(draft, 50))
		PLAIN(draft, 0xff01, 0); /* renegotiation_info */
	if (chance(draft, 40))
		PLAIN(draft, 16, 0, 12, 2, 'h', '2', 8, 'h', 't', 't', 'p', '/', '1', '.', '1');
	if (chance(draft, 30))
		PLAIN(draft, 5, 1, 0, 0, 0, 0); /* status_request */
	if (chance(draft, 30))
		add_extension(draft, 18); /* signed_certificate_timestamp */
	if (chance(draft, 30))
		add_random(draft, add_extension(draft, 35), 16 * pick(draft, 15)); /* ticket */
	if (chance(draft, 10))
		PLAIN(draft, 1, 2); /* max_fragment_length: 2^10 */
	if (chance(draft, 10))
		PLAIN(draft, 28, 0x40, 0x01); /* record_size_limit */
	if (chance(draft, 20))
		PLAIN(draft, 27, 2, 0, 2); /* compress_certificate: brotli */
	if (chance(draft, 10))
		PLAIN(draft, 50, 0, 4, 4, 3, 8, 4); /* signature_algorithms_cert */
	if (chance(draft, 30))
		bytes_add_fill(add_extension(draft, 21), 0, pick(draft, 500)); /* padding */
	if (chance(draft, 20))
		add_ech(draft);
	else
		for (size_t count = pick(draft, 3); count > 0; count--)
			add_unknown_extension(draft);
}

static void
shuffle_extensions(struct draft *draft)
{
	for (size_t i = draft->extension_count; i > 1; i--) {
		size_t other = pick(draft, i);
		struct draft_extension extension = draft->extensions[i - 1];
		draft->extensions[i - 1] = draft->extensions[other];
		draft->extensions[other] = extension;
	}
}

/* A session that no server knows. It "MUST be the last extension" (RFC 8446, 4.2.11). */
static void
add_pre_shared_key(struct draft *draft)
{
	struct bytes *out = add_extension(draft, 41);
	size_t identity = 1 + pick(draft, 200);
	bytes_add_integer(out, identity + 6, 2);
	bytes_add_integer(out, identity, 2);
	add_random(draft, out, identity);
	bytes_add_integer(out, 0x12345678, 4); /* obfuscated_ticket_age */
	bytes_add_integer(out, 33, 2);
	bytes_add_integer(out, 32, 1);
	add_random(draft, out, 32);
}

static void
add_cipher_suites(struct draft *draft)
{
	struct bytes *out = &draft->cipher_suites;
	if (chance(draft, 30))
		bytes_add_integer(out, grease(draft), 2);
	if (draft->tls13) {
		const uint8_t suites[] = {0x13, 0x01, 0x13, 0x02, 0x13, 0x03};
		bytes_add(out, suites, sizeof suites);
	}
	if (!draft->tls13 || chance(draft, 70)) {
		const uint8_t suites[] = {0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0, 0x34};
		bytes_add(out, suites, sizeof suites);
	}
	size_t count = chance(draft, 10) ? pick(draft, 100) : 0;
	for (; count > 0; count--) {
		size_t suite = pick(draft, 0x10000);
		/* It asks a server with TLS 1.3 to reject TLS 1.2 (RFC 7507). */
		bytes_add_integer(out, suite == 0x5600 ? 0 : suite, 2);
	}
	if (!draft->tls13 && chance(draft, 50))
		bytes_add_integer(out, 0x00ff, 2); /* EMPTY_RENEGOTIATION_INFO_SCSV */
}

static void
draft_legal(struct draft *draft)
{
	draft->tls13 = chance(draft, 60);
	draft->legacy_version = 0x0303;
	draft->record_version = chance(draft, 50) ? 0x0301 : 0x0303;
	draft->record_type = 22;
	draft->message_type = 1;
	draft->has_extensions = true;
	if (draft->tls13 ? chance(draft, 80) : chance(draft, 30))
		add_random(draft, &draft->session_id, 32);
	add_cipher_suites(draft);
	bytes_add_integer(&draft->compression_methods, 0, 1);

	if (chance(draft, 95))
		add_server_name(draft);
	add_groups_and_signatures(draft);
	if (draft->tls13)
		add_tls13_extensions(draft);
	else
		add_tls12_extensions(draft);
	add_optional_extensions(draft);
	shuffle_extensions(draft);
	if (draft->tls13 && chance(draft, 20))
		add_pre_shared_key(draft);
	if (!draft->tls13 && chance(draft, 3))
		draft->has_extensions = false;

	draft->record_size = RECORD_MAX;
	if (chance(draft, 15))
		draft->record_size = chance(draft, 40) ? 1 : 1 + pick(draft, 200);
	if (draft->tls13 && chance(draft, 10)) {
		const uint8_t ccs_and_data[] = {20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 7, 7};
		bytes_add(&draft->after, ccs_and_data, sizeof ccs_and_data);
	}
}

/* Mutations, a function each. */

static void
skew_a_length(struct draft *draft, size_t level)
{
	static const int skews[] = {1, -1, 1, -1, 2, -2, 3, -3, 256, -256, 1000};
	draft->skew[level] = skews[pick(draft, sizeof skews / sizeof *skews)];
}

static void
add_inside(struct draft *draft, size_t level)
{
	draft->extra[level] = chance(draft, 50) ? 1 : 1 + pick(draft, 8);
}

static void
replace_name(struct draft *draft, size_t choice)
{
	if (draft->name_count == 0)
		add_server_name(draft);
	struct bytes *name = &draft->names[0].bytes;
	static const char *const odd[] = {"blog.example.", ".blog.example", "..", ".", "a..b",
	    "-a.example", "a.-b", "a_b.example", "_dmarc.example", "\xc3\xa9.example", "*.example",
	    "a/b", "../etc", "a b", "blog.example:443", "[2001:db8::1]", "2001:db8::1", "\xff\xfe",
	    "a\nb", "%00", "-", "a.b-"};
	bytes_release(name);
	add_text(name, odd[choice % (sizeof odd / sizeof *odd)]);
}

static void
odd_name(struct draft *draft, size_t unused)
{
	(void)unused;
	replace_name(draft, pick(draft, 1000));
}

static void
empty_name(struct draft *draft, size_t unused)
{
	replace_name(draft, unused);
	bytes_release(&draft->names[0].bytes);
}

static void
nul_in_name(struct draft *draft, size_t unused)
{
	replace_name(draft, unused);
	struct bytes *name = &draft->names[0].bytes;
	bytes_release(name);
	if (chance(draft, 80))
		add_text(name, "blog.example");
	bytes_add_integer(name, 0, 1);
	if (chance(draft, 50))
		add_text(name, ".evil.example");
}

static void
long_name(struct draft *draft, size_t unused)
{
	static const size_t lengths[] = {252, 253, 254, 255, 256, 257, 300, 1000, 16000, 50000};
	replace_name(draft, unused);
	bytes_release(&draft->names[0].bytes);
	add_long_name(
	    &draft->names[0].bytes, lengths[pick(draft, sizeof lengths / sizeof *lengths)]);
}

static void
random_name(struct draft *draft, size_t unused)
{
	replace_name(draft, unused);
	bytes_release(&draft->names[0].bytes);
	add_random(draft, &draft->names[0].bytes, pick(draft, 20));
}

static void
two_host_names(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->name_count == 0)
		add_server_name(draft);
	if (draft->name_count < NAMES_ROOM)
		add_good_name(draft, add_name(draft, 0));
}

/* A name of another type, before or after the host_name, or instead of it. */
static void
other_name_type(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->name_count == 0)
		add_server_name(draft);
	uint8_t type = (uint8_t)(1 + pick(draft, 255));
	if (chance(draft, 30)) {
		draft->names[0].type = type;
		return;
	}
	if (draft->name_count == NAMES_ROOM)
		return;
	struct bytes *other = add_name(draft, type);
	if (chance(draft, 75))
		add_good_name(draft, other);
	if (chance(draft, 50)) {
		struct draft_name name = draft->names[0];
		draft->names[0] = draft->names[draft->name_count - 1];
		draft->names[draft->name_count - 1] = name;
	}
}

static void
release_names(struct draft *draft)
{
	for (size_t i = 0; i < draft->name_count; i++)
		bytes_release(&draft->names[i].bytes);
	draft->name_count = 0;
}

static void
no_names(struct draft *draft, size_t unused)
{
	replace_name(draft, unused);
	release_names(draft);
}

/* A second server_name extension, with the same name or another, or damaged. */
static void
server_name_twice(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->extension_count == EXTENSIONS_ROOM)
		return;
	struct bytes *out = add_extension(draft, 0);
	if (chance(draft, 10))
		return;
	const char *name = "other.example";
	size_t length = strlen(name);
	bytes_add_integer(out, length + 3, 2);
	bytes_add_integer(out, 0, 1);
	bytes_add_integer(out, length, 2);
	add_text(out, name);
	if (chance(draft, 50))
		shuffle_extensions(draft);
}

static void
extension_twice(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->extension_count == 0 || draft->extension_count == EXTENSIONS_ROOM)
		return;
	size_t first = pick(draft, draft->extension_count);
	if (draft->extensions[first].is_server_name)
		return;
	struct bytes *out = add_extension(draft, draft->extensions[first].type);
	bytes_add(out, draft->extensions[first].data.data, draft->extensions[first].data.length);
	if (chance(draft, 50))
		shuffle_extensions(draft);
}

static void
release_extensions(struct draft *draft)
{
	for (size_t i = 0; i < draft->extension_count; i++)
		bytes_release(&draft->extensions[i].data);
	draft->extension_count = 0;
	release_names(draft);
}

/* Nothing but a server_name, in TLS 1.2. */
static void
server_name_alone(struct draft *draft, size_t unused)
{
	(void)unused;
	release_extensions(draft);
	add_server_name(draft);
}

/* Extensions of 0 to 9 bytes in all. */
static void
few_extensions(struct draft *draft, size_t unused)
{
	(void)unused;
	release_extensions(draft);
	draft->has_extensions = true;
	size_t length = pick(draft, 10);
	if (length >= 8 && chance(draft, 50)) {
		add_extension(draft, 23); /* extended_master_secret */
		add_random(draft, add_extension(draft, 4243), length - 8);
	} else if (length == 5 && chance(draft, 50)) {
		PLAIN(draft, 0xff01, 0);
	} else if (length >= 4) {
		add_random(draft, add_extension(draft, 4243), length - 4);
	} else {
		draft->extra[EXTENSIONS] = length;
	}
}

static void
no_extensions(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->has_extensions = false;
}

/* Puts another extension after pre_shared_key. */
static void
early_pre_shared_key(struct draft *draft, size_t unused)
{
	(void)unused;
	size_t count = draft->extension_count;
	if (count + 2 > EXTENSIONS_ROOM)
		return;
	if (count == 0 || draft->extensions[count - 1].type != 41)
		add_pre_shared_key(draft);
	add_random(draft, add_extension(draft, 4245), pick(draft, 9));
}

/* Gives an extension the type of another. */
static void
change_extension_type(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->extension_count == 0)
		return;
	struct draft_extension *extension = &draft->extensions[pick(draft, draft->extension_count)];
	extension->type = chance(draft, 80) ? pick(draft, 60) : pick(draft, 0x10000);
}

/* Damages the content of an extension. */
static void
damage_extension(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->extension_count == 0)
		return;
	struct bytes *data = &draft->extensions[pick(draft, draft->extension_count)].data;
	if (data->length > 0 && chance(draft, 60))
		data->data[pick(draft, data->length)] = (uint8_t)pick(draft, 256);
	else if (data->length > 0 && chance(draft, 50))
		data->length = pick(draft, data->length);
	else
		add_random(draft, data, 1 + pick(draft, 4));
}

/* Sizes of the vectors before the extensions, allowed and forbidden ones. */
static void
session_id_size(struct draft *draft, size_t unused)
{
	(void)unused;
	static const size_t sizes[] = {0, 1, 31, 32, 33, 34, 64, 255};
	bytes_release(&draft->session_id);
	add_random(draft, &draft->session_id, sizes[pick(draft, sizeof sizes / sizeof *sizes)]);
}

static void
cipher_suites_size(struct draft *draft, size_t unused)
{
	(void)unused;
	size_t choice = pick(draft, 5);
	if (choice == 0)
		bytes_release(&draft->cipher_suites);
	else if (choice == 1 && draft->cipher_suites.length > 0)
		draft->cipher_suites.length--;
	else if (choice == 2)
		add_random(draft, &draft->cipher_suites, 1);
	else if (choice == 3)
		add_random(draft, &draft->cipher_suites, 2 * pick(draft, 5000));
	else if (draft->cipher_suites.length < 65534)
		bytes_add_fill(&draft->cipher_suites, 0x5a, 65534 - draft->cipher_suites.length);
}

static void
compression_methods_size(struct draft *draft, size_t unused)
{
	(void)unused;
	struct bytes *out = &draft->compression_methods;
	size_t choice = pick(draft, 4);
	if (choice == 0)
		bytes_release(out);
	else if (choice == 1 && out->length > 0)
		out->data[0] = 1;
	else if (choice == 2)
		bytes_add_integer(out, 1, 1);
	else
		bytes_add_fill(out, 0, 255 - out->length % 256);
}

/* Enough padding that the hello takes several records. */
static void
large_hello(struct draft *draft, size_t unused)
{
	(void)unused;
	if (draft->extension_count == EXTENSIONS_ROOM)
		return;
	size_t length = chance(draft, 30) ? 60000 : 15000 + pick(draft, 20000);
	bytes_add_fill(add_extension(draft, 4244), 0, length);
}

static void
long_record(struct draft *draft, size_t unused)
{
	static const size_t sizes[] = {16385, 16384 + 256, 16384 + 2048, 16384 + 2049, 20000};
	large_hello(draft, unused);
	draft->record_size = sizes[pick(draft, sizeof sizes / sizeof *sizes)];
}

static void
split_records(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->record_size = chance(draft, 50) ? 1 : 1 + pick(draft, 50);
}

/* Records that must not be between the fragments, or before them. */
static void
intruding_record(struct draft *draft, size_t unused)
{
	(void)unused;
	static const struct {
		size_t length;
		uint8_t bytes[8];
	} records[] = {
	    {5, {22, 3, 1, 0, 0}},          /* empty */
	    {5, {22, 3, 3, 0, 0}},          /* the same */
	    {7, {21, 3, 1, 0, 2, 1, 0}},    /* alert: warning, close_notify */
	    {7, {21, 3, 1, 0, 2, 1, 90}},   /* alert: warning, user_canceled */
	    {7, {21, 3, 1, 0, 2, 1, 100}},  /* alert: warning, no_renegotiation */
	    {7, {21, 3, 1, 0, 2, 2, 40}},   /* alert: fatal */
	    {5, {21, 3, 1, 0, 0}},          /* an empty alert */
	    {5, {20, 3, 1, 0, 0}},          /* an empty change_cipher_spec */
	    {6, {20, 3, 3, 0, 1, 1}},       /* change_cipher_spec */
	    {7, {23, 3, 3, 0, 2, 1, 1}},    /* application_data */
	    {5, {23, 3, 3, 0, 0}},          /* the same, empty */
	    {8, {24, 3, 3, 0, 3, 1, 0, 0}}, /* heartbeat */
	    {6, {99, 3, 3, 0, 1, 1}},       /* unknown */
	};
	size_t choice = pick(draft, sizeof records / sizeof *records);
	if (chance(draft, 40)) /* those that a library accepts */
		choice = chance(draft, 50) ? 0 : 7 + pick(draft, 2);
	bytes_release(&draft->intruder);
	for (size_t count = chance(draft, 90) ? 1 : 1 + pick(draft, 40); count > 0; count--)
		bytes_add(&draft->intruder, records[choice].bytes, records[choice].length);
	draft->intruder_first = chance(draft, 40);
	if (draft->record_size > 200)
		draft->record_size = 1 + pick(draft, 200);
}

static void
versions(struct draft *draft, size_t unused)
{
	(void)unused;
	static const size_t odd[] = {0, 0x0002, 0x0200, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304,
	    0x0305, 0x03ff, 0x0400, 0x7f1c, 0xfeff, 0xffff};
	size_t version = odd[pick(draft, sizeof odd / sizeof *odd)];
	if (chance(draft, 50))
		draft->record_version = version;
	else
		draft->legacy_version = version;
}

static void
types(struct draft *draft, size_t unused)
{
	(void)unused;
	size_t type = chance(draft, 70) ? pick(draft, 26) : pick(draft, 256);
	if (chance(draft, 50))
		draft->record_type = type;
	else
		draft->message_type = type;
}

static void
damage_message(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->damage = 1 + pick(draft, 3);
}

static void
damage_stream(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->stream_damage = 1 + pick(draft, 3);
}

static void
cut_message(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->message_cut = 1 + (chance(draft, 50) ? pick(draft, 8) : pick(draft, 200));
	draft->body_cut = chance(draft, 70);
}

static void
cut_stream(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->stream_cut = true;
}

/* Bytes after the hello: in its last record, or in records of their own. */
static void
more_after_hello(struct draft *draft, size_t unused)
{
	(void)unused;
	const uint8_t finished[] = {20, 0, 0, 2, 7, 7};
	if (chance(draft, 70) && chance(draft, 50))
		add_random(draft, &draft->in_record, 1 + pick(draft, 5));
	else if (chance(draft, 60))
		bytes_add(&draft->in_record, finished, sizeof finished);
	else
		add_random(draft, &draft->after, 1 + pick(draft, 50));
}

/* An SSL 2.0 ClientHello, which has no extensions (RFC 5246, E.2), and bytes that are not TLS. */
static void
sslv2_hello(struct draft *draft, size_t unused)
{
	(void)unused;
	draft->sslv2 = true;
}

static const struct {
	const char *name;
	void (*mutate)(struct draft *draft, size_t argument);
	size_t argument;
	size_t weight;
} mutations[] = {
    {"host_name: length", skew_a_length, HOST_NAME, 3},
    {"server_name_list: length", skew_a_length, SERVER_NAME_LIST, 3},
    {"server_name: length", skew_a_length, SERVER_NAME_DATA, 3},
    {"another extension: length", skew_a_length, OTHER_DATA, 3},
    {"extensions: length", skew_a_length, EXTENSIONS, 3},
    {"legacy_compression_methods: length", skew_a_length, COMPRESSION_METHODS, 2},
    {"cipher_suites: length", skew_a_length, CIPHER_SUITES, 2},
    {"legacy_session_id: length", skew_a_length, SESSION_ID, 2},
    {"message: length", skew_a_length, MESSAGE, 3},
    {"record: length", skew_a_length, RECORD, 2},
    {"host_name: bytes at its end", add_inside, HOST_NAME, 1},
    {"server_name_list: bytes at its end", add_inside, SERVER_NAME_LIST, 3},
    {"server_name: bytes at its end", add_inside, SERVER_NAME_DATA, 3},
    {"another extension: bytes at its end", add_inside, OTHER_DATA, 2},
    {"extensions: bytes at their end", add_inside, EXTENSIONS, 3},
    {"legacy_compression_methods: bytes at their end", add_inside, COMPRESSION_METHODS, 1},
    {"message: bytes after the extensions", add_inside, MESSAGE, 3},
    {"name: odd", odd_name, 0, 6},
    {"name: empty", empty_name, 0, 2},
    {"name: NUL in it", nul_in_name, 0, 3},
    {"name: long", long_name, 0, 4},
    {"name: random bytes", random_name, 0, 2},
    {"two host_names", two_host_names, 0, 4},
    {"a name of another type", other_name_type, 0, 4},
    {"no names", no_names, 0, 2},
    {"server_name twice", server_name_twice, 0, 4},
    {"another extension twice", extension_twice, 0, 3},
    {"pre_shared_key before another", early_pre_shared_key, 0, 2},
    {"server_name alone", server_name_alone, 0, 3},
    {"few extensions", few_extensions, 0, 3},
    {"no extensions", no_extensions, 0, 1},
    {"an extension of another type", change_extension_type, 0, 4},
    {"an extension damaged", damage_extension, 0, 4},
    {"legacy_session_id: size", session_id_size, 0, 2},
    {"cipher_suites: size", cipher_suites_size, 0, 2},
    {"legacy_compression_methods: size", compression_methods_size, 0, 2},
    {"large", large_hello, 0, 1},
    {"long record", long_record, 0, 2},
    {"small records", split_records, 0, 2},
    {"a record in between", intruding_record, 0, 6},
    {"versions", versions, 0, 2},
    {"types", types, 0, 2},
    {"bytes of the message damaged", damage_message, 0, 6},
    {"bytes of the stream damaged", damage_stream, 0, 4},
    {"message cut", cut_message, 0, 4},
    {"stream cut", cut_stream, 0, 2},
    {"bytes after the hello", more_after_hello, 0, 3},
    {"SSL 2.0", sslv2_hello, 0, 1},
};

const size_t mutation_count = sizeof mutations / sizeof *mutations;

const char *
mutation_name(size_t index)
{
	return mutations[index].name;
}

static size_t
pick_mutation(struct draft *draft)
{
	size_t total = 0;
	for (size_t i = 0; i < mutation_count; i++)
		total += mutations[i].weight;
	size_t left = pick(draft, total);
	size_t index = 0;
	while (left >= mutations[index].weight)
		left -= mutations[index++].weight;
	return index;
}

/* Writing a draft. */

static void
write_length(struct draft *draft, struct bytes *out, size_t level, size_t length, size_t width)
{
	int skew = draft->skew[level];
	if (skew < 0 && (size_t)-skew > length)
		skew = 0;
	bytes_add_integer(out, length + (size_t)skew, width);
}

/* Adds a vector with the content of INSIDE, and releases INSIDE. */
static void
write_vector(
    struct draft *draft, struct bytes *out, size_t level, struct bytes *inside, size_t width)
{
	add_random(draft, inside, draft->extra[level]);
	write_length(draft, out, level, inside->length, width);
	bytes_add(out, inside->data, inside->length);
	bytes_release(inside);
}

static void
write_names(struct draft *draft, struct bytes *out)
{
	struct bytes list = {0};
	for (size_t i = 0; i < draft->name_count; i++) {
		bytes_add_integer(&list, draft->names[i].type, 1);
		write_vector(draft, &list, HOST_NAME, &draft->names[i].bytes, 2);
	}
	write_vector(draft, out, SERVER_NAME_LIST, &list, 2);
}

static void
write_extensions(struct draft *draft, struct bytes *out)
{
	struct bytes extensions = {0};
	size_t other = draft->extension_count == 0 ? 0 : pick(draft, draft->extension_count);
	for (size_t i = 0; i < draft->extension_count; i++) {
		struct draft_extension *extension = &draft->extensions[i];
		bytes_add_integer(&extensions, extension->type, 2);
		if (extension->is_server_name) {
			bytes_release(&extension->data);
			write_names(draft, &extension->data);
			write_vector(draft, &extensions, SERVER_NAME_DATA, &extension->data, 2);
		} else if (i == other) {
			write_vector(draft, &extensions, OTHER_DATA, &extension->data, 2);
		} else {
			bytes_add_integer(&extensions, extension->data.length, 2);
			bytes_add(&extensions, extension->data.data, extension->data.length);
		}
	}
	write_vector(draft, out, EXTENSIONS, &extensions, 2);
}

static void
write_message(struct draft *draft, struct bytes *out)
{
	struct bytes body = {0};
	bytes_add_integer(&body, draft->legacy_version, 2);
	add_random(draft, &body, 32);
	write_vector(draft, &body, SESSION_ID, &draft->session_id, 1);
	write_vector(draft, &body, CIPHER_SUITES, &draft->cipher_suites, 2);
	write_vector(draft, &body, COMPRESSION_METHODS, &draft->compression_methods, 1);
	if (draft->has_extensions)
		write_extensions(draft, &body);
	size_t cut = draft->message_cut < body.length ? draft->message_cut : body.length;
	if (draft->body_cut)
		body.length -= cut;
	bytes_add_integer(out, draft->message_type, 1);
	write_vector(draft, out, MESSAGE, &body, 3);
	if (!draft->body_cut)
		out->length -= cut;
}

static void
damage(struct draft *draft, struct bytes *bytes, size_t count)
{
	for (; count > 0 && bytes->length > 0; count--) {
		/* Headers are damaged more often than their share. */
		size_t reach = chance(draft, 40) && bytes->length > 60 ? 60 : bytes->length;
		uint8_t *byte = &bytes->data[pick(draft, reach)];
		size_t choice = pick(draft, 4);
		if (choice == 0)
			*byte = (uint8_t)pick(draft, 256);
		else if (choice == 1)
			*byte ^= (uint8_t)(1 << pick(draft, 8));
		else
			*byte = (uint8_t)(choice == 2 ? *byte + 1 : *byte - 1);
	}
}

static void
write_records(struct draft *draft, struct bytes *out, const struct bytes *message)
{
	size_t records = (message->length + draft->record_size - 1) / draft->record_size;
	size_t before = draft->intruder_first ? 0 : pick(draft, records + 1);
	size_t done = 0;
	for (size_t i = 0; i < records; i++) {
		if (i == before)
			bytes_add(out, draft->intruder.data, draft->intruder.length);
		size_t left = message->length - done;
		size_t size = left < draft->record_size ? left : draft->record_size;
		bool last = i + 1 == records;
		bytes_add_integer(out, draft->record_type, 1);
		bytes_add_integer(out, draft->record_version, 2);
		size_t length = size + (last ? draft->in_record.length : 0);
		if (i == 0)
			write_length(draft, out, RECORD, length, 2);
		else
			bytes_add_integer(out, length, 2);
		bytes_add(out, message->data + done, size);
		done += size;
	}
	bytes_add(out, draft->in_record.data, draft->in_record.length);
	bytes_add(out, draft->after.data, draft->after.length);
}

/* Not TLS: an SSL 2.0 hello, or a request in clear text. */
static void
write_sslv2(struct draft *draft, struct bytes *out)
{
	if (chance(draft, 30)) {
		add_text(out, chance(draft, 50) ? "GET / HTTP/1.1\r\n\r\n" : "SSH-2.0-x\r\n");
		return;
	}
	const uint8_t head[] = {
	    0x80, 9 + 9 + 16, 1, 3, 3, 0, 9, 0, 0, 0, 16, 0, 0xc0, 0x2b, 0, 0, 0x34, 0, 0, 0xff};
	bytes_add(out, head, sizeof head);
	add_random(draft, out, 16);
}

static void
draft_release(struct draft *draft)
{
	release_extensions(draft);
	bytes_release(&draft->session_id);
	bytes_release(&draft->cipher_suites);
	bytes_release(&draft->compression_methods);
	bytes_release(&draft->intruder);
	bytes_release(&draft->in_record);
	bytes_release(&draft->after);
}

/* Spreads neighbouring seeds (splitmix64, Vigna); xorshift must not begin with 0. */
static uint64_t
spread(uint64_t seed)
{
	seed += 0x9e3779b97f4a7c15U;
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9U;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111ebU;
	return (seed ^ seed >> 31) | 1;
}

void
sample_make(struct sample *sample, uint64_t seed)
{
	*sample = (struct sample){0};
	struct draft draft = {.random = spread(seed)};
	draft_legal(&draft);
	size_t count = chance(&draft, 15) ? 0 : 1;
	if (count > 0 && chance(&draft, 30))
		count += 1 + pick(&draft, MUTATIONS_MAX - 1);
	for (; sample->mutation_count < count; sample->mutation_count++) {
		size_t index = pick_mutation(&draft);
		mutations[index].mutate(&draft, mutations[index].argument);
		sample->mutations[sample->mutation_count] = mutations[index].name;
	}

	struct bytes message = {0};
	write_message(&draft, &message);
	damage(&draft, &message, draft.damage);
	if (draft.sslv2)
		write_sslv2(&draft, &sample->stream);
	else
		write_records(&draft, &sample->stream, &message);
	damage(&draft, &sample->stream, draft.stream_damage);
	if (draft.stream_cut && sample->stream.length > 0)
		sample->stream.length = pick(&draft, sample->stream.length);
	bytes_release(&message);
	draft_release(&draft);
}

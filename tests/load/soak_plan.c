#include "tests/load/soak.h"

#include <string.h>

enum {
	KIB = 1024,
	MIB = 1024 * 1024,
	ALL_AT_ONCE = 64 * KIB,
	RECORD_MAX = 1 << 14,
	EXTENSIONS_MAX = 65535,
};

static const uint8_t tag_mark[4] = {'s', 'o', 'a', 'k'};

const char long_name[] = "long.long.long.long.long.long.long.long.long.long.long.long.long."
			 "long.long.long.long.long.long.long.long.long.long.long.long.long."
			 "long.long.long.long.long.long.long.long.long.long.long.long.long."
			 "long.long.long.long.long.long.long.long.long.long.long.ex";

/* --- Hellos --- */

static void
put_integer(uint8_t *bytes, uint64_t value, size_t width)
{
	for (size_t i = 0; i < width; i++)
		bytes[i] = (uint8_t)(value >> 8 * (width - 1 - i));
}

static uint64_t
get_integer(const uint8_t *bytes, size_t width)
{
	uint64_t value = 0;
	for (size_t i = 0; i < width; i++)
		value = value << 8 | bytes[i];
	return value;
}

bool
tag_read(struct tag *tag, const uint8_t *message)
{
	const uint8_t *bytes = message + TAG_START + sizeof tag_mark;
	tag->number = get_integer(bytes, 8);
	tag->slot = (uint32_t)get_integer(bytes + 8, 4);
	tag->role = (uint32_t)get_integer(bytes + 12, 4);
	return memcmp(message + TAG_START, tag_mark, sizeof tag_mark) == 0 &&
	    tag->slot < CLIENTS + CROWD && tag->role < role_count;
}

/* Puts a hello for the plan's host into the plan's opening, with vectors of SIZES, in records of up
 * to RECORD_SIZE bytes. */
static void
open_with_sizes(struct plan *plan, struct hello_sizes sizes, size_t record_size)
{
	sizes.host_name = strlen(plan->host);
	struct bytes message = {0};
	hello_add_message(&message, &sizes);

	uint8_t *tag = message.data + TAG_START;
	memcpy(tag, tag_mark, sizeof tag_mark);
	put_integer(tag + 4, plan->number, 8);
	put_integer(tag + 12, plan->slot, 4);
	put_integer(tag + 16, (uint64_t)(plan->role - roles), 4);
	size_t name = 4 + 2 + 32 + 1 + sizes.legacy_session_id + 2 + sizes.cipher_suites + 1 +
	    sizes.legacy_compression_methods + 2 + 9;
	memcpy(message.data + name, plan->host, sizes.host_name);

	hello_add_records(&plan->opening, message.data, message.length, record_size);
	bytes_release(&message);
}

/* An ordinary hello. */
static void
open_with_hello(struct plan *plan, struct chance *chance)
{
	const struct hello_sizes sizes = {
	    .legacy_session_id = one_in(chance, 2) ? 32 : 0,
	    .cipher_suites = 2 * between(chance, 1, 40),
	    .legacy_compression_methods = 1,
	    .extensions = strlen(plan->host) + 9 + 4 + between(chance, 0, 1500),
	};
	open_with_sizes(plan, sizes, one_in(chance, 4) ? between(chance, 8, 300) : RECORD_MAX);
}

/* The largest hello. */
static void
open_with_largest_hello(struct plan *plan, size_t record_size)
{
	const struct hello_sizes sizes = {
	    .legacy_session_id = 32,
	    .cipher_suites = 65534,
	    .legacy_compression_methods = 255,
	    .extensions = EXTENSIONS_MAX,
	};
	open_with_sizes(plan, sizes, record_size);
}

/* --- Ends --- */

static struct script
writes(uint64_t bytes)
{
	return (struct script){
	    .bytes = bytes, .write_at_once = ALL_AT_ONCE, .read_at_once = ALL_AT_ONCE};
}

/* A hello for HOST, then up to MOST bytes in each direction. */
static void
talk(struct plan *plan, struct chance *chance, const char *host, uint64_t most)
{
	plan->host = host;
	open_with_hello(plan, chance);
	plan->client = writes(between(chance, 0, most));
	plan->backend = writes(between(chance, 0, most));
	if (one_in(chance, 2)) /* a question, then the answer */
		plan->backend.await = between(chance, 0, plan->client.bytes);
	if (one_in(chance, 3))
		plan->backend.write_at_once = between(chance, 256, 20000);
	if (one_in(chance, 3))
		plan->client.write_at_once = between(chance, 256, 20000);
	if (one_in(chance, 3))
		plan->client.finish = CLOSE_LAST;
	else if (one_in(chance, 2))
		plan->backend.finish = CLOSE_LAST;
}

/* One of the hosts whose backends follow the plan. */
static const char *
any_host(struct chance *chance)
{
	const char *const hosts[] = {
	    "plain.example", "proxied.example", "swapped.example", "exchanged.example", long_name};
	return hosts[between(chance, 0, sizeof hosts / sizeof *hosts - 1)];
}

/* --- Roles that are served --- */

static void
tiny(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 100);
}

static void
ordinary(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 200 * (uint64_t)KIB);
}

static void
dribbles(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 300);
	plan->opening_pause_us = (int)between(chance, 1, 1000000 / plan->opening.length);
	plan->client.write_at_once = plan->backend.write_at_once = 1;
	plan->client.write_pause_ms = (int)between(chance, 0, 5);
}

static void
one_byte_records(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->opening.length = 0;
	const struct hello_sizes sizes = {
	    .cipher_suites = 2 * between(chance, 1, 40),
	    .legacy_compression_methods = 1,
	    .extensions = strlen(plan->host) + 9,
	};
	open_with_sizes(plan, sizes, 1);
}

static void
largest_hello(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->opening.length = 0;
	open_with_largest_hello(plan, one_in(chance, 4) ? 1 : between(chance, 2, RECORD_MAX));
}

static void
huge_upload(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->client.bytes = between(chance, 4 * MIB, 48 * MIB);
	plan->client.write_at_once = ALL_AT_ONCE;
}

static void
huge_download(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->backend.bytes = between(chance, 4 * MIB, 48 * MIB);
	plan->backend.write_at_once = ALL_AT_ONCE;
}

static void
huge_both_ways(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 0);
	plan->client = writes(between(chance, 4 * MIB, 24 * MIB));
	plan->backend = writes(between(chance, 4 * MIB, 24 * MIB));
}

/* Reading BYTES takes about two seconds. */
static void
slow_down(struct script *script, struct chance *chance, uint64_t bytes)
{
	script->read_pause_ms = (int)between(chance, 1, 20);
	uint64_t reads = 2000 / (uint64_t)script->read_pause_ms;
	script->read_at_once = bytes / reads + 1;
}

/* Sometimes limits how much passes at a time. */
static void
use_small_buffers(struct plan *plan, struct chance *chance)
{
	plan->small_buffers = one_in(chance, 3);
	if (plan->small_buffers)
		plan->backend.bytes = between(chance, 16 * KIB, 128 * KIB);
}

static void
slow_client(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->backend.bytes = between(chance, 64 * KIB, 4 * MIB);
	use_small_buffers(plan, chance);
	slow_down(&plan->client, chance, plan->backend.bytes);
}

static void
slow_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->client.bytes = between(chance, 64 * KIB, 4 * MIB);
	slow_down(&plan->backend, chance, plan->client.bytes);
}

static void
stall(struct script *script, struct chance *chance, uint64_t bytes)
{
	script->stall_at = between(chance, 1, bytes / 2);
	script->stall_ms = (int)between(chance, 500, 4000);
}

static void
stalled_client(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->backend.bytes = between(chance, MIB, 12 * MIB);
	use_small_buffers(plan, chance);
	stall(&plan->client, chance, plan->backend.bytes);
}

static void
stalled_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 10 * (uint64_t)KIB);
	plan->client.bytes = between(chance, MIB, 12 * MIB);
	stall(&plan->backend, chance, plan->client.bytes);
}

/* The client has ended its stream long before the backend begins. */
static void
early_half_close(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 100 * (uint64_t)KIB);
	plan->client.finish = HALF_CLOSE;
	plan->backend.await = plan->client.bytes;
	plan->backend.idle_ms = (int)between(chance, 1, 300);
	plan->backend.idle_at = between(chance, 0, plan->backend.bytes);
}

/* The backend ends its stream first, and continues to read. */
static void
early_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), MIB);
	plan->backend = writes(between(chance, 0, 1000));
	plan->client.finish = CLOSE_LAST;
	plan->client.idle_ms = (int)between(chance, 1, 300);
	plan->client.idle_at = between(chance, 0, plan->client.bytes);
}

/* Neither reads before it has written; the sockets' buffers have room for what they write. */
static void
both_write_first(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 0);
	plan->client = writes(between(chance, KIB, 64 * KIB));
	plan->backend = writes(between(chance, KIB, 64 * KIB));
	plan->client.writes_first = plan->backend.writes_first = true;
}

static void
one_writes_first(struct plan *plan, struct chance *chance)
{
	huge_both_ways(plan, chance);
	if (one_in(chance, 2))
		plan->client.writes_first = true;
	else
		plan->backend.writes_first = true;
}

static void
idle(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 100 * (uint64_t)KIB);
	plan->client.bytes += 2;
	plan->client.idle_at = plan->client.bytes / 2;
	plan->client.idle_ms = (int)between(chance, 500, 4000);
	plan->backend.await = plan->client.bytes;
}

/* Longer than the grace after SIGHUP. */
static void
idle_for_long(struct plan *plan, struct chance *chance)
{
	idle(plan, chance);
	plan->client.idle_ms = (int)between(chance, 11000, 12000);
}

/* Many at once, which stay until all are there. */
static void
crowd(struct plan *plan, struct chance *chance)
{
	idle(plan, chance);
	plan->client.idle_ms = (int)between(chance, 1200, 2000);
}

static void
urgent(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 100 * (uint64_t)KIB);
	plan->client.urgent = true;
	plan->client.write_at_once = between(chance, 1, 30000);
	plan->client.write_pause_ms = plan->client.write_at_once < 100 ? 0 : 1;
	if (plan->client.write_at_once < 1000)
		plan->client.bytes %= 2000;
	if (plan->backend.await > plan->client.bytes)
		plan->backend.await = plan->client.bytes;
}

static void
full_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, "full.example", 20 * (uint64_t)KIB);
}

static void
restarting_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, "restarting.example", 20 * (uint64_t)KIB);
	plan->alert = TLS_UNRECOGNIZED_NAME;
}

/* --- Roles: those that end early --- */

/* The client closes in the middle. */
static void
client_goes(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 200 * (uint64_t)KIB);
	if (one_in(chance, 4))
		plan->backend.bytes = between(chance, MIB, 8 * MIB);
	if (one_in(chance, 4))
		plan->client.bytes = between(chance, MIB, 8 * MIB);
	plan->client.writes_first = one_in(chance, 2);
	plan->backend.finish = HALF_CLOSE;
}

static void
client_closes(struct plan *plan, struct chance *chance)
{
	client_goes(plan, chance);
	plan->client.finish = CLOSE;
}

static void
client_resets(struct plan *plan, struct chance *chance)
{
	client_goes(plan, chance);
	plan->client.finish = RESET;
}

static void
client_closes_after_hello(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 2000);
	plan->client = writes(0);
	plan->client.finish = one_in(chance, 2) ? CLOSE : RESET;
}

/* The backend closes when it has written, although the client continues. */
static void
backend_closes(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 200 * (uint64_t)KIB);
	if (one_in(chance, 4))
		plan->backend.bytes = between(chance, MIB, 8 * MIB);
	if (one_in(chance, 4))
		plan->client.bytes = between(chance, MIB, 4 * MIB);
	plan->backend.finish = CLOSE;
}

/* It closes with bytes unread, which Unix sockets turn into a reset. */
static void
backend_resets(struct plan *plan, struct chance *chance)
{
	backend_closes(plan, chance);
	plan->backend.await = 0;
	plan->backend.writes_first = true;
}

static void
backend_closes_at_once(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, "slamming.example", 20 * (uint64_t)KIB);
}

/* --- Roles that are rejected --- */

static void
listen_only(struct plan *plan, enum tls_alert alert)
{
	plan->client = writes(0);
	plan->client.finish = CLOSE_LAST;
	plan->alert = (uint8_t)alert;
}

static void
silent(struct plan *plan, struct chance *chance)
{
	(void)chance;
	listen_only(plan, TLS_USER_CANCELED);
}

static void
half_a_hello(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, any_host(chance), 0);
	plan->opening.length = between(chance, 1, plan->opening.length - 1);
	listen_only(plan, TLS_USER_CANCELED);
}

static void
half_a_hello_then_end(struct plan *plan, struct chance *chance)
{
	half_a_hello(plan, chance);
	plan->client.finish = HALF_CLOSE;
	plan->alert = TLS_DECODE_ERROR;
}

static void
half_a_hello_then_gone(struct plan *plan, struct chance *chance)
{
	half_a_hello(plan, chance);
	plan->client.finish = one_in(chance, 2) ? CLOSE : RESET;
}

static void
gone_at_once(struct plan *plan, struct chance *chance)
{
	silent(plan, chance);
	plan->client.finish = one_in(chance, 2) ? CLOSE : RESET;
}

static void
http(struct plan *plan, struct chance *chance)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n";
	bytes_add(&plan->opening, (const uint8_t *)request, strlen(request));
	bytes_add_fill(&plan->opening, 'x', between(chance, 0, 100 * KIB));
	listen_only(plan, TLS_UNEXPECTED_MESSAGE);
}

/* One of the hellos in hellos.c, and sometimes much after it. */
static void
bad_hello(struct plan *plan, struct chance *chance)
{
	const struct hello_case *bad;
	do
		bad = &hello_cases[between(chance, 0, hello_case_count - 1)];
	while (bad->status != TLS_REFUSED);
	bytes_add(&plan->opening, bad->bytes, bad->length);
	if (one_in(chance, 3))
		bytes_add_fill(&plan->opening, 23, between(chance, 1, 300 * KIB));
	if (one_in(chance, 8) && bad->length < 1000)
		plan->opening_pause_us = plan->opening.length < 1000 ? 500 : 0;
	listen_only(plan, bad->alert);
}

static void
unknown_name(struct plan *plan, struct chance *chance)
{
	static const char *const names[] = {"unknown.example", "..", "plain.example.", "a/b",
	    "-plain.example", "closed.example", "socketless.example"};
	talk(plan, chance, names[between(chance, 0, sizeof names / sizeof *names - 1)], 0);
	listen_only(plan, TLS_UNRECOGNIZED_NAME);
}

static void
deaf_backend(struct plan *plan, struct chance *chance)
{
	talk(plan, chance, "deaf.example", 0);
	listen_only(plan, TLS_INTERNAL_ERROR);
}

/* Code refers to the first two and the last by their numbers. */
const struct role roles[] = {
    {"tiny", 3000, 1, SERVED, tiny},
    {"huge upload", 40, 2, SERVED, huge_upload},
    {"ordinary", 2000, 1, SERVED, ordinary},
    {"dribbles", 150, 4, SERVED, dribbles},
    {"one-byte records", 300, 1, SERVED, one_byte_records},
    {"128 KiB hello", 100, 2, SERVED, largest_hello},
    {"huge download", 40, 2, SERVED, huge_download},
    {"huge both ways", 40, 2, SERVED, huge_both_ways},
    {"slow client", 80, 4, SERVED, slow_client},
    {"slow backend", 80, 4, SERVED, slow_backend},
    {"stalled client", 80, 5, SERVED, stalled_client},
    {"stalled backend", 80, 5, SERVED, stalled_backend},
    {"early half-close", 300, 1, SERVED, early_half_close},
    {"backend ends first", 300, 1, SERVED, early_backend},
    {"both write first", 300, 1, SERVED, both_write_first},
    {"one writes first", 40, 2, SERVED, one_writes_first},
    {"idle", 100, 4, SERVED, idle},
    {"idle for long", 8, 13, SERVED, idle_for_long},
    {"urgent bytes", 200, 2, SERVED, urgent},
    {"full backend", 60, 6, SERVED, full_backend},
    {"restarting backend", 300, 1, RESTARTED, restarting_backend},
    {"client closes", 300, 1, CLIENT_CUTS, client_closes},
    {"client resets", 300, 1, CLIENT_CUTS, client_resets},
    {"gone after the hello", 150, 1, CLIENT_CUTS, client_closes_after_hello},
    {"backend closes", 300, 1, BACKEND_CUTS, backend_closes},
    {"backend resets", 300, 1, BACKEND_CUTS, backend_resets},
    {"backend closes at once", 150, 1, UNANSWERED, backend_closes_at_once},
    {"silent", 10, 11, REFUSED, silent},
    {"half a hello, stays", 10, 11, REFUSED, half_a_hello},
    {"half a hello, ends", 200, 1, REFUSED, half_a_hello_then_end},
    {"half a hello, gone", 200, 1, GONE, half_a_hello_then_gone},
    {"gone at once", 200, 1, GONE, gone_at_once},
    {"HTTP", 200, 1, REFUSED, http},
    {"bad hello", 600, 1, REFUSED, bad_hello},
    {"unknown name", 300, 1, REFUSED, unknown_name},
    {"deaf backend", 8, 11, REFUSED, deaf_backend},
    {"crowd", 0, 3, SERVED, crowd},
};

const unsigned role_count = sizeof roles / sizeof *roles;
const unsigned tiny_role = 0, bulk_role = 1;
const unsigned crowd_role = sizeof roles / sizeof *roles - 1;

unsigned
role_of(uint64_t number)
{
	if (number <= crowd_role) /* each once, at the beginning */
		return (unsigned)number - 1;
	uint64_t weights = 0;
	for (unsigned i = 0; i < role_count; i++)
		weights += roles[i].weight;
	struct chance chance = chance_of(number);
	uint64_t pick = between(&chance, 0, weights - 1);
	unsigned role = 0;
	while (pick >= roles[role].weight)
		pick -= roles[role++].weight;
	return role;
}

void
plan_make(struct plan *plan, uint64_t number, unsigned role, unsigned slot)
{
	struct chance chance = chance_of(number + UINT64_C(0x5000000000000000));
	*plan = (struct plan){.number = number, .slot = slot, .role = &roles[role]};
	roles[role].make(plan, &chance);
}

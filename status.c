#include "status.h"

#include "clock.h"
#include "connection.h"
#include "limits.h"
#include "log.h"
#include "registry.h"
#include "thread.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

/* The alerts that are sent, in the order of the totals. */
static const enum tls_alert alerts[] = {
    TLS_UNEXPECTED_MESSAGE,
    TLS_RECORD_OVERFLOW,
    TLS_ILLEGAL_PARAMETER,
    TLS_DECODE_ERROR,
    TLS_INTERNAL_ERROR,
    TLS_USER_CANCELED,
    TLS_UNRECOGNIZED_NAME,
};
enum {
	ALERTS = sizeof alerts / sizeof *alerts,

	/* Room for a line about a connection, with the longest name. */
	LINE_SIZE = 512,

	/* A report: how many lines are made at once, and how long it goes on at a stretch. */
	REPORT_LINES = 32,
	REPORT_MS = 50,

	/* The main thread and the log's. */
	OWN_THREADS = 2,
};

static const char *const end_names[ENDS] = {
    [END_FAILED] = "failed",
    [END_CLOSED] = "closed",
    [END_BACKEND_CLOSED] = "backend-closed",
    [END_BACKEND_RESET] = "backend-reset",
    [END_CLIENT_RESET] = "client-reset",
    [END_CLIENT_TIMEOUT] = "client-timeout",
    [END_REFUSED] = "refused",
    [END_GAVE_WAY] = "gave-way",
    [END_TURNED_AWAY] = "turned-away",
    [END_CUT_OFF] = "cut-off",
};

static const char *const state_names[CONNECTION_STATES] = {
    [CONNECTION_HELLO] = "hello",
    [CONNECTION_BACKEND] = "backend",
    [CONNECTION_RELAY] = "relay",
    [CONNECTION_CLOSING] = "closing",
};

static struct {
	/* Set before there are threads. */
	bool logs_connections;
	int64_t began_ms;

	atomic_ullong accepted;
	atomic_ullong routed;
	atomic_ullong ended[ENDS];
	atomic_ullong refused[ALERTS];
} status;

/* The one that is being written, or was the last. */
static struct {
	unsigned number;
	unsigned parked;   /* connections at which no thread is */
	unsigned left_out; /* that got no line, since nobody reads the log */
} report;

/* A text that grows, and is cut off where there is no more room. */
struct text {
	char *bytes;
	size_t size;
	size_t length;
};

static void
append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
append(struct text *text, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(
	    text->bytes + text->length, text->size - text->length, format, arguments);
	va_end(arguments);
	text->length += length > 0 ? (size_t)length : 0;
	if (text->length >= text->size)
		text->length = text->size - 1;
}

void
status_begin(bool logs_connections)
{
	status.logs_connections = logs_connections;
	status.began_ms = clock_ms();
}

void
status_accepted(void)
{
	atomic_fetch_add(&status.accepted, 1);
}

void
status_lost(void)
{
	atomic_fetch_add(&status.ended[END_FAILED], 1);
}

void
status_routed(void)
{
	atomic_fetch_add(&status.routed, 1);
}

static void
append_seconds(struct text *text, int64_t ms)
{
	append(text, "seconds=%lld.%03d", (long long)(ms / 1000), (int)(ms % 1000));
}

static void
append_who(struct text *text, const struct connection *c)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, &c->peer);
	append(text, "client=%s name=%s ", client, c->name[0] == '\0' ? "-" : c->name);
}

static void
append_bytes(struct text *text, const struct connection *c)
{
	unsigned long long up = c->upload.passed, header = c->header_length;
	append_seconds(text, clock_ms() - c->accepted_ms);
	append(text, " up=%llu down=%llu", up > header ? up - header : 0,
	    (unsigned long long)c->download.passed);
}

static void
log_end(const struct connection *c, enum connection_end end)
{
	char line[LINE_SIZE];
	struct text text = {.bytes = line, .size = sizeof line};
	append_who(&text, c);
	append_bytes(&text, c);
	append(&text, " end=%s", end_names[end]);
	if (end == END_REFUSED)
		append(&text, " alert=%s", tls_alert_name(c->alert));
	log_connection("%s", line);
}

void
status_ended(struct connection *c, enum connection_end end)
{
	if (atomic_exchange(&c->told, true))
		return;
	for (size_t i = 0; end == END_REFUSED && i < ALERTS; i++)
		if (alerts[i] == c->alert)
			atomic_fetch_add(&status.refused[i], 1);
	atomic_fetch_add(&status.ended[end], 1);
	if (status.logs_connections)
		log_end(c, end);
}

/* --- A report --- */

/* How many are open is what adds up: each is counted when it ends, after it was when it
 * was accepted. */
static void
log_totals(void)
{
	char line[LOG_LINE_MAX];
	unsigned long long ended[ENDS], ended_sum = 0;
	struct text text = {.bytes = line, .size = sizeof line};
	for (size_t end = 0; end < ENDS; end++)
		ended_sum += ended[end] = atomic_load(&status.ended[end]);
	unsigned long long accepted = atomic_load(&status.accepted);

	append_seconds(&text, clock_ms() - status.began_ms);
	append(&text, " accepted=%llu routed=%llu open=%llu parked=%u", accepted,
	    atomic_load(&status.routed), accepted - ended_sum, report.parked);
	append(&text, " threads=%u descriptors=%u", thread_pool_size() + OWN_THREADS,
	    limits_count_descriptors(registry_peak()));
	for (size_t end = END_FAILED; end < END_CUT_OFF; end++)
		append(&text, " %s=%llu", end_names[end], ended[end]);
	for (size_t i = 0; i < ALERTS; i++)
		append(&text, " %s=%llu", tls_alert_name(alerts[i]),
		    atomic_load(&status.refused[i]));
	if (report.left_out > 0)
		append(&text, " left-out=%u", report.left_out);
	log_notice("sniproxy: %s", line);
}

/* Logs lines for some of the connections that have had none in this report. Returns whether there
 * are more. */
static bool
report_some(void)
{
	char lines[REPORT_LINES][LINE_SIZE];
	size_t count = 0;
	struct connection *c;
	registry_lock();
	for (c = registry_next(NULL); count < REPORT_LINES && c != NULL;
	     c = registry_next(c)) {
		if (c->report == report.number || c->told)
			continue;
		c->report = report.number;
		report.parked += !connection_keeps_a_thread(c);
		struct text text = {.bytes = lines[count++], .size = LINE_SIZE};
		append_who(&text, c);
		append(&text, "state=%s ", state_names[c->state]);
		append_bytes(&text, c);
	}
	registry_unlock();
	for (size_t i = 0; i < count; i++)
		/* Who has waited for the log's reader in vain does not wait again. */
		if (report.left_out > 0 || !log_report("%s", lines[i]))
			report.left_out++;
	return c != NULL;
}

void
status_begin_report(void)
{
	report.number++;
	report.parked = report.left_out = 0;
}

bool
status_go_on_reporting(void)
{
	int64_t end_ms = clock_ms() + REPORT_MS;
	while (report_some())
		if (clock_ms() >= end_ms)
			return true;
	log_totals();
	return false;
}

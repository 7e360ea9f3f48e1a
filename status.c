#include "status.h"

#include "clock.h"
#include "log.h"

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
enum { ALERTS = sizeof alerts / sizeof *alerts };

static const char *const end_names[STATUS_ENDS] = {
    [STATUS_FAILED] = "failed",
    [STATUS_CLOSED] = "closed",
    [STATUS_BACKEND_CLOSED] = "backend-closed",
    [STATUS_BACKEND_RESET] = "backend-reset",
    [STATUS_CLIENT_RESET] = "client-reset",
    [STATUS_CLIENT_TIMEOUT] = "client-timeout",
    [STATUS_REFUSED] = "refused",
    [STATUS_GAVE_WAY] = "gave-way",
    [STATUS_TURNED_AWAY] = "turned-away",
    [STATUS_CUT_OFF] = "cut-off",
};

static struct {
	/* Set before there are threads. */
	bool logs_connections;
	int64_t began_ms;

	atomic_ullong accepted;
	atomic_ullong routed;
	atomic_ullong ended[STATUS_ENDS];
	atomic_ullong refused[ALERTS];
} status;

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

bool
status_logs_connections(void)
{
	return status.logs_connections;
}

void
status_accepted(void)
{
	atomic_fetch_add(&status.accepted, 1);
}

void
status_routed(void)
{
	atomic_fetch_add(&status.routed, 1);
}

void
status_ended(enum status_end end, enum tls_alert alert)
{
	for (size_t i = 0; end == STATUS_REFUSED && i < ALERTS; i++)
		if (alerts[i] == alert)
			atomic_fetch_add(&status.refused[i], 1);
	atomic_fetch_add(&status.ended[end], 1);
}

static void
append_seconds(struct text *text, int64_t ms)
{
	append(text, "seconds=%lld.%03d", (long long)(ms / 1000), (int)(ms % 1000));
}

static void
append_who(struct text *text, const struct status_connection *connection)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, connection->peer);
	append(text, "client=%s name=%s ", client,
	    connection->name[0] == '\0' ? "-" : connection->name);
}

static void
append_bytes(struct text *text, const struct status_connection *connection)
{
	append(text, " up=%llu down=%llu", (unsigned long long)connection->up,
	    (unsigned long long)connection->down);
}

void
status_open_line(char line[STATUS_LINE_SIZE], const struct status_connection *connection,
    const char *state)
{
	struct text text = {.size = STATUS_LINE_SIZE};
	text.bytes = line;
	append_who(&text, connection);
	append(&text, "state=%s ", state);
	append_seconds(&text, connection->age_ms);
	append_bytes(&text, connection);
}

void
status_end_line(char line[STATUS_LINE_SIZE], const struct status_connection *connection,
    enum status_end end, enum tls_alert alert)
{
	struct text text = {.size = STATUS_LINE_SIZE};
	text.bytes = line;
	append_who(&text, connection);
	append_seconds(&text, connection->age_ms);
	append_bytes(&text, connection);
	append(&text, " end=%s", end_names[end]);
	if (end == STATUS_REFUSED)
		append(&text, " alert=%s", tls_alert_name(alert));
}

/* How many are open is what adds up: each is counted when it ends, after it was when it
 * was accepted. */
void
status_log_totals(const struct status_moment *moment)
{
	char line[LOG_LINE_MAX];
	unsigned long long ended[STATUS_ENDS], ended_sum = 0;
	struct text text = {.bytes = line, .size = sizeof line};
	for (size_t end = 0; end < STATUS_ENDS; end++)
		ended_sum += ended[end] = atomic_load(&status.ended[end]);
	unsigned long long accepted = atomic_load(&status.accepted);

	append_seconds(&text, clock_ms() - status.began_ms);
	append(&text, " accepted=%llu routed=%llu open=%llu parked=%u", accepted,
	    atomic_load(&status.routed), accepted - ended_sum, moment->parked);
	append(&text, " threads=%u descriptors=%u", moment->threads, moment->descriptors);
	for (size_t end = 0; end < STATUS_CUT_OFF; end++)
		append(&text, " %s=%llu", end_names[end], ended[end]);
	for (size_t i = 0; i < ALERTS; i++)
		append(&text, " %s=%llu", tls_alert_name(alerts[i]),
		    atomic_load(&status.refused[i]));
	if (moment->left_out > 0)
		append(&text, " left-out=%u", moment->left_out);
	log_notice("sniproxy: %s", line);
}

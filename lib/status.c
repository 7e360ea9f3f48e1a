#include "lib/status.h"

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/thread.h"

#include <stdatomic.h>
#include <stdio.h>

enum {
	/* The main thread, the log's, and the one that watches idle connections. */
	OWN_THREADS = 3,
};

static const char *const end_names[CONNECTION_ENDS] = {
    [END_FAILED] = "failed",
    [END_SILENT] = "silent",
    [END_CLOSED] = "closed",
    [END_BACKEND_CLOSED] = "backend-closed",
    [END_BACKEND_RESET] = "backend-reset",
    [END_CLIENT_RESET] = "client-reset",
    [END_CLIENT_TIMEOUT] = "client-timeout",
    [END_REJECTED] = "rejected",
    [END_EVICTED] = "evicted",
    [END_CUT_OFF] = "cut-off",
};

static struct {
	/* Set before any thread starts. */
	bool logs_connections;
	int64_t began_ms;

	atomic_ullong events[STATUS_EVENTS];
	atomic_ullong ended[CONNECTION_ENDS];
	atomic_ullong rejected[TLS_UNRECOGNIZED_NAME + 1]; /* by alert */
} status;

static const char *const evicted_names[TABLE_EVICTED_KINDS] = {
    [CONNECTION_HELLO] = "hello",
    [CONNECTION_CONNECTING] = "connecting",
    [CONNECTION_RELAYING] = "stalled",
    [CONNECTION_CLOSING] = "closing",
    [TABLE_IDLE] = "idle",
};

void
status_begin(bool logs_connections)
{
	status.logs_connections = logs_connections;
	status.began_ms = clock_ms();
}

void
status_count(enum status_event event)
{
	atomic_fetch_add(&status.events[event], 1);
}

static void
log_end(const struct connection *c, enum connection_end end)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	int64_t ms = clock_ms() - c->accepted_ms;
	unsigned long long up = c->relay.backend.taken, down = c->relay.client.taken;
	bool is_rejected = end == END_REJECTED;
	const char *special = table_special_host(c);
	char id[TABLE_ID_SIZE];
	table_id(id, c);
	address_endpoint(client, &c->peer);
	log_line(LOG_END, "client=%s name=%s%s%s%s seconds=%lld.%03d up=%llu down=%llu end=%s%s%s",
	    client, table_name(c), special != NULL ? " host=" : "", special != NULL ? special : "",
	    id, (long long)ms / 1000, (int)(ms % 1000),
	    c->state >= CONNECTION_RELAYING && up > c->header_length ? up - c->header_length : 0,
	    down, end_names[end], is_rejected ? " alert=" : "",
	    is_rejected ? tls_alert_name(c->alert) : "");
}

void
status_ended(const struct connection *c, enum connection_end end)
{
	if (end == END_REJECTED)
		atomic_fetch_add(&status.rejected[c->alert], 1);
	atomic_fetch_add(&status.ended[end], 1);
	if (status.logs_connections && c != NULL)
		log_end(c, end);
}

/* Reads the counts of ended connections before that of accepted ones, so that open= is never
 * negative. */
void
status_report(void)
{
	char line[LOG_LINE_MAX] = "";
	unsigned long long ended[CONNECTION_ENDS], ended_sum = 0;
	for (size_t end = 0; end < CONNECTION_ENDS; end++)
		ended_sum += ended[end] = atomic_load(&status.ended[end]);
	unsigned long long accepted = status.events[STATUS_ACCEPTED];
	struct table_counts counts = table_count();
	int64_t ms = clock_ms() - status.began_ms;

	FILE *text = fmemopen(line, sizeof line, "w");
	if (text == NULL)
		return;
	fprintf(text, "seconds=%lld.%03d accepted=%llu routed=%llu open=%llu parked=%u",
	    (long long)ms / 1000, (int)(ms % 1000), accepted,
	    atomic_load(&status.events[STATUS_ROUTED]), accepted - ended_sum, counts.parked);
	fprintf(text, " threads=%u", thread_count().threads + OWN_THREADS);
	for (size_t end = END_FAILED; end < END_CUT_OFF; end++)
		fprintf(text, " %s=%llu", end_names[end], ended[end]);
	for (size_t i = 0; i < TABLE_EVICTED_KINDS; i++)
		fprintf(text, " evicted-%s=%u", evicted_names[i], counts.evicted[i]);
	for (size_t i = 0; i < TLS_ALERTS; i++)
		fprintf(text, " %s=%llu", tls_alert_names[i].name,
		    atomic_load(&status.rejected[tls_alert_names[i].alert]));
	fclose(text);
	log_line(LOG_PROGRAM, "sniproxy: %s", line);
}

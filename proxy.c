#include "proxy.h"

#include "lib/backend.h"
#include "lib/clock.h"
#include "lib/hostname.h"
#include "lib/idle.h"
#include "lib/log.h"
#include "lib/proxy_protocol.h"
#include "lib/status.h"
#include "lib/thread.h"
#include "system/system.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	/* Maximum wait in a hello or a lingering close before the connection is parked. While slots
	 * are short, there is no wait there, and this is the maximum in the relay. */
	MOMENT_MS = 10,

	/* Delay before another attempt to connect: the first one, and the maximum. */
	RETRY_FIRST_MS = 1,
	RETRY_MOST_MS = 50,
	RETRY_FACTOR = 7,

	/* Maximum number of bytes read in a lingering close. */
	LINGER_BYTES = 8 * 1024 * 1024,

	HELLOS_SHARE = 16,            /* see hellos_max */
	HELLO_BUFFER_SIZE = 4 * 1024, /* most hellos fit; for others it grows */
};

/* The ALPN protocol of a client that validates a name for a certificate (RFC 8737, 3). */
#define ACME_PROTOCOL "acme-tls/1"

/* Log text for a host directory whose file system hangs. */
#define HANGS "does not answer"

/* The received part of a hello: START to END. Before START there is room for a PROXY header. */
struct hello {
	struct tls_hello tls;
	uint8_t *bytes;
	size_t start, end, size;
	size_t memory; /* its part of hellos_max */
};

/* The result of a step in a connection's life: what to do next. */
enum step {
	STEP_NEXT,  /* the next step */
	STEP_QUIET, /* park the connection; repeat the step when something happens */
	STEP_OVER,  /* the lingering close if CONNECTION_CLOSING, otherwise the end */
	STEP_LOST,  /* nothing: the connection was taken from this thread */
};

/* Set before any thread starts. */
static int hosts_directory;
static struct network_list balancers;

/* Maximum memory for all hellos in bytes, besides the first buffer of each. A hello that would
 * exceed it gets internal_error. While half is in use, one address may use one byte in
 * HELLOS_SHARE. */
static size_t hellos_max;

static atomic_size_t hellos_memory; /* in use */

/* The parts of unique IDs: when this program started, and the number of the next header. */
static uint64_t start_ns;
static atomic_ullong headers;

/* --- How a connection ends --- */

/* Logs that WHAT has failed for C, and WHY. */
static void
log_failure(const struct connection *c, const char *what, const char *why)
{
	char client[ADDRESS_ENDPOINT_SIZE], id[TABLE_ID_SIZE];
	const char *name = table_name(c), *special = table_special_host(c);
	address_endpoint(client, &c->peer);
	table_id(id, c);
	log_line(*name == '-' && special == NULL ? LOG_CLIENT : LOG_HOST, "%s %s%s%s%s%s: %s: %s",
	    client, name, special != NULL ? " (" : "", special != NULL ? special : "",
	    special != NULL ? ")" : "", id, what, why);
}

static enum step
end_as(struct connection *c, enum connection_end end)
{
	c->end = end;
	return STEP_OVER;
}

static enum step
fail(struct connection *c, const char *call, int error)
{
	log_failure(c, call, strerror(error));
	return end_as(c, END_FAILED);
}

/* Ends C because its client's connection failed, with ERROR or, if that is 0, with SO_ERROR. */
static enum step
fail_client(struct connection *c, int error)
{
	socklen_t size = sizeof error;
	if (error == 0)
		getsockopt(c->relay.client.socket, SOL_SOCKET, SO_ERROR, &error, &size);
	log_failure(c, "client", strerror(error != 0 ? error : ECONNRESET));
	return end_as(c, error == ETIMEDOUT ? END_CLIENT_TIMEOUT : END_CLIENT_RESET);
}

/* Whether another thread has asked this one to end C. */
static bool
is_stopped(const struct connection *c)
{
	return atomic_load_explicit(&c->relay.stop, memory_order_relaxed);
}

/* Ends C, which was evicted: with a reset, unless the client was already sent everything. */
static enum step
end_evicted(struct connection *c)
{
	if (c->state == CONNECTION_CLOSING)
		return STEP_OVER;
	c->resets = true;
	return end_as(c, END_EVICTED);
}

static void
release_hello(void *connection)
{
	struct connection *c = connection;
	struct hello *h = c->hello;
	if (h == NULL)
		return;
	tls_hello_release(&h->tls);
	free(h->bytes);
	atomic_fetch_sub(&hellos_memory, h->memory);
	atomic_fetch_sub(&c->address->memory, h->memory);
	free(h);
	c->hello = NULL;
}

/* Sends ALERT and half-closes. Logs WHAT and WHY, unless WHAT is NULL. */
static enum step
reject(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	uint8_t record[TLS_ALERT_SIZE];
	release_hello(c);
	tls_alert_record(record, alert);
	send(c->relay.client.socket, record, sizeof record, MSG_NOSIGNAL);
	shutdown(c->relay.client.socket, SHUT_WR);
	if (what != NULL)
		log_failure(c, what, why);
	c->alert = alert;
	table_set_state(c, CONNECTION_CLOSING);
	return end_as(c, END_REJECTED);
}

/* Rejects what the client sent. The log line names the alert. */
static enum step
reject_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	return reject(c, alert, tls_alert_name(alert), why);
}

/* --- The hello --- */

/* Allocates or doubles the buffer for C's hello, if HELLOS_MAX allows it. The longest hello has
 * records of one byte each: six times TLS_HELLO_MAX bytes. The joined message takes at most twice
 * the buffer's size. */
static bool
grow_hello(struct connection *c)
{
	struct hello *h = c->hello != NULL ? c->hello : calloc(1, sizeof *h);
	if (h == NULL)
		return false;
	c->hello = h;
	bool is_first = h->bytes == NULL;
	size_t size = is_first ? HELLO_BUFFER_SIZE : 2 * h->size;
	size_t needed = is_first ? 0 : 3 * size;
	size_t more = needed - h->memory;
	size_t others = atomic_fetch_add(&hellos_memory, more) - h->memory;
	size_t of_address = atomic_fetch_add(&c->address->memory, more) + more;
	h->memory = needed;
	bool fits = others + needed <= hellos_max &&
	    (others <= hellos_max / 2 || of_address <= hellos_max / HELLOS_SHARE);
	uint8_t *bytes = fits ? realloc(h->bytes, size) : NULL;
	if (bytes == NULL)
		return false;
	if (is_first)
		h->start = h->end = PROXY_PROTOCOL_WRITTEN_MAX;
	h->bytes = bytes;
	h->size = size;
	return true;
}

/* Removes the balancer's PROXY header from the received bytes, and takes the addresses from it. */
static enum step
read_proxy_header(struct connection *c)
{
	struct proxy_protocol_header header;
	struct hello *h = c->hello;
	switch (proxy_protocol_read(&header, h->bytes + h->start, h->end - h->start)) {
	case PROXY_PROTOCOL_INCOMPLETE:
		return STEP_QUIET;
	case PROXY_PROTOCOL_REFUSED:
		return reject(c, TLS_INTERNAL_ERROR, "PROXY header", header.reason);
	default:
		break;
	}
	h->start += header.length;
	c->awaits_header = false;
	if (header.has_addresses) {
		c->server = header.server;
		atomic_fetch_sub(&c->address->memory, h->memory);
		table_set_client(c, &header.client);
		atomic_fetch_add(&c->address->memory, h->memory);
	}
	return table_rejects(c) ? end_evicted(c) : STEP_NEXT;
}

/* Finds the name in the complete hello. There may be none: then its reason is kept. */
static enum step
read_name(struct connection *c)
{
	const uint8_t *sent;
	size_t length;
	char name[HOSTNAME_SIZE] = "";
	struct tls_hello *tls = &c->hello->tls;
	enum tls_status status = tls_hello_server_name(tls, &sent, &length);
	if (status == TLS_REFUSED && tls->alert != TLS_UNRECOGNIZED_NAME)
		return reject_hello(c, tls->alert, tls->reason);
	if (status == TLS_OK && !hostname_canonical(name, sent, length))
		return reject_hello(c, TLS_UNRECOGNIZED_NAME, "not a valid name");
	if (!table_set_name(c, name))
		return reject(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
	return STEP_NEXT;
}

/* Parses the received bytes, of which the last LENGTH are new. Returns STEP_QUIET if more are
 * needed. */
static enum step
parse(struct connection *c, size_t length)
{
	struct hello *h = c->hello;
	size_t from = h->end - length;
	enum step step = c->awaits_header ? read_proxy_header(c) : STEP_NEXT;
	if (step != STEP_NEXT)
		return step;
	if (from < h->start) /* the header ended among the new bytes */
		from = h->start;
	switch (tls_hello_feed(&h->tls, h->bytes + from, h->end - from)) {
	case TLS_INCOMPLETE:
		return STEP_QUIET;
	case TLS_REFUSED:
		return reject_hello(c, h->tls.alert, h->tls.reason);
	default:
		return read_name(c);
	}
}

/* Whether C has sent nothing, as health checks and port scans do. No failure is logged then. */
static bool
is_silent(const struct connection *c)
{
	return c->hello->start == c->hello->end;
}

/* Ends C because the stream ended inside the hello or, if ERROR is not 0, the connection failed. */
static enum step
end_in_hello(struct connection *c, int error)
{
	if (is_silent(c))
		return end_as(c, END_SILENT);
	if (error != 0)
		return fail_client(c, error);
	if (c->awaits_header)
		return reject(c, TLS_INTERNAL_ERROR, "PROXY header", "end of stream inside it");
	return reject_hello(c, TLS_DECODE_ERROR, "end of stream inside the ClientHello");
}

/* Ends C because the deadline for the hello has passed. */
static enum step
end_late(struct connection *c)
{
	if (is_silent(c))
		return reject(c, TLS_USER_CANCELED, NULL, NULL);
	if (c->awaits_header)
		return reject(c, TLS_INTERNAL_ERROR, "PROXY header", "none in time");
	return reject_hello(c, TLS_USER_CANCELED, "no ClientHello in time");
}

/* Returns how long a thread waits in a hello or a lingering close, with LEFT_MS left, before it
 * parks C. */
static int
moment_ms(int left_ms)
{
	if (table_is_short())
		return 0;
	return left_ms < MOMENT_MS ? left_ms : MOMENT_MS;
}

/* Waits up to MS milliseconds for EVENTS on the client's socket. Returns whether there were any. */
static bool
wait_for_client(const struct connection *c, short events, int ms)
{
	struct pollfd client = {.fd = c->relay.client.socket, .events = events};
	return poll(&client, 1, ms) == 1;
}

/* Reads records until the ClientHello is complete, and finds the name in it. */
static enum step
read_hello(struct connection *c)
{
	enum step step = STEP_QUIET;
	while (step == STEP_QUIET) {
		int left_ms = clock_left_ms(c->accepted_ms + TABLE_HELLO_MS);
		struct hello *h = c->hello;
		if ((h == NULL || h->end == h->size) && !grow_hello(c))
			return reject(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
		h = c->hello;
		ssize_t n = recv(c->relay.client.socket, h->bytes + h->end, h->size - h->end, 0);
		int error = n == -1 ? errno : 0;
		h->end += n > 0 ? (size_t)n : 0;
		if (left_ms == 0)
			return end_late(c);
		if (n > 0) {
			step = parse(c, (size_t)n);
		} else if (error != EAGAIN && error != EINTR) {
			return end_in_hello(c, error);
		} else if (!wait_for_client(c, POLLIN, moment_ms(left_ms))) {
			break;
		}
	}
	return step;
}

/* --- The backend --- */

/* Writes the backend's PROXY header of VERSION right before the hello, so that one write sends
 * both. Returns false with errno set if the server's address is unknown. */
static bool
prepend_proxy_header(struct connection *c, unsigned version)
{
	union address server = c->server;
	socklen_t size = sizeof server;
	if (server.any.sa_family == AF_UNSPEC) {
		if (getsockname(c->relay.client.socket, &server.any, &size) == -1)
			return false;
		address_unmap(&server);
	}
	uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX];
	if (version == 1) {
		c->header_length = proxy_protocol_write_v1(header, &c->peer, &server);
	} else {
		struct proxy_protocol_tlvs tlvs = {c->hello->tls.protocol,
		    c->hello->tls.protocol_length, c->name[0] != '\0' ? c->name : NULL, {0}};
		c->id[0] = start_ns;
		c->id[1] = atomic_fetch_add(&headers, 1);
		for (size_t i = 0; i < sizeof tlvs.unique_id; i++)
			tlvs.unique_id[i] = (uint8_t)(c->id[i / 8] >> (56 - i % 8 * 8));
		c->header_length = proxy_protocol_write_v2(header, &c->peer, &server, &tlvs);
	}
	c->hello->start -= c->header_length;
	memcpy(c->hello->bytes + c->hello->start, header, c->header_length);
	return true;
}

/* Looks up the backend in DIRECTORY and connects to it, once. A lookup may hang, and C may be taken
 * from this thread meanwhile, so nothing of C is accessed until it ends. Returns false if C was
 * taken. */
static bool
try_backend(struct connection *c, const char *directory, unsigned kind, struct backend *backend)
{
	struct lookup lookup;
	int error = table_begin_lookup(&lookup, c);
	*backend = (struct backend){.socket = -1, .failed = "host directory", .error = error};
	if (error != 0) {
		snprintf(backend->why, sizeof backend->why, "%s",
		    error == ETIMEDOUT ? HANGS : "too many lookups");
		return true;
	}
	*backend = backend_connect(hosts_directory, directory, kind);
	if (table_end_lookup(&lookup) != NULL)
		return true;
	if (backend->socket != -1)
		close(backend->socket);
	return false;
}

/* Returns whether C shall try again to connect to its host, after that failed as BACKEND says. A
 * host that is down may be restarting, and this is recorded; but no thread waits for it while there
 * are few. */
static bool
plan_retry(struct connection *c, const struct backend *backend)
{
	int error = backend->error;
	if (backend->is_down)
		return !table_is_short() && !thread_is_short() &&
		    table_record_down(c, backend->is_acme);
	return error == EAGAIN || error == EBUSY || error == EINTR || backend_is_short(error);
}

/* Gives BACKEND to C, or rejects C if there is none. */
static enum step
take_backend(struct connection *c, const struct backend *backend)
{
	if (backend->socket == -1)
		return reject(c,
		    backend_is_absent(backend->error) ? TLS_UNRECOGNIZED_NAME : TLS_INTERNAL_ERROR,
		    backend->failed, backend_why(backend));
	c->relay.backend.socket = backend->socket;
	c->socket = backend->failed;
	if (backend->proxy_version > 0 && !prepend_proxy_header(c, backend->proxy_version))
		return reject(c, TLS_INTERNAL_ERROR, "getsockname", strerror(errno));
	table_set_state(c, CONNECTION_RELAYING);
	status_count(STATUS_ROUTED);
	const struct hello *h = c->hello;
	relay_send_first(&c->relay, h->bytes + h->start, h->end - h->start, release_hello, c);
	return STEP_NEXT;
}

/* Waits for MS milliseconds; C counts as blocked meanwhile if its host is the reason. Returns
 * whether the client is still connected. */
static bool
wait_to_retry(struct connection *c, int ms, const struct backend *backend)
{
	relay_set_blocked(&c->relay, backend->error == EAGAIN || backend->is_down);
	bool is_gone = wait_for_client(c, 0, ms);
	relay_set_blocked(&c->relay, false);
	return !is_gone;
}

/* Connects to the backend of HOST, whose clients C is one of. If it may be available later, tries
 * again until the deadline for the hello, unless the client disconnects. Returns STEP_NEXT and sets
 * BACKEND, or ends C. */
static enum step
connect_host(struct connection *c, const char *host, unsigned kind, struct backend *backend)
{
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, host);
	for (int retry_ms = RETRY_FIRST_MS;; retry_ms *= RETRY_FACTOR) {
		if (table_rejects(c))
			return end_evicted(c);
		if (!try_backend(c, directory, kind, backend))
			return STEP_LOST;
		int left_ms = clock_left_ms(c->accepted_ms + TABLE_HELLO_MS);
		if (backend->socket != -1)
			table_forget_down(c, backend->is_acme);
		if (backend->socket != -1 || left_ms == 0 || !plan_retry(c, backend))
			return STEP_NEXT;
		if (retry_ms > RETRY_MOST_MS)
			retry_ms = RETRY_MOST_MS;
		bool is_there = wait_to_retry(c, retry_ms, backend);
		if (is_stopped(c))
			return end_evicted(c);
		if (!is_there)
			return fail_client(c, 0);
	}
}

/* Connects to the backend of C's name or, if that has no directory, to that of a special host. */
static enum step
connect_backend(struct connection *c)
{
	struct backend backend;
	char host[HOSTNAME_SIZE];
	const struct tls_hello *tls = &c->hello->tls;
	bool is_acme = tls->protocols == 1 && tls->protocol_length == strlen(ACME_PROTOCOL) &&
	    memcmp(tls->protocol, ACME_PROTOCOL, strlen(ACME_PROTOCOL)) == 0;
	snprintf(host, sizeof host, "%s", c->name[0] != '\0' ? c->name : HOSTNAME_NO_SNI);
	do {
		unsigned kind = (is_acme ? BACKEND_ACME : 0) |
		    (hostname_is_special(host) ? BACKEND_SPECIAL : 0);
		if (!table_set_host(c, host))
			return reject(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
		enum step step = connect_host(c, host, kind, &backend);
		if (step != STEP_NEXT)
			return step;
		if (!backend.is_missing)
			return take_backend(c, &backend);
		if (backend.why[0] != '\0')
			log_failure(c, backend.failed, backend.why);
	} while (hostname_next(host));
	table_set_host(c, c->name);
	if (c->name[0] == '\0')
		return reject_hello(c, TLS_UNRECOGNIZED_NAME, tls->reason);
	return reject(c, TLS_UNRECOGNIZED_NAME, "host directory", strerror(ENOENT));
}

/* --- The relay --- */

/* Ends C because the backend is gone. The client may still be receiving, so C lingers. */
static enum step
end_backend(struct connection *c)
{
	int error = c->relay.backend.error;
	if (error == 0 || error == EPIPE) {
		end_as(c, END_BACKEND_CLOSED);
	} else {
		log_failure(c, c->socket, strerror(error));
		end_as(c, error == ECONNRESET ? END_BACKEND_RESET : END_FAILED);
	}
	table_set_state(c, CONNECTION_CLOSING);
	return STEP_OVER;
}

/* Relays both directions until both have ended. */
static enum step
relay(struct connection *c)
{
	enum relay_end outcome = relay_run(&c->relay);
	if (is_stopped(c)) /* its shutdown(2) looks like another end */
		return end_evicted(c);
	switch (outcome) {
	case RELAY_QUIET:
		return STEP_QUIET;
	case RELAY_CLOSED:
		return end_as(c, END_CLOSED);
	case RELAY_CLIENT_GONE:
		return fail_client(c, c->relay.client.error);
	case RELAY_BACKEND_GONE:
		return end_backend(c);
	case RELAY_STALLED: /* names the side that has not hung up */
		return c->relay.client.deaf ? fail(c, c->socket, ETIMEDOUT)
					    : fail_client(c, ETIMEDOUT);
	default:
		return fail(c, "relay", errno);
	}
}

/* --- The lingering close --- */

/* Discards what the client sends, until it closes or the time is over. A close(2) with unread bytes
 * makes the kernel send a reset, which destroys what the client has not received yet (RFC 1122,
 * 4.2.2.13). A client that still sends when the time is over is reset: after shutdown(2) the kernel
 * no longer opens the receive window, and the client would wait forever. */
static enum step
linger(struct connection *c)
{
	uint8_t buffer[RELAY_BUFFER_SIZE];
	for (;;) {
		int left_ms = clock_left_ms(c->since_ms + TABLE_LINGER_MS);
		if (!wait_for_client(c, POLLIN, moment_ms(left_ms)))
			return left_ms > 0 ? STEP_QUIET : STEP_OVER;
		ssize_t n = recv(c->relay.client.socket, buffer, sizeof buffer, 0);
		if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR))
			return STEP_OVER;
		c->dropped += n > 0 ? (size_t)n : 0;
		c->resets = left_ms == 0 || c->dropped > LINGER_BYTES;
		if (c->resets)
			return STEP_OVER;
	}
}

/* --- A connection's life --- */

/* Closes the backend's socket. That may last, so C counts as blocked meanwhile. */
static void
close_backend(struct connection *c)
{
	relay_set_blocked(&c->relay, true);
	thread_mark_call();
	close(c->relay.backend.socket);
	thread_mark_call();
	relay_set_blocked(&c->relay, false);
}

/* Ends C: removes it from the table, closes its sockets and frees it. */
static void
end(struct connection *c)
{
	const struct linger at_once = {.l_onoff = 1};
	table_remove(c);
	status_ended(c, c->end);
	if (c->relay.backend.socket != -1)
		close_backend(c);
	if (c->resets)
		setsockopt(c->relay.client.socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(c->relay.client.socket);
	release_hello(c);
	table_free(c);
}

static void
park(struct connection *c)
{
	if (idle_park(c))
		return;
	if (c->end == END_OPEN)
		fail(c, system_watch_call, errno);
	end(c);
}

void
proxy_serve(struct connection *c)
{
	enum step step = STEP_NEXT;
	if (c->state == CONNECTION_CONNECTING) { /* taken from a thread whose lookup hangs */
		step = reject(c, TLS_INTERNAL_ERROR, "host directory", HANGS);
	} else if (c->state == CONNECTION_HELLO) {
		step = read_hello(c);
		if (step == STEP_NEXT)
			step = connect_backend(c);
	}
	if (step == STEP_NEXT && c->state == CONNECTION_RELAYING)
		step = relay(c);
	if (step == STEP_LOST)
		return;
	if (step != STEP_QUIET && c->state == CONNECTION_CLOSING)
		step = linger(c);
	if (step == STEP_QUIET)
		park(c);
	else
		end(c);
}

/* If slots or threads are short, a shorter time shows sooner which connections are blocked. */
int
proxy_quiet_ms(void)
{
	int ms = atomic_load_explicit(&thread_quiet_ms, memory_order_relaxed);
	return table_is_short() && ms > MOMENT_MS ? MOMENT_MS : ms;
}

void
proxy_end_evicted(struct connection *c)
{
	end_evicted(c);
	end(c);
}

void
proxy_accept(int client, const union address *peer)
{
	struct connection *c = table_enter(client, peer);
	status_count(STATUS_ACCEPTED);
	if (c == NULL) {
		status_ended(NULL, END_FAILED);
		close(client);
		return;
	}
	c->awaits_header = network_list_has(&balancers, peer);
	if (!c->awaits_header && table_rejects(c))
		proxy_end_evicted(c);
	else if ((table_is_short() && !system_has_unread(client)) || !thread_spawn(c, false))
		park(c); /* it gets a thread with its first bytes */
}

void
proxy_prepare(int directory, struct network_list from, size_t hellos)
{
	struct timespec now;
	hosts_directory = directory;
	balancers = from;
	hellos_max = hellos;
	clock_gettime(CLOCK_REALTIME, &now);
	start_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#include "proxy.h"

#include "clock.h"
#include "hostname.h"
#include "log.h"
#include "relay.h"
#include "tls.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* Most hellos fit; for others it grows. */
	FIRST_BUFFER_SIZE = 4 * 1024,
	LARGE_HELLO = 16 * 1024,

	/* A backend that has no room for one more connection is asked again after pauses
	 * that grow from the first of these to the second. Nothing tells when it has.
	 * All that wait together ask about once a millisecond, up to where the pauses are
	 * longest. */
	RETRY_MIN_MS = 10,
	RETRY_MAX_MS = 250,

	/* How long and for how many bytes a client that gets nothing more is listened
	 * to. */
	LINGER_MS = 5 * 1000,
	LINGER_BYTES = 8 * 1024 * 1024,

	/* How long a client may take nothing of what the backend sent before it was gone:
	 * with it went the one that would have given up on that client. */
	LAST_BYTES_MS = 30 * 1000,
};

/* How many bytes of PROXY_MEMORY_MAX the connections have. */
static atomic_size_t memory;

/* How many connections wait for room in a backend's backlog. */
static atomic_int waiting;

/* Counts what C holds now. */
static void
count_memory(struct connection *c)
{
	size_t held = relay_size(&c->relay);
	if (c->received.capacity > FIRST_BUFFER_SIZE)
		held += c->received.capacity + tls_hello_size(&c->hello);
	if (held != c->memory)
		atomic_fetch_add(&memory, held - c->memory);
	c->memory = held;
}

/* Whether a hello may have SIZE bytes for what has arrived of it. The message that is made
 * of that needs as much again at most. */
static bool
may_have(const struct connection *c, size_t size)
{
	size_t limit = size > LARGE_HELLO ? PROXY_MEMORY_MAX / 2 : PROXY_MEMORY_MAX;
	return size <= FIRST_BUFFER_SIZE ||
	    atomic_load(&memory) - c->memory + 2 * size <= limit;
}

static void
log_failure(const struct connection *c, const char *what, const char *why)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, &c->peer);
	log_line("%s %s: %s: %s", client, c->name[0] == '\0' ? "-" : c->name, what, why);
}

/* The same where the client's connection has failed with ERROR. */
static void
note_client_failure(struct connection *c, int error)
{
	c->end = error == ETIMEDOUT ? STATUS_CLIENT_TIMEOUT : STATUS_CLIENT_RESET;
	log_failure(c, "client", strerror(error));
}

/* How many milliseconds are left to get a backend. */
static int
hello_left_ms(const struct connection *c)
{
	return clock_left_ms(c->accepted_ms + PROXY_HELLO_MS);
}

/* How many bytes the kernel has that the other end of SOCKET has not taken yet. */
static int
untaken(int socket)
{
	int bytes = 0;
	ioctl(socket, TIOCOUTQ, &bytes); /* another name of SIOCOUTQ: tcp(7), unix(7) */
	return bytes;
}

/* Whether the client still takes what the backend sent before it was gone. To be asked again
 * after LINGER_MS. */
static bool
is_receiving(struct connection *c)
{
	int64_t now_ms = clock_ms();
	int64_t taken = (int64_t)c->relay.download.written - untaken(c->client);
	if (c->progress_ms == 0 || taken != c->taken)
		c->progress_ms = now_ms;
	c->taken = taken;
	c->deadline_ms = now_ms + LINGER_MS;
	return now_ms - c->progress_ms < LAST_BYTES_MS;
}

static enum proxy_status
begin_linger(struct connection *c, bool patient)
{
	relay_release(&c->relay);
	tls_hello_release(&c->hello);
	relay_buffer_release(&c->received);
	if (c->backend != -1)
		close(c->backend);
	c->backend = -1;
	shutdown(c->client, SHUT_WR);
	c->phase = PROXY_LINGER;
	c->patient = patient;
	c->deadline_ms = clock_ms() + LINGER_MS;
	return PROXY_GOES_ON;
}

/* Reads and drops until the client has closed: to close with unread bytes makes the
 * kernel send a reset, and that destroys what the client has not received yet (RFC 1122,
 * 4.2.2.13). Where that is more than an alert, a patient proxy goes on for as long as the
 * client receives. */
static enum proxy_status
linger(struct connection *c, struct relay_room *room)
{
	while (c->dropped < LINGER_BYTES) {
		ssize_t length = recv(c->client, room->bytes, sizeof room->bytes, 0);
		if (length == -1 && errno == EAGAIN)
			break;
		if (length <= 0)
			return PROXY_OVER;
		c->dropped += length;
	}
	if (c->dropped >= LINGER_BYTES)
		return PROXY_OVER;
	if (clock_left_ms(c->deadline_ms) > 0)
		return PROXY_WAITS;
	if (!c->patient || untaken(c->client) == 0)
		return PROXY_OVER;
	if (is_receiving(c))
		return PROXY_WAITS;
	c->end = STATUS_CLIENT_TIMEOUT;
	return PROXY_OVER;
}

static void
send_alert(const struct connection *c, enum tls_alert alert)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_record(record, alert);
	send(c->client, record, sizeof record, MSG_NOSIGNAL);
}

/* Tells the client and the log why there is nothing for it. */
static enum proxy_status
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	send_alert(c, alert);
	c->end = STATUS_REFUSED;
	c->alert = alert;
	log_failure(c, what, why);
	return begin_linger(c, false);
}

/* The same, where what the client sent is to blame. */
static enum proxy_status
refuse_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	return refuse(c, alert, tls_alert_name(alert), why);
}

/* Takes the name from the hello, and no more of it is needed then. */
static enum proxy_status
read_name(struct connection *c)
{
	const uint8_t *name;
	size_t length;
	if (tls_hello_server_name(&c->hello, &name, &length) != TLS_OK)
		return refuse_hello(c, c->hello.alert, c->hello.reason);
	if (!hostname_canonical(c->name, name, length)) {
		c->name[0] = '\0'; /* what is not valid is not logged */
		return refuse_hello(c, TLS_UNRECOGNIZED_NAME, "not a valid name");
	}
	tls_hello_release(&c->hello);
	c->phase = PROXY_BACKEND;
	return PROXY_BLOCKS;
}

/* Makes room for more of the hello. What has arrived bounds it: a hello whose records
 * hold a byte each is TLS_HELLO_MAX times the six bytes of such a record long. */
static bool
grow(struct connection *c)
{
	struct relay_buffer *buffer = &c->received;
	size_t capacity =
	    buffer->capacity == 0 ? FIRST_BUFFER_SIZE : 2 * buffer->capacity;
	uint8_t *bytes = may_have(c, capacity) ? realloc(buffer->bytes, capacity) : NULL;
	if (bytes == NULL)
		return false;
	if (buffer->capacity ==
	    0) /* a PROXY header may have to go before the first byte */
		buffer->start = buffer->end = BACKEND_PROXY_HEADER_SIZE;
	buffer->bytes = bytes;
	buffer->capacity = capacity;
	return true;
}

/* Reads what there is of the ClientHello. */
static enum proxy_status
read_hello(struct connection *c)
{
	struct relay_buffer *received = &c->received;
	enum tls_status status = TLS_INCOMPLETE;
	while (status == TLS_INCOMPLETE) {
		if (hello_left_ms(c) == 0)
			return refuse_hello(
			    c, TLS_USER_CANCELED, "no ClientHello in time");
		if (received->end == received->capacity && !grow(c))
			return refuse(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
		uint8_t *bytes = received->bytes + received->end;
		ssize_t length =
		    recv(c->client, bytes, received->capacity - received->end, 0);
		if (length == -1 && errno == EAGAIN)
			return PROXY_WAITS;
		if (length == -1) {
			note_client_failure(c, errno);
			return PROXY_OVER;
		}
		if (length == 0)
			return refuse_hello(
			    c, TLS_DECODE_ERROR, "end of stream inside the ClientHello");
		received->end += (size_t)length;
		status = tls_hello_feed(&c->hello, bytes, (size_t)length);
	}
	if (status == TLS_REFUSED)
		return refuse_hello(c, c->hello.alert, c->hello.reason);
	return read_name(c);
}

/* Which alert tells the client that there is no backend: those that mean that the name is
 * not served here, or that something broke. */
static enum tls_alert
alert_for(int error)
{
	switch (error) {
	case EACCES:
	case ECONNREFUSED:
	case ELOOP:
	case ENOENT:
	case ENOTDIR:
	case EPERM:
	case EPROTOTYPE:
		return TLS_UNRECOGNIZED_NAME;
	default:
		return TLS_INTERNAL_ERROR;
	}
}

/* Puts the PROXY header into the room before the first byte, so that both go out at once.
 * Returns false with errno set where it cannot be known. */
static bool
prepend_proxy_header(struct connection *c)
{
	union address local = {.any.sa_family = AF_UNSPEC};
	socklen_t size = sizeof local;
	if (getsockname(c->client, &local.any, &size) == -1)
		return false;
	address_unmap(&local);
	char header[BACKEND_PROXY_HEADER_SIZE];
	size_t length = backend_proxy_header(header, &c->peer, &local);
	c->header_length = length;
	c->received.start -= length;
	memcpy(c->received.bytes + c->received.start, header, length);
	return true;
}

/* Sets the deadline after which to ask the backend again. Returns false where it is too
 * late for that. */
static bool
may_ask_again(struct connection *c)
{
	int left_ms = hello_left_ms(c);
	if (left_ms == 0)
		return false;
	if (c->retry_ms == 0)
		atomic_fetch_add(&waiting, 1);
	c->retry_ms += c->retry_ms / 4 + RETRY_MIN_MS;
	if (c->retry_ms < atomic_load(&waiting))
		c->retry_ms = atomic_load(&waiting);
	if (c->retry_ms > RETRY_MAX_MS)
		c->retry_ms = RETRY_MAX_MS;
	c->deadline_ms = clock_ms() + (c->retry_ms < left_ms ? c->retry_ms : left_ms);
	return true;
}

/* Notes that C does not wait for room any more, if it did. */
static void
ask_no_more(struct connection *c)
{
	if (c->retry_ms > 0)
		atomic_fetch_sub(&waiting, 1);
	c->retry_ms = 0;
}

static enum proxy_status
find_backend(struct connection *c, struct backend_hosts *hosts)
{
	char directory[HOSTNAME_SIZE];
	if ((c->client_events & EPOLLERR) != 0) {
		c->end = STATUS_CLIENT_RESET;
		return PROXY_OVER; /* nobody waits for it any more */
	}
	if (c->retry_ms > 0 && clock_left_ms(c->deadline_ms) > 0)
		return PROXY_WAITS;
	hostname_directory(directory, c->name);
	struct backend backend = backend_connect(hosts, directory);
	if (backend.socket == -1 && backend_may_recover(backend.error) &&
	    may_ask_again(c))
		return PROXY_WAITS;
	bool waited = c->retry_ms > 0;
	ask_no_more(c);
	c->backend = backend.socket;
	c->deadline_ms = 0;
	if (backend.socket == -1)
		return refuse(c, alert_for(backend.error), backend.failed,
		    backend.error == EAGAIN ? "did not accept in time"
					    : strerror(backend.error));
	if (backend.send_proxy_v1 && !prepend_proxy_header(c))
		return refuse(c, TLS_INTERNAL_ERROR, "getsockname", strerror(errno));

	/* All that the client had sent was read with the hello, unless its buffer is full,
	 * or more came while the backend had no room. */
	uint32_t events = c->client_events & ~(uint32_t)EPOLLIN;
	if (c->received.end == c->received.capacity || waited)
		events |= EPOLLIN;
	status_routed();
	relay_begin(&c->relay, c->client, c->backend, &c->received, events);
	c->phase = PROXY_RELAY;
	return PROXY_GOES_ON;
}

static enum proxy_status
end_relay(struct connection *c)
{
	int error = c->relay.error;
	if (c->relay.end == RELAY_ENDED)
		c->end = STATUS_CLOSED;
	else if (c->relay.end == RELAY_BACKEND_CLOSED)
		c->end = error == 0 ? STATUS_BACKEND_CLOSED : STATUS_BACKEND_RESET;
	if (c->relay.end == RELAY_CLIENT_FAILED)
		note_client_failure(c, error);
	else if (error != 0)
		log_failure(c, "tls-socket", strerror(error));
	return c->relay.end == RELAY_BACKEND_CLOSED ? begin_linger(c, true) : PROXY_OVER;
}

static enum proxy_status
relay_some(struct connection *c, struct relay_room *room)
{
	enum relay_status status = relay_move(&c->relay, room);
	if (status == RELAY_OVER)
		return end_relay(c);
	if (c->relay.backend_gone && clock_left_ms(c->deadline_ms) == 0 &&
	    !is_receiving(c)) {
		note_client_failure(c, ETIMEDOUT);
		return PROXY_OVER;
	}
	return status == RELAY_WAITS ? PROXY_WAITS : PROXY_GOES_ON;
}

/* Does the next step. */
static enum proxy_status
step(struct connection *c, struct proxy_thread *thread)
{
	switch (c->phase) {
	case PROXY_HELLO:
		return read_hello(c);
	case PROXY_BACKEND:
		return find_backend(c, &thread->hosts);
	case PROXY_RELAY:
		return relay_some(c, &thread->room);
	case PROXY_LINGER:
		return linger(c, &thread->room);
	}
	return PROXY_OVER;
}

bool
proxy_may_block(const struct connection *c)
{
	return c->phase == PROXY_BACKEND;
}

enum proxy_status
proxy_serve(struct connection *c, struct proxy_thread *thread, uint32_t client_events,
    uint32_t backend_events)
{
	c->client_events |= client_events;
	if (c->phase == PROXY_RELAY) {
		relay_ready(&c->relay, RELAY_CLIENT, client_events);
		relay_ready(&c->relay, RELAY_BACKEND, backend_events);
	}
	thread->room.frugal = atomic_load(&memory) > PROXY_MEMORY_MAX;
	enum proxy_phase phase = c->phase;
	enum proxy_status status = step(c, thread);
	/* What comes next need not wait for its turn. */
	while (status == PROXY_GOES_ON && c->phase != phase) {
		phase = c->phase;
		status = step(c, thread);
	}
	count_memory(c);
	return status;
}

void
proxy_begin(struct connection *c, int client, const union address *peer)
{
	int64_t now_ms = clock_ms();
	status_accepted();
	*c = (struct connection){
	    .client = client,
	    .backend = -1,
	    .deadline_ms = now_ms + PROXY_HELLO_MS,
	    .accepted_ms = now_ms,
	    .peer = *peer,
	};
}

uint32_t
proxy_wants(const struct connection *c, enum relay_side side)
{
	if (c->phase == PROXY_RELAY)
		return relay_wants(&c->relay, side);
	return EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET;
}

enum proxy_obstacle
proxy_obstacle(const struct connection *c, bool closely)
{
	switch (c->phase) {
	case PROXY_HELLO:
		return PROXY_HELLO_UNFINISHED;
	case PROXY_BACKEND:
		return PROXY_BACKEND_FULL;
	case PROXY_RELAY:
		return relay_has_left(&c->relay) ||
			(closely && (untaken(c->client) > 0 || untaken(c->backend) > 0))
		    ? PROXY_UNTAKEN
		    : PROXY_NO_OBSTACLE;
	case PROXY_LINGER:
		/* An alert is nothing that anybody has to wait for. */
		return c->patient && untaken(c->client) > 0 ? PROXY_UNTAKEN
							    : PROXY_UNCLOSED;
	}
	return PROXY_NO_OBSTACLE;
}

uint64_t
proxy_progress(const struct connection *c)
{
	uint64_t progress = (uint64_t)c->phase << 60;
	if (c->phase == PROXY_RELAY)
		progress += c->relay.upload.written - (uint64_t)untaken(c->backend);
	if (c->phase == PROXY_RELAY || c->phase == PROXY_LINGER)
		progress += c->relay.download.written - (uint64_t)untaken(c->client);
	return progress;
}

/* Has the client's socket reset when it is closed. What the kernel still has for a client
 * that does not take it goes at once. */
static void
reset(const struct connection *c)
{
	const struct linger at_once = {.l_onoff = 1};
	setsockopt(c->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void
proxy_turn_away(struct connection *c)
{
	c->end = STATUS_TURNED_AWAY;
	reset(c);
}

void
proxy_give_way(struct connection *c, bool hurry)
{
	enum proxy_obstacle obstacle = proxy_obstacle(c, true);
	if (obstacle != PROXY_UNCLOSED) /* that was over already */
		c->end = STATUS_GAVE_WAY;
	if (obstacle == PROXY_UNTAKEN || (hurry && obstacle != PROXY_UNCLOSED)) {
		reset(c);
	} else if (obstacle == PROXY_HELLO_UNFINISHED) {
		send_alert(c, TLS_USER_CANCELED);
	} else if (obstacle == PROXY_BACKEND_FULL) {
		send_alert(c, TLS_INTERNAL_ERROR);
	}
}

bool
proxy_is_bulky(const struct connection *c)
{
	return c->phase == PROXY_RELAY &&
	    (c->relay.upload.bulky || c->relay.download.bulky);
}

static struct status_connection
describe(const struct connection *c)
{
	uint64_t up = c->relay.upload.written;
	return (struct status_connection){
	    .peer = &c->peer,
	    .name = c->name,
	    .age_ms = clock_ms() - c->accepted_ms,
	    .up = up > c->header_length ? up - c->header_length : 0,
	    .down = c->relay.download.written,
	};
}

void
proxy_open_line(char line[STATUS_LINE_SIZE], const struct connection *c)
{
	static const char *const states[] = {
	    [PROXY_HELLO] = "hello",
	    [PROXY_BACKEND] = "backend",
	    [PROXY_RELAY] = "relay",
	    [PROXY_LINGER] = "closing",
	};
	const struct status_connection connection = describe(c);
	status_open_line(line, &connection, states[c->phase]);
}

void
proxy_end_line(char line[STATUS_LINE_SIZE], const struct connection *c)
{
	const struct status_connection connection = describe(c);
	status_end_line(line, &connection, c->end, c->alert);
}

void
proxy_end(struct connection *c)
{
	status_ended(c->end, c->alert);
	if (status_logs_connections()) {
		char line[STATUS_LINE_SIZE];
		proxy_end_line(line, c);
		log_connection("%s", line);
	}
	relay_release(&c->relay);
	tls_hello_release(&c->hello);
	relay_buffer_release(&c->received);
	ask_no_more(c);
	count_memory(c);
	if (c->backend != -1)
		close(c->backend);
	close(c->client);
}

#include "proxy.h"

#include "clock.h"
#include "connection.h"
#include "hostname.h"
#include "listener.h"
#include "log.h"
#include "pressure.h"
#include "status.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* Most hellos fit; for others it grows. */
	FIRST_BUFFER_SIZE = 4 * 1024,
	LARGE_HELLO = 16 * 1024,

	/* When to try again where descriptors or memory were short. */
	SHORTAGE_MS = 50,

	/* How long and for how many bytes a client that gets nothing more is listened
	 * to. */
	LINGER_MS = 5 * 1000,
	LINGER_BYTES = 8 * 1024 * 1024,

	/* How long a client may take nothing of what the backend sent before it was gone:
	 * with it went the one that would have given up on that client. */
	LAST_BYTES_MS = 30 * 1000,

	/* How long after a client has ended its stream somebody begins to watch whether it is
	 * gone altogether: most connections are over by then. */
	HALF_CLOSED_MS = 20,

	/* How many lines are made at once for a report. */
	REPORT_LINES = 32,
};

/* How many bytes of PROXY_MEMORY_MAX the connections have. */
static atomic_size_t memory;

/* --- What others are told of a connection --- */

static bool
is_decided(struct connection *c)
{
	return atomic_load(&c->end) != STATUS_OPEN;
}

static void
log_failure(const struct connection *c, const char *what, const char *why)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, &c->peer);
	log_line("%s %s: %s: %s", client, c->name[0] == '\0' ? "-" : c->name, what, why);
}

/* Where the client's connection has failed with ERROR. */
static void
note_client_failure(struct connection *c, int error)
{
	if (pressure_decide(
		c, error == ETIMEDOUT ? STATUS_CLIENT_TIMEOUT : STATUS_CLIENT_RESET))
		log_failure(c, "client", strerror(error));
}

static struct status_connection
describe(const struct connection *c)
{
	uint64_t up = c->upload.passed;
	return (struct status_connection){
	    .peer = &c->peer,
	    .name = c->name,
	    .age_ms = clock_ms() - c->accepted_ms,
	    .up = up > c->header_length ? up - c->header_length : 0,
	    .down = c->download.passed,
	};
}

static void
log_end(struct connection *c, enum status_end end)
{
	char line[STATUS_LINE_SIZE];
	const struct status_connection connection = describe(c);
	if (!status_logs_connections() || atomic_exchange(&c->told, true))
		return;
	status_end_line(line, &connection, end, c->alert);
	log_connection("%s", line);
}

/* The error by which the client of C, which has ended its stream, is gone altogether. */
static int
gone_by(const struct connection *c)
{
	int error = relay_error(c->client);
	return error == 0 ? ECONNRESET : error;
}

/* --- The end --- */

static void
release_hello(struct connection *c)
{
	tls_hello_release(&c->hello);
	free(c->received);
	c->received = NULL;
	c->received_start = c->received_end = c->received_size = 0;
	atomic_fetch_sub(&memory, c->memory);
	c->memory = 0;
}

/* Counts and tells how C has ended. */
static void
tell_of_end(struct connection *c)
{
	pressure_decide(c, STATUS_CLOSED);
	status_ended(c->end, c->alert);
	log_end(c, c->end);
}

static void
release(struct connection *c)
{
	release_hello(c);
	if (c->backend != -1)
		close(c->backend);
	close(c->client);
	free(c);
}

/* Ends C, to which no other thread comes any more. */
static void
end(struct connection *c)
{
	tell_of_end(c);
	pressure_lock();
	pressure_remove(c);
	pressure_unlock();
	release(c);
	pressure_lock();
	pressure_leave();
	pressure_unlock();
}

/* WAY is over. Whoever ends the last one ends the connection. */
static void
finish(struct relay_way *way)
{
	struct connection *c = way->connection;
	atomic_store(&way->parked, true);
	if (atomic_fetch_sub(&c->ways, 1) == 1)
		end(c);
}

/* Has both ways of C end. */
static void
cut(struct connection *c)
{
	shutdown(c->client, SHUT_RDWR);
	if (c->backend != -1)
		shutdown(c->backend, SHUT_RDWR);
}

/* CALL has failed, and so has C. */
static void
fail(struct connection *c, const char *call)
{
	if (pressure_decide(c, STATUS_FAILED))
		log_failure(c, call, strerror(errno));
	cut(c);
}

static void
leave(struct relay_way *way, bool only_hangup)
{
	if (relay_leave(way, only_hangup))
		return;
	fail(way->connection, "epoll_ctl");
	finish(way);
}

/* --- Refusals --- */

static void
send_alert(const struct connection *c)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_record(record, c->alert);
	send(c->client, record, sizeof record, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* To close with unread bytes makes the kernel send a reset, and that destroys what the client has
 * not received yet (RFC 1122, 4.2.2.13). So what it sends is read and dropped until it has closed;
 * where it may still receive what the backend sent, for as long as it does. Behind the lock. */
static void
begin_linger(struct connection *c, bool patient)
{
	int64_t now_ms = clock_ms();
	c->lingers = true;
	c->patient = patient;
	c->taken_ms = now_ms;
	pressure_note(c, CONNECTION_CLOSING, now_ms);
	pressure_look_by(now_ms + LINGER_MS);
}

/* Tells the client and the log why there is nothing for it, unless it ends anyway. Behind the
 * lock. */
static void
refuse_locked(
    struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	if (!pressure_decide(c, STATUS_REFUSED))
		return;
	c->alert = alert;
	begin_linger(c, false);
	send_alert(c);
	shutdown(c->client, SHUT_WR);
	log_failure(c, what, why);
}

static void
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	pressure_lock();
	refuse_locked(c, alert, what, why);
	pressure_unlock();
}

/* The same, where what the client sent is to blame. */
static void
refuse_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	refuse(c, alert, tls_alert_name(alert), why);
}

/* --- The hello --- */

/* Makes room for more of the hello, if it may have that. What has arrived bounds it: a hello
 * whose records hold a byte each is TLS_HELLO_MAX times the six bytes of such a record long. The
 * message that is made of it needs as much again at most. */
static bool
grow(struct connection *c)
{
	bool is_first = c->received == NULL;
	size_t size = is_first ? FIRST_BUFFER_SIZE : 2 * c->received_size;
	size_t limit = size > LARGE_HELLO ? PROXY_MEMORY_MAX / 2 : PROXY_MEMORY_MAX;
	size_t needed = is_first ? 0 : 2 * size;
	size_t others = atomic_fetch_add(&memory, needed - c->memory) - c->memory;
	c->memory = needed;
	uint8_t *bytes = others + needed <= limit ? realloc(c->received, size) : NULL;
	if (bytes == NULL)
		return false;
	if (is_first) /* a PROXY header may have to go before the first byte */
		c->received_start = c->received_end = BACKEND_PROXY_HEADER_SIZE;
	c->received = bytes;
	c->received_size = size;
	return true;
}

static void
read_name(struct connection *c)
{
	const uint8_t *sent;
	size_t length;
	char name[HOSTNAME_SIZE];
	if (tls_hello_server_name(&c->hello, &sent, &length) != TLS_OK) {
		refuse_hello(c, c->hello.alert, c->hello.reason);
	} else if (!hostname_canonical(name, sent, length)) {
		refuse_hello(c, TLS_UNRECOGNIZED_NAME, "not a valid name");
	} else {
		pressure_lock();
		memcpy(c->name, name, sizeof name);
		if (!is_decided(c)) /* its time may just be over */
			pressure_note(c, CONNECTION_BACKEND, clock_ms());
		pressure_unlock();
	}
}

/* Reads what comes of the ClientHello, and in the end the name in it. Returns false where more is
 * to come. */
static bool
read_hello(struct connection *c)
{
	size_t length;
	enum tls_status status = TLS_INCOMPLETE;
	while (status == TLS_INCOMPLETE && !is_decided(c)) {
		if (c->received_end == c->received_size && !grow(c)) {
			refuse(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
			return true;
		}
		uint8_t *bytes = c->received + c->received_end;
		switch (relay_receive(
		    &c->upload, bytes, c->received_size - c->received_end, &length)) {
		case RELAY_QUIET:
			return false;
		case RELAY_ENDED:
			refuse_hello(
			    c, TLS_DECODE_ERROR, "end of stream inside the ClientHello");
			return true;
		case RELAY_READ_FAILED:
			note_client_failure(c, errno);
			return true;
		default:
			c->received_end += length;
			status = tls_hello_feed(&c->hello, bytes, length);
		}
	}
	if (status == TLS_REFUSED)
		refuse_hello(c, c->hello.alert, c->hello.reason);
	if (status == TLS_OK)
		read_name(c);
	return true;
}

/* --- The backend --- */

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
	c->header_length = backend_proxy_header(header, &c->peer, &local);
	c->received_start -= c->header_length;
	memcpy(c->received + c->received_start, header, c->header_length);
	return true;
}

/* Whether C gets a backend though others wait. */
static bool
is_admitted(struct connection *c)
{
	int64_t now_ms = clock_ms();
	pressure_lock();
	bool admitted = pressure_admit(c, now_ms);
	pressure_unlock();
	if (admitted || !listener_is_crowded())
		return true;
	pressure_lock();
	pressure_turned_away(now_ms);
	pressure_unlock();
	if (pressure_decide(c, STATUS_TURNED_AWAY))
		pressure_reset(c);
	return false;
}

/* Connects to the backend, and waits for it, until the hello's time is over. Only where that takes
 * long is it the backend that has no room. Where descriptors or memory are short, somebody may soon
 * end. */
static struct backend
connect_to_backend(struct connection *c, struct backend_hosts *hosts)
{
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, c->name);
	struct backend backend = backend_connect(hosts, directory, RELAY_QUIET_MS);
	for (bool is_first = true; backend.socket == -1 && !is_decided(c);
	     is_first = false) {
		int left_ms = clock_left_ms(c->accepted_ms + PROXY_HELLO_MS);
		bool has_room = backend.error != EAGAIN;
		if (left_ms == 0 || (!has_room && !is_first))
			break;
		if (backend_is_short(backend.error))
			poll(NULL, 0, left_ms < SHORTAGE_MS ? left_ms : SHORTAGE_MS);
		else if (has_room && backend.error != EINTR)
			break;
		pressure_lock();
		pressure_note_waiting(c, c->since_ms);
		pressure_unlock();
		backend = backend_connect(hosts, directory, left_ms);
	}
	return backend;
}

static bool
find_backend(struct connection *c, struct backend_hosts *hosts)
{
	if (!is_admitted(c))
		return false;
	thread_begin_wait(); /* for the file system, too */
	struct backend backend = connect_to_backend(c, hosts);
	thread_end_wait();
	if (backend.socket == -1) {
		refuse(c, alert_for(backend.error), backend.failed,
		    backend.error == EAGAIN ? "did not accept in time"
					    : strerror(backend.error));
	} else if (backend.send_proxy_v1 && !prepend_proxy_header(c)) {
		refuse(c, TLS_INTERNAL_ERROR, "getsockname", strerror(errno));
	}
	pressure_lock();
	bool found = !is_decided(c);
	if (found)
		c->backend = backend.socket;
	pressure_note(c, found ? CONNECTION_RELAY : c->state, clock_ms());
	pressure_unlock();
	if (!found && backend.socket != -1)
		close(backend.socket);
	return found;
}

/* Whether C, which gets nothing, is still listened to: who was refused is, for a while; others end
 * at once, and whoever gave way may be told so. */
static bool
is_lingering(struct connection *c)
{
	pressure_lock();
	bool gets_alert = c->end == STATUS_GAVE_WAY && c->alert != 0;
	pressure_unlock();
	if (gets_alert)
		send_alert(c);
	return c->lingers;
}

/* --- The relay: two ways that know little of each other --- */

/* Reads what the client sends, which nobody takes. One that still sends when it has lingered is
 * reset: after shutdown(2) the kernel does not tell it any more that there is room, and it would
 * wait for that. */
static enum relay_status
drop(struct connection *c, uint8_t buffer[RELAY_BUFFER_SIZE])
{
	size_t length;
	enum relay_status status;
	do {
		status = relay_receive(&c->upload, buffer, RELAY_BUFFER_SIZE, &length);
		c->dropped += c->lingers ? length : 0;
	} while (status == RELAY_MOVED && !c->lingered && c->dropped < LINGER_BYTES);
	if (status != RELAY_MOVED)
		return status;
	pressure_reset(c);
	return RELAY_ENDED;
}

/* Sends what was read with the hello. */
static enum relay_status
send_received(struct connection *c)
{
	enum relay_status status = relay_send(&c->upload, c->received + c->received_start,
	    c->received_end - c->received_start);
	release_hello(c);
	return status;
}

/* Notes that the backend takes nothing more. It may still have sent something, and the client may
 * be one that reads only when it has written: what it sends is read, and dropped. */
static void
end_backend_reading(struct connection *c, int error)
{
	bool is_reset = error == ECONNRESET, is_plain = error == EPIPE;
	if (!is_plain && error != ETIMEDOUT &&
	    pressure_decide(c, is_reset ? STATUS_BACKEND_RESET : STATUS_FAILED))
		log_failure(c, "tls-socket", strerror(error));
	/* It learns that there will be no more, if it is there at all. */
	shutdown(c->backend, is_reset || is_plain ? SHUT_WR : SHUT_RDWR);
	c->drops = true;
}

/* Begins to relay, and returns the way that this thread takes: the one back, since the answer comes
 * next. But where the backend may not take all of the hello before it says something, each way has
 * a thread from the first. */
static struct relay_way *
begin_relay(struct connection *c)
{
	c->upload.to = c->download.from = c->backend;
	c->ways = 2;
	status_routed();
	if (c->received_end - c->received_start > RELAY_BUFFER_SIZE) {
		leave(&c->download, false);
		return &c->upload;
	}
	if (send_received(c) == RELAY_WRITE_FAILED)
		end_backend_reading(c, errno);
	leave(&c->upload, false);
	return &c->download;
}

/* Whether the main thread will see to it that the client of C, which has just ended its stream, is
 * watched, if C is not over by then. */
static bool
watches_later(struct connection *c)
{
	int64_t now_ms = clock_ms();
	pressure_lock();
	bool watches = pressure_note_half_closed(c, now_ms);
	if (watches)
		pressure_look_by(now_ms + HALF_CLOSED_MS);
	pressure_unlock();
	return watches;
}

static enum relay_status
move_up(struct connection *c, uint8_t buffer[RELAY_BUFFER_SIZE])
{
	enum relay_status status = RELAY_MOVED;
	if (c->drops)
		return drop(c, buffer);
	if (c->received != NULL)
		status = send_received(c);
	if (status == RELAY_MOVED)
		status = relay_move(&c->upload, buffer);
	if (status != RELAY_WRITE_FAILED)
		return status;
	end_backend_reading(c, errno);
	return drop(c, buffer);
}

/* From the client to the backend. When the client has ended its stream, what is left of this way
 * is to notice that it is gone. */
static void
serve_upload(struct connection *c, uint8_t buffer[RELAY_BUFFER_SIZE])
{
	bool was_ended = c->upload_ended;
	enum relay_status status = was_ended ? RELAY_ENDED : move_up(c, buffer);
	if (status == RELAY_QUIET) {
		leave(&c->upload, false);
		return;
	}
	bool is_gone = was_ended || status == RELAY_READ_FAILED;
	if (is_gone && !c->download_ended)
		note_client_failure(c, was_ended ? gone_by(c) : errno);
	c->upload_ended = true;
	if (c->backend != -1 && shutdown(c->backend, is_gone ? SHUT_RDWR : SHUT_WR) == -1)
		fail(c, "shutdown");
	if (is_gone || c->backend == -1 || c->download_ended || watches_later(c))
		finish(&c->upload);
	else
		leave(&c->upload, true);
}

/* Notes that the backend is gone, by ERROR if not by the end of its stream, while the client may
 * still send and receive. */
static void
outlive_backend(struct connection *c, int error)
{
	if (pressure_decide(
		c, error == 0 ? STATUS_BACKEND_CLOSED : STATUS_BACKEND_RESET) &&
	    error != 0)
		log_failure(c, "tls-socket", strerror(error));
	pressure_lock();
	begin_linger(c, true);
	pressure_unlock();
}

/* From the backend to the client; likewise. */
static void
serve_download(struct connection *c, uint8_t buffer[RELAY_BUFFER_SIZE])
{
	bool was_ended = c->download_ended;
	enum relay_status status =
	    was_ended ? RELAY_ENDED : relay_move(&c->download, buffer);
	int error = errno;
	if (status == RELAY_QUIET) {
		leave(&c->download, false);
		return;
	}
	c->download_ended = true;
	if (status == RELAY_WRITE_FAILED) {
		note_client_failure(c, error);
		shutdown(c->client, SHUT_RDWR);
		shutdown(c->backend, SHUT_RD);
		finish(&c->download);
		return;
	}
	bool is_gone = c->upload_ended || status == RELAY_READ_FAILED ||
	    relay_has_hung_up(c->backend);
	if (is_gone && !c->upload_ended)
		outlive_backend(c, status == RELAY_READ_FAILED ? error : 0);
	/* Where this is the last way, to close the socket will tell the client. */
	if (!was_ended && c->ways > 1 && shutdown(c->client, SHUT_WR) == -1) {
		note_client_failure(c, errno);
		cut(c);
	}
	if (is_gone)
		finish(&c->download);
	else
		leave(&c->download, true);
}

/* --- A connection's life --- */

/* The address of C has its share of the connections. */
static void
turn_away(struct connection *c)
{
	pressure_decide(c, STATUS_TURNED_AWAY);
	pressure_reset(c);
	tell_of_end(c);
	release(c);
}

void
proxy_begin(int client, const union address *peer)
{
	struct connection *c = calloc(1, sizeof *c);
	status_accepted();
	if (c == NULL) {
		status_ended(STATUS_FAILED, 0);
		close(client);
		return;
	}
	c->client = client;
	c->backend = -1;
	c->accepted_ms = clock_ms();
	c->peer = *peer;
	c->end = STATUS_OPEN;
	c->ways = 1;
	c->upload = (struct relay_way){.connection = c, .from = client, .to = -1};
	c->upload.has_timeout = true; /* from the listening socket */
	c->download = (struct relay_way){.connection = c, .from = -1, .to = client};
	pressure_lock();
	bool enters = pressure_enter(c, c->accepted_ms);
	pressure_look_by(c->accepted_ms + PROXY_HELLO_MS);
	pressure_unlock();
	if (enters)
		leave(&c->upload, false); /* its thread comes with its first bytes */
	else
		turn_away(c);
}

void
proxy_serve(struct relay_way *way, struct proxy_thread *thread)
{
	struct connection *c = way->connection;

	if (!c->hello_over) {
		if (!read_hello(c)) {
			leave(way, false);
			return;
		}
		c->hello_over = true;
		thread_set_name(
		    &thread->name, c->name, true); /* the next may take long */
		if (!is_decided(c) && find_backend(c, &thread->hosts)) {
			way = begin_relay(c);
		} else if (is_lingering(c)) {
			release_hello(c);
			c->drops = true;
		} else {
			finish(way);
			return;
		}
	}
	if (way == &c->upload)
		serve_upload(c, thread->buffer);
	else
		serve_download(c, thread->buffer);
}

/* --- For the main thread --- */

/* Whether the client still takes what the backend sent before it was gone. */
static bool
is_receiving(struct connection *c, int64_t now_ms)
{
	int untaken = c->patient ? relay_untaken(c->client) : 0;
	if (untaken != c->untaken)
		c->taken_ms = now_ms;
	c->untaken = untaken;
	return untaken > 0 && now_ms - c->taken_ms < LAST_BYTES_MS;
}

static void
end_linger(struct connection *c, int64_t now_ms)
{
	if (is_receiving(c, now_ms)) {
		pressure_note(c, CONNECTION_CLOSING, now_ms);
		return;
	}
	if (c->untaken > 0)
		atomic_store(&c->end, STATUS_CLIENT_TIMEOUT);
	pressure_hurry(c, now_ms);
}

static void
end_lingers(int64_t now_ms)
{
	struct connection *c;
	while ((c = pressure_first(CONNECTION_CLOSING)) != NULL &&
	    now_ms >= c->since_ms + LINGER_MS)
		end_linger(c, now_ms);
	if (c != NULL)
		pressure_look_by(c->since_ms + LINGER_MS);
}

static void
end_hellos(int64_t now_ms)
{
	struct connection *c;
	while ((c = pressure_first(CONNECTION_HELLO)) != NULL &&
	    now_ms >= c->since_ms + PROXY_HELLO_MS) {
		pressure_note(c, CONNECTION_HELLO, now_ms); /* it may be about to end */
		refuse_locked(c, TLS_USER_CANCELED, tls_alert_name(TLS_USER_CANCELED),
		    "no ClientHello in time");
	}
	if (c != NULL)
		pressure_look_by(c->since_ms + PROXY_HELLO_MS);
}

/* Takes the way from the client of C up again, unless C is about to end. Returns whether it has. */
static bool
take_up(struct connection *c)
{
	int ways = c->ways;
	while (ways > 0)
		if (atomic_compare_exchange_weak(&c->ways, &ways, ways + 1))
			return true;
	return false;
}

/* Has the clients that have ended their streams some time ago watched for whether they are gone
 * altogether. Behind the lock, which it gives up meanwhile. */
static void
watch_half_closed(int64_t now_ms)
{
	struct connection *c;
	while ((c = pressure_first_half_closed()) != NULL &&
	    now_ms >= c->since_ms + HALF_CLOSED_MS) {
		pressure_note(c, CONNECTION_RELAY, now_ms);
		if (!take_up(c))
			continue;
		pressure_unlock();
		if (c->download_ended)
			finish(&c->upload);
		else
			leave(&c->upload, true);
		pressure_lock();
	}
	if (c != NULL)
		pressure_look_by(c->since_ms + HALF_CLOSED_MS);
}

int64_t
proxy_look(void)
{
	int64_t now_ms = clock_ms();
	pressure_lock();
	if (now_ms >= pressure_next_look()) {
		pressure_look(now_ms);
		watch_half_closed(now_ms);
		end_hellos(now_ms);
		end_lingers(now_ms);
	}
	int64_t next_ms = pressure_next_look();
	pressure_unlock();
	return next_ms;
}

static void
open_line(char line[STATUS_LINE_SIZE], const struct connection *c)
{
	static const char *const states[] = {
	    [CONNECTION_HELLO] = "hello",
	    [CONNECTION_BACKEND] = "backend",
	    [CONNECTION_RELAY] = "relay",
	    [CONNECTION_CLOSING] = "closing",
	};
	const struct status_connection connection = describe(c);
	status_open_line(line, &connection, states[c->state]);
}

bool
proxy_report(unsigned report, unsigned *parked, unsigned *left_out)
{
	char lines[REPORT_LINES][STATUS_LINE_SIZE];
	size_t count = 0;
	struct connection *c;
	pressure_lock();
	for (c = pressure_next(NULL); count < REPORT_LINES && c != NULL;
	     c = pressure_next(c)) {
		if (c->report == report)
			continue;
		c->report = report;
		*parked += c->upload.parked && (c->backend == -1 || c->download.parked);
		open_line(lines[count++], c);
	}
	pressure_unlock();
	for (size_t i = 0; i < count; i++)
		/* Who has waited for the log's reader in vain does not wait again. */
		if (*left_out > 0 || !log_report("%s", lines[i]))
			++*left_out;
	return c != NULL;
}

void
proxy_cut_off(void)
{
	pressure_lock();
	for (struct connection *c = pressure_next(NULL); c != NULL; c = pressure_next(c))
		log_end(c, STATUS_CUT_OFF);
}

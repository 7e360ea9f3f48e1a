#include "proxy.h"

#include "backend.h"
#include "clock.h"
#include "listener.h"
#include "lookup.h"
#include "lot.h"
#include "pressure.h"
#include "registry.h"
#include "status.h"
#include "system.h"
#include "thread.h"
#include "triage.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* When to try again where descriptors or memory were short, or too many wait. */
	AGAIN_MS = 50,

	/* For how many bytes a client that gets nothing more is listened to. */
	LINGER_BYTES = 8 * 1024 * 1024,

	/* A thread that has had nothing to do for so long ends, if there are others. */
	IDLE_MS = 10 * 1000,
};

/* What the log says of a host directory whose file system does not answer. */
#define LATE "does not answer"

/* Set before there are threads. */
static int hosts_directory;
static struct network_list balancers;

/* Where the client's connection has failed with ERROR. */
static void
note_client_failure(struct connection *c, int error)
{
	if (connection_decide(
		c, error == ETIMEDOUT ? END_CLIENT_TIMEOUT : END_CLIENT_RESET))
		connection_log_failure(c, "client", strerror(error));
}

/* The error by which the client of C, which has ended its stream, is gone altogether. */
static int
gone_by(const struct connection *c)
{
	int error = relay_error(c->client);
	return error == 0 ? ECONNRESET : error;
}

/* --- Refusals --- */

static void
send_alert(const struct connection *c)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_record(record, c->alert);
	system_send_now(c->client, record, sizeof record);
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
	registry_note(c, CONNECTION_CLOSING, now_ms);
	registry_look_by(now_ms + PROXY_LINGER_MS);
}

/* Tells the client and the log why there is nothing for it, unless it ends anyway; returns whether
 * it does not. Behind the lock. */
static bool
refuse_locked(
    struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	if (!connection_decide(c, END_REFUSED))
		return false;
	c->alert = alert;
	begin_linger(c, false);
	send_alert(c);
	shutdown(c->client, SHUT_WR);
	connection_log_failure(c, what, why);
	return true;
}

static void
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	registry_lock();
	refuse_locked(c, alert, what, why);
	registry_unlock();
}

/* The same, where what the client sent is to blame. */
static void
refuse_hello(struct connection *c, enum tls_alert alert, const char *why)
{
	refuse(c, alert, tls_alert_name(alert), why);
}

/* --- The PROXY header, which a balancer in front sends --- */

/* Takes the PROXY header that C begins with off what was received, and counts C among those of the
 * client that is named there. Returns whether the header is over, and C has not ended. */
static bool
read_header(struct connection *c)
{
	struct proxy_protocol_header header;
	enum proxy_protocol_status status = proxy_protocol_read(&header,
	    c->received + c->received_start, c->received_end - c->received_start);
	if (status == PROXY_PROTOCOL_REFUSED)
		refuse(c, TLS_INTERNAL_ERROR, "PROXY header", header.reason);
	if (status != PROXY_PROTOCOL_OK)
		return false;
	c->received_start += header.length;
	registry_lock();
	connection_announce(c, &header);
	bool is_over_share = pressure_enter(c, clock_ms()) != END_OPEN;
	registry_unlock();
	if (is_over_share && connection_decide(c, END_TURNED_AWAY))
		c->resets = true;
	return !connection_is_decided(c);
}

/* Whether C, of which no more comes, was nothing but a balancer's look whether somebody listens. */
static bool
is_health_check(const struct connection *c)
{
	return (c->awaits_header || c->is_balancers) &&
	    c->received_end == c->received_start;
}

/* --- The hello --- */

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
		registry_lock();
		memcpy(c->name, name, sizeof name);
		if (!connection_is_decided(c)) /* its time may just be over */
			registry_note(c, CONNECTION_BACKEND, clock_ms());
		registry_unlock();
	}
}

/* The client of C has ended its stream; or its connection has failed with an ERROR, if not 0. */
static void
end_in_hello(struct connection *c, int error)
{
	if (is_health_check(c))
		connection_decide(c, END_CLOSED);
	else if (error != 0)
		note_client_failure(c, error);
	else if (c->awaits_header)
		refuse(c, TLS_INTERNAL_ERROR, "PROXY header", "end of stream inside it");
	else
		refuse_hello(c, TLS_DECODE_ERROR, "end of stream inside the ClientHello");
}

/* Feeds the parsers with what was received from FROM on. */
static enum tls_status
feed(struct connection *c, size_t from)
{
	if (c->awaits_header && !read_header(c))
		return TLS_INCOMPLETE;
	if (from < c->received_start) /* that was the header */
		from = c->received_start;
	return tls_hello_feed(&c->hello, c->received + from, c->received_end - from);
}

/* Reads what comes of the ClientHello, and in the end the name in it. Returns false where more is
 * to come. */
static bool
read_hello(struct connection *c)
{
	size_t length;
	enum tls_status status = TLS_INCOMPLETE;
	while (status == TLS_INCOMPLETE && !connection_is_decided(c)) {
		if (c->received_end == c->received_size && !connection_grow(c)) {
			refuse(c, TLS_INTERNAL_ERROR, "hello", strerror(ENOMEM));
			return true;
		}
		uint8_t *bytes = c->received + c->received_end;
		switch (relay_receive(
		    &c->upload, bytes, c->received_size - c->received_end, &length)) {
		case RELAY_QUIET:
			return false;
		case RELAY_ENDED:
			end_in_hello(c, 0);
			return true;
		case RELAY_READ_FAILED:
			end_in_hello(c, errno);
			return true;
		default:
			c->received_end += length;
			status = feed(c, c->received_end - length);
		}
	}
	if (status == TLS_REFUSED)
		refuse_hello(c, c->hello.alert, c->hello.reason);
	if (status == TLS_OK)
		read_name(c);
	return true;
}

/* --- The backend --- */

/* Which alert tells the client that there is no backend. */
static enum tls_alert
alert_for(int error)
{
	return backend_is_absent(error) ? TLS_UNRECOGNIZED_NAME : TLS_INTERNAL_ERROR;
}

/* Puts the PROXY header into the room before the first byte, so that both go out at once.
 * Returns false with errno set where it cannot be known. */
static bool
prepend_proxy_header(struct connection *c)
{
	union address server = c->server;
	socklen_t size = sizeof server;
	if (server.any.sa_family == AF_UNSPEC) {
		if (getsockname(c->client, &server.any, &size) == -1)
			return false;
		address_unmap(&server);
	}
	char header[BACKEND_PROXY_HEADER_SIZE];
	c->header_length = backend_proxy_header(header, &c->peer, &server);
	c->received_start -= c->header_length;
	memcpy(c->received + c->received_start, header, c->header_length);
	return true;
}

/* Whether C gets a backend though others wait. */
static bool
is_admitted(struct connection *c)
{
	int64_t now_ms = clock_ms();
	registry_lock();
	bool admitted = pressure_admit(c, now_ms);
	registry_unlock();
	if (admitted || !listener_is_crowded())
		return true;
	registry_lock();
	pressure_note(END_TURNED_AWAY, now_ms);
	registry_unlock();
	if (connection_decide(c, END_TURNED_AWAY))
		c->resets = true;
	return false;
}

/* Connects to a backend that has room, unless its directory does not answer. */
static struct backend
connect_at_once(struct connection *c, struct backend_hosts *hosts, const char *directory)
{
	struct lookup lookup;
	if (!lookup_begin(&lookup, c->name, clock_ms()))
		return (struct backend){.socket = -1,
		    .failed = "host directory",
		    .error = ETIMEDOUT,
		    .why = LATE};
	struct backend backend = backend_connect(hosts, directory, RELAY_QUIET_MS);
	lookup_end(&lookup, clock_ms());
	return backend;
}

/* Connects after a wait of LEFT_MS at most: for room in the backend's backlog where that IS_FULL, and
 * not too many wait for such; else for whatever comes. */
static struct backend
connect_again(struct connection *c, struct backend_hosts *hosts, const char *directory,
    bool is_full, int left_ms)
{
	if (is_full && lookup_begin_wait()) {
		struct backend backend = backend_connect(hosts, directory, left_ms);
		lookup_end_wait();
		return backend;
	}
	poll(NULL, 0, left_ms < AGAIN_MS ? left_ms : AGAIN_MS);
	return connect_at_once(c, hosts, directory);
}

/* Connects to the backend, and waits for it, until the hello's time is over. Only where that takes
 * long is it the backend that has no room. Where descriptors or memory are short, somebody may soon
 * end. */
static struct backend
connect_to_backend(struct connection *c, struct backend_hosts *hosts)
{
	int left_ms;
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, c->name);
	struct backend backend = connect_at_once(c, hosts, directory);
	while (backend.socket == -1 && !connection_is_decided(c) &&
	    (left_ms = clock_left_ms(c->accepted_ms + PROXY_HELLO_MS)) > 0) {
		bool is_full = backend.error == EAGAIN;
		if (!is_full && backend.error != EINTR &&
		    !backend_is_short(backend.error))
			break;
		registry_lock();
		registry_note_waiting(c);
		registry_unlock();
		backend = connect_again(c, hosts, directory, is_full, left_ms);
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
		refuse(
		    c, alert_for(backend.error), backend.failed, backend_why(&backend));
	} else if (backend.send_proxy_v1 && !prepend_proxy_header(c)) {
		refuse(c, TLS_INTERNAL_ERROR, "getsockname", strerror(errno));
	}
	registry_lock();
	bool found = !connection_is_decided(c);
	if (found)
		c->backend = backend.socket;
	registry_note(c, found ? CONNECTION_RELAY : c->state, clock_ms());
	registry_unlock();
	if (!found && backend.socket != -1)
		close(backend.socket);
	return found;
}

/* Whether C, which gets nothing, is still listened to: who was refused is, for a while; others end
 * at once, and whoever gave way may be told so. */
static bool
is_lingering(struct connection *c)
{
	registry_lock();
	bool gets_alert = c->end == END_GAVE_WAY && c->alert != 0;
	registry_unlock();
	if (gets_alert)
		send_alert(c);
	return c->lingers;
}

/* --- The end --- */

/* Ends C, to which no other thread comes any more. */
static void
end(struct connection *c)
{
	connection_decide(c, END_CLOSED);
	status_ended(c, c->end);
	registry_lock();
	pressure_leave(c);
	registry_remove(c);
	registry_unlock();
	connection_release(c);
	registry_lock();
	registry_leave(); /* now that its descriptors are free */
	registry_unlock();
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
	if (connection_decide(c, END_FAILED))
		connection_log_failure(c, call, strerror(errno));
	cut(c);
}

static void
leave(struct relay_way *way, bool only_hangup)
{
	if (lot_leave(way, only_hangup))
		return;
	fail(way->connection, lot_leave_call);
	finish(way);
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
	c->resets = true;
	return RELAY_ENDED;
}

/* Sends what was read with the hello. */
static enum relay_status
send_received(struct connection *c)
{
	enum relay_status status = relay_send(&c->upload, c->received + c->received_start,
	    c->received_end - c->received_start);
	connection_release_hello(c);
	return status;
}

/* Notes that the backend takes nothing more. It may still have sent something, and the client may
 * be one that reads only when it has written: what it sends is read, and dropped. */
static void
end_backend_reading(struct connection *c, int error)
{
	bool is_reset = error == ECONNRESET, is_plain = error == EPIPE;
	if (!is_plain && error != ETIMEDOUT &&
	    connection_decide(c, is_reset ? END_BACKEND_RESET : END_FAILED))
		connection_log_failure(c, "tls-socket", strerror(error));
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
	registry_lock();
	bool watches = registry_note_half_closed(c, now_ms);
	if (watches)
		registry_look_by(now_ms + PROXY_HALF_CLOSED_MS);
	registry_unlock();
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
	if (connection_decide(c, error == 0 ? END_BACKEND_CLOSED : END_BACKEND_RESET) &&
	    error != 0)
		connection_log_failure(c, "tls-socket", strerror(error));
	registry_lock();
	begin_linger(c, true);
	registry_unlock();
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

void
proxy_begin(int client, const union address *peer, bool is_crowded)
{
	struct connection *c = connection_new(client, peer);
	status_accepted();
	if (c == NULL) {
		status_lost();
		close(client);
		return;
	}
	c->awaits_header = network_list_has(&balancers, peer);
	enum connection_end ends = is_crowded ? triage(c) : END_OPEN;
	registry_lock();
	if (ends != END_OPEN)
		pressure_note(ends, c->accepted_ms);
	else if (!c->awaits_header) /* or else its client is not known yet */
		ends = pressure_enter(c, c->accepted_ms);
	if (ends == END_OPEN)
		registry_enter(c, c->accepted_ms);
	registry_look_by(c->accepted_ms + PROXY_HELLO_MS);
	registry_unlock();
	if (ends == END_OPEN) {
		leave(&c->upload, false); /* its thread comes with its first bytes */
		return;
	}
	connection_decide(c, ends);
	c->resets = true;
	status_ended(c, ends);
	connection_release(c);
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
		if (!connection_is_decided(c) && find_backend(c, &thread->hosts)) {
			way = begin_relay(c);
		} else if (is_lingering(c)) {
			connection_release_hello(c);
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

/* --- What a thread does --- */

/* Takes the next way that has something to do, or returns NULL where none has had for long, and this
 * thread is to end. */
static struct relay_way *
take_way(struct thread_name *name)
{
	struct relay_way *way;
	while ((way = lot_take(IDLE_MS)) == NULL) {
		if (errno == ETIMEDOUT && thread_is_spare())
			return NULL;
		thread_set_name(name, "", true);
	}
	return way;
}

static void *
run(void *unused)
{
	struct proxy_thread thread = {.hosts = backend_hosts(hosts_directory)};
	struct relay_way *way;
	thread_allow_interrupts();
	/* Whatever it is in who started it: it need not preempt who wakes it. */
	system_work_in_batches(true);
	thread_set_name(&thread.name, "", true); /* it has that of who started it */
	while ((way = take_way(&thread.name)) != NULL) {
		thread_set_name(&thread.name, way->connection->name, false);
		proxy_serve(way, &thread);
	}
	return unused;
}

void
proxy_await_headers(struct network_list from)
{
	balancers = from;
}

void
proxy_prepare(int hosts, unsigned free, unsigned threads_max)
{
	hosts_directory = hosts;
	lookup_prepare(threads_max / 4);
	thread_pool_prepare(run, free, threads_max);
}

/* --- For the main thread --- */

void
proxy_end_hello(struct connection *c)
{
	if (c->awaits_header)
		refuse_locked(c, TLS_INTERNAL_ERROR, "PROXY header", "none in time");
	else
		refuse_locked(c, TLS_USER_CANCELED, tls_alert_name(TLS_USER_CANCELED),
		    "no ClientHello in time");
}

void
proxy_end_lookup(struct connection *c)
{
	if (!refuse_locked(c, TLS_INTERNAL_ERROR, "host directory", LATE))
		return;
	status_ended(c, END_REFUSED);
	registry_give_up(c);
}

/* Takes the way from the client of C up again, unless C is about to end. */
static bool
take_up(struct connection *c)
{
	int ways = c->ways;
	while (ways > 0)
		if (atomic_compare_exchange_weak(&c->ways, &ways, ways + 1))
			return true;
	return false;
}

void
proxy_watch(struct connection *c)
{
	if (!take_up(c))
		return;
	registry_unlock();
	if (c->download_ended)
		finish(&c->upload);
	else
		leave(&c->upload, true);
	registry_lock();
}

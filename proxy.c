#include "proxy.h"

#include "backend.h"
#include "clock.h"
#include "hello.h"
#include "lookup.h"
#include "lot.h"
#include "pressure.h"
#include "refusal.h"
#include "registry.h"
#include "route.h"
#include "status.h"
#include "system.h"
#include "thread.h"
#include "triage.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* For how many bytes a client that gets nothing more is listened to. */
	LINGER_BYTES = 8 * 1024 * 1024,

	/* A thread that has had nothing to do for so long ends, if there are others; where there are
	 * many, at once: whatever comes wakes one that sleeps, though another may be faster. */
	IDLE_MS = 10 * 1000,
	SPARE_MAX = 14,
};

/* Set before there are threads. */
static int hosts_directory;
static struct network_list balancers;

/* The error by which the client of C, which has ended its stream, is gone altogether. */
static int
gone_by(const struct connection *c)
{
	int error = relay_error(c->client);
	return error == 0 ? ECONNRESET : error;
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
		refusal_send_alert(c);
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
		connection_note_client_failure(c, was_ended ? gone_by(c) : errno);
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
	refusal_linger(c, true);
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
		connection_note_client_failure(c, error);
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
		connection_note_client_failure(c, errno);
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
	registry_look_by(c->accepted_ms + CONNECTION_HELLO_MS);
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
		if (!hello_read(c)) {
			leave(way, false);
			return;
		}
		c->hello_over = true;
		thread_set_name(
		    &thread->name, c->name, true); /* the next may take long */
		if (!connection_is_decided(c) && route_find_backend(c, &thread->hosts)) {
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

/* Takes the next way that has something to do, or returns NULL where this thread is to end. */
static struct relay_way *
take_way(struct thread_name *name)
{
	struct relay_way *way;
	if (thread_is_spare(SPARE_MAX))
		return NULL;
	while ((way = lot_take(IDLE_MS)) == NULL) {
		if (errno == ETIMEDOUT && thread_is_spare(0))
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

#include "route.h"

#include "address.h"
#include "clock.h"
#include "hostname.h"
#include "listener.h"
#include "lookup.h"
#include "pressure.h"
#include "refusal.h"
#include "registry.h"
#include "status.h"
#include "thread.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* When to try again where descriptors or memory were short, or too many wait. */
	AGAIN_MS = 50,
};

/* What the log says of a host directory whose file system does not answer. */
#define LATE "does not answer"

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
	struct backend backend = backend_connect(hosts, directory, 0);
	lookup_end(&lookup, clock_ms());
	return backend;
}

/* Whether what has failed with ERROR may go well if it is tried again: there may soon be room in the
 * backlog, or somebody may end where descriptors or memory are short. */
static bool
may_pass(int error)
{
	return error == EAGAIN || error == EINTR || backend_is_short(error);
}

/* Connects to the backend, and waits for it, until the hello's time is over. Only where that takes
 * long is it the backend that has no room. */
static struct backend
connect_to_backend(struct connection *c, struct backend_hosts *hosts)
{
	int left_ms;
	bool has_waited = false;
	char directory[HOSTNAME_SIZE];
	hostname_directory(directory, c->name);
	struct backend backend = connect_at_once(c, hosts, directory);
	while (backend.socket == -1 && may_pass(backend.error) &&
	    !connection_is_decided(c) && !(has_waited && backend.error == EAGAIN) &&
	    (left_ms = clock_left_ms(c->accepted_ms + CONNECTION_HELLO_MS)) > 0) {
		registry_lock();
		registry_note_waiting(c);
		registry_unlock();
		has_waited = backend.error == EAGAIN && lookup_begin_wait();
		if (has_waited) {
			backend = backend_connect(hosts, directory, left_ms);
			lookup_end_wait();
		} else {
			poll(NULL, 0, left_ms < AGAIN_MS ? left_ms : AGAIN_MS);
			backend = connect_at_once(c, hosts, directory);
		}
	}
	return backend;
}

bool
route_find_backend(struct connection *c, struct backend_hosts *hosts)
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

void
route_end(struct connection *c)
{
	if (!refuse_locked(c, TLS_INTERNAL_ERROR, "host directory", LATE))
		return;
	status_ended(c, END_REFUSED);
	registry_give_up(c);
}

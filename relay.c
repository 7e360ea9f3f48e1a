#include "relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

/* A TLS record of full size nearly fits (RFC 8446, 5.2). Two of these are most of what a
 * connection costs. */
enum { BUFFER_SIZE = 16 * 1024 };

/* How long a client may leave bytes untaken once the backend is gone, and nobody else
 * would give up on it. */
enum { LAST_BYTES_MS = 30 * 1000 };

/* One of the two sockets. */
struct side {
	int socket;
	short ready;  /* what poll(2) last said of it */
	bool hung_up; /* poll(2) says so, and will not stop saying so */
};

/* One of the two directions. It reads only when all that it has read is written. */
struct direction {
	struct side *from;
	struct side *to;
	struct relay_buffer buffer;
	bool ended; /* nothing more is to be read or written */
};

struct relay {
	struct side client;
	struct side backend;
	struct direction upload;   /* from the client to the backend */
	struct direction download; /* from the backend to the client */
	bool discards; /* the backend takes nothing more, the client still sends */
	struct relay_result result;
};

/* What became of an attempt to move bytes. */
enum outcome { MOVED, READ_FAILED, WRITE_FAILED };

void
relay_buffer_release(struct relay_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct relay_buffer){0};
}

/* Gives BUFFER, which is empty, the usual size. Where memory is short it stays as it
 * is. */
static void
resize(struct relay_buffer *buffer)
{
	uint8_t *bytes = malloc(BUFFER_SIZE);
	if (bytes == NULL)
		return;
	relay_buffer_release(buffer);
	*buffer = (struct relay_buffer){.bytes = bytes, .capacity = BUFFER_SIZE};
}

static bool
wants_to_read(const struct direction *direction)
{
	return !direction->ended && direction->buffer.start == direction->buffer.end;
}

static bool
wants_to_write(const struct direction *direction)
{
	return !direction->ended && direction->buffer.start != direction->buffer.end;
}

static enum outcome
read_some(struct direction *direction)
{
	struct relay_buffer *buffer = &direction->buffer;
	if (buffer->capacity != BUFFER_SIZE)
		resize(buffer);
	ssize_t length =
	    recv(direction->from->socket, buffer->bytes, buffer->capacity, 0);
	buffer->start = 0;
	buffer->end = length > 0 ? (size_t)length : 0;
	if (length == 0) {
		direction->ended = true;
		shutdown(direction->to->socket, SHUT_WR);
	}
	return length >= 0 || errno == EAGAIN ? MOVED : READ_FAILED;
}

static enum outcome
write_some(struct direction *direction)
{
	struct relay_buffer *buffer = &direction->buffer;
	ssize_t length = send(direction->to->socket, buffer->bytes + buffer->start,
	    buffer->end - buffer->start, MSG_NOSIGNAL);
	if (length > 0)
		buffer->start += (size_t)length;
	return length >= 0 || errno == EAGAIN ? MOVED : WRITE_FAILED;
}

/* Moves bytes in one direction, once, so that neither direction keeps the other
 * waiting. */
static enum outcome
move(struct direction *direction)
{
	const short readable = POLLIN | POLLHUP | POLLERR;
	const short writable = POLLOUT | POLLHUP | POLLERR;
	if (wants_to_read(direction) && (direction->from->ready & readable) != 0) {
		enum outcome outcome = read_some(direction);
		/* What was just read can most likely be written. */
		if (outcome != MOVED || !wants_to_write(direction))
			return outcome;
		return write_some(direction);
	}
	if (wants_to_write(direction) && (direction->to->ready & writable) != 0)
		return write_some(direction);
	return MOVED;
}

static int
socket_error(const struct side *side)
{
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(side->socket, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

/* Notes that the backend takes nothing more. It may still have sent something. */
static void
end_upload(struct relay *r, int error)
{
	if (r->upload.ended)
		return;
	r->upload.ended = true;
	r->discards = true;
	r->result.end = RELAY_BACKEND_CLOSED;
	r->result.error = error == EPIPE ? 0 : error;
}

/* Reads and drops what the client sends: it may be one that reads only when it has
 * written. */
static enum outcome
discard(struct relay *r)
{
	struct relay_buffer *buffer = &r->upload.buffer;
	ssize_t length = recv(r->client.socket, buffer->bytes, buffer->capacity, 0);
	r->discards = length != 0;
	return length >= 0 || errno == EAGAIN ? MOVED : READ_FAILED;
}

/* The backend is gone, and with it the one that would have given up on a client that
 * takes nothing. The kernel does instead (RFC 5482). */
static void
note_backend_gone(struct relay *r)
{
	end_upload(r, socket_error(&r->backend));
	int timeout_ms = LAST_BYTES_MS;
	setsockopt(r->client.socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms,
	    sizeof timeout_ms);
}

static bool
fail(struct relay *r, enum relay_end end, int error)
{
	r->result = (struct relay_result){end, error};
	return false;
}

/* Moves what the last poll(2) said can be moved. Returns false where there is no going
 * on. */
static bool
move_both(struct relay *r)
{
	if ((r->client.ready & POLLERR) != 0)
		return fail(r, RELAY_CLIENT_FAILED, socket_error(&r->client));
	if ((r->backend.ready & (POLLHUP | POLLERR)) != 0 && !r->backend.hung_up)
		note_backend_gone(r);
	r->backend.hung_up |= (r->backend.ready & POLLHUP) != 0;
	r->client.hung_up |= (r->client.ready & POLLHUP) != 0;

	enum outcome outcome = MOVED;
	if (!r->upload.ended)
		outcome = move(&r->upload);
	else if (r->discards && r->client.ready != 0)
		outcome = discard(r);
	if (outcome == READ_FAILED)
		return fail(r, RELAY_CLIENT_FAILED, errno);
	if (outcome == WRITE_FAILED && errno != EPIPE && errno != ECONNRESET)
		return fail(r, RELAY_FAILED, errno);
	if (outcome == WRITE_FAILED)
		end_upload(r, errno);

	outcome = move(&r->download);
	if (outcome == WRITE_FAILED)
		return fail(r, RELAY_CLIENT_FAILED, errno);
	if (outcome == READ_FAILED) {
		end_upload(r, errno);
		r->download.ended = true;
	}
	return true;
}

/* What poll(2) is to look for on SIDE, which READER reads from and WRITER writes to. A
 * side that has hung up is left out where nothing is wanted of it, since poll(2) would
 * return at once. */
static struct pollfd
wanted(const struct side *side, const struct direction *reader, bool discards,
    const struct direction *writer)
{
	short events = 0;
	if (wants_to_read(reader) || discards)
		events |= POLLIN;
	if (wants_to_write(writer))
		events |= POLLOUT;
	return (struct pollfd){
	    .fd = events == 0 && side->hung_up ? -1 : side->socket, .events = events};
}

static void
wait_for_events(struct relay *r)
{
	struct pollfd found[] = {
	    wanted(&r->client, &r->upload, r->discards, &r->download),
	    wanted(&r->backend, &r->download, false, &r->upload),
	};
	int count;
	do {
		count = poll(found, 2, -1);
	} while (count == -1); /* a signal, or a shortage that passes */
	r->client.ready = found[0].revents;
	r->backend.ready = found[1].revents;
}

struct relay_result
relay(int client, int backend, struct relay_buffer *first)
{
	struct relay c = {
	    .client.socket = client,
	    .backend.socket = backend,
	    .backend.ready = POLLOUT,
	    .upload.buffer = *first,
	    .result.end = RELAY_ENDED,
	};
	c.upload.from = c.download.to = &c.client;
	c.upload.to = c.download.from = &c.backend;
	*first = (struct relay_buffer){0};

	resize(&c.download.buffer);
	if (c.upload.buffer.bytes == NULL)
		resize(&c.upload.buffer);
	if (c.download.buffer.bytes == NULL || c.upload.buffer.bytes == NULL)
		fail(&c, RELAY_NOT_BEGUN, ENOMEM);
	else
		while (move_both(&c) && !(c.upload.ended && c.download.ended))
			wait_for_events(&c);

	relay_buffer_release(&c.upload.buffer);
	relay_buffer_release(&c.download.buffer);
	return c.result;
}

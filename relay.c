#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* How many bytes a connection may move before it is another's turn. */
	TURN_BYTES = 256 * 1024,

	/* The size of a pipe, and the smallest that is worth it. */
	PIPE_SIZE = 1024 * 1024,
	PIPE_SIZE_MIN = 64 * 1024,

	/* How much is read at once where memory is short. */
	FRUGAL_SIZE = 4 * 1024,

	/* A direction that brings less than this at once is not bulky any more. */
	BULK_MIN = 16 * 1024,
};

/* The pipes that may still be made, by any thread. */
static atomic_int pipes_left;

/* What became of an attempt to move bytes. */
enum outcome { MOVED, ENDED, BLOCKED, READ_FAILED, WRITE_FAILED, NO_MEMORY };

void
relay_buffer_release(struct relay_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct relay_buffer){0};
}

void
relay_allow_pipes(unsigned max)
{
	atomic_store(&pipes_left, (int)max);
}

/* Makes a pipe. Where there is none to be had, or only a small one because the user has
 * many (pipe(7), pipe-user-pages-soft), bytes are copied as before. */
static bool
open_pipe(struct relay_pipe *pipe)
{
	if (atomic_fetch_sub(&pipes_left, 1) > 0 &&
	    pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) == 0) {
		fcntl(pipe->ends[1], F_SETPIPE_SZ, PIPE_SIZE);
		int size = fcntl(pipe->ends[1], F_GETPIPE_SZ);
		if (size >= PIPE_SIZE_MIN) {
			pipe->size = (size_t)size;
			pipe->held = 0;
			return true;
		}
		close(pipe->ends[0]);
		close(pipe->ends[1]);
	}
	atomic_fetch_add(&pipes_left, 1);
	return false;
}

static void
close_pipe(struct relay_pipe *pipe)
{
	if (pipe->size == 0)
		return;
	close(pipe->ends[0]);
	close(pipe->ends[1]);
	pipe->size = pipe->held = 0;
	atomic_fetch_add(&pipes_left, 1);
}

/* Moves the pipe at FROM to TO, which has none. */
static void
hand_over(struct relay_pipe *to, struct relay_pipe *from)
{
	*to = *from;
	from->size = from->held = 0;
}

static bool
borrow_pipe(struct relay_pipe *pipe, struct relay_room *room)
{
	if (room->pipe.size == 0)
		return open_pipe(pipe);
	hand_over(pipe, &room->pipe);
	return true;
}

/* Gives the pipe back, if it is empty. Only bytes that wait keep one from others. */
static void
return_pipe(struct relay_pipe *pipe, struct relay_room *room)
{
	if (pipe->held > 0)
		return;
	if (room->splices && room->pipe.size == 0)
		hand_over(&room->pipe, pipe);
	else
		close_pipe(pipe);
}

static void
drop_left(struct relay_direction *direction)
{
	relay_buffer_release(&direction->left);
	close_pipe(&direction->pipe);
}

void
relay_release(struct relay *relay)
{
	drop_left(&relay->upload);
	drop_left(&relay->download);
}

void
relay_room_release(struct relay_room *room)
{
	close_pipe(&room->pipe);
}

static bool
has_left(const struct relay_direction *direction)
{
	return direction->left.start != direction->left.end;
}

/* Keeps what of LENGTH bytes at BYTES could not be written. */
static bool
keep(struct relay_direction *direction, const uint8_t *bytes, size_t length)
{
	struct relay_buffer left = {
	    .bytes = malloc(length), .capacity = length, .end = length};
	if (left.bytes == NULL)
		return false;
	memcpy(left.bytes, bytes, length);
	direction->left = left;
	return true;
}

static ssize_t
write_some(struct relay_direction *direction, const uint8_t *bytes, size_t length)
{
	ssize_t written = send(direction->to, bytes, length, MSG_NOSIGNAL);
	if (written == -1 && errno == EAGAIN)
		written = 0;
	if (written != (ssize_t)length)
		direction->writable = false;
	if (written > 0)
		direction->written += (uint64_t)written;
	return written;
}

static enum outcome
write_left(struct relay_direction *direction)
{
	struct relay_buffer *left = &direction->left;
	ssize_t written =
	    write_some(direction, left->bytes + left->start, left->end - left->start);
	if (written == -1)
		return WRITE_FAILED;
	left->start += (size_t)written;
	if (!has_left(direction))
		relay_buffer_release(left);
	return written > 0 ? MOVED : BLOCKED;
}

static void
end(struct relay_direction *direction)
{
	direction->ended = true;
	drop_left(direction);
}

static enum outcome
read_and_write(struct relay_direction *direction, struct relay_room *room, size_t *moved)
{
	size_t size = room->frugal ? FRUGAL_SIZE : sizeof room->bytes;
	ssize_t length = recv(direction->from, room->bytes, size, 0);
	if (length == -1 && errno == EAGAIN) {
		direction->readable = false;
		return BLOCKED;
	}
	if (length == -1)
		return READ_FAILED;
	if (length == 0) {
		end(direction);
		return ENDED;
	}
	/* Otherwise a short read says that there is no more (epoll(7)). */
	if ((size_t)length < size && !direction->reads_short)
		direction->readable = false;
	direction->bulky = (size_t)length == sizeof room->bytes;
	*moved += (size_t)length;

	ssize_t written = write_some(direction, room->bytes, (size_t)length);
	if (written == -1)
		return WRITE_FAILED;
	if (written < length &&
	    !keep(direction, room->bytes + written, (size_t)(length - written)))
		return NO_MEMORY;
	return MOVED;
}

static enum outcome
drain_pipe(struct relay_direction *direction, struct relay_room *room)
{
	struct relay_pipe *pipe = &direction->pipe;
	ssize_t length = splice(pipe->ends[0], NULL, direction->to, NULL, pipe->held,
	    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (length == -1 && errno != EAGAIN)
		return WRITE_FAILED;
	if (length > 0) {
		pipe->held -= (size_t)length;
		direction->written += (uint64_t)length;
	}
	direction->writable = pipe->held == 0;
	return_pipe(pipe, room);
	return length > 0 ? MOVED : BLOCKED;
}

static enum outcome
fill_and_drain_pipe(
    struct relay_direction *direction, struct relay_room *room, size_t *moved)
{
	struct relay_pipe *pipe = &direction->pipe;
	ssize_t length = splice(direction->from, NULL, pipe->ends[1], NULL, pipe->size,
	    SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (length <= 0) {
		/* EAGAIN may be an urgent byte, which cannot be spliced; recv(2) tells, and
		 * whether 0 is the end. EINVAL: nothing can be spliced here. */
		int error = length == 0 ? EINVAL : errno;
		return_pipe(pipe, room);
		direction->readable = error != EAGAIN || direction->reads_short;
		direction->bulky = !direction->readable;
		errno = error;
		return error == EAGAIN || error == EINVAL ? MOVED : READ_FAILED;
	}
	direction->bulky = length >= BULK_MIN;
	pipe->held = (size_t)length;
	*moved += (size_t)length;
	return drain_pipe(direction, room) == WRITE_FAILED ? WRITE_FAILED : MOVED;
}

/* Moves bytes in one direction, once. It reads only where what it has read before is
 * written. */
static enum outcome
move(struct relay_direction *direction, struct relay_room *room, size_t *moved)
{
	if (direction->ended || !direction->writable)
		return BLOCKED;
	if (has_left(direction))
		return write_left(direction);
	if (direction->pipe.held > 0)
		return drain_pipe(direction, room);
	if (!direction->readable)
		return BLOCKED;
	if (direction->bulky && room->splices && borrow_pipe(&direction->pipe, room))
		return fill_and_drain_pipe(direction, room, moved);
	return read_and_write(direction, room, moved);
}

static int
socket_error(int socket)
{
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

/* Notes that the backend takes nothing more. It may still have sent something. */
static void
end_upload(struct relay *relay, int error)
{
	if (relay->upload.ended)
		return;
	end(&relay->upload);
	relay->discards = true;
	relay->end = RELAY_BACKEND_CLOSED;
	relay->error = error == EPIPE ? 0 : error;
}

/* Reads and drops what the client sends: it may be one that reads only when it has
 * written. */
static enum outcome
discard(struct relay *relay, struct relay_room *room, size_t *moved)
{
	struct relay_direction *upload = &relay->upload;
	if (!upload->readable)
		return BLOCKED;
	ssize_t length = recv(upload->from, room->bytes, sizeof room->bytes, 0);
	relay->discards = length != 0;
	if (length > 0)
		*moved += (size_t)length;
	if (length == -1 && errno == EAGAIN) {
		upload->readable = false;
		return BLOCKED;
	}
	return length == -1 ? READ_FAILED : MOVED;
}

static enum relay_status
over(struct relay *relay, enum relay_end how, int error)
{
	relay->end = how;
	relay->error = error;
	return RELAY_OVER;
}

void
relay_ready(struct relay *relay, enum relay_side side, uint32_t events)
{
	bool is_client = side == RELAY_CLIENT;
	struct relay_direction *reader = is_client ? &relay->upload : &relay->download;
	struct relay_direction *writer = is_client ? &relay->download : &relay->upload;
	const uint32_t hangup = EPOLLHUP | EPOLLERR;
	if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | hangup)) != 0)
		reader->readable = true;
	/* A read stops before an urgent byte, and does not say whether the end comes next. */
	if ((events & (EPOLLPRI | EPOLLRDHUP | hangup)) != 0)
		reader->reads_short = true;
	if ((events & (EPOLLOUT | hangup)) != 0)
		writer->writable = true;
	if (is_client && (events & EPOLLERR) != 0)
		relay->client_failed = true;
	if (!is_client && (events & hangup) != 0 && !relay->backend_gone) {
		relay->backend_gone = true;
		end_upload(
		    relay, (events & EPOLLERR) != 0 ? socket_error(relay->upload.to) : 0);
	}
}

void
relay_begin(struct relay *relay, int client, int backend, struct relay_buffer *first,
    uint32_t events)
{
	*relay = (struct relay){
	    .upload = {.from = client, .to = backend, .writable = true, .left = *first},
	    .download = {.from = backend, .to = client, .writable = true},
	};
	*first = (struct relay_buffer){0};
	relay_ready(relay, RELAY_CLIENT, events);
}

/* Moves bytes in both directions, once, and adds to MOVED how many were read. Returns
 * RELAY_WAITS where there is nothing to move. */
static enum relay_status
move_both(struct relay *relay, struct relay_room *room, size_t *moved)
{
	if (relay->client_failed)
		return over(relay, RELAY_CLIENT_FAILED, socket_error(relay->upload.from));

	enum outcome up = relay->discards ? discard(relay, room, moved)
					  : move(&relay->upload, room, moved);
	if (up == READ_FAILED)
		return over(relay, RELAY_CLIENT_FAILED, errno);
	if (up == NO_MEMORY ||
	    (up == WRITE_FAILED && errno != EPIPE && errno != ECONNRESET))
		return over(relay, RELAY_FAILED, errno);
	if (up == WRITE_FAILED) {
		end_upload(relay, errno);
		/* It learns that there will be no more, if it is there at all. */
		shutdown(relay->upload.to, SHUT_WR);
	}

	enum outcome down = move(&relay->download, room, moved);
	if (down == WRITE_FAILED)
		return over(relay, RELAY_CLIENT_FAILED, errno);
	if (down == NO_MEMORY)
		return over(relay, RELAY_FAILED, errno);
	if (down == READ_FAILED) {
		end_upload(relay, errno);
		end(&relay->download);
	}
	if (relay->upload.ended && relay->download.ended)
		return RELAY_OVER; /* closing the sockets tells both sides */
	/* Neither side is left waiting where its end cannot be passed on. */
	if (up == ENDED && shutdown(relay->upload.to, SHUT_WR) == -1)
		return over(relay, RELAY_FAILED, errno);
	if (down == ENDED && shutdown(relay->download.to, SHUT_WR) == -1)
		return over(relay, RELAY_CLIENT_FAILED, errno);
	return up == BLOCKED && down == BLOCKED ? RELAY_WAITS : RELAY_GOES_ON;
}

enum relay_status
relay_move(struct relay *relay, struct relay_room *room)
{
	enum relay_status status = RELAY_GOES_ON;
	for (size_t moved = 0; moved < TURN_BYTES && status == RELAY_GOES_ON;)
		status = move_both(relay, room, &moved);
	return status;
}

size_t
relay_size(const struct relay *relay)
{
	return relay->upload.left.capacity + relay->download.left.capacity;
}

bool
relay_has_left(const struct relay *relay)
{
	return has_left(&relay->upload) || has_left(&relay->download) ||
	    relay->upload.pipe.held > 0 || relay->download.pipe.held > 0;
}

uint32_t
relay_wants(const struct relay *relay, enum relay_side side)
{
	const struct relay_direction *writer =
	    side == RELAY_CLIENT ? &relay->download : &relay->upload;
	uint32_t events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET;
	if (!writer->ended && !writer->writable)
		events |= EPOLLOUT;
	return events;
}

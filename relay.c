#include "relay.h"

#include "system.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	/* The size of a pipe, and the smallest that is worth it. */
	PIPE_SIZE = 1024 * 1024,
	PIPE_SIZE_MIN = 64 * 1024,

	/* What is passed on at once where only that tells what a slow receiver takes. */
	PIECE_SIZE = 128 * 1024,
};

static int stay_limit;
static atomic_int staying;    /* how many threads wait for a sender */
static atomic_int pipes_left; /* that may still be made */

void
relay_prepare(unsigned stay_max, unsigned pipes_max)
{
	stay_limit = (int)stay_max;
	atomic_store(&pipes_left, (int)pipes_max);
}

void
relay_limit_receive(int socket)
{
	const struct timeval quiet = {.tv_usec = RELAY_QUIET_MS * 1000L};
	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
}

void
relay_limit_send(int socket)
{
	const struct timeval stall = {.tv_sec = RELAY_STALL_MS / 1000};
	setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof stall);
}

/* Sees to it that a wait for the way's sender is bounded. Most ways need that only later, or never,
 * and clients have it from the listening socket. */
static void
limit_wait(struct relay_way *way)
{
	if (!way->has_timeout)
		relay_limit_receive(way->from);
	way->has_timeout = true;
}

/* Waits, or reads what has come, or does neither where the lot will tell. */
static ssize_t
receive(struct relay_way *way, void *buffer, size_t size)
{
	ssize_t length = -1;
	errno = EAGAIN;
	if (atomic_fetch_add(&staying, 1) < stay_limit) {
		limit_wait(way);
		thread_begin_wait();
		length = recv(way->from, buffer, size, 0);
		thread_end_wait();
	} else if (way->is_ready) {
		length = system_receive_now(way->from, buffer, size);
	}
	atomic_fetch_sub(&staying, 1);
	return length;
}

enum relay_status
relay_receive(struct relay_way *way, void *buffer, size_t size, size_t *length)
{
	ssize_t received;
	do
		received = receive(way, buffer, size);
	while (received == -1 && errno == EINTR);
	*length = received > 0 ? (size_t)received : 0;
	way->is_ready = *length == size;
	if (received > 0)
		return RELAY_MOVED;
	if (received == 0)
		return RELAY_ENDED;
	return errno == EAGAIN ? RELAY_QUIET : RELAY_READ_FAILED;
}

/* Whether to go on after a write that failed. Where that is for time, one waits on, but not for
 * ever for the sake of a sender that is gone: with it went the one that would have given up. */
static bool
may_write_on(struct relay_way *way)
{
	if (errno != EAGAIN)
		return errno == EINTR;
	if (!way->waits_long)
		relay_limit_send(way->to);
	way->waits_long = true;
	way->stalls = relay_has_hung_up(way->from) ? way->stalls + 1 : 0;
	errno = ETIMEDOUT;
	return way->stalls <= RELAY_STALLS_MAX;
}

static void
count_passed(struct relay_way *way, size_t length)
{
	/* Nobody else writes it. */
	uint64_t passed = atomic_load_explicit(&way->passed, memory_order_relaxed);
	atomic_store_explicit(&way->passed, passed + length, memory_order_relaxed);
	way->stalls = 0;
}

/* Sends, and waits until some of it is taken. */
static ssize_t
send_some(int to, const uint8_t *bytes, size_t length)
{
	thread_begin_wait();
	ssize_t sent = send(to, bytes, length, MSG_NOSIGNAL);
	thread_end_wait();
	return sent;
}

enum relay_status
relay_send(struct relay_way *way, const uint8_t *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = send_some(way->to, bytes, length);
		if (sent == -1 && !may_write_on(way))
			return RELAY_WRITE_FAILED;
		if (sent <= 0)
			continue;
		count_passed(way, (size_t)sent);
		bytes += sent;
		length -= (size_t)sent;
	}
	return RELAY_MOVED;
}

/* Makes a pipe. Where there is none to be had, or only a small one, bytes are copied as before. */
static bool
open_pipe(int ends[2])
{
	if (atomic_fetch_sub(&pipes_left, 1) > 0 &&
	    system_open_pipe(ends, PIPE_SIZE, PIPE_SIZE_MIN))
		return true;
	atomic_fetch_add(&pipes_left, 1);
	return false;
}

static void
close_pipe(const int ends[2])
{
	close(ends[0]);
	close(ends[1]);
	atomic_fetch_add(&pipes_left, 1);
}

/* Passes on what is in the pipe, PIECE bytes at a time. */
static enum relay_status
empty_pipe(struct relay_way *way, int pipe, size_t held, size_t piece)
{
	while (held > 0) {
		ssize_t sent = system_splice(pipe, way->to, held < piece ? held : piece);
		if (sent == -1 && !may_write_on(way))
			return RELAY_WRITE_FAILED;
		if (sent <= 0)
			continue;
		count_passed(way, (size_t)sent);
		held -= (size_t)sent;
	}
	return RELAY_MOVED;
}

/* Passes on bytes through a pipe, if there is one, as long as they come in bulk. Where splice(2) brings
 * nothing, that may be the end, a quiet sender, or an urgent byte, which recv(2) tells; an error comes once. */
static enum relay_status
move_in_bulk(struct relay_way *way, bool *has_pipe)
{
	int pipe[2];
	ssize_t held, piece = PIECE_SIZE;
	uint64_t taken;
	enum relay_status status = RELAY_MOVED;
	*has_pipe = open_pipe(pipe);
	if (!*has_pipe)
		return RELAY_MOVED;
	limit_wait(way);
	thread_begin_wait();
	do {
		held = system_splice(way->from, pipe[1], PIPE_SIZE);
		if (held > piece && system_know_taken(way->to, &taken))
			piece = PIPE_SIZE;
		if (held > 0)
			status = empty_pipe(way, pipe[0], (size_t)held, (size_t)piece);
		else if (held == -1 && errno == EINVAL)
			*has_pipe = false; /* to copy costs less than to try */
		else if (held == -1 && errno != EAGAIN && errno != EINTR)
			status = RELAY_READ_FAILED;
	} while (held >= RELAY_BUFFER_SIZE && status == RELAY_MOVED);
	int error = errno;
	thread_end_wait();
	close_pipe(pipe);
	errno = error;
	return status;
}

enum relay_status
relay_move(struct relay_way *way, uint8_t buffer[RELAY_BUFFER_SIZE])
{
	size_t length;
	enum relay_status status;
	bool has_pipe = true;
	do {
		status = relay_receive(way, buffer, RELAY_BUFFER_SIZE, &length);
		if (status == RELAY_MOVED)
			status = relay_send(way, buffer, length);
		if (status == RELAY_MOVED && length == RELAY_BUFFER_SIZE && has_pipe)
			status = move_in_bulk(way, &has_pipe);
	} while (status == RELAY_MOVED);
	return status;
}

int
relay_error(int socket)
{
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

bool
relay_has_hung_up(int socket)
{
	struct pollfd entry = {.fd = socket};
	return poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

int
relay_untaken(int socket)
{
	return system_untaken(socket);
}

uint64_t
relay_taken(int socket, uint64_t passed)
{
	uint64_t taken;
	bool is_known = system_know_taken(socket, &taken);
	return is_known ? taken : passed - (uint64_t)relay_untaken(socket);
}

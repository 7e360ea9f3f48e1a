#include "lib/relay.h"

#include "lib/clock.h"
#include "lib/thread.h"
#include "system/system.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* The size of a pipe, and the minimum for using it. */
	PIPE_SIZE = 1024 * 1024,
	PIPE_SIZE_MIN = 64 * 1024,

	/* How often a direction reads before the other has its turn. */
	READS_MAX = 8,

	/* A connection is blocked if a side has taken nothing for this time. Then a write is tried,
	 * because poll(2) does not report that a receiver has become deaf. */
	BLOCKED_MS = 250,
};

static atomic_int pipes_left;
static int (*quiet_ms)(void);

/* One direction. It holds LENGTH bytes, or PIPED bytes in its pipe, not both. */
struct direction {
	struct relay_side *from, *to;
	const uint8_t *bytes; /* in BUFFER, or relay.first */
	size_t length;
	uint8_t *buffer;
	int pipe[2];     /* -1 if there is none */
	bool lacks_pipe; /* none is available */
	size_t piped;
	bool was_full;      /* the last read got RELAY_BUFFER_SIZE bytes or more */
	bool end_passed_on; /* the receiver knows that the stream is over */
};

/* Both directions. */
struct loop {
	struct relay *relay;
	struct direction up, down; /* client to backend, backend to client */
	int unacknowledged;        /* of the bytes that a closed backend had sent */
	int64_t stalled_since_ms;  /* 0 until a side has hung up */
	uint64_t stalled_at;       /* how many bytes had been taken then */
};

void
relay_prepare(unsigned pipes, int (*quiet)(void))
{
	atomic_store(&pipes_left, (int)pipes);
	quiet_ms = quiet;
}

/* --- The pipe --- */

static bool
ensure_pipe(struct direction *d)
{
	if (d->pipe[0] != -1 || d->lacks_pipe)
		return d->pipe[0] != -1;
	if (atomic_fetch_sub(&pipes_left, 1) > 0 &&
	    system_open_pipe(d->pipe, PIPE_SIZE, PIPE_SIZE_MIN))
		return true;
	d->pipe[0] = d->pipe[1] = -1;
	d->lacks_pipe = true;
	atomic_fetch_add(&pipes_left, 1);
	return false;
}

static void
close_pipe(struct direction *d)
{
	if (d->pipe[0] == -1)
		return;
	close(d->pipe[0]);
	close(d->pipe[1]);
	atomic_fetch_add(&pipes_left, 1);
	d->pipe[0] = d->pipe[1] = -1;
	d->piped = 0;
}

/* --- One direction --- */

static bool
holds_bytes(const struct direction *d)
{
	return d->piped > 0 || d->length > 0;
}

static bool
is_temporary(int error)
{
	return error == EAGAIN || error == EINTR;
}

/* Marks the stream of SIDE as ended, by ERROR if that is not 0. */
static void
end_stream(struct relay_side *side, int error)
{
	side->ended = true;
	if (error != 0)
		side->error = error;
}

/* Reads into the pipe. Returns false if recv(2) must be tried: splice(2) does not distinguish
 * between the end of the stream, a quiet sender and an urgent byte. An error ends the stream here,
 * because a socket reports it only once. */
static bool
fill_pipe(struct direction *d)
{
	ssize_t n = system_splice(d->from->socket, d->pipe[1], PIPE_SIZE);
	d->was_full = n >= RELAY_BUFFER_SIZE;
	if (n > 0) {
		d->piped = (size_t)n;
	} else if (n == -1 && errno == EINVAL) { /* copying costs less than trying again */
		d->lacks_pipe = true;
		close_pipe(d);
	} else if (n == -1 && !is_temporary(errno)) {
		end_stream(d->from, errno);
	}
	return n > 0 || d->from->ended;
}

/* Reads once, if there is something to read. */
static void
fill(struct direction *d)
{
	if (d->was_full && !d->to->deaf && ensure_pipe(d) && fill_pipe(d))
		return;
	ssize_t n = recv(d->from->socket, d->buffer, RELAY_BUFFER_SIZE, 0);
	d->was_full = n == RELAY_BUFFER_SIZE;
	if (n == 0 || (n == -1 && !is_temporary(errno)))
		end_stream(d->from, n == 0 ? 0 : errno);
	if (n <= 0)
		return;
	d->bytes = d->buffer;
	d->length = (size_t)n;
}

/* Writes some of what is held. Returns how much, or -1 with errno set. */
static ssize_t
write_some(struct direction *d)
{
	if (d->piped > 0) {
		ssize_t n = system_splice(d->pipe[0], d->to->socket, d->piped);
		d->piped -= n > 0 ? (size_t)n : 0;
		return n;
	}
	ssize_t n = send(d->to->socket, d->bytes, d->length, MSG_NOSIGNAL);
	d->bytes += n > 0 ? n : 0;
	d->length -= n > 0 ? (size_t)n : 0;
	return n;
}

/* Marks SIDE as deaf, because of ERROR. Bytes for it are dropped, because a client may read only
 * after it has written everything. What SIDE has sent is still read. */
static void
become_deaf(struct relay_side *side, int error)
{
	side->deaf = true;
	side->error = error;
	shutdown(side->socket, error == EPIPE || error == ECONNRESET ? SHUT_WR : SHUT_RDWR);
}

/* Writes the held bytes as far as there is room; drops them if the receiver is deaf. Returns
 * whether none are left. */
static bool
pass_on(struct direction *d)
{
	while (holds_bytes(d) && !d->to->deaf) {
		ssize_t n = write_some(d);
		if (n >= 0)
			d->to->taken += (size_t)n;
		else if (is_temporary(errno))
			return false;
		else
			become_deaf(d->to, errno);
	}
	if (d->to->deaf && d->piped > 0)
		close_pipe(d);
	if (d->to->deaf)
		d->length = 0;
	return !holds_bytes(d);
}

/* Relays bytes until a call would block. After a read that was not full, poll(2) comes first,
 * unless the sender has hung up: then the end of the stream follows. */
static void
move(struct direction *d, bool is_readable)
{
	for (int i = 0; pass_on(d) && is_readable && !d->from->ended && i < READS_MAX; i++) {
		thread_mark_call();
		fill(d);
		thread_mark_call();
		is_readable = d->was_full || d->from->hung_up;
	}
}

/* Whether everything that the sender will ever send was relayed. */
static bool
is_done(const struct direction *d)
{
	return d->from->ended && !holds_bytes(d);
}

/* --- Both directions --- */

/* Half-closes the receiver if D is done. Returns false with errno set if that fails. */
static bool
pass_end_on(struct direction *d)
{
	if (!is_done(d) || d->end_passed_on)
		return true;
	d->end_passed_on = true;
	return shutdown(d->to->socket, SHUT_WR) == 0 || errno == ENOTCONN;
}

/* Returns the events to wait for at the sender of IN, which is the receiver of OUT. Leaves its
 * socket out if it has hung up and there is nothing else to wait for: poll(2) would report that
 * again and again. */
static struct pollfd
events_of(const struct direction *in, const struct direction *out)
{
	struct pollfd entry = {.fd = in->from->socket};
	if (!in->from->ended && !holds_bytes(in))
		entry.events |= POLLIN;
	if (holds_bytes(out))
		entry.events |= POLLOUT;
	if (in->from->hung_up && entry.events == 0)
		entry.fd = -1;
	return entry;
}

void
relay_set_blocked(struct relay *r, bool is_blocked)
{
	if (is_blocked == r->is_blocked)
		return;
	r->is_blocked = is_blocked;
	if (r->blocked != NULL)
		atomic_fetch_add(r->blocked, is_blocked ? 1 : (unsigned)-1);
}

/* Whether bytes from one side wait for the other. */
static bool
is_busy(const struct loop *l)
{
	return holds_bytes(&l->up) || holds_bytes(&l->down) || l->unacknowledged > 0;
}

/* Waits for events, and sets whether the connection is blocked. Returns as poll(2) does. */
static int
wait_for(struct loop *l, struct pollfd sides[2])
{
	int ms = l->relay->quiet_ms = quiet_ms();
	if (!is_busy(l)) {
		relay_set_blocked(l->relay, false);
		return poll(sides, 2, ms);
	}
	/* If threads are short, a shorter wait shows sooner whether C is blocked. */
	bool is_short = ms >= 0 && ms < BLOCKED_MS && !l->relay->is_blocked;
	int ready = poll(sides, 2, is_short ? ms + 1 : BLOCKED_MS);
	relay_set_blocked(l->relay, ready == 0);
	return ready;
}

/* Returns whether a side has hung up, and the other has taken nothing for RELAY_STALL_MS. */
static bool
check_stall(struct loop *l)
{
	const struct relay *r = l->relay;
	uint64_t taken = r->backend.taken + r->client.taken - (uint64_t)l->unacknowledged;
	if (!r->client.hung_up && !r->backend.hung_up)
		return false;
	if (l->stalled_since_ms == 0 || taken != l->stalled_at)
		l->stalled_since_ms = clock_ms();
	l->stalled_at = taken;
	return clock_ms() - l->stalled_since_ms >= RELAY_STALL_MS;
}

enum { GOES_ON = -1 };

/* Returns how the relay has ended, or GOES_ON. */
static int
judge(struct loop *l)
{
	const struct relay *r = l->relay;
	bool up_is_done = is_done(&l->up), down_is_done = is_done(&l->down);
	if (up_is_done && !l->down.end_passed_on && (r->client.hung_up || r->client.error != 0))
		return RELAY_CLIENT_GONE;
	if (up_is_done && down_is_done)
		return l->unacknowledged > 0 ? RELAY_BACKEND_GONE : RELAY_CLOSED;
	if (!pass_end_on(&l->up) || !pass_end_on(&l->down))
		return RELAY_FAILED;
	if (down_is_done && (r->backend.hung_up || r->backend.error != 0)) {
		l->unacknowledged = system_unacknowledged(r->client.socket);
		if (l->unacknowledged == 0)
			return RELAY_BACKEND_GONE;
	}
	return check_stall(l) ? RELAY_STALLED : GOES_ON;
}

/* Notes what the EVENTS at SIDE say of it. One that has hung up takes nothing more. */
static void
take_events(struct relay_side *side, short events)
{
	if ((events & (POLLHUP | POLLERR)) != 0)
		side->hung_up = side->deaf = true;
}

/* The first bytes are no longer needed, if there were any. */
static void
release_first(struct relay *r)
{
	if (r->release != NULL)
		r->release(r->owner);
	r->release = NULL;
	r->first_length = 0;
}

/* Waits once and relays what it can. Returns how the relay has ended, or GOES_ON. */
static int
turn(struct loop *l)
{
	const short writable = POLLOUT | POLLHUP | POLLERR;
	struct relay *r = l->relay;
	if (!holds_bytes(&l->up))
		release_first(r);
	struct pollfd sides[] = {events_of(&l->up, &l->down), events_of(&l->down, &l->up)};
	int ready = wait_for(l, sides);
	short client = sides[0].revents, backend = sides[1].revents;
	if (atomic_load_explicit(&r->stop, memory_order_relaxed))
		return RELAY_STOPPED;
	if (ready == -1)
		return errno == EINTR ? GOES_ON : RELAY_FAILED;
	if (ready == 0 && !is_busy(l))
		return RELAY_QUIET;
	take_events(&r->client, client);
	take_events(&r->backend, backend);
	if (backend != 0 || (client & writable) != 0 || ready == 0)
		move(&l->down, (backend & ~POLLOUT) != 0);
	if (client != 0 || (backend & writable) != 0 || ready == 0)
		move(&l->up, (client & ~POLLOUT) != 0);
	return judge(l);
}

void
relay_send_first(
    struct relay *r, const uint8_t *bytes, size_t length, void (*release)(void *owner), void *owner)
{
	struct direction up = {
	    .from = &r->client, .to = &r->backend, .bytes = bytes, .length = length};
	pass_on(&up);
	r->first = up.bytes;
	r->first_length = up.length;
	r->release = release;
	r->owner = owner;
}

enum relay_end
relay_run(struct relay *r)
{
	uint8_t buffers[2][RELAY_BUFFER_SIZE];
	struct direction up = {.from = &r->client,
	    .to = &r->backend,
	    .bytes = r->first,
	    .length = r->first_length,
	    .buffer = &buffers[0][0],
	    .pipe = {-1, -1},
	    .end_passed_on = r->client.ended};
	struct direction down = {.from = &r->backend,
	    .to = &r->client,
	    .buffer = &buffers[1][0],
	    .pipe = {-1, -1},
	    .end_passed_on = r->backend.ended};
	struct loop loop = {.relay = r, .up = up, .down = down};
	int end;
	do
		end = turn(&loop);
	while (end == GOES_ON);
	int error = errno;
	relay_set_blocked(r, false);
	close_pipe(&loop.up);
	close_pipe(&loop.down);
	release_first(r);
	errno = error;
	return (enum relay_end)end;
}

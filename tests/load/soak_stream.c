#include "tests/load/soak.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { ROOM = 64 * 1024 };

struct end {
	int socket;
	const struct script *script;
	uint64_t key[2]; /* of what each side writes */
	enum side side;
	struct tally *tally;
	int64_t write_at_ms; /* not before */
	int64_t read_at_ms;
	bool idled;
	bool stalled;
	bool writing; /* there is more to write, or the end */
	bool reading;
};

/* A word of noise: splitmix64 of its position. A byte that is lost, repeated or another
 * connection's shows. */
static uint64_t
noise(uint64_t key, uint64_t word)
{
	uint64_t z = key + word * UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Fills BYTES with the noise from OFFSET on. */
static void
fill(uint8_t *bytes, uint64_t key, uint64_t offset, size_t length)
{
	while (length > 0) {
		uint64_t word = noise(key, offset / 8);
		size_t skip = offset % 8, part = 8 - skip;
		if (skip == 0 && length >= 8) {
			memcpy(bytes, &word, 8);
		} else {
			part = part < length ? part : length;
			memcpy(bytes, (const uint8_t *)&word + skip, part);
		}
		bytes += part;
		offset += part;
		length -= part;
	}
}

static void
finish(struct end *end, enum stream_end how)
{
	end->reading = false;
	end->tally->end = how;
	end->tally->ended_ms = now_ms();
}

/* Compares what was read with what the other side writes. */
static void
check(struct end *end, const uint8_t *bytes, size_t length)
{
	static _Thread_local uint8_t wanted[ROOM];
	struct tally *tally = end->tally;
	for (size_t i = 0; i < length && tally->read + i < sizeof tally->first; i++)
		tally->first[tally->read + i] = bytes[i];
	if (!tally->wrong) {
		fill(wanted, end->key[!end->side], tally->read, length);
		size_t same = 0;
		if (memcmp(bytes, wanted, length) == 0)
			same = length;
		while (same < length && bytes[same] == wanted[same])
			same++;
		tally->wrong = same < length;
		tally->wrong_at = tally->read + same;
	}
	tally->read += length;
}

static void
read_some(struct end *end)
{
	static _Thread_local uint8_t bytes[ROOM];
	const struct script *script = end->script;
	size_t most = script->read_at_once < ROOM ? script->read_at_once : ROOM;
	ssize_t length = recv(end->socket, bytes, most, 0);
	if (length == -1 && errno == EAGAIN)
		return;
	if (length <= 0) {
		finish(end, length == 0 ? ENDED : WAS_RESET);
		return;
	}
	check(end, bytes, (size_t)length);
	end->read_at_ms = now_ms() + script->read_pause_ms;
	if (!end->stalled && script->stall_ms > 0 && end->tally->read >= script->stall_at) {
		end->stalled = true;
		end->read_at_ms = now_ms() + script->stall_ms;
	}
}

/* Stops writing, as the script says. */
static void
finish_writing(struct end *end)
{
	enum finish how = end->tally->error != 0 ? HALF_CLOSE : end->script->finish;
	if (how == CLOSE_LAST && end->reading)
		return;
	end->writing = false;
	if (how == HALF_CLOSE || how == CLOSE_LAST)
		shutdown(end->socket, SHUT_WR);
	else if (end->reading)
		finish(end, LEFT);
}

static void
write_some(struct end *end)
{
	static _Thread_local uint8_t bytes[ROOM];
	const struct script *script = end->script;
	struct tally *tally = end->tally;
	uint64_t left = script->bytes - tally->written;
	if (!end->idled && script->idle_ms > 0 && script->idle_at < script->bytes &&
	    left > script->bytes - script->idle_at)
		left = script->idle_at - tally->written;
	size_t most = script->write_at_once < ROOM ? script->write_at_once : ROOM;
	size_t length = left < most ? (size_t)left : most;
	fill(bytes, end->key[end->side], tally->written, length);
	ssize_t written = length == 0
	    ? 0
	    : send(end->socket, bytes, length, MSG_NOSIGNAL | (script->urgent ? MSG_OOB : 0));
	if (written == -1 && errno == EAGAIN)
		return;
	if (written == -1) {
		tally->error = errno;
		return;
	}
	tally->written += (uint64_t)written;
	end->write_at_ms = now_ms() + script->write_pause_ms;
	if (!end->idled && script->idle_ms > 0 && tally->written >= script->idle_at) {
		end->idled = true;
		end->write_at_ms = now_ms() + script->idle_ms;
	}
}

/* Whether there is more to write before the end of the stream. */
static bool
has_more(const struct end *end)
{
	return end->writing && end->tally->error == 0 && end->tally->written < end->script->bytes;
}

/* Waits until something can be done, and does it. */
static void
step(struct end *end)
{
	const struct script *script = end->script;
	int64_t now = now_ms(), next = now + 1000;
	bool may_write = has_more(end) && (end->tally->read >= script->await || !end->reading);
	bool may_read = end->reading && !(script->writes_first && has_more(end));
	if (may_write && end->write_at_ms > now) {
		next = end->write_at_ms < next ? end->write_at_ms : next;
		may_write = false;
	}
	if (may_read && end->read_at_ms > now) {
		next = end->read_at_ms < next ? end->read_at_ms : next;
		may_read = false;
	}
	if (!may_write && !may_read) {
		sleep_ms(next - now); /* poll(2) would report a hang-up at once */
		return;
	}
	struct pollfd entry = {.fd = end->socket,
	    .events = (short)((may_read ? POLLIN : 0) | (may_write ? POLLOUT : 0))};
	if (poll(&entry, 1, (int)(next - now)) != 1)
		return;
	if (may_read && (entry.revents & ~POLLOUT) != 0)
		read_some(end);
	if (may_write && (entry.revents & ~POLLIN) != 0)
		write_some(end);
}

void
stream_run(int socket, const struct script *script, uint64_t number, enum side side,
    struct tally *tally, int64_t deadline_ms)
{
	struct end end = {
	    .socket = socket,
	    .script = script,
	    .side = side,
	    .tally = tally,
	    .writing = true,
	    .reading = true,
	};
	struct chance chance = chance_of(~number);
	end.key[CLIENT] = between(&chance, 0, UINT64_MAX);
	end.key[BACKEND] = between(&chance, 0, UINT64_MAX);
	while (end.reading || end.writing) {
		bool idle = end.idled && end.write_at_ms > now_ms();
		if (end.writing && !has_more(&end) && !idle)
			finish_writing(&end);
		if (!end.reading && !end.writing)
			break;
		if (now_ms() > deadline_ms) {
			finish(&end, STUCK);
			break;
		}
		step(&end);
	}
}

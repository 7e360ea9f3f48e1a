/* The lot by poll(2), for systems without epoll(7).
 *
 * One of the threads at the lot polls for all; the others wait for a way that it has found, or to be
 * the next. A way in the lot has an entry in the set until its first event, and the thread that polls
 * is the only one to take entries out. It polls a copy of the set: what is left in the lot meanwhile
 * is put at the end of the set, and a byte in a pipe has it poll again. */
#include "clock.h"
#include "lot.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	FIRST_SIZE = 64,

	/* When to try again where the system had no memory for poll(2). */
	SHORTAGE_MS = 10,
};

const char lot_open_call[] = "pipe", lot_leave_call[] = "malloc";

static struct {
	pthread_mutex_t mutex;  /* for all that follows, but for what is polled */
	pthread_cond_t changed; /* a way is ready, or nobody polls */
	unsigned waiting;       /* threads, for that */
	bool is_polling;        /* one of them */
	bool is_woken;          /* a byte is in the pipe */

	struct pollfd *entries; /* the set, the pipe first */
	struct relay_way **ways;
	size_t count, size;

	struct relay_way **ready; /* found, and taken out of the set */
	size_t ready_next, ready_end;

	struct pollfd *polled; /* the copy; it belongs to who polls */
	struct pollfd *larger; /* has room for the whole set, and is to replace it */
} lot = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int wake[2] = {-1, -1}; /* the pipe */

/* ARRAY with room for BYTES; as it was, and *GROWN false, where there is no memory for that. */
static void *
enlarge(void *array, size_t bytes, bool *grown)
{
	void *larger = realloc(array, bytes);
	if (larger != NULL)
		return larger;
	*grown = false;
	return array;
}

/* Makes room for SIZE entries; memory that is not there for all is left for the next time. */
static bool
grow(size_t size)
{
	bool grown = true;
	/* The copy is being polled, maybe. */
	lot.larger = enlarge(lot.larger, size * sizeof *lot.larger, &grown);
	lot.entries = enlarge(lot.entries, size * sizeof *lot.entries, &grown);
	lot.ways = enlarge(lot.ways, size * sizeof(struct relay_way *), &grown);
	lot.ready = enlarge(lot.ready, size * sizeof(struct relay_way *), &grown);
	if (grown)
		lot.size = size;
	errno = ENOMEM;
	return grown;
}

bool
lot_open(void)
{
	if (!grow(FIRST_SIZE) || pipe(wake) == -1)
		return false;
	for (int end = 0; end < 2; end++) {
		fcntl(wake[end], F_SETFD, FD_CLOEXEC);
		fcntl(wake[end], F_SETFL, O_NONBLOCK);
	}
	system_init_condition(&lot.changed);
	lot.entries[0] = (struct pollfd){.fd = wake[0], .events = POLLIN};
	lot.ways[0] = NULL;
	lot.count = 1;
	return true;
}

bool
lot_leave(struct relay_way *way, bool only_hangup)
{
	pthread_mutex_lock(&lot.mutex);
	bool has_room = lot.count < lot.size || grow(2 * lot.size);
	if (has_room) {
		/* A hang-up is told of always. */
		lot.entries[lot.count] =
		    (struct pollfd){.fd = way->from, .events = only_hangup ? 0 : POLLIN};
		lot.ways[lot.count++] = way;
		atomic_store(&way->parked, true);
		if (lot.is_polling && !lot.is_woken)
			lot.is_woken = write(wake[1], "", 1) == 1;
	}
	pthread_mutex_unlock(&lot.mutex);
	return has_room;
}

/* --- Polling --- */

/* Takes the entries that have had an event out of the set: of the first COUNT, which were polled. From
 * the end on, so that what takes the place of one was looked at, or is new. */
static void
collect(size_t count)
{
	lot.ready_next = lot.ready_end = 0;
	for (size_t i = count - 1; i > 0; i--) {
		if (lot.polled[i].revents == 0)
			continue;
		lot.ready[lot.ready_end++] = lot.ways[i];
		lot.count--;
		lot.entries[i] = lot.entries[lot.count];
		lot.ways[i] = lot.ways[lot.count];
	}
	if (lot.polled[0].revents != 0) {
		char byte;
		lot.is_woken = read(wake[0], &byte, 1) != 1;
	}
}

/* Makes the copy that is polled, and returns how many entries it has. */
static size_t
copy_set(void)
{
	if (lot.larger != NULL) {
		free(lot.polled);
		lot.polled = lot.larger;
		lot.larger = NULL;
	}
	memcpy(lot.polled, lot.entries, lot.count * sizeof *lot.polled);
	return lot.count;
}

/* Polls, for TIMEOUT_MS at most, without the lock. Nothing is ready before that. Returns 0, or an
 * errno: ETIMEDOUT, EINTR. */
static int
poll_all(int timeout_ms)
{
	size_t count = copy_set();
	lot.is_polling = true;
	pthread_mutex_unlock(&lot.mutex);
	int events = poll(lot.polled, (nfds_t)count, timeout_ms);
	int error = events == -1 ? errno : events == 0 ? ETIMEDOUT : 0;
	if (events == -1 && error != EINTR)
		poll(NULL, 0, SHORTAGE_MS);
	pthread_mutex_lock(&lot.mutex);
	lot.is_polling = false;
	if (events > 0)
		collect(count);
	return error;
}

static int
wait_for_turn(int64_t deadline_ms)
{
	lot.waiting++;
	bool in_time = system_wait_until(&lot.changed, &lot.mutex, deadline_ms);
	lot.waiting--;
	return in_time ? 0 : ETIMEDOUT;
}

/* Who leaves has another thread go on, where there is something to do. */
static void
pass_turn(void)
{
	if (lot.waiting > 0 && (lot.ready_next < lot.ready_end || !lot.is_polling))
		pthread_cond_signal(&lot.changed);
}

struct relay_way *
lot_take(int timeout_ms)
{
	int error = 0;
	int64_t deadline_ms = clock_ms() + timeout_ms;
	struct relay_way *way = NULL;
	pthread_mutex_lock(&lot.mutex);
	while (lot.ready_next == lot.ready_end && error == 0)
		error = lot.is_polling ? wait_for_turn(deadline_ms)
				       : poll_all(clock_left_ms(deadline_ms));
	if (lot.ready_next < lot.ready_end)
		way = lot.ready[lot.ready_next++];
	pass_turn();
	pthread_mutex_unlock(&lot.mutex);
	errno = error;
	if (way == NULL)
		return NULL;
	atomic_store(&way->parked, false);
	way->is_ready = true;
	return way;
}

bool
lot_has_work(void)
{
	pthread_mutex_lock(&lot.mutex);
	if (lot.ready_next == lot.ready_end && !lot.is_polling)
		poll_all(0);
	bool has_work = lot.ready_next < lot.ready_end;
	pass_turn();
	pthread_mutex_unlock(&lot.mutex);
	return has_work;
}

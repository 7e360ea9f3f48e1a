/* The set of watched sockets by poll(2), for systems without epoll(7).
 *
 * The descriptor of a socket is the index of its entry. The waiting thread polls a copy of the set.
 * If the set changes meanwhile, a byte in a pipe ends the wait: an added socket is not in the copy,
 * and the kernel keeps a polled socket open in spite of close(2). */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Delay before poll(2) is called again if it has failed. */
enum { SHORTAGE_MS = 10 };

const char system_watch_call[] = "poll";

static struct {
	pthread_mutex_t mutex;     /* guards what follows */
	struct pollfd *entries;    /* by descriptor; poll(2) ignores those with -1 */
	void **owners;             /* by descriptor */
	size_t size, end;          /* of both; all entries in use are before END */
	struct pollfd *larger;     /* if not NULL, has room for SIZE and will replace POLLED */
	bool is_polling, is_woken; /* a copy is polled; a byte is in the pipe */

	/* Used only by the thread that waits and fetches: */
	struct pollfd *polled; /* the copy */
	size_t count;
} set = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int wakes[2] = {-1, -1}; /* the pipe, which is in the set */

/* Returns ARRAY with room for BYTES. On failure, returns it unchanged and sets *FAILED. */
static void *
enlarge(void *array, size_t bytes, bool *failed)
{
	void *larger = realloc(array, bytes);
	if (larger != NULL)
		return larger;
	*failed = true;
	return array;
}

/* Makes room for SIZE entries. Returns false with errno set if memory is short. */
static bool
grow(size_t size)
{
	bool failed = false;
	set.entries = enlarge(set.entries, size * sizeof *set.entries, &failed);
	set.owners = enlarge(set.owners, size * sizeof *set.owners, &failed);
	set.larger = enlarge(set.larger, size * sizeof *set.larger, &failed);
	if (failed)
		return false;
	for (; set.size < size; set.size++)
		set.entries[set.size].fd = -1;
	return true;
}

static void
wake(void)
{
	if (set.is_polling && !set.is_woken)
		set.is_woken = write(wakes[1], "", 1) == 1;
}

bool
system_watch_open(void)
{
	if (pipe(wakes) == -1)
		return false;
	for (int end = 0; end < 2; end++)
		fcntl(wakes[end], F_SETFD, FD_CLOEXEC);
	return system_watch_add(wakes[0], true, NULL);
}

/* A hang-up is reported even if no event is asked for. */
bool
system_watch_add(int socket, bool reads, void *owner)
{
	size_t place = (size_t)socket;
	pthread_mutex_lock(&set.mutex);
	bool has_room = place < set.size || grow(2 * (place + 1));
	if (has_room) {
		set.entries[place] = (struct pollfd){.fd = socket, .events = reads ? POLLIN : 0};
		set.owners[place] = owner;
		if (set.end <= place)
			set.end = place + 1;
		wake();
	}
	pthread_mutex_unlock(&set.mutex);
	return has_room;
}

void
system_watch_remove(int socket)
{
	pthread_mutex_lock(&set.mutex);
	if ((size_t)socket < set.size)
		set.entries[socket].fd = -1;
	wake();
	pthread_mutex_unlock(&set.mutex);
}

static void
copy_set(void)
{
	if (set.larger != NULL) {
		free(set.polled);
		set.polled = set.larger;
		set.larger = NULL;
	}
	while (set.entries[set.end - 1].fd == -1) /* the pipe is never removed */
		set.end--;
	set.count = set.end;
	memcpy(set.polled, set.entries, set.count * sizeof *set.polled);
}

void
system_watch_wait(int timeout_ms)
{
	char byte;
	pthread_mutex_lock(&set.mutex);
	copy_set();
	set.is_polling = true;
	pthread_mutex_unlock(&set.mutex);
	if (poll(set.polled, (nfds_t)set.count, timeout_ms) == -1 && errno != EINTR)
		poll(NULL, 0, SHORTAGE_MS);
	pthread_mutex_lock(&set.mutex);
	set.is_polling = false;
	if (set.is_woken)
		set.is_woken = read(wakes[0], &byte, 1) != 1;
	pthread_mutex_unlock(&set.mutex);
}

/* If a socket was removed since the wait, and another one added with the same descriptor, that one
 * is reported: its owner finds nothing to do, and adds it again. */
int
system_watch_fetch(void *owners[], int most)
{
	int found = 0;
	pthread_mutex_lock(&set.mutex);
	for (size_t i = 0; i < set.count && found < most; i++) {
		if (set.polled[i].revents == 0 || set.entries[i].fd == -1 ||
		    set.entries[i].fd == wakes[0])
			continue;
		set.polled[i].revents = 0;
		owners[found++] = set.owners[i];
	}
	pthread_mutex_unlock(&set.mutex);
	return found;
}

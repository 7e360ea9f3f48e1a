#include "lib/down.h"

#include "lib/clock.h"
#include "lib/hostname.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* How many hosts are remembered. If more are down, the one that was asked for least recently is
 * forgotten, so that connections wait for it again. */
enum { HOSTS = 256 };

struct down {
	char host[HOSTNAME_SIZE];
	const char *socket; /* each of its own: clients of one must not affect the other */
	int64_t since_ms;   /* when it was found to be down first */
	int64_t until_ms;   /* when that is forgotten, unless it is asked for again */
};

static struct down hosts[HOSTS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards them */
static _Atomic int64_t last_until_ms; /* when all are forgotten; any thread may read it */

static bool
is(const struct down *down, const char *host, const char *socket)
{
	return down->socket == socket && strcmp(down->host, host) == 0;
}

/* Returns the entry of HOST's SOCKET, or the one to replace by it. */
static struct down *
find(const char *host, const char *socket)
{
	struct down *found = &hosts[0];
	for (size_t i = 0; i < HOSTS; i++) {
		if (is(&hosts[i], host, socket))
			return &hosts[i];
		if (hosts[i].until_ms < found->until_ms)
			found = &hosts[i];
	}
	return found;
}

bool
down_record(const char *host, const char *socket)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&mutex);
	struct down *down = find(host, socket);
	if (!is(down, host, socket) || now_ms >= down->until_ms) {
		snprintf(down->host, sizeof down->host, "%s", host);
		down->socket = socket;
		down->since_ms = now_ms;
	}
	last_until_ms = down->until_ms = now_ms + DOWN_MS;
	bool may_end = now_ms < down->since_ms + DOWN_MS;
	pthread_mutex_unlock(&mutex);
	return may_end;
}

void
down_forget(const char *host, const char *socket)
{
	if (clock_ms() >= last_until_ms)
		return;
	pthread_mutex_lock(&mutex);
	struct down *down = find(host, socket);
	if (is(down, host, socket))
		down->until_ms = 0;
	pthread_mutex_unlock(&mutex);
}

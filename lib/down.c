#include "lib/down.h"

#include "lib/clock.h"
#include "lib/hostname.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* How many hosts are remembered. If more are down, the one that was asked for least recently is
 * forgotten, so that connections wait for it again. */
enum { HOSTS = 64 };

struct down {
	char host[HOSTNAME_SIZE];
	int64_t since_ms; /* when it was found to be down first */
	int64_t until_ms; /* when that is forgotten, unless it is asked for again */
};

static struct down hosts[HOSTS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards them */

/* Returns HOST's entry, or the one to replace by it. */
static struct down *
find(const char *host)
{
	struct down *found = &hosts[0];
	for (size_t i = 0; i < HOSTS; i++) {
		if (strcmp(hosts[i].host, host) == 0)
			return &hosts[i];
		if (hosts[i].until_ms < found->until_ms)
			found = &hosts[i];
	}
	return found;
}

bool
down_record(const char *host)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&mutex);
	struct down *down = find(host);
	if (strcmp(down->host, host) != 0 || now_ms >= down->until_ms) {
		snprintf(down->host, sizeof down->host, "%s", host);
		down->since_ms = now_ms;
	}
	down->until_ms = now_ms + DOWN_MS;
	bool may_end = now_ms < down->since_ms + DOWN_MS;
	pthread_mutex_unlock(&mutex);
	return may_end;
}

void
down_forget(const char *host)
{
	pthread_mutex_lock(&mutex);
	struct down *down = find(host);
	if (strcmp(down->host, host) == 0)
		down->until_ms = 0;
	pthread_mutex_unlock(&mutex);
}

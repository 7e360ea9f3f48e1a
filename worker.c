#include "worker.h"

#include "proxy.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A thread. It belongs to itself and frees itself; the main thread touches it only under
 * the mutex, while it is idle or reserved. */
struct worker {
	enum { IDLE, RESERVED, BUSY } state;
	struct worker *next_idle;
	pthread_cond_t wake; /* it has become BUSY */
	int client;          /* what to serve when it has */
	union address peer;
};

static struct {
	pthread_mutex_t mutex; /* for all that follows */
	struct worker *idle;   /* a stack: whoever was busy last has warm caches */
	unsigned idle_count;
	struct worker *reserved;
	unsigned connections;
	bool tell; /* write to news when a connection ends */
	int news;  /* an eventfd, for the main thread; set before there are threads */
	int hosts; /* set before there are threads */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .news = -1};

int
worker_init(int hosts)
{
	pool.hosts = hosts;
	pool.news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return pool.news;
}

static void
leave_idle(struct worker *self)
{
	struct worker **link = &pool.idle;
	while (*link != self)
		link = &(*link)->next_idle;
	*link = self->next_idle;
	pool.idle_count--;
}

/* Waits until there is a connection to serve. Returns false where the thread is not
 * needed any more. */
static bool
wait_until_busy(struct worker *self)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += WORKER_IDLE_MS / 1000;

	pthread_mutex_lock(&pool.mutex);
	while (self->state != BUSY) {
		int error = pthread_cond_timedwait(&self->wake, &pool.mutex, &until);
		if (error == ETIMEDOUT && self->state == IDLE) {
			leave_idle(self);
			break;
		}
		if (error == ETIMEDOUT && self->state == RESERVED)
			until.tv_sec += WORKER_IDLE_MS / 1000;
	}
	bool busy = self->state == BUSY;
	pthread_mutex_unlock(&pool.mutex);
	return busy;
}

/* Returns false where there are enough idle threads without this one. */
static bool
end_connection(struct worker *self)
{
	pthread_mutex_lock(&pool.mutex);
	pool.connections--;
	if (pool.tell) {
		pool.tell = false;
		(void)!write(pool.news, &(uint64_t){1}, sizeof(uint64_t));
	}
	bool stays = pool.idle_count < WORKER_IDLE_MAX;
	if (stays) {
		self->state = IDLE;
		self->next_idle = pool.idle;
		pool.idle = self;
		pool.idle_count++;
	}
	pthread_mutex_unlock(&pool.mutex);
	return stays;
}

static void *
run(void *argument)
{
	struct worker *self = argument;
	const struct backend_hosts hosts = backend_hosts(pool.hosts);
	do {
		if (!wait_until_busy(self))
			break;
		proxy_serve(self->client, &self->peer, &hosts);
	} while (end_connection(self));
	pthread_cond_destroy(&self->wake);
	free(self);
	return NULL;
}

static struct worker *
new_worker(void)
{
	struct worker *worker = calloc(1, sizeof *worker);
	if (worker == NULL)
		return NULL;
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&worker->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	worker->state = RESERVED;
	return worker;
}

int
worker_reserve(void)
{
	pthread_mutex_lock(&pool.mutex);
	if (pool.reserved == NULL && pool.idle != NULL) {
		pool.reserved = pool.idle;
		leave_idle(pool.reserved);
		pool.reserved->state = RESERVED;
	}
	bool found = pool.reserved != NULL;
	pthread_mutex_unlock(&pool.mutex);
	if (found)
		return 0;

	struct worker *worker = new_worker();
	int error = worker == NULL ? ENOMEM : thread_start(run, worker);
	if (error != 0) {
		free(worker);
		return error;
	}
	pthread_mutex_lock(&pool.mutex);
	pool.reserved = worker;
	pthread_mutex_unlock(&pool.mutex);
	return 0;
}

void
worker_serve(int client, const union address *peer)
{
	pthread_mutex_lock(&pool.mutex);
	struct worker *worker = pool.reserved;
	pool.reserved = NULL;
	pool.connections++;
	worker->client = client;
	worker->peer = *peer;
	worker->state = BUSY;
	pthread_cond_signal(&worker->wake);
	pthread_mutex_unlock(&pool.mutex);
}

unsigned
worker_connections(bool tell)
{
	pthread_mutex_lock(&pool.mutex);
	if (tell)
		pool.tell = true;
	unsigned connections = pool.connections;
	pthread_mutex_unlock(&pool.mutex);
	return connections;
}

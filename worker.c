#include "worker.h"

#include "clock.h"
#include "log.h"
#include "proxy.h"
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How many slots are allocated at once. */
enum { CHUNK_SLOTS = 64 };

/* A slot's state: its generation, whether a thread is at it, and the events that its
 * sockets have had since that thread looked. */
#define GENERATION_SHIFT 32
#define OWNED (UINT64_C(1) << 31)
#define EXPIRED (UINT64_C(1) << 30)
#define BACKEND_SHIFT 15
#define EVENTS (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP)
#define NEWS (EXPIRED | (uint64_t)EVENTS << BACKEND_SHIFT | EVENTS)

/* What epoll tells of an event: the slot's generation, its index, and the socket's
 * side. */
#define TIMER UINT64_MAX

/* A place for a connection. The memory is used again for other connections and never
 * freed, so that an event that comes too late, for one that has ended, still finds it;
 * the generation tells. */
struct slot {
	_Atomic uint64_t state;
	_Atomic int64_t deadline_ms; /* the connection's; 0 where there is none */
	uint32_t index;
	struct slot *next_free;
	uint32_t watched[2]; /* by side: what epoll looks for; 0 where it does not */
	struct connection connection;
};

static struct {
	/* Set before there are threads. */
	int hosts;
	int epoll;
	int timer; /* a timerfd; it rings when deadlines are to be looked at */
	int news;  /* an eventfd, for the main thread */
	unsigned threads_wanted;
	struct slot **chunks;

	atomic_bool timer_set;
	atomic_uint slots; /* how many there are */

	pthread_mutex_t mutex; /* for all that follows */
	struct slot *free;
	unsigned connections;
	unsigned threads;
	unsigned blocked; /* threads in a call that may take long */
	bool tell;        /* write to news when a connection ends */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct slot *
slot_at(uint32_t index)
{
	return &pool.chunks[index / CHUNK_SLOTS][index % CHUNK_SLOTS];
}

static uint32_t
generation(uint64_t state)
{
	return (uint32_t)(state >> GENERATION_SHIFT);
}

/* Has the timer ring after a tick, if it is not going to already. */
static void
set_timer(void)
{
	const struct itimerspec tick = {.it_value.tv_nsec = WORKER_TICK_MS * 1000000L};
	if (!atomic_exchange(&pool.timer_set, true))
		timerfd_settime(pool.timer, 0, &tick, NULL);
}

static void
note_deadline(struct slot *slot)
{
	int64_t deadline_ms = slot->connection.deadline_ms;
	if (atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed) == deadline_ms)
		return;
	atomic_store(&slot->deadline_ms, deadline_ms);
	if (deadline_ms != 0)
		set_timer();
}

/* Has epoll look for what the connection waits for on the socket of SIDE; where AGAIN,
 * and the socket is ready, it says so once more, after it has told of others. */
static bool
watch_side(struct slot *slot, enum relay_side side, int socket, bool again)
{
	if (socket == -1) {
		slot->watched[side] = 0; /* what is closed is not watched any more */
		return true;
	}
	struct epoll_event event = {
	    .events = proxy_wants(&slot->connection, side),
	    .data.u64 = (uint64_t)generation(atomic_load(&slot->state))
		    << GENERATION_SHIFT |
		(uint64_t)slot->index << 1 | side,
	};
	if (event.events == slot->watched[side] && !again)
		return true;
	int operation = slot->watched[side] == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	slot->watched[side] = event.events;
	if (epoll_ctl(pool.epoll, operation, socket, &event) == 0)
		return true;
	log_line("sniproxy: epoll_ctl: %s", strerror(errno));
	return false;
}

static bool
watch(struct slot *slot, bool again)
{
	const struct connection *c = &slot->connection;
	return watch_side(slot, RELAY_CLIENT, c->client, again) &&
	    watch_side(slot, RELAY_BACKEND, c->backend, again);
}

/* Ends the connection in SLOT, of which nobody hears again. */
static void
release(struct slot *slot)
{
	proxy_end(&slot->connection);
	atomic_store(&slot->deadline_ms, 0);
	slot->watched[RELAY_CLIENT] = slot->watched[RELAY_BACKEND] = 0;
	uint32_t next = generation(atomic_load(&slot->state)) + 1;
	atomic_store(&slot->state, (uint64_t)next << GENERATION_SHIFT);

	pthread_mutex_lock(&pool.mutex);
	slot->next_free = pool.free;
	pool.free = slot;
	pool.connections--;
	bool asked = pool.tell;
	pool.tell = false;
	pthread_mutex_unlock(&pool.mutex);
	if (asked)
		(void)!write(pool.news, &(uint64_t){1}, sizeof(uint64_t));
}

static void *run(void *argument);

/* Starts a thread that is already counted. */
static int
start_counted_thread(void)
{
	struct proxy_thread *thread = malloc(sizeof *thread);
	int error = thread == NULL ? ENOMEM : thread_start(run, thread);
	if (error == 0)
		return 0;
	free(thread);
	pthread_mutex_lock(&pool.mutex);
	pool.threads--;
	pthread_mutex_unlock(&pool.mutex);
	return error;
}

/* Serves a connection that may keep the thread for long, and sees to it that there are
 * still enough others. If there are not, that connection is not to blame: it goes on all
 * the same. */
static enum proxy_status
serve_blocking(struct connection *c, struct proxy_thread *thread)
{
	pthread_mutex_lock(&pool.mutex);
	pool.blocked++;
	bool needed = pool.threads - pool.blocked < pool.threads_wanted;
	pool.threads += needed;
	pthread_mutex_unlock(&pool.mutex);
	if (needed)
		start_counted_thread();

	enum proxy_status status = proxy_serve(c, thread, 0, 0);

	pthread_mutex_lock(&pool.mutex);
	pool.blocked--;
	pthread_mutex_unlock(&pool.mutex);
	return status;
}

/* Serves the connection in SLOT, which is this thread's to serve, until it has to
 * wait. */
static void
serve(struct slot *slot, struct proxy_thread *thread)
{
	struct connection *c = &slot->connection;
	uint64_t left;
	do {
		uint64_t news = atomic_fetch_and(&slot->state, ~NEWS) & NEWS;
		enum proxy_status status =
		    proxy_serve(c, thread, news & EVENTS, news >> BACKEND_SHIFT & EVENTS);
		if (status == PROXY_BLOCKS)
			status = serve_blocking(c, thread);
		if (status == PROXY_OVER || !watch(slot, status == PROXY_GOES_ON)) {
			release(slot);
			return;
		}
		note_deadline(slot);
		left = atomic_load(&slot->state) & ~NEWS;
		/* Leave it, unless there are news. */
	} while (!atomic_compare_exchange_strong(&slot->state, &left, left & ~OWNED));
}

/* Tells whoever serves the connection of GENERATION in SLOT of NEWS_BITS; if nobody does,
 * this thread does. */
static void
tell(struct slot *slot, uint32_t of_generation, uint64_t news_bits,
    struct proxy_thread *thread)
{
	uint64_t state = atomic_load(&slot->state);
	do {
		if (generation(state) != of_generation)
			return;
	} while (!atomic_compare_exchange_weak(
	    &slot->state, &state, state | news_bits | OWNED));
	if ((state & OWNED) == 0)
		serve(slot, thread);
}

/* Serves the connections whose deadline has come. */
static void
look_at_deadlines(struct proxy_thread *thread)
{
	int64_t now_ms = clock_ms();
	bool found = false;
	atomic_store(&pool.timer_set, false);
	unsigned slots = atomic_load(&pool.slots);
	for (unsigned i = 0; i < slots; i++) {
		struct slot *slot = slot_at(i);
		uint64_t state = atomic_load(&slot->state);
		int64_t deadline_ms = atomic_load(&slot->deadline_ms);
		found |= deadline_ms != 0;
		if (deadline_ms != 0 && deadline_ms <= now_ms)
			tell(slot, generation(state), EXPIRED, thread);
	}
	if (found)
		set_timer();
}

/* Waits for the next event. Returns false where this thread is not needed any more. */
static bool
next_event(struct epoll_event *event)
{
	int count;
	while ((count = epoll_wait(pool.epoll, event, 1, WORKER_IDLE_MS)) != 1) {
		pthread_mutex_lock(&pool.mutex);
		bool spare =
		    count == 0 && pool.threads - pool.blocked > pool.threads_wanted;
		pool.threads -= spare;
		pthread_mutex_unlock(&pool.mutex);
		if (spare)
			return false;
	}
	return true;
}

static void *
run(void *argument)
{
	struct proxy_thread *thread = argument;
	struct epoll_event event;
	thread->hosts = backend_hosts(pool.hosts);
	while (next_event(&event)) {
		uint64_t id = event.data.u64;
		if (id == TIMER)
			look_at_deadlines(thread);
		else
			tell(slot_at((uint32_t)id >> 1), generation(id),
			    (uint64_t)(event.events & EVENTS)
				<< ((id & 1) != 0 ? BACKEND_SHIFT : 0),
			    thread);
	}
	free(thread);
	return NULL;
}

/* One thread for each processor, and two at least. */
static unsigned
count_wanted(void)
{
	cpu_set_t processors;
	if (sched_getaffinity(0, sizeof processors, &processors) == -1)
		return 2;
	int count = CPU_COUNT(&processors);
	return count > 2 ? (unsigned)count : 2;
}

int
worker_init(int hosts, unsigned connections_max)
{
	pool.hosts = hosts;
	pool.threads_wanted = count_wanted();
	pool.chunks = calloc(connections_max / CHUNK_SLOTS + 1, sizeof(struct slot *));
	pool.epoll = epoll_create1(EPOLL_CLOEXEC);
	pool.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	pool.news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = TIMER};
	if (pool.chunks == NULL || pool.epoll == -1 || pool.timer == -1 ||
	    epoll_ctl(pool.epoll, EPOLL_CTL_ADD, pool.timer, &event) == -1)
		return -1;
	return pool.news;
}

static int
add_slots(void)
{
	unsigned slots = atomic_load(&pool.slots);
	struct slot *chunk = calloc(CHUNK_SLOTS, sizeof *chunk);
	if (chunk == NULL)
		return ENOMEM;
	pool.chunks[slots / CHUNK_SLOTS] = chunk;
	for (unsigned i = 0; i < CHUNK_SLOTS; i++)
		chunk[i].index = slots + i;
	pthread_mutex_lock(&pool.mutex);
	for (unsigned i = 0; i < CHUNK_SLOTS; i++) {
		chunk[i].next_free = pool.free;
		pool.free = &chunk[i];
	}
	pthread_mutex_unlock(&pool.mutex);
	atomic_store(&pool.slots, slots + CHUNK_SLOTS);
	return 0;
}

int
worker_reserve(void)
{
	pthread_mutex_lock(&pool.mutex);
	bool slot_needed = pool.free == NULL;
	bool thread_needed = pool.threads - pool.blocked < pool.threads_wanted;
	bool none = pool.threads == 0;
	pool.threads += thread_needed;
	pthread_mutex_unlock(&pool.mutex);

	int error = thread_needed ? start_counted_thread() : 0;
	if (error != 0 && none)
		return error;
	return slot_needed ? add_slots() : 0;
}

void
worker_serve(int client, const union address *peer)
{
	pthread_mutex_lock(&pool.mutex);
	struct slot *slot = pool.free;
	pool.free = slot->next_free;
	pool.connections++;
	pthread_mutex_unlock(&pool.mutex);

	proxy_begin(&slot->connection, client, peer);
	note_deadline(slot);
	/* Once it is watched it may be another thread's. */
	if (!watch_side(slot, RELAY_CLIENT, client, false))
		release(slot);
}

unsigned
worker_connections(bool tell_of_end)
{
	pthread_mutex_lock(&pool.mutex);
	if (tell_of_end)
		pool.tell = true;
	unsigned connections = pool.connections;
	pthread_mutex_unlock(&pool.mutex);
	return connections;
}

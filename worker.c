#include "worker.h"

#include "backend.h"
#include "clock.h"
#include "listener.h"
#include "log.h"
#include "pressure.h"
#include "proxy.h"
#include "status.h"
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
	/* How many slots are allocated at once. */
	CHUNK_SLOTS = 64,

	/* When to accept again where somebody may soon give way. */
	AGAIN_MS = 5,

	/* How many quiet connections are looked at in that time. */
	LOOKS_MAX = 500,

	/* When to accept again after a shortage, if no connection ends before that. */
	RETRY_MS = 250,

	/* The longest name of a thread: what is longer is cut off. */
	THREAD_NAME_MAX = 15,

	/* Looking at so many slots is worth a millisecond's rest. */
	SLOTS_A_MS = 1000,

	/* The threads for bulk get the processor after the others. */
	BULK_NICE = 5,

	/* A shortage that comes and goes is logged this often at most. */
	COMPLAINT_INTERVAL_MS = 10 * 1000,
};

/* A slot's state: its generation, whether a thread is at it, whether there is a
 * connection in it, and what has happened since that thread looked: the deadline has come,
 * a report is wanted, and the events that its sockets have had. */
#define GENERATION_SHIFT 32
#define OWNED (UINT64_C(1) << 31)
#define EXPIRED (UINT64_C(1) << 30)
#define OPEN (UINT64_C(1) << 29)
#define BACKEND_SHIFT 15
#define WANTED (UINT64_C(1) << 14)
#define EVENTS (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP)
#define NEWS (EXPIRED | WANTED | (uint64_t)EVENTS << BACKEND_SHIFT | EVENTS)

/* What epoll tells of an event: the slot's generation, its index, and the socket's side;
 * or one of these. */
#define TIMER UINT64_MAX
#define LISTENER (UINT64_MAX - 1)

/* Threads, and the epoll set that they wait for. */
struct team {
	int epoll;
	unsigned wanted; /* how many threads shall be free to serve connections */

	/* Behind the pool's mutex: */
	unsigned threads;
	unsigned blocked; /* those in a call that may take long */
	unsigned members; /* the connections */
};

/* A place for a connection. The memory is used again for other connections and never
 * freed, so that an event that comes too late, for one that has ended, still finds it;
 * the generation tells. */
struct slot {
	_Atomic uint64_t state;
	_Atomic int64_t deadline_ms; /* the connection's; 0 where there is none */
	uint32_t index;
	struct slot *next_free;
	struct team *team;   /* whose threads serve it */
	uint32_t watched[2]; /* by side: what epoll looks for; 0 where it does not */
	struct pressure_place place;
	struct connection connection;
};

struct thread {
	struct team *team;
	char name[THREAD_NAME_MAX + 1];
	struct timespec named_at; /* the tick, where that was for a turn */
	struct proxy_thread proxy;
};

static struct {
	/* Set before there are threads. */
	int hosts;
	unsigned connections_max;
	int timer; /* a timerfd; it rings when deadlines are to be looked at */
	int news;  /* an eventfd, for the main thread */
	struct slot **chunks;

	/* Connections through which more passes than a turn takes have threads of their own,
	 * so that nobody else waits for those. */
	struct team quick, bulk;

	_Atomic int64_t timer_ms; /* when the timer rings; 0 where it does not */
	atomic_bool accepts;
	atomic_uint slots; /* how many there are */

	pthread_mutex_t timer_mutex; /* for setting the timer and timer_ms */
	pthread_mutex_t mutex;       /* for all that follows, and pressure.h */
	struct slot *free;
	unsigned connections;
	bool tell;                 /* write to news when a connection ends */
	bool is_short;             /* of something, so that new connections wait */
	int64_t next_look_ms;      /* when to look at quiet connections again */
	int64_t next_complaint_ms; /* when that is worth a log line again */
} pool = {
    .timer_mutex = PTHREAD_MUTEX_INITIALIZER,
    .mutex = PTHREAD_MUTEX_INITIALIZER,
};

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

/* Has the timer ring at AT_MS, if it is not going to before. */
static void
set_timer(int64_t at_ms)
{
	const struct itimerspec at = {.it_value = {at_ms / 1000, at_ms % 1000 * 1000000}};
	int64_t set_ms = atomic_load(&pool.timer_ms);
	if (set_ms != 0 && set_ms <= at_ms)
		return;
	pthread_mutex_lock(&pool.timer_mutex);
	set_ms = atomic_load(&pool.timer_ms);
	/* Where it fails, whoever asks next tries again. */
	if ((set_ms == 0 || at_ms < set_ms) &&
	    timerfd_settime(pool.timer, TFD_TIMER_ABSTIME, &at, NULL) == 0)
		atomic_store(&pool.timer_ms, at_ms);
	pthread_mutex_unlock(&pool.timer_mutex);
}

static void
note_deadline(struct slot *slot)
{
	int64_t deadline_ms = slot->connection.deadline_ms;
	if (atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed) == deadline_ms)
		return;
	atomic_store(&slot->deadline_ms, deadline_ms);
	if (deadline_ms != 0)
		set_timer(deadline_ms);
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
	if (epoll_ctl(slot->team->epoll, operation, socket, &event) == 0)
		return true;
	log_line("sniproxy: epoll_ctl: %s", strerror(errno));
	return false;
}

/* Leaves the connection to TEAM. */
static void
hand_to(struct slot *slot, struct team *team)
{
	const struct connection *c = &slot->connection;
	pthread_mutex_lock(&pool.mutex);
	slot->team->members--;
	team->members++;
	pthread_mutex_unlock(&pool.mutex);
	if (slot->watched[RELAY_CLIENT] != 0)
		epoll_ctl(slot->team->epoll, EPOLL_CTL_DEL, c->client, NULL);
	if (slot->watched[RELAY_BACKEND] != 0)
		epoll_ctl(slot->team->epoll, EPOLL_CTL_DEL, c->backend, NULL);
	slot->watched[RELAY_CLIENT] = slot->watched[RELAY_BACKEND] = 0;
	slot->team = team;
}

static int ensure_threads(struct team *team);

/* Sees to it that a thread comes back to the connection: of the bulk team, where there is
 * more to do than a turn allows, and until less comes at once. */
static bool
watch(struct slot *slot, bool again)
{
	const struct connection *c = &slot->connection;
	if (again && slot->team != &pool.bulk) {
		/* The threads of a team that has members do not end. */
		hand_to(slot, &pool.bulk);
		if (ensure_threads(&pool.bulk) != 0)
			hand_to(slot, &pool.quick);
	} else if (!again && slot->team == &pool.bulk && !proxy_is_bulky(c))
		hand_to(slot, &pool.quick);
	return watch_side(slot, RELAY_CLIENT, c->client, again) &&
	    watch_side(slot, RELAY_BACKEND, c->backend, again);
}

/* Has the next connection told to one thread. */
static void
await_connection(void)
{
	struct epoll_event event = {
	    .events = EPOLLIN | EPOLLONESHOT, .data.u64 = LISTENER};
	if (!atomic_load(&pool.accepts) ||
	    epoll_ctl(pool.quick.epoll, EPOLL_CTL_MOD, STDIN_FILENO, &event) == 0)
		return;
	/* Tried again when the timer rings, or a connection ends. */
	pthread_mutex_lock(&pool.mutex);
	pool.is_short = true;
	pthread_mutex_unlock(&pool.mutex);
	set_timer(clock_ms() + RETRY_MS);
}

/* Makes SLOT free again. What is still heard of the connection that had it is of another
 * generation. */
static void
put_back(struct slot *slot)
{
	pthread_mutex_lock(&pool.mutex);
	pressure_leave(&slot->place);
	/* Only now: the place led others here. */
	uint32_t next = generation(atomic_load(&slot->state)) + 1;
	atomic_store(&slot->state, (uint64_t)next << GENERATION_SHIFT);
	slot->team->members--;
	slot->next_free = pool.free;
	pool.free = slot;
	pool.connections--;
	bool asked = pool.tell, was_short = pool.is_short;
	pool.tell = pool.is_short = false;
	pthread_mutex_unlock(&pool.mutex);
	if (asked)
		(void)!write(pool.news, &(uint64_t){1}, sizeof(uint64_t));
	if (was_short)
		await_connection();
}

/* Ends the connection in SLOT, which this thread owns. */
static void
release(struct slot *slot)
{
	proxy_end(&slot->connection);
	atomic_store(&slot->deadline_ms, 0);
	slot->watched[RELAY_CLIENT] = slot->watched[RELAY_BACKEND] = 0;
	put_back(slot);
}

static void *run(void *argument);

/* Starts a thread that is already counted. */
static int
start_counted_thread(struct team *team)
{
	struct thread *thread = malloc(sizeof *thread);
	int error = ENOMEM;
	if (thread != NULL) {
		thread->team = team;
		memset(thread->name, 0, sizeof thread->name);
		thread->named_at = (struct timespec){0};
		thread->proxy.room.splices = team == &pool.bulk;
		thread->proxy.room.pipe = (struct relay_pipe){0};
		error = thread_start(run, thread);
	}
	if (error == 0)
		return 0;
	free(thread);
	pthread_mutex_lock(&pool.mutex);
	team->threads--;
	pthread_mutex_unlock(&pool.mutex);
	return error;
}

/* Starts a thread for TEAM where too few are free. Returns 0, or an errno where it has
 * none. */
static int
ensure_threads(struct team *team)
{
	pthread_mutex_lock(&pool.mutex);
	bool needed = team->threads - team->blocked < team->wanted;
	bool none = team->threads == 0;
	team->threads += needed;
	pthread_mutex_unlock(&pool.mutex);
	int error = needed ? start_counted_thread(team) : 0;
	return none ? error : 0;
}

static void
count_blocked(struct team *team, unsigned by)
{
	pthread_mutex_lock(&pool.mutex);
	team->blocked += by;
	pthread_mutex_unlock(&pool.mutex);
}

/* Gives this thread the name of the host that it works for, empty where it works for none,
 * for ps(1) and top(1). Where that will not LAST, it is done once a tick at most, since the
 * system call takes half a microsecond: who looks sees one of the names that it had. */
static void
name_thread(struct thread *thread, const char *host, bool lasts)
{
	const char *name = host[0] == '\0' ? "sniproxy" : host;
	if (strncmp(thread->name, name, THREAD_NAME_MAX) == 0)
		return;
	struct timespec tick;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
	if (!lasts && tick.tv_nsec == thread->named_at.tv_nsec)
		return;
	if (!lasts)
		thread->named_at = tick;
	size_t length = strnlen(name, THREAD_NAME_MAX);
	memcpy(thread->name, name, length);
	thread->name[length] = '\0';
	prctl(PR_SET_NAME, thread->name);
}

/* Serves a connection that may keep the thread for long, and sees to it that there are
 * still enough others. If there are not, that connection is not to blame: it goes on all
 * the same. */
static enum proxy_status
serve_blocking(struct connection *c, struct thread *thread, uint64_t news)
{
	name_thread(thread, c->name, true);
	count_blocked(thread->team, 1);
	ensure_threads(thread->team);
	enum proxy_status status =
	    proxy_serve(c, &thread->proxy, news & EVENTS, news >> BACKEND_SHIFT & EVENTS);
	count_blocked(thread->team, -1U);
	return status;
}

/* Notes whether the connection in SLOT waits for something that someone owes it. */
static void
rank(struct slot *slot, bool closely)
{
	const struct pressure_place *place = &slot->place;
	enum proxy_obstacle obstacle = proxy_obstacle(
	    &slot->connection, closely || place->obstacle == PROXY_UNTAKEN);
	if (obstacle == PROXY_NO_OBSTACLE && place->obstacle == PROXY_NO_OBSTACLE)
		return;
	uint64_t progress = proxy_progress(&slot->connection);
	if (obstacle == place->obstacle && progress == place->progress)
		return;
	pthread_mutex_lock(&pool.mutex);
	pressure_note(&slot->place, obstacle, progress, clock_ms());
	pthread_mutex_unlock(&pool.mutex);
}

/* Leaves the connection in SLOT to whoever hears of it next, unless there are news. */
static bool
leave(struct slot *slot)
{
	uint64_t left = atomic_load(&slot->state) & ~NEWS;
	return atomic_compare_exchange_strong(&slot->state, &left, left & ~OWNED);
}

static void
log_open_connection(const struct slot *slot)
{
	char line[STATUS_LINE_SIZE];
	proxy_open_line(line, &slot->connection);
	log_notice("%s", line);
}

/* Whether the connection in SLOT, whose hello was read, gets a backend. */
static bool
is_admitted(struct slot *slot)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&pool.mutex);
	bool admitted = pressure_admit(&slot->place, slot->connection.name, now_ms);
	pthread_mutex_unlock(&pool.mutex);
	if (admitted || !listener_is_crowded())
		return true;
	pthread_mutex_lock(&pool.mutex);
	pressure_turned_away(now_ms);
	pthread_mutex_unlock(&pool.mutex);
	proxy_turn_away(&slot->connection);
	return false;
}

/* Serves the connection in SLOT, which is this thread's to serve, until it has to
 * wait. */
static void
serve(struct slot *slot, struct thread *thread)
{
	struct connection *c = &slot->connection;
	do {
		uint64_t news = atomic_fetch_and(&slot->state, ~NEWS) & NEWS;
		if ((news & WANTED) != 0)
			log_open_connection(slot);
		name_thread(thread, c->name, thread->team == &pool.bulk);
		enum proxy_status status = PROXY_BLOCKS;
		if (!proxy_may_block(c)) {
			status = proxy_serve(c, &thread->proxy, news & EVENTS,
			    news >> BACKEND_SHIFT & EVENTS);
			if (status == PROXY_BLOCKS && !is_admitted(slot))
				status = PROXY_OVER;
		}
		if (status == PROXY_BLOCKS)
			status = serve_blocking(c, thread, news);
		if (status == PROXY_OVER || !watch(slot, status == PROXY_GOES_ON)) {
			release(slot);
			return;
		}
		note_deadline(slot);
		rank(slot, false);
	} while (!leave(slot));
}

/* Tells whoever serves the connection of GENERATION in SLOT of NEWS_BITS; if nobody does,
 * this thread does. */
static void
tell(struct slot *slot, uint32_t of_generation, uint64_t news_bits, struct thread *thread)
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
look_at_deadlines(struct thread *thread)
{
	int64_t now_ms = clock_ms(), next_ms = INT64_MAX;
	unsigned slots = atomic_load(&pool.slots);
	for (unsigned i = 0; i < slots; i++) {
		struct slot *slot = slot_at(i);
		uint64_t state = atomic_load(&slot->state);
		int64_t deadline_ms = atomic_load(&slot->deadline_ms);
		if (deadline_ms == 0)
			continue;
		if (deadline_ms < next_ms)
			next_ms = deadline_ms;
		if (deadline_ms <= now_ms)
			tell(slot, generation(state), EXPIRED, thread);
	}
	/* Not too often: all the connections were looked at. */
	now_ms = clock_ms() + WORKER_TICK_MS + slots / SLOTS_A_MS;
	if (next_ms != INT64_MAX)
		set_timer(next_ms > now_ms ? next_ms : now_ms);
}

/* Leaves new connections in the listen backlog until a connection ends, or the timer
 * rings. WHAT is short, or NULL where that will soon be over. */
static void
run_short(const char *what, int error)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&pool.mutex);
	pool.is_short = true;
	unsigned connections = pool.connections;
	bool complains = what != NULL && now_ms >= pool.next_complaint_ms;
	if (complains)
		pool.next_complaint_ms = now_ms + COMPLAINT_INTERVAL_MS;
	pthread_mutex_unlock(&pool.mutex);
	if (complains)
		log_line("sniproxy: new connections wait while %u are open: %s: %s",
		    connections, what, strerror(error));
	set_timer(now_ms + (what != NULL ? RETRY_MS : AGAIN_MS));
}

static void
end_shortage(void)
{
	pthread_mutex_lock(&pool.mutex);
	bool was_short = pool.is_short;
	pool.is_short = false;
	pthread_mutex_unlock(&pool.mutex);
	if (was_short)
		await_connection();
}

static void
look_at_pressure(void)
{
	pthread_mutex_lock(&pool.mutex);
	int64_t again_ms = pressure_look(pool.connections, clock_ms());
	pthread_mutex_unlock(&pool.mutex);
	if (again_ms != 0)
		set_timer(again_ms);
}

static void
ring(struct thread *thread)
{
	/* Behind the mutex: it may ring before set_timer() has noted when. */
	pthread_mutex_lock(&pool.timer_mutex);
	atomic_store(&pool.timer_ms, 0);
	pthread_mutex_unlock(&pool.timer_mutex);
	end_shortage();
	look_at_pressure();
	look_at_deadlines(thread);
}

/* Behind the mutex. */
static int
add_slots(void)
{
	unsigned slots = atomic_load(&pool.slots);
	struct slot *chunk = calloc(CHUNK_SLOTS, sizeof *chunk);
	if (chunk == NULL)
		return ENOMEM;
	pool.chunks[slots / CHUNK_SLOTS] = chunk;
	for (unsigned i = 0; i < CHUNK_SLOTS; i++) {
		chunk[i].index = slots + i;
		chunk[i].next_free = pool.free;
		pool.free = &chunk[i];
	}
	atomic_store(&pool.slots, slots + CHUNK_SLOTS);
	return 0;
}

/* Finds a slot for a new connection. Returns 0, or an errno. */
static int
claim(struct slot **slot)
{
	pthread_mutex_lock(&pool.mutex);
	int error = pool.connections < pool.connections_max ? 0 : EMFILE;
	if (error == 0 && pool.free == NULL)
		error = add_slots();
	if (error == 0) {
		*slot = pool.free;
		pool.free = pool.free->next_free;
		(*slot)->team = &pool.quick;
		pool.quick.members++;
		pool.connections++;
	}
	pthread_mutex_unlock(&pool.mutex);
	return error;
}

static struct slot *
slot_of(struct pressure_place *place)
{
	return (struct slot *)((char *)place - offsetof(struct slot, place));
}

/* Takes over the connection of PLACE, if no thread is at it. */
static bool
own(struct pressure_place *place)
{
	struct slot *slot = slot_of(place);
	uint64_t state = atomic_load(&slot->state);
	return (state & OWNED) == 0 &&
	    atomic_compare_exchange_strong(&slot->state, &state, state | OWNED);
}

/* Looks for quiet connections with bytes in the kernel that a side has not taken, which
 * nobody is told of. */
static void
look_at_quiet(struct thread *thread)
{
	for (unsigned left = LOOKS_MAX; left > 0;) {
		pthread_mutex_lock(&pool.mutex);
		struct pressure_place *place = pressure_quiet(&left, own);
		pthread_mutex_unlock(&pool.mutex);
		if (place == NULL)
			return;
		rank(slot_of(place), true);
		if (!leave(slot_of(place)))
			serve(slot_of(place), thread);
	}
}

/* Takes over the connection that has made no progress for longest, of those that may give
 * way where WAITING wait to be accepted. Returns its slot, or NULL. */
static struct slot *
choose(struct thread *thread, int waiting)
{
	for (;;) {
		pthread_mutex_lock(&pool.mutex);
		struct pressure_place *place = pressure_choose(waiting, clock_ms(), own);
		pthread_mutex_unlock(&pool.mutex);
		if (place == NULL)
			return NULL;
		struct slot *slot = slot_of(place);
		if (proxy_progress(&slot->connection) == place->progress)
			return slot;
		/* A side has taken something meanwhile. */
		rank(slot, true);
		if (!leave(slot))
			serve(slot, thread);
	}
}

/* What it means that nobody gives way: EAGAIN where one may soon be worth it, or EMFILE. */
static int
find_nobody(struct thread *thread)
{
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&pool.mutex);
	bool looks = now_ms >= pool.next_look_ms;
	if (looks)
		pool.next_look_ms = now_ms + AGAIN_MS;
	pthread_mutex_unlock(&pool.mutex);
	if (looks)
		look_at_quiet(thread);
	pthread_mutex_lock(&pool.mutex);
	bool may_find = pressure_has_obstacles();
	pthread_mutex_unlock(&pool.mutex);
	return may_find ? EAGAIN : EMFILE;
}

/* Ends a connection for the sake of a new one. Returns 0; EAGAIN where one may soon be
 * worth it; EMFILE where there is none. */
static int
make_way(struct thread *thread)
{
	int waiting = listener_waiting();
	struct slot *slot = choose(thread, waiting);
	if (slot == NULL)
		return find_nobody(thread);
	int64_t now_ms = clock_ms();
	pthread_mutex_lock(&pool.mutex);
	pressure_gives_way(&slot->place, pool.connections, now_ms);
	pthread_mutex_unlock(&pool.mutex);
	set_timer(now_ms + PRESSURE_REST_MS);
	proxy_give_way(&slot->connection, waiting > PRESSURE_FEW);
	release(slot);
	return 0;
}

/* Claims a slot for a new connection; somebody may have to give way for it. */
static struct slot *
find_slot(struct thread *thread)
{
	struct slot *slot;
	int error = claim(&slot);
	if (error == 0)
		return slot;
	int none = make_way(thread);
	if (none == 0 && claim(&slot) == 0)
		return slot;
	run_short(none == EMFILE ? "limit" : NULL, error);
	return NULL;
}

static bool
may_enter(struct slot *slot, const union address *peer)
{
	pthread_mutex_lock(&pool.mutex);
	bool enters = pressure_enter(&slot->place, peer, clock_ms());
	pthread_mutex_unlock(&pool.mutex);
	return enters;
}

/* What to do where accept(2) has failed with ERROR. */
static void
bear_failure(struct thread *thread, int error)
{
	if (error == EAGAIN || (backend_may_recover(error) && make_way(thread) == 0))
		await_connection();
	else if (error == ECONNABORTED || error == EINTR)
		run_short(NULL, error);
	else if (atomic_load(&pool.accepts))
		run_short("accept", error);
}

/* Accepts a connection, for which there is a place then, and has the next one told before
 * it serves this one. */
static void
take_connection(struct thread *thread)
{
	union address peer;
	struct slot *slot = find_slot(thread);
	if (slot == NULL)
		return;
	int client = listener_accept(&peer);
	if (client == -1) {
		int error = errno;
		put_back(slot);
		bear_failure(thread, error);
		return;
	}
	await_connection();
	proxy_begin(&slot->connection, client, &peer);
	atomic_fetch_or(&slot->state, OPEN | OWNED);
	if (may_enter(slot, &peer)) {
		serve(slot, thread);
	} else {
		proxy_turn_away(&slot->connection);
		release(slot);
	}
}

/* Waits for the next event. Returns false where this thread is not needed any more. */
static bool
next_event(struct thread *thread, struct epoll_event *event)
{
	struct team *team = thread->team;
	int count;
	while ((count = epoll_wait(team->epoll, event, 1, WORKER_IDLE_MS)) != 1) {
		relay_room_release(&thread->proxy.room);
		name_thread(thread, "", true);
		pthread_mutex_lock(&pool.mutex);
		unsigned free = team->threads - team->blocked;
		bool spare = count == 0 &&
		    (free > team->wanted || (team == &pool.bulk && team->members == 0));
		team->threads -= spare;
		pthread_mutex_unlock(&pool.mutex);
		if (spare)
			return false;
	}
	return true;
}

static void *
run(void *argument)
{
	struct thread *thread = argument;
	struct epoll_event event;
	/* On Linux it is the thread's own. Where it is refused, it goes without. */
	if (thread->team == &pool.bulk)
		setpriority(PRIO_PROCESS, 0, BULK_NICE);
	thread->proxy.hosts = backend_hosts(pool.hosts);
	name_thread(thread, "", true); /* it has that of the thread that started it */
	while (next_event(thread, &event)) {
		uint64_t id = event.data.u64;
		if (id == LISTENER)
			take_connection(thread);
		else if (id == TIMER)
			ring(thread);
		else
			tell(slot_at((uint32_t)id >> 1), generation(id),
			    (uint64_t)(event.events & EVENTS)
				<< ((id & 1) != 0 ? BACKEND_SHIFT : 0),
			    thread);
	}
	free(thread);
	return NULL;
}

static unsigned
count_processors(void)
{
	cpu_set_t processors;
	if (sched_getaffinity(0, sizeof processors, &processors) == -1)
		return 1;
	return (unsigned)CPU_COUNT(&processors);
}

/* A quick thread for each processor, and two at least, so that one that is slow does not
 * hold up all; and one for bulk. */
static void
count_wanted(void)
{
	unsigned processors = count_processors();
	pool.quick.wanted = processors > 2 ? processors : 2;
	pool.bulk.wanted = processors;
}

static int
watch_timer_and_listener(void)
{
	struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.u64 = TIMER};
	struct epoll_event listener = {.data.u64 = LISTENER};
	if (epoll_ctl(pool.quick.epoll, EPOLL_CTL_ADD, pool.timer, &timer) == -1)
		return -1;
	return epoll_ctl(pool.quick.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &listener);
}

int
worker_init(int hosts, unsigned connections_max)
{
	pool.hosts = hosts;
	pool.connections_max = connections_max;
	pressure_init(connections_max);
	count_wanted();
	pool.chunks = calloc(connections_max / CHUNK_SLOTS + 1, sizeof(struct slot *));
	pool.quick.epoll = epoll_create1(EPOLL_CLOEXEC);
	pool.bulk.epoll = epoll_create1(EPOLL_CLOEXEC);
	pool.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	pool.news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool.chunks == NULL || pool.quick.epoll == -1 || pool.bulk.epoll == -1 ||
	    pool.timer == -1 || watch_timer_and_listener() == -1)
		return -1;
	return pool.news;
}

int
worker_accept(void)
{
	int error = ensure_threads(&pool.quick);
	if (error != 0)
		return error;
	atomic_store(&pool.accepts, true);
	await_connection();
	return 0;
}

void
worker_stop_accepting(void)
{
	atomic_store(&pool.accepts, false);
	epoll_ctl(pool.quick.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
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

unsigned
worker_threads(void)
{
	pthread_mutex_lock(&pool.mutex);
	unsigned threads = pool.quick.threads + pool.bulk.threads;
	pthread_mutex_unlock(&pool.mutex);
	return threads;
}

unsigned
worker_connections_peak(void)
{
	return atomic_load(&pool.slots);
}

/* Leaves the connection in SLOT, which the main thread has taken over. Where there are
 * news, the timer sends a thread, which finds that the deadline has come. */
static void
give_back(struct slot *slot)
{
	if (leave(slot))
		return;
	atomic_store(&slot->deadline_ms, 1);
	atomic_fetch_and(&slot->state, ~OWNED);
	set_timer(clock_ms() + WORKER_TICK_MS);
}

/* Logs the line of the connection in SLOT, if there is one; or has the thread that is at it
 * do so. */
static void
report_slot(struct slot *slot, struct worker_report *report)
{
	uint64_t state = atomic_load(&slot->state), bit;
	do {
		if ((state & OPEN) == 0)
			return;
		bit = (state & OWNED) != 0 ? WANTED : OWNED;
	} while (!atomic_compare_exchange_weak(&slot->state, &state, state | bit));
	if (bit == WANTED)
		return;
	char line[STATUS_LINE_SIZE];
	proxy_open_line(line, &slot->connection);
	give_back(slot);
	report->parked++;
	/* Who has waited for the log's reader in vain does not wait again. */
	if (report->left_out > 0 || !log_report("%s", line))
		report->left_out++;
}

bool
worker_report(struct worker_report *report)
{
	int64_t end_ms = clock_ms() + WORKER_REPORT_MS;
	unsigned slots = atomic_load(&pool.slots);
	while (report->next < slots && clock_ms() < end_ms)
		report_slot(slot_at(report->next++), report);
	return report->next < slots;
}

/* Takes over the connection in SLOT for good. Returns false where there is none, or a
 * thread is at it until DEADLINE_MS. */
static bool
take_for_good(struct slot *slot, int64_t deadline_ms)
{
	for (;;) {
		uint64_t state = atomic_load(&slot->state);
		if ((state & OPEN) == 0)
			return false;
		if ((state & OWNED) == 0 &&
		    atomic_compare_exchange_strong(&slot->state, &state, state | OWNED))
			return true;
		if (clock_left_ms(deadline_ms) == 0)
			return false;
		poll(NULL, 0, 1);
	}
}

void
worker_cut_off(void)
{
	int64_t deadline_ms = clock_ms() + WORKER_CUT_OFF_MS;
	unsigned slots = atomic_load(&pool.slots);
	for (unsigned i = 0; i < slots; i++) {
		char line[STATUS_LINE_SIZE];
		if (!take_for_good(slot_at(i), deadline_ms))
			continue;
		slot_at(i)->connection.end = STATUS_CUT_OFF;
		proxy_end_line(line, &slot_at(i)->connection);
		log_connection("%s", line);
	}
}

#include "lot.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>

const char lot_open_call[] = "epoll_create1", lot_leave_call[] = "epoll_ctl";

static int lot = -1;

bool
lot_open(void)
{
	lot = epoll_create1(EPOLL_CLOEXEC);
	return lot != -1;
}

/* One-shot, and one entry for each source: once an event was fetched there is no second, so that
 * whoever fetches it has the way alone. */
bool
lot_leave(struct relay_way *way, bool only_hangup)
{
	/* A hang-up is told of always. */
	struct epoll_event event = {
	    .events = EPOLLONESHOT | (only_hangup ? 0 : EPOLLIN | EPOLLRDHUP),
	    .data.ptr = way,
	};
	int operation = way->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	int from = way->from;
	way->watched = true;
	atomic_store(&way->parked, true);
	if (epoll_ctl(lot, operation, from, &event) == 0)
		return true; /* it may be over already */
	atomic_store(&way->parked, false);
	way->watched = operation == EPOLL_CTL_MOD;
	return false;
}

struct relay_way *
lot_take(int timeout_ms)
{
	struct epoll_event event;
	int count = epoll_wait(lot, &event, 1, timeout_ms);
	if (count == 0)
		errno = ETIMEDOUT;
	if (count != 1)
		return NULL;
	struct relay_way *way = event.data.ptr;
	atomic_exchange(&way->parked, false); /* what its last thread wrote can be seen */
	way->is_ready = true;
	return way;
}

bool
lot_has_work(void)
{
	struct pollfd entry = {.fd = lot, .events = POLLIN};
	return poll(&entry, 1, 0) == 1;
}

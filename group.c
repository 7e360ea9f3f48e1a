#include "group.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

static void *groups; /* a tree of them, see tsearch(3) */

static int
compare(const void *a, const void *b)
{
	const struct group *x = a, *y = b;
	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->key, y->key, x->length);
}

static struct group *
join(const void *key, size_t length)
{
	struct group *group = malloc(sizeof *group + length);
	if (group == NULL)
		return NULL;
	*group = (struct group){.length = length};
	memcpy(group->key, key, length);
	struct group **found = tsearch(group, &groups, compare);
	struct group *joined = found != NULL ? *found : NULL;
	if (joined != group)
		free(group);
	if (joined != NULL)
		joined->connections++;
	return joined;
}

struct group *
group_join_address(const union address *peer)
{
	struct in6_addr common = IN6ADDR_ANY_INIT;
	union address address = *peer;
	address_unmap(&address); /* a PROXY header may have both kinds */
	if (address.any.sa_family == AF_INET)
		memcpy(&common.s6_addr[12], &address.v4.sin_addr,
		    sizeof address.v4.sin_addr);
	else
		memcpy(&common, &address.v6.sin6_addr, 8);
	return join(&common, sizeof common);
}

struct group *
group_join_host(const char *name)
{
	return join(name, strlen(name));
}

void
group_leave(struct group *group)
{
	if (group == NULL || --group->connections > 0)
		return;
	tdelete(group, &groups, compare);
	free(group);
}

void
group_count_lost(struct group *group, int64_t now_ms)
{
	if (now_ms >= group->lost_ms + 1000) {
		group->lost_ms = now_ms;
		group->lost = 0;
	}
	group->lost++;
}

bool
group_is_flood(const struct group *group, int64_t now_ms)
{
	return group->lost >= GROUP_FLOOD && now_ms < group->lost_ms + 1000;
}

#include "lib/share.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

static void *shares; /* a tree, see tsearch(3) */

static int
compare(const void *a, const void *b)
{
	return strcmp(((const struct share *)a)->key, ((const struct share *)b)->key);
}

struct share *
share_join(const char *name)
{
	size_t size = strlen(name) + 1;
	struct share *share = calloc(1, sizeof *share + size);
	if (share == NULL)
		return NULL;
	memcpy(share->key, name, size);
	struct share **found = tsearch(share, &shares, compare);
	struct share *joined = found != NULL ? *found : NULL;
	if (joined != share)
		free(share);
	if (joined != NULL)
		joined->connections++;
	return joined;
}

struct share *
share_join_address(const union address *peer)
{
	char key[1 + ADDRESS_TEXT_SIZE] = "@"; /* no name begins like that */
	union address address = *peer;
	address_unmap(&address);
	if (address.any.sa_family == AF_INET6)
		memset(address.v6.sin6_addr.s6_addr + 8, 0, 8);
	address_text(key + 1, &address);
	return share_join(key);
}

void
share_leave(struct share *share)
{
	if (share == NULL || --share->connections > 0)
		return;
	tdelete(share, &shares, compare);
	free(share);
}

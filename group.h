/* What connections have in common by which a flood is known: the address that they come from, or
 * the host that they are for. Not for several threads at once. */
#ifndef GROUP_H
#define GROUP_H

#include "address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* So many lost within a second are a flood: of an address, that were turned away; for
	 * a host, that gave way. */
	GROUP_FLOOD = 20,
};

struct group {
	unsigned connections;
	unsigned lost; /* in the second from LOST_MS on */
	int64_t lost_ms;
	size_t length;
	uint8_t key[]; /* the bytes of an address, or a name, which has no NUL */
};

/* Returns the group of PEER's address, of an IPv6 address by its first 64 bits, since that is what
 * one customer has; or that of the host NAME. It has one connection more now. NULL where memory is
 * short. */
struct group *group_join_address(const union address *peer);
struct group *group_join_host(const char *name);

/* Takes a connection out of GROUP, which may be NULL; it is gone with the last. */
void group_leave(struct group *group);

/* Counts a connection that was lost. */
void group_count_lost(struct group *group, int64_t now_ms);

/* Whether so many of GROUP were lost of late that they are a flood. */
bool group_is_flood(const struct group *group, int64_t now_ms);

#endif

/* How much there may be at once, by the limits on open files, memory and threads. */
#ifndef CAPACITY_H
#define CAPACITY_H

#include <stddef.h>
#include <stdint.h>

struct capacity {
	uint64_t memory;      /* in bytes; 0 if it is not known */
	unsigned connections; /* slots */
	unsigned pipes;
	unsigned threads;
	size_t hellos; /* the memory for them */
};

/* Raises the soft limit on open files to the hard one, and returns what there is room for; not
 * one connection if that limit is too low. */
struct capacity capacity_find(void);

#endif

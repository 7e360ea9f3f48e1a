/* How much there may be at once: connections and pipes by the limit on open files, threads by
 * the memory that the machine has. */
#ifndef CAPACITY_H
#define CAPACITY_H

struct capacity {
	unsigned connections; /* slots */
	unsigned pipes;
	unsigned threads;
};

/* Raises the soft limit on open files to the hard one, and returns what there is room for then;
 * not one connection if the limit is too low. */
struct capacity capacity_find(void);

/* Returns how many descriptors are open, if there were at most CONNECTIONS at once. */
unsigned capacity_count_descriptors(unsigned connections);

#endif

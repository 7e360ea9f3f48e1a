/* How much there may be at once: connections and pipes by the limit on open files, threads by the
 * memory that the machine has. */
#ifndef LIMITS_H
#define LIMITS_H

struct limits {
	unsigned connections;
	unsigned pipes;
	unsigned threads;
	unsigned
	    free_threads; /* how many of them are not to wait for anything but work */
};

/* Raises the soft limit on open files to the hard one, and returns what there is room for then;
 * not one connection where the limit is too low. */
struct limits limits_find(void);

/* How many descriptors are open where there were CONNECTIONS at once, at most. */
unsigned limits_count_descriptors(unsigned connections);

#endif

/* What the threads do. A connection has one while it has something to do, and each of its two ways
 * its own; those that are quiet wait in the lot (relay.h), and threads without a way wait there for
 * one that stirs. */
#ifndef LOT_H
#define LOT_H

enum {
	/* A thread that has had nothing to do for so long ends, if there are others. */
	LOT_IDLE_MS = 10 * 1000,
};

/* Prepares for THREADS_MAX threads, of which FREE shall not wait for anything but work. They connect
 * in the hosts directory HOSTS, an O_PATH descriptor that stays open. thread_pool_ensure() starts
 * them. */
void lot_prepare(int hosts, unsigned free, unsigned threads_max);

#endif

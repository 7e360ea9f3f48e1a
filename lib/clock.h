/* The clock for deadlines. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

/* Returns the milliseconds since some moment in the past. Setting the date does not affect it. */
static inline int64_t
clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Returns the milliseconds until DEADLINE_MS, or 0 if it has passed. An int holds them, because
 * deadlines are an hour away at most. */
static inline int
clock_left_ms(int64_t deadline_ms)
{
	int64_t left_ms = deadline_ms - clock_ms();
	return left_ms > 0 ? (int)left_ms : 0;
}

#endif

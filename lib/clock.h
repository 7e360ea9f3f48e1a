/* The clock that deadlines are measured by. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

/* The time in milliseconds since some point in the past; setting the date does not move it. */
static inline int64_t
clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The milliseconds left until DEADLINE_MS, as poll(2) takes them: 0 when it is over. Deadlines
 * are some seconds away, so an int holds them. */
static inline int
clock_left_ms(int64_t deadline_ms)
{
	int64_t left_ms = deadline_ms - clock_ms();
	return left_ms > 0 ? (int)left_ms : 0;
}

#endif

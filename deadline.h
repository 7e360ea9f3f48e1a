/* What time brings: hellos that have not come in time, host directories that do not answer, clients that
 * were listened to for long enough, clients that have ended their streams some time ago. */
#ifndef DEADLINE_H
#define DEADLINE_H

#include <stdint.h>

/* For the main thread: does what is due now. Returns when to call it again, INT64_MAX where that is
 * open; the thread is woken where it comes to be sooner. */
int64_t deadline_look(void);

#endif

/* What FreeBSD has in this header, for a build of system_freebsd.c on Linux. */
#ifndef PTHREAD_NP_H
#define PTHREAD_NP_H

#include <pthread.h>

void pthread_set_name_np(pthread_t thread, const char *name);

#endif

/* The filter for seccomp(2) that calls.h describes. */
#ifndef FILTER_H
#define FILTER_H

#include <linux/filter.h>

/* Compares a call with calls.h, in order: allows it, or refuses it with EPERM. A call that is not
 * there fails with ENOSYS, as in an older kernel, so that the C library uses an older call instead.
 * Calls of another architecture, which have other numbers, kill the process.
 *
 * The length is 0 on machines without a filter: all except x86-64 and AArch64. */
extern const struct sock_filter filter_program[];
extern const unsigned short filter_length;

#endif

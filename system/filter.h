/* The filter for seccomp(2) that calls.h describes. */
#ifndef FILTER_H
#define FILTER_H

#include <linux/filter.h>

/* It goes through calls.h in order: what is allowed there is, what is refused fails with EPERM.
 * What is not there fails with ENOSYS, as if the kernel did not have it: a C library that tries
 * a new call does it in the old way then. Calls of another architecture, which have other
 * numbers, kill the process.
 *
 * Of no length on machines for which there is none: others than x86-64 and AArch64. */
extern const struct sock_filter filter_program[];
extern const unsigned short filter_length;

#endif

/* sysctl(3) of macOS, as far as system/macos.c asks it. */
#ifndef MACOS_SYSCTL_H
#define MACOS_SYSCTL_H

#include <stddef.h>

int
sysctlbyname(const char *name, void *value, size_t *size, void *to_set, size_t set_size);

#endif

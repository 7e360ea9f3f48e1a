/* Habits of other proxies that have no effect here. */
#ifndef HINT_H
#define HINT_H

#include <stdbool.h>

/* Whether NAME is a wildcard, as other servers have them. */
bool hint_is_wildcard(const char *name);

/* Whether NAME is one that other servers use for the host of all names that they do not know. */
bool hint_is_default(const char *name);

/* Returns the name of a file in the host directory DIRECTORY that was probably meant to be
 * send-proxy-v1. Returns NULL if there is none, or if send-proxy-v1 exists. Needs the right to
 * search DIRECTORY, and none to read it. The string is static. */
const char *hint_header_file(const char *directory);

#endif

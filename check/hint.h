/* Habits of other proxies, and mistyped names, that have no effect here. */
#ifndef HINT_H
#define HINT_H

#include <stdbool.h>

/* Whether NAME is one that other servers use for the host of all names that they do not know. */
bool hint_is_default(const char *name);

/* Whether there is anything called NAME in DIRECTORY, a symlink to nothing included. Needs the
 * right to search DIRECTORY, and none to read it. */
bool hint_is_there(const char *directory, const char *name);

/* Return the name of a file in the host directory DIRECTORY that was probably meant to be
 * send-proxy-v1 or send-proxy-v2, or acme-tls-socket. Return NULL if there is none, or if what was
 * meant exists. The string is static. */
const char *hint_header_file(const char *directory);
const char *hint_acme_socket(const char *directory);

#endif

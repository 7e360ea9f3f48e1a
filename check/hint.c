#include "check/hint.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool
hint_is_wildcard(const char *name)
{
	return strchr(name, '*') != NULL;
}

bool
hint_is_default(const char *name)
{
	/* default_server and "_" are nginx's, _default_ is Apache's. */
	static const char *const names[] = {
	    "default", "_default", "_default_", "default_server", "_"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* Whether there is anything called NAME in DIRECTORY, a symlink to nothing included. */
static bool
has(const char *directory, const char *name)
{
	char path[PATH_MAX];
	struct stat status;
	return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path &&
	    lstat(path, &status) == 0;
}

const char *
hint_header_file(const char *directory)
{
	/* HAProxy's options, nginx's parameter, and mistyped names. */
	static const char *const names[] = {"send-proxy", "send-proxy-v2", "accept-proxy",
	    "proxy_protocol", "proxy-protocol", "send_proxy", "send_proxy_v1", "send-proxy-v1.txt"};
	if (has(directory, "send-proxy-v1"))
		return NULL;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (has(directory, names[i]))
			return names[i];
	return NULL;
}

#include "check/hint.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool
hint_is_default(const char *name)
{
	/* default_server and "_" are nginx's, _default_ is Apache's. */
	static const char *const names[] = {"default", "_default_", "default_server", "_", "*"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

bool
hint_is_there(const char *directory, const char *name)
{
	char path[PATH_MAX];
	struct stat status;
	return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path &&
	    lstat(path, &status) == 0;
}

/* Returns the first of NAMES, which end with NULL, that is in DIRECTORY; or NULL. */
static const char *
find(const char *directory, const char *const *names)
{
	while (*names != NULL && !hint_is_there(directory, *names))
		names++;
	return *names;
}

const char *
hint_header_file(const char *directory)
{
	/* HAProxy's options, nginx's parameter, and mistyped names. */
	static const char *const names[] = {"send-proxy", "accept-proxy", "proxy_protocol",
	    "proxy-protocol", "send_proxy", "send_proxy_v1", "send_proxy_v2", "send-proxy-v1.txt",
	    "send-proxy-v2.txt", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn", NULL};
	if (hint_is_there(directory, "send-proxy-v1") || hint_is_there(directory, "send-proxy-v2"))
		return NULL;
	return find(directory, names);
}

const char *
hint_acme_socket(const char *directory)
{
	static const char *const names[] = {"acme-socket", "acme_socket", "acme_tls_socket",
	    "tls-acme-socket", "acme-tls.socket", NULL};
	return hint_is_there(directory, "acme-tls-socket") ? NULL : find(directory, names);
}

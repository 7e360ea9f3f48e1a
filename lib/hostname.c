#include "lib/hostname.h"

#include <string.h>

#ifdef HASHED
#include <stdio.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

static char
lowercase(uint8_t byte)
{
	return (char)(byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte);
}

bool
hostname_canonical(char name[HOSTNAME_SIZE], const uint8_t *bytes, size_t length)
{
	if (length == 0 || length > HOSTNAME_MAX)
		return false;

	bool label_begins = true;
	for (size_t i = 0; i < length; i++) {
		char c = lowercase(bytes[i]);
		/* isalnum(3) depends on the locale. */
		bool is_letter_or_digit = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		bool is_mark = c == '-' || c == '_' || c == '.';
		if (!is_letter_or_digit && (!is_mark || label_begins))
			return false;
		label_begins = c == '.';
		name[i] = c;
	}
	name[length] = '\0';
	return !label_begins;
}

bool
hostname_next(char host[HOSTNAME_SIZE])
{
	const char *domain = strchr(host, '.');
	if (domain != NULL && !hostname_is_special(host)) {
		memmove(host + 1, domain, strlen(domain) + 1);
		host[0] = '_';
		return true;
	}
	if (strcmp(host, HOSTNAME_DEFAULT) == 0 || strcmp(host, HOSTNAME_NO_SNI) == 0)
		return false;
	memcpy(host, HOSTNAME_DEFAULT, sizeof HOSTNAME_DEFAULT);
	return true;
}

bool
hostname_is_special(const char *host)
{
	return host[0] == '_';
}

#ifdef HASHED
void
hostname_directory(char directory[HOSTNAME_SIZE], const char *host)
{
	XXH128_canonical_t digest;
	XXH128_canonicalFromHash(&digest, XXH3_128bits(host, strlen(host)));
	for (size_t i = 0; i < sizeof digest.digest; i++)
		snprintf(directory + 2 * i, 3, "%02x", digest.digest[i]);
}
#else
void
hostname_directory(char directory[HOSTNAME_SIZE], const char *host)
{
	memcpy(directory, host, strlen(host) + 1);
}
#endif

/* Fuzz test of hostname.c: which bytes are a name, and that each name is safe as the name of a
 * directory. The input is a host_name as a client sends it. */
#include <stdbool.h>

#include "lib/hostname.h"
#include "tests/fuzz/fuzz.h"

/* The rule of hostname.h, for each label. */
static bool
is_label(const uint8_t *label, size_t length)
{
	static const char allowed[] =
	    "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	for (size_t i = 0; i < length; i++)
		if (memchr(allowed, label[i], sizeof allowed - 1) == NULL)
			return false;
	return length > 0 && label[0] != '-' && label[0] != '_';
}

static bool
is_name(const uint8_t *bytes, size_t length)
{
	if (length == 0 || length > 254)
		return false;
	const uint8_t *end = bytes + length, *dot;
	for (; (dot = memchr(bytes, '.', (size_t)(end - bytes))) != NULL; bytes = dot + 1)
		if (!is_label(bytes, (size_t)(dot - bytes)))
			return false;
	return is_label(bytes, (size_t)(end - bytes));
}

/* Writes the bytes with the other case of each letter. */
static void
swap_case(uint8_t *swapped, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		uint8_t c = bytes[i];
		bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		swapped[i] = is_letter ? c ^ 0x20 : c;
	}
}

/* The canonical form is the name in lowercase, and its own canonical form. */
static void
judge_canonical(const char *canonical, const uint8_t *bytes, size_t length)
{
	PROPERTY(strlen(canonical) == length, "a name of another length");
	for (size_t i = 0; i < length; i++) {
		uint8_t c = bytes[i];
		uint8_t lowercase = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
		PROPERTY((uint8_t)canonical[i] == lowercase, "another name");
	}
	char again[HOSTNAME_SIZE];
	uint8_t swapped[HOSTNAME_MAX];
	swap_case(swapped, bytes, length);
	PROPERTY(hostname_canonical(again, swapped, length) && strcmp(again, canonical) == 0,
	    "the case of letters matters");
	PROPERTY(hostname_canonical(again, (const uint8_t *)canonical, length) &&
		strcmp(again, canonical) == 0,
	    "the canonical form is not canonical");
}

static void
judge_directory(const char *directory, const char *canonical)
{
	PROPERTY(strchr(directory, '/') == NULL && directory[0] != '.' && directory[0] != '-' &&
		directory[0] != '\0' && strlen(directory) <= 255,
	    "not the name of a directory");
#ifdef HASHED
	(void)canonical;
	PROPERTY(
	    strlen(directory) == 32 && strspn(directory, "0123456789abcdef") == 32, "not a hash");
#else
	PROPERTY(strcmp(directory, canonical) == 0, "another name");
#endif
}

/* The special hosts that serve HOST's clients are valid as directories, and as no client's name. */
static void
judge_special_hosts(char *host)
{
	char *canonical = malloc(HOSTNAME_SIZE), *directory = malloc(HOSTNAME_SIZE);
	PROPERTY(canonical != NULL && directory != NULL, "out of memory");
	bool has_dot = strchr(host, '.') != NULL;
	int count = 0;
	for (; hostname_next(host); count++) {
		PROPERTY(hostname_is_special(host), "not a special host");
		PROPERTY(!hostname_canonical(canonical, (const uint8_t *)host, strlen(host)),
		    "a client may ask for a special host");
		hostname_directory(directory, host);
		judge_directory(directory, host);
	}
	PROPERTY(count == 1 + has_dot, "%d special hosts", count);
	free(directory);
	free(canonical);
}

int
LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	/* Blocks of exactly their size, so that AddressSanitizer detects an access past the end. */
	uint8_t *bytes = fuzz_copy(input, length);
	char *canonical = malloc(HOSTNAME_SIZE), *directory = malloc(HOSTNAME_SIZE);
	PROPERTY(canonical != NULL && directory != NULL, "out of memory");

	bool valid = hostname_canonical(canonical, bytes, length);
	PROPERTY(valid == is_name(input, length), "%svalid", valid ? "" : "not ");
	if (valid) {
		judge_canonical(canonical, input, length);
		hostname_directory(directory, canonical);
		judge_directory(directory, canonical);
		judge_special_hosts(canonical);
	}
	free(directory);
	free(canonical);
	free(bytes);
	return 0;
}

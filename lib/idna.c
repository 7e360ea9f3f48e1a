#include "lib/idna.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/uidna.h>
#include <unicode/utf8.h>

/* Faults of a name: ICU's UIDNA_ERROR_... bits, and these, which ICU does not use. */
enum {
	LEADING_UNDERSCORE = 1 << 27,
	NOT_UTF8 = 1 << 28,
	NOT_CONVERTED = 1 << 29,
	NOT_CANONICAL = 1 << 30,
};

static const struct {
	uint32_t bit;
	const char *words;
} fault_words[] = {
    {NOT_UTF8, "not UTF-8"},
    {UIDNA_ERROR_EMPTY_LABEL, "empty label"},
    {UIDNA_ERROR_LABEL_TOO_LONG, "label longer than 63 bytes"},
    {UIDNA_ERROR_DOMAIN_NAME_TOO_LONG, "name longer than 253 bytes"},
    {UIDNA_ERROR_LEADING_HYPHEN, "label begins with a hyphen"},
    {LEADING_UNDERSCORE, "label begins with an underscore"},
    {UIDNA_ERROR_LEADING_COMBINING_MARK, "label begins with a combining mark"},
    {UIDNA_ERROR_DISALLOWED, "character that no host name may have"},
    {UIDNA_ERROR_PUNYCODE, "xn-- label that is not Punycode"},
    {UIDNA_ERROR_LABEL_HAS_DOT, "xn-- label with a dot inside"},
    {UIDNA_ERROR_INVALID_ACE_LABEL, "xn-- label that stands for no valid label"},
    {UIDNA_ERROR_BIDI, "left-to-right and right-to-left text mixed"},
    {UIDNA_ERROR_CONTEXTJ, "invisible joiner where none belongs"},
    {NOT_CONVERTED, "too long to be mapped to ASCII, or out of memory"},
    {NOT_CANONICAL, "the proxy would reject it"},
};

/* ICU always checks hyphens, which UTS #46 leaves to the program (CheckHyphens). Names such as
 * r3---sn.example and a-.example are in use, so they pass. At the beginning of a label, a hyphen is
 * a fault, because the proxy rejects it. */
static const uint32_t not_faults = UIDNA_ERROR_TRAILING_HYPHEN | UIDNA_ERROR_HYPHEN_3_4;

/* Returns the character at INDEX and moves INDEX past it. Returns a negative number if the bytes
 * are not UTF-8. */
static UChar32
next_character(const char *name, int32_t *index, int32_t length)
{
	const uint8_t *bytes = (const uint8_t *)name;
	UChar32 c;
	U8_NEXT(bytes, *index, length, c);
	return c;
}

static bool
is_utf8(const char *name, int32_t length)
{
	for (int32_t i = 0; i < length;)
		if (next_character(name, &i, length) < 0)
			return false;
	return true;
}

/* Whether C, of a mapped label, is what the STD3 rules of UTS #46 forbid, except for '_'. The last
 * three are '=', '<' and '>' with a stroke. */
static bool
is_forbidden(UChar32 c)
{
	return (c < 0x80 && !u_isalnum(c) && c != '-' && c != '_') || c == 0x2260 || c == 0x226e ||
	    c == 0x226f;
}

/* Returns the faults of the characters of NAME, LENGTH bytes that ICU has mapped to ASCII. Decodes
 * Punycode, because the first byte of a label there need not be its first character. */
static uint32_t
character_faults(const struct UIDNA *idna, const char *name, int32_t length)
{
	char text[4 * HOSTNAME_SIZE]; /* a byte of Punycode becomes 4 bytes at most */
	UIDNAInfo info = UIDNA_INFO_INITIALIZER;
	UErrorCode error = U_ZERO_ERROR;
	length =
	    uidna_nameToUnicodeUTF8(idna, name, length, text, (int32_t)sizeof text, &info, &error);
	if (U_FAILURE(error))
		return NOT_CONVERTED;
	uint32_t faults = 0;
	bool label_begins = true;
	for (int32_t i = 0; i < length;) {
		UChar32 c = next_character(text, &i, length);
		if (c == '_' && label_begins)
			faults |= LEADING_UNDERSCORE;
		if (c != '.' && is_forbidden(c))
			faults |= UIDNA_ERROR_DISALLOWED;
		label_begins = c == '.';
	}
	return faults;
}

/* Does what idna_canonical() does, for a NAME that is no special host. */
static uint32_t
convert(const struct UIDNA *idna, char canonical[HOSTNAME_SIZE], const char *name)
{
	int32_t length = (int32_t)strlen(name);
	/* ICU would replace each invalid byte by U+FFFD, and report that. */
	if (!is_utf8(name, length))
		return NOT_UTF8;

	char ascii[HOSTNAME_SIZE];
	UIDNAInfo info = UIDNA_INFO_INITIALIZER;
	UErrorCode error = U_ZERO_ERROR;
	length =
	    uidna_nameToASCII_UTF8(idna, name, length, ascii, (int32_t)sizeof ascii, &info, &error);
	if (error == U_BUFFER_OVERFLOW_ERROR)
		return info.errors | UIDNA_ERROR_DOMAIN_NAME_TOO_LONG;
	if (U_FAILURE(error))
		return NOT_CONVERTED;
	uint32_t faults = (info.errors & ~not_faults) | character_faults(idna, ascii, length);
	if ((faults & UIDNA_ERROR_DISALLOWED) != 0) /* what is beside it does not matter */
		faults &= ~(uint32_t)(UIDNA_ERROR_BIDI | UIDNA_ERROR_CONTEXTJ);
	if (faults != 0)
		return faults;

	/* ICU has reported a second dot as an empty label. */
	if (length > 0 && ascii[length - 1] == '.')
		length--;
	if (!hostname_canonical(canonical, (const uint8_t *)ascii, (size_t)length))
		return NOT_CANONICAL;
	return 0;
}

uint32_t
idna_canonical(const struct UIDNA *idna, char host[HOSTNAME_SIZE], const char *name)
{
	if (strcmp(name, HOSTNAME_DEFAULT) == 0 || strcmp(name, HOSTNAME_NO_SNI) == 0) {
		snprintf(host, HOSTNAME_SIZE, "%s", name);
		return 0;
	}
	if ((name[0] != '*' && name[0] != '_') || name[1] != '.')
		return convert(idna, host, name);

	/* A wildcard is as valid as the shortest name that it serves. */
	char *served = strdup(name);
	if (served == NULL)
		return NOT_CONVERTED;
	served[0] = 'a';
	uint32_t faults = convert(idna, host, served);
	free(served);
	host[0] = '_';
	return faults == 0 && host[1] != '.' ? UIDNA_ERROR_EMPTY_LABEL : faults;
}

void
idna_show(FILE *stream, const char *name)
{
	int32_t length = (int32_t)strlen(name);
	for (int32_t start = 0, end = 0; start < length; start = end) {
		UChar32 c = next_character(name, &end, length);
		if (c == ' ' || (c >= 0 && c != '\\' && u_isgraph(c)))
			fprintf(stream, "%.*s", (int)(end - start), name + start);
		else
			for (int32_t i = start; i < end; i++)
				fprintf(stream, "\\x%02x", (unsigned char)name[i]);
	}
}

char *
idna_shown(const char *name)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return NULL;
	idna_show(stream, name);
	fclose(stream);
	return text;
}

void
idna_show_faults(FILE *stream, uint32_t faults)
{
	const char *separator = "";
	for (size_t i = 0; i < sizeof fault_words / sizeof *fault_words; i++)
		if ((faults & fault_words[i].bit) != 0) {
			fprintf(stream, "%s%s", separator, fault_words[i].words);
			separator = ", ";
		}
}

struct UIDNA *
idna_open(const char **error)
{
	UErrorCode code = U_ZERO_ERROR;
	UIDNA *idna = uidna_openUTS46(
	    UIDNA_CHECK_BIDI | UIDNA_CHECK_CONTEXTJ | UIDNA_NONTRANSITIONAL_TO_ASCII, &code);
	*error = u_errorName(code);
	return U_SUCCESS(code) ? idna : NULL;
}

void
idna_close(struct UIDNA *idna)
{
	uidna_close(idna);
}

/* Prints the names of the directories in which the proxy looks for hosts. People write a
 * host's name as they like to read it; clients send it as UTS #46 maps it to ASCII, and
 * so must the directory be named. */
#include "hostname.h"

#include <stdio.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/uidna.h>
#include <unicode/utf8.h>

/* What can be wrong with a name: ICU's UIDNA_ERROR_... bits, and these far above them. */
enum {
	NOT_UTF8 = 1 << 28,
	NOT_CONVERTED = 1 << 29,
	NOT_CANONICAL = 1 << 30,
};

static const struct {
	uint32_t bit;
	const char *words;
} faults[] = {
    {NOT_UTF8, "not UTF-8"},
    {UIDNA_ERROR_EMPTY_LABEL, "empty label"},
    {UIDNA_ERROR_LABEL_TOO_LONG, "label longer than 63 bytes"},
    {UIDNA_ERROR_DOMAIN_NAME_TOO_LONG, "name longer than 253 bytes"},
    {UIDNA_ERROR_LEADING_HYPHEN, "label begins with a hyphen"},
    {UIDNA_ERROR_LEADING_COMBINING_MARK, "label begins with a combining mark"},
    {UIDNA_ERROR_DISALLOWED, "character that no host name may have"},
    {UIDNA_ERROR_PUNYCODE, "xn-- label that is not Punycode"},
    {UIDNA_ERROR_LABEL_HAS_DOT, "xn-- label with a dot inside"},
    {UIDNA_ERROR_INVALID_ACE_LABEL, "xn-- label that stands for no valid label"},
    {UIDNA_ERROR_BIDI, "left-to-right and right-to-left text mixed"},
    {UIDNA_ERROR_CONTEXTJ, "invisible joiner where none belongs"},
    {NOT_CONVERTED, "too long to be mapped to ASCII, or out of memory"},
    {NOT_CANONICAL, "the proxy would refuse it"},
};

/* ICU always looks at hyphens, which UTS #46 leaves to the program (CheckHyphens). Names
 * such as r3---sn.example and a-.example are in use and pass; at a label's beginning,
 * where the proxy accepts no hyphen, it is a fault. */
static const uint32_t not_faults = UIDNA_ERROR_TRAILING_HYPHEN | UIDNA_ERROR_HYPHEN_3_4;

/* Returns the character at INDEX and moves INDEX past it, or returns a negative number
 * where the bytes are not UTF-8. */
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

/* Writes the canonical name that the proxy will see for NAME. Returns 0, or the bits that
 * say what is wrong with NAME; then nothing useful is in CANONICAL. */
static uint32_t
canonicalize(char canonical[HOSTNAME_SIZE], const UIDNA *idna, const char *name)
{
	int32_t length = (int32_t)strlen(name);
	/* ICU would take each invalid byte for U+FFFD, and report that. */
	if (!is_utf8(name, length))
		return NOT_UTF8;

	char ascii[HOSTNAME_SIZE];
	UIDNAInfo info = UIDNA_INFO_INITIALIZER;
	UErrorCode error = U_ZERO_ERROR;
	length = uidna_nameToASCII_UTF8(
	    idna, name, length, ascii, (int32_t)sizeof ascii, &info, &error);
	if (error == U_BUFFER_OVERFLOW_ERROR)
		return info.errors | UIDNA_ERROR_DOMAIN_NAME_TOO_LONG;
	if (U_FAILURE(error))
		return NOT_CONVERTED;
	if ((info.errors & ~not_faults) != 0)
		return info.errors & ~not_faults;

	/* A second dot would have been an empty label. */
	if (length > 0 && ascii[length - 1] == '.')
		length--;
	if (!hostname_canonical(canonical, (const uint8_t *)ascii, (size_t)length))
		return NOT_CANONICAL;
	return 0;
}

/* Prints NAME on stderr with all that could confuse a terminal or a reader as \xNN. */
static void
print_escaped(const char *name)
{
	int32_t length = (int32_t)strlen(name);
	for (int32_t start = 0, end = 0; start < length; start = end) {
		UChar32 c = next_character(name, &end, length);
		if (c == ' ' || (c >= 0 && c != '\\' && u_isgraph(c)))
			fprintf(stderr, "%.*s", (int)(end - start), name + start);
		else
			for (int32_t i = start; i < end; i++)
				fprintf(stderr, "\\x%02x", (unsigned char)name[i]);
	}
}

static void
complain(const char *name, uint32_t bits)
{
	fputs("sniproxy-hostname: ", stderr);
	print_escaped(*name != '\0' ? name : "''");
	const char *separator = ": ";
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		if ((bits & faults[i].bit) != 0) {
			fprintf(stderr, "%s%s", separator, faults[i].words);
			separator = ", ";
		}
	fputc('\n', stderr);
}

static bool
print(const char *line)
{
	if (puts(line) != EOF)
		return true;
	perror("sniproxy-hostname: stdout");
	return false;
}

/* Prints what belongs to the names. Returns the exit status. */
static int
print_directories(const UIDNA *idna, char **names)
{
	int status = 0;
	for (; *names != NULL; names++) {
		char canonical[HOSTNAME_SIZE], directory[HOSTNAME_SIZE];
		uint32_t bits = canonicalize(canonical, idna, *names);
		if (bits != 0) {
			complain(*names, bits);
			status = 1;
			continue;
		}
		hostname_directory(directory, canonical);
		if (!print(directory))
			return 1;
	}
	return status;
}

static const char usage[] = "usage: sniproxy-hostname [--] NAME... | --help | --version";

/* What an option asks for, or NULL where OPTION is none. No name begins with a hyphen. */
static const char *
answer(const char *option)
{
	if (strcmp(option, "--version") == 0)
		return "sniproxy-hostname " VERSION;
	return strcmp(option, "--help") == 0 ? usage : NULL;
}

int
main(int argc, char **argv)
{
	/* Each line goes out whole, in its turn, and a write that fails is seen. */
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
	const char *answered = argc == 2 ? answer(argv[1]) : NULL;
	if (answered != NULL)
		return !print(answered);
	if (argc > 1 && strcmp(argv[1], "--") == 0) {
		argc--;
		argv++;
	}
	if (argc < 2) {
		fprintf(stderr, "%s\n", usage);
		return 2;
	}

	UErrorCode error = U_ZERO_ERROR;
	UIDNA *idna = uidna_openUTS46(UIDNA_USE_STD3_RULES | UIDNA_CHECK_BIDI |
		UIDNA_CHECK_CONTEXTJ | UIDNA_NONTRANSITIONAL_TO_ASCII,
	    &error);
	if (U_FAILURE(error)) {
		fprintf(stderr, "sniproxy-hostname: ICU: %s\n", u_errorName(error));
		return 1;
	}
	int status = print_directories(idna, argv + 1);
	uidna_close(idna);
	return status;
}

/* Prints the names of the directories in which the proxy looks for hosts. Users write a host's name
 * in Unicode. Clients send it as UTS #46 maps it to ASCII, and the directory must have that
 * name. */
#include "lib/idna.h"

#include <stdio.h>
#include <string.h>

static void
complain(const char *name, uint32_t faults)
{
	fputs("sniproxy-hostname: ", stderr);
	idna_show(stderr, *name != '\0' ? name : "''");
	fputs(": ", stderr);
	idna_show_faults(stderr, faults);
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

/* Prints the directory of each of NAMES. Returns the exit status. */
static int
print_directories(const struct UIDNA *idna, char **names)
{
	int status = 0;
	for (; *names != NULL; names++) {
		char host[HOSTNAME_SIZE], directory[HOSTNAME_SIZE];
		uint32_t faults = idna_canonical(idna, host, *names);
		if (faults != 0) {
			complain(*names, faults);
			status = 1;
			continue;
		}
		hostname_directory(directory, host);
		if (!print(directory))
			return 1;
	}
	return status;
}

static const char usage[] = "usage: sniproxy-hostname [--] NAME... | --help | --version";

/* Returns the answer to OPTION, or NULL if it is not an option. No name begins with a hyphen. */
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
	/* Line buffering keeps lines whole and in order, and lets puts(3) report failed writes. */
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

	const char *error;
	struct UIDNA *idna = idna_open(&error);
	if (idna == NULL) {
		fprintf(stderr, "sniproxy-hostname: ICU: %s\n", error);
		return 1;
	}
	int status = print_directories(idna, argv + 1);
	idna_close(idna);
	return status;
}

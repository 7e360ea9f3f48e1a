/* Reports whether the proxy would serve each entry of a hosts directory and, if not, why. Looks up
 * hosts with the proxy's own code, and with the rights and the view that the proxy has. */
#include "check/entry.h"
#include "check/report.h"
#include "check/unit.h"
#include "lib/clock.h"
#include "lib/idna.h"

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	/* Number of entries checked at the same time. Most of the time is spent waiting. */
	THREADS_MAX = 32,

	/* Default timeouts: for one entry, and for all. */
	TIMEOUT_MS = 2000,
	DEADLINE_MS = 300 * 1000,

	NAMES_MAX = 1024,
	NOTES_MAX = 4,
};

/* The unit that is checked by default, if it is installed. */
static const char default_unit[] = "sniproxy.service";

static const char usage[] = "usage: sniproxy-check [--user USER] [--root ROOT] [--unit "
			    "UNIT] [--name NAME]... [--connect]\n"
			    "                      [--timeout SECONDS] [--deadline "
			    "SECONDS] [--json] [--quiet] [DIRECTORY]\n"
			    "       sniproxy-check --help | --version";

struct options {
	const char *directory;
	const char *unit;
	struct unit_fault fault; /* of the unit */
	struct view view;
	const char *names[NAMES_MAX];
	size_t names_count;
	bool connects, json, quiet;
	int timeout_ms, deadline_ms;
};

/* Shared by the threads. Each entry belongs to the thread that took its number from NEXT. */
struct work {
	struct entry *entries;
	size_t count;
	bool are_hosts; /* the entries are names of hosts, from --name */
	atomic_size_t next;
	int hosts; /* the hosts directory */
	const struct entry_settings *settings;
};

/* --- The command line --- */

enum {
	USER = 'u',
	ROOT = 'r',
	UNIT = 's',
	NAME = 'n',
	CONNECT = 'c',
	TIMEOUT = 't',
	DEADLINE = 'd',
	JSON = 'j',
	QUIET = 'q',
	HELP = 'h',
	VERSION_OPTION = 'v'
};

static const struct option long_options[] = {
    {"user", required_argument, NULL, USER},
    {"root", required_argument, NULL, ROOT},
    {"unit", required_argument, NULL, UNIT},
    {"name", required_argument, NULL, NAME},
    {"connect", no_argument, NULL, CONNECT},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"deadline", required_argument, NULL, DEADLINE},
    {"json", no_argument, NULL, JSON},
    {"quiet", no_argument, NULL, QUIET},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION_OPTION},
    {NULL, 0, NULL, 0},
};

static _Noreturn void
refuse_usage(void)
{
	fprintf(stderr, "%s\n", usage);
	exit(2);
}

/* Prints LINE and exits. */
static _Noreturn void
answer(const char *line)
{
	bool printed = puts(line) != EOF && fflush(stdout) == 0;
	if (!printed)
		warn("stdout");
	exit(printed ? 0 : 2);
}

/* Returns SECONDS, an hour at most, in milliseconds. */
static int
milliseconds(const char *seconds)
{
	char *end;
	double value = strtod(seconds, &end);
	if (end == seconds || *end != '\0' || !(value >= 0.001 && value <= 3600))
		errx(2, "not a number of seconds from 0.001 to 3600: %s", seconds);
	return (int)(value * 1000);
}

static void
take_option(struct options *options, int option)
{
	switch (option) {
	case USER:
		options->view.user = optarg;
		break;
	case ROOT:
		options->view.root = optarg;
		break;
	case UNIT:
		options->unit = optarg;
		break;
	case NAME:
		if (options->names_count == NAMES_MAX)
			errx(2, "more than %d names", NAMES_MAX);
		options->names[options->names_count++] = optarg;
		break;
	case CONNECT:
		options->connects = true;
		break;
	case TIMEOUT:
		options->timeout_ms = milliseconds(optarg);
		break;
	case DEADLINE:
		options->deadline_ms = milliseconds(optarg);
		break;
	case JSON:
		options->json = true;
		break;
	case QUIET:
		options->quiet = true;
		break;
	case HELP:
		answer(usage);
	case VERSION_OPTION:
		answer("sniproxy-check " VERSION);
	default:
		refuse_usage();
	}
}

/* Whether no option selects a directory or a view. */
static bool
names_no_place(const struct options *options)
{
	return options->unit == NULL && options->directory == NULL && options->view.user == NULL &&
	    options->view.root == NULL;
}

static void
read_options(struct options *options, int argc, char **argv)
{
	int option;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(options, option);
	if (argc - optind > 1)
		refuse_usage();
	if (optind < argc)
		options->directory = argv[optind];
	if (names_no_place(options) && unit_is_installed(default_unit))
		options->unit = default_unit;
	if (options->unit == NULL)
		return;
	if (options->view.root != NULL || options->view.user != NULL || options->directory != NULL)
		errx(2, "--unit already sets user, root and directory");
	if (!unit_read(&options->view, &options->directory, options->unit))
		exit(2);
	unit_check_sockets(&options->fault, options->unit);
}

/* --- The proxy's rights and view --- */

static void
note(const char **notes, const char *text)
{
	while (*notes != NULL)
		notes++;
	*notes = text;
}

/* Enters the proxy's root and the hosts directory, as far as this process may. Adds a note on what
 * remains unknown. */
static void
enter(struct options *options, const char **notes)
{
	if (options->view.root != NULL && geteuid() != 0) {
		note(notes, "not root: links out of the proxy's root are not found");
		options->view.root = NULL;
		options->view.is_made = false;
	}
	if (!view_enter(&options->view))
		exit(2);
	if (options->directory != NULL && chdir(options->directory) == -1)
		err(2, "%s", options->directory);
}

/* Sets USER to the user that runs this program. */
static void
find_self(struct view_user *user)
{
	const struct passwd *entry = getpwuid(geteuid());
	*user = (struct view_user){.user = geteuid(), .group = getegid()};
	if (entry != NULL)
		snprintf(user->name, sizeof user->name, "%s", entry->pw_name);
	else
		snprintf(user->name, sizeof user->name, "%u", (unsigned)geteuid());
}

/* Sets USER to the user whose rights are checked. Adds a note on what remains unknown. Returns
 * whether this process must become USER. */
static bool
find_user(struct view_user *user, const char *name, const char **notes)
{
	find_self(user);
	if (name == NULL && geteuid() == 0)
		note(notes, "as root: the proxy's rights are not known; see --user");
	if (name == NULL)
		return false;
	struct view_user wanted;
	if (!view_find_user(&wanted, name))
		errx(2, "there is no user %s", name);
	if (wanted.user == geteuid())
		return false;
	if (geteuid() == 0) {
		*user = wanted;
		return true;
	}
	note(notes, "not root: your own rights are known, not the proxy's");
	return false;
}

/* --- The entries --- */

/* A host's name never begins with a dot; fsck(8) makes lost+found. */
static int
may_be_host(const struct dirent *entry)
{
	return entry->d_name[0] != '.' && strcmp(entry->d_name, "lost+found") != 0;
}

static void
list_entries(struct work *work)
{
	struct dirent **found;
	int count = scandir(".", &found, may_be_host, alphasort);
	if (count == -1)
		err(2, "the hosts directory");
	work->count = (size_t)count;
	work->entries = calloc(work->count + 1, sizeof *work->entries);
	for (size_t i = 0; i < work->count; i++) {
		if (work->entries == NULL ||
		    (work->entries[i].name = strdup(found[i]->d_name)) == NULL)
			err(2, "memory");
		free(found[i]);
	}
	free(found);
}

static void
take_names(struct work *work, const struct options *options)
{
	work->are_hosts = true;
	work->count = options->names_count;
	work->entries = calloc(work->count, sizeof *work->entries);
	for (size_t i = 0; i < work->count; i++)
		if (work->entries == NULL ||
		    (work->entries[i].name = strdup(options->names[i])) == NULL)
			err(2, "memory");
}

static void *
check_entries(void *argument)
{
	struct work *work = argument;
	for (;;) {
		size_t number = atomic_fetch_add(&work->next, 1);
		if (number >= work->count)
			return NULL;
		entry_check(&work->entries[number], work->are_hosts, work->hosts, work->settings);
	}
}

static void
check_all(struct work *work)
{
	pthread_t threads[THREADS_MAX];
	size_t count = 0;
	while (count < THREADS_MAX && count < work->count &&
	    pthread_create(&threads[count], NULL, check_entries, work) == 0)
		count++;
	if (count == 0 && work->count > 0)
		errx(2, "no thread can be started");
	for (size_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* --- Output --- */

static bool
uses_colour(void)
{
	const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");
	return isatty(STDOUT_FILENO) && (none == NULL || none[0] == '\0') && terminal != NULL &&
	    strcmp(terminal, "dumb") != 0;
}

/* Prints the report. Returns the exit status. */
static int
tell(const struct work *work, const struct options *options, const struct report *report)
{
	bool told = options->json ? report_json(stdout, report)
				  : report_table(stdout, report, uses_colour());
	if (!told) {
		warn("stdout");
		return 2;
	}
	for (size_t i = 0; !options->json && !options->quiet && report->notes[i] != NULL; i++)
		warnx("%s", report->notes[i]);
	for (size_t i = 0; i < work->count; i++)
		if (!entry_is_well(&work->entries[i]))
			return 1;
	return report->fault.reason != NULL;
}

/* Finds the entries and checks them; returns the exit status. */
static int
run(struct options *options, const struct entry_settings *common)
{
	const char *notes[NOTES_MAX + 1] = {NULL};
	char directory[PATH_MAX];
	struct view_user user;
	bool becomes = find_user(&user, options->view.user, notes);
	enter(options, notes);
	struct work work = {.hosts = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
	if (work.hosts == -1 || getcwd(directory, sizeof directory) == NULL)
		err(2, "the hosts directory");
	if (options->names_count > 0)
		take_names(&work, options);
	else
		list_entries(&work);
	if (becomes && !view_become(&user))
		exit(2);
	struct entry_settings settings = *common;
	settings.view = &options->view;
	settings.directory = directory;
	settings.user = user.name;
	settings.deadline_ms = clock_ms() + options->deadline_ms;
	work.settings = &settings;
	check_all(&work);
	struct report report = {work.entries, work.count, directory, user.name, notes,
	    options->unit, options->fault, options->quiet};
	int status = tell(&work, options, &report);
	for (size_t i = 0; i < work.count; i++)
		entry_free(&work.entries[i]);
	free(work.entries);
	return status;
}

int
main(int argc, char **argv)
{
	static struct options options = {.timeout_ms = TIMEOUT_MS, .deadline_ms = DEADLINE_MS};
	read_options(&options, argc, argv);
	signal(SIGPIPE, SIG_IGN); /* a backend may close, and so may the reader of stdout */

	const char *error;
	struct UIDNA *idna = idna_open(&error);
	if (idna == NULL)
		errx(2, "ICU: %s", error);
	struct entry_settings settings = {.idna = idna, .timeout_ms = options.timeout_ms};
	if (options.connects && (settings.handshakes = handshake_open()) == NULL)
		errx(2, "OpenSSL cannot be used");
	int status = run(&options, &settings);
	handshake_close(settings.handshakes);
	idna_close(idna);
	return status;
}

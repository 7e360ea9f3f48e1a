#include "check/unit.h"

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Takes the property NAME of a unit. Returns whether it keeps VALUE. */
typedef bool take_property(void *taker, const char *name, char *value);

/* Starts systemctl; returns its output as a stream, or NULL. */
static FILE *
start_systemctl(pid_t *pid, const char *unit, const char *properties, bool is_silent)
{
	char option[256];
	snprintf(option, sizeof option, "--property=%s", properties);
	const char *const arguments[] = {"systemctl", "show", option, "--", unit, NULL};
	int ends[2];
	posix_spawn_file_actions_t actions;
	if (pipe2(ends, O_CLOEXEC) == -1)
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	if (is_silent)
		posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	/* The arguments are not modified, but their type has no const. */
	int error = posix_spawnp(
	    pid, arguments[0], &actions, NULL, (char *const *)(const void *)arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	FILE *output = error == 0 ? fdopen(ends[0], "r") : NULL;
	if (output == NULL) {
		close(ends[0]);
		errno = error;
	}
	return output;
}

/* Gives TAKE the property in a LINE of systemctl's; frees LINE unless TAKE keeps the value. */
static void
take_line(char *line, take_property *take, void *taker)
{
	char *value = strchr(line, '=');
	line[strcspn(line, "\n")] = '\0';
	if (value != NULL)
		*value++ = '\0';
	if (value == NULL || *value == '\0' || !take(taker, line, value))
		free(line);
}

/* Asks systemctl for PROPERTIES of UNIT, a list with commas, and gives TAKE, with TAKER, each that
 * is not empty. Returns whether that succeeded; if not, prints why on stderr, unless IS_SILENT. */
static bool
show(const char *unit, const char *properties, bool is_silent, take_property *take, void *taker)
{
	pid_t pid;
	int status;
	FILE *output = start_systemctl(&pid, unit, properties, is_silent);
	if (output == NULL) {
		if (!is_silent)
			warn("systemctl");
		return false;
	}
	char *line = NULL;
	for (size_t size = 0; getline(&line, &size, output) != -1; line = NULL, size = 0)
		take_line(line, take, taker);
	free(line);
	fclose(output);
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	return status == 0;
}

/* Whether a unit with this LoadState has a file, and is not masked. */
static bool
is_installed(const char *load_state)
{
	return load_state[0] != '\0' && strcmp(load_state, "not-found") != 0 &&
	    strcmp(load_state, "masked") != 0;
}

static bool
take_load_state(void *taker, const char *name, char *value)
{
	bool *installed = taker;
	*installed |= strcmp(name, "LoadState") == 0 && is_installed(value);
	return false;
}

bool
unit_is_installed(const char *unit)
{
	bool installed = false;
	return show(unit, "LoadState", true, take_load_state, &installed) && installed;
}

/* Adds the binds in LIST: words such as "-/run/backends:/run/backends:rbind". */
static void
add_binds(struct view *view, char *list)
{
	char *rest;
	for (char *word = strtok_r(list, " ", &rest); word != NULL;
	     word = strtok_r(NULL, " ", &rest)) {
		if (view->binds_count == VIEW_BINDS_MAX) {
			warnx(
			    "more than %d folders are bound; the rest is left out", VIEW_BINDS_MAX);
			return;
		}
		struct view_bind *bind = &view->binds[view->binds_count++];
		bind->may_be_missing = word[0] == '-';
		bind->source = strsep(&word, ":") + bind->may_be_missing;
		bind->target = word == NULL ? bind->source : strsep(&word, ":");
	}
}

/* The results of unit_read(). */
struct reading {
	struct view *view;
	const char **directory;
	char load_state[32];
};

static bool
take_view(void *taker, const char *name, char *value)
{
	struct reading *reading = taker;
	if (strcmp(name, "LoadState") == 0) {
		snprintf(reading->load_state, sizeof reading->load_state, "%s", value);
		return false;
	}
	if (strcmp(name, "User") == 0)
		reading->view->user = value;
	else if (strcmp(name, "WorkingDirectory") == 0)
		*reading->directory = value + (value[0] == '!'); /* if it may be missing */
	else if (strcmp(name, "RootDirectory") == 0)
		reading->view->root = value;
	else if (strncmp(name, "Bind", strlen("Bind")) == 0)
		add_binds(reading->view, value);
	else
		return false;
	return true;
}

bool
unit_read(struct view *view, const char **directory, const char *unit)
{
	struct reading reading = {.view = view, .directory = directory};
	if (!show(unit, "LoadState,User,WorkingDirectory,RootDirectory,BindPaths,BindReadOnlyPaths",
		false, take_view, &reading))
		return false;
	view->is_made = view->root != NULL;
	bool is_loaded = strcmp(reading.load_state, "loaded") == 0;
	if (!is_loaded && is_installed(reading.load_state))
		warnx("systemctl: %s is not loaded: %s", unit, reading.load_state);
	else if (!is_loaded)
		warnx("systemctl: there is no such unit");
	return is_loaded;
}

/* --- Its sockets --- */

/* The sockets of all socket units, or of one. */
struct sockets {
	FILE *list; /* of addresses, for people */
	size_t count;
	char *other; /* one that is not a TCP socket, or NULL */

	/* Of one unit. */
	const char *unit;
	bool is_inactive;
};

/* Whether LISTEN, such as "[::]:443 (Stream)", is a TCP socket. */
static bool
is_tcp(const char *listen)
{
	const char *type = strrchr(listen, '(');
	return (isdigit((unsigned char)listen[0]) || listen[0] == '[') && type != NULL &&
	    strcmp(type, "(Stream)") == 0;
}

static bool
take_socket(void *taker, const char *name, char *value)
{
	struct sockets *one = taker;
	if (strcmp(name, "ActiveState") == 0)
		one->is_inactive = strcmp(value, "inactive") == 0;
	if (strcmp(name, "Listen") != 0)
		return false;
	int length = (int)strcspn(value, " ");
	fprintf(one->list, "%s%.*s (%s)", one->count++ > 0 ? ", " : "", length, value, one->unit);
	if (is_tcp(value) || one->other != NULL)
		return false;
	one->other = value;
	return true;
}

/* Adds what the socket unit NAME opens to ALL. */
static void
add_sockets(struct sockets *all, const char *name)
{
	char *list = NULL;
	size_t size;
	struct sockets one = {.list = open_memstream(&list, &size), .unit = name};
	if (one.list == NULL)
		return;
	show(name, "ActiveState,Listen", false, take_socket, &one);
	if (fclose(one.list) == 0 && one.count > (one.is_inactive ? 1 : 0)) {
		fprintf(all->list, "%s%s", all->count > 0 ? ", " : "", list);
		all->count += one.count;
		all->other = all->other != NULL ? all->other : one.other;
	}
	free(list);
}

static bool
take_triggers(void *taker, const char *name, char *value)
{
	static const char suffix[] = ".socket";
	char *rest;
	if (strcmp(name, "TriggeredBy") != 0)
		return false;
	for (char *unit = strtok_r(value, " ", &rest); unit != NULL;
	     unit = strtok_r(NULL, " ", &rest)) {
		size_t length = strlen(unit);
		if (length >= strlen(suffix) && strcmp(unit + length - strlen(suffix), suffix) == 0)
			add_sockets(taker, unit);
	}
	return false;
}

void
unit_check_sockets(struct unit_fault *fault, const char *unit)
{
	char *list = NULL, *reason = NULL;
	const char *remedy = NULL;
	size_t size;
	int length = -1;
	struct sockets all = {.list = open_memstream(&list, &size)};
	if (all.list == NULL)
		return;
	show(unit, "TriggeredBy", false, take_triggers, &all);
	if (fclose(all.list) == 0 && all.count > 1) {
		length =
		    asprintf(&reason, "it takes one socket, and gets %zu: %s", all.count, list);
		remedy = "leave one ListenStream=, with an empty one before it in a drop-in; for "
			 "each other address, use sniproxy@ADDRESS.socket";
	} else if (all.other != NULL) {
		length = asprintf(&reason, "it takes a TCP socket, and gets %s", all.other);
		remedy = "write a port, or an address and a port, behind ListenStream=";
	}
	if (length != -1)
		*fault = (struct unit_fault){reason, remedy};
	free(list);
}

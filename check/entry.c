#include "check/entry.h"

#include "check/hint.h"
#include "check/path.h"
#include "lib/clock.h"
#include "lib/idna.h"
#include "lib/proxy_protocol.h"
#include "system/system.h"
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The longest path that a server can bind: sun_path without the NUL that most servers add. */
enum { BOUND_PATH_MAX = sizeof((struct sockaddr_un *)NULL)->sun_path - 1 };

/* Delay before another attempt if a backlog is full. */
enum { RETRY_MS = 10 };

static const char *const state_names[] = {
    [ENTRY_SERVED] = "served",
    [ENTRY_NOT_LOOKED_UP] = "not-looked-up",
    [ENTRY_NO_DIRECTORY] = "no-directory",
    [ENTRY_NOT_A_DIRECTORY] = "not-a-directory",
    [ENTRY_NO_SOCKET] = "no-socket",
    [ENTRY_PATH_TOO_LONG] = "path-too-long",
    [ENTRY_NOT_A_SOCKET] = "not-a-socket",
    [ENTRY_WRONG_TYPE] = "wrong-type",
    [ENTRY_STALE] = "stale",
    [ENTRY_NOT_LISTENING] = "not-listening",
    [ENTRY_BACKLOG_FULL] = "backlog-full",
    [ENTRY_NOT_PERMITTED] = "not-permitted",
    [ENTRY_LEADS_OUT] = "leads-out",
    [ENTRY_LINK_FORBIDDEN] = "link-forbidden",
    [ENTRY_NOT_OWNED] = "not-owned",
    [ENTRY_LOOP] = "loop",
    [ENTRY_FAILED] = "failed",
    [ENTRY_NOT_CHECKED] = "not-checked",
};

const char *
entry_state_name(enum entry_state state)
{
	return state_names[state];
}

/* --- Words --- */

/* Returns a string formatted as by printf(3), or NULL. */
static char *__attribute__((format(printf, 1, 2))) words(const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) == -1)
		text = NULL;
	va_end(arguments);
	return text;
}

static char *
faults_in_words(uint32_t faults)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);
	if (stream == NULL)
		return NULL;
	idna_show_faults(stream, faults);
	fclose(stream);
	return text;
}

/* Sets STATE, REASON and REMEDY of ENTRY, which owns these strings from then on. */
static void
say(struct entry *entry, enum entry_state state, char *reason, char *remedy)
{
	entry->state = state;
	entry->reason = reason;
	entry->remedy = remedy;
}

/* Adds TEXT to the warnings of ENTRY, which owns it from then on. */
static void
add_warning(struct entry *entry, char *text)
{
	char *before = entry->warning;
	if (before == NULL) {
		entry->warning = text;
		return;
	}
	entry->warning = words("%s; %s", before, text);
	free(before);
	free(text);
}

/* --- The name --- */

/* Sets HOST to the host or special host whose directory is called NAME; to "" if it is unknown.
 * Returns false if there is none. */
static bool
find_host(char host[HOSTNAME_SIZE], const char *name)
{
	static const char *const special[] = {HOSTNAME_DEFAULT, HOSTNAME_NO_SNI};
	for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
		hostname_directory(host, special[i]);
		if (strcmp(host, name) == 0) {
			snprintf(host, HOSTNAME_SIZE, "%s", special[i]);
			return true;
		}
	}
#ifdef HASHED
	host[0] = '\0';
	return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
#else
	char canonical[HOSTNAME_SIZE];
	const char *domain = name + (strncmp(name, "_.", 2) == 0 ? 2 : 0);
	return snprintf(host, HOSTNAME_SIZE, "%s", name) < HOSTNAME_SIZE &&
	    hostname_canonical(canonical, (const uint8_t *)domain, strlen(domain)) &&
	    strcmp(canonical, domain) == 0;
#endif
}

/* Returns why no client's name leads to the directory NAME. */
static const char *
why_not_looked_up(const char *name)
{
#ifdef HASHED
	(void)name;
	return "never looked up: directories are named by hashes in this build";
#else
	if (hint_is_default(name))
		return "never looked up: the default host has another name";
	if (name[0] == '*')
		return "never looked up: wildcards begin with an underscore";
	for (const char *c = name; *c != '\0'; c++)
		if ((unsigned char)*c >= 0x80)
			return "never looked up: clients send such a name in Punycode";
	return name[strlen(name) - 1] == '.'
	    ? "never looked up: names with a dot at the end are rejected"
	    : "never looked up: names are turned into lowercase";
#endif
}

/* Explains that the directory of ENTRY is never looked up, but that of HOST is. */
static void
explain_other_name(struct entry *entry, const char *host)
{
	char directory[HOSTNAME_SIZE];
	struct stat status;
	hostname_directory(directory, host);
	if (stat(entry->name, &status) == 0 && !S_ISDIR(status.st_mode)) {
		say(entry, ENTRY_NOT_A_DIRECTORY, words("not a directory"),
		    words("if it is no host, put a dot before its name"));
		return;
	}
	say(entry, ENTRY_NOT_LOOKED_UP, words("%s", why_not_looked_up(entry->name)),
	    access(directory, F_OK) == 0 ? words("remove it: there is %s already", directory)
					 : words("rename it to %s", directory));
}

/* Explains what is wrong with the name of ENTRY, which is never looked up. */
static void
explain_name(struct entry *entry, const struct entry_settings *settings)
{
	char host[HOSTNAME_SIZE];
	uint32_t faults = idna_canonical(settings->idna, host, entry->name);
	if (strlen(entry->name) > HOSTNAME_MAX) {
		say(entry, ENTRY_NOT_LOOKED_UP,
		    words("never looked up: the name is longer than %d bytes", HOSTNAME_MAX),
		    words("use a shorter name, such as the DNS allows"));
	} else if (hint_is_default(entry->name)) {
		explain_other_name(entry, HOSTNAME_DEFAULT);
	} else if (faults != 0) {
		char *why = faults_in_words(faults);
		say(entry, ENTRY_NOT_LOOKED_UP,
		    words("never looked up: not a host's name: %s", why),
		    words("if it is no host, put a dot before its name"));
		free(why);
	} else {
		explain_other_name(entry, host);
	}
}

/* Explains the FAULTS of the name of ENTRY, which was asked for. */
static void
explain_faults(struct entry *entry, uint32_t faults)
{
	char *why = faults_in_words(faults);
	say(entry, ENTRY_NOT_LOOKED_UP, words("not a host's name: %s", why),
	    hint_is_default(entry->name) ? words("the default host is called %s", HOSTNAME_DEFAULT)
					 : NULL);
	free(why);
}

/* Sets the directory of ENTRY to that of HOST. */
static void
set_directory(struct entry *entry, const char *host)
{
	snprintf(entry->serving, sizeof entry->serving, "%s", host);
	hostname_directory(entry->directory, host);
}

/* Sets the directory of ENTRY that is looked up first. Returns false, and explains why, if there is
 * none. */
static bool
find_directory(struct entry *entry, bool is_host, const struct entry_settings *settings)
{
	char host[HOSTNAME_SIZE];
	uint32_t faults = is_host ? idna_canonical(settings->idna, host, entry->name) : 0;
	if (faults != 0) {
		explain_faults(entry, faults);
		return false;
	}
	if (!is_host && !find_host(host, entry->name)) {
		explain_name(entry, settings);
		return false;
	}
	if (host[0] != '\0')
		set_directory(entry, host);
	else
		snprintf(entry->directory, sizeof entry->directory, "%s", entry->name);
	if (!hostname_is_special(host))
		snprintf(entry->host, sizeof entry->host, "%s", host);
	return true;
}

/* Warns if clients are unlikely to ask for a name that leads to the directory of ENTRY. */
static void
warn_of_name(struct entry *entry, const struct entry_settings *settings)
{
	char host[HOSTNAME_SIZE], directory[HOSTNAME_SIZE];
	if (entry->serving[0] == '\0')
		return;
	uint32_t faults = idna_canonical(settings->idna, host, entry->serving);
	if (faults != 0) {
		char *why = faults_in_words(faults);
		add_warning(entry, words("browsers do not ask for it: %s", why));
		free(why);
	}
	hostname_directory(directory, HOSTNAME_DEFAULT);
	if (hint_is_default(entry->serving))
		add_warning(entry,
		    words("only clients that ask for the name %s come here: for a default host, "
			  "rename it to %s",
			entry->serving, directory));
}

/* Warns of files that have no effect. */
static void
warn_of_files(struct entry *entry)
{
	const char *header = hint_header_file(entry->directory);
	const char *acme = hint_acme_socket(entry->directory);
	if (header != NULL)
		add_warning(entry,
		    words("%s has no effect: for a PROXY header, the file is called "
			  "send-proxy-v1 or send-proxy-v2",
			header));
	if (hint_is_there(entry->directory, "send-proxy-v1") &&
	    hint_is_there(entry->directory, "send-proxy-v2"))
		add_warning(entry, words("send-proxy-v1 has no effect: there is send-proxy-v2"));
	if (acme != NULL)
		add_warning(entry,
		    words("%s has no effect: for an ACME client, the socket is called "
			  "acme-tls-socket",
			acme));
}

/* --- The path to the socket --- */

/* Whether users other than its owner may write to the hosts directory, which is the working
 * directory. */
static bool
is_shared(struct stat *status)
{
	return stat(".", status) == 0 && owner_is_shared(status);
}

/* Follows PATH as backend.c does. */
static void
walk_to(struct path_walk *walk, const char *path)
{
	struct stat status;
	path_walk(walk, path, is_shared(&status));
}

/* Whether AT is outside the proxy's view, rather than missing. */
static bool
leads_out(const struct path_walk *walk, const char *at, const struct entry_settings *settings)
{
	const struct view *view = settings->view;
	return view->root != NULL && walk->was_link &&
	    (view->is_made ? !view_shows(view, at) : !path_is_below(at, settings->directory));
}

/* Explains that AT, the path of the missing socket, is too long to bind. Suggests a place below the
 * hosts directory, which is always in the proxy's view. SHOWN_AT is AT, safe to print. */
static void
explain_bound_path(struct entry *entry, const struct path_walk *walk, const char *at,
    const char *shown_at, const struct entry_settings *settings)
{
	char place[PATH_MAX];
	path_absolute(place, settings->directory, ".sockets");
	char *shown_place = idna_shown(place);
	char *missing = walk->was_link
	    ? words("a symlink leads to %s, which is not there", shown_at)
	    : words("no tls-socket");
	say(entry, ENTRY_PATH_TOO_LONG,
	    words("%s, and no server can bind it by its path: that has %zu bytes, and %d is the "
		  "most",
		missing, strlen(at), BOUND_PATH_MAX),
	    strlen(place) + strlen("/1") > BOUND_PATH_MAX
		? words("have the server listen at a shorter path that the proxy sees, and make "
			"tls-socket a symlink to that")
		: words("make the directory %s, have the server listen at a short name in it, "
			"and make tls-socket a symlink to that",
		      shown_place));
	free(missing);
	free(shown_place);
}

/* Explains that nothing exists at AT, the path of the socket or, unless IS_SOCKET, of the
 * directory. SHOWN_AT is AT, safe to print. */
static void
explain_missing(struct entry *entry, const struct path_walk *walk, bool is_socket, const char *at,
    const char *shown_at, const struct entry_settings *settings)
{
	enum entry_state state = is_socket ? ENTRY_NO_SOCKET : ENTRY_NO_DIRECTORY;
	if (leads_out(walk, at, settings))
		say(entry, ENTRY_LEADS_OUT,
		    words("a symlink leads to %s, out of what the proxy sees", shown_at),
		    settings->view->is_made
			? words("if it is there, add BindReadOnlyPaths= to the unit for "
				"the folder above it")
			: words("have it below the root directory of the proxy"));
	else if (is_socket && strlen(at) > BOUND_PATH_MAX)
		explain_bound_path(entry, walk, at, shown_at, settings);
	else if (walk->was_link)
		say(entry, state, words("a symlink leads to %s, which is not there", shown_at),
		    is_socket ? words("start its server, or correct the link")
			      : words("correct the link"));
	else if (!is_socket)
		say(entry, state, words("there is no directory %s", entry->directory),
		    words("make it, and have the backend listen at tls-socket in it"));
	else
		say(entry, state, words("no tls-socket"),
		    words("have its server listen at %s", shown_at));
}

/* Explains what END says about AT, if it is not PATH_MISSING. Returns false if there is nothing to
 * explain. */
static bool
explain_end(struct entry *entry, enum path_end end, const char *at, const char *user)
{
	switch (end) {
	case PATH_NOT_SEARCHABLE:
		say(entry, ENTRY_NOT_PERMITTED, words("the user %s may not search %s", user, at),
		    words("give it the right x there: chmod, chgrp or setfacl"));
		return true;
	case PATH_NOT_A_DIRECTORY:
		say(entry, ENTRY_NOT_A_DIRECTORY, words("%s is not a directory", at),
		    words("if it is no host, move it away, or put a dot before its name"));
		return true;
	case PATH_LINK_FORBIDDEN:
		say(entry, ENTRY_LINK_FORBIDDEN,
		    words("fs.protected_symlinks forbids to follow %s, another user's "
			  "link in a "
			  "sticky directory",
			at),
		    words("let the link belong to the owner of the directory that it is "
			  "in: "
			  "chown -h"));
		return true;
	case PATH_LOOP:
		say(entry, ENTRY_LOOP, words("symlinks lead in a circle, at %s", at),
		    words("correct the links"));
		return true;
	default:
		return false;
	}
}

/* Explains why PATH, of the socket or, unless IS_SOCKET, of the directory, could not be reached.
 * Returns false if it can be reached. */
static bool
explain_way(struct entry *entry, struct path_walk *walk, const char *path, bool is_socket,
    const struct entry_settings *settings)
{
	char at[PATH_MAX];
	walk_to(walk, path);
	path_absolute(at, settings->directory, walk->at);
	char *shown_at = idna_shown(at);
	bool explained = true;
	if (shown_at == NULL || walk->end == PATH_THERE)
		explained = false;
	else if (walk->end == PATH_MISSING)
		explain_missing(entry, walk, is_socket, at, shown_at, settings);
	else
		explained = explain_end(entry, walk->end, shown_at, settings->user);
	free(shown_at);
	return explained;
}

/* --- The socket --- */

/* Returns the name of the socket that ENTRY is about. */
static const char *
socket_file(const struct entry *entry)
{
	return entry->is_acme ? "acme-tls-socket" : "tls-socket";
}

/* Opens the directory of ENTRY, as backend.c does. */
static int
open_host(int hosts, const struct entry *entry, char prefix[256])
{
	struct stat status;
	struct owner_host host = {.is_special = hostname_is_special(entry->serving)};
	prefix[0] = '\0';
	return is_shared(&status) ? owner_open_host(hosts, &status, entry->directory, &host)
				  : system_open_host(hosts, entry->directory, prefix);
}

/* Whether a server has bound the socket of ENTRY, on which it does not listen. If so, connecting
 * with another type of socket fails with EPROTOTYPE, otherwise with ECONNREFUSED. */
static bool
is_bound(int hosts, const struct entry *entry)
{
	const char *failed;
	char prefix[256], path[256 + sizeof "acme-tls-socket"];
	int host = open_host(hosts, entry, prefix);
	if (host == -1)
		return false;
	snprintf(path, sizeof path, "%s%s", prefix, socket_file(entry));
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool bound = system_connect(hosts, host, path, s, &failed) == -1 && errno == EPROTOTYPE;
	if (s != -1)
		close(s);
	if (host != AT_FDCWD)
		close(host);
	return bound;
}

/* The socket in messages: as an object, and as a subject, before a verb. */
struct socket_words {
	char *object;
	char *subject;
};

/* Sets NAMES for the socket of ENTRY at the end of WALK. If a symlink leads to it, they have the
 * socket's own path, because a remedy for tls-socket would affect the symlink. */
static void
name_socket(struct socket_words *names, const struct entry *entry, const struct path_walk *walk,
    const struct entry_settings *settings)
{
	char at[PATH_MAX];
	if (walk->end != PATH_THERE || !walk->was_link) {
		const char *name = socket_file(entry);
		*names = (struct socket_words){words("%s", name), words("%s", name)};
		return;
	}
	path_absolute(at, settings->directory, walk->at);
	names->object = idna_shown(at);
	names->subject = words("a symlink leads to %s, which", names->object);
}

/* Explains that the file exists and is not a socket. */
static void
say_no_socket(struct entry *entry, const struct path_walk *walk, const struct socket_words *names)
{
	say(entry, ENTRY_NOT_A_SOCKET, words("%s is not a socket", names->subject),
	    walk->was_link ? words("correct the link, or have the server make its socket there")
			   : words("remove it, and have the server make it"));
}

/* Explains why the existing socket refuses connections. */
static void
explain_refusal(struct entry *entry, const struct socket_words *names, int hosts)
{
	if (is_bound(hosts, entry))
		say(entry, ENTRY_NOT_LISTENING,
		    words("a server has %s, and does not listen", names->object),
		    words("it is just starting, or stuck: see its log"));
	else
		say(entry, ENTRY_STALE,
		    words("%s was left behind: no server has it any more", names->subject),
		    words("start its server; if that says \"Address already in use\", "
			  "remove %s before",
			names->object));
}

/* Explains that the socket may not be written to. Returns false if it may. */
static bool
explain_right(struct entry *entry, const struct path_walk *walk, const struct socket_words *names,
    const char *user)
{
	if (faccessat(AT_FDCWD, walk->at, W_OK, AT_EACCESS) == 0)
		return false;
	say(entry, ENTRY_NOT_PERMITTED,
	    words("the user %s may not write to %s", user, names->object),
	    words("have its server make it with mode 0666, or give the right by a group or "
		  "an ACL"));
	return true;
}

/* Explains why connecting to the socket, called NAMES, failed with ERROR. Returns false if the file
 * at the end of WALK does not explain it. */
static bool
explain_error(struct entry *entry, const struct path_walk *walk, const struct socket_words *names,
    int error, int hosts, const char *user)
{
	bool is_there = walk->end == PATH_THERE;
	if (is_there && !S_ISSOCK(walk->status.st_mode) && (error == ENOTSOCK || error == EACCES)) {
		say_no_socket(entry, walk, names);
		return true;
	}
	switch (error) {
	case ECONNREFUSED:
		explain_refusal(entry, names, hosts);
		return true;
	case EPROTOTYPE:
		say(entry, ENTRY_WRONG_TYPE, words("%s is not a stream socket", names->subject),
		    words("have the server make a stream socket"));
		return true;
	case EAGAIN:
		say(entry, ENTRY_BACKLOG_FULL,
		    words("the backlog of %s is full: it did not accept in time", names->object),
		    words("its server is overloaded or stuck, or has too short a backlog"));
		return true;
	case EACCES:
		return is_there && explain_right(entry, walk, names, user);
	default:
		return false;
	}
}

/* Explains why connecting failed with ERROR. Returns false if the file at the end of WALK does not
 * explain it. */
static bool
explain_socket(struct entry *entry, const struct path_walk *walk, int error, int hosts,
    const struct entry_settings *settings)
{
	struct socket_words names;
	name_socket(&names, entry, walk, settings);
	bool explained = explain_error(entry, walk, &names, error, hosts, settings->user);
	free(names.object);
	free(names.subject);
	return explained;
}

/* Whether this build uses nothing beyond POSIX. */
static bool
is_portable(void)
{
	int directory = system_open_path(AT_FDCWD, ".", O_DIRECTORY);
	if (directory == -1)
		return errno == ENOSYS;
	close(directory);
	return false;
}

/* Explains that the directory of a special host, or the symlink to it, is another user's than it
 * must be, as BACKEND says. */
static void
explain_special_owner(struct entry *entry, const struct backend *backend)
{
	struct stat status;
	bool is_link = lstat(entry->directory, &status) == 0 && S_ISLNK(status.st_mode);
	say(entry, ENTRY_NOT_OWNED,
	    words("%s; whoever receives a name's connections can have a certificate for it",
		backend->why),
	    words("give it%s to root or to the owner of the hosts directory: chown%s",
		is_link ? ", and what it leads to," : "", is_link ? " -h" : ""));
}

/* Explains that the host does not belong to one user, as BACKEND says. */
static void
explain_owner(struct entry *entry, const struct backend *backend)
{
	char *remedy;
	if (is_portable())
		remedy = words("take that right from them: chmod go-w; a build with "
			       "PORTABLE=1 cannot tell whose a host is");
	else if (strcmp(backend->failed, socket_file(entry)) == 0)
		remedy = words("have its server run as the owner of the host directory%s",
		    hostname_is_special(entry->serving)
			? ""
			: ", or give that to the server's user: chown");
	else
		remedy = words("let the link belong to the owner of the directory that it "
			       "leads to, or to root: chown -h");
	say(entry, ENTRY_NOT_OWNED, words("%s", backend->why), remedy);
}

/* Explains that the name is too long, because the proxy connects by a path. */
static void
explain_length(struct entry *entry, const struct backend *backend)
{
	const size_t longest = sizeof((struct sockaddr_un *)NULL)->sun_path - strlen("/tls-socket");
	say(entry, ENTRY_PATH_TOO_LONG, words("%s: %s", backend->failed, strerror(backend->error)),
	    words("use a name of %zu bytes at most, or %s", longest,
		is_portable() ? "a build without PORTABLE=1" : "let the proxy call unshare(2)"));
}

/* Explains what is wrong with the host directory of ENTRY, if that is why there is no BACKEND.
 * Returns false if it is not. IS_WAY tells whether a path may explain it. */
static bool
explain_directory(struct entry *entry, const struct backend *backend, bool is_way,
    const struct entry_settings *settings)
{
	struct path_walk walk;
	if (backend->why[0] != '\0' && backend->is_missing)
		explain_special_owner(entry, backend);
	else if (backend->why[0] != '\0')
		explain_owner(entry, backend);
	else if (backend->failed == system_long_path)
		explain_length(entry, backend);
	else
		return is_way && explain_way(entry, &walk, entry->directory, false, settings);
	return true;
}

/* Returns the version of the PROXY header that the backend of ENTRY, which is not connected to,
 * awaits; 0 for none. */
static unsigned
header_version(const struct entry *entry)
{
	if (hint_is_there(entry->directory, "send-proxy-v2"))
		return 2;
	return hint_is_there(entry->directory, "send-proxy-v1") ? 1 : 0;
}

/* Explains why there is no BACKEND for ENTRY. */
static void
explain(struct entry *entry, const struct backend *backend, int hosts,
    const struct entry_settings *settings)
{
	struct path_walk walk;
	char path[HOSTNAME_SIZE + sizeof "/acme-tls-socket"];
	bool is_way = backend->error == ENOENT || backend->error == ENOTDIR ||
	    backend->error == ELOOP || backend->error == EACCES;
	entry->alert =
	    backend_is_absent(backend->error) ? TLS_UNRECOGNIZED_NAME : TLS_INTERNAL_ERROR;
	if (explain_directory(entry, backend, is_way, settings))
		return;
	entry->proxy_version = header_version(entry);
	snprintf(path, sizeof path, "%s/%s", entry->directory, socket_file(entry));
	if (is_way && explain_way(entry, &walk, path, true, settings))
		return;
	walk_to(&walk, path);
	if (!explain_socket(entry, &walk, backend->error, hosts, settings))
		say(entry, ENTRY_FAILED, words("%s: %s", backend->failed, strerror(backend->error)),
		    words("sniproxy(8) explains it, below DIAGNOSTICS"));
}

/* --- The handshake --- */

static char *
date(time_t time)
{
	struct tm parts;
	char text[sizeof "2026-11-25"];
	gmtime_r(&time, &parts);
	return words("%s", strftime(text, sizeof text, "%F", &parts) > 0 ? text : "?");
}

/* Explains why the handshake failed. */
static void
explain_failure(struct entry *entry)
{
	const struct handshake *handshake = &entry->handshake;
	entry->reason = words("TLS: %s", handshake->failure);
	if (entry->proxy_version > 0)
		entry->remedy = words("have its server await the PROXY header, or remove "
				      "send-proxy-v%u; its log says more",
		    entry->proxy_version);
	else if (handshake->talks)
		entry->remedy = words("its server speaks no TLS there, or refuses the name: "
				      "its log says more");
	else
		entry->remedy = words("if its server awaits a PROXY header, make the file "
				      "send-proxy-v1 or send-proxy-v2; its log says more");
}

/* Explains why clients would reject the certificate. */
static void
explain_certificate(struct entry *entry)
{
	const struct handshake *handshake = &entry->handshake;
	char *ends = date(handshake->not_after), *begins = date(handshake->not_before);
	if (handshake->is_expired) {
		entry->reason = words("its certificate has expired, on %s", ends);
		entry->remedy = words("renew it, and have the server read it anew");
	} else if (handshake->is_early) {
		entry->reason = words("its certificate is not valid before %s", begins);
		entry->remedy = words("see whether the clock is right");
	} else if (!handshake->has_name) {
		entry->reason = words("its certificate is not for this name");
		entry->remedy = words("get one for %s, if this is the right server", entry->host);
	} else if (handshake->ends_soon) {
		add_warning(entry, words("its certificate expires soon, on %s", ends));
	}
	free(ends);
	free(begins);
}

static void
try_handshake(
    struct entry *entry, int socket, int64_t deadline_ms, const struct entry_settings *settings)
{
	if (entry->host[0] == '\0') {
		add_warning(entry, words("no handshake: its name is not known; --name tells it"));
		return;
	}
	entry->handshake = handshake_try(settings->handshakes, socket, entry->host, deadline_ms);
	entry->has_handshake = true;
	if (entry->handshake.done)
		explain_certificate(entry);
	else
		explain_failure(entry);
}

/* --- The connection --- */

/* Sends the PROXY header of ENTRY as the proxy would, because a backend that expects one may log
 * that it is missing. A new socket has room for it. If the backend is gone, the handshake fails
 * later. */
static void
send_proxy_header(const struct entry *entry, int socket)
{
	union address here = {.v4 = {.sin_family = AF_INET,
				  .sin_port = htons(443),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
	uint8_t header[PROXY_PROTOCOL_WRITTEN_MAX];
	struct proxy_protocol_tlvs tlvs = {
	    .authority = entry->host[0] != '\0' ? entry->host : NULL};
	if (getentropy(tlvs.unique_id, sizeof tlvs.unique_id) == -1)
		return;
	size_t length = entry->proxy_version == 1
	    ? proxy_protocol_write_v1(header, &here, &here)
	    : proxy_protocol_write_v2(header, &here, &here, &tlvs);
	send(socket, header, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Connects to the backend of ENTRY, as backend_connect() does with KIND. Tries again until
 * DEADLINE_MS if its backlog is full. */
static struct backend
connect_until(const struct entry *entry, int hosts, unsigned kind, int64_t deadline_ms)
{
	struct backend backend;
	if (hostname_is_special(entry->serving))
		kind |= BACKEND_SPECIAL;
	while ((backend = backend_connect(hosts, entry->directory, kind)).socket == -1 &&
	    backend.error == EAGAIN && clock_left_ms(deadline_ms) > 0)
		poll(NULL, 0, RETRY_MS);
	return backend;
}

/* Connects to the backend of ENTRY or, if it has no directory, to that of the special host that
 * serves it, whose directory is that of ENTRY from then on. */
static struct backend
connect_host(struct entry *entry, int hosts, int64_t deadline_ms)
{
	char asked[HOSTNAME_SIZE], host[HOSTNAME_SIZE];
	struct backend first = connect_until(entry, hosts, 0, deadline_ms), next = first;
	memcpy(asked, entry->serving, sizeof asked);
	memcpy(host, entry->serving, sizeof host);
	if (asked[0] == '\0' || first.why[0] != '\0')
		return first;
	bool is_link = first.is_missing && hint_is_there(".", entry->directory);
	while (next.is_missing && hostname_next(host)) {
		set_directory(entry, host);
		next = connect_until(entry, hosts, 0, deadline_ms);
		if (next.is_missing && next.why[0] != '\0')
			add_warning(entry, words("%s is %s", host, next.why));
	}
	if (next.is_missing) {
		set_directory(entry, asked);
		return first;
	}
	if (is_link)
		add_warning(entry, words("%s is a symlink to nothing that the proxy sees", asked));
	return next;
}

/* Connects to acme-tls-socket in the directory of ENTRY, if there is one, and warns if that
 * fails. */
static void
check_acme(
    struct entry *entry, int hosts, int64_t deadline_ms, const struct entry_settings *settings)
{
	struct path_walk walk;
	struct entry acme = {.is_acme = true};
	char path[HOSTNAME_SIZE + sizeof "/acme-tls-socket"];
	snprintf(path, sizeof path, "%s/acme-tls-socket", entry->directory);
	walk_to(&walk, path);
	if (walk.end == PATH_MISSING)
		return;
	struct backend backend = connect_until(entry, hosts, BACKEND_ACME, deadline_ms);
	entry->acme = backend.socket != -1 ? ENTRY_ACME_ACCEPTED : ENTRY_ACME_REFUSED;
	if (backend.socket != -1) {
		close(backend.socket);
		return;
	}
	memcpy(acme.serving, entry->serving, sizeof acme.serving);
	memcpy(acme.directory, entry->directory, sizeof acme.directory);
	explain(&acme, &backend, hosts, settings);
	add_warning(entry, words("ACME clients are rejected: %s", acme.reason));
	entry_free(&acme);
}

/* --- All of it --- */

/* Talks to the BACKEND of ENTRY, to which it is connected, and closes. */
static void
try_backend(struct entry *entry, const struct backend *backend, int64_t deadline_ms,
    const struct entry_settings *settings)
{
	entry->state = ENTRY_SERVED;
	entry->proxy_version = backend->proxy_version;
	if (entry->proxy_version > 0)
		send_proxy_header(entry, backend->socket);
	if (settings->handshakes != NULL)
		try_handshake(entry, backend->socket, deadline_ms, settings);
	close(backend->socket);
}

void
entry_check(struct entry *entry, bool is_host, int hosts, const struct entry_settings *settings)
{
	int left_ms = clock_left_ms(settings->deadline_ms);
	int timeout_ms = left_ms < settings->timeout_ms ? left_ms : settings->timeout_ms;
	int64_t deadline_ms = clock_ms() + timeout_ms;
	if (left_ms == 0) {
		say(entry, ENTRY_NOT_CHECKED, words("not checked: the time is over"),
		    words("allow more by --deadline"));
		return;
	}
	if (!find_directory(entry, is_host, settings)) {
		entry->alert = TLS_UNRECOGNIZED_NAME;
		return;
	}
	struct backend backend = connect_host(entry, hosts, deadline_ms);
	warn_of_name(entry, settings);
	warn_of_files(entry);
	if (backend.socket != -1)
		try_backend(entry, &backend, deadline_ms, settings);
	else
		explain(entry, &backend, hosts, settings);
	if (entry->state == ENTRY_SERVED || strcmp(backend.failed, "tls-socket") == 0)
		check_acme(entry, hosts, deadline_ms, settings);
}

bool
entry_is_well(const struct entry *entry)
{
	return entry->state == ENTRY_SERVED && entry->reason == NULL;
}

void
entry_free(struct entry *entry)
{
	free(entry->name);
	free(entry->reason);
	free(entry->remedy);
	free(entry->warning);
	handshake_free(&entry->handshake);
}

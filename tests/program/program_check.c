/* sniproxy-check and the proxy look at the same hosts directories, hundreds of them, broken in all
 * ways: their answers must agree. SNIPROXY_CHECK is the program. */
#include "tests/program/harness.h"
#include "tests/unit/users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The proxy waits for a second for a backend that is down, so many are asked for at the same time. */
enum { ENTRIES = 40, ROUNDS = 15, HOSTS_MAX = 5, HOSTS_ROUNDS = 30, NOBODY = 65534 };

/* --- Random entries --- */

/* A name and its parts: %u is the entry's number. */
static const struct {
	const char *format;
	bool is_looked_up;
} names[] = {
    {"h%u.example", true},
    {"%u", true},
    {"a-.h%u--x.example", true},
    {"xn--h%u.example", true},
    {"H%u.example", false},
    {"h%u.exAmple", false},
    {"b\xc3\xbc"
     "cher%u.example",
	false},
    {"h%u.example.", false},
    {"-h%u.example", false},
    {"h%u..example", false},
    {"h_%u.example", true},
    {"_h%u.example", false},
    {"h%u example", false},
    {"h%u\x1b[31m\n", false},
    {"h%u\xff", false},
    {"%0254u", true},
    {"%0255u", false},
};

enum directory {
	DIRECTORY_PLAIN,
	DIRECTORY_LINKED,
	DIRECTORY_DANGLES,
	DIRECTORY_CIRCLES,
	DIRECTORY_IS_FILE,
	DIRECTORY_LINKED_TO_FILE,
	DIRECTORY_CLOSED,
	DIRECTORY_LEADS_OUT,
	DIRECTORIES,
};

enum backend {
	BACKEND_LISTENS,
	BACKEND_LINKED,
	BACKEND_LINKED_IN_STICKY, /* by another user, if that is possible */
	BACKEND_MISSING,
	BACKEND_STALE,
	BACKEND_BOUND,
	BACKEND_IS_FILE,
	BACKEND_IS_DIRECTORY,
	BACKEND_DATAGRAM,
	BACKEND_SEQPACKET,
	BACKEND_CLOSED,
	BACKEND_DANGLES,
	BACKEND_CIRCLES,
	BACKEND_LEADS_OUT,
	BACKEND_BEHIND_FILE,
	BACKENDS,
};

/* What sniproxy-check calls it if all else is well; NULL if that depends on more. */
static const char *const backend_states[BACKENDS] = {
    [BACKEND_LISTENS] = "served",
    [BACKEND_LINKED] = "served",
    [BACKEND_MISSING] = "no-socket",
    [BACKEND_STALE] = "stale",
    [BACKEND_BOUND] = "not-listening",
    [BACKEND_IS_FILE] = "not-a-socket",
    [BACKEND_IS_DIRECTORY] = "not-a-socket",
    [BACKEND_DATAGRAM] = "wrong-type",
    [BACKEND_SEQPACKET] = "wrong-type",
    [BACKEND_DANGLES] = "no-socket",
    [BACKEND_CIRCLES] = "loop",
    [BACKEND_BEHIND_FILE] = "not-a-directory",
};

struct made {
	char sent[256];      /* the name that a client sends */
	char directory[256]; /* the name of the entry */
	size_t form;         /* an index of names */
	enum directory kind;
	enum backend backend;
	int listener; /* or -1 */
	/* If root makes them: the owners of the directory and of a link to it, and the listener. */
	enum user owner, linker, server;

	/* What the proxy did. */
	bool served;
	unsigned header; /* the version of the PROXY header; 0 for none */
	int alert;
};

static unsigned long long seed;

/* Whether others than its owner may write to the hosts directory, and its owner. */
static bool is_shared;
static enum user hosts_owner;

/* Whether the proxy has a root directory that links can lead out of. */
static bool has_root;

/* A number below LIMIT: xorshift, so that a seed gives the same numbers everywhere. */
static unsigned
below(unsigned limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)(seed >> 33) % limit;
}

/* 0 in half of all cases. */
static unsigned
mostly_first(unsigned limit)
{
	return below(2) == 0 ? 0 : below(limit);
}

/* The socket "tls-socket" in the working directory. */
static int
bind_here(int type, mode_t mode)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "tls-socket"};
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	check(s != -1 && bind(s, (struct sockaddr *)&address, sizeof address) == 0, "bind: %s",
	    strerror(errno));
	check(chmod("tls-socket", mode) == 0, "chmod");
	return s;
}

static int
listen_here(mode_t mode)
{
	int s = bind_here(SOCK_STREAM, mode);
	check(listen(s, 64) == 0, "listen");
	return s;
}

/* Makes and enters a directory that hides a socket. */
static void
enter_new(const char *path, mode_t mode)
{
	check(mkdir(path, 0755) == 0 && chmod(path, mode) == 0 && chdir(path) == 0, "%s: %s", path,
	    strerror(errno));
}

/* A listening socket behind a symlink in a sticky directory. If root makes it, the link is another
 * user's. */
static int
link_in_sticky(void)
{
	enter_new("sticky", 01777);
	int listener = listen_here(0666);
	check(symlink("tls-socket", "link") == 0 && chdir("..") == 0, "sticky");
	if (geteuid() == 0)
		check(lchown("sticky/link", 1, 1) == 0, "lchown");
	check(symlink("sticky/link", "tls-socket") == 0, "symlink");
	return listener;
}

/* A listening socket behind several symlinks. */
static int
link_in_real(void)
{
	enter_new("real", 0755);
	int listener = listen_here(0666);
	check(chdir("..") == 0 && symlink("./real/../real//tls-socket", "tls-socket") == 0, "real");
	return listener;
}

/* Makes something in a backend's place that is no listening socket. */
static void
make_broken_backend(enum backend backend)
{
	static const char *const targets[BACKENDS] = {
	    [BACKEND_DANGLES] = "../nothing/at/all",
	    [BACKEND_CIRCLES] = "tls-socket",
	    [BACKEND_BEHIND_FILE] = "file/tls-socket",
	};
	char out[300];
	const char *target = targets[backend];
	snprintf(out, sizeof out, "%s/outside/tls-socket", base_directory());
	if (backend == BACKEND_LEADS_OUT)
		target = out;
	if (backend == BACKEND_BEHIND_FILE)
		make_file("file", "");
	if (target != NULL)
		check(symlink(target, "tls-socket") == 0, "symlink");
	if (backend == BACKEND_STALE)
		close(bind_here(SOCK_STREAM, 0666));
	if (backend == BACKEND_BOUND)
		bind_here(SOCK_STREAM, 0666);
	if (backend == BACKEND_DATAGRAM)
		bind_here(SOCK_DGRAM, 0666);
	if (backend == BACKEND_SEQPACKET)
		check(listen(bind_here(SOCK_SEQPACKET, 0666), 1) == 0, "listen");
	if (backend == BACKEND_IS_FILE)
		make_file("tls-socket", "");
	if (backend == BACKEND_IS_DIRECTORY)
		check(mkdir("tls-socket", 0755) == 0, "mkdir");
}

/* Makes the backend of ENTRY in the working directory. Returns its listening socket, or -1. */
static int
make_backend(const struct made *entry)
{
	switch (entry->backend) {
	case BACKEND_LISTENS:
		return listen_here(0666);
	case BACKEND_CLOSED:
		return listen_here(0);
	case BACKEND_LINKED:
		return link_in_real();
	case BACKEND_LINKED_IN_STICKY:
		return link_in_sticky();
	default:
		make_broken_backend(entry->backend);
		return -1;
	}
}

static void
make_header_file(void)
{
	switch (mostly_first(6)) {
	case 1:
		make_file("send-proxy-v1", "");
		break;
	case 2:
		check(symlink("nothing", "send-proxy-v1") == 0, "symlink");
		break;
	case 3:
		make_file("send-proxy-v1", "");
		check(chmod("send-proxy-v1", 0) == 0, "chmod");
		break;
	case 4:
		make_file("send-proxy-v1", "");
		make_file("send-proxy-v2", "");
		break;
	case 5:
		check(symlink("nothing", "send-proxy-v2") == 0, "symlink");
		break;
	}
}

/* Gives the file at PATH to USER. */
static void
give(enum user user, const char *path)
{
	if (geteuid() == 0)
		check(lchown(path, user_id(user), (gid_t)-1) == 0, "lchown %s", path);
}

/* Makes ENTRY a symlink to TARGET. */
static void
make_link(const struct made *entry, const char *target)
{
	check(symlink(target, entry->directory) == 0, "symlink");
	give(entry->linker, entry->directory);
}

/* Makes the target of ENTRY's name. The working directory is the hosts directory. */
static void
make_directory(struct made *entry, unsigned number)
{
	char hidden[32];
	const char *at = entry->directory;
	snprintf(hidden, sizeof hidden, ".hidden-%u", number);
	if (entry->kind == DIRECTORY_LINKED)
		make_link(entry, hidden);
	if (entry->kind == DIRECTORY_LINKED)
		at = hidden;
	enter_new(at, 0755);
	entry->listener = make_backend(entry);
	if (entry->listener != -1 && entry->server != SELF)
		user_listens(entry->server, entry->listener);
	make_header_file();
	check(chdir("..") == 0, "chdir");
	give(entry->owner, at);
	if (entry->kind == DIRECTORY_CLOSED)
		check(chmod(at, 0) == 0, "chmod");
}

/* Chooses what ENTRY is, and whose. */
static void
choose(struct made *entry)
{
	entry->kind = below(4) == 0 ? DIRECTORY_LINKED : mostly_first(DIRECTORIES);
	entry->backend = mostly_first(BACKENDS);
	entry->listener = -1;
	entry->owner = mostly_first(USERS);
	entry->linker = below(2) == 0 ? entry->owner : mostly_first(USERS);
	entry->server = below(2) == 0 ? entry->owner : mostly_first(USERS);
	if (geteuid() != 0)
		entry->owner = entry->linker = entry->server = SELF;
}

/* Makes what was chosen for ENTRY. */
static void
make_chosen(struct made *entry, unsigned number)
{
	char outside[300];
	snprintf(outside, sizeof outside, "%s/outside", base_directory());
	switch (entry->kind) {
	case DIRECTORY_DANGLES:
		make_link(entry, "nothing/here");
		break;
	case DIRECTORY_CIRCLES:
		make_link(entry, entry->directory);
		break;
	case DIRECTORY_IS_FILE:
		make_file(entry->directory, "");
		break;
	case DIRECTORY_LINKED_TO_FILE:
		make_file(".file", "");
		make_link(entry, ".file");
		break;
	case DIRECTORY_LEADS_OUT:
		make_link(entry, outside);
		break;
	default:
		make_directory(entry, number);
	}
}

static void
make_entry(struct made *entry, unsigned number)
{
	*entry = (struct made){.form = mostly_first(sizeof names / sizeof *names)};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(entry->sent, sizeof entry->sent, names[entry->form].format, number);
#pragma GCC diagnostic pop
	strcpy(entry->directory, entry->sent);
	if (names[entry->form].is_looked_up)
		strcpy(entry->directory, directory_name(entry->sent, strlen(entry->sent)));
	choose(entry);
	make_chosen(entry, number);
}

/* --- What the proxy does --- */

static int outside_listener = -1; /* of the host outside of the hosts directory */

/* Notes whether the connection that reached LISTENER is a client's: a listener that the host does
 * not belong to gets nothing. */
static void
note_served(struct made *entry, int listener)
{
	char first[6] = "";
	int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	check(accepted != -1, "accept: %s", strerror(errno));
	check(readable_within(accepted, 5000), "nothing came");
	ssize_t length = recv(accepted, first, sizeof first, MSG_WAITALL);
	check(length == sizeof first || length == 0, "too little came");
	entry->served = length == sizeof first;
	entry->header = memcmp(first, "PROXY ", sizeof first) == 0 ? 1
	    : memcmp(first, "\r\n\r\n\0\r", sizeof first) == 0     ? 2
								   : 0;
	close(accepted);
}

static void
note_alert(struct made *entry, int client)
{
	unsigned char alert[7];
	check(read_up_to(client, alert, sizeof alert) == sizeof alert, "no alert");
	entry->alert = alert[6];
}

/* Whether ENTRY may be served by the host outside, which others may be as well. */
static bool
leads_out(const struct made *entry)
{
	return entry->kind == DIRECTORY_LEADS_OUT || entry->backend == BACKEND_LEADS_OUT;
}

static int
ask_for(const struct made *entry)
{
	return client_send(
	    hello((struct shape){.name = entry->sent, .name_length = strlen(entry->sent)}));
}

/* Notes what the proxy does for ENTRY, which CLIENT has asked for. */
static void
note_answer(struct made *entry, int client)
{
	int listener = leads_out(entry) ? outside_listener : entry->listener;
	struct pollfd ready[] = {
	    {.fd = client, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
	check(poll(ready, 2, margin_ms(15000)) > 0, "neither an alert nor a connection");
	if (ready[1].revents != 0)
		note_served(entry, listener);
	if (!entry->served)
		note_alert(entry, client);
	close(client);
}

/* Asks for all ENTRIES: for those that lead out one after the other. */
static void
ask_proxy(struct made *entries)
{
	int clients[ENTRIES];
	for (unsigned i = 0; i < ENTRIES; i++)
		clients[i] = leads_out(&entries[i]) ? -1 : ask_for(&entries[i]);
	for (unsigned i = 0; i < ENTRIES; i++)
		note_answer(&entries[i], clients[i] != -1 ? clients[i] : ask_for(&entries[i]));
}

/* Asks for a special host: ASKED has a name, or that of _no-sni. Returns which of the COUNT HOSTS
 * serves it, or NULL. */
static const struct made *
ask_proxy_among(struct made *asked, const struct made *hosts, size_t count)
{
	bool has_name = asked->sent[0] != '_';
	int client = client_send(
	    has_name ? hello_for(asked->sent) : hello((struct shape){.without_server_name = true}));
	while (!asked->served && asked->alert == 0) {
		struct pollfd ready[HOSTS_MAX + 2] = {
		    [0] = {.fd = client, .events = POLLIN},
		    [1] = {.fd = outside_listener, .events = POLLIN},
		};
		for (size_t i = 0; i < count; i++)
			ready[i + 2] = (struct pollfd){.fd = hosts[i].listener, .events = POLLIN};
		check(poll(ready, count + 2, margin_ms(15000)) > 0, "neither alert nor connection");
		size_t number = count + 1;
		while (number > 0 && ready[number].revents == 0)
			number--;
		if (number == 0)
			note_alert(asked, client);
		else
			note_served(asked, ready[number].fd);
		if (asked->served && number > 1) {
			close(client);
			return &hosts[number - 2];
		}
	}
	close(client);
	return NULL;
}

/* --- What sniproxy-check says --- */

/* Returns its answer with ARGUMENTS, in the hosts directory. */
static json_t *
ask_checker(const char *arguments)
{
	char command[1024];
	json_error_t error;
	const char *program = getenv("SNIPROXY_CHECK");
	check(program != NULL, "SNIPROXY_CHECK is not set");
	/* As another user, or in another root, the leak sanitizer cannot see its own process. */
	const char *before =
	    strstr(arguments, "--user") == NULL ? "" : "ASAN_OPTIONS=detect_leaks=0 ";
	check(snprintf(command, sizeof command, "%s'%s' --json %s", before, program, arguments) <
		(int)sizeof command,
	    "too long");
	FILE *output = popen(command, "re");
	check(output != NULL, "popen");
	json_t *answer = json_loadf(output, 0, &error);
	int status = pclose(output);
	check(answer != NULL, "%s, at line %d", error.text, error.line);
	json_int_t faults = json_integer_value(json_object_get(answer, "count")) -
	    json_integer_value(json_object_get(answer, "well"));
	check(status == (faults == 0 ? 0 : 1 << 8), "exit status %#x", (unsigned)status);
	return answer;
}

static bool
is_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

/* Returns what sniproxy-check should call ENTRY, or NULL if that depends on more. */
static const char *
wanted_state(const struct made *entry)
{
	const char *state = has_root && entry->backend == BACKEND_LEADS_OUT
	    ? "leads-out"
	    : backend_states[entry->backend];
	bool is_link = entry->kind == DIRECTORY_LINKED;
	bool is_plain = entry->kind == DIRECTORY_PLAIN || is_link;
	if (!names[entry->form].is_looked_up)
		return is_plain ? "not-looked-up" : NULL;
	if (is_shared && is_portable()) /* which cannot tell */
		return "not-owned";
	if (has_root && entry->kind == DIRECTORY_LEADS_OUT)
		return "leads-out";
	if (!is_plain || !is_shared)
		return is_plain ? state : NULL;
	if (is_link && entry->linker != SELF && entry->linker != entry->owner &&
	    entry->linker != hosts_owner)
		return "not-owned";
	bool is_owned = entry->server == SELF || entry->server == entry->owner;
	return is_owned || state == NULL || strcmp(state, "served") != 0 ? state : "not-owned";
}

/* Compares what was SAID with what the proxy did for ENTRY. */
static void
compare_verdicts(const struct made *entry, const json_t *said)
{
	check(is_true(said, "served") == entry->served, "the proxy: served %d, alert %d",
	    entry->served, entry->alert);
	check(json_integer_value(json_object_get(said, "alert")) == entry->alert,
	    "the proxy: alert %d", entry->alert);
	if (!entry->served) {
		check(json_is_string(json_object_get(said, "reason")), "no reason");
		return;
	}
	check(is_true(said, "send_proxy_v1") == (entry->header == 1) &&
		is_true(said, "send_proxy_v2") == (entry->header == 2),
	    "the proxy: header %u", entry->header);
}

static void
compare(const struct made *entry, const json_t *said, bool is_free)
{
	char *all = json_dumps(said, 0);
	testing("%s%s: directory %d, backend %d, users %d, %d, %d; %s", is_shared ? "shared, " : "",
	    entry->directory, entry->kind, entry->backend, entry->owner, entry->linker,
	    entry->server, all);
	compare_verdicts(entry, said);

	const char *state = json_string_value(json_object_get(said, "state"));
	const char *wanted = wanted_state(entry);
	/* Rights, or a name too long to be bound, may change the state. */
	if (wanted != NULL && is_free && strcmp(state, "path-too-long") != 0)
		check(strcmp(state, wanted) == 0, "not %s", wanted);
	testing("%s", "");
	free(all);
}

/* --- A round --- */

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status, (void)walk;
	if (type == FTW_D || type == FTW_DNR)
		chmod(path, 0755);
	if (walk->level > 0)
		remove(path);
	return 0;
}

static int
open_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status, (void)walk;
	if (type == FTW_D || type == FTW_DNR)
		chmod(path, 0755);
	return 0;
}

static void
close_sockets(int first)
{
	close_range((unsigned)first, ~0U, 0);
}

static int
by_directory(const void *a, const void *b)
{
	return strcmp(((const struct made *)a)->directory, ((const struct made *)b)->directory);
}

/* Sets who may write to the hosts directory: all cases in turn. */
static void
make_hosts(unsigned round)
{
	static const mode_t modes[] = {0755, 01777, 0775, 01777, 0777};
	mode_t mode = modes[round % (sizeof modes / sizeof *modes)];
	is_shared = mode != 0755;
	hosts_owner = geteuid() == 0 ? mostly_first(USERS) : SELF;
	give(hosts_owner, ".");
	check(chmod(".", mode) == 0, "chmod");
}

/* Prepares for another directory. FIRST is the first descriptor that was opened in this one. */
static void
remove_entries(int first)
{
	while (accept4(outside_listener, NULL, NULL, SOCK_CLOEXEC) != -1)
		;
	close_sockets(first);
	nftw(".", open_one, 16, FTW_PHYS); /* a directory without rights cannot be searched */
	nftw(".", remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* One directory. The proxy, and sniproxy-check with ARGUMENTS, must agree on it. */
static void
try_directory(unsigned round, const char *arguments, bool is_free)
{
	struct made entries[ENTRIES];
	int first = dup(0); /* opened from here on */
	make_hosts(round);
	for (unsigned i = 0; i < ENTRIES; i++)
		make_entry(&entries[i], round * ENTRIES + i);
	qsort(entries, ENTRIES, sizeof *entries, by_directory);
	ask_proxy(entries);
	json_t *answer = ask_checker(arguments);
	const json_t *said = json_object_get(answer, "entries");
	check(json_array_size(said) == ENTRIES, "%zu entries", json_array_size(said));
	for (unsigned i = 0; i < ENTRIES; i++)
		compare(&entries[i], json_array_get(said, i), is_free);
	json_decref(answer);
	remove_entries(first);
}

/* Makes some of the hosts that may serve a.example, and one that never does. Returns how many. */
static size_t
make_some_hosts(struct made hosts[HOSTS_MAX], unsigned round)
{
	static const char *const wanted[] = {
	    "a.example", "_.example", "_.a.example", "_default", "_no-sni"};
	size_t count = 0;
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		if (below(3) == 0)
			continue;
		struct made *host = &hosts[count++];
		*host = (struct made){0};
		strcpy(host->sent, wanted[i]);
		strcpy(host->directory, directory_name(wanted[i], strlen(wanted[i])));
		choose(host);
		make_chosen(host, round * HOSTS_MAX + i);
	}
	return count;
}

/* The same for names that special hosts may serve. */
static void
try_special_hosts(unsigned round, const char *arguments)
{
	static const char *const asked[] = {
	    "a.example", "b.example", "b.a.example", "c", "_no-sni"};
	enum { ASKED = sizeof asked / sizeof *asked };
	struct made hosts[HOSTS_MAX], clients[ASKED] = {0};
	const struct made *by[ASKED];
	char all[1024] = "";
	int first = dup(0);
	make_hosts(round);
	size_t count = make_some_hosts(hosts, round);
	for (size_t i = 0; i < ASKED; i++) {
		strcpy(clients[i].sent, asked[i]);
		by[i] = ask_proxy_among(&clients[i], hosts, count);
		snprintf(all + strlen(all), sizeof all - strlen(all), "--name %s ", asked[i]);
	}
	snprintf(all + strlen(all), sizeof all - strlen(all), "%s", arguments);
	json_t *answer = ask_checker(all), *said = json_object_get(answer, "entries");
	for (size_t i = 0; i < ASKED; i++) {
		json_t *entry = json_array_get(said, i);
		testing("round %u: %s; %s", round, asked[i], json_dumps(entry, 0));
		compare_verdicts(&clients[i], entry);
		const char *directory = json_string_value(json_object_get(entry, "directory"));
		check(by[i] == NULL || strcmp(directory, by[i]->sent) == 0, "the proxy: %s",
		    by[i]->sent);
		testing("%s", "");
	}
	json_decref(answer);
	remove_entries(first);
}

static void
try_directories(const char *arguments, bool is_free)
{
	char path[200];
	const char *chosen = getenv("CHECK_SEED");
	seed = chosen != NULL ? strtoull(chosen, NULL, 0) : 0x9e3779b97f4a7c15ULL;
	snprintf(path, sizeof path, "%s/outside", base_directory());
	enter_new(path, 0755);
	outside_listener = listen_here(0666);
	snprintf(path, sizeof path, "%s/hosts", base_directory());
	check(chdir(path) == 0, "chdir");
	unsigned divisor = sanitized() ? 3 : 1; /* sanitizers are slow */
	for (unsigned round = 0; round < ROUNDS / divisor; round++)
		try_directory(round, arguments, is_free);
	for (unsigned round = 0; round < HOSTS_ROUNDS / divisor; round++)
		try_special_hosts(round, arguments);
}

PROGRAM_TEST(check, agrees_with_the_proxy)
{
	proxy_start_default();
	try_directories(".", geteuid() == 0); /* and no service of this machine */
}

/* A proxy of root does not test rights. */
PROGRAM_TEST(check, agrees_with_the_proxy_of_another_user)
{
	if (geteuid() != 0)
		skip("needs root, to become another user");
	server_listen("127.0.0.1");
	proxy_start(become_nobody);
	try_directories("--user 65534", true);
}

static void
enter_root(void)
{
	if (chroot(base_directory()) < 0 || chdir("/hosts") < 0)
		_exit(126);
	become_nobody();
}

PROGRAM_TEST(check, agrees_with_the_proxy_in_a_root_directory)
{
	char arguments[200];
	if (geteuid() != 0)
		skip("needs root, for chroot(2)");
	server_listen("127.0.0.1");
	const char *hashed = getenv("HASHED");
	if ((hashed != NULL && hashed[0] == '1') || !proxy_use_static())
		skip("needs the static program, which does not hash names");
	proxy_start(enter_root);
	has_root = true;
	snprintf(arguments, sizeof arguments, "--user 65534 --root '%s' /hosts", base_directory());
	try_directories(arguments, true);
}

/* --- Hosts of several users --- */

/* Fails unless ANSWER says that NAME is in STATE. */
static void
expect_state(const json_t *answer, const char *name, const char *state)
{
	const json_t *entries = json_object_get(answer, "entries");
	const char *found = "not listed";
	for (size_t i = 0; i < json_array_size(entries); i++) {
		const json_t *said = json_array_get(entries, i);
		if (strcmp(json_string_value(json_object_get(said, "name")), name) == 0)
			found = json_string_value(json_object_get(said, "state"));
	}
	check(strcmp(found, state) == 0, "%s: %s, not %s", name, found, state);
}

/* Makes NAME, of ALICE, with a socket that does not listen, or with none; and LINK, which leads to
 * it. */
static void
make_broken_host(const char *name, bool is_bound, const char *link)
{
	user_makes(ALICE, host_path(name, NULL));
	user_links(ALICE, name, host_path(link, NULL));
	if (!is_bound)
		return;
	check(chdir(host_path(name, NULL)) == 0, "chdir");
	bind_here(SOCK_STREAM, 0666);
	check(chdir(base_directory()) == 0, "chdir");
}

static int
listen_as(enum user owner, const char *name, enum user listener)
{
	user_makes(owner, host_path(name, NULL));
	int backend = unix_listen(host_path(name, "tls-socket"), 16);
	user_listens(listener, backend);
	return backend;
}

/* Listens for two hosts of ALICE's, the second one on BOB's socket. Makes links of both users to
 * the first. Returns its listener. */
static int
make_hosts_of_users(void)
{
	int own = listen_as(ALICE, "own.example", ALICE);
	listen_as(ALICE, "other.example", BOB);
	user_links(ALICE, "own.example", host_path("link.example", NULL));
	user_links(BOB, "own.example", host_path("strange.example", NULL));
	return own;
}

static void
forget_connections(int listener)
{
	while (!silent_for(listener, 0))
		close(accept(listener, NULL, NULL));
}

/* Compares what sniproxy-check says with ARGUMENTS and what the proxy does. STRANGE is the state of
 * hosts that are not of one user. */
static void
expect_agreement(const char *arguments, int own, const char *strange)
{
	json_t *answer = ask_checker(arguments);
	expect_state(answer, "own.example", "served");
	expect_state(answer, "link.example", "served");
	expect_state(answer, "other.example", strange);
	expect_state(answer, "strange.example", strange);
	json_decref(answer);
	forget_connections(own);
	expect_served(own, hello_for("link.example"));
	if (strcmp(strange, "served") == 0) {
		expect_served(own, hello_for("strange.example"));
		return;
	}
	expect_refused(hello_for("other.example"), UNRECOGNIZED_NAME);
	expect_refused(hello_for("strange.example"), UNRECOGNIZED_NAME);
}

/* The same for special hosts: WILDCARD and UNNAMED listen for _.example and _no-sni, both of ALICE,
 * and OTHERS for _default of who owns the hosts directory. */
static void
expect_special_hosts(const char *arguments, int wildcard, int unnamed, int others, bool is_owned)
{
	struct bytes nameless = hello((struct shape){.without_server_name = true});
	json_t *answer = ask_checker(arguments);
	expect_state(answer, "_.example", is_owned ? "served" : "not-owned");
	expect_state(answer, "_no-sni", is_owned ? "served" : "not-owned");
	expect_state(answer, "_default", "served");
	json_decref(answer);
	forget_connections(wildcard);
	forget_connections(unnamed);
	forget_connections(others);
	expect_served(is_owned ? wildcard : others, hello_for("a.example"));
	expect_served(others, hello_for("a.other"));
	if (is_owned)
		expect_served(unnamed, nameless);
	else
		expect_refused(nameless, UNRECOGNIZED_NAME);
}

/* The hosts directory as an argument, after OPTIONS, for a proxy that PREPARE starts. */
static void
try_users(void (*prepare)(void), const char *options)
{
	char hosts[128], arguments[200];
	const char *missing = is_linux() ? users_missing() : "needs Linux";
	const char *hashed = getenv("HASHED");
	if (missing != NULL || (hashed != NULL && hashed[0] == '1'))
		skip(missing != NULL ? missing : "names are not hashed in it");
	server_listen("127.0.0.1");
	proxy_start(prepare);
	snprintf(hosts, sizeof hosts, "%s/hosts", base_directory());
	snprintf(arguments, sizeof arguments, "%s '%s'", options, hosts);
	check(chmod(hosts, 0777) == 0, "chmod");
	int own = make_hosts_of_users();
	int wildcard = listen_as(ALICE, "_.example", ALICE);
	int unnamed = listen_as(ALICE, "_no-sni", ALICE);
	int others = listen_as(SELF, "_default", SELF);
	expect_agreement(arguments, own, "not-owned");
	expect_special_hosts(arguments, wildcard, unnamed, others, false);
	check(chmod(hosts, 0755) == 0, "chmod");
	expect_agreement(arguments, own, "served");
	expect_special_hosts(arguments, wildcard, unnamed, others, true);

	/* Even if fs.protected_symlinks is on, because such a link is read, not followed. */
	check(chmod(hosts, 01777) == 0, "chmod");
	make_broken_host("none.example", false, "link-to-none.example");
	make_broken_host("bound.example", true, "link-to-bound.example");
	expect_agreement(arguments, own, "not-owned");
	json_t *answer = ask_checker(arguments);
	expect_state(answer, "link-to-none.example", "no-socket");
	expect_state(answer, "link-to-bound.example", "not-listening");
	json_decref(answer);
}

PROGRAM_TEST(check, agrees_on_whose_hosts_are)
{
	try_users(NULL, "");
}

PROGRAM_TEST(check, agrees_on_whose_hosts_are_for_another_user)
{
	if (geteuid() != 0)
		skip("needs root, to become another user");
	try_users(become_nobody, "--user 65534");
}

/* The proxy waits for as long as the client does; sniproxy-check does not. */
PROGRAM_TEST(check, agrees_on_a_full_backlog)
{
	proxy_start_default();
	host_make(HOST);
	char *path = host_path(HOST, "tls-socket");
	unix_listen(path, 1);
	fill_backlog(path);
	int client = client_send(hello_for(HOST));
	char arguments[200];
	snprintf(arguments, sizeof arguments, "--timeout 0.2 '%s/hosts'", base_directory());
	int64_t began_ms = now_ms();
	json_t *answer = ask_checker(arguments);
	check(now_ms() - began_ms < margin_ms(5000), "it hangs");
	const json_t *said = json_array_get(json_object_get(answer, "entries"), 0);
	check(
	    json_integer_value(json_object_get(said, "alert")) == INTERNAL_ERROR, "another alert");
	check(strcmp(json_string_value(json_object_get(said, "state")), "backlog-full") == 0,
	    "another state");
	check(readable_within(client, 15000), "no alert");
	expect_alert(client, INTERNAL_ERROR);
	json_decref(answer);
}

/* In a build with HASHED=1, other names of hosts are not known. */
PROGRAM_TEST(check, recognizes_default_and_no_sni)
{
	static const char *const names_made[] = {"_default", "_no-sni", "a.example"};
	char arguments[200];
	for (size_t i = 0; i < sizeof names_made / sizeof *names_made; i++)
		backend_listen(names_made[i]);
	snprintf(arguments, sizeof arguments, "'%s/hosts'", base_directory());
	json_t *answer = ask_checker(arguments);
	const json_t *entries = json_object_get(answer, "entries");
	check(json_array_size(entries) == 3, "%zu entries", json_array_size(entries));
	for (size_t i = 0; i < 3; i++) {
		const json_t *said = json_array_get(entries, i);
		const char *name = json_string_value(json_object_get(said, "name"));
		const char *host = json_string_value(json_object_get(said, "directory"));
		if (host == NULL)
			host = "a.example";
		check(
		    strcmp(name, directory_name(host, strlen(host))) == 0, "%s is %s", name, host);
		const json_t *server_name = json_object_get(said, "host");
		check(host[0] != '_' || json_is_null(server_name), "%s has a name", host);
	}
	json_decref(answer);
}

/* Special hosts: which names they serve, and when; what never reaches them; who may make one. */
#include "tests/program/harness.h"
#include "tests/unit/hello_cases.h"
#include "tests/unit/users.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define EXACT "a.example.com"
#define WILDCARD "_.example.com"
#define DEFAULT "_default"
#define NO_SNI "_no-sni"

static const char no_directory[] = EXACT ": host directory: No such file or directory";
static const char no_name[] = "-: unrecognized_name: no server name";

static struct proxy *proxy;

/* The listeners of the special hosts. */
static int wildcard, fallback, nameless;

static void
start(void (*prepare)(void))
{
	server_listen("127.0.0.1");
	proxy = proxy_start(prepare);
}

static void
start_with_all(void)
{
	start(NULL);
	wildcard = backend_listen(WILDCARD);
	fallback = backend_listen(DEFAULT);
	nameless = backend_listen(NO_SNI);
}

static struct bytes
hello_without_name(void)
{
	return hello((struct shape){.without_server_name = true, .padding = 100});
}

/* Fails if a special host of start_with_all() has got a connection. */
#define expect_untouched() expect_untouched_at(HERE)
static void
expect_untouched_at(const char *where)
{
	const char *touched = !silent_for(wildcard, 0) ? WILDCARD
	    : !silent_for(fallback, 0)                 ? DEFAULT
	    : !silent_for(nameless, 0)                 ? NO_SNI
						       : NULL;
	if (touched != NULL)
		fail_at(where, "%s got a connection", touched);
}

/* glibc's texts of errors of which musl has others. */
static const struct {
	const char *glibc, *musl;
} texts[] = {
    {"Socket operation on non-socket", "Not a socket"},
    {"Too many levels of symbolic links", "Symbolic link loop"},
    {"File name too long", "Filename too long"},
};

/* Returns LINE as a program with musl logs it; the caller frees it. */
static char *
in_musls_words(const char *line)
{
	char *changed = strdup(line);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		char *found = strstr(changed, texts[i].glibc);
		if (found != NULL)
			sprintf(found, "%s\n", texts[i].musl); /* a shorter text, at the end */
	}
	return changed;
}

/* Waits until the proxy has logged WHAT about the client at PORT. */
static void
wait_for_line(uint16_t port, const char *what)
{
	char line[640];
	snprintf(line, sizeof line, "%s:%u %s\n", server.address, port, what);
	char *with_musl = in_musls_words(line);
	wait_until(proxy_has_logged(proxy, line) || proxy_has_logged(proxy, with_musl), 3000);
	free(with_musl);
}

/* A client sends BYTES and must get ALERT; the log must say WHAT about it. */
#define expect_refusal(bytes, alert, what) expect_refusal_at(HERE, bytes, alert, what)
static void
expect_refusal_at(const char *where, struct bytes bytes, enum alert alert, const char *what)
{
	int client = client_send_at(where, bytes);
	uint16_t port = local_port(client);
	expect_alert_at(where, client, alert);
	close(client);
	wait_for_line(port, what);
}

static char *
path_in(const char *directory, const char *file)
{
	char *path;
	cr_assert_gt(asprintf(&path, "%s/%s", directory, file), 0);
	return path;
}

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *position)
{
	(void)status, (void)type, (void)position;
	return remove(path);
}

/* Removes the host NAME, whatever it is. */
static void
remove_host(const char *name)
{
	char *path = host_path(name, NULL);
	struct stat status;
	cr_assert_eq(lstat(path, &status), 0);
	if (S_ISDIR(status.st_mode))
		cr_assert_eq(chmod(path, 0700), 0);
	cr_assert_eq(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(path);
}

/* --- Which names a special host serves --- */

PROGRAM_TEST(special, a_wildcard_serves_each_label_below_its_domain)
{
	static const char *const names[] = {
	    EXACT,
	    "0.example.com",
	    "Www.EXAMPLE.com",
	    "label-.example.com",
	    "my_app.example.com",
	    "a_.example.com",
	    "xn--sr8hvo.example.com",
	    "a23456789-123456789-123456789-123456789-123456789-123456789-123.example.com",
	};
	start_with_all();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		testing("%s", names[i]);
		expect_served(wildcard, hello_for(names[i]));
	}
	expect_untouched();
}

PROGRAM_TEST(special, a_wildcard_serves_nothing_but_one_label_below_its_domain)
{
	static const char *const names[] = {
	    "example.com",
	    "com",
	    "a.b.example.com",
	    "a.b.c.example.com",
	    "aexample.com",
	    "a.aexample.com",
	    "a.example.co",
	    "a.example.com.example.org",
	    "b.a.example.com",
	};
	start(NULL);
	wildcard = backend_listen(WILDCARD);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char line[128];
		testing("%s", names[i]);
		snprintf(
		    line, sizeof line, "%s: host directory: No such file or directory", names[i]);
		expect_refusal(hello_for(names[i]), UNRECOGNIZED_NAME, line);
	}
	cr_assert(silent_for(wildcard, 0));
	expect_served(wildcard, hello_for(EXACT));
}

PROGRAM_TEST(special, each_level_has_a_wildcard_of_its_own)
{
	start_with_all();
	expect_served(fallback, hello_for("a.b.example.com"));
	int below = backend_listen("_.b.example.com");
	expect_served(below, hello_for("a.b.example.com"));
	expect_served(wildcard, hello_for("b.example.com"));
	expect_served(fallback, hello_for("example.com"));
	int above = backend_listen("_.com");
	expect_served(above, hello_for("example.com"));
	expect_served(above, hello_for("example_2.com"));
	expect_served(fallback, hello_for("com"));
	cr_assert(silent_for(below, 0) && silent_for(above, 0));
	expect_untouched();
}

/* A name without a dot has no wildcard, whatever there is. */
PROGRAM_TEST(special, a_single_label_has_no_wildcard)
{
	static const char *const directories[] = {"_", "_.", "_.localhost", "_localhost", "_..com"};
	int backends[sizeof directories / sizeof *directories];
	start(NULL);
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
		backends[i] = backend_listen(directories[i]);
	expect_refused(hello_for("localhost"), UNRECOGNIZED_NAME);
	expect_refused(hello_for("example.com"), UNRECOGNIZED_NAME);
	expect_served(backend_listen(DEFAULT), hello_for("localhost"));
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
		check(silent_for(backends[i], 0), "%s", directories[i]);
}

PROGRAM_TEST(special, default_serves_each_valid_name)
{
	static const char *const names[] = {
	    "a",
	    "localhost",
	    "example.com",
	    "127.0.0.1",
	    "a_b",
	    "default",
	    "no-sni",
	    "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z",
	};
	start(NULL);
	fallback = backend_listen(DEFAULT);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		testing("%s", names[i]);
		expect_served(fallback, hello_for(names[i]));
	}
}

/* LENGTH bytes: labels of a byte each, or one label before END. */
static char *
long_name(size_t length, const char *end)
{
	static char name[512];
	size_t left = length - strlen(end);
	for (size_t i = 0; i < left; i++)
		name[i] = end[0] == '\0' && i % 2 == 1 && i < left - 1 ? '.' : 'l';
	snprintf(name + left, sizeof name - left, "%s", end);
	return name;
}

PROGRAM_TEST(special, names_of_254_bytes)
{
	start_with_all();
	expect_served(wildcard, hello_for(long_name(254, ".example.com")));
	expect_served(fallback, hello_for(long_name(254, "")));
	expect_served(fallback, hello_for(long_name(254, "x.y.example.com")));
	expect_served(fallback, hello_for(long_name(254, ".b")));
	int below = backend_listen("_.b");
	expect_served(below, hello_for(long_name(254, ".b")));
	expect_untouched();
}

/* Its own name may have as many bytes. */
PROGRAM_TEST(special, a_wildcard_of_254_bytes)
{
	char deepest[256];
	if (!is_hashed())
		need("working directories of threads");
	start_with_all();
	char *name = long_name(253, "ll");
	snprintf(deepest, sizeof deepest, "_.%s", name + 2);
	name[1] = '.';
	cr_assert_eq(strlen(deepest), 253);
	int backend = backend_listen(deepest);
	expect_served(backend, hello_for(name));
	remove_host(deepest);
	expect_served(fallback, hello_for(name));

	host_make(deepest);
	char line[640];
	snprintf(
	    line, sizeof line, "%s (%s): tls-socket: No such file or directory", name, deepest);
	expect_refusal(hello_for(name), UNRECOGNIZED_NAME, line);
	expect_untouched();
}

/* Well-formed hellos without a name. */
static const struct {
	const char *what;
	struct shape shape;
} nameless_hellos[] = {
    {"no extensions", {.without_extensions = true}},
    {"extensions of no bytes", {.without_extensions = true, .trailing = 2}},
    {"extensions of 5 bytes", {.without_server_name = true, .padding = 1}},
    {"extensions of 7 bytes", {.without_server_name = true}},
    {"no server_name", {.without_server_name = true, .padding = 100}},
    {"a large one", {.without_server_name = true, .padding = 40000}},
    {"only a name of another type", {.other_name_only = true}},
};

PROGRAM_TEST(special, no_sni_serves_hellos_without_a_name)
{
	start_with_all();
	for (size_t i = 0; i < sizeof nameless_hellos / sizeof *nameless_hellos; i++) {
		testing("%s", nameless_hellos[i].what);
		struct bytes message = hello_message(nameless_hellos[i].shape);
		expect_served(nameless, in_records(message, 1 << 14));
		expect_served(nameless, in_records(message, 100));
	}
	expect_untouched();
}

PROGRAM_TEST(special, no_sni_serves_no_name_and_no_other_serves_hellos_without_one)
{
	start(NULL);
	nameless = backend_listen(NO_SNI);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
	expect_refusal(hello_for("no-sni"), UNRECOGNIZED_NAME,
	    "no-sni: host directory: No such file or directory");
	cr_assert(silent_for(nameless, 0));
	remove_host(NO_SNI);
	wildcard = backend_listen(WILDCARD);
	fallback = backend_listen(DEFAULT);
	for (size_t i = 0; i < sizeof nameless_hellos / sizeof *nameless_hellos; i++) {
		testing("%s", nameless_hellos[i].what);
		expect_refusal(hello(nameless_hellos[i].shape), UNRECOGNIZED_NAME, no_name);
	}
	cr_assert(silent_for(wildcard, 0) && silent_for(fallback, 0));
}

/* --- Exact first, looked up anew for each connection --- */

PROGRAM_TEST(special, exact_first_then_the_wildcard_then_the_default)
{
	start(NULL);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
	fallback = backend_listen(DEFAULT);
	expect_served(fallback, hello_for(EXACT));
	wildcard = backend_listen(WILDCARD);
	expect_served(wildcard, hello_for(EXACT));
	int exact = backend_listen(EXACT);
	expect_served(exact, hello_for(EXACT));
	expect_served(wildcard, hello_for("b.example.com"));
	expect_served(fallback, hello_for("b.example.org"));

	testing("%s", "after they have gone");
	cr_assert_eq(rename(host_path(EXACT, NULL), host_path("a.example.org", NULL)), 0);
	expect_served(wildcard, hello_for(EXACT));
	expect_served(exact, hello_for("a.example.org"));
	cr_assert_eq(rename(host_path(WILDCARD, NULL), host_path("_.example.org", NULL)), 0);
	expect_served(fallback, hello_for(EXACT));
	expect_served(wildcard, hello_for("b.example.org"));
	remove_host(DEFAULT);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
}

/* A dangling symlink is a directory that does not exist, wherever it is. */
PROGRAM_TEST(special, dangling_symlinks_do_not_exist)
{
	start(NULL);
	cr_assert_eq(symlink("nowhere", host_path(EXACT, NULL)), 0);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
	cr_assert_eq(symlink("nowhere/at/all", host_path(WILDCARD, NULL)), 0);
	cr_assert_eq(symlink("nowhere", host_path(DEFAULT, NULL)), 0);
	cr_assert_eq(symlink("/nowhere", host_path(NO_SNI, NULL)), 0);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
	expect_refusal(hello_without_name(), UNRECOGNIZED_NAME, no_name);
	cr_assert_eq(unlink(host_path(DEFAULT, NULL)), 0);
	fallback = backend_listen(DEFAULT);
	expect_served(fallback, hello_for(EXACT));
	cr_assert_eq(unlink(host_path(WILDCARD, NULL)), 0);
	wildcard = backend_listen(WILDCARD);
	expect_served(wildcard, hello_for(EXACT));
}

PROGRAM_TEST(special, symlinks_make_special_hosts_too)
{
	start(NULL);
	int real = backend_listen("real.example");
	static const char *const specials[] = {WILDCARD, DEFAULT, NO_SNI};
	for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
		cr_assert_eq(
		    symlink(host_path("real.example", NULL), host_path(specials[i], NULL)), 0);
	expect_served(real, hello_for(EXACT));
	expect_served(real, hello_for("localhost"));
	expect_served(real, hello_without_name());
}

PROGRAM_TEST(special, a_proxy_header_is_sent_if_the_special_host_wants_one)
{
	start_with_all();
	make_file(host_path(DEFAULT, "send-proxy-v1"), "");
	make_file(host_path(NO_SNI, "send-proxy-v1"), "");
	const int wanting[] = {fallback, nameless};
	const struct bytes hellos[] = {hello_for("localhost"), hello_without_name()};
	for (int i = 0; i < 2; i++) {
		char header[128];
		int client = client_send(hellos[i]);
		int accepted = backend_accept(wanting[i]);
		snprintf(header, sizeof header, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n",
		    local_port(client), server.port);
		expect_bytes(accepted, text(header));
		expect_bytes(accepted, hellos[i]);
		pair_talk(((struct pair){client, accepted}));
	}
	expect_served(wildcard, hello_for(EXACT));
}

/* Directories that have the names themselves, if their hashes are looked up. */
PROGRAM_TEST(special, hashed_directories_only)
{
	static const char *const specials[] = {WILDCARD, DEFAULT, NO_SNI};
	if (!is_hashed())
		skip("only if directories are hashed");
	start(NULL);
	for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
		char path[128];
		snprintf(path, sizeof path, "%s/hosts/%s", base_directory(), specials[i]);
		cr_assert_eq(mkdir(path, 0755), 0);
		unix_listen(path_in(path, "tls-socket"), 16);
	}
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
	expect_refusal(hello_without_name(), UNRECOGNIZED_NAME, no_name);
}

/* --- An exact host that comes and goes under load --- */

enum { ROUNDS = 300 };

/* Clients connect while the host is there and is not. One of both must serve each. */
PROGRAM_TEST(special, a_host_that_comes_and_goes_under_load)
{
	struct bytes hello = hello_for(EXACT);
	struct service here = {.hello = hello, .answer = 'h', .listener = backend_listen(EXACT)};
	struct service instead = {
	    .hello = hello, .answer = 'i', .listener = backend_listen(WILDCARD)};
	struct load load = {.hello = hello};
	char *path = host_path(EXACT, NULL), *elsewhere = host_path("elsewhere.example", NULL);
	need("working directories of threads");
	start(NULL);
	service_start(&here);
	service_start(&instead);
	load_start(&load, 4);
	for (int round = 0; round < ROUNDS || here.served < 100 || instead.served < 100; round++) {
		check(round < 100 * ROUNDS, "served %d and %d", here.served, instead.served);
		check(load.failed == 0, "%d connections failed: %d", load.failed, load.error);
		cr_assert_eq(rename(path, elsewhere), 0);
		wait_a_moment();
		cr_assert_eq(rename(elsewhere, path), 0);
		wait_a_moment();
	}
	load_stop(&load);
	service_stop(&here);
	service_stop(&instead);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	cr_assert(here.wrong == 0 && instead.wrong == 0);
}

/* --- What exists and does not serve keeps the next one from being tried --- */

static void
make_empty(const char *path)
{
	cr_assert_eq(mkdir(path, 0755), 0);
}

static void
make_dangling_socket(const char *path)
{
	make_empty(path);
	cr_assert_eq(symlink("nowhere", path_in(path, "tls-socket")), 0);
}

static void
make_looping_socket(const char *path)
{
	make_empty(path);
	cr_assert_eq(symlink("tls-socket", path_in(path, "tls-socket")), 0);
}

static void
make_stale_socket(const char *path)
{
	make_empty(path);
	close(unix_listen(path_in(path, "tls-socket"), 1));
}

static void
make_file_socket(const char *path)
{
	make_empty(path);
	make_file(path_in(path, "tls-socket"), "");
	cr_assert_eq(chmod(path_in(path, "tls-socket"), 0777), 0);
}

static void
make_directory_socket(const char *path)
{
	make_empty(path);
	make_empty(path_in(path, "tls-socket"));
	cr_assert_eq(chmod(path_in(path, "tls-socket"), 0777), 0);
}

static void
make_fifo_socket(const char *path)
{
	make_empty(path);
	cr_assert_eq(mkfifo(path_in(path, "tls-socket"), 0666), 0);
	cr_assert_eq(chmod(path_in(path, "tls-socket"), 0777), 0);
}

/* Binds a socket of TYPE at PATH, which fits into an address. */
static void
bind_socket(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	cr_assert_lt(strlen(path), sizeof address.sun_path);
	strcpy(address.sun_path, path);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	cr_assert_eq(chmod(path, 0777), 0);
}

static void
make_datagram_socket(const char *path)
{
	make_empty(path);
	bind_socket(path_in(path, "tls-socket"), SOCK_DGRAM);
}

static void
make_silent_socket(const char *path)
{
	make_empty(path);
	bind_socket(path_in(path, "tls-socket"), SOCK_STREAM);
}

static void
make_shut_socket(const char *path)
{
	make_empty(path);
	unix_listen(path_in(path, "tls-socket"), 16);
	cr_assert_eq(chmod(path_in(path, "tls-socket"), 0), 0);
}

static void
make_shut_directory(const char *path)
{
	make_empty(path);
	unix_listen(path_in(path, "tls-socket"), 16);
	cr_assert_eq(chmod(path, 0), 0);
}

static void
make_regular_file(const char *path)
{
	make_file(path, "");
}

static void
make_fifo(const char *path)
{
	cr_assert_eq(mkfifo(path, 0666), 0);
}

static void
make_socket(const char *path)
{
	unix_listen(path, 16);
}

static void
make_link_to_file(const char *path)
{
	cr_assert_eq(symlink("../file", path), 0);
}

static void
make_link_through_file(const char *path)
{
	cr_assert_eq(symlink("../file/below", path), 0);
}

static void
make_link_through_shut_directory(const char *path)
{
	cr_assert_eq(symlink("../shut/below", path), 0);
}

static void
make_loop(const char *path)
{
	cr_assert_eq(symlink(strrchr(path, '/') + 1, path), 0);
}

static void
make_link_to_long_name(const char *path)
{
	char target[300] = "";
	memset(target, 'x', sizeof target - 1);
	cr_assert_eq(symlink(target, path), 0);
}

static const struct {
	const char *what;
	void (*make)(const char *path);
	enum alert alert;
	const char *line;
} obstacles[] = {
    {"nothing in it", make_empty, UNRECOGNIZED_NAME, "tls-socket: No such file or directory"},
    {"a dangling socket", make_dangling_socket, UNRECOGNIZED_NAME,
	"tls-socket: No such file or directory"},
    {"a looping socket", make_looping_socket, UNRECOGNIZED_NAME,
	"tls-socket: Too many levels of symbolic links"},
    {"a stale socket", make_stale_socket, UNRECOGNIZED_NAME, "tls-socket: Connection refused"},
    {"a silent socket", make_silent_socket, UNRECOGNIZED_NAME, "tls-socket: Connection refused"},
    {"a file as socket", make_file_socket, UNRECOGNIZED_NAME,
	"tls-socket: Socket operation on non-socket"},
    {"a directory as socket", make_directory_socket, UNRECOGNIZED_NAME,
	"tls-socket: Socket operation on non-socket"},
    {"a FIFO as socket", make_fifo_socket, UNRECOGNIZED_NAME,
	"tls-socket: Socket operation on non-socket"},
    {"a datagram socket", make_datagram_socket, UNRECOGNIZED_NAME,
	"tls-socket: Protocol wrong type for socket"},
    {"no right to the socket", make_shut_socket, UNRECOGNIZED_NAME,
	"tls-socket: Permission denied"},
    {"no right to the directory", make_shut_directory, UNRECOGNIZED_NAME,
	"host directory: Permission denied"},
    {"a file", make_regular_file, UNRECOGNIZED_NAME, "host directory: Not a directory"},
    {"a FIFO", make_fifo, UNRECOGNIZED_NAME, "host directory: Not a directory"},
    {"a socket", make_socket, UNRECOGNIZED_NAME, "host directory: Not a directory"},
    {"a link to a file", make_link_to_file, UNRECOGNIZED_NAME, "host directory: Not a directory"},
    {"a link through a file", make_link_through_file, UNRECOGNIZED_NAME,
	"host directory: Not a directory"},
    {"a link without the right to follow it", make_link_through_shut_directory, UNRECOGNIZED_NAME,
	"host directory: Permission denied"},
    {"a loop", make_loop, UNRECOGNIZED_NAME, "host directory: Too many levels of symbolic links"},
    {"a link to a long name", make_link_to_long_name, INTERNAL_ERROR,
	"host directory: File name too long"},
};

/* Puts each obstacle at the directory of HOST. A client of NAME, or of none, is rejected; the log
 * calls it CALLED. */
static void
expect_obstacles(const char *host, const char *name, const char *called)
{
	char *shut = path_in(base_directory(), "shut"), *path = host_path(host, NULL);
	make_file(path_in(base_directory(), "file"), "");
	cr_assert_eq(mkdir(shut, 0), 0);
	struct bytes bytes = name != NULL ? hello_for(name) : hello_without_name();
	for (size_t i = 0; i < sizeof obstacles / sizeof *obstacles; i++) {
		char line[256];
		testing("%s: %s", host, obstacles[i].what);
		obstacles[i].make(path);
		snprintf(line, sizeof line, "%s: %s", called, obstacles[i].line);
		expect_refusal(bytes, obstacles[i].alert, line);
		remove_host(host);
	}
	cr_assert_eq(chmod(shut, 0700), 0);
}

PROGRAM_TEST(special, an_exact_host_that_does_not_serve)
{
	start(become_nobody);
	wildcard = backend_listen(WILDCARD);
	fallback = backend_listen(DEFAULT);
	nameless = backend_listen(NO_SNI);
	expect_obstacles(EXACT, EXACT, EXACT);
	expect_untouched();
	expect_served(wildcard, hello_for(EXACT));
}

PROGRAM_TEST(special, a_wildcard_that_does_not_serve)
{
	start(become_nobody);
	fallback = backend_listen(DEFAULT);
	nameless = backend_listen(NO_SNI);
	wildcard = nameless;
	expect_obstacles(WILDCARD, EXACT, EXACT " (" WILDCARD ")");
	expect_untouched();
	expect_served(fallback, hello_for(EXACT));
}

PROGRAM_TEST(special, a_default_that_does_not_serve)
{
	start(become_nobody);
	nameless = backend_listen(NO_SNI);
	expect_obstacles(DEFAULT, EXACT, EXACT " (" DEFAULT ")");
	cr_assert(silent_for(nameless, 0));
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
}

PROGRAM_TEST(special, a_no_sni_that_does_not_serve)
{
	start(become_nobody);
	wildcard = backend_listen(WILDCARD);
	fallback = backend_listen(DEFAULT);
	nameless = fallback;
	expect_obstacles(NO_SNI, NULL, "- (" NO_SNI ")");
	expect_untouched();
	expect_refusal(hello_without_name(), UNRECOGNIZED_NAME, no_name);
}

/* A backend whose backlog is full is waited for; no other host serves meanwhile. */
static void
expect_patience(const char *host)
{
	testing("%s", host);
	host_make(host);
	expect_backlog_is_waited_for(host_path(host, "tls-socket"), hello_for(EXACT));
}

PROGRAM_TEST(special, a_full_backlog_is_waited_for)
{
	start(NULL);
	nameless = fallback = wildcard = backend_listen(NO_SNI);
	expect_patience(DEFAULT);
	remove_host(DEFAULT);
	fallback = backend_listen(DEFAULT);
	expect_patience(WILDCARD);
	remove_host(WILDCARD);
	wildcard = backend_listen(WILDCARD);
	expect_patience(EXACT);
	expect_untouched();
}

/* The file system fails. The alert comes at once, and the log names the host itself. */
PROGRAM_TEST(special, a_lookup_that_fails)
{
	static const struct {
		const char *error;
		enum alert alert;
		const char *line;
	} rows[] = {
	    {"error=EIO", INTERNAL_ERROR, EXACT ": host directory: Input/output error"},
	    {"error=ESTALE", INTERNAL_ERROR, EXACT ": host directory: Stale file handle"},
	    {"error=EACCES", UNRECOGNIZED_NAME, EXACT ": host directory: Permission denied"},
	    {"error=EPERM", UNRECOGNIZED_NAME, EXACT ": host directory: Operation not permitted"},
	    {"error=ENOTDIR", UNRECOGNIZED_NAME, EXACT ": host directory: Not a directory"},
	};
	need("working directories of threads");
	start_with_all();
	expect_served(wildcard, hello_for(EXACT));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		testing("%s", rows[i].error);
		pid_t tracer = fault_begin(proxy, "openat", rows[i].error);
		expect_refusal(hello_for(EXACT), rows[i].alert, rows[i].line);
		fault_end(tracer);
	}
	expect_untouched();
	expect_served(wildcard, hello_for(EXACT));
}

/* --- How many lookups --- */

/* How often TEXT is in STRING. */
static int
count_in(const char *string, const char *text)
{
	int count = 0;
	for (; (string = strstr(string, text)) != NULL; string++)
		count++;
	return count;
}

/* A client is served, or rejected if LISTENER is -1, while strace(1) writes down each call that has
 * a path. The directories must be opened once each, in this order, and no other; the list ends with
 * NULL. */
static void
expect_lookups(int listener, const char *name, const char *const directories[])
{
	char path[128], call[400];
	testing("%s", name);
	struct bytes bytes = name[0] != '\0' ? hello_for(name) : hello_without_name();
	pid_t tracer = fault_begin(proxy, "%file", "delay_enter=1");
	if (listener != -1)
		expect_served(listener, bytes);
	else
		expect_refused(bytes, UNRECOGNIZED_NAME);
	fault_end(tracer);
	snprintf(path, sizeof path, "%s/strace", base_directory());
	char *trace = read_file(path), *place = trace;
	int opened = 0;
	for (; directories[opened] != NULL; opened++) {
		const char *directory =
		    directory_name(directories[opened], strlen(directories[opened]));
		snprintf(call, sizeof call, "\"%s\"", directory);
		check(count_in(trace, call) == 1, "%d times %s in:\n%s", count_in(trace, call),
		    call, trace);
		place = strstr(place, call);
		check(place != NULL, "%s comes too early in:\n%s", call, trace);
	}
	check(count_in(trace, "openat(") == opened, "%d calls of openat(2) in:\n%s",
	    count_in(trace, "openat("), trace);
	free(trace);
}

PROGRAM_TEST(special, one_lookup_for_an_exact_name_and_three_at_most)
{
	need("directories that stay open");
	if (sanitized() || emulated())
		skip("the sanitizers and emulators open files of their own");
	start_with_all();
	int exact = backend_listen("exact.example.com");
	expect_served(exact, hello_for("exact.example.com")); /* by a thread, which stays */
	expect_lookups(
	    exact, "exact.example.com", (const char *const[]){"exact.example.com", NULL});
	expect_lookups(wildcard, EXACT, (const char *const[]){EXACT, WILDCARD, NULL});
	expect_lookups(fallback, "localhost", (const char *const[]){"localhost", DEFAULT, NULL});
	expect_lookups(
	    fallback, "a.b.c.d", (const char *const[]){"a.b.c.d", "_.b.c.d", DEFAULT, NULL});
	expect_lookups(nameless, "", (const char *const[]){NO_SNI, NULL});
	expect_lookups(-1, "_a.example.com", (const char *const[]){NULL});
	remove_host(DEFAULT);
	remove_host(NO_SNI);
	expect_lookups(-1, "a.b.c.d", (const char *const[]){"a.b.c.d", "_.b.c.d", DEFAULT, NULL});
	expect_lookups(-1, "", (const char *const[]){NO_SNI, NULL});
	remove_host("exact.example.com");
	host_make("exact.example.com");
	chmod(host_path("exact.example.com", NULL), 0755);
	expect_refused(hello_for("exact.example.com"), UNRECOGNIZED_NAME);
}

/* --- What never reaches a special host --- */

static const struct {
	const char *name;
	size_t length;
} refused_names[] = {
    {WILDCARD, 0},
    {DEFAULT, 0},
    {NO_SNI, 0},
    {"_DEFAULT", 0},
    {"_No-SNI", 0},
    {"_.EXAMPLE.com", 0},
    {"_", 0},
    {"_.", 0},
    {"_._", 0},
    {"_a.example.com", 0},
    {"a._b.example.com", 0},
    {"_._.example.com", 0},
    {"a._default", 0},
    {"-a.example.com", 0},
    {"*.example.com", 0},
    {EXACT ".", 0},
    {"." EXACT, 0},
    {".example.com", 0},
    {"a..example.com", 0},
    {".", 0},
    {"..", 0},
    {"../" DEFAULT, 0},
    {"./" DEFAULT, 0},
    {DEFAULT "/", 0},
    {"a/../" DEFAULT, 0},
    {"a b.example.com", 0},
    {"caf\xc3\xa9.example.com", 0},
    {EXACT "\0", sizeof EXACT},
    {"a\0b.example.com", 15},
    {"\0", 1},
    {"\0" EXACT, sizeof EXACT},
    {DEFAULT "\0", sizeof DEFAULT},
    {"", 0},
};

PROGRAM_TEST(special, no_client_can_ask_for_one)
{
	start_with_all();
	for (size_t i = 0; i < sizeof refused_names / sizeof *refused_names; i++) {
		size_t length = refused_names[i].length != 0 ? refused_names[i].length
							     : strlen(refused_names[i].name);
		struct shape shape = {.name = refused_names[i].name, .name_length = length};
		testing("name %zu: %s", i, refused_names[i].name);
		expect_refused(hello(shape), UNRECOGNIZED_NAME);
		expect_refused(in_records(hello_message(shape), 1), UNRECOGNIZED_NAME);
		expect_untouched();
	}
}

PROGRAM_TEST(special, names_that_are_too_long)
{
	static const size_t lengths[] = {255, 256, 257, 300, 400};
	start_with_all();
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		testing("%zu bytes", lengths[i]);
		expect_refused(hello_for(long_name(lengths[i], "")), UNRECOGNIZED_NAME);
		expect_refused(hello_for(long_name(lengths[i], ".example.com")), UNRECOGNIZED_NAME);
	}
	expect_untouched();
}

/* The special host that serves the hello of CASE, or -1. */
static int
host_of(const struct hello_case *c)
{
	if (c->status == TLS_REFUSED)
		return c->alert == TLS_UNRECOGNIZED_NAME ? nameless : -1;
	return c->status == TLS_OK && strncasecmp(c->name, "blog.example", c->name_length) == 0 &&
		c->name_length == strlen("blog.example")
	    ? fallback
	    : -1;
}

/* Each hello of the unit tests' table goes where the table says, or nowhere. */
PROGRAM_TEST(special, each_hello_of_the_table)
{
	int refused = 0;
	start_with_all();
	for (size_t i = 0; i < hello_case_count; i++) {
		const struct hello_case *c = &hello_cases[i];
		struct bytes bytes = {0};
		put(&bytes, c->bytes, c->length);
		testing("%s", c->what);
		if (host_of(c) != -1) {
			expect_served(host_of(c), bytes);
			continue;
		}
		enum alert alert =
		    (enum alert)(c->status == TLS_REFUSED ? c->alert : TLS_UNRECOGNIZED_NAME);
		expect_refused(bytes, alert);
		int client = client_connect();
		send_bytewise(client, bytes);
		expect_alert(client, alert);
		close(client);
		expect_untouched();
		refused++;
	}
	cr_assert_gt(refused, 40, "the table has few malformed hellos");
	expect_untouched();
}

/* Hellos of which each length is wrong in turn, with a name and without one. */
PROGRAM_TEST(special, hellos_with_a_wrong_length)
{
	static const int lies[] = {-1, 1, 2, 255, 256, 1000};
	start_with_all();
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		const int lie = lies[i];
		const struct shape shapes[] = {
		    {.name = EXACT, .message_lie = -1},
		    {.name = EXACT, .extensions_lie = lie},
		    {.name = EXACT, .server_name_lie = lie, .server_name_last = true},
		    {.name = EXACT, .list_lie = lie},
		    {.name = EXACT, .name_lie = lie},
		    {.without_server_name = true, .message_lie = -1},
		    {.without_server_name = true, .extensions_lie = lie},
		    {.without_server_name = true, .padding = 1, .extensions_lie = lie},
		    {.without_extensions = true, .message_lie = -1},
		    {.without_extensions = true, .trailing = 1},
		    {.without_extensions = true, .trailing = 3},
		    {.other_name_only = true, .extensions_lie = lie},
		    {.other_name_only = true, .list_lie = lie},
		    {.other_name_only = true, .server_name_lie = lie, .server_name_last = true},
		};
		for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
			testing("shape %zu, %+d", j, lie);
			expect_refused(hello(shapes[j]), DECODE_ERROR);
			expect_untouched();
		}
	}
}

/* A hello without a name of which the rest never comes is no hello without a name. */
PROGRAM_TEST(special, hellos_that_end_early)
{
	start_with_all();
	const struct bytes hellos[] = {hello((struct shape){.without_extensions = true}),
	    hello((struct shape){.without_server_name = true}), hello_for(EXACT)};
	for (size_t i = 0; i < sizeof hellos / sizeof *hellos; i++)
		for (size_t length = 1; length < hellos[i].length; length++) {
			testing("hello %zu, %zu bytes", i, length);
			int client = client_send(slice(hellos[i], 0, length));
			shutdown(client, SHUT_WR);
			expect_alert(client, DECODE_ERROR);
			close(client);
		}
	expect_untouched();
}

/* The server_name is there, but hidden: no other part of the hello may make it one without. */
PROGRAM_TEST(special, names_that_contradict_each_other)
{
	start_with_all();
	expect_refused(
	    hello((struct shape){.name = EXACT, .two_server_names = true}), ILLEGAL_PARAMETER);
	expect_refused(hello((struct shape){.name = EXACT, .two_host_names = true}), DECODE_ERROR);
	expect_refused(hello((struct shape){.name = EXACT, .empty_list = true}), DECODE_ERROR);
	expect_refused(hello((struct shape){.name = EXACT, .without_list = true}), DECODE_ERROR);
	expect_untouched();
	expect_served(wildcard, hello((struct shape){.name = EXACT, .other_name_first = true}));
}

/* --- The log --- */

static void
log_connections(void)
{
	setenv("SNIPROXY_LOG", "connections", 1);
}

/* A connection to LISTENER ends. Its line must have NAMES. */
static void
expect_end_line(int listener, struct bytes hello, const char *names)
{
	char line[256];
	testing("%s", names);
	int client = client_send(hello);
	snprintf(line, sizeof line, "client=%s:%u %s seconds=", server.address, local_port(client),
	    names);
	if (listener != -1) {
		int accepted = backend_accept(listener);
		expect_bytes(accepted, hello);
		close(accepted);
		expect_end(client);
	} else {
		expect_alert(client, UNRECOGNIZED_NAME);
	}
	close(client);
	wait_until(proxy_has_logged(proxy, line), 3000);
}

PROGRAM_TEST(special, the_line_of_an_ended_connection)
{
	start(log_connections);
	int exact = backend_listen("exact.example.com");
	wildcard = backend_listen(WILDCARD);
	fallback = backend_listen(DEFAULT);
	nameless = backend_listen(NO_SNI);
	expect_end_line(exact, hello_for("exact.example.com"), "name=exact.example.com");
	expect_end_line(wildcard, hello_for("A.Example.com"), "name=" EXACT " host=" WILDCARD);
	expect_end_line(fallback, hello_for("localhost"), "name=localhost host=" DEFAULT);
	expect_end_line(nameless, hello_without_name(), "name=- host=" NO_SNI);
	expect_end_line(-1, hello_for(WILDCARD), "name=-");
	cr_assert_eq(unlink(host_path(DEFAULT, "tls-socket")), 0);
	expect_end_line(-1, hello_for("localhost"), "name=localhost host=" DEFAULT);
	remove_host(DEFAULT);
	remove_host(NO_SNI);
	expect_end_line(-1, hello_for("localhost"), "name=localhost");
	expect_end_line(-1, hello_without_name(), "name=-");
}

/* --- A hosts directory that several users may write to --- */

static void
set_hosts_mode(mode_t mode)
{
	cr_assert_eq(chmod(path_in(base_directory(), "hosts"), mode), 0);
}

/* Skips the test if there are no other users. Otherwise they may make hosts, but not remove
 * another's. */
static void
start_among_users(void)
{
	const char *missing = is_linux() ? users_missing() : "needs Linux";
	if (missing != NULL)
		skip(missing);
	start(become_nobody);
	set_hosts_mode(01777);
}

/* Makes the host NAME of OWNER, whose LISTENER listens. */
static int
users_listen_at(const char *name, enum user owner, enum user listener)
{
	user_makes(owner, host_path(name, NULL));
	int backend = unix_listen(host_path(name, "tls-socket"), 16);
	user_listens(listener, backend);
	return backend;
}

/* What may be in the place of a special host and belongs to ALICE, or is a link to what does. There
 * are "own.example", hers; "bob.example"; and "root.example", which is SELF's. */

static int
make_users_file(const void *path)
{
	return close(open(path, O_WRONLY | O_CREAT | O_EXCL, 0666));
}

static int
make_users_fifo(const void *path)
{
	return mkfifo(path, 0666);
}

static int
make_users_shut_directory(const void *path)
{
	return mkdir(path, 0);
}

static const struct {
	const char *what;
	int (*deed)(const void *path); /* or */
	const char *target;            /* of a symlink; or a directory with a socket */
	bool is_roots;                 /* the symlink */
	bool is_missing;               /* for everybody */
} tenants[] = {
    {.what = "a directory"},
    {.what = "a link to her directory", .target = "own.example"},
    {.what = "a link to another's directory", .target = "bob.example"},
    {.what = "a link to root's directory", .target = "root.example"},
    {.what = "a link to her link to root's directory", .target = "link.example"},
    {.what = "a dangling link", .target = "nowhere.example", .is_missing = true},
    {.what = "a file", .deed = make_users_file},
    {.what = "a FIFO", .deed = make_users_fifo},
    {.what = "a directory that nobody may search", .deed = make_users_shut_directory},
    {.what = "a loop", .target = "loop.example"},
    {.what = "root's link to her directory", .target = "own.example", .is_roots = true},
};

/* The hosts that a tenant's symlink may lead to. Each must remain without a connection. */
static int targets[3];

static void
make_targets(void)
{
	targets[0] = users_listen_at("own.example", ALICE, ALICE);
	targets[1] = users_listen_at("bob.example", BOB, BOB);
	targets[2] = users_listen_at("root.example", SELF, SELF);
	user_links(ALICE, host_path("root.example", NULL), host_path("link.example", NULL));
	user_links(ALICE, host_path("loop.example", NULL), host_path("loop.example", NULL));
}

/* Makes one of the above at the host NAME. Returns its listener, or one of the targets. */
static int
make_tenants(size_t i, const char *name)
{
	const char *path = host_path(name, NULL);
	if (tenants[i].deed == NULL && tenants[i].target == NULL)
		return users_listen_at(name, ALICE, ALICE);
	if (tenants[i].deed != NULL)
		cr_assert(user_does(ALICE, tenants[i].deed, path));
	else
		user_links(
		    tenants[i].is_roots ? SELF : ALICE, host_path(tenants[i].target, NULL), path);
	return targets[0];
}

/* Whether the log has a line of the client at PORT that begins with CALLED and names ALICE. */
static bool
is_alice_blamed(uint16_t port, const char *called)
{
	char start_of_line[256], alice[32];
	snprintf(start_of_line, sizeof start_of_line, "%s:%u %s: ", server.address, port, called);
	snprintf(alice, sizeof alice, "user %u", (unsigned)user_id(ALICE));
	char *log = proxy_log(proxy), *rest = log, *line;
	bool is_blamed = false;
	while ((line = strsep(&rest, "\n")) != NULL && rest != NULL)
		is_blamed = is_blamed ||
		    (strncmp(line, start_of_line, strlen(start_of_line)) == 0 &&
			strstr(line, alice) != NULL);
	free(log);
	return is_blamed;
}

/* Each of the above at SPECIAL is as if it were not there: NEXT serves BYTES or, if that is -1, the
 * client is rejected with the line WHAT. */
static void
expect_tenants_ignored(const char *special, struct bytes bytes, int next, const char *what)
{
	const char *name = strcmp(special, NO_SNI) == 0 ? "-" : EXACT;
	char called[128];
	snprintf(called, sizeof called, "%s (%s)", name, special);
	for (size_t i = 0; i < sizeof tenants / sizeof *tenants; i++) {
		testing("%s: %s", special, tenants[i].what);
		int hers = make_tenants(i, special);
		int client = client_send(bytes);
		uint16_t port = local_port(client);
		if (next != -1) {
			int accepted = backend_accept(next);
			expect_bytes(accepted, bytes);
			pair_talk(((struct pair){client, accepted}));
			close(accepted);
		} else {
			expect_alert(client, UNRECOGNIZED_NAME);
			wait_for_line(port, what);
		}
		close(client);
		if (!tenants[i].is_missing)
			wait_until(is_alice_blamed(port, called), 3000);
		check(silent_for(hers, 0), "hers got a connection");
		for (size_t j = 0; j < sizeof targets / sizeof *targets; j++)
			check(silent_for(targets[j], 0), "the target got a connection");
		remove_host(special);
	}
}

PROGRAM_TEST(special, a_tenants_wildcard_is_as_if_not_there)
{
	start_among_users();
	make_targets();
	fallback = users_listen_at(DEFAULT, SELF, SELF);
	expect_tenants_ignored(WILDCARD, hello_for(EXACT), fallback, NULL);
}

PROGRAM_TEST(special, a_tenants_default_is_as_if_not_there)
{
	start_among_users();
	make_targets();
	expect_tenants_ignored(DEFAULT, hello_for(EXACT), -1, no_directory);
}

PROGRAM_TEST(special, a_tenants_no_sni_is_as_if_not_there)
{
	start_among_users();
	make_targets();
	users_listen_at(DEFAULT, SELF, SELF);
	expect_tenants_ignored(NO_SNI, hello_without_name(), -1, no_name);
}

PROGRAM_TEST(special, roots_special_hosts_are_served)
{
	start_among_users();
	if (getuid() != 0)
		skip("needs root");
	cr_assert_eq(chown(path_in(base_directory(), "hosts"), user_id(CAROL), (gid_t)-1), 0);
	for (int i = 0; i < 2; i++) {
		enum user owner = i == 0 ? SELF : CAROL;
		testing("of %s", i == 0 ? "root" : "the owner of the hosts directory");
		wildcard = users_listen_at(WILDCARD, owner, owner);
		fallback = users_listen_at(DEFAULT, owner, SELF);
		nameless = users_listen_at(NO_SNI, owner, owner);
		expect_served(wildcard, hello_for(EXACT));
		expect_served(fallback, hello_for("localhost"));
		expect_served(nameless, hello_without_name());
		remove_host(WILDCARD);
		remove_host(DEFAULT);
		remove_host(NO_SNI);
	}
	testing("symlinks");
	fallback = users_listen_at("real.example", CAROL, CAROL);
	user_links(SELF, host_path("real.example", NULL), host_path(DEFAULT, NULL));
	user_links(CAROL, host_path("real.example", NULL), host_path(NO_SNI, NULL));
	expect_served(fallback, hello_for("localhost"));
	expect_served(fallback, hello_without_name());
}

/* The owner of the hosts directory may be an ordinary user. */
PROGRAM_TEST(special, special_hosts_of_the_owner_of_the_hosts_directory)
{
	start_among_users();
	wildcard = users_listen_at(WILDCARD, SELF, SELF);
	fallback = users_listen_at(DEFAULT, SELF, SELF);
	nameless = users_listen_at(NO_SNI, SELF, SELF);
	int exact = users_listen_at(EXACT, ALICE, ALICE);
	expect_served(exact, hello_for(EXACT));
	expect_served(wildcard, hello_for("b.example.com"));
	expect_served(fallback, hello_for("localhost"));
	expect_served(nameless, hello_without_name());
	expect_untouched();
	cr_assert(!proxy_has_logged(proxy, "127.0.0.1:"), "nothing has failed");
}

/* What a tenant has made for a name of theirs is refused for reasons of its own. It exists. */
PROGRAM_TEST(special, a_tenants_host_that_is_refused_has_no_other)
{
	char line[256];
	start_among_users();
	wildcard = users_listen_at(WILDCARD, SELF, SELF);
	fallback = users_listen_at(DEFAULT, SELF, SELF);
	nameless = users_listen_at(NO_SNI, SELF, SELF);
	int bobs = users_listen_at("bob.example", BOB, BOB);

	testing("another user's socket");
	user_makes(ALICE, host_path(EXACT, NULL));
	user_links(ALICE, host_path("bob.example", "tls-socket"), host_path(EXACT, "tls-socket"));
	snprintf(line, sizeof line,
	    EXACT ": tls-socket: user %u listens in the host directory of user %u",
	    (unsigned)user_id(BOB), (unsigned)user_id(ALICE));
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, line);
	expect_end(backend_accept(bobs));

	testing("another user's directory");
	remove_host(EXACT);
	user_links(ALICE, host_path("bob.example", NULL), host_path(EXACT, NULL));
	snprintf(line, sizeof line,
	    EXACT ": host directory: a symlink of user %u to a directory of user %u",
	    (unsigned)user_id(ALICE), (unsigned)user_id(BOB));
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, line);
	cr_assert(silent_for(bobs, 0));
	expect_untouched();
}

/* So is a special host of root's in which somebody else listens. */
PROGRAM_TEST(special, a_strangers_socket_in_roots_special_host)
{
	char line[256];
	start_among_users();
	wildcard = users_listen_at(WILDCARD, SELF, BOB);
	fallback = users_listen_at(DEFAULT, SELF, SELF);
	snprintf(line, sizeof line,
	    EXACT " (" WILDCARD "): tls-socket: user %u listens in the host directory of user %u",
	    (unsigned)user_id(BOB), (unsigned)user_id(SELF));
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, line);
	expect_end(backend_accept(wildcard));
	cr_assert(silent_for(fallback, 0));
}

PROGRAM_TEST(special, any_users_if_only_the_owner_may_write)
{
	start_among_users();
	wildcard = users_listen_at(WILDCARD, ALICE, BOB);
	nameless = users_listen_at(NO_SNI, ALICE, ALICE);
	int bobs = users_listen_at("bob.example", BOB, BOB);
	user_links(ALICE, host_path("bob.example", NULL), host_path(DEFAULT, NULL));
	for (int round = 0; round < 2; round++) {
		set_hosts_mode(0755);
		testing("if only the owner may write");
		expect_served(wildcard, hello_for(EXACT));
		expect_served(nameless, hello_without_name());
		expect_served(bobs, hello_for("localhost"));
		set_hosts_mode(round == 0 ? 0775 : 01777);
		testing("if others may");
		expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, no_directory);
		expect_refusal(hello_without_name(), UNRECOGNIZED_NAME, no_name);
		cr_assert(
		    silent_for(wildcard, 0) && silent_for(nameless, 0) && silent_for(bobs, 0));
	}
}

PROGRAM_TEST(special, where_it_is_not_known_who_listens_none_is_served)
{
	const char end[] = ": host directory: the hosts directory is writable by other users";
	char line[128];
	if (is_linux())
		skip("only in the portable core");
	start_with_all();
	set_hosts_mode(0775);
	snprintf(line, sizeof line, EXACT "%s", end);
	expect_refusal(hello_for(EXACT), UNRECOGNIZED_NAME, line);
	snprintf(line, sizeof line, "- (" NO_SNI ")%s", end);
	expect_refusal(hello_without_name(), UNRECOGNIZED_NAME, line);
	expect_untouched();
	set_hosts_mode(0755);
	expect_served(wildcard, hello_for(EXACT));
}

/* --- Exchanged during lookups --- */

/* While clients connect, exchanges root's wildcard with what ALICE has at "b.example". Root's
 * wildcard or root's default must serve each, and nobody else. */
static void
expect_safe_exchanges(void)
{
	struct bytes hello = hello_for(EXACT);
	struct service roots = {.hello = hello, .answer = 'w'};
	struct service next = {.hello = hello, .answer = 'd'};
	struct load load = {.hello = hello};
	char *path = host_path(WILDCARD, NULL), *other = host_path("b.example", NULL);
	roots.listener = users_listen_at(WILDCARD, SELF, SELF);
	next.listener = users_listen_at(DEFAULT, SELF, SELF);
	service_start(&roots);
	service_start(&next);
	load_start(&load, 4);
	for (int i = 0; i < ROUNDS || roots.served < 100 || next.served < 100; i++) {
		check(i < 100 * ROUNDS, "served %d and %d", roots.served, next.served);
		check(load.failed == 0, "%d connections failed: %d", load.failed, load.error);
		cr_assert_eq(renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE), 0);
		wait_a_moment();
	}
	load_stop(&load);
	service_stop(&roots);
	service_stop(&next);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	cr_assert(roots.wrong == 0 && next.wrong == 0);
}

PROGRAM_TEST(special, exchanged_with_a_tenants_directory)
{
	start_among_users();
	int hers = users_listen_at("b.example", ALICE, ALICE);
	expect_safe_exchanges();
	cr_assert(silent_for(hers, 0));
}

PROGRAM_TEST(special, exchanged_with_a_tenants_symlink)
{
	start_among_users();
	int secret = users_listen_at("secret.example", SELF, SELF);
	user_links(ALICE, host_path("secret.example", NULL), host_path("b.example", NULL));
	expect_safe_exchanges();
	cr_assert(silent_for(secret, 0));
}

PROGRAM_TEST(special, exchanged_with_a_tenants_file)
{
	start_among_users();
	cr_assert(user_does(ALICE, make_users_file, host_path("b.example", NULL)));
	expect_safe_exchanges();
}

PROGRAM_TEST(special, exchanged_with_a_tenants_loop)
{
	start_among_users();
	user_links(ALICE, host_path("b.example", NULL), host_path("b.example", NULL));
	expect_safe_exchanges();
}

/* A host's directory: its socket, the PROXY header, and changes while the proxy runs. */
#include "tests/program/harness.h"
#include "tests/unit/users.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void
expect_unrecognized(void)
{
	expect_refused(hello_for(HOST), UNRECOGNIZED_NAME);
}

/* --- Missing hosts --- */

PROGRAM_TEST(backend, no_directory)
{
	proxy_start_default();
	expect_unrecognized();
}

PROGRAM_TEST(backend, directory_is_a_file)
{
	proxy_start_default();
	make_file(host_path(HOST, NULL), "");
	expect_unrecognized();
}

PROGRAM_TEST(backend, directory_is_a_dangling_symlink)
{
	proxy_start_default();
	cr_assert_eq(symlink("nowhere", host_path(HOST, NULL)), 0);
	expect_unrecognized();
}

PROGRAM_TEST(backend, no_socket)
{
	proxy_start_default();
	host_make(HOST);
	expect_unrecognized();
}

PROGRAM_TEST(backend, socket_is_a_dangling_symlink)
{
	proxy_start_default();
	host_make(HOST);
	cr_assert_eq(symlink("nowhere", host_path(HOST, "tls-socket")), 0);
	expect_unrecognized();
}

PROGRAM_TEST(backend, socket_is_a_regular_file)
{
	struct proxy *proxy = proxy_start_default();
	host_make(HOST);
	make_file(host_path(HOST, "tls-socket"), "");
	expect_unrecognized();
	const char glibc[] = HOST ": tls-socket: Socket operation on non-socket\n";
	const char musl[] = HOST ": tls-socket: Not a socket\n";
	wait_until(proxy_has_logged(proxy, glibc) || proxy_has_logged(proxy, musl), 3000);
}

PROGRAM_TEST(backend, socket_is_a_directory)
{
	proxy_start_default();
	host_make(HOST);
	cr_assert_eq(mkdir(host_path(HOST, "tls-socket"), 0755), 0);
	expect_unrecognized();
}

PROGRAM_TEST(backend, nobody_listens)
{
	proxy_start_default();
	close(backend_listen(HOST));
	expect_unrecognized();
}

/* A new directory of the same name is another directory. */
PROGRAM_TEST(backend, hosts_directory_was_removed)
{
	struct proxy *proxy = proxy_start_default();
	char *hosts;
	close(backend_listen(HOST));
	expect_unrecognized();
	cr_assert_gt(asprintf(&hosts, "%s/hosts", base_directory()), 0);
	cr_assert_eq(unlink(host_path(HOST, "tls-socket")), 0);
	cr_assert_eq(rmdir(host_path(HOST, NULL)), 0);
	cr_assert_eq(rmdir(hosts), 0);
	cr_assert_eq(mkdir(hosts, 0755), 0);
	backend_listen(HOST);
	expect_unrecognized();
	const char line[] = HOST ": hosts directory: No such file or directory\n";
	wait_until(strstr(proxy_log(proxy), line) != NULL, 3000);
}

/* --- Rights: the proxy runs as a user without any --- */

PROGRAM_TEST(backend, no_right_to_the_socket)
{
	server_listen("127.0.0.1");
	proxy_start(become_nobody);
	int backend = backend_listen(HOST);
	expect_served(backend, hello_for(HOST));
	cr_assert_eq(chmod(host_path(HOST, "tls-socket"), 0), 0);
	expect_unrecognized();
	cr_assert(silent_for(backend, 0));
	cr_assert_eq(chmod(host_path(HOST, "tls-socket"), 0777), 0);
	expect_served(backend, hello_for(HOST));
}

PROGRAM_TEST(backend, no_right_to_the_directory)
{
	server_listen("127.0.0.1");
	proxy_start(become_nobody);
	int backend = backend_listen(HOST);
	cr_assert_eq(chmod(host_path(HOST, NULL), 0), 0);
	expect_unrecognized();
	cr_assert_eq(chmod(host_path(HOST, NULL), 0755), 0);
	expect_served(backend, hello_for(HOST));
}

/* A user who may not list a directory may still search it. */
PROGRAM_TEST(backend, search_is_all_the_right_it_needs)
{
	server_listen("127.0.0.1");
	proxy_start(become_nobody);
	int backend = backend_listen(HOST);
	cr_assert_eq(chmod(host_path(HOST, NULL), 0711), 0);
	char *hosts;
	cr_assert_gt(asprintf(&hosts, "%s/hosts", base_directory()), 0);
	cr_assert_eq(chmod(hosts, 0711), 0);
	expect_served(backend, hello_for(HOST));
}

/* --- A hosts directory that several users may write to --- */

/* Skips the test if there are no other users. Otherwise they may make hosts, but not remove
 * another's. */
static struct proxy *
start_among_users(void)
{
	const char *missing = is_linux() ? users_missing() : "needs Linux";
	if (missing != NULL)
		skip(missing);
	server_listen("127.0.0.1");
	return proxy_start(become_nobody);
}

static void
set_hosts_mode(mode_t mode)
{
	char path[128];
	snprintf(path, sizeof path, "%s/hosts", base_directory());
	cr_assert_eq(chmod(path, mode), 0);
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

/* Fails unless the proxy logs WHAT for a connection to NAME, with the numbers of two users. */
static void
expect_logged(const struct proxy *proxy, const char *name, const char *what, uid_t a, uid_t b)
{
	char line[384], end[128];
	snprintf(end, sizeof end, what, (unsigned)a, (unsigned)b);
	snprintf(line, sizeof line, " %s: %s\n", name, end);
	wait_until(strstr(proxy_log(proxy), line) != NULL, 2000);
}

static void
expect_distrusted(const struct proxy *proxy, const char *name, const char *what, uid_t a, uid_t b)
{
	expect_refused(hello_for(name), UNRECOGNIZED_NAME);
	expect_logged(proxy, name, what, a, b);
}

/* The proxy connects to another user's backend, and sends nothing. */
PROGRAM_TEST(backend, somebody_elses_socket)
{
	struct proxy *proxy = start_among_users();
	set_hosts_mode(01777);
	int theirs = users_listen_at("bob.example", BOB, BOB);
	user_makes(ALICE, host_path(HOST, NULL));
	user_links(ALICE, host_path("bob.example", "tls-socket"), host_path(HOST, "tls-socket"));
	expect_distrusted(proxy, HOST,
	    "tls-socket: user %u listens in the host directory of user %u", user_id(BOB),
	    user_id(ALICE));
	expect_end(backend_accept(theirs));
	expect_served(theirs, hello_for("bob.example"));

	testing("if only the owner may write");
	set_hosts_mode(0755);
	expect_served(theirs, hello_for(HOST));
	testing("and again");
	set_hosts_mode(0775);
	expect_refused(hello_for(HOST), UNRECOGNIZED_NAME);
}

PROGRAM_TEST(backend, symlink_to_somebody_elses_directory)
{
	struct proxy *proxy = start_among_users();
	set_hosts_mode(01777);
	int theirs = users_listen_at("bob.example", BOB, BOB);
	user_links(ALICE, host_path("bob.example", NULL), host_path(HOST, NULL));
	expect_distrusted(proxy, HOST,
	    "host directory: a symlink of user %u to a directory of user %u", user_id(ALICE),
	    user_id(BOB));
	cr_assert(silent_for(theirs, 0));
	user_links(BOB, host_path("bob.example", NULL), host_path("www.example", NULL));
	expect_served(theirs, hello_for("www.example"));

	testing("if only the owner may write");
	set_hosts_mode(0755);
	expect_served(theirs, hello_for(HOST));
}

PROGRAM_TEST(backend, hosts_of_several_users_where_it_is_not_known_who_listens)
{
	if (is_linux())
		skip("only in the portable core");
	struct proxy *proxy = proxy_start_default();
	int backend = backend_listen(HOST);
	set_hosts_mode(0775);
	expect_distrusted(
	    proxy, HOST, "host directory: the hosts directory is writable by other users", 0, 0);
	set_hosts_mode(0755);
	expect_served(backend, hello_for(HOST));
}

PROGRAM_TEST(backend, hosts_and_symlinks_of_one_user_among_several)
{
	if (!is_linux())
		skip("the portable core cannot tell whose they are");
	proxy_start_default();
	set_hosts_mode(01777);
	int backend = backend_listen("real.example");
	expect_served(backend, hello_for("real.example"));
	cr_assert_eq(symlink(host_path("real.example", NULL), host_path(HOST, NULL)), 0);
	expect_served(backend, hello_for(HOST));
}

/* systemd listens for a service as root, and so does a container's root. */
PROGRAM_TEST(backend, root_listens_in_somebodys_host)
{
	start_among_users();
	if (getuid() != 0)
		skip("needs root");
	set_hosts_mode(01777);
	int backend = users_listen_at(HOST, ALICE, SELF);
	expect_served(backend, hello_for(HOST));
}

/* --- Symlinks --- */

PROGRAM_TEST(backend, symlinked_directory)
{
	proxy_start_default();
	int backend = backend_listen("real.example");
	cr_assert_eq(symlink(host_path("real.example", NULL), host_path(HOST, NULL)), 0);
	expect_served(backend, hello_for(HOST));
	expect_served(backend, hello_for("real.example"));
}

PROGRAM_TEST(backend, symlinked_socket)
{
	proxy_start_default();
	char *path;
	cr_assert_gt(asprintf(&path, "%s/backend", base_directory()), 0);
	int backend = unix_listen(path, 16);
	host_make(HOST);
	cr_assert_eq(symlink(path, host_path(HOST, "tls-socket")), 0);
	expect_served(backend, hello_for(HOST));
}

/* The target is longer than an address of a Unix socket. */
PROGRAM_TEST(backend, symlinked_socket_far_away)
{
	proxy_start_default();
	char *path = strdup(base_directory());
	for (int depth = 0; depth < 4; depth++) {
		char *deeper;
		cr_assert_gt(asprintf(&deeper, "%s/%060d", path, depth), 0);
		cr_assert_eq(mkdir(deeper, 0755), 0);
		free(path);
		path = deeper;
	}
	char *socket_path;
	cr_assert_gt(asprintf(&socket_path, "%s/socket", path), 0);
	int backend = unix_listen(socket_path, 16);
	host_make(HOST);
	cr_assert_eq(symlink(socket_path, host_path(HOST, "tls-socket")), 0);
	expect_served(backend, hello_for(HOST));
}

/* A relative target starts at the directory of the link. */
PROGRAM_TEST(backend, relative_symlinks)
{
	proxy_start_default();
	int backend = backend_listen("real.example");
	const char *real = directory_name("real.example", strlen("real.example"));
	char *target;
	cr_assert_gt(asprintf(&target, "../%s/tls-socket", real), 0);
	host_make(HOST);
	cr_assert_eq(symlink(target, host_path(HOST, "tls-socket")), 0);
	expect_served(backend, hello_for(HOST));

	cr_assert_eq(symlink(real, host_path("other.example", NULL)), 0);
	expect_served(backend, hello_for("other.example"));
}

/* --- Each connection is looked up anew --- */

PROGRAM_TEST(backend, appears_changes_and_disappears)
{
	proxy_start_default();
	expect_unrecognized();
	int first = backend_listen(HOST);
	struct pair pair = pair_open(first);

	testing("a new socket in place of the old");
	cr_assert_eq(unlink(host_path(HOST, "tls-socket")), 0);
	expect_unrecognized();
	int second = unix_listen(host_path(HOST, "tls-socket"), 16);
	expect_served(second, hello_for(HOST));
	cr_assert(silent_for(first, 0));

	testing("the directory has gone");
	cr_assert_eq(rename(host_path(HOST, NULL), host_path("renamed.example", NULL)), 0);
	expect_unrecognized();
	expect_served(second, hello_for("renamed.example"));

	testing("the connection from before");
	pair_talk(pair);
}

PROGRAM_TEST(backend, send_proxy_v1_comes_and_goes)
{
	proxy_start_default();
	int backend = backend_listen(HOST);
	expect_served(backend, hello_for(HOST));
	make_file(host_path(HOST, "send-proxy-v1"), "");
	int client = client_send(hello_for(HOST));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, text("PROXY TCP4 "));
	close(accepted);
	close(client);
	cr_assert_eq(unlink(host_path(HOST, "send-proxy-v1")), 0);
	expect_served(backend, hello_for(HOST));
}

/* --- The PROXY header --- */

/* One connection. The backend must get HEADER, with both ports filled in, then the hello, and only
 * then what the client sends later. */
static void
expect_header(int backend, const char *from, const char *format)
{
	struct bytes hello = hello_for(HOST);
	int client = client_connect_from(from);
	send_all(client, hello);
	int accepted = backend_accept(backend);
	char header[128];
	/* The formats are the literals of the tests. */
	snprintf(
	    header, sizeof header, "PROXY %s %u %u\r\n", format, local_port(client), server.port);
	expect_bytes(accepted, text(header));
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
	close(client);
	expect_end(accepted);
	close(accepted);
}

/* Starts the proxy at ADDRESS, and a backend that wants the header. */
static int
start_with_header(const char *address, void (*prepare)(void))
{
	server_listen(address);
	proxy_start(prepare);
	int backend = backend_listen(HOST);
	make_file(host_path(HOST, "send-proxy-v1"), "");
	return backend;
}

/* The address is the one that the client connected to, not the one that the socket is bound to. */
PROGRAM_TEST(backend, proxy_header_ipv4)
{
	int backend = start_with_header("0.0.0.0", NULL);
	strcpy(server.address, "127.0.0.3");
	expect_header(backend, "127.0.0.2", "TCP4 127.0.0.2 127.0.0.3");
	strcpy(server.address, "127.100.200.250");
	expect_header(backend, "127.200.201.202", "TCP4 127.200.201.202 127.100.200.250");
}

PROGRAM_TEST(backend, proxy_header_ipv6)
{
	int backend = start_with_header("::1", NULL);
	expect_header(backend, "::1", "TCP6 ::1 ::1");
}

PROGRAM_TEST(backend, proxy_header_of_a_mapped_address_is_tcp4)
{
	int backend = start_with_header("::", NULL);
	strcpy(server.address, "127.0.0.1");
	expect_header(backend, "127.0.0.2", "TCP4 127.0.0.2 127.0.0.1");
	strcpy(server.address, "::1");
	expect_header(backend, "::1", "TCP6 ::1 ::1");
}

PROGRAM_TEST(backend, send_proxy_v1_need_not_be_readable)
{
	int backend = start_with_header("127.0.0.1", become_nobody);
	make_file(host_path(HOST, "send-proxy-v1"), "what it holds does not matter\n");
	cr_assert_eq(chmod(host_path(HOST, "send-proxy-v1"), 0), 0);
	expect_header(backend, "127.0.0.1", "TCP4 127.0.0.1 127.0.0.1");
}

/* A size or a time that does not fit into 32 bits does not matter. */
PROGRAM_TEST(backend, send_proxy_v1_is_large_and_of_the_year_2100)
{
	const off_t size = (off_t)3 << 30;
	const struct timespec then = {.tv_sec = 4102444800};
	const char *path = host_path(HOST, "send-proxy-v1");
	int backend = start_with_header("127.0.0.1", NULL);
	cr_assert_eq(truncate(path, size), 0);
	cr_assert_eq(utimensat(AT_FDCWD, path, (struct timespec[]){then, then}, 0), 0);
	expect_header(backend, "127.0.0.1", "TCP4 127.0.0.1 127.0.0.1");
}

/* The header precedes the largest hello; no byte of it follows. */
PROGRAM_TEST(backend, proxy_header_before_the_largest_hello)
{
	int backend = start_with_header("127.0.0.1", NULL);
	struct bytes hello = in_records(largest_message(), 1000);
	int client = client_send(hello);
	int accepted = backend_accept(backend);
	char header[128];
	snprintf(header, sizeof header, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\n",
	    local_port(client), server.port);
	expect_bytes(accepted, text(header));
	expect_bytes(accepted, hello);
}

/* --- Exchanged under load: old or new, never a mixture --- */

/* The paths, computed once: with hashed names each takes a process. */
static char *current_path, *fresh_path, *with_path, *without_path;

/* Calls SWAP again and again while clients connect. The backend of the first directory wants the
 * header, the second one's does not. */
static void
expect_whole_while(void (*swap)(int round), int rounds)
{
	struct bytes hello = hello_for(HOST);
	struct service with = {.hello = hello, .answer = 'h', .wants_header = true};
	struct service without = {.hello = hello, .answer = 'n'};
	current_path = host_path(HOST, NULL);
	fresh_path = host_path("fresh.example", NULL);
	with_path = host_path("with.example", NULL);
	without_path = host_path("without.example", NULL);
	with.listener = backend_listen("with.example");
	make_file(host_path("with.example", "send-proxy-v1"), "");
	without.listener = backend_listen("without.example");
	swap(0);
	struct load load = {.hello = hello};
	service_start(&with);
	service_start(&without);
	load_start(&load, 4);
	for (int round = 1; round < rounds || with.served < 100 || without.served < 100; round++) {
		swap(round);
		check(round < 100 * rounds, "served %d and %d", with.served, without.served);
		wait_a_moment();
	}
	load_stop(&load);
	service_stop(&with);
	service_stop(&without);
	cr_assert_eq(load.failed, 0, "%d connections failed: %d", load.failed, load.error);
	cr_assert_eq(with.wrong, 0, "%d without a header, or changed", with.wrong);
	cr_assert_eq(without.wrong, 0, "%d with a header, or changed", without.wrong);
}

static void
swap_symlink(int round)
{
	cr_assert_eq(symlink(round % 2 == 0 ? with_path : without_path, fresh_path), 0);
	cr_assert_eq(rename(fresh_path, current_path), 0);
}

PROGRAM_TEST(backend, symlink_swapped_under_load)
{
	need("working directories of threads");
	proxy_start_default();
	expect_whole_while(swap_symlink, 400);
}

/* First the directory itself has the host's name; then the two exchange their names. */
static void
swap_directory(int round)
{
	if (round == 0)
		cr_assert_eq(rename(with_path, current_path), 0);
	else
		cr_assert_eq(
		    renameat2(AT_FDCWD, current_path, AT_FDCWD, without_path, RENAME_EXCHANGE), 0);
}

PROGRAM_TEST(backend, directory_swapped_under_load)
{
	need("working directories of threads");
	proxy_start_default();
	expect_whole_while(swap_directory, 400);
}

/* --- A full backlog --- */

PROGRAM_TEST(backend, full_backlog_is_waited_for)
{
	proxy_start_default();
	host_make(HOST);
	expect_backlog_is_waited_for(host_path(HOST, "tls-socket"), hello_for(HOST));
}

/* No event reports again what arrived in the meantime. */
PROGRAM_TEST(backend, bytes_that_come_while_the_backlog_is_full)
{
	proxy_start_default();
	host_make(HOST);
	char *path = host_path(HOST, "tls-socket");
	int backend = unix_listen(path, 1);
	int fillers = fill_backlog(path);

	struct bytes hello = hello_for(HOST);
	int client = client_send(hello);
	cr_assert(silent_for(client, 500), "the proxy gave up at once");
	send_all(client, text("more"));
	cr_assert(silent_for(client, 500), "the proxy gave up");
	for (int i = 0; i < fillers; i++)
		close(backend_accept(backend));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	expect_bytes(accepted, text("more"));
	pair_talk(((struct pair){client, accepted}));
}

/* --- acme-tls-socket, of a name that is as long as the portable core allows --- */

PROGRAM_TEST(backend, acme_hello_for_a_long_name_without_acme_tls_socket)
{
	char name[97 + 1] = "";
	struct bytes extensions = {0};
	put_extension(&extensions, 16,
	    (struct bytes){.data = (uint8_t *)"\0\x0b\x0a"
					      "acme-tls/1",
		.length = 13});
	memset(name, 'a', 97);
	name[60] = '.';
	proxy_start_default();
	int backend = backend_listen(name);
	expect_served(backend, hello((struct shape){.name = name}));
	expect_served(backend, hello((struct shape){.name = name, .extensions = extensions}));
}

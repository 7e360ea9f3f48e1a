/* Tests of backend.c: the lookup in a hosts directory, and the PROXY header. Each test is a process
 * of its own: it may have the hosts directory as its working directory, and a user and limits of
 * its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/backend.h"
#include "lib/clock.h"
#include "lib/hostname.h"
#include "system/system.h"
#include "tests/unit/check.h"
#include "tests/unit/self.h"
#include "tests/unit/users.h"

#define NAME_10 "0123456789"
#define NAME_50 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10
#define NAME_254 NAME_50 NAME_50 NAME_50 NAME_50 NAME_50 "abcd"

enum { NOBODY = 65534 };

static char root[] = "/tmp/sniproxy-backend-XXXXXX";

static int hosts = -1; /* the hosts directory */

/* Set before the first connection: the system then behaves as if it allows no thread a working
 * directory of its own. */
static bool refuses_unshare;

int __real_unshare(int flags);
int __wrap_unshare(int flags);

int
__wrap_unshare(int flags)
{
	if (!refuses_unshare || flags != CLONE_FS)
		return __real_unshare(flags);
	errno = EPERM;
	return -1;
}

static void
make_hosts(void)
{
	cr_assert(mkdtemp(root) != NULL);
	cr_assert(chmod(root, 0755) == 0);
	cr_assert(chdir(root) == 0);
	hosts = system_open_hosts();
	cr_assert(hosts != -1);
}

static int
remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status, (void)type, (void)walk;
	return remove(path);
}

static void
remove_hosts(void)
{
	struct rlimit limit;
	cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = limit.rlim_max;
	cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	if (geteuid() != getuid())
		cr_assert(seteuid(getuid()) == 0);
	cr_assert(nftw(root, remove_entry, 10, FTW_DEPTH | FTW_PHYS) == 0, "%s", root);
}

/* Criterion does not clean up after a test that skips itself. */
#define skip_test(...) \
	do { \
		remove_hosts(); \
		cr_skip_test(__VA_ARGS__); \
	} while (0)

TestSuite(backend, .init = make_hosts, .fini = remove_hosts, .timeout = 60);

/* Whether the target system can tell which user a host belongs to. */
static bool
knows_owners(void)
{
	int directory = system_open_path(AT_FDCWD, ".", O_DIRECTORY);
	cr_assert(directory != -1 || errno == ENOSYS);
	if (directory != -1)
		close(directory);
	return directory != -1;
}

static void
make_directory(const char *name)
{
	cr_assert(mkdir(name, 0755) == 0, "%s: %s", name, strerror(errno));
}

static void
make_file(const char *path)
{
	int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	cr_assert(file != -1, "%s: %s", path, strerror(errno));
	close(file);
}

/* Binds a socket of TYPE at PATH, which may be longer than an address. It does not listen yet. */
static int
bind_at(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "bound"};
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(s != -1);
	cr_assert(bind(s, (struct sockaddr *)&address, sizeof address) == 0, "%s", strerror(errno));
	cr_assert(chmod("bound", 0666) == 0);
	cr_assert(rename("bound", path) == 0, "%s: %s", path, strerror(errno));
	return s;
}

static int
listen_at(const char *path, int backlog)
{
	int s = bind_at(path, SOCK_STREAM);
	cr_assert(listen(s, backlog) == 0);
	return s;
}

/* Makes the host NAME, with a backend that listens. */
static int
make_host(const char *name)
{
	char path[PATH_MAX];
	make_directory(name);
	snprintf(path, sizeof path, "%s/tls-socket", name);
	return listen_at(path, 16);
}

static int64_t
in_ms(int64_t ms)
{
	return clock_ms() + ms;
}

/* Fails unless the working directory is the hosts directory. */
static void
expect_to_be_back(void)
{
	struct stat here, there;
	cr_assert(stat(".", &here) == 0 && system_stat_hosts(hosts, &there) == 0);
	cr_expect(here.st_dev == there.st_dev && here.st_ino == there.st_ino,
	    "the working directory is another one");
}

/* Connects to NAME, which may be a special host. */
static struct backend
connect_host(const char *name)
{
	return backend_connect(hosts, name, hostname_is_special(name) ? BACKEND_SPECIAL : 0);
}

/* Connects to NAME. Fails unless LISTENER accepts that connection. Returns whether the backend
 * wants a PROXY header. */
static bool
expect_connected(const char *name, int listener)
{
	struct backend backend = connect_host(name);
	cr_assert(
	    backend.socket != -1, "%s: %s: %s", name, backend.failed, strerror(backend.error));
	cr_expect(!backend.is_missing && !backend.is_down && backend.why[0] == '\0', "%s", name);
	cr_expect((fcntl(backend.socket, F_GETFL) & O_NONBLOCK) != 0, "blocking");
	cr_expect((fcntl(backend.socket, F_GETFD) & FD_CLOEXEC) != 0, "inherited");

	char bytes[4] = "";
	int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert(accepted != -1, "%s: no connection arrived", name);
	cr_assert(send(backend.socket, "abc", 3, MSG_NOSIGNAL) == 3);
	cr_expect(recv(accepted, bytes, sizeof bytes, 0) == 3);
	cr_expect(strcmp(bytes, "abc") == 0, "%s: %s", name, bytes);
	close(accepted);
	close(backend.socket);
	expect_to_be_back();
	return backend.proxy_version == 1;
}

/* Fails unless a connection to NAME fails with ERROR at WHAT, and no descriptor stays open. Only a
 * directory that does not exist is missing; only a backend whose socket does not exist, or at which
 * nobody listens, is down. */
static void
expect_failure(const char *name, const char *what, int error)
{
	int descriptors = count_descriptors();
	bool is_missing = strcmp(what, "host directory") == 0 && error == ENOENT;
	bool is_down =
	    strcmp(what, "tls-socket") == 0 && (error == ENOENT || error == ECONNREFUSED);
	struct backend backend = connect_host(name);
	cr_assert(backend.socket == -1, "%s: connected", name);
	cr_assert(backend.failed != NULL);
	cr_expect(strcmp(backend.failed, what) == 0, "%s: %s", name, backend.failed);
	cr_expect(backend.error == error, "%s: %s", name, strerror(backend.error));
	cr_expect(backend.is_missing == is_missing, "%s: missing: %d", name, backend.is_missing);
	cr_expect(backend.is_down == is_down, "%s: down: %d", name, backend.is_down);
	cr_expect(count_descriptors() == descriptors, "%s: descriptors leak", name);
	expect_to_be_back();
}

Test(backend, connects_to_the_socket_in_the_directory)
{
	int first = make_host("first.example");
	int second = make_host("second.example");
	cr_expect(!expect_connected("first.example", first));
	cr_expect(!expect_connected("second.example", second));
	cr_expect(!expect_connected("first.example", first));
}

/* In the portable core, NAME/tls-socket must fit into the 108 bytes of an address. */
static void
connect_to_names_of_every_length(void)
{
	size_t longest = knows_owners() ? 254 : 97;
	for (size_t length = 1; length <= longest; length++) {
		char name[255] = "";
		memset(name, 'a', length);
		int listener = make_host(name);
		expect_connected(name, listener);
		close(listener);
	}
}

Test(backend, connects_to_names_of_every_length)
{
	connect_to_names_of_every_length();
}

Test(backend, connects_to_names_of_every_length_without_a_working_directory_of_its_own)
{
	refuses_unshare = true;
	connect_to_names_of_every_length();
}

Test(backend, follows_symbolic_links)
{
	int listener = make_host("real.example");
	char target[PATH_MAX];
	cr_assert(symlink("real.example", "link.example") == 0);
	snprintf(target, sizeof target, "%s/real.example", root);
	cr_assert(symlink(target, "absolute.example") == 0);
	make_directory("socket-link.example");
	cr_assert(symlink("../real.example/tls-socket", "socket-link.example/tls-socket") == 0);

	expect_connected("link.example", listener);
	expect_connected("absolute.example", listener);
	expect_connected("socket-link.example", listener);
	expect_failure("other.example", "host directory", ENOENT);
}

Test(backend, sees_a_new_socket_at_once)
{
	make_directory("a.example");
	expect_failure("a.example", "tls-socket", ENOENT);
	int first = listen_at("a.example/tls-socket", 16);
	expect_connected("a.example", first);
	int second = listen_at("a.example/tls-socket", 16);
	expect_connected("a.example", second);
	cr_expect(accept(first, NULL, NULL) == -1);
	cr_assert(unlink("a.example/tls-socket") == 0);
	expect_failure("a.example", "tls-socket", ENOENT);
}

Test(backend, sends_a_proxy_header_where_the_file_is_present)
{
	int listener = make_host("a.example");
	cr_expect(!expect_connected("a.example", listener));
	make_file("a.example/send-proxy-v1");
	cr_expect(expect_connected("a.example", listener));
	cr_assert(chmod("a.example/send-proxy-v1", 0) == 0);
	cr_expect(expect_connected("a.example", listener));
	cr_assert(unlink("a.example/send-proxy-v1") == 0);
	cr_expect(!expect_connected("a.example", listener));
	cr_assert(symlink("nothing", "a.example/send-proxy-v1") == 0);
	cr_expect(expect_connected("a.example", listener));
}

Test(backend, says_what_is_missing)
{
	make_file("file.example");
	make_directory("empty.example");
	cr_assert(symlink("nothing", "dangling.example") == 0);
	cr_assert(symlink("loop.example", "loop.example") == 0);
	make_directory("dangling-socket.example");
	cr_assert(symlink("nothing", "dangling-socket.example/tls-socket") == 0);
	make_directory("file-socket.example");
	make_file("file-socket.example/tls-socket");
	make_directory("silent.example");
	bind_at("silent.example/tls-socket", SOCK_STREAM);
	make_directory("left.example");
	close(listen_at("left.example/tls-socket", 16));
	make_directory("datagram.example");
	bind_at("datagram.example/tls-socket", SOCK_DGRAM);

	cr_assert(mkfifo("fifo.example", 0666) == 0);
	cr_assert(symlink("file.example/below", "through-file.example") == 0);
	make_directory("fifo-socket.example");
	cr_assert(mkfifo("fifo-socket.example/tls-socket", 0666) == 0);

	expect_failure("no.example", "host directory", ENOENT);
	expect_failure(NAME_254, "host directory", ENOENT);
	expect_failure("file.example", "host directory", ENOTDIR);
	expect_failure("fifo.example", "host directory", ENOTDIR);
	expect_failure("through-file.example", "host directory", ENOTDIR);
	expect_failure("dangling.example", "host directory", ENOENT);
	expect_failure("loop.example", "host directory", ELOOP);
	expect_failure("fifo-socket.example", "tls-socket", ENOTSOCK);
	expect_failure("empty.example", "tls-socket", ENOENT);
	expect_failure("dangling-socket.example", "tls-socket", ENOENT);
	expect_failure("file-socket.example", "tls-socket", ENOTSOCK);
	expect_failure("silent.example", "tls-socket", ECONNREFUSED);
	expect_failure("left.example", "tls-socket", ECONNREFUSED);
	expect_failure("datagram.example", "tls-socket", EPROTOTYPE);
}

/* A hosts directory that was removed has no directories, but none of these is missing. */
Test(backend, says_that_the_hosts_directory_was_removed)
{
	cr_assert(rmdir(root) == 0);
	for (unsigned kind = 0; kind <= BACKEND_SPECIAL; kind++) {
		struct backend backend = backend_connect(hosts, "a.example", kind);
		cr_assert(backend.socket == -1 && backend.error == ENOENT);
		cr_expect_str_eq(backend.failed, "hosts directory");
		cr_expect(!backend.is_missing && !backend.is_down);
	}
	cr_assert(mkdir(root, 0755) == 0); /* for the end of the test */
}

/* If only the owner of the hosts directory may write to it, a special host is as any other. */
Test(backend, connects_to_special_hosts)
{
	int wildcard = make_host("_.example.com"), fallback = make_host("_default");
	make_directory("empty.example");
	expect_connected("_.example.com", wildcard);
	expect_connected("_default", fallback);
	expect_failure("_no-sni", "host directory", ENOENT);
	cr_assert(symlink("_default", "_no-sni") == 0);
	expect_connected("_no-sni", fallback);
	cr_assert(symlink("empty.example", "_.example.org") == 0);
	expect_failure("_.example.org", "tls-socket", ENOENT);
	cr_assert(symlink("nowhere", "_.example.net") == 0);
	expect_failure("_.example.net", "host directory", ENOENT);
	make_file("_default/send-proxy-v1");
	cr_expect(expect_connected("_default", fallback));
}

/* Root may do everything, so another user tries. */
Test(backend, says_what_is_forbidden)
{
	int open_to_all = make_host("a.example");
	make_host("directory.example");
	cr_assert(chmod("directory.example", 0) == 0);
	make_host("socket.example");
	cr_assert(chmod("socket.example/tls-socket", 0) == 0);
	make_directory("behind.example");
	cr_assert(symlink("../directory.example/tls-socket", "behind.example/tls-socket") == 0);

	if (geteuid() == 0)
		cr_assert(seteuid(NOBODY) == 0);
	expect_connected("a.example", open_to_all);
	expect_failure("directory.example", "host directory", EACCES);
	expect_failure("socket.example", "tls-socket", EACCES);
	expect_failure("behind.example", "tls-socket", EACCES);
	if (geteuid() != getuid())
		cr_assert(seteuid(getuid()) == 0);
	cr_assert(chmod("directory.example", 0755) == 0);
}

Test(backend, says_that_a_name_is_too_long)
{
	char name[99] = "";
	if (knows_owners())
		skip_test("only in the portable core");
	memset(name, 'a', 98);
	make_host(name);
	expect_failure(name, system_long_path, ENAMETOOLONG);
}

static atomic_bool stop_swapping;

/* Exchanges the two directories, over and over. */
static void *
swap_hosts(void *unused)
{
	int result = 0;
	(void)unused;
	while (result == 0 && !atomic_load(&stop_swapping))
		result = renameat2(hosts, "a.example", hosts, "b.example", RENAME_EXCHANGE);
	return NULL;
}

/* The address that the peer's socket was bound to tells which of the two it is. */
static bool
is_with_header(int s)
{
	struct sockaddr_un address = {0};
	socklen_t length = sizeof address;
	CHECK(getpeername(s, (struct sockaddr *)&address, &length) == 0, "no peer");
	return strcmp(address.sun_path, "with") == 0;
}

static void
make_swapped_host(const char *directory, const char *bound)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char path[PATH_MAX];
	snprintf(address.sun_path, sizeof address.sun_path, "%s", bound);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(s != -1 && bind(s, (struct sockaddr *)&address, sizeof address) == 0);
	cr_assert(listen(s, 4096) == 0);
	make_directory(directory);
	snprintf(path, sizeof path, "%s/tls-socket", directory);
	cr_assert(rename(bound, path) == 0);
}

Test(backend, never_mixes_two_directories_that_are_swapped)
{
	if (!knows_owners())
		skip_test("needs directories that stay open");
	make_swapped_host("a.example", "with");
	make_file("a.example/send-proxy-v1");
	make_swapped_host("b.example", "without");

	pthread_t swapper;
	unsigned with = 0, without = 0;
	cr_assert(pthread_create(&swapper, NULL, swap_hosts, NULL) == 0);
	int64_t deadline_ms = in_ms(20000);
	while ((with < 300 || without < 300) && with + without < 4000) {
		CHECK(clock_left_ms(deadline_ms) > 0, "%u, %u", with, without);
		struct backend backend = backend_connect(hosts, "a.example", 0);
		CHECK(backend.socket != -1, "%s", strerror(backend.error));
		bool wanted = is_with_header(backend.socket);
		CHECK((backend.proxy_version == 1) == wanted, "one's socket, the other's file");
		with += wanted;
		without += !wanted;
		close(backend.socket);
	}
	atomic_store(&stop_swapping, true);
	pthread_join(swapper, NULL);
	cr_expect(with > 0 && without > 0, "%u, %u: nothing was swapped", with, without);
}

/* Connects to PATH until the backlog is full. */
static void
fill_backlog(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	int result;
	do {
		int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		cr_assert(s != -1);
		result = connect(s, (struct sockaddr *)&address, sizeof address);
	} while (result == 0);
	cr_assert(errno == EAGAIN, "%s", strerror(errno));
}

Test(backend, does_not_wait_for_a_full_backlog)
{
	make_directory("a.example");
	int listener = listen_at("a.example/tls-socket", 1);
	fill_backlog("a.example/tls-socket");
	int64_t began_ms = clock_ms();
	for (int i = 0; i < 10; i++)
		expect_failure("a.example", "tls-socket", EAGAIN);
	int64_t ms = clock_ms() - began_ms;
	cr_expect(ms < 5000, "%lld ms", (long long)ms); /* a wait would be endless */

	cr_assert(accept(listener, NULL, NULL) != -1);
	struct backend backend = backend_connect(hosts, "a.example", 0);
	cr_assert(backend.socket != -1, "%s", strerror(backend.error));
	close(backend.socket);
}

/* Opens descriptors up to the limit. Returns one of them. */
static int
take_all_descriptors(void)
{
	struct rlimit limit;
	cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 64;
	cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	int last = -1;
	for (int s = dup(hosts); s != -1; s = dup(hosts))
		last = s;
	cr_assert(errno == EMFILE && last != -1);
	return last;
}

/* One is for the host directory, if the system opens that, and one for the socket. */
Test(backend, says_that_descriptors_are_short)
{
	make_host("a.example");
	bool has_directory = knows_owners();
	int last = take_all_descriptors(), failures = 0;
	struct backend backend;
	while ((backend = backend_connect(hosts, "a.example", 0)).socket == -1) {
		bool is_directory = failures == 0 && has_directory;
		cr_assert(backend.error == EMFILE && backend_is_short(backend.error), "%s",
		    strerror(backend.error));
		cr_expect_str_eq(backend.failed, is_directory ? "host directory" : "tls-socket");
		expect_to_be_back();
		close(last--);
		failures++;
	}
	cr_expect(failures == (has_directory ? 2 : 1), "%d", failures);
	close(backend.socket);
}

Test(backend, tells_a_shortage_from_other_errors)
{
	const int shortages[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
	const int others[] = {0, EACCES, EAGAIN, ECONNREFUSED, EINTR, ELOOP, ENAMETOOLONG, ENOENT,
	    ENOTDIR, EPERM, EPROTOTYPE};
	for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
		cr_expect(backend_is_short(shortages[i]), "%s", strerror(shortages[i]));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		cr_expect(!backend_is_short(others[i]), "%s", strerror(others[i]));
}

Test(backend, tells_what_is_absent_from_what_broke)
{
	const int absent[] = {
	    EACCES, ECONNREFUSED, ELOOP, ENOENT, ENOTDIR, ENOTSOCK, EPERM, EPROTOTYPE};
	const int broken[] = {0, EAGAIN, EIO, EMFILE, ENAMETOOLONG, ENOMEM};
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
		cr_expect(backend_is_absent(absent[i]), "%s", strerror(absent[i]));
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
		cr_expect(!backend_is_absent(broken[i]), "%s", strerror(broken[i]));
}

static void *
connect_often(void *listener)
{
	for (int i = 0; i < 200; i++) {
		struct backend backend = backend_connect(hosts, "a.example", 0);
		CHECK(backend.socket != -1, "%s: %s", backend.failed, strerror(backend.error));
		close(backend.socket);
		close(accept(*(int *)listener, NULL, NULL));
	}
	return NULL;
}

/* The path is another one inside the sandbox. */
Test(backend, leaves_the_working_directory_of_other_threads_alone)
{
	pthread_t thread;
	struct stat here, there;
	int listener = make_host("a.example");
	if (!knows_owners())
		skip_test("needs working directories of threads");
	for (int i = 0; i < 2; i++) {
		refuses_unshare = i == 1;
		cr_assert(chdir("/") == 0);
		cr_assert(pthread_create(&thread, NULL, connect_often, &listener) == 0);
		pthread_join(thread, NULL);
		cr_assert(stat(".", &here) == 0 && stat("/", &there) == 0);
		cr_expect(here.st_ino == there.st_ino && here.st_dev == there.st_dev);
	}
}

/* --- A hosts directory that several users may write to --- */

/* Skips the test if there are no other users. Otherwise they may make hosts. */
static void
need_users(void)
{
	const char *missing = users_missing();
	if (missing != NULL || !knows_owners())
		skip_test("%s", missing != NULL ? missing : "needs Linux");
	cr_assert(chmod(root, 0777) == 0);
}

/* Makes the host NAME of OWNER, whose LISTENER listens. */
static int
make_users_host(const char *name, enum user owner, enum user listener)
{
	char path[PATH_MAX];
	user_makes(owner, name);
	snprintf(path, sizeof path, "%s/tls-socket", name);
	int s = bind_at(path, SOCK_STREAM);
	user_listens(listener, s);
	return s;
}

/* Fails unless a connection to NAME is rejected at WHAT, because of WHY, a format for the numbers
 * of the users A and B. */
static void
expect_distrust(const char *name, const char *what, const char *why, uid_t a, uid_t b)
{
	char expected[128];
	snprintf(expected, sizeof expected, why, (unsigned)a, (unsigned)b);
	int descriptors = count_descriptors();
	struct backend backend = connect_host(name);
	cr_assert(backend.socket == -1, "%s: connected", name);
	cr_expect(strcmp(backend.failed, what) == 0, "%s: %s", name, backend.failed);
	cr_expect(backend.error == EACCES, "%s: %s", name, strerror(backend.error));
	cr_expect(!backend.is_missing && !backend.is_down, "%s", name);
	cr_expect(strcmp(backend_why(&backend), expected) == 0, "%s: %s, not %s", name,
	    backend_why(&backend), expected);
	cr_expect(count_descriptors() == descriptors, "%s: descriptors leak", name);
	expect_to_be_back();
}

static void
expect_stranger(const char *name, uid_t listener, uid_t owner)
{
	expect_distrust(name, "tls-socket", "user %u listens in the host directory of user %u",
	    listener, owner);
}

/* Accepts the COUNT connections to LISTENER that were rejected. Fails if there are more or fewer,
 * or if one has sent a byte. */
static void
take_refused(int listener, int count)
{
	char byte;
	int taken = 0, accepted;
	while ((accepted = accept(listener, NULL, NULL)) != -1) {
		cr_expect(recv(accepted, &byte, 1, 0) == 0);
		close(accepted);
		taken++;
	}
	cr_expect(taken == count, "%d", taken);
}

static void
expect_strange_link(const char *name, uid_t link, uid_t owner)
{
	expect_distrust(
	    name, "host directory", "a symlink of user %u to a directory of user %u", link, owner);
}

Test(backend, where_it_is_not_known_who_listens_no_host_is_served)
{
	make_host("a.example");
	if (knows_owners())
		skip_test("only in the portable core");
	cr_assert(chmod(root, 0775) == 0);
	expect_distrust(
	    "a.example", "host directory", "the hosts directory is writable by other users", 0, 0);
	cr_assert(chmod(root, 0755) == 0);
	struct backend backend = backend_connect(hosts, "a.example", 0);
	cr_assert(backend.socket != -1, "%s", backend_why(&backend));
	close(backend.socket);
}

/* A mode takes effect when it is set; the sticky bit does not matter. */
Test(backend, the_mode_of_the_hosts_directory_decides)
{
	static const mode_t of_one[] = {0700, 0711, 0755, 01755, 02755, 04711};
	static const mode_t of_several[] = {
	    0720, 0702, 0770, 0771, 0775, 0757, 0777, 01771, 01775, 01777, 02775, 03777};
	need_users();
	int listener = make_users_host("a.example", ALICE, BOB);
	user_links(CAROL, "a.example", "link.example");
	for (size_t i = 0; i < sizeof of_several / sizeof *of_several; i++) {
		cr_assert(chmod(root, of_several[i]) == 0);
		expect_stranger("a.example", user_id(BOB), user_id(ALICE));
		expect_strange_link("link.example", user_id(CAROL), user_id(ALICE));
		cr_assert(chmod(root, of_one[i % (sizeof of_one / sizeof *of_one)]) == 0);
		take_refused(listener, 1);
		expect_connected("a.example", listener);
		expect_connected("link.example", listener);
	}
}

/* The mode shows what an ACL lets others write; what the ACL's mask denies does not count. */
Test(backend, an_acl_of_the_hosts_directory_decides_too)
{
	char command[128];
	need_users();
	int listener = make_users_host("a.example", ALICE, BOB);
	cr_assert(chmod(root, 0755) == 0);
	expect_connected("a.example", listener);
	snprintf(
	    command, sizeof command, "setfacl -m u:%u:rwx . 2>/dev/null", (unsigned)user_id(CAROL));
	if (system(command) != 0)
		skip_test("needs setfacl(1), and a file system with ACLs");
	expect_stranger("a.example", user_id(BOB), user_id(ALICE));
	take_refused(listener, 1);
	cr_assert(system("setfacl -m m::rx .") == 0);
	expect_connected("a.example", listener);
}

Test(backend, whoever_listens_must_own_the_host)
{
	need_users();
	int own = make_users_host("own.example", ALICE, ALICE);
	make_users_host("other.example", ALICE, BOB);
	make_users_host("of-hosts-owner.example", SELF, BOB);
	int bobs = make_users_host("b.example", BOB, BOB);
	user_makes(ALICE, "link.example");
	user_links(ALICE, "../b.example/tls-socket", "link.example/tls-socket");
	user_makes(ALICE, "own-link.example");
	user_links(BOB, "../own.example/tls-socket", "own-link.example/tls-socket");

	expect_connected("own.example", own);
	expect_connected("b.example", bobs);
	expect_connected("own-link.example", own);
	expect_stranger("other.example", user_id(BOB), user_id(ALICE));
	expect_stranger("of-hosts-owner.example", user_id(BOB), user_id(SELF));
	expect_stranger("link.example", user_id(BOB), user_id(ALICE));
	make_file("own.example/send-proxy-v1");
	cr_expect(expect_connected("own.example", own));
}

/* systemd and Docker listen as root for a service of any user. */
Test(backend, root_may_listen_in_each_host)
{
	need_users();
	if (getuid() != 0)
		skip_test("needs root");
	int listener = make_users_host("a.example", ALICE, SELF);
	expect_connected("a.example", listener);
	/* Root is trusted even behind a link of another user. */
	user_makes(ALICE, "link.example");
	int roots = make_users_host("root.example", SELF, SELF);
	user_links(ALICE, "../root.example/tls-socket", "link.example/tls-socket");
	expect_connected("link.example", roots);
	/* A process that is passed the socket, and calls listen(2) again, is the listener. */
	user_listens(BOB, listener);
	expect_stranger("a.example", user_id(BOB), user_id(ALICE));
}

Test(backend, a_symlink_must_belong_to_whom_it_leads_to)
{
	need_users();
	int listener = make_users_host("a.example", ALICE, ALICE);
	user_links(ALICE, "a.example", "own.example");
	user_links(BOB, "a.example", "other.example");
	user_links(SELF, "a.example", "of-hosts-owner.example");
	user_links(ALICE, "other.example", "own-chain.example");
	user_links(BOB, "own.example", "other-chain.example");
	user_links(BOB, "nothing", "dangling.example");
	user_links(BOB, "loop.example", "loop.example");
	make_file("file.example");
	user_links(BOB, "file.example", "to-file.example");

	expect_connected("own.example", listener);
	expect_connected("of-hosts-owner.example", listener);
	/* The directories that a path leads through are the business of its maker. */
	expect_connected("own-chain.example", listener);
	expect_strange_link("other.example", user_id(BOB), user_id(ALICE));
	expect_strange_link("other-chain.example", user_id(BOB), user_id(ALICE));
	expect_failure("dangling.example", "host directory", ENOENT);
	expect_failure("loop.example", "host directory", ELOOP);
	expect_failure("file.example", "host directory", ENOTDIR);
	expect_failure("to-file.example", "host directory", ENOTDIR);
	expect_failure("no.example", "host directory", ENOENT);
	make_directory("shut.example");
	cr_assert(chmod("shut.example", 0) == 0);
	if (geteuid() == 0)
		cr_assert(seteuid(NOBODY) == 0);
	expect_failure("shut.example", "host directory", EACCES);
	if (geteuid() != getuid())
		cr_assert(seteuid(getuid()) == 0);
	cr_assert(chmod("shut.example", 0755) == 0);
}

Test(backend, a_symlink_of_root_or_of_the_owner_of_the_hosts_directory_leads_anywhere)
{
	need_users();
	if (getuid() != 0)
		skip_test("needs root");
	int listener = make_users_host("a.example", ALICE, ALICE);
	user_links(SELF, "a.example", "of-root.example");
	user_links(CAROL, "a.example", "of-hosts-owner.example");
	expect_strange_link("of-hosts-owner.example", user_id(CAROL), user_id(ALICE));
	cr_assert(chown(root, user_id(CAROL), (gid_t)-1) == 0);
	expect_connected("of-root.example", listener);
	expect_connected("of-hosts-owner.example", listener);
}

/* Fails unless the special host NAME is as if missing, because it belongs to the user OWNER. */
static void
expect_ignored(const char *name, uid_t owner)
{
	char why[128];
	snprintf(why, sizeof why,
	    "not served: it belongs to user %u, who may not serve others' names", (unsigned)owner);
	int descriptors = count_descriptors();
	struct backend backend = connect_host(name);
	cr_assert(backend.socket == -1, "%s: connected", name);
	cr_expect_str_eq(backend.failed, "host directory");
	cr_expect(backend.error == ENOENT, "%s: %s", name, strerror(backend.error));
	cr_expect(backend.is_missing && !backend.is_down, "%s", name);
	cr_expect_str_eq(backend_why(&backend), why);
	cr_expect(count_descriptors() == descriptors, "%s: descriptors leak", name);
	expect_to_be_back();
}

static int
make_users_entry(const void *path)
{
	return mkfifo(path, 0666);
}

Test(backend, a_special_host_must_belong_to_root_or_to_the_owner_of_the_hosts_directory)
{
	need_users();
	int own = make_users_host("_.own.example", SELF, SELF);
	int hers = make_users_host("_.hers.example", ALICE, ALICE);
	make_users_host("own.example", SELF, SELF);
	user_links(ALICE, "own.example", "_.link.example");
	user_links(ALICE, "_.hers.example", "_.own-link.example");
	user_links(ALICE, "nothing", "_.dangling.example");
	user_links(ALICE, "_.loop.example", "_.loop.example");
	user_links(SELF, "_.hers.example", "_.to-hers.example");
	user_links(SELF, "own.example", "_.to-own.example");
	cr_assert(user_does(ALICE, make_users_entry, "_.fifo.example"));

	expect_connected("_.own.example", own);
	expect_ignored("_.hers.example", user_id(ALICE));
	expect_ignored("_.link.example", user_id(ALICE));
	expect_ignored("_.own-link.example", user_id(ALICE));
	expect_ignored("_.dangling.example", user_id(ALICE));
	expect_ignored("_.loop.example", user_id(ALICE));
	expect_ignored("_.to-hers.example", user_id(ALICE));
	expect_ignored("_.fifo.example", user_id(ALICE));
	expect_failure("_.no.example", "host directory", ENOENT);
	cr_expect(accept(hers, NULL, NULL) == -1, "hers got a connection");

	cr_assert(chmod(root, 0755) == 0);
	expect_connected("_.hers.example", hers);
	expect_connected("_.to-hers.example", hers);
}

/* Mounts a file system of ALICE's at DIRECTORY, for this process only. It does not tell others whom
 * its files belong to. Returns whether that is possible. */
static bool
mount_users_files(const char *directory)
{
	char options[80];
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=0", fuse,
	    (unsigned)user_id(ALICE));
	return fuse != -1 && unshare(CLONE_NEWNS) == 0 &&
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("none", directory, "fuse", MS_NOSUID | MS_NODEV, options) == 0;
}

/* A user who may mount file systems must not keep other special hosts from being tried. */
Test(backend, a_special_host_that_does_not_tell_its_owner_is_as_if_missing)
{
	need_users();
	user_makes(ALICE, "_.example.com");
	if (!mount_users_files("_.example.com"))
		skip_test("needs root, and FUSE");
	hosts = system_open_hosts(); /* in the namespace with that mount */
	struct backend backend = connect_host("_.example.com");
	cr_expect(umount2("_.example.com", MNT_DETACH) == 0);
	cr_assert(backend.socket == -1);
	cr_expect_str_eq(backend.failed, "host directory");
	cr_expect(backend.is_missing, "%s", strerror(backend.error));
	cr_expect_str_eq(backend_why(&backend), "not served: its owner is unknown");
}

/* BACKEND_SPECIAL decides, not the name of the directory, which may be a hash. */
Test(backend, a_host_of_any_user_is_no_special_host)
{
	need_users();
	int hers = make_users_host("_default", ALICE, ALICE);
	struct backend backend = backend_connect(hosts, "_default", 0);
	cr_assert(backend.socket != -1, "%s", backend_why(&backend));
	close(backend.socket);
	close(accept(hers, NULL, NULL));
	make_users_host("a.example", ALICE, ALICE);
	backend = backend_connect(hosts, "a.example", BACKEND_SPECIAL);
	cr_assert(backend.socket == -1 && backend.is_missing);
}

/* Its owner, or root, must listen in it. Otherwise it is refused, as others are. */
Test(backend, whoever_listens_must_own_the_special_host)
{
	need_users();
	make_users_host("_default", SELF, BOB);
	expect_stranger("_default", user_id(BOB), user_id(SELF));
	user_makes(SELF, "_no-sni");
	expect_failure("_no-sni", "tls-socket", ENOENT);
	make_file("_.file.example");
	expect_failure("_.file.example", "host directory", ENOTDIR);
	cr_assert(symlink("_.loop.example", "_.loop.example") == 0);
	expect_failure("_.loop.example", "host directory", ELOOP);
}

Test(backend, special_hosts_of_root_and_of_the_owner_of_the_hosts_directory)
{
	need_users();
	if (getuid() != 0)
		skip_test("needs root");
	cr_assert(chown(root, user_id(CAROL), (gid_t)-1) == 0);
	int roots = make_users_host("_.root.example", SELF, SELF);
	int carols = make_users_host("_.carol.example", CAROL, CAROL);
	user_links(CAROL, "_.root.example", "_.link.example");
	user_links(SELF, "_.carol.example", "_default");
	make_users_host("_.alice.example", ALICE, ALICE);
	expect_connected("_.root.example", roots);
	expect_connected("_.carol.example", carols);
	expect_connected("_.link.example", roots);
	expect_connected("_default", carols);
	expect_ignored("_.alice.example", user_id(ALICE));
	user_listens(SELF, carols);
	expect_connected("_.carol.example", carols);
	user_listens(CAROL, roots);
	expect_stranger("_.root.example", user_id(CAROL), user_id(SELF));
}

/* In a user namespace, all users that it does not know have one number. */
Test(backend, users_that_are_not_known_here_are_not_trusted)
{
	need_users();
	make_users_host("a.example", ALICE, ALICE);
	user_links(ALICE, "a.example", "link.example");
	pid_t pid = fork();
	cr_assert(pid != -1);
	if (pid == 0) {
		struct backend backend;
		if (unshare(CLONE_NEWUSER) == -1)
			_exit(2);
		backend = backend_connect(hosts, "a.example", 0);
		bool is_refused = backend.socket == -1 &&
		    strcmp(backend_why(&backend),
			"user 65534 listens in the host directory of user 65534") == 0;
		backend = backend_connect(hosts, "link.example", 0);
		_exit(is_refused && backend.socket == -1 &&
			    strcmp(backend.failed, "host directory") == 0
			? 0
			: 1);
	}
	int status;
	cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	if (WEXITSTATUS(status) == 2)
		skip_test("user namespaces are forbidden here");
	cr_expect(WEXITSTATUS(status) == 0);
}

/* As in a container that forbids unshare(2). */
Test(backend, whoever_listens_must_own_the_host_by_descriptor_too)
{
	refuses_unshare = true;
	need_users();
	int listener = make_users_host(NAME_254, ALICE, ALICE);
	make_users_host("other.example", ALICE, BOB);
	expect_connected(NAME_254, listener);
	expect_stranger("other.example", user_id(BOB), user_id(ALICE));
	expect_failure("no.example", "host directory", ENOENT);
	user_makes(ALICE, "empty.example");
	expect_failure("empty.example", "tls-socket", ENOENT);
	if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("none", "/proc", "tmpfs", 0, NULL) == 0)
		expect_failure(NAME_254, "/proc/self/fd (because unshare(2) is refused)", ENOENT);
}

/* Connects to a.example as KIND. Returns whether that was rejected; otherwise it must reach the
 * listener that was bound to GOOD. */
static bool
is_refused_or_good(const char *good, unsigned kind)
{
	struct sockaddr_un address = {0};
	socklen_t length = sizeof address;
	struct backend backend = backend_connect(hosts, "a.example", kind);
	if (backend.socket == -1) {
		CHECK(kind == 0 ? backend.error == EACCES : backend.is_missing, "%s",
		    strerror(backend.error));
		return true;
	}
	CHECK(getpeername(backend.socket, (struct sockaddr *)&address, &length) == 0, "no peer");
	CHECK(strcmp(address.sun_path, good) == 0, "%s", address.sun_path);
	close(backend.socket);
	return false;
}

/* Connects to a.example as KIND again and again while it and b.example are exchanged. Some of these
 * connections must be rejected. Each other one must reach the listener that was bound to GOOD. */
static void
expect_good_while_swapped(const char *good, unsigned kind)
{
	enum { MANY = 2000 };
	pthread_t swapper;
	unsigned refused = 0, count = 0;
	cr_assert(pthread_create(&swapper, NULL, swap_hosts, NULL) == 0);
	int64_t deadline_ms = in_ms(20000);
	for (; count < MANY || refused == 0 || refused == count; count++) {
		CHECK(clock_left_ms(deadline_ms) > 0, "%u of %u: nothing was swapped", refused,
		    count);
		refused += is_refused_or_good(good, kind);
		if (count >= MANY) /* the machine is busy */
			poll(NULL, 0, 10);
	}
	atomic_store(&stop_swapping, true);
	pthread_join(swapper, NULL);
}

/* Makes the host NAME of OWNER, with a socket of OWNER's that was bound to BOUND. */
static void
make_bound_host(const char *name, enum user owner, const char *bound)
{
	char path[PATH_MAX];
	user_makes(owner, name);
	snprintf(path, sizeof path, "%s/tls-socket", name);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", bound);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(s != -1 && bind(s, (struct sockaddr *)&address, sizeof address) == 0);
	cr_assert(rename(bound, path) == 0);
	cr_assert(chmod(path, 0666) == 0);
	user_listens(owner, s);
}

/* A link of the user's own, and a link of another user to another host of theirs. */
Test(backend, never_follows_a_symlink_that_was_put_in_the_place_of_another)
{
	need_users();
	make_bound_host("host.example", BOB, "host");
	make_bound_host("secret.example", BOB, "secret");
	user_links(BOB, "host.example", "a.example");
	user_links(ALICE, "secret.example", "b.example");
	expect_good_while_swapped("host", 0);
}

/* A host of the user's own, and a link to another user's host. */
Test(backend, never_follows_a_symlink_that_was_put_in_the_place_of_a_directory)
{
	need_users();
	make_bound_host("a.example", ALICE, "mine");
	make_bound_host("others.example", BOB, "others");
	user_links(ALICE, "others.example", "b.example");
	expect_good_while_swapped("mine", 0);
}

/* A host of another user, and one that leads to another socket of theirs. */
Test(backend, never_judges_one_directory_and_connects_in_another)
{
	need_users();
	make_bound_host("a.example", BOB, "host");
	make_bound_host("secret.example", BOB, "secret");
	user_makes(ALICE, "b.example");
	user_links(ALICE, "../secret.example/tls-socket", "b.example/tls-socket");
	expect_good_while_swapped("host", 0);
}

/* A special host of the owner of the hosts directory, and whatever a user may make instead. */
Test(backend, never_takes_a_users_directory_for_a_special_host)
{
	need_users();
	make_bound_host("a.example", SELF, "good");
	make_bound_host("b.example", ALICE, "bad");
	expect_good_while_swapped("good", BACKEND_SPECIAL);
}

Test(backend, never_follows_a_users_symlink_for_a_special_host)
{
	need_users();
	make_bound_host("a.example", SELF, "good");
	make_bound_host("secret.example", SELF, "secret");
	user_links(ALICE, "secret.example", "b.example");
	expect_good_while_swapped("good", BACKEND_SPECIAL);
}

Test(backend, never_follows_a_users_symlink_in_the_place_of_one_to_a_special_host)
{
	need_users();
	make_bound_host("good.example", SELF, "good");
	make_bound_host("secret.example", SELF, "secret");
	user_links(SELF, "good.example", "a.example");
	user_links(ALICE, "secret.example", "b.example");
	expect_good_while_swapped("good", BACKEND_SPECIAL);
}

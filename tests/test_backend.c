/* Tests of backend.c: the lookup in a hosts directory, and the PROXY protocol header.
 * Each test is a process of its own, so it may have the hosts directory as its working
 * directory, limits of its own, and a user of its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
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

#include "../backend.h"
#include "../clock.h"
#include "../system.h"
#include "addresses.h"
#include "check.h"
#include "self.h"
#include "users.h"

#define NAME_10 "0123456789"
#define NAME_50 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10
#define NAME_254 NAME_50 NAME_50 NAME_50 NAME_50 NAME_50 "abcd"

enum { NOBODY = 65534 };

static char root[] = "/tmp/sniproxy-backend-XXXXXX";

/* The hosts directory, for a thread that may change its working directory. */
static struct backend_hosts hosts;

static void
make_hosts(void)
{
	cr_assert(mkdtemp(root) != NULL);
	cr_assert(chmod(root, 0755) == 0);
	cr_assert(chdir(root) == 0);
	hosts.directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	hosts.own_working_directory = system_can_enter();
	cr_assert(hosts.directory != -1);
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

/* A test that skips itself is not cleaned up after. */
#define skip_test(...) \
	do { \
		remove_hosts(); \
		cr_skip_test(__VA_ARGS__); \
	} while (0)

TestSuite(backend, .init = make_hosts, .fini = remove_hosts, .timeout = 60);

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

/* Binds a socket of TYPE that is not listening yet and puts it at PATH, which may be
 * longer than an address holds. */
static int
bind_at(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "bound"};
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(s != -1);
	cr_assert(bind(s, (struct sockaddr *)&address, sizeof address) == 0, "%s",
	    strerror(errno));
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
	cr_assert(stat(".", &here) == 0 && fstat(hosts.directory, &there) == 0);
	cr_expect(here.st_dev == there.st_dev && here.st_ino == there.st_ino,
	    "the working directory is another one");
}

/* Connects to NAME and sees that the connection is the one LISTENER accepts. Returns
 * whether the backend wants a PROXY header. */
static bool
expect_connected(struct backend_hosts *from, const char *name, int listener)
{
	struct backend backend = backend_connect(from, name, PATIENCE_MS);
	cr_assert(backend.socket != -1, "%s: %s: %s", name, backend.failed,
	    strerror(backend.error));
	cr_expect((fcntl(backend.socket, F_GETFL) & O_NONBLOCK) == 0, "non-blocking");
	cr_expect((fcntl(backend.socket, F_GETFD) & FD_CLOEXEC) != 0, "inherited");

	char bytes[4] = "";
	int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert(accepted != -1, "%s: nobody came", name);
	cr_assert(send(backend.socket, "abc", 3, MSG_NOSIGNAL) == 3);
	cr_expect(recv(accepted, bytes, sizeof bytes, 0) == 3);
	cr_expect(strcmp(bytes, "abc") == 0, "%s: %s", name, bytes);
	close(accepted);
	close(backend.socket);
	expect_to_be_back();
	return backend.send_proxy_v1;
}

/* Fails unless connecting to NAME does so with ERROR, at WHAT, and leaves nothing open.
 */
static void
expect_failure(struct backend_hosts *from, const char *name, const char *what, int error)
{
	int descriptors = count_descriptors();
	struct backend backend = backend_connect(from, name, PATIENCE_MS);
	cr_assert(backend.socket == -1, "%s: connected", name);
	cr_assert(backend.failed != NULL);
	cr_expect(strcmp(backend.failed, what) == 0, "%s: %s", name, backend.failed);
	cr_expect(backend.error == error, "%s: %s", name, strerror(backend.error));
	cr_expect(count_descriptors() == descriptors, "%s: descriptors leak", name);
	expect_to_be_back();
}

Test(backend, connects_to_the_socket_in_the_directory)
{
	int first = make_host("first.example");
	int second = make_host("second.example");
	cr_expect(!expect_connected(&hosts, "first.example", first));
	cr_expect(!expect_connected(&hosts, "second.example", second));
	cr_expect(!expect_connected(&hosts, "first.example", first));
}

Test(backend, connects_to_names_of_every_length)
{
	size_t longest = hosts.own_working_directory ? 254 : 97;
	for (size_t length = 1; length <= longest; length++) {
		char name[255] = "";
		memset(name, 'a', length);
		int listener = make_host(name);
		expect_connected(&hosts, name, listener);
		close(listener);
	}
}

Test(backend, follows_symbolic_links)
{
	int listener = make_host("real.example");
	char target[PATH_MAX];
	cr_assert(symlink("real.example", "link.example") == 0);
	snprintf(target, sizeof target, "%s/real.example", root);
	cr_assert(symlink(target, "absolute.example") == 0);
	make_directory("socket-link.example");
	cr_assert(
	    symlink("../real.example/tls-socket", "socket-link.example/tls-socket") == 0);

	expect_connected(&hosts, "link.example", listener);
	expect_connected(&hosts, "absolute.example", listener);
	expect_connected(&hosts, "socket-link.example", listener);
	expect_failure(&hosts, "other.example", "host directory", ENOENT);
}

Test(backend, sees_a_new_socket_at_once)
{
	make_directory("a.example");
	expect_failure(&hosts, "a.example", "tls-socket", ENOENT);
	int first = listen_at("a.example/tls-socket", 16);
	expect_connected(&hosts, "a.example", first);
	int second = listen_at("a.example/tls-socket", 16);
	expect_connected(&hosts, "a.example", second);
	cr_expect(accept(first, NULL, NULL) == -1);
	cr_assert(unlink("a.example/tls-socket") == 0);
	expect_failure(&hosts, "a.example", "tls-socket", ENOENT);
}

Test(backend, sends_a_proxy_header_where_the_file_is_present)
{
	int listener = make_host("a.example");
	cr_expect(!expect_connected(&hosts, "a.example", listener));
	make_file("a.example/send-proxy-v1");
	cr_expect(expect_connected(&hosts, "a.example", listener));
	cr_assert(chmod("a.example/send-proxy-v1", 0) == 0);
	cr_expect(expect_connected(&hosts, "a.example", listener));
	cr_assert(unlink("a.example/send-proxy-v1") == 0);
	cr_expect(!expect_connected(&hosts, "a.example", listener));
	cr_assert(symlink("nothing", "a.example/send-proxy-v1") == 0);
	cr_expect(expect_connected(&hosts, "a.example", listener));
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

	expect_failure(&hosts, "no.example", "host directory", ENOENT);
	expect_failure(&hosts, NAME_254, "host directory", ENOENT);
	expect_failure(&hosts, "file.example", "host directory", ENOTDIR);
	expect_failure(&hosts, "dangling.example", "host directory", ENOENT);
	expect_failure(&hosts, "loop.example", "host directory", ELOOP);
	expect_failure(&hosts, "empty.example", "tls-socket", ENOENT);
	expect_failure(&hosts, "dangling-socket.example", "tls-socket", ENOENT);
	expect_failure(&hosts, "file-socket.example", "tls-socket", ECONNREFUSED);
	expect_failure(&hosts, "silent.example", "tls-socket", ECONNREFUSED);
	expect_failure(&hosts, "left.example", "tls-socket", ECONNREFUSED);
	expect_failure(&hosts, "datagram.example", "tls-socket", EPROTOTYPE);
}

/* Root may do everything, so somebody else tries. */
Test(backend, says_what_is_forbidden)
{
	int open_to_all = make_host("a.example");
	make_host("directory.example");
	cr_assert(chmod("directory.example", 0) == 0);
	make_host("socket.example");
	cr_assert(chmod("socket.example/tls-socket", 0) == 0);
	make_directory("behind.example");
	cr_assert(
	    symlink("../directory.example/tls-socket", "behind.example/tls-socket") == 0);

	if (geteuid() == 0)
		cr_assert(seteuid(NOBODY) == 0);
	expect_connected(&hosts, "a.example", open_to_all);
	expect_failure(&hosts, "directory.example", "host directory", EACCES);
	expect_failure(&hosts, "socket.example", "tls-socket", EACCES);
	expect_failure(&hosts, "behind.example", "tls-socket", EACCES);
	if (geteuid() != getuid())
		cr_assert(seteuid(getuid()) == 0);
	cr_assert(chmod("directory.example", 0755) == 0);
}

/* Without a working directory of its own a thread has to say NAME/tls-socket in the 108
 * bytes of an address, so a name has 97. */
Test(backend, connects_by_path_as_far_as_that_goes)
{
	struct backend_hosts by_path = {hosts.directory, false, false};
	char name[99] = "", path[PATH_MAX];
	memset(name, 'a', 97);
	int listener = make_host(name);
	cr_expect(!expect_connected(&by_path, name, listener));
	snprintf(path, sizeof path, "%s/send-proxy-v1", name);
	make_file(path);
	cr_expect(expect_connected(&by_path, name, listener));

	name[97] = 'a';
	make_host(name);
	struct backend backend = backend_connect(&by_path, name, PATIENCE_MS);
	cr_expect(backend.socket == -1 && backend.error == ENAMETOOLONG);
	cr_assert(backend.failed != NULL);
	cr_expect(strcmp(backend.failed, system_long_path) == 0, "%s", backend.failed);

	make_directory("empty.example");
	expect_failure(&by_path, "empty.example", "tls-socket", ENOENT);
}

static atomic_bool stop_swapping;

/* Puts one directory in the place of the other, over and over. */
static void *
swap_hosts(void *unused)
{
	int result = 0;
	(void)unused;
	while (result == 0 && !atomic_load(&stop_swapping))
		result = renameat2(hosts.directory, "a.example", hosts.directory,
		    "b.example", RENAME_EXCHANGE);
	return NULL;
}

/* The address that a socket's peer was bound to tells which of the two it is. */
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
	if (!hosts.own_working_directory)
		skip_test("needs working directories of threads");
	make_swapped_host("a.example", "with");
	make_file("a.example/send-proxy-v1");
	make_swapped_host("b.example", "without");

	pthread_t swapper;
	unsigned with = 0, without = 0;
	cr_assert(pthread_create(&swapper, NULL, swap_hosts, NULL) == 0);
	int64_t deadline_ms = in_ms(20000);
	while ((with < 300 || without < 300) && with + without < 4000) {
		CHECK(clock_left_ms(deadline_ms) > 0, "%u, %u", with, without);
		struct backend backend =
		    backend_connect(&hosts, "a.example", PATIENCE_MS);
		CHECK(backend.socket != -1, "%s", strerror(backend.error));
		bool wanted = is_with_header(backend.socket);
		CHECK(backend.send_proxy_v1 == wanted, "one's socket, the other's file");
		with += wanted;
		without += !wanted;
		close(backend.socket);
	}
	atomic_store(&stop_swapping, true);
	pthread_join(swapper, NULL);
	cr_expect(with > 0 && without > 0, "%u, %u: nothing was swapped", with, without);
}

/* Connects to PATH until there is no room for more. */
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

/* Fails unless connecting within TIMEOUT_MS fails, after at least WAIT_MS. */
static void
expect_to_give_up(int timeout_ms, int wait_ms)
{
	int descriptors = count_descriptors();
	int64_t began_ms = clock_ms();
	struct backend backend = backend_connect(&hosts, "a.example", timeout_ms);
	int64_t ms = clock_ms() - began_ms;
	cr_expect(ms >= wait_ms && ms < PATIENCE_MS / 2, "%lld ms", (long long)ms);
	cr_expect(backend.socket == -1 && backend.error == EAGAIN, "%s",
	    strerror(backend.error));
	cr_expect(strcmp(backend.failed, "tls-socket") == 0);
	cr_expect(count_descriptors() == descriptors);
	expect_to_be_back();
}

/* The kernel's ticks are up to 10 ms long. */
Test(backend, waits_for_a_full_backlog_for_some_time)
{
	make_directory("a.example");
	int listener = listen_at("a.example/tls-socket", 1);
	fill_backlog("a.example/tls-socket");
	expect_to_give_up(0, 0);
	expect_to_give_up(1, 0);
	expect_to_give_up(200, 200 - 10);
	expect_to_give_up(1100, 1100 - 10);

	cr_assert(accept(listener, NULL, NULL) != -1);
	struct backend backend = backend_connect(&hosts, "a.example", 0);
	cr_assert(backend.socket != -1, "%s", strerror(backend.error));
	close(backend.socket);
}

/* A thread that waits for the backlog of a.example. */
struct waiting {
	pthread_t thread;
	atomic_int id;
	struct backend backend;
};

static void *
wait_for_backlog(void *argument)
{
	struct waiting *waiting = argument;
	atomic_store(&waiting->id, gettid());
	waiting->backend = backend_connect(&hosts, "a.example", PATIENCE_MS);
	return NULL;
}

/* Starts it; returns the listening socket. */
static int
start_waiting(struct waiting *waiting)
{
	make_directory("a.example");
	int listener = listen_at("a.example/tls-socket", 1);
	fill_backlog("a.example/tls-socket");
	cr_assert(pthread_create(&waiting->thread, NULL, wait_for_backlog, waiting) == 0);
	await_call(&waiting->id, SYS_connect);
	return listener;
}

Test(backend, waits_for_a_full_backlog_until_there_is_room)
{
	struct waiting waiting = {0};
	int listener = start_waiting(&waiting);
	cr_assert(accept(listener, NULL, NULL) != -1);
	pthread_join(waiting.thread, NULL);
	cr_assert(waiting.backend.socket != -1, "%s", strerror(waiting.backend.error));
	cr_expect((fcntl(waiting.backend.socket, F_GETFL) & O_NONBLOCK) == 0);
	cr_assert(send(waiting.backend.socket, "a", 1, MSG_NOSIGNAL) == 1);
	expect_to_be_back();
	close(waiting.backend.socket);
}

Test(backend, a_signal_ends_the_wait_for_a_full_backlog)
{
	struct waiting waiting = {0};
	let_interrupt(SIGUSR1);
	start_waiting(&waiting);
	int descriptors = count_descriptors();
	pthread_kill(waiting.thread, SIGUSR1);
	pthread_join(waiting.thread, NULL);
	cr_expect(waiting.backend.socket == -1 && waiting.backend.error == EINTR, "%s",
	    strerror(waiting.backend.error));
	cr_expect(strcmp(waiting.backend.failed, "tls-socket") == 0);
	cr_expect(count_descriptors() == descriptors - 1); /* that of the attempt */
	expect_to_be_back();
}

/* Opens all the descriptors that there may be; returns one of them. */
static int
take_all_descriptors(void)
{
	struct rlimit limit;
	cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 64;
	cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	int last = -1;
	for (int s = dup(hosts.directory); s != -1; s = dup(hosts.directory))
		last = s;
	cr_assert(errno == EMFILE && last != -1);
	return last;
}

Test(backend, says_that_descriptors_are_short)
{
	make_host("a.example");
	int one = take_all_descriptors();
	struct backend backend = backend_connect(&hosts, "a.example", PATIENCE_MS);
	cr_expect(backend.socket == -1 && backend.error == EMFILE);
	cr_expect(strcmp(backend.failed, "tls-socket") == 0);
	cr_expect(backend_is_short(backend.error));
	close(one);
	expect_to_be_back();

	backend = backend_connect(&hosts, "a.example", PATIENCE_MS);
	cr_assert(backend.socket != -1, "%s", strerror(backend.error));
	close(backend.socket);
}

Test(backend, tells_a_shortage_from_other_errors)
{
	const int shortages[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
	const int others[] = {0, EACCES, EAGAIN, ECONNREFUSED, EINTR, ELOOP, ENAMETOOLONG,
	    ENOENT, ENOTDIR, EPERM, EPROTOTYPE};
	for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
		cr_expect(backend_is_short(shortages[i]), "%s", strerror(shortages[i]));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		cr_expect(!backend_is_short(others[i]), "%s", strerror(others[i]));
}

Test(backend, tells_what_is_absent_from_what_broke)
{
	const int absent[] = {
	    EACCES, ECONNREFUSED, ELOOP, ENOENT, ENOTDIR, EPERM, EPROTOTYPE};
	const int broken[] = {0, EAGAIN, EIO, EMFILE, ENAMETOOLONG, ENOMEM};
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
		cr_expect(backend_is_absent(absent[i]), "%s", strerror(absent[i]));
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
		cr_expect(!backend_is_absent(broken[i]), "%s", strerror(broken[i]));
}

/* Goes somewhere else, if it has a working directory of its own. Returns RESULT if it
 * has. */
static void *
leave_for_another_directory(void *result)
{
	struct backend_hosts *own = result;
	*own = backend_hosts(hosts.directory);
	return own->own_working_directory && chdir("/") == 0 ? result : NULL;
}

Test(backend, gives_a_thread_a_working_directory_of_its_own)
{
	pthread_t thread;
	struct backend_hosts own;
	void *left;
	cr_assert(pthread_create(&thread, NULL, leave_for_another_directory, &own) == 0);
	pthread_join(thread, &left);
	cr_expect(own.directory == hosts.directory);
	expect_to_be_back();
	if (!own.own_working_directory)
		skip_test("needs working directories of threads");
	cr_expect(left != NULL);
}

/* --- A hosts directory that several users may write to --- */

/* Whether the system that the program is built for can tell whose a host is. */
static bool
knows_owners(void)
{
	int directory = system_open_path(AT_FDCWD, ".", O_DIRECTORY);
	cr_assert(directory != -1 || errno == ENOSYS);
	if (directory != -1)
		close(directory);
	return directory != -1;
}

/* Skips the test where there are no other users. They may make hosts. */
static void
need_users(void)
{
	const char *missing = users_missing();
	if (missing != NULL || !knows_owners())
		skip_test("%s", missing != NULL ? missing : "needs Linux");
	cr_assert(chmod(root, 0777) == 0);
}

/* Makes the host NAME of OWNER; LISTENER listens. */
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

/* Fails unless connecting to NAME is refused at WHAT, for WHY, which has the numbers of the users A
 * and B in it. */
static void
expect_distrust(const char *name, const char *what, const char *why, uid_t a, uid_t b)
{
	char expected[128];
	snprintf(expected, sizeof expected, why, (unsigned)a, (unsigned)b);
	int descriptors = count_descriptors();
	struct backend backend = backend_connect(&hosts, name, PATIENCE_MS);
	cr_assert(backend.socket == -1, "%s: connected", name);
	cr_expect(strcmp(backend.failed, what) == 0, "%s: %s", name, backend.failed);
	cr_expect(backend.error == EACCES, "%s: %s", name, strerror(backend.error));
	cr_expect(strcmp(backend_why(&backend), expected) == 0, "%s: %s, not %s", name,
	    backend_why(&backend), expected);
	cr_expect(count_descriptors() == descriptors, "%s: descriptors leak", name);
	expect_to_be_back();
}

static void
expect_stranger(const char *name, uid_t listener, uid_t owner)
{
	expect_distrust(name, "tls-socket",
	    "user %u listens in the host directory of user %u", listener, owner);
}

/* Takes the connections to LISTENER that were refused, which must be COUNT, without a byte. */
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
	expect_distrust(name, "host directory",
	    "a symlink of user %u to a directory of user %u", link, owner);
}

Test(backend, where_it_is_not_known_who_listens_no_host_is_served)
{
	make_host("a.example");
	if (knows_owners())
		skip_test("only in the portable core");
	cr_assert(chmod(root, 0775) == 0);
	expect_distrust("a.example", "host directory",
	    "others than its owner may write to the hosts directory", 0, 0);
	cr_assert(chmod(root, 0755) == 0);
	struct backend backend = backend_connect(&hosts, "a.example", PATIENCE_MS);
	cr_assert(backend.socket != -1, "%s", backend_why(&backend));
	close(backend.socket);
}

/* Each mode is looked at when it is set, and the sticky bit does not matter. */
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
		expect_connected(&hosts, "a.example", listener);
		expect_connected(&hosts, "link.example", listener);
	}
}

/* What an ACL lets somebody write shows in the mode; what its mask takes away does not count. */
Test(backend, an_acl_of_the_hosts_directory_decides_too)
{
	char command[128];
	need_users();
	int listener = make_users_host("a.example", ALICE, BOB);
	cr_assert(chmod(root, 0755) == 0);
	expect_connected(&hosts, "a.example", listener);
	snprintf(command, sizeof command, "setfacl -m u:%u:rwx . 2>/dev/null",
	    (unsigned)user_id(CAROL));
	if (system(command) != 0)
		skip_test("needs setfacl(1), and a file system with ACLs");
	expect_stranger("a.example", user_id(BOB), user_id(ALICE));
	take_refused(listener, 1);
	cr_assert(system("setfacl -m m::rx .") == 0);
	expect_connected(&hosts, "a.example", listener);
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

	expect_connected(&hosts, "own.example", own);
	expect_connected(&hosts, "b.example", bobs);
	expect_connected(&hosts, "own-link.example", own);
	expect_stranger("other.example", user_id(BOB), user_id(ALICE));
	expect_stranger("of-hosts-owner.example", user_id(BOB), user_id(SELF));
	expect_stranger("link.example", user_id(BOB), user_id(ALICE));
	make_file("own.example/send-proxy-v1");
	cr_expect(expect_connected(&hosts, "own.example", own));
}

/* As systemd does, and Docker, for a service of any user. */
Test(backend, root_may_listen_in_each_host)
{
	need_users();
	if (getuid() != 0)
		skip_test("needs root");
	int listener = make_users_host("a.example", ALICE, SELF);
	expect_connected(&hosts, "a.example", listener);
	/* Also by a link of somebody else's: root is trusted. */
	user_makes(ALICE, "link.example");
	int roots = make_users_host("root.example", SELF, SELF);
	user_links(ALICE, "../root.example/tls-socket", "link.example/tls-socket");
	expect_connected(&hosts, "link.example", roots);
	/* Who is given the socket, and calls listen(2) again, is who listens. */
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

	expect_connected(&hosts, "own.example", listener);
	expect_connected(&hosts, "of-hosts-owner.example", listener);
	/* Where a path goes through is its maker's business. */
	expect_connected(&hosts, "own-chain.example", listener);
	expect_strange_link("other.example", user_id(BOB), user_id(ALICE));
	expect_strange_link("other-chain.example", user_id(BOB), user_id(ALICE));
	expect_failure(&hosts, "dangling.example", "host directory", ENOENT);
	expect_failure(&hosts, "loop.example", "host directory", ELOOP);
	expect_failure(&hosts, "file.example", "host directory", ENOTDIR);
	expect_failure(&hosts, "to-file.example", "host directory", ENOTDIR);
	expect_failure(&hosts, "no.example", "host directory", ENOENT);
	make_directory("shut.example");
	cr_assert(chmod("shut.example", 0) == 0);
	if (geteuid() == 0)
		cr_assert(seteuid(NOBODY) == 0);
	expect_failure(&hosts, "shut.example", "host directory", EACCES);
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
	expect_connected(&hosts, "of-root.example", listener);
	expect_connected(&hosts, "of-hosts-owner.example", listener);
}

/* In a user namespace, all users that it does not know are one number. */
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
		backend = backend_connect(&hosts, "a.example", PATIENCE_MS);
		bool is_refused = backend.socket == -1 &&
		    strcmp(backend_why(&backend),
			"user 65534 listens in the host directory of user 65534") == 0;
		backend = backend_connect(&hosts, "link.example", PATIENCE_MS);
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
	need_users();
	struct backend_hosts own = hosts;
	int listener = make_users_host(NAME_254, ALICE, ALICE);
	make_users_host("other.example", ALICE, BOB);
	hosts = (struct backend_hosts){own.directory, false, false};
	expect_connected(&hosts, NAME_254, listener);
	expect_stranger("other.example", user_id(BOB), user_id(ALICE));
	expect_failure(&hosts, "no.example", "host directory", ENOENT);
	user_makes(ALICE, "empty.example");
	expect_failure(&hosts, "empty.example", "tls-socket", ENOENT);
	if (unshare(CLONE_NEWNS) == 0 &&
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("none", "/proc", "tmpfs", 0, NULL) == 0)
		expect_failure(&hosts, NAME_254,
		    "/proc/self/fd (because unshare(2) is refused)", ENOENT);
	hosts = own;
}

/* Connects to a.example COUNT times, while it and b.example change places. Returns how often that
 * was refused; each other time it must have come to the listener that was bound to GOOD. */
static unsigned
count_refusals_while_swapped(unsigned count, const char *good)
{
	pthread_t swapper;
	unsigned refused = 0;
	cr_assert(pthread_create(&swapper, NULL, swap_hosts, NULL) == 0);
	for (unsigned i = 0; i < count; i++) {
		struct sockaddr_un address = {0};
		socklen_t length = sizeof address;
		struct backend backend =
		    backend_connect(&hosts, "a.example", PATIENCE_MS);
		refused += backend.socket == -1;
		if (backend.socket == -1) {
			CHECK(backend.error == EACCES, "%s", strerror(backend.error));
			continue;
		}
		CHECK(getpeername(backend.socket, (struct sockaddr *)&address, &length) ==
			0,
		    "no peer");
		CHECK(strcmp(address.sun_path, good) == 0, "%s", address.sun_path);
		close(backend.socket);
	}
	atomic_store(&stop_swapping, true);
	pthread_join(swapper, NULL);
	return refused;
}

/* Makes the host NAME of OWNER, who listens at a socket that was bound to BOUND. */
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

/* A link of somebody's own, and one of another user to something else of theirs. */
Test(backend, never_follows_a_symlink_that_was_put_in_the_place_of_another)
{
	need_users();
	make_bound_host("host.example", BOB, "host");
	make_bound_host("secret.example", BOB, "secret");
	user_links(BOB, "host.example", "a.example");
	user_links(ALICE, "secret.example", "b.example");
	unsigned refused = count_refusals_while_swapped(2000, "host");
	cr_expect(refused > 0 && refused < 2000, "%u: nothing was swapped", refused);
}

/* A host of one's own, and a link to somebody else's. */
Test(backend, never_follows_a_symlink_that_was_put_in_the_place_of_a_directory)
{
	need_users();
	make_bound_host("a.example", ALICE, "mine");
	make_bound_host("others.example", BOB, "others");
	user_links(ALICE, "others.example", "b.example");
	unsigned refused = count_refusals_while_swapped(2000, "mine");
	cr_expect(refused > 0 && refused < 2000, "%u: nothing was swapped", refused);
}

/* Somebody's host, and one that connects to another socket of theirs. */
Test(backend, never_judges_one_directory_and_connects_in_another)
{
	need_users();
	make_bound_host("a.example", BOB, "host");
	make_bound_host("secret.example", BOB, "secret");
	user_makes(ALICE, "b.example");
	user_links(ALICE, "../secret.example/tls-socket", "b.example/tls-socket");
	unsigned refused = count_refusals_while_swapped(2000, "host");
	cr_expect(refused > 0 && refused < 2000, "%u: nothing was swapped", refused);
}

static const struct {
	int family;
	const char *client;
	uint16_t client_port;
	const char *server;
	uint16_t server_port;
	const char *header;
} headers[] = {
    {AF_INET, "192.0.2.7", 51234, "198.51.100.1", 443,
	"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"},
    {AF_INET, "255.255.255.255", 65535, "255.255.255.255", 65535,
	"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"},
    {AF_INET6, "2001:db8::7", 51234, "2001:db8::1", 443,
	"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"},
    {AF_INET6, "::1", 1, "::1", 2, "PROXY TCP6 ::1 ::1 1 2\r\n"},
    {AF_INET6, "1111:2222:3333:4444:5555:6666:7777:8888", 65535,
	"9999:aaaa:bbbb:cccc:dddd:eeee:ffff:1234", 65534,
	"PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 "
	"9999:aaaa:bbbb:cccc:dddd:eeee:ffff:1234 65535 65534\r\n"},

    /* IPv4 in IPv6, as a dual-stack socket has it */
    {AF_INET6, "::ffff:192.0.2.7", 51234, "::ffff:198.51.100.1", 443,
	"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"},
};

Test(proxy_header, tells_the_addresses)
{
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
		union address client = address_of(
		    headers[i].family, headers[i].client, headers[i].client_port);
		union address server = address_of(
		    headers[i].family, headers[i].server, headers[i].server_port);
		address_unmap(&client);
		address_unmap(&server);

		char header[BACKEND_PROXY_HEADER_SIZE];
		memset(header, 'X', sizeof header);
		size_t length = backend_proxy_header(header, &client, &server);
		cr_expect(strcmp(header, headers[i].header) == 0, "%s", header);
		cr_expect(length == strlen(headers[i].header), "%zu", length);
	}
}

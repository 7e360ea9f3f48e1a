/* A file system below a host directory that does not answer, as FUSE or NFS may: a thread that
 * waits for it cannot be interrupted. */
#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The client of a lookup that hangs gets its alert so long after its hello. */
enum { DEADLINE_MS = 10000, STUCK_MS = 1000 };

/* Mounts a file system at DIRECTORY, for this test and its children only. It does not answer until
 * the requests, which the returned descriptor reads, are answered. When the descriptor is closed,
 * it answers with errors. */
static int
mount_there(const char *directory)
{
	char options[64];
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(
	    options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	if (fuse == -1 || unshare(CLONE_NEWNS) == -1 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mount("none", directory, "fuse", MS_NOSUID | MS_NODEV, options) == -1)
		skip("needs root, and FUSE");
	return fuse;
}

/* --- A file system that answers for a while --- */

enum { LINK = FUSE_ROOT_ID + 1 };

static void
reply(int fuse, uint64_t unique, int error, const void *data, size_t length)
{
	struct fuse_out_header header = {
	    .len = (uint32_t)(sizeof header + length), .error = -error, .unique = unique};
	struct iovec parts[] = {{&header, sizeof header}, {(void *)(uintptr_t)data, length}};
	(void)!writev(fuse, parts, 2);
}

/* Nothing of it may be cached. */
static struct fuse_attr
attributes_of(uint64_t node)
{
	return (struct fuse_attr){
	    .ino = node, .nlink = 1, .mode = node == LINK ? S_IFLNK | 0777 : S_IFDIR | 0755};
}

/* Answers REQUEST. The only file is tls-socket, a link to TARGET. */
static void
answer(int fuse, const struct fuse_in_header *request, const char *target)
{
	const void *argument = request + 1;
	struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION, .max_write = 4096};
	struct fuse_entry_out entry = {.nodeid = LINK, .attr = attributes_of(LINK)};
	struct fuse_attr_out attributes = {.attr = attributes_of(request->nodeid)};
	switch (request->opcode) {
	case FUSE_INIT:
		init.minor = ((const struct fuse_init_in *)argument)->minor;
		reply(fuse, request->unique, 0, &init, sizeof init);
		return;
	case FUSE_LOOKUP:
		if (strcmp(argument, "tls-socket") == 0)
			reply(fuse, request->unique, 0, &entry, sizeof entry);
		else
			reply(fuse, request->unique, ENOENT, NULL, 0);
		return;
	case FUSE_GETATTR:
		reply(fuse, request->unique, 0, &attributes, sizeof attributes);
		return;
	case FUSE_READLINK:
		reply(fuse, request->unique, 0, target, strlen(target));
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return; /* this request has no answer */
	default:
		reply(fuse, request->unique, ENOSYS, NULL, 0);
	}
}

/* Starts a process that answers until it is stopped, and that alone has the FUSE descriptor. */
static pid_t
answer_from_now_on(int fuse, const char *target)
{
	pid_t parent = getpid(), pid = fork();
	cr_assert_neq(pid, -1);
	if (pid == 0) {
		static _Alignas(struct fuse_in_header) char request[FUSE_MIN_READ_BUFFER];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent && read(fuse, request, sizeof request) > 0)
			answer(fuse, (const void *)request, target);
		_exit(0);
	}
	close(fuse);
	return pid;
}

/* --- The tests --- */

/* How many of COUNT clients have received something. */
static int
count_told(const int *clients, int count)
{
	int told = 0;
	for (int i = 0; i < count; i++)
		told += !silent_for(clients[i], 0);
	return told;
}

/* It holds some of the threads, which cannot be interrupted, but not all. */
PROGRAM_TEST(hang, directory_that_does_not_answer)
{
	enum { STUCK_MAX = 64, CLIENTS = 3 * STUCK_MAX, OTHERS = 18 };
	int clients[CLIENTS];
	server_listen("127.0.0.1");
	host_make(HOST);
	int other = backend_listen("other.example");
	int fuse = mount_there(host_path(HOST, NULL));
	struct proxy *proxy = proxy_start(NULL);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(hello_for(HOST));
	expect_served(other, hello_for("other.example"));
	wait_until(count_told(clients, CLIENTS) >= CLIENTS / 2, DEADLINE_MS / 2);
	expect_refused(hello_for(HOST), INTERNAL_ERROR);
	expect_served(other, hello_for("other.example"));

	testing("after ten seconds");
	for (int i = 0; i < CLIENTS; i++) {
		cr_assert(readable_within(clients[i], DEADLINE_MS + STUCK_MS + 500));
		expect_alert(clients[i], INTERNAL_ERROR);
		close(clients[i]);
	}
	wait_until(proxy_has_logged(proxy, " " HOST ": host directory: does not answer\n"), 3000);
	wait_until(proxy_threads(proxy) <= STUCK_MAX + OTHERS, DEADLINE_MS + 5000);

	testing("once it answers");
	close(fuse);
	cr_assert_eq(umount2(host_path(HOST, NULL), MNT_DETACH), 0);
	wait_until(proxy_threads(proxy) < OTHERS, DEADLINE_MS + 5000);
	expect_served(unix_listen(host_path(HOST, "tls-socket"), 16), hello_for(HOST));
}

/* --- Special hosts --- */

/* A search for leaks would wait for stuck threads. */
static void
look_for_no_leaks(void)
{
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
}

static struct bytes
hello_for_number(int number)
{
	char name[32];
	snprintf(name, sizeof name, "n%d.example", number);
	return hello_for(name);
}

/* Clients ask for different names, all of which one special host serves. They hold as few threads
 * as those of one name, and soon get their alerts. */
PROGRAM_TEST(hang, special_host_that_does_not_answer)
{
	enum { CLIENTS = 100, STUCK_MAX = 4 };
	int clients[CLIENTS];
	server_listen("127.0.0.1");
	host_make("_default");
	int other = backend_listen("other.example");
	int fuse = mount_there(host_path("_default", NULL));
	struct proxy *proxy = proxy_start(look_for_no_leaks);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(hello_for_number(i));
	expect_served(other, hello_for("other.example"));
	wait_until(count_told(clients, CLIENTS) >= CLIENTS - STUCK_MAX, DEADLINE_MS / 2);
	for (int i = 0; i < CLIENTS; i++) {
		if (silent_for(clients[i], 0))
			continue;
		testing("client %d", i);
		expect_alert(clients[i], INTERNAL_ERROR);
		close(clients[i]);
		clients[i] = -1;
	}
	testing("%s", "");
	expect_refused(hello_for_number(CLIENTS), INTERNAL_ERROR);
	expect_served(other, hello_for("other.example"));
	wait_until(
	    proxy_has_logged(proxy, ".example (_default): host directory: does not answer\n"),
	    3000);

	testing("once it answers");
	close(fuse);
	cr_assert_eq(umount2(host_path("_default", NULL), MNT_DETACH), 0);
	for (int i = 0; i < CLIENTS; i++) {
		if (clients[i] != -1)
			close(clients[i]);
	}
	int fallback = unix_listen(host_path("_default", "tls-socket"), 16);
	expect_total(proxy, "open", 0, DEADLINE_MS);
	expect_served(fallback, hello_for_number(0));
}

/* It exists, so none is tried instead. */
PROGRAM_TEST(hang, special_hosts_wait_while_the_host_itself_does_not_answer)
{
	enum { SPECIALS = 2 };
	server_listen("127.0.0.1");
	host_make(HOST);
	const int specials[SPECIALS] = {backend_listen("_.example"), backend_listen("_default")};
	int fuse = mount_there(host_path(HOST, NULL));
	struct proxy *proxy = proxy_start(look_for_no_leaks);
	int client = client_send(hello_for(HOST));
	cr_assert(readable_within(client, DEADLINE_MS + 5 * STUCK_MS));
	expect_alert(client, INTERNAL_ERROR);
	wait_until(proxy_has_logged(proxy, " " HOST ": host directory: does not answer\n"), 3000);
	for (int i = 0; i < SPECIALS; i++)
		cr_assert(silent_for(specials[i], 0));
	close(fuse);
}

static void
few_files(void)
{
	limit_descriptors(64);
}

/* Silent clients connect one after another, more than there are slots. Returns how long the second
 * slowest waited to be accepted, because the machine itself may be late once. */
static int64_t
take_all_slots(void)
{
	enum { SILENT = 40 };
	static unsigned number;
	int64_t longest_ms = 0, second_ms = 0;
	for (int i = 0; i < SILENT; i++) {
		char address[32];
		int64_t began_ms = now_ms();
		number++;
		snprintf(address, sizeof address, "127.0.%u.2", 1 + number % 250);
		client_connect_from(address);
		wait_drained();
		int64_t ms = now_ms() - began_ms;
		second_ms = ms < longest_ms ? (ms > second_ms ? ms : second_ms) : longest_ms;
		longest_ms = ms > longest_ms ? ms : longest_ms;
	}
	return second_ms;
}

/* A stuck thread holds no slot after its client got the alert: others do not wait for one, neither
 * during the lingering close nor after it. */
PROGRAM_TEST(hang, stuck_threads_hold_no_slots)
{
	enum { STUCK = 3, LINGER_MS = 5000, LEAVING_MS = 1000 };
	int stuck[STUCK];
	server_listen("127.0.0.1");
	host_make(HOST);
	int other = backend_listen("other.example");
	int fuse = mount_there(host_path(HOST, NULL));
	struct proxy *proxy = proxy_start(few_files);
	for (int i = 0; i < STUCK; i++) {
		stuck[i] = client_connect_from("127.0.0.2");
		send_all(stuck[i], hello_for(HOST));
	}
	for (int i = 0; i < STUCK; i++) {
		cr_assert(readable_within(stuck[i], DEADLINE_MS + STUCK_MS + 500));
		expect_alert(stuck[i], INTERNAL_ERROR);
		close(stuck[i]);
	}
	int64_t told_ms = now_ms();
	cr_expect_lt(take_all_slots(), margin_ms(LEAVING_MS * 3 / 4));
	wait_until(proxy_has_logged(proxy, " slots in use: connections are evicted"), 5000);
	while (now_ms() < told_ms + LINGER_MS + 100)
		poll(NULL, 0, 50);
	cr_expect_lt(take_all_slots(), margin_ms(LEAVING_MS * 3 / 4));
	expect_served(other, hello_for("other.example"));
	close(fuse);
}

/* It answers until they wait for room in the backlog. After that wait, the kernel looks up
 * again. */
PROGRAM_TEST(hang, after_a_wait_for_room)
{
	enum { CLIENTS = 4, OWN_THREADS = 3 };
	int clients[CLIENTS];
	char *path = host_path("full.example", "tls-socket");
	server_listen("127.0.0.1");
	free(host_make("full.example"));
	unix_listen(path, 1);
	fill_backlog(path);
	int other = backend_listen("other.example");
	int fuse = mount_there(host_make(HOST));
	pid_t file_system = answer_from_now_on(fuse, path);
	struct proxy *proxy = proxy_start(look_for_no_leaks);
	expect_served(other, hello_for("other.example"));
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_send(hello_for(HOST));
	wait_until(proxy_threads(proxy) >= CLIENTS + OWN_THREADS, 3000);
	poll(NULL, 0, 500); /* they have looked up, and wait */
	kill(file_system, SIGSTOP);

	testing("before the time is over");
	expect_served(other, hello_for("other.example"));
	for (int i = 0; i < CLIENTS; i++)
		check(silent_for(clients[i], 0), "client %d", i);

	testing("after that");
	for (int i = 0; i < CLIENTS; i++) {
		cr_assert(readable_within(clients[i], DEADLINE_MS + STUCK_MS + 500));
		expect_alert(clients[i], INTERNAL_ERROR);
	}
	wait_until(proxy_has_logged(proxy, " " HOST ": host directory: does not answer\n"), 3000);
	expect_served(other, hello_for("other.example"));

	testing("they are counted, and are not waited for");
	cr_assert(proxy_threads(proxy) > CLIENTS, "none is stuck");
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	expect_total(proxy, "open", 0, 3000);
	cr_assert_eq(proxy_total(proxy, "internal_error"), CLIENTS);
	kill(proxy->pid, SIGTERM);
	int status = proxy_wait(proxy, 2000);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status is %#x", status);
	kill(file_system, SIGKILL);
	waitpid(file_system, NULL, 0);
}

/* Tests of sandbox.c: each forbidden act is tried behind each layer that forbids it, and behind all
 * layers. Without layers it succeeds, so the test proves something. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/filter.h"
#include "system/sandbox.h"

/* What is outside of the sandbox. */
static struct {
	char directory[64];
	struct sockaddr_in server;
	struct sockaddr_un abstract;
	int accepted; /* a listening socket, as the proxy has one */
	int file;
	pid_t process;
	void *page;
} world = {.directory = "/tmp/sniproxy-sandbox-XXXXXX"};

static int
listen_at(int family, struct sockaddr *address, socklen_t size)
{
	int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(
	    s != -1 && bind(s, address, size) == 0 && listen(s, 16) == 0, "%s", strerror(errno));
	cr_assert(getsockname(s, address, &size) == 0);
	return s;
}

static void
make_world(void)
{
	cr_assert(mkdtemp(world.directory) != NULL && chdir(world.directory) == 0);
	world.file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(world.file != -1 && ftruncate(world.file, 1) == 0);

	world.server =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int listener = listen_at(AF_INET, (struct sockaddr *)&world.server, sizeof world.server);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(connect(client, (struct sockaddr *)&world.server, sizeof world.server) == 0);
	world.accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(world.accepted != -1);

	world.abstract = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(
	    &world.abstract.sun_path[1], sizeof world.abstract.sun_path - 1, "%s", world.directory);
	listen_at(AF_UNIX, (struct sockaddr *)&world.abstract, sizeof world.abstract);

	world.page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert(world.page != MAP_FAILED);
	world.process = fork();
	cr_assert(world.process != -1);
	if (world.process == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
		for (;;)
			pause();
	}
}

static void
remove_world(void)
{
	kill(world.process, SIGKILL);
	waitpid(world.process, NULL, 0);
	unlink("file");
	unlink("made");
	rmdir("directory");
	rmdir(world.directory);
}

TestSuite(sandbox, .init = make_world, .fini = remove_world, .timeout = 60);

/* --- What is tried --- */

/* Each returns 0 if it succeeded, or else an errno. */
static int
told(long result)
{
	return result == -1 ? errno : 0;
}

static int
read_file(void)
{
	return told(open("file", O_RDONLY | O_CLOEXEC));
}

static int
write_file(void)
{
	return told(open("file", O_WRONLY | O_CLOEXEC));
}

static int
make_file(void)
{
	return told(open("made", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int
list_directory(void)
{
	return told(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int
make_directory(void)
{
	return told(mkdir("directory", 0700));
}

static int
rename_file(void)
{
	return told(rename("file", "made"));
}

static int
remove_file(void)
{
	return told(unlink("file"));
}

static int
truncate_file(void)
{
	return told(truncate("file", 0));
}

static int
change_mode(void)
{
	return told(chmod("file", 0644));
}

static int
map_file(void)
{
	void *map = mmap(NULL, 1, PROT_READ, MAP_PRIVATE, world.file, 0);
	return map == MAP_FAILED ? errno : 0;
}

/* If it succeeds, the child exits with status 0. */
static int
execute(void)
{
	return told(execl("/bin/true", "true", (char *)NULL));
}

static int
begin_process(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return told(pid);
}

static int
make_tcp_socket(void)
{
	return told(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int
make_udp_socket(void)
{
	return told(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

static int
make_netlink_socket(void)
{
	return told(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
}

static int
connect_tcp_socket(void)
{
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return told(
	    s == -1 ? -1 : connect(s, (struct sockaddr *)&world.server, sizeof world.server));
}

/* A connected socket can be disconnected, and is then like any other. */
static int
disconnect(void)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	return told(connect(world.accepted, &nobody, sizeof nobody));
}

static int
connect_accepted_socket(void)
{
	int error = disconnect();
	if (error != 0)
		return error;
	return told(connect(world.accepted, (struct sockaddr *)&world.server, sizeof world.server));
}

static int
send_to_another_server(void)
{
	int error = disconnect();
	if (error != 0)
		return error;
	return told(sendto(world.accepted, "", 1, MSG_FASTOPEN | MSG_NOSIGNAL,
	    (struct sockaddr *)&world.server, sizeof world.server));
}

static int
bind_accepted_socket(void)
{
	const struct sockaddr_in any = {
	    .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int error = disconnect();
	if (error != 0)
		return error;
	return told(bind(world.accepted, (const struct sockaddr *)&any, sizeof any));
}

static int
set_option(void)
{
	int priority = 1;
	return told(
	    setsockopt(world.accepted, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority));
}

static int
ask_for_option(void)
{
	int type;
	socklen_t size = sizeof type;
	return told(getsockopt(world.accepted, SOL_SOCKET, SO_TYPE, &type, &size));
}

static int
connect_to_abstract_socket(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return told(
	    s == -1 ? -1 : connect(s, (struct sockaddr *)&world.abstract, sizeof world.abstract));
}

static int
signal_process(void)
{
	return told(kill(world.process, 0));
}

static int
signal_thread(void)
{
	return told(syscall(SYS_tgkill, world.process, world.process, 0));
}

static int
trace_process(void)
{
	return told(ptrace(PTRACE_SEIZE, world.process, NULL, NULL));
}

static int
become_traced(void)
{
	return told(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int
make_namespace(void)
{
	return told(unshare(CLONE_NEWUSER));
}

static int
begin_in_namespace(void)
{
	long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	return told(pid);
}

static int
share_no_files(void)
{
	return told(unshare(CLONE_FS | CLONE_FILES));
}

static int
make_executable(void)
{
	return told(mprotect(world.page, 1, PROT_READ | PROT_EXEC));
}

static int
map_executable(void)
{
	void *map = mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return map == MAP_FAILED ? errno : 0;
}

static int
control_device(void)
{
	int on = 0;
	return told(ioctl(world.accepted, FIONBIO, &on));
}

static int
own_signals(void)
{
	return told(fcntl(world.accepted, F_SETOWN, getpid()));
}

static int
be_dumpable(void)
{
	return told(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int
schedule(void)
{
	const struct sched_param parameter = {0};
	return told(sched_setscheduler(0, SCHED_IDLE, &parameter));
}

static const struct attempt {
	const char *name;
	int (*try)(void);
	unsigned walls;     /* the layers that forbid it */
	bool may_be_barred; /* it fails even without layers */
} attempts[] = {
    {"to read a file", read_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to write to a file", write_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to make a file", make_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to list a directory", list_directory, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to make a directory", make_directory, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to rename a file", rename_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to remove a file", remove_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to truncate a file", truncate_file, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to change a mode", change_mode, SANDBOX_CALLS, false},
    {"to map a file", map_file, SANDBOX_CALLS, false},
    {"to execute a program", execute, SANDBOX_FILES | SANDBOX_CALLS, false},
    {"to begin a process", begin_process, SANDBOX_CALLS, false},
    {"to make a TCP socket", make_tcp_socket, SANDBOX_CALLS, false},
    {"to make a UDP socket", make_udp_socket, SANDBOX_CALLS, true},
    {"to make a netlink socket", make_netlink_socket, SANDBOX_CALLS, false},
    {"to connect by TCP", connect_tcp_socket, SANDBOX_TCP | SANDBOX_CALLS, false},
    {"to connect an accepted socket", connect_accepted_socket, SANDBOX_TCP, false},
    {"to connect it by sending", send_to_another_server, SANDBOX_CALLS, true},
    {"to bind it", bind_accepted_socket, SANDBOX_TCP | SANDBOX_CALLS, false},
    {"to set another option", set_option, SANDBOX_CALLS, false},
    {"to ask for another option", ask_for_option, SANDBOX_CALLS, false},
    {"to connect to an abstract socket", connect_to_abstract_socket, SANDBOX_SCOPES, false},
    {"to signal a process", signal_process, SANDBOX_SCOPES | SANDBOX_CALLS, false},
    {"to signal a thread of another", signal_thread, SANDBOX_SCOPES, false},
    {"to trace a process", trace_process, SANDBOX_FILES | SANDBOX_CALLS, true},
    {"to be traced", become_traced, SANDBOX_CALLS, true},
    {"to make a namespace", make_namespace, SANDBOX_CALLS, true},
    {"to begin a process in one", begin_in_namespace, SANDBOX_CALLS, true},
    {"to have files of its own", share_no_files, SANDBOX_CALLS, false},
    {"to make memory executable", make_executable, SANDBOX_CALLS, true},
    {"to map executable memory", map_executable, SANDBOX_CALLS, true},
    {"to control a device", control_device, SANDBOX_CALLS, false},
    {"to be sent signals", own_signals, SANDBOX_CALLS, false},
    {"to be dumpable", be_dumpable, SANDBOX_CALLS, false},
    {"to be scheduled otherwise", schedule, SANDBOX_CALLS, false},
};
enum { ATTEMPTS = sizeof attempts / sizeof *attempts };

/* --- How it is tried --- */

/* Statuses of a child, besides errnos. */
enum { ABSENT = 200 };

static void *
try_in_thread(void *argument)
{
	const struct attempt *attempt = argument;
	return (void *)(intptr_t)attempt->try();
}

/* The result of ATTEMPT in a child behind the layers WANTED, perhaps in a thread started there. */
static int
try_behind(unsigned wanted, const struct attempt *attempt, bool in_thread)
{
	int status;
	pid_t pid = fork();
	cr_assert(pid != -1);
	if (pid == 0) {
		if (sandbox_enter(wanted) != wanted)
			_exit(ABSENT);
		pthread_t thread;
		void *result = NULL;
		if (!in_thread)
			_exit(attempt->try());
		if (pthread_create(&thread, NULL, try_in_thread, (void *)attempt) != 0 ||
		    pthread_join(thread, &result) != 0)
			_exit(ABSENT + 1);
		_exit((int)(intptr_t)result);
	}
	cr_assert(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status), "%s: wait status %#x", attempt->name, (unsigned)status);
	return WEXITSTATUS(status);
}

static bool
is_refusal(int error)
{
	return error == EACCES || error == EPERM || error == ENOSYS;
}

/* Restores what an attempt may have changed. */
static void
restore(void)
{
	rename("made", "file");
	rmdir("directory");
	int file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(file != -1 && ftruncate(file, 1) == 0);
	close(file);
}

/* Tries everything that WALL forbids. Fails if something succeeds. */
static void
expect_refusals(unsigned wall)
{
	int refused = 0;
	for (size_t i = 0; i < ATTEMPTS; i++) {
		const struct attempt *attempt = &attempts[i];
		if ((attempt->walls & wall) == 0)
			continue;
		int before = try_behind(0, attempt, false);
		cr_expect(before == 0 || attempt->may_be_barred, "%s, without walls: %s",
		    attempt->name, strerror(before));
		restore();
		int error = try_behind(SANDBOX_NO_NEW_PRIVS | wall, attempt, false);
		if (error == ABSENT)
			cr_skip_test("the kernel has no such wall, or refuses it");
		cr_expect(is_refusal(error), "%s: %s", attempt->name,
		    error == 0 ? "done" : strerror(error));
		restore();
		refused++;
	}
	cr_assert(refused > 0);
}

Test(sandbox, landlock_is_a_wall_around_files)
{
	expect_refusals(SANDBOX_FILES);
}

Test(sandbox, landlock_is_a_wall_against_tcp)
{
	expect_refusals(SANDBOX_TCP);
}

Test(sandbox, landlock_is_a_wall_against_abstract_sockets_and_signals)
{
	expect_refusals(SANDBOX_SCOPES);
}

Test(sandbox, seccomp_refuses_what_is_not_listed)
{
	if (filter_length == 0)
		cr_skip_test("there is no filter for this machine");
	expect_refusals(SANDBOX_CALLS);
}

Test(sandbox, threads_that_are_begun_inside_are_inside)
{
	if (try_behind(SANDBOX_ALL, &attempts[0], true) == ABSENT)
		cr_skip_test("the kernel has not all walls, or refuses one");
	for (size_t i = 0; i < ATTEMPTS; i++) {
		int error = try_behind(SANDBOX_ALL, &attempts[i], true);
		cr_expect(is_refusal(error), "%s: %s", attempts[i].name,
		    error == 0 ? "done" : strerror(error));
		restore();
	}
}

/* --- What still works --- */

static int
serve(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "tls-socket"};
	struct stat status;
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int there = openat(here, "link", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (here == -1 || there == -1 || s == -1 || unshare(CLONE_FS) == -1 ||
	    fstatat(there, "tls-socket", &status, 0) == -1 || fchdir(there) == -1 ||
	    connect(s, (struct sockaddr *)&address, sizeof address) == -1 ||
	    send(s, "x", 1, MSG_NOSIGNAL) != 1)
		return errno;
	return told(fchdir(here));
}

/* Both may be symlinks to other places. */
Test(sandbox, sockets_are_looked_up_and_connected_to_wherever_a_link_leads)
{
	static const struct attempt attempt = {"to serve", serve, 0, false};
	char elsewhere[] = "/tmp/sniproxy-elsewhere-XXXXXX", path[64];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cr_assert(mkdtemp(elsewhere) != NULL && mkdir("directory", 0755) == 0);
	snprintf(path, sizeof path, "%s/socket", elsewhere);
	strcpy(address.sun_path, path);
	listen_at(AF_UNIX, (struct sockaddr *)&address, sizeof address);
	cr_assert(symlink("directory", "link") == 0 && symlink(path, "directory/tls-socket") == 0);
	int error = try_behind(0, &attempt, true);
	int behind_all = try_behind(SANDBOX_ALL, &attempt, true);
	unlink("link");
	unlink("directory/tls-socket");
	unlink(path);
	rmdir(elsewhere);
	cr_assert(error == 0, "%s", strerror(error));
	if (behind_all == ABSENT)
		cr_skip_test("the kernel has not all walls, or refuses one");
	cr_assert(behind_all == 0, "%s", strerror(behind_all));
}

/* --- Another architecture --- */

#ifdef __x86_64__
static int
call_by_32_bits(void)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	return result > 0 ? 0 : ENOSYS;
}

static int
call_by_x32(void)
{
	return told(syscall(0x40000000 | SYS_getpid));
}

/* The signal that ends a child that runs TRY behind WALLS, or 0. */
static int
killed_by(unsigned walls, int (*try)(void))
{
	int status;
	pid_t pid = fork();
	cr_assert(pid != -1);
	if (pid == 0)
		_exit(sandbox_enter(walls) == walls ? try() : ABSENT);
	cr_assert(waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == ABSENT)
		cr_skip_test("the kernel refuses a filter");
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

enum { FILTER = SANDBOX_NO_NEW_PRIVS | SANDBOX_CALLS };

Test(sandbox, calls_of_x32_kill)
{
	cr_assert_eq(killed_by(0, call_by_x32), 0);
	cr_assert_eq(killed_by(FILTER, call_by_x32), SIGSYS);
}

Test(sandbox, calls_of_32_bits_kill)
{
	if (killed_by(0, call_by_32_bits) != 0)
		cr_skip_test("the kernel has no calls of 32 bits");
	cr_assert_eq(killed_by(FILTER, call_by_32_bits), SIGSYS);
}
#endif

#include "tests/program/harness.h"

#include "lib/clock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROXIES_MAX = 5, DESCRIPTORS_MAX = 65536, NOBODY = 65534 };

struct server server;

static struct {
	const char *name;  /* of the test */
	char subject[256]; /* the row of the table, or nothing */
	char base[64];     /* the temporary directory */
	char hosts[80];    /* the hosts directory in it */
	int janitor;       /* a pipe to the janitor */
	int program;       /* sniproxy, open; or its emulator */
	uid_t own_user;    /* that no other process has */

	struct proxy proxies[PROXIES_MAX];
	size_t proxies_started;

	/* The sockets that tests got, so that they are closed whatever a test did. */
	bool ours[DESCRIPTORS_MAX];
} harness;

/* If a test itself is built with the address sanitizer, memory is not freed at its end. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

/* --- Failing --- */

void
testing(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(harness.subject, sizeof harness.subject, format, arguments);
	va_end(arguments);
}

void
fail_at(const char *where, const char *format, ...)
{
	char message[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);

	const char *before = harness.subject[0] != '\0' ? " [" : "";
	const char *after = harness.subject[0] != '\0' ? "]" : "";
	cr_assert_fail("%s:%s%s%s %s", where, before, harness.subject, after, message);
	abort(); /* cr_assert_fail() does not return, but is not declared so. */
}

/* For the harness's own system calls, which must not fail. */
static void
must(bool condition, const char *what)
{
	if (!condition)
		fail_at("harness", "%s: %s", what, strerror(errno));
}

void
skip(const char *why)
{
	fprintf(stderr, "[SKIP] %s: %s\n", harness.name, why);
	must(write(harness.janitor, "p", 1) == 1, "janitor");
	cr_skip_test("%s", why);
	abort();
}

static bool
is_set(const char *variable)
{
	const char *value = getenv(variable);
	return value != NULL && value[0] != '\0';
}

bool
is_hashed(void)
{
	return is_set("HASHED");
}

bool
is_portable(void)
{
	return is_set("PORTABLE");
}

bool
is_linux(void)
{
	return !is_set("OTHER_SYSTEM");
}

void
need(const char *what)
{
	char why[128];
	snprintf(why, sizeof why, "needs %s, which POSIX does not have", what);
	if (is_portable())
		skip(why);
}

/* --- Time --- */

int64_t
now_ms(void)
{
	return clock_ms();
}

bool
sanitized(void)
{
	const char *sanitize = getenv("SANITIZE");
	return sanitize != NULL && sanitize[0] != '\0';
}

bool
emulated(void)
{
	return getenv("EMULATOR") != NULL;
}

int
extra_threads(void)
{
	return sanitized() ? 2 : emulated() ? 1 : 0;
}

int
margin_ms(int ms)
{
	return sanitized() || emulated() ? 3 * ms : ms;
}

void
wait_a_moment(void)
{
	poll(NULL, 0, 2);
}

/* --- Cleaning up --- */

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *position)
{
	(void)status;
	(void)type;
	(void)position;
	remove(path);
	return 0;
}

static void
print_file(const char *path)
{
	char *content = read_file(path);
	size_t length = strlen(content);
	const size_t most = 8192;
	const char *tail = length > most ? content + length - most : content;
	if (length > 0)
		fprintf(
		    stderr, "---- %s of %s\n%s----\n", strrchr(path, '/') + 1, harness.name, tail);
	free(content);
}

static void
print_logs(void)
{
	char path[128];
	for (int i = 0; i < PROXIES_MAX; i++) {
		snprintf(path, sizeof path, "%s/log.%d", harness.base, i);
		print_file(path);
	}
	snprintf(path, sizeof path, "%s/strace", harness.base);
	print_file(path);
}

/* The janitor is a process that outlives the test, even after a failed assertion, a crash, or a
 * kill because of the time limit. The pipe ends then. The kernel kills the proxies, because their
 * parent has died. */
static void
janitor(int told)
{
	char verdict = 'f';
	while (read(told, &verdict, 1) == 1) {
	}
	if (verdict != 'p')
		print_logs();
	nftw(harness.base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static void
start_janitor(void)
{
	int ends[2];
	must(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		setsid();
		dup2(ends[0], 0);
		close_range(3, ~0U, 0);
		janitor(0);
	}
	close(ends[0]);
	harness.janitor = ends[1];
}

/* --- A test --- */

static int
keep(int fd)
{
	if (fd >= 0 && fd < DESCRIPTORS_MAX)
		harness.ours[fd] = true;
	return fd;
}

static void
close_all(void)
{
	for (int fd = 0; fd < DESCRIPTORS_MAX; fd++)
		if (harness.ours[fd])
			close(fd);
}

/* Copies the program PATH to where the emulator finds it from the hosts directory, as any user and
 * in a chroot. */
static void
copy_program(const char *path)
{
	char copy[128];
	snprintf(copy, sizeof copy, "%s/sniproxy", harness.base);
	int from = open(path, O_RDONLY | O_CLOEXEC);
	int to = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	must(from >= 0 && to >= 0, path);
	ssize_t copied;
	while ((copied = sendfile(to, from, NULL, 1 << 20)) > 0) {
	}
	must(copied == 0, "sendfile");
	close(from);
	close(to);
}

static void
use_program(const char *path)
{
	const char *file = emulated() ? getenv("EMULATOR") : path;
	if (emulated())
		copy_program(path);
	harness.program = open(file, O_PATH | O_CLOEXEC);
	must(harness.program >= 0, file);
}

/* Skips the test if the list names it. */
static void
skip_if_listed(void)
{
	char line[512], suite[64], test[128], pattern[200];
	int why = 0;
	const char *path = getenv("SKIPPED");
	FILE *list = path != NULL ? fopen(path, "re") : NULL;
	must(path == NULL || list != NULL, path);
	while (list != NULL && fgets(line, sizeof line, list) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%63[^:]::%127s %n", suite, test, &why) != 2)
			continue;
		snprintf(pattern, sizeof pattern, "%s/%s", suite, test);
		if (fnmatch(pattern, harness.name, 0) == 0)
			skip(line + why);
	}
	if (list != NULL)
		fclose(list);
}

static void
set_up(const char *name)
{
	harness.name = name;
	signal(SIGPIPE, SIG_IGN);

	/* This process has both ends of each connection, and the backend's. */
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	const char *program = getenv("SNIPROXY");
	if (program == NULL)
		fail_at("harness", "SNIPROXY is not set: it is the path of the program to test");

	const char *tmp = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
	int length = snprintf(harness.base, sizeof harness.base, "%s/sniproxy.XXXXXX", tmp);
	must(length < (int)sizeof harness.base, "TMPDIR is too long");
	must(mkdtemp(harness.base) != NULL, "mkdtemp");
	start_janitor();
	snprintf(harness.hosts, sizeof harness.hosts, "%s/hosts", harness.base);
	must(chmod(harness.base, 0755) == 0 && mkdir(harness.hosts, 0755) == 0, harness.hosts);
	use_program(program);
	skip_if_listed();
}

static void
check_sanitizers(const struct proxy *proxy)
{
	static const char *const alarms[] = {
	    "ERROR: AddressSanitizer",
	    "ERROR: LeakSanitizer",
	    "WARNING: ThreadSanitizer",
	    "runtime error:",
	};
	char *log = proxy_log(proxy);
	for (size_t i = 0; i < sizeof alarms / sizeof *alarms; i++)
		if (strstr(log, alarms[i]) != NULL)
			fail_at("harness", "the proxy's log has \"%s\"", alarms[i]);
	free(log);
}

/* All connections have been closed, so each proxy must end at once and report none as cut off: that
 * would be a connection that it forgot to end. */
static void
tear_down(void)
{
	testing("at the end of the test");
	close_all();
	for (size_t i = 0; i < harness.proxies_started; i++) {
		struct proxy *proxy = &harness.proxies[i];
		if (proxy->pid != 0) {
			kill(proxy->pid, SIGTERM);
			int status = proxy_wait_at("harness", proxy, 8000);
			if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
				fail_at("harness", "the proxy ended with wait status %#x", status);
		}
		check_sanitizers(proxy);
	}
	must(write(harness.janitor, "p", 1) == 1, "janitor");
}

void
harness_run(const char *name, void (*body)(void))
{
	set_up(name);
	body();
	tear_down();
}

/* --- The proxy --- */

static socklen_t
socket_address(struct sockaddr_storage *storage, const char *address, uint16_t port)
{
	memset(storage, 0, sizeof *storage);
	struct sockaddr_in *in = (struct sockaddr_in *)storage;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)storage;
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return sizeof *in;
	}
	must(inet_pton(AF_INET6, address, &in6->sin6_addr) == 1, address);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	return sizeof *in6;
}

int
bound_socket(const char *address, int type)
{
	struct sockaddr_storage storage;
	socklen_t length = socket_address(&storage, address, 0);
	int fd = keep(socket(storage.ss_family, type | SOCK_CLOEXEC, 0));
	if (fd < 0 && errno == EAFNOSUPPORT)
		skip("no IPv6 here");
	must(fd >= 0, "socket");

	int off = 0;
	if (strcmp(address, "::") == 0)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (strcmp(address, "::") == 0 || strcmp(address, "0.0.0.0") == 0)
		setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
	int error = bind(fd, (struct sockaddr *)&storage, length);
	if (error < 0 && errno == EADDRNOTAVAIL && storage.ss_family == AF_INET6)
		skip("no IPv6 address on the loopback device");
	must(error == 0, "bind");
	return fd;
}

uint16_t
local_port(int fd)
{
	struct sockaddr_storage storage;
	socklen_t length = sizeof storage;
	must(getsockname(fd, (struct sockaddr *)&storage, &length) == 0, "getsockname");
	if (storage.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&storage)->sin_port);
	return ntohs(((struct sockaddr_in6 *)&storage)->sin6_port);
}

void
server_listen(const char *address)
{
	/* Without IPv6, "::" can be bound, but not "::1": this skips the test. */
	if (strcmp(address, "::") == 0)
		close(bound_socket("::1", SOCK_STREAM));
	server.listener = bound_socket(address, SOCK_STREAM);
	must(listen(server.listener, SOMAXCONN) == 0, "listen");
	server.port = local_port(server.listener);
	if (strcmp(address, "0.0.0.0") == 0)
		address = "127.0.0.1";
	if (strcmp(address, "::") == 0)
		address = "::1";
	snprintf(server.address, sizeof server.address, "%s", address);
}

static void
execute_program(void)
{
	/* An emulator opens the program by itself; the hosts directory is beside it. */
	char *native[] = {"sniproxy", NULL};
	char *foreign[] = {"emulator", "-0", "sniproxy", "../sniproxy", NULL};
	fexecve(harness.program, emulated() ? foreign : native, environ);
}

/* In the child: only the environment of the test is left. */
_Noreturn static void
execute(const struct proxy *proxy, pid_t parent, void (*prepare)(void))
{
	int flags = O_WRONLY | O_CREAT | O_APPEND;
	int output = open(proxy->output, flags, 0644);
	int log = open(proxy->log, flags, 0644);
	if (dup2(server.listener, 0) < 0 || dup2(output, 1) < 0 || dup2(log, 2) < 0)
		_exit(127);
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);

	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);

	if (chdir(harness.hosts) == 0) {
		if (prepare != NULL)
			prepare();
		/* A change of the user clears this, so it comes last. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			execute_program();
	}
	_exit(127);
}

struct proxy *
proxy_start(void (*prepare)(void))
{
	must(harness.proxies_started < PROXIES_MAX, "too many proxies");
	int number = (int)harness.proxies_started++;
	struct proxy *proxy = &harness.proxies[number];
	snprintf(proxy->log, sizeof proxy->log, "%s/log.%d", harness.base, number);
	snprintf(proxy->output, sizeof proxy->output, "%s/output.%d", harness.base, number);

	pid_t parent = getpid();
	proxy->pid = fork();
	must(proxy->pid >= 0, "fork");
	if (proxy->pid == 0)
		execute(proxy, parent, prepare);
	return proxy;
}

struct proxy *
proxy_start_default(void)
{
	server_listen("127.0.0.1");
	return proxy_start(NULL);
}

bool
proxy_use_static(void)
{
	const char *program = getenv("SNIPROXY_STATIC");
	if (program == NULL || access(program, X_OK) == -1)
		return false;
	close(harness.program);
	use_program(program);
	return true;
}

void
proxy_wait_ready_at(const char *where)
{
	expect_refused_at(where, text("GET / HTTP/1.1\r\n\r\n"), UNEXPECTED_MESSAGE);
}

int
proxy_wait_at(const char *where, struct proxy *proxy, int ms)
{
	int64_t end_ms = now_ms() + margin_ms(ms);
	int status = 0;
	while (waitpid(proxy->pid, &status, WNOHANG) == 0) {
		if (now_ms() > end_ms)
			fail_at(where, "the proxy still runs after %d ms", margin_ms(ms));
		wait_a_moment();
	}
	proxy->pid = 0;
	return status;
}

void
proxy_pause(const struct proxy *proxy)
{
	siginfo_t info;
	kill(proxy->pid, SIGSTOP); /* which does not wait for the result */
	must(waitid(P_PID, (id_t)proxy->pid, &info, WSTOPPED) == 0, "waitid");
}

bool
proxy_runs(const struct proxy *proxy)
{
	siginfo_t info = {0};
	waitid(P_PID, (id_t)proxy->pid, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid == 0;
}

char *
read_file(const char *path)
{
	struct bytes content = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char chunk[4096];
	ssize_t got;
	while (fd >= 0 && (got = read(fd, chunk, sizeof chunk)) > 0)
		put(&content, chunk, (size_t)got);
	if (fd >= 0)
		close(fd);
	put(&content, "", 1);
	return (char *)content.data;
}

char *
proxy_log(const struct proxy *proxy)
{
	return read_file(proxy->log);
}

bool
proxy_has_logged(const struct proxy *proxy, const char *text)
{
	char *log = proxy_log(proxy);
	bool has = strstr(log, text) != NULL;
	free(log);
	return has;
}

/* Returns how many lines of totals LOG has; *LAST is the start of the last complete one. */
static int
count_totals(const char *log, const char **last)
{
	const char *start = "sniproxy: seconds=";
	int count = 0;
	for (const char *line = log, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
		if (strncmp(line, start, strlen(start)) == 0) {
			*last = line;
			count++;
		}
	return count;
}

long
proxy_total_at(const char *where, const struct proxy *proxy, const char *key)
{
	char wanted[64];
	const char *line = NULL, *value;
	char *log = proxy_log(proxy);
	int before = count_totals(log, &line);
	int64_t end_ms = now_ms() + margin_ms(5000);
	kill(proxy->pid, SIGUSR1);
	do {
		if (now_ms() > end_ms)
			fail_at(where, "no totals");
		wait_a_moment();
		free(log);
		log = proxy_log(proxy);
	} while (count_totals(log, &line) == before);
	log[strcspn(line, "\n") + (size_t)(line - log)] = '\0';
	snprintf(wanted, sizeof wanted, " %s=", key);
	value = strstr(line, wanted);
	if (value == NULL)
		fail_at(where, "no %s in: %s", key, line);
	long number = strtol(value + strlen(wanted), NULL, 10);
	free(log);
	return number;
}

void
expect_total_at(const char *where, const struct proxy *proxy, const char *key, long number, int ms)
{
	const int interval_ms = 20;
	int64_t end_ms = now_ms() + margin_ms(ms);
	long total;
	while ((total = proxy_total_at(where, proxy, key)) != number) {
		if (now_ms() > end_ms)
			fail_at(where, "%s is %ld, not %ld", key, total, number);
		poll(NULL, 0, interval_ms);
	}
}

char *
proxy_proc(const struct proxy *proxy, const char *file)
{
	char path[384];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)proxy->pid, file);
	return read_file(path);
}

int64_t
proxy_cpu_us(const struct proxy *proxy)
{
	clockid_t clock;
	struct timespec used;
	must(clock_getcpuclockid(proxy->pid, &clock) == 0, "clock_getcpuclockid");
	must(clock_gettime(clock, &used) == 0, "clock_gettime");
	return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

void
expect_idle_at(const char *where, const struct proxy *proxy)
{
	const int watched_ms = 600;
	poll(NULL, 0, sanitized() ? 1500 : 100); /* the start may end first */
	int64_t before_us = proxy_cpu_us(proxy);
	poll(NULL, 0, watched_ms);
	int64_t used_us = proxy_cpu_us(proxy) - before_us;
	const int allowed_us = margin_ms(watched_ms) * 1000 / 20 * (emulated() ? 3 : 1);
	if (used_us > allowed_us)
		fail_at(where, "the proxy used %d us of CPU time in %d ms with nothing to do",
		    (int)used_us, watched_ms);
}

/* Opens a directory under /proc/PID/ of the proxy. */
static DIR *
open_proc(const struct proxy *proxy, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)proxy->pid, name);
	DIR *directory = opendir(path);
	must(directory != NULL, path);
	return directory;
}

static int
count_entries(const struct proxy *proxy, const char *name)
{
	int count = 0;
	DIR *directory = open_proc(proxy, name);
	const struct dirent *entry;
	while ((entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

int
proxy_descriptors(const struct proxy *proxy)
{
	return count_entries(proxy, "fd");
}

int
proxy_threads(const struct proxy *proxy)
{
	char *status = proxy_proc(proxy, "status");
	const char *line = strstr(status, "\nThreads:");
	must(line != NULL, "no number of threads in /proc/PID/status");
	int threads = (int)strtol(line + strlen("\nThreads:"), NULL, 10);
	free(status);
	return threads;
}

static void
become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(127);
}

void
become_nobody(void)
{
	if (geteuid() == 0)
		become(NOBODY);
}

void
enter_namespace(void)
{
	if (geteuid() != 0 && unshare(CLONE_NEWUSER) < 0)
		_exit(127);
}

/* Whether ATTEMPT succeeds in a child. */
static bool
can(void (*attempt)(void))
{
	int status;
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		attempt();
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	return status == 0;
}

void
need_namespace(void)
{
	if (!can(enter_namespace))
		skip("needs root, or user namespaces");
}

void
limit_descriptors(unsigned most)
{
	const struct rlimit files = {.rlim_cur = most, .rlim_max = most};
	setrlimit(RLIMIT_NOFILE, &files);
}

void
become_own_user(void)
{
	if (geteuid() == 0)
		become(harness.own_user);
	else
		enter_namespace();
}

/* One more process is allowed: the user's others do not count. */
static void
count_anew(void)
{
	const struct rlimit processes = {.rlim_cur = 2, .rlim_max = 2};
	become_own_user();
	setrlimit(RLIMIT_NPROC, &processes);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		_exit(1);
}

void
need_own_user(void)
{
	harness.own_user = 100000 + (uid_t)getpid() % 1000000;
	if (!can(count_anew))
		skip("needs root, or user namespaces of Linux 5.14");
}

void
refuse_call(long call, int argument, int value, int error)
{
	bool is_any = argument == ANY_ARGUMENT;
	size_t at = offsetof(struct seccomp_data, args) +
	    (is_any ? 0 : (size_t)argument) * sizeof(uint64_t);
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)call, 0, 3),
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (__u32)at),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)value, 0, !is_any),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (__u32)error),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == -1)
		_exit(127);
}

void
let_descriptors_pass(void)
{
	enum { OPTION = 2, PASSRIGHTS = 83 };
	refuse_call(SYS_setsockopt, OPTION, PASSRIGHTS, ENOPROTOOPT);
}

/* --- Faults --- */

/* In the child: becomes strace(1), which reports on NEWS that it has attached. */
_Noreturn static void
execute_strace(const struct proxy *proxy, const char *calls, const char *fault, int news)
{
	char output[96], pid[16], trace[128], inject[256];
	snprintf(output, sizeof output, "%s/strace", harness.base);
	snprintf(pid, sizeof pid, "%d", (int)proxy->pid);
	snprintf(trace, sizeof trace, "trace=%s", calls);
	snprintf(inject, sizeof inject, "inject=%s:%s", calls, fault);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(news, 2);
	execlp("strace", "strace", "-f", "-o", output, "-e", trace, "-e", inject, "-p", pid,
	    (char *)NULL);
	_exit(127);
}

/* The first line of strace(1) is "strace: Process 123 attached", or says why it cannot attach. */
static bool
has_attached(int news)
{
	char line[256] = "";
	size_t length = 0;
	while (length < sizeof line - 1 && strchr(line, '\n') == NULL) {
		if (!readable_within(news, 5000) || read(news, line + length, 1) != 1)
			break;
		length++;
	}
	return strstr(line, " attached") != NULL;
}

pid_t
fault_begin(const struct proxy *proxy, const char *calls, const char *fault)
{
	int news[2];
	must(pipe2(news, O_CLOEXEC) == 0, "pipe2");
	pid_t tracer = fork();
	must(tracer >= 0, "fork");
	if (tracer == 0)
		execute_strace(proxy, calls, fault, news[1]);
	close(news[1]);
	/* strace(1) may write there as long as it runs. */
	keep(news[0]);
	if (!has_attached(news[0])) {
		fault_end(tracer);
		skip("strace cannot trace the proxy");
	}
	return tracer;
}

void
fault_end(pid_t tracer)
{
	kill(tracer, SIGTERM); /* It detaches from what it traces, and exits. */
	must(waitpid(tracer, NULL, 0) == tracer, "waitpid");
}

bool
proxy_is_in(const struct proxy *proxy, long number)
{
	bool found = false;
	DIR *threads = open_proc(proxy, "task");
	const struct dirent *entry;
	while (!found && (entry = readdir(threads)) != NULL) {
		char file[300];
		snprintf(file, sizeof file, "task/%s/syscall", entry->d_name);
		char *call = proxy_proc(proxy, file), *end;
		found = strtol(call, &end, 10) == number && end != call;
		free(call);
	}
	closedir(threads);
	return found;
}

bool
proxy_sleeps_outside_accept(const struct proxy *proxy)
{
	char *call = proxy_proc(proxy, "syscall");
	if (call[0] == '\0')
		skip("no right to look at the proxy's system calls");
	/* "running", or the number of the system call and more. */
	long number = strtol(call, NULL, 10);
	bool sleeps = call[0] != 'r' && number != SYS_futex && number != SYS_accept4;
#ifdef SYS_accept
	sleeps = sleeps && number != SYS_accept;
#endif
	free(call);
	return sleeps;
}

/* --- Bytes --- */

void
put(struct bytes *bytes, const void *data, size_t length)
{
	if (length == 0)
		return;
	if (bytes->length + length > bytes->capacity) {
		bytes->capacity = 2 * (bytes->length + length);
		bytes->data = realloc(bytes->data, bytes->capacity);
		must(bytes->data != NULL, "realloc");
	}
	memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

void
put_integer(struct bytes *bytes, unsigned long value, size_t width)
{
	while (width-- > 0) {
		uint8_t byte = (uint8_t)(value >> (8 * width));
		put(bytes, &byte, 1);
	}
}

void
put_fill(struct bytes *bytes, uint8_t byte, size_t length)
{
	while (length-- > 0)
		put(bytes, &byte, 1);
}

void
put_bytes(struct bytes *bytes, struct bytes more)
{
	put(bytes, more.data, more.length);
}

struct bytes
text(const char *string)
{
	struct bytes bytes = {0};
	put(&bytes, string, strlen(string));
	return bytes;
}

struct bytes
slice(struct bytes bytes, size_t start, size_t length)
{
	return (struct bytes){bytes.data + start, length, 0};
}

/* A length that is no multiple of any buffer's, so that a lost or repeated piece shows. */
enum { PATTERN_LENGTH = 1000003 };

struct bytes
pattern(size_t offset, size_t length)
{
	static uint8_t noise[PATTERN_LENGTH];
	if (noise[0] == 0) {
		uint32_t state = 2463534242; /* xorshift */
		for (size_t i = 0; i < PATTERN_LENGTH; i++) {
			state ^= state << 13;
			state ^= state >> 17;
			state ^= state << 5;
			noise[i] = (uint8_t)(state >> 8);
		}
		noise[0] = 'n';
	}
	size_t start = offset % PATTERN_LENGTH;
	size_t left = PATTERN_LENGTH - start;
	return (struct bytes){noise + start, length < left ? length : left, 0};
}

/* --- ClientHellos --- */

/* Appends a vector: its length, which may be wrong, and its content. */
static void
put_vector(struct bytes *bytes, size_t width, struct bytes inside, int lie)
{
	put_integer(bytes, (unsigned long)((long)inside.length + lie), width);
	put_bytes(bytes, inside);
}

static struct bytes
filled(uint8_t byte, int length)
{
	struct bytes bytes = {0};
	put_fill(&bytes, byte, (size_t)length);
	return bytes;
}

void
put_extension(struct bytes *extensions, unsigned type, struct bytes data)
{
	put_integer(extensions, type, 2);
	put_vector(extensions, 2, data, 0);
}

static struct bytes
server_name_list(const struct shape *shape)
{
	const char *string = shape->name != NULL ? shape->name : HOST;
	size_t length = shape->name_length != 0 ? shape->name_length : strlen(string);
	struct bytes name = {0};
	put(&name, string, length);

	struct bytes list = {0};
	if (shape->other_name_first || shape->other_name_only) {
		put_integer(&list, 77, 1); /* name_type */
		put_vector(&list, 2, text("no.host.name"), 0);
	}
	for (int i = 0; i < 1 + shape->two_host_names && !shape->empty_list; i++) {
		if (shape->other_name_only)
			continue;
		put_integer(&list, 0, 1); /* host_name */
		put_vector(&list, 2, name, shape->name_lie);
	}
	return list;
}

static void
put_server_name(struct bytes *extensions, const struct shape *shape)
{
	struct bytes data = {0};
	if (!shape->without_list)
		put_vector(&data, 2, server_name_list(shape), shape->list_lie);
	for (int i = 0; i < 1 + shape->two_server_names; i++) {
		put_integer(extensions, 0, 2); /* server_name */
		put_vector(extensions, 2, data, shape->server_name_lie);
	}
}

static struct bytes
hello_extensions(const struct shape *shape)
{
	struct bytes extensions = {0};
	if (!shape->without_server_name && !shape->server_name_last)
		put_server_name(&extensions, shape);
	put_bytes(&extensions, shape->extensions);
	if (shape->padding != 0)
		put_extension(&extensions, 21, filled(0, (int)shape->padding));
	else
		put_extension(&extensions, 43, text("\x02\x03\x04")); /* supported_versions */
	if (!shape->without_server_name && shape->server_name_last)
		put_server_name(&extensions, shape);
	return extensions;
}

struct bytes
hello_message(struct shape shape)
{
	struct bytes body = {0};
	unsigned version = shape.legacy_version != 0 ? shape.legacy_version : 0x0303;
	put_integer(&body, version, 2);
	put_bytes(&body, pattern(1, 32)); /* random */
	put_vector(&body, 1, filled(0xee, 32 + shape.session_id_more), shape.session_id_lie);
	put_vector(&body, 2, filled(0x13, 6 + shape.cipher_suites_more), shape.cipher_suites_lie);
	put_vector(&body, 1, filled(0, 1 + shape.compression_more), shape.compression_lie);
	if (!shape.without_extensions)
		put_vector(&body, 2, hello_extensions(&shape), shape.extensions_lie);
	put_fill(&body, 0, shape.trailing);

	struct bytes message = {0};
	put_integer(&message, shape.message_type != 0 ? shape.message_type : 1, 1);
	put_vector(&message, 3, body, shape.message_lie);
	return message;
}

struct bytes
in_records(struct bytes message, size_t fragment)
{
	struct bytes stream = {0};
	for (size_t start = 0; start < message.length; start += fragment) {
		size_t left = message.length - start;
		size_t length = left < fragment ? left : fragment;
		put_integer(&stream, 22, 1); /* handshake */
		put_integer(&stream, 0x0301, 2);
		put_vector(&stream, 2, slice(message, start, length), 0);
	}
	return stream;
}

struct bytes
hello(struct shape shape)
{
	return in_records(hello_message(shape), 1 << 14);
}

struct bytes
hello_for(const char *name)
{
	return hello((struct shape){.name = name});
}

struct bytes
largest_message(void)
{
	/* The extensions hold server_name and padding, each with four bytes before its data. */
	const size_t server_name = 4 + 2 + 1 + 2 + strlen(HOST);
	struct bytes message = hello_message((struct shape){
	    .cipher_suites_more = 65534 - 6,
	    .compression_more = 255 - 1,
	    .padding = 65535 - server_name - 4,
	});
	must(message.length == LARGEST_MESSAGE, "the largest message has another length");
	return message;
}

/* --- Sockets --- */

bool
readable_within(int fd, int ms)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};
	return poll(&entry, 1, margin_ms(ms)) == 1;
}

bool
silent_for(int fd, int ms)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};
	return poll(&entry, 1, ms) == 0;
}

/* No call on a socket of the tests waits without end. */
static void
set_timeouts(int fd)
{
	int ms = margin_ms(5000);
	struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

void
send_all_at(const char *where, int fd, struct bytes bytes)
{
	size_t sent = 0;
	while (sent < bytes.length) {
		ssize_t now = send(fd, bytes.data + sent, bytes.length - sent, MSG_NOSIGNAL);
		if (now < 0)
			fail_at(where, "sent %zu bytes of %zu: %s", sent, bytes.length,
			    strerror(errno));
		sent += (size_t)now;
	}
}

void
send_bytewise_at(const char *where, int fd, struct bytes bytes)
{
	for (size_t i = 0; i < bytes.length; i++)
		send_all_at(where, fd, slice(bytes, i, 1));
}

size_t
send_until_stalled_at(const char *where, int fd)
{
	size_t sent = 0;
	struct pollfd entry = {.fd = fd, .events = POLLOUT};
	while (poll(&entry, 1, 300) == 1) {
		struct bytes next = pattern(sent, 65536);
		ssize_t now = send(fd, next.data, next.length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (now < 0 && errno != EAGAIN)
			fail_at(where, "sent %zu bytes: %s", sent, strerror(errno));
		sent += now < 0 ? 0 : (size_t)now;
		if (sent > (size_t)256 << 20)
			fail_at(where, "%zu bytes were taken although nothing reads", sent);
	}
	return sent;
}

size_t
read_up_to(int fd, void *data, size_t length)
{
	size_t have = 0;
	while (have < length) {
		ssize_t got = recv(fd, (uint8_t *)data + have, length - have, 0);
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	return have;
}

static size_t
first_difference(const uint8_t *a, const uint8_t *b, size_t length)
{
	size_t same = 0;
	while (same < length && a[same] == b[same])
		same++;
	return same;
}

void
expect_bytes_at(const char *where, int fd, struct bytes bytes)
{
	uint8_t *got = malloc(bytes.length + 1);
	must(got != NULL, "malloc");
	size_t length = read_up_to(fd, got, bytes.length);
	size_t same = first_difference(got, bytes.data, length);
	if (same < bytes.length)
		fail_at(
		    where, "of %zu bytes %zu came, %zu of them right", bytes.length, length, same);
	free(got);
}

void
expect_pattern_at(const char *where, int fd, size_t offset, size_t length)
{
	const size_t end = offset + length;
	while (offset < end) {
		struct bytes next = pattern(offset, end - offset);
		expect_bytes_at(where, fd, next);
		offset += next.length;
	}
}

void
expect_end_at(const char *where, int fd)
{
	uint8_t byte;
	errno = 0;
	ssize_t got = recv(fd, &byte, 1, 0);
	if (got != 0)
		fail_at(where, "no end of the stream but %s",
		    got > 0                   ? "more bytes"
			: errno == ECONNRESET ? "a reset"
			: errno == EAGAIN     ? "silence"
					      : strerror(errno));
}

void
expect_gone_at(const char *where, int fd, int ms)
{
	if (!readable_within(fd, ms))
		fail_at(where, "the connection is still open after %d ms", margin_ms(ms));
	uint8_t byte;
	if (recv(fd, &byte, 1, MSG_DONTWAIT) > 0)
		fail_at(where, "not the end of the connection but more bytes");
}

size_t
read_to_the_end_at(const char *where, int fd, int ms)
{
	static uint8_t unwanted[65536];
	size_t total = 0;
	ssize_t got;
	int64_t end_ms = now_ms() + margin_ms(ms);
	do {
		int64_t left_ms = end_ms - now_ms();
		struct pollfd entry = {.fd = fd, .events = POLLIN};
		if (left_ms <= 0 || poll(&entry, 1, (int)left_ms) != 1)
			fail_at(where, "the connection is still open after %d ms", margin_ms(ms));
		got = recv(fd, unwanted, sizeof unwanted, MSG_DONTWAIT);
		total += got > 0 ? (size_t)got : 0;
	} while (got > 0);
	return total;
}

void
expect_alert_at(const char *where, int fd, enum alert alert)
{
	const uint8_t expected[] = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, (uint8_t)alert};
	uint8_t got[sizeof expected] = {0};
	size_t length = read_up_to(fd, got, sizeof got);
	if (length != sizeof got || memcmp(got, expected, sizeof got) != 0)
		fail_at(where,
		    "expected alert %d, but %zu bytes came: %02x %02x %02x %02x %02x "
		    "%02x %02x%s%s",
		    alert, length, got[0], got[1], got[2], got[3], got[4], got[5], got[6],
		    length < sizeof got ? ", then " : "",
		    length < sizeof got ? strerror(errno) : "");
	expect_end_at(where, fd);
}

/* Asks the kernel for the server's sockets, as ss(8) does: /proc/net/tcp would also list the many
 * that have ended lately. If CLIENT is not -1, asks only for the socket at its other end, so that
 * the kernel need not search all of them. Returns the netlink socket that receives the answer. */
static int
ask_for_sockets(int client)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} message = {
	    .header = {.nlmsg_len = sizeof message,
		.nlmsg_type = SOCK_DIAG_BY_FAMILY,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	    .request = {.sdiag_family = AF_INET,
		.sdiag_protocol = IPPROTO_TCP,
		.idiag_states = 1U << TCP_ESTABLISHED | 1U << TCP_LISTEN,
		.id.idiag_sport = htons(server.port)},
	};
	if (client != -1) {
		struct sockaddr_in own, other;
		socklen_t size = sizeof own;
		must(getsockname(client, (struct sockaddr *)&own, &size) == 0 &&
			getpeername(client, (struct sockaddr *)&other, &size) == 0,
		    "getpeername");
		message.header.nlmsg_flags = NLM_F_REQUEST;
		message.request.id = (struct inet_diag_sockid){
		    .idiag_sport = other.sin_port,
		    .idiag_dport = own.sin_port,
		    .idiag_src = {other.sin_addr.s_addr},
		    .idiag_dst = {own.sin_addr.s_addr},
		    .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE},
		};
	}
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	must(fd >= 0, "socket(NETLINK_SOCK_DIAG)");
	must(send(fd, &message, sizeof message, 0) == sizeof message, "sock_diag");
	return fd;
}

/* The bytes in the queues of those sockets, and the connections that wait to be accepted. */
static unsigned long
undrained(int client)
{
	static _Alignas(struct nlmsghdr) char buffer[65536];
	unsigned long total = 0;
	bool done = false;
	int fd = ask_for_sockets(client);
	while (!done) {
		ssize_t length = recv(fd, buffer, sizeof buffer, 0);
		must(length > 0, "sock_diag");
		unsigned left = (unsigned)length;
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, left);
		     header = NLMSG_NEXT(header, left)) {
			must(header->nlmsg_type != NLMSG_ERROR, "sock_diag");
			if (header->nlmsg_type == NLMSG_DONE || client != -1)
				done = true;
			if (header->nlmsg_type != NLMSG_DONE)
				total += ((struct inet_diag_msg *)NLMSG_DATA(header))->idiag_rqueue;
		}
	}
	close(fd);
	return total;
}

void
wait_drained_at(const char *where, int client)
{
	int64_t end_ms = now_ms() + margin_ms(5000);
	while (undrained(client) != 0) {
		if (now_ms() > end_ms)
			fail_at(where, "the proxy does not read what was sent");
		wait_a_moment();
	}
}

void
reset_connection(int fd)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
}

/* --- Clients --- */

int
client_try_connect(const char *from)
{
	struct sockaddr_storage storage;
	socklen_t length = socket_address(&storage, from != NULL ? from : server.address, 0);
	int fd = keep(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	must(fd >= 0, "socket");
	set_timeouts(fd);
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (from != NULL)
		must(bind(fd, (struct sockaddr *)&storage, length) == 0, from);

	length = socket_address(&storage, server.address, server.port);
	if (connect(fd, (struct sockaddr *)&storage, length) < 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

bool
is_refused(void)
{
	int client = client_try_connect(NULL);
	int error = errno;
	if (client >= 0)
		close(client);
	return client < 0 && error == ECONNREFUSED;
}

int
client_connect_at(const char *where, const char *from)
{
	int fd = client_try_connect(from);
	if (fd < 0)
		fail_at(where, "connect: %s", strerror(errno));
	return fd;
}

int
client_send_at(const char *where, struct bytes bytes)
{
	int fd = client_connect_at(where, NULL);
	send_all_at(where, fd, bytes);
	return fd;
}

void
expect_refused_at(const char *where, struct bytes bytes, enum alert alert)
{
	int client = client_send_at(where, bytes);
	expect_alert_at(where, client, alert);
	close(client);
}

/* --- Backends --- */

/* The directory name, from a program that shares no code with the proxy. */
static void
hash(char digest[33], const char *name, size_t length)
{
	char path[128], command[256];
	snprintf(path, sizeof path, "%s/name", harness.base);
	FILE *file = fopen(path, "w");
	must(file != NULL && fwrite(name, 1, length, file) == length, path);
	fclose(file);
	snprintf(command, sizeof command, "xxh128sum %s", path);
	FILE *output = popen(command, "r");
	must(output != NULL && fscanf(output, "%32[0-9a-f]", digest) == 1, command);
	pclose(output);
	must(strlen(digest) == 32, "xxh128sum");
}

const char *
base_directory(void)
{
	return harness.base;
}

const char *
directory_name(const char *name, size_t length)
{
	char *directory = malloc(length + 33);
	must(directory != NULL, "malloc");
	if (is_hashed()) {
		hash(directory, name, length);
	} else {
		memcpy(directory, name, length);
		directory[length] = '\0';
	}
	return directory;
}

char *
host_path(const char *name, const char *file)
{
	const char *directory = directory_name(name, strlen(name));
	char *path;
	int length = file == NULL ? asprintf(&path, "%s/%s", harness.hosts, directory)
				  : asprintf(&path, "%s/%s/%s", harness.hosts, directory, file);
	must(length > 0, "asprintf");
	return path;
}

char *
host_make(const char *name)
{
	char *path = host_path(name, NULL);
	must(mkdir(path, 0755) == 0, path);
	return path;
}

/* The address of the socket at PATH, which may be longer than sun_path. Returns the directory,
 * which the caller closes after use. */
static int
unix_address(struct sockaddr_un *address, const char *path)
{
	char *directory = strdup(path);
	must(directory != NULL, "strdup");
	char *file = strrchr(directory, '/');
	*file++ = '\0';
	int at = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(at >= 0, directory);
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", at, file);
	free(directory);
	return at;
}

int
unix_listen(const char *path, int backlog)
{
	struct sockaddr_un address;
	int at = unix_address(&address, path);
	int fd = keep(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	must(fd >= 0, "socket");
	must(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, path);
	must(chmod(path, 0777) == 0, path);
	must(listen(fd, backlog) == 0, "listen");
	close(at);
	return fd;
}

int
fill_backlog(const char *path)
{
	struct sockaddr_un address;
	int at = unix_address(&address, path);
	int taken = -1, error;
	do {
		taken++;
		must(taken < 100, "the backlog has no end");
		int fd = keep(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
		must(fd >= 0, "socket");
		error = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
	} while (error == 0);
	errno = error;
	must(error == EAGAIN, "connect");
	close(at);
	return taken;
}

void
expect_backlog_is_waited_for(const char *path, struct bytes hello)
{
	int backend = unix_listen(path, 1);
	int fillers = fill_backlog(path);
	int client = client_send(hello);
	cr_assert(silent_for(client, 500), "the proxy gave up at once");
	for (int i = 0; i < fillers; i++)
		close(backend_accept(backend));
	int accepted = backend_accept(backend);
	expect_bytes(accepted, hello);
	pair_talk(((struct pair){client, accepted}));
}

int
backend_listen(const char *name)
{
	free(host_make(name));
	char *path = host_path(name, "tls-socket");
	int fd = unix_listen(path, SOMAXCONN);
	free(path);
	return fd;
}

int
backend_accept_at(const char *where, int listener)
{
	if (!readable_within(listener, 5000))
		fail_at(where, "no connection to the backend");
	int fd = keep(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	must(fd >= 0, "accept4");
	set_timeouts(fd);
	return fd;
}

void
expect_served_at(const char *where, int listener, struct bytes hello)
{
	int client = client_send_at(where, hello);
	int backend = backend_accept_at(where, listener);
	expect_bytes_at(where, backend, hello);
	send_all_at(where, backend, text("served"));
	close(backend);
	expect_bytes_at(where, client, text("served"));
	expect_end_at(where, client);
	close(client);
}

void
make_file(const char *path, const char *content)
{
	FILE *file = fopen(path, "w");
	must(file != NULL && fputs(content, file) >= 0 && fclose(file) == 0, path);
}

/* --- A connection through the proxy --- */

struct pair
pair_open_at(const char *where, int listener)
{
	struct bytes hello = hello_for(HOST);
	struct pair pair;
	pair.client = client_send_at(where, hello);
	pair.backend = backend_accept_at(where, listener);
	expect_bytes_at(where, pair.backend, hello);
	return pair;
}

void
pair_talk_at(const char *where, struct pair pair)
{
	send_all_at(where, pair.client, text("ping"));
	expect_bytes_at(where, pair.backend, text("ping"));
	send_all_at(where, pair.backend, text("pong"));
	expect_bytes_at(where, pair.client, text("pong"));
}

void
pair_close(struct pair pair)
{
	close(pair.client);
	close(pair.backend);
}

/* --- Load --- */

static bool
read_header(int fd)
{
	char byte = 0;
	int length = 0;
	while (byte != '\n' && ++length <= 107)
		if (read_up_to(fd, &byte, 1) != 1)
			return false;
	return byte == '\n';
}

static bool
service_reads(const struct service *service, int fd)
{
	uint8_t *got = calloc(1, service->hello.length);
	bool right = read_up_to(fd, got, 5) == 5;
	bool header = memcmp(got, "PROXY", 5) == 0;
	right = right && header == service->wants_header;
	size_t have = header ? 0 : 5;
	if (right && header)
		right = read_header(fd);
	size_t left = service->hello.length - have;
	right = right && read_up_to(fd, got + have, left) == left;
	right = right && memcmp(got, service->hello.data, service->hello.length) == 0;
	free(got);
	return right;
}

static void *
service_run(void *argument)
{
	struct service *service = argument;
	while (!service->stop) {
		if (!readable_within(service->listener, 20))
			continue;
		int fd = accept4(service->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		set_timeouts(fd);
		struct ucred peer = {0};
		socklen_t length = sizeof peer;
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
		service->last_pid = peer.pid;
		if (service_reads(service, fd))
			service->served++;
		else
			service->wrong++;
		(void)!send(fd, &service->answer, 1, MSG_NOSIGNAL);
		close(fd);
	}
	return NULL;
}

void
service_start(struct service *service)
{
	must(pthread_create(&service->thread, NULL, service_run, service) == 0, "pthread_create");
}

void
service_stop(struct service *service)
{
	service->stop = true;
	pthread_join(service->thread, NULL);
}

/* Sends back what has arrived. Returns false at the end of the stream. */
static bool
send_back(int fd)
{
	uint8_t bytes[16384];
	ssize_t length = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
	if (length < 0)
		return errno == EAGAIN;
	return length > 0 && send(fd, bytes, (size_t)length, MSG_NOSIGNAL) == length;
}

static void *
echo_run(void *argument)
{
	enum { EVENTS = 64, INTERVAL_MS = 20 };
	struct echo *echo = argument;
	int set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = echo->listener};
	must(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, echo->listener, &event) == 0, "epoll");
	while (!echo->stop) {
		struct epoll_event events[EVENTS];
		int count = epoll_wait(set, events, EVENTS, INTERVAL_MS);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == echo->listener) {
				event.data.fd = keep(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
				if (event.data.fd >= 0)
					epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event);
			} else if (!send_back(fd)) {
				close(fd);
			}
		}
	}
	close(set);
	return NULL;
}

void
echo_start(struct echo *echo)
{
	must(pthread_create(&echo->thread, NULL, echo_run, echo) == 0, "pthread_create");
}

void
echo_stop(struct echo *echo)
{
	echo->stop = true;
	pthread_join(echo->thread, NULL);
}

static void
load_once(struct load *load)
{
	int fd = client_try_connect(NULL);
	errno = fd < 0 ? errno : 0;
	uint8_t answer[8];
	size_t length = 0;
	if (fd >= 0 && send(fd, load->hello.data, load->hello.length, MSG_NOSIGNAL) > 0)
		length = read_up_to(fd, answer, sizeof answer);
	if (length == 1) {
		load->served++;
	} else {
		load->error = errno != 0 ? errno : -(int)length;
		load->failed++;
	}
	if (fd >= 0)
		close(fd);
}

static void *
load_run(void *argument)
{
	struct load *load = argument;
	while (!load->stop)
		load_once(load);
	return NULL;
}

void
load_start(struct load *load, int threads)
{
	load->threads = threads;
	for (int i = 0; i < threads; i++)
		must(pthread_create(&load->thread[i], NULL, load_run, load) == 0, "pthread_create");
}

void
load_stop(struct load *load)
{
	load->stop = true;
	for (int i = 0; i < load->threads; i++)
		pthread_join(load->thread[i], NULL);
}

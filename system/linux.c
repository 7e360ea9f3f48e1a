/* Linux, with glibc or musl. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* --- Sockets --- */

/* Forbids backends to pass descriptors (Linux 6.16): closing one may take long (SO_LINGER). */
int
system_socket(int domain)
{
	int s = socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s != -1)
		setsockopt(s, SOL_SOCKET, SO_PASSRIGHTS, &(const int){0}, sizeof(int));
	return s;
}

int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	return accept4(listener, peer, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

/* Returns the protocol of SOCKET, or -1 with errno set. */
static int
protocol_of(int socket)
{
	int protocol;
	socklen_t size = sizeof protocol;
	return getsockopt(socket, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 ? protocol : -1;
}

bool
system_is_tcp(int socket)
{
	int protocol = protocol_of(socket);
	return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

/* An MPTCP socket does not. */
bool
system_accept_heeds_timeout(int listener)
{
	return protocol_of(listener) == IPPROTO_TCP;
}

void
system_tune_tcp(int socket, int idle_s, int interval_s, int probes, int unsent_max)
{
	const struct {
		int name, value;
	} options[] = {
	    {TCP_KEEPIDLE, idle_s},
	    {TCP_KEEPINTVL, interval_s},
	    {TCP_KEEPCNT, probes},
	    {TCP_USER_TIMEOUT, (idle_s + probes * interval_s) * 1000},
	    {TCP_NOTSENT_LOWAT, unsent_max},
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(socket, IPPROTO_TCP, options[i].name, &options[i].value,
		    sizeof options[i].value);
}

bool
system_has_unread(int socket)
{
	int bytes = 0;
	return ioctl(socket, FIONREAD, &bytes) == 0 && bytes > 0;
}

/* TIOCOUTQ is another name of SIOCOUTQ: tcp(7), unix(7). */
int
system_unsent(int socket)
{
	int bytes = 0;
	return ioctl(socket, SIOCOUTQNSD, &bytes) == 0 ? bytes : system_unacknowledged(socket);
}

int
system_unacknowledged(int socket)
{
	int bytes = 0;
	ioctl(socket, TIOCOUTQ, &bytes);
	return bytes;
}

/* --- Watching many sockets --- */

static int watched = -1;

const char system_watch_call[] = "epoll";

bool
system_watch_open(void)
{
	watched = epoll_create1(EPOLL_CLOEXEC);
	return watched != -1;
}

bool
system_watch_add(int socket, bool reads, void *owner)
{
	struct epoll_event event = {.events = reads ? EPOLLIN | EPOLLRDHUP : 0, .data.ptr = owner};
	return epoll_ctl(watched, EPOLL_CTL_ADD, socket, &event) == 0;
}

void
system_watch_remove(int socket)
{
	epoll_ctl(watched, EPOLL_CTL_DEL, socket, NULL);
}

/* Does not fetch events: an owner may end before the caller has the lock. */
void
system_watch_wait(int timeout_ms)
{
	struct pollfd set = {.fd = watched, .events = POLLIN};
	poll(&set, 1, timeout_ms);
}

int
system_watch_fetch(void *owners[], int most)
{
	struct epoll_event events[64];
	const int size = sizeof events / sizeof *events;
	int count = epoll_wait(watched, events, most < size ? most : size, 0);
	for (int i = 0; i < count; i++)
		owners[i] = events[i].data.ptr;
	return count > 0 ? count : 0;
}

/* --- Bytes that are not copied --- */

/* New pipes are small if the user has many (pipe(7), pipe-user-pages-soft). */
bool
system_open_pipe(int ends[2], int size, int size_min)
{
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == -1)
		return false;
	fcntl(ends[1], F_SETPIPE_SZ, size);
	if (fcntl(ends[1], F_GETPIPE_SZ) >= size_min)
		return true;
	close(ends[0]);
	close(ends[1]);
	return false;
}

ssize_t
system_splice(int from, int to, size_t length)
{
	return splice(from, NULL, to, NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

/* --- Directories --- */

const char system_long_path[] = "tls-socket (by its path)";

int
system_open_hosts(void)
{
	return open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int
system_stat_hosts(int hosts, struct stat *status)
{
	return fstat(hosts, status);
}

int
system_open_host(int hosts, const char *name, char prefix[256])
{
	prefix[0] = '\0';
	return system_open_path(hosts, name, O_DIRECTORY);
}

int
system_open_path(int directory, const char *name, int flags)
{
	return openat(directory, name, O_PATH | O_CLOEXEC | flags);
}

/* PATH fits: it is the name of a socket, or by_descriptor below. */
static int
connect_to(int socket, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	return connect(socket, (const struct sockaddr *)&address, sizeof address);
}

/* A host directory's name may be too long for a socket address, and there is no connectat(2). So
 * the thread gets a working directory of its own and changes to that directory. It changes back,
 * because otherwise the directory could not be unmounted. If unshare(2) is refused, as in some
 * containers, /proc has a short name for the descriptor. */
int
system_connect(int hosts, int directory, const char *path, int socket, const char **failed)
{
	static _Thread_local enum { UNKNOWN, ITS_OWN, COMMON } working_directory;
	static const char descriptors[] = "/proc/self/fd";
	char by_descriptor[sizeof descriptors + 32];
	if (working_directory == UNKNOWN)
		working_directory = unshare(CLONE_FS) == 0 ? ITS_OWN : COMMON;
	if (working_directory == ITS_OWN) {
		if (fchdir(directory) == -1)
			return -1;
		int error = connect_to(socket, path) == -1 ? errno : 0;
		(void)!fchdir(hosts);
		errno = error;
		return error == 0 ? 0 : -1;
	}
	snprintf(by_descriptor, sizeof by_descriptor, "%s/%d/%s", descriptors, directory, path);
	int result = connect_to(socket, by_descriptor);
	if (result == -1 && errno == ENOENT && access(descriptors, X_OK) == -1)
		*failed = "/proc/self/fd (because unshare(2) is refused)";
	return result;
}

/* --- Whose a host is --- */

bool
system_know_listener(int socket, uid_t *user)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == -1)
		return false;
	*user = peer.uid;
	return true;
}

/* --- Threads --- */

void
system_schedule_batch(void)
{
	const struct sched_param parameter = {0};
	sched_setscheduler(0, SCHED_BATCH, &parameter);
}

/* glibc keeps the stacks of hundreds of ended threads, with the memory that these have used. */
void
system_release_stack(size_t size)
{
	char *end = (char *)__builtin_frame_address(0) - 512; /* for this function itself */
	end -= (uintptr_t)end % (uintptr_t)sysconf(_SC_PAGESIZE);
	madvise(end - size, size, MADV_DONTNEED);
}

/* --- The machine --- */

/* Returns LIMIT, or the least limit that a control group of this process, or a group around it,
 * has in FILE; in version 1, FILE_V1. See cgroups(7). A limit of 0 is none, as is "max". */
static uint64_t
group_limit(uint64_t limit, const char *file, const char *file_v1)
{
	char controller[192] = "", group[PATH_MAX], path[PATH_MAX + 256], number[32];
	FILE *groups = fopen("/proc/self/cgroup", "re");
	if (groups == NULL)
		return limit;
	while (fscanf(groups, "%*d:%191[^:]", controller) != EOF &&
	    fscanf(groups, ":%4095[^\n]", group) == 1) {
		for (char *end = group; end != NULL;) {
			snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s/%s", controller, group,
			    controller[0] == '\0' ? file : file_v1);
			FILE *of_group = fopen(path, "re");
			bool is_told = of_group != NULL && fscanf(of_group, "%31s", number) == 1;
			uint64_t found = is_told ? strtoull(number, NULL, 10) : 0;
			if (found != 0 && found < limit)
				limit = found;
			if (of_group != NULL)
				fclose(of_group);
			end = strrchr(group, '/');
			if (end != NULL)
				*end = '\0';
		}
		controller[0] = '\0'; /* version 2 names none */
	}
	fclose(groups);
	return limit;
}

uint64_t
system_memory(void)
{
	struct sysinfo info;
	uint64_t machine =
	    sysinfo(&info) == -1 ? UINT64_MAX : (uint64_t)info.totalram * info.mem_unit;
	return group_limit(machine, "memory.max", "memory.limit_in_bytes");
}

uint64_t
system_threads(void)
{
	struct rlimit threads;
	getrlimit(RLIMIT_NPROC, &threads);
	return group_limit(threads.rlim_cur, "pids.max", "pids.max");
}

uint64_t
system_open_files(void)
{
	return UINT64_MAX;
}

/* musl has one arena anyway. */
void
system_share_memory(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
#endif
}

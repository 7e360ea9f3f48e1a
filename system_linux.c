/* Linux, with glibc or musl. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* --- Sockets --- */

int
system_socket(int domain)
{
	return socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int
system_accept(int listener, struct sockaddr *peer, socklen_t *size)
{
	return accept4(listener, peer, size, SOCK_CLOEXEC);
}

/* Returns the protocol of SOCKET, or -1 with errno set. */
static int
protocol_of(int socket)
{
	int protocol;
	socklen_t size = sizeof protocol;
	return getsockopt(socket, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0
	    ? protocol
	    : -1;
}

bool
system_is_tcp(int socket)
{
	int protocol = protocol_of(socket);
	return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

/* A socket of MPTCP keeps its timeouts to itself: accept(2) does not heed them, and what that gives does
 * not have them. */
bool
system_accepted_inherit(int listener)
{
	return protocol_of(listener) == IPPROTO_TCP;
}

ssize_t
system_receive_now(int socket, void *buffer, size_t size)
{
	return recv(socket, buffer, size, MSG_DONTWAIT);
}

ssize_t
system_peek(int socket, void *buffer, size_t size)
{
	return recv(socket, buffer, size, MSG_PEEK | MSG_DONTWAIT);
}

ssize_t
system_send_now(int socket, const void *bytes, size_t length)
{
	return send(socket, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
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

int
system_untaken(int socket)
{
	int bytes = 0;
	ioctl(socket, TIOCOUTQ, &bytes); /* another name of SIOCOUTQ: tcp(7), unix(7) */
	return bytes;
}

/* Asks about SOCKET. Where less is told than SIZE_MIN, nothing is known: old kernels, and what stands in
 * for one, may not have it all. */
static bool
know(int socket, struct tcp_info *info, size_t size_min)
{
	socklen_t size = sizeof *info;
	return getsockopt(socket, IPPROTO_TCP, TCP_INFO, info, &size) == 0 &&
	    size >= size_min;
}

/* Of MPTCP, it would be the bytes of one path. */
bool
system_know_taken(int socket, uint64_t *bytes)
{
	struct tcp_info info;
	if (protocol_of(socket) != IPPROTO_TCP ||
	    !know(socket, &info, offsetof(struct tcp_info, tcpi_bytes_received)))
		return false;
	*bytes = info.tcpi_bytes_acked;
	return true;
}

/* TCP_LISTEN of <netinet/tcp.h>, which lacks what <linux/tcp.h> has. */
enum { LISTEN = 10 };

/* For a listening socket, tcpi_unacked is the length of its queue, and tcpi_sacked how long it may
 * be. */
bool
system_know_queue(int listener, unsigned *waiting, unsigned *places)
{
	struct tcp_info info;
	if (!know(listener, &info, offsetof(struct tcp_info, tcpi_lost)) ||
	    info.tcpi_state != LISTEN)
		return false;
	*waiting = info.tcpi_unacked;
	*places = info.tcpi_sacked;
	return true;
}

bool
system_was_silent(int socket, int ms)
{
	struct tcp_info info;
	return know(socket, &info, offsetof(struct tcp_info, tcpi_pmtu)) &&
	    info.tcpi_last_ack_recv >= (uint32_t)ms;
}

/* --- Bytes that are not copied --- */

bool
system_has_splice(void)
{
	return true;
}

/* A pipe is small where its user has many (pipe(7), pipe-user-pages-soft). */
bool
system_open_pipe(int ends[2], int size, int size_min)
{
	if (pipe2(ends, O_CLOEXEC) == -1)
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
	return splice(from, NULL, to, NULL, length, SPLICE_F_MOVE);
}

/* --- Directories: a thread may have a working directory of its own --- */

const char system_long_path[] = "tls-socket (by its path, because unshare(2) is refused)";

int
system_open_directory(void)
{
	return open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* To ask again for what it has costs nothing. */
bool
system_can_enter(void)
{
	return unshare(CLONE_FS) == 0;
}

int
system_enter(int home, const char *name)
{
	(void)home;
	return chdir(name) == 0 ? AT_FDCWD : -1;
}

int
system_enter_opened(int directory)
{
	int error = fchdir(directory) == -1 ? errno : 0;
	close(directory);
	errno = error;
	return error == 0 ? AT_FDCWD : -1;
}

bool
system_leave(int place, int home)
{
	(void)place;
	return fchdir(home) == 0;
}

int
system_connect(int place, int socket, const struct sockaddr *address, socklen_t size)
{
	(void)place;
	return connect(socket, address, size);
}

/* --- Whose a host is --- */

const char system_descriptors[] = "/proc/self/fd";
const char system_no_descriptors[] = "/proc/self/fd (because unshare(2) is refused)";

int
system_open_path(int directory, const char *name, int flags)
{
	return openat(directory, name, O_PATH | O_CLOEXEC | flags);
}

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
system_work_in_batches(bool batches)
{
	const struct sched_param parameter = {0};
	sched_setscheduler(0, batches ? SCHED_BATCH : SCHED_OTHER, &parameter);
}

void
system_name_thread(const char *name)
{
	prctl(PR_SET_NAME, name);
}

void
system_tick(struct timespec *tick)
{
	clock_gettime(CLOCK_MONOTONIC_COARSE, tick);
}

void
system_init_condition(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

bool
system_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t deadline_ms)
{
	struct timespec until = {
	    deadline_ms / 1000, (long)(deadline_ms % 1000) * 1000000};
	return pthread_cond_timedwait(condition, mutex, &until) != ETIMEDOUT;
}

/* --- The machine --- */

unsigned
system_processors(void)
{
	cpu_set_t processors;
	if (sched_getaffinity(0, sizeof processors, &processors) == -1)
		return 0;
	return (unsigned)CPU_COUNT(&processors);
}

uint64_t
system_memory(void)
{
	struct sysinfo info;
	if (sysinfo(&info) == -1)
		return 0;
	return (uint64_t)info.totalram * info.mem_unit;
}

uint64_t
system_open_files(void)
{
	return 0;
}

/* musl has one arena anyway. */
void
system_share_memory(void)
{
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
#endif
}

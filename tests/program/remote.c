#include "tests/program/remote.h"

#include "tests/program/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	SOCKETS_MAX = 1 + REMOTE_CLIENTS_MAX, /* the first one listens */
	HELD = 800,                           /* connections of the flood */
	ATTACKER_ADDRESSES = 0x3ffffd,
	PACKET_MAX = 1500,
	PACKETS = 4096, /* on their way, at most */

	/* Exit statuses of the process. */
	NO_NAMESPACE = 2,
	NO_TUN = 3,
};

#define DEVICE_ADDRESS 0x0a000001 /* 10.0.0.1/8 */
#define DEVICE_MASK 0xff000000
#define CLIENT_ADDRESS 0x0a090000   /* and the following ones */
#define ATTACKER_ADDRESS 0x7f400001 /* and the following ones */

static struct {
	pid_t pid;
	int control; /* a socket between the test and the process */
	int sockets[SOCKETS_MAX];
	int count;
} remote;

static struct sockaddr_in
address_of(uint32_t address, uint16_t port)
{
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
}

static int64_t
now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Returns a message of one byte with room for all sockets. */
static struct msghdr
message_with_room(void)
{
	static char byte = 's';
	static struct iovec bytes = {.iov_base = &byte, .iov_len = 1};
	static _Alignas(struct cmsghdr) char rights[CMSG_SPACE(sizeof remote.sockets)];
	return (struct msghdr){.msg_iov = &bytes,
	    .msg_iovlen = 1,
	    .msg_control = rights,
	    .msg_controllen = CMSG_SPACE(sizeof *remote.sockets * (size_t)remote.count)};
}

/* --- The process --- */

/* Ends the process with an error message. */
_Noreturn static void
give_up(const char *what)
{
	fprintf(stderr, "remote: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void
configure(const char *device, unsigned long what, struct ifreq value)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(value.ifr_name, sizeof value.ifr_name, "%s", device);
	if (s < 0 || ioctl(s, what, &value) < 0)
		give_up(device);
	close(s);
}

static void
configure_address(const char *device, unsigned long what, uint32_t address)
{
	struct sockaddr_in in = address_of(address, 0);
	struct ifreq value = {0};
	memcpy(&value.ifr_addr, &in, sizeof in);
	configure(device, what, value);
}

/* Enters a namespace and configures its devices. Returns the TUN device. */
static int
open_network(void)
{
	const struct ifreq up = {.ifr_flags = IFF_UP | IFF_RUNNING};
	struct ifreq device = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		_exit(NO_NAMESPACE);
	int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tun < 0)
		_exit(NO_TUN);
	if (ioctl(tun, TUNSETIFF, &device) < 0)
		give_up("TUNSETIFF");
	configure("lo", SIOCSIFFLAGS, up);
	configure_address(device.ifr_name, SIOCSIFADDR, DEVICE_ADDRESS);
	configure_address(device.ifr_name, SIOCSIFNETMASK, DEVICE_MASK);
	configure(device.ifr_name, SIOCSIFFLAGS, up);
	return tun;
}

static void
make_sockets(int patience_s)
{
	const int on = 1;
	const struct timeval patience = {.tv_sec = patience_s};
	const struct sockaddr_in any = address_of(INADDR_ANY, 0);
	for (int i = 0; i < remote.count; i++) {
		int s = remote.sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (s < 0)
			give_up("socket");
		if (i == 0)
			continue;
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	}
	if (bind(remote.sockets[0], (const struct sockaddr *)&any, sizeof any) < 0 ||
	    listen(remote.sockets[0], SOMAXCONN) < 0)
		give_up("listen");
}

/* Passes the sockets to the test and closes them here. */
static void
pass_sockets(void)
{
	const size_t size = sizeof *remote.sockets * (size_t)remote.count;
	struct msghdr message = message_with_room();
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	*rights = (struct cmsghdr){
	    .cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(rights), remote.sockets, size);
	if (sendmsg(remote.control, &message, 0) != 1)
		give_up("sendmsg");
	for (int i = 0; i < remote.count; i++)
		close(remote.sockets[i]);
}

static int
attack_from(uint32_t address, uint16_t port)
{
	const struct sockaddr_in source = address_of(address, 0);
	const struct sockaddr_in target = address_of(INADDR_LOOPBACK, port);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0 || bind(s, (const struct sockaddr *)&source, sizeof source) < 0 ||
	    (connect(s, (const struct sockaddr *)&target, sizeof target) < 0 &&
		errno != EINPROGRESS))
		give_up("attacker");
	return s;
}

/* Ends the process with its parent. The kernel forgets this in unshare(2). */
static void
end_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

/* Receives the rate from the test, and floods PORT until the test closes the control socket. */
_Noreturn static void
run_flood(uint16_t port)
{
	static int held[HELD];
	int rate;
	if (recv(remote.control, &rate, sizeof rate, 0) != sizeof rate)
		_exit(0);
	int64_t began_us = now_us();
	char byte;
	for (uint32_t i = 0; recv(remote.control, &byte, 1, MSG_DONTWAIT) != 0; i++) {
		if (i >= HELD)
			reset_connection(held[i % HELD]);
		held[i % HELD] = attack_from(ATTACKER_ADDRESS + i % ATTACKER_ADDRESSES, port);
		int64_t due_us = rate == 0 ? 0 : began_us + (int64_t)(i + 1) * 1000000 / rate;
		int64_t left_us = due_us - now_us();
		if (left_us > 0)
			usleep((useconds_t)left_us);
	}
	_exit(0);
}

/* The flood is a process of its own, so that it does not delay packets. */
static void
start_flood(uint16_t port)
{
	pid_t parent = getpid();
	signal(SIGCHLD, SIG_IGN); /* no caller waits for it */
	pid_t pid = fork();
	if (pid < 0)
		give_up("fork");
	if (pid > 0) {
		close(remote.control);
		return;
	}
	end_with(parent);
	run_flood(port);
}

struct packet {
	int64_t due_us;
	size_t length;
	uint8_t bytes[PACKET_MAX];
};

/* Receives a packet and exchanges its addresses. Returns false if there is none. */
static bool
take_packet(int tun, struct packet *p, int64_t delay_us)
{
	struct iphdr header = {0};
	while (header.version != IPVERSION) {
		ssize_t length = read(tun, p->bytes, sizeof p->bytes);
		if (length < 0 && errno != EAGAIN)
			give_up("read");
		if (length < 0)
			return false;
		p->length = (size_t)length;
		memcpy(&header, p->bytes, sizeof header);
	}
	memcpy(p->bytes + offsetof(struct iphdr, saddr), &header.daddr, sizeof header.daddr);
	memcpy(p->bytes + offsetof(struct iphdr, daddr), &header.saddr, sizeof header.saddr);
	p->due_us = now_us() + delay_us;
	return true;
}

/* Delays all packets by DELAY_US; they stay in order. */
_Noreturn static void
forward(int tun, int64_t delay_us)
{
	static struct packet packets[PACKETS];
	unsigned first = 0, end = 0; /* of those on their way */
	for (;;) {
		struct pollfd entry = {.fd = end - first < PACKETS ? tun : -1, .events = POLLIN};
		int64_t left_us = first != end ? packets[first % PACKETS].due_us - now_us() : 0;
		struct timespec left = {0};
		if (left_us > 0)
			left = (struct timespec){left_us / 1000000, left_us % 1000000 * 1000};
		ppoll(&entry, 1, first != end ? &left : NULL, NULL);
		for (; first != end && packets[first % PACKETS].due_us <= now_us(); first++) {
			const struct packet *p = &packets[first % PACKETS];
			(void)!write(tun, p->bytes, p->length);
		}
		while (end - first < PACKETS && take_packet(tun, &packets[end % PACKETS], delay_us))
			end++;
	}
}

/* --- The test --- */

static void
receive_sockets(void)
{
	const size_t size = sizeof *remote.sockets * (size_t)remote.count;
	struct msghdr message = message_with_room();
	int status;
	if (recvmsg(remote.control, &message, MSG_CMSG_CLOEXEC) == 1) {
		const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		check(rights != NULL && rights->cmsg_len == CMSG_LEN(size), "sockets are missing");
		memcpy(remote.sockets, CMSG_DATA(rights), size);
		return;
	}
	check(waitpid(remote.pid, &status, 0) == remote.pid && WIFEXITED(status), "waitpid");
	if (WEXITSTATUS(status) == NO_NAMESPACE)
		skip("needs root, or user namespaces");
	if (WEXITSTATUS(status) == NO_TUN)
		skip("needs access to /dev/net/tun");
	fail_at(HERE, "the network has failed");
}

/* The test has several threads, and unshare(2) refuses a user namespace to such a process. */
void
remote_start(int rtt_ms, int *clients, int count, int patience_s)
{
	int ends[2];
	pid_t parent = getpid();
	check(count <= REMOTE_CLIENTS_MAX, "too many clients");
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	remote.count = 1 + count;
	remote.pid = fork();
	check(remote.pid >= 0, "fork");
	remote.control = ends[remote.pid == 0];
	close(ends[remote.pid != 0]);
	if (remote.pid == 0) {
		int tun = open_network();
		end_with(parent);
		make_sockets(patience_s);
		uint16_t port = local_port(remote.sockets[0]);
		pass_sockets();
		start_flood(port);
		forward(tun, (int64_t)rtt_ms * 1000 / 2);
	}
	receive_sockets();
	server.listener = remote.sockets[0];
	server.port = local_port(server.listener);
	memcpy(clients, remote.sockets + 1, sizeof *clients * (size_t)count);
}

bool
remote_connect(int client, int number)
{
	const struct sockaddr_in target =
	    address_of(CLIENT_ADDRESS + (uint32_t)number, server.port);
	return connect(client, (const struct sockaddr *)&target, sizeof target) == 0;
}

void
remote_flood(int rate)
{
	check(send(remote.control, &rate, sizeof rate, 0) == sizeof rate, "send");
}

void
remote_end_flood(void)
{
	char byte;
	check(recv(remote.control, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN,
	    "the flood has failed");
	close(remote.control);
}

/* If the process ended earlier, it has printed the reason. */
void
remote_stop(void)
{
	int status;
	kill(remote.pid, SIGKILL);
	check(waitpid(remote.pid, &status, 0) == remote.pid, "waitpid");
	check(WIFSIGNALED(status), "the network has failed");
}

/* flood PORT SCENARIO SECONDS ADDRESSES RATE HELD
 *
 * Floods the proxy at PORT of 127.0.0.1 with connections that make no progress, while honest
 * clients connect. Prints counts and times of these, one on each line:
 *
 *	honest		clients, 50 a second: each connects, sends a hello, reads the
 *			answer, closes
 *	failed		those that did not get the answer within ten seconds
 *	p50_us, p99_us, max_us	the time from connect(2) to the end of the answer; a client
 *			that failed counts as one of ten seconds
 *	later_p99_us	the same without the first second, in which all attackers arrive at
 *			once
 *	established	how many of 20 connections that were idle meanwhile still worked
 *			afterwards
 *	attacks		connections that attackers opened
 *	first_failure	an errno, or 0
 *
 * The attackers open RATE connections a second, or, if that is 0, as many as the machine allows.
 * They hold HELD, or, if that is 0, as many as they have descriptors for, and reset the oldest to
 * open the next. SCENARIO says what they do:
 *
 *	silent		nothing
 *	half		send half of a hello
 *	dribble		send a hello byte by byte, without its end
 *	unaccepted	send a hello for busy.example, whose backend never accepts
 *	unread		send a hello for asleep.example, whose backend never reads
 *	stalled		send a hello for bulk.example, and read nothing
 *	rejected	send a hello for a missing host, and do not close
 *	mixture		all of that in turn
 *	idle		send a hello for echo.example, and nothing more
 *	down		send a hello for down.example, which has no socket, and do not close
 *
 * and, if each connection must keep a thread:
 *
 *	sipped		like stalled, but read a little every few seconds
 *	trickle		send a hello for echo.example, and a byte now and then
 *	upload		send a hello for asleep.example, and as much as is taken
 *	threads		stalled, unaccepted, and all of these in turn
 *
 * They connect from ADDRESSES addresses of 127.0.0.0/8 in turn, or, if that is 0, each from a new
 * one. Honest clients have other addresses.
 *
 * Descriptors 3, 4 and 5 are the listening sockets of the backends of answer.example,
 * echo.example and bulk.example, which are served here. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	ANSWER_LISTENER = 3,
	ECHO_LISTENER = 4,
	BULK_LISTENER = 5,
	LAST_LISTENER = BULK_LISTENER,

	HONEST_A_SECOND = 50,
	ESTABLISHED = 20,
	PATIENCE_MS = 10 * 1000,
	ANSWER_SIZE = 1000,

	HELLO_MAX = 256,
	EVENTS = 256,
	DESCRIPTORS_MAX = 20000,
	SPARE_DESCRIPTORS = 64,
	NARROW = 4096, /* the receive buffer of a client that does not read */

	/* The send buffer of an attacker. With more, thousands of them would use up the kernel's
	 * memory for TCP (tcp_mem), which honest clients on this machine need, too. */
	ATTACKER_SEND_BUFFER = 128 * 1024,

	/* A client that takes something each second makes progress, and may keep its thread. */
	SIP_INTERVAL_MS = 2500,
};

/* Where connections come from: the first address of each kind, and how many. */
#define HONEST_ADDRESS 0x7f010001
#define ESTABLISHED_ADDRESS 0x7f020001
#define ATTACKER_ADDRESS 0x7f400001
enum { HONEST_ADDRESSES = 200, BOTNET_ADDRESSES = 0x3ffffd };

struct hello {
	uint8_t bytes[HELLO_MAX];
	size_t length;
};

static struct sockaddr_in server;

/* What the attackers tell the other processes. */
static struct shared {
	uint64_t attacks;
} * shared;

/* --- Time and failure --- */

static int64_t
now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- Hellos --- */

static void
put(struct hello *hello, size_t width, size_t value)
{
	while (width-- > 0)
		hello->bytes[hello->length++] = (uint8_t)(value >> 8 * width);
}

/* Puts a ClientHello for NAME into HELLO, in one record (RFC 8446, 4.1.2; RFC 6066, 3). */
static void
make_hello(struct hello *hello, const char *name)
{
	size_t host_name = strlen(name);
	size_t extension = 2 + 1 + 2 + host_name;
	size_t body = 2 + 32 + 1 + (2 + 2) + (1 + 1) + (2 + 2 + 2 + extension);
	hello->length = 0;
	put(hello, 1, 22);       /* handshake */
	put(hello, 2, 0x0301);   /* legacy_record_version */
	put(hello, 2, 4 + body); /* length */
	put(hello, 1, 1);        /* client_hello */
	put(hello, 3, body);
	put(hello, 2, 0x0303); /* legacy_version */
	for (int i = 0; i < 32; i++)
		put(hello, 1, 0x5a); /* random */
	put(hello, 1, 0);            /* legacy_session_id */
	put(hello, 2, 2);            /* cipher_suites */
	put(hello, 2, 0x1301);
	put(hello, 2, 0x0100);            /* legacy_compression_methods */
	put(hello, 2, 2 + 2 + extension); /* extensions */
	put(hello, 2, 0);                 /* server_name */
	put(hello, 2, extension);
	put(hello, 2, extension - 2);
	put(hello, 1, 0); /* host_name */
	put(hello, 2, host_name);
	memcpy(hello->bytes + hello->length, name, host_name);
	hello->length += host_name;
}

/* --- Sockets --- */

/* Returns a socket that connects to the server from ADDRESS; or -1 with errno set. */
static int
connect_from(uint32_t address, int receive_buffer)
{
	const int on = 1;
	const struct sockaddr_in source = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s == -1)
		return -1;
	setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (receive_buffer != 0)
		setsockopt(s, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
	if (bind(s, (const struct sockaddr *)&source, sizeof source) == 0 &&
	    (connect(s, (const struct sockaddr *)&server, sizeof server) == 0 ||
		errno == EINPROGRESS))
		return s;
	int error = errno;
	close(s);
	errno = error;
	return -1;
}

static void
reset(int socket)
{
	const struct linger now = {.l_onoff = 1};
	setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(socket);
}

static void
watch(int set, int socket, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = socket};
	if (epoll_ctl(set, EPOLL_CTL_ADD, socket, &event) == -1)
		fail("epoll_ctl");
}

static int
make_set(void)
{
	int set = epoll_create1(EPOLL_CLOEXEC);
	if (set == -1)
		fail("epoll_create1");
	return set;
}

/* --- The backends, in processes of their own --- */

/* By descriptor. */
static struct backend {
	int listener;
	size_t received; /* of the hello */
} * backends;

static const uint8_t bulk[256 * 1024];

static void
accept_backend(int set, int listener)
{
	int s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (s == -1)
		return;
	backends[s] = (struct backend){.listener = listener};
	watch(set, s, EPOLLIN | (listener == BULK_LISTENER ? EPOLLOUT | EPOLLET : 0U));
}

/* Answers the hello when it is complete, and after that each piece, if it echoes. Returns false if
 * the connection is over. */
static bool
serve_backend(int socket, size_t hello_length)
{
	static const uint8_t answer[ANSWER_SIZE];
	uint8_t bytes[HELLO_MAX];
	struct backend *b = &backends[socket];
	if (b->listener == BULK_LISTENER) {
		while (recv(socket, bytes, sizeof bytes, 0) > 0) {
		}
		while (send(socket, bulk, sizeof bulk, MSG_NOSIGNAL) > 0) {
		}
		return errno == EAGAIN;
	}
	ssize_t length = recv(socket, bytes, sizeof bytes, 0);
	if (length <= 0)
		return false;
	if (b->received >= hello_length)
		return send(socket, bytes, (size_t)length, MSG_NOSIGNAL) == length;
	b->received += (size_t)length;
	return b->received < hello_length ||
	    send(socket, answer, sizeof answer, MSG_NOSIGNAL) == ANSWER_SIZE;
}

static _Noreturn void
run_backends(int first_listener, int last_listener)
{
	struct hello answer, echo;
	make_hello(&answer, "answer.example");
	make_hello(&echo, "echo.example");
	backends = calloc(DESCRIPTORS_MAX, sizeof *backends);
	if (backends == NULL)
		fail("calloc");
	int set = make_set();
	for (int listener = first_listener; listener <= last_listener; listener++)
		watch(set, listener, EPOLLIN);
	for (;;) {
		struct epoll_event events[EVENTS];
		int count = epoll_wait(set, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd <= LAST_LISTENER)
				accept_backend(set, fd);
			else if (!serve_backend(fd,
				     backends[fd].listener == ECHO_LISTENER ? echo.length
									    : answer.length))
				close(fd);
		}
	}
}

static _Noreturn void
run_small_backends(void)
{
	run_backends(ANSWER_LISTENER, ECHO_LISTENER);
}

/* Its sending must not delay the answers. */
static _Noreturn void
run_bulk_backend(void)
{
	run_backends(BULK_LISTENER, BULK_LISTENER);
}

/* --- The attackers, in a process of their own --- */

/* What an attacker does. */
struct kind {
	const char *name;
	const char *host; /* of the hello; NULL if none is sent */
	enum { ALL, HALF, BYTEWISE } part;
	int receive_buffer;
	enum { NOTHING, SIP, TRICKLE, UPLOAD } then; /* now and then, after the hello */
};

static const struct kind kinds[] = {
    {"silent", NULL, ALL, 0, NOTHING},
    {"half", "answer.example", HALF, 0, NOTHING},
    {"dribble", "answer.example", BYTEWISE, 0, NOTHING},
    {"unread", "asleep.example", ALL, 0, NOTHING},
    {"rejected", "missing.example", ALL, 0, NOTHING},
    {"unaccepted", "busy.example", ALL, 0, NOTHING},
    {"stalled", "bulk.example", ALL, NARROW, NOTHING},
    {"sipped", "bulk.example", ALL, NARROW, SIP},
    {"trickle", "echo.example", ALL, 0, TRICKLE},
    {"upload", "asleep.example", ALL, 0, UPLOAD},
    {"idle", "echo.example", ALL, 0, NOTHING},
    {"down", "down.example", ALL, 0, NOTHING},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Kinds that consist of several. */
static const struct {
	const char *name, *first, *last;
} mixtures[] = {
    {"mixture", "silent", "stalled"},
    {"threads", "unaccepted", "upload"},
};

static struct hello hellos[KINDS];

/* One of the connections that attackers hold. */
struct attacker {
	int socket; /* -1 if there is none */
	unsigned kind;
	size_t sent;
	int64_t sips_us; /* when it takes a little next */
};

static struct {
	unsigned first_kind, kinds; /* the kinds that take turns */
	unsigned addresses;
	unsigned rate;
	int set;
	unsigned count;
	struct attacker *all; /* in the order in which they were opened */
	unsigned dribbler;    /* the next one that does something more */
} attack;

static size_t
wanted(const struct attacker *a)
{
	size_t length = hellos[a->kind].length;
	switch (kinds[a->kind].part) {
	case ALL:
		return length;
	case HALF:
		return length / 2;
	case BYTEWISE:
		return length - 1;
	}
	return 0;
}

/* Sends what can be sent now; the rest is sent later. */
static void
attack_send(struct attacker *a)
{
	size_t left = wanted(a) - a->sent;
	if (a->socket == -1 || left == 0)
		return;
	size_t length = kinds[a->kind].part == BYTEWISE ? 1 : left;
	ssize_t sent = send(a->socket, hellos[a->kind].bytes + a->sent, length, MSG_NOSIGNAL);
	if (sent > 0) {
		a->sent += (size_t)sent;
	} else if (errno != EAGAIN) {
		reset(a->socket);
		a->socket = -1;
	} else if (kinds[a->kind].part != BYTEWISE) {
		struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = a};
		epoll_ctl(attack.set, EPOLL_CTL_ADD, a->socket, &event);
	}
}

/* Does what A does after its hello. A failure is left to the next attacker in its place. */
static void
attack_more(struct attacker *a)
{
	uint8_t bytes[NARROW];
	if (a->socket == -1 || a->sent < wanted(a))
		return;
	switch (kinds[a->kind].then) {
	case NOTHING:
		return;
	case SIP:
		if (now_us() >= a->sips_us && recv(a->socket, bytes, sizeof bytes, 0) > 0)
			a->sips_us = now_us() + SIP_INTERVAL_MS * 1000;
		return;
	case TRICKLE:
		recv(a->socket, bytes, sizeof bytes, 0);
		send(a->socket, "", 1, MSG_NOSIGNAL);
		return;
	case UPLOAD:
		while (send(a->socket, bulk, sizeof bulk, MSG_NOSIGNAL) > 0) {
		}
		return;
	}
}

static void
attack_again(struct attacker *a)
{
	uint64_t number = shared->attacks;
	uint32_t addresses = attack.addresses != 0 ? attack.addresses : (uint32_t)BOTNET_ADDRESSES;
	if (a->socket != -1)
		reset(a->socket);
	a->kind = attack.first_kind + (unsigned)(number % attack.kinds);
	a->sent = 0;
	a->sips_us = 0;
	a->socket = connect_from(
	    ATTACKER_ADDRESS + (uint32_t)(number % addresses), kinds[a->kind].receive_buffer);
	if (a->socket == -1 && errno != EADDRNOTAVAIL)
		fail("attacker");
	shared->attacks += a->socket != -1;
	setsockopt(
	    a->socket, SOL_SOCKET, SO_SNDBUF, &(const int){ATTACKER_SEND_BUFFER}, sizeof(int));
	attack_send(a);
}

/* Lets some attackers send that could not before, and some of the OPENED act now and then. */
static void
attack_on(unsigned opened)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(attack.set, events, EVENTS, 0);
	for (int i = 0; i < count; i++)
		attack_send(events[i].data.ptr);
	for (int i = 0; i < EVENTS; i++) {
		attack.dribbler = (attack.dribbler + 1) % opened;
		struct attacker *a = &attack.all[attack.dribbler];
		if (kinds[a->kind].part == BYTEWISE)
			attack_send(a);
		attack_more(a);
	}
}

/* Waits until attack NUMBER is due. */
static void
keep_rate(int64_t began_us, uint64_t number)
{
	if (attack.rate == 0)
		return;
	int64_t due_us = began_us + (int64_t)(number * 1000000 / attack.rate);
	int64_t left_us = due_us - now_us();
	if (left_us > 0)
		usleep((useconds_t)left_us);
}

static _Noreturn void
run_attackers(void)
{
	const unsigned opened_at_once = 64;
	attack.all = calloc(attack.count, sizeof *attack.all);
	attack.set = make_set();
	if (attack.all == NULL)
		fail("calloc");
	for (unsigned i = 0; i < attack.count; i++)
		attack.all[i].socket = -1;
	int64_t began_us = now_us();
	for (unsigned i = 0;; i++) {
		attack_again(&attack.all[i % attack.count]);
		if (i % opened_at_once != 0)
			continue;
		attack_on(i < attack.count ? i + 1 : attack.count);
		keep_rate(began_us, i);
	}
}

/* Returns the kind with NAME, or KINDS. */
static unsigned
kind_of(const char *name)
{
	unsigned i = 0;
	while (i < KINDS && strcmp(kinds[i].name, name) != 0)
		i++;
	return i;
}

static bool
choose_scenario(const char *name)
{
	const char *last = name;
	for (size_t i = 0; i < sizeof mixtures / sizeof *mixtures; i++)
		if (strcmp(mixtures[i].name, name) == 0) {
			name = mixtures[i].first;
			last = mixtures[i].last;
			break;
		}
	attack.first_kind = kind_of(name);
	if (attack.first_kind == KINDS)
		return false;
	attack.kinds = kind_of(last) - attack.first_kind + 1;
	for (unsigned i = 0; i < KINDS; i++)
		if (kinds[i].host != NULL)
			make_hello(&hellos[i], kinds[i].host);
	return true;
}

/* --- The honest clients --- */

struct client {
	int socket;
	int64_t began_us;
	bool sent;
	size_t received;
};

static struct {
	int set;
	struct hello hello;
	struct client *clients; /* in the order in which they were opened */
	int64_t *times_us;      /* how long each took, in the same order */
	unsigned wanted, opened, ended, failed;
	unsigned oldest; /* all earlier ones have ended */
	int first_failure;
} honest;

static void
end_client(struct client *c, int error)
{
	if (c->socket != -1)
		close(c->socket);
	c->socket = -1;
	honest.ended++;
	honest.times_us[c - honest.clients] =
	    error == 0 ? now_us() - c->began_us : PATIENCE_MS * 1000;
	if (error == 0)
		return;
	if (honest.failed++ == 0)
		honest.first_failure = error;
}

static void
open_client(void)
{
	struct client *c = &honest.clients[honest.opened];
	c->began_us = now_us();
	c->socket = connect_from(HONEST_ADDRESS + honest.opened % HONEST_ADDRESSES, 0);
	honest.opened++;
	if (c->socket == -1) {
		end_client(c, errno);
		return;
	}
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
	if (epoll_ctl(honest.set, EPOLL_CTL_ADD, c->socket, &event) == -1)
		fail("epoll_ctl");
}

static void
serve_client(struct client *c)
{
	uint8_t bytes[ANSWER_SIZE];
	ssize_t length;
	if (c->socket == -1)
		return;
	if (!c->sent) {
		length = send(c->socket, honest.hello.bytes, honest.hello.length, MSG_NOSIGNAL);
		if (length == -1 && errno != EAGAIN) {
			end_client(c, errno);
			return;
		}
		c->sent = length > 0;
	}
	while ((length = recv(c->socket, bytes, sizeof bytes, 0)) > 0)
		c->received += (size_t)length;
	if (length == -1 && errno != EAGAIN)
		end_client(c, errno);
	else if (c->received >= ANSWER_SIZE)
		end_client(c, 0);
	else if (length == 0) /* an alert, or a short answer */
		end_client(c, EPROTO);
}

static void
give_up_on_old_clients(void)
{
	int64_t before_us = now_us() - PATIENCE_MS * 1000;
	for (; honest.oldest < honest.opened; honest.oldest++) {
		struct client *c = &honest.clients[honest.oldest];
		if (c->socket != -1 && c->began_us > before_us)
			return;
		if (c->socket != -1)
			end_client(c, ETIMEDOUT);
	}
}

static void
run_honest_clients(void)
{
	int64_t began_us = now_us();
	while (honest.ended < honest.wanted) {
		int64_t due_us = began_us + (int64_t)honest.opened * 1000000 / HONEST_A_SECOND;
		int64_t left_us = due_us - now_us();
		if (honest.opened < honest.wanted && left_us <= 0) {
			open_client();
			continue;
		}
		struct epoll_event events[EVENTS];
		int timeout_ms = honest.opened < honest.wanted ? (int)(left_us + 999) / 1000
							       : 1000 / HONEST_A_SECOND;
		int count = epoll_wait(honest.set, events, EVENTS, timeout_ms);
		for (int i = 0; i < count; i++)
			serve_client(events[i].data.ptr);
		give_up_on_old_clients();
	}
}

static void
prepare_honest_clients(unsigned seconds)
{
	honest.wanted = seconds * HONEST_A_SECOND;
	honest.set = make_set();
	honest.clients = calloc(honest.wanted, sizeof *honest.clients);
	honest.times_us = calloc(honest.wanted, sizeof *honest.times_us);
	if (honest.clients == NULL || honest.times_us == NULL)
		fail("calloc");
	make_hello(&honest.hello, "answer.example");
}

/* --- Established, idle connections --- */

static int established[ESTABLISHED];

static bool
exchange(int socket, const void *bytes, size_t length, size_t answer_length)
{
	uint8_t answer[ANSWER_SIZE];
	struct pollfd entry = {.fd = socket, .events = POLLOUT};
	if (poll(&entry, 1, PATIENCE_MS) != 1 ||
	    send(socket, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
		return false;
	entry.events = POLLIN;
	while (answer_length > 0) {
		if (poll(&entry, 1, PATIENCE_MS) != 1)
			return false;
		ssize_t got = recv(socket, answer,
		    answer_length < sizeof answer ? answer_length : sizeof answer, 0);
		if (got <= 0)
			return false;
		answer_length -= (size_t)got;
	}
	return true;
}

static void
establish(void)
{
	struct hello hello;
	make_hello(&hello, "echo.example");
	for (unsigned i = 0; i < ESTABLISHED; i++) {
		established[i] = connect_from(ESTABLISHED_ADDRESS + i, 0);
		if (established[i] == -1 ||
		    !exchange(established[i], hello.bytes, hello.length, ANSWER_SIZE))
			fail("connection before the flood");
	}
}

static unsigned
still_established(void)
{
	unsigned count = 0;
	for (unsigned i = 0; i < ESTABLISHED; i++)
		count += exchange(established[i], "ping", 4, 4);
	return count;
}

/* --- The whole --- */

static pid_t
start(void (*run)(void))
{
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == -1)
		fail("fork");
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		run();
	_exit(1);
}

/* Ends the process; fails if it had ended before. */
static void
stop(pid_t pid, const char *who)
{
	int status;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (!WIFSIGNALED(status)) {
		fprintf(stderr, "flood: the %s have failed\n", who);
		exit(1);
	}
}

static void
raise_open_files(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < DESCRIPTORS_MAX ? files.rlim_max : DESCRIPTORS_MAX;
	setrlimit(RLIMIT_NOFILE, &files);
	attack.count = (unsigned)files.rlim_cur - SPARE_DESCRIPTORS;
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

/* Sorts COUNT times. */
static int64_t *
sorted(int64_t *times_us, unsigned count)
{
	qsort(times_us, count, sizeof *times_us, compare);
	return times_us;
}

static void
print(unsigned survivors)
{
	unsigned later = honest.ended - HONEST_A_SECOND;
	int64_t *times_us = sorted(honest.times_us + HONEST_A_SECOND, later);
	int64_t later_p99_us = times_us[later * 99 / 100];
	times_us = sorted(honest.times_us, honest.ended);
	printf("honest %u\nfailed %u\n", honest.ended, honest.failed);
	printf("p50_us %ld\np99_us %ld\nlater_p99_us %ld\nmax_us %ld\n",
	    (long)times_us[honest.ended / 2], (long)times_us[honest.ended * 99 / 100],
	    (long)later_p99_us, (long)times_us[honest.ended - 1]);
	printf("established %u\nattacks %lu\nfirst_failure %d\n", survivors,
	    (unsigned long)shared->attacks, honest.first_failure);
}

static unsigned
number(const char *text, unsigned least, unsigned most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	if (end != text && *end == '\0' && value >= least && value <= most)
		return (unsigned)value;
	fprintf(stderr, "flood: %s: not a number from %u to %u\n", text, least, most);
	exit(2);
}

int
main(int argc, char **argv)
{
	if (argc != 7 || !choose_scenario(argv[2])) {
		fprintf(stderr, "usage: flood PORT SCENARIO SECONDS ADDRESSES RATE HELD\n");
		return 2;
	}
	server = (struct sockaddr_in){
	    .sin_family = AF_INET,
	    .sin_port = htons((uint16_t)number(argv[1], 1, UINT16_MAX)),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	unsigned seconds = number(argv[3], 2, 3600);
	attack.addresses = number(argv[4], 0, 1000);
	attack.rate = number(argv[5], 0, 1000000);
	shared =
	    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	raise_open_files();
	unsigned held = number(argv[6], 0, attack.count);
	if (held != 0)
		attack.count = held;
	prepare_honest_clients(seconds);

	pid_t small_backends_pid = start(run_small_backends);
	pid_t bulk_backend_pid = start(run_bulk_backend);
	establish();
	pid_t attackers_pid = start(run_attackers);
	run_honest_clients();
	stop(attackers_pid, "attackers");
	unsigned survivors = still_established();
	stop(small_backends_pid, "backends");
	stop(bulk_backend_pid, "bulk backend");
	print(survivors);
}

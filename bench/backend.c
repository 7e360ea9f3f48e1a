/* backend PATH
 *
 * The server behind every proxy. Listens on the Unix socket PATH, and on a TCP port of 127.0.0.1,
 * whose number it prints, for the load without a proxy. Reads a hello from each connection and does
 * what that asks for (see hello.h), until it is killed.
 *
 * Has a thread for each processor, each with an epoll set that holds the listening sockets and the
 * connections that it has accepted. Received bytes are dropped without a copy, which would hide the
 * proxy's; sent bytes are copied, as those of a TLS server are. */
#include "bench/hello.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	BUFFER_SIZE = 1024 * 1024,
	ECHO_SIZE = 64 * 1024,
	BACKLOG = 4096,
	EVENTS = 64,
	THREADS_MAX = 64,
	DESCRIPTORS_MAX = 1 << 20,
};

/* The state of a socket, and its task. */
struct connection {
	enum { LISTENER, HELLO, DONE, ECHO, SENDER, TAKER } state;
	uint16_t hello_length; /* how much of it has arrived, in bytes */
	uint8_t task;          /* what the hello asks for, when it has arrived */
};

/* By descriptor. A connection belongs to the thread that has it in its epoll set; another thread
 * gets the entry only by accept(2), after close(2). */
static struct connection *connections;

/* Written before the threads start. */
static struct thread {
	int set;     /* epoll */
	int pipe[2]; /* through which received bytes go */
} threads[THREADS_MAX];
static unsigned thread_count;
static const uint8_t bulk[BUFFER_SIZE];
static int null; /* where received bytes end */

static _Noreturn void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static void
watch(int set, int operation, int socket, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = socket};
	if (epoll_ctl(set, operation, socket, &event) == -1)
		fail("epoll_ctl");
}

static void
take_connection(int set, int listener)
{
	int s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (s == -1)
		return; /* another thread was faster, or the client has closed */
	connections[s] = (struct connection){.state = HELLO};
	watch(set, EPOLL_CTL_ADD, s, EPOLLIN);
}

/* Spreads bulk evenly over the threads, however the connections were accepted. */
static void
hand_on(int set, int socket, uint32_t events)
{
	static atomic_uint turn;
	int other = threads[atomic_fetch_add(&turn, 1) % thread_count].set;
	watch(set, EPOLL_CTL_DEL, socket, 0);
	watch(other, EPOLL_CTL_ADD, socket, events);
}

static bool
begin_task(int set, int socket)
{
	struct connection *connection = &connections[socket];
	static const uint8_t answer[ANSWER_SIZE];
	switch ((enum task)connection->task) {
	case TASK_ANSWER:
		connection->state = DONE;
		return send(socket, answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer;
	case TASK_ECHO:
		connection->state = ECHO;
		return true;
	case TASK_SEND:
		connection->state = SENDER;
		hand_on(set, socket, EPOLLOUT);
		return true;
	case TASK_TAKE:
		connection->state = TAKER;
		hand_on(set, socket, EPOLLIN);
		return true;
	}
	fprintf(stderr, "backend: a hello without a task\n");
	return false;
}

static bool
read_hello(int set, int socket)
{
	struct connection *c = &connections[socket];
	uint8_t bytes[HELLO_SIZE];
	ssize_t n = recv(socket, bytes, (size_t)HELLO_SIZE - c->hello_length, 0);
	if (n <= 0)
		return false;
	if (c->hello_length <= HELLO_TASK && c->hello_length + n > HELLO_TASK)
		c->task = bytes[HELLO_TASK - c->hello_length];
	c->hello_length = (uint16_t)(c->hello_length + n);
	return c->hello_length < HELLO_SIZE || begin_task(set, socket);
}

/* Receives what has arrived, without a copy. */
static bool
take(int socket, const struct thread *thread)
{
	ssize_t n = splice(
	    socket, NULL, thread->pipe[1], NULL, BUFFER_SIZE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	return n > 0 && splice(thread->pipe[0], NULL, null, NULL, (size_t)n, SPLICE_F_MOVE) == n;
}

/* Does what is possible without blocking. Returns false if the connection is over. */
static bool
serve(const struct thread *thread, int socket)
{
	char buffer[ECHO_SIZE];
	ssize_t n;
	switch (connections[socket].state) {
	case LISTENER:
		take_connection(thread->set, socket);
		return true;
	case HELLO:
		return read_hello(thread->set, socket);
	case ECHO:
		n = recv(socket, buffer, sizeof buffer, 0);
		return n > 0 && send(socket, buffer, (size_t)n, MSG_NOSIGNAL) == n;
	case SENDER:
		return send(socket, bulk, sizeof bulk, MSG_NOSIGNAL) > 0;
	case TAKER:
		return take(socket, thread);
	case DONE:
		return recv(socket, buffer, sizeof buffer, 0) > 0;
	}
	return false;
}

static void *
run(void *argument)
{
	const struct thread *thread = argument;
	for (;;) {
		struct epoll_event events[EVENTS];
		int count = epoll_wait(thread->set, events, EVENTS, -1);
		for (int i = 0; i < count; i++)
			if (!serve(thread, events[i].data.fd))
				close(events[i].data.fd);
	}
	return NULL;
}

static int
listen_at(const struct sockaddr *address, socklen_t size)
{
	int s = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s == -1 || bind(s, address, size) == -1 || listen(s, BACKLOG) == -1)
		fail("listen");
	connections[s] = (struct connection){.state = LISTENER};
	return s;
}

static int
listen_local(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	if (length >= sizeof address.sun_path) {
		fprintf(stderr, "backend: %s: too long\n", path);
		exit(2);
	}
	memcpy(address.sun_path, path, length);
	int s = listen_at((struct sockaddr *)&address, sizeof address);
	if (chmod(path, 0777) == -1) /* some proxies change their user */
		fail("chmod");
	return s;
}

static int
listen_tcp(void)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof address;
	int s = listen_at((struct sockaddr *)&address, size);
	getsockname(s, (struct sockaddr *)&address, &size);
	printf("%u\n", ntohs(address.sin_port));
	fclose(stdout);
	return s;
}

/* Makes room for as many connections as are allowed. */
static void
make_table(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
	setrlimit(RLIMIT_NOFILE, &limit);
	connections = calloc(limit.rlim_cur, sizeof *connections);
	if (connections == NULL)
		fail("calloc");
}

static void
open_null(void)
{
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null == -1)
		fail("/dev/null");
}

static void
prepare(struct thread *thread)
{
	thread->set = epoll_create1(EPOLL_CLOEXEC);
	if (thread->set == -1 || pipe2(thread->pipe, O_CLOEXEC) == -1 ||
	    fcntl(thread->pipe[1], F_SETPIPE_SZ, BUFFER_SIZE) == -1)
		fail("thread");
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: backend PATH\n");
		return 2;
	}
	make_table();
	open_null();
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	thread_count = processors < THREADS_MAX ? (unsigned)processors : THREADS_MAX;
	for (unsigned i = 0; i < thread_count; i++)
		prepare(&threads[i]);
	int local = listen_local(argv[1]);
	int tcp = listen_tcp();
	for (unsigned i = 0; i < thread_count; i++) {
		pthread_t thread;
		watch(threads[i].set, EPOLL_CTL_ADD, local, EPOLLIN | EPOLLEXCLUSIVE);
		watch(threads[i].set, EPOLL_CTL_ADD, tcp, EPOLLIN | EPOLLEXCLUSIVE);
		if (i > 0 && pthread_create(&thread, NULL, run, &threads[i]) != 0)
			fail("pthread_create");
	}
	run(&threads[0]);
}

/* Clients that are far away, while silent connections from nearby fill all slots: handshakes are
 * served, and established connections stay.
 *
 * DELAY_RATE is the number of silent connections a second; 0 means as many as the machine allows.
 * The default is so high that a silent connection is evicted sooner than the longest round trip.
 * At 700 a second, every connection has time for a round trip, and the test proves nothing. */
#include "tests/program/harness.h"
#include "tests/program/remote.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	OPEN_FILES = 1024, /* of the proxy */
	RATE = 3000,
	SANITIZED_RATE = 250,
	SECONDS = 12,
	PATIENCE_S = 10,
	TIMEOUT_S = 120,

	PROBES = 5, /* connections that measure the round trip */
	ESTABLISHED = 20,
	HANDSHAKES = 200,
	AT_ONCE = 25, /* handshakes under way, at most */
	SERVED_PERCENT = 99,
	SLACK_MS = 15, /* what a connection takes besides the round trip */
	EVICTED_MANY = 100,

	/* The clients. */
	FIRST_ESTABLISHED = PROBES,
	FIRST_HANDSHAKE = FIRST_ESTABLISHED + ESTABLISHED,
	CLIENTS = FIRST_HANDSHAKE + HANDSHAKES,
};

static struct proxy *proxy;
static struct bytes request;
static int clients[CLIENTS];

/* --- Far clients --- */

static struct {
	int64_t begins_ms;
	atomic_int begun;   /* handshakes */
	atomic_int served;  /* of them */
	atomic_int longest; /* in milliseconds */
	atomic_int survivors;
	atomic_int error; /* errno of a client that failed; 0 if the connection just ended */
} far_clients;

/* Sends BYTES on FD. Returns whether they come back. */
static bool
echoed(int fd, struct bytes bytes)
{
	uint8_t back[1024];
	errno = 0;
	return send(fd, bytes.data, bytes.length, MSG_NOSIGNAL) == (ssize_t)bytes.length &&
	    read_up_to(fd, back, bytes.length) == bytes.length &&
	    memcmp(back, bytes.data, bytes.length) == 0;
}

static void
sleep_until(int64_t ms)
{
	while (now_ms() < ms)
		poll(NULL, 0, (int)(ms - now_ms()));
}

/* A thread: connects a client when the next one is due and sends its hello, until none is left. */
static void *
shake_hands(void *unused)
{
	int i;
	while ((i = far_clients.begun++) < HANDSHAKES) {
		sleep_until(far_clients.begins_ms + i * (SECONDS * 1000) / HANDSHAKES);
		int64_t began_ms = now_ms();
		int fd = clients[FIRST_HANDSHAKE + i];
		if (remote_connect(fd, FIRST_HANDSHAKE + i) && echoed(fd, request))
			far_clients.served++;
		else
			far_clients.error = errno;
		close(fd);
		int ms = (int)(now_ms() - began_ms), longest = far_clients.longest;
		while (ms > longest &&
		    !atomic_compare_exchange_weak(&far_clients.longest, &longest, ms)) {
		}
	}
	return unused;
}

/* A thread: sends a message each second on the established connection *FD. */
static void *
talk(void *fd)
{
	int i = 0;
	do {
		sleep_until(far_clients.begins_ms + i * 1000);
	} while (echoed(*(int *)fd, text("message")) && ++i <= SECONDS);
	if (i > SECONDS)
		far_clients.survivors++;
	else
		far_clients.error = errno;
	return NULL;
}

/* Checks that connections take the round trip and hardly more, before the flood. */
static void
expect_round_trip(int rtt_ms)
{
	int64_t least_ms = INT64_MAX;
	for (int i = 0; i < PROBES; i++) {
		int64_t began_ms = now_ms();
		check(remote_connect(clients[i], i), "connect: %s", strerror(errno));
		int64_t ms = now_ms() - began_ms;
		least_ms = ms < least_ms ? ms : least_ms;
		close(clients[i]);
	}
	check(least_ms >= rtt_ms && least_ms < rtt_ms + margin_ms(SLACK_MS),
	    "the round trip takes %d ms", (int)least_ms);
}

static void
establish(void)
{
	for (int i = FIRST_ESTABLISHED; i < FIRST_HANDSHAKE; i++)
		check(remote_connect(clients[i], i) && echoed(clients[i], request), "client %d: %s",
		    i, strerror(errno));
}

/* Runs all far clients. Returns once they have ended, SECONDS later or more. */
static void
run_far_clients(void)
{
	pthread_t threads[AT_ONCE + ESTABLISHED];
	far_clients.begins_ms = now_ms();
	for (int i = 0; i < AT_ONCE + ESTABLISHED; i++) {
		int *fd = i < AT_ONCE ? NULL : &clients[FIRST_ESTABLISHED + i - AT_ONCE];
		check(pthread_create(&threads[i], NULL, fd == NULL ? shake_hands : talk, fd) == 0,
		    "pthread_create");
	}
	for (int i = 0; i < AT_ONCE + ESTABLISHED; i++)
		pthread_join(threads[i], NULL);
}

/* --- The rows --- */

static void
limit_open_files(void)
{
	limit_descriptors(OPEN_FILES);
}

static void
expect_far_clients_served(int rtt_ms)
{
	long hello = proxy_total(proxy, "evicted-hello");
	long stalled = proxy_total(proxy, "evicted-stalled"),
	     idle = proxy_total(proxy, "evicted-idle");
	fprintf(stderr,
	    "[DELAY] %d ms: %d of %d handshakes served, in %d ms at most; %d of %d established "
	    "connections left; evicted: %ld in the hello, %ld stalled, %ld idle\n",
	    rtt_ms, far_clients.served, HANDSHAKES, far_clients.longest, far_clients.survivors,
	    ESTABLISHED, hello, stalled, idle);
	check(hello > EVICTED_MANY, "only %ld connections were evicted in the hello", hello);
	check(far_clients.served * 100 >= HANDSHAKES * SERVED_PERCENT,
	    "%d of %d handshakes were served: %s", far_clients.served, HANDSHAKES,
	    strerror(far_clients.error));
	check(far_clients.survivors == ESTABLISHED, "%d of %d established connections are left: %s",
	    far_clients.survivors, ESTABLISHED, strerror(far_clients.error));
}

static int
delay_rate(void)
{
	const char *value = getenv("DELAY_RATE");
	return value != NULL && value[0] != '\0' ? atoi(value)
	    : sanitized()                        ? SANITIZED_RATE
						 : RATE;
}

static void
serve_from_afar(int rtt_ms)
{
	testing("%d ms", rtt_ms);
	remote_start(rtt_ms, clients, CLIENTS, PATIENCE_S);
	struct echo echo = {.listener = backend_listen(HOST)};
	echo_start(&echo);
	proxy = proxy_start(limit_open_files);
	request = hello_for(HOST);
	expect_round_trip(rtt_ms);
	establish();

	remote_flood(delay_rate());
	wait_until(proxy_has_logged(proxy, "connections are evicted"), 10000);
	run_far_clients();
	expect_far_clients_served(rtt_ms);

	remote_end_flood();
	for (int i = FIRST_ESTABLISHED; i < FIRST_HANDSHAKE; i++)
		close(clients[i]);
	expect_total(proxy, "open", 0, 10000);
	remote_stop();
	close(server.listener);
	echo_stop(&echo);
}

LONG_PROGRAM_TEST(delay, rtt_20_ms, TIMEOUT_S)
{
	serve_from_afar(20);
}

LONG_PROGRAM_TEST(delay, rtt_60_ms, TIMEOUT_S)
{
	serve_from_afar(60);
}

LONG_PROGRAM_TEST(delay, rtt_200_ms, TIMEOUT_S)
{
	serve_from_afar(200);
}

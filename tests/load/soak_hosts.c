#include "tests/load/soak.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum temper {
	STEADY,
	SLAMS,    /* closes connections unread */
	RESTARTS, /* stops and returns */
	PAUSES,   /* leaves its backlog full for a while */
	DEAF,     /* leaves it full without end */
	CLOSED,   /* has left its socket behind */
};

/* A host directory and its backend. */
struct place {
	const char *directory;
	enum temper temper;
	bool header; /* there is a send-proxy-v1 */
	int listener;
	pthread_t thread;
};

static struct place places[] = {
    {"plain.example", .temper = STEADY},
    {"proxied.example", .temper = STEADY, .header = true},
    {"../blue", .temper = STEADY}, /* these two are swapped.example in turn */
    {"../green", .temper = STEADY, .header = true},
    {"exchanged.example", .temper = STEADY}, /* these two exchange their places */
    {"spare.example", .temper = STEADY, .header = true},
    {long_name, .temper = STEADY},
    {"slamming.example", .temper = SLAMS},
    {"restarting.example", .temper = RESTARTS},
    {"full.example", .temper = PAUSES},
    {"deaf.example", .temper = DEAF},
    {"closed.example", .temper = CLOSED},
};
enum { PLACES = sizeof places / sizeof *places };

static uint16_t proxy_port;
static atomic_bool stopping;
static atomic_uint sessions;
static atomic_uint nameless;
static pthread_t mover;

/* One connection at a backend. */
struct meeting {
	int socket;
	const struct place *place;
	struct record *record;
	uint8_t bytes[512]; /* of the hello, until the record is known */
	size_t length;
};

/* --- Sessions --- */

/* Reads LENGTH bytes. Returns fewer only at the end of the stream. */
static size_t
read_up_to(int socket, uint8_t *bytes, size_t length)
{
	size_t have = 0;
	while (have < length) {
		ssize_t got = recv(socket, bytes + have, length - have, 0);
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	return have;
}

/* Reads LENGTH bytes of the hello. */
static bool
take(struct meeting *meeting, size_t length)
{
	if (length > sizeof meeting->bytes - meeting->length)
		return false;
	size_t got = read_up_to(meeting->socket, meeting->bytes + meeting->length, length);
	meeting->length += got;
	return got == length;
}

/* Reads the hello up to its tag. Returns false if it ends before. */
static bool
take_tag(struct meeting *meeting, struct tag *tag)
{
	uint8_t message[TAG_END];
	size_t have = 0;
	while (have < sizeof message) {
		if (!take(meeting, TLS_RECORD_HEADER_SIZE))
			return false;
		const uint8_t *header = meeting->bytes + meeting->length - TLS_RECORD_HEADER_SIZE;
		size_t fragment = (size_t)header[3] << 8 | header[4];
		size_t left = sizeof message - have;
		size_t part = fragment < left ? fragment : left;
		if (!take(meeting, part))
			return false;
		memcpy(message + have, meeting->bytes + meeting->length - part, part);
		have += part;
	}
	if (!tag_read(tag, message))
		problem("%s: got a hello that no client sent", meeting->place->directory);
	return tag->slot < CLIENTS + CROWD && tag->role < role_count;
}

/* Reads a PROXY header, which is short. Returns false if it does not end. */
static bool
take_header(int socket, char *header, size_t size)
{
	size_t length = 0;
	while (length < size - 1 && (length == 0 || header[length - 1] != '\n'))
		if (read_up_to(socket, (uint8_t *)header + length++, 1) != 1)
			return false;
	header[length] = '\0';
	return header[length - 1] == '\n';
}

static void
check_header(const struct meeting *meeting, const char *header)
{
	const struct record *record = meeting->record;
	uint32_t address = ntohl(record->address.sin_addr.s_addr);
	char wanted[108];
	snprintf(wanted, sizeof wanted, "PROXY TCP4 127.0.0.%u 127.0.0.1 %u %u\r\n",
	    (unsigned)address & 0xff, (unsigned)ntohs(record->address.sin_port),
	    (unsigned)proxy_port);
	if (strcmp(header, wanted) != 0)
		problem(
		    "%s: PROXY header %s instead of %s", meeting->place->directory, header, wanted);
}

/* Assigns the session to the record of TAG. */
static bool
begin_session(struct meeting *meeting, const struct tag *tag)
{
	struct record *record = &records[tag->slot];
	pthread_mutex_lock(&record->mutex);
	bool current = record->awaited == tag->number;
	bool fresh = current && record->session == NONE;
	if (fresh)
		record->session = RUNNING;
	pthread_mutex_unlock(&record->mutex);
	if (current && !fresh)
		problem("connection %llu reached a backend twice", (unsigned long long)tag->number);
	/* A client that closes early does not wait for the backend. */
	if (!current && roles[tag->role].outcome != CLIENT_CUTS)
		problem("connection %llu (%s) reached a backend when it was over",
		    (unsigned long long)tag->number, roles[tag->role].name);
	meeting->record = record;
	return fresh;
}

/* Compares the rest of the hello with what the client sent. */
static bool
take_opening(struct meeting *meeting)
{
	struct record *record = meeting->record;
	const struct bytes *opening = &record->plan.opening;
	size_t have = meeting->length;
	bool right = memcmp(meeting->bytes, opening->data, have) == 0;
	uint8_t *bytes = malloc(opening->length);
	if (bytes == NULL)
		broken("malloc");
	size_t got = read_up_to(meeting->socket, bytes, opening->length - have);
	right = right && memcmp(bytes, opening->data + have, got) == 0;
	free(bytes);
	record->opening_read = have + got;
	record->backend.wrong = !right;
	return right && record->opening_read == opening->length;
}

static void
run_session(struct meeting *meeting)
{
	struct record *record = meeting->record;
	const struct plan *plan = &record->plan;
	record->backend.end = ENDED;
	if (take_opening(meeting)) {
		record->backend.end = OPEN;
		fcntl(meeting->socket, F_SETFL, O_NONBLOCK);
		stream_run(meeting->socket, &plan->backend, plan->number, BACKEND, &record->backend,
		    now_ms() + plan->role->seconds * 1000 + STUCK_MS);
	}
	record->backend.ended_ms = now_ms();
}

static void
end_session(struct meeting *meeting)
{
	struct record *record = meeting->record;
	pthread_mutex_lock(&record->mutex);
	record->session = DONE;
	pthread_cond_signal(&record->changed);
	pthread_mutex_unlock(&record->mutex);
}

static void
meet(struct meeting *meeting)
{
	char header[108];
	struct tag tag;
	bool header_came =
	    !meeting->place->header || take_header(meeting->socket, header, sizeof header);
	if (!header_came || !take_tag(meeting, &tag)) {
		nameless++;
		return;
	}
	if (!begin_session(meeting, &tag))
		return;
	struct ucred peer = {0};
	getsockopt(meeting->socket, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof peer});
	copies_served(peer.pid);
	meeting->record->copy = peer.pid;
	if (meeting->place->header)
		check_header(meeting, header);
	run_session(meeting);
	close(meeting->socket);
	meeting->socket = -1;
	end_session(meeting);
}

static void *
run_meeting(void *argument)
{
	struct meeting *meeting = argument;
	const struct timeval timeout = {.tv_sec = STUCK_MS / 1000};
	setsockopt(meeting->socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	meet(meeting);
	if (meeting->socket != -1)
		close(meeting->socket);
	free(meeting);
	sessions--;
	return NULL;
}

unsigned
hosts_sessions(void)
{
	return sessions;
}

unsigned
hosts_nameless(void)
{
	return nameless;
}

/* --- Backends --- */

/* A path in a directory with a long name does not fit sun_path. */
static struct sockaddr_un
socket_address(int directory)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(
	    address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/tls-socket", directory);
	return address;
}

static int
unix_socket(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s == -1)
		broken("socket");
	return s;
}

static void
listen_at(struct place *place)
{
	int directory = open(place->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct sockaddr_un address = socket_address(directory);
	int backlog = place->temper == PAUSES || place->temper == DEAF ? 1 : SOMAXCONN;
	place->listener = unix_socket();
	if (directory == -1 ||
	    bind(place->listener, (struct sockaddr *)&address, sizeof address) == -1 ||
	    listen(place->listener, backlog) == -1)
		broken(place->directory);
	/* Connections that belong to no client fill the backlog. */
	while (place->temper == DEAF) {
		int s = unix_socket();
		if (connect(s, (struct sockaddr *)&address, sizeof address) == -1) {
			close(s);
			break;
		}
	}
	if (place->temper == CLOSED)
		close(place->listener);
	close(directory);
}

static void
accept_at(const struct place *place)
{
	int s = accept4(place->listener, NULL, NULL, SOCK_CLOEXEC);
	if (s == -1)
		return;
	if (place->temper == SLAMS) {
		close(s);
		return;
	}
	struct meeting *meeting = calloc(1, sizeof *meeting);
	if (meeting == NULL)
		broken("calloc");
	*meeting = (struct meeting){.socket = s, .place = place};
	sessions++;
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	if (pthread_create(&thread, &attributes, run_meeting, meeting) != 0)
		broken("pthread_create");
	pthread_attr_destroy(&attributes);
}

/* Connections that were not accepted end with the listening socket. */
static void
restart(struct place *place, struct chance *chance)
{
	char path[64];
	snprintf(path, sizeof path, "%s/tls-socket", place->directory);
	if (one_in(chance, 2)) {
		unlink(path);
		sleep_ms((int64_t)between(chance, 0, 100));
		close(place->listener);
	} else {
		close(place->listener);
		sleep_ms((int64_t)between(chance, 0, 100));
		unlink(path);
	}
	sleep_ms((int64_t)between(chance, 0, 100));
	listen_at(place);
}

static void *
run_place(void *argument)
{
	struct place *place = argument;
	struct chance chance = chance_of((uint64_t)(place - places) << 32);
	int64_t change_at_ms = 0;
	while (!stopping) {
		if (place->temper > SLAMS && now_ms() > change_at_ms) {
			if (place->temper == RESTARTS)
				restart(place, &chance);
			else
				sleep_ms((int64_t)between(&chance, 200, 2000));
			change_at_ms = now_ms() + (int64_t)between(&chance, 300, 1500);
		}
		struct pollfd entry = {.fd = place->listener, .events = POLLIN};
		if (poll(&entry, 1, 50) == 1)
			accept_at(place);
	}
	close(place->listener);
	return NULL;
}

/* Exchanges the directories again and again, by a symlink and by names. */
static void *
run_mover(void *unused)
{
	(void)unused;
	struct chance chance = chance_of(UINT64_C(1) << 40);
	for (unsigned turn = 0; !stopping; turn++) {
		if (symlink(turn % 2 == 0 ? "../green" : "../blue", "new") == -1 ||
		    rename("new", "swapped.example") == -1)
			broken("swapped.example");
		if (renameat2(AT_FDCWD, "exchanged.example", AT_FDCWD, "spare.example",
			RENAME_EXCHANGE) == -1)
			broken("exchanged.example");
		sleep_ms((int64_t)between(&chance, 1, 100));
	}
	return NULL;
}

static void
make_place(struct place *place)
{
	if (mkdir(place->directory, 0755) == -1)
		broken(place->directory);
	if (place->header) {
		char path[64];
		snprintf(path, sizeof path, "%s/send-proxy-v1", place->directory);
		int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (file == -1)
			broken(path);
		close(file);
	}
	listen_at(place);
	if (place->temper < DEAF && pthread_create(&place->thread, NULL, run_place, place) != 0)
		broken("pthread_create");
}

void
hosts_start(uint16_t port)
{
	proxy_port = port;
	if (mkdir("hosts", 0755) == -1 || chdir("hosts") == -1 ||
	    mkdir("socketless.example", 0755) == -1 || symlink("../blue", "swapped.example") == -1)
		broken("hosts");
	for (size_t i = 0; i < PLACES; i++)
		make_place(&places[i]);
	if (pthread_create(&mover, NULL, run_mover, NULL) != 0)
		broken("pthread_create");
}

void
hosts_stop(void)
{
	stopping = true;
	for (size_t i = 0; i < PLACES; i++)
		if (places[i].temper < DEAF)
			pthread_join(places[i].thread, NULL);
	pthread_join(mover, NULL);
}

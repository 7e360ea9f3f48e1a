/* Shared by the parts of the soak. Clients and backends behave well and badly, while backends
 * restart, directories change and copies of the proxy replace each other. Each byte is checked.
 *
 *	soak.c          the clients, their results, the phases, the summary
 *	soak_plan.c     the plan of a connection, made of its number and the seed
 *	soak_stream.c   one end of a connection, which follows the plan
 *	soak_hosts.c    the hosts directory and its backends
 *	soak_copies.c   the copies of the proxy
 */
#ifndef SOAK_H
#define SOAK_H

#include "tests/unit/hellos.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	CLIENTS = 96,     /* clients that connect again and again */
	CROWD = 320,      /* clients that connect once, all at the same time */
	OPEN_FILES = 512, /* the proxy's limit: enough for CLIENTS, not for the crowd */
	STUCK_MS = 30000, /* a connection that lasts so much longer than planned will never end */
	GRACE_MS = 10000, /* how long the proxy lets connections go on after SIGHUP */
	ALERT_LENGTH = 7,
	THREAD_STACK = 512 * 1024,
};

/* --- Failing --- */

/* Reports something that must not happen. The soak continues, and fails at its end. */
void problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned problems(void);

/* Ends the soak if it cannot work itself. */
_Noreturn void broken(const char *what);

/* --- Time and chance --- */

int64_t now_ms(void);
void sleep_ms(int64_t ms);

struct chance {
	uint64_t state;
};

extern uint64_t soak_seed;

struct chance chance_of(uint64_t number);
uint64_t between(struct chance *chance, uint64_t least, uint64_t most);
bool one_in(struct chance *chance, uint64_t count);

/* --- Plans --- */

enum finish {
	HALF_CLOSE, /* when all is written */
	CLOSE_LAST, /* when the other side has ended its stream, and all is written */
	CLOSE,      /* when all is written; bytes stay unread */
	RESET,      /* likewise */
};

/* What one end of a connection does with its stream. If all is zero except write_at_once and
 * read_at_once, it writes nothing, and reads to the end. */
struct script {
	uint64_t bytes; /* how many it writes */
	size_t write_at_once;
	int write_pause_ms;
	uint64_t await;   /* it reads so many before it writes */
	uint64_t idle_at; /* after so many written, it waits for idle_ms */
	int idle_ms;
	size_t read_at_once;
	int read_pause_ms;
	uint64_t stall_at; /* after so many read, it reads nothing for stall_ms */
	int stall_ms;
	bool writes_first; /* it reads nothing before all is written */
	bool urgent;       /* the last byte of each write is urgent */
	enum finish finish;
};

/* How a connection must end. */
enum outcome {
	SERVED,       /* all bytes arrive, both ways */
	CLIENT_CUTS,  /* the backend gets the beginning of what the client wrote */
	BACKEND_CUTS, /* the client gets all that the backend wrote, and the end */
	REFUSED,      /* the client gets an alert and the end */
	GONE,         /* the client closes before there is a backend */
	UNANSWERED,   /* the client gets the end */
	RESTARTED,    /* SERVED, or UNANSWERED, or REFUSED */
};

struct plan;

struct role {
	const char *name;
	unsigned weight; /* how often it is chosen */
	int seconds;     /* how long it may take */
	enum outcome outcome;
	void (*make)(struct plan *plan, struct chance *chance);
};

extern const struct role roles[];
extern const unsigned role_count;
extern const unsigned tiny_role, bulk_role, crowd_role;

struct plan {
	uint64_t number;
	unsigned slot;
	const struct role *role;
	const char *host;
	struct bytes opening; /* the first bytes of the client: a hello, or something else */
	int opening_pause_us; /* after each byte of it; 0 if it is sent at once */
	uint8_t alert;        /* that it must get */
	bool small_buffers;   /* of the client's socket */
	struct script client;
	struct script backend;
};

/* The role of connection NUMBER. */
unsigned role_of(uint64_t number);

/* The plan of connection NUMBER, which is that of the client in SLOT. The caller releases its
 * opening. */
void plan_make(struct plan *plan, uint64_t number, unsigned role, unsigned slot);

/* The content of a hello's random. */
struct tag {
	uint64_t number;
	uint32_t slot;
	uint32_t role;
};

enum {
	/* The position of the random in the handshake message, and the length of the tag in it. */
	TAG_START = 4 + 2,
	TAG_END = TAG_START + 4 + 8 + 4 + 4,
};

/* Reads the tag from a handshake message of at least TAG_END bytes. Returns false if there is
 * none. */
bool tag_read(struct tag *tag, const uint8_t *message);

/* --- Streams --- */

enum stream_end {
	OPEN,
	ENDED,     /* the other side has ended it */
	WAS_RESET, /* the other side has reset the connection */
	STUCK,     /* it did not end */
	LEFT,      /* this side closed first, by plan */
};

/* The result of one end. */
struct tally {
	uint64_t written;
	uint64_t read;
	uint8_t first[ALERT_LENGTH + 1]; /* the first bytes read */
	bool wrong;                      /* what was read is not what was written */
	uint64_t wrong_at;
	enum stream_end end;
	int error; /* of writing; 0 if there was none */
	int64_t ended_ms;
};

enum side { CLIENT, BACKEND };

/* Runs SCRIPT on SOCKET, which is that of SIDE in connection NUMBER. NUMBER and side decide the
 * noise that each side writes. */
void stream_run(int socket, const struct script *script, uint64_t number, enum side side,
    struct tally *tally, int64_t deadline_ms);

/* --- Connections --- */

enum session { NONE, RUNNING, DONE };

/* The current connection of a client. */
struct record {
	pthread_mutex_t mutex;  /* for what follows, until the session runs */
	pthread_cond_t changed; /* the session is done */
	uint64_t awaited;       /* the connection's number, while a backend may get it; else 0 */
	struct plan plan;
	struct sockaddr_in address; /* the client's */
	int64_t began_ms;
	struct tally client;

	/* What the backend saw. */
	enum session session;
	pid_t copy; /* the copy of the proxy that connected */
	struct tally backend;
	size_t opening_read;
};

extern struct record records[CLIENTS + CROWD];

/* --- Hosts --- */

/* Makes the hosts directory in the working directory, enters it, and starts the backends.
 * PORT is the proxy's. */
void hosts_start(uint16_t port);
void hosts_stop(void);

/* How many connections the backends have. */
unsigned hosts_sessions(void);

/* How many connections of a backend ended before they told their number. */
unsigned hosts_nameless(void);

/* A name of 254 bytes. */
extern const char long_name[];

/* --- Copies of the proxy. Only the main thread calls these, except for copies_served() and those
 * below it. --- */

struct copy;

/* PROGRAM is sniproxy; LISTENER its stdin. */
void copies_init(const char *program, int listener);

struct copy *copies_start(void);

/* Tells COPY to stop. */
void copies_hang_up(struct copy *copy);

/* Notes which copies have ended, and checks how. */
void copies_reap(void);

/* Tells LAST to stop, and waits until all have ended. Kills those that do not. */
void copies_stop(struct copy *last);

/* Checks what can be checked only when all clients have ended. */
void copies_judge(void);

bool copy_has_served(const struct copy *copy);

struct usage {
	int descriptors;
	int threads;
	long anonymous_kib; /* memory */
	int64_t cpu_us;
};

struct usage copy_usage(const struct copy *copy);

/* Notes that the process PID connected to a backend. */
void copies_served(pid_t pid);

/* Notes that a connection, of process PID if that is not 0, lasted from BEGAN_MS until ENDED_MS. */
void copies_note(pid_t pid, int64_t began_ms, int64_t ended_ms);

/* Whether a copy, that of process PID if it is not 0, may have cut off a connection that began at
 * BEGAN_MS and ended at ENDED_MS: it had been told to stop, the grace was over, and its log says
 * so. Waits for that. */
bool copies_cut(pid_t pid, int64_t began_ms, int64_t ended_ms);

/* Adds what the copies did to the summary. */
void copies_print(void);

#endif

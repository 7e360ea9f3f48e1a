/* What the tests of the running program share: it starts sniproxy on a socket of its own,
 *plays the clients and the backends, and builds ClientHellos, true and false ones.
 *
 * The programs under test come from the environment:
 *	SNIPROXY          the proxy, an absolute path; required
 *	SNIPROXY_STATIC   the same linked statically, for the chroot; optional
 *	HASHED            1 where the proxy looks up hashed directory names
 *	PORTABLE          1 where the proxy is built with POSIX alone
 *	SANITIZE          not empty where the proxy is built with sanitizers
 *	EMULATOR          what runs the proxy where it is another machine's: qemu-user, static
 *	SKIPPED           a file that names tests to skip, a line each: SUITE::TEST, and why
 *
 * A test is a process of its own, so the state of the harness is global, and memory is
 *left to the end of the process. What goes wrong here fails the test, or, in a loop over
 *a table, names the row that testing() told. */
#ifndef HARNESS_H
#define HARNESS_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* --- A test --- */

/* Defines a test. Around its body the harness makes a hosts directory, and afterwards
 * closes all sockets it handed out, stops each proxy that still runs, and fails the test
 * where one of them does not end with status 0 or a sanitizer spoke. A proxy's log is
 * printed if the test fails. */
#define PROGRAM_TEST(suite, name) LONG_PROGRAM_TEST(suite, name, 90)

/* The same for one that may take SECONDS. */
#define LONG_PROGRAM_TEST(suite, name, seconds) \
	static void suite##_##name(void); \
	Test(suite, name, .timeout = (seconds)) \
	{ \
		harness_run(#suite "/" #name, suite##_##name); \
	} \
	static void suite##_##name(void)

void harness_run(const char *name, void (*body)(void));

/* The place in the test that a failing helper reports. */
#define HERE __FILE__ ":" HARNESS_STRING(__LINE__)
#define HARNESS_STRING(line) HARNESS_STRING_(line)
#define HARNESS_STRING_(line) #line

/* Fails the test; the message names WHERE and the row of the table. */
_Noreturn void
fail_at(const char *where, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fails the test unless CONDITION holds; the rest is a message like printf's. */
#define check(condition, ...) \
	do { \
		if (!(condition)) \
			fail_at(HERE, __VA_ARGS__); \
	} while (0)

/* Says which row of a table is being tested; printf's arguments. */
void testing(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the test as skipped. */
_Noreturn void skip(const char *why);

/* Whether the proxy looks up hashed directory names. */
bool is_hashed(void);

/* Whether the proxy is built for Linux; whether with POSIX alone; and skips the test then, which needs
 * WHAT. */
bool is_linux(void);
bool is_portable(void);
void need(const char *what);

/* --- Time --- */

/* The monotonic clock in milliseconds. */
int64_t now_ms(void);

/* True where the proxy is built with sanitizers. */
bool sanitized(void);

/* True where it is another machine's, which is emulated. */
bool emulated(void);

/* How many threads there may be besides the proxy's own: sanitizers have some, and emulators. */
int extra_threads(void);

/* How long to allow for what should take MS milliseconds: more with sanitizers, or where it
 * is emulated. */
int margin_ms(int ms);

/* Waits until CONDITION holds, and fails the test after margin_ms(MS). For what no
 * descriptor reports. */
#define wait_until(condition, ms) \
	do { \
		int64_t wait_end_ms = now_ms() + margin_ms(ms); \
		while (!(condition)) { \
			check(now_ms() < wait_end_ms, "waited for: " #condition); \
			wait_a_moment(); \
		} \
	} while (0)

void wait_a_moment(void);

/* --- The proxy --- */

struct proxy {
	pid_t pid;        /* 0 once it was waited for */
	char log[128];    /* path of the file that holds its stderr */
	char output[128]; /* path of the file that holds its stdout */
};

/* The socket that all clients connect to, and where it listens. */
struct server {
	int listener;
	uint16_t port;
	char address[64];
};

extern struct server server;

/* Makes server.listener: listening on ADDRESS ("127.0.0.1", "::1"; "0.0.0.0", and "::",
 * which takes IPv4 too, are bound to the loopback device), on a port that the kernel
 * chooses. */
void server_listen(const char *address);

/* The same without server: returns the descriptor. TYPE is SOCK_STREAM or SOCK_DGRAM; it
 * is bound, not listening. */
int bound_socket(const char *address, int type);

uint16_t local_port(int fd);

/* Starts a copy of the proxy with server.listener on stdin, in the hosts directory, its
 * stdout and stderr going to files. PREPARE, if not null, is called in the child before
 * the program is executed, to change descriptors, limits, or rights. */
struct proxy *proxy_start(void (*prepare)(void));

/* server_listen("127.0.0.1") and proxy_start(NULL). */
struct proxy *proxy_start_default(void);

/* Uses the static program from now on, if there is one; else returns false. */
bool proxy_use_static(void);

/* Returns once the proxy has served a connection, so its signal handlers are in place. It
 * must be the only copy. */
#define proxy_wait_ready() proxy_wait_ready_at(HERE)
void proxy_wait_ready_at(const char *where);

/* Waits up to margin_ms(MS) until the proxy has ended; returns the status of waitpid().
 */
#define proxy_wait(proxy, ms) proxy_wait_at(HERE, proxy, ms)
int proxy_wait_at(const char *where, struct proxy *proxy, int ms);

/* Stops all threads of the proxy, until SIGCONT. */
void proxy_pause(const struct proxy *proxy);

/* Whether the proxy still runs. It is not reaped. */
bool proxy_runs(const struct proxy *proxy);

/* What the proxy has logged so far. */
char *proxy_log(const struct proxy *proxy);

/* Whether the proxy has logged TEXT. */
bool proxy_has_logged(const struct proxy *proxy, const char *text);

/* Asks the proxy for its totals, and returns the number at KEY in them: "open", "evicted-idle".
 */
#define proxy_total(proxy, key) proxy_total_at(HERE, proxy, key)
long proxy_total_at(const char *where, const struct proxy *proxy, const char *key);

/* Fails unless the total at KEY is NUMBER within margin_ms(MS). */
#define expect_total(proxy, key, number, ms) expect_total_at(HERE, proxy, key, number, ms)
void
expect_total_at(const char *where, const struct proxy *proxy, const char *key, long number, int ms);

/* A whole file as a string; empty if there is none. */
char *read_file(const char *path);

/* The CPU time of all threads of the proxy in microseconds. */
int64_t proxy_cpu_us(const struct proxy *proxy);

/* Fails if the proxy uses more than a few hundredths of a CPU while nothing happens. */
#define expect_idle(proxy) expect_idle_at(HERE, proxy)
void expect_idle_at(const char *where, const struct proxy *proxy);

/* How many descriptors the proxy has open, and how many threads it has. */
int proxy_descriptors(const struct proxy *proxy);
int proxy_threads(const struct proxy *proxy);

/* For prepare functions: becomes a user without any right, if it is root. */
void become_nobody(void);

/* For what root may do, and others in a user namespace of their own: skips the test where neither
 * is so. */
void need_namespace(void);

/* For prepare functions: a user namespace, in which it may do so, if it is not root. */
void enter_namespace(void);

/* For prepare functions: how many files may be open, of which a connection takes two. */
void limit_descriptors(unsigned most);

/* A user that nobody else is, so that a limit on processes counts the proxy's threads alone: root
 * becomes one, and for others the count begins anew in a user namespace, from Linux 5.14 on. The
 * first skips the test where neither is so; the other is for prepare functions, which set the
 * limit after it. */
void need_own_user(void);
void become_own_user(void);

/* For prepare functions: CALL fails with ERROR, if its ARGUMENT, 0 being the first, is VALUE; or
 * always, if ARGUMENT is ANY_ARGUMENT. */
enum { ANY_ARGUMENT = -1 };
void refuse_call(long call, int argument, int value, int error);

/* For prepare functions: no SO_PASSRIGHTS, as before Linux 6.16, so that backends can pass
 * descriptors along with their bytes. */
void let_descriptors_pass(void);

/* Reads a whole file under /proc/PID/ of the proxy. */
char *proxy_proc(const struct proxy *proxy, const char *file);

/* --- Faults, which strace(1) injects --- */

/* Makes the system calls CALLS ("accept,accept4") of all threads of the proxy fail from
 * now on, or whatever else FAULT says, in the words of strace(1) ("error=EPERM"; a "when="
 * counts for each thread and each call by itself). Other calls are as ever. Returns what
 * fault_end() takes. Skips the test where strace is not there, or may not trace. */
pid_t fault_begin(const struct proxy *proxy, const char *calls, const char *fault);
void fault_end(pid_t tracer);

/* Whether a thread of the proxy is in the system call NUMBER, and does not run. */
bool proxy_is_in(const struct proxy *proxy, long number);

/* Whether the main thread of the proxy has gone to sleep, neither in accept(2), which may wait there for
 * a moment, nor for a lock. A connection that comes now finds accept(2) as fault_begin() made it. */
bool proxy_sleeps_outside_accept(const struct proxy *proxy);

/* --- Bytes and ClientHellos --- */

struct bytes {
	uint8_t *data;
	size_t length;
	size_t capacity;
};

void put(struct bytes *bytes, const void *data, size_t length);
void put_integer(struct bytes *bytes, unsigned long value, size_t width);
void put_fill(struct bytes *bytes, uint8_t byte, size_t length);
void put_bytes(struct bytes *bytes, struct bytes more);

/* The string as bytes. */
struct bytes text(const char *string);

/* The bytes from START on, LENGTH of them; they are not copied. */
struct bytes slice(struct bytes bytes, size_t start, size_t length);

/* A ClientHello. All zero is an ordinary one for HOST; each field makes one thing
 * different. A "_lie" is added to a length after the true one was found. */
struct shape {
	const char *name;
	size_t name_length; /* 0: strlen(name) */

	unsigned message_type;   /* 0: ClientHello */
	unsigned legacy_version; /* 0: 0x0303 */
	int session_id_more;     /* bytes added to 32 */
	int cipher_suites_more;  /* bytes added to 6 */
	int compression_more;    /* bytes added to 1 */

	bool without_extensions;
	bool without_server_name;
	bool server_name_last;
	bool two_server_names; /* the extension twice */
	bool two_host_names;   /* twice in the list */
	bool empty_list;       /* a list without a name */
	bool other_name_first; /* a name of another type before the name */
	bool other_name_only;
	bool without_list;       /* the extension is empty */
	size_t padding;          /* bytes in a padding extension; 0: no such extension */
	struct bytes extensions; /* more extensions, ready made */
	size_t trailing;         /* bytes after the extensions */

	int message_lie;
	int session_id_lie;
	int cipher_suites_lie;
	int compression_lie;
	int extensions_lie;
	int server_name_lie;
	int list_lie;
	int name_lie;
};

#define HOST "host.example"

/* The handshake message. */
struct bytes hello_message(struct shape shape);

/* The message in records that hold up to FRAGMENT bytes each. */
struct bytes in_records(struct bytes message, size_t fragment);

/* The message in records of up to 2^14 bytes. */
struct bytes hello(struct shape shape);

/* An ordinary ClientHello for NAME. */
struct bytes hello_for(const char *name);

void put_extension(struct bytes *extensions, unsigned type, struct bytes data);

/* The largest ClientHello that the syntax allows, for HOST; 4 + 131396 bytes. */
enum { LARGEST_MESSAGE = 4 + 2 + 32 + 33 + 2 + 65534 + 256 + 2 + 65535 };
struct bytes largest_message(void);

/* --- Sockets --- */

/* Waits until FD can be read, or has ended; false after margin_ms(MS). */
bool readable_within(int fd, int ms);

/* True if there is nothing to read, nor to accept, during MS milliseconds. */
bool silent_for(int fd, int ms);

/* Sends all, without delay. */
#define send_all(fd, bytes) send_all_at(HERE, fd, bytes)
void send_all_at(const char *where, int fd, struct bytes bytes);

/* Sends each byte in a segment of its own. */
#define send_bytewise(fd, bytes) send_bytewise_at(HERE, fd, bytes)
void send_bytewise_at(const char *where, int fd, struct bytes bytes);

/* Part of an endless stream of noise: some bytes from OFFSET on, up to LENGTH. */
struct bytes pattern(size_t offset, size_t length);

/* Sends the pattern from its start, as much as is taken within a moment; returns how
 * much. */
#define send_until_stalled(fd) send_until_stalled_at(HERE, fd)
size_t send_until_stalled_at(const char *where, int fd);

/* Fails unless LENGTH bytes of the pattern come next, from its start, or from OFFSET. */
#define expect_pattern(fd, length) expect_pattern_at(HERE, fd, 0, length)
#define expect_pattern_from(fd, offset, length) expect_pattern_at(HERE, fd, offset, length)
void expect_pattern_at(const char *where, int fd, size_t offset, size_t length);

/* Reads up to LENGTH bytes; returns fewer at the end of the stream, after an error, and
 * after some seconds of silence. */
size_t read_up_to(int fd, void *data, size_t length);

/* Fails unless exactly these bytes come next. */
#define expect_bytes(fd, bytes) expect_bytes_at(HERE, fd, bytes)
void expect_bytes_at(const char *where, int fd, struct bytes bytes);

/* Fails unless the stream ends next, and not by a reset. */
#define expect_end(fd) expect_end_at(HERE, fd)
void expect_end_at(const char *where, int fd);

/* Fails unless the stream ends within margin_ms(MS), by its end or a reset, without a
 * byte. */
#define expect_gone(fd, ms) expect_gone_at(HERE, fd, ms)
void expect_gone_at(const char *where, int fd, int ms);

/* Reads on until the stream ends, in whichever way; fails unless that is within
 * margin_ms(MS). Returns how many bytes came. */
#define read_to_the_end(fd, ms) read_to_the_end_at(HERE, fd, ms)
size_t read_to_the_end_at(const char *where, int fd, int ms);

enum alert {
	UNEXPECTED_MESSAGE = 10,
	RECORD_OVERFLOW = 22,
	ILLEGAL_PARAMETER = 47,
	DECODE_ERROR = 50,
	INTERNAL_ERROR = 80,
	USER_CANCELED = 90,
	UNRECOGNIZED_NAME = 112,
};

/* Fails unless the seven bytes of the alert come next and then the end of the stream. */
#define expect_alert(fd, alert) expect_alert_at(HERE, fd, alert)
void expect_alert_at(const char *where, int fd, enum alert alert);

/* Returns once the proxy has accepted all connections and read all that clients sent; or
 * CLIENT, where it has accepted that one. Only for a server on 127.0.0.1. */
#define wait_drained() wait_drained_at(HERE, -1)
#define wait_drained_of(client) wait_drained_at(HERE, client)
void wait_drained_at(const char *where, int client);

/* Ends the connection with a reset. */
void reset_connection(int fd);

/* --- Clients --- */

/* Connects to the server. */
#define client_connect() client_connect_at(HERE, NULL)
#define client_connect_from(address) client_connect_at(HERE, address)
int client_connect_at(const char *where, const char *from);

/* The same, but returns -1 with errno set where that fails. */
int client_try_connect(const char *from);

/* Connects and sends. */
#define client_send(bytes) client_send_at(HERE, bytes)
int client_send_at(const char *where, struct bytes bytes);

/* A connection of its own sends BYTES and must get ALERT. */
#define expect_refused(bytes, alert) expect_refused_at(HERE, bytes, alert)
void expect_refused_at(const char *where, struct bytes bytes, enum alert alert);

/* --- Backends --- */

/* The temporary directory; the hosts directory is "hosts" in it. */
const char *base_directory(void);

/* The name of the directory for a server name: itself, or its hash. */
const char *directory_name(const char *name, size_t length);

/* A path below the hosts directory: the directory of NAME, and in it FILE, if not null.
 */
char *host_path(const char *name, const char *file);

/* Makes the directory of NAME; returns its path. */
char *host_make(const char *name);

/* Listens on a Unix socket. The path may be longer than sun_path. */
int unix_listen(const char *path, int backlog);

/* Connects to the Unix socket, which listens with a short backlog, until that is full;
 * returns how many connections it took. */
int fill_backlog(const char *path);

/* host_make(NAME) and its tls-socket. */
int backend_listen(const char *name);

/* Accepts the connection that must come. */
#define backend_accept(listener) backend_accept_at(HERE, listener)
int backend_accept_at(const char *where, int listener);

/* A client connects and sends HELLO; the backend must receive it unchanged, and what it
 * answers must arrive; then both close. */
#define expect_served(listener, hello) expect_served_at(HERE, listener, hello)
void expect_served_at(const char *where, int listener, struct bytes hello);

/* Makes a file with the text in it. */
void make_file(const char *path, const char *content);

/* --- A connection through the proxy --- */

struct pair {
	int client;
	int backend;
};

/* A client and the backend that it was passed to; the hello has been read. */
#define pair_open(listener) pair_open_at(HERE, listener)
struct pair pair_open_at(const char *where, int listener);

/* A few bytes each way must arrive. */
#define pair_talk(pair) pair_talk_at(HERE, pair)
void pair_talk_at(const char *where, struct pair pair);

void pair_close(struct pair pair);

/* --- Load, in threads --- */

/* A backend that reads HELLO, answers with one byte, and closes. */
struct service {
	int listener;
	struct bytes hello;
	char answer;
	bool wants_header; /* the hello must follow a PROXY header, or else must not */
	atomic_int served;
	atomic_int wrong;    /* connections that brought anything else */
	atomic_int last_pid; /* the process of the proxy that connected */
	atomic_bool stop;
	pthread_t thread;
};

void service_start(struct service *service);
void service_stop(struct service *service);

/* A backend that sends back what comes on all its connections, the hello too, until it is stopped. */
struct echo {
	int listener;
	atomic_bool stop;
	pthread_t thread;
};

void echo_start(struct echo *echo);
void echo_stop(struct echo *echo);

/* Clients that connect, send HELLO, and read one byte and the end, one after another. */
struct load {
	struct bytes hello;
	atomic_int served;
	atomic_int failed; /* connections that ended otherwise */
	atomic_int error;  /* errno, or the number of bytes that came, negative */
	atomic_bool stop;
	int threads;
	pthread_t thread[16];
};

void load_start(struct load *load, int threads);
void load_stop(struct load *load);

#endif

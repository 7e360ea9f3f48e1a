/* Shared by the tests of the running program: starts sniproxy on a socket of its own, plays the
 * clients and the backends, and builds ClientHellos, valid and invalid ones.
 *
 * The programs under test come from the environment:
 *	SNIPROXY          the proxy, an absolute path; required
 *	SNIPROXY_STATIC   the same linked statically, for the chroot; optional
 *	HASHED            1 if the proxy looks up hashed directory names
 *	PORTABLE          1 if the proxy is built with POSIX alone
 *	SANITIZE          not empty if the proxy is built with sanitizers
 *	EMULATOR          qemu-user, static, if the proxy is built for another machine
 *	SKIPPED           a file that names tests to skip, a line each: SUITE::TEST, and why
 *
 * A test is a process of its own, so the state of the harness is global, and memory is freed at the
 * end of the process. A failure here fails the test; in a loop over a table, the message names the
 * row that testing() was told. */
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

/* Defines a test. Before its body the harness makes a hosts directory. Afterwards it closes all
 * sockets that it returned, stops each proxy that still runs, and fails the test if one does not
 * end with status 0 or a sanitizer has reported. If the test fails, the proxy's log is printed. */
#define PROGRAM_TEST(suite, name) LONG_PROGRAM_TEST(suite, name, 90)

/* The same for a test that may take SECONDS. */
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

/* Fails the test unless CONDITION holds; the other arguments are printf's. */
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

/* Whether the proxy is built for Linux, or with POSIX alone. The last skips a test that needs WHAT
 * in the latter case. */
bool is_linux(void);
bool is_portable(void);
void need(const char *what);

/* --- Time --- */

/* The monotonic clock in milliseconds. */
int64_t now_ms(void);

/* Whether the proxy is built with sanitizers. */
bool sanitized(void);

/* Whether the proxy is another machine's, and emulated. */
bool emulated(void);

/* How many threads there may be besides the proxy's own: sanitizers and emulators have some. */
int extra_threads(void);

/* How long to allow for what should take MS milliseconds: more with sanitizers, or if the proxy is
 * emulated. */
int margin_ms(int ms);

/* Waits until CONDITION holds; fails the test after margin_ms(MS). For what no descriptor
 * reports. */
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

/* The socket that all clients connect to, and its address. */
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

/* Starts a copy of the proxy with server.listener on stdin, in the hosts directory; its stdout and
 * stderr go to files. The child calls PREPARE, if it is not NULL, before it executes the program,
 * to change descriptors, limits, or rights. */
struct proxy *proxy_start(void (*prepare)(void));

/* server_listen("127.0.0.1") and proxy_start(NULL). */
struct proxy *proxy_start_default(void);

/* Uses the static program from now on. Returns false if there is none. */
bool proxy_use_static(void);

/* Returns when the proxy has served a connection, so that its signal handlers are in place. It must
 * be the only copy. */
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

/* For PREPARE: if it is root, becomes a user without any right. */
void become_nobody(void);

/* For what root may do, and other users in a user namespace of their own: skips the test if neither
 * is possible. */
void need_namespace(void);

/* For PREPARE: if it is not root, enters a user namespace in which it may do so. */
void enter_namespace(void);

/* For PREPARE: limits open files to MOST. A connection takes two. */
void limit_descriptors(unsigned most);

/* A user ID that no other process has, so that a limit on processes counts only the proxy's
 * threads: root takes such an ID; other users get a new count in a user namespace, from Linux 5.14
 * on. The first function skips the test if neither is possible. The other is for PREPARE, before it
 * sets the limit. */
void need_own_user(void);
void become_own_user(void);

/* For PREPARE: CALL fails with ERROR if its argument number ARGUMENT, counted from 0, is VALUE; or
 * always, if ARGUMENT is ANY_ARGUMENT. */
enum { ANY_ARGUMENT = -1 };
void refuse_call(long call, int argument, int value, int error);

/* For PREPARE: no SO_PASSRIGHTS, as before Linux 6.16, so that backends can pass descriptors with
 * their bytes. */
void let_descriptors_pass(void);

/* Reads a whole file under /proc/PID/ of the proxy. */
char *proxy_proc(const struct proxy *proxy, const char *file);

/* --- Faults, which strace(1) injects --- */

/* Injects FAULT, in the words of strace(1) ("error=EPERM"; a "when=" counts each thread and each
 * call separately), into the system calls CALLS ("accept,accept4") of all threads of the proxy from
 * now on. Other calls work as before. Returns the argument of fault_end(). Skips the test if strace
 * is missing, or may not trace. */
pid_t fault_begin(const struct proxy *proxy, const char *calls, const char *fault);
void fault_end(pid_t tracer);

/* Whether a thread of the proxy is blocked in the system call NUMBER. */
bool proxy_is_in(const struct proxy *proxy, long number);

/* Whether the main thread of the proxy sleeps, neither in accept(2), where it may wait for a
 * moment, nor for a lock. The next connection then meets accept(2) as fault_begin() made it. */
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

/* LENGTH of the bytes, from START on. They are not copied. */
struct bytes slice(struct bytes bytes, size_t start, size_t length);

/* A ClientHello. All zero is an ordinary one for HOST; each field makes one difference. A "_lie" is
 * added to a length after the right one was computed. */
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

/* Waits until FD can be read, or has ended. Returns false after margin_ms(MS). */
bool readable_within(int fd, int ms);

/* Whether nothing can be read or accepted during MS milliseconds. */
bool silent_for(int fd, int ms);

/* Sends all bytes without delay. */
#define send_all(fd, bytes) send_all_at(HERE, fd, bytes)
void send_all_at(const char *where, int fd, struct bytes bytes);

/* Sends each byte in a segment of its own. */
#define send_bytewise(fd, bytes) send_bytewise_at(HERE, fd, bytes)
void send_bytewise_at(const char *where, int fd, struct bytes bytes);

/* Part of an endless pattern: up to LENGTH bytes, from OFFSET on. */
struct bytes pattern(size_t offset, size_t length);

/* Sends the pattern from its start, until nothing is taken for a moment. Returns how many bytes
 * were taken. */
#define send_until_stalled(fd) send_until_stalled_at(HERE, fd)
size_t send_until_stalled_at(const char *where, int fd);

/* Fails unless LENGTH bytes of the pattern come next, from its start, or from OFFSET. */
#define expect_pattern(fd, length) expect_pattern_at(HERE, fd, 0, length)
#define expect_pattern_from(fd, offset, length) expect_pattern_at(HERE, fd, offset, length)
void expect_pattern_at(const char *where, int fd, size_t offset, size_t length);

/* Reads up to LENGTH bytes. Returns fewer at the end of the stream, after an error, and after some
 * seconds of silence. */
size_t read_up_to(int fd, void *data, size_t length);

/* Fails unless exactly these bytes come next. */
#define expect_bytes(fd, bytes) expect_bytes_at(HERE, fd, bytes)
void expect_bytes_at(const char *where, int fd, struct bytes bytes);

/* Fails unless the stream ends next, without a reset. */
#define expect_end(fd) expect_end_at(HERE, fd)
void expect_end_at(const char *where, int fd);

/* Fails unless the stream ends within margin_ms(MS), with or without a reset, before any byte. */
#define expect_gone(fd, ms) expect_gone_at(HERE, fd, ms)
void expect_gone_at(const char *where, int fd, int ms);

/* Reads until the stream ends, with or without a reset; fails unless that is within margin_ms(MS).
 * Returns how many bytes came. */
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

/* Fails unless the seven bytes of the alert come next, and then the end of the stream. */
#define expect_alert(fd, alert) expect_alert_at(HERE, fd, alert)
void expect_alert_at(const char *where, int fd, enum alert alert);

/* Returns when the proxy has accepted all connections and read all that clients sent; or, for
 * CLIENT, when it has accepted that one. Only for a server on 127.0.0.1. */
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

/* The same, but returns -1 with errno set if that fails. */
int client_try_connect(const char *from);

/* Whether nothing listens any more. The test has closed its own descriptor of the socket. */
bool is_refused(void);

/* Connects and sends. */
#define client_send(bytes) client_send_at(HERE, bytes)
int client_send_at(const char *where, struct bytes bytes);

/* A new connection sends BYTES and must get ALERT. */
#define expect_refused(bytes, alert) expect_refused_at(HERE, bytes, alert)
void expect_refused_at(const char *where, struct bytes bytes, enum alert alert);

/* --- Backends --- */

/* The temporary directory; the hosts directory is "hosts" in it. */
const char *base_directory(void);

/* The name of the directory for a server name: itself, or its hash. */
const char *directory_name(const char *name, size_t length);

/* A path below the hosts directory: the directory of NAME, and FILE in it, if that is not NULL. */
char *host_path(const char *name, const char *file);

/* Makes the directory of NAME; returns its path. */
char *host_make(const char *name);

/* Listens on a Unix socket. The path may be longer than sun_path. */
int unix_listen(const char *path, int backlog);

/* Connects to the Unix socket, whose backlog is short, until the backlog is full. Returns how many
 * connections that took. */
int fill_backlog(const char *path);

/* The backend at PATH, which must be free, has a full backlog. A client of HELLO is served once that
 * has been accepted, and by no other host meanwhile. */
void expect_backlog_is_waited_for(const char *path, struct bytes hello);

/* Calls host_make(NAME), and listens on its tls-socket. */
int backend_listen(const char *name);

/* Accepts the connection that must arrive. */
#define backend_accept(listener) backend_accept_at(HERE, listener)
int backend_accept_at(const char *where, int listener);

/* A client connects and sends HELLO. The backend must receive it unchanged, and the client the
 * backend's answer; then both close. */
#define expect_served(listener, hello) expect_served_at(HERE, listener, hello)
void expect_served_at(const char *where, int listener, struct bytes hello);

/* Makes a file with CONTENT. */
void make_file(const char *path, const char *content);

/* --- A connection through the proxy --- */

struct pair {
	int client;
	int backend;
};

/* A client, and the backend that its connection was passed to, which has read the hello. */
#define pair_open(listener) pair_open_at(HERE, listener)
struct pair pair_open_at(const char *where, int listener);

/* A few bytes must arrive in each direction. */
#define pair_talk(pair) pair_talk_at(HERE, pair)
void pair_talk_at(const char *where, struct pair pair);

void pair_close(struct pair pair);

/* --- Load, in threads --- */

/* A backend that reads HELLO, sends one byte, and closes. */
struct service {
	int listener;
	struct bytes hello;
	char answer;
	bool wants_header; /* whether a PROXY header must precede the hello; else none may */
	atomic_int served;
	atomic_int wrong;    /* connections that sent anything else */
	atomic_int last_pid; /* the proxy process that connected last */
	atomic_bool stop;
	pthread_t thread;
};

void service_start(struct service *service);
void service_stop(struct service *service);

/* A backend that sends back what arrives on all its connections, the hello too, until it is
 * stopped. */
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
	atomic_int error;  /* errno, or minus the number of bytes that came */
	atomic_bool stop;
	int threads;
	pthread_t thread[16];
};

void load_start(struct load *load, int threads);
void load_stop(struct load *load);

#endif

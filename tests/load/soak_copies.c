#include "tests/load/soak.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	COPIES_MAX = 1024,

	/* A copy accepts connections until it has noticed the signal. */
	NOTICE_MS = 1000,

	/* How late it may end: a sanitizer has much to do at that time. */
	LATE_MS = 15000,
};

struct copy {
	pid_t pid;
	char log[64];
	atomic_bool served;
	int64_t hung_up_ms; /* 0 until it was told to stop */
	int64_t ended_ms;   /* 0 while it runs */
	bool cut;           /* its status was 1 */
	unsigned cut_off;   /* connections, as its log says */
	unsigned outlived;  /* connections that may have been open when its grace was over */
};

static struct copy copies[COPIES_MAX];
static atomic_uint copies_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* for hung_up_ms and on */

static struct {
	const char *program;
	int listener;
	unsigned cut_none, cut_some, cut_off;
} all;

void
copies_init(const char *program, int listener)
{
	all.program = program;
	all.listener = listener;
}

/* In the child: only the environment of the soak is left. */
static _Noreturn void
execute(const char *log, pid_t parent)
{
	const struct rlimit files = {OPEN_FILES, OPEN_FILES};
	int file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (file != -1 && dup2(all.listener, 0) != -1 && dup2(file, 1) != -1 &&
	    dup2(file, 2) != -1 && getppid() == parent && setrlimit(RLIMIT_NOFILE, &files) == 0)
		execl(all.program, "sniproxy", (char *)NULL);
	_exit(127);
}

struct copy *
copies_start(void)
{
	unsigned count = copies_count;
	if (count == COPIES_MAX)
		broken("too many copies");
	struct copy *copy = &copies[count];
	snprintf(copy->log, sizeof copy->log, "../log.%u", count);
	pid_t parent = getpid();
	copy->pid = fork();
	if (copy->pid == -1)
		broken("fork");
	if (copy->pid == 0)
		execute(copy->log, parent);
	copies_count = count + 1;
	return copy;
}

void
copies_hang_up(struct copy *copy)
{
	pthread_mutex_lock(&mutex);
	copy->hung_up_ms = copy->ended_ms == 0 ? now_ms() : 0;
	pthread_mutex_unlock(&mutex);
	if (copy->ended_ms == 0)
		kill(copy->pid, SIGHUP);
}

static unsigned
running_copies(void)
{
	unsigned running = 0;
	for (unsigned i = 0; i < copies_count; i++)
		running += copies[i].ended_ms == 0;
	return running;
}

void
copies_stop(struct copy *last)
{
	copies_hang_up(last);
	int64_t deadline_ms = now_ms() + GRACE_MS + LATE_MS;
	while (running_copies() > 0) {
		copies_reap();
		for (unsigned i = 0; i < copies_count && now_ms() > deadline_ms; i++)
			if (copies[i].ended_ms == 0)
				kill(copies[i].pid, SIGKILL);
		sleep_ms(20);
	}
}

/* --- What a copy leaves --- */

/* Whether LINE is right. */
static bool
is_log_line(const char *line)
{
	static const char *const alarms[] = {"Sanitizer", "runtime error:", "Assertion"};
	for (size_t i = 0; i < sizeof alarms / sizeof *alarms; i++)
		if (strstr(line, alarms[i]) != NULL)
			return false;
	return line[0] == '=' || /* a sanitizer's, before its report */
	    strncmp(line, "sniproxy: ", strlen("sniproxy: ")) == 0 ||
	    strncmp(line, "127.0.0.", strlen("127.0.0.")) == 0;
}

/* Checks the log. Returns how many connections it says were cut off. */
static unsigned
read_log(const struct copy *copy)
{
	char line[1024];
	unsigned cut_off = 0;
	bool told = false;
	FILE *file = fopen(copy->log, "re");
	if (file == NULL)
		broken(copy->log);
	while (fgets(line, sizeof line, file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (!told && line[0] != '\0' && !is_log_line(line)) {
			problem("%s: %s", copy->log, line);
			told = true;
		}
		const char *stopped = strstr(line, "sniproxy: stopped; ");
		if (stopped != NULL)
			cut_off =
			    (unsigned)strtoul(stopped + strlen("sniproxy: stopped; "), NULL, 10);
	}
	fclose(file);
	return cut_off;
}

/* Checks that COPY, which has ended with STATUS, as waitpid(2) returns it, should have ended so. */
static void
check_end(struct copy *copy, int status)
{
	unsigned cut_off = copy->cut_off = read_log(copy);
	int64_t took_ms = copy->ended_ms - copy->hung_up_ms;
	bool good = WIFEXITED(status) && WEXITSTATUS(status) <= 1 && copy->hung_up_ms != 0;
	if (!good)
		problem("%s: the copy ended with wait status %#x", copy->log, status);
	if (good && copy->cut != (cut_off > 0))
		problem("%s: status %d, but %u connections were cut off", copy->log,
		    WEXITSTATUS(status), cut_off);
	if (good && copy->cut && took_ms < GRACE_MS)
		problem("%s: it cut connections off after %lld ms", copy->log, (long long)took_ms);
	if (took_ms > GRACE_MS + LATE_MS)
		problem("%s: it took %lld ms to stop", copy->log, (long long)took_ms);
	all.cut_off += cut_off;
	all.cut_some += copy->cut;
	all.cut_none += !copy->cut;
}

void
copies_reap(void)
{
	for (unsigned i = 0; i < copies_count; i++) {
		struct copy *copy = &copies[i];
		int status = 0;
		if (copy->ended_ms != 0 || waitpid(copy->pid, &status, WNOHANG) != copy->pid)
			continue;
		pthread_mutex_lock(&mutex);
		copy->cut = WIFEXITED(status) && WEXITSTATUS(status) == 1;
		copy->ended_ms = now_ms();
		pthread_mutex_unlock(&mutex);
		check_end(copy, status);
	}
}

void
copies_judge(void)
{
	for (unsigned i = 0; i < copies_count; i++)
		if (copies[i].cut_off > copies[i].outlived)
			problem("%s: it cut off %u connections, but no more than %u were "
				"left",
			    copies[i].log, copies[i].cut_off, copies[i].outlived);
}

void
copies_print(void)
{
	printf("copies of the proxy: %u, of which %u cut off no connection and %u cut off "
	       "%u, ten seconds after SIGHUP\n",
	    copies_count, all.cut_none, all.cut_some, all.cut_off);
}

/* --- What a copy uses --- */

static int
count_descriptors(const struct copy *copy)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/fd", (int)copy->pid);
	DIR *directory = opendir(path);
	if (directory == NULL)
		return -1;
	int count = 0;
	const struct dirent *entry;
	while ((entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

struct usage
copy_usage(const struct copy *copy)
{
	struct usage usage = {.descriptors = count_descriptors(copy)};
	char path[64], line[256];
	snprintf(path, sizeof path, "/proc/%d/status", (int)copy->pid);
	FILE *file = fopen(path, "re");
	while (file != NULL && fgets(line, sizeof line, file) != NULL) {
		if (strncmp(line, "Threads:", 8) == 0)
			usage.threads = (int)strtol(line + 8, NULL, 10);
		if (strncmp(line, "RssAnon:", 8) == 0)
			usage.anonymous_kib = strtol(line + 8, NULL, 10);
	}
	if (file != NULL)
		fclose(file);
	clockid_t clock;
	struct timespec used = {0};
	if (clock_getcpuclockid(copy->pid, &clock) == 0)
		clock_gettime(clock, &used);
	usage.cpu_us = (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
	return usage;
}

/* --- For other threads --- */

bool
copy_has_served(const struct copy *copy)
{
	return copy->served;
}

void
copies_served(pid_t pid)
{
	for (unsigned i = 0; i < copies_count; i++)
		if (copies[i].pid == pid)
			copies[i].served = true;
}

/* Whether a connection that lasted from BEGAN_MS until ENDED_MS may have been COPY's when its grace
 * was over. */
static bool
was_open(const struct copy *copy, int64_t began_ms, int64_t ended_ms)
{
	return copy->hung_up_ms != 0 && began_ms <= copy->hung_up_ms + NOTICE_MS &&
	    ended_ms >= copy->hung_up_ms + GRACE_MS;
}

void
copies_note(pid_t pid, int64_t began_ms, int64_t ended_ms)
{
	/* The proxy may notice the end of a connection a little later. */
	const int64_t later_ms = 500;
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < copies_count; i++)
		copies[i].outlived += (pid == 0 || pid == copies[i].pid) &&
		    was_open(&copies[i], began_ms, ended_ms + later_ms);
	pthread_mutex_unlock(&mutex);
}

/* Returns whether that is unknown yet; else sets CUT. */
static bool
undecided(pid_t pid, int64_t began_ms, int64_t ended_ms, bool *cut)
{
	bool runs = false;
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < copies_count; i++) {
		const struct copy *copy = &copies[i];
		if ((pid != 0 && pid != copy->pid) || !was_open(copy, began_ms, ended_ms))
			continue;
		runs |= copy->ended_ms == 0;
		*cut |= copy->cut && ended_ms <= copy->ended_ms + NOTICE_MS;
	}
	pthread_mutex_unlock(&mutex);
	return runs && !*cut;
}

bool
copies_cut(pid_t pid, int64_t began_ms, int64_t ended_ms)
{
	bool cut = false;
	int64_t deadline_ms = now_ms() + LATE_MS;
	while (undecided(pid, began_ms, ended_ms, &cut) && now_ms() < deadline_ms)
		sleep_ms(10);
	return cut;
}

#include "limits.h"

#include "system.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>

enum {
	/* A connection's descriptors: the client's and the backend's. Whoever is accepted must
	 * also get a backend. */
	DESCRIPTORS_A_CONNECTION = 2,

	/* Of so many descriptors, two may be a pipe's; and not more pipes than these. */
	DESCRIPTORS_A_PIPE = 64,
	PIPES_MAX = 256,

	/* Whoever started the program may have left it descriptors below this, besides 0
	 * to 2. */
	INHERITED_MAX = 1024,

	/* What the log opens. */
	OWN_DESCRIPTORS = 1,

	/* Where no limit on open files says otherwise. */
	CONNECTIONS_MAX = 1 << 20,

	/* For so much memory there may be a thread, which takes an eighth of that at most: its
	 * stack, what the kernel keeps for it, and some for what it works with. */
	MEMORY_A_THREAD = 1024 * 1024,
	THREADS_MIN = 16,

	/* Where the system does not tell how much there is. */
	THREADS_UNKNOWN = 512,

	/* One that is slow does not hold up all, and a connection has two ways. */
	FREE_THREADS_MIN = 2,
};

static unsigned
count_open(unsigned end)
{
	unsigned count = 0;
	for (unsigned descriptor = 0; descriptor < end; descriptor++)
		count += fcntl((int)descriptor, F_GETFD) != -1;
	return count;
}

static rlim_t
raise_open_files(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	uint64_t most = system_open_files();
	if (most != 0 && files.rlim_cur > most)
		files.rlim_cur = most;
	setrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_cur;
}

static unsigned
count_threads(void)
{
	uint64_t threads = system_memory() / MEMORY_A_THREAD;
	if (threads == 0)
		return THREADS_UNKNOWN;
	return threads < THREADS_MIN ? THREADS_MIN : (unsigned)threads;
}

struct limits
limits_find(void)
{
	rlim_t files = raise_open_files();
	rlim_t pipes = system_has_splice() ? files / DESCRIPTORS_A_PIPE : 0;
	if (pipes > PIPES_MAX)
		pipes = PIPES_MAX;
	rlim_t used = OWN_DESCRIPTORS + count_open(INHERITED_MAX) + 2 * pipes;
	rlim_t connections = files < used ? 0 : (files - used) / DESCRIPTORS_A_CONNECTION;
	unsigned processors = system_processors();
	return (struct limits){
	    .connections =
		connections < CONNECTIONS_MAX ? (unsigned)connections : CONNECTIONS_MAX,
	    .pipes = (unsigned)pipes,
	    .threads = count_threads(),
	    .free_threads = processors > FREE_THREADS_MIN ? processors : FREE_THREADS_MIN,
	};
}

/* The kernel hands out the lowest ones, so that none is above what was ever needed at once. */
unsigned
limits_count_descriptors(unsigned connections)
{
	return count_open(
	    INHERITED_MAX + 2 * PIPES_MAX + DESCRIPTORS_A_CONNECTION * connections);
}

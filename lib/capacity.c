#include "lib/capacity.h"

#include "system/system.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>

enum {
	/* A connection's descriptors: the client's and the backend's. A client that is accepted
	 * must also get a backend. */
	DESCRIPTORS_A_CONNECTION = 2,

	/* Of so many descriptors, two may be a pipe's; and not more pipes than these. */
	DESCRIPTORS_A_PIPE = 64,
	PIPES_MAX = 256,

	/* The program may have inherited descriptors below this, besides 0 to 2. */
	INHERITED_MAX = 1024,

	/* What the log opens. */
	OWN_DESCRIPTORS = 1,

	/* If no limit on open files says otherwise. */
	CONNECTIONS_MAX = 1 << 20,

	/* There may be one thread for so much memory, of which it takes an eighth at most: its
	 * stack, what the kernel keeps for it, and some for what it works with. */
	MEMORY_A_THREAD = 1024 * 1024,
	THREADS_MIN = 16,

	/* If the system does not tell how much there is. */
	THREADS_UNKNOWN = 512,
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

struct capacity
capacity_find(void)
{
	rlim_t files = raise_open_files();
	rlim_t pipes = files / DESCRIPTORS_A_PIPE;
	if (pipes > PIPES_MAX)
		pipes = PIPES_MAX;
	rlim_t used = OWN_DESCRIPTORS + count_open(INHERITED_MAX) + 2 * pipes;
	rlim_t connections = files < used ? 0 : (files - used) / DESCRIPTORS_A_CONNECTION;
	return (struct capacity){
	    .connections = connections < CONNECTIONS_MAX ? (unsigned)connections : CONNECTIONS_MAX,
	    .pipes = (unsigned)pipes,
	    .threads = count_threads(),
	};
}

/* The kernel hands out the lowest ones, so that none is above what was ever needed at once. */
unsigned
capacity_count_descriptors(unsigned connections)
{
	return count_open(INHERITED_MAX + 2 * PIPES_MAX + DESCRIPTORS_A_CONNECTION * connections);
}

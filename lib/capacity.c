#include "lib/capacity.h"

#include "system/system.h"

#include <fcntl.h>
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

	/* If no limit says otherwise. */
	CONNECTIONS_MAX = 1 << 20,
	THREADS_MAX = 512,

	/* One connection takes so much memory at most while it is idle: what the kernel keeps
	 * for its sockets, and the first buffer for its hello. */
	MEMORY_A_CONNECTION = 32 * 1024,

	/* There may be one thread for so much memory, of which it takes an eighth at most: its
	 * stack, what the kernel keeps for it, and some for what it works with. */
	MEMORY_A_THREAD = 1024 * 1024,
	THREADS_MIN = 16,

	/* Hellos may take one byte in so many, and no more than these. */
	HELLOS_SHARE = 8,
	HELLOS_MAX = 64 * 1024 * 1024,
};

static unsigned
count_open(void)
{
	unsigned count = 0;
	for (int descriptor = 0; descriptor < INHERITED_MAX; descriptor++)
		count += fcntl(descriptor, F_GETFD) != -1;
	return count;
}

/* The lower of two limits, of which 0 is none. */
static uint64_t
lower(uint64_t a, uint64_t b)
{
	return a != 0 && (b == 0 || a < b) ? a : b;
}

static uint64_t
raise_open_files(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = lower(files.rlim_max, system_open_files());
	setrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_cur;
}

static uint64_t
find_memory(void)
{
	struct rlimit space;
	if (getrlimit(RLIMIT_AS, &space) == -1 || space.rlim_cur == RLIM_INFINITY)
		space.rlim_cur = 0;
	return lower(system_memory(), space.rlim_cur);
}

struct capacity
capacity_find(void)
{
	uint64_t memory = find_memory();
	uint64_t files = raise_open_files();
	uint64_t pipes = files / DESCRIPTORS_A_PIPE;
	if (pipes > PIPES_MAX)
		pipes = PIPES_MAX;
	uint64_t used = OWN_DESCRIPTORS + count_open() + 2 * pipes;
	uint64_t connections = files < used ? 0 : (files - used) / DESCRIPTORS_A_CONNECTION;
	uint64_t most = lower(CONNECTIONS_MAX, memory / MEMORY_A_CONNECTION);
	uint64_t threads = memory == 0 ? THREADS_MAX : memory / MEMORY_A_THREAD;
	threads = lower(threads, system_threads());
	return (struct capacity){
	    .memory = memory,
	    .connections = (unsigned)(connections < most ? connections : most),
	    .pipes = (unsigned)pipes,
	    .threads = threads > THREADS_MIN ? (unsigned)threads : THREADS_MIN,
	    .hellos = (size_t)lower(HELLOS_MAX, memory / HELLOS_SHARE),
	};
}

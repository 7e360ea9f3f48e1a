#include "lib/capacity.h"

#include "system/system.h"

#include <sys/resource.h>

enum {
	DESCRIPTORS_A_CONNECTION = 2, /* the client's and the backend's */
	DESCRIPTORS_A_PIPE = 64,      /* two are the pipe's, the others of connections */
	PIPES_MAX = 256,

	/* Descriptors of the program itself: the standard ones, the hosts directory, the log's, and
	 * one or two to watch sockets. */
	DESCRIPTORS_OF_PROGRAM = 7,

	/* Maxima if no limit says otherwise. */
	CONNECTIONS_MAX = 1 << 20,
	THREADS_MAX = 512,

	/* Memory for a connection. An idle one uses half of it at most: the kernel's for its
	 * sockets, and the first buffer of its hello. */
	MEMORY_A_CONNECTION = 32 * 1024,

	/* Memory for a thread. It uses an eighth at most: stack, kernel memory, allocations. */
	MEMORY_A_THREAD = 1024 * 1024,
	THREADS_MIN = 16,

	/* Hellos may use one byte in so many, and no more than HELLOS_MAX. */
	HELLOS_SHARE = 8,
	HELLOS_MAX = 64 * 1024 * 1024,
};

static uint64_t
lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
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

struct capacity
capacity_find(void)
{
	struct rlimit space;
	uint64_t files = raise_open_files(); /* system_memory() opens some */
	getrlimit(RLIMIT_AS, &space);
	uint64_t machine = system_memory(), memory = lower(machine, space.rlim_cur);
	uint64_t pipes = lower(files / DESCRIPTORS_A_PIPE, PIPES_MAX);
	uint64_t used = DESCRIPTORS_OF_PROGRAM + 2 * pipes;
	uint64_t connections = files < used ? 0 : (files - used) / DESCRIPTORS_A_CONNECTION;
	uint64_t most = lower(CONNECTIONS_MAX, memory / MEMORY_A_CONNECTION);
	uint64_t threads = lower(memory / MEMORY_A_THREAD, system_threads());
	if (machine == UINT64_MAX) /* other limits do not tell what the machine can do */
		threads = lower(threads, THREADS_MAX);
	return (struct capacity){
	    .memory = memory < RLIM_INFINITY ? memory : 0, /* 0: unknown */
	    .connections = (unsigned)lower(connections, most),
	    .pipes = (unsigned)pipes,
	    .threads = threads > THREADS_MIN ? (unsigned)threads : THREADS_MIN,
	    .hellos = (size_t)lower(HELLOS_MAX, memory / HELLOS_SHARE),
	};
}

/* Shared by the fuzz tests. Each is one function, LLVMFuzzerTestOneInput(), which libFuzzer, AFL++,
 * or replay.c calls with one input after another. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tests the input. Returns 0; aborts if a property does not hold. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

/* Aborts with a message, formatted as by printf(3), unless CONDITION holds. */
#define PROPERTY(condition, ...) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
			abort(); \
		} \
	} while (0)

/* A block of exactly SIZE bytes, so that AddressSanitizer detects a read past its end. Aborts if
 * memory is short. */
static inline uint8_t *
fuzz_copy(const uint8_t *bytes, size_t size)
{
	uint8_t *block = calloc(size > 0 ? size : 1, 1);
	PROPERTY(block != NULL, "out of memory");
	if (size > 0)
		memcpy(block, bytes, size);
	return block;
}

/* The steps in the input of fuzz_path.c. The lower seven bits of a byte choose one; if its highest
 * bit is set, the proxy does not run before the next step. */
enum fuzz_step {
	STEP_CLIENT_SENDS,        /* a length of one byte, and the bytes */
	STEP_CLIENT_SENDS_BLOCKS, /* how many, of 4 KiB each */
	STEP_CLIENT_RECEIVES,     /* how much at most, in units of 256 bytes */
	STEP_CLIENT_ENDS,
	STEP_CLIENT_CLOSES,
	STEP_BACKEND_SENDS, /* as the client does */
	STEP_BACKEND_SENDS_BLOCKS,
	STEP_BACKEND_RECEIVES,
	STEP_BACKEND_ENDS,
	STEP_BACKEND_CLOSES,
	STEP_TIME_PASSES, /* how much, in units of 100 milliseconds */
	STEP_BUFFERS_SHRINK,
	STEP_BACKEND_DEAF, /* the backend reads no more */
	STEP_BACKEND_BUSY, /* a quarter of the number of connects that fail, and the error */
	STEP_FAULTS,       /* how many calls of the proxy are interrupted, or transfer less */
	STEP_EVICT,
	STEP_SPECIAL_HOSTS, /* which exist, for hosts_set_special() */
	STEP_SOCKET,        /* eight times the host, four times its socket, and the state of that */
	STEP_THREADS_SHORT, /* or no longer */
	STEP_NEXT_CLIENT,   /* if the last one was rejected because of its host, or is served */
	STEP_COUNT,
	STEP_AT_ONCE = 0x80,
};

#endif

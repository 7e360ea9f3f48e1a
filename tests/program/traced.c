/* Runs the program TRACED under strace(1), which writes each of its system calls to a file in the
 * directory TRACES. strace(1) is not its parent, so it keeps the process ID, the descriptors, the
 * limits and the exit status of this program.
 *
 * usage: TRACED=PROGRAM TRACES=DIRECTORY traced [ARGUMENT...] */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORDS = 7 };

int
main(int argc, char *argv[])
{
	char trace[256],
	    *words[WORDS + 8] = {"strace", "-DDD", "-f", "-q", "-o", trace, getenv("TRACED")};
	const char *traces = getenv("TRACES");
	if (words[WORDS - 1] == NULL || traces == NULL || argc > 8)
		return 2;
	snprintf(trace, sizeof trace, "%s/%d", traces, (int)getpid());
	for (int i = 1; i < argc; i++)
		words[WORDS - 1 + i] = argv[i];
	execvp(words[0], words);
	perror(words[0]);
	return 127;
}

/* Gives each file of a corpus to a fuzz test, and reports in TAP.
 *
 * usage: replay_TEST DIRECTORY
 *
 * One process gets all files. If it fails, each file gets a process of its own, so that those that
 * made it fail are named. */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

/* How long a process may take: a corpus takes a few seconds. */
enum { TIMEOUT_S = 200 };

static int
is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void
run_file(int directory, const char *name)
{
	int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
	struct stat status;
	PROPERTY(file != -1 && fstat(file, &status) == 0, "%s: cannot be opened", name);
	size_t length = (size_t)status.st_size;
	uint8_t *bytes = malloc(length == 0 ? 1 : length);
	PROPERTY(bytes != NULL && read(file, bytes, length) == (ssize_t)length,
	    "%s: cannot be read", name);
	close(file);
	LLVMFuzzerTestOneInput(bytes, length);
	free(bytes);
}

/* Runs COUNT files in a process of their own. Returns whether it succeeded. */
static bool
run_files(int directory, struct dirent **entries, int count)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		alarm(TIMEOUT_S);
		for (int i = 0; i < count; i++)
			run_file(directory, entries[i]->d_name);
		exit(0);
	}
	int status;
	return child != -1 && waitpid(child, &status, 0) == child && status == 0;
}

/* Runs the files one by one. Returns how many failed. */
static int
name_findings(int directory, struct dirent **entries, int count)
{
	int findings = 0;
	for (int i = 0; i < count; i++)
		if (!run_files(directory, &entries[i], 1))
			printf("not ok %d - %s\n", ++findings, entries[i]->d_name);
	return findings;
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	struct dirent **entries;
	int count = scandir(argv[1], &entries, is_input, alphasort);
	int directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (count <= 0 || directory == -1) {
		printf("not ok 1 - no inputs in %s\n1..1\n", argv[1]);
		return 1;
	}

	bool passed = run_files(directory, entries, count);
	int findings = passed ? 0 : name_findings(directory, entries, count);
	if (passed)
		printf("ok 1 - %d inputs in %s\n1..1\n", count, argv[1]);
	else if (findings == 0)
		printf("not ok 1 - %s, but each file of it by itself\n", argv[1]);
	for (int i = 0; i < count; i++)
		free(entries[i]);
	free(entries);
	close(directory);
	return passed ? 0 : 1;
}

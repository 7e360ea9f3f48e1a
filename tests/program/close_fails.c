/* Goes before the C library (LD_PRELOAD): close(2) closes and fails all the same, as
 * Linux has it where a signal or the disk comes in between. strace(1) can only keep the
 * call from being made. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

int close(int descriptor);

int
close(int descriptor)
{
	syscall(SYS_close, descriptor);
	errno = descriptor % 2 == 0 ? EINTR : EIO;
	return -1;
}

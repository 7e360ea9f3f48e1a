/* For LD_PRELOAD: close(2) closes, but fails, as on Linux if a signal or the disk interrupts it.
 * strace(1) can only prevent the call. */
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

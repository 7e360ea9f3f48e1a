/* What a build with ThreadSanitizer has in place of epoll_ctl(2). The sanitizer knows that what precedes
 * EPOLL_CTL_ADD is over when another thread is told of the event, but not of EPOLL_CTL_MOD: it would
 * report a race with the close(2) of that thread, and it is as slow where the report is
 * suppressed. */
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int __real_epoll_ctl(int set, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int set, int operation, int fd, struct epoll_event *event);

int
__wrap_epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
	if (operation == EPOLL_CTL_ADD)
		return __real_epoll_ctl(set, operation, fd, event);
	return (int)syscall(SYS_epoll_ctl, set, operation, fd, event);
}

/* Replaces epoll_ctl(2) in a build with ThreadSanitizer. The sanitizer knows that what precedes
 * EPOLL_CTL_ADD happens before another thread fetches the event, but does not know that of
 * EPOLL_CTL_MOD: it would report a race with that thread's close(2), and suppressed reports are as
 * slow. */
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

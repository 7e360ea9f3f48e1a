/* Replaces pselect(2) by ppoll(2) in a build with ThreadSanitizer. If a signal ends a call that the
 * sanitizer knows, it runs the handler at once. It does not know pselect(2): the program would wait
 * again, unaware of the signal. */
#include <poll.h>
#include <stddef.h>
#include <sys/select.h>

int __wrap_pselect(int count, fd_set *in, fd_set *out, fd_set *errors,
    const struct timespec *timeout, const sigset_t *mask);

/* The program calls it for descriptor 0, or for none. */
int
__wrap_pselect(int count, fd_set *in, fd_set *out, fd_set *errors, const struct timespec *timeout,
    const sigset_t *mask)
{
	struct pollfd entry = {.fd = 0, .events = POLLIN};
	(void)in, (void)out, (void)errors;
	return ppoll(&entry, (nfds_t)count, timeout, mask);
}

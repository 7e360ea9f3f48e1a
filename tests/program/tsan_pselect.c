/* What a build with ThreadSanitizer has in place of pselect(2): ppoll(2). The sanitizer runs a signal's
 * handler at once where the signal ends a call that it knows, and does not know pselect(2): the
 * program would wait again, and not know of the signal. */
#include <poll.h>
#include <stddef.h>
#include <sys/select.h>

int __wrap_pselect(int count, fd_set *in, fd_set *out, fd_set *errors,
    const struct timespec *timeout, const sigset_t *mask);

/* As the program calls it: for descriptor 0, or none. */
int
__wrap_pselect(int count, fd_set *in, fd_set *out, fd_set *errors, const struct timespec *timeout,
    const sigset_t *mask)
{
	struct pollfd entry = {.fd = 0, .events = POLLIN};
	(void)in, (void)out, (void)errors;
	return ppoll(&entry, (nfds_t)count, timeout, mask);
}

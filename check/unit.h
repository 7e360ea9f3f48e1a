/* Properties of a service, from systemctl(1). */
#ifndef UNIT_H
#define UNIT_H

#include "check/view.h"

/* Whether UNIT is installed and not masked. Prints nothing if systemctl(1) cannot tell. */
bool unit_is_installed(const char *unit);

/* Sets VIEW and the working *DIRECTORY to those of UNIT, a service. Returns whether that succeeded;
 * if not, prints why on stderr. */
bool unit_read(struct view *view, const char **directory, const char *unit);

/* Why a service does not start, and what to do. Both are NULL if no reason is known. They are never
 * freed. */
struct unit_fault {
	const char *reason;
	const char *remedy;
};

/* Sets FAULT if the socket units of UNIT, a service, do not open one TCP socket, as the program
 * needs. An inactive socket unit counts only if it opens several sockets. Errors of systemctl(1) go
 * to stderr. */
void unit_check_sockets(struct unit_fault *fault, const char *unit);

#endif

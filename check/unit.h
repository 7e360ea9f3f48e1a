/* A service, as systemd knows it, by systemctl(1). */
#ifndef UNIT_H
#define UNIT_H

#include "check/view.h"

/* Whether UNIT is there, and is not masked. Says nothing if systemctl(1) cannot tell. */
bool unit_is_installed(const char *unit);

/* Sets VIEW and the working *DIRECTORY to those of UNIT, a service. Returns whether that was
 * possible; if not, says why on stderr. */
bool unit_read(struct view *view, const char **directory, const char *unit);

/* Why a service does not start, and what to do; for people. Both are NULL if nothing is known to
 * prevent that, and live as long as the program. */
struct unit_fault {
	const char *reason;
	const char *remedy;
};

/* Sets FAULT if the socket units of UNIT, a service, do not open what the program takes: one TCP
 * socket. Of the units that are inactive, only those count that open several themselves. Errors of
 * systemctl(1) go to stderr. */
void unit_check_sockets(struct unit_fault *fault, const char *unit);

#endif

/* No sandbox: for other systems, and for sanitizers, which open files, trace and execute. */
#include "system/sandbox.h"

unsigned
sandbox_enter(unsigned wanted)
{
	(void)wanted;
	return 0;
}

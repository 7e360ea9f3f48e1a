/* What sniproxy-check prints: a table for people, or JSON. */
#ifndef REPORT_H
#define REPORT_H

#include "check/entry.h"
#include "check/unit.h"

#include <stdio.h>

struct report {
	const struct entry *entries;
	size_t count;
	const char *directory;    /* the hosts directory */
	const char *user;         /* whose rights were in force */
	const char *const *notes; /* what could not be found out; ends with NULL */
	const char *unit;         /* the service, or NULL */
	struct unit_fault fault;  /* of that */
	bool only_faults;         /* leaves out what is well and has no warning */
};

/* Prints a table, with colours where USES_COLOUR. Returns whether STREAM took it. */
bool report_table(FILE *stream, const struct report *report, bool uses_colour);

/* Prints one JSON object. Returns whether STREAM took it. */
bool report_json(FILE *stream, const struct report *report);

#endif

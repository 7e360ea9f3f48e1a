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
	const char *const *notes; /* on what remained unknown; ends with NULL */
	const char *unit;         /* the service, or NULL */
	struct unit_fault fault;  /* of the service */
	bool only_faults;         /* leaves out entries that are well and have no warning */
};

/* Prints a table, with colours if USES_COLOUR. Returns whether writing to STREAM succeeded. */
bool report_table(FILE *stream, const struct report *report, bool uses_colour);

/* Prints one JSON object. Returns whether writing to STREAM succeeded. */
bool report_json(FILE *stream, const struct report *report);

#endif

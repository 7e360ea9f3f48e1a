#include "check/report.h"

#include "lib/idna.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Longer names do not widen the column of names. */
enum { COLUMN_MAX = 40 };

static size_t
well(const struct report *report)
{
	size_t count = 0;
	for (size_t i = 0; i < report->count; i++)
		count += entry_is_well(&report->entries[i]);
	return count;
}

static bool
is_left_out(const struct report *report, const struct entry *entry)
{
	return report->only_faults && entry_is_well(entry) && entry->warning == NULL;
}

/* --- The table --- */

/* Returns the number of characters in TEXT, which is UTF-8. */
static int
width(const char *text)
{
	int characters = 0;
	for (; *text != '\0'; text++)
		characters += (*text & 0xc0) != 0x80;
	return characters;
}

/* Returns the width of the column of names. */
static int
column(const struct report *report)
{
	int widest = 0;
	for (size_t i = 0; i < report->count; i++) {
		char *name = idna_shown(report->entries[i].name);
		int its = name == NULL ? 0 : width(name);
		if (its > widest && its <= COLUMN_MAX)
			widest = its;
		free(name);
	}
	return widest;
}

/* Prints a line below the name of an entry. */
static void
print_line(FILE *stream, int column, const char *mark, const char *text)
{
	if (text != NULL)
		fprintf(stream, "%*s  %s%s\n", column, "", mark, text);
}

static void
print_certificate(FILE *stream, int column, const struct handshake *handshake)
{
	struct tm parts;
	char ends[sizeof "2026-11-25"] = "?";
	gmtime_r(&handshake->not_after, &parts);
	strftime(ends, sizeof ends, "%F", &parts);
	fprintf(stream, "%*s  %s, until %s, for", column, "", handshake->protocol, ends);
	for (size_t i = 0; i < handshake->names_count; i++) {
		fputc(' ', stream);
		idna_show(stream, handshake->names[i]);
	}
	fputs(handshake->names_count == 0 ? " no name\n" : "\n", stream);
}

/* Prints which special host serves ENTRY, unless that is its name, and the PROXY header. */
static void
print_details(FILE *stream, const struct entry *entry)
{
	if (hostname_is_special(entry->serving) && strcmp(entry->serving, entry->name) != 0)
		fprintf(stream, ", by %s", entry->serving);
	if (entry->proxy_version == 1)
		fputs(", with a PROXY header", stream);
	else if (entry->proxy_version > 1)
		fprintf(stream, ", with a PROXY header of version %u", entry->proxy_version);
	fputc('\n', stream);
}

static void
print_entry(FILE *stream, const struct entry *entry, int column, bool uses_colour)
{
	char *name = idna_shown(entry->name);
	bool is_served = entry->state == ENTRY_SERVED, is_well = entry_is_well(entry);
	const char *colour = is_well && entry->warning == NULL ? "\x1b[32m"
	    : is_well                                          ? "\x1b[33m"
							       : "\x1b[31m";
	int padding = name == NULL ? 0 : column - width(name);
	fprintf(stream, "%s%*s  %s%s%s", name == NULL ? "?" : name, padding > 0 ? padding : 0, "",
	    uses_colour ? colour : "", is_served ? "served" : "NOT SERVED",
	    uses_colour ? "\x1b[0m" : "");
	print_details(stream, entry);
	print_line(stream, column, "", entry->reason);
	print_line(stream, column, "-> ", entry->remedy);
	print_line(stream, column, "warning: ", entry->warning);
	if (entry->has_handshake && entry->handshake.done)
		print_certificate(stream, column, &entry->handshake);
	free(name);
}

/* Prints why the service does not start. */
static void
print_fault(FILE *stream, const struct report *report, int column, bool uses_colour)
{
	fprintf(stream, "%s  %sDOES NOT START%s\n", report->unit, uses_colour ? "\x1b[31m" : "",
	    uses_colour ? "\x1b[0m" : "");
	print_line(stream, column, "", report->fault.reason);
	print_line(stream, column, "-> ", report->fault.remedy);
}

bool
report_table(FILE *stream, const struct report *report, bool uses_colour)
{
	int its_column = column(report);
	for (size_t i = 0; i < report->count; i++)
		if (!is_left_out(report, &report->entries[i]))
			print_entry(stream, &report->entries[i], its_column, uses_colour);
	if (report->fault.reason != NULL)
		print_fault(stream, report, its_column, uses_colour);
	size_t well_count = well(report);
	if (!report->only_faults || well_count < report->count) {
		fputs(report->count == 0 ? "no hosts in " : "", stream);
		if (report->count > 0)
			fprintf(stream, "%zu of %zu are well, in ", well_count, report->count);
		idna_show(stream, report->directory);
		fputs(", for ", stream);
		idna_show(stream, report->user);
		fputc('\n', stream);
	}
	return fflush(stream) == 0 && !ferror(stream);
}

/* --- JSON --- */

/* Returns TEXT, made safe to print; or null. */
static json_t *
string(const char *text)
{
	char *safe = text == NULL ? NULL : idna_shown(text);
	json_t *value = safe == NULL ? json_null() : json_string(safe);
	free(safe);
	return value;
}

/* Returns TEXT, which entry.c has made safe to print; or null. */
static json_t *
phrase(const char *text)
{
	return text == NULL ? json_null() : json_string(text);
}

static json_t *
moment(time_t time)
{
	struct tm parts;
	char text[sizeof "2026-11-25T12:34:56Z"] = "";
	gmtime_r(&time, &parts);
	strftime(text, sizeof text, "%FT%TZ", &parts);
	return json_string(text);
}

static json_t *
handshake_object(const struct handshake *handshake)
{
	json_t *object = json_object();
	json_object_set_new(object, "done", json_boolean(handshake->done));
	if (!handshake->done) {
		json_object_set_new(object, "failure", string(handshake->failure));
		return object;
	}
	json_t *names = json_array();
	for (size_t i = 0; i < handshake->names_count; i++)
		json_array_append_new(names, string(handshake->names[i]));
	json_object_set_new(object, "protocol", string(handshake->protocol));
	json_object_set_new(object, "names", names);
	json_object_set_new(object, "has_name", json_boolean(handshake->has_name));
	json_object_set_new(object, "not_before", moment(handshake->not_before));
	json_object_set_new(object, "not_after", moment(handshake->not_after));
	json_object_set_new(object, "expires_soon", json_boolean(handshake->ends_soon));
	return object;
}

static json_t *
entry_object(const struct entry *entry)
{
	json_t *object = json_object();
	json_object_set_new(object, "name", string(entry->name));
	json_object_set_new(
	    object, "host", entry->host[0] == '\0' ? json_null() : string(entry->host));
	json_object_set_new(
	    object, "directory", entry->serving[0] == '\0' ? json_null() : string(entry->serving));
	json_object_set_new(object, "served", json_boolean(entry->state == ENTRY_SERVED));
	json_object_set_new(object, "well", json_boolean(entry_is_well(entry)));
	json_object_set_new(object, "state", string(entry_state_name(entry->state)));
	json_object_set_new(
	    object, "alert", entry->alert == 0 ? json_null() : json_integer(entry->alert));
	json_object_set_new(object, "send_proxy_v1", json_boolean(entry->proxy_version == 1));
	json_object_set_new(object, "send_proxy_v2", json_boolean(entry->proxy_version == 2));
	json_object_set_new(object, "acme_tls_socket",
	    entry->acme == ENTRY_ACME_MISSING ? json_null()
					      : json_boolean(entry->acme == ENTRY_ACME_ACCEPTED));
	json_object_set_new(object, "reason", phrase(entry->reason));
	json_object_set_new(object, "remedy", phrase(entry->remedy));
	json_object_set_new(object, "warning", phrase(entry->warning));
	json_object_set_new(object, "tls",
	    entry->has_handshake ? handshake_object(&entry->handshake) : json_null());
	return object;
}

static json_t *
unit_object(const struct report *report)
{
	if (report->unit == NULL)
		return json_null();
	json_t *object = json_object();
	json_object_set_new(object, "name", string(report->unit));
	json_object_set_new(object, "reason", string(report->fault.reason));
	json_object_set_new(object, "remedy", string(report->fault.remedy));
	return object;
}

bool
report_json(FILE *stream, const struct report *report)
{
	json_t *object = json_object(), *entries = json_array(), *notes = json_array();
	for (size_t i = 0; i < report->count; i++)
		if (!is_left_out(report, &report->entries[i]))
			json_array_append_new(entries, entry_object(&report->entries[i]));
	for (size_t i = 0; report->notes[i] != NULL; i++)
		json_array_append_new(notes, string(report->notes[i]));
	json_object_set_new(object, "directory", string(report->directory));
	json_object_set_new(object, "user", string(report->user));
	json_object_set_new(object, "unit", unit_object(report));
	json_object_set_new(object, "count", json_integer((json_int_t)report->count));
	json_object_set_new(object, "well", json_integer((json_int_t)well(report)));
	json_object_set_new(object, "notes", notes);
	json_object_set_new(object, "entries", entries);
	bool printed = json_dumpf(object, stream, JSON_INDENT(2)) == 0;
	json_decref(object);
	fputc('\n', stream);
	return printed && fflush(stream) == 0 && !ferror(stream);
}

/* Compares the results of tls.c and hostname.c for thousands of hellos, legal and broken, with
 * those of OpenSSL and GnuTLS for the same bytes. A difference must be a decision listed in
 * oracle_decisions.c and in docs/differences.md. It is always an error if a library reads another
 * name than the one that is routed. Prints TAP.
 *
 * ORACLE_COUNT=N    how many hellos
 * ORACLE_SEED=N     the first hello's seed, the others' follow; or "random" */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/oracle/oracle.h"

const char *const library_names[LIBRARIES] = {"OpenSSL", "GnuTLS"};

static const char document[] = "docs/differences.md";

/* How often each result occurred. */
struct tally {
	size_t legal, legal_accepted[LIBRARIES];
	size_t ours[WANTS_MORE + 1], theirs[LIBRARIES][WANTS_MORE + 1];
	size_t names_compared[LIBRARIES];
	size_t confused, wrongly_refused, wrongly_routed;
	size_t same_alert[LIBRARIES], other_alert[LIBRARIES];
	size_t *decisions[LIBRARIES]; /* for each decision */
	size_t *mutations;            /* for each mutation */
};

enum { REPORTS_MAX = 10 };

enum outcome
outcome_of_alert(int alert)
{
	switch (alert) {
	case 40:  /* handshake_failure */
	case 46:  /* certificate_unknown */
	case 51:  /* decrypt_error */
	case 70:  /* protocol_version */
	case 71:  /* insufficient_security */
	case 86:  /* inappropriate_fallback */
	case 109: /* missing_extension */
	case 112: /* unrecognized_name */
	case 120: /* no_application_protocol */
		return UNWILLING;
	default:
		return MALFORMED;
	}
}

void
verdict_set_name(struct verdict *verdict, const void *name, size_t length)
{
	const uint8_t *bytes = name;
	if (length > NAME_ROOM)
		abort();
	bool same = length == verdict->name_length;
	for (size_t i = 0; i < length; i++) {
		uint8_t byte = bytes[i];
		if (byte >= 'A' && byte <= 'Z')
			byte = (uint8_t)(byte - 'A' + 'a');
		same = same && verdict->name[i] == byte;
		verdict->name[i] = byte;
	}
	verdict->named_otherwise |= verdict->named && !same;
	verdict->name_length = length;
	verdict->named = true;
}

static void
our_name(struct tls_hello *hello, struct verdict *verdict)
{
	const uint8_t *name = NULL;
	size_t length = 0;
	char canonical[HOSTNAME_SIZE];
	if (tls_hello_server_name(hello, &name, &length) != TLS_OK) {
		verdict->alert = (int)hello->alert;
		snprintf(verdict->reason, sizeof verdict->reason, "%s", hello->reason);
	} else if (!hostname_canonical(canonical, name, length)) {
		verdict->alert = TLS_UNRECOGNIZED_NAME;
		snprintf(verdict->reason, sizeof verdict->reason, "invalid name");
	} else {
		verdict->outcome = ACCEPTED;
		verdict_set_name(verdict, canonical, strlen(canonical));
		return;
	}
	verdict->outcome = outcome_of_alert(verdict->alert);
}

static void
our_judge(const struct bytes *stream, struct verdict *verdict)
{
	struct tls_hello hello = {0};
	switch (tls_hello_feed(&hello, stream->data, stream->length)) {
	case TLS_INCOMPLETE:
		verdict->outcome = WANTS_MORE;
		break;
	case TLS_REFUSED:
		verdict->alert = (int)hello.alert;
		verdict->outcome = outcome_of_alert(verdict->alert);
		snprintf(verdict->reason, sizeof verdict->reason, "%s", hello.reason);
		break;
	case TLS_OK:
		our_name(&hello, verdict);
		break;
	}
	tls_hello_release(&hello);
}

static void
judge(enum library library, const struct bytes *stream, struct verdict *verdict)
{
	verdict->outcome = WANTS_MORE;
	verdict->alert = NO_ALERT;
	verdict->parsed = verdict->named = verdict->named_otherwise = false;
	verdict->name_length = 0;
	verdict->reason[0] = '\0';
	if (library == OPENSSL)
		openssl_judge(stream, verdict);
	else if (library == GNUTLS)
		gnutls_judge(stream, verdict);
	else
		our_judge(stream, verdict);
}

/* Reports. */

static void
print_bytes(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		printf(bytes[i] > ' ' && bytes[i] < 0x7f && bytes[i] != '\\' ? "%c" : "\\x%02x",
		    bytes[i]);
}

static void
print_verdict(const char *who, const struct verdict *verdict)
{
	static const char *const outcomes[] = {
	    "accepts", "refuses as malformed", "refuses", "wants more"};
	printf("#   %s: %s", who, outcomes[verdict->outcome]);
	if (verdict->alert != NO_ALERT)
		printf(", alert %d", verdict->alert);
	if (verdict->named) {
		printf(", name ");
		print_bytes(verdict->name, verdict->name_length);
	}
	printf(verdict->parsed ? ", parsed" : "");
	printf(verdict->reason[0] == '\0' ? "\n" : " (%s)\n", verdict->reason);
}

static void
report(const char *what, const struct sample *sample, uint64_t seed, const struct verdict *ours,
    const struct verdict *theirs)
{
	printf("# %s: ORACLE_SEED=%llu ORACLE_COUNT=1\n#   mutations:", what,
	    (unsigned long long)seed);
	for (size_t i = 0; i < sample->mutation_count; i++)
		printf("%s %s", i == 0 ? "" : ",", sample->mutations[i]);
	printf("\n");
	print_verdict("sniproxy", ours);
	for (size_t library = 0; library < LIBRARIES; library++)
		print_verdict(library_names[library], &theirs[library]);
	printf("#   ");
	for (size_t i = 0; i < sample->stream.length; i++)
		printf("%02x", sample->stream.data[i]);
	printf("\n");
}

/* Comparing. */

static bool
same_name(const struct verdict *ours, const struct verdict *theirs)
{
	return ours->name_length == theirs->name_length &&
	    memcmp(ours->name, theirs->name, ours->name_length) == 0;
}

/* Whether a hello is served only here or only there, or is served for a name here and for none
 * there. If both reject it, they agree, whatever the alert: it reaches nothing. */
static bool
differ(const struct verdict *ours, const struct verdict *theirs)
{
	if (ours->outcome != ACCEPTED)
		return theirs->outcome == ACCEPTED && (ours->outcome != UNWILLING || theirs->named);
	return theirs->outcome == MALFORMED || theirs->outcome == WANTS_MORE ||
	    theirs->alert == TLS_UNRECOGNIZED_NAME ||
	    (theirs->outcome == ACCEPTED && !theirs->named);
}

/* Whether the library accepts the hello, and reads the same name, if it knows no extension except
 * server_name. */
static bool
is_neutral_fine(enum library library, const struct bytes *stream)
{
	static struct verdict ours, theirs;
	struct bytes neutral = {0};
	bool fine = shape_neutralize(stream, &neutral);
	if (fine) {
		judge(LIBRARIES, &neutral, &ours);
		judge(library, &neutral, &theirs);
		fine = ours.outcome == ACCEPTED && !differ(&ours, &theirs);
	}
	bytes_release(&neutral);
	return fine;
}

/* Finds the first decision that explains the difference. Returns decision_count if none does. */
static size_t
find_decision(const struct difference *difference)
{
	for (size_t i = 0; i < decision_count; i++) {
		const struct decision *decision = &decisions[i];
		if (decision->libraries[difference->library] &&
		    decision->ours == difference->ours->outcome &&
		    decision->theirs == difference->theirs->outcome &&
		    decision->applies(difference))
			return i;
	}
	return decision_count;
}

/* Returns what is wrong, or NULL. */
static const char *
compare(enum library library, const struct bytes *stream, const struct verdict *ours,
    const struct verdict *theirs, struct tally *tally)
{
	if (ours->named && theirs->named) {
		tally->names_compared[library]++;
		if (theirs->named_otherwise || !same_name(ours, theirs)) {
			tally->confused++;
			return "TWO NAMES";
		}
	}
	if (ours->outcome != ACCEPTED && theirs->outcome != ACCEPTED) {
		bool same = ours->alert == theirs->alert;
		tally->same_alert[library] += same;
		tally->other_alert[library] += !same;
	}
	if (!differ(ours, theirs))
		return NULL;

	struct shape shape;
	shape_read(stream, &shape);
	struct difference difference = {&shape, ours, theirs, library,
	    ours->outcome == ACCEPTED && is_neutral_fine(library, stream)};
	size_t decision = find_decision(&difference);
	if (decision < decision_count) {
		tally->decisions[library][decision]++;
		return NULL;
	}
	if (ours->outcome == ACCEPTED) {
		tally->wrongly_routed++;
		return "routed, which the library does not do";
	}
	tally->wrongly_refused++;
	return "refused, which the library does not do";
}

static void
try_hello(uint64_t seed, struct tally *tally)
{
	static struct verdict ours, theirs[LIBRARIES];
	static size_t reports;
	struct sample sample;
	sample_make(&sample, seed);
	judge(LIBRARIES, &sample.stream, &ours);
	tally->ours[ours.outcome]++;
	tally->legal += sample.mutation_count == 0;
	for (size_t i = 0; i < sample.mutation_count; i++)
		for (size_t j = 0; j < mutation_count; j++)
			tally->mutations[j] += sample.mutations[i] == mutation_name(j);

	const char *wrong = NULL;
	for (enum library library = 0; library < LIBRARIES; library++) {
		struct verdict *verdict = &theirs[library];
		judge(library, &sample.stream, verdict);
		tally->theirs[library][verdict->outcome]++;
		const char *found = compare(library, &sample.stream, &ours, verdict, tally);
		if (sample.mutation_count == 0 && verdict->outcome == ACCEPTED)
			tally->legal_accepted[library]++;
		else if (sample.mutation_count == 0 && found == NULL)
			found = "legal, which the library does not see";
		wrong = wrong == NULL ? found : wrong;
	}
	if (wrong != NULL && reports++ < REPORTS_MAX)
		report(wrong, &sample, seed, &ours, theirs);
	bytes_release(&sample.stream);
}

/* Results. */

static bool all_passed = true;
static unsigned results;

static void
result(bool passed, const char *format, ...)
{
	va_list arguments;
	printf("%s %u - ", passed ? "ok" : "not ok", ++results);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	all_passed &= passed;
}

/* Too few hellos do not cover everything. */
static void
result_where_many(bool many, bool passed, const char *what)
{
	result(passed || !many, "%s%s", what, many ? "" : " # skip too few hellos");
}

/* The hellos must reach far enough into the libraries. */
static void
report_reach(const struct tally *tally, uint64_t count, bool many)
{
	bool all_met = true;
	for (size_t i = 0; i < mutation_count; i++) {
		if (many && tally->mutations[i] == 0)
			printf("# never done: %s\n", mutation_name(i));
		all_met &= tally->mutations[i] > 0;
	}
	result_where_many(many, all_met, "each mutation is done");
	for (size_t i = 0; i < LIBRARIES; i++) {
		result(tally->legal_accepted[i] == tally->legal,
		    "%s accepts each legal hello (%zu of %zu)", library_names[i],
		    tally->legal_accepted[i], tally->legal);
		printf("# %s: %zu accepted, %zu malformed, %zu refused, %zu want more\n",
		    library_names[i], tally->theirs[i][ACCEPTED], tally->theirs[i][MALFORMED],
		    tally->theirs[i][UNWILLING], tally->theirs[i][WANTS_MORE]);
		printf("# %s: when both reject, the same alert %zu times, another %zu\n",
		    library_names[i], tally->same_alert[i], tally->other_alert[i]);
		bool enough = tally->names_compared[i] > count / 5;
		result_where_many(many, enough, "names are compared often");
	}
	bool each_outcome = tally->ours[ACCEPTED] > count / 5 &&
	    tally->ours[MALFORMED] > count / 5 && tally->ours[UNWILLING] > count / 20 &&
	    tally->ours[WANTS_MORE] > count / 50;
	result_where_many(many, each_outcome, "sniproxy comes to each verdict often");
}

static void
report_differences(const struct tally *tally, bool many)
{
	result(tally->confused == 0,
	    "no name is read in two ways (%zu and %zu names compared, %zu differ)",
	    tally->names_compared[OPENSSL], tally->names_compared[GNUTLS], tally->confused);
	result(tally->wrongly_routed == 0,
	    "whatever is routed is accepted or a decision (%zu are neither)",
	    tally->wrongly_routed);
	result(tally->wrongly_refused == 0,
	    "whatever is refused is refused there or a decision (%zu are neither)",
	    tally->wrongly_refused);

	bool all_met = true;
	for (size_t i = 0; i < decision_count; i++) {
		printf("# %7zu %7zu %s\n", tally->decisions[OPENSSL][i],
		    tally->decisions[GNUTLS][i], decisions[i].shape);
		for (size_t j = 0; j < LIBRARIES; j++)
			all_met &= !decisions[i].libraries[j] || tally->decisions[j][i] > 0;
	}
	result_where_many(many, all_met, "each decision is met");
}

/* The document. */

static void
print_row(FILE *out, const struct decision *decision)
{
	fprintf(out, "| %s | %s | %s | %s | %s |\n", decision->shape, decision->we,
	    decision->they[OPENSSL], decision->they[GNUTLS], decision->why);
}

/* Returns the table of decisions as Markdown, which the caller frees. */
static char *
format_table(void)
{
	char *table = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&table, &size);
	if (out == NULL)
		abort();
	fprintf(out, "| hello | sniproxy | OpenSSL | GnuTLS | why |\n");
	fprintf(out, "| --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < decision_count; i++)
		print_row(out, &decisions[i]);
	fprintf(out, "\n");
	if (fclose(out) != 0)
		abort();
	return table;
}

static void
report_document(void)
{
	static char text[1 << 16];
	FILE *in = fopen(document, "r");
	if (in != NULL) {
		text[fread(text, 1, sizeof text - 1, in)] = '\0';
		fclose(in);
	}
	char *table = format_table();
	bool same = strstr(text, table) != NULL;
	result(same, "%s has the table of decisions", document);
	if (!same)
		printf("%s", table);
	free(table);
}

static uint64_t
number_from(const char *variable, uint64_t fallback)
{
	const char *text = getenv(variable);
	if (text == NULL || text[0] == '\0')
		return fallback;
	if (strcmp(text, "random") == 0) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
	}
	char *end = NULL;
	uint64_t number = strtoull(text, &end, 0);
	if (*end != '\0') {
		fprintf(stderr, "oracle: %s=%s: not a number\n", variable, text);
		exit(2);
	}
	return number;
}

static size_t *
make_counters(size_t count)
{
	size_t *counters = calloc(count, sizeof *counters);
	if (counters == NULL)
		abort();
	return counters;
}

static void
try_hellos(uint64_t seed, uint64_t count, struct tally *tally)
{
	struct identity identity = {0};
	openssl_start(&identity);
	gnutls_start(&identity);
	for (uint64_t i = 0; i < count; i++)
		try_hello(seed + i, tally);
	gnutls_stop();
	openssl_stop();
	bytes_release(&identity.certificate);
	bytes_release(&identity.key);
}

int
main(void)
{
	enum { MANY = 8000 };
	uint64_t seed = number_from("ORACLE_SEED", 1);
	uint64_t count = number_from("ORACLE_COUNT", MANY);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# ORACLE_SEED=%llu ORACLE_COUNT=%llu\n", (unsigned long long)seed,
	    (unsigned long long)count);

	struct tally tally = {.mutations = make_counters(mutation_count),
	    .decisions = {make_counters(decision_count), make_counters(decision_count)}};
	try_hellos(seed, count, &tally);
	report_reach(&tally, count, count >= MANY);
	report_differences(&tally, count >= MANY);
	report_document();
	printf("1..%u\n", results);

	free(tally.mutations);
	for (size_t i = 0; i < LIBRARIES; i++)
		free(tally.decisions[i]);
	return all_passed ? 0 : 1;
}

/* The parts of the oracle, which compares the results of OpenSSL and GnuTLS for hellos with those
 * of tls.c: oracle_hellos.c makes hellos, oracle_openssl.c and oracle_gnutls.c ask the libraries,
 * oracle_shape.c finds what is odd about a hello, oracle_decisions.c lists the intended
 * differences, oracle.c compares. No network. */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/hostname.h"
#include "tests/unit/hellos.h"

/* A client's stream, and how it was made. */
enum { MUTATIONS_MAX = 4 };

struct sample {
	struct bytes stream;
	const char *mutations[MUTATIONS_MAX]; /* none if the hello is legal */
	size_t mutation_count;
};

/* Makes the hello of SEED, the same each time. The caller releases its stream. */
void sample_make(struct sample *sample, uint64_t seed);

extern const size_t mutation_count;
const char *mutation_name(size_t index);

/* The result of tls.c or a library for a hello. */
enum outcome {
	ACCEPTED,   /* routed; a ServerHello was sent */
	MALFORMED,  /* rejected because it violates the protocol */
	UNWILLING,  /* rejected because nothing can be agreed on, or the name does not exist */
	WANTS_MORE, /* the hello is incomplete */
};

enum { NAME_ROOM = 1 << 16, NO_ALERT = -1 };

struct verdict {
	enum outcome outcome;
	int alert;            /* after MALFORMED and UNWILLING; or NO_ALERT */
	bool parsed;          /* the hello was found well-formed, before any reaction to it */
	bool named;           /* a name was read, whatever followed */
	bool named_otherwise; /* and another one in another place */
	size_t name_length;
	uint8_t name[NAME_ROOM];
	char reason[160]; /* for people */
};

/* The outcome that an alert stands for: one of the two rejections. */
enum outcome outcome_of_alert(int alert);

/* Notes the name that was read, in lowercase, for comparison. */
void verdict_set_name(struct verdict *verdict, const void *name, size_t length);

/* A library's server, in memory. If its set-up fails, it ends the program with a message. */
enum library { OPENSSL, GNUTLS, LIBRARIES };

extern const char *const library_names[LIBRARIES];

/* A self-signed certificate and its key, in PEM, which openssl_start() makes. */
struct identity {
	struct bytes certificate, key;
};

void openssl_start(struct identity *identity);
void openssl_judge(const struct bytes *stream, struct verdict *verdict);
void openssl_stop(void);

void gnutls_start(const struct identity *identity);
void gnutls_judge(const struct bytes *stream, struct verdict *verdict);
void gnutls_stop(void);

/* What is odd about a hello, read leniently and without tls.c, so that a decision is identified by
 * its shape and not by the verdict under test. */
struct shape {
	/* Of the records up to the hello's end. */
	bool sslv2;           /* an SSL 2.0 record, not a TLS one */
	bool other_record;    /* one of another type */
	bool empty_record;    /* one without bytes */
	bool other_bytes;     /* one of another type that has bytes */
	bool long_record;     /* one over 2^14 bytes */
	bool odd_version;     /* one whose major version is not 3 */
	bool unended_record;  /* the last one has not ended */
	bool after_in_record; /* the last one goes on after the hello */

	/* Whether the hello is complete; otherwise nothing is known of what follows. */
	bool whole;
	size_t compression_methods;
	bool null_compression; /* is among them */
	bool extension_twice;  /* another one than server_name and ALPN */
	bool malformed_alpn;   /* the first ALPN extension */
	bool psk_not_last;
	size_t server_names; /* extensions */

	/* Of the first server_name extension. */
	size_t host_names, other_names;
	bool empty_other_name;
	bool list_overrun; /* a length in it contradicts another */
	bool valid_name;   /* the first host_name is one */
	bool underscore;   /* it has one */
};

void shape_read(const struct bytes *stream, struct shape *shape);

/* Adds the same stream, in which all extensions except server_name have unknown types, so that no
 * library reads them. Returns false if the stream is not a complete hello that can be parsed. */
bool shape_neutralize(const struct bytes *stream, struct bytes *out);

/* A hello that is served only here, or only there. */
struct difference {
	const struct shape *shape;
	const struct verdict *ours, *theirs;
	enum library library;

	/* Whether the library accepts the hello, and reads the same name, if it knows no extension
	 * except server_name. */
	bool neutral_is_fine;
};

/* An intended difference: a row of the table in docs/differences.md. */
struct decision {
	bool libraries[LIBRARIES]; /* which ones differ */
	enum outcome ours, theirs;
	bool (*applies)(const struct difference *difference);

	/* The text of the document: the hello's shape, what sniproxy and the libraries do, why. */
	const char *shape, *we, *they[LIBRARIES], *why;
};

extern const struct decision decisions[];
extern const size_t decision_count;

#endif

/* What is known of one connection. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "address.h"
#include "hostname.h"
#include "relay.h"
#include "status.h"
#include "tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a connection waits for, for others to know: it keeps to no plan of phases. */
enum connection_state {
	CONNECTION_HELLO,   /* its ClientHello is unfinished */
	CONNECTION_BACKEND, /* its backend is looked for, or has no room yet */
	CONNECTION_RELAY,
	CONNECTION_CLOSING, /* it is over, but the client has not closed */
	CONNECTION_STATES,
};

struct connection {
	/* Behind pressure.h's lock: */
	struct connection *next, *previous; /* first of all, for insque(3) */
	enum connection_state state;
	unsigned ring;     /* in which of pressure.c's it stands */
	int64_t since_ms;  /* when it last made progress */
	uint64_t progress; /* how far it was then */
	unsigned report;   /* the last one that told of it */
	bool is_waiting;   /* THREAD waits for the backend, and a signal ends that */
	pthread_t thread;
	struct pressure_group *source, *host;

	/* Set before the ways are shared: */
	int client;
	int backend; /* -1 where there is none */
	int64_t accepted_ms;
	union address peer;
	char name[HOSTNAME_SIZE];     /* empty until the hello was read */
	_Atomic size_t header_length; /* of the PROXY header, which no client sent */

	/* How it ends, which is decided once, by any thread; STATUS_OPEN until then. */
	_Atomic(enum status_end) end;
	enum tls_alert alert;
	atomic_bool told; /* the line that says so */

	/* From the client to the backend, and back. Each belongs to the thread that has it. */
	struct relay_way upload, download;
	atomic_int ways; /* how many of them are not over; who ends the last ends all */
	atomic_bool upload_ended, download_ended; /* its sender has ended its stream */

	/* The upload's: */
	bool hello_over; /* it was read, or there will be none */
	struct tls_hello hello;
	uint8_t *received; /* what the client sent with its hello, or before its end */
	size_t received_start, received_end, received_size;
	size_t memory;    /* how much of the memory for hellos it has */
	bool drops;       /* nobody takes what the client sends */
	uint64_t dropped; /* how many bytes of that, while it lingers */

	/* Once the backend is gone, or where there is none, behind pressure.h's lock: */
	atomic_bool lingers;
	atomic_bool lingered; /* long enough */
	bool patient;         /* the client may still be receiving */
	int untaken; /* how many bytes it had not taken when that was last looked at */
	int64_t taken_ms; /* when it had last taken some */
};

#endif

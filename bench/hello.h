/* Shared by the load and the backend: the ClientHello that begins each connection.
 *
 * A TLS 1.3 client could send it. The last byte of its random tells the backend what to do with the
 * connection, so that the hello is all that must be sent for it. */
#ifndef HELLO_H
#define HELLO_H

enum {
	/* The length in bytes, record header included: many clients pad to it
	   (RFC 7685). */
	HELLO_SIZE = 517,

	/* The offset of the task: after the record header, the handshake header, the version
	   and 31 random bytes. */
	HELLO_TASK = 5 + 4 + 2 + 31,

	/* What a server says next, about: its hello, a certificate of 256 bits and what
	   goes with it. */
	ANSWER_SIZE = 1500,
};

/* What the backend does after the hello, until the client closes. */
enum task {
	TASK_ANSWER = 'a', /* sends ANSWER_SIZE bytes */
	TASK_ECHO = 'e',   /* sends back what it gets, which must fit a socket's buffer */
	TASK_SEND = 's',   /* sends for ever */
	TASK_TAKE = 't',   /* reads for ever */
};

#endif

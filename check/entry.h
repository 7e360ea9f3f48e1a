/* Checks an entry of the hosts directory: whether the proxy would serve it and, if not, why, and
 * what to do. The verdict is that of the proxy's own backend.c and hostname.c. */
#ifndef ENTRY_H
#define ENTRY_H

#include "check/handshake.h"
#include "check/view.h"
#include "lib/backend.h"
#include "lib/hostname.h"

struct UIDNA;

enum entry_state {
	ENTRY_SERVED,
	ENTRY_NOT_LOOKED_UP, /* no client's name leads to a directory of that name */
	ENTRY_NO_DIRECTORY,  /* it does not exist, or is a symlink to nothing */
	ENTRY_NOT_A_DIRECTORY,
	ENTRY_NO_SOCKET,
	ENTRY_PATH_TOO_LONG, /* the path of the socket is too long to bind, or to connect to */
	ENTRY_NOT_A_SOCKET,
	ENTRY_WRONG_TYPE,    /* a socket of another type */
	ENTRY_STALE,         /* no server has the socket bound any more */
	ENTRY_NOT_LISTENING, /* a server has bound it, but does not listen */
	ENTRY_BACKLOG_FULL,
	ENTRY_NOT_PERMITTED,
	ENTRY_LEADS_OUT,      /* of the proxy's view */
	ENTRY_LINK_FORBIDDEN, /* by fs.protected_symlinks */
	ENTRY_NOT_OWNED,      /* by one user, although several may make hosts; see owner.h */
	ENTRY_LOOP,
	ENTRY_FAILED,      /* for another reason; see backend.c */
	ENTRY_NOT_CHECKED, /* the deadline has passed */
};

/* Returns the name of STATE in JSON. */
const char *entry_state_name(enum entry_state state);

/* What became of a connection to acme-tls-socket. */
enum entry_acme {
	ENTRY_ACME_MISSING, /* there is none, as while no ACME client runs; or that is unknown */
	ENTRY_ACME_ACCEPTED,
	ENTRY_ACME_REFUSED, /* there is a warning */
};

struct entry {
	char *name; /* as in the directory, or as asked for: any bytes */

	/* Set by entry_check(): */
	enum entry_state state;
	int alert;                     /* the alert for its clients; 0 if it is served */
	char host[HOSTNAME_SIZE];      /* the server name; "" if unknown */
	char serving[HOSTNAME_SIZE];   /* the host or special host that serves it; "" if unknown */
	char directory[HOSTNAME_SIZE]; /* the name of its directory; "" if none is looked up */
	unsigned proxy_version;        /* of the PROXY header; 0 for none */
	enum entry_acme acme;
	bool is_acme;  /* it is about acme-tls-socket, for messages in entry.c */
	char *reason;  /* what is wrong, safe to print; NULL if nothing is */
	char *remedy;  /* what to do, safe to print; or NULL */
	char *warning; /* safe to print; or NULL */
	bool has_handshake;
	struct handshake handshake;
};

/* Settings common to all entries. */
struct entry_settings {
	const struct UIDNA *idna;
	const struct view *view;
	const char *directory;         /* the absolute path of the hosts directory, for messages */
	const char *user;              /* whose rights this process has */
	int timeout_ms;                /* for one entry */
	int64_t deadline_ms;           /* for all */
	struct ssl_ctx_st *handshakes; /* NULL for none */
};

/* Checks ENTRY: connects to its backend, sends a PROXY header if that awaits one, makes a handshake
 * if there are HANDSHAKES, and closes. Also connects to acme-tls-socket, if there is one. If
 * IS_HOST, its name is a host's name, as users write it; otherwise a directory's. HOSTS is the
 * descriptor of the hosts directory. */
void
entry_check(struct entry *entry, bool is_host, int hosts, const struct entry_settings *settings);

/* Whether ENTRY is served, and a handshake with it, if any, found nothing wrong. */
bool entry_is_well(const struct entry *entry);

void entry_free(struct entry *entry);

#endif

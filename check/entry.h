/* One entry of the hosts directory: whether the proxy would serve it, and if not, why, and what to
 * do. The verdict is backend.c's and hostname.c's, which are the proxy's own. */
#ifndef ENTRY_H
#define ENTRY_H

#include "check/handshake.h"
#include "check/view.h"
#include "lib/backend.h"
#include "lib/hostname.h"

struct UIDNA;

enum entry_state {
	ENTRY_SERVED,
	ENTRY_NOT_LOOKED_UP, /* no client's name leads to a directory called that */
	ENTRY_NO_DIRECTORY,  /* it is not there, or a symlink to nothing */
	ENTRY_NOT_A_DIRECTORY,
	ENTRY_NO_SOCKET,
	ENTRY_PATH_TOO_LONG, /* there is no socket, and no server can make it by its path */
	ENTRY_NOT_A_SOCKET,
	ENTRY_WRONG_TYPE,    /* a socket, but no stream */
	ENTRY_STALE,         /* no server has the socket any more */
	ENTRY_NOT_LISTENING, /* one has, and does not listen */
	ENTRY_BACKLOG_FULL,
	ENTRY_NOT_PERMITTED,
	ENTRY_LEADS_OUT,      /* of what the proxy sees */
	ENTRY_LINK_FORBIDDEN, /* by fs.protected_symlinks */
	ENTRY_NOT_OWNED,      /* by one user, where several may make hosts; see owner.h */
	ENTRY_LOOP,
	ENTRY_FAILED,      /* for another reason of backend.c's */
	ENTRY_NOT_CHECKED, /* the time was over */
};

/* How a state is called in JSON. */
const char *entry_state_name(enum entry_state state);

struct entry {
	char *name; /* as it stands in the directory, or was asked for: any bytes */

	/* What follows is entry_check()'s. */
	enum entry_state state;
	int alert;                /* what a client gets that asks for it; 0 where it is served */
	char host[HOSTNAME_SIZE]; /* the server name; "" where it is not known */
	char directory[HOSTNAME_SIZE]; /* what is looked up; "" for nothing */
	bool send_proxy_v1;
	char *reason;  /* for people, nothing in it is dangerous to show; NULL where it is served */
	char *remedy;  /* likewise */
	char *warning; /* likewise; NULL where there is none */
	bool has_handshake;
	struct handshake handshake;
};

/* What is the same for all entries. */
struct entry_settings {
	const struct UIDNA *idna;
	const struct view *view;
	const char *directory;         /* the hosts directory, as people know it; absolute */
	const char *user;              /* whose rights are in force */
	int timeout_ms;                /* for one entry */
	int64_t deadline_ms;           /* for all */
	struct ssl_ctx_st *handshakes; /* NULL for none */
};

/* Looks at ENTRY: connects to its backend, sends the PROXY header if there is one, and closes.
 * With IS_HOST, its name is a host's as people write it, and not a directory's. HOSTS is the
 * calling thread's. */
void
entry_check(struct entry *entry, bool is_host, int hosts, const struct entry_settings *settings);

/* Whether clients of ENTRY are content: it is served, and nothing was wrong with its TLS. */
bool entry_is_well(const struct entry *entry);

void entry_free(struct entry *entry);

#endif

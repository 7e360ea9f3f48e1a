#include "connection.h"

#include "backend.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* Most hellos fit; for others it grows. */
	FIRST_BUFFER_SIZE = 4 * 1024,
	LARGE_HELLO = 16 * 1024,
};

/* How many bytes of CONNECTION_MEMORY_MAX the connections have. */
static atomic_size_t memory;

struct connection *
connection_new(int client, const union address *peer)
{
	struct connection *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->client = client;
	c->backend = -1;
	c->accepted_ms = clock_ms();
	c->peer = *peer;
	c->ways = 1;
	c->upload = (struct relay_way){.connection = c, .from = client, .to = -1};
	c->upload.has_timeout = true; /* from the listening socket */
	c->download = (struct relay_way){.connection = c, .from = -1, .to = client};
	return c;
}

void
connection_announce(struct connection *c, const struct proxy_protocol_header *header)
{
	c->awaits_header = false;
	c->is_balancers = !header->has_addresses;
	if (!header->has_addresses)
		return;
	c->peer = header->client;
	c->server = header->server;
}

/* What has arrived bounds it: a hello whose records hold a byte each is TLS_HELLO_MAX times the six
 * bytes of such a record long. The message that is made of it needs as much again at most. */
bool
connection_grow(struct connection *c)
{
	bool is_first = c->received == NULL;
	size_t size = is_first ? FIRST_BUFFER_SIZE : 2 * c->received_size;
	size_t limit =
	    size > LARGE_HELLO ? CONNECTION_MEMORY_MAX / 2 : CONNECTION_MEMORY_MAX;
	size_t needed = is_first ? 0 : 2 * size;
	size_t others = atomic_fetch_add(&memory, needed - c->memory) - c->memory;
	c->memory = needed;
	uint8_t *bytes = others + needed <= limit ? realloc(c->received, size) : NULL;
	if (bytes == NULL)
		return false;
	if (is_first) /* a PROXY header may have to go before the first byte */
		c->received_start = c->received_end = BACKEND_PROXY_HEADER_SIZE;
	c->received = bytes;
	c->received_size = size;
	return true;
}

void
connection_release_hello(struct connection *c)
{
	tls_hello_release(&c->hello);
	free(c->received);
	c->received = NULL;
	c->received_start = c->received_end = c->received_size = 0;
	atomic_fetch_sub(&memory, c->memory);
	c->memory = 0;
}

void
connection_release(struct connection *c)
{
	const struct linger at_once = {.l_onoff = 1};
	connection_release_hello(c);
	if (c->backend != -1)
		close(c->backend);
	if (c->resets)
		setsockopt(c->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(c->client);
	free(c);
}

bool
connection_decide(struct connection *c, enum connection_end end)
{
	enum connection_end open = END_OPEN;
	return atomic_compare_exchange_strong(&c->end, &open, end);
}

bool
connection_is_decided(const struct connection *c)
{
	return atomic_load(&c->end) != END_OPEN;
}

void
connection_log_failure(const struct connection *c, const char *what, const char *why)
{
	char client[ADDRESS_ENDPOINT_SIZE];
	address_endpoint(client, &c->peer);
	log_line("%s %s: %s: %s", client, c->name[0] == '\0' ? "-" : c->name, what, why);
}

void
connection_note_client_failure(struct connection *c, int error)
{
	if (connection_decide(
		c, error == ETIMEDOUT ? END_CLIENT_TIMEOUT : END_CLIENT_RESET))
		connection_log_failure(c, "client", strerror(error));
}

bool
connection_keeps_a_thread(const struct connection *c)
{
	return !c->upload.parked || (c->backend != -1 && !c->download.parked);
}

#include "refusal.h"

#include "clock.h"
#include "registry.h"
#include "system.h"

#include <sys/socket.h>

void
refusal_send_alert(const struct connection *c)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_record(record, c->alert);
	system_send_now(c->client, record, sizeof record);
}

/* To close with unread bytes makes the kernel send a reset, and that destroys what the client has
 * not received yet (RFC 1122, 4.2.2.13). So what it sends is read and dropped until it has closed. */
void
refusal_linger(struct connection *c, bool patient)
{
	int64_t now_ms = clock_ms();
	c->lingers = true;
	c->patient = patient;
	c->taken_ms = now_ms;
	registry_note(c, CONNECTION_CLOSING, now_ms);
	registry_look_by(now_ms + CONNECTION_LINGER_MS);
}

bool
refuse_locked(
    struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	if (!connection_decide(c, END_REFUSED))
		return false;
	c->alert = alert;
	refusal_linger(c, false);
	refusal_send_alert(c);
	shutdown(c->client, SHUT_WR);
	connection_log_failure(c, what, why);
	return true;
}

void
refuse(struct connection *c, enum tls_alert alert, const char *what, const char *why)
{
	registry_lock();
	refuse_locked(c, alert, what, why);
	registry_unlock();
}

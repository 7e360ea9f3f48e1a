/* Reads a client's first bytes from stdin, and says what the proxy would do with them: for
 * docs/tls-records.md. Exits with status 0 if there is a name. */
#include "lib/hostname.h"
#include "tls.h"

#include <stdio.h>

static int
say_name(struct tls_hello *hello)
{
	const uint8_t *sent;
	size_t length;
	char name[HOSTNAME_SIZE];
	if (tls_hello_server_name(hello, &sent, &length) != TLS_OK)
		return -1;
	bool valid = hostname_canonical(name, sent, length);
	puts(valid ? name : "unrecognized_name: not a valid name");
	return !valid;
}

int
main(void)
{
	struct tls_hello hello = {0};
	enum tls_status status = TLS_INCOMPLETE;
	size_t count = 0;
	/* One byte at a time: that makes no difference to tls.c. */
	for (int c; status == TLS_INCOMPLETE && (c = getchar()) != EOF; count++)
		status = tls_hello_feed(&hello, &(uint8_t){(uint8_t)c}, 1);
	int result = status == TLS_OK ? say_name(&hello) : -1;
	if (status == TLS_INCOMPLETE)
		printf("incomplete: more is to come after %zu bytes\n", count);
	else if (result == -1)
		printf(
		    "%s: %s, after %zu bytes\n", tls_alert_name(hello.alert), hello.reason, count);
	tls_hello_release(&hello);
	return result != 0;
}

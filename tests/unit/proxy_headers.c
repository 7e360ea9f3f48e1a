#include "tests/unit/proxy_headers.h"

#define BYTES(literal) literal, sizeof(literal) - 1, 0
#define BYTES_AND(literal, zeros) literal, sizeof(literal) - 1, zeros

#define OF_NOBODY PROXY_PROTOCOL_OK, NULL, NULL, NULL
#define INCOMPLETE PROXY_PROTOCOL_INCOMPLETE, NULL, NULL, NULL
#define REFUSED(reason) PROXY_PROTOCOL_REFUSED, NULL, NULL, reason
#define MALFORMED REFUSED("malformed")

/* Version 2: the signature; addresses and ports. */
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IPV4 "\xc0\x00\x02\x07\xc6\x33\x64\x01"
#define IPV6 \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07" \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
#define MAPPED(d) "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02" d
#define PORTS "\xc8\x22\x01\xbb"

#define TEN "          "
#define FIFTY TEN TEN TEN TEN TEN

const struct proxy_header_case proxy_header_cases[] = {
    /* Version 1 */
    {"v1 TCP4", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"), PROXY_PROTOCOL_OK,
	"192.0.2.7:51234", "198.51.100.1:443", NULL},
    {"v1 TCP4, longest", BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
	PROXY_PROTOCOL_OK, "255.255.255.255:65535", "255.255.255.255:65535", NULL},
    {"v1 TCP4, zeros", BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), PROXY_PROTOCOL_OK, "0.0.0.0:0",
	"0.0.0.0:0", NULL},
    {"v1 TCP6", BYTES("PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"), PROXY_PROTOCOL_OK,
	"[2001:db8::7]:51234", "[2001:db8::1]:443", NULL},
    {"v1 TCP6, longest",
	BYTES("PROXY TCP6 1234:5678:9abc:def0:1234:5678:9abc:def0 "
	      "1234:5678:9abc:def0:1234:5678:9abc:def1 65535 65535\r\n"),
	PROXY_PROTOCOL_OK, "[1234:5678:9abc:def0:1234:5678:9abc:def0]:65535",
	"[1234:5678:9abc:def0:1234:5678:9abc:def1]:65535", NULL},
    {"v1 TCP6, mapped", BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n"),
	PROXY_PROTOCOL_OK, "192.0.2.7:1", "192.0.2.1:2", NULL},
    {"v1 TCP6, one mapped", BYTES("PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"),
	PROXY_PROTOCOL_OK, "[::ffff:192.0.2.7]:1", "[2001:db8::1]:2", NULL},
    {"v1 UNKNOWN", BYTES("PROXY UNKNOWN\r\n"), OF_NOBODY},
    {"v1 UNKNOWN, and more", BYTES("PROXY UNKNOWN ffff::1 whatever  \r x\r\n"), OF_NOBODY},
    {"v1 UNKNOWN, LF alone", BYTES("PROXY UNKNOWN ffff::1\n"), REFUSED("malformed")},
    {"v1 UNKNOWN, CR inside", BYTES("PROXY UNKNOWN\r ffff::1\r\n"), REFUSED("malformed")},
    {"v1 UNKNOWN, longest", BYTES("PROXY UNKNOWN " FIFTY TEN TEN TEN TEN " \r\n"), OF_NOBODY},
    {"v1 UNKNOWN, too long", BYTES("PROXY UNKNOWN " FIFTY TEN TEN TEN TEN "  \r\n"),
	REFUSED("too long")},
    {"v1 without an end", BYTES("PROXY UNKNOWN " FIFTY FIFTY), REFUSED("too long")},
    {"v1 cut off", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r"), INCOMPLETE},
    {"v1 LF alone", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n"), MALFORMED},
    {"v1 LF and CR", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n\r\n"), MALFORMED},
    {"v1 nothing", BYTES("PROXY \r\n"), MALFORMED},
    {"v1 LF at once", BYTES("PROXY \n"), MALFORMED},
    {"v1 lowercase", BYTES("proxy TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"), REFUSED("missing")},
    {"v1 without a space", BYTES("PROXY\r\n"), REFUSED("missing")},
    {"v1 protocol", BYTES("PROXY TCP5 192.0.2.7 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 protocol in lowercase", BYTES("PROXY tcp4 192.0.2.7 198.51.100.1 51234 443\r\n"),
	MALFORMED},
    {"v1 UNKNOWNS", BYTES("PROXY UNKNOWNS\r\n"), MALFORMED},
    {"v1 two spaces", BYTES("PROXY  TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 two spaces inside", BYTES("PROXY TCP4 192.0.2.7  198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 space at the end", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 \r\n"), MALFORMED},
    {"v1 tab", BYTES("PROXY TCP4\t192.0.2.7 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 field missing", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n"), MALFORMED},
    {"v1 field too many", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 1\r\n"), MALFORMED},
    {"v1 families mixed", BYTES("PROXY TCP4 2001:db8::7 2001:db8::1 51234 443\r\n"), MALFORMED},
    {"v1 families mixed, too", BYTES("PROXY TCP6 192.0.2.7 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 one of another family", BYTES("PROXY TCP4 192.0.2.7 ::1 51234 443\r\n"), MALFORMED},
    {"v1 name", BYTES("PROXY TCP4 localhost 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 address of 256", BYTES("PROXY TCP4 192.0.2.256 198.51.100.1 51234 443\r\n"), MALFORMED},
    {"v1 port of 65536", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n"), MALFORMED},
    {"v1 port of six digits", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 651234 443\r\n"), MALFORMED},
    {"v1 port with a zero before", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 051 443\r\n"),
	MALFORMED},
    {"v1 port with a sign", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 +51 443\r\n"), MALFORMED},
    {"v1 port below zero", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51 -1\r\n"), MALFORMED},
    {"v1 port in hexadecimal", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51 0x1\r\n"), MALFORMED},
    {"v1 port empty", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1  443\r\n"), MALFORMED},
    {"v1 NUL", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\0\r\n"), MALFORMED},
    {"v1 NUL inside",
	BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51234\0"
	      "443 443\r\n"),
	MALFORMED},

    /* Version 2 */
    {"v2 TCP over IPv4", BYTES(SIGNATURE "\x21\x11\x00\x0c" IPV4 PORTS), PROXY_PROTOCOL_OK,
	"192.0.2.7:51234", "198.51.100.1:443", NULL},
    {"v2 TCP over IPv6", BYTES(SIGNATURE "\x21\x21\x00\x24" IPV6 PORTS), PROXY_PROTOCOL_OK,
	"[2001:db8::7]:51234", "[2001:db8::1]:443", NULL},
    {"v2 TCP over IPv6, mapped",
	BYTES(SIGNATURE "\x21\x21\x00\x24" MAPPED("\x07") MAPPED("\x01") PORTS), PROXY_PROTOCOL_OK,
	"192.0.2.7:51234", "192.0.2.1:443", NULL},
    {"v2 with extensions", BYTES(SIGNATURE "\x21\x11\x00\x13" IPV4 PORTS "\x01\x00\x02h2\x04\x00"),
	PROXY_PROTOCOL_OK, "192.0.2.7:51234", "198.51.100.1:443", NULL},
    {"v2 with an extension that is none",
	BYTES(SIGNATURE "\x21\x11\x00\x0f" IPV4 PORTS "\x01\xff\xff"), PROXY_PROTOCOL_OK,
	"192.0.2.7:51234", "198.51.100.1:443", NULL},
    /* With a CRC32c, an authority, and a unique ID that is a UUID; captured */
    {"v2 of HAProxy",
	BYTES(SIGNATURE "\x21\x11\x00\x49" IPV4 PORTS "\x03\x00\x04\x9c\x4e\xd6\xac"
			"\x02\x00\x0c"
			"blog.example"
			"\x05\x00\x24"
			"95106aeb-6747-4ab6-b484-460f12056d14"),
	PROXY_PROTOCOL_OK, "192.0.2.7:51234", "198.51.100.1:443", NULL},
    {"v2 longest", BYTES_AND(SIGNATURE "\x21\x11\x0f\xf0" IPV4 PORTS, 4096 - 28), PROXY_PROTOCOL_OK,
	"192.0.2.7:51234", "198.51.100.1:443", NULL},
    {"v2 too long", BYTES(SIGNATURE "\x21\x11\x0f\xf1"), REFUSED("too long")},
    {"v2 much too long", BYTES(SIGNATURE "\x21\x11\xff\xff"), REFUSED("too long")},
    {"v2 LOCAL", BYTES(SIGNATURE "\x20\x00\x00\x00"), OF_NOBODY},
    {"v2 LOCAL with addresses", BYTES(SIGNATURE "\x20\x11\x00\x0c" IPV4 PORTS), OF_NOBODY},
    {"v2 LOCAL, anything", BYTES(SIGNATURE "\x20\xff\x00\x01x"), OF_NOBODY},
    {"v2 LOCAL, too long", BYTES(SIGNATURE "\x20\x00\xff\x00"), REFUSED("too long")},
    {"v2 unspecified", BYTES(SIGNATURE "\x21\x00\x00\x03xyz"), OF_NOBODY},
    {"v2 UDP over IPv4", BYTES(SIGNATURE "\x21\x12\x00\x0c" IPV4 PORTS), OF_NOBODY},
    {"v2 UDP over IPv6", BYTES(SIGNATURE "\x21\x22\x00\x24" IPV6 PORTS), OF_NOBODY},
    {"v2 Unix", BYTES_AND(SIGNATURE "\x21\x31\x00\xd8/from", 211), OF_NOBODY},
    {"v2 cut off in the signature", BYTES("\r\n\r\n\0\r\nQUIT"), INCOMPLETE},
    {"v2 cut off", BYTES(SIGNATURE "\x21\x11\x00"), INCOMPLETE},
    {"v2 cut off in the addresses", BYTES(SIGNATURE "\x21\x11\x00\x0c" IPV4 "\xc8\x22"),
	INCOMPLETE},
    {"v2 cut off in the extensions", BYTES(SIGNATURE "\x21\x11\x00\x0f" IPV4 PORTS "\x04\x00"),
	INCOMPLETE},
    {"v2 signature", BYTES("\r\n\r\n\0\r\nQUIT\r\x21\x11\x00\x0c" IPV4 PORTS), REFUSED("missing")},
    {"v2 version 1", BYTES(SIGNATURE "\x11\x11\x00\x0c" IPV4 PORTS), MALFORMED},
    {"v2 version 3", BYTES(SIGNATURE "\x31\x11\x00\x0c" IPV4 PORTS), MALFORMED},
    {"v2 command", BYTES(SIGNATURE "\x22\x11\x00\x0c" IPV4 PORTS), MALFORMED},
    {"v2 family", BYTES(SIGNATURE "\x21\x41\x00\x0c" IPV4 PORTS), MALFORMED},
    {"v2 transport", BYTES(SIGNATURE "\x21\x13\x00\x0c" IPV4 PORTS), MALFORMED},
    {"v2 IPv4 too short", BYTES(SIGNATURE "\x21\x11\x00\x0b" IPV4 PORTS), MALFORMED},
    {"v2 IPv6 too short", BYTES(SIGNATURE "\x21\x21\x00\x23" IPV6 PORTS), MALFORMED},
    {"v2 IPv4 empty", BYTES(SIGNATURE "\x21\x11\x00\x00"), MALFORMED},
    {"v2 Unix too short", BYTES_AND(SIGNATURE "\x21\x31\x00\xd7", 215), MALFORMED},

    /* Neither */
    {"nothing", BYTES(""), INCOMPLETE},
    {"TLS", BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), REFUSED("missing")},
    {"HTTP", BYTES("GET / HTTP/1.1\r\n\r\n"), REFUSED("missing")},
    {"empty lines", BYTES("\r\n\r\n\r\n"), REFUSED("missing")},
    {"PROXIES", BYTES("PROXIES"), REFUSED("missing")},
};

const size_t proxy_header_case_count = sizeof proxy_header_cases / sizeof *proxy_header_cases;

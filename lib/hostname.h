/* The canonical form of a server name, and the name of its directory. No I/O. */
#ifndef HOSTNAME_H
#define HOSTNAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest name in bytes. A file name has 255 at most (NAME_MAX), a DNS name 253 (RFC 1035,
 * 2.3.4). */
enum { HOSTNAME_MAX = 254 };

/* Size of a name or a directory name, with its NUL. */
enum { HOSTNAME_SIZE = HOSTNAME_MAX + 1 };

/* Special hosts, which no client can ask for, because their names begin with '_': "_.example.com"
 * serves each name that is one label longer than example.com; _default each valid name; and _no-sni
 * clients that send no name. */
#define HOSTNAME_DEFAULT "_default"
#define HOSTNAME_NO_SNI "_no-sni"

/* Writes the canonical form of the LENGTH bytes at BYTES into NAME: ASCII letters in lowercase,
 * ended by a NUL.
 *
 * A valid name is 1 to HOSTNAME_MAX bytes of a-z, 0-9, '-', '_' and '.'. None of its labels is
 * empty or starts with '-' or '_', and it does not end with a dot. So it is never "..", holds no
 * '/', and never begins with a dot: it is safe as the name of a directory and in a log line.
 *
 * Returns whether the name is valid. If it is not, NAME is undefined. */
bool hostname_canonical(char name[HOSTNAME_SIZE], const uint8_t *bytes, size_t length);

/* Replaces HOST, a canonical name or a special host, by the host that serves its clients if it has
 * no directory: "a.example.com", "_.example.com", "_default". Returns false if there is none. */
bool hostname_next(char host[HOSTNAME_SIZE]);

bool hostname_is_special(const char *host);

/* Writes the name of the directory of HOST, a canonical name or a special host, into DIRECTORY. It
 * is HOST itself; in a build with HASHED it is the XXH128 of HOST (XXH3, 128 bits, seed 0) in
 * canonical byte order, as 32 lowercase hexadecimal digits. */
void hostname_directory(char directory[HOSTNAME_SIZE], const char *host);

#endif

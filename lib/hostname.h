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

/* Writes the canonical form of the LENGTH bytes at BYTES into NAME: ASCII letters in lowercase,
 * ended by a NUL.
 *
 * A valid name is 1 to HOSTNAME_MAX bytes of a-z, 0-9, '-' and '.'. None of its labels is empty or
 * starts with '-', and it does not end with a dot. So it is never "..", holds no '/', and never
 * begins with a dot: it is safe as the name of a directory and in a log line.
 *
 * Returns whether the name is valid. If it is not, NAME is undefined. */
bool hostname_canonical(char name[HOSTNAME_SIZE], const uint8_t *bytes, size_t length);

/* Writes the name of the directory of NAME, which hostname_canonical() made, into DIRECTORY. It
 * is NAME itself; in a build with HASHED it is the XXH128 of NAME (XXH3, 128 bits, seed 0) in
 * canonical byte order, as 32 lowercase hexadecimal digits. */
void hostname_directory(char directory[HOSTNAME_SIZE], const char *name);

#endif

/* Names as people write them: what UTS #46 makes of them, by ICU, and how they are shown. */
#ifndef IDNA_H
#define IDNA_H

#include "lib/hostname.h"

#include <stdio.h>

/* ICU's converter. Threads may share one. */
struct UIDNA;

/* Opens it. Returns NULL where ICU cannot work; then *ERROR is ICU's name of the reason. */
struct UIDNA *idna_open(const char **error);

void idna_close(struct UIDNA *idna);

/* Writes the canonical name that the proxy will see for NAME into CANONICAL: NAME is UTF-8,
 * whatever the locale is; one dot at its end is dropped. Returns 0, or bits that say what is
 * wrong with NAME, for idna_show_faults(); then nothing useful is in CANONICAL. */
uint32_t idna_canonical(const struct UIDNA *idna, char canonical[HOSTNAME_SIZE], const char *name);

/* Writes in words what the bits FAULTS mean, with commas between them. */
void idna_show_faults(FILE *stream, uint32_t faults);

/* Writes NAME with all that could confuse a terminal or a reader as \xNN. */
void idna_show(FILE *stream, const char *name);

/* The same as a string, which becomes the caller's; NULL where memory is short. */
char *idna_shown(const char *name);

#endif

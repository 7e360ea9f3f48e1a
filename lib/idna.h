/* Names as users write them: their conversion by UTS #46, with ICU, and how they are printed. */
#ifndef IDNA_H
#define IDNA_H

#include "lib/hostname.h"

#include <stdio.h>

/* ICU's converter. Threads may share one. */
struct UIDNA;

/* Opens a converter. Returns NULL on failure; then *ERROR is ICU's name of the reason. */
struct UIDNA *idna_open(const char **error);

void idna_close(struct UIDNA *idna);

/* Writes the host that NAME stands for into HOST: the canonical name that the proxy will see, or a
 * special host (hostname.h), which users may also write as "*.example.com". NAME is UTF-8, whatever
 * the locale is; one dot at its end is dropped. Returns 0, or bits for idna_show_faults() that say
 * what is wrong with NAME; then HOST is undefined. */
uint32_t idna_canonical(const struct UIDNA *idna, char host[HOSTNAME_SIZE], const char *name);

/* Writes what the bits FAULTS mean, with commas in between. */
void idna_show_faults(FILE *stream, uint32_t faults);

/* Writes NAME; everything that could confuse a terminal or a reader becomes \xNN. */
void idna_show(FILE *stream, const char *name);

/* Returns the same as a string, which the caller must free; or NULL if memory is short. */
char *idna_shown(const char *name);

#endif

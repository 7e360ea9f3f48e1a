#!/usr/bin/env bats
#
# docs/architecture.md and its drawing are about the sources as they are.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/.." || return
}

# The source files that a document names, and the functions, as "name()".
files_of() {
	grep -oE '\b[a-z_]+\.[ch]\b' "$1" | sort -u
}

functions_of() {
	grep -oE '\b[a-z_]+\(\)' "$1" | tr -d '()' | sort -u
}

# missing FILE: what it names, and is not there.
missing() {
	local name
	while read -r name; do
		[ -e "$name" ] || [ -e "tests/$name" ] || [ "$name" = system_.c ] || echo "$name"
	done < <(files_of "$1")
	while read -r name; do
		grep -qE "^$name\(" ./*.c || [ "$name" = shutdown ] || echo "$name()"
	done < <(functions_of "$1")
}

@test "the drawing is what its source says" {
	diff <(perl docs/drawing.pl docs/architecture.txt) docs/architecture.svg
}

@test "what the page and the drawing name is there" {
	local page
	for page in docs/architecture.md docs/architecture.txt; do
		[ "$(files_of $page | wc -l)" -gt 10 ]
		[ "$(functions_of $page | wc -l)" -gt 4 ]
		run missing $page
		echo "$output"
		[ -z "$output" ]
	done
}

@test "what is not there is found" {
	sed 's/read_hello()/read_goodbye()/; s/triage\.c/triages.c/' docs/architecture.txt \
		>"$BATS_TEST_TMPDIR/architecture.txt"
	run missing "$BATS_TEST_TMPDIR/architecture.txt"
	[ "$output" = $'triages.c\nread_goodbye()' ]
	run diff -q <(perl docs/drawing.pl "$BATS_TEST_TMPDIR/architecture.txt") docs/architecture.svg
	[ "$status" = 1 ]
}

@test "the page is two pages long at most" {
	[ "$(wc -w <docs/architecture.md)" -le 1000 ]
}

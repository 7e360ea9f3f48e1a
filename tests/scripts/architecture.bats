#!/usr/bin/env bats
#
# docs/architecture.md, the lessons and the drawings match the sources.
# shellcheck disable=SC2016,SC2154 # backticks are what is looked for; status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
}

# The source files that a document names, the functions, as "name()", and the constants, as "`NAME`".
files_of() {
	grep -oE '\b[a-z_-]+\.[ch]\b' "$1" | sort -u
}

functions_of() { # except in listings, which blocks.bats compares, and in commands
	sed '/^```c/,/^```$/d; /^    /d' "$1" | grep -oE '\b[a-z_0-9]+\(\)' | tr -d '()' | sort -u
}

constants_of() {
	grep -oE '`[A-Z]+_[A-Z_]+`' "$1" | tr -d '`' | sort -u
}

# Where a document says that functions are, as "NAME FILE": a link with the function's name.
places_of() {
	sed -nE 's/\[`/\n&/gp' "$1" | sed -nE 's/^\[`([a-z_0-9]+)\(\)`\]\(\.\.\/([a-z_\/]+\.c)\).*/\1 \2/p' | sort -u
}

# missing FILE: prints what it names that does not exist.
missing() {
	local name file
	while read -r name; do
		[ -n "$(find ./*.[ch] lib system check tests -name "$name")" ] || echo "$name"
	done < <(files_of "$1")
	while read -r name; do
		grep -qE "^$name\(" ./*.c lib/*.c system/*.c check/*.c || [ "$name" = shutdown ] || echo "$name()"
	done < <(functions_of "$1")
	while read -r name file; do
		grep -qE "^([a-z].* \*?)?$name\(" "$file" || echo "$name() in $file"
	done < <(places_of "$1")
	while read -r name; do
		grep -qwF "$name" ./*.[ch] lib/*.[ch] system/*.[ch] check/*.[ch] Makefile || echo "$name"
	done < <(constants_of "$1")
}

@test "the drawings are what their sources say" {
	local drawing count=0
	for drawing in docs/*.txt; do
		diff <(perl docs/drawing.pl "$drawing") "${drawing%.txt}.svg"
		count=$((count + 1))
	done
	[ "$count" -ge 2 ]
}

@test "what the pages and drawings name is there" {
	local page
	[ "$(files_of docs/architecture.md | wc -l)" -gt 10 ]
	[ "$(files_of docs/architecture.txt | wc -l)" -gt 10 ]
	[ "$(places_of docs/life.md | wc -l)" -gt 15 ]
	[ "$(constants_of docs/life.md | wc -l)" -gt 4 ]
	for page in docs/architecture.md docs/architecture.txt docs/life.md docs/life.txt docs/tls-records.md; do
		[ "$(functions_of "$page" | wc -l)" -gt 4 ]
		run missing "$page"
		echo "$output"
		[ -z "$output" ]
	done
}

@test "what is not there is found" {
	sed 's/read_hello()/write_hello()/; s/share\.c/shares.c/' docs/architecture.txt \
		>"$BATS_TEST_TMPDIR/architecture.txt"
	run missing "$BATS_TEST_TMPDIR/architecture.txt"
	[ "$output" = $'shares.c\nwrite_hello()' ]
	run diff -q <(perl docs/drawing.pl "$BATS_TEST_TMPDIR/architecture.txt") docs/architecture.svg
	[ "$status" = 1 ]
}

@test "so is what is elsewhere, or is no constant" {
	sed 's|relay_run()`\](../lib/relay.c)|relay_run()`](../proxy.c)|; s/`TABLE_HELLO_MS`/`TABLE_HELLO_S`/' docs/life.md \
		>"$BATS_TEST_TMPDIR/life.md"
	run missing "$BATS_TEST_TMPDIR/life.md"
	[ "$output" = $'relay_run() in proxy.c\nTABLE_HELLO_S' ]
}

@test "the page is two pages long at most, without its tables" {
	[ "$(grep -v '^|' docs/architecture.md | wc -w)" -le 1000 ]
}

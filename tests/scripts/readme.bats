#!/usr/bin/env bats
#
# The documents are compared with each other, with the existing files, and with the Makefile.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	unset MAKEFLAGS MFLAGS MAKELEVEL
}

# The log messages in the table of what goes wrong, in parts.
said_by_log() {
	awk '/^#/ { below = $0 == "## What goes wrong" } below && /^\| [^-(]/' README.md |
		sed '1d; s/^| //; s/ |.*//; s/: /\n/g; s/, /\n/g'
}

@test "what README.md has of the log is in sniproxy(8) too" {
	[ "$(said_by_log | wc -l)" -ge 10 ]
	said_by_log | while read -r part; do
		grep -qF -e "$part" man/sniproxy.8 || { echo "$part"; false; }
	done
}

# The files that the table names, a line each.
table() {
	awk '/^#/ { below = $0 == "## Files" } below && /^\| [^-]/' docs/architecture.md |
		sed '1d; s/^| //; s/ |.*//; s/, /\n/g'
}

# Reduces paths: sources are kept; of all others, the part at the top of the repository.
tops() {
	sed -E '/^(lib|system|check)\/./!s|/.*||' | sort
}

# The files that the table should name, without headers of sources that exist too.
top() {
	git ls-files | tops | uniq | while read -r file; do
		[ "${file%.h}" != "$file" ] && [ -e "${file%.h}.c" ] || echo "$file"
	done
}

# The commands for building and testing.
commands() {
	tests/scripts/readme.sh "## Building" | sed 's/ *#.*//'
}

documents() {
	printf '%s\n' ./*.md docs/*.md bench/README.md
}

# The relative links of a document, as FILE#ANCHOR, a line each.
links() { # DOCUMENT
	sed '/^    /d' "$1" | grep -oE '\]\([^) ]+\)' | sed 's/^](//; s/)$//' | grep -v '^https\?:'
}

# The anchors of a document's headings, as GitHub makes them.
anchors() { # DOCUMENT
	sed -n 's/^##* //p' "$1" | tr '[:upper:] ' '[:lower:]-' | tr -cd '[:alnum:]_\n-'
}

leads_somewhere() { # DOCUMENT LINK
	local file=${2%%#*}
	file=${file:+${1%"${1##*/}"}$file}
	[ -e "${file:-$1}" ] || { echo "$1: $2: no such file"; return 1; }
	[[ $2 != *'#'* ]] || anchors "${file:-$1}" | grep -qxF -e "${2##*#}" ||
		{ echo "$1: $2: no such heading"; return 1; }
}

@test "README.md has 130 lines and 1,200 words at most" {
	[ "$(wc -l <README.md)" -le 130 ]
	[ "$(wc -w <README.md)" -le 1200 ]
}

# The pages in the order in which README.md names them, below "Read on".
pages() {
	awk '/^#/ { below = $0 == "## Read on" } below' README.md | grep -oE '\]\(docs/[^)]+\)' |
		sed 's/^](docs.//; s/)$//'
}

@test "there are twelve pages at most, and each leads to the next one of README.md" {
	local page next
	[ "$(find docs -name '*.md' | wc -l)" -le 12 ]
	[ "$(pages | sort)" = "$(find docs -name '*.md' -printf '%f\n' | sort)" ]
	while read -r page next; do
		[ "$(grep -o '^Next: \[[^]]*\]' "docs/$page")" = "Next: [$next]" ] || { echo "$page: $next"; return 1; }
	done < <(paste <(pages) <(pages | tail -n +2) | awk 'NF == 2')
}

@test "links lead somewhere" {
	local document link count=0
	for document in $(documents); do
		for link in $(links "$document"); do
			leads_somewhere "$document" "$link"
			count=$((count + 1))
		done
	done
	[ "$count" -gt 30 ]
}

@test "links that lead nowhere are found" {
	run leads_somewhere README.md docs/nothing.md
	[ "$status" = 1 ]
	run leads_somewhere docs/limits.md '../README.md#nothing'
	[ "$status" = 1 ]
	run leads_somewhere README.md '#nothing'
	[ "$status" = 1 ]
	leads_somewhere docs/limits.md '../README.md#quick-start-on-a-server-with-systemd'
}

@test "README.md leads to each page of docs/" {
	local page
	for page in docs/*.md; do
		links README.md | sed 's/#.*//' | grep -qxF "$page" || { echo "$page"; false; }
	done
}

# A table with each package by its name.
packages_of_document() {
	awk '/^#/ { below = $0 == "## Packages" } below && /^\| [^-]/' CONTRIBUTING.md |
		sed '1d; s/^| //; s/ |.*//; s/, /\n/g' | sort
}

@test "CONTRIBUTING.md has each package, with its reason" {
	diff <(packages_of_document) <(make -n deps | sed -n 's|^GOAL=.* packaging/deps.sh deps ||p' | xargs -n 1 | sort)
}

@test "each file of the table is there" {
	[ "$(table | wc -l)" -gt 20 ]
	table | while read -r file; do
		[ -e "$file" ] || { echo "$file is not there"; false; }
	done
}

@test "the table has each source, and each file at the top, once" {
	git ls-files >/dev/null || skip "needs the git repository"
	diff <(table | tops) <(top)
}

@test "each command for building is one that make knows, and is there once" {
	[ "$(commands | wc -l)" -gt 10 ]
	[ -z "$(commands | sort | uniq -d)" ]
	commands | while read -r command; do
		# shellcheck disable=SC2086 # words of a command
		make -n ${command#make} >/dev/null || { echo "$command"; false; }
	done
}

# The sources in a row of the table, with their headers.
row() { # FILE...
	local file
	for file; do
		ls "${file%.[ch]}".[ch]
	done
}

@test "each source file depends on those below it only" {
	local files header above=' '
	while read -r -a files; do
		for header in $(row "${files[@]}" | xargs sed -n 's/^#include "\(.*\)"/\1/p'); do
			[[ $above != *" ${header%.h}."* ]] || { echo "${files[*]}: $header" && return 1; }
		done
		above+="${files[*]} "
	done < <(sed -n 's/^| \([a-z_/]*\.[ch]\(, [^|]*\)\?\) |.*/\1/p' docs/architecture.md | tr -d ,)
	[ "$(wc -w <<<"$above")" -gt 25 ]
}

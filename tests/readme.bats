#!/usr/bin/env bats
#
# README.md, held to the files that there are and to the Makefile.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/.." || return
	unset MAKEFLAGS MFLAGS MAKELEVEL
}

# What the table of files names, a line each.
table() {
	awk '/^#/ { below = $0 == "## Files" } below && /^\| [^-]/' README.md |
		sed '1d; s/^| //; s/ |.*//; s/, /\n/g'
}

# What is at the top of the repository, but headers of sources that are there too.
top() {
	git ls-files | cut -d/ -f1 | sort -u | while read -r file; do
		[ "${file%.h}" != "$file" ] && [ -e "${file%.h}.c" ] || echo "$file"
	done
}

# The commands for building and testing.
commands() {
	tests/readme.sh "## Building" | sed 's/ *#.*//'
}

@test "each file of the table is there" {
	[ "$(table | wc -l)" -gt 20 ]
	table | while read -r file; do
		[ -e "$file" ] || { echo "$file is not there"; false; }
	done
}

@test "the table has each file at the top, once" {
	git ls-files >/dev/null || skip "needs the git repository"
	diff <(table | cut -d/ -f1 | sort) <(top)
}

@test "each command for building is one that make knows, and is there once" {
	[ "$(commands | wc -l)" -gt 10 ]
	[ -z "$(commands | sort | uniq -d)" ]
	commands | while read -r command; do
		# shellcheck disable=SC2086 # words of a command
		make -n ${command#make} >/dev/null || { echo "$command"; false; }
	done
}

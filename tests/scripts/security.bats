#!/usr/bin/env bats
#
# SECURITY.md: each test that it names exists.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
}

# The tests that a document names, FILE/TEST, a line each.
named() { # DOCUMENT
	# shellcheck disable=SC2016 # backticks are what is looked for
	grep -oE '`[a-z_]+(\.bats)?/[^`]+`' "$1" | tr -d '`'
}

is_there() { # FILE/TEST
	local file=${1%%/*} test=${1#*/}
	case $file in
	*.bats) grep -qxF -e "@test \"$test\" {" tests/*/"$file" ;;
	*) grep -qE "^((LONG_)?PROGRAM_TEST|Test|FLOOD_TEST)\(([a-z_]+, )?$test\b" tests/*/"$file.c" ;;
	esac
}

# The rows of tables with a promise but no test.
without_test() { # DOCUMENT
	awk '/^## / { below = /^## What is promised/ } below && /^\| [^-]/ && !/^\| promise / && !/`/' "$1"
}

@test "each test that SECURITY.md names is there" {
	local test
	[ "$(named SECURITY.md | wc -l)" -gt 60 ]
	while read -r test; do
		is_there "$test" || { echo "$test"; return 1; }
	done < <(named SECURITY.md)
}

@test "each promise has one" {
	run without_test SECURITY.md
	echo "$output"
	[ "$status" = 0 ] && [ -z "$output" ]
}

@test "a test that is not there, and a promise without one, are found" {
	local document=$BATS_TEST_TMPDIR/SECURITY.md
	sed 's/dribble/dribbles/; s/^| A hello has ten seconds |.*/&\n| Nobody dies | |/' SECURITY.md >"$document"
	[ "$(without_test "$document")" = "| Nobody dies | |" ]
	named "$document" | grep -qx program_deadline/dribbles
	run is_there program_deadline/dribbles
	[ "$status" != 0 ]
	run is_there systemd.bats/nothing
	[ "$status" != 0 ]
	is_there program_deadline/dribble
}

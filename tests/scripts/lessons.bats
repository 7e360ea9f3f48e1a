#!/usr/bin/env bats
#
# docs/tls-records.md and docs/life.md: the figure is made of the hello's bytes, and the commands
# print the answers. blocks.bats compares the listings with the sources.
# shellcheck disable=SC2154 # output is set by run

bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	read_hello=${SNIPROXY%/*}/tests/program/read_hello
}

readme() { # HEADING N
	tests/scripts/readme.sh "$1" "$2"
}

# Runs stdin with this build's programs. bats waits for processes that hold its descriptor 3.
runs() {
	TMPDIR=$BATS_TEST_TMPDIR timeout 100 bash -e -o pipefail -c \
		"$(sed "s|build/plain/tests/program/read_hello|'$read_hello'|")" 3>&-
}

# exercise PREPARE COMMANDS ANSWER: each is a block of a page.
exercise() {
	local answer=${3##   } commands=${2##   }
	answer=${answer//$'\n'   /$'\n'}
	run runs <<<"$1"$'\n'"$commands"
	[ "$output" = "$answer" ]
}

# The same for tls-records.md, where commands may reject: then the exit status is 1.
exercise_with_hello() { # COMMANDS ANSWER
	exercise "$(readme '## Exercises' 1)" "${1//$'\n'/ || :$'\n'}" "$2"
}

# The same for life.md.
exercise_with_sniproxy() { # COMMANDS ANSWER
	exercise "$(readme '## Exercises, with sniproxy running' 1)" "$1" "$2" && return
	echo "$output"
	return 1
}

@test "the figure is what the bytes say" {
	diff <(perl docs/hello.pl docs/hello.hex) docs/hello.svg
}

@test "other bytes have another figure, and half a hello none" {
	sed 's/7777772e/7878782e/' docs/hello.hex >"$BATS_TEST_TMPDIR/hello.hex"
	perl docs/hello.pl "$BATS_TEST_TMPDIR/hello.hex" >"$BATS_TEST_TMPDIR/hello.svg"
	grep -q 'HostName: xxx\.example\.org' "$BATS_TEST_TMPDIR/hello.svg"
	head -n 20 docs/hello.hex >"$BATS_TEST_TMPDIR/hello.hex"
	run ! perl docs/hello.pl "$BATS_TEST_TMPDIR/hello.hex"
}

@test "the hello's name is found" {
	run -0 runs < <(readme '# From bytes to the server name' 2)
	[ "$output" = www.example.org ]
	grep -qF "prints \`$output\`" docs/tls-records.md
}

@test "the exercises with hellos have their answers" {
	exercise_with_hello "$(readme '## Exercises' 2)" "$(readme '### Answers' 1)"
	exercise_with_hello "$(readme '## Exercises' 3)" "$(readme '### Answers' 2)"
	exercise_with_hello "$(readme '## Exercises' 4)" "$(readme '### Answers' 3)"
	exercise_with_hello "$(readme '## Exercises' 5)" "$(readme '### Answers' 4)"
	exercise_with_hello "$(readme '## Exercises' 6)" "$(readme '### Answers' 5)"
	exercise_with_hello "$(readme '## Exercises' 7)" "$(readme '### Answers' 6)"
}

@test "another answer would be found" {
	run ! exercise_with_hello "$(readme '## Exercises' 3)" "$(readme '### Answers' 3)"
}

@test "which calls a connection makes" {
	[ -z "${SANITIZE-}${PORTABLE-}" ] || skip "this build makes others"
	strace -DDD -q -o /dev/null true 2>/dev/null || skip "strace cannot trace here"
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 2)" "$(readme '### What they print' 1)"
}

@test "the seven bytes of an alert" {
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 3)" "$(readme '### What they print' 2)"
}

@test "half a hello waits without a thread" {
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 4)" "$(readme '### What they print' 3)"
}

@test "a backend that does not listen is heard" {
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 5)" "$(readme '### What they print' 4)"
}

@test "a reset keeps what came before it" {
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 6)" "$(readme '### What they print' 5)"
}

@test "quiet connections take no threads" {
	exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 7)" "$(readme '### What they print' 6)"
}

@test "another answer of sniproxy would be found, and nothing is left behind" {
	run ! exercise_with_sniproxy "$(readme '## Exercises, with sniproxy running' 6)" "$(readme '### What they print' 2)"
	[ -z "$(ls -A "$BATS_TEST_TMPDIR")" ]
}

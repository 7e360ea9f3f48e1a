#!/usr/bin/env bats
#
# docs/tls-records.md: its figure is made of the hello's bytes, its listings are the source, and its
# commands print its answers.
# shellcheck disable=SC2154 # output is set by run

bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_DIRNAME/.." || return
	read_hello=${SNIPROXY%/*}/tests/read_hello
}

readme() { # HEADING N
	tests/readme.sh "$1" "$2"
}

# Whether what comes stands in FILE as it is.
stands_in() { # FILE
	[[ $(<"$1") == *"$(cat)"* ]]
}

# Runs what comes, by this build's program.
runs() {
	bash -e -o pipefail -c "$(sed "s|build/plain/tests/read_hello|'$read_hello'|")"
}

# exercise COMMANDS ANSWER: both are blocks of the page.
exercise() {
	local prepare answer=${2##   }
	prepare=$(readme '## Exercises' 1)
	answer=${answer//$'\n'   /$'\n'}
	# A refusal has exit status 1.
	run runs <<<"$prepare"$'\n'"${1//$'\n'/ || :$'\n'}"
	[ "$output" = "$answer" ]
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

@test "the listings are the source" {
	stands_in tls.c < <(readme '## The first layer: records' 1)
	stands_in tls.c < <(readme '## The first layer: records' 2)
	stands_in tls.c < <(readme '## The bounded reader' 1)
	stands_in tls.c < <(readme '## The second layer: the ClientHello' 1)
	stands_in tls.c < <(readme '## The second layer: the ClientHello' 2)
	run ! stands_in tls.c <<<"	return in->bytes;"
}

@test "the hello's name is found" {
	run -0 runs < <(readme '# From bytes to the server name' 2)
	[ "$output" = www.example.org ]
	grep -qF "prints \`$output\`" docs/tls-records.md
}

@test "the exercises have their answers" {
	exercise "$(readme '## Exercises' 2)" "$(readme '### Answers' 1)"
	exercise "$(readme '## Exercises' 3)" "$(readme '### Answers' 2)"
	exercise "$(readme '## Exercises' 4)" "$(readme '### Answers' 3)"
	exercise "$(readme '## Exercises' 5)" "$(readme '### Answers' 4)"
	exercise "$(readme '## Exercises' 6)" "$(readme '### Answers' 5)"
	exercise "$(readme '## Exercises' 7)" "$(readme '### Answers' 6)"
}

@test "another answer would be found" {
	run ! exercise "$(readme '## Exercises' 3)" "$(readme '### Answers' 3)"
}

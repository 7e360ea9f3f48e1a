#!/usr/bin/env bats
#
# What tests/run.sh prints at its end.
# shellcheck disable=SC2154 # status and output are set by run

# add_test NAME COMMAND
add_test() {
	echo "@test '$1' { $2; }" >>tests/scripts/few.bats
}

# Without what the outer bats has set in the environment, and in PATH.
run_tests() { # TESTS
	run env -i "PATH=${PATH//"$BATS_LIBEXEC:"/}" TESTS="$1" tests/run.sh build
	echo "$output"
}

# A directory with run.sh, and with tests of both kinds.
setup() {
	cd "$BATS_TEST_TMPDIR" || return
	mkdir -p tests/program tests/scripts build/tests/program
	cp "$BATS_TEST_DIRNAME/../run.sh" tests
	touch build/sniproxy tests/program/program_some.c
	add_test 'one that passes' true
	add_test 'one: with a colon' 'skip "needs root, for this"'
	cat >build/tests/program/program_some <<-'END'
		#!/bin/sh
		cat >"${2#--tap=}" <<-TAP
			ok - some::passes  (0.01s)
			ok - some::is_skipped  # SKIP needs another kernel
		TAP
	END
	chmod 755 build/tests/program/program_some
}

@test "it names what was skipped, with the reason, and ends with the counts" {
	run_tests 'program_some few.bats'
	[ "$status" = 0 ]
	[ "$(tail -n 3 <<<"$output")" = "\
skipped: few.bats: one: with a colon: needs root, for this
skipped: program_some: some::is_skipped: needs another kernel
2 passed, 0 failed, 2 skipped" ]
	[ "$(cat build/results/skipped)" = "$(tail -n 3 <<<"$output" | head -n 2)" ]
}

@test "a program's line does not count a skipped test as passed" {
	run_tests 'program_some few.bats'
	grep -q '^few.bats: 1 passed, 0 failed, 1 skipped, [0-9]* s$' <<<"$output"
	grep -q '^program_some: 1 passed, 0 failed, 1 skipped, [0-9]* s$' <<<"$output"
}

@test "it fails if all tests were skipped" {
	echo "@test 'one that is skipped' { skip; }" >tests/scripts/few.bats
	run_tests few.bats
	[ "$status" = 1 ]
	[[ ${lines[0]} == "few.bats: 0 passed, 0 failed, 1 skipped, "* ]]
	[ "${lines[-1]}" = "0 passed, 0 failed, 1 skipped" ]
}

@test "it runs the tests that are wanted, and no others" {
	run_tests few.bats
	[ "$status" = 0 ]
	[[ ${lines[0]} == "few.bats: 1 passed, 0 failed, 1 skipped, "* ]]
	[ "${#lines[@]}" = 3 ]
	run_tests none
	[ "$status" = 1 ]
	[ "$output" = "0 passed, 0 failed, 0 skipped" ]
}

@test "a test that fails is shown, and counted" {
	add_test 'one that fails' 'echo why; false'
	run_tests few.bats
	[ "$status" = 1 ]
	[[ ${lines[-5]} == "failed: few.bats: one that fails" ]]
	[[ ${lines[-2]} == "failed: few.bats: # why" ]]
	[ "${lines[-1]}" = "1 passed, 1 failed, 1 skipped" ]
}

#!/usr/bin/env bats
#
# calls.h is compared with the calls that strace(1) sees in some tests of the program, and of the
# static one.
#
# SNIPROXY and SNIPROXY_STATIC are the programs; the tests are beside the first.
# shellcheck disable=SC2030,SC2031,SC2154 # status and output are set by run

# These make all calls of the list, in a few seconds.
tests='start/stderr_closed hello/largest_in_full_records
	backend/hosts_and_symlinks_of_one_user_among_several backend/proxy_header_ipv4
	relay/bulk_both_ways relay/client_from_before_the_start_has_keepalive_and_nodelay
	relay/client_reset_after_its_end_closes_the_backend
	status/evicted status/threads_are_counted
	stop/sighup_lets_connections_end'

# Calls that are not seen here, or not each time, and why the list has them.
unseen='exit: a thread that has had nothing to do for a second
madvise: the same
access: where /proc is missing and unshare(2) refused
clock_gettime: where the kernel has no vDSO
dup3: of AArch64
faccessat: of AArch64
ppoll: of AArch64
getrandom: where the C library is another one
gettid: the same
writev: how the C library says that it found memory damaged
tgkill: how the C library aborts
tkill: the same
restart_syscall: the kernel goes on with a call so, when it was stopped
time: where the kernel has no vDSO'

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	# A skip here, as opposed to one in setup(), fails with Bats 1.8.
	export skipped=
	strace -DDD -q -o /dev/null true 2>/dev/null || skipped="strace cannot trace here"
	case $(uname -m) in x86_64 | aarch64) ;; *) skipped="there is no filter for this machine" ;; esac
	[ -z "${SANITIZE-}${PORTABLE-}" ] || skipped="this build has no sandbox"
	[ -z "$skipped" ] || return 0
	# Some of the programs run as the user nobody.
	TRACES=$(mktemp -d) && export TRACES && chmod 711 "$TRACES"
	trace dynamic "$SNIPROXY"
	trace static "$SNIPROXY_STATIC"
}

teardown_file() {
	[ -z "${TRACES-}" ] || rm -rf "$TRACES"
}

# Runs the tests with a program. Its calls go to files in a directory of TRACES.
trace() { # DIRECTORY PROGRAM
	local beside=${SNIPROXY%/*}/tests/program test
	mkdir -m 1777 "$TRACES/$1"
	for test in $tests; do
		TRACED=$2 TRACES=$TRACES/$1 SNIPROXY=$beside/traced \
			"$beside/program_${test%/*}" --filter "$test" >"$TRACES/$1/log" 2>&1 || {
			cat "$TRACES/$1/log"
			return 1
		}
	done
}

# The lines of traces after the filter was installed.
in_service() { # FILE...
	local file
	for file; do
		awk 'on; /prctl\(PR_SET_SECCOMP.* = 0$/ { on = 1 }' "$file"
	done
}

# The calls in such lines, each once.
calls() {
	sed -nE 's/^[0-9]+ +(<\.\.\. )?([a-z0-9_]+)(\(| resumed).*/\2/p' | sort -u
}

# The calls of the list, each once.
listed() {
	printf '%s\n' '#include "system/calls.h"' '#define CALL(call, ...) @call' 'CALLS(CALL, CALL, CALL, CALL)' |
		cc -E -P -D_GNU_SOURCE -I. -x c - | grep -oE '@ *[a-z0-9_]+' | tr -d '@ ' | sort -u
}

# Lines on a rejected call; except for clone3(2), which the C library can do without, and except for
# what the kernel itself rejects if the tests run at the lowest priority.
refusals() {
	grep -E '= -1 (ENOSYS|EPERM) ' | grep -vE '^[0-9]+ +(<\.\.\. )?(clone3|sched_setscheduler)\>'
}

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	[ -z "$skipped" ] || skip "$skipped"
}

@test "each call of the program is in the list" {
	[ "$(listed | wc -l)" -gt 40 ]
	in_service "$TRACES"/dynamic/[0-9]* | calls >"$BATS_TEST_TMPDIR/seen"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/seen")" -gt 30 ]
	run comm -13 <(listed) <(grep -vx clone3 "$BATS_TEST_TMPDIR/seen")
	echo "$output"
	[ -z "$output" ]
}

@test "each call of the static program is in the list" {
	in_service "$TRACES"/static/[0-9]* | calls >"$BATS_TEST_TMPDIR/seen"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/seen")" -gt 30 ]
	run comm -13 <(listed) "$BATS_TEST_TMPDIR/seen"
	echo "$output"
	[ -z "$output" ]
}

@test "no call of theirs is refused" {
	run refusals < <(in_service "$TRACES"/*/[0-9]*)
	echo "$output"
	[ -z "$output" ]
}

@test "each call of the list is made, or has a reason" {
	in_service "$TRACES"/*/[0-9]* | calls >"$BATS_TEST_TMPDIR/seen"
	run comm -23 <(listed) <(cut -d : -f 1 <<<"$unseen" | sort -u - "$BATS_TEST_TMPDIR/seen")
	echo "$output"
	[ -z "$output" ]
}

# says_with VERSION LINE: the program prints LINE if the kernel has that version of Landlock. Sets
# $rules to what it asks for, according to strace(1).
says_with() {
	local process line hosts=$BATS_TEST_TMPDIR/hosts log=$BATS_TEST_TMPDIR/log.$1
	mkdir -p "$hosts"
	(cd "$hosts" && exec "$LISTEN" 127.0.0.1 0 strace -DDD -q -X raw -o "$log.calls" -e trace=landlock_create_ruleset \
		-e inject="landlock_create_ruleset:retval=$1:when=1" "$SNIPROXY" 2>"$log" 3>/dev/null) &
	process=$!
	until grep -q '^sniproxy: sandbox: ' "$log" 2>/dev/null; do
		kill -0 "$process" || return
		sleep 0.05
	done
	kill "$process"
	wait "$process"
	line=$(grep '^sniproxy: sandbox: ' "$log")
	rules=$(grep handled_access "$log.calls" || :)
	echo "$1: $line: $rules"
	[ "${line#sniproxy: sandbox: }" = "$2" ]
}

# What is forbidden for files in landlock.h of that version.
forbids() { # BITS
	[[ $rules == *"handled_access_fs=$1,"* || $rules == *"handled_access_fs=$1}"* ]]
}

@test "where the kernel has an older Landlock, less stands, and that is said" {
	local none='Landlock files, Landlock TCP, Landlock scopes'
	[ "$(strace -e trace=landlock_create_ruleset true 2>&1 | tail -n 1)" = '+++ exited with 0 +++' ] ||
		skip "strace does not know Landlock"
	says_with -1 "no_new_privs, seccomp; missing: $none"
	says_with 1 "no_new_privs, Landlock files, seccomp; missing: Landlock TCP, Landlock scopes" ||
		skip "the kernel has no Landlock"
	forbids 0x1fff
	says_with 2 "no_new_privs, Landlock files, seccomp; missing: Landlock TCP, Landlock scopes"
	forbids 0x3fff
	says_with 3 "no_new_privs, Landlock files, seccomp; missing: Landlock TCP, Landlock scopes"
	forbids 0x7fff
	says_with 4 "no_new_privs, Landlock files, Landlock TCP, seccomp; missing: Landlock scopes"
	forbids 0x7fff
	says_with 5 "no_new_privs, Landlock files, Landlock TCP, seccomp; missing: Landlock scopes"
	forbids 0xffff
	says_with 6 "no_new_privs, $none, seccomp"
	forbids 0xffff
	says_with 7 "no_new_privs, $none, seccomp"
	forbids 0xffff
}

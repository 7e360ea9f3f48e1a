#!/usr/bin/env bats
#
# Code for one system is in that system's file.
# shellcheck disable=SC2086,SC2154 # lists of files; status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
}

# The sources of sniproxy that are for all systems.
sources=$(cd "$BATS_TEST_DIRNAME/../.." && printf '%s\n' *.[ch] lib/*.[ch] system/{system.h,sandbox_none.c} |
	grep -vE '^sniproxy-(check|hostname)\.c$')

without_comments() { # FILE...
	cc -fpreprocessed -dD -E -P "$@"
}

# What glibc declares even for POSIX alone, and what a compiler only warns of.
beyond_posix='epoll|splice *\(|accept4|pipe2|ppoll|prctl|unshare *\(|eventfd|signalfd|timerfd|getrandom|sysinfo
(SOCK|EPOLL)_[A-Z]*(CLOEXEC|NONBLOCK)|MSG_DONTWAIT|O_PATH|SO_DOMAIN|SO_PROTOCOL|IPPROTO_MPTCP
TCP_(INFO|KEEP|NOTSENT|USER)|FIONREAD|OUTQ|ioctl|sched_|SCHED_|_COARSE|SO_PEERCRED|mallopt|_np *\('

# "defined" is for HASHED and THREAD_STACK_SIZE, which are no systems.
finds_systems() { # FILE...
	without_comments "$@" | grep -E "${beyond_posix//$'\n'/|}|# *if.*_(_|H)[a-z]|__linux|__FreeBSD|__APPLE" |
		grep -vE '\bsystem_[a-z_]+ *\('
}

@test "no other file knows the system" {
	[ "$(without_comments $sources | wc -l)" -gt 1500 ]
	run finds_systems $sources
	echo "$output"
	[ "$status" = 1 ]
}

@test "what is beyond POSIX would be found" {
	local line
	for line in 'accept4(s, NULL, NULL, 0);' 'recv(s, b, 1, MSG_DONTWAIT);' 'int x = TCP_KEEPIDLE;' \
		'#ifdef __linux__'; do
		{ cat lib/relay.c && echo "$line"; } >"$BATS_TEST_TMPDIR/relay.c"
		run finds_systems "$BATS_TEST_TMPDIR/relay.c"
		[ "$output" = "$line" ]
	done
}

@test "each system's file gives all that system.h asks for" {
	local system files
	asked=$(without_comments system/system.h | grep -oE '\bsystem_[a-z_]+ *[(\[]' | tr -d ' ([' | sort)
	[ "$(wc -l <<<"$asked")" -gt 20 ]
	for system in linux posix freebsd macos; do
		files=system/$system.c
		[ $system = linux ] || files+=' system/poll.c'
		diff <(echo "$asked") <(without_comments $files |
			grep -oE '^(const char )?system_[a-z_]+ *[(\[]' | sed 's/const char //' | tr -d ' ([' | sort)
	done
}

# Alpine has it; here, there are no libraries to link with.
@test "the programs compile with musl" {
	local file multiarch
	type -P musl-gcc >/dev/null || skip "needs musl-gcc"
	multiarch=$(cc -print-multiarch)
	for file in sniproxy.c sniproxy-check.c sniproxy-hostname.c check/*.c lib/idna.c; do
		musl-gcc -I. -D_GNU_SOURCE '-DVERSION="0"' -std=gnu11 -Wall -Werror -fsyntax-only \
			-idirafter /usr/include -idirafter "/usr/include/$multiarch" "$file"
	done
}

@test "the examples for other systems can be read" {
	sh -n packaging/sniproxy.rc
	type -P python3 >/dev/null || skip "needs python3"
	python3 -c 'import plistlib; plistlib.load(open("packaging/sniproxy.plist", "rb"))'
}

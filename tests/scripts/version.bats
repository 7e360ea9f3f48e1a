#!/usr/bin/env bats
#
# One version everywhere: the Makefile's.
#
# SNIPROXY, SNIPROXY_STATIC, SNIPROXY_HOSTNAME, SNIPROXY_CHECK and LISTEN are the programs.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	version=$(sed -n 's/^VERSION := //p' Makefile)
	[ -n "$version" ]
}

tells() { # PROGRAM LINE
	run "$1" --version
	[ "$status" = 0 ]
	[ "$output" = "$2" ]
}

@test "the programs tell it" {
	tells "$SNIPROXY" "sniproxy $version"
	tells "$SNIPROXY_HOSTNAME" "sniproxy-hostname $version"
	tells "$SNIPROXY_CHECK" "sniproxy-check $version"
	[ ! -x "$SNIPROXY_STATIC" ] || tells "$SNIPROXY_STATIC" "sniproxy $version"
}

@test "sniproxy --help says what stdin and the working directory are" {
	run "$SNIPROXY" --help </dev/null
	[ "$status" = 0 ]
	[ "${#lines[@]}" = 2 ]
	[[ ${lines[0]} == "stdin is the listening TCP socket"* ]]
	[[ ${lines[1]} == "the working directory is the hosts directory"* ]]
}

# The versions in a file, the newest first.
is_first() { # FILE SED_SCRIPT [VERSION]
	local first
	first=$(sed -n "$2" "$1" | head -n 1)
	echo "$1: $first"
	[ "$first" = "${3-$version}" ]
}

@test "the change log and the packages have it" {
	is_first CHANGELOG.md 's/^## \([^ ]*\).*/\1/p'
	is_first debian/changelog 's/^sniproxy (\(.*\)) .*/\1/p'
	is_first packaging/sniproxy-unix.spec 's/^Version: *//p'
	is_first packaging/sniproxy-unix.spec 's/^\* .* - \(.*\)-[0-9]*$/\1/p'
	# Alpine writes it differently, in the comment too.
	is_first packaging/APKBUILD 's/^pkgver=//p' "${version/\~/_}"
	[ "$(grep -o 'sniproxy-[0-9][^/ ]*' packaging/APKBUILD | sed 's/\.tar\.gz$//' | sort -u)" = \
		"sniproxy-${version/\~/_}" ]
}

@test "a version that cannot be printed is an error" {
	"$SNIPROXY" --version >/dev/full && false
	"$SNIPROXY" --version >&- && false
	run "$SNIPROXY" --version another
	[ "$status" = 1 ]
	[[ $output == "sniproxy: --version: no argument is taken"* ]]
}

@test "on a listening socket it ends at once" {
	# As with inetd, the socket is descriptors 0 to 2.
	# shellcheck disable=SC2016 # for the other shell
	run timeout 10 "$LISTEN" 127.0.0.1 0 sh -c 'exec "$SNIPROXY" --version >&0 2>&0' 3>/dev/null
	[ "$status" = 1 ]
	[ -z "$output" ]
}

#!/usr/bin/env bats
# demo.sh does what it prints, ends on a signal, and leaves nothing behind.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test.

load tls_helper

setup() {
	work=$BATS_TEST_TMPDIR
	require_programs
	command -v curl >/dev/null || skip "curl is not installed"
	export TMPDIR=$work/tmp no_proxy='*'
	mkdir "$TMPDIR"
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || cat "$work/demo.log"
	[ -z "$demo" ] || kill -KILL -- "-$demo" 2>/dev/null || :
}

# Starts the demo in a session of its own, which is one process group. A non-interactive shell makes
# its background jobs ignore SIGINT, and they could not undo that.
start_demo() {
	env --default-signal=INT setsid "$BATS_TEST_DIRNAME/demo.sh" \
		>"$work/demo.log" 2>&1 3>&- &
	demo=$!
}

over() {
	! kill -0 "$demo" 2>/dev/null
}

serving_or_over() {
	grep -q "^Serving" "$work/demo.log" || over
}

await_serving() {
	await serving_or_over
	grep -q "^Serving" "$work/demo.log"
}

# ends_with STATUS: the demo has ended, with all its processes and files gone.
ends_with() {
	local status=0
	await over
	wait "$demo" || status=$?
	[ "$status" -eq "$1" ]
	run kill -0 -- "-$demo"
	[ "$status" -ne 0 ]
	[ -z "$(ls -A "$TMPDIR")" ]
}

# Pastes each printed command into a shell of its own.
paste_commands() {
	grep "^ *curl -" "$work/demo.log" >"$work/commands"
	[ "$(wc -l <"$work/commands")" -eq 4 ]
	[ "$(sed -n 1p "$work/commands" | sh)" = "This is blog.example." ]
	[ "$(sed -n 2p "$work/commands" | sh)" = "This is shop.example." ]
	[ "$(sed -n 3p "$work/commands" | sh)" = "This is bücher.example." ]
	run sh -c "$(sed -n 4p "$work/commands")"
	[ "$status" -eq 35 ]
	[[ $output == *"recognized"* ]]
}

@test "the printed commands reach each host, and Ctrl-C ends the demo" {
	start_demo
	await_serving
	paste_commands
	kill -INT "$demo"
	ends_with 0
}

@test "what the demo shows is what the hosts answer" {
	start_demo
	await_serving
	grep -qx "    This is blog.example." "$work/demo.log"
	grep -qx "    This is shop.example." "$work/demo.log"
	grep -qx "    This is bücher.example." "$work/demo.log"
	grep -qx "    curl: (35) .*recognized.*" "$work/demo.log"
	local directory
	directory=$("$SNIPROXY_HOSTNAME" bücher.example)
	grep -qxF "bücher.example, in the directory $directory:" "$work/demo.log"
	kill -INT "$demo"
	ends_with 0
}

# How many lines of the log are about the name without a directory.
refusals_logged() {
	grep -c "^127\.0\.0\.1:[0-9]* nobody\.example: " "$work/demo.log"
}

refusals_logged_are() { # COUNT
	[ "$(refusals_logged)" = "$1" ]
}

@test "the log comes after the answers, and goes on" {
	start_demo
	await_serving
	await refusals_logged_are 1
	# An answer or a heading: no line of the log begins with two spaces, or ends like these.
	run grep -vE "^$|^  |:$|^sniproxy listens on|^Each name" <(sed '/^Serving/,$d' "$work/demo.log")
	echo "$output"
	[ "$output" = "" ]
	paste_commands
	await refusals_logged_are 2
	kill -INT "$demo"
	ends_with 0
}

@test "a Ctrl-C that reaches every process ends the demo" {
	start_demo
	await_serving
	kill -INT -- "-$demo"
	ends_with 0
}

@test "SIGTERM ends the demo" {
	start_demo
	await_serving
	kill -TERM "$demo"
	ends_with 0
}

@test "SIGHUP ends the demo" {
	start_demo
	await_serving
	kill -HUP "$demo"
	ends_with 0
}

@test "a client that stays connected does not hold up the end" {
	start_demo
	await_serving
	local port client
	port=$(sed -n 's/.* 127\.0\.0\.1:\([0-9]*\),.*/\1/p' "$work/demo.log")
	mkfifo "$work/silence"
	openssl s_client -connect "127.0.0.1:$port" -servername blog.example \
		<>"$work/silence" >"$work/client.log" 2>&1 3>&- &
	client=$!
	await grep -q "^New, TLS" "$work/client.log"
	SECONDS=0
	kill -INT "$demo"
	ends_with 0
	[ "$SECONDS" -lt 8 ]
	wait "$client" || :
}

@test "the demo serves without stdin" {
	start_demo <&-
	await_serving
	paste_commands
	kill -INT "$demo"
	ends_with 0
}

@test "the printed commands work where the directory's name needs quotes" {
	export TMPDIR="$work/it's a \"name\""
	mkdir "$TMPDIR"
	start_demo
	await_serving
	paste_commands
	kill -INT "$demo"
	ends_with 0
}

@test "without nginx the demo's servers are OpenSSL's" {
	export PATH=/usr/bin:/bin
	! command -v nginx || skip "nginx is in $PATH"
	start_demo
	await_serving
	grep -qF "(openssl)" "$work/demo.log"
	paste_commands
	kill -INT "$demo"
	ends_with 0
}

@test "the demo fails where sniproxy does not start" {
	export SNIPROXY=/bin/false
	start_demo
	ends_with 1
	grep -qx "demo: blog.example cannot be reached" "$work/demo.log"
}

@test "where the demo fails, it shows what sniproxy has logged" {
	printf '#!/bin/sh\necho "no such luck" >&2\nexit 1\n' >"$work/proxy"
	chmod +x "$work/proxy"
	export SNIPROXY=$work/proxy
	start_demo
	ends_with 1
	grep -qx "no such luck" "$work/demo.log"
}

@test "the demo fails where sniproxy-hostname does not work" {
	export SNIPROXY_HOSTNAME=/bin/false
	start_demo
	ends_with 1
	grep -qx "demo: sniproxy-hostname refuses blog.example" "$work/demo.log"
}

@test "the demo fails where sniproxy ends" {
	printf '#!/bin/sh\necho $$ >"%s"\nexec "%s"\n' "$work/pid" "$SNIPROXY" \
		>"$work/proxy"
	chmod +x "$work/proxy"
	export SNIPROXY=$work/proxy
	start_demo
	await_serving
	kill -KILL "$(cat "$work/pid")"
	ends_with 1
	grep -qx "demo: sniproxy ended by itself" "$work/demo.log"
}

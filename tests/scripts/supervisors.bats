#!/usr/bin/env bats
# sniproxy under openbsd-inetd, under s6 and from a shell, started with the lines of
# docs/starting.md.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test.
# shellcheck disable=SC2154 # machine, held and such are set by machine.bash

load tls_helper
load ../machines/machine

setup_file() {
	work=$BATS_FILE_TMPDIR
	require_programs
	make_authority
	make_certificate blog.example DNS:blog.example
}

setup() {
	export work=$BATS_TEST_TMPDIR no_proxy='*'
	cp "$BATS_FILE_TMPDIR"/{ca,blog.example}.pem "$BATS_FILE_TMPDIR/blog.example.key" "$work"
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || show_logs
	stop_machine
}

needs() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}

# --- common to both ---

# The program runs as the user sniproxy in the hosts directory.
runs_as_sniproxy() { # PROCESS
	[ "$(inside stat -c %U "/proc/$1")" = sniproxy ]
	[ "$(inside readlink "/proc/$1/cwd")" = /srv/sniproxy ]
}

# It has the listening socket, which it closes when it is told to stop.
listens() { # PROCESS
	[[ $(inside ss -Hltnp 'sport = :443') == *"pid=$1,"* ]]
}

gave_up_listening() {
	! listens "$1"
}

is_another() { # PROCESS
	local now
	now=$(processes sniproxy)
	[ -n "$now" ] && [ "$now" != "$1" ]
}

runs_what_is_installed() { # PROCESS
	[ "$(inside stat -L -c %i "/proc/$1/exe")" = \
		"$(inside stat -c %i /usr/local/sbin/sniproxy)" ]
}

# restart_under_load COMMAND...: COMMAND makes the running copy, $old, stop. Its connection
# continues, new ones wait, and the copy that was installed meanwhile serves them.
restart_under_load() {
	local old new waiting
	start_clients
	hold
	old=$(processes sniproxy)
	listens "$old"
	inside install -m 755 "$SNIPROXY" /usr/local/sbin/sniproxy
	run runs_what_is_installed "$old"
	[ "$status" = 1 ]

	"$@"
	await gave_up_listening "$old"
	says_hello 127.0.0.1 3>&- {request}>&- &
	waiting=$!
	ask_again
	[ "$(processes sniproxy)" = "$old" ]
	let_go
	wait "$waiting"
	await is_another "$old"
	new=$(processes sniproxy)
	runs_as_sniproxy "$new"
	runs_what_is_installed "$new"
	served_more_than 5
	stop_clients
}

# upgrade_under_load COMMAND...: COMMAND replaces the running copy, $old, by the program that was
# installed meanwhile. Its connection continues, and new ones do not wait for it.
upgrade_under_load() {
	local old upgrade before took
	start_clients
	hold
	old=$(processes sniproxy)
	inside install -m 755 "$SNIPROXY" /usr/local/sbin/sniproxy
	"$@" 3>&- {request}>&- &
	upgrade=$!
	await gave_up_listening "$old"
	before=$(date +%s%3N)
	says_hello 127.0.0.1
	took=$(($(date +%s%3N) - before))
	echo "a new connection took $took ms"
	[ "$took" -lt 5000 ]
	ask_again
	[[ $'\n'$(processes sniproxy)$'\n' == *$'\n'$old$'\n'* ]]
	let_go
	wait "$upgrade"
	await is_another "$old"
	await is_alone
	runs_as_sniproxy "$(processes sniproxy)"
	runs_what_is_installed "$(processes sniproxy)"
	served_more_than 5
	stop_clients
}

is_alone() {
	[ "$(processes sniproxy | wc -l)" = 1 ]
}

# A program that ends at once.
install_faulty() {
	inside install -m 755 /bin/false /usr/local/sbin/sniproxy
}

# --- inetd ---

install_inetd_lines() {
	readme '### inetd' 1 >"$work/inetd.conf"
	readme '### inetd' 2 | inside sh -c '
		cat >/usr/local/sbin/sniproxy-in && chmod 755 /usr/local/sbin/sniproxy-in'
}

start_inetd() {
	needs inetd
	start_machine
	install_inetd_lines
	background_inside inetd.log inetd -i "$work/inetd.conf"
	await inside sh -c 'ss -Hltn "sport = 443" | grep -q .'
}

@test "inetd: the first connection starts sniproxy, which serves those that follow" {
	start_inetd
	[ -z "$(processes sniproxy)" ]
	says_hello 127.0.0.1
	local first
	first=$(processes sniproxy)
	runs_as_sniproxy "$first"
	says_hello 127.0.0.1
	says_hello 127.0.0.1
	[ "$(processes sniproxy)" = "$first" ]
}

@test "inetd: IPv6 is served too" {
	start_inetd
	says_hello '[::1]'
	runs_as_sniproxy "$(processes sniproxy)"
}

@test "inetd: the log goes to syslog, not to the socket that is stderr" {
	needs s6-socklog
	start_inetd
	background_inside syslog.log s6-socklog -x /dev/log
	await inside test -S /dev/log
	says_hello 127.0.0.1
	local process
	process=$(processes sniproxy)
	# the hosts directory has taken the place of the socket
	[ "$(inside readlink "/proc/$process/fd/2")" = "$(inside readlink "/proc/$process/cwd")" ]
	[ "$(refusal nobody.example)" = "alert number 112" ]
	await grep -E 'sniproxy\[[0-9]+\]: 127\.0\.0\.1:[0-9]+ nobody\.example: ' "$work/syslog.log"
}

@test "inetd: without syslog, nothing but the log is lost" {
	start_inetd
	[ "$(refusal nobody.example)" = "alert number 112" ]
	says_hello 127.0.0.1
}

hang_up() {
	inside kill -HUP "$old"
}

@test "inetd: after SIGHUP it starts a new copy, and no connection is lost" {
	start_inetd
	restart_under_load hang_up
}

@test "inetd: a copy that is killed is followed by another" {
	start_inetd
	says_hello 127.0.0.1
	local first
	first=$(processes sniproxy)
	inside kill -KILL "$first"
	says_hello 127.0.0.1
	is_another "$first"
}

# --- s6 ---

# If s6-networking is not installed, another program listens.
put_socketbinder() {
	command -v s6-tcpserver-socketbinder >/dev/null && return
	mkdir "$work/bin"
	cat >"$work/bin/s6-tcpserver-socketbinder" <<-END
		#!/bin/sh
		# s6-tcpserver-socketbinder -B -b BACKLOG ADDRESS PORT PROGRAM...
		[ "\$1 \$2" = "-B -b" ] && [ "\$3" -ge 128 ] || exit 100
		shift 3
		exec 3>/dev/null "$LISTEN" "\$@"
	END
	chmod 755 "$work/bin/s6-tcpserver-socketbinder"
	PATH=$work/bin:$PATH
}

# put_script FILE: writes stdin to FILE.
put_script() {
	mkdir -p "${1%/*}"
	cat >"$1"
	chmod 755 "$1"
}

# put_service NAME SED-SCRIPT: the two scripts of docs/starting.md, the first one edited.
put_service() {
	local copies=$work/services/$1/copies
	readme '### s6' 1 | sed "$2" | put_script "$work/services/$1/run"
	readme '### s6' 2 | put_script "$copies/proxy/run"
	readme '### s6' 2 | put_script "$copies/standby/run"
	touch "$copies/standby/down"
}

# Starts that service; $service is its directory.
start_s6() {
	needs s6-svscan s6-log execlineb
	start_machine
	put_socketbinder
	service=$work/services/sniproxy
	put_service sniproxy ''
	put_script "$service/log/run" <<-END
		#!/bin/execlineb -P
		s6-log n20 s1000000 $work/log
	END
	[ -z "${1-}" ] || "$@"
	background_inside s6.log s6-svscan "$work/services"
	await inside s6-svwait -u -t 1000 "$service/copies/proxy"
	await runs sniproxy
}

runs() { # NAME
	[ -n "$(processes "$1")" ]
}

is_gone() { # NAME
	[ -z "$(processes "$1")" ]
}

@test "s6: connections are served, and the log is s6-log's" {
	start_s6
	local process
	process=$(processes sniproxy)
	says_hello 127.0.0.1
	runs_as_sniproxy "$process"
	[ "$(refusal nobody.example)" = "alert number 112" ]
	await grep -E '^127\.0\.0\.1:[0-9]+ nobody\.example: ' "$work/log/current"
	[ "$(processes sniproxy)" = "$process" ]
}

@test "s6: a second service is for IPv6" {
	start_s6 put_service sniproxy6 's/0\.0\.0\.0/::1/'
	await says_hello '[::1]'
	says_hello 127.0.0.1
}

@test "s6: s6-svc -r starts a new copy, and no connection is lost" {
	start_s6
	restart_under_load inside s6-svc -r "$service/copies/proxy"
}

@test "s6: s6-svc -h does the same" {
	start_s6
	restart_under_load inside s6-svc -h "$service/copies/proxy"
}

upgrade_by_s6() {
	inside bash -c "cd '$work/services' && $(readme '### s6' 3)"
}

@test "s6: with a standby, no new connection waits for one that is open" {
	start_s6
	upgrade_under_load upgrade_by_s6
	inside s6-svwait -d -t 1000 "$service/copies/standby"
}

@test "s6: if the standby does not start, the old copy goes on" {
	start_s6
	local process
	process=$(processes sniproxy)
	says_hello 127.0.0.1
	install_faulty
	run upgrade_by_s6
	[ "$status" != 0 ]
	[ "$(processes sniproxy)" = "$process" ]
	says_hello 127.0.0.1
}

@test "s6: s6-svc -d lets a connection go on for ten seconds, and closes the port" {
	start_s6
	hold
	local process before
	process=$(processes sniproxy)
	before=$(date +%s%3N)
	inside s6-svc -d "$service"
	await gave_up_listening "$process"
	ask_again
	inside s6-svwait -d -t 12000 "$service"
	took=$(($(date +%s%3N) - before))
	echo "took $took ms"
	[ "$took" -ge 9900 ] && [ "$took" -le 11900 ]
	is_gone sniproxy
	let_go
	run says_hello 127.0.0.1
	[ "$status" != 0 ]
	inside s6-svc -u "$service"
	await says_hello 127.0.0.1
}

@test "s6: s6-svc -d ends without delay where no connection is open" {
	start_s6
	says_hello 127.0.0.1
	inside s6-svc -d "$service"
	inside s6-svwait -d -t 3000 "$service"
	is_gone sniproxy
}

@test "s6: a copy that is killed is followed by another" {
	start_s6
	says_hello 127.0.0.1
	local first
	first=$(processes sniproxy)
	inside kill -KILL "$first"
	says_hello 127.0.0.1
	is_another "$first"
}

# --- by hand ---

# A shell that has the listening socket as descriptor 3. It upgrades when something is written to
# it, and prints the exit status.
start_by_hand() {
	start_machine
	inside install -d -o sniproxy /run/by-hand
	inside mkfifo /run/by-hand/go
	inside tee /usr/local/sbin/by-hand >"$work/by-hand" <<-END
		exec 3<&0
		cd /srv/sniproxy
		/usr/local/sbin/sniproxy <&3 3<&- & old=\$!
		read -r _ </run/by-hand/go
		$(readme '### By hand' 1)
		echo \$? >/run/by-hand/status
		wait
	END
	background_inside by-hand.log "$LISTEN" 0.0.0.0 443 \
		setpriv --reuid=sniproxy --regid=sniproxy --clear-groups sh /usr/local/sbin/by-hand
	await says_hello 127.0.0.1
}

upgrade_by_hand() {
	inside sh -c 'echo >/run/by-hand/go'
	await inside test -s /run/by-hand/status
	[ "$(inside cat /run/by-hand/status)" = 0 ]
}

@test "by hand: no new connection waits for one that is open" {
	start_by_hand
	upgrade_under_load upgrade_by_hand
}

@test "by hand: if the new copy ends at once, the old one goes on" {
	start_by_hand
	local process
	process=$(processes sniproxy)
	install_faulty
	run upgrade_by_hand
	[ "$status" != 0 ]
	[ "$(processes sniproxy)" = "$process" ]
	says_hello 127.0.0.1
}

@test "by hand: systemd-socket-activate, as README.md has it" {
	needs systemd-socket-activate
	start_machine
	mkdir -p "$work/clone/hosts/blog.example"
	cp "$SNIPROXY" "$work/clone/sniproxy"
	ln -s /srv/sniproxy/blog.example/tls-socket "$work/clone/hosts/blog.example/tls-socket"
	background_inside activate.log bash -eu -c "cd '$work/clone'; make() { :; }
		$(readme '# sniproxy' 4 | sed 's/:8443/:443/')"
	await says_hello 127.0.0.1
}

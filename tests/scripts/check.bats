#!/usr/bin/env bats
#
# sniproxy-check: its output, its exit status, and TLS. program_check.c compares its verdicts with
# the proxy's.
#
# SNIPROXY_CHECK and SNIPROXY_HOSTNAME are the programs. With HASHED=1 names are hashed; with
# PORTABLE=1 the programs are the portable core's.
# shellcheck disable=SC2030,SC2031,SC2154 # status, output and lines are set by run
# shellcheck disable=SC2001 # sed, for each line

setup() {
	work=$BATS_TEST_TMPDIR
	hosts=$work/hosts
	servers=
	mkdir "$hosts"
	put_program systemctl 'echo LoadState=not-found'
	cd "$hosts" || return
}

teardown() {
	local server
	for server in $servers; do
		kill "$server" 2>/dev/null || :
		wait "$server" 2>/dev/null || :
	done
}

# put_program NAME LINE...: a script that precedes all programs of this machine.
put_program() {
	mkdir -p "$work/bin"
	printf '%s\n' '#!/bin/sh' "${@:2}" >"$work/bin/$1"
	chmod 755 "$work/bin/$1"
	PATH=$work/bin:$PATH
}

# wait_for COMMAND...
wait_for() {
	local tries=200
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.05
	done
}

# server HOST [BACKLOG]: a server that listens, and never accepts.
server() {
	mkdir -p "$1"
	perl -MIO::Socket::UNIX -e '
		chdir $ARGV[0] or die;
		my $s = IO::Socket::UNIX->new(Local => "tls-socket", Listen => $ARGV[1]) or die;
		chmod 0666, "tls-socket";
		open my $ready, ">", ".ready";
		sleep' "$1" "${2:-64}" 3>&- &
	servers+=" $!"
	wait_for test -e "$1/.ready"
}

# server_of OWNER USER HOST: the same, run by USER in the directory of OWNER.
server_of() {
	mkdir "$3"
	chown "$1" "$3"
	chmod 777 "$3"
	setpriv --reuid="$2" --clear-groups perl -MIO::Socket::UNIX -e '
		chdir $ARGV[0] or die;
		my $s = IO::Socket::UNIX->new(Local => "tls-socket", Listen => 64) or die;
		chmod 0666, "tls-socket";
		open my $ready, ">", ".ready";
		sleep' "$3" 3>&- &
	servers+=" $!"
	wait_for test -e "$3/.ready"
}

# stale HOST
stale() {
	server "$1"
	kill "${servers##* }"
	wait "${servers##* }" || :
}

# certificate FILE NAME DAYS [OPENSSL-ARGUMENT]...
certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$3" \
		-subj "/CN=$2" -addext "subjectAltName=DNS:$2" -keyout "$work/$1.key" \
		-out "$work/$1.pem" "${@:4}" 2>/dev/null
}

# tls_server HOST CERTIFICATE
tls_server() {
	mkdir -p "$1"
	(cd "$1" && exec openssl s_server -unix tls-socket -cert "$work/$2.pem" \
		-key "$work/$2.key" -quiet </dev/null >/dev/null 2>&1 3>&-) &
	servers+=" $!"
	wait_for test -S "$1/tls-socket"
}

check() { # ARGUMENT...
	run "$SNIPROXY_CHECK" "$@"
	echo "$output"
}

# As another user, or in another root, the leak sanitizer cannot see its own process.
no_leak_check() {
	export ASAN_OPTIONS=detect_leaks=0
}

# says LINE: it is one of the printed lines, except for spaces before it.
says() {
	sed 's/^ *//' <<<"$output" | grep -qxF -e "$1"
}

@test "a host that is served" {
	server blog.example
	check
	[ "$status" = 0 ]
	[ "${lines[0]}" = "blog.example  served" ]
	[ "${lines[1]}" = "1 of 1 are well, in $hosts, for $(id -un)" ]
	: >blog.example/send-proxy-v1
	check "$hosts"
	[ "$status" = 0 ]
	says "blog.example  served, with a PROXY header"
}

@test "one that is not, why, and what to do" {
	mkdir blog.example
	check
	[ "$status" = 1 ]
	says "blog.example  NOT SERVED"
	says "no tls-socket"
	says "-> have its server listen at $hosts/blog.example/tls-socket"
	stale shop.example
	check
	says "tls-socket was left behind: no server has it any more"
	says '-> start its server; if that says "Address already in use", remove tls-socket before'
}

# link_to TARGET HOST...: makes hosts with such a tls-socket.
link_to() {
	local host
	for host in "${@:2}"; do
		mkdir "$host"
		ln -s "$1" "$host/tls-socket"
	done
}

# A remedy for tls-socket would apply to the symlink.
@test "what a symlink leads to is named by its own path" {
	stale .pool
	link_to ../.pool/tls-socket relative.example
	link_to "$hosts/.pool/tls-socket" absolute.example
	stale shop.example
	ln -s shop.example www.example
	check
	[ "$status" = 1 ]
	local reason=', which was left behind: no server has it any more'
	local remedy='-> start its server; if that says "Address already in use", remove'
	says "a symlink leads to $hosts/.pool/tls-socket$reason"
	[ "$(grep -cF -e "$remedy $hosts/.pool/tls-socket before" <<<"$output")" = 2 ]
	says "a symlink leads to $hosts/shop.example/tls-socket$reason"
	says "$remedy $hosts/shop.example/tls-socket before"
	says "$remedy tls-socket before"
	# The printed remedy.
	rm .pool/tls-socket .pool/.ready
	server .pool
	check --name relative.example --name absolute.example
	[ "$status" = 0 ]
}

@test "so is what is no socket, another socket, or closed" {
	mkdir .pool
	perl -MSocket=:all -e 'chdir ".pool" or die;
		sub make { socket my $s, PF_UNIX, $_[1], 0 or die; bind $s, pack_sockaddr_un($_[0]) or die; $s }
		my @sockets = (make("datagram", SOCK_DGRAM), make("bound", SOCK_STREAM));
		open my $ready, ">", ".ready"; sleep' 3>&- &
	servers+=" $!"
	wait_for test -e .pool/.ready
	link_to ../.pool directory.example
	link_to ../.pool/datagram datagram.example
	link_to ../.pool/bound bound.example
	check
	[ "$status" = 1 ]
	says "a symlink leads to $hosts/.pool, which is not a socket"
	says "-> correct the link, or have the server make its socket there"
	says "a symlink leads to $hosts/.pool/datagram, which is not a stream socket"
	says "a server has $hosts/.pool/bound, and does not listen"
}

@test "names that are never looked up, and how they should be called" {
	local long
	long=$(printf '%0255d' 0)
	mkdir Blog.Example bücher.example dot.example. a+b.example _a.example "$long" \
		xn--bcher-kva.example
	check
	[ "$status" = 1 ]
	says "never looked up: names are turned into lowercase"
	says "-> rename it to blog.example"
	says "never looked up: clients send such a name in Punycode"
	says "-> remove it: there is xn--bcher-kva.example already"
	says "never looked up: names with a dot at the end are rejected"
	says "-> rename it to dot.example"
	says "never looked up: not a host's name: character that no host name may have"
	says "never looked up: not a host's name: label begins with an underscore"
	says "never looked up: the name is longer than 254 bytes"
}

@test "a name that is looked up, and that no browser asks for" {
	server a.example
	ln -s a.example "$(printf 'a%.0s' {1..64}).example"
	check
	[ "$status" = 0 ]
	says "warning: browsers do not ask for it: label longer than 63 bytes"
}

@test "underscores inside labels" {
	server my_app.example
	check
	[ "$status" = 0 ]
	check --name My_App.example
	[ "$status" = 0 ]
}

@test "wildcards, as other servers have them" {
	mkdir '*.example.com' '*.bücher.example' 'www.*' _.Example.com _.example
	ln -s '*.example.com' '*.example'
	check
	[ "$status" = 1 ]
	[ "$(grep -cF 'never looked up: wildcards begin with an underscore' <<<"$output")" = 3 ]
	says "-> rename it to _.example.com"
	says "-> rename it to _.xn--bcher-kva.example"
	says "-> remove it: there is _.example already"
	says "never looked up: names are turned into lowercase"
	says "never looked up: not a host's name: character that no host name may have"
	check --name 'www.*'
	[ "$status" = 1 ]
	says "not a host's name: character that no host name may have"
}

@test "a default host, as other servers have it" {
	server default
	local only="only clients that ask for the name default come here: for a default host, rename it to _default"
	check
	[ "$status" = 0 ]
	says "default  served"
	says "warning: $only"
	check --name default
	says "warning: $only"
	check --json
	[[ $output == *"\"warning\": \"$only\""* ]]
	mkdir _ _default_ '*'
	check
	[ "$status" = 1 ]
	[ "$(grep -cF 'never looked up: the default host has another name' <<<"$output")" = 3 ]
	[ "$(grep -cF -e '-> rename it to _default' <<<"$output")" = 3 ]
	check --name _
	[ "$status" = 1 ]
	says "not a host's name: label begins with an underscore"
	says "-> the default host is called _default"
	server _default
	rm -r _ '*' default
	check
	[ "$status" = 1 ]
	says "_default   served"
	says "-> remove it: there is _default already"
	# No directory of that name: so nothing is to be renamed.
	check --name default
	[ "$status" = 0 ]
	says "default  served, by _default"
	[[ $output != *warning* ]]
}

# member KEY: the value that JSON has for KEY in the only entry.
member() {
	"$SNIPROXY_CHECK" --json "${@:2}" | sed -n "s/^      \"$1\": \(.*[^,]\),\{0,1\}\$/\1/p"
}

@test "special hosts" {
	server _.example.com
	server _default
	server _no-sni
	check
	[ "$status" = 0 ]
	says "_.example.com  served"
	says "_default       served"
	says "_no-sni        served"
	check --name '*.example.com' --name _no-sni --name _default
	[ "$status" = 0 ]
	says "*.example.com  served, by _.example.com"
	says "_no-sni        served"
	[ "$(member host --name '*.example.com')" = null ]
	[ "$(member directory --name '*.example.com')" = '"_.example.com"' ]
	rm -r _no-sni
	check --name _no-sni # which _default does not serve
	[ "$status" = 1 ]
	says "there is no directory _no-sni"
}

@test "--name: the special host that serves it" {
	server _.example.com
	server _default
	server own.example.com
	check --name A.example.com --name own.example.com --name a.b.example.com --name '*.example'
	[ "$status" = 0 ]
	says "A.example.com    served, by _.example.com"
	says "own.example.com  served"
	says "a.b.example.com  served, by _default"
	says "*.example        served, by _default"
	[ "$(member host --name A.example.com)" = '"a.example.com"' ]
	[ "$(member directory --name A.example.com)" = '"_.example.com"' ]
	[ "$(member directory --name own.example.com)" = '"own.example.com"' ]
	[ "$(member directory --name a+b)" = null ]
	: >_.example.com/send-proxy-v1
	check --name a.example.com
	says "a.example.com  served, by _.example.com, with a PROXY header"
}

@test "--name: what has a directory is not served by a special host" {
	server _default
	mkdir empty.example
	stale _.example.com
	check --name empty.example --name a.example.com
	[ "$status" = 1 ]
	says "empty.example  NOT SERVED"
	says "no tls-socket"
	says "a.example.com  NOT SERVED, by _.example.com"
	says "tls-socket was left behind: no server has it any more"
	rm -r _default _.example.com
	check --name a.example.com
	[ "$status" = 1 ]
	says "a.example.com  NOT SERVED"
	says "there is no directory a.example.com"
	[ "$(member directory --name a.example.com)" = '"a.example.com"' ]
}

# The proxy takes it for a directory that is missing.
@test "a symlink to nothing, which a special host replaces" {
	server _default
	ln -s nothing link.example
	ln -s nothing _.example
	check
	[ "$status" = 0 ]
	says "link.example  served, by _default"
	says "warning: link.example is a symlink to nothing that the proxy sees"
	says "_.example     served, by _default"
	says "warning: _.example is a symlink to nothing that the proxy sees"
	rm -r _default
	check --name link.example
	[ "$status" = 1 ]
	says "a symlink leads to $hosts/nothing, which is not there"
}

@test "a file that is probably meant to be send-proxy-v1 or send-proxy-v2" {
	local name
	for name in send-proxy send_proxy_v2 proxy_protocol; do
		server "h-${name//_/-}.example"
		: >"h-${name//_/-}.example/$name"
	done
	mkdir closed.example
	ln -s nothing closed.example/send-proxy
	check
	[ "$status" = 1 ]
	local but='has no effect: for a PROXY header, the file is called send-proxy-v1 or send-proxy-v2'
	for name in send-proxy send_proxy_v2 proxy_protocol; do
		says "warning: $name $but"
	done
	says "h-send-proxy.example      served"
	[ "$(grep -cF 'warning: send-proxy has no effect' <<<"$output")" = 2 ]
	mv h-send-proxy.example/send-proxy{,-v1}
	mv h-send-proxy-v2.example/send{_proxy_,-proxy-}v2
	check --name h-send-proxy.example --name h-send-proxy-v2.example
	says "h-send-proxy.example     served, with a PROXY header"
	says "h-send-proxy-v2.example  served, with a PROXY header of version 2"
	: >h-send-proxy.example/send-proxy
	: >h-send-proxy-v2.example/send-proxy
	check --name h-send-proxy.example --name h-send-proxy-v2.example
	[[ $output != *warning* ]]
}

@test "both versions of the PROXY header" {
	server blog.example
	: >blog.example/send-proxy-v1
	[ "$(member send_proxy_v1)$(member send_proxy_v2)" = truefalse ]
	: >blog.example/send-proxy-v2
	check
	[ "$status" = 0 ]
	says "blog.example  served, with a PROXY header of version 2"
	says "warning: send-proxy-v1 has no effect: there is send-proxy-v2"
	[ "$(member send_proxy_v1)$(member send_proxy_v2)" = falsetrue ]
}

@test "several warnings" {
	server blog.example
	ln -s blog.example default
	: >blog.example/send-proxy
	check --name default
	says "warning: only clients that ask for the name default come here: for a default host, rename it to _default; send-proxy has no effect: for a PROXY header, the file is called send-proxy-v1 or send-proxy-v2"
}

# acme_socket HOST [OPTION]...: makes it acme-tls-socket.
acme_socket() {
	server ".acme-$1" "${@:2}"
	mv ".acme-$1/tls-socket" "$1/acme-tls-socket"
}

@test "acme-tls-socket" {
	server blog.example
	[ "$(member acme_tls_socket)" = null ]
	acme_socket blog.example
	check
	[ "$status" = 0 ]
	[[ $output != *warning* ]]
	[ "$(member acme_tls_socket)" = true ]
	kill "${servers##* }"
	wait "${servers##* }" || :
	check
	[ "$status" = 0 ]
	says "blog.example  served"
	says "warning: ACME clients are rejected: acme-tls-socket was left behind: no server has it any more"
	[ "$(member acme_tls_socket)" = false ]
	ln -sf ../blog.example/acme-none blog.example/acme-tls-socket
	check
	[[ $output != *warning* ]]
	[ "$(member acme_tls_socket)" = null ]
	rm blog.example/acme-tls-socket
	mkdir blog.example/acme-tls-socket
	check
	says "warning: ACME clients are rejected: acme-tls-socket is not a socket"
}

@test "acme-tls-socket, without tls-socket, and of a special host" {
	mkdir blog.example _default
	acme_socket blog.example
	acme_socket _default
	check
	[ "$status" = 1 ]
	says "no tls-socket"
	[ "$(member acme_tls_socket --name blog.example)" = true ]
	[ "$(member acme_tls_socket --name a.example)" = true ]
	[ "$(member acme_tls_socket --name a+b)" = null ]
}

@test "acme-tls-socket gets no PROXY header" {
	server blog.example
	: >blog.example/send-proxy-v2
	perl -MIO::Socket::UNIX -e '
		my $l = IO::Socket::UNIX->new(Local => "blog.example/acme-tls-socket", Listen => 5) or die;
		my $n = sysread $l->accept, my $bytes, 1000;
		open my $got, ">", ".got"; print $got "$n"' 3>&- &
	servers+=" $!"
	wait_for test -S blog.example/acme-tls-socket
	check
	[ "$status" = 0 ]
	wait_for test -s .got
	[ "$(<.got)" = 0 ]
}

@test "a file that is probably meant to be acme-tls-socket" {
	server blog.example
	: >blog.example/acme_tls_socket
	check
	[ "$status" = 0 ]
	says "warning: acme_tls_socket has no effect: for an ACME client, the socket is called acme-tls-socket"
	: >blog.example/acme-tls-socket
	check
	[[ $output != *acme_tls_socket* ]]
}

@test "a socket whose path is too long to be bound" {
	mkdir "$(printf '%089d' 0).example"
	check
	[ "$status" = 1 ]
	[[ $output == *"no server can bind it by its path: that has "*" bytes, and 107 is the most"* ]]
	says "-> make the directory $hosts/.sockets, have the server listen at a short name in it, and make tls-socket a symlink to that"
}

@test "what it advises then is served" {
	local name
	name=$(printf '%089d' 0).example
	readme '## Names of more than 82 bytes' 1 | name=$name bash -eu
	server .sockets
	mv .sockets/tls-socket .sockets/short
	check
	[ "$status" = 0 ]
}

@test "a symlink that leads to a path that is too long to be bound" {
	local name
	name=$(printf '%089d' 0).example
	mkdir "$name"
	ln -s "$name" www.example
	check --name www.example
	[ "$status" = 1 ]
	[[ $output == *"a symlink leads to $hosts/$name/tls-socket, which is not there, and no server can bind it by its path: that has "* ]]
}

@test "a name that is too long for the portable core" {
	server a.example
	ln -s a.example "$(printf '%089d' 0).example"
	check
	[ "$status" = 0 ]
	ln -s a.example "$(printf '%090d' 0).example"
	check
	if [ -z "${PORTABLE-}" ]; then
		[ "$status" = 0 ]
	else
		[ "$status" = 1 ]
		says "tls-socket (by its path, because threads share one working directory): File name too long"
		says "-> use a name of 97 bytes at most, or a build without PORTABLE=1"
	fi
}

@test "what is no host can be hidden" {
	server blog.example
	mkdir .releases lost+found
	: >.note
	check
	[ "$status" = 0 ]
	[ "${#lines[@]}" -le 3 ]
	: >README
	check
	[ "$status" = 1 ]
	says "README        NOT SERVED"
	says "-> if it is no host, put a dot before its name"
}

@test "no host at all" {
	check
	[ "$status" = 0 ]
	says "no hosts in $hosts, for $(id -un)"
}

@test "hosts by name, as people write them" {
	server "$("$SNIPROXY_HOSTNAME" bücher.example)"
	check --name Bücher.Example. --name none.example --name a..b
	[ "$status" = 1 ]
	says "Bücher.Example.  served"
	says "there is no directory none.example"
	says "not a host's name: empty label"
	check --name Bücher.Example.
	[ "$status" = 0 ]
}

@test "names are safe to show, in the table and in JSON" {
	mkdir $'a\e[31mb\nc\xff' $'d\xe2\x80\xaee'
	ln -s $'no\e[2Jthing' link.example
	check
	[[ $output == *'a\x1b[31mb\x0ac\xff'*'d\xe2\x80\xaee'*'no\x1b[2Jthing'* ]]
	[[ $output != *$'\e'* ]]
	check --json
	[[ $output != *$'\e'* ]]
	[[ $output == *'"name": "a\\x1b[31mb\\x0ac\\xff"'* ]]
}

# on_terminal VARIABLE=VALUE... : prints its output on a terminal.
on_terminal() {
	env "$@" script -qec "'$SNIPROXY_CHECK'" /dev/null </dev/null
}

@test "colour, only on a terminal, and where NO_COLOR is not set" {
	server blog.example
	check
	[[ $output != *$'\e'* ]]
	[[ $(on_terminal -u NO_COLOR TERM=xterm) == *$'\e[32mserved\e[0m'* ]]
	[[ $(on_terminal -u NO_COLOR TERM=dumb) != *$'\e'* ]]
	[[ $(on_terminal NO_COLOR=1 TERM=xterm) != *$'\e'* ]]
}

@test "--quiet leaves out what is well" {
	server blog.example
	check --quiet
	[ "$status" = 0 ]
	[ -z "$output" ]
	mkdir shop.example
	check --quiet
	[ "$status" = 1 ]
	[[ $output != *"blog.example "* ]]
	says "shop.example  NOT SERVED"
}

@test "--json" {
	stale shop.example
	server blog.example
	check --json
	[ "$status" = 1 ]
	[[ $output == *'"state": "served"'*'"alert": null'*'"state": "stale"'* ]]
	says '"alert": 112,'
	says '"count": 2,'
}

@test "--help, --version, and what is not understood" {
	check --help
	[ "$status" = 0 ]
	[[ ${lines[0]} == "usage: sniproxy-check "* ]]
	check --version
	[[ $output =~ ^sniproxy-check\ [0-9]+\.[0-9] ]]
	local arguments
	for arguments in --none "a b" --user "--timeout 0" "--timeout x" "--deadline 9999" \
		"--user no-such-user" "$work/none" "--unit x --user root"; do
		# shellcheck disable=SC2086 # words
		check $arguments
		[ "$status" = 2 ]
	done
}

@test "what cannot be printed is an error" {
	local ended=0
	"$SNIPROXY_CHECK" >/dev/full 2>"$work/error" || ended=$?
	[ "$ended" = 2 ]
	[ "$(cat "$work/error")" = "sniproxy-check: stdout: No space left on device" ]
	ended=0
	"$SNIPROXY_CHECK" --json >/dev/full 2>"$work/error" || ended=$?
	[ "$ended" = 2 ]
}

# --- Rights ---

@test "--user: what another user may not" {
	[ "$(id -u)" = 0 ] || skip "needs root, to become another user"
	no_leak_check
	server closed.example
	server socket.example
	chmod 700 closed.example
	chmod 600 socket.example/tls-socket
	check
	[ "$status" = 0 ]
	[[ $output == *"as root: the proxy's rights are not known"* ]]
	check --user nobody
	[ "$status" = 1 ]
	says "the user nobody may not search $hosts/closed.example"
	says "the user nobody may not write to tls-socket"
	ln -s socket.example link.example
	check --user nobody --name link.example
	says "link.example  NOT SERVED"
	says "the user nobody may not write to $hosts/socket.example/tls-socket"
	[[ $output != *"not known"* ]]
	acme_socket socket.example
	chmod 600 socket.example/acme-tls-socket
	check --user nobody --name socket.example --name closed.example
	says "warning: ACME clients are rejected: the user nobody may not write to acme-tls-socket"
	[ "$(grep -c ACME <<<"$output")" = 1 ]
}

@test "--user: its groups count" {
	[ "$(id -u)" = 0 ] || skip "needs root, to become another user"
	no_leak_check
	server blog.example
	chgrp "$(id -g nobody)" blog.example
	chmod 710 blog.example
	check --user nobody
	[ "$status" = 0 ]
	says "blog.example  served"
}

@test "who is not root is told what cannot be found out" {
	[ "$(id -u)" = 0 ] || skip "needs root, to become another user"
	no_leak_check
	run setpriv --reuid=65534 --regid=65534 --clear-groups "$SNIPROXY_CHECK" --user root
	echo "$output"
	[[ $output == *"not root: your own rights are known, not the proxy's"* ]]
	run setpriv --reuid=65534 --regid=65534 --clear-groups "$SNIPROXY_CHECK" --root /
	[[ $output == *"not root: links out of the proxy's root are not found"* ]]
}

# For users who have no names.
make_hosts_of_users() {
	server_of 70001 70001 own.example
	server_of 70001 70002 other.example
	server_of 70001 0 roots.example
	ln -s own.example link.example
	chown -h 70002 link.example
}

@test "a host that is not all of one user, where several may write" {
	[ "$(id -u)" = 0 ] || skip "needs root, to become others"
	[ -z "${PORTABLE-}" ] || skip "the portable core serves none of them"
	no_leak_check
	make_hosts_of_users
	check --user nobody
	[ "$status" = 0 ]
	local mode
	for mode in 1777 777 775; do
		chmod "$mode" .
		check --user nobody
		[ "$status" = 1 ]
		says "own.example    served"
		says "roots.example  served"
		says "other.example  NOT SERVED"
		says "user 70002 listens in the host directory of user 70001"
		says "-> have its server run as the owner of the host directory, or give that to the server's user: chown"
		says "link.example   NOT SERVED"
		says "a symlink of user 70002 to a directory of user 70001"
		says "-> let the link belong to the owner of the directory that it leads to, or to root: chown -h"
	done
	check --json
	[ "$(grep -c '"state": "not-owned"' <<<"$output")" = 2 ]
	chown 70002 other.example
	chown -h 70001 link.example
	check --user nobody
	[ "$status" = 0 ]
	chown -h 0 link.example
	check --user nobody
	[ "$status" = 0 ]
}

@test "a special host of a user who may not serve others' names" {
	[ "$(id -u)" = 0 ] || skip "needs root, to become others"
	[ -z "${PORTABLE-}" ] || skip "the portable core serves none of them"
	no_leak_check
	server_of 70001 70001 _.example.com
	server_of 70001 70001 _no-sni
	server_of 70002 70002 .target
	ln -s .target _.example
	chown -h 70002 _.example
	check --user nobody
	[ "$status" = 0 ]
	chown 70009 .
	chmod 1777 .
	check --user nobody
	[ "$status" = 1 ]
	says "_.example.com  NOT SERVED"
	local why="who may not serve others' names; whoever receives a name's connections can have a certificate for it"
	[ "$(grep -cF "not served: it belongs to user 70001, $why" <<<"$output")" = 2 ]
	says "not served: it belongs to user 70002, $why"
	[ "$(grep -cF -e '-> give it to root or to the owner of the hosts directory: chown' <<<"$output")" = 2 ]
	says "-> give it, and what it leads to, to root or to the owner of the hosts directory: chown -h"
	[ "$(member state --user nobody --name _no-sni)" = '"not-owned"' ]
	check --user nobody --name a.example.com
	[ "$status" = 1 ]
	says "there is no directory a.example.com"
	says "warning: _.example.com is not served: it belongs to user 70001, who may not serve others' names"
	server_of 70009 70009 _default
	check --user nobody --name a.example.com
	[ "$status" = 0 ]
	says "a.example.com  served, by _default"
	says "warning: _.example.com is not served: it belongs to user 70001, who may not serve others' names"
	# What it advises.
	chown 0 _no-sni
	check --user nobody --name _no-sni
	[ "$status" = 1 ]
	says "user 70001 listens in the host directory of user 0"
	says "-> have its server run as the owner of the host directory"
	rm -r _no-sni
	server_of 70009 70009 _no-sni
	check --user nobody --name _no-sni
	[ "$status" = 0 ]
}

@test "where several may write, the portable core serves none" {
	[ -n "${PORTABLE-}" ] || skip "is about PORTABLE=1"
	server blog.example
	chmod 775 .
	check
	[ "$status" = 1 ]
	says "the hosts directory is writable by other users"
	says "-> take that right from them: chmod go-w; a build with PORTABLE=1 cannot tell whose a host is"
	chmod go-w .
	check
	[ "$status" = 0 ]
}

# --- The root directory ---

# put_systemctl BIND: a systemctl that knows sniproxy.service.
put_systemctl() {
	mkdir -p "$work/root"
	printf '%s\n' LoadState=loaded User=nobody "WorkingDirectory=$hosts" \
		"RootDirectory=$work/root" BindPaths= \
		"BindReadOnlyPaths=/bin/sh:/bin/sh:rbind $hosts:$hosts:rbind $1" >"$work/properties"
	# shellcheck disable=SC2016 # for that shell
	put_program systemctl 'case "$*" in' \
		"'show '*' -- sniproxy.service') cat '$work/properties' ;;" \
		"'show '*' -- '*.socket) cat '$work/'\"\$4\" ;;" \
		'*) echo LoadState=not-found ;;' 'esac'
}

@test "--unit: the root that systemd makes, and links that lead out of it" {
	[ "$(id -u)" = 0 ] || skip "needs root, to mount"
	no_leak_check
	unshare --mount true || skip "nothing can be mounted here"
	server blog.example
	mkdir "$work/away" {out,rel}.example
	(cd "$work/away" && server away)
	ln -s ../blog.example/tls-socket rel.example
	ln -s "$work/away/away/tls-socket" out.example
	server .sockets
	link_to "$hosts/.sockets/tls-socket" in.example
	put_systemctl "-$work/none:$work/none:rbind"
	check --unit sniproxy.service
	[ "$status" = 1 ]
	says "in.example    served"
	says "rel.example   served"
	says "a symlink leads to $work/away/away/tls-socket, out of what the proxy sees"
	put_systemctl "-$work/away"
	check --unit sniproxy.service
	[ "$status" = 0 ]
	says "4 of 4 are well, in $hosts, for nobody"
	check --unit another.service
	[ "$status" = 2 ]
	[ -z "$(ls "$work/root")" ]
}

# Root makes the unit's root directory. Other users do without, and lack its name.
needs_unit() {
	no_leak_check
	[ "$(id -u)" != 0 ] || unshare --mount true || skip "nothing can be mounted here"
}

@test "without arguments: the hosts directory of sniproxy.service, if that is installed" {
	needs_unit
	server blog.example
	put_systemctl ""
	mkdir "$work/elsewhere"
	cd "$work/elsewhere"
	local user=nobody
	[ "$(id -u)" = 0 ] || user=$(id -un) || :
	check
	[ "$status" = 0 ]
	says "1 of 1 are well, in $hosts, for $user"
	check --json --name blog.example
	[ "$status" = 0 ]
	says "\"directory\": \"$hosts\","
	check .
	says "no hosts in $work/elsewhere, for $(id -un)"
	check --user "$(id -un)"
	says "no hosts in $work/elsewhere, for $(id -un)"
	sed -i 's/^LoadState=.*/LoadState=bad-setting/' "$work/properties"
	check
	[ "$status" = 2 ]
	says "sniproxy-check: systemctl: sniproxy.service is not loaded: bad-setting"
}

@test "without arguments: the working directory, if it is not, or nothing tells" {
	put_systemctl ""
	sed -i 's/^LoadState=.*/LoadState=masked/' "$work/properties"
	check
	[ "$status" = 0 ]
	says "no hosts in $hosts, for $(id -un)"
	put_program systemctl 'echo "System has not been booted" >&2' 'exit 1'
	check
	[ "$status" = 0 ]
	says "no hosts in $hosts, for $(id -un)"
	[[ $output != *booted* ]]
	rm "$work/bin/systemctl"
	run env PATH="$work/bin" "$SNIPROXY_CHECK"
	echo "$output"
	[ "$status" = 0 ]
	says "no hosts in $hosts, for $(id -un)"
}

# put_socket UNIT STATE LISTEN...: makes that systemctl know a socket unit.
put_socket() {
	printf 'Listen=%s\n' "${@:3}" >"$work/$1"
	echo "ActiveState=$2" >>"$work/$1"
}

@test "--unit: sockets that the program does not take" {
	needs_unit
	server blog.example
	put_systemctl ""
	echo 'TriggeredBy=sniproxy.timer sniproxy.socket other.socket' >>"$work/properties"
	put_socket sniproxy.socket active '[::]:443 (Stream)'
	put_socket other.socket inactive '192.0.2.1:8443 (Stream)'
	check
	[ "$status" = 0 ]
	check --json
	[[ $output == *'"unit": {'*'"name": "sniproxy.service",'*'"reason": null,'* ]]
	put_socket other.socket active '192.0.2.1:8443 (Stream)'
	check
	[ "$status" = 1 ]
	says "sniproxy.service  DOES NOT START"
	says "it takes one socket, and gets 2: [::]:443 (sniproxy.socket), 192.0.2.1:8443 (other.socket)"
	says "-> leave one ListenStream=, with an empty one before it in a drop-in; for each other address, use sniproxy@ADDRESS.socket"
	put_socket sniproxy.socket inactive '[::]:443 (Stream)' '[::]:8443 (Stream)'
	put_socket other.socket inactive '192.0.2.1:8443 (Stream)'
	check --quiet
	[ "$status" = 1 ]
	says "it takes one socket, and gets 2: [::]:443 (sniproxy.socket), [::]:8443 (sniproxy.socket)"
	check --json
	[ "$status" = 1 ]
	[[ $output == *'"reason": "it takes one socket, and gets 2: '* ]]
	put_socket sniproxy.socket failed '/run/tls-socket (Stream)'
	check
	[ "$status" = 1 ]
	says "it takes a TCP socket, and gets /run/tls-socket (Stream)"
	says "-> write a port, or an address and a port, behind ListenStream="
	put_socket sniproxy.socket failed '[::]:443 (Datagram)'
	check
	says "it takes a TCP socket, and gets [::]:443 (Datagram)"
}

@test "--root: a root directory that is there" {
	[ "$(id -u)" = 0 ] || skip "needs root, for chroot"
	no_leak_check
	server blog.example
	mkdir out.example
	ln -s /run/none/at/all out.example/tls-socket
	ln -s /hosts/blog.example www.example
	check --root "$work" /hosts
	[ "$status" = 1 ]
	says "www.example   served"
	says "a symlink leads to /run/none/at/all, out of what the proxy sees"
}

# readme HEADING [N]: a block of a document, for the hosts directory of this test.
readme() {
	"$BATS_TEST_DIRNAME/readme.sh" "$@" | sed "s|/srv/sniproxy|$hosts|"
}

@test "docs/troubleshooting.md shows what it prints" {
	stale shop.example
	server blog.example
	server wiki.example
	: >wiki.example/send-proxy-v1
	check
	diff <(sed "s/ for $(id -un)$/ for sniproxy/" <<<"$output" | grep -v '^sniproxy-check: ') \
		<(readme '## Check the hosts' 2)
}

# --- Time ---

@test "a full backlog, and a server that is silent, do not hang it" {
	server full.example 1
	server silent.example
	perl -MSocket=:all -e 'for (1 .. 9) {
		socket my $s, PF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0 or die;
		connect $s, pack_sockaddr_un("full.example/tls-socket") or last; push @s, $s }
		open my $ready, ">", ".full"; sleep' 3>&- &
	servers+=" $!"
	wait_for test -e .full
	SECONDS=0
	check --connect --timeout 0.3
	[ "$SECONDS" -le 10 ]
	[ "$status" = 1 ]
	says "the backlog of tls-socket is full: it did not accept in time"
	says "TLS: no answer in time"
	says "-> if its server awaits a PROXY header, make the file send-proxy-v1 or send-proxy-v2; its log says more"
}

@test "ten thousand hosts" {
	server blog.example 4096
	perl -e 'for (1 .. 10000) { symlink "blog.example", "$_.example" or die }'
	# Nothing accepts, so the backlog fills up.
	SECONDS=0
	check --quiet --timeout 0.01 --deadline 30
	[ "$SECONDS" -le 90 ]
	[[ ${lines[-1]} == *" of 10001 are well, in $hosts"* ||
		${lines[-2]} == *" of 10001 are well, in $hosts"* ]]
}

@test "--deadline: what was not looked at is said" {
	server full.example 1
	local i
	for i in {1..200}; do ln -s full.example "$i.example"; done
	SECONDS=0
	check --timeout 1 --deadline 2
	[ "$SECONDS" -le 20 ]
	[ "$status" = 1 ]
	says "not checked: the time is over"
}

# --- TLS ---

@test "--connect shows the certificate" {
	certificate good blog.example 90
	tls_server blog.example good
	check --connect
	[ "$status" = 0 ]
	says "blog.example  served"
	says "TLSv1.3, until $(date -u -d "$(openssl x509 -noout -enddate -in "$work/good.pem" |
		cut -d = -f 2)" +%F), for blog.example"
	check --connect --json
	[[ $output == *'"names": ['*'"blog.example"'*'"has_name": true'*'"expires_soon": false'* ]]
}

# dated_certificate FILE NAME BEGIN END: a certificate with these dates, as date(1) takes them.
dated_certificate() {
	local request="$work/request.pem"
	mkdir -p "$work/ca"
	: >"$work/ca/index.txt"
	printf '%s\n' '[ca]' 'default_ca = a' '[a]' "database = $work/ca/index.txt" \
		"new_certs_dir = $work/ca" 'default_md = sha256' 'policy = p' 'rand_serial = yes' \
		'x509_extensions = x' '[p]' 'commonName = supplied' '[x]' "subjectAltName = DNS:$2" \
		>"$work/ca/config"
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
		-keyout "$work/$1.key" -out "$request" 2>/dev/null
	openssl ca -batch -selfsign -config "$work/ca/config" -keyfile "$work/$1.key" \
		-in "$request" -out "$work/$1.pem" -notext \
		-startdate "$(date -u -d "$3" +%Y%m%d%H%M%SZ)" \
		-enddate "$(date -u -d "$4" +%Y%m%d%H%M%SZ)" 2>/dev/null
}

@test "--connect warns of a certificate that expires soon" {
	dated_certificate soon soon.example '80 days ago' '10 days'
	tls_server soon.example soon
	check --connect
	[ "$status" = 0 ]
	says "warning: its certificate expires soon, on $(date -u -d '10 days' +%F)"
	check --connect --quiet
	[ "$status" = 0 ]
	says "soon.example  served"
}

@test "--connect: one that lives for days is not old after hours" {
	dated_certificate short short.example '1 day ago' '5 days'
	tls_server short.example short
	check --connect
	[ "$status" = 0 ]
	[[ $output != *warning* ]]
}

@test "--connect: one that has expired, and one that is not valid yet" {
	dated_certificate old old.example '80 days ago' '1 day ago'
	dated_certificate new new.example '2 days' '80 days'
	tls_server old.example old
	tls_server new.example new
	check --connect
	[ "$status" = 1 ]
	says "its certificate has expired, on $(date -u -d '1 day ago' +%F)"
	says "its certificate is not valid before $(date -u -d '2 days' +%F)"
}

@test "--connect: a certificate for another name" {
	certificate good blog.example 90
	tls_server shop.example good
	check --connect
	[ "$status" = 1 ]
	says "shop.example  served"
	says "its certificate is not for this name"
	says "-> get one for shop.example, if this is the right server"
}

@test "--connect: special hosts" {
	certificate good '*.example.com' 90
	tls_server _.example.com good
	tls_server _default good
	check --connect
	[ "$status" = 0 ]
	[ "$(grep -cF 'warning: no handshake: its name is not known; --name tells it' <<<"$output")" = 2 ]
	check --connect --name a.example.com
	[ "$status" = 0 ]
	says "a.example.com  served, by _.example.com"
	[[ $output == *", for *.example.com"* ]]
	check --connect --name a.example
	[ "$status" = 1 ]
	says "its certificate is not for this name"
	says "-> get one for a.example, if this is the right server"
}

@test "--connect: a server that speaks no TLS" {
	mkdir blog.example
	perl -MIO::Socket::UNIX -e 'my $l = IO::Socket::UNIX->new(
		Local => "blog.example/tls-socket", Listen => 5) or die;
		while (my $c = $l->accept) { syswrite $c, "HTTP/1.1 400 Bad Request\r\n\r\n"; sysread $c, my $x, 1000; }' 3>&- &
	servers+=" $!"
	wait_for test -S blog.example/tls-socket
	check --connect
	[ "$status" = 1 ]
	says "TLS: wrong version number"
	says "-> its server speaks no TLS there, or refuses the name: its log says more"
}

# nginx, which expects a PROXY header.
start_nginx() {
	cat >"$work/nginx.conf" <<-END
		daemon off;
		error_log $work/nginx.log info;
		pid $work/nginx.pid;
		events {}
		http {
			access_log off;
			client_body_temp_path $work/body;
			proxy_temp_path $work/proxy;
			fastcgi_temp_path $work/fastcgi;
			uwsgi_temp_path $work/uwsgi;
			scgi_temp_path $work/scgi;
			ssl_certificate $work/good.pem;
			ssl_certificate_key $work/good.key;
			server { listen unix:blog.example/tls-socket ssl proxy_protocol; }
		}
	END
	mkdir blog.example
	nginx -p "$hosts/" -c "$work/nginx.conf" -e "$work/nginx.log" 3>&- &
	servers+=" $!"
	wait_for test -s "$work/nginx.pid"
}

@test "--connect sends the PROXY header that the backend awaits" {
	certificate good blog.example 90
	start_nginx
	: >blog.example/send-proxy-v1
	# Without --connect too, or the backend would complain that the header is missing.
	check
	[ "$status" = 0 ]
	wait_for grep -q 'PROXY protocol header\|closed connection\|SSL_do_handshake' "$work/nginx.log"
	run grep 'broken header' "$work/nginx.log"
	[ "$status" = 1 ]
	check --connect
	[ "$status" = 0 ]
	says "blog.example  served, with a PROXY header"
	: >blog.example/send-proxy-v2
	check --connect
	[ "$status" = 0 ]
	says "blog.example  served, with a PROXY header of version 2"
	rm blog.example/send-proxy-v[12]
	check --connect
	[ "$status" = 1 ]
	[[ $output == *"make the file send-proxy-v1"* ]]
}

@test "--connect: a header that the backend does not await" {
	certificate good blog.example 90
	tls_server blog.example good
	: >blog.example/send-proxy-v1
	check --connect
	[ "$status" = 1 ]
	[[ $output == *"have its server await the PROXY header, or remove send-proxy-v1"* ]]
	: >blog.example/send-proxy-v2
	check --connect
	[[ $output == *"have its server await the PROXY header, or remove send-proxy-v2"* ]]
}

@test "the PROXY header of version 2 has the name, and another ID each time" {
	mkdir _.example
	: >_.example/send-proxy-v2
	perl -MIO::Socket::UNIX -e '
		my $l = IO::Socket::UNIX->new(Local => "_.example/tls-socket", Listen => 5) or die;
		for (1 .. 3) {
			sysread $l->accept, my $bytes, 1000;
			my ($extension, $id) = $bytes =~ /^\r\n\r\n\0\r\nQUIT\n\x21\x11.{14}(.*)\x05\0\x10(.{16})\x03\0\x04.{4}$/s;
			print defined $id && !$seen{$id}++ ? "$extension\n" : "?" }
	' >.got 3>&- &
	servers+=" $!"
	wait_for test -S _.example/tls-socket
	check --name a.example --name b.example
	[ "$status" = 0 ]
	check
	[ "$status" = 0 ]
	wait "${servers##* }"
	# The first two are checked at the same time, in any order; the last has no name.
	[ "$(tr -d '\0' <.got | sort)" = $'\n\x02\ta.example\n\x02\tb.example' ]
}

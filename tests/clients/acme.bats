#!/usr/bin/env bats
# The ACME client of docs/troubleshooting.md, set up with its lines: it gets certificates from a test
# authority, which reaches it through the proxy. The proxy, the client and the authority are in a
# network of their own, with a /srv/sniproxy and an /etc/hosts of their own.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test. `make deps-clients` installs
# the client and the authority.
# shellcheck disable=SC2154 # status and output are set by run

load ../scripts/tls_helper

hosts=/srv/sniproxy
scripts=$BATS_TEST_DIRNAME/../scripts

# The block N of the client's section.
block() { # N
	"$scripts/readme.sh" '### lego' "$1"
}

# --- the network ---

# Runs in the new namespaces, until it is killed.
furnish_network() {
	ip link set lo up
	mount -t tmpfs tmpfs /srv
	mkdir /srv/sniproxy
	mount --bind "$work/hosts" /srv/sniproxy
	mount --bind "$work/etc-hosts" /etc/hosts
	touch "$work/furnished"
	exec sleep 1000
}

start_network() {
	local unshare=(unshare --mount --net) network
	[ "$(id -u)" = 0 ] || unshare+=(--map-root-user)
	"${unshare[@]}" true 2>/dev/null || skip "namespaces are not available here"
	export -f furnish_network
	background network.log "${unshare[@]}" bash -eu -c furnish_network
	await test -e "$work/furnished"
	network=$(tail -n 1 "$work/servers")
	enter="nsenter --target $network --mount --net"
	[ "$(id -u)" = 0 ] || enter+=" --user --preserve-credentials"
	export enter
}

inside() { # COMMAND...
	# shellcheck disable=SC2086 # words of a command
	$enter -- "$@"
}

background_inside() { # LOG COMMAND...
	# shellcheck disable=SC2086 # words of a command
	background "$1" $enter -- "${@:2}"
}

# --- the servers ---

setup_file() {
	local name
	export work=$BATS_FILE_TMPDIR no_proxy='*' LEGO_CA_CERTIFICATES=$BATS_FILE_TMPDIR/ca.pem
	for name in lego pebble ip; do
		command -v "$name" >/dev/null || skip "$name is not installed"
	done
	require_programs
	mkdir -p "$work/hosts/.acme" "$work/bin"
	printf '127.0.0.1 %s\n' {blog,default,own}.example >"$work/etc-hosts"
	make_authority
	start_network
	start_servers
	write_commands
}

start_servers() {
	cat >"$work/nginx.conf" <<-END
		daemon off;
		master_process off;
		pid nginx.pid;
		error_log stderr info;
		events { }
		http {
		access_log off;
		default_type text/plain;
		$(nginx_paths)
	END
	nginx_host blog.example proxy_protocol
	touch "$work/$(host_directory blog.example)/send-proxy-v1"
	nginx_host own.example
	echo '}' >>"$work/nginx.conf"
	background nginx.log nginx -p "$work" -c "$work/nginx.conf" -e stderr
	await test -s "$work/nginx.pid"

	# shellcheck disable=SC2016 # for the other shell
	background_inside proxy.log sh -c 'cd "$0" && exec "$@"' $hosts "$LISTEN" 127.0.0.1 443 "$SNIPROXY"
	background_inside bridge.log systemd-socket-activate -l $hosts/.acme/tls-socket \
		/lib/systemd/systemd-socket-proxyd "$(block 1 | sed -n 's/^Environment=SERVER=//p')"
	bridge=$(tail -n 1 "$work/servers")
	export bridge
	make_certificate pebble IP:127.0.0.1
	background_inside pebble.log "$scripts/authority.sh" "$work/pebble.pem" "$work/pebble.key"
	await answers_inside 443
	await answers_inside 14000
}

answers_inside() { # PORT
	[ -n "$(inside ss -Hltn "sport = :$1")" ]
}

# What the document's lines call: lego asks the test authority; systemctl only notes its arguments.
write_commands() {
	cat >"$work/bin/lego" <<-END
		#!/bin/sh
		exec $(command -v lego) --server https://127.0.0.1:14000/dir "\$@"
	END
	cat >"$work/bin/systemctl" <<-END
		#!/bin/sh
		echo "\$*" >>"$work/systemctl"
	END
	chmod +x "$work/bin"/*
}

setup() {
	rm -rf "$work/lego" "$work/systemctl" "$work"/hosts/*/acme-tls-socket
}

teardown() {
	kill -CONT "$bridge"
}

teardown_file() {
	[ -z "${BATS_TEST_COMPLETED-x}" ] || show_logs
	stop_all
}

# --- the client ---

# Runs lines from standard input as the document has them, for NAME.
follow() { # NAME
	sed "s|/etc/lego|$work/lego|g; s|/usr/bin/lego|lego|; s/you@blog\.example/you@host.example/
		s/\<blog\.example/$1/g; s/%i/$1/" >"$work/lines"
	inside env "PATH=$work/bin:$PATH" timeout 60 bash -eu "$work/lines" </dev/null
}

# As for a host with a directory, or without the symlink in it.
set_up() { # NAME
	block 3 | follow "$1"
}

get_certificate() { # NAME
	block 3 | grep '^lego ' | follow "$1"
}

# The authority's certificate for NAME, with its key.
has_certificate() { # NAME
	local file=$work/lego/certificates/$1
	inside curl -sS --cacert "$work/ca.pem" https://127.0.0.1:15000/roots/0 >"$work/root.pem"
	openssl verify -CAfile "$work/root.pem" -untrusted "$file.issuer.crt" -verify_hostname "$1" \
		"$file.crt"
	[ "$(openssl x509 -in "$file.crt" -noout -pubkey)" = "$(openssl pkey -in "$file.key" -pubout)" ]
}

# The host's own server answers.
is_served() { # NAME
	inside curl -sS --max-time 30 --cacert "$work/ca.pem" "https://$1/" >"$work/out"
	out_has "sni=$1"
}

challenge_waits() {
	[ "$(inside ss -Hlx "src $hosts/.acme/tls-socket" | awk '{ print $3 }')" -gt 0 ]
}

@test "a host's certificate; its server goes on serving, and the challenge has no PROXY header" {
	kill -STOP "$bridge"
	set_up blog.example >"$work/lego.log" 2>&1 3>&- &
	echo $! >>"$work/servers"
	await challenge_waits
	is_served blog.example
	out_shows 'from=127.0.0.1 '
	kill -CONT "$bridge"
	wait "$(tail -n 1 "$work/servers")"
	has_certificate blog.example
}

@test "it is renewed, and its server reloaded, only when it is about to expire" {
	local before renewal
	set_up blog.example
	before=$(sha256sum "$work/lego/certificates/blog.example.crt")
	renewal=$(block 4 | sed -n 's/^ExecStart=//p')
	follow blog.example <<<"$renewal"
	[ "$before" = "$(sha256sum "$work/lego/certificates/blog.example.crt")" ]
	[ ! -e "$work/systemctl" ]

	follow blog.example <<<"$renewal --days 9999"
	[ "$before" != "$(sha256sum "$work/lego/certificates/blog.example.crt")" ]
	has_certificate blog.example
	[ "$(cat "$work/systemctl")" = 'reload nginx' ]
}

@test "certificates for names without a directory" {
	block 7 | follow default.example
	get_certificate default.example
	has_certificate default.example
}

@test "without acme-tls-socket, the host's server gets the challenge" {
	run get_certificate own.example
	[ "$status" != 0 ]
	grep 'no application protocol' "$work/nginx.log"
	is_served own.example

	# As a server that answers challenges itself.
	ln -sf ../.acme/tls-socket "$work/$(host_directory own.example)/tls-socket"
	get_certificate own.example
	has_certificate own.example
}

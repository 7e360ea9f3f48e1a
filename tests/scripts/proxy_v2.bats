#!/usr/bin/env bats
# nginx and HAProxy as backends with send-proxy-v2, and real clients of acme-tls-socket.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test.
# shellcheck disable=SC2154 # work and port are set by setup_file and start_proxy

load tls_helper

setup_file() {
	export work=$BATS_FILE_TMPDIR port no_proxy='*' SNIPROXY_LOG=connections
	require_programs
	mkdir "$work/hosts"
	make_authority
	start_nginx
	mv "$work/hosts/proxied.example"/send-proxy-v{1,2}
	start_haproxy
	start_acme
	start_proxy proxy 127.0.0.1
}

teardown_file() {
	stop_all
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || { show_logs; tail -v -n 20 "$work/out"; }
}

needs_address() {
	"$LISTEN" "$1" 0 true 3>/dev/null || skip "$1 is not available here"
}

# --- the servers ---

# The page of each host says what the PROXY header has, and what TLS has.
start_haproxy() {
	command -v haproxy >/dev/null || return 0
	cat >"$work/haproxy.cfg" <<-END
		defaults
			mode http
			timeout connect 30s
			timeout client 30s
			timeout server 30s
	END
	haproxy_host haproxy.example DNS:haproxy.example
	haproxy_host _.wild.example "DNS:*.wild.example"
	haproxy_host _no-sni DNS:no-sni.example
	background haproxy.log haproxy -db -f haproxy.cfg
	await test -S "$work/hosts/_no-sni/tls-socket"
}

haproxy_host() { # DIRECTORY NAMES
	local page='from=%[src] %[src_port]\nto=%[dst] %[dst_port]\n'
	page+='authority=%[fc_pp_authority]\nid=%[fc_pp_unique_id,hex,lower]\nsni=%[ssl_fc_sni]\n'
	mkdir "$work/hosts/$1"
	touch "$work/hosts/$1/send-proxy-v2"
	make_certificate "$1" "$2"
	cat "$work/$1.pem" "$work/$1.key" >"$work/$1.both"
	cat >>"$work/haproxy.cfg" <<-END
		frontend $1
			bind unix@hosts/$1/tls-socket accept-proxy ssl crt $1.both alpn h2,http/1.1
			http-request return status 200 content-type text/plain lf-string "$page"
	END
}

# alpha.example is nginx's; this answers validations of its name.
start_acme() {
	make_certificate acme DNS:alpha.example
	ln -s ../../acme.socket "$work/hosts/alpha.example/acme-tls-socket"
	background acme.log openssl s_server -unix acme.socket -www -alpn acme-tls/1 \
		-cert acme.pem -key acme.key
	await grep -q '^ACCEPT' "$work/acme.log"
}

needs_haproxy() {
	[ -e "$work/haproxy.cfg" ] || skip "haproxy is not installed"
}

# --- the clients ---

# told_get NAME [OPTION...]: asks it. Sets $from and $to, the addresses and ports of the client's
# socket, and $line, that of the proxy's log.
told_get() {
	local ends='%{local_ip} %{local_port}\n%{remote_ip} %{remote_port}\n'
	curl_file "$1" / "${@:2}" --output "$work/out" --write-out "$ends" >"$work/ends" || return
	{ read -r from && read -r to; } <"$work/ends"
	await has_line "client=$(endpoint "$from") " "${log:-proxy}"
	line=$(grep -F "client=$(endpoint "$from") " "$work/${log:-proxy}.log")
}

# endpoint "ADDRESS PORT": as the log has it.
endpoint() {
	case $1 in *:*) echo "[${1% *}]:${1#* }" ;; *) echo "${1% *}:${1#* }" ;; esac
}

has_line() { # START LOG
	grep -q -F "$1" "$work/$2.log"
}

# What HAProxy printed agrees with the client's socket, and its ID with the log.
haproxy_was_told() { # NAME
	out_has "from=$from"
	out_has "to=$to"
	out_has "authority=$1"
	out_has "sni=$1"
	local id
	id=$(sed -n 's/^id=//p' "$work/out")
	[[ $id =~ ^[0-9a-f]{32}$ ]]
	[[ $line == *" name=$1 "*" id=$id seconds="* || $line == *" name=$1 id=$id seconds="* ]]
}

# --- nginx ---

@test "nginx learns the client's address" {
	local option
	for option in --http1.1 --http2 --no-alpn; do
		told_get proxied.example "$option" --interface 127.0.0.2
		[[ $from == "127.0.0.2 "* ]]
		[ "$to" = "127.0.0.1 $port" ]
		out_has "from=$from"
		out_has "to=$to"
		out_has sni=proxied.example
		[[ $line =~ \ name=proxied.example\ id=[0-9a-f]{32}\ seconds= ]]
	done
}

@test "nginx learns the address of an IPv6 client" {
	needs_address ::1
	start_proxy ipv6 ::1
	address='[::1]' log=ipv6 told_get proxied.example
	out_has "from=$from"
	out_has "to=::1 $port"
	stop_proxy ipv6
}

@test "nginx refuses a client without the header" {
	rm "$work/hosts/proxied.example/send-proxy-v2"
	run curl_get proxied.example
	touch "$work/hosts/proxied.example/send-proxy-v2"
	[ "$status" -eq 35 ]
	told_get proxied.example
}

# --- HAProxy ---

@test "HAProxy learns the client's address, the name and the ID" {
	needs_haproxy
	local option
	for option in --http1.1 --http2 --no-alpn "--tls-max 1.2" "--tlsv1.3"; do
		# shellcheck disable=SC2086 # words
		told_get haproxy.example $option --interface 127.0.0.3
		[[ $from == "127.0.0.3 "* ]]
		haproxy_was_told haproxy.example
	done
}

@test "HAProxy learns the name as it was routed" {
	needs_haproxy
	request haproxy.example | openssl_client -servername HAProxy.Example
	out_has authority=haproxy.example
	told_get any.wild.example
	haproxy_was_told any.wild.example
	[[ $line == *" host=_.wild.example "* ]]
}

@test "HAProxy learns no name of a client that sends none" {
	needs_haproxy
	request haproxy.example | openssl_client -noservername
	out_has authority=
	out_has sni=
	await has_line "name=- host=_no-sni id=$(sed -n 's/^id=//p' "$work/out") seconds=" proxy
}

@test "HAProxy learns the address of an IPv6 client, and of an IPv4 client of an IPv6 socket" {
	needs_haproxy
	needs_address ::1
	start_proxy both ::1
	address='[::1]' log=both told_get haproxy.example
	haproxy_was_told haproxy.example
	stop_proxy both
	needs_address ::ffff:127.0.0.1
	start_proxy mapped ::ffff:127.0.0.1
	log=mapped told_get haproxy.example
	haproxy_was_told haproxy.example
	stop_proxy mapped
}

@test "HAProxy takes the longest header and a large hello" {
	needs_haproxy
	local name protocols
	name=$(printf 'x%.0s' {1..63}).$(printf 'y%.0s' {1..63}).wild.example
	mkdir "$work/hosts/$name"
	ln -s ../_.wild.example/tls-socket "$work/hosts/$name/tls-socket"
	touch "$work/hosts/$name/send-proxy-v2"
	protocols=$(printf '%0254d,' {1..60})http/1.1
	request "$name" | timeout 60 openssl s_client -connect "127.0.0.1:$port" -ign_eof \
		-servername "$name" -alpn "$protocols" >"$work/out" 2>&1
	out_has "authority=$name"
	out_has "ALPN protocol: http/1.1"
}

# Each connection has an ID of its own.
@test "HAProxy gets fifty different IDs" {
	needs_haproxy
	local number
	for number in {1..50}; do
		curl_get haproxy.example
		sed -n 's/^id=//p' "$work/out"
	done | sort -u >"$work/ids"
	[ "$(wc -l <"$work/ids")" = 50 ]
	while read -r number; do
		[ "$(grep -c " id=$number seconds=" "$work/proxy.log")" = 1 ]
	done <"$work/ids"
}

# --- acme-tls/1 ---

@test "openssl s_client reaches acme-tls-socket with acme-tls/1 alone" {
	openssl_get alpha.example -alpn acme-tls/1
	out_has "ALPN protocol: acme-tls/1"
	out_shows "Ciphers supported in s_server binary"
	openssl_get alpha.example -alpn acme-tls/1 -tls1_2
	out_has "ALPN protocol: acme-tls/1"
	openssl_get alpha.example -alpn http/1.1
	out_has "ALPN protocol: http/1.1"
	out_has host=alpha.example
	openssl_get alpha.example -alpn acme-tls/1,http/1.1
	out_has "ALPN protocol: http/1.1"
	out_has host=alpha.example
	openssl_get alpha.example
	out_has host=alpha.example
}

@test "gnutls-cli reaches acme-tls-socket with acme-tls/1 alone" {
	command -v gnutls-cli >/dev/null || skip "gnutls-cli is not installed"
	gnutls_client alpha.example --alpn acme-tls/1 </dev/null
	out_shows "Application protocol: acme-tls/1"
	gnutls_client alpha.example --alpn acme-tls/1 --alpn http/1.1 </dev/null
	out_shows "Application protocol: http/1.1"
}

# nginx knows no such protocol.
@test "without acme-tls-socket, acme-tls/1 reaches the other server" {
	run openssl_get beta.example -alpn acme-tls/1
	[ "$status" -eq 1 ]
	out_shows "SSL alert number 120" # no_application_protocol
}

# --- the end ---

@test "the proxy ends in good order" {
	stop_proxy proxy
}

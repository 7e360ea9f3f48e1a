#!/usr/bin/env bats
# Widely used clients, each through the proxy from a real server: they must show or print what that
# server has. Browsers send their own post-quantum hellos. One authority signs all certificates;
# each client is configured for it in its own way.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test. Clients that are not installed
# are skipped; `make deps-clients` installs all.
# shellcheck disable=SC2154 # port and such are set by tls_helper.bash

load ../scripts/tls_helper

clients=$BATS_TEST_DIRNAME

setup_file() {
	export work=$BATS_FILE_TMPDIR no_proxy='*' HOME=$BATS_FILE_TMPDIR/home
	require_programs
	mkdir "$work/hosts" "$HOME"
	make_authority
	start_servers
	start_proxy proxy 127.0.0.1
	export port
}

# Chromium without its background requests, and for no longer than a busy machine needs.
setup() {
	chromium=(timeout 120 chromium --headless --no-sandbox --disable-gpu --no-first-run
		--disable-sync --disable-background-networking --disable-component-update
		--disable-extensions "--user-data-dir=$work/chromium"
		'--host-resolver-rules=MAP *.example 127.0.0.1')
}

teardown_file() {
	[ -z "${BATS_TEST_COMPLETED-x}" ] || show_logs
	stop_all
}

needs() { # PROGRAM...
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}

# --- the servers ---

# The block N of a document below HEADING.
readme() { # HEADING [N]
	"$clients/../scripts/readme.sh" "$@"
}

# A page of two colours, each from a file of its own.
write_pages() {
	mkdir -p "$work/pages"
	cat >"$work/pages/page.html" <<-'END'
		<!DOCTYPE html>
		<title>two colours</title>
		<link rel="stylesheet" href="page.css">
		<div></div><img src="page.svg">
	END
	cat >"$work/pages/page.css" <<-'END'
		* { margin: 0; }
		div, img { display: block; width: 400px; height: 150px; }
		div { background: #00c000; }
	END
	echo '<svg xmlns="http://www.w3.org/2000/svg"><rect width="400" height="150" fill="#0000c0"/></svg>' \
		>"$work/pages/page.svg"
	# Asks what another host has sent back.
	cat >"$work/pages/websocket.html" <<-'END'
		<!DOCTYPE html>
		<script>
		const socket = new WebSocket(`wss://websocket.example:${location.port}/`);
		socket.onopen = () => socket.send('/page.svg?said-back');
		socket.onmessage = ({ data }) => fetch(data);
		</script>
	END
	# Its colour is that of the server that answered.
	cat >"$work/pages/coalesced.html" <<-'END'
		<!DOCTYPE html>
		<style>* { margin: 0; } img { display: block; width: 400px; height: 300px; }</style>
		<img><script>
		document.querySelector('img').src = `https://${location.hash.slice(1)}:${location.port}/colour.svg`;
		</script>
	END
}

# nginx has one socket for each of these, as if they were several servers.
start_servers() {
	write_pages
	cat >"$work/nginx.conf" <<-END
		daemon off;
		master_process off;
		pid nginx.pid;
		events { }
		http {
		include /etc/nginx/mime.types;
		default_type text/plain;
		root pages;
		$(nginx_paths)
		ssl_protocols TLSv1.2 TLSv1.3;
		log_format protocol '\$server_name \$ssl_server_name \$host \$server_protocol \$request_uri \$status';
		access_log access.log protocol;
	END
	nginx_host clients.example http2 "location /page { }"
	nginx_host browser.example http2 "location /page { } location /websocket { }"
	put_recorder browser.example
	nginx_host http3.example http2 "location /page {
		add_header Alt-Svc 'h3=\":9\"; ma=86400'; }"
	nginx_host unawaited.example http2
	touch "$work/$(host_directory unawaited.example)/send-proxy-v1"
	nginx_host unsent.example "http2 proxy_protocol"
	coalescing_host www.one.example '#c00000' www.one.example img.one.example
	coalescing_host img.one.example '#00c000' img.one.example www.one.example
	coalescing_host www.two.example '#c00000' www.two.example img.two.example \
		"$(readme '## Another site, or 421' 1 | sed 's/blog\.example/www.two.example/')"
	coalescing_host img.two.example '#00c000' img.two.example www.two.example
	echo '}' >>"$work/nginx.conf"
	background nginx.log nginx -p "$work" -c "$work/nginx.conf" -e stderr
	await test -s "$work/nginx.pid"
	start_websocket
}

# Puts a recorder before a host's server.
put_recorder() { # NAME
	local directory
	directory=$(host_directory "$1")
	sed -i "s|unix:$directory/tls-socket|unix:$directory/behind|" "$work/nginx.conf"
	background "$1.hellos" /usr/bin/python3 "$clients/record.py" "$directory/tls-socket" "$directory/behind"
	await test -S "$work/$directory/tls-socket"
}

# A host with a certificate that names another host too.
coalescing_host() { # NAME COLOUR NAME OTHER-NAME [DIRECTIVES]
	nginx_host "$1" http2 "${5-}
		location = /coalesced.html { }
		location = /colour.svg {
			default_type image/svg+xml; types { }
			return 200 '<svg xmlns=\"http://www.w3.org/2000/svg\"><rect width=\"400\" height=\"300\" fill=\"$2\"/></svg>';
		}"
	make_certificate "$1" "DNS:$3,DNS:$4"
}

start_websocket() {
	! /usr/bin/python3 -c 'import websockets' 2>/dev/null || {
		make_host websocket.example
		background websocket.log /usr/bin/python3 "$clients/websocket.py" serve \
			"$(host_directory websocket.example)/tls-socket" websocket.example.pem websocket.example.key
		await grep -q listening "$work/websocket.log"
	}
}

# shows_page: the client has the page of clients.example's server.
shows_page() {
	cat "$work/out"
	out_has sni=clients.example && out_has "tls=${1-TLSv1.3}"
}

asked_over() { # PROTOCOL NAME URI
	await grep -qxF "$2 $2 $2 $1 $3 200" "$work/access.log"
}

# --- clients without a window ---

@test "curl, HTTP/1.1 and HTTP/2" {
	curl_get clients.example --http1.1
	shows_page
	asked_over HTTP/1.1 clients.example /
	curl_get clients.example --http2
	shows_page
	asked_over HTTP/2.0 clients.example /
}

@test "openssl s_client, TLS 1.3 and 1.2" {
	openssl_get clients.example
	shows_page
	openssl_get clients.example -tls1_2
	shows_page TLSv1.2
}

@test "gnutls-cli" {
	needs gnutls-cli
	gnutls_get clients.example
	shows_page
}

# nss_database DIRECTORY: with the authority.
nss_database() {
	mkdir -p "$1"
	[ -e "$1/cert9.db" ] || certutil -d "sql:$1" -N --empty-password
	certutil -d "sql:$1" -A -n authority -t C,, -i "$work/ca.pem"
}

@test "NSS's tstclnt" {
	needs tstclnt certutil
	nss_database "$work/nss"
	request clients.example >"$work/request"
	# With a pipe, it would wait for more after everything has arrived.
	timeout 60 tstclnt -d "sql:$work/nss" -h 127.0.0.1 -p "$port" -a clients.example \
		<"$work/request" >"$work/out" 2>&1
	shows_page
}

@test "Java's HttpClient, HTTP/1.1 and HTTP/2" {
	needs java javac keytool
	echo '127.0.0.1 clients.example' >"$work/java-hosts"
	keytool -importcert -noprompt -alias authority -file "$work/ca.pem" \
		-keystore "$work/java.p12" -storepass changeit 2>/dev/null
	timeout 60 java "-Djavax.net.ssl.trustStorePassword=changeit" "-Djdk.net.hosts.file=$work/java-hosts" \
		"-Djavax.net.ssl.trustStore=$work/java.p12" "$clients/Client.java" \
		"https://clients.example:$port/" >"$work/out" 2>&1 || { cat "$work/out"; false; }
	shows_page
	out_has HTTP_1_1
	out_has HTTP_2
}

@test "Go's net/http, HTTP/2" {
	needs go
	HOME=$work/home GO111MODULE=off GOCACHE=$work/go GOFLAGS='' \
		go build -o "$work/go-client" "$clients/client.go"
	timeout 60 "$work/go-client" "$work/ca.pem" "https://clients.example:$port/" >"$work/out" 2>&1
	shows_page
	out_has HTTP/2.0
}

@test "Rust's rustls" {
	needs cargo
	[ -d /usr/share/cargo/registry/rustls-0.20.8 ] || skip "librust-rustls-dev is not installed"
	cp -r "$clients/rust" "$work"
	mkdir "$work/rust/.cargo"
	cat >"$work/rust/.cargo/config.toml" <<-END
		[source.crates-io]
		replace-with = "debian"
		[source.debian]
		directory = "/usr/share/cargo/registry"
	END
	(
		cd "$work/rust"
		# Debian's, with its own library paths; make -j has announced a job server, and
		# closed it.
		PATH=/usr/bin:$PATH CARGO_HOME=$work/cargo MAKEFLAGS='' MFLAGS='' CARGO_MAKEFLAGS='' \
			cargo build --quiet --offline
	)
	openssl x509 -in "$work/ca.pem" -outform DER -out "$work/ca.der"
	timeout 60 "$work/rust/target/debug/client" "$work/ca.der" clients.example "$port" \
		>"$work/out" 2>&1
	shows_page
}

@test "WebSocket" {
	/usr/bin/python3 -c 'import websockets' || skip "python3-websockets is not installed"
	run timeout 60 /usr/bin/python3 "$clients/websocket.py" ask "$work/ca.pem" websocket.example "$port"
	echo "$output"
	[ "$output" = 'said back' ]
}

# --- browsers ---

# Compares a screenshot: bands of colours, from the top.
looks_like() { # SCREENSHOT COLOUR...
	local height=$((300 / ($# - 1))) differences
	convert -size "400x$height" "${@:2}" -append "$work/expected.png"
	differences=$(compare -metric AE "$1" "$work/expected.png" null: 2>&1) || :
	echo "$1: $differences pixels differ"
	[ "$differences" = 0 ]
}

chromium_shows() { # URL SCREENSHOT
	nss_database "$HOME/.pki/nssdb"
	"${chromium[@]}" --hide-scrollbars --force-color-profile=srgb --virtual-time-budget=2000 \
		--window-size=400,300 --screenshot="$2" "$1" >"$work/chromium.log" 2>&1
}

firefox_shows() { # URL SCREENSHOT
	local profile=$work/firefox
	nss_database "$profile"
	cat >"$profile/user.js" <<-END
		user_pref("network.dns.localDomains", "browser.example,websocket.example");
		user_pref("network.proxy.type", 0);
		user_pref("app.update.enabled", false);
		user_pref("datareporting.policy.dataSubmissionEnabled", false);
		user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
		user_pref("browser.shell.checkDefaultBrowser", false);
	END
	timeout 90 firefox-esr --headless --no-remote --profile "$profile" --window-size=400,300 \
		--screenshot "$2" "$1" >"$work/firefox.log" 2>&1
}

# The last hello that arrived did not fit into one packet, and has a key share of X25519MLKEM768
# (4588, 0x11ec).
hello_was_post_quantum() {
	local length groups
	cat "$work/browser.example.hellos"
	read -r length groups < <(tail -n 1 "$work/browser.example.hellos")
	[ "$length" -gt 1500 ] && [[ " $groups " == *' 11ec '* ]]
}

# It has an encrypted ClientHello, which is a dummy if the DNS has no key for it.
hello_had_ech() {
	tail -n 1 "$work/browser.example.hellos" | grep -qw ech
}

@test "Chromium shows a page over HTTP/2, after a post-quantum hello" {
	needs chromium certutil convert compare
	chromium_shows "https://browser.example:$port/page.html" "$work/chromium.png"
	looks_like "$work/chromium.png" xc:#00c000 xc:#0000c0
	asked_over HTTP/2.0 browser.example /page.svg
	hello_was_post_quantum
	hello_had_ech
}

@test "Firefox does" {
	needs firefox-esr certutil convert compare
	: >"$work/access.log"
	firefox_shows "https://browser.example:$port/page.html" "$work/firefox.png"
	looks_like "$work/firefox.png" xc:#00c000 xc:#0000c0
	asked_over HTTP/2.0 browser.example /page.svg
	hello_was_post_quantum
}

@test "another page is told from it" {
	needs convert compare
	convert -size 400x150 xc:#00c000 xc:#0000c1 -append "$work/other.png"
	run looks_like "$work/other.png" xc:#00c000 xc:#0000c0
	[ "$status" = 1 ]
}

@test "a page of Chromium's has a WebSocket" {
	needs chromium certutil
	/usr/bin/python3 -c 'import websockets' || skip "python3-websockets is not installed"
	nss_database "$HOME/.pki/nssdb"
	# It runs until it is killed, because of this option.
	"${chromium[@]}" --remote-debugging-port=0 "https://browser.example:$port/websocket.html" \
		>"$work/chromium.log" 2>&1 3>&- &
	local process=$!
	for _ in 1 2 3 4 5 6; do
		await grep -qF '/page.svg?said-back 200' "$work/access.log" 2>/dev/null && break
	done
	kill "$process"
	wait "$process" || :
	grep -F 'browser.example HTTP/2.0 /page.svg?said-back 200' "$work/access.log"
}

# --- HTTP/2 connections that are used for a host of another server ---

coalesced_to() { # HOST OTHER-HOST COLOUR
	chromium_shows "https://$1:$port/coalesced.html#$2" "$work/$1.png"
	grep " $2 " "$work/access.log"
	looks_like "$work/$1.png" "xc:$3"
}

@test "a certificate for two hosts lets Chromium ask the first one's server for the other's page" {
	needs chromium certutil convert compare
	coalesced_to www.one.example img.one.example '#c00000'
	grep -qxF 'www.one.example www.one.example img.one.example HTTP/2.0 /colour.svg 200' "$work/access.log"
}

@test "where that server says 421, Chromium asks the right one" {
	needs chromium certutil convert compare
	coalesced_to www.two.example img.two.example '#00c000'
	grep -qF 'www.two.example www.two.example img.two.example HTTP/2.0 /colour.svg 421' "$work/access.log"
	grep -qxF 'img.two.example img.two.example img.two.example HTTP/2.0 /colour.svg 200' "$work/access.log"
}

# --- what else docs/troubleshooting.md says ---

@test "Chromium goes on over TCP where a server offers HTTP/3, which does not come through" {
	needs chromium certutil convert compare
	local try
	for try in 1 2; do
		chromium_shows "https://http3.example:$port/page.html" "$work/http3-$try.png"
		looks_like "$work/http3-$try.png" xc:#00c000 xc:#0000c0
	done
	curl_file http3.example /page.html --head | grep -i '^alt-svc: h3='
}

# says CLIENT HOST PATTERN: its message for a host that it does not reach.
says() {
	"$1_says" "$2" >"$work/out" 2>&1 || :
	grep -aqE -e "$3" "$work/out" || {
		cat "$work/out"
		return 1
	}
}

curl_says() {
	curl_file "$1" /
}

gnutls_says() {
	request "$1" | timeout 60 gnutls-cli --port "$port" --sni-hostname "$1" \
		--x509cafile "$work/ca.pem" 127.0.0.1
}

nss_says() {
	nss_database "$work/nss"
	timeout 60 tstclnt -d "sql:$work/nss" -h 127.0.0.1 -p "$port" -a "$1" -Q
}

# Its log has the number of the error on its page.
chromium_says() {
	"${chromium[@]}" --dump-dom "https://$1:$port/"
}

@test "what is seen where the server does not await the PROXY header" {
	needs gnutls-cli tstclnt certutil chromium
	says curl unawaited.example 'wrong version number'
	says gnutls unawaited.example 'An unexpected TLS packet was received'
	says nss unawaited.example SSL_ERROR_RX_RECORD_TOO_LONG
	says chromium unawaited.example 'net_error -107' # ERR_SSL_PROTOCOL_ERROR
}

@test "what is seen where the server awaits a PROXY header, and there is none" {
	needs gnutls-cli tstclnt certutil chromium
	says curl unsent.example SSL_ERROR_SYSCALL
	says gnutls unsent.example 'The TLS connection was non-properly terminated'
	says nss unsent.example 'PR_CONNECT_RESET_ERROR|PR_END_OF_FILE_ERROR'
	says chromium unsent.example 'net_error -10[01]' # ERR_CONNECTION_CLOSED, ERR_CONNECTION_RESET
	grep -q ' unsent.example: tls-socket: Connection reset by peer' "$work/proxy.log"
}

@test "what is seen of a host that is not there" {
	needs gnutls-cli tstclnt certutil chromium
	says curl nobody.example 'unrecognized name'
	says gnutls nobody.example 'The server name sent was not recognized'
	says nss nobody.example SSL_ERROR_UNRECOGNIZED_NAME_ALERT
	says chromium nobody.example 'net_error -159' # ERR_SSL_UNRECOGNIZED_NAME_ALERT
}

#!/usr/bin/env bats
# Real TLS clients reach real TLS servers through the proxy.
#
# SNIPROXY, SNIPROXY_HOSTNAME, LISTEN and HASTY are the programs under test.
# shellcheck disable=SC2154 # work and port are set by setup_file and start_proxy

load tls_helper

setup_file() {
	export work=$BATS_FILE_TMPDIR port no_proxy='*'
	require_programs HASTY
	mkdir "$work/hosts"
	make_authority
	make_certificate visitor DNS:visitor.example
	start_nginx
	start_openssl
	start_gnutls
	start_sink
	start_proxy proxy 127.0.0.1
}

teardown_file() {
	stop_all
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || { show_logs; tail -v -n 20 "$work/out"; }
}

needs() {
	command -v "$1" >/dev/null || skip "$1 is not installed"
}

needs_gnutls_server() {
	[ -e "$work/gnutls.example.pem" ] || skip "needs gnutls-serv, systemd and unshare"
}

needs_address() {
	"$LISTEN" "$1" 0 true 3>/dev/null || skip "$1 is not available here"
}

# What the pages of servers other than nginx say.
openssl_page="Ciphers supported in s_server binary"
gnutls_page="This is <a href=\"http://www.gnu.org/software/gnutls\">GnuTLS"

# --- the clients ---

@test "openssl s_client reaches an nginx and an OpenSSL server with TLS 1.2 and 1.3" {
	local version
	for version in 1.2 1.3; do
		openssl_get alpha.example "-tls${version/./_}"
		out_has host=alpha.example
		out_has "tls=TLSv$version"
		openssl_get openssl.example "-tls${version/./_}"
		out_shows "$openssl_page"
		out_shows "New, TLSv$version,"
	done
}

@test "gnutls-cli reaches an nginx and an OpenSSL server with TLS 1.2 and 1.3" {
	needs gnutls-cli
	local version
	for version in 1.2 1.3; do
		gnutls_get alpha.example --priority "NORMAL:-VERS-ALL:+VERS-TLS$version"
		out_has host=alpha.example
		out_has "tls=TLSv$version"
		gnutls_get openssl.example --priority "NORMAL:-VERS-ALL:+VERS-TLS$version"
		out_shows "$openssl_page"
		out_shows "Description: (TLS$version"
	done
}

@test "curl reaches an nginx and an OpenSSL server with TLS 1.2 and 1.3" {
	local version
	for version in 1.2 1.3; do
		curl_get alpha.example "--tlsv$version" --tls-max $version
		out_has host=alpha.example
		out_has "tls=TLSv$version"
		curl_get openssl.example "--tlsv$version" --tls-max $version
		out_shows "$openssl_page"
		out_shows "New, TLSv$version,"
	done
}

@test "openssl s_client and curl reach a GnuTLS server with TLS 1.2 and 1.3" {
	needs_gnutls_server
	local version
	for version in 1.2 1.3; do
		openssl_get gnutls.example "-tls${version/./_}"
		out_shows "$gnutls_page"
		out_shows "<TD>TLS$version</TD>"
		curl_get gnutls.example "--tlsv$version" --tls-max $version
		out_shows "$gnutls_page"
		out_shows "<TD>TLS$version</TD>"
	done
}

@test "gnutls-cli reaches a GnuTLS server with TLS 1.2 and 1.3" {
	needs_gnutls_server
	needs gnutls-cli
	local version
	for version in 1.2 1.3; do
		gnutls_get gnutls.example --priority "NORMAL:-VERS-ALL:+VERS-TLS$version"
		out_shows "$gnutls_page"
		out_shows "<TD>TLS$version</TD>"
	done
}

# --- which host ---

@test "the name selects among three hosts" {
	local name
	for name in alpha.example beta.example gamma.example; do
		curl_get $name
		out_has host=$name
		out_has sni=$name
	done
}

@test "a name in capitals selects the same host" {
	request beta.example | openssl_client -servername BETA.Example
	out_has host=beta.example
}

@test "a host's directory bears the name that sniproxy-hostname prints" {
	local directory
	directory=$("$SNIPROXY_HOSTNAME" alpha.example)
	if [ "${HASHED:-0}" = 1 ]; then
		[[ $directory =~ ^[0-9a-f]{32}$ ]]
	else
		[ "$directory" = alpha.example ]
	fi
	[ -S "$work/hosts/$directory/tls-socket" ]
}

# --- alerts, as the clients report them ---

openssl_is_refused() {
	run openssl_client "$@" </dev/null
	[ "$status" -eq 1 ]
	out_shows "unrecognized name"
	out_shows "SSL alert number 112"
}

gnutls_is_refused() {
	run gnutls_get "$@"
	[ "$status" -eq 1 ]
	out_shows "Received alert [112]"
}

curl_is_refused() {
	run curl_get "$@"
	[ "$status" -eq 35 ]
	out_shows recognized # "unrecognized name"; with GnuTLS, "was not recognized"
}

@test "openssl s_client reports unrecognized_name for an unknown name" {
	openssl_is_refused -servername nobody.example -tls1_2
	openssl_is_refused -servername nobody.example -tls1_3
}

@test "gnutls-cli reports unrecognized_name for an unknown name" {
	needs gnutls-cli
	gnutls_is_refused nobody.example --priority NORMAL:-VERS-ALL:+VERS-TLS1.2
	gnutls_is_refused nobody.example --priority NORMAL:-VERS-ALL:+VERS-TLS1.3
}

@test "curl reports unrecognized_name for an unknown name" {
	curl_is_refused nobody.example --tls-max 1.2
	curl_is_refused nobody.example --tlsv1.3
}

@test "openssl s_client and curl report unrecognized_name if they send no name" {
	openssl_is_refused -noservername
	curl_is_refused 127.0.0.1
}

@test "gnutls-cli reports unrecognized_name if it sends no name" {
	needs gnutls-cli
	gnutls_is_refused alpha.example --disable-sni
}

@test "openssl s_client reports unrecognized_name for names that are not valid" {
	local name
	for name in alpha.example. .alpha.example ../alpha.example alpha..example \
		-a.example alpha/example 'alpha example' "$(printf '%0255d' 1)"; do
		openssl_is_refused -servername "$name"
	done
}

@test "plain HTTP gets unexpected_message" {
	timeout 60 curl --silent --http0.9 --output "$work/out" "http://127.0.0.1:$port/"
	[ "$(od -An -tx1 "$work/out")" = " 15 03 03 00 02 02 0a" ]
}

@test "the backend's own alerts reach the client" {
	run openssl_get alpha.example -tls1_1 -cipher DEFAULT@SECLEVEL=0
	[ "$status" -eq 1 ]
	out_shows "SSL alert number 70" # protocol_version
	run openssl_get alpha.example -alpn gopher
	[ "$status" -eq 1 ]
	out_shows "SSL alert number 120" # no_application_protocol
}

# --- what the sides agree on ---

@test "openssl s_client negotiates ALPN with the backend" {
	# An HTTP/1.0 request makes no sense if HTTP/2 was negotiated.
	openssl_client -servername alpha.example -no_ign_eof -alpn h2 </dev/null
	out_has "ALPN protocol: h2"
	openssl_client -servername alpha.example -no_ign_eof -alpn http/1.1,h2 </dev/null
	out_has "ALPN protocol: h2"
	openssl_get alpha.example -alpn http/1.1
	out_has "ALPN protocol: http/1.1"
	openssl_get openssl.example -alpn h2
	out_has "No ALPN negotiated"
}

# The negotiated version of HTTP.
curl_version() {
	curl_file "$1" / "$2" --output "$work/out" --write-out '%{http_version}'
}

@test "curl negotiates ALPN with the backend" {
	[ "$(curl_version alpha.example --http2)" = 2 ]
	[ "$(curl_version alpha.example --http1.1)" = 1.1 ]
	[ "$(curl_version beta.example --http2)" = 1.1 ]
}

@test "gnutls-cli negotiates ALPN with the backend" {
	needs gnutls-cli
	gnutls_client alpha.example --alpn h2 --alpn http/1.1 </dev/null
	out_shows "Application protocol: h2"
	gnutls_client alpha.example --alpn http/1.1 </dev/null
	out_shows "Application protocol: http/1.1"
}

@test "a backend that asks for another key share gets its second ClientHello" {
	openssl_get gamma.example -tls1_3 -groups X25519:P-384 -msg
	out_has host=gamma.example
	[ "$(grep -ac '^>>> .* ClientHello$' "$work/out")" = 2 ]
}

@test "a backend verifies client certificates" {
	local version
	for version in 1.2 1.3; do
		curl_get members.example --tls-max $version
		out_shows "No required SSL certificate"
		curl_get members.example --tls-max $version --cert "$work/visitor.pem" \
			--key "$work/visitor.key"
		out_has verified=SUCCESS
		out_has subject=CN=visitor
	done
	openssl_get members.example -cert "$work/visitor.pem" -key "$work/visitor.key"
	out_has subject=CN=visitor
	openssl_get openssl.example -cert "$work/visitor.pem" -key "$work/visitor.key"
	out_shows "Subject: CN=visitor"
	openssl_get openssl.example
	out_shows "no client certificate available"
}

@test "a backend verifies the client certificate of gnutls-cli" {
	needs gnutls-cli
	gnutls_get members.example --x509certfile "$work/visitor.pem" \
		--x509keyfile "$work/visitor.key"
	out_has verified=SUCCESS
	out_has subject=CN=visitor
}

# --- sessions and early data ---

@test "openssl s_client resumes sessions with TLS 1.2 and 1.3" {
	local version
	for version in 1.2 1.3; do
		openssl_get early.example "-tls${version/./_}" -sess_out "$work/session"
		out_has reused=.
		openssl_get early.example "-tls${version/./_}" -sess_in "$work/session"
		out_shows "Reused, TLSv$version,"
		out_has reused=r
	done
}

@test "gnutls-cli resumes sessions" {
	needs gnutls-cli
	gnutls_get early.example --resume --waitresumption
	out_shows "This is a resumed session"
	out_has reused=r
}

# openssl_early_get: sends only $work/request, as early data, in a session from an earlier
# connection. A page shows that the early data arrived; nginx's $ssl_early_data would not, because
# it is 1 only until the handshake is over.
openssl_early_get() {
	openssl_client -servername early.example -verify_hostname early.example \
		-sess_in "$work/session" -early_data "$work/request" </dev/null
}

@test "early data of openssl s_client reaches the backend" {
	openssl_get early.example -tls1_3 -sess_out "$work/session"
	request early.example >"$work/request"
	openssl_early_get
	out_has "Early data was accepted"
	out_has host=early.example
	out_has reused=r
}

@test "early data of gnutls-cli reaches the backend" {
	needs gnutls-cli
	request early.example >"$work/request"
	gnutls_client early.example --resume --waitresumption \
		--earlydata "$work/request" --priority NORMAL:-VERS-ALL:+VERS-TLS1.3 \
		</dev/null
	out_shows "This is a resumed session"
	out_has host=early.example
	out_has reused=r
}

@test "the alert arrives although early data was sent, twenty times" {
	local directory
	directory=$work/$(host_directory early.example)
	openssl_get early.example -tls1_3 -sess_out "$work/session"
	head -c 12000 /dev/zero >"$work/request"
	mv "$directory" "$directory.away"
	for _ in {1..20}; do
		run openssl_early_get
		out_shows "SSL alert number 112" || break
	done
	mv "$directory.away" "$directory"
	out_shows "SSL alert number 112"
}

# --- large and fragmented ClientHellos ---

# protocols COUNT: a list for -alpn that begins with COUNT unknown protocols of 250 bytes.
protocols() {
	local number
	for ((number = 0; number < $1; number++)); do
		printf '%0250d,' "$number"
	done
	echo http/1.1
}

# hello SIGN: the bytes of the first ClientHello in the -msg output on stdin, 16 on a line.
hello() {
	awk -v sign="$1" '
		inside && !/^    / { exit }
		inside { print }
		$1 == sign && /ClientHello$/ { inside = 1 }'
}

# records_of_hello SIGN: the headers of its records. A server may have reported the end of the
# previous connection before: that is no handshake.
records_of_hello() {
	awk -v sign="$1" '
		$1 == sign && /RecordHeader/ { getline; if ($1 == "16") print }
		$1 == sign && /ClientHello$/ { exit }'
}

# What the OpenSSL server logged since mark_log.
mark_log() {
	logged=$(stat -c %s "$work/openssl.log")
}

log_since_mark() {
	tail -c +$((logged + 1)) "$work/openssl.log"
}

# hello_passes LIMIT OPTIONS...: a hello in records of up to LIMIT bytes arrives at the server
# unchanged, with its records. Sets hello_length.
hello_passes() {
	mark_log
	openssl_get openssl.example -msg -max_send_frag "$1" "${@:2}"
	out_shows "$openssl_page"
	log_since_mark >"$work/received"

	hello '>>>' <"$work/out" >"$work/hello"
	hello '<<<' <"$work/received" | cmp - "$work/hello"
	hello_length=$(wc -w <"$work/hello")

	records_of_hello '>>>' <"$work/out" >"$work/records"
	[ "$(wc -l <"$work/records")" -eq $(((hello_length + $1 - 1) / $1)) ]
	records_of_hello '<<<' <"$work/received" | cmp - "$work/records"
}

@test "a hello in many records passes unchanged" {
	local version
	for version in 2 3; do
		hello_passes 512 -tls1_$version -alpn "$(protocols 4)"
		[ "$hello_length" -gt 1024 ]
		hello_passes 600 -tls1_$version -alpn "$(protocols 20)"
		[ "$hello_length" -gt 5000 ]
	done
}

@test "a hello of a post-quantum key exchange's size passes unchanged" {
	hello_passes 16384
	hello_passes 16384 -alpn "$(protocols 6)"
	[ "$hello_length" -gt 1500 ]
	hello_passes 16384 -alpn "$(protocols 12)"
	[ "$hello_length" -gt 3000 ]
}

@test "a post-quantum key exchange passes" {
	openssl list -kem-algorithms 2>/dev/null | grep -q X25519MLKEM768 ||
		skip "this OpenSSL has none"
	hello_passes 16384 -tls1_3 -groups X25519MLKEM768
	[ "$hello_length" -gt 1200 ]
}

@test "hellos of 16, 32 and 64 KiB pass unchanged" {
	hello_passes 16384 -alpn "$(protocols 63)"
	[ "$hello_length" -gt 16000 ]
	hello_passes 16384 -alpn "$(protocols 70)"
	hello_passes 16384 -alpn "$(protocols 131)"
	hello_passes 16384 -alpn "$(protocols 255)"
	[ "$hello_length" -gt 64000 ]
	openssl_get alpha.example -alpn "$(protocols 255)"
	out_has "ALPN protocol: http/1.1"
	out_has host=alpha.example
}

@test "a hello of 64 KiB in records of 512 bytes passes unchanged" {
	hello_passes 512 -alpn "$(protocols 255)"
	[ "$hello_length" -gt 64000 ]
}

# A session's ticket holds the client certificate, so many names in the certificate make a large
# hello.
@test "a hello that gnutls-cli sends in many records reaches the backend" {
	needs gnutls-cli
	local names
	names=$(printf 'DNS:visitor%020d.example,' {1..40})
	make_certificate crowd "${names}DNS:crowd.example"
	mark_log
	gnutls_get openssl.example --resume --waitresumption --recordsize 512 \
		--x509certfile "$work/crowd.pem" --x509keyfile "$work/crowd.key"
	out_shows "This is a resumed session"
	out_shows "$openssl_page"
	# The second hello is the one with the ticket.
	log_since_mark | sed '1,/ClientHello$/d' >"$work/received"
	[ "$(records_of_hello '<<<' <"$work/received" | grep -c '16 03 01 02 00')" -ge 4 ]
}

# --- much data ---

@test "large uploads and downloads arrive whole" {
	head -c 33554432 /dev/urandom >"$work/upload"
	curl_file alpha.example /files/http2 --upload-file "$work/upload" --http2
	curl_file beta.example /files/http1 --upload-file "$work/upload" --tls-max 1.2
	cmp "$work/upload" "$work/files/http2"
	cmp "$work/upload" "$work/files/http1"
	curl_file alpha.example /files/http2 --http2 | cmp - "$work/upload"
	curl_file beta.example /files/http1 --tls-max 1.2 | cmp - "$work/upload"
}

@test "large transfers at the same time arrive whole" {
	local client
	head -c 16777216 /dev/urandom >"$work/files/large"
	for client in 1 2 3; do
		curl_file beta.example /files/up$client \
			--upload-file "$work/files/large" &
		curl_file beta.example /files/large --output "$work/down$client" &
	done
	wait
	for client in 1 2 3; do
		cmp "$work/files/large" "$work/files/up$client"
		cmp "$work/files/large" "$work/down$client"
	done
}

# nginx answers, and closes without reading what the client still sends.
@test "an answer arrives although the server does not read the upload, ten times" {
	head -c 4194304 /dev/zero >"$work/upload"
	for _ in {1..10}; do
		curl_file beta.example /full/file --http1.1 --header Expect: \
			--upload-file "$work/upload" --output "$work/out" \
			--write-out '%{http_code}' >"$work/code" || :
		[ "$(cat "$work/code")" = 413 ]
	done
}

# hasty_sends LENGTH: everything that was sent arrives.
hasty_sends() {
	local before
	before=$(stat -c %s "$work/sink")
	head -c "$1" /dev/urandom >"$work/upload"
	"$HASTY" "$port" sink.example "$work/ca.pem" <"$work/upload" >"$work/out" 2>&1
	await is_in_sink $((before + $1))
	tail -c "+$((before + 1))" "$work/sink" | cmp - "$work/upload"
}

is_in_sink() {
	[ "$(stat -c %s "$work/sink")" -ge "$1" ]
}

@test "all arrives that a client sent before its kernel's reset, thirty times" {
	local length
	for _ in {1..10}; do
		for length in 200 12000 1000000; do
			hasty_sends $length
		done
	done
}

# It writes each byte separately, which takes seconds for a megabyte.
@test "a large download of gnutls-cli arrives whole" {
	needs gnutls-cli
	head -c 200000 /dev/urandom | base64 >"$work/files/text"
	printf 'GET /files/text HTTP/1.0\r\n\r\n' |
		gnutls_client beta.example --logfile "$work/gnutls-cli.log"
	sed '1,/^\r$/d' "$work/out" | cmp - "$work/files/text"
}

# --- the PROXY header ---

# proxied_get: asks proxied.example. Sets $from and $to, the addresses and ports of the client's
# socket.
proxied_get() {
	local ends='%{local_ip} %{local_port}\n%{remote_ip} %{remote_port}\n'
	curl_file proxied.example / "$@" --output "$work/out" \
		--write-out "$ends" >"$work/ends" || return
	{ read -r from && read -r to; } <"$work/ends"
}

@test "a backend learns the client's address from send-proxy-v1" {
	proxied_get --interface 127.0.0.2
	[[ $from == "127.0.0.2 "* ]]
	[ "$to" = "127.0.0.1 $port" ]
	out_has "from=$from"
	out_has "to=$to"
}

@test "the PROXY header comes and goes with the file" {
	local file
	file=$work/$(host_directory proxied.example)/send-proxy-v1
	rm "$file"
	run proxied_get
	echo "anything" >"$file"
	[ "$status" -eq 35 ] # without it, nginx takes the hello for a malformed header
	proxied_get
	out_has "from=$from"
}

@test "a backend learns the address of an IPv6 client" {
	needs_address ::1
	start_proxy ipv6 ::1
	address='[::1]' proxied_get
	[[ $from == "::1 "* ]]
	out_has "from=$from"
	out_has "to=::1 $port"
	stop_proxy ipv6
}

@test "an IPv4 client of an IPv6 socket is shown as IPv4" {
	needs_address ::ffff:127.0.0.1
	start_proxy mapped ::ffff:127.0.0.1
	proxied_get
	[[ $from == "127.0.0.1 "* ]]
	out_has "from=$from"
	out_has "to=127.0.0.1 $port"
	stop_proxy mapped
}

# --- the end ---

@test "the proxy ends in good order" {
	stop_proxy proxy
}

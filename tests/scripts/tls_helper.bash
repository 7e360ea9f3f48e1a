# Shared by tests with TLS: certificates, real TLS servers on Unix sockets, the proxy in front of
# them, and real TLS clients. All files are in the directory $work; stop_all ends all processes.

# Waits until a command succeeds. The limit only keeps a failed test from hanging.
await() {
	local tries
	for ((tries = 500; tries > 0; tries--)); do
		"$@" && return
		sleep 0.02
	done
	echo "waited in vain for: $*" >&2
	show_logs >&2
	return 1
}

show_logs() {
	tail -v -n 20 "$work"/*.log
}

# require_programs VARIABLE...: requires these programs too.
require_programs() {
	local program
	for program in SNIPROXY SNIPROXY_HOSTNAME LISTEN "$@"; do
		[ -x "${!program}" ] && continue
		echo "$program=${!program}: not a program" >&2
		return 1
	done
}

# --- certificates ---

# new_certificate FILE SUBJECT OPTIONS...: makes FILE.pem and FILE.key. The empty configuration file
# excludes the system's extensions.
new_certificate() {
	openssl req -x509 -config /dev/null -days 2 -subj "$2" "${@:3}" \
		-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-keyout "$work/$1.key" -out "$work/$1.pem" 2>"$work/req.log" && return
	cat "$work/req.log" >&2
	return 1
}

make_authority() {
	new_certificate ca '/CN=Authority of the tests' \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
}

# make_certificate FILE NAMES: signed by the authority; NAMES as in subjectAltName.
make_certificate() {
	new_certificate "$1" "/CN=$1" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
		-addext basicConstraints=CA:FALSE -addext keyUsage=digitalSignature \
		-addext "subjectAltName=$2"
}

# --- hosts and their servers ---

# The directory of a host, relative to $work. Sockets are bound by relative names, so that they fit
# into an address wherever $work is.
host_directory() {
	local directory
	directory=$("$SNIPROXY_HOSTNAME" "$1") && echo "hosts/$directory"
}

# make_host NAME: its directory and certificate.
make_host() {
	local directory
	directory=$(host_directory "$1")
	mkdir "$work/$directory"
	make_certificate "$1" "DNS:$1"
}

# background LOG COMMAND...: runs it in $work until stop_all. bats waits for processes that hold its
# descriptor 3.
background() {
	(cd "$work" && exec "${@:2}") </dev/null >"$work/$1" 2>&1 3>&- &
	echo $! >>"$work/servers"
}

# Where nginx keeps temporary files: not where only root may write.
nginx_paths() {
	echo "client_body_temp_path nginx-body;"
	local module
	for module in proxy fastcgi uwsgi scgi; do
		echo "${module}_temp_path nginx-$module;"
	done
}

# nginx_host NAME LISTEN-OPTIONS DIRECTIVES: a host that prints what its server knows of the
# connection, and keeps files.
nginx_host() {
	make_host "$1"
	cat >>"$work/nginx.conf" <<-END
	server {
		listen unix:$(host_directory "$1")/tls-socket ssl $2;
		server_name $1;
		ssl_certificate $1.pem;
		ssl_certificate_key $1.key;
		$3
		location = / {
			return 200 "host=\$server_name
	sni=\$ssl_server_name
	tls=\$ssl_protocol
	reused=\$ssl_session_reused
	subject=\$ssl_client_s_dn
	verified=\$ssl_client_verify
	from=\$proxy_protocol_addr \$proxy_protocol_port
	to=\$proxy_protocol_server_addr \$proxy_protocol_server_port
	";
		}
		location /files/ {
			root .;
			dav_methods PUT;
		}
		location /full/ {
			dav_methods PUT;
			client_max_body_size 1;
			lingering_close off;
		}
	}
	END
}

start_nginx() {
	cat >"$work/nginx.conf" <<-END
	daemon off;
	master_process off;
	pid nginx.pid;
	events { }
	http {
	access_log off;
	default_type text/plain;
	$(nginx_paths)
	client_max_body_size 0;
	ssl_protocols TLSv1.2 TLSv1.3;
	END
	nginx_host alpha.example http2
	nginx_host beta.example
	nginx_host gamma.example "" "ssl_ecdh_curve secp384r1;"
	nginx_host members.example "" \
		"ssl_client_certificate ca.pem; ssl_verify_client on;"
	nginx_host early.example "" "ssl_early_data on; ssl_session_cache builtin:100;"
	nginx_host proxied.example proxy_protocol
	touch "$work/$(host_directory proxied.example)/send-proxy-v1"
	echo "}" >>"$work/nginx.conf"

	mkdir "$work/files"
	background nginx.log nginx -p "$work" -c "$work/nginx.conf" -e stderr
	await test -s "$work/nginx.pid"
}

# openssl.example asks for a client certificate and shows it; the log holds every message.
# Its socket is elsewhere: s_server cannot name one of more than 31 bytes.
start_openssl() {
	make_host openssl.example
	ln -s ../../openssl.socket "$work/$(host_directory openssl.example)/tls-socket"
	background openssl.log openssl s_server -unix openssl.socket -www -msg \
		-verify 1 -CAfile ca.pem -cert openssl.example.pem \
		-key openssl.example.key
	await grep -q "^ACCEPT\( \|$\)" "$work/openssl.log"
}

# sink.example sends nothing but what TLS needs, and appends what it receives to a file. Its stdin,
# a pipe without a writer, stays silent.
start_sink() {
	make_host sink.example
	ln -s ../../sink.socket "$work/$(host_directory sink.example)/tls-socket"
	mkfifo "$work/silence"
	# shellcheck disable=SC2016 # for the other shell
	background sink.log sh -c 'exec openssl s_server -unix sink.socket -quiet \
		-cert sink.example.pem -key sink.example.key <>silence >sink'
	# The socket exists before the server listens.
	await answers_at sink.socket
}

answers_at() { # SOCKET, relative to $work
	(cd "$work" && openssl s_client -unix "$1" </dev/null >/dev/null 2>&1)
}

has_gnutls_server() {
	local program
	for program in gnutls-serv ip nsenter systemd-socket-activate \
		/lib/systemd/systemd-socket-proxyd; do
		command -v "$program" >/dev/null || return
	done
	unshare --map-root-user --net true
}

# gnutls-serv supports only TCP, on all addresses and a fixed port: it gets a network of its own,
# and systemd's socket proxy there gives it a Unix socket.
start_gnutls() {
	has_gnutls_server 2>"$work/gnutls.log" || return 0
	make_host gnutls.example
	background gnutls.log unshare --map-root-user --net sh -c '
		ip link set lo up
		exec gnutls-serv --port 5556 --http --earlydata --disable-client-cert \
			--x509certfile gnutls.example.pem \
			--x509keyfile gnutls.example.key'
	await grep -q "IPv4 .*done" "$work/gnutls.log"
	background bridge.log nsenter --target "$(tail -n 1 "$work/servers")" \
		--user --net --preserve-credentials systemd-socket-activate \
		-l "$work/$(host_directory gnutls.example)/tls-socket" \
		/lib/systemd/systemd-socket-proxyd 127.0.0.1:5556
	await grep -q "Listening on" "$work/bridge.log"
}

# --- the proxy ---

# start_proxy NAME ADDRESS: sets $port. Its log, process and exit status are in $work/NAME.*.
start_proxy() {
	local files=$work/$1
	mkfifo "$files.port"
	(
		cd "$work/hosts"
		"$LISTEN" "$2" 0 "$SNIPROXY" 2>"$files.log" 3>"$files.port" &
		echo $! >"$files.pid"
		wait $!
		echo $? >"$files.status"
	) >/dev/null 2>&1 3>&- &
	read -r port <"$files.port"
	await test -s "$files.pid"
}

# stop_proxy NAME: its exit status must be 0, without a report of a sanitizer.
stop_proxy() {
	kill -TERM "$(cat "$work/$1.pid")"
	await test -s "$work/$1.status"
	[ "$(cat "$work/$1.status")" = 0 ] &&
		! grep -E "Sanitizer|runtime error" "$work/$1.log"
}

stop_all() {
	local pid file
	[ -e "$work/servers" ] || return 0
	for pid in $(cat "$work/servers"); do
		kill -TERM "$pid" 2>/dev/null || :
		wait "$pid" || :
	done
	for file in "$work"/*.port; do
		file=${file%.port}
		[ ! -e "$file.pid" ] || [ -s "$file.status" ] || stop_proxy "${file##*/}"
	done
}

# --- the clients ---

# Each asks NAME for its page; further options are for the client. Its output goes to $work/out, and
# its exit status is the function's.

request() {
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1"
}

openssl_get() {
	request "$1" | openssl_client -servername "$1" -verify_hostname "$1" "${@:2}"
}

# It sends its stdin.
openssl_client() {
	timeout 60 openssl s_client -connect "127.0.0.1:$port" -verify_return_error \
		-CAfile "$work/ca.pem" -ign_eof "$@" >"$work/out" 2>&1
}

gnutls_get() {
	request "$1" | gnutls_client "$1" "${@:2}"
}

gnutls_client() {
	timeout 60 gnutls-cli --port "$port" --sni-hostname "$1" --verify-hostname "$1" \
		--x509cafile "$work/ca.pem" "${@:2}" 127.0.0.1 >"$work/out" 2>&1
}

curl_get() {
	curl_file "$1" / "${@:2}" >"$work/out" 2>&1
}

# curl_file NAME PATH OPTIONS...: writes the file to stdout.
curl_file() {
	timeout 60 curl --silent --show-error --resolve "$1:$port:${address:-127.0.0.1}" \
		--cacert "$work/ca.pem" "https://$1:$port$2" "${@:3}"
}

# out_has LINE, out_shows TEXT: the client's output has it.
out_has() {
	grep -aqxF -e "$1" "$work/out"
}

out_shows() {
	grep -aqF -e "$1" "$work/out"
}

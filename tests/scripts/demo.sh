#!/bin/sh
# Three real TLS servers behind sniproxy, until Ctrl-C. "make demo" runs it.
set -eu

fail() {
	echo "demo: $*" >&2
	exit 1
}

# However the demo ends, nothing is left behind. The servers end first: that ends all connections,
# so that the proxy does not wait for any.
clean_up() {
	status=$?
	trap '' INT TERM HUP PIPE
	[ -n "$log" ] || [ -z "$proxy" ] || show_log
	for process in $servers $proxy; do
		kill "$process" 2>/dev/null || :
	done
	for process in $servers; do
		wait "$process" || :
	done
	if [ -n "$proxy" ] && ! wait "$proxy"; then
		echo "demo: sniproxy did not end well" >&2
		status=1
	fi
	[ -z "$log" ] || wait "$log" || :
	[ -z "$directory" ] || rm -r "$directory"
	exit "$status"
}

absolute() {
	case $1 in
	/*) echo "$1" ;;
	*) echo "$PWD/$1" ;;
	esac
}

# Prints the path as the shell takes it, in quotes if it needs them.
quoted() {
	case $1 in
	*[!A-Za-z0-9_./+-]*)
		printf "'%s'" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")"
		;;
	*)
		printf %s "$1"
		;;
	esac
}

# wait_for COMMAND: a server needs some milliseconds; fails after ten seconds.
wait_for() {
	tries=200
	until eval "$1"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.05
	done
}

# certificate FILE SUBJECT OPTIONS...: makes FILE.pem and FILE.key.
certificate() {
	file=$1 subject=$2
	shift 2
	openssl req -x509 -config /dev/null -days 2 -subj "$subject" "$@" \
	    -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
	    -keyout "$file.key" -out "$file.pem" 2>openssl.log ||
		fail "no certificate for $subject: $(tail -n 1 openssl.log)"
}

# start_nginx, in the directory of a host's server.
start_nginx() {
	cat >nginx.conf <<-END
	daemon off;
	master_process off;
	pid nginx.pid;
	error_log nginx.log;
	events { }
	http {
		access_log off;
		charset utf-8;
		default_type text/plain;
		client_body_temp_path body;
		proxy_temp_path proxy;
		fastcgi_temp_path fastcgi;
		uwsgi_temp_path uwsgi;
		scgi_temp_path scgi;
		server {
			listen unix:tls-socket ssl;
			ssl_certificate server.pem;
			ssl_certificate_key server.key;
			root .;
			index page;
		}
	}
	END
	nginx -p . -c nginx.conf -e nginx.log 2>/dev/null &
	servers="$servers $!"
	wait_for '[ -s nginx.pid ]' || fail "nginx does not start: $(tail -n 1 nginx.log)"
}

start_openssl() {
	openssl s_server -unix tls-socket -cert server.pem -key server.key -WWW \
	    >openssl.log 2>&1 &
	servers="$servers $!"
	wait_for 'grep -q ACCEPT openssl.log' ||
		fail "openssl s_server does not start: $(tail -n 1 openssl.log)"
}

# add_host NAME ASCII-NAME: a TLS server with a certificate and a page, and the directory
# that leads to it.
add_host() {
	host=$("$SNIPROXY_HOSTNAME" "$1") || fail "sniproxy-hostname refuses $1"
	mkdir -p "$directory/servers/$2" "$directory/hosts/$host"
	cd "$directory/servers/$2"
	echo "This is $1." >page
	certificate server "/CN=$2" -CA "$directory/ca.pem" -CAkey "$directory/ca.key" \
	    -addext "subjectAltName=DNS:$2" -addext basicConstraints=CA:FALSE
	"start_$server"
	ln -s "../../servers/$2/tls-socket" "$directory/hosts/$host/tls-socket"
}

# Sets port, which the kernel chooses. The proxy's log stays in a FIFO until show_log, so that it is
# not printed among the answers. Descriptor 4 keeps the FIFO open until then.
start_proxy() {
	mkfifo "$directory/port" "$directory/log"
	exec 4<>"$directory/log"
	cd "$directory/hosts"
	"$LISTEN" 127.0.0.1 0 "$SNIPROXY" 2>"$directory/log" 3>"$directory/port" 4>&- &
	proxy=$!
	read -r port <"$directory/port" || fail "sniproxy does not start"
}

# Starts to print the proxy's log, until it ends.
show_log() {
	exec 5<"$directory/log" 4>&-
	cat <&5 >&2 &
	log=$!
	exec 5<&-
}

# show NAME: prints a command that anybody can paste, and its output. Returns its status.
show() {
	command="curl -sS $options--resolve $1:$port:127.0.0.1"
	command="$command --cacert $(quoted "$directory/ca.pem") https://$1:$port/$page"
	printf '  %s\n' "$command"
	if answer=$(eval "$command" 2>&1); then status=0; else status=$?; fi
	printf '    %s\n\n' "$answer"
	return "$status"
}

# show_host NAME ASCII-NAME
show_host() {
	echo "$1, in the directory $("$SNIPROXY_HOSTNAME" "$1"):"
	show "$2" || fail "$1 cannot be reached"
}

for program in curl openssl; do
	command -v $program >/dev/null || fail "$program is not installed"
done
SNIPROXY=$(absolute "${SNIPROXY:?run make demo}")
SNIPROXY_HOSTNAME=$(absolute "${SNIPROXY_HOSTNAME:?run make demo}")
LISTEN=$(absolute "${LISTEN:?run make demo}")

server=openssl page=page
if command -v nginx >/dev/null; then
	server=nginx page=
fi
options=
if [ -n "${https_proxy-}${HTTPS_PROXY-}${all_proxy-}${ALL_PROXY-}" ]; then
	options="--noproxy '*' "
fi

exec </dev/null
servers='' proxy='' log='' directory=''
trap clean_up EXIT
trap 'exit 0' INT TERM HUP
trap 'exit 1' PIPE
directory=$(mktemp -d "$(absolute "${TMPDIR:-/tmp}")/sniproxy-demo.XXXXXX")

cd "$directory"
certificate ca "/CN=Authority of the demo" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
add_host blog.example blog.example
add_host shop.example shop.example
add_host bücher.example xn--bcher-kva.example
start_proxy

echo "sniproxy listens on 127.0.0.1:$port, with the hosts in $directory/hosts."
echo "Each name leads to a TLS server ($server) of its own."
echo
show_host blog.example blog.example
show_host shop.example shop.example
show_host bücher.example xn--bcher-kva.example
echo "A name without a directory is refused:"
! show nobody.example || fail "nobody.example was not refused"
echo "Serving until Ctrl-C; the commands work in other terminals. This is sniproxy's log:"
show_log

wait "$proxy" || :
proxy=
fail "sniproxy ended by itself"

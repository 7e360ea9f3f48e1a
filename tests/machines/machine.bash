# A small machine for one test: processes, mounts and a loopback network of its own, in which the
# lines of README.md work unchanged, with port 443, /srv/sniproxy, /usr/local/sbin and the user
# sniproxy. Nothing outside of it is changed, and its processes end with it.
#
# $work is the test's directory, inside and outside; its files ca.pem, blog.example.pem and
# blog.example.key are the server's.
# shellcheck disable=SC2154 # work is the test's

# The block N of a document below HEADING.
readme() { # HEADING [N]
	"$BATS_TEST_DIRNAME/readme.sh" "$@"
}

inside() { # COMMAND...
	nsenter --target "$machine" --mount --net --pid -- "$@"
}

# Like background, in the machine.
background_inside() { # LOG COMMAND...
	background "$1" nsenter --target "$machine" --mount --net --pid -- "${@:2}"
}

# Runs in the new namespaces, until it is killed, or the test is.
furnish_machine() {
	local device
	mount -t tmpfs tmpfs /srv
	mount -t tmpfs tmpfs /usr/local/sbin
	mount -t tmpfs tmpfs /run
	mkdir -p /srv/sniproxy/blog.example "$work/dev"
	install -m 755 "$SNIPROXY" /usr/local/sbin/sniproxy
	{ grep -v '^sniproxy:' /etc/passwd; echo 'sniproxy:x:64321:64321::/:/usr/sbin/nologin'; } \
		>"$work/passwd"
	{ grep -v '^sniproxy:' /etc/group; echo 'sniproxy:x:64321:'; } >"$work/group"
	mount --bind "$work/passwd" /etc/passwd
	mount --bind "$work/group" /etc/group
	# With a /dev/log of its own.
	mount -t tmpfs tmpfs "$work/dev"
	for device in null zero full random urandom tty; do
		cp -a "/dev/$device" "$work/dev"
	done
	mount --move "$work/dev" /dev
	ip link set lo up
	touch "$work/furnished"
	exec sleep 300
}

# Starts it, with an nginx that says hello as blog.example; sets $machine.
start_machine() {
	[ "$(id -u)" = 0 ] || skip "needs root, for namespaces and another user"
	unshare --mount --net --pid --fork true || skip "namespaces cannot be had here"
	export -f furnish_machine
	background machine.log unshare --mount --net --pid --fork --kill-child --mount-proc \
		bash -eu -c furnish_machine
	await test -e "$work/furnished"
	local parent
	parent=$(tail -n 1 "$work/servers")
	machine=$(cat "/proc/$parent/task/$parent/children")
	machine=${machine% }

	cat >"$work/nginx.conf" <<-END
		daemon off;
		master_process off;
		pid nginx.pid;
		events { }
		http {
			access_log off;
			default_type text/plain;
			keepalive_timeout 1h;
			server {
				listen unix:/srv/sniproxy/blog.example/tls-socket ssl;
				ssl_certificate blog.example.pem;
				ssl_certificate_key blog.example.key;
				location / { return 200 "hello"; }
			}
		}
	END
	background_inside nginx.log nginx -p "$work" -c "$work/nginx.conf" -e stderr
	await test -s "$work/nginx.pid"
}

# All processes in the machine end with the first one there.
stop_machine() {
	local pid
	rm -f "$work/go-on"
	[ -e "$work/servers" ] || return 0
	[ -z "${machine-}" ] || kill -KILL "$machine"
	for pid in $(cat "$work/servers"); do
		wait "$pid" || :
	done
	wait
}

# The process IDs, in the machine, of processes with such a name.
processes() { # NAME
	inside sh -c "grep -lx '$1' /proc/[0-9]*/comm" | cut -d / -f 3 | sort -n
}

# --- clients ---

says_hello() { # ADDRESS
	[ "$(inside curl -sS --max-time 30 --cacert "$work/ca.pem" \
		--resolve "blog.example:443:$1" https://blog.example/)" = hello ]
}

# Prints what a client of a name without a directory gets.
refusal() { # NAME
	{ inside openssl s_client -connect 127.0.0.1:443 -servername "$1" </dev/null 2>&1 || :; } |
		{ grep -o 'alert number [0-9]*' || :; }
}

# Opens a connection and gets an answer on it; $held is the client's process ID.
hold() { # [ADDRESS]
	mkfifo "$work/hold"
	: >"$work/held" # which the client opens after the FIFO, when answers are counted already
	inside openssl s_client -quiet -no_ign_eof -connect "${1-127.0.0.1}:443" \
		-servername blog.example <"$work/hold" >"$work/held" 2>"$work/held.log" 3>&- &
	held=$!
	exec {request}>"$work/hold"
	ask_again
}

# Asks once more on that connection.
ask_again() {
	local answers
	answers=$(grep -c hello "$work/held" || :)
	printf 'GET / HTTP/1.1\r\nHost: blog.example\r\n\r\n' >&"$request"
	await answered_more_than "$answers"
}

answered_more_than() {
	[ "$(grep -c hello "$work/held")" -gt "$1" ]
}

let_go() {
	exec {request}>&-
	wait "$held" || :
}

# Clients, one after another or COUNT at a time, until stop_clients, which fails if one of them did.
start_clients() { # [ADDRESS [COUNT]]
	local count
	touch "$work/go-on" "$work/clients"
	clients=()
	for ((count = ${2-1}; count > 0; count--)); do
		while [ -e "$work/go-on" ]; do
			says_hello "${1-127.0.0.1}" || echo failed >>"$work/failures"
			echo >>"$work/clients"
		done >>"$work/clients.log" 2>&1 3>&- &
		clients+=($!)
	done
	served_more_than 5
}

served_more_than() { # COUNT, from now on
	local count
	count=$(wc -l <"$work/clients")
	await count_is_over $((count + $1))
}

count_is_over() {
	[ "$(wc -l <"$work/clients")" -gt "$1" ]
}

stop_clients() {
	rm "$work/go-on"
	wait "${clients[@]}"
	[ ! -e "$work/failures" ] || {
		cat "$work/clients.log"
		return 1
	}
}

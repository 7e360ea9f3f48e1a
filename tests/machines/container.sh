#!/bin/bash
# The units under a real systemd: boots one in a container that sees this machine's files through an
# overlay and has only a loopback interface. Installs STAGE, made by `make install`, in it, and uses
# that, with README.md's commands if it has them. Nothing outside of the container is changed.
# HASHED_STAGE is the same of a HASHED build.
#
# usage: tests/machines/container.sh STAGE [HASHED_STAGE]
#     as root, after make install DESTDIR=STAGE PREFIX=/usr/local
# GUEST=SCRIPT in the environment: runs SCRIPT in it instead, with `inside`; SCRIPT may source this
# one, which is beside it then.
set -eu -o pipefail

give_up() {
	echo "${0##*/}: $*" >&2
	exit 2
}

skip() {
	echo "1..0 # SKIP $*"
	exit 0
}

# ---- Outside ----

# If systemd does not run, the container has no cgroup, and would make its own at the top. Prints
# the hierarchies' directories, this process's first.
cgroup_mounts() {
	awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts
}

enter_cgroup() {
	local mount
	for mount in $(cgroup_mounts); do
		mkdir "$mount/$1" 2>/dev/null || continue
		# A cgroup with an empty cpuset takes no process.
		[ ! -e "$mount/$1/cpuset.cpus" ] || {
			cat "$mount/cpuset.cpus" >"$mount/$1/cpuset.cpus"
			cat "$mount/cpuset.mems" >"$mount/$1/cpuset.mems"
		}
		echo "$BASHPID" >"$mount/$1/cgroup.procs"
	done
}

remove_cgroup() {
	local mount
	for mount in $(cgroup_mounts); do
		[ ! -d "$mount/$1" ] || find "$mount/$1" -depth -type d -exec rmdir {} +
	done
}

write_guest_units() { # DIRECTORY SCRIPT
	cat >"$1/sniproxy-try.target" <<-END
		[Unit]
		Requires=sysinit.target sockets.target sniproxy-try.service
		AllowIsolate=yes
	END
	cat >"$1/sniproxy-try.service" <<-END
		[Unit]
		After=sockets.target
		SuccessAction=poweroff
		FailureAction=poweroff
		[Service]
		Type=oneshot
		ExecStart=/bin/bash /try/tests/machines/$2 inside
		StandardOutput=append:/try/log
		StandardError=append:/try/log
		TimeoutStartSec=20min
	END
}

# Runs in a mount namespace of its own, so that the overlay ends with this process. Its output is in
# the file console.
run() { # DIRECTORY NAME SYSTEMD-NSPAWN-ARGUMENT...
	# Podman in the container makes keyrings.
	local options=(--register=no --system-call-filter=@keyring)
	exec </dev/null >"$1/console" 2>&1
	if [ ! -d /run/systemd/system ]; then
		options+=(--keep-unit)
		enter_cgroup "$2"
		[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] ||
			export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="${UNIFIED:-1}"
	fi
	mount -t tmpfs -o mode=755 tmpfs "$1/files"
	mkdir "$1/files"/{upper,work,root}
	mount -t overlay -o "lowerdir=/,upperdir=$1/files/upper,workdir=$1/files/work" \
		overlay "$1/files/root"
	cp "$1"/units/* "$1/files/root/etc/systemd/system/"
	exec systemd-nspawn --quiet --directory="$1/files/root" --bind="$1/try:/try" \
		--machine="$2" --private-network --console=pipe "${options[@]}" "${@:3}"
}

# Whether a container can be started at all, before anything in it counts as a failure.
need_containers() {
	local tool
	[ "$(id -u)" = 0 ] || skip "needs root, to boot a container"
	for tool in systemd-nspawn nginx openssl curl setfacl xxh128sum ip ps top make; do
		command -v "$tool" >/dev/null || skip "needs $tool"
	done
	: >"$dir/console"
	unshare --mount -- "$0" run "$dir" "$name" /bin/true 2>>"$dir/console" ||
		skip "systemd-nspawn cannot run here: $(head -n 1 "$dir/console")"
	remove_cgroup "$name"
}

outside() {
	[ -d "${1-}" ] || give_up "no directory STAGE given"
	dir=$(mktemp -d)
	name=sniproxy-try-$$
	container=
	trap '[ -z "$container" ] || kill "$container" 2>/dev/null || :
		wait; remove_cgroup "$name"; rm -rf "$dir"' EXIT
	mkdir -p "$dir"/{files,try/tests/machines,units}
	guest=${GUEST:-$0}
	write_guest_units "$dir/units" "${guest##*/}"
	need_containers
	cp -r "$1" "$dir/try/stage"
	[ -z "${2-}" ] || cp -r "$2" "$dir/try/hashed-stage"
	cp "$0" "${0%/*}"/container_{nginx,check}.sh "$dir/try/tests/machines"
	cp -r "${0%/*}/../scripts" "$dir/try/tests"
	[ -z "${GUEST-}" ] || cp "$GUEST" "$dir/try/tests/machines"
	cp -r "${0%/*}"/../../{*.md,docs,man,packaging,Makefile} "$dir/try"
	: >"$dir/try/log"

	unshare --mount -- "$0" run "$dir" "$name" --boot systemd.unit=sniproxy-try.target &
	container=$!
	tail -n +1 -f --pid="$container" "$dir/try/log" || :
	wait "$container" || :
	container=
	[ "$(cat "$dir/try/status" 2>/dev/null)" = passed ] && return
	[ -s "$dir/try/log" ] || cat "$dir/console"
	exit 1
}

# ---- Inside ----

# Runs a block of a document.
readme() { # HEADING N [SED-SCRIPT]
	local block
	block=$(/try/tests/scripts/readme.sh "$1" "$2")
	bash -eu -c "$(sed "${3-}" <<<"$block")"
}

# Runs a block of a manual page.
manual() { # PAGE HEADING N [SED-SCRIPT]
	local block
	block=$(/try/tests/scripts/manual.sh "$1" "$2" "$3")
	bash -eu -c "$(sed "${4-}" <<<"$block")"
}

# Makes a file of a block of a document.
put() { # FILE HEADING N [SED-SCRIPT]
	mkdir -p "${1%/*}"
	/try/tests/scripts/readme.sh "$2" "$3" | sed "${4-}" >"$1"
}

# Puts a block where `systemctl edit` puts its input.
edit() { # UNIT HEADING N [SED-SCRIPT]
	put "/etc/systemd/system/$1.d/override.conf" "${@:2}"
	systemctl daemon-reload
}

undo_edit() { # UNIT
	rm -r "/etc/systemd/system/$1.d"
	systemctl daemon-reload
}

hosts=/srv/sniproxy
drop_ins=/etc/systemd/system/sniproxy.service.d
number=0
failures=0

ok() { # WHAT COMMAND...
	local what=$1
	shift
	number=$((number + 1))
	if "$@"; then
		echo "ok $number - $what"
	else
		echo "not ok $number - $what ($*)"
		failures=$((failures + 1))
		journalctl --no-pager -q -o short-precise -n 30 | sed 's/^/#   /'
	fi
}

wait_for() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

is() { # VALUE COMMAND...
	local expected=$1 value
	shift
	value=$("$@") || return
	[ "$value" = "$expected" ] || {
		echo "# $*: '$value' instead of '$expected'"
		return 1
	}
}

property() { # UNIT PROPERTY
	systemctl show --property="$2" --value "$1"
}

main_pid() {
	property sniproxy.service MainPID
}

ask() { # NAME ADDRESS[:PORT] [CURL OPTION...]
	local host=$1 address=$2
	shift 2
	case $address in
	*.*:* | *]:*) ;;
	*) address=$address:443 ;;
	esac
	curl -sSk --max-time 60 --connect-to "::$address" "$@" "https://$host/"
}

answers() { # NAME [CURL OPTION...]
	is "hello from $1" ask "$1" 127.0.0.1 "${@:2}"
}

in_journal() { # PATTERN
	journalctl --sync
	journalctl -q -o cat -u sniproxy.service | grep -E "$1" >/dev/null
}

alert() { # NAME
	{ openssl s_client -connect 127.0.0.1:443 -servername "$1" </dev/null 2>&1 || :; } |
		{ grep -o 'alert number [0-9]*' || :; }
}

# An open connection, with the client's process ID in $held, until let_go.
hold() { # NAME [ADDRESS:PORT]
	rm -f /tmp/held
	mkfifo /tmp/hold
	openssl s_client -quiet -no_ign_eof -connect "${2-127.0.0.1:443}" -servername "$1" \
		</tmp/hold >/tmp/held 2>&1 &
	held=$!
	exec {hold_input}>/tmp/hold
	rm /tmp/hold
	printf 'GET / HTTP/1.1\r\nHost: %s\r\n\r\n' "$1" >&"$hold_input"
	wait_for 10 grep -qs 'hello from' /tmp/held
}

let_go() {
	exec {hold_input}>&-
	wait "$held" || :
}

# One client; notes its seconds.
timed_client() {
	local said
	said=$(ask blog.example 127.0.0.1 -w ' %{time_total}') &&
		[ "${said% *}" = "hello from blog.example" ] || echo failed >>/tmp/load-failed
	echo "${said##* }" >>/tmp/load-times
}

# Clients, one after another in each of four loops, until the file is gone.
start_load() {
	: >/tmp/load
	: >/tmp/load-failed
	: >/tmp/load-times
	loaders=()
	for _ in 1 2 3 4; do
		while [ -e /tmp/load ]; do
			timed_client
		done &
		loaders+=($!)
	done
}

served_more_than() {
	[ "$(wc -l </tmp/load-times)" -gt "$1" ]
}

stop_load() {
	rm /tmp/load
	wait "${loaders[@]}"
	echo "# $(wc -l </tmp/load-times) connections, the slowest: $(slowest) s"
	[ ! -s /tmp/load-failed ]
}

slowest() {
	sort -n /tmp/load-times | tail -n 1
}

# No new connection has waited for the open ones.
none_waited() {
	awk "BEGIN { exit !($(slowest) < 0.5) }"
}

milliseconds_of() { # COMMAND...; sets $took
	local start
	start=$(date +%s%N)
	"$@" || :
	took=$((($(date +%s%N) - start) / 1000000))
	echo "# $* took $took ms"
}

took_between() { # MS MS
	[ "$took" -ge "$1" ] && [ "$took" -le "$2" ]
}

install_stage() { # STAGE; replaces a running program, as install(1) does
	cp -r --no-preserve=ownership --remove-destination "$1/." /
	systemctl daemon-reload
	program=$(sed -n 's/^ExecStart=//p' "$(property sniproxy.service FragmentPath)")
}

drop_in() { # LINE...
	mkdir -p "$drop_ins"
	printf '%s\n' '[Service]' "$@" >"$drop_ins/try.conf"
	systemctl daemon-reload
}

no_drop_in() {
	rm -r "$drop_ins"
	systemctl daemon-reload
}

# The longest name that curl and the DNS allow has 253 bytes; sniproxy allows one more.
long_name() { # LENGTH
	local label
	label=$(printf 'a%.0s' {1..62})
	printf "%s.%s.%s.%0$(($1 - 197))d.example\n" "$label" "$label" "$label" 0
}

# With openssl, which takes names that curl rejects.
says_hello() { # NAME
	printf 'GET / HTTP/1.0\r\nHost: long\r\n\r\n' |
		openssl s_client -quiet -connect 127.0.0.1:443 -servername "$1" 2>&1 |
		grep 'hello from long' >/dev/null
}

server() { # SOCKET [LISTEN OPTION] [VARIABLE]
	cat <<-END
		server {
			listen $1 ssl ${2-};
			location / { return 200 "hello from \$host${3-}"; }
			location /slow/ { alias /tmp/slow/; limit_rate 100k; }
		}
	END
}

start_backends() {
	mkdir "$hosts"/{shop.example,private.example,long} /late
	ln -s long "$hosts/$(long_name 253)"
	ln -s long "$hosts/$(long_name 254)"
	: >"$hosts/shop.example/send-proxy-v1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-subj /CN=example -keyout /tmp/key -out /tmp/certificate 2>/dev/null
	chmod 644 /tmp/key
	cat >/tmp/nginx.conf <<-END
		daemon off;
		error_log stderr;
		pid /tmp/nginx.pid;
		events {}
		http {
			access_log off;
			default_type text/plain;
			keepalive_timeout 1h;
			keepalive_requests 1000000;
			ssl_certificate /tmp/certificate;
			ssl_certificate_key /tmp/key;
			$(server "unix:$hosts/blog.example/tls-socket")
			$(server "unix:$hosts/shop.example/tls-socket" proxy_protocol \
				" to \$proxy_protocol_addr")
			$(server "unix:$hosts/private.example/tls-socket")
			$(server "unix:$hosts/long/tls-socket")
			$(server unix:/late/tls-socket)
			$(server 127.0.0.1:9443)
		}
	END
	nginx -c /tmp/nginx.conf &
	nginx=$!
	wait_for 10 test -s /tmp/nginx.pid # which exists after it listens
}

try_serving() {
	ok "the program is not started before it is needed" \
		is inactive property sniproxy.service ActiveState
	ok "the first check" is "hello from blog.example" readme '### First check' 1 's/^curl/& -ksS/'
	ok "and that from elsewhere" is "hello from blog.example" \
		readme '### Is the port open?' 1 's/^curl/& -ksS/; s/198\.51\.100\.1/127.0.0.1/'
	ok "it is over IPv4" answers blog.example
	ok "it is over IPv6" is "hello from blog.example" ask blog.example '[::1]'
	ok "the PROXY header names the client over IPv4" \
		is "hello from shop.example to 127.0.0.1" ask shop.example 127.0.0.1
	ok "the PROXY header names the client over IPv6" \
		is "hello from shop.example to ::1" ask shop.example '[::1]'
	ok "a name of 253 bytes" answers "$(long_name 253)"
	ok "a name of 254 bytes" says_hello "$(long_name 254)"
	ok "an unknown name has alert 112" is "alert number 112" alert nobody.example
	ok "and a line in the journal" in_journal '^127\.0\.0\.1:[0-9]+ nobody\.example: '
}

try_hosts() {
	chmod 700 "$hosts/private.example"
	ok "a directory without a right to it" is "alert number 112" alert private.example
	ok "is said in the journal" in_journal ' private\.example: .*Permission denied'
	chgrp sniproxy "$hosts/private.example"
	chmod 710 "$hosts/private.example"
	ok "the group is enough of a right" answers private.example

	mkdir "$hosts/late.example"
	mount --bind /late "$hosts/late.example"
	ok "a directory that is mounted later" answers late.example
	umount "$hosts/late.example"

	ln -s "$hosts/blog.example" "$hosts/alias.example"
	ok "an absolute symlink in the hosts directory" answers alias.example
	readme '### Remove a host' 1 's/app\.example/alias.example/g'
	ok "a host that is removed" is "alert number 112" alert alias.example
	mv "$hosts/.alias.example" "$hosts/alias.example"

	mkdir /tmp/expected
	mkdir /tmp/expected/{blog,shop,private,late,alias}.example
	mkdir /tmp/expected/{long,"$(long_name 253)","$(long_name 254)"}
	ok "systemd has left nothing there" is "$(ls -A /tmp/expected)" ls -A "$hosts"
}

# The symlinks of docs/backends.md, for hosts of other names; they lead to the backends of this test.
try_symlinks() {
	cd "$hosts"
	mkdir -p .pool .releases/7 pooled.example swapped.example
	ln -s ../long .pool/blue
	readme '### Symlinks' 1 's/blog\.example/pooled.example/g'
	ok "a symlink to a socket" answers pooled.example
	ok "another name of the same host" answers www.pooled.example

	ln -s "$hosts/blog.example/tls-socket" swapped.example/tls-socket
	ln -s ../../shop.example/tls-socket .releases/7/tls-socket
	: >.releases/7/send-proxy-v1
	readme '### Symlinks' 2 's/blog\.example/swapped.example/g'
	ok "a host that is a symlink" answers swapped.example
	readme '### Symlinks' 3 's/blog\.example/swapped.example/g'
	ok "is swapped for another" is "hello from swapped.example to 127.0.0.1" \
		ask swapped.example 127.0.0.1
	cd /
}

# A backend that listens on TCP, on another port here.
try_tcp_backend() {
	local names='s/shop\.example/tcp.example/g' unit=sniproxy-tcp@tcp.example
	edit $unit.service '## A server that listens on TCP only' 1 's/127\.0\.0\.1:8443/127.0.0.1:9443/'
	mkdir "$hosts/tcp.example"
	leave_socket "$hosts/tcp.example"
	readme '## A server that listens on TCP only' 2 "$names"
	ok "a backend on TCP, behind systemd-socket-proxyd, whatever is in its way" answers tcp.example
	ok "over a socket for the proxy alone" is '660 root sniproxy' \
		stat -c '%a %U %G' "$hosts/tcp.example/tls-socket"
	ok "which others cannot use" is_refused nobody \
		'openssl s_client -unix tcp.example/tls-socket </dev/null'
	ok "is there at the next boot" is enabled systemctl is-enabled $unit.socket
	undo_edit $unit.service
	systemctl stop --quiet $unit.service
	ok "without a server the connection is closed" not answers tcp.example 2>/dev/null
	ok "and the service says so" unit_said $unit.service 'Not enough parameters'
	ok "the socket is given up" wait_for 10 is failed property $unit.socket ActiveState
	ok "so that there is no such host" is "alert number 112" alert tcp.example
	edit $unit.service '## A server that listens on TCP only' 1 's/127\.0\.0\.1:8443/127.0.0.1:9443/'
	readme '## A server that listens on TCP only' 4 "$names"
	ok "once it is told where its server is, it can be had back" answers tcp.example
	undo_edit $unit.service
	readme '## A server that listens on TCP only' 3 "$names"
	ok "it can be taken away" is "alert number 112" alert tcp.example

	edit sniproxy-tcp@named-one.example.service '## A server that listens on TCP only' 1 's/127\.0\.0\.1:8443/localhost:9443/'
	readme '## A server that listens on TCP only' 2 's/shop\.example/named-one.example/'
	ok "a name for an address, and a hyphen in the host's" answers named-one.example
	readme '## A server that listens on TCP only' 3 's/shop\.example/named-one.example/'
	undo_edit sniproxy-tcp@named-one.example.service
}

unit_said() { # UNIT TEXT
	journalctl --sync
	journalctl -q -o cat -u "$1" | grep -F "$2" >/dev/null
}

# A socket of a server that was killed. openssl takes no path over 31 bytes.
leave_socket() { # DIRECTORY
	(cd "$1" && exec openssl s_server -unix tls-socket -key /tmp/key -cert /tmp/certificate) \
		>/tmp/killed.log 2>&1 &
	killed=$!
	wait_for 10 grep -qs '^ACCEPT' /tmp/killed.log
	kill -KILL "$killed"
	wait "$killed" || :
	test -S "$1/tls-socket"
}

is_refused_at() { # ADDRESS
	local status=0
	ask blog.example "$1" 2>/dev/null || status=$?
	[ "$status" = 7 ]
}

is_reset_at() { # ADDRESS
	local said
	! said=$(ask blog.example "$1" 2>&1) && grep -qF 'reset by peer' <<<"$said"
}

is_hello_at() { # ADDRESS[:PORT]
	is "hello from blog.example" ask blog.example "$1"
}

add_addresses() {
	ip addr add 192.0.2.1/32 dev lo
	ip addr add 2001:db8::1/128 dev lo nodad
}

# The blocks of docs/starting.md.
try_address() {
	edit sniproxy.socket '## Another port, or one address' 1
	readme '## Another port, or one address' 3
	ok "the socket can be moved to another port" is_hello_at 127.0.0.1:8443
	ok "of all addresses" is_hello_at '[::1]:8443'
	ok "and leaves its own" is_refused_at 127.0.0.1
	edit sniproxy.socket '## Another port, or one address' 2
	readme '## Another port, or one address' 3
	ok "the socket can be moved to an address that the host has not yet" \
		is active property sniproxy.socket ActiveState
	add_addresses
	ok "and serves there later" is_hello_at 192.0.2.1
	ok "at no other" is_refused_at 127.0.0.1
	ok "nor over IPv6" is_refused_at '[2001:db8::1]'
	undo_edit sniproxy.socket
	systemctl restart sniproxy.socket
	ok "and can be moved back" is_hello_at '[::1]'
}

instances() {
	find /etc/systemd/system/ -name 'sniproxy@*' -printf '%P\n'
}

upgrade_addresses() {
	readme '## More than one address' 3
}

try_addresses() {
	local pid
	readme '## More than one address' 1
	ok "another port has a socket of its own" is_hello_at 127.0.0.1:8443
	ok "over IPv6 too" is_hello_at '[::1]:8443'
	ok "beside the first one" is_hello_at 127.0.0.1
	readme '## More than one address' 2
	ok "two addresses have each its own" is_hello_at 192.0.2.1
	ok "with IPv6, too" is_hello_at '[2001:db8::1]'
	ok "and others are not listened at" is_refused_at 127.0.0.1
	pid=$(property sniproxy@8443.service MainPID)
	hold blog.example 127.0.0.1:8443
	upgrade_addresses &
	upgrade=$!
	wait_for 10 is deactivating property sniproxy@8443.service ActiveState
	milliseconds_of is_hello_at 127.0.0.1:8443
	ok "all are upgraded, and no new connection waits" took_between 0 500
	milliseconds_of is_hello_at '[2001:db8::1]'
	ok "whatever their addresses are" took_between 0 500
	let_go
	ok "that ends well" wait "$upgrade"
	ok "all are restarted" is_hello_at 127.0.0.1:8443
	ok "as other processes" [ "$pid" != "$(property sniproxy@8443.service MainPID)" ]
	ok "no standby is left" is "" standbys
	ok "their user is the same" is "$(id -u sniproxy)" \
		stat -c %u "/proc/$(property sniproxy@8443.service MainPID)"
	readme '## More than one address' 4
	ok "they can be stopped" is_refused_at 192.0.2.1
	ok "for good" is "" instances
	systemctl enable --quiet --now sniproxy.socket
	answers blog.example
}

not() {
	! "$@"
}

# Waits for a line of the log that matches a pattern.
soon_in_journal() {
	wait_for 5 in_journal "$1"
}

numbers='seconds=[0-9]+\.[0-9]{3} up=[1-9][0-9]* down=[1-9][0-9]*'

try_report() {
	hold blog.example
	manual sniproxy.8 '.Sh SIGNALS' 1
	ok "on SIGUSR1 there are totals" soon_in_journal \
		"^sniproxy: seconds=.* open=1 "
	let_go

	edit sniproxy.service '## Each connection that ends' 1
	systemctl restart sniproxy.service
	answers blog.example
	ok "with a line in its environment, one that has ended has a line" soon_in_journal \
		"^client=127\.0\.0\.1:[0-9]+ name=blog\.example $numbers end=[a-z-]+\$"
	alert nobody.example
	ok "and so has one that was rejected" soon_in_journal \
		'^client=.* name=nobody\.example .* end=rejected alert=unrecognized_name$'
	undo_edit sniproxy.service
	systemctl restart sniproxy.service
}

# A user's own server for a host of theirs. Its umask decides the rights of its socket.
serve_as() { # USER UMASK NAME; sets $server
	rm -f "/tmp/$1.log" # lines of an earlier server tell nothing
	setpriv --reuid="$1" --regid="$1" --init-groups sh -c "umask $2; cd '$hosts/$3' &&
		exec openssl s_server -unix tls-socket -unlink -www -key /tmp/key \
			-cert /tmp/certificate" >"/tmp/$1.log" 2>&1 &
	server=$!
	wait_for 10 grep -qs '^ACCEPT' "/tmp/$1.log"
}

stop_server() {
	kill "$server"
	wait "$server" || :
}

reaches() { # NAME
	ask "$1" 127.0.0.1 | grep '^Ciphers supported in s_server' >/dev/null
}

is_refused() { # USER COMMAND...
	! runuser -u "$1" -- sh -c "cd '$hosts' && $2" 2>/tmp/refusal &&
		grep -qE 'Operation not permitted|Permission denied' /tmp/refusal
}

# Hosts of users who do not trust each other, as in docs/permissions.md.
try_owners() {
	groupadd hosts
	useradd -M -G hosts alice
	useradd -M -G hosts bob
	useradd -M carol
	readme '## Who may make hosts' 1
	readme '## Who may make hosts' 2
	ok "the hosts directory has the sticky bit" is "1771 hosts" stat -c '%a %G' "$hosts"
	serve_as alice 000 alice.example
	ok "a host that was given to a user" reaches alice.example
	ok "another member of the group makes one" \
		runuser -u bob -- mkdir "$hosts/bob.example"
	runuser -u alice -- mkdir "$hosts/empty.example"
	ok "but cannot rename one of the first's" \
		is_refused bob 'mv empty.example mine.example'
	ok "nor remove it" is_refused bob 'rmdir empty.example'
	ok "nor put a socket into it" is_refused bob 'ln -s /x alice.example/x'
	ok "who is no member makes none" is_refused carol 'mkdir carol.example'
	stop_server
	serve_as bob 000 bob.example
	ok "it is served under the name of its maker's choice" reaches bob.example
	stop_server

	serve_as alice 000 alice.example
	runuser -u bob -- ln -s alice.example "$hosts/link.example"
	ok "a symlink to another member's host" is "alert number 112" alert link.example
	ok "is said in the journal with both users" in_journal \
		" link\.example: host directory: a symlink of user $(id -u bob) to a directory of user $(id -u alice)"
	runuser -u bob -- ln -sf ../alice.example/tls-socket "$hosts/bob.example"
	ok "a symlink to another member's socket" is "alert number 112" alert bob.example
	ok "is said in the journal, too, with both" in_journal \
		" bob\.example: tls-socket: user $(id -u alice) listens in the host directory of user $(id -u bob)"
	ok "sniproxy-check finds both, for the service's user" checked sniproxy-check --unit sniproxy.service
	ok "with the same numbers" said "a symlink of user $(id -u bob) to a directory of user $(id -u alice)"
	ok "as in the log" said "user $(id -u alice) listens in the host directory of user $(id -u bob)"
	chmod 755 "$hosts"
	ok "where root alone makes hosts, that is root's to look after" reaches bob.example
	readme '## Which user may listen' 2
	ok "but for root's group, it is looked after" is "alert number 112" alert bob.example
	chgrp hosts "$hosts"
	chmod 1771 "$hosts"
	runuser -u alice -- ln -s alice.example "$hosts/own.example"
	ok "a symlink of one's own" reaches own.example
	stop_server

	serve_as alice 007 alice.example
	ok "a socket without rights for others" is "alert number 112" alert alice.example
	ok "is said in the journal, too" \
		in_journal ' alice\.example: tls-socket: Permission denied'
	stop_server
	readme '## The socket, by server' 1
	serve_as alice 007 alice.example
	ok "a directory of the proxy's group opens it to the proxy" reaches alice.example
	ok "and not to others" is_refused bob \
		'openssl s_client -unix alice.example/tls-socket </dev/null'
	stop_server
	serve_as alice 000 alice.example
	readme '## Keeping others away' 1 's/blog/alice/g'
	ok "nor does a directory for both alone, whatever the socket's rights are" is_refused \
		bob 'openssl s_client -unix alice.example/tls-socket </dev/null'
	ok "which the proxy reaches" reaches alice.example
	stop_server
	chgrp alice "$hosts/alice.example"
	chmod g-s,u=rwx,go= "$hosts/alice.example"
	readme '## By an ACL' 1
	serve_as alice 007 alice.example
	ok "an ACL that it inherits opens it to the proxy" reaches alice.example
	ok "and to nobody else" is_refused bob \
		'openssl s_client -unix alice.example/tls-socket </dev/null'
	stop_server
	serve_as alice 077 alice.example
	ok "not where the umask is narrower" is "alert number 112" alert alice.example
	readme '## By an ACL' 2
	ok "but one of the socket's own does" reaches alice.example
	manual sniproxy.8 '.Sh EXAMPLES' 1 's/server\.example/127.0.0.1/' </dev/null >/tmp/output 2>&1
	ok "as sniproxy(8) has it seen" grep -q '^issuer=CN = example' /tmp/output
	stop_server

	readme '## The socket, by server' 1 's/alice\.example/group.example/'
	cat >/etc/systemd/system/group.service <<-END
		[Service]
		User=alice
		WorkingDirectory=$hosts/group.example
		ExecStart=openssl s_server -unix tls-socket -unlink -www -key /tmp/key -cert /tmp/certificate
	END
	edit group.service '## The socket, by server' 2
	systemctl start group.service
	ok "the directory's group, and a umask of systemd's" wait_for 10 reaches group.example
	ok "let nobody else in" is_refused bob 'ls group.example'
	systemctl stop group.service
	undo_edit group.service
}

status_line() { # NAME
	sed -n "s/^$1:[[:space:]]*//p" "/proc/$(main_pid)/status"
}

namespace_is_own() { # NAME
	[ "$(readlink "/proc/$(main_pid)/ns/$1")" != "$(readlink "/proc/1/ns/$1")" ]
}

# Descriptors 1 and 2 are sockets of the journal, not the listening socket.
output_is_apart() {
	local in out error
	in=$(readlink "/proc/$(main_pid)/fd/0")
	out=$(readlink "/proc/$(main_pid)/fd/1")
	error=$(readlink "/proc/$(main_pid)/fd/2")
	[ "$in" != "$out" ] && [ "$in" != "$error" ]
}

# The files in its root that are on no file system of their own, such as /proc.
files_in_root() {
	find "/proc/$(main_pid)/root/" -xdev ! -type d -printf '/%P\n'
}

hosts_in_root() {
	ls -A "/proc/$(main_pid)/root/$hosts"
}

# What is mounted read-write in its root, except for /proc and the devices' own.
writable_mounts() {
	awk '$6 ~ /^rw/ { print $5 }' "/proc/$(main_pid)/mountinfo" |
		grep -vxE '/proc|/dev/(pts|mqueue|hugepages)' || :
}

open_files() {
	awk '/^Max open files/ { print $4 == $5 ? $5 : "soft limit " $4 }' "/proc/$1/limits"
}

files_are_many() {
	local files most
	files=$(open_files "$(main_pid)")
	most=$(awk '/^Max open files/ { print $5 }' /proc/1/limits)
	[ "$files" = 524288 ] || [ "$files" = "$most" ] # as is so without CAP_SYS_RESOURCE
}

# If the machine has the controller in cgroups of version 1, the container has none.
tasks_max() {
	local file=/sys/fs/cgroup/system.slice/sniproxy.service/pids.max
	if [ -e "$file" ]; then
		cat "$file"
	else
		property sniproxy.service TasksMax
	fi
}

try_sandbox() {
	ok "its user is sniproxy" is "$(id -u sniproxy)" stat -c %u "/proc/$(main_pid)"
	ok "no capability is left to it" is 0000000000000000 status_line CapBnd
	ok "it gets no new privileges" is 1 status_line NoNewPrivs
	ok "its system calls are filtered" is 2 status_line Seccomp
	for namespace in net ipc uts mnt; do
		ok "its $namespace namespace is its own" namespace_is_own "$namespace"
	done
	ok "it sees the hosts" is "$(ls -A "$hosts")" hosts_in_root
	ok "and no file but the program" is "$program" files_in_root
	ok "it can write nowhere" is "" writable_mounts
	ok "its output is the journal" output_is_apart
	ok "it runs as a batch" is SCHED_BATCH \
		sh -c "chrt -p $(main_pid) | sed -n 's/.*policy: //p'"
	ok "it may open many files" files_are_many
	ok "and have many threads" is 65536 tasks_max
}

# Whether systemd has set that limit: a machine may lack the controller.
group_has() { # CONTROLLER FILE FILE_OF_VERSION_1 VALUE
	local group
	group=$(property sniproxy.service ControlGroup)
	cat "/sys/fs/cgroup$group/$2" "/sys/fs/cgroup/$1$group/$3" 2>/dev/null | grep -qx "$4"
}

group_is_visible() {
	[ -r "/proc/$(main_pid)/root/proc/self/cgroup" ] &&
		[ -n "$(ls -A "/proc/$(main_pid)/root/sys/fs/cgroup")" ]
}

try_limits() {
	local threads='[0-9]+' memory='[0-9]+'
	drop_in MemoryMax=64M TasksMax=40
	systemctl restart sniproxy.service
	answers blog.example
	ok "it sees its control group" group_is_visible
	! group_has pids pids.max pids.max 40 || threads=40
	! group_has memory memory.max memory.limit_in_bytes 67108864 || memory=64
	ok "it counts with the limits: $threads threads, $memory MiB" soon_in_journal \
		"^sniproxy: at most [0-9]+ connections, $threads threads \\(memory $memory MiB\\)\$"
	no_drop_in
	systemctl restart sniproxy.service
}

runs_what_is_installed() {
	is "$(stat -c %i "$program")" stat -L -c %i "/proc/$(main_pid)/exe"
}

start_download() { # FILE; the server sends 100 kB a second
	curl -sSk -o "/tmp/$1" --resolve blog.example:443:127.0.0.1 \
		"https://blog.example/slow/$1" 2>"/tmp/$1.error" &
	download=$!
	wait_for 10 test -s "/tmp/$1"
}

# How many ms after START_MS the download last received something.
last_byte_after() { # FILE START_MS; sets $took
	took=$(($(date -r "/tmp/$1" +%s%3N) - $2))
	echo "# $1 went on for $took ms"
}

make_downloads() {
	mkdir -m 755 /tmp/slow
	head -c 600000 /dev/urandom >/tmp/slow/short
	truncate -s 1G /tmp/slow/endless
}

# Only `systemctl restart`.
try_restarts() {
	local start
	make_downloads
	start_load
	start_download short
	milliseconds_of systemctl restart sniproxy.service
	ok "a restart waits for a download" took_between 2500 9000
	ok "which succeeds" wait "$download"
	ok "and is whole" cmp /tmp/slow/short /tmp/short

	start_download endless
	start=$(date +%s%3N)
	milliseconds_of systemctl restart sniproxy.service
	ok "a restart waits for ten seconds, not longer" took_between 9900 11900
	! wait "$download" || touch /tmp/endless
	last_byte_after endless "$start"
	ok "a long download goes on until then" took_between 8500 11900
	ok "no connection was refused in all that time" stop_load

	hold blog.example
	milliseconds_of systemctl restart sniproxy.service &
	restart=$!
	ok "a restart waits for an open connection" wait_for 5 is deactivating \
		property sniproxy.service ActiveState
	milliseconds_of answers blog.example
	ok "a new one waits meanwhile and is then served" took_between 8000 11900
	wait "$restart"
	let_go

	kill -SEGV "$(main_pid)"
	ok "a new connection survives a crash" answers blog.example
}

standbys() {
	systemctl list-units --all --quiet --plain --no-legend 'sniproxy-standby*'
	find /run/systemd/system -name 'sniproxy-standby*'
}

# With a download that begins at the standby. Sets $upgraded to the exit status.
upgrade_with_download() {
	local upgrade
	manual sniproxy-upgrade.8 '.Sh DESCRIPTION' 1 &
	upgrade=$!
	wait_for 10 is deactivating property sniproxy.service ActiveState
	sleep 7 # so that it lasts longer than the service's restart
	start_download later
	upgraded=0
	wait "$upgrade" || upgraded=$?
}

# sniproxy-upgrade, with connections of all kinds.
try_upgrades() {
	local before pid earlier upgraded
	cp /tmp/slow/short /tmp/slow/later
	start_load
	for _ in 1 2 3; do
		before=$(wc -l </tmp/load-times)
		install_stage /try/stage
		readme '## Starting, stopping, removing' 2
		ok "connections go on after an upgrade" wait_for 30 \
			served_more_than $((before + 50))
		ok "to what is installed now" runs_what_is_installed
	done
	hold blog.example
	start_download short
	earlier=$download
	pid=$(main_pid)
	install_stage /try/stage
	milliseconds_of upgrade_with_download
	ok "with an idle connection, it takes ten seconds" took_between 10000 24000
	ok "and succeeds" is 0 echo "$upgraded"
	ok "another copy runs" not [ "$pid" = "$(main_pid)" ]
	ok "of what is installed now" runs_what_is_installed
	ok "a download from the old copy goes on" wait "$earlier"
	ok "and is whole" cmp /tmp/slow/short /tmp/short
	ok "one from the standby, too" wait "$download"
	ok "is whole" cmp /tmp/slow/later /tmp/later
	let_go
	ok "no connection was refused in all that time" stop_load
	ok "and none waited half a second" none_waited
	ok "no standby is left" is "" standbys
	ok "nothing has failed" is "" systemctl list-units --failed --quiet --plain
}

# The standby has the service's settings.
try_upgrade_with_drop_in() {
	mkdir "$hosts/out.example"
	ln -s /late/tls-socket "$hosts/out.example/tls-socket"
	drop_in BindReadOnlyPaths=/late
	sniproxy-upgrade
	ok "it applies a drop-in" answers out.example
	hold blog.example
	sniproxy-upgrade &
	upgrade=$!
	wait_for 5 is deactivating property sniproxy.service ActiveState
	ok "which the standby has, too" answers out.example
	let_go
	wait "$upgrade"
	no_drop_in
	sniproxy-upgrade
	ok "and applies that it is gone" is "alert number 112" alert out.example
	rm -r "$hosts/out.example"
}

# fails_and_goes_on PID: sniproxy-upgrade fails, and that process serves as before.
fails_and_goes_on() {
	ok "an upgrade fails" not sniproxy-upgrade
	ok "the running copy goes on" is "$1" main_pid
	ok "and serves" answers blog.example
	ok "no standby is left" is "" standbys
}

try_failing_upgrade() {
	local pid
	answers blog.example
	pid=$(main_pid)
	start_load
	echo "# a program that finds no library"
	install -m 755 /bin/false "$program"
	fails_and_goes_on "$pid"
	install_stage /try/stage
	echo "# one that never accepts"
	drop_in RootDirectory= BindReadOnlyPaths= ExecStart= 'ExecStart=/bin/sleep 60'
	fails_and_goes_on "$pid"
	no_drop_in
	echo "# a setting that is wrong"
	drop_in User=nobody-by-that-name
	fails_and_goes_on "$pid"
	no_drop_in
	echo "# a value that the program refuses"
	drop_in Environment=SNIPROXY_LOG=nonsense
	fails_and_goes_on "$pid"
	ok "the journal has the reason" sh -c "journalctl --sync
		journalctl -q -o cat -u 'sniproxy-standby*' | grep 'the only value is connections'"
	no_drop_in
	ok "no connection was refused in all that time" stop_load
	ok "and none waited half a second" none_waited
	ok "without a fault, it is replaced" sniproxy-upgrade
	ok "by another" not [ "$pid" = "$(main_pid)" ]
}

# An interrupted run has left a standby.
try_interrupted_upgrade() {
	hold blog.example
	sniproxy-upgrade &
	upgrade=$!
	wait_for 5 is deactivating property sniproxy.service ActiveState
	kill "$upgrade"
	wait "$upgrade" || :
	ok "if it is interrupted, new connections are served" answers blog.example
	let_go
	ok "and the service starts again" wait_for 15 is active property sniproxy.service ActiveState
	ok "the next one succeeds" sniproxy-upgrade
	ok "and removes the standby" is "" standbys
	systemctl stop sniproxy.service
	ok "if none runs, it says so" is "sniproxy-upgrade: no copy is running" sniproxy-upgrade
	ok "and starts none" is inactive property sniproxy.service ActiveState
	ok "it takes no argument" not sniproxy-upgrade --help
	ok "and needs root" not setpriv --reuid=nobody --clear-groups sniproxy-upgrade
	ok "the next connection starts it" answers blog.example
}

has_failed() { # UNIT
	systemctl --failed --quiet --plain | grep "^$1 " >/dev/null
}

# A client gets only the end of the stream when the service was given up.
is_given_up() {
	milliseconds_of not ask blog.example 127.0.0.1 2>/dev/null
	took_between 10000 50000
}

restart_in_vain() {
	! systemctl restart sniproxy.socket 2>/dev/null || sleep 10
}

socket_journal_has() { # TEXT
	journalctl --sync
	journalctl -q -o cat -u sniproxy.socket | grep -qF -e "$1"
}

# The causes in docs/starting.md, and their effect on clients.
try_given_up() {
	local directory
	systemctl reset-failed sniproxy.service
	mkdir /etc/systemd/system/sniproxy.socket.d
	printf '%s\n' '[Socket]' 'ListenStream=8443' >/etc/systemd/system/sniproxy.socket.d/two.conf
	systemctl daemon-reload
	systemctl stop --quiet sniproxy.service
	milliseconds_of restart_in_vain
	ok "with two ListenStream=, the socket fails at once" took_between 0 5000
	ok "clients are refused at one address" is_refused_at 127.0.0.1
	ok "and at the other" is_refused_at 127.0.0.1:8443
	ok "the journal says why" socket_journal_has \
		'sniproxy takes one socket, and ListenStream= has more: [::]:443 (Stream) [::]:8443 (Stream)'
	ok "and that the socket has failed is seen" has_failed sniproxy.socket
	ok "sniproxy-check tells of it" checked sniproxy-check --unit sniproxy.service
	ok "with both addresses" \
		said 'it takes one socket, and gets 2: [::]:443 (sniproxy.socket), [::]:8443 (sniproxy.socket)'
	undo_edit sniproxy.socket

	printf '%s\n' '[Socket]' 'ListenStream=8443' 'Service=sniproxy.service' \
		>/etc/systemd/system/second.socket
	systemctl daemon-reload
	systemctl start sniproxy.socket second.socket
	ok "with two socket units, who connects is not kept" is_given_up
	ok "then clients are refused" is_refused_at 127.0.0.1
	ok "the journal says why" in_journal '^sniproxy.service: Got more than one socket\.$'
	ok "sniproxy-check tells of that, too" checked sniproxy-check --unit sniproxy.service
	ok "with both units" said '[::]:8443 (second.socket)'
	rm /etc/systemd/system/second.socket
	systemctl reset-failed second.socket
	systemctl daemon-reload
	milliseconds_of wait_for 90 answers blog.example 2>/dev/null
	ok "a minute later it is tried again" took_between 30000 75000

	drop_in BindReadOnlyPaths=/run/missing
	systemctl restart sniproxy.socket
	ok "with a folder that is missing, who connects is not kept either" is_given_up
	ok "and the journal says why" in_journal 'status=226/NAMESPACE'
	no_drop_in
	readme '## When it does not start' 1
	ok "once the cause is gone it is had back at once" answers blog.example

	drop_in User=nobody-by-that-name
	ok "without its user it does not start" not systemctl restart sniproxy.service
	ok "which the journal says" in_journal 'status=217/USER'
	no_drop_in
	for directory in "$hosts" /run/sniproxy; do
		journalctl --rotate --vacuum-time=1s -q
		mv "$directory" "$directory.away"
		ok "without $directory it does not start" not systemctl restart sniproxy.service
		ok "which the journal says, too" in_journal 'status=226/NAMESPACE'
		mv "$directory.away" "$directory"
	done
	manual sniproxy.8 '.Ss Starting' 3
	answers blog.example

	openssl s_server -accept 8443 -key /tmp/key -cert /tmp/certificate >/tmp/taken.log 2>&1 &
	server=$!
	wait_for 10 grep -qs ^ACCEPT /tmp/taken.log
	ok "where another program has the port, the socket does not start" \
		not systemctl start sniproxy@8443.socket
	journalctl --sync
	ok "and the journal says why" \
		sh -c "journalctl -q -o cat -u sniproxy@8443.socket | grep 'Address already in use'"
	ok "and who" sh -c "ss -Hltnp 'sport = :8443' | grep openssl"
	stop_server
	systemctl stop sniproxy@8443.socket
	systemctl reset-failed 'sniproxy@*'
}

failed_often() {
	[ "$(property sniproxy.service NRestarts)" -ge 7 ]
}

try_failures() {
	systemctl stop sniproxy.service
	drop_in ExecStart= "ExecStart=$program refused-argument"
	answers blog.example >/tmp/patient &
	patient=$!
	ok "a failed start is tried again" wait_for 30 failed_often
	ok "and is in the journal" in_journal 'no argument is taken'
	ok "the socket goes on listening" is active property sniproxy.socket ActiveState
	no_drop_in
	ok "who connected meanwhile is served once it can start" wait "$patient"
}

try_stop() {
	answers blog.example
	milliseconds_of systemctl stop sniproxy.service
	ok "it stops at once without connections" took_between 0 1500
	ok "that is a success" is success property sniproxy.service Result
	ok "the next connection starts it" answers blog.example

	hold blog.example
	milliseconds_of systemctl stop sniproxy.socket sniproxy.service
	let_go
	ok "it stops after ten seconds with one" took_between 9900 11900
	ok "with status 1" is 1 property sniproxy.service ExecMainStatus
	ok "which is a success too" is inactive property sniproxy.service ActiveState
	ok "and in the journal" in_journal 'cut off'
	ok "nothing has failed" is "" systemctl list-units --failed --quiet --plain

	systemctl start sniproxy.socket
	hold blog.example
	readme '## Starting, stopping, removing' 3 &
	stop=$!
	wait_for 5 is deactivating property sniproxy.service ActiveState
	ok "who comes while the last connections end is reset" is_reset_at 127.0.0.1
	ok "when they have ended" is inactive property sniproxy.service ActiveState
	wait "$stop"
	let_go

	systemctl start sniproxy.socket
	answers blog.example
	readme '## Starting, stopping, removing' 3
	ok "who stops the socket closes the port" is_refused_at 127.0.0.1
	ok "and stops the program" is inactive property sniproxy.service ActiveState
	ok "until the next boot" is enabled systemctl is-enabled sniproxy.socket
	systemctl start sniproxy.socket
	answers blog.example
	readme '## Starting, stopping, removing' 4
	ok "it can be stopped for good" is_refused_at 127.0.0.1
	ok "so that the next boot does not start it" socket_is disabled
	ok "nor goes the program on" is inactive property sniproxy.service ActiveState
	manual sniproxy.8 '.Ss The log' 1 >/tmp/output
	ok "the journal tells of it" grep -q 'Stopped sniproxy.service' /tmp/output
}

socket_is() { # STATE
	[ "$(systemctl is-enabled sniproxy.socket || :)" = "$1" ]
}

# The files of `make install`.
try_uninstall() {
	systemctl enable --quiet --now sniproxy.socket sniproxy@8443.socket sniproxy-tcp@tcp.example.socket
	answers blog.example
	is_hello_at 127.0.0.1:8443
	ok "make uninstall" make --silent -C /try uninstall PREFIX=/usr/local
	ok "closes the port" is_refused_at 127.0.0.1
	ok "each of them" is_refused_at 127.0.0.1:8443
	ok "and the socket of a backend on TCP" test ! -e "$hosts/tcp.example/tls-socket"
	ok "leaves nothing running" not pgrep -x sniproxy
	ok "leaves no unit enabled" is "" find /etc/systemd/system -name 'sniproxy[-.@]*' -type l
	ok "nor installed" is not-found property sniproxy.socket LoadState
	ok "nor any other file" is "" find /usr/local -name '*sniproxy*'
	ok "but the hosts" test -d "$hosts/blog.example"
}

hashed_name_is() { # NAME HASH
	[[ $2 =~ ^[0-9a-f]{32}$ ]] && is "$2" sh -c "printf %s $1 | xxh128sum | cut -d ' ' -f 1"
}

try_hashed() {
	[ -d /try/hashed-stage ] || return 0
	install_stage /try/hashed-stage
	systemctl restart sniproxy.service
	ok "a HASHED build takes no name for a directory" \
		is "alert number 112" alert blog.example
	ok "its helper prints the hash that docs/permissions.md says" \
		hashed_name_is blog.example "$(sniproxy-hostname blog.example)"
	ln -s blog.example "$hosts/$(sniproxy-hostname blog.example)"
	ok "which it takes" answers blog.example
	ok "it is what is installed" runs_what_is_installed
	install_stage /try/stage
	systemctl restart sniproxy.service
	ok "and names are names again after it" answers blog.example
}

try_quick_start() {
	systemctl enable --quiet sniproxy.service
	ok "to enable the service enables the socket" \
		is enabled systemctl is-enabled sniproxy.socket
	systemctl disable --quiet sniproxy.service sniproxy.socket
	ok "the commands of the quick start" \
		readme '## Quick start on a server with systemd' 1 '/^make /d'
	ok "enable the socket" is enabled systemctl is-enabled sniproxy.socket
	ok "and start it" is active property sniproxy.socket ActiveState
	systemctl disable --quiet --now sniproxy.socket
	readme '## Starting, stopping, removing' 1
	ok "and so do those of docs/starting.md" is active property sniproxy.socket ActiveState
	ok "for the next boot too" is enabled systemctl is-enabled sniproxy.socket
	systemctl disable --quiet --now sniproxy.socket
	manual sniproxy.8 '.Ss Starting' 1
	ok "and sniproxy(8)" is active property sniproxy.socket ActiveState
}

inside() {
	# shellcheck source=tests/machines/container_nginx.sh
	. "${0%/*}/container_nginx.sh"
	# shellcheck source=tests/machines/container_check.sh
	. "${0%/*}/container_check.sh"
	trap 'kill "$nginx" 2>/dev/null || :' EXIT
	set -o errtrace
	trap 'echo "# line $LINENO: $BASH_COMMAND"' ERR
	install_stage /try/stage
	try_quick_start
	start_backends
	try_serving
	try_hosts
	try_symlinks
	try_check
	try_tcp_backend
	try_sandbox
	try_limits
	try_address
	try_addresses
	try_report
	try_owners
	try_restarts
	try_upgrades
	try_upgrade_with_drop_in
	try_failing_upgrade
	try_interrupted_upgrade
	try_failures
	try_given_up
	try_left_behind
	try_challenge
	try_run
	try_move
	try_hashed
	try_stop
	try_uninstall
	finish
}

# The last function to call.
finish() {
	echo "1..$number"
	[ "$failures" = 0 ] || exit 1
	echo passed >/try/status
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0
case ${1-} in
inside) inside ;;
run) run "${@:2}" ;;
*) outside "$@" ;;
esac

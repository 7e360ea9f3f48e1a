# For the exercises of life.md: `. docs/life.sh`, in bash, at the top of the repository, makes a
# hosts directory with the host www.example.org. Everything is removed when the shell exits.
#
# start [COMMAND...]  starts sniproxy, with COMMAND if there is one; sets $port and $log
# backend STEP...     starts the backend of www.example.org, see talk.pl
# client STEP...      runs a client, see talk.pl
# report TEXT         asks sniproxy with SIGUSR1 for its totals until they have TEXT, and prints TEXT
# ended TEXT          waits until a connection has ended whose line has TEXT, and prints that line
#                     without address and seconds
# logged TEXT         waits until sniproxy has logged TEXT
# stop                stops sniproxy when all connections have ended
# calls               prints what strace(1) has written to $calls, with names for the descriptors
# shellcheck shell=bash disable=SC2034 # hello and calls are for the exercises

work=$(mktemp -d)
mkdir "$work/hosts"
host=$work/hosts/$("${SNIPROXY_HOSTNAME:-./sniproxy-hostname}" www.example.org)
mkdir "$host"
log=$work/log calls=$work/calls
hello=$(grep -v '^#' docs/hello.hex | tr -d '\n')
sniproxy=$(realpath "${SNIPROXY:-./sniproxy}")
listen=$(realpath "${LISTEN:-build/plain/tests/program/listen}")
proxy='' backends=''
trap 'end KILL; rm -rf "$work"' EXIT

start() {
	end KILL
	rm -f "$work/port"
	mkfifo "$work/port"
	(cd "$work/hosts" && SNIPROXY_LOG=connections exec "$listen" 127.0.0.1 0 "$@" "$sniproxy" 2>"$log" 3>"$work/port") &
	proxy=$!
	read -r port <"$work/port"
}

backend() {
	local group
	group=$(perl docs/talk.pl backend "$host/tls-socket" "$@") && backends+=" -$group"
}

client() {
	perl docs/talk.pl client "$port" "$@"
}

report() {
	until grep -qF -e "$1" "$log"; do
		kill -USR1 "$proxy" || return
		sleep 0.1
	done
	echo "$1"
}

ended() {
	until grep -F ' end=' "$log" | grep -qF -e "$1"; do
		sleep 0.1
	done
	grep -F ' end=' "$log" | grep -F -e "$1" | head -n 1 | sed 's/^client=[^ ]* //; s/seconds=[^ ]* //'
}

logged() {
	until grep -qF -e "$1" "$log"; do
		sleep 0.1
	done
}

end() { # SIGNAL
	# shellcheck disable=SC2086 # words
	[ -z "$backends" ] || kill -KILL -- $backends 2>/dev/null || :
	[ -z "$proxy" ] || { kill "-$1" "$proxy" && wait "$proxy"; } 2>/dev/null || :
	proxy='' backends=''
}

stop() {
	end TERM
}

calls() {
	local client backend
	client=$(sed -n 's/.* accept4(.* = //p' "$calls")
	backend=$(sed -n 's/.* connect(\([0-9]*\),.*/\1/p' "$calls")
	sed -nE "s/^[0-9]+ +//; s/^accept4\(.* = $client\$/accept4(0) = client/p
		s/\($client, /(client, /; s/\($backend, /(backend, /; s/^shutdown(.*\)) += 0\$/shutdown\1/p
		s/^(recvfrom|sendto|connect)\((client|backend), .*\) += ([0-9]+)\$/\1(\2) = \3/p" "$calls"
}

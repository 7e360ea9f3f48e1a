#!/usr/bin/env bats
# Several machines behind a balancer, set up with the lines of docs/scaling.md, in networks of their
# own: a client (198.51.100.7), the balancer (198.51.100.1, 192.0.2.10), and two machines
# (192.0.2.21 and .22), each with sniproxy and an nginx that says hello. Nothing outside is changed,
# and all processes there end with it.
#
# SNIPROXY, SNIPROXY_HOSTNAME and LISTEN are the programs under test.
# shellcheck disable=SC2154 # set by run, and by machine.bash

load tls_helper
load ../machines/machine

address=198.51.100.1

# --- the networks ---

# Runs in the new namespaces, until it is killed.
furnish_networks() {
	local name number=20
	mount -t tmpfs tmpfs /run
	mkdir /run/haproxy
	for name in client balancer one two; do
		ip netns add "$name"
		ip -n "$name" link set lo up
	done
	ip -n balancer link add out type veth peer name eth0 netns client
	ip -n balancer addr add 198.51.100.1/24 dev out
	ip -n balancer link set out up
	ip -n client addr add 198.51.100.7/24 dev eth0
	ip -n client link set eth0 up
	ip -n balancer link add in type bridge
	ip -n balancer addr add 192.0.2.10/24 dev in
	ip -n balancer link set in up
	for name in one two; do
		number=$((number + 1))
		ip -n balancer link add "$name" type veth peer name eth0 netns "$name"
		ip -n balancer link set "$name" master in up
		ip -n "$name" addr add "192.0.2.$number/24" dev eth0
		ip -n "$name" link set eth0 up
	done
	touch "$work/furnished"
	exec sleep 1000
}

# Root needs no user namespace. In one, IPVS would not work.
start_networks() {
	local unshare=(unshare --mount --net --pid --fork)
	[ "$(id -u)" = 0 ] || unshare+=(--map-root-user)
	"${unshare[@]}" ip link add type veth 2>/dev/null || skip "namespaces are not available here"
	export -f furnish_networks
	background networks.log "${unshare[@]}" --kill-child --mount-proc bash -eu -c furnish_networks
	await test -e "$work/furnished"
	machine=$(cat "/proc/$(tail -n 1 "$work/servers")/task/"*/children)
	machine=${machine% }
	enter=(nsenter --target "$machine" --mount --pid)
	[ "$(id -u)" = 0 ] || enter+=(--user --preserve-credentials)
}

# Runs COMMAND on the client, the balancer, or a machine.
at() { # NAME COMMAND...
	"${enter[@]}" nsenter "--net=/run/netns/$1" -- "${@:2}"
}

inside() { # COMMAND...
	at client "$@"
}

# In the background, there, in $work/NAME; PROGRAM.pid there has the process.
background_at() { # NAME PROGRAM COMMAND...
	mkdir -p "$work/$1"
	# shellcheck disable=SC2016 # for the other shell
	background "$1.$2.log" "${enter[@]}" nsenter "--net=/run/netns/$1" -- \
		sh -c 'cd "$0" && echo $$ >"$1.pid" && shift && exec "$@"' "$work/$1" "${@:2}"
}

runs_at() { # NAME PROGRAM
	inside kill -0 "$(cat "$work/$1/$2.pid")" 2>/dev/null
}

ended_at() { # NAME PROGRAM
	! runs_at "$@"
}

# --- the machines ---

number_of() { # NAME
	case $1 in one) echo 21 ;; two) echo 22 ;; esac
}

# Starts sniproxy, as another file than the copies before it.
start_sniproxy() { # NAME
	copies=$((${copies-0} + 1))
	cp "$SNIPROXY" "$work/sniproxy.$copies"
	# shellcheck disable=SC2016 # for the other shell
	background_at "$1" sniproxy env "$(line_of Environment)" \
		sh -c 'cd hosts && exec "$@"' sh "$LISTEN" "192.0.2.$(number_of "$1")" 443 "$work/sniproxy.$copies"
	await listens_at "$1"
}

# The value of a line of the unit's block of the document.
line_of() { # KEY
	readme '## HAProxy in front' 2 | sed -n "s/^$1=//p"
}

listens_at() { # NAME
	[ -n "$(at "$1" ss -Hltn 'sport = :443')" ]
}

stop_sniproxy() { # NAME
	inside kill -TERM "$(cat "$work/$1/sniproxy.pid")"
	await ended_at "$1" sniproxy
}

# A server that receives clients' addresses, and notes whom it served.
start_server() { # NAME
	mkdir -p "$work/$1/hosts/blog.example"
	touch "$work/$1/hosts/blog.example/send-proxy-v1"
	cat >"$work/$1/nginx.conf" <<-END
		daemon off;
		master_process off;
		pid nginx.pid;
		user root root;
		events { }
		http {
			$(nginx_paths)
			log_format client '\$proxy_protocol_addr to \$proxy_protocol_server_addr';
			access_log access client;
			default_type text/plain;
			keepalive_timeout 1h;
			server {
				listen unix:hosts/blog.example/tls-socket ssl proxy_protocol;
				ssl_certificate ../blog.example.pem;
				ssl_certificate_key ../blog.example.key;
				location / { return 200 "hello"; }
			}
		}
	END
	background_at "$1" nginx nginx -p "$work/$1" -c nginx.conf -e stderr
	await test -s "$work/$1/nginx.pid"
}

served() { # NAME
	wc -l <"$work/$1/access"
}

has_served() { # NAME COUNT
	[ "$(served "$1")" = "$2" ]
}

has_served_more_than() { # NAME COUNT
	[ "$(served "$1")" -gt "$2" ]
}

serves() { # NAME
	await has_served_more_than "$1" $(($(served "$1") + 3))
}

setup() {
	export work=$BATS_TEST_TMPDIR no_proxy='*'
	cp "$BATS_FILE_TMPDIR"/{ca,blog.example}.pem "$BATS_FILE_TMPDIR/blog.example.key" "$work"
}

start_machines() {
	local name
	start_networks
	for name in one two; do
		start_server "$name"
		start_sniproxy "$name"
	done
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED$BATS_TEST_SKIPPED" ] || show_logs
	stop_machine
}

setup_file() {
	work=$BATS_FILE_TMPDIR
	require_programs
	make_authority
	make_certificate blog.example DNS:blog.example
}

# --- common to all balancers ---

# A machine is taken out, stopped and upgraded while clients connect, and one keeps its connection.
# take_out, connections and put_back are the balancer's.
is_upgraded_without_a_loss() {
	local count
	start_clients $address 4
	take_out two
	await has_connections two 0
	hold $address
	put_back two
	serves two

	# It serves its open connections, and no new one.
	take_out one
	await has_connections one 1
	count=$(served one)
	ask_again
	serves two
	ask_again
	await has_served one $((count + 2)) # nginx writes its line after the answer

	let_go
	await has_connections one 0
	stop_sniproxy one
	serves two
	start_sniproxy one
	put_back one
	serves one
	serves two
	stop_clients
}

has_connections() { # NAME COUNT
	[ "$(connections "$1")" = "$2" ]
}

# --- HAProxy ---

# Runs a block of the document on the balancer, for that machine.
administer() { # MACHINE BLOCK
	local block=${2//sniproxy\/one/sniproxy\/$1}
	block=${block//sniproxy,one/sniproxy,$1}
	at balancer sh -c "${block//192.0.2.21/192.0.2.$(number_of "$1")}"
}

start_haproxy() {
	start_machines
	readme '## HAProxy in front' 1 >"$work/haproxy.cfg"
	background_at balancer haproxy haproxy -db -f ../haproxy.cfg
	await says_hello $address
	take_out() { administer "$1" "$(readme '### Taking a machine out' 1)"; }
	connections() { administer "$1" "$(readme '### Taking a machine out' 2)"; }
	put_back() { administer "$1" "$(readme '### Taking a machine out' 3)"; }
}

@test "HAProxy: each server is told of the client" {
	start_haproxy
	for _ in 1 2 3 4; do says_hello $address; done
	for name in one two; do
		[ "$(sort -u "$work/$name/access")" = '198.51.100.7 to 198.51.100.1' ]
	done
}

@test "HAProxy: a machine is upgraded without a connection lost" {
	start_haproxy
	is_upgraded_without_a_loss
}

@test "HAProxy: when a machine is gone, no new connection fails" {
	start_haproxy
	inside kill -KILL "$(cat "$work/one/sniproxy.pid")"
	await ended_at one sniproxy
	for _ in 1 2 3 4; do says_hello $address; done
	start_sniproxy one
	start_clients $address
	serves one
	stop_clients
}

# --- IPVS ---

start_ipvs() {
	local name
	start_machines
	at balancer ipvsadm -L -n >/dev/null 2>&1 || skip "this kernel has no IPVS"
	at balancer sh -e -c "$(readme '## IPVS in front' 1)"
	for name in one two; do
		at "$name" sh -c "$(readme '## IPVS in front' 2)"
	done
	take_out() { administer "$1" "$(readme '## IPVS in front' 3)"; }
	put_back() { administer "$1" "$(readme '## IPVS in front' 5)"; }
	connections() {
		at balancer sh -c "$(readme '## IPVS in front' 4)" |
			awk -v "machine=192.0.2.$(number_of "$1"):443" '$2 == machine { print $5 }'
	}
}

@test "IPVS: each server is told of the client" {
	start_ipvs
	for _ in 1 2 3 4; do says_hello $address; done
	[ "$(sort -u "$work/one/access")" = '198.51.100.7 to 192.0.2.21' ]
	[ "$(sort -u "$work/two/access")" = '198.51.100.7 to 192.0.2.22' ]
}

@test "IPVS: a machine is upgraded without a connection lost" {
	start_ipvs
	is_upgraded_without_a_loss
}

# --- the figures ---

@test "the figures to plan with are those of the benchmark" {
	local row cost count=0
	while IFS='|' read -r _ row cost _; do
		row=$(sed 's/^ *//; s/ *$//' <<<"$row")
		cost=$(sed 's/^ *//; s/ *$//' <<<"$cost")
		[ "$(awk -F ' *[|] *' -v "row=$row" '
			NF > 3 && /[|] sniproxy [|]/ { for (i = 1; i <= NF; i++) if ($i == "sniproxy") column = i }
			$2 == row { sub(/ \(.*/, "", $column); print $column }' bench/README.md)" = "$cost" ]
		count=$((count + 1))
	done < <(sed -n '/^| row there/,/^$/p' docs/scaling.md | sed 1,2d | grep '|')
	[ "$count" = 4 ]
}

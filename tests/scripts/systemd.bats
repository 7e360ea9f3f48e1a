#!/usr/bin/env bats
# The systemd units, as far as they can be tested without systemd: it accepts them, they agree with
# each other, and no protection has been lost.
#
# SNIPROXY and SNIPROXY_CHECK are programs; the units are tested as if they were installed.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	units=$BATS_TEST_DIRNAME/../../systemd
	service=$BATS_TEST_TMPDIR/sniproxy.service
	socket=$BATS_TEST_TMPDIR/sniproxy.socket
	timer=$BATS_TEST_TMPDIR/sniproxy.timer
	check=$BATS_TEST_TMPDIR/sniproxy-check@.service
	local file
	for file in "$service" "$socket" "$timer"; do
		sed "s|@PROGRAM@|$SNIPROXY|g" "$units/${file##*/}" >"$file"
		sed -f "$units/template.sed" "$file" >"${file%.*}@.${file##*.}"
	done
	sed "s|@CHECK@|$SNIPROXY_CHECK|g" "$units/sniproxy-check@.service" >"$check"
	cp "$units"/sniproxy-tcp@.{socket,service} "$BATS_TEST_TMPDIR"
}

# setting FILE NAME: the values of a setting.
setting() {
	sed -n "s/^$2=//p" "$1"
}

# has FILE: the file has each line of stdin.
has() {
	local line missing=
	while read -r line; do
		[ -z "$line" ] || grep -qxF -e "$line" "$1" || missing+="$line"$'\n'
	done
	[ -z "$missing" ] || {
		printf 'missing in %s:\n%s' "${1##*/}" "$missing"
		return 1
	}
}

exposure() { # UNIT TENTHS
	systemd-analyze security --offline=true --no-pager --threshold="$2" "$1"
}

@test "systemd-analyze verify has nothing to say" {
	local type
	for type in service socket timer; do
		mv "$BATS_TEST_TMPDIR/sniproxy@.$type" "$BATS_TEST_TMPDIR/sniproxy@8443.$type"
	done
	mv "$check" "$BATS_TEST_TMPDIR/sniproxy-check@sniproxy.service.service"
	run systemd-analyze verify --man=no "$service" "$socket" "$timer" \
		"$BATS_TEST_TMPDIR"/sniproxy@8443.{service,socket,timer} \
		"$BATS_TEST_TMPDIR/sniproxy-check@sniproxy.service.service"
	echo "$output"
	[ "$status" = 0 ] && [ -z "$output" ]
}

@test "nor about the units for a backend on TCP" {
	local type units=()
	for type in socket service; do
		mv "$BATS_TEST_TMPDIR/sniproxy-tcp@.$type" "$BATS_TEST_TMPDIR/sniproxy-tcp@my-shop.example.$type"
		units+=("$BATS_TEST_TMPDIR/sniproxy-tcp@my-shop.example.$type")
	done
	run systemd-analyze verify --man=no "${units[@]}"
	echo "$output"
	[ "$status" = 0 ] && [ -z "$output" ]
	echo NoSuchSetting=yes >>"${units[1]}"
	run systemd-analyze verify --man=no "${units[@]}"
	[[ $output == *NoSuchSetting* ]]
}

@test "systemd-analyze verify would say it" {
	echo NoSuchSetting=yes >>"$service"
	run systemd-analyze verify --man=no "$service" "$socket"
	[[ $output == *NoSuchSetting* ]]
}

@test "systemd-analyze security finds an exposure of 0.7 at most" {
	run exposure "$service" 7
	echo "$output"
	[ "$status" = 0 ]
	run exposure "$service" 1
	[ "$status" != 0 ]
}

@test "nothing is left to be filled in" {
	run grep -nE '@[A-Z_]+@' "$BATS_TEST_TMPDIR"/sniproxy* "$units"/*.conf
	echo "$output"
	[ "$status" = 1 ]
	[ "$(setting "$service" ExecStart)" = "$SNIPROXY" ]
}

@test "the socket is for IPv6 and IPv4 and is not accepted on by systemd" {
	has "$socket" <<-END
		ListenStream=443
		BindIPv6Only=both
		FreeBind=yes
		WantedBy=sockets.target
	END
	[ "$(setting "$socket" Backlog)" -ge 4096 ]
	[ -z "$(setting "$socket" Accept)" ]
}

# put_systemctl UNIT LINE...: a systemctl that knows only this unit.
put_systemctl() {
	mkdir -p "$BATS_TEST_TMPDIR/bin"
	printf '%s\n' "${@:2}" >"$BATS_TEST_TMPDIR/answer"
	printf '%s\n' '#!/bin/sh' "[ \"\$*\" = 'show --property=Listen --value -- $1' ] || exit 1" \
		"cat '$BATS_TEST_TMPDIR/answer'" >"$BATS_TEST_TMPDIR/bin/systemctl"
	chmod 755 "$BATS_TEST_TMPDIR/bin/systemctl"
}

# start_pre UNIT: runs what the socket unit runs before it listens.
start_pre() {
	sed -n '/^ExecStartPre=/,/%n$/p' "$socket" | sed -e ':join' -e '/\\$/N; s/\\\n/ /; t join' |
		sed 's/^ExecStartPre=//; s/\$\$/$/g; s/ %n$/ "$1"/' >"$BATS_TEST_TMPDIR/pre"
	run env PATH="$BATS_TEST_TMPDIR/bin:$PATH" sh "$BATS_TEST_TMPDIR/pre" "$1"
	echo "$output"
}

# The program takes one socket: without this, clients would hang until systemd gives up the service.
@test "a socket unit that listens at more than one address fails before it does" {
	put_systemctl sniproxy.socket '[::]:443 (Stream)'
	start_pre sniproxy.socket
	[ "$status" = 0 ]
	[ -z "$output" ]
	local both='[::]:443 (Stream) [::]:8443 (Stream)' unit
	for unit in sniproxy.socket 'sniproxy@\x5b2001:db8::1\x5d:443.socket'; do
		put_systemctl "$unit" '[::]:443 (Stream)' '[::]:8443 (Stream)'
		start_pre "$unit"
		[ "$status" = 1 ]
		[ "$output" = "sniproxy takes one socket, and ListenStream= has more: $both" ]
	done
}

@test "but not because of a file's name, nor if systemctl does not answer" {
	put_systemctl sniproxy.socket '[::1]:443 (Stream)'
	mkdir "$BATS_TEST_TMPDIR/files"
	cd "$BATS_TEST_TMPDIR/files"
	touch ::443 1:443
	start_pre sniproxy.socket
	[ "$status" = 0 ]
	start_pre another.socket
	[ "$status" = 0 ]
	[ -z "$output" ]
}

@test "the program gets the socket, and the journal its output" {
	has "$service" <<-END
		Requires=sniproxy.socket
		After=sniproxy.socket
		Sockets=sniproxy.socket
		StandardInput=socket
		StandardOutput=journal
		StandardError=journal
		Also=sniproxy.socket
	END
}

@test "the program is stopped as it asks to be" {
	has "$service" <<-END
		KillSignal=SIGHUP
		KillMode=mixed
		SuccessExitStatus=1
	END
	local timeout
	timeout=$(setting "$service" TimeoutStopSec)
	[ "${timeout%s}" -gt 10 ]
	[ "${timeout%s}" -le 15 ]
	# A second signal would cut off the connections that the first one lets go on.
	[ -z "$(setting "$service" SendSIGHUP)" ]
}

@test "the program is started again, however it ended" {
	has "$service" <<-END
		Type=exec
		Restart=always
	END
	local delay
	delay=$(setting "$service" RestartSec)
	[ "${delay%s}" -ge 1 ]
}

# Even if starts are slow, the limit must be reached.
@test "a start that is always in vain is given up, and tried again later" {
	local interval burst delay again
	interval=$(setting "$service" StartLimitIntervalSec)
	burst=$(setting "$service" StartLimitBurst)
	delay=$(setting "$service" RestartSec)
	again=$(setting "$timer" OnUnitInactiveSec)
	[ "$burst" -ge 10 ]
	[ $((burst * ${delay%s} * 2)) -le "${interval%s}" ]
	[ "${again%s}" -ge "${interval%s}" ]
	has "$socket" <<<OnFailure=sniproxy.timer
	has "$timer" <<-END
		PartOf=sniproxy.socket
		Unit=sniproxy.socket
	END
}

# instance FILE: what systemd makes of it for an instance, in the terms of the plain unit.
instance() {
	sed '/^#/d; s/@%i//g; s/ (%I)$//' "$1"
}

@test "the templates differ from the plain units by what they listen at" {
	local type
	for type in service timer socket; do
		grep -q "sniproxy@%i\.socket" "$BATS_TEST_TMPDIR/sniproxy@.$type" ||
			[ "$type" = socket ]
		diff <(instance "$BATS_TEST_TMPDIR/sniproxy@.$type" | sed 's/^ListenStream=%I$/ListenStream=443/') \
			<(instance "$BATS_TEST_TMPDIR/sniproxy.$type")
	done
	has "$BATS_TEST_TMPDIR/sniproxy@.socket" <<-END
		ListenStream=%I
		OnFailure=sniproxy@%i.timer
	END
	has "$BATS_TEST_TMPDIR/sniproxy@.service" <<-END
		Requires=sniproxy@%i.socket
		Sockets=sniproxy@%i.socket
	END
}

@test "a backend on TCP has a socket for the proxy alone, in its host's directory" {
	has "$BATS_TEST_TMPDIR/sniproxy-tcp@.socket" <<-END
		ListenStream=$(setting "$service" WorkingDirectory)/%i/tls-socket
		SocketGroup=$(setting "$service" User)
		SocketMode=0660
		RemoveOnStop=yes
		WantedBy=sockets.target
	END
	[ -z "$(setting "$BATS_TEST_TMPDIR/sniproxy-tcp@.socket" Accept)" ]
}

@test "what passes connections on to it needs six descriptors for each, and has no rights" {
	local unit=$BATS_TEST_TMPDIR/sniproxy-tcp@.service connections
	connections=$(setting "$unit" ExecStart | sed 's/.*--connections-max=\([0-9]*\) \$SERVER$/\1/')
	[ $((connections * 6)) -lt "$(setting "$unit" LimitNOFILE)" ]
	has "$unit" <<-END
		Requires=sniproxy-tcp@%i.socket
		CapabilityBoundingSet=
		DynamicUser=yes
		MemoryDenyWriteExecute=yes
		PrivateDevices=yes
		PrivateUsers=yes
		RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
		SystemCallFilter=@system-service
	END
	run exposure "$unit" 20
	echo "$output"
	[ "$status" = 0 ]
}

# This builds nothing.
@test "make uninstall removes each file that make install has made" {
	local copy=$BATS_TEST_TMPDIR/copy made=$BATS_TEST_TMPDIR/made
	unset MAKEFLAGS MFLAGS MAKELEVEL
	mkdir "$copy"
	cp -r "$units"/../{Makefile,systemd,man,packaging} "$copy"
	touch "$copy"/sniproxy-{static,hostname,check}
	make -s -C "$copy" -o static -o sniproxy-hostname -o sniproxy-check install PREFIX=/usr DESTDIR="$made"
	diff <(find "$made" -path '*/systemd/system/*' -printf '%f\n' | sort) \
		<(find "$BATS_TEST_TMPDIR" -maxdepth 1 -name 'sniproxy*.*' -printf '%f\n' | sort)
	[ "$(find "$made" -type f | wc -l)" -ge 18 ]
	make -s -C "$copy" uninstall PREFIX=/usr DESTDIR="$made"
	[ -z "$(find "$made" ! -type d)" ]
}

@test "there is room for thousands of connections" {
	[ "$(setting "$service" LimitNOFILE)" -ge 65536 ]
	[ "$(setting "$service" TasksMax)" -ge 8192 ]
	has "$service" <<<CPUSchedulingPolicy=batch
}

@test "the program sees itself and the hosts directory only" {
	has "$service" <<-END
		BindReadOnlyPaths=$SNIPROXY /srv/sniproxy
		MemoryDenyWriteExecute=yes
		PrivateDevices=yes
		PrivateMounts=yes
		ProcSubset=pid
		ProtectControlGroups=yes
		ProtectHome=yes
		ProtectKernelTunables=yes
		ProtectProc=invisible
		ProtectSystem=strict
		RootDirectory=/run/sniproxy
		TemporaryFileSystem=/run:ro /dev/shm:ro
		WorkingDirectory=/srv/sniproxy
	END
}

@test "the program has no network and no privilege" {
	has "$service" <<-END
		CapabilityBoundingSet=
		LockPersonality=yes
		NoNewPrivileges=yes
		PrivateIPC=yes
		PrivateNetwork=yes
		ProtectClock=yes
		ProtectHostname=yes
		ProtectKernelLogs=yes
		ProtectKernelModules=yes
		RestrictAddressFamilies=AF_UNIX
		RestrictNamespaces=yes
		RestrictRealtime=yes
		RestrictSUIDSGID=yes
		SystemCallArchitectures=native
		SystemCallErrorNumber=EPERM
		SystemCallFilter=@system-service
		SystemCallFilter=~@aio @chown @ipc @keyring @memlock @privileged @resources @setuid
		User=sniproxy
	END
}

# In a user namespace that knows two users, all others are one (owner.h).
@test "the program can tell users apart" {
	[ -z "$(setting "$service" PrivateUsers)" ]
}

# Both templates have it: the name is that of the unit.
@test "the hosts are checked at each start, which neither waits for it nor fails by it" {
	has "$service" <<<'Wants=sniproxy-check@%n.service'
	has "$BATS_TEST_TMPDIR/sniproxy@.service" <<<'Wants=sniproxy-check@%n.service'
	has "$check" <<-END
		Type=oneshot
		After=%i
		ExecStart=$SNIPROXY_CHECK --quiet --deadline=30 --unit=%i
		SuccessExitStatus=1 2
		StartLimitIntervalSec=0
	END
	run grep -E '^(After|Requires|BindsTo|ExecStartPre)=.*check' "$service"
	[ "$status" = 1 ]
	[ -z "$(setting "$check" Before)" ]
	"$SNIPROXY_CHECK" --help | grep -q -e --unit
}

@test "its user is made, and can not log in" {
	local root=$BATS_TEST_TMPDIR/root
	mkdir -p "$root/etc"
	systemd-sysusers --root="$root" "$units/sniproxy.sysusers.conf"
	run cat "$root/etc/passwd"
	echo "$output"
	[[ $output == "$(setting "$service" User)":x:*:/usr/sbin/nologin ]]
}

@test "its directories are made, and the hosts directory stays as it was changed" {
	local root=$BATS_TEST_TMPDIR/root
	[ "$(id -u)" = 0 ] || skip "needs root"
	mkdir "$root"
	systemd-tmpfiles --create --root="$root" "$units/sniproxy.tmpfiles.conf"
	for directory in RootDirectory WorkingDirectory; do
		run stat -c '%a %U' "$root$(setting "$service" $directory)"
		[ "$output" = "755 root" ]
	done
	chmod 711 "$root/srv/sniproxy"
	chown nobody "$root/srv/sniproxy"
	systemd-tmpfiles --create --root="$root" "$units/sniproxy.tmpfiles.conf"
	[ "$(stat -c '%a %U' "$root/srv/sniproxy")" = "711 nobody" ]
}

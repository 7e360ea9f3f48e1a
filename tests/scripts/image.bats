#!/usr/bin/env bats
#
# The content of packaging/Containerfile's image, made by hand as that file says, serves real TLS:
# in a root, a network and a mount namespace of its own, as the image's user. For `make
# check-package`, the program is from an image that podman has built.
#
# SNIPROXY_STATIC, SNIPROXY_HOSTNAME and LISTEN are the programs.
# shellcheck disable=SC2154 # port is set by start_proxy

load tls_helper

# instruction NAME: the arguments of an instruction for the image itself, not for earlier stages.
instruction() {
	sed -n '/^FROM scratch$/,$p' "$BATS_TEST_DIRNAME/../../packaging/Containerfile" |
		sed -n "s/^$1 //p"
}

# The image as a directory. An instruction that is unknown here would change it without being
# tested.
make_root() {
	local source target
	root=$work/root
	[ "$(instruction '[A-Z]*' | wc -l)" = 5 ]
	read -r _ source target <<<"$(instruction COPY)"
	[ "${source##*/}" = "${SNIPROXY_STATIC##*/}" ]
	install -D -m 755 "$SNIPROXY_STATIC" "$root$target"
	install -d "$root$(instruction WORKDIR)"
	program=$(instruction ENTRYPOINT | sed 's/^\["\(.*\)"\]$/\1/')
	user=$(instruction USER)
}

# A program that runs like the image's, with the hosts directory mounted. It is one process all the
# time, so that signals reach it.
write_runner() {
	local right='' become="--setgid ${user#*:} --setuid ${user%:*}"
	if [ "$(id -u)" != 0 ]; then
		# Root in a user namespace, which has no other user, and the image's user in
		# another.
		right=--map-root-user become="--map-group=${user#*:} --map-user=${user%:*}"
	fi
	cat >"$work/run" <<-END
		#!/bin/sh
		exec unshare $right --mount --net --ipc --uts sh -c '
			mount --bind "$work/hosts" "$root$(instruction WORKDIR)" &&
			exec unshare --root="$root" --wd="$(instruction WORKDIR)" $become $program'
	END
	chmod +x "$work/run"
}

setup_file() {
	export work=$BATS_FILE_TMPDIR port no_proxy='*' skipped=
	[ "$(id -u)" = 0 ] || unshare --map-root-user --mount --net true ||
		skipped="needs root, or user namespaces"
	[ -x "$SNIPROXY_STATIC" ] || skipped="needs a static program"
	[ -z "$skipped" ] || return 0
	mkdir "$work/hosts"
	make_authority
	start_nginx
	make_root
	write_runner
	export root
	SNIPROXY=$work/run start_proxy proxy 127.0.0.1
}

teardown_file() {
	stop_all
}

needs_image() {
	[ -z "$skipped" ] || skip "$skipped"
}

teardown() {
	[ -n "$BATS_TEST_COMPLETED" ] || show_logs
}

@test "the image holds one file" {
	needs_image
	run find "$root" ! -type d -printf '/%P\n'
	[ "$output" = /sniproxy ]
}

@test "a host answers from within the image" {
	needs_image
	openssl_get alpha.example
	out_has host=alpha.example
	openssl_get proxied.example
	out_shows "from=127.0.0.1 "
}

@test "a name that is too long for a socket's address answers too" {
	needs_image
	[ -z "${PORTABLE-}" ] || skip "the portable core cannot"
	local label
	label=$(printf 'a%.0s' {1..60})
	ln -s alpha.example "$work/hosts/$label.$label.example"
	request alpha.example | openssl_client -servername "$label.$label.example" \
		-verify_hostname alpha.example
	out_has host=alpha.example
}

@test "it runs as the image's user, and sees the hosts and itself" {
	needs_image
	local pid
	pid=$(cat "$work/proxy.pid")
	if [ "$(id -u)" = 0 ]; then
		[ "$(stat -c %u:%g "/proc/$pid")" = 65534:65534 ]
	else
		grep -qE '^ *65534 +[1-9][0-9]* +1$' "/proc/$pid/uid_map"
		grep -qE '^ *65534 +[1-9][0-9]* +1$' "/proc/$pid/gid_map"
	fi
	[ "$(ls "/proc/$pid/root")" = sniproxy$'\n'srv ]
	[ "$(readlink "/proc/$pid/cwd")" = "$root/srv/sniproxy" ] ||
		[ "$(readlink "/proc/$pid/cwd")" = /srv/sniproxy ]
	[ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

@test "the unit for Podman mounts the hosts where the image looks for them" {
	grep -qF -- "--volume=/srv/sniproxy:$(instruction WORKDIR):ro" \
		"$BATS_TEST_DIRNAME/../../packaging/sniproxy-podman.service"
}

@test "systemd takes that unit" {
	# Podman may be missing.
	sed "s|^ExecStart=/usr/bin/podman |ExecStart=$(type -P true) |" \
		"$BATS_TEST_DIRNAME/../../packaging/sniproxy-podman.service" \
		>"$BATS_TEST_TMPDIR/sniproxy.service"
	cp "$BATS_TEST_DIRNAME/../../systemd/sniproxy.socket" "$BATS_TEST_TMPDIR"
	run systemd-analyze verify --man=no "$BATS_TEST_TMPDIR"/sniproxy.{service,socket}
	[ "$status" = 0 ]
	[ -z "$output" ]
}

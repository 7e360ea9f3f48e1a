#!/bin/bash
# The Debian package, and the RPM package if it was built, under a real systemd:
# tests/machines/package.sh makes tests/machines/container.sh run this in a container.
set -eu -o pipefail
# shellcheck source=tests/machines/container.sh
. "${0%/*}/container.sh"

quietly() { # COMMAND...
	"$@" >/tmp/output 2>&1 || {
		sed 's/^/# /' /tmp/output
		return 1
	}
}

# The commands that install and remove a package.
dpkg_does() { # OPTION FILE_OR_NAME
	DEBIAN_FRONTEND=noninteractive quietly dpkg "$@"
}

apt_does() { # COMMAND FILE_OR_NAME
	DEBIAN_FRONTEND=noninteractive quietly apt-get -y "$@"
}

rpm_does() { # OPTION FILE_OR_NAME
	quietly rpm --nodeps --force-debian "$@"
}

refuses() { # COMMAND...
	! "$@" >/dev/null
}

version_is() { # VERSION
	# shellcheck disable=SC2016 # a field of dpkg's
	is "$1" dpkg-query -W -f '${Version}' sniproxy-unix
}

listens() {
	ss -Hltn 'sport = :443 or sport = :8443' | grep -q .
}

# Debian's sniproxy is another program, with files and a unit of the same names.
other_status() {
	# shellcheck disable=SC2016 # a field of dpkg's
	dpkg-query -W -f '${db:Status-Status}' sniproxy 2>/dev/null || :
}

# Replaces that program, while it is enabled and runs.
try_other() {
	[ "$(other_status)" = installed ] || {
		echo "# skipped: needs Debian's sniproxy (make deps-package)"
		return
	}
	systemctl enable --quiet --now sniproxy.service
	wait_for 10 listens
	ok "dpkg does not replace Debian's sniproxy" refuses dpkg_does -i "$old"
	ok "which stays installed" is installed other_status
	ok "and goes on" listens
	ok "apt removes that to install this" apt_does install "$old"
	ok "but leaves its configuration" is config-files other_status
	ok "no unit is enabled by that" is "" links_to_units
	# Its unit leaves the daemon running.
	pkill -x sniproxy || :
	wait_for 10 refuses listens
	systemctl enable --quiet --now sniproxy.socket
	ok "this can be enabled" listens
	ok "the other's configuration can be purged" dpkg_does -P sniproxy
	ok "and this is still enabled" is enabled unit_file_state
	ok "and listens" listens
	dpkg_does -P sniproxy-unix
}

files_are_there() {
	local file
	dpkg -L sniproxy-unix >/tmp/files
	for file in /usr/sbin/sniproxy{,-upgrade} /usr/bin/sniproxy-{hostname,check} \
		/usr/share/man/man8/sniproxy{,-upgrade}.8.gz /usr/share/man/man5/sniproxy.5.gz \
		/usr/share/man/man1/sniproxy-{hostname,check}.1.gz \
		/lib/systemd/system/sniproxy{,@}.{service,socket,timer} \
		/lib/systemd/system/sniproxy-check@.service /lib/systemd/system/sniproxy-tcp@.{service,socket} \
		/usr/share/bash-completion/completions/sniproxy-{hostname,check}; do
		if [ ! -f "$file" ] || ! grep -qxF "$file" /tmp/files; then
			echo "# no $file"
			return 1
		fi
	done
}

try_install() {
	ok "it can be installed" dpkg_does -i "$old"
	ok "its files are there" files_are_there
	ok "its user is made, and cannot log in" is /usr/sbin/nologin \
		sh -c 'getent passwd sniproxy | cut -d : -f 7'
	ok "the hosts directory is made" is '755 root root' stat -c '%a %U %G' "$hosts"
	ok "and the service's root" is '755 root root' stat -c '%a %U %G' /run/sniproxy
	ok "the socket is not enabled" is disabled unit_file_state
	ok "and not active" is inactive property sniproxy.socket ActiveState
	ok "nothing listens" refuses listens
	ok "the smoke test of the package passes" /try/stage/smoke
}

unit_file_state() {
	systemctl is-enabled sniproxy.socket || :
}

# Whether the running program is the installed file.
runs_installed() {
	[ "$(stat -L -c '%d %i' "/proc/$(main_pid)/exe")" = "$(stat -c '%d %i' /usr/sbin/sniproxy)" ]
}

# With the backends. INSTALL is the command that installs the new version.
try_upgrade() { # INSTALL...
	local before since
	systemctl enable --quiet --now sniproxy.socket
	ok "once its socket is enabled, it serves" answers blog.example
	since=$(property sniproxy.socket ActiveEnterTimestampMonotonic)
	start_load
	wait_for 30 served_more_than 50
	ok "it can be upgraded" "$@"
	before=$(wc -l </tmp/load-times)
	ok "clients are served after it" wait_for 30 served_more_than $((before + 50))
	ok "none of them was refused or cut off" stop_load
	ok "the new version runs" runs_installed
	ok "the socket was open all the time" is "$since" \
		property sniproxy.socket ActiveEnterTimestampMonotonic
	ok "and is enabled" is enabled unit_file_state
}

try_upgrade_with_connection() {
	hold blog.example
	dpkg_does -i "$new" &
	upgrade=$!
	wait_for 20 is deactivating property sniproxy.service ActiveState
	milliseconds_of answers blog.example
	ok "a new connection does not wait for one that is open" took_between 0 500
	: >/tmp/held
	printf 'GET / HTTP/1.1\r\nHost: blog.example\r\n\r\n' >&"$hold_input"
	ok "a connection that is open during an upgrade goes on" \
		wait_for 5 grep -q 'hello from' /tmp/held
	let_go
	ok "and the upgrade comes to its end" wait "$upgrade"
}

try_upgrade_without_restart() {
	local pid
	answers blog.example
	pid=$(main_pid)
	printf '%s\n' '#!/bin/sh' 'exit 101' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	ok "it can be upgraded where packages may not restart services" dpkg_does -i "$new"
	ok "and is not restarted" is "$pid" main_pid
	rm /usr/sbin/policy-rc.d
}

# A faulty drop-in, which has the effect of a faulty program.
try_failing_upgrade() {
	local pid
	pid=$(main_pid)
	drop_in User=nobody-by-that-name
	ok "it can be upgraded though the new version does not start" dpkg_does -i "$new"
	ok "the old one goes on" is "$pid" main_pid
	ok "and serves" answers blog.example
	no_drop_in
}

try_upgrade_while_stopped() {
	systemctl disable --quiet --now sniproxy.socket
	systemctl stop sniproxy.service
	ok "it can be upgraded where it does not run" dpkg_does -i "$new"
	ok "and does not run then" refuses listens
	ok "and is not enabled" is disabled unit_file_state
}

links_to_units() {
	find /etc/systemd/system -name 'sniproxy[-.@]*' -type l
}

# With the backends. REMOVE is the command that removes it.
try_remove() { # REMOVE...
	systemctl enable --quiet --now sniproxy.socket sniproxy@8443.socket sniproxy-tcp@tcp.example.socket
	answers blog.example
	ok "a second address serves too" is "hello from blog.example" ask blog.example 127.0.0.1:8443
	ok "it can be removed while it serves" "$@"
	ok "nothing listens any more" refuses listens
	ok "nor at a Unix socket" test ! -e "$hosts/tcp.example/tls-socket"
	ok "nor runs" refuses pgrep -x sniproxy
	ok "the hosts are still there" test -d "$hosts/blog.example"
}

nothing_is_left() {
	ok "the hosts are still there after all" test -d "$hosts/blog.example"
	ok "so is its user" test -n "$(getent passwd sniproxy)"
	ok "no unit is left enabled" is "" links_to_units
	ok "none has failed" is "" systemctl list-units --failed --quiet --plain 'sniproxy*'
	ok "the service's root is gone" test ! -e /run/sniproxy
}

try_rpm() {
	echo "# RPM"
	userdel sniproxy
	ok "it cannot be installed beside another sniproxy" is sniproxy \
		rpm -q --conflicts -p "${old%deb}rpm"
	ok "it can be installed" rpm_does -i "${old%deb}rpm"
	ok "its user is made" test -n "$(getent passwd sniproxy)"
	ok "the socket is not enabled" is disabled unit_file_state
	ok "nothing listens" refuses listens
	try_upgrade rpm_does -U "${new%deb}rpm"
	try_remove rpm_does -e sniproxy-unix
	nothing_is_left
}

try_empty_hosts() {
	kill "$nginx"
	wait "$nginx" || :
	rm -r "${hosts:?}"/*
	ok "it can be installed again" dpkg_does -i "$old"
	ok "and purged at once" dpkg_does -P sniproxy-unix
	ok "then an empty hosts directory is deleted" test ! -e "$hosts"
}

old=/try/stage/old.deb
new=/try/stage/new.deb
nginx=
trap 'kill $nginx 2>/dev/null || :' EXIT
# An image for containers may have one that forbids dpkg to start services.
rm -f /usr/sbin/policy-rc.d
dpkg --purge sniproxy-unix >/dev/null 2>&1
rm -rf "$hosts"
try_other
try_install
mkdir "$hosts/blog.example"
start_backends
try_upgrade dpkg_does -i "$new"
ok "it is the new version" version_is "$(dpkg-deb -f "$new" Version)"
try_upgrade_with_connection
try_upgrade_without_restart
try_failing_upgrade
try_upgrade_while_stopped
try_remove dpkg_does -r sniproxy-unix
ok "it can be purged" dpkg_does -P sniproxy-unix
nothing_is_left
[ ! -e "${new%deb}rpm" ] || try_rpm
try_empty_hosts
finish

# shellcheck shell=bash disable=SC2154 # hosts is container.sh's
# sniproxy-check under a real systemd, for tests/machines/container.sh: with the commands of
# docs/troubleshooting.md and sniproxy-check(1), and with the rights and the root directory of the units.

# checked COMMAND...: it exits with status 1; its output is in /tmp/checked.
checked() {
	local ended=0
	"$@" >/tmp/checked 2>&1 || ended=$?
	sed 's/^/# /' /tmp/checked
	[ "$ended" = 1 ]
}

# said TEXT: a line of the output has TEXT.
said() {
	grep -qF -e "$1" /tmp/checked
}

# The check of the service has logged TEXT since $since.
said_at_start() { # TEXT
	journalctl --sync
	journalctl -q -o cat -u 'sniproxy-check@*' --since "@$since" | grep -qF -e "$1"
}

check_of_service() {
	property sniproxy-check@sniproxy.service.service "$1"
}

try_check_by_hand() {
	ok "sniproxy-check says what is wrong" checked readme '## Check the hosts' 1
	ok "a right that the service's user lacks" said "the user sniproxy may not search $hosts/no.example"
	ok "a link that leads out of its root" \
		said "a symlink leads to /late/tls-socket, out of what the proxy sees"
	ok "and what is well" said "blog.example"
	ok "all of that in JSON" checked sniproxy-check --unit sniproxy.service --json
	ok "which has the alert that clients get" is "alert number 112" alert out.example
	drop_in 'BindReadOnlyPaths=-/late'
	checked manual sniproxy-check.1 '.Sh DESCRIPTION' 1
	ok "what a drop-in lets the service see is no fault" not said /late/tls-socket
	no_drop_in
	ok "certificates for other names" checked readme '## Certificates' 1
	ok "are told" said "its certificate is not for this name"
	ok "of one host, too" checked manual sniproxy-check.1 '.Sh EXAMPLES' 2
	ok "with the user alone" checked readme '### Under inetd or s6' 1
	ok "nothing is left in the service's root" test ! -e /run/sniproxy/late
}

try_check_at_start() {
	since=$(date +%s)
	systemctl stop sniproxy.service
	ok "the service starts" answers blog.example
	ok "the journal has what is wrong" wait_for 20 said_at_start "$hosts/no.example"
	readme '### At each start' 1 's/$/ --no-pager -q/' >/tmp/checked
	ok "which journalctl shows" said "$hosts/no.example"
	ok "the check has ended, and has not failed" \
		wait_for 20 is inactive check_of_service ActiveState
	ok "nor has anything else" is "" systemctl list-units --failed --quiet --plain 'sniproxy*'
	readme '### At each start' 2
	ok "it can be had without" systemctl restart sniproxy.service
	ok "and serves then" answers blog.example
	systemctl unmask --quiet sniproxy-check@sniproxy.service.service
}

# With the backends.
try_check() {
	mkdir "$hosts/no.example" "$hosts/out.example"
	chmod 700 "$hosts/no.example"
	ln -s /late/tls-socket "$hosts/out.example/tls-socket"
	try_check_by_hand
	try_check_at_start
	rm -r "$hosts"/{no,out}.example
}

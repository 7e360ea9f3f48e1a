#!/usr/bin/env bats
#
# The manual pages are compared with the sources: messages, alerts, examples. `make lint` checks
# their form.
#
# SNIPROXY_HOSTNAME and SNIPROXY_CHECK are the programs; with HASHED=1, the first prints hashes.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
}

# The sources of the proxy without those of the other programs, which docs/architecture.md lists by
# program.
proxy_sources() {
	printf '%s\n' *.c lib/*.c system/*.c | grep -vxF -f <(other_sources)
}

other_sources() {
	sed -n 's/^| \(sniproxy-[^|]*\) |.*/\1/p' docs/architecture.md | sed 's/, /\n/g'
}

# compare PAGE SOURCE...
compare() {
	perl tests/scripts/manuals.pl "$@"
}

compare_proxy() { # PAGE
	# shellcheck disable=SC2046 # names without spaces
	compare "$1" $(proxy_sources)
}

# changed PAGE SED_SCRIPT: a copy of a page, which must differ.
changed() {
	copy=$BATS_TEST_TMPDIR/${1##*/}
	sed "$2" "$1" >"$copy"
	! cmp -s "$1" "$copy"
}

@test "sniproxy(8) explains each message of the program, and no other" {
	compare_proxy man/sniproxy.8
}

@test "sniproxy-hostname(1) explains each message of the program, and no other" {
	compare man/sniproxy-hostname.1 sniproxy-hostname.c lib/idna.c
}

@test "a message that the manual lacks is found" {
	changed man/sniproxy.8 '/^\.It .*empty record/d'
	run compare_proxy "$copy"
	[ "$status" = 1 ]
	[ "$output" = "not in the manual: empty record" ]
	changed man/sniproxy.8 's/were cut off$/were lost/'
	run compare_proxy "$copy"
	[ "$status" = 1 ]
	[[ $output == *"not in the manual: sniproxy: stopped; %u"* ]]
	[[ $output == *"not in the program: sniproxy: stopped; <count>"* ]]
	changed man/sniproxy-hostname.1 's/Li empty label/Li no label/'
	run compare "$copy" sniproxy-hostname.c lib/idna.c
	[ "$status" = 1 ]
	[[ $output == *"not in the manual: empty label"* ]]
}

@test "a message that only the manual has is found" {
	changed man/sniproxy.8 's/^\.It Li hello: Ar error/&\n.It Li farewell: Ar error/'
	run compare_proxy "$copy"
	[ "$status" = 1 ]
	[ "$output" = "not in the program: farewell: <error>" ]
}

@test "a new message is found, in parts or behind a comment" {
	printf '%s\n' 'void f(void) {' '/* "no message" */ log_line("sniproxy: %s is"' \
		'    " new", "word");' '}' >"$BATS_TEST_TMPDIR/new.c"
	run compare_proxy man/sniproxy.8
	[ "$status" = 0 ]
	# shellcheck disable=SC2046 # names without spaces
	run compare man/sniproxy.8 "$BATS_TEST_TMPDIR/new.c" $(proxy_sources)
	[ "$status" = 1 ]
	[ "$output" = "not in the manual: sniproxy: %s is new"$'\n'"not in the manual: word" ]
}

# The alerts of tls.h as the manual writes them.
alerts() {
	sed -n '/^enum tls_alert/,/^}/s/^\tTLS_\([A-Z_]*\) = \([0-9]*\),.*/.It \L\1\E Pq \2/p' tls.h
}

@test "sniproxy(8) lists the alerts" {
	alerts | sort >"$BATS_TEST_TMPDIR/alerts"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/alerts")" -ge 7 ]
	grep -E '^\.It [a-z_]+ Pq [0-9]+$' man/sniproxy.8 | sort |
		diff "$BATS_TEST_TMPDIR/alerts" -
}

@test "sniproxy-check(1) has each state, and no other" {
	diff <(sed -n 's/^ *\[ENTRY_[A-Z_]*\] = "\(.*\)",/\1/p' check/entry.c | sort) \
		<(sed -n '/^\.Ss What is found/,/^\.Ss JSON/s/^\.It Li //p' man/sniproxy-check.1 | sort)
	[ "$(grep -c '^ *\[ENTRY_' check/entry.c)" -ge 15 ]
}

# The options of sniproxy-check, a line each.
options() {
	sed -n 's/^ *{"\([a-z]*\)", [a-z_]*argument.*/\1/p' sniproxy-check.c | sort
}

@test "sniproxy-check(1), its usage and its completion have each option, and no other" {
	[ "$(options | wc -l)" -ge 10 ]
	diff <(options) <(sed -n 's/^\.It Fl -\([a-z]*\).*/\1/p' man/sniproxy-check.1 | sort)
	diff <(options) <(sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/p' man/sniproxy-check.1 |
		grep -oE 'Fl -[a-z]+' | sed 's/Fl -//' | sort)
	diff <(options) <("$SNIPROXY_CHECK" --help | grep -oE -e '--[a-z]+' | sed 's/--//' | sort)
	diff <(options) <(sed -n "/compgen -W '--/,/' --/p" packaging/completions/sniproxy-check |
		grep -oE -e '--[a-z]+' | sed 's/--//' | sort)
}

@test "sniproxy-check(1) has the keys of the JSON object" {
	sed -n 's/.*json_object_set_new([a-z]*, "\([a-z_0-9]*\)".*/\1/p' check/report.c | sort -u |
		while read -r key; do
			sed -n '/^\.Ss JSON/,/^\.Sh/p' man/sniproxy-check.1 |
				grep -qE "(Ql|It Li|,) $key( |\$)" || { echo "$key"; false; }
		done
}

@test "sniproxy-check(1) has the notes of the program" {
	grep -oE '"(not|as) root: [^"]*' sniproxy-check.c | sed 's/^"//' |
		while read -r note; do
			grep -qxF -e ".It Li $note" man/sniproxy-check.1 || { echo "$note"; false; }
		done
}

# with_programs: finds sniproxy-hostname in PATH, and makes hosts/, which stands for /srv/sniproxy.
with_programs() {
	mkdir "$BATS_TEST_TMPDIR"/{bin,hosts}
	ln -s "$SNIPROXY_HOSTNAME" "$BATS_TEST_TMPDIR/bin/sniproxy-hostname"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

@test "sniproxy-hostname(1) shows what the program prints" {
	[ "${HASHED-}" = "" ] || skip "names are shown as they are"
	with_programs
	tests/scripts/manual.sh sniproxy-hostname.1 '.Sh EXAMPLES' 1 >"$BATS_TEST_TMPDIR/example"
	head -n 1 "$BATS_TEST_TMPDIR/example" | sh | diff - <(tail -n +2 "$BATS_TEST_TMPDIR/example")
	[ "$(wc -l <"$BATS_TEST_TMPDIR/example")" = 3 ]
}

@test "sniproxy-hostname(1) makes a directory" {
	with_programs
	tests/scripts/manual.sh sniproxy-hostname.1 '.Sh DESCRIPTION' 1 |
		sed "s|/srv/sniproxy|$BATS_TEST_TMPDIR/hosts|" | sh
	[ -d "$BATS_TEST_TMPDIR/hosts/$(sniproxy-hostname bücher.example)" ]
}

@test "sniproxy-hostname(1) has a script that makes no directory of an invalid name" {
	tests/scripts/manual.sh sniproxy-hostname.1 '.Sh EXAMPLES' 2 |
		sed "s|/srv/sniproxy|$BATS_TEST_TMPDIR|" >"$BATS_TEST_TMPDIR/script"
	with_programs
	sh "$BATS_TEST_TMPDIR/script" Blog.Example "$(id -u)"
	[ -d "$BATS_TEST_TMPDIR/$(sniproxy-hostname blog.example)" ]
	local before
	before=$(ls -lA --time-style=full-iso "$BATS_TEST_TMPDIR")
	local name
	for name in .. --help --version; do
		run sh "$BATS_TEST_TMPDIR/script" "$name" "$(id -u)"
		[ "$status" = 1 ]
		[ "$(ls -lA --time-style=full-iso "$BATS_TEST_TMPDIR")" = "$before" ]
	done
}

@test "sniproxy-hostname(1) has a loop that lists the hosts without a directory" {
	with_programs
	mkdir "$BATS_TEST_TMPDIR/hosts/$("$SNIPROXY_HOSTNAME" bücher.example)"
	printf '%s\n' Blog.Example bücher.example .. shop.example >"$BATS_TEST_TMPDIR/names"
	tests/scripts/manual.sh sniproxy-hostname.1 '.Sh EXAMPLES' 3 |
		sed "s|/srv/sniproxy|hosts|" >"$BATS_TEST_TMPDIR/script"
	cd "$BATS_TEST_TMPDIR"
	run sh script
	[ "$output" = "Blog.Example
sniproxy-hostname: ..: empty label
shop.example" ]
}

@test "sniproxy-hostname(1) makes the directory of a wildcard" {
	with_programs
	tests/scripts/manual.sh sniproxy-hostname.1 '.Sh EXAMPLES' 4 |
		sed "s|/srv/sniproxy|$BATS_TEST_TMPDIR/hosts|" | sh
	[ -d "$BATS_TEST_TMPDIR/hosts/$(sniproxy-hostname _.example.com)" ]
}

# same PAGE HEADING N DOCUMENT_HEADING N: a block of the page is one of the documents, which have the
# program's path.
same() {
	local expected
	expected=$(tests/scripts/readme.sh "$4" "$5" | sed 's/\/usr\/local\/sbin\/\(sniproxy\( \|$\)\)/\1/')
	diff <(tests/scripts/manual.sh "$1" "$2" "$3") - <<<"$expected"
}

@test "sniproxy(8) has the commands of README.md and docs/" {
	same sniproxy.8 '.Ss Starting' 2 '## Another port, or one address' 2
	same sniproxy.8 '.Ss Starting' 4 '### inetd' 1
	same sniproxy.8 '.Ss Starting' 5 '### inetd' 2
	same sniproxy.8 '.Ss Stopping and upgrading' 1 '## Starting, stopping, removing' 4
	same sniproxy-upgrade.8 '.Sh DESCRIPTION' 1 '## Starting, stopping, removing' 2
	same sniproxy.8 '.Sh ENVIRONMENT' 1 '## A balancer in front' 1
	same sniproxy.8 '.Sh ENVIRONMENT' 2 '## Each connection that ends' 1
}

@test "sniproxy(5) has the commands of README.md and docs/" {
	same sniproxy.5 '.Ss Symbolic links' 1 '## Sockets in /run' 2
	same sniproxy.5 '.Ss Where several users may write' 1 '## Which user may listen' 2
	same sniproxy.5 '.Ss Sockets that were left behind' 1 '## A socket that was left behind' 2
	same sniproxy.5 '.Sh EXAMPLES' 3 '## Who may make hosts' 1
	same sniproxy.5 '.Sh EXAMPLES' 4 '## By an ACL' 1
	same sniproxy.5 '.Sh EXAMPLES' 5 '## Who may make hosts' 2
	same sniproxy.5 '.Sh EXAMPLES' 6 '## A server that listens on TCP only' 1
	same sniproxy.5 '.Sh EXAMPLES' 7 '## A server that listens on TCP only' 2
}

@test "sniproxy-check(1) has the commands of docs/" {
	same sniproxy-check.1 '.Sh DESCRIPTION' 1 '## Check the hosts' 1
	same sniproxy-check.1 '.Sh EXAMPLES' 1 '## Certificates' 1
}

@test "sniproxy-upgrade(8) explains each message of the program" {
	local text=$BATS_TEST_TMPDIR/text
	sed -n ':a; /\\$/{N; s/\\\n//; ba}
		/^\.Sh DIAGNOSTICS/,/^\.Sh SEE/s/^\.It Li sniproxy-upgrade: //p' man/sniproxy-upgrade.8 >"$text"
	[ "$(wc -l <"$text")" -ge 4 ]
	# In the program, a message may be in two strings on two lines.
	sed -n "s/^.*fail ['\"]\(.*\)['\"].*/\1/p; s/^.*echo 'sniproxy-upgrade: \([^']*\)'.*/\1/p" \
		systemd/sniproxy-upgrade | while read -r message; do
		grep -qF -e "$message" "$text" || { echo "$message"; false; }
	done
	[ "$(grep -c "fail ['\"]\|echo 'sniproxy-upgrade: " systemd/sniproxy-upgrade)" = "$(wc -l <"$text")" ]
}

@test "the pages fit into 80 columns, as they are written and as they are shown" {
	run grep -nE '^.{81}' man/*
	[ "$status" = 1 ]
	local page
	for page in man/*; do
		run grep -E '^.{81}' <(mandoc -T ascii "$page" | perl -pe 's/.\x08//g')
		[ "$status" = 1 ] || { echo "$page: $output"; false; }
	done
}

@test "the pages refer to pages that there are" {
	local page
	while read -r page; do
		[ -e "man/$page" ]
	done < <(sed -n 's/^\.Xr \(sniproxy[^ ]*\) \([0-9]\).*/\1.\2/p' man/*)
	grep -qx 'Documentation=man:sniproxy(8)' systemd/sniproxy.service
	grep -qx 'Documentation=man:sniproxy(8)' systemd/sniproxy.socket
}

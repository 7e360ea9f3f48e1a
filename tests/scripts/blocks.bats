#!/usr/bin/env bats
#
# Each literal block of *.md, docs/*.md and the manual pages is run by a test, or is a listing of a
# source, or tests/scripts/blocks_not_run says why it is not run.
# shellcheck disable=SC2154 # status and output are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	copy=$BATS_TEST_TMPDIR/copy
	mkdir "$copy"
	cp -r ./*.md docs man ./*.c lib "$copy"
	cp -r --parents tests/scripts tests/clients tests/machines "$copy"
}

check_copy() {
	run perl "$copy/tests/scripts/blocks.pl" check "$copy"
}

# finds COUNT TEXT: that many lines are printed, and one has the text.
finds() {
	echo "$output"
	[ "$status" = 1 ]
	[ "${#lines[@]}" = "$1" ]
	[[ $output == *"$2"* ]]
}

@test "each block is run, or it is said why not" {
	perl tests/scripts/blocks.pl check
}

@test "a new block that nobody runs is found" {
	printf '\n## New\n\n    true\n' >>"$copy/docs/limits.md"
	check_copy
	finds 1 'docs/limits.md: ## New: block 1 is run by no test, and not listed: true'
}

@test "so is one behind another, or in fences" {
	sed -i '/^    ListenStream=8443/a\\nThen\n\n    true' "$copy/docs/starting.md"
	sed -i '$a```\ntrue\n```' "$copy/README.md"
	check_copy
	finds 2 'README.md: ## Limits, and what it is not: block 1 is run by no test, and not listed: true'
	# The next block has its number now, and the last one is left over.
	[[ $output == *'docs/starting.md: ## Another port, or one address: block '* ]]
}

@test "so is one in a manual page" {
	printf '.Sh EXAMPLES\n.Pp\n.Dl # true\n' >>"$copy/man/sniproxy.8"
	sed -i 's/^\.Sh EXAMPLES$/.Sh BUGS/' "$copy/man/sniproxy-hostname.1"
	check_copy
	[ "$status" = 1 ]
	[[ $output == *'man/sniproxy-hostname.1: .Sh BUGS: block 1 is run by no test'* ]]
}

@test "one that was listed and has changed is found" {
	sed -i 's/^    socat -t 60/    socat -t 61/' "$copy/docs/backends.md"
	check_copy
	finds 2 'listed, and not there: docs/backends.md ### With socat: socat -t 60'
}

@test "one that no test runs any more is found" {
	sed -i "s/^.*readme '## More than one address' 3$//" "$copy/tests/machines/container.sh"
	check_copy
	finds 1 'docs/starting.md: ## More than one address: block 3 is run by no test'
}

@test "what stands in a comment runs nothing" {
	sed -i "s/^.*readme '## More than one address' 3$/# &/" "$copy/tests/machines/container.sh"
	check_copy
	finds 1 'block 3 is run by no test'
}

@test "a listing that is not the source any more is found" {
	[ "$(grep -c '^```c [a-z]' "$copy/docs/life.md")" -ge 15 ]
	sed -i 's/^\tstatus_ended(c, c->end);$/\tstatus_over(c, c->end);/' "$copy/proxy.c"
	sed -i 's/^\tfixed(&in, 32);     /\tfixed(\&in, 32); /' "$copy/docs/tls-records.md"
	check_copy
	finds 2 'docs/life.md: ## The end: block 1 is not in proxy.c: 	table_remove(c);'
	[[ $output == *'docs/tls-records.md: ## The second layer: the ClientHello: block 2 is not in tls.c: '* ]]
}

@test "so is one whose file is gone" {
	rm "$copy/lib/idle.c"
	check_copy
	finds 2 'docs/life.md: ## Parking: block 1 is not in lib/idle.c: '
}

@test "one that is run and listed is found" {
	printf '\n%s\n\t%s\n\t%s\n' 'docs/starting.md ## Starting, stopping, removing' \
		'systemctl stop sniproxy.socket' 'no reason' >>"$copy/tests/scripts/blocks_not_run"
	check_copy
	finds 1 'block 3 is run by a test, and listed too'
}

@test "blocks are shown as they are typed" {
	[ "$(tests/scripts/readme.sh '## Starting, stopping, removing' 3)" = "systemctl stop sniproxy.socket" ]
	[ "$(tests/scripts/manual.sh sniproxy.8 '.Ss Stopping and upgrading')" = \
		"systemctl disable --now sniproxy.socket" ]
	[ "$(tests/scripts/manual.sh sniproxy.5 '.Sh EXAMPLES' 1)" = "mkdir /srv/sniproxy/blog.example
ln -s blog.example /srv/sniproxy/www.blog.example" ]
	run tests/scripts/readme.sh '## Starting, stopping, removing' 5
	[ "$status" != 0 ]
	run tests/scripts/manual.sh sniproxy.8 '.Sh SEE ALSO'
	[ "$status" != 0 ]
}

# A unit for people to write is useless without its sections; so is a unit's file to be enabled
# without [Install].
@test "each block that is a unit's has a section first" {
	local file heading number block count=0
	while IFS=$'\t' read -r file heading number; do
		block=$(perl tests/scripts/blocks.pl show "$file" "$heading" "$number")
		grep -qE '^(Environment|ListenStream|ExecStart(Pre)?|BindReadOnlyPaths|RuntimeDirectory|UMask)=' \
			<<<"$block" || continue
		[[ $block == '['[A-Z]* ]] || { echo "$file: $heading: $number"; false; }
		count=$((count + 1))
	done < <(perl tests/scripts/blocks.pl list)
	[ "$count" -ge 10 ]
}

@test "no document sets Environment= without saying in which section" {
	run grep -nE '^[^ ].*Environment=' ./*.md docs/*.md
	echo "$output"
	[ "$status" = 1 ]
}

#!/usr/bin/env bats
#
# Completion for sniproxy-hostname and sniproxy-check in bash, with a hosts directory of the test's
# own.

setup() {
	hosts=$BATS_TEST_TMPDIR/hosts
	mkdir "$hosts"
	sed "s|/srv/sniproxy|$hosts|" "$BATS_TEST_DIRNAME/../../packaging/completions/sniproxy-hostname" \
		>"$BATS_TEST_TMPDIR/completion"
	printf '127.0.0.1 %s\n' known.example >"$BATS_TEST_TMPDIR/known"
	program=sniproxy-hostname
}

# complete_with WORD...: prints what bash can complete the last word to, a line each.
complete_with() {
	# shellcheck disable=SC2016 # for the other bash
	program=$program HOSTFILE=$BATS_TEST_TMPDIR/known bash -c '
		. "$1"
		shift
		COMP_WORDS=("$program" "$@")
		COMP_CWORD=$#
		"$(complete -p "$program" | sed "s/.* -F //; s/ .*//")"
		[ ${#COMPREPLY[@]} = 0 ] || printf "%s\n" "${COMPREPLY[@]}"
	' bash "$BATS_TEST_TMPDIR/completion" "$@" | sort
}

completes() { # EXPECTED WORD...
	local expected=$1 completed
	shift
	completed=$(complete_with "$@")
	echo "$completed"
	[ "$completed" = "$expected" ]
}

@test "hosts that there are, and those that bash knows" {
	mkdir "$hosts"/{blog,shop}.example "$hosts/known.invalid"
	: >"$hosts/blog.file"
	completes blog.example blog
	completes known.example$'\n'known.invalid kno
	completes shop.example blog.example s
	completes '' nothing
	mkdir "$hosts"/{my_app.example,_.example,_default}
	completes my_app.example my
	completes _.example$'\n'_default _
}

@test "the options, where nothing else is given" {
	completes --help$'\n'--version -
	completes --version --v
	completes '' blog.example --
}

@test "an empty or missing hosts directory" {
	completes known.example ''
	rmdir "$hosts"
	completes '' blog
}

@test "directories with other names are left out, and nothing in them is run" {
	cd "$BATS_TEST_TMPDIR"
	# shellcheck disable=SC2016 # as they are
	for name in 'b$(touch ran)' 'b`touch ran`' 'b*' 'b c' 'b;touch ran' $'b\nc' b.example; do
		mkdir "$hosts/$name"
	done
	completes b.example b
	[ ! -e ran ]
}

@test "sniproxy-check: options, what they take, and directories" {
	program=sniproxy-check
	cp "$BATS_TEST_DIRNAME/../../packaging/completions/sniproxy-check" "$BATS_TEST_TMPDIR/completion"
	cd "$BATS_TEST_TMPDIR"
	completes --timeout --t
	completes --deadline --connect --d
	[ "$(complete_with - | wc -l)" = 11 ]
	completes hosts --json h
	completes root --user roo
	completes sniproxy.service --unit s
	completes known.example --name kno
	completes '' --timeout h
}

#!/usr/bin/env bats
#
# What makes faults in the programs harder to exploit, seen in the programs: of gcc and clang,
# linked dynamically, statically with the usual C library, and with musl.
# shellcheck disable=SC2030,SC2031,SC2154 # status and output are set by run

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	unset MAKEFLAGS MFLAGS MAKELEVEL HASHED SANITIZE
	copy=$BATS_FILE_TMPDIR
	local compiler
	for compiler in gcc clang; do
		type -P "$compiler" >/dev/null || continue
		build "$compiler" CC="$compiler" all
	done
	build static CC=gcc MUSL_CC= static
	! type -P musl-gcc >/dev/null || build musl static
}

build() { # NAME ARGUMENT...
	mkdir "$copy/$1"
	cp -r Makefile ./*.[ch] lib system check packaging "$copy/$1"
	make -j2 -C "$copy/$1" CFLAGS=-O1 "${@:2}" >"$copy/$1/log" 2>&1 || cat "$copy/$1/log"
}

setup() {
	copy=$BATS_FILE_TMPDIR
}

# The programs of a build. Skips if there is no compiler for it.
programs() { # BUILD
	find "$copy/$1" -maxdepth 1 -name 'sniproxy*' ! -name '*.[ch]'
}

need() { # BUILD COUNT
	[ -e "$copy/$1" ] || skip "needs ${1/#musl/musl-gcc}"
	[ "$(programs "$1" | wc -l)" = "$2" ]
}

# What a program lacks of what all should have; each in a word.
lacks() { # PROGRAM
	local header dynamic
	header=$(readelf -hlW "$1") && dynamic=$(readelf -dW "$1") || return
	grep -q 'Type: *DYN' <<<"$header" && grep -q 'FLAGS_1.* PIE' <<<"$dynamic" || echo pie
	grep -q '^ *GNU_RELRO ' <<<"$header" || echo relro
	grep -q 'FLAGS.* BIND_NOW' <<<"$dynamic" || echo now
	grep -qE '^ *GNU_STACK .* RW +0x' <<<"$header" || echo stack
	! grep -qE '^ *[A-Z_]+ +0x.* RWE +0x' <<<"$header" || echo write-or-execute
	! grep -q TEXTREL <<<"$dynamic" || echo text-relocations
	readelf -sW "$1" | grep -q '__stack_chk_fail' || echo stack-protector
}

# The calls of a program or an object that check what they write to.
fortified() { # FILE
	readelf -sW "$1" | grep -oE '\<__[a-z]+_chk\>' | grep -v __stack_chk_fail | sort -u
}

is_static() { # PROGRAM
	! readelf -lW "$1" | grep -q INTERP && ! readelf -dW "$1" | grep -q NEEDED
}

# hardened BUILD COUNT: all its programs are.
hardened() {
	need "$1" "$2"
	local program
	for program in $(programs "$1"); do
		run lacks "$program"
		echo "$program: $output"
		[ "$status" = 0 ] && [ -z "$output" ]
		[ "$1" = musl ] || [ -n "$(fortified "$program")" ]
		[[ $1 != static && $1 != musl ]] || is_static "$program"
	done
}

objects() { # BUILD
	find "$copy/$1/build" -name '*.o'
}

# Each object with an array in a function checks its stack: most have one.
objects_check_stacks() { # BUILD
	local object count=0 all=0
	for object in $(objects "$1"); do
		all=$((all + 1))
		! readelf -sW "$object" | grep -q 'UND __stack_chk_fail' || count=$((count + 1))
	done
	echo "$count of $all"
	[ "$all" -ge 17 ] && [ "$count" -ge 14 ]
}

# How an object is marked for the processor.
marks() {
	case $(uname -m) in
	x86_64) echo 'x86 feature: IBT, SHSTK' ;;
	aarch64) echo 'AArch64 feature: BTI, PAC' ;;
	esac
}

objects_are_marked() { # BUILD
	local object
	for object in $(objects "$1"); do
		readelf -nW "$object" | grep -qF "$(marks)" || { echo "$object"; false; }
	done
}

@test "gcc: position-independent, all relocations read-only, no executable stack, fortified" {
	hardened gcc 3
	objects_check_stacks gcc
}

@test "clang: the same" {
	hardened clang 3
	objects_check_stacks clang
}

@test "the same in the static program, with the usual C library" {
	hardened static 1
	objects_check_stacks static
}

# musl has no checked calls.
@test "musl: the same in the static program, but for the C library's checks" {
	hardened musl 1
	objects_check_stacks musl
}

@test "each object says where branches may lead (CET, BTI)" {
	local build
	[ -n "$(marks)" ] || skip "$(uname -m) has no such marks"
	for build in gcc clang static musl; do
		[ ! -e "$copy/$build/build" ] || objects_are_marked "$build"
	done
}

# missing WORDS FLAG...: a program that is built with these flags lacks that.
missing() {
	local words=$1
	shift
	gcc -O2 -fPIE -pie -fstack-protector-strong -Wl,-z,relro,-z,now -x c "$@" \
		-o "$BATS_TEST_TMPDIR/it" - <<<'#include <stdio.h>
int main(int n, char *v[]) { char a[64]; sprintf(a, "%s%d", v[0], n); return puts(a); }'
	run lacks "$BATS_TEST_TMPDIR/it"
	echo "$*: ${output//$'\n'/ }"
	[ "$status" = 0 ] && [ "${output//$'\n'/ }" = "$words" ]
}

@test "what is missing is found" {
	missing ""
	missing pie -fno-pie -no-pie
	missing relro -Wl,-z,norelro
	missing now -Wl,-z,lazy
	missing "stack write-or-execute" -Wl,-z,execstack
	missing stack-protector -fno-stack-protector
	missing "" -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0
	[ -z "$(fortified "$BATS_TEST_TMPDIR/it")" ]
	missing "" -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
	[ "$(fortified "$BATS_TEST_TMPDIR/it")" = __sprintf_chk ]
	run lacks /dev/null
	[ "$status" != 0 ]
}

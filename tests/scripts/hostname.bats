#!/usr/bin/env bats
#
# sniproxy-hostname: what it prints for a name, and what it rejects and why.
# SNIPROXY_HOSTNAME is the program; with HASHED=1 it prints hashes.
#
# Invisible characters are written as bytes, because \u depends on the locale.

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	a10=aaaaaaaaaa
	a63=$a10$a10$a10$a10$a10${a10}aaa
	zwnj=$'\xe2\x80\x8c'
	zwj=$'\xe2\x80\x8d'
	soft_hyphen=$'\xc2\xad'
}

# directory NAME: the name of NAME's directory.
directory() {
	if [ "${HASHED-}" = 1 ]; then
		printf %s "$1" | xxh128sum | cut -c 1-32
	else
		printf '%s\n' "$1"
	fi
}

# run_with STATUS NAME...: runs the program in both locales, and compares its result with STATUS and
# the files wanted.out and wanted.err.
run_with() {
	local wanted=$1 ended locale
	shift
	for locale in C C.UTF-8; do
		ended=0
		LC_ALL=$locale "$SNIPROXY_HOSTNAME" "$@" >out 2>err || ended=$?
		printf 'LC_ALL=%s, exit status %d, wanted %d: %q\n' \
			"$locale" "$ended" "$wanted" "$*"
		diff -u wanted.out out
		diff -u wanted.err err
		[ "$ended" -eq "$wanted" ]
	done
}

# converts NAME HOST: NAME's directory is that of HOST, and HOST's its own.
converts() {
	directory "$2" >wanted.out
	: >wanted.err
	run_with 0 "$1"
	run_with 0 "$2"
}

# refuses NAME REASON [SHOWN]: NAME is invalid, and the message shows it as SHOWN.
refuses() {
	: >wanted.out
	printf 'sniproxy-hostname: %s: %s\n' "${3-$1}" "$2" >wanted.err
	run_with 1 "$1"
}

@test "plain names: lowercase, one trailing dot dropped" {
	converts example.com example.com
	converts EXAMPLE.com. example.com
	converts Example.COM example.com
	converts localhost. localhost
	converts a a
	converts 0.1.2.3 0.1.2.3
	converts 3com.example 3com.example
}

@test "names in other scripts become Punycode" {
	converts bücher.example xn--bcher-kva.example
	converts BÜCHER.Example. xn--bcher-kva.example
	converts 例え.jp xn--r8jz45g.jp
	converts אב.com xn--4dbc.com
	converts a.אב a.xn--4dbc
	converts ab.ü ab.xn--tda
}

@test "emoji, which IDNA2008 refuses" {
	converts 🕸💍.ws xn--sr8hvo.ws
	converts ☕.example xn--53h.example
	converts I♥NY.com xn--iny-zx5a.com
}

@test "sharp s and final sigma stay (non-transitional)" {
	converts straße.de xn--strae-oqa.de
	converts faß.de xn--fa-hia.de
	converts βόλος.com xn--nxasmm1c.com
	converts fass.de fass.de
}

@test "what looks the same is mapped to the same name" {
	converts ｅｘａｍｐｌｅ.com example.com
	converts ①.com 1.com
	converts $'\xe2\x84\xaa.com' k.com # the Kelvin sign
	converts $'bu\xcc\x88cher.example' xn--bcher-kva.example # u and combining diaeresis
	converts "exam${soft_hyphen}ple.com" example.com
}

@test "every dot of UTS #46 separates labels" {
	converts 'a。b' a.b
	converts 'a．b' a.b
	converts 'a｡b' a.b
	converts 'a.b。' a.b
	refuses 'a.。' 'empty label'
	refuses 'a。。b' 'empty label'
}

@test "Punycode is checked and kept" {
	converts xn--sr8hvo.ws xn--sr8hvo.ws
	converts XN--FA-HIA.de xn--fa-hia.de
	refuses xn--99999999 'xn-- label that is not Punycode'
	refuses xn--ü 'xn-- label that is not Punycode'
	refuses xn-- 'xn-- label that stands for no valid label'
	# The mapping does not produce what these decode to: an upper case letter, a u and a
	# combining diaeresis, ASCII alone. U+0080 is not allowed at all.
	refuses www.xn--3ba 'xn-- label that stands for no valid label'
	refuses xn--u-ccb 'xn-- label that stands for no valid label'
	refuses xn--ascii- 'xn-- label that stands for no valid label'
	refuses xn--a 'xn-- label that stands for no valid label'
}

@test "joiners are allowed only where the script needs them" {
	converts "क्${zwj}ष" xn--11b2ezcw70k
	converts "نامه${zwnj}ای.com" xn--mgba3gch31f060k.com
	refuses "a${zwj}b" 'invisible joiner where none belongs' 'a\xe2\x80\x8db'
	refuses "a${zwnj}b.com" 'invisible joiner where none belongs' 'a\xe2\x80\x8cb.com'
}

@test "directions of writing may not be mixed" {
	local mixed='left-to-right and right-to-left text mixed'
	refuses אa "$mixed"
	refuses aא.com "$mixed"
	refuses 0א "$mixed"
	refuses 1.אב "$mixed"
}

@test "labels up to 63 bytes" {
	local u57=üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü
	converts "$a63.example" "$a63.example"
	converts "$u57" "xn--td${a63:0:57}"
	refuses "a$a63.example" 'label longer than 63 bytes'
	refuses "ü$u57" 'label longer than 63 bytes'
}

@test "names up to 253 bytes" {
	local a253="$a63.$a63.$a63.${a63:2}"
	[ ${#a253} -eq 253 ]
	converts "$a253" "$a253"
	converts "$a253." "$a253"
	refuses "a$a253" 'label longer than 63 bytes, name longer than 253 bytes'
	refuses "${a253}a" 'name longer than 253 bytes'
	refuses "${a253}a." 'name longer than 253 bytes'
	refuses "$a253.a" 'name longer than 253 bytes'
	refuses "$a253.." 'empty label, name longer than 253 bytes'
}

@test "arguments far longer than a name" {
	local long
	long=$(printf 'a%.0s' {1..100000})
	refuses "$long" 'label longer than 63 bytes, name longer than 253 bytes'
	long=$(printf "$soft_hyphen%.0s" {1..50000})
	converts "${long}a" a

	# The result for this one depends on ICU's version.
	local ended=0
	long=$(printf '中%.0s' {1..30000})
	"$SNIPROXY_HOSTNAME" "$long" >out 2>err || ended=$?
	[ "$ended" -eq 1 ]
	[ ! -s out ]
	[[ $(<err) == "sniproxy-hostname: $long: "[a-z]* ]]
}

@test "empty labels" {
	refuses '' 'empty label' "''"
	refuses . 'empty label'
	refuses .. 'empty label'
	refuses a..b 'empty label'
	refuses a.. 'empty label'
	refuses .a 'empty label'
	refuses "$soft_hyphen" 'empty label' '\xc2\xad'
}

@test "hyphens everywhere but at the beginning of a label" {
	converts a-b.example a-b.example
	converts a-.example a-.example
	converts ü- xn----dha
	converts r3---sn.example r3---sn.example
	converts AB--CD.example ab--cd.example
	refuses -a 'label begins with a hyphen'
	refuses - 'label begins with a hyphen'
	refuses www.-a 'label begins with a hyphen'
	refuses -ü 'label begins with a hyphen'
}

@test "--help and --version, where they stand alone" {
	: >wanted.err
	echo 'usage: sniproxy-hostname [--] NAME... | --help | --version' >wanted.out
	run_with 0 --help
	[[ $("$SNIPROXY_HOSTNAME" --version) =~ ^sniproxy-hostname\ [0-9]+\.[0-9] ]]
	refuses -v 'label begins with a hyphen'
	refuses --helpful 'label begins with a hyphen'

	: >wanted.out
	local option
	for option in --help --version; do
		echo "sniproxy-hostname: $option: label begins with a hyphen" >wanted.err
		run_with 1 -- "$option"
		echo 'sniproxy-hostname: -: label begins with a hyphen' >>wanted.err
		run_with 1 "$option" -
	done
}

@test "after --, all are names" {
	directory example.com >wanted.out
	: >wanted.err
	run_with 0 -- example.com
	: >wanted.out
	echo 'sniproxy-hostname: --: label begins with a hyphen' >wanted.err
	run_with 1 -- --
	directory example.com >wanted.out
	run_with 1 example.com --
}

@test "underscores everywhere but at the beginning of a label" {
	local leading='label begins with an underscore'
	converts My_App.example my_app.example
	converts a_.b__c.example a_.b__c.example
	converts a＿b.example a_b.example
	converts ü_b xn--_b-wka
	converts א_ב xn--_-zhce
	refuses _dmarc.example "$leading"
	refuses a._b.example "$leading"
	refuses ＿a "$leading"
	refuses _ü "$leading"
	refuses xn--_-eha "$leading"
	refuses _ "$leading"
}

@test "special hosts" {
	local disallowed='character that no host name may have'
	converts '*.example.com' _.example.com
	converts _.EXAMPLE.com. _.example.com
	converts '*.Bücher.example' _.xn--bcher-kva.example
	converts '*.אב' _.xn--4dbc
	converts '*.com' _.com
	converts '*.my_app.example' _.my_app.example
	converts _default _default
	converts _no-sni _no-sni
	refuses '*' "$disallowed"
	refuses '*.' 'empty label'
	refuses _. 'empty label'
	refuses '*..com' 'empty label'
	refuses "*.$soft_hyphen" 'empty label' '*.\xc2\xad'
	refuses 'www.*.example' "$disallowed"
	refuses '*.*.example' "$disallowed"
	refuses 'a*.example' "$disallowed"
	refuses '**.example' "$disallowed"
	refuses _._.example 'label begins with an underscore'
	refuses _default.example 'label begins with an underscore'
	refuses _no_sni 'label begins with an underscore'
	refuses '*.-a' 'label begins with a hyphen'
	refuses '*.a b' "$disallowed"
	refuses $'*.\xff' 'not UTF-8' '*.\xff'
}

@test "a wildcard is as long as the shortest name that it serves" {
	local a251="$a63.$a63.$a63.${a63:4}"
	[ ${#a251} -eq 251 ]
	converts "*.$a251" "_.$a251"
	refuses "*.${a251}a" 'name longer than 253 bytes'
}

@test "characters that no host name may have" {
	local disallowed='character that no host name may have'
	refuses 'a b' "$disallowed"
	refuses a/b "$disallowed"
	refuses ../etc "empty label, $disallowed"
	refuses example.com:443 "$disallowed"
	refuses '[::1]' "$disallowed"
	refuses ℀ "$disallowed" # mapped to a/c
	refuses 'א ב' "$disallowed"
	refuses a≠b "$disallowed" # as with the STD3 rules
	refuses xn--ab-miv "$disallowed" # the same
	refuses $'a.\xef\xbf\xbd' "$disallowed" # U+FFFD, which is valid UTF-8
	refuses $'\xcc\x81a' 'label begins with a combining mark'
}

@test "what is not UTF-8" {
	refuses $'a\xffb' 'not UTF-8' 'a\xffb'
	refuses $'\xe9t\xe9.fr' 'not UTF-8' '\xe9t\xe9.fr'
	refuses $'\xc0\xae' 'not UTF-8' '\xc0\xae'             # overlong
	refuses $'\xed\xa0\x80' 'not UTF-8' '\xed\xa0\x80'     # a surrogate
	refuses $'\xf4\x90\x80\x80' 'not UTF-8' '\xf4\x90\x80\x80' # past U+10FFFF
	refuses $'a\xe2\x80' 'not UTF-8' 'a\xe2\x80'           # cut short
	refuses $'\xfcü' 'not UTF-8' '\xfcü'
}

@test "messages are safe to show on a terminal" {
	local disallowed='character that no host name may have'
	refuses $'\e[31m' "$disallowed" '\x1b[31m'
	refuses $'a\nb' "$disallowed" 'a\x0ab'
	refuses $'a\rb\tc\x7f' "$disallowed" 'a\x0db\x09c\x7f'
	refuses 'a\x0ab' "$disallowed" 'a\x5cx0ab'
	refuses $'a\xc2\x9b31m' "$disallowed" 'a\xc2\x9b31m'     # U+009B, a C1 control
	refuses $'a\xe2\x80\xaeb' "$disallowed" 'a\xe2\x80\xaeb' # U+202E, right to left
	refuses $'a\xe2\x80\xa8b' "$disallowed" 'a\xe2\x80\xa8b' # U+2028, a line's end
}

@test "several faults in one line" {
	refuses '_a+..b' 'empty label, label begins with an underscore, character that no host name may have'
}

@test "several names: a line each, in order, and the invalid one left out" {
	{
		directory example.com
		directory xn--sr8hvo.ws
		directory example.com
	} >wanted.out
	: >wanted.err
	run_with 0 example.com 🕸💍.ws EXAMPLE.COM

	echo 'sniproxy-hostname: a..b: empty label' >wanted.err
	run_with 1 example.com a..b 🕸💍.ws example.com.
	run_with 1 a..b example.com 🕸💍.ws example.com
	run_with 1 example.com 🕸💍.ws example.com a..b

	echo 'sniproxy-hostname: -: label begins with a hyphen' >>wanted.err
	run_with 1 a..b example.com 🕸💍.ws example.com -
}

@test "lines keep their order where both outputs go to one place" {
	"$SNIPROXY_HOSTNAME" a b..b c >both 2>&1 || [ $? -eq 1 ]
	{
		directory a
		echo 'sniproxy-hostname: b..b: empty label'
		directory c
	} >wanted
	diff -u wanted both
}

@test "no name: usage" {
	: >wanted.out
	echo 'usage: sniproxy-hostname [--] NAME... | --help | --version' >wanted.err
	run_with 2
	run_with 2 --
}

@test "a directory made as the manual says" {
	mkdir "$("$SNIPROXY_HOSTNAME" EXAMPLE.com.)"
	[ -d "$(directory example.com)" ]
}

# cannot_write STATUS REASON: the program, which ended with STATUS, failed, and err has the reason.
cannot_write() {
	[ "$1" -eq 1 ]
	echo "sniproxy-hostname: stdout: $2" >wanted.err
	diff -u wanted.err err
}

@test "a full disk is an error" {
	local ended=0
	"$SNIPROXY_HOSTNAME" a b >/dev/full 2>err || ended=$?
	cannot_write "$ended" 'No space left on device'
}

@test "a closed stdout is an error" {
	local ended=0
	"$SNIPROXY_HOSTNAME" a b >&- 2>err || ended=$?
	cannot_write "$ended" 'Bad file descriptor'
	ended=0
	"$SNIPROXY_HOSTNAME" --version >&- 2>err || ended=$?
	cannot_write "$ended" 'Bad file descriptor'
}

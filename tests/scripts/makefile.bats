#!/usr/bin/env bats
#
# What the Makefile does with this machine: where it looks for programs, what it installs, and which
# packages and services it installs.
# shellcheck disable=SC2030,SC2031,SC2154 # status, output and lines are set by run

setup() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	unset MAKEFLAGS MFLAGS MAKELEVEL
	work=$BATS_TEST_TMPDIR
}

@test "the directories that an ordinary user's PATH lacks are looked into" {
	printf '%s\n' 'include Makefile' 'print-path:' $'\t@echo "$$PATH"' >"$work/Makefile"
	run make -s -f "$work/Makefile" print-path
	[ "$output" = "$PATH:/usr/local/sbin:/usr/sbin:/sbin" ]
}

# --- make install ---

# A copy of the installed files, with programs that need not be built.
stage() { # VARIABLE=VALUE...
	cp -r Makefile man systemd packaging "$work"
	touch "$work"/sniproxy-{static,hostname,check}
	make -C "$work" -o static -o sniproxy-hostname -o sniproxy-check DESTDIR="$work/stage" "$@" install
}

# unstage VARIABLE=VALUE...
unstage() {
	make -C "$work" DESTDIR="$work/stage" "$@" uninstall
	run find "$work/stage" ! -type d
	[ -z "$output" ]
}

@test "PREFIX is what units, manual pages and all else say" {
	stage PREFIX=/usr
	run grep -rE '/usr/local|@PROGRAM@|@CHECK@' "$work/stage"
	echo "$output"
	[ "$status" = 1 ]
	grep -qx ExecStart=/usr/sbin/sniproxy "$work/stage/usr/lib/systemd/system/sniproxy.service"
	grep -q '^ExecStart=/usr/bin/sniproxy-check ' \
		"$work/stage/usr/lib/systemd/system/sniproxy-check@.service"
	grep -q /usr/sbin/sniproxy-in "$work/stage/usr/share/man/man8/sniproxy.8"
	unstage PREFIX=/usr
}

@test "without PREFIX it is /usr/local" {
	stage
	local page
	for page in man/*; do
		cmp "$page" "$work/stage/usr/local/share/man/man${page##*.}/${page##*/}"
	done
	grep -qx ExecStart=/usr/local/sbin/sniproxy \
		"$work/stage/usr/local/lib/systemd/system/sniproxy.service"
	unstage
}

# --- packages ---

# What `make TARGET` would install, one a line, without its prerequisites.
packages_of() { # TARGET
	make -n "$1" | sed -n "s|^GOAL=$1 packaging/deps.sh $1 ||p" | xargs -n 1
}

@test "a build needs seven packages, and they are in the list for the tests too" {
	[ "$(packages_of deps-build | wc -l)" = 7 ]
	[ -z "$(comm -23 <(packages_of deps-build | sort) <(packages_of deps | sort))" ]
}

@test "each package is installed by a target, and has a reason" {
	local target
	diff <(for target in $(make -np | sed -n 's/^\(deps-*[a-z]*\):.*/\1/p' | grep -v remove); do
		packages_of "$target"
	done | sort -u) \
		<(sed -n 's/^\([a-z][^ ]*\) *# [a-z,]*: [^ ].*/\1/p' packaging/packages.txt | sort)
	[ "$(grep -c '^[a-z]' packaging/packages.txt)" = "$(grep -c '^[a-z].*# [a-z,]*: [^ ]' packaging/packages.txt)" ]
}

# The packages that only HASHED=1 needs.
for_hashed() {
	sed -n 's/ *# build: .*HASHED=1.*//p' packaging/packages.txt
}

@test "the Debian package is built with what deps-deb installs" {
	# Each has build-essential; debhelper is named by what it provides.
	diff <(packages_of deps-deb | grep -vxF -e build-essential -e "$(for_hashed)" | sort) \
		<(sed -n '/^Build-Depends:/,/^[^ B]/p' debian/control | grep -v '<!nocheck>' |
			sed -n 's/^\(Build-Depends:\)\? *\([a-z][^ ,]*\).*/\2/p' |
			sed 's/^debhelper-compat$/debhelper/; /^dh-sequence-/d' | sort)
}

# put_command NAME: writes stdin to the directory $work/bin.
put_command() {
	mkdir -p "$work/bin"
	cat >"$work/bin/$1"
	chmod 755 "$work/bin/$1"
}

# An ordinary user's machine, on which only curl of the packages is installed. It has no sudo,
# unless a test puts one there.
put_machine() {
	local program
	mkdir -p "$work/bin"
	for program in sh dirname grep sed sort uniq tr cat; do
		ln -s "$(type -P $program)" "$work/bin"
	done
	put_command id <<<$'#!/bin/sh\necho 1000'
	put_command apt-get <<<$'#!/bin/sh\nexit 1'
	put_command dpkg-query <<<$'#!/bin/sh\nprintf "%s\\n" "installed curl" "config-files bats"'
}

run_deps() {
	run env -i "PATH=$work/bin" GOAL="${goal-}" packaging/deps.sh "$@"
	echo "$output"
}

@test "where neither root nor sudo is there, deps says what to do" {
	put_machine
	run_deps deps curl bats nginx-light
	[ "$status" = 1 ]
	[ "${lines[0]}" = "make deps: this needs root, and there is no sudo. Run  su -c 'make deps'  first." ]
	[ "${lines[1]}" = "make deps: It is about bats nginx-light " ]
	goal=deps-bench run_deps deps curl bats
	[[ ${lines[0]} == *"Run  su -c 'make deps-bench'  first." ]]
}

@test "where nothing is missing, deps takes neither root nor sudo" {
	put_machine
	run_deps deps curl
	[ "$status" = 0 ]
	[ "$output" = "make deps: all packages are installed" ]
}

@test "where sudo is there, deps goes on by it" {
	put_machine
	put_command sudo <<<$'#!/bin/sh\necho "$@"'
	run_deps deps curl bats
	[ "$status" = 0 ]
	[ "$output" = "packaging/deps.sh deps curl bats" ]
}

@test "where there is no apt-get, deps says so" {
	put_machine
	rm "$work/bin/apt-get"
	run_deps deps curl
	[ "$status" = 1 ]
	[ "$output" = "make deps: this is not Debian; packaging/packages.txt says what is needed" ]
}

# --- services ---

# A package with a unit, an alias of that and a script, which it enables and starts as Debian's packages do.
make_package() { # NAME [COMMAND-OF-POSTINST]
	local tree=$work/$1
	mkdir -p "$tree/DEBIAN" "$tree/lib/systemd/system" "$tree/etc/init.d"
	printf '%s\n' "Package: $1" 'Version: 1' 'Architecture: all' 'Description: try' \
		'Maintainer: The sniproxy authors <maintainers@sniproxy.invalid>' \
		>"$tree/DEBIAN/control"
	printf '%s\n' '[Service]' 'ExecStart=/bin/true' '[Install]' 'WantedBy=multi-user.target' \
		"Alias=$1-alias.service" >"$tree/lib/systemd/system/$1.service"
	cat >"$tree/etc/init.d/$1" <<-END
		#!/bin/sh
		### BEGIN INIT INFO
		# Provides: $1
		# Required-Start:
		# Required-Stop:
		# Default-Start: 2 3 4 5
		# Default-Stop:
		### END INIT INFO
		echo \$1 >>/$1.did
	END
	cat >"$tree/DEBIAN/postinst" <<-END
		#!/bin/sh
		set -e
		deb-systemd-helper enable $1.service
		update-rc.d $1 defaults
		invoke-rc.d $1 start
		${2-}
	END
	chmod 755 "$tree/DEBIAN/postinst" "$tree/etc/init.d/$1"
	dpkg-deb --build "$tree" "$work/$1.deb"
}

# Mounts a copy of this machine at $work/machine/root. What is written there stays in memory.
mount_copy() {
	local files=$work/machine
	mount -t tmpfs -o mode=755 tmpfs "$files"
	mkdir "$files"/{upper,work,root}
	mount -t overlay -o "lowerdir=/,upperdir=$files/upper,workdir=$files/work" overlay "$files/root"
}

# bash does not exit if a command with ! before it succeeds.
fails() { # COMMAND...
	if "$@"; then return 1; fi
}

# Runs a command there. The machine itself is read-only for it: no link and no mistake leads out.
in_copy() { # COMMAND...
	local root=$work/machine/root place
	mount_copy
	# The innermost first.
	while read -r place; do
		[[ $place == "$work"/* ]] || mount -o remount,bind,ro "$place"
	done < <(cut -d ' ' -f 5 /proc/self/mountinfo | sort -ur)
	for place in / /etc /usr/sbin /var/lib/dpkg /run "$work"; do
		fails touch "$place/sniproxy-was-here"
	done
	mount --rbind /proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mkdir "$root/try"
	cp -r packaging "$work"/*.deb "$root/try"
	exec chroot "$root" "$@"
}

# In the copy: another init than systemd, which starts what is enabled; an apt-get with one package;
# and a service that exists already.
furnish() {
	cd /try || return
	rm -f /usr/sbin/policy-rc.d /sbin/init /sbin/runlevel /usr/local/sbin/apt-get
	touch /sbin/init
	printf '%s\n' '#!/bin/sh' 'echo N 2' >/sbin/runlevel
	cat >/usr/local/sbin/apt-get <<-'END'
		#!/bin/sh
		case $* in
		update) ;;
		"install -y --no-remove --no-install-recommends sniproxy-new")
			dpkg --force-unsafe-io -i /try/sniproxy-new.deb
			;;
		"purge sniproxy-new") dpkg --force-unsafe-io --purge sniproxy-new ;;
		*) exit 1 ;;
		esac
	END
	chmod 755 /sbin/runlevel /usr/local/sbin/apt-get
	PATH=/usr/local/sbin:$PATH
	dpkg --force-unsafe-io -i sniproxy-old.deb
	test -e /etc/systemd/system/multi-user.target.wants/sniproxy-old.service
	grep -qx start /sniproxy-old.did
}

try_in_copy() { # SCRIPT
	[ "$(id -u)" = 0 ] || skip "needs root, to install packages in a copy of this machine"
	mkdir "$work/machine"
	export work
	export -f mount_copy in_copy furnish fails
	unshare --mount bash -eu -c mount_copy || skip "no copy of this machine can be mounted"
	make_package sniproxy-old
	make_package sniproxy-new 'invoke-rc.d sniproxy-old restart'
	unshare --mount bash -eu -c 'in_copy "$@"' - bash -eux -o pipefail -c "furnish; $1"
}

# shellcheck disable=SC2016 # for the other shell
@test "what deps brings is neither enabled nor started, and what was there goes on" {
	try_in_copy '
		packaging/deps.sh deps sniproxy-new | tee /said
		[ "$(grep "left disabled" /said)" = "make deps: sniproxy-new was installed now, and is left disabled" ]
		fails systemctl is-enabled sniproxy-new.service
		test -e /etc/init.d/sniproxy-new
		fails ls /etc/rc2.d/S*sniproxy-new /etc/rc5.d/S*sniproxy-new
		fails test -e /sniproxy-new.did
		systemctl is-enabled sniproxy-old.service
		ls /etc/rc2.d/S*sniproxy-old
		grep -qx restart /sniproxy-old.did
		fails test -e /usr/sbin/policy-rc.d'
}

# shellcheck disable=SC2016 # for the other shell
@test "what deps brings is not enabled where systemd is not installed, either" {
	try_in_copy '
		rm /usr/bin/systemctl
		packaging/deps.sh deps sniproxy-new
		fails ls /etc/systemd/system/*/sniproxy-new.service /etc/rc2.d/S*sniproxy-new
		ls /etc/systemd/system/*/sniproxy-old.service'
}

@test "an administrator's policy stays, and decides" {
	try_in_copy '
		echo "#!/bin/sh" >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
		packaging/deps.sh deps sniproxy-new
		fails systemctl is-enabled sniproxy-new.service
		[ "$(cat /usr/sbin/policy-rc.d)" = "#!/bin/sh" ]'
}

@test "deps-remove removes what deps has installed, and nothing else" {
	try_in_copy '
		packaging/deps.sh deps sniproxy-new
		packaging/deps.sh deps-remove
		fails dpkg-query -W sniproxy-new
		dpkg-query -W sniproxy-old
		packaging/deps.sh deps-remove | grep "no package from make deps is left"'
}

@test "deps-remove leaves what deps-build has installed" {
	try_in_copy '
		packaging/deps.sh deps-build sniproxy-new
		packaging/deps.sh deps-remove | grep "no package from make deps is left"
		dpkg-query -W sniproxy-new'
}

# --- the Makefile itself ---

@test "the Makefile can be read in one sitting" {
	local file
	[ "$(wc -l <Makefile)" -le 200 ]
	for file in Makefile */*.mk; do
		run expand "$file"
		[ -z "$(grep -nE '.{101}' <<<"$output")" ] || { echo "$file"; false; }
	done
}

# The plain build, whichever is under test.
unset SANITIZE PORTABLE HASHED

# A copy in which `make deps` installs the compiler, a moment after it is called.
put_bare_copy() {
	cp -r Makefile packaging tls.[ch] "$work"
	cat >"$work/packaging/deps.sh" <<-END
		#!/bin/sh
		sleep 1
		ln -sf "\$(command -v cc)" "$work/late-cc"
	END
}

@test "deps comes first, and the compiler is asked when it is there" {
	local object=build/plain/tls.o
	put_bare_copy
	make -j4 -C "$work" CC="$work/late-cc" deps-build "$object"
	grep -q -e -fstack-clash-protection "$work/build/plain/flags"
	run make -C "$work" CC="$work/late-cc" "$object"
	echo "$output"
	[[ $output != *late-cc* ]]
}

@test "the compiler is asked once, if something is compiled" {
	printf '%s\n' '#!/bin/sh' "echo \"\$*\" >>'$work/asked'" 'exec cc "$@"' >"$work/cc"
	chmod 755 "$work/cc"
	cp -r Makefile packaging tls.[ch] proxy.h lib "$work"
	make -C "$work" CC="$work/cc" build/plain/tls.o build/plain/lib/hostname.o
	[ "$(grep -c -e '-fstack-clash-protection -fsyntax-only' "$work/asked")" = 1 ]
	make -n -C "$work" CC="$work/cc" clean
	[ "$(wc -l <"$work/asked")" = 5 ]
}

# --- make lint ---

@test "clang-tidy prints what it finds in our files, and no count of warnings elsewhere" {
	command -v clang-tidy >/dev/null || skip "clang-tidy is not installed"
	cp .clang-tidy "$work"
	printf '#include <stdio.h>\n\nint\nmain(void)\n{\n\treturn puts("") == EOF;\n}\n' >"$work/a.c"
	run make -s lint-tidy sources="$work/a.c"
	[ "$status" = 0 ]
	[ "$output" = "" ]
	printf 'int\nmain(void)\n{\n\tint *p = 0;\n\treturn *p;\n}\n' >"$work/a.c"
	run make -s lint-tidy sources="$work/a.c"
	[ "$status" != 0 ]
	[[ $output == *"a.c:5:9: error: "*NullDereference* ]]
}

# --- make size ---

# sized FIRST_LINES: prints what size.sh prints for a.c, which has these lines and a header.
sized() {
	mkdir -p "$work/tests/scripts"
	cp tests/scripts/size.sh "$work/tests/scripts"
	printf '#define A\n' >"$work/a.h"
	{
		printf '#include "a.h"\n%s\n' "$1"
		printf 'static int\nlong_one(int a,\n    int b)\n{\n\ta++;\n\treturn a;\n}\n\nint x[] =\n{\n\t1,\n};\n'
	} >"$work/a.c"
	run "$work/tests/scripts/size.sh" a.c
	echo "$output"
}

@test "make size counts files, lines and columns, and finds the longest function" {
	sized ''
	[ "$status" = 0 ]
	[ "${lines[0]}" = ".c files: 1, of 24 at most" ]
	[ "${lines[1]}" = ".c lines: 14, of 4475 at most" ]
	[ "${lines[2]}" = ".h files: 1" ]
	[ "${lines[3]}" = ".h lines: 1, of 1285 at most" ]
	[ "${lines[4]}" = "longest function, long_one() in a.c: 4, of 40 at most" ]
	[ "${lines[5]}" = "longest line, a.c:8: 17, of 100 at most" ]
}

@test "and fails if anything is too large" {
	sized "$(printf '\t\t%093d' 0)"
	[ "$status" = 1 ]
	[ "${lines[5]}" = "longest line, a.c:2: 109, of 100 at most: TOO MUCH" ]
	FUNCTION=3 sized ''
	[ "$status" = 1 ]
	C_LINES=13 sized ''
	[ "$status" = 1 ]
}

#!/bin/bash
# The Debian package: built from a clean copy, judged by lintian, and installed, upgraded,
# removed and purged in a container. The RPM package and Alpine's: built, and looked into.
# What cannot be tried here is skipped, and that is said.
#
# usage: tests/package.sh DIRECTORY    which is made anew
set -eu -o pipefail

skip() {
	echo "${0##*/}: skipped: $*"
}

# needs TOOL...: says which tool is missing, and returns false.
needs() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || {
			skip "$what needs $tool (make deps-package)"
			return 1
		}
	done
}

# The files that git has, as they are now.
copy_source() { # DIRECTORY
	local tree
	mkdir -p "$1"
	tree=$(git stash create)
	git archive "${tree:-HEAD}" | tar -x -C "$1"
}

build_debian() {
	local version
	mkdir "$dir/stage"
	copy_source "$dir/debian/sniproxy"
	cd "$dir/debian/sniproxy"
	echo "# dpkg-buildpackage"
	dpkg-buildpackage -us -uc -b >../log 2>&1 || { cat ../log && return 1; }
	echo "# lintian"
	lintian --allow-root --fail-on error,warning ../*.changes
	version=$(dpkg-parsechangelog -S Version)
	mv ../sniproxy_*.deb "$dir/stage/old.deb"

	echo "# dpkg-buildpackage, of the next version"
	sed -i "1s/($version)/($version.1)/" debian/changelog
	DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b -nc >../log 2>&1 ||
		{ cat ../log && return 1; }
	mv ../sniproxy_*.deb "$dir/stage/new.deb"
	cp debian/tests/smoke "$dir/stage"
}

try_debian() {
	local what='the Debian package'
	needs dpkg-buildpackage dh dh_installsysusers lintian || return 0
	(build_debian)
	what='its installation'
	needs systemd-nspawn nginx openssl curl || return 0
	[ "$(id -u)" = 0 ] || { skip "$what needs root" && return 0; }
	tests/container.sh "$dir/stage" tests/package_guest.sh
}

[ -n "${1-}" ] || { echo "usage: $0 DIRECTORY" >&2 && exit 2; }
cd "$(dirname "$0")/.."
rm -rf "$1"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
try_debian

#!/bin/bash
# The Debian package: built from a clean copy, checked by lintian, and installed, upgraded, removed
# and purged in a container. The same for the RPM package. What Alpine's would contain. The image of
# packaging/Containerfile, built and run. Skips what cannot be tried here, and says so.
#
# usage: tests/machines/package.sh DIRECTORY    which is made anew
set -eu -o pipefail

skip() {
	echo "${0##*/}: skipped: $*"
}

# needs TOOL...: prints which tool is missing, and returns false.
needs() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || {
			skip "$what needs $tool (make deps-package)"
			return 1
		}
	done
}

# The files in git, as they are now.
copy_source() { # DIRECTORY
	local tree
	mkdir -p "$1"
	tree=$(git stash create)
	git archive "${tree:-HEAD}" | tar -x -C "$1"
}

build_debian() {
	local version
	copy_source "$dir/debian/sniproxy"
	cd "$dir/debian/sniproxy"
	echo "# dpkg-buildpackage"
	dpkg-buildpackage -us -uc -b >../log 2>&1 || { cat ../log && return 1; }
	echo "# lintian"
	lintian --allow-root --fail-on error,warning ../*.changes
	version=$(dpkg-parsechangelog -S Version)
	mv ../sniproxy-unix_*.deb "$dir/stage/old.deb"

	echo "# dpkg-buildpackage, of the next version"
	sed -i "1s/($version)/($version.1)/" debian/changelog
	DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b -nc >../log 2>&1 ||
		{ cat ../log && return 1; }
	mv ../sniproxy-unix_*.deb "$dir/stage/new.deb"
	cp debian/tests/smoke "$dir/stage"
}

try_debian() {
	local what='the Debian package'
	needs dpkg-buildpackage dh dh_installsysusers lintian || return 0
	(build_debian)
}

build_rpm() { # RELEASE FILE
	local spec=$dir/rpm/sniproxy-unix.spec
	sed "s/^Release: *1/Release: $1/" packaging/sniproxy-unix.spec >"$spec"
	# Debian has no systemd-rpm-macros, and its database lacks the dependencies.
	rpmbuild --define "_topdir $dir/rpm" --nodeps -bb "$spec" \
		--define '_unitdir %{_prefix}/lib/systemd/system' \
		--define '_sysusersdir %{_prefix}/lib/sysusers.d' \
		--define '_tmpfilesdir %{_prefix}/lib/tmpfiles.d' >"$dir/rpm/log" 2>&1 ||
		{ cat "$dir/rpm/log" && return 1; }
	mv "$dir"/rpm/RPMS/*/sniproxy-unix-*.rpm "$2"
}

try_rpm() {
	local what='the RPM package' name
	needs rpmbuild rpmlint || return 0
	name=sniproxy-$(sed -n 's/^Version: *//p' packaging/sniproxy-unix.spec)
	echo "# rpmlint"
	rpmlint packaging/sniproxy-unix.spec
	echo "# rpmbuild"
	copy_source "$dir/rpm/$name"
	mkdir "$dir/rpm/SOURCES"
	tar -C "$dir/rpm" -czf "$dir/rpm/SOURCES/$name.tar.gz" "$name"
	build_rpm 1 "$dir/stage/old.rpm"
	build_rpm 2 "$dir/stage/new.rpm"
}

# There is no abuild here: its steps are done by hand, with this machine's compilers.
try_alpine() {
	local what="Alpine's package" program
	needs shellcheck || return 0
	echo "# APKBUILD"
	shellcheck packaging/APKBUILD packaging/sniproxy-unix.p*-install
	copy_source "$dir/alpine/source"
	program=$dir/alpine/package/usr/sbin/sniproxy
	(
		cd "$dir/alpine/source"
		# shellcheck disable=SC2030 # for APKBUILD
		export pkgdir=$dir/alpine/package srcdir=$dir/alpine
		sh -euc '. packaging/APKBUILD
			for script in $install; do [ -x "packaging/$script" ]; done
			build && package'
	) >"$dir/alpine/log" 2>&1 || { cat "$dir/alpine/log" && return 1; }
	(cd "$dir/alpine/package" && find . ! -type d | sort) | diff - <(
		cat <<-END
			./usr/bin/sniproxy-check
			./usr/bin/sniproxy-hostname
			./usr/sbin/sniproxy
			./usr/share/bash-completion/completions/sniproxy-check
			./usr/share/bash-completion/completions/sniproxy-hostname
			./usr/share/man/man1/sniproxy-check.1
			./usr/share/man/man1/sniproxy-hostname.1
			./usr/share/man/man5/sniproxy.5
			./usr/share/man/man8/sniproxy.8
		END
	)
	{ "$program" </dev/null 2>&1 || :; } | grep -q 'stdin is not a socket'
}

# The image to build from, made of Debian's packages as they are now, without a registry.
import_debian() { # NAME
	debootstrap --variant=minbase bookworm "$dir/image/debian" >"$dir/image/log" 2>&1 ||
		return 1
	tar -C "$dir/image/debian" -c . | podman "${store[@]}" import --quiet - "$1" >/dev/null
}

build_image() {
	podman "${store[@]}" build --quiet --isolation=chroot --network=host --pull=never \
		--tag=sniproxy -f packaging/Containerfile . >"$dir/image/log" 2>&1 ||
		{ cat "$dir/image/log" && return 1; }
}

# In a mount namespace of its own, so that podman's mounts do not stay.
make_image() {
	local name='localhost/debian:12-slim' root
	local store=(--root="$dir/image/store" --runroot="$dir/image/run")
	grep -qx "FROM ${name##*/} AS build" packaging/Containerfile
	import_debian "$name" || { cat "$dir/image/log" && return 1; }
	cd "$dir/image/source"
	build_image
	podman "${store[@]}" image inspect --format \
		'{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Entrypoint}}' sniproxy |
		grep -Fx '65534:65534 /srv/sniproxy [/sniproxy]'
	root=$(podman "${store[@]}" image mount sniproxy)
	[ "$(find "$root" ! -type d -printf '/%P\n')" = /sniproxy ]
	cp "$root/sniproxy" "$dir/image/sniproxy-static"
}

try_image() {
	local what='the image'
	needs podman debootstrap bats nginx openssl || return 0
	[ "$(id -u)" = 0 ] || { skip "$what needs root" && return 0; }
	echo "# debootstrap, podman build"
	copy_source "$dir/image/source"
	unshare --mount -- "$0" image "$dir"
	rm -rf "$dir"/image/{debian,store,run}
	make --no-print-directory -C "$dir/image/source" all build/plain/tests/program/listen \
		>"$dir/image/log" 2>&1 || { cat "$dir/image/log" && return 1; }
	SNIPROXY=$dir/image/source/sniproxy SNIPROXY_STATIC=$dir/image/sniproxy-static \
		SNIPROXY_HOSTNAME=$dir/image/source/sniproxy-hostname \
		LISTEN=$dir/image/source/build/plain/tests/program/listen \
		bats --tap "$dir/image/source/tests/scripts/image.bats"
}

try_installation() {
	local what='installation'
	[ -e "$dir/stage/new.deb" ] || { skip "$what needs the Debian package" && return 0; }
	needs systemd-nspawn nginx openssl curl || return 0
	[ "$(id -u)" = 0 ] || { skip "$what needs root" && return 0; }
	GUEST=tests/machines/package_guest.sh tests/machines/container.sh "$dir/stage"
}

[ -n "${1-}" ] || { echo "usage: $0 DIRECTORY" >&2 && exit 2; }
cd "$(dirname "$0")/../.."
[ "$1" != image ] || { dir=$2 && make_image && exit; }
rm -rf "$1"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
mkdir "$dir/stage" "$dir/rpm"
try_alpine
try_rpm
try_image
try_debian
try_installation

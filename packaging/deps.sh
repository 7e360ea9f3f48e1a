#!/bin/sh
# Installs those of the given Debian packages that are missing, and removes none. Enables and starts
# no service. Lists what it has installed in the file .deps, for deps-remove, except for a build's
# packages.
#
# usage: packaging/deps.sh TARGET PACKAGE...    for `make deps` and its like
#        packaging/deps.sh deps-remove
# GOAL in the environment: the target that the user asked for, which needs this one.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
target=$1
shift

say() { # LINE...
	printf "make $target: %s\n" "$@"
}

installed() {
	# shellcheck disable=SC2016 # fields of dpkg's
	dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u
}

# Prints the services that could be started.
services() {
	find /etc/init.d /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system \
	    ! -type d -printf '%f\n' 2>/dev/null | sed 's/\.service$//'
}

# Prints what starts with the system: systemd's units, and another init's scripts.
enabled() {
	{
		find /etc/systemd/system -type l -printf '%f\n' 2>/dev/null || :
		find /etc/rc?.d -name 'S*' -printf '%f\n' 2>/dev/null | sed 's/^S[0-9]*//'
	} | sort -u
}

# Packages ask this program whether they may start or stop a service. An administrator's own program
# is not replaced.
policy=/usr/sbin/policy-rc.d

put_policy() {
	services >"$work/services"
	cat >"$work/policy" <<-END
		#!/bin/sh
		# Of sniproxy's "make $target", which removes it at its end: no new service is started.
		[ "\$1" != --quiet ] || shift
		# Nor is one that would not be without this file: without an init, or if it is disabled.
		[ -e /sbin/init ] || exit 101
		case \$2 in "("*) exit 101 ;; esac
		grep -qxF -e "\${1%.service}" $work/services || exit 101
	END
	chmod 755 "$work/policy"
	cp "$work/policy" "$policy"
}

# A service is enabled under several names: its unit's, the aliases of that, and its script's.
# Prints the name for all of these.
name_of() { # SERVICE
	basename "$(readlink "/etc/systemd/system/$1" || echo "$1")" .service
}

disable() { # SERVICE
	case $1 in
	*.*) find /etc/systemd/system -type l -name "$1" -delete ;; # there may be no systemctl
	*) update-rc.d "$1" disable ;;
	esac
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		# An administrator's policy may have let it start.
		systemctl --quiet stop "$1"
	fi
}

clean_up() {
	[ ! -e "$work/policy" ] || rm -f "$policy"
	rm -rf "$work"
}

install_packages() { # PACKAGE...
	work=$(mktemp -d)
	trap clean_up EXIT
	trap 'exit 1' INT TERM HUP
	installed >"$work/installed"
	enabled >"$work/enabled"
	[ -e "$policy" ] || put_policy
	apt-get update
	status=0
	DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y --no-remove --no-install-recommends "$@" || status=$?
	[ "$target" = deps-build ] || installed | comm -13 "$work/installed" - >>.deps
	new=$(enabled | comm -13 "$work/enabled" -)
	names=$(for service in $new; do name_of "$service"; done | sort -u)
	for service in $new; do
		disable "$service"
	done
	for service in $names; do
		say "$service was installed now, and is left disabled"
	done
	return $status
}

command -v apt-get >/dev/null || {
	say 'this is not Debian; packaging/packages.txt says what is needed' >&2
	exit 1
}
# The packages to remove, or to install.
if [ "$target" = deps-remove ]; then
	packages=$(installed | { cat; sort -u .deps 2>/dev/null; } | sort | uniq -d)
	nothing='no package from make deps is left'
else
	packages=$({ installed; installed; printf '%s\n' "$@" | sort -u; } | sort | uniq -u)
	nothing='all packages are installed'
fi
if [ -z "$packages" ]; then
	say "$nothing"
	exit
fi
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		say "this needs root, and there is no sudo. Run  su -c 'make ${GOAL:-$target}'  first." \
		    "It is about $(echo "$packages" | tr '\n' ' ')" >&2
		exit 1
	}
	exec sudo packaging/deps.sh "$target" "$@"
fi
# shellcheck disable=SC2086 # names of packages
case $target in
deps-remove) apt-get purge $packages && rm -f .deps ;; # apt-get asks first
*) install_packages $packages ;;
esac

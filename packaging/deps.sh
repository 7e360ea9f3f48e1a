#!/bin/sh
# Installs those of some Debian packages that are missing, and removes none for them. No service is
# enabled or runs after it that was not and did not before. What came is listed in the file .deps,
# for deps-remove, but for what a build needs.
#
# usage: packaging/deps.sh TARGET PACKAGE...    for `make deps` and its like
#        packaging/deps.sh deps-remove
# GOAL in the environment: the target that was asked for, which this one is needed by.
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

# The services that could be started.
services() {
	find /etc/init.d /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system \
	    ! -type d -printf '%f\n' 2>/dev/null | sed 's/\.service$//'
}

# What starts with the system: systemd's units, and another init's scripts.
enabled() {
	{
		find /etc/systemd/system -type l -printf '%f\n' 2>/dev/null || :
		find /etc/rc?.d -name 'S*' -printf '%f\n' 2>/dev/null | sed 's/^S[0-9]*//'
	} | sort -u
}

# Where packages ask whether they may start or stop a service. If an administrator has one, that
# one decides.
policy=/usr/sbin/policy-rc.d

put_policy() {
	services >"$work/services"
	cat >"$work/policy" <<-END
		#!/bin/sh
		# Of sniproxy's "make $target", which removes it at its end: what is new is not started.
		[ "\$1" != --quiet ] || shift
		# Nor is what would not be without this file: where no init is, or where it is disabled.
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
		say "$service came now, and is left disabled"
	done
	return $status
}

command -v apt-get >/dev/null || {
	say 'this is not Debian; packaging/packages.txt says what is needed' >&2
	exit 1
}
# Which of the packages there is something to be done for.
if [ "$target" = deps-remove ]; then
	packages=$(installed | { cat; sort -u .deps 2>/dev/null; } | sort | uniq -d)
	nothing='nothing is there that came by make deps'
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
		say "this takes root, and there is no sudo. Run  su -c 'make ${GOAL:-$target}'  first." \
		    "It is about $(echo "$packages" | tr '\n' ' ')" >&2
		exit 1
	}
	exec sudo packaging/deps.sh "$target" "$@"
fi
# shellcheck disable=SC2086 # names of packages
case $target in
deps-remove) apt-get purge $packages && rm -f .deps ;; # it asks
*) install_packages $packages ;;
esac

#!/bin/sh
# Prints a block of README.md or of docs/*.md, so that what they tell people to type is what
# is tested.
#
# usage: tests/scripts/readme.sh HEADING [N]    the Nth block below the heading, the first without N
# Wherever the heading stands, it is the only one.
set -eu
cd "$(dirname "$0")/../.."

files=$(grep -lxF -e "$1" README.md docs/*.md) || {
	echo "README.md, docs: no heading $1" >&2
	exit 1
}
[ "$(cat README.md docs/*.md | grep -cxF -e "$1")" = 1 ] || {
	echo "README.md, docs: more than one heading $1" >&2
	exit 1
}

exec perl tests/scripts/blocks.pl show "$files" "$@"

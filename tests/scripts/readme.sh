#!/bin/sh
# Prints a block of README.md or of docs/*.md, so that tests run what these tell people to type.
#
# usage: tests/scripts/readme.sh HEADING [N]    prints the Nth block below the heading, or the first
# The heading must be unique in all these files.
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

#!/bin/sh
# Prints a block of a document (*.md, docs/*.md), so that tests run what it tells people to type.
#
# usage: tests/scripts/readme.sh HEADING [N]    prints the Nth block below the heading, or the first
# The heading must be unique in all these files.
set -eu
cd "$(dirname "$0")/../.."

files=$(grep -lxF -e "$1" ./*.md docs/*.md) || {
	echo "*.md, docs/*.md: no heading $1" >&2
	exit 1
}
[ "$(cat ./*.md docs/*.md | grep -cxF -e "$1")" = 1 ] || {
	echo "*.md, docs/*.md: more than one heading $1" >&2
	exit 1
}

exec perl tests/scripts/blocks.pl show "$files" "$@"

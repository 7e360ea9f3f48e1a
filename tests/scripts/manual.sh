#!/bin/sh
# Prints a literal block of a manual page, without prompts, so that tests run what the page shows.
#
# usage: tests/scripts/manual.sh PAGE HEADING [N]
# prints the Nth block (.Bd -literal, .Dl) below the line HEADING (".Sh EXAMPLES"), or the first
set -eu
cd "$(dirname "$0")/../.."

page=$1
shift
exec perl tests/scripts/blocks.pl show "man/$page" "$@"

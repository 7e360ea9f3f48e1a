#!/bin/sh
# Prints a literal block of a manual page, without prompts, so that what it shows people is what is
# tested.
#
# usage: tests/scripts/manual.sh PAGE HEADING [N]
#     the Nth block (.Bd -literal, .Dl) below the line HEADING (".Sh EXAMPLES"), the first without N
set -eu
cd "$(dirname "$0")/../.."

page=$1
shift
exec perl tests/scripts/blocks.pl show "man/$page" "$@"

#!/bin/sh
# Prints a literal block of a manual page, so that what it shows people is what is tested.
#
# usage: tests/manual.sh PAGE HEADING [N]
#     the Nth block (.Bd -literal, .Dl) below the line HEADING (".Sh EXAMPLES"), the first without N
set -eu

awk -v page="$1" -v heading="$2" -v wanted="${3:-1}" '
	function show(line) {
		if (!below || number != wanted)
			return
		gsub(/\\\(dq/, "\"", line)
		gsub(/\\\(:u/, "ü", line)
		print line
		found = 1
	}
	/^\.S[hs] / { below = $0 == heading; next }
	/^\.Bd -literal/ { inside = 1; number += below; next }
	/^\.Ed/ { inside = 0; next }
	/^\.Dl / { number += below; sub(/^\.Dl ([#$] )?/, ""); show($0); next }
	inside { show($0) }
	END {
		if (!found) {
			print page ": no block " wanted " below " heading > "/dev/stderr"
			exit 1
		}
	}
' "$(dirname "$0")/../man/$1"

#!/bin/sh
# Prints a code block of README.md, so that what it tells people to type is what is tested.
#
# usage: tests/readme.sh HEADING [N]    the Nth block below the heading, the first without N
set -eu

awk -v heading="$1" -v wanted="${2:-1}" '
	/^#+ / { below = $0 == heading; next }
	!below { next }
	/^    / { if (!inside) { inside = 1; number++ } }
	/^[^ ]/ { inside = 0 }
	inside && number == wanted { sub(/^    /, ""); print; found = 1 }
	END {
		if (!found) {
			print "README.md: no block " wanted " below " heading > "/dev/stderr"
			exit 1
		}
	}
' "$(dirname "$0")/../README.md"

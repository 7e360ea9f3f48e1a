#!/bin/sh
# Prints how large sniproxy is: files and lines of .c and of .h, the longest function, from { to },
# and the longest line, in columns. Fails if anything is more than it may be.
#
# usage: tests/scripts/size.sh SOURCE...    the .c files that it is linked from; the headers are those
#                                           that they include
# C_LINES=4475 H_LINES=1285 C_FILES=24 FUNCTION=40 COLUMN=100 in the environment: what may be.
set -eu
cd "$(dirname "$0")/../.."

included() { # FILE...
	sed -n 's/^#include "\(.*\)"/\1/p' "$@" | sort -u
}

headers() { # FILE...
	found=$(included "$@")
	until
		# shellcheck disable=SC2086 # names without spaces
		more=$({ printf '%s\n' $found && included $found; } | sort -u)
		[ "$more" = "$found" ]
	do
		found=$more
	done
	echo "$found"
}

[ $# -gt 0 ] || { echo "usage: tests/scripts/size.sh SOURCE..." >&2; exit 2; }
# shellcheck disable=SC2046 # names without spaces
set -- "$@" $(headers "$@")
for file; do
	expand "$file" | sed "s|^|$file:|"
done | awk -F : -v c_most="${C_LINES-4475}" -v h_most="${H_LINES-1285}" -v files_most="${C_FILES-24}" \
    -v function_most="${FUNCTION-40}" -v column_most="${COLUMN-100}" '
function say(what, number, most) {
	printf "%s: %d, of %d at most%s\n", what, number, most, (number > most ? ": TOO MUCH" : "")
	failed = failed || (number > most)
}
{
	text = substr($0, length($1) + 2)
	kind = $1 ~ /\.h$/ ? "h" : "c"
	files[kind] += $1 != last
	lines[kind]++
	number = $1 == last ? number + 1 : 1
	last = $1
	if (length(text) > column) {
		column = length(text)
		widest = $1 ":" number
	}
}
# In column 0 are the name, the { and the } of a function; a type or an array has no { in a line alone.
text ~ /^[A-Za-z_].*\(/ {
	name = text
	sub(/\(.*/, "", name)
	sub(/.*[ *]/, "", name)
}
text == "{" { begin = number }
text ~ /^}/ {
	if (begin && number - begin + 1 > longest) {
		longest = number - begin + 1
		where = name "() in " $1
	}
	begin = 0
}
END {
	say(".c files", files["c"], files_most)
	say(".c lines", lines["c"], c_most)
	printf ".h files: %d\n", files["h"]
	say(".h lines", lines["h"], h_most)
	say("longest function, " where, longest, function_most)
	say("longest line, " widest, column, column_most)
	exit failed
}'

#!/bin/sh
# Soaks builds of sniproxy, one after another, for SECONDS in all.
#
# usage: tests/load/soak.sh SOAK SECONDS PROGRAM...
set -eu
soak=$1
seconds=$(($2 / ($# - 2)))
shift 2
seed=${SOAK_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
directory=$(mktemp -d)
pid=
trap 'rm -rf "$directory"' EXIT
trap '[ -z "$pid" ] || { kill "$pid"; wait "$pid"; } || true; exit 1' HUP INT TERM
export UBSAN_OPTIONS=print_stacktrace=1

status=0
for program; do
	echo "soak: $program for $seconds s; SOAK_SEED=$seed"
	mkdir "$directory/run"
	case $program in
	# ThreadSanitizer supports fewer memory layouts than the kernel's randomization makes.
	*thread*) set -- setarch -R "$soak" ;;
	*address*) set -- "$soak" ;; # its LeakSanitizer looks at memory
	# malloc(3) then returns free memory, so that memory that is not freed can be seen: small
	# pieces that it keeps would hold what is below them.
	*) set -- env MEMORY=1 MALLOC_MMAP_THRESHOLD_=32768 MALLOC_TRIM_THRESHOLD_=0 \
	    MALLOC_TOP_PAD_=0 \
	    GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0 "$soak" ;;
	esac
	# In the background, so that signals take effect at once.
	"$@" "$program" "$directory/run" "$seconds" "$seed" &
	pid=$!
	if ! wait "$pid"; then
		status=1
		tail -n 20 "$directory"/run/log.*
		sed -n '/Sanitizer\|runtime error/,$p' "$directory"/run/log.* | head -n 200
	fi
	pid=
	rm -rf "$directory/run"
done
exit $status

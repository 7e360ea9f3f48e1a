#!/bin/sh
# Runs all tests against the programs in BUILD, several at a time; tests for which directory names
# matter also against those in HASHED_BUILD, and some against those in OTHER. Prints at the end what
# was skipped, and why, what failed, and the counts.
#
# usage: tests/run.sh BUILD [HASHED_BUILD [OTHER...]]
# If BUILD has no programs, tests that run them are left out.
# TESTS='program_limits image.bats' in the environment: runs only these.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
hashed_build=${2:-}

# The counts of the TAP lines on stdin. Fails if a test failed or none passed.
counts() {
	awk '/^not ok/ { failed++ }
		/^ok/ { if (tolower($0) ~ /# *skip/) skipped++; else passed++ }
		END {
			printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
			exit failed || !passed
		}'
}

# Runs one test program; its TAP lines are counted again below.
if [ "$build" = --one ]; then
	build=$PWD/$2
	test=$3
	name=$(basename "$test")
	result=$build/results/$name
	case $build in */hashed*) HASHED=1 name="$name (HASHED)" ;; *) HASHED='' ;; esac
	case $test in "$2"/* | *.bats) ;; *) name="$name (${build##*/})" ;; esac
	case $build in *-portable*) PORTABLE=1 ;; *) PORTABLE='' ;; esac
	case $build in *-portable* | *-freebsd* | *-macos*) OTHER_SYSTEM=1 ;; *) OTHER_SYSTEM='' ;; esac
	export HASHED PORTABLE OTHER_SYSTEM SNIPROXY="$build/sniproxy" SNIPROXY_HOSTNAME="$build/sniproxy-hostname"
	export SNIPROXY_CHECK="$build/sniproxy-check"
	export LISTEN="$build/tests/program/listen" SNIPROXY_STATIC="$PWD/sniproxy-static"
	export HASTY="$build/tests/program/hasty"
	export LSAN_OPTIONS=suppressions=$PWD/tests/program/lsan.supp
	# `make flood` has rates of its own; here, other tests run at the same time.
	export FLOOD="$build/tests/load/flood" FLOOD_RATE=700 FLOOD_SECONDS=4
	export FAULTS=brief CLOSE_FAILS="$build/tests/program/close_fails.so"
	case $build in *-thread* | *-address*) FLOOD_RATE=250 ;; esac
	# They load the machine nearly fully, or measure milliseconds.
	case $name in program_memory* | program_delay*) jobs=1 ;; program_flood*) jobs=2 ;; program_limits*) jobs=3 ;; *) jobs=8 ;; esac
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	# The programs of another machine, with a replacement of Criterion.
	case $build in
	*-linux-gnu*)
		machine=${build##*/}
		machine=${machine#*-}
		EMULATOR=$(command -v "qemu-${machine%%-*}-static")
		export EMULATOR SKIPPED="$result.skipped" SNIPROXY_STATIC="$SNIPROXY"
		sed -n "s/^\(all\|$machine\) //p" tests/machines/foreign/skipped >"$SKIPPED"
		;;
	esac
	case $test in
	*/clients/*.bats) set -- timeout 900 bats --tap --timing "$test" ;;
	*.bats) set -- timeout 900 bats --tap "$test" ;;
	*/oracle) set -- timeout 300 "$test" ;;
	*/replay_*)
		mkdir "$result.tmp"
		set -- env TMPDIR="$result.tmp" timeout 300 ${EMULATOR-} "$test" "tests/fuzz/corpus/${test##*_}"
		;;
	*-linux-gnu*/test_*) set -- timeout 600 "$EMULATOR" "$test" "$SKIPPED" ;;
	*) set -- timeout 1200 "$test" --jobs=$jobs --tap="$result.tap" ;;
	esac
	# ThreadSanitizer supports fewer memory layouts than the kernel's randomization makes.
	case $build in *thread*) set -- setarch -R "$@" ;; esac
	if [ "$(id -u)" != 0 ]; then
		case $name in
		# It mounts, and has threads by then, so it cannot create this namespace itself.
		test_log*) ! unshare --map-root-user true || set -- unshare --map-root-user "$@" ;;
		# An ordinary user's pipes may have 64 MiB (pipe(7), pipe-user-pages-soft). Beyond
		# that they are small, and the program does not use them. The first two take all;
		# others need some.
		program_memory* | program_flood*) set -- flock --close "$build/results" "$@" ;;
		program_faults* | program_limits* | test_relay*)
			set -- flock --close --shared "$build/results" "$@"
			;;
		esac
	fi
	began=$(date +%s)
	"$@" > "$result.log" 2>&1 < /dev/null
	status=$?
	case $test in
	*.bats | */oracle | */replay_* | *-linux-gnu*/test_*) cp "$result.log" "$result.tap" ;;
	esac
	if [ $status -ne 0 ]; then
		cat "$result.log"
		grep -q '^not ok' "$result.tap" || echo "not ok - exit status $status" >> "$result.tap"
	fi
	echo "$name: $(counts <"$result.tap"), $(($(date +%s) - began)) s"
	exit 0
fi

others=
[ $# -lt 3 ] || { shift 2 && others=$*; }

# Of the lines on stdin, BUILD and TEST, prints those that are wanted.
choose() {
	while read -r its_build test; do
		case " ${TESTS:-${test##*/}} " in
		*" ${test##*/} "*) echo "$its_build $test" ;;
		esac
	done
}

# Runs COMMAND for each result. KIND and the program's name precede each line of its output.
told() { # KIND COMMAND [ARGUMENT...]
	kind=$1
	shift
	for it in "$build" $hashed_build $others; do
		for result in "$it/results"/*.tap; do
			[ -e "$result" ] || continue
			name=${result##*/}
			name=${name%.tap}
			case $it in
			*/hashed*) name="$name (HASHED)" ;;
			"$build") ;;
			*) name="$name (${it##*/})" ;;
			esac
			"$@" "$result" | sed "s/^/$kind: $name: /"
		done
	done
}

rm -rf "$build/results" && mkdir -p "$build/results" || exit 1
# Tests that sanitizers or an emulator slow down miss their times if too many run at once.
case $build in *-thread* | *-address* | *-linux-gnu*) parallel=3 ;; *) parallel=4 ;; esac
{
	# The longest first, and among these those that others may wait for; those that wait come
	# late.
	for test in tests/program/program_memory.c tests/program/program_flood.c \
	    tests/program/program_[!fl]*.c tests/oracle/oracle.c tests/unit/test_[!r]*.c; do
		test=$build/${test%.c}
		[ ! -e "$test" ] || echo "$build $test"
	done
	for test in tests/fuzz/fuzz_*.c; do
		test=${test%.c}
		echo "$build $build/tests/fuzz/replay_${test#*_}"
	done
	# Clients need packages of their own, so they run only if TESTS names them. Scripts do not
	# support an emulator, and some of them not hashed directory names.
	for test in tests/scripts/*.bats ${TESTS:+tests/clients/*.bats}; do
		case $build in *-linux-gnu*) break ;; esac
		case $build/${test##*/} in
		*/hashed*/check.bats | */hashed*/image.bats | */hashed*/proxy_v2.bats | \
			*/hashed*/scaling.bats | */hashed*/supervisors.bats) continue ;;
		esac
		[ ! -e "$build/sniproxy" ] || echo "$build $test"
	done
	for test in tests/program/program_*.c tests/unit/test_*.c; do
		test=$build/${test%.c}
		[ ! -e "$test" ] || echo "$build $test"
	done
	if [ -n "$hashed_build" ]; then
		rm -rf "$hashed_build/results" && mkdir -p "$hashed_build/results" || exit 1
		for test in program/program_name program/program_backend program/program_special \
		    program/program_check unit/test_hostname fuzz/replay_name fuzz/replay_path; do
			test=$hashed_build/tests/$test
			[ ! -e "$test" ] || echo "$hashed_build $test"
		done
		for test in hostname tls; do
			[ ! -e "$hashed_build/sniproxy-hostname" ] || echo "$hashed_build tests/scripts/$test.bats"
		done
	fi
	for other in $others; do
		rm -rf "$other/results" && mkdir -p "$other/results" || exit 1
		for test in program_name program_backend program_special; do
			echo "$other $PWD/$build/tests/program/$test"
		done
	done
} | choose | awk '!seen[$0]++' | xargs -r -P "$parallel" -L 1 tests/run.sh --one

told skipped sed -n 's/^ok [-0-9]* *\(.*[^ ]\) *# *[Ss][Kk][Ii][Pp] */\1: /p' \
    > "$build/results/skipped"
cat "$build/results/skipped"
# Prints what each says again, because readers see the end first.
told failed awk '/^ok/ { on = 0 } sub(/^not ok [-0-9]* */, "") { on = 20 } on-- > 0'
# shellcheck disable=SC2046,SC2086 # words
find $(printf '%s/results ' "$build" $hashed_build $others) -name '*.tap' -exec cat {} + | counts

#!/bin/sh
# Runs the fuzz tests. Their findings go below BUILD. If one finds a fault, its input is named, and
# the exit status is 1.
#
# usage: tests/fuzz/fuzz.sh run BUILD AFL_BUILD SECONDS    each test for SECONDS
#        tests/fuzz/fuzz.sh corpus BUILD MAKE_CORPUS       makes a new tests/fuzz/corpus: the inputs of
#                                                     MAKE_CORPUS, and those found so far that
#                                                     reach more code
set -eu
cd "$(dirname "$0")/../.."
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
unset ASAN_OPTIONS || :
what=$1
build=$PWD/$2
work=$build/fuzz
mkdir -p "$work/tmp"
export TMPDIR="$work/tmp" # a test that crashes leaves its hosts directory there
trap 'rm -rf "$work/tmp"' EXIT

# The rest of a longer input tells nothing new.
longest() {
	case $1 in hello) echo 2048 ;; name) echo 300 ;; path) echo 4096 ;; header) echo 512 ;; esac
}

# Reports the result of a test; prints its log if that is bad.
report() {
	test=$1 status=$2 log=$3 findings=$4
	if [ "$status" -eq 0 ] && [ -z "$findings" ]; then
		return
	fi
	tail -n 40 "$log"
	echo "$test: status $status, FOUND: ${findings:-nothing; see $log}"
	failed=1
}

run_libfuzzer() {
	test=$1 seconds=$2
	found=$work/found/$test
	log=$work/$test.log
	rm -rf "$work/findings/$test"
	mkdir -p "$found" "$work/findings/$test"
	status=0
	"$build/tests/fuzz/fuzz_$test" -max_total_time="$seconds" -max_len="$(longest "$test")" \
	    -timeout=10 -print_final_stats=1 -artifact_prefix="$work/findings/$test/" \
	    "$found" "tests/fuzz/corpus/$test" > "$log" 2>&1 || status=$?
	echo "$test: $(sed -n 's/^#[0-9]*.DONE *//p' "$log")"
	report "$test" $status "$log" "$(find "$work/findings/$test" -type f)"
}

# The second engine mutates in a different way.
run_afl() {
	test=$1 seconds=$2
	out=$work/afl-$test
	log=$work/afl-$test.log
	rm -rf "$out"
	status=0
	env -u UBSAN_OPTIONS AFL_NO_UI=1 AFL_NO_AFFINITY=1 AFL_SKIP_CPUFREQ=1 AFL_BENCH_UNTIL_CRASH=1 \
	    AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
	    afl-fuzz -V "$seconds" -i "tests/fuzz/corpus/$test" -o "$out" -m none -t 5000 \
	    "$afl_build/tests/fuzz/fuzz_$test" > "$log" 2>&1 || status=$?
	echo "$test, AFL++: $(sed -n 's/^\(execs_per_sec\|corpus_count\|bitmap_cvg\) *: */\1 /p' \
	    "$out/default/fuzzer_stats" 2> /dev/null | tr '\n' ' ')"
	findings=$(find "$out" -path '*/crashes/id*' -o -path '*/hangs/id*')
	report "$test, AFL++" $status "$log" "$findings"
}

# Adds to the generator's inputs few of those found, which together reach as much code as all.
make_corpus() {
	test=$1
	mkdir -p "$work/found/$test"
	"$build/tests/fuzz/fuzz_$test" -set_cover_merge=1 -max_len="$(longest "$test")" \
	    "$work/corpus/$test" "$work/found/$test" > "$work/$test-merge.log" 2>&1
	rm -rf "tests/fuzz/corpus/$test" && mkdir -p tests/fuzz/corpus
	cp -r "$work/corpus/$test" "tests/fuzz/corpus/$test"
	echo "tests/fuzz/corpus/$test: $(find "tests/fuzz/corpus/$test" -type f | wc -l) inputs"
}

failed=0
case $what in
run)
	afl_build=$PWD/$3
	for test in hello name path header; do
		run_libfuzzer $test "$4"
	done
	run_afl hello "$4"
	;;
corpus)
	rm -rf "$work/corpus"
	mkdir -p "$work/corpus/hello" "$work/corpus/name" "$work/corpus/path" "$work/corpus/header"
	"$3" "$work/corpus"
	for test in hello name path header; do
		make_corpus $test
	done
	;;
esac
exit $failed

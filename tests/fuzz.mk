# Fuzz tests: in builds for `make fuzz` with the main of an engine (libFuzzer, AFL++), and in all
# builds with one that replays a corpus.

fuzz_tests := hello name path header
replays := $(fuzz_tests:%=$(BUILD)/tests/fuzz/replay_%)
fuzzers := $(fuzz_tests:%=$(BUILD)/tests/fuzz/fuzz_%)
engines := $(foreach engine,replay fuzz,$(BUILD)/tests/fuzz/$(engine)_)

$(engines:%=%hello): $(addprefix $(BUILD)/,tls.o tests/unit/hellos.o)
$(engines:%=%name): $(BUILD)/lib/hostname.o
$(engines:%=%header): $(addprefix $(BUILD)/,$(addprefix lib/,proxy_protocol.o backend.o owner.o \
    address.o) system/$(SYSTEM).o $(stubs:%=%/stubs.o))
$(engines:%=%path): $(addprefix $(BUILD)/,tests/fuzz/path_hosts.o \
    $(filter-out lib/log.o,$(modules)))
$(engines:%=%path): private wrapped = -Wl,--wrap=clock_gettime,--wrap=__clock_gettime64 \
    -Wl,--wrap=pthread_create,--wrap=sem_wait,--wrap=poll,--wrap=getsockname,--wrap=connect \
    -Wl,--wrap=recv,--wrap=send,--wrap=system_splice,--wrap=thread_is_short

$(replays): $(BUILD)/tests/fuzz/replay_%: $(addprefix $(BUILD)/tests/fuzz/,fuzz_%.o replay.o) \
    $(for_tsan:%=$(BUILD)/%)
	$(link) $(wrapped) $(wrapped_for_tsan) -o $@ $^

$(fuzzers): %: %.o
	$(link) $(wrapped) -fsanitize=fuzzer -o $@ $^

$(BUILD)/tests/fuzz/corpus: $(addprefix $(BUILD)/,tests/fuzz/corpus.o tests/unit/hellos.o \
    tests/unit/proxy_headers.o tls.o)
	$(link) -o $@ $^

FUZZ_SECONDS ?= 60
fuzz_build := build/fuzz$(if $(HASHED),-hashed)
build_fuzzers = $(MAKE) --no-print-directory CC=clang BUILD=$(fuzz_build) \
	SANITIZE=fuzzer-no-link,address,undefined build-fuzzers

fuzz:
	$(build_fuzzers)
	$(MAKE) --no-print-directory CC=afl-clang-fast BUILD=$(fuzz_build)-afl \
	    SANITIZE=address,undefined $(fuzz_build)-afl/tests/fuzz/fuzz_hello
	tests/fuzz/fuzz.sh run $(fuzz_build) $(fuzz_build)-afl $(FUZZ_SECONDS)

corpus: $(BUILD)/tests/fuzz/corpus
	$(build_fuzzers)
	tests/fuzz/fuzz.sh corpus $(fuzz_build) $<

build-fuzzers: $(fuzzers)

.PHONY: fuzz corpus build-fuzzers

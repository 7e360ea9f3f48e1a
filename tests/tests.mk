# `make check`, its tests, and their coverage.

without_sandbox := $(if $(and $(has_sandbox),$(if $(FOREIGN),,1)),,test_sandbox test_filter)
without_groups := $(if $(filter linux,$(SYSTEM)),,test_groups)
# Criterion does not support ThreadSanitizer; program tests cover threads anyway.
unit_tests := $(if $(findstring thread,$(SANITIZE)),,$(filter-out $(without_sandbox) \
    $(without_groups),$(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))))
program_tests := $(patsubst tests/program/%.c,%,$(wildcard tests/program/program_*.c))

# Unit tests are linked with the modules. Program tests only run the programs, so they need no
# sanitizer, and are this machine's.
of_this_machine := $(addprefix $(BUILD)/tests/,program/program_% program/harness.o \
	program/hellos.o program/remote.o program/listen load/flood program/hasty program/traced)
$(of_this_machine): sanitizer =
$(of_this_machine): foreign =

$(addprefix $(BUILD)/tests/unit/,$(unit_tests)): %: %.o $(BUILD)/tests/unit/hellos.o \
    $(if $(FOREIGN),$(BUILD)/tests/machines/foreign/criterion.o) $(addprefix $(BUILD)/,$(modules))
	$(link) $(wrapped) -o $@ $^ $(if $(FOREIGN),,-lcriterion) $(LDLIBS)

# These tests replace what the modules see of the system.
wrap_clock := -Wl,--wrap=clock_gettime,--wrap=__clock_gettime64
$(BUILD)/tests/unit/test_relay: private wrapped = $(wrap_clock) \
    -Wl,--wrap=system_open_pipe,--wrap=system_splice
$(BUILD)/tests/unit/test_table: private wrapped = $(wrap_clock) \
    -Wl,--wrap=shutdown,--wrap=system_unsent,--wrap=system_watch_remove \
    -Wl,--wrap=system_has_unread,--wrap=thread_is_short,--wrap=log_line
$(BUILD)/tests/unit/test_thread: private wrapped = $(wrap_clock) \
    -Wl,--wrap=pthread_create,--wrap=system_schedule_batch
$(BUILD)/tests/unit/test_idle $(BUILD)/tests/unit/test_down: private wrapped = $(wrap_clock)
$(BUILD)/tests/unit/test_backend: private wrapped = -Wl,--wrap=unshare
$(BUILD)/tests/unit/test_groups: private wrapped = -Wl,--wrap=fopen,--wrap=fopen64

$(BUILD)/tests/unit/test_filter: private LDLIBS = $(shell pkg-config --libs libseccomp)

# What sniproxy-check is made of besides.
$(BUILD)/tests/unit/test_path: $(BUILD)/check/path.o

$(BUILD)/tests/unit/test_proxy_protocol: $(BUILD)/tests/unit/proxy_headers.o

$(addprefix $(BUILD)/tests/program/,$(program_tests)): %: %.o $(BUILD)/tests/program/harness.o
	$(link) -o $@ $^ -lcriterion $(LDLIBS)

$(BUILD)/tests/program/program_delay: $(BUILD)/tests/program/remote.o

$(BUILD)/tests/program/program_special: $(BUILD)/tests/program/hellos.o

# The table of the unit tests, for this machine.
$(BUILD)/tests/program/hellos.o: tests/unit/hellos.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(compile) -MMD -MP -c -o $@ $<

# It parses the output of sniproxy-check.
$(BUILD)/tests/program/program_check: private LDLIBS = $(shell pkg-config --libs jansson)

$(addprefix $(BUILD)/tests/,program/listen load/flood program/traced): %: %.o
	$(link) -o $@ $^

# For the exercises of docs/tls-records.md.
$(BUILD)/tests/program/read_hello: %: %.o $(BUILD)/tls.o $(BUILD)/lib/hostname.o
	$(link) -o $@ $^

# A TLS client that leaves received bytes unread.
$(BUILD)/tests/program/hasty: %: %.o
	$(link) -o $@ $^ $(shell pkg-config --libs libssl libcrypto)

# A library for LD_PRELOAD.
$(BUILD)/tests/program/close_fails.so: sanitizer =
$(BUILD)/tests/program/close_fails.so: tests/program/close_fails.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(compile) -fPIC -shared -o $@ $<

# Asks OpenSSL and GnuTLS.
$(BUILD)/tests/oracle/oracle: $(addprefix $(BUILD)/tests/oracle/,oracle.o oracle_hellos.o \
    oracle_shape.o oracle_decisions.o oracle_openssl.o oracle_gnutls.o) \
    $(addprefix $(BUILD)/,tests/unit/hellos.o tls.o lib/hostname.o)
	$(link) -o $@ $^ $(shell pkg-config --libs libssl libcrypto gnutls)

# The oracle has no threads.
oracle_test := $(if $(findstring thread,$(SANITIZE)),,oracle/oracle)

tests := $(addprefix $(BUILD)/tests/,$(unit_tests:%=unit/%) $(program_tests:%=program/%) \
    $(addprefix program/,hasty traced read_hello close_fails.so) load/flood $(oracle_test)) \
    $(replays)

# With PORTABLE=1, also the same with musl, and with stubs what belongs to other systems.
other_systems := freebsd macos
others := $(if $(and $(PORTABLE),$(if $(HASHED)$(SANITIZE),,1)), \
	$(BUILD)-static $(other_systems:%=build/plain-%))

check: $(programs) $(tests) $(if $(SANITIZE),,sniproxy-static)
	$(if $(HASHED),,$(MAKE) --no-print-directory HASHED=1 build-check)
	$(if $(others),$(build_other_systems))
	tests/run.sh $(BUILD) '$(if $(HASHED),,$(subst plain,hashed,$(BUILD)))' $(others)

# The portable core with some of the tests, and the long names of other systems.
check-portable:
	$(MAKE) --no-print-directory PORTABLE=1 HASHED= SANITIZE= check-some

some_tests := program_name program_hello program_relay program_limits systems.bats
check-some: $(BUILD)/sniproxy \
    $(patsubst %,$(BUILD)/tests/program/%,$(filter program_%,$(some_tests)))
	$(build_other_systems)
	TESTS='$(some_tests)' tests/run.sh $(BUILD) '' $(other_systems:%=build/plain-%)

build_other_systems = $(foreach system,$(other_systems),$(MAKE) --no-print-directory PORTABLE= \
	SYSTEM=$(system) BUILD=$(build_other) $(build_other)/sniproxy &&) :
build_other = build/plain-$(system)

# ORACLE_COUNT=1000000, ORACLE_SEED=random and so on, see tests/oracle/oracle.c.
oracle: $(BUILD)/tests/oracle/oracle
	$<

# Each system call in service fails, see tests/program/program_faults.c.
faults: $(programs) sniproxy-static \
    $(addprefix $(BUILD)/tests/program/,program_faults close_fails.so)
	FAULTS=$(FAULTS) SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy \
	    SNIPROXY_STATIC=$(CURDIR)/sniproxy-static \
	    CLOSE_FAILS=$(CURDIR)/$(BUILD)/tests/program/close_fails.so HASHED=$(HASHED) \
	    SANITIZE='$(SANITIZE)' $(BUILD)/tests/program/program_faults --jobs=8

build-check: $(programs) $(tests) $(bench_programs) \
    $(addprefix $(BUILD)/tests/,fuzz/corpus load/soak)

# Without optimization each branch is one of the source. Other files are only shown; the limits are
# for the parser.
coverage:
	$(MAKE) --no-print-directory BUILD=build/coverage SANITIZE= STATIC= \
	    CFLAGS='-O0 -g --coverage -Wno-cpp' build-unit-check
	find build/coverage -name '*.gcda' -delete
	tests/run.sh build/coverage
	gcovr --root . --object-directory build/coverage --filter '((lib|system|check)/)?[^/]*\.c' \
	    --exclude-unreachable-branches --json build/coverage/gcovr.json
	gcovr --root . --add-tracefile build/coverage/gcovr.json
	gcovr --root . --add-tracefile build/coverage/gcovr.json --branches
	gcovr --root . --add-tracefile build/coverage/gcovr.json --filter 'tls\.c' \
	    --fail-under-line 100 --fail-under-branch 95 --output build/coverage/tls.txt

build-unit-check: $(addprefix $(BUILD)/tests/unit/,$(unit_tests)) $(replays)

.PHONY: check check-portable check-some oracle faults build-check coverage build-unit-check

# make deps demo     all the set-up there is, then the main job on real input
# make deps check    the same, then the tests
#
# all        sniproxy, sniproxy-hostname and sniproxy-check
# static     sniproxy-static, one file that needs nothing else
# check      the tests
# check-portable    some of them for the portable core; make check PORTABLE=1 runs all
# oracle     many more hellos for OpenSSL, GnuTLS and sniproxy to agree on
# faults     sniproxy with each system call in service made to fail; check has a part of it
# flood      sniproxy flooded with connections, FLOOD_SECONDS=30 each; takes twenty minutes
# soak       SOAK_SECONDS (600) of load and mishap, a third for each of three builds
# check-systemd    the units under a real systemd, in a container; as root
# check-backends   the servers of docs/backends.md, by its lines, in the same; make deps-backends before
# check-clients    browsers and other clients; make deps-clients before
# check-package    the packages, built, judged, and tried in a container; make deps-package before
# check-foreign    the program and its tests for a big-endian machine and one of 32 bits, emulated;
#            make deps-foreign before
# check-ipvs       docs/scaling.md under Debian's kernel, emulated, since that has IPVS; as root; make
#            deps-ipvs before
# fuzz       the fuzz tests, each for FUZZ_SECONDS (60); corpus makes their inputs anew
# coverage   how much of the code the unit tests and the corpora reach
# lint       the formatter, the linters, both compilers with -Werror, and the manual pages
# demo       three real TLS servers behind sniproxy, until Ctrl-C
# install    to PREFIX (/usr/local), below DESTDIR if set; uninstall undoes it, and stops the units
# bench      sniproxy beside other proxies, see bench/README.md; make deps-bench before
# deps       installs the Debian packages in packages.txt, and removes none for them; none of their
#            services is started or enabled
# deps-build installs those of them that `make install` needs; deps-deb, that the .deb needs
# deps-foreign, deps-ipvs   what check-foreign and check-ipvs need besides
# deps-remove    removes what deps and its like installed, but for what deps-build did
#
# HASHED=1          directories are named by the XXH128 of the name
# PORTABLE=1        with nothing beyond POSIX.1-2008, whatever the system; it builds apart, too
# SANITIZE=address,undefined or thread    builds apart from the plain build

# What --version says. debian/changelog, packaging/ and CHANGELOG.md have it too (tests/version.bats).
VERSION := 1.0~pre1

PREFIX ?= /usr/local
DESTDIR ?=
CC ?= cc
CFLAGS ?= -O2 -g
MUSL_CC ?= $(shell command -v musl-gcc)
HASHED ?=
PORTABLE ?=
SANITIZE ?=
FOREIGN ?=

# Where nginx, inetd and others are, which an ordinary user's PATH leaves out.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Which system_*.c. On Linux, those of other systems can be built with stubs, for tests.
system_of_Linux := linux
system_of_FreeBSD := freebsd
system_of_Darwin := macos
this_system := $(or $(system_of_$(shell uname -s)),posix)
SYSTEM := $(if $(PORTABLE),posix,$(this_system))
stubs := $(if $(filter-out posix $(this_system),$(SYSTEM)),tests/$(SYSTEM))
apart := $(if $(filter-out linux,$(SYSTEM)),-$(SYSTEM:posix=portable))$(if $(FOREIGN),-$(FOREIGN))

# The compiler; for another machine, one with all that it needs, but for what is every machine's, as
# xxhash.h is.
foreign = $(FOREIGN)
cc = $(if $(foreign),$(foreign)-gcc,$(CC))
foreign_cppflags = $(if $(foreign),-Itests/foreign -idirafter /usr/include)

comma := ,
BUILD := build/$(if $(HASHED),hashed,plain)$(apart)$(if $(STATIC),-static)$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))

# What the headers show: on Linux all; POSIX alone; or what is usual. Tests are Linux's, and so is
# what sniproxy-check has of its own. Files and times are of 64 bits on machines of 32, too.
features_linux := -D_GNU_SOURCE
features_posix := -D_POSIX_C_SOURCE=200809L -D_XOPEN_SOURCE=700
features = $(if $(stubs),-D_GNU_SOURCE -I$(stubs) -include $(stubs)/stubs.h,$(features_$(SYSTEM)))
of_check := sniproxy-check.o report.o entry.o handshake.o path.o view.o
$(BUILD)/tests/%.o $(BUILD)/tests/%.so $(BUILD)/bench/%.o $(of_check:%=$(BUILD)/%): private \
    features = -D_GNU_SOURCE

our_cppflags = $(features) -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 $(foreign_cppflags) \
	-DVERSION=\"$(VERSION)\" $(if $(HASHED),-DHASHED) $(if $(sanitizer),-DTHREAD_STACK_SIZE=1048576)
sanitizer = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
# What of these the compiler has: marks for processors that check where a branch leads (CET, BTI); no
# frame that is larger than the guard below a stack and leaps over it.
hardening := $(foreach flag,-fcf-protection=full -mbranch-protection=standard \
	-fstack-clash-protection,$(shell $(cc) -Werror $(flag) -fsyntax-only -x c /dev/null \
	2>/dev/null && echo $(flag)))
our_cflags = -std=gnu11 -pthread -fPIE -fstack-protector-strong $(hardening) \
	-Wall -Wextra -Wpedantic -Wconversion -Wshadow $(WERROR) \
	$(or $(sanitizer),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
our_ldflags = -pthread $(or $(if $(foreign),-static),$(STATIC),-pie) \
	-Wl,-z,relro,-z,now,-z,noexecstack $(sanitizer)
compile = $(cc) $(CPPFLAGS) $(our_cppflags) $(CFLAGS) $(our_cflags)
link = $(cc) $(CFLAGS) $(LDFLAGS) $(our_ldflags)

# sniproxy without its main, which is what unit tests link.
lot := $(if $(filter linux,$(SYSTEM)),lot.o,lot_poll.o)
# Sanitizers make calls of their own.
has_sandbox := $(if $(SANITIZE),,$(filter linux,$(SYSTEM)))
sandbox := $(if $(has_sandbox),sandbox.o filter.o,sandbox_none.o)
without_sandbox := $(if $(has_sandbox),$(if $(FOREIGN),test_sandbox test_filter),test_sandbox test_filter)
modules := accept.o deadline.o proxy.o hello.o route.o refusal.o network.o triage.o status.o pressure.o \
	overdue.o registry.o group.o lookup.o connection.o \
	$(lot) relay.o backend.o owner.o proxy_protocol.o tls.o hostname.o listener.o limits.o log.o \
	address.o thread.o $(sandbox) system_$(SYSTEM).o $(stubs:%=%/stubs.o)
tsan_calls := pselect $(if $(filter lot.o,$(lot)),epoll_ctl)
for_tsan := $(if $(findstring thread,$(SANITIZE)),$(tsan_calls:%=tests/tsan_%.o))
wrapped_for_tsan := $(if $(for_tsan),$(tsan_calls:%=-Wl$(comma)--wrap=%))
# Criterion and ThreadSanitizer do not go together; threads are in program tests anyway.
unit_tests := $(if $(findstring thread,$(SANITIZE)),,$(filter-out $(without_sandbox), \
    $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))))
program_tests := $(patsubst tests/%.c,%,$(wildcard tests/program_*.c))

all: sniproxy sniproxy-hostname $(if $(filter linux,$(this_system)),sniproxy-check)

# The programs of the variant that was built last stand at the top.
sniproxy sniproxy-hostname sniproxy-check: %: $(BUILD)/% build/variant
	cp -f $< $@

build/variant: FORCE
	@mkdir -p build
	@echo '$(BUILD)' | cmp -s - $@ || echo '$(BUILD)' > $@

$(BUILD)/sniproxy: $(addprefix $(BUILD)/,sniproxy.o $(modules) $(for_tsan))
	$(link) $(wrapped_for_tsan) -o $@ $^

$(BUILD)/sniproxy-hostname: $(addprefix $(BUILD)/,sniproxy-hostname.o idna.o hostname.o)
	$(link) -o $@ $^ $(shell pkg-config --libs icu-uc)

# The proxy's own modules are what decides in it.
check_modules := $(of_check) idna.o backend.o owner.o tls.o hostname.o address.o system_$(SYSTEM).o

$(BUILD)/sniproxy-check: $(addprefix $(BUILD)/,$(check_modules))
	$(link) -o $@ $^ $(shell pkg-config --libs icu-uc libssl libcrypto jansson)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(compile) -MMD -MP -c -o $@ $<

# Changes when a build variable does, so that everything is built anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(compile) : $(link)' | cmp -s - $@ || echo '$(compile) : $(link)' > $@

# One file for a chroot: with musl where it is there, else with the usual C library.
static: sniproxy-static

# musl-gcc has no -static-pie, so its parts are named.
musl_static_pie = -static -nostartfiles -Wl,-pie,--no-dynamic-linker,-z,text \
	$(firstword $(wildcard /usr/lib/*-linux-musl/rcrt1.o))

# The kernel's headers, which are the usual C library's.
musl_headers = -idirafter /usr/include/$(shell $(MUSL_CC) -print-multiarch)

sniproxy-static: FORCE
	$(MAKE) --no-print-directory SANITIZE= $(if $(MUSL_CC),CC='$(MUSL_CC)' \
	    CPPFLAGS='$(CPPFLAGS) -idirafter /usr/include $(musl_headers)' STATIC='$(musl_static_pie)', \
	    STATIC=-static-pie) static-copy

static-copy: $(BUILD)/sniproxy
	cmp -s $< sniproxy-static || cp -f $< sniproxy-static

# Unit tests are linked with the modules. Program tests only run the programs, so they need no
# sanitizer, and are this machine's.
of_this_machine := $(addprefix $(BUILD)/tests/,program_% harness.o listen flood hasty traced)
$(of_this_machine): sanitizer =
$(of_this_machine): foreign =

$(addprefix $(BUILD)/tests/,$(unit_tests)): %: %.o $(BUILD)/tests/hellos.o \
    $(if $(FOREIGN),$(BUILD)/tests/foreign/criterion.o) $(addprefix $(BUILD)/,$(modules))
	$(link) -o $@ $^ $(if $(FOREIGN),,-lcriterion) $(LDLIBS)

$(BUILD)/tests/test_filter: private LDLIBS = $(shell pkg-config --libs libseccomp)

$(BUILD)/tests/foreign/criterion.o: foreign_cppflags += -include $(BUILD)/tests/calls.h
$(BUILD)/tests/foreign/criterion.o: $(BUILD)/tests/calls.h

$(BUILD)/tests/calls.h: $(BUILD)/flags
	@mkdir -p $(@D)
	echo '#include <sys/syscall.h>' | $(CC) -E -dM - | sed -n 's/^#define __NR_/#define HOST_/p' >$@

# What sniproxy-check has besides.
$(BUILD)/tests/test_path: $(BUILD)/path.o

$(BUILD)/tests/test_proxy_protocol: $(BUILD)/tests/proxy_headers.o

$(addprefix $(BUILD)/tests/,$(program_tests)): %: %.o $(BUILD)/tests/harness.o
	$(link) -o $@ $^ -lcriterion $(LDLIBS)

# Reads what sniproxy-check prints.
$(BUILD)/tests/program_check: private LDLIBS = $(shell pkg-config --libs jansson)

$(addprefix $(BUILD)/tests/,listen flood traced): %: %.o
	$(link) -o $@ $^

# What docs/tls-records.md tries.
$(BUILD)/tests/read_hello: %: %.o $(BUILD)/tls.o $(BUILD)/hostname.o
	$(link) -o $@ $^

# A TLS client that leaves what it is sent unread.
$(BUILD)/tests/hasty: %: %.o
	$(link) -o $@ $^ $(shell pkg-config --libs libssl libcrypto)

# A library that tests put before the C library's.
$(BUILD)/tests/close_fails.so: sanitizer =
$(BUILD)/tests/close_fails.so: tests/close_fails.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(compile) -fPIC -shared -o $@ $<

# Asks OpenSSL and GnuTLS.
$(BUILD)/tests/oracle: $(addprefix $(BUILD)/tests/,oracle.o oracle_hellos.o oracle_shape.o \
    oracle_decisions.o oracle_openssl.o oracle_gnutls.o hellos.o) \
    $(addprefix $(BUILD)/,tls.o hostname.o)
	$(link) -o $@ $^ $(shell pkg-config --libs libssl libcrypto gnutls)

# Fuzz tests: in builds for `make fuzz` with an engine's main, and in all builds with one that
# replays a corpus.
fuzz_tests := hello name path header
replays := $(fuzz_tests:%=$(BUILD)/tests/replay_%)
fuzzers := $(fuzz_tests:%=$(BUILD)/tests/fuzz_%)
fuzz_hello_modules := tls.o tests/hellos.o
fuzz_name_modules := hostname.o
fuzz_header_modules := proxy_protocol.o backend.o owner.o address.o system_$(SYSTEM).o \
	$(stubs:%=%/stubs.o)
fuzz_path_modules := $(filter-out log.o,$(modules))
%_path: wrapped = -Wl,--wrap=clock_gettime,--wrap=__clock_gettime64,--wrap=getsockname,--wrap=connect,--wrap=send,--wrap=splice

.SECONDEXPANSION:
$(replays): $(BUILD)/tests/replay_%: $(BUILD)/tests/fuzz_%.o $(BUILD)/tests/replay.o \
    $$(addprefix $(BUILD)/,$$(fuzz_%_modules) $(for_tsan))
	$(link) $(wrapped) $(wrapped_for_tsan) -o $@ $^

$(fuzzers): $(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz_%.o \
    $$(addprefix $(BUILD)/,$$(fuzz_%_modules))
	$(link) $(wrapped) -fsanitize=fuzzer -o $@ $^

$(BUILD)/tests/corpus: $(addprefix $(BUILD)/tests/,corpus.o hellos.o proxy_headers.o) $(BUILD)/tls.o
	$(link) -o $@ $^

$(BUILD)/tests/soak: $(addprefix $(BUILD)/tests/,soak.o soak_plan.o soak_stream.o \
    soak_hosts.o soak_copies.o hellos.o)
	$(link) -o $@ $^

# The load and the backend of the benchmark.
bench_programs := $(addprefix $(BUILD)/bench/,load await backend)

$(addprefix $(BUILD)/bench/,load await): %: %.o $(BUILD)/bench/client.o
	$(link) -o $@ $^

$(BUILD)/bench/backend: $(BUILD)/bench/backend.o
	$(link) -o $@ $^

programs := $(addprefix $(BUILD)/,sniproxy sniproxy-hostname sniproxy-check tests/listen)
# The oracle has no threads.
oracle_test := $(if $(findstring thread,$(SANITIZE)),,oracle)

tests := $(addprefix $(BUILD)/tests/,$(unit_tests) $(program_tests) flood hasty traced \
    read_hello close_fails.so $(oracle_test)) $(replays)

# With PORTABLE=1 also the same with musl, and what is for other systems, with stubs.
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
check-some: $(BUILD)/sniproxy $(patsubst %,$(BUILD)/tests/%,$(filter program_%,$(some_tests)))
	$(build_other_systems)
	TESTS='$(some_tests)' tests/run.sh $(BUILD) '' $(other_systems:%=build/plain-%)

build_other_systems = $(foreach system,$(other_systems),$(MAKE) --no-print-directory PORTABLE= \
	SYSTEM=$(system) BUILD=$(build_other) $(build_other)/sniproxy &&) :
build_other = build/plain-$(system)

# ORACLE_COUNT=1000000, ORACLE_SEED=random and so on, see tests/oracle.c.
oracle: $(BUILD)/tests/oracle
	$<

# Each system call in service made to fail, see tests/program_faults.c.
faults: $(programs) $(addprefix $(BUILD)/tests/,program_faults close_fails.so) sniproxy-static
	FAULTS=$(FAULTS) SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy \
	    SNIPROXY_STATIC=$(CURDIR)/sniproxy-static \
	    CLOSE_FAILS=$(CURDIR)/$(BUILD)/tests/close_fails.so HASHED=$(HASHED) \
	    SANITIZE='$(SANITIZE)' $(BUILD)/tests/program_faults --jobs=8

# One flood after another; FLOOD_TESTS is a pattern of their names.
FLOOD_SECONDS ?= 30
FLOOD_TESTS ?= *
flood: $(programs) $(addprefix $(BUILD)/tests/,program_flood flood)
	SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy FLOOD=$(CURDIR)/$(BUILD)/tests/flood \
	    HASHED=$(HASHED) SANITIZE='$(SANITIZE)' FLOOD_SECONDS=$(FLOOD_SECONDS) \
	    $(BUILD)/tests/program_flood --jobs=1 --filter='flood/$(FLOOD_TESTS)'

# The plain build, and one with each of two sanitizers, by the plain build's soak. It has long names,
# so not PORTABLE=1; SYSTEM=freebsd has the same lot.
SOAK_SECONDS ?= 600
soak_variants := plain$(apart) plain$(apart)-address-undefined plain$(apart)-thread

soak:
	$(MAKE) --no-print-directory HASHED= SANITIZE= \
	    build/plain$(apart)/tests/soak build/plain$(apart)/sniproxy
	$(MAKE) --no-print-directory HASHED= SANITIZE=address,undefined \
	    build/plain$(apart)-address-undefined/sniproxy
	$(MAKE) --no-print-directory HASHED= SANITIZE=thread build/plain$(apart)-thread/sniproxy
	tests/soak.sh build/plain$(apart)/tests/soak $(SOAK_SECONDS) \
	    $(soak_variants:%=build/%/sniproxy)

# As root. Boots a systemd of its own; nothing outside of it is changed.
check-systemd:
	rm -rf build/stage build/stage-hashed
	$(MAKE) --no-print-directory HASHED=1 install DESTDIR=build/stage-hashed PREFIX=/usr/local
	$(MAKE) --no-print-directory HASHED= install DESTDIR=build/stage PREFIX=/usr/local
	tests/container.sh $(CURDIR)/build/stage $(CURDIR)/build/stage-hashed

check-backends:
	$(MAKE) --no-print-directory HASHED= install DESTDIR=build/stage PREFIX=/usr/local
	GUEST=tests/backends.sh tests/container.sh $(CURDIR)/build/stage

check-clients: $(programs)
	TESTS=clients.bats tests/run.sh $(BUILD)

# What this machine has no tools for is skipped, and that is said.
check-package:
	tests/package.sh build/package

check-ipvs: $(programs)
	tests/virtual.sh SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy LISTEN=$(CURDIR)/$(BUILD)/tests/listen \
	    SNIPROXY_HOSTNAME=$(CURDIR)/$(BUILD)/sniproxy-hostname bats --tap --filter IPVS tests/scaling.bats

# The programs of other machines, in an emulator.
foreign_machines := s390x-linux-gnu arm-linux-gnueabihf

check-foreign: $(foreign_machines:%=check-%)

$(foreign_machines:%=check-%): check-%:
	@command -v $*-gcc && command -v qemu-$(firstword $(subst -, ,$*))-static || \
	    { echo 'make check-foreign: needs make deps-foreign' >&2; exit 1; }
	$(MAKE) --no-print-directory FOREIGN=$* SANITIZE= HASHED=1 build-foreign
	$(MAKE) --no-print-directory FOREIGN=$* SANITIZE= HASHED= build-foreign
	tests/run.sh build/plain-$* build/hashed-$*

# Of the hashed build, those that directory names matter to, see tests/run.sh.
build-foreign: $(BUILD)/sniproxy $(replays) $(addprefix $(BUILD)/tests/,$(if $(HASHED), \
    test_hostname program_name program_backend,$(unit_tests) $(filter-out program_check,$(program_tests))))

build-check: $(programs) $(tests) $(bench_programs) $(addprefix $(BUILD)/tests/,corpus soak)

FUZZ_SECONDS ?= 60
fuzz_build := build/fuzz$(if $(HASHED),-hashed)
build_fuzzers = $(MAKE) --no-print-directory CC=clang BUILD=$(fuzz_build) \
	SANITIZE=fuzzer-no-link,address,undefined build-fuzzers

fuzz:
	$(build_fuzzers)
	$(MAKE) --no-print-directory CC=afl-clang-fast BUILD=$(fuzz_build)-afl \
	    SANITIZE=address,undefined $(fuzz_build)-afl/tests/fuzz_hello
	tests/fuzz.sh run $(fuzz_build) $(fuzz_build)-afl $(FUZZ_SECONDS)

corpus: $(BUILD)/tests/corpus
	$(build_fuzzers)
	tests/fuzz.sh corpus $(fuzz_build) $<

build-fuzzers: $(fuzzers)

# Without optimization each branch is one of the source's. Other files are there to be seen;
# the limits are for the parser.
coverage:
	$(MAKE) --no-print-directory BUILD=build/coverage SANITIZE= STATIC= \
	    CFLAGS='-O0 -g --coverage -Wno-cpp' build-unit-check
	find build/coverage -name '*.gcda' -delete
	tests/run.sh build/coverage
	gcovr --root . --object-directory build/coverage --filter '[^/]*\.c' --exclude-unreachable-branches \
	    --json build/coverage/gcovr.json
	gcovr --root . --add-tracefile build/coverage/gcovr.json
	gcovr --root . --add-tracefile build/coverage/gcovr.json --branches
	gcovr --root . --add-tracefile build/coverage/gcovr.json --filter 'tls\.c' \
	    --fail-under-line 100 --fail-under-branch 95 --output build/coverage/tls.txt

build-unit-check: $(addprefix $(BUILD)/tests/,$(unit_tests)) $(replays)

lint:
	clang-format --dry-run -Werror *.[ch] tests/*.[ch] tests/*/*.[ch] bench/*.[ch]
	$(MAKE) --no-print-directory CC=gcc BUILD=build/lint-gcc WERROR=-Werror build-check
	$(MAKE) --no-print-directory CC=clang BUILD=build/lint-clang WERROR=-Werror build-check
	$(call lint_with,gcc,posix) build/lint-gcc-posix/sniproxy
	$(call lint_with,clang,posix) build/lint-clang-posix/lot_poll.o system
	$(foreach other,$(other_systems),$(call lint_other,$(other)) &&) :
	clang-tidy --quiet $(filter-out $(other_systems:%=system_%.c),$(wildcard *.c)) -- \
	    $(our_cppflags) -std=gnu11
	cppcheck --quiet --error-exitcode=1 --enable=warning,style,performance,portability \
	    --inline-suppr --std=c11 $(our_cppflags) *.c
	mandoc -T lint -W warning $(manuals)

# All of it with POSIX alone; of the others, what is theirs.
lint_with = $(MAKE) --no-print-directory CC=$(1) SYSTEM=$(2) BUILD=build/lint-$(1)-$(2) WERROR=-Werror
lint_other = $(call lint_with,gcc,$(1)) system && $(call lint_with,clang,$(1)) system && \
	clang-tidy --quiet system_$(1).c -- -std=gnu11 -D_GNU_SOURCE -Itests/$(1) \
	    -include tests/$(1)/stubs.h

system: $(BUILD)/system_$(SYSTEM).o $(stubs:%=$(BUILD)/%/stubs.o)

# BENCH='--only echo --rounds 3' and so on, see bench/run.
bench: $(programs) $(bench_programs)
	$(MAKE) --no-print-directory PORTABLE=1 HASHED= SANITIZE= build/plain-portable/sniproxy
	PORTABLE=build/plain-portable/sniproxy SNIPROXY=$(BUILD)/sniproxy SNIPROXY_HOSTNAME=$(BUILD)/sniproxy-hostname \
	    LISTEN=$(BUILD)/tests/listen LOAD=$(BUILD)/bench/load \
	    AWAIT=$(BUILD)/bench/await BACKEND=$(BUILD)/bench/backend bench/run $(BENCH)

demo: $(programs)
	SNIPROXY=$(BUILD)/sniproxy SNIPROXY_HOSTNAME=$(BUILD)/sniproxy-hostname \
	    LISTEN=$(BUILD)/tests/listen ./demo.sh

# The installed program is the static one: sniproxy.service runs it in a root of its own.
sbindir := $(DESTDIR)$(PREFIX)/sbin
bindir := $(DESTDIR)$(PREFIX)/bin
unitdir := $(DESTDIR)$(PREFIX)/lib/systemd/system
sysusersdir := $(DESTDIR)$(PREFIX)/lib/sysusers.d
tmpfilesdir := $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
mandir := $(DESTDIR)$(PREFIX)/share/man
completiondir := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
manuals := $(wildcard man/*.[1-8])
installed_manuals := $(foreach manual,$(notdir $(manuals)),\
	$(mandir)/man$(patsubst .%,%,$(suffix $(manual)))/$(manual))

# install_text FROM TO: with PREFIX for what it says of paths.
install_text = sed 's|/usr/local/|$(PREFIX)/|g; s|@PROGRAM@|$(PREFIX)/sbin/sniproxy|g; \
	s|@CHECK@|$(PREFIX)/bin/sniproxy-check|g' $(1) | install -D -m 644 /dev/stdin $(2)

install: static sniproxy-hostname sniproxy-check
	install -D -m 755 sniproxy-static $(sbindir)/sniproxy
	install -D -m 755 sniproxy-hostname $(bindir)/sniproxy-hostname
	install -D -m 755 sniproxy-check $(bindir)/sniproxy-check
	for type in socket service timer; do \
	    $(call install_text,systemd/sniproxy.$$type,$(unitdir)/sniproxy.$$type) && \
	    sed -f systemd/template.sed $(unitdir)/sniproxy.$$type | \
	        install -D -m 644 /dev/stdin $(unitdir)/sniproxy@.$$type || exit 1; done
	$(call install_text,systemd/sniproxy-check@.service,$(unitdir)/sniproxy-check@.service)
	for type in socket service; do \
	    $(call install_text,systemd/sniproxy-tcp@.$$type,$(unitdir)/sniproxy-tcp@.$$type) || exit 1; done
	$(call install_text,systemd/sniproxy.sysusers.conf,$(sysusersdir)/sniproxy.conf)
	$(call install_text,systemd/sniproxy.tmpfiles.conf,$(tmpfilesdir)/sniproxy.conf)
	for program in hostname check; do \
	    $(call install_text,completions/sniproxy-$$program,$(completiondir)/sniproxy-$$program) || \
	        exit 1; done
	for manual in $(installed_manuals); do \
	    $(call install_text,man/$${manual##*/},$$manual) || exit 1; done

# Where they are this system's units, they are stopped and disabled first: nothing else would do it
# when they are gone.
units := $(foreach type,socket service timer,$(unitdir)/sniproxy.$(type) $(unitdir)/sniproxy@.$(type)) \
	$(unitdir)/sniproxy-check@.service \
	$(foreach type,socket service,$(unitdir)/sniproxy-tcp@.$(type))
fragment = $$(systemctl show --property=FragmentPath --value sniproxy.socket 2>/dev/null)

uninstall:
	if [ -z '$(DESTDIR)' ] && [ "$(fragment)" -ef $(unitdir)/sniproxy.socket ]; then \
	    systemctl disable --now sniproxy.socket sniproxy.service && \
	    systemctl disable sniproxy@.socket sniproxy@.service sniproxy-tcp@.socket && \
	    systemctl stop 'sniproxy@*' 'sniproxy-tcp@*'; fi
	rm -f $(sbindir)/sniproxy $(bindir)/sniproxy-hostname $(bindir)/sniproxy-check $(units) \
	    $(sysusersdir)/sniproxy.conf $(tmpfilesdir)/sniproxy.conf $(installed_manuals) \
	    $(completiondir)/sniproxy-hostname $(completiondir)/sniproxy-check
	if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

# The packages of a list; of those of a list that are for a build alone, or for something else.
packages = $(shell sed 's/\#.*//' $(1))
build_packages = $(shell sed -n 's/ *\# build:.*//p' $(1))
packages_for = $(shell sed -nE 's/ *\# ($(2)|both)(:.*)?$$//p' $(1))
install_packages = @GOAL=$(firstword $(filter deps%,$(MAKECMDGOALS)) $@) packaging/deps.sh $@

# What a build needs comes first and by itself, for deps-remove to leave it.
deps: deps-build
	$(install_packages) $(call packages,packages.txt)

deps-build:
	$(install_packages) $(call build_packages,packages.txt)

deps-deb: deps-build
	$(install_packages) $(call build_packages,packages.txt packaging/packages.txt)

deps-bench: deps
	$(install_packages) $(call packages,bench/packages.txt)

deps-backends: deps
	$(install_packages) $(call packages_for,tests/packages.txt,backends)

deps-clients: deps
	$(install_packages) $(call packages_for,tests/packages.txt,clients)

deps-package: deps
	$(install_packages) $(call packages,packaging/packages.txt)

deps-foreign: deps
	$(install_packages) $(call packages,packaging/foreign.txt)

deps-ipvs: deps
	$(install_packages) $(call packages,packaging/ipvs.txt)

deps-remove:
	$(install_packages)

clean:
	rm -rf build sniproxy sniproxy-hostname sniproxy-check sniproxy-static

.PHONY: all static static-copy check check-portable check-some system faults flood oracle soak \
	build-check fuzz corpus build-fuzzers coverage build-unit-check lint demo install uninstall \
	check-systemd check-backends check-clients check-foreign build-foreign check-package check-ipvs bench \
	deps deps-build deps-deb deps-bench deps-backends deps-clients deps-foreign deps-ipvs deps-package \
	deps-remove clean FORCE
.DELETE_ON_ERROR:
-include $(wildcard $(BUILD)/*.d $(BUILD)/tests/*.d $(BUILD)/tests/foreign/*.d $(BUILD)/bench/*.d)

# make deps demo     installs what is needed, then runs the main task on real input
# make deps check    installs what is needed, then runs the tests
#
# all, static        the programs; sniproxy-static, one file that needs nothing else
# install, uninstall     to PREFIX (/usr/local), below DESTDIR if set
# demo, bench        three TLS servers behind sniproxy, until Ctrl-C; comparison with other proxies
# check              the tests; TESTS='program_relay tls.bats' some of them
# check-portable, -systemd, -backends, -clients, -package, -foreign, -ipvs
#                    other builds, systemd, servers, clients, packages, machines, kernels
# oracle, faults, flood, soak, fuzz, corpus
#                    longer tests, with ORACLE_COUNT, FLOOD_SECONDS, SOAK_SECONDS, FUZZ_SECONDS
# lint, coverage, size   linters; what unit tests reach; how large the proxy is
# deps, deps-build   install Debian's packages for most of this, for `make install`
# deps-deb, -bench, -backends, -clients, -package, -foreign, -ipvs   those for that
# deps-remove        removes what these installed, except for what deps-build did
#
# CONTRIBUTING.md says more. Other targets are in packaging/*.mk, tests/*.mk and bench/bench.mk.
#
# HASHED=1           directories are named by the XXH128 of the name
# PORTABLE=1         uses nothing beyond POSIX.1-2008, on any system
# SANITIZE=address,undefined or thread
# Each of these has a build directory of its own.

# The version that --version prints. tests/scripts/version.bats names the other files that have it.
VERSION := 1.0~pre1

CC ?= cc
CFLAGS ?= -O2 -g
MUSL_CC ?= $(shell command -v musl-gcc)
HASHED ?=
PORTABLE ?=
SANITIZE ?=
FOREIGN ?=

# The directories of nginx, inetd and others, which an ordinary user's PATH lacks.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# The file of system/. On Linux, those of other systems can be built with stubs, for tests.
system_of_Linux := linux
system_of_FreeBSD := freebsd
system_of_Darwin := macos
this_system := $(or $(system_of_$(shell uname -s)),posix)
SYSTEM := $(if $(PORTABLE),posix,$(this_system))
stubs := $(if $(filter-out posix $(this_system),$(SYSTEM)),tests/machines/$(SYSTEM))
apart := $(if $(filter-out linux,$(SYSTEM)),-$(SYSTEM:posix=portable))$(if $(FOREIGN),-$(FOREIGN))

# The compiler. One for another machine (FOREIGN=s390x-linux-gnu) has all headers except those for
# any machine, such as xxhash.h.
foreign = $(FOREIGN)
cc = $(if $(foreign),$(foreign)-gcc,$(CC))
foreign_cppflags = $(if $(foreign),-Itests/machines/foreign -idirafter /usr/include)

comma := ,
BUILD := build/$(if $(HASHED),hashed,plain)$(apart)$(if $(STATIC),-static)$(if \
	$(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))

# Feature test macros: on Linux, everything; for posix.c, POSIX alone; otherwise the defaults. Tests
# and sniproxy-check's own files are for Linux. Sizes and times have 64 bits on 32-bit machines too.
features_linux := -D_GNU_SOURCE
features_posix := -D_POSIX_C_SOURCE=200809L -D_XOPEN_SOURCE=700
features = $(if $(stubs),-D_GNU_SOURCE -I$(stubs) -include $(stubs)/stubs.h,$(features_$(SYSTEM)))
of_check := sniproxy-check.o $(addprefix check/,report.o entry.o hint.o handshake.o path.o \
	unit.o view.o)
$(BUILD)/tests/%.o $(BUILD)/tests/%.so $(BUILD)/bench/%.o $(of_check:%=$(BUILD)/%): private \
    features = -D_GNU_SOURCE

our_cppflags = -I. $(features) -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 $(foreign_cppflags) \
	-DVERSION=\"$(VERSION)\" $(if $(HASHED),-DHASHED) \
	$(if $(sanitizer),-DTHREAD_STACK_SIZE=1048576)
sanitizer = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
# Those of these options that the compiler supports: branch protection (CET, BTI), and probes of
# large stack frames, so that none skips the guard page. The compiler is asked once, when something
# is compiled, because `make deps` may have to install it first.
hardening = $(eval hardening := $(foreach flag,-fcf-protection=full -mbranch-protection=standard \
	-fstack-clash-protection,$(shell $(if $(FOREIGN),$(FOREIGN)-gcc,$(CC)) -Werror $(flag) \
	-fsyntax-only -x c /dev/null 2>/dev/null && echo $(flag))))$(hardening)
our_cflags = -std=gnu11 -pthread -fPIE -fstack-protector-strong $(hardening) \
	-Wall -Wextra -Wpedantic -Wconversion -Wshadow $(WERROR) \
	$(or $(sanitizer),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
our_ldflags = -pthread $(or $(if $(foreign),-static),$(STATIC),-pie) \
	-Wl,-z,relro,-z,now,-z,noexecstack $(sanitizer)
compile = $(cc) $(CPPFLAGS) $(our_cppflags) $(CFLAGS) $(our_cflags)
link = $(cc) $(CFLAGS) $(LDFLAGS) $(our_ldflags)

# The objects of sniproxy, besides its main.
modules := proxy.o tls.o $(addprefix lib/,relay.o idle.o table.o share.o thread.o backend.o \
	owner.o hostname.o proxy_protocol.o network.o address.o listener.o capacity.o status.o \
	log.o) \
	system/$(SYSTEM).o $(if $(filter linux,$(SYSTEM)),,system/poll.o) $(stubs:%=%/stubs.o)
# Sanitizers make system calls that the sandbox denies.
has_sandbox := $(if $(SANITIZE),,$(filter linux,$(SYSTEM)))
modules += $(addprefix system/,$(if $(has_sandbox),sandbox.o filter.o,sandbox_none.o))
# Wrappers for calls that ThreadSanitizer does not know.
tsan_calls := pselect $(if $(filter linux,$(SYSTEM)),epoll_ctl)
for_tsan := $(if $(findstring thread,$(SANITIZE)),$(tsan_calls:%=tests/program/tsan_%.o))
wrapped_for_tsan := $(if $(for_tsan),$(tsan_calls:%=-Wl$(comma)--wrap=%))

# The programs that the demo, the tests and the benchmark run.
programs := $(addprefix $(BUILD)/,sniproxy sniproxy-hostname sniproxy-check tests/program/listen)

all: sniproxy sniproxy-hostname $(if $(filter linux,$(this_system)),sniproxy-check)

# The programs at the top are those of the variant that was built last.
sniproxy sniproxy-hostname sniproxy-check: %: $(BUILD)/% build/variant
	cp -f $< $@

build/variant: FORCE
	@mkdir -p build
	@echo '$(BUILD)' | cmp -s - $@ || echo '$(BUILD)' > $@

$(BUILD)/sniproxy: $(addprefix $(BUILD)/,sniproxy.o $(modules) $(for_tsan))
	$(link) $(wrapped_for_tsan) -o $@ $^

$(BUILD)/sniproxy-hostname: $(addprefix $(BUILD)/,sniproxy-hostname.o lib/idna.o lib/hostname.o)
	$(link) -o $@ $^ $(shell pkg-config --libs icu-uc)

# sniproxy-check's verdicts come from the proxy's own modules.
check_modules := $(of_check) $(addprefix lib/,idna.o backend.o owner.o hostname.o \
	proxy_protocol.o address.o) tls.o system/$(SYSTEM).o

$(BUILD)/sniproxy-check: $(addprefix $(BUILD)/,$(check_modules))
	$(link) -o $@ $^ $(shell pkg-config --libs icu-uc libssl libcrypto jansson)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(compile) -MMD -MP -c -o $@ $<

# Changes when a build variable does, so that everything is rebuilt.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(compile) : $(link)' | cmp -s - $@ || echo '$(compile) : $(link)' > $@

# One file for a chroot: with musl if it is installed, otherwise with the system's C library.
static: sniproxy-static

# musl-gcc has no -static-pie, so its parts are named.
musl_static_pie = -static -nostartfiles -Wl,-pie,--no-dynamic-linker,-z,text \
	$(firstword $(wildcard /usr/lib/*-linux-musl/rcrt1.o))

# The kernel's headers, from the system's C library.
musl_headers = -idirafter /usr/include/$(shell $(MUSL_CC) -print-multiarch)

sniproxy-static: FORCE
	$(MAKE) --no-print-directory SANITIZE= $(if $(MUSL_CC),CC='$(MUSL_CC)' \
	    CPPFLAGS='$(CPPFLAGS) -idirafter /usr/include $(musl_headers)' \
	    STATIC='$(musl_static_pie)',STATIC=-static-pie) static-copy

static-copy: $(BUILD)/sniproxy
	cmp -s $< sniproxy-static || cp -f $< sniproxy-static

# Measures every .c and .h of the proxy, see tests/scripts/size.sh.
size:
	tests/scripts/size.sh $(patsubst %.o,%.c,sniproxy.o $(modules))

demo: $(programs)
	SNIPROXY=$(BUILD)/sniproxy SNIPROXY_HOSTNAME=$(BUILD)/sniproxy-hostname \
	    LISTEN=$(BUILD)/tests/program/listen tests/scripts/demo.sh

clean:
	rm -rf build sniproxy sniproxy-hostname sniproxy-check sniproxy-static

include packaging/deps.mk packaging/install.mk
# Some copies of the sources lack these.
-include bench/bench.mk $(addprefix tests/,fuzz.mk tests.mk load.mk machines.mk lint.mk)

# `make -j4 deps check`: the packages are installed before anything else starts.
deps_first := $(filter-out deps-remove,$(filter deps%,$(MAKECMDGOALS)))
ifneq ($(deps_first),)
$(BUILD)/flags sniproxy-static $(foreign_machines:%=check-%) \
$(filter-out deps% clean,$(MAKECMDGOALS)): | $(deps_first)
endif

.PHONY: all static static-copy size demo clean FORCE
.DELETE_ON_ERROR:
-include $(wildcard $(foreach depth,* */* */*/* */*/*/*,$(BUILD)/$(depth).d))

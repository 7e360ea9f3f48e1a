# Tests in containers and virtual machines, with widely used servers and clients, and for other
# processors.

# As root. Boots a systemd of its own; nothing outside of it is changed.
check-systemd:
	rm -rf build/stage build/stage-hashed
	$(MAKE) --no-print-directory HASHED=1 install DESTDIR=build/stage-hashed PREFIX=/usr/local
	$(MAKE) --no-print-directory HASHED= install DESTDIR=build/stage PREFIX=/usr/local
	tests/machines/container.sh $(CURDIR)/build/stage $(CURDIR)/build/stage-hashed

check-backends:
	$(MAKE) --no-print-directory HASHED= install DESTDIR=build/stage PREFIX=/usr/local
	GUEST=tests/machines/backends.sh tests/machines/container.sh $(CURDIR)/build/stage

check-clients: $(programs)
	TESTS='clients.bats acme.bats' tests/run.sh $(BUILD)

# Skips what this machine has no tools for, and says so.
check-package:
	tests/machines/package.sh build/package

check-ipvs: $(programs)
	tests/machines/virtual.sh SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy \
	    SNIPROXY_HOSTNAME=$(CURDIR)/$(BUILD)/sniproxy-hostname \
	    LISTEN=$(CURDIR)/$(BUILD)/tests/program/listen \
	    bats --tap --filter IPVS tests/scripts/scaling.bats

# The programs of other machines, in an emulator.
foreign_machines := s390x-linux-gnu arm-linux-gnueabihf

check-foreign: $(foreign_machines:%=check-%)

$(foreign_machines:%=check-%): check-%:
	@command -v $*-gcc && command -v qemu-$(firstword $(subst -, ,$*))-static || \
	    { echo 'make check-foreign: needs make deps-foreign' >&2; exit 1; }
	$(MAKE) --no-print-directory FOREIGN=$* SANITIZE= HASHED=1 build-foreign
	$(MAKE) --no-print-directory FOREIGN=$* SANITIZE= HASHED= build-foreign
	tests/run.sh build/plain-$* build/hashed-$*

# Of the hashed build, those for which directory names matter, see tests/run.sh.
build-foreign: $(BUILD)/sniproxy $(replays) $(addprefix $(BUILD)/tests/,$(if $(HASHED), \
    unit/test_hostname $(addprefix program/program_,name backend special),$(unit_tests:%=unit/%) \
    $(patsubst %,program/%,$(filter-out program_check,$(program_tests)))))

$(BUILD)/tests/machines/foreign/criterion.o: foreign_cppflags += -include $(BUILD)/tests/calls.h
$(BUILD)/tests/machines/foreign/criterion.o: $(BUILD)/tests/calls.h

$(BUILD)/tests/calls.h: $(BUILD)/flags
	@mkdir -p $(@D)
	echo '#include <sys/syscall.h>' | $(CC) -E -dM - | \
	    sed -n 's/^#define __NR_/#define HOST_/p' >$@

.PHONY: check-systemd check-backends check-clients check-package check-ipvs check-foreign \
	$(foreign_machines:%=check-%) build-foreign

# Longer tests of load and faults.

# One flood after another. FLOOD_TESTS is a pattern of their names.
FLOOD_SECONDS ?= 30
FLOOD_TESTS ?= *
flood: $(programs) $(addprefix $(BUILD)/tests/,program/program_flood load/flood)
	SNIPROXY=$(CURDIR)/$(BUILD)/sniproxy FLOOD=$(CURDIR)/$(BUILD)/tests/load/flood \
	    HASHED=$(HASHED) SANITIZE='$(SANITIZE)' FLOOD_SECONDS=$(FLOOD_SECONDS) \
	    $(BUILD)/tests/program/program_flood --jobs=1 --filter='flood/$(FLOOD_TESTS)'

$(BUILD)/tests/load/soak: $(addprefix $(BUILD)/tests/load/,soak.o soak_plan.o soak_stream.o \
    soak_hosts.o soak_copies.o) $(BUILD)/tests/unit/hellos.o
	$(link) -o $@ $^

# The plain build, and one with each of two sanitizers; the plain build's soak loads them all. Hosts
# have long names, so PORTABLE=1 cannot be soaked; SYSTEM=freebsd also watches by poll.c.
SOAK_SECONDS ?= 600
soak_variants := plain$(apart) plain$(apart)-address-undefined plain$(apart)-thread

soak:
	$(MAKE) --no-print-directory HASHED= SANITIZE= \
	    build/plain$(apart)/tests/load/soak build/plain$(apart)/sniproxy
	$(MAKE) --no-print-directory HASHED= SANITIZE=address,undefined \
	    build/plain$(apart)-address-undefined/sniproxy
	$(MAKE) --no-print-directory HASHED= SANITIZE=thread build/plain$(apart)-thread/sniproxy
	tests/load/soak.sh build/plain$(apart)/tests/load/soak $(SOAK_SECONDS) \
	    $(soak_variants:%=build/%/sniproxy)

.PHONY: flood soak

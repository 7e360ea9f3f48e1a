# The formatter, the linters, both compilers with -Werror, the manual pages, and the size.

sources := $(wildcard *.c lib/*.c system/*.c check/*.c)
all_sources := $(foreach suffix,c h,$(wildcard $(addsuffix .$(suffix),* lib/* system/* check/* \
	tests/*/* tests/*/*/* bench/*)))

lint: size
	clang-format --dry-run -Werror $(all_sources)
	$(MAKE) --no-print-directory CC=gcc BUILD=build/lint-gcc WERROR=-Werror build-check
	$(MAKE) --no-print-directory CC=clang BUILD=build/lint-clang WERROR=-Werror build-check
	$(call lint_with,gcc,posix) build/lint-gcc-posix/sniproxy
	$(call lint_with,clang,posix) build/lint-clang-posix/system/poll.o build-system
	$(foreach other,$(other_systems),$(call lint_other,$(other)) &&) :
	$(MAKE) --no-print-directory lint-tidy
	cppcheck --quiet --error-exitcode=1 --enable=warning,style,performance,portability \
	    --inline-suppr --std=c11 $(our_cppflags) $(sources)
	mandoc -T lint -W warning $(manuals)

# clang-tidy shows the warnings of these files, but counts those of the C library's headers too. It
# prints that count ("N warnings generated") unless the last option is given.
tidy = clang-tidy --quiet $(1) -- -std=gnu11 $(2) -fno-caret-diagnostics

lint-tidy:
	$(call tidy,$(filter-out $(other_systems:%=system/%.c),$(sources)),$(our_cppflags))

# The portable core is linted completely; of the other systems, only their own files.
lint_with = $(MAKE) --no-print-directory CC=$(1) SYSTEM=$(2) BUILD=build/lint-$(1)-$(2) \
	WERROR=-Werror
lint_other = $(call lint_with,gcc,$(1)) build-system && \
	$(call lint_with,clang,$(1)) build-system && \
	$(call tidy,system/$(1).c,-D_GNU_SOURCE -I. -Itests/machines/$(1) \
	    -include tests/machines/$(1)/stubs.h)

build-system: $(BUILD)/system/$(SYSTEM).o $(stubs:%=$(BUILD)/%/stubs.o)

.PHONY: lint lint-tidy build-system

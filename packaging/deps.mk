# The Debian packages of packaging/packages.txt, installed by packaging/deps.sh.

# Those for one of PURPOSES, words with | between them. A list is read when its target is made.
packages_for = $(shell sed -nE \
	's/^([^ \#]+) +\# ([a-z]+,)*($(1))(,[a-z]+)*: .*/\1/p' packaging/packages.txt)
install_packages = @GOAL=$(firstword $(filter deps%,$(MAKECMDGOALS)) $@) packaging/deps.sh $@ \
	$(if $(1),$(call packages_for,$(1)))

# What a build needs comes first and by itself, for deps-remove to leave it.
deps: deps-build
	$(call install_packages,build|demo|tests|lint|fuzz|coverage)

deps-build:
	$(call install_packages,build)

deps-deb: deps-build
	$(call install_packages,build|deb)

# A purpose each, which is the target's.
deps_besides := $(addprefix deps-,bench backends clients package foreign ipvs)
$(deps_besides): deps-%: deps
	$(call install_packages,$*)

deps-remove:
	$(call install_packages)

.PHONY: deps deps-build deps-deb deps-remove $(deps_besides)

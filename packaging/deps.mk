# The Debian packages of packaging/packages.txt, installed by packaging/deps.sh.

# $(call packages_for,PURPOSES): the packages for any of PURPOSES, which are separated by |. The
# list is read when a target is made.
packages_for = $(shell sed -nE \
	's/^([^ \#]+) +\# ([a-z]+,)*($(1))(,[a-z]+)*: .*/\1/p' packaging/packages.txt)
install_packages = @GOAL=$(firstword $(filter deps%,$(MAKECMDGOALS)) $@) packaging/deps.sh $@ \
	$(if $(1),$(call packages_for,$(1)))

# A build's packages are installed first and separately, so that deps-remove keeps them.
deps: deps-build
	$(call install_packages,build|demo|tests|lint|fuzz|coverage)

deps-build:
	$(call install_packages,build)

deps-deb: deps-build
	$(call install_packages,build|deb)

# Each of these is named after its purpose.
deps_besides := $(addprefix deps-,bench backends clients package foreign ipvs)
$(deps_besides): deps-%: deps
	$(call install_packages,$*)

deps-remove:
	$(call install_packages)

.PHONY: deps deps-build deps-deb deps-remove $(deps_besides)

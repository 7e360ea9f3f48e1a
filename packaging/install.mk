# The installed program is the static one: sniproxy.service runs it in a root of its own.

PREFIX ?= /usr/local
DESTDIR ?=

sbindir := $(DESTDIR)$(PREFIX)/sbin
bindir := $(DESTDIR)$(PREFIX)/bin
unitdir := $(DESTDIR)$(PREFIX)/lib/systemd/system
sysusersdir := $(DESTDIR)$(PREFIX)/lib/sysusers.d
tmpfilesdir := $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
mandir := $(DESTDIR)$(PREFIX)/share/man
completiondir := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
completion = $(completiondir)/sniproxy-$$program
manuals := $(wildcard man/*.[1-8])
installed_manuals := $(foreach manual,$(notdir $(manuals)),\
	$(mandir)/man$(patsubst .%,%,$(suffix $(manual)))/$(manual))

# $(call install_text,FROM,TO): installs a text, in which paths begin with PREFIX.
install_text = sed 's|/usr/local/|$(PREFIX)/|g; s|@PROGRAM@|$(PREFIX)/sbin/sniproxy|g; \
	s|@CHECK@|$(PREFIX)/bin/sniproxy-check|g' $(1) | install -D -m 644 /dev/stdin $(2)

install: static sniproxy-hostname sniproxy-check
	install -D -m 755 sniproxy-static $(sbindir)/sniproxy
	install -D -m 755 sniproxy-hostname $(bindir)/sniproxy-hostname
	install -D -m 755 sniproxy-check $(bindir)/sniproxy-check
	install -D -m 755 systemd/sniproxy-upgrade $(sbindir)/sniproxy-upgrade
	for type in socket service timer; do \
	    $(call install_text,systemd/sniproxy.$$type,$(unitdir)/sniproxy.$$type) && \
	    sed -f systemd/template.sed $(unitdir)/sniproxy.$$type | \
	        install -D -m 644 /dev/stdin $(unitdir)/sniproxy@.$$type || exit 1; done
	$(call install_text,systemd/sniproxy-check@.service,$(unitdir)/sniproxy-check@.service)
	for type in socket service; do \
	    $(call install_text,systemd/sniproxy-tcp@.$$type,$(unitdir)/sniproxy-tcp@.$$type) || \
	        exit 1; done
	$(call install_text,systemd/sniproxy.sysusers.conf,$(sysusersdir)/sniproxy.conf)
	$(call install_text,systemd/sniproxy.tmpfiles.conf,$(tmpfilesdir)/sniproxy.conf)
	for program in hostname check; do \
	    $(call install_text,packaging/completions/sniproxy-$$program,$(completion)) || \
	        exit 1; done
	for manual in $(installed_manuals); do \
	    $(call install_text,man/$${manual##*/},$$manual) || exit 1; done
	@if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ] && \
	    systemctl --quiet is-active sniproxy.service 'sniproxy@*.service'; then \
	    echo 'Run sniproxy-upgrade to replace the running copies of sniproxy.'; fi

# If these are the running system's units, they are stopped and disabled first. Without their files,
# systemctl could not disable them.
units := $(foreach type,socket service timer,$(unitdir)/sniproxy.$(type) \
	    $(unitdir)/sniproxy@.$(type)) \
	$(unitdir)/sniproxy-check@.service \
	$(foreach type,socket service,$(unitdir)/sniproxy-tcp@.$(type))
fragment = $$(systemctl show --property=FragmentPath --value sniproxy.socket 2>/dev/null)

uninstall:
	if [ -z '$(DESTDIR)' ] && [ "$(fragment)" -ef $(unitdir)/sniproxy.socket ]; then \
	    systemctl disable --now sniproxy.socket sniproxy.service && \
	    systemctl disable sniproxy@.socket sniproxy@.service sniproxy-tcp@.socket && \
	    systemctl stop 'sniproxy@*' 'sniproxy-tcp@*'; fi
	rm -f $(sbindir)/sniproxy $(sbindir)/sniproxy-upgrade \
	    $(bindir)/sniproxy-hostname $(bindir)/sniproxy-check $(units) \
	    $(sysusersdir)/sniproxy.conf $(tmpfilesdir)/sniproxy.conf $(installed_manuals) \
	    $(completiondir)/sniproxy-hostname $(completiondir)/sniproxy-check
	if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

.PHONY: install uninstall

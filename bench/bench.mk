# The benchmark: its load and its backend, and a run.

bench_programs := $(addprefix $(BUILD)/bench/,load await backend)

$(addprefix $(BUILD)/bench/,load await): %: %.o $(BUILD)/bench/client.o
	$(link) -o $@ $^

$(BUILD)/bench/backend: $(BUILD)/bench/backend.o
	$(link) -o $@ $^

# BENCH='--only echo --rounds 3' and so on, see bench/run.
bench: $(programs) $(bench_programs)
	$(MAKE) --no-print-directory PORTABLE=1 HASHED= SANITIZE= build/plain-portable/sniproxy
	PORTABLE=build/plain-portable/sniproxy SNIPROXY=$(BUILD)/sniproxy \
	    SNIPROXY_HOSTNAME=$(BUILD)/sniproxy-hostname \
	    LISTEN=$(BUILD)/tests/program/listen LOAD=$(BUILD)/bench/load \
	    AWAIT=$(BUILD)/bench/await BACKEND=$(BUILD)/bench/backend bench/run $(BENCH)

.PHONY: bench

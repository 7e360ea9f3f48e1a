/* Tests of filter.c and calls.h: libseccomp allows the same if it is given the same calls by their
 * names. An interpreter runs both filters here, for all numbers, and for arguments around those of
 * the list. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system/calls.h"
#include "system/filter.h"

/* --- The list --- */

enum { CONDITIONS_MAX = 2, REFUSED = -1 };

static const struct row {
	const char *call;
	int conditions; /* or REFUSED */
	struct {
		unsigned argument;
		uint32_t mask, value;
	} condition[CONDITIONS_MAX];
} rows[] = {
#define ALLOW(call) {#call, 0, {{0, 0, 0}}},
#define ALLOW_IF(call, n, mask, value) {#call, 1, {{n, (uint32_t)(mask), (uint32_t)(value)}}},
#define ALLOW_IF_BOTH(call, n, mask, value, n2, mask2, value2) \
	{#call, 2, \
	    {{n, (uint32_t)(mask), (uint32_t)(value)}, \
		{n2, (uint32_t)(mask2), (uint32_t)(value2)}}},
#define REFUSE(call) {#call, REFUSED, {{0, 0, 0}}},
    CALLS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE)};
enum { ROWS = sizeof rows / sizeof *rows };

static int
number_of(const char *call)
{
	int number = seccomp_syscall_resolve_name(call);
	cr_assert(number >= 0, "%s", call);
	return number;
}

/* --- libseccomp's filter --- */

static struct sock_fprog other;

static void
add(scmp_filter_ctx context, const struct row *row)
{
	struct scmp_arg_cmp arguments[CONDITIONS_MAX];
	if (row->conditions == REFUSED)
		return;
	for (int i = 0; i < row->conditions; i++)
		arguments[i] = SCMP_CMP64(row->condition[i].argument, SCMP_CMP_MASKED_EQ,
		    row->condition[i].mask, row->condition[i].value);
	int error = seccomp_rule_add_exact_array(
	    context, SCMP_ACT_ALLOW, number_of(row->call), (unsigned)row->conditions, arguments);
	cr_assert(error == 0, "%s: %s", row->call, strerror(-error));
}

static void
make_other(void)
{
	scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	cr_assert(context != NULL);
	cr_assert(seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0);
	for (size_t i = 0; i < ROWS; i++)
		add(context, &rows[i]);
	int file = memfd_create("filter", MFD_CLOEXEC);
	cr_assert(file != -1 && seccomp_export_bpf(context, file) == 0);
	off_t size = lseek(file, 0, SEEK_END);
	other.len = (unsigned short)((size_t)size / sizeof *other.filter);
	other.filter = malloc((size_t)size);
	cr_assert(
	    size > 0 && other.filter != NULL && pread(file, other.filter, (size_t)size, 0) == size);
	close(file);
	seccomp_release(context);
}

/* --- The interpreter --- */

static bool
jumps(const struct sock_filter *instruction, uint32_t a)
{
	switch (BPF_OP(instruction->code)) {
	case BPF_JEQ:
		return a == instruction->k;
	case BPF_JGT:
		return a > instruction->k;
	case BPF_JGE:
		return a >= instruction->k;
	case BPF_JSET:
		return (a & instruction->k) != 0;
	default:
		cr_assert_fail("jump %#x", (unsigned)instruction->code);
		return false;
	}
}

/* Runs a filter as the kernel does. Returns the filter's result. */
static uint32_t
run(const struct sock_filter *filter, size_t length, const struct seccomp_data *data)
{
	uint32_t a = 0;
	for (size_t at = 0; at < length; at++) {
		const struct sock_filter *instruction = &filter[at];
		switch (instruction->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			cr_assert(instruction->k % 4 == 0 && instruction->k <= sizeof *data - 4);
			memcpy(&a, (const char *)data + instruction->k, sizeof a);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= instruction->k;
			break;
		case BPF_JMP | BPF_JA:
			at += instruction->k;
			break;
		case BPF_RET | BPF_K:
			return instruction->k;
		default:
			cr_assert(BPF_CLASS(instruction->code) == BPF_JMP, "code %#x",
			    (unsigned)instruction->code);
			at += jumps(instruction, a) ? instruction->jt : instruction->jf;
		}
	}
	cr_assert_fail("the filter has no end");
	return 0;
}

/* --- What is compared --- */

static unsigned long compared;

static bool
is_refused(int number)
{
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].conditions == REFUSED && number_of(rows[i].call) == number)
			return true;
	return false;
}

/* The other filter has only one error. */
static uint32_t
expected(const struct seccomp_data *data)
{
	uint32_t result = run(other.filter, other.len, data);
	return result == (SECCOMP_RET_ERRNO | ENOSYS) && is_refused(data->nr)
	    ? SECCOMP_RET_ERRNO | EPERM
	    : result;
}

static void
compare(const struct seccomp_data *data)
{
	uint32_t ours = run(filter_program, filter_length, data);
	cr_assert(ours == expected(data),
	    "call %d of %#x (%#llx, %#llx, %#llx, %#llx, %#llx, %#llx): %#x, and not %#x", data->nr,
	    data->arch, data->args[0], data->args[1], data->args[2], data->args[3], data->args[4],
	    data->args[5], ours, expected(data));
	compared++;
}

/* Values around VALUE: with each other bit, and with bits above 32. */
enum { AROUND = 36 };

static uint64_t
around(uint32_t value, int i)
{
	if (i < 32)
		return value ^ (UINT32_C(1) << i);
	const uint64_t others[] = {value, UINT64_C(0xdeadbeef00000000) | value, 0, UINT64_MAX};
	return others[i - 32];
}

static void
compare_around(const struct row *row, uint32_t machine)
{
	struct seccomp_data data = {.nr = number_of(row->call), .arch = machine};
	for (int i = 0; i < AROUND; i++)
		for (int j = 0; j < AROUND; j++) {
			data.args[row->condition[0].argument] = around(row->condition[0].value, i);
			if (row->conditions == CONDITIONS_MAX)
				data.args[row->condition[1].argument] =
				    around(row->condition[1].value, j);
			compare(&data);
		}
}

static void
prepare(void)
{
	if (filter_length == 0)
		cr_skip_test("there is no filter for this machine");
	make_other();
}

/* The machine that the filter is for. */
static uint32_t
machine(void)
{
	return filter_program[1].k;
}

TestSuite(filter, .init = prepare, .timeout = 60);

Test(filter, allows_the_calls_that_libseccomp_does)
{
	enum { NUMBERS = 1024 };
	static const uint32_t strange[] = {
	    0x3fffffff, 0x40000000, 0x40000001, 0x40000027, 0x7fffffff, 0x80000000, 0xffffffff};
	struct seccomp_data data = {.arch = machine()};
	for (data.nr = 0; data.nr < NUMBERS; data.nr++)
		compare(&data);
	for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
		data.nr = (int)strange[i];
		compare(&data);
	}
	memset(data.args, 0xff, sizeof data.args);
	for (data.nr = 0; data.nr < NUMBERS; data.nr++)
		compare(&data);
	cr_assert(compared > 2UL * NUMBERS);
}

Test(filter, looks_at_arguments_as_libseccomp_does)
{
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].conditions > 0)
			compare_around(&rows[i], machine());
	cr_assert(compared > 10000);
}

Test(filter, kills_for_calls_of_other_architectures_as_libseccomp_does)
{
	static const uint32_t others[] = {AUDIT_ARCH_I386, AUDIT_ARCH_ARM, AUDIT_ARCH_X86_64,
	    AUDIT_ARCH_AARCH64, AUDIT_ARCH_PPC64, 0, UINT32_MAX};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		struct seccomp_data data = {.arch = others[i]};
		if (others[i] == machine())
			continue;
		for (data.nr = 0; data.nr < 512; data.nr++) {
			compare(&data);
			cr_assert(
			    run(filter_program, filter_length, &data) == SECCOMP_RET_KILL_PROCESS);
		}
	}
}

/* A call gets EPERM only if some form of it is allowed: libraries take ENOSYS as a sign to use
 * another call. */
Test(filter, each_condition_is_followed_by_a_refusal)
{
	for (size_t i = 0; i < ROWS; i++) {
		int number = number_of(rows[i].call);
		if (rows[i].conditions > 0)
			cr_expect(is_refused(number), "%s", rows[i].call);
		bool follows = rows[i].conditions == REFUSED;
		cr_expect(!follows || (i > 0 && strcmp(rows[i - 1].call, rows[i].call) == 0), "%s",
		    rows[i].call);
	}
}

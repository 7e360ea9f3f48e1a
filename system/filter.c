#include "system/filter.h"

#include "system/calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>

#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (__u32)(offset))
#define LOAD_CALL LOAD(offsetof(struct seccomp_data, nr))
#define LOAD_ARGUMENT(n) LOAD(offsetof(struct seccomp_data, args) + (n) * sizeof(__u64))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)

/* Goes on if the loaded value, masked, is VALUE; otherwise skips so many instructions. */
#define IF(value, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)(value), 0, otherwise)
#define IF_MASKED(mask, value, otherwise) \
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (__u32)(mask)), IF(value, otherwise)

/* Each of these finds the number of the call loaded, and leaves it loaded. */
#define ALLOW(call) IF(SYS_##call, 1), RETURN(SECCOMP_RET_ALLOW),
#define REFUSE(call) IF(SYS_##call, 1), RETURN(SECCOMP_RET_ERRNO | EPERM),
#define ALLOW_IF(call, n, mask, value) \
	IF(SYS_##call, 5), LOAD_ARGUMENT(n), IF_MASKED(mask, value, 1), RETURN(SECCOMP_RET_ALLOW), \
	    LOAD_CALL,
#define ALLOW_IF_BOTH(call, n, mask, value, n2, mask2, value2) \
	IF(SYS_##call, 8), LOAD_ARGUMENT(n), IF_MASKED(mask, value, 4), LOAD_ARGUMENT(n2), \
	    IF_MASKED(mask2, value2, 1), RETURN(SECCOMP_RET_ALLOW), LOAD_CALL,

#if defined __x86_64__ && defined __LP64__
#define MACHINE AUDIT_ARCH_X86_64
#elif defined __aarch64__ && defined __LP64__ && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MACHINE AUDIT_ARCH_AARCH64
#endif

#ifdef MACHINE
/* x32 calls have a bit set in their number, see __X32_SYSCALL_BIT. A tracer that cancels a call
 * sets its number to -1. */
#define X32_MIN 0x40000000
#define CANCELLED 0xffffffff

const struct sock_filter filter_program[] = {
    LOAD(offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD_CALL,
#ifdef __x86_64__
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_MIN, 0, 2),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CANCELLED, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
#endif
    CALLS(ALLOW, ALLOW_IF, ALLOW_IF_BOTH, REFUSE) RETURN(SECCOMP_RET_ERRNO | ENOSYS),
};
const unsigned short filter_length = sizeof filter_program / sizeof *filter_program;
#else
const struct sock_filter filter_program[] = {RETURN(SECCOMP_RET_ALLOW)};
const unsigned short filter_length = 0;
#endif

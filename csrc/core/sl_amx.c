/* Whether this processor, operating system and process may use tile registers.  Contract: sl_split_private.h. */
#if defined(__x86_64__) && defined(__linux__)
#define _GNU_SOURCE /* syscall() */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sl_split_private.h"

enum {
    GET_PERMITTED = 0x1021, /* ARCH_GET_XCOMP_SUPP */
    ASK_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM */,
    TILE_CONFIGURATION = 17, /* parts of the extended state */
    TILE_DATA = 18,
};

static uint64_t
extended_state_kept(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

const char *
sl_amx_fault(void)
{
    const uint64_t needed = UINT64_C(1) << TILE_CONFIGURATION | UINT64_C(1) << TILE_DATA;
    unsigned eax, ebx, ecx, edx;
    uint64_t offered = 0;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx >> 27 & 1) == 0) {
        return "the operating system does not manage extended registers (CPUID: osxsave)";
    }
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx >> 24 & 1) == 0) {
        return "the processor has no tiles (CPUID: amx-tile)";
    }
    if ((edx >> 22 & 1) == 0) {
        return "the processor's tiles have no bfloat16 products (CPUID: amx-bf16)";
    }
    if ((extended_state_kept() & needed) != needed) {
        return "the operating system does not keep tile registers (XCR0 bits 17 and 18)";
    }
    if (syscall(SYS_arch_prctl, GET_PERMITTED, &offered) != 0 || (offered & needed) != needed) {
        return "the kernel does not offer tile registers (arch_prctl; Linux 5.16 or newer does)";
    }
    return NULL;
}

const char *
sl_amx_permit(void)
{
    return syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0
               ? NULL
               : "the kernel refused this process the use of tile registers (arch_prctl; a small alternative "
                 "signal stack is a known cause)";
}

#else
#include "sl_split_private.h"

const char *
sl_amx_fault(void)
{
    return "tiles are used on x86-64 Linux only";
}

const char *
sl_amx_permit(void)
{
    return sl_amx_fault();
}
#endif

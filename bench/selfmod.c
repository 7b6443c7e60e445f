// A program that writes functions and calls them, as just-in-time compilers do.
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

typedef uint64_t made(void);

// Writes a function that returns `value`; returns its length.
static size_t make(unsigned char *at, uint32_t value)
{
#if defined(__x86_64__)
    // mov eax, value; ret
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
    return 6;
#else
    uint32_t low = value & 0xffff, high = value >> 16;
#if defined(__aarch64__)
    // movz w0, low; movk w0, high, lsl 16; ret
    uint32_t code[] = {0x52800000 | low << 5, 0x72a00000 | high << 5, 0xd65f03c0};
#elif defined(__powerpc64__)
    // lis 3, high; ori 3, 3, low; clrldi 3, 3, 32; blr
    uint32_t code[] = {0x3c600000 | high, 0x60630000 | low, 0x78630020, 0x4e800020};
#elif defined(__s390x__)
    // llilf %r2, value; br %r14
    uint16_t code[] = {0xc02f, (uint16_t)high, (uint16_t)low, 0x07fe};
#else
#error "no code for this architecture"
#endif
    memcpy(at, code, sizeof code);
    return sizeof code;
#endif
}

uint64_t run_selfmod(uint64_t units)
{
    enum { SLOTS = 16, SLOT = 256 };
    static unsigned char *page;
    if (page == NULL) {
        page = mmap(NULL, SLOTS * SLOT, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            bench_fail("mmap");
    }
    uint64_t sum = 0;
    uint32_t value = 1;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 0; i < 64; i++) {
            unsigned char *at = page + (i % SLOTS) * SLOT;
            value = value * 1664525u + 1013904223u;
            size_t length = make(at, value);
            __builtin___clear_cache((char *)at, (char *)at + length);
            made *function;
            memcpy(&function, &at, sizeof function);
            for (int k = 0; k < 20; k++)
                sum += function();
        }
        sum = bench_mix(sum, value);
    }
    return sum;
}

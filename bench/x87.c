// What only x86 has: double extended numbers on a stack, and vectors in the same registers.
#ifdef __x86_64__
#include "bench.h"

#include <string.h>

// Square roots by Newton's method, the sums kept exact as long as they can be.
uint64_t run_x87(uint64_t units)
{
    uint64_t sum = 0;
    long double total = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 1; i <= 400; i++) {
            long double x = (long double)(i + (int)(u % 7)) * 1.25L, root = x;
            for (int turn = 0; turn < 8; turn++)
                root = (root + x / root) * 0.5L;
            total += root - __builtin_sqrtl(x) + 1.0L / x;
        }
        double shown = (double)total;
        uint64_t bits;
        memcpy(&bits, &shown, sizeof bits);
        sum = bench_mix(sum, bits);
    }
    return sum;
}

// Pictures of bytes added and scaled, eight at a time. Compilers make SSE2 of what is written for MMX, so its
// instructions are spelled out.
uint64_t run_mmx(uint64_t units)
{
    enum { WORDS = 512 };
    static uint64_t picture[WORDS];
    for (uint64_t i = 0; i < WORDS; i++)
        picture[i] = i * 0x9e3779b97f4a7c15u;
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 10; turn++) {
            for (int i = 0; i + 1 < WORDS; i++) {
                __asm__ volatile("movq (%0), %%mm0\n\t"
                                 "movq 8(%0), %%mm1\n\t"
                                 "movq %%mm0, %%mm2\n\t"
                                 "punpcklbw %%mm1, %%mm2\n\t"
                                 "movq %%mm0, %%mm3\n\t"
                                 "punpckhbw %%mm1, %%mm3\n\t"
                                 "pmullw %%mm3, %%mm2\n\t"
                                 "paddusw %%mm2, %%mm3\n\t"
                                 "psrlw $3, %%mm3\n\t"
                                 "packuswb %%mm3, %%mm2\n\t"
                                 "paddusb %%mm1, %%mm0\n\t"
                                 "pxor %%mm0, %%mm2\n\t"
                                 "movq %%mm2, (%0)"
                                 :
                                 : "r"(&picture[i])
                                 : "mm0", "mm1", "mm2", "mm3", "memory");
            }
        }
        __asm__ volatile("emms" : : : "memory");
        sum = bench_mix(sum, picture[u % WORDS]);
    }
    return sum;
}
#endif

// What only x86 has: double extended numbers on a stack, and vectors in the same registers.
#ifdef __x86_64__
#include "bench.h"

#include <mmintrin.h>
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

// Pictures of bytes added and scaled, eight at a time.
uint64_t run_mmx(uint64_t units)
{
    enum { WORDS = 512 };
    static __m64 picture[WORDS];
    for (uint64_t i = 0; i < WORDS; i++)
        picture[i] = (__m64)(i * 0x9e3779b97f4a7c15u);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 10; turn++) {
            for (int i = 0; i + 1 < WORDS; i++) {
                __m64 a = picture[i], b = picture[i + 1];
                __asm__ volatile("" : "+y"(a));
                __asm__ volatile("" : "+y"(b));
                __m64 low = _mm_unpacklo_pi8(a, b), high = _mm_unpackhi_pi8(a, b);
                low = _mm_mullo_pi16(low, high);
                high = _mm_srli_pi16(_mm_adds_pu16(high, low), 3);
                picture[i] = _mm_xor_si64(_mm_packs_pu16(low, high), _mm_adds_pu8(a, b));
            }
        }
        uint64_t word = (uint64_t)picture[u % WORDS];
        _mm_empty();
        sum = bench_mix(sum, word);
    }
    return sum;
}
#endif

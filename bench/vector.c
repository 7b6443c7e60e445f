// Floating point and vectors. Results are exact to the bit on every machine: only IEEE operations
// that round once, in a fixed order.
#include "bench.h"

#include <string.h>

static uint64_t bits(double x)
{
    uint64_t raw;
    memcpy(&raw, &x, sizeof raw);
    return raw;
}

struct body {
    double x[3], v[3], mass;
};

// Bodies that attract each other, in units of no particular kind.
uint64_t run_nbody(uint64_t units)
{
    enum { BODIES = 5 };
    struct body all[BODIES];
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            all[i].x[k] = (i * 3 + k * 5) % 7 * 1.25 + i;
            all[i].v[k] = ((i + k) % 3 - 1) * 0.125;
        }
        all[i].mass = 1.0 / (i + 1);
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 2000; turn++) {
            const double dt = 0.001;
            for (int i = 0; i < BODIES; i++) {
                for (int j = i + 1; j < BODIES; j++) {
                    double d[3], square = 0;
                    for (int k = 0; k < 3; k++) {
                        d[k] = all[i].x[k] - all[j].x[k];
                        square += d[k] * d[k];
                    }
                    double pull = dt / (square * __builtin_sqrt(square));
                    for (int k = 0; k < 3; k++) {
                        all[i].v[k] -= d[k] * all[j].mass * pull;
                        all[j].v[k] += d[k] * all[i].mass * pull;
                    }
                }
            }
            for (int i = 0; i < BODIES; i++)
                for (int k = 0; k < 3; k++)
                    all[i].x[k] += dt * all[i].v[k];
        }
        sum = bench_mix(sum, bits(all[u % BODIES].x[u % 3]));
    }
    return sum;
}

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));

// A damped wave equation on a line of cells.
uint64_t run_f32_vector(uint64_t units)
{
    enum { CELLS = 256 };
    static f32x4 now[CELLS + 2], before[CELLS + 2];
    for (int i = 0; i < CELLS + 2; i++) {
        now[i] = (f32x4){i * 0.01f, 1.0f, -i * 0.02f, 0.5f};
        before[i] = now[i] * 0.5f;
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 200; turn++) {
            for (int i = 1; i <= CELLS; i++) {
                f32x4 bend = now[i - 1] + now[i + 1] - now[i] * 2.0f;
                f32x4 next = now[i] + (now[i] - before[i]) * 0.995f + bend * 0.2f;
                before[i] = next / (next * next * 0.001f + 1.0f);
            }
            for (int i = 1; i <= CELLS; i++) {
                f32x4 kept = now[i];
                now[i] = before[i];
                before[i] = kept;
            }
        }
        float one = now[1 + u % CELLS][u & 3];
        sum = bench_mix(sum, bits(one));
    }
    return sum;
}

uint64_t run_int_vector(uint64_t units)
{
    enum { COUNT = 512 };
    static i32x4 words[COUNT];
    static i16x8 halves[COUNT];
    static u8x16 bytes[COUNT];
    for (int i = 0; i < COUNT; i++) {
        words[i] = (i32x4){i, -i, i * 77, i ^ 0x5555};
        for (int k = 0; k < 8; k++)
            halves[i][k] = (int16_t)(i * 3 + k);
        for (int k = 0; k < 16; k++)
            bytes[i][k] = (uint8_t)(i + k * 11);
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 60; turn++) {
            i32x4 total = {turn, 1, 2, 3};
            i16x8 small = {1, 2, 3, 4, 5, 6, 7, (int16_t)turn};
            u8x16 tiny = {0};
            for (int i = 0; i < COUNT; i++) {
                total += (words[i] << 3) ^ (words[i] >> 5);
                i32x4 larger = words[i] > total;
                words[i] = (total & larger) | (words[i] & ~larger);
                small = small * halves[i] + 3;
                halves[i] ^= small >> 2;
                tiny += bytes[i];
                u8x16 same = (u8x16)(bytes[i] == tiny);
                bytes[i] = (bytes[i] - same) ^ tiny;
            }
            words[turn] += total;
        }
        int at = (int)(u % COUNT);
        sum = bench_mix(sum, (uint32_t)words[at][u & 3] + 65536u * (uint16_t)halves[at][u & 7] +
                                 bytes[at][u & 15]);
    }
    return sum;
}

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

struct lanes {
    f32x8 f;
    i32x8 i;
};

// The processor's widest registers do this in as many steps as they need.
#define WIDE(name, attributes)                                                          \
    static attributes void name(struct lanes *all, int count, int turns)                \
    {                                                                                   \
        for (int turn = 0; turn < turns; turn++) {                                      \
            f32x8 a = all[0].f;                                                         \
            i32x8 b = all[0].i;                                                         \
            for (int i = 1; i < count; i++) {                                           \
                a = a * 0.5f + all[i].f;                                                \
                b = (b + all[i].i) ^ (all[i].i << 7);                                   \
                i32x8 low = b & 0xff;                                                   \
                all[i].f = all[i].f * 0.75f + a * 0.125f;                               \
                all[i].i = all[i].i - low;                                              \
            }                                                                           \
            all[0].f = a * 0.25f;                                                       \
            all[0].i = b;                                                               \
        }                                                                               \
    }

WIDE(wide_any, __attribute__((noinline)))
#ifdef __x86_64__
WIDE(wide_avx2, __attribute__((noinline, target("avx2"))))
#endif

uint64_t run_wide_vector(uint64_t units)
{
    enum { COUNT = 256 };
    static struct lanes all[COUNT];
    void (*run)(struct lanes *, int, int) = wide_any;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        run = wide_avx2;
#endif
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 8; k++) {
            all[i].f[k] = (float)(i - k) * 0.03125f;
            all[i].i[k] = i * 31 + k;
        }
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        run(all, COUNT, 100);
        sum = bench_mix(sum, bits(all[u % COUNT].f[u & 7]) + (uint32_t)all[u % COUNT].i[u & 7]);
    }
    return sum;
}

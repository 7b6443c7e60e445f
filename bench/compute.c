// Work that stays in registers and the first cache level.
#include "bench.h"

uint64_t run_integer(uint64_t units)
{
    uint64_t a = 1, b = 2, c = 3, sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (uint32_t i = 0; i < 60000; i++) {
            a += b ^ i;
            b = (b << 7 | b >> 57) - c;
            c ^= a * 0x9e3779b97f4a7c15u;
            if ((c & 12) == 4)
                a -= c >> 3;
            if ((int64_t)b < (int64_t)a)
                b += (uint32_t)a / ((uint32_t)i | 1);
        }
        sum = bench_mix(sum, a ^ b ^ c);
    }
    return sum;
}

// FNV-1a over bytes, then a multiplying hash over words, on one buffer.
uint64_t run_hash(uint64_t units)
{
    static uint64_t buffer[2048];
    uint64_t state = 88172645463325252u, sum = 0;
    for (size_t i = 0; i < 2048; i++)
        buffer[i] = bench_random(&state);
    for (uint64_t u = 0; u < units; u++) {
        uint64_t hash = 14695981039346656037u + u;
        for (size_t i = 0; i < sizeof buffer; i += 4) {
            // Not by a pointer to bytes: their order must not show in the result.
            uint64_t byte = buffer[i / 8] >> (i % 8 * 8) & 0xff;
            hash = (hash ^ byte) * 1099511628211u;
        }
        for (int turn = 0; turn < 16; turn++) {
            for (size_t i = 0; i < 2048; i += 2) {
                uint64_t x = buffer[i] ^ hash, y = buffer[i + 1] + hash;
                x *= 0xff51afd7ed558ccdu;
                y *= 0xc4ceb9fe1a85ec53u;
                hash = (x ^ x >> 33) + (y ^ y >> 29);
            }
        }
        sum = bench_mix(sum, hash);
    }
    return sum;
}

static __attribute__((noinline, noclone)) uint64_t fibonacci(uint64_t n)
{
    if (n < 2)
        return n;
    return fibonacci(n - 1) + fibonacci(n - 2);
}

uint64_t run_calls(uint64_t units)
{
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        uint64_t n = 22;
        BENCH_OPAQUE(n);
        sum = bench_mix(sum, fibonacci(n) + u);
    }
    return sum;
}

typedef uint64_t step(uint64_t x);

#define STEP(n, e) \
    static __attribute__((noinline)) uint64_t step##n(uint64_t x) { return e; }
STEP(0, x + 0x1234567)
STEP(1, x ^ x >> 9)
STEP(2, x * 5)
STEP(3, x - 99)
STEP(4, x << 3 | x >> 61)
STEP(5, ~x)
STEP(6, x ^ 0x5555)
STEP(7, x + (x >> 4))

uint64_t run_indirect(uint64_t units)
{
    static step *const steps[8] = {step0, step1, step2, step3, step4, step5, step6, step7};
    static unsigned char order[4096];
    uint64_t state = 362436069, sum = 0, x = 1;
    for (size_t i = 0; i < sizeof order; i++)
        order[i] = bench_random(&state) >> 20 & 7;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 16; turn++)
            for (size_t i = 0; i < sizeof order; i++)
                x = steps[order[i]](x);
        sum = bench_mix(sum, x);
    }
    return sum;
}

// An interpreter of a small stack language, running a sieve-like loop.
enum { PUSH, ADD, SUB, MUL, LOAD, STORE, DUP, JUMP_NONZERO, AND, XOR, HALT };

static __attribute__((noinline)) uint64_t interpret(const int32_t *code, uint64_t *slots)
{
    uint64_t stack[32], *top = stack;
    const int32_t *pc = code;
    for (;;) {
        switch (*pc++) {
        case PUSH: *top++ = (uint64_t)(int64_t)*pc++; break;
        case ADD: top--; top[-1] += top[0]; break;
        case SUB: top--; top[-1] -= top[0]; break;
        case MUL: top--; top[-1] *= top[0]; break;
        case AND: top--; top[-1] &= top[0]; break;
        case XOR: top--; top[-1] ^= top[0]; break;
        case LOAD: *top++ = slots[*pc++]; break;
        case STORE: slots[*pc++] = *--top; break;
        case DUP: top[0] = top[-1]; top++; break;
        case JUMP_NONZERO:
            if (*--top != 0)
                pc = code + *pc;
            else
                pc++;
            break;
        case HALT: return slots[1];
        default: return 0;
        }
    }
}

uint64_t run_bytecode(uint64_t units)
{
    static const int32_t code[] = {
        LOAD, 1, PUSH, 31, MUL, LOAD, 0, ADD, DUP, PUSH, 0x7fff, AND, LOAD, 2, XOR, STORE, 2,
        STORE, 1, LOAD, 2, LOAD, 1, ADD, STORE, 1, LOAD, 0, PUSH, 1, SUB, DUP, STORE, 0,
        JUMP_NONZERO, 0, HALT,
    };
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        uint64_t slots[4] = {6000, u, 7, 0};
        sum = bench_mix(sum, interpret(code, slots));
    }
    return sum;
}

// What the programs share.
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t bench_run(uint64_t units);

// compute.c
bench_run run_integer, run_hash, run_calls, run_indirect, run_bytecode;
// memory.c
bench_run run_chase_near, run_chase_far, run_copy, run_loads, run_bytes, run_atomics;
// vector.c
bench_run run_nbody, run_f32_vector, run_int_vector, run_wide_vector;
// kernel.c
bench_run run_clock, run_syscalls, run_signals, run_fork, run_exec, run_faults, run_pipe;
// selfmod.c
bench_run run_selfmod;
// x87.c, x86 only
bench_run run_x87, run_mmx;

// Where a child that was started by exec ends at once.
#define BENCH_EXIT "exit"

// Says why and ends the program: a guest that lacks something must not give a number.
void bench_fail(const char *what);

// A step of a checksum.
static inline uint64_t bench_mix(uint64_t sum, uint64_t value)
{
    sum ^= value + 0x9e3779b97f4a7c15u + (sum << 6) + (sum >> 2);
    return sum;
}

// A generator for test data (Marsaglia's xorshift64).
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

// Keeps the compiler from seeing through a value.
#define BENCH_OPAQUE(x) __asm__ volatile("" : "+r"(x))

#endif

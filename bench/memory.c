// Work that is all loads and stores.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    uint64_t value;
    uint64_t fill[6];
};

// A ring of all nodes in an order no prefetcher guesses: a full-period congruential generator.
static struct node *ring(size_t nodes)
{
    struct node *all = malloc(nodes * sizeof *all);
    if (all == NULL)
        bench_fail("malloc");
    for (size_t i = 0; i < nodes; i++) {
        all[i].next = &all[(i * 1664525u + 1013904223u) & (nodes - 1)];
        all[i].value = i * 0x9e3779b97f4a7c15u;
    }
    return all;
}

static uint64_t chase(const struct node *at, uint64_t steps, uint64_t sum)
{
    for (uint64_t i = 0; i < steps; i++) {
        sum += at->value;
        at = at->next;
    }
    return bench_mix(sum, at->value);
}

uint64_t run_chase_near(uint64_t units)
{
    static struct node *nodes;
    if (nodes == NULL)
        nodes = ring(256);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++)
        sum = chase(nodes, 200000, sum);
    return sum;
}

uint64_t run_chase_far(uint64_t units)
{
    static struct node *nodes;
    if (nodes == NULL)
        nodes = ring(1u << 19);
    const struct node *at = nodes;
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 0; i < 5000; i++) {
            sum += at->value;
            at = at->next;
        }
        sum = bench_mix(sum, at->value);
    }
    return sum;
}

uint64_t run_copy(uint64_t units)
{
    enum { SIZE = 1 << 18 };
    static unsigned char *from, *to;
    if (from == NULL) {
        from = malloc(SIZE + 64);
        to = malloc(SIZE + 64);
        if (from == NULL || to == NULL)
            bench_fail("malloc");
    }
    for (size_t i = 0; i < SIZE; i++)
        from[i] = (unsigned char)(i * 7 + (i >> 8));
    memset(to, 0, SIZE + 64);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        // Large, medium and small copies, aligned and not.
        memcpy(to, from, SIZE);
        for (size_t at = 0; at + 4096 <= SIZE; at += 4096)
            memcpy(to + at + (u & 15), from + at, 1500);
        for (size_t at = 0; at < 65536; at += 64) {
            size_t length = 8 + (at >> 6) % 48;
            BENCH_OPAQUE(length);
            memcpy(to + at, from + at + 3, length);
        }
        memmove(from + 1, from, 30000);
        from[0] = (unsigned char)u;
        sum = bench_mix(sum, to[u * 61 % SIZE] + 256u * from[u * 13 % SIZE]);
    }
    return sum;
}

uint64_t run_loads(uint64_t units)
{
    enum { COUNT = 4096 };
    static uint32_t words[COUNT];
    static uint64_t longs[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        words[i] = i * 2654435761u;
        longs[i] = i;
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 12; turn++) {
            for (uint32_t i = 0; i < COUNT; i++) {
                uint32_t at = words[i] >> 20;
                longs[at] += words[i] + turn;
                words[i] ^= (uint32_t)longs[(at + i) % COUNT];
            }
        }
        sum = bench_mix(sum, longs[u % COUNT] + words[u * 7 % COUNT]);
    }
    return sum;
}

uint64_t run_bytes(uint64_t units)
{
    enum { SIZE = 8192 };
    static unsigned char text[SIZE], out[SIZE];
    static uint16_t counts[256];
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (unsigned char)("the quick brown Fox; jumps 0ver"[i % 31] + i / 4096);
    memset(counts, 0, sizeof counts);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        size_t length = 0;
        for (int turn = 0; turn < 8; turn++) {
            length = 0;
            for (size_t i = 0; i < SIZE; i++) {
                unsigned char c = text[i];
                counts[c]++;
                if (c >= 'a' && c <= 'z')
                    out[length++] = (unsigned char)(c - 32);
                else if (c != ' ')
                    out[length++] = c;
            }
        }
        text[u % SIZE] ^= 1;
        sum = bench_mix(sum, length * 256 + out[u % length] + counts['e']);
    }
    return sum;
}

uint64_t run_atomics(uint64_t units)
{
    static uint64_t cells[64];
    static uint32_t lock;
    memset(cells, 0, sizeof cells);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (uint64_t i = 0; i < 8000; i++) {
            uint64_t *cell = &cells[i & 63];
            __atomic_fetch_add(cell, i, __ATOMIC_SEQ_CST);
            uint64_t seen = __atomic_load_n(cell, __ATOMIC_ACQUIRE);
            __atomic_compare_exchange_n(cell, &seen, seen * 3, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST);
            while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) != 0) {
            }
            sum += *cell;
            __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
        }
        sum = bench_mix(sum, __atomic_or_fetch(&cells[u & 63], 1, __ATOMIC_SEQ_CST));
    }
    return sum;
}

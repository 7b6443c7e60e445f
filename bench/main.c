// Chooses programs, runs them, prints what they did.
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    bench_run *run;
} programs[] = {
    {"integer", run_integer},
    {"hash", run_hash},
    {"calls", run_calls},
    {"indirect", run_indirect},
    {"bytecode", run_bytecode},
    {"chase-near", run_chase_near},
    {"chase-far", run_chase_far},
    {"copy", run_copy},
    {"loads", run_loads},
    {"bytes", run_bytes},
    {"atomics", run_atomics},
    {"nbody", run_nbody},
    {"f32-vector", run_f32_vector},
    {"int-vector", run_int_vector},
    {"wide-vector", run_wide_vector},
    {"clock", run_clock},
    {"syscalls", run_syscalls},
    {"signals", run_signals},
    {"fork", run_fork},
    {"exec", run_exec},
    {"faults", run_faults},
    {"pipe", run_pipe},
    {"selfmod", run_selfmod},
#ifdef __x86_64__
    {"x87", run_x87},
    {"mmx", run_mmx},
#endif
};

#define PROGRAMS (sizeof programs / sizeof programs[0])

void bench_fail(const char *what)
{
    printf("FAILED %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        bench_fail("clock_gettime");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int run(const char *name, const char *units_text)
{
    uint64_t units = strtoull(units_text, NULL, 10);
    for (size_t i = 0; i < PROGRAMS; i++) {
        if (strcmp(programs[i].name, name) != 0)
            continue;
        uint64_t start = now_ns();
        uint64_t sum = programs[i].run(units);
        uint64_t ns = now_ns() - start;
        double rate = ns == 0 ? 0 : (double)units * 1e9 / (double)ns;
        printf("DONE %s units=%llu ns=%llu rate=%.0f sum=%016llx\n", name,
               (unsigned long long)units, (unsigned long long)ns, rate, (unsigned long long)sum);
        fflush(stdout);
        return 0;
    }
    printf("UNKNOWN %s\n", name);
    fflush(stdout);
    return 1;
}

static int serve(void)
{
    struct termios mode;
    if (tcgetattr(0, &mode) == 0) {
        // What is typed need not come back.
        mode.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
        tcsetattr(0, TCSANOW, &mode);
    }
    printf("SERVING\n");
    fflush(stdout);
    char line[128], name[64], units[32];
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "%63s %31s", name, units) != 2)
            break;
        run(name, units);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], BENCH_EXIT) == 0)
        return 7;
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return serve();
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (size_t i = 0; i < PROGRAMS; i++)
            puts(programs[i].name);
        return 0;
    }
    if (argc == 3)
        return run(argv[1], argv[2]);
    fputs("usage: bench list | bench serve | bench NAME UNITS\n", stderr);
    return 2;
}

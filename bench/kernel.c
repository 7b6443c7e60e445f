// Work that is the guest kernel's.
#define _GNU_SOURCE
#include "bench.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t run_clock(uint64_t units)
{
    uint64_t backwards = 0, count = 0;
    struct timespec last = {0, 0}, now;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 0; i < 2000; i++) {
            if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
                bench_fail("clock_gettime");
            if (now.tv_sec < last.tv_sec ||
                (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec))
                backwards++;
            last = now;
            count++;
        }
    }
    return bench_mix(backwards, count);
}

uint64_t run_syscalls(uint64_t units)
{
    uint64_t sum = 0, parent = (uint64_t)getppid();
    for (uint64_t u = 0; u < units; u++)
        for (int i = 0; i < 1500; i++)
            sum += (uint64_t)syscall(SYS_getppid) == parent;
    return bench_mix(0, sum);
}

static volatile sig_atomic_t caught;

static void catch(int number)
{
    caught += number == SIGUSR1;
}

uint64_t run_signals(uint64_t units)
{
    struct sigaction action = {.sa_handler = catch};
    if (sigaction(SIGUSR1, &action, NULL) != 0)
        bench_fail("sigaction");
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        caught = 0;
        for (int i = 0; i < 300; i++)
            raise(SIGUSR1);
        sum = bench_mix(sum, (uint64_t)caught);
    }
    return sum;
}

static int child_status(pid_t child)
{
    int status;
    if (child < 0)
        bench_fail("fork");
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        bench_fail("waitpid");
    return WEXITSTATUS(status);
}

uint64_t run_fork(uint64_t units)
{
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 0; i < 4; i++) {
            pid_t child = fork();
            if (child == 0)
                _exit((int)(u + i) & 63);
            sum = bench_mix(sum, (uint64_t)child_status(child));
        }
    }
    return sum;
}

uint64_t run_exec(uint64_t units)
{
    static char *const words[] = {"bench", BENCH_EXIT, NULL};
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        pid_t child = fork();
        if (child == 0) {
            execv("/proc/self/exe", words);
            _exit(127);
        }
        int status = child_status(child);
        if (status != 7)
            bench_fail("execv");
        sum = bench_mix(sum, (uint64_t)status + u);
    }
    return sum;
}

uint64_t run_faults(uint64_t units)
{
    enum { PAGES = 256 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        unsigned char *all = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED)
            bench_fail("mmap");
        madvise(all, PAGES * page, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < PAGES; i++)
            all[i * page + i] = (unsigned char)(i + u);
        sum = bench_mix(sum, all[u % PAGES * page + u % PAGES]);
        munmap(all, PAGES * page);
    }
    return sum;
}

uint64_t run_pipe(uint64_t units)
{
    int there[2], back[2];
    if (pipe(there) != 0 || pipe(back) != 0)
        bench_fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        uint64_t value;
        close(there[1]);
        while (read(there[0], &value, sizeof value) == sizeof value) {
            value = value * 3 + 1;
            if (write(back[1], &value, sizeof value) != sizeof value)
                break;
        }
        _exit(5);
    }
    close(there[0]);
    close(back[1]);
    uint64_t sum = 0, value = 1;
    for (uint64_t u = 0; u < units; u++) {
        for (int i = 0; i < 50; i++) {
            if (write(there[1], &value, sizeof value) != sizeof value ||
                read(back[0], &value, sizeof value) != sizeof value)
                bench_fail("ping-pong");
        }
        sum = bench_mix(sum, value);
    }
    close(there[1]);
    close(back[0]);
    return bench_mix(sum, (uint64_t)child_status(child));
}

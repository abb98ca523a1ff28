/* The machine's own limits, on one thread: `limits fma SECONDS` prints float32 GFLOP/s of independent multiply-adds in registers,
 * `limits read SECONDS` prints GB/s of reading 256 MB.  Built with the flags of one instruction-set tier; LANES is the width of its registers.
 * limits.py runs one process per thread. */
#define _POSIX_C_SOURCE 200809L
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef LANES
#define LANES 4
#endif
#ifdef __aarch64__
#define REGISTER "+w"
#else
#define REGISTER "+x"
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint64_t words __attribute__((vector_size(4 * LANES)));
enum { CHAINS = 10, STEPS = 4096, N_BYTES = 256 << 20 };

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* CHAINS independent accumulators hide the latency of a multiply-add; the empty asm keeps each of them in a register and alive. */
static double
fma_round(void)
{
    vec a[CHAINS], x = {0}, y = {0};
    const double start = now();

    memset(a, 0, sizeof a);
    x += 1.0f;
    y += 1e-9f;
    for (int repeat = 0; repeat < 256; repeat++) {
        for (int i = 0; i < STEPS; i++) {
            __asm__ volatile("" : REGISTER(x), REGISTER(y));
#pragma GCC unroll 10
            for (int c = 0; c < CHAINS; c++) {
                a[c] = a[c] * x + y;
            }
        }
        __asm__ volatile("" ::"m"(a) : "memory");
    }
    return 2.0 * LANES * CHAINS * STEPS * 256.0 / (now() - start) / 1e9;
}

static double
read_round(const words *data)
{
    const ptrdiff_t n = N_BYTES / (ptrdiff_t)sizeof *data;
    words sum[4] = {{0}};
    const double start = now();

    for (ptrdiff_t i = 0; i < n; i += 4) {
        for (int c = 0; c < 4; c++) {
            sum[c] += data[i + c];
        }
    }
    __asm__ volatile("" ::"m"(sum) : "memory");
    return N_BYTES / (now() - start) / 1e9;
}

int
main(int argc, char **argv)
{
    const double until = now() + (argc > 2 ? atof(argv[2]) : 0.5);
    const int reading = argc > 1 && strcmp(argv[1], "read") == 0;
    words *data = reading ? aligned_alloc(64, N_BYTES) : NULL;
    double best = 0.0;

    if (reading && data == NULL) {
        fprintf(stderr, "no memory\n");
        return 1;
    }
    if (reading) {
        memset(data, 1, N_BYTES);
    }
    do {
        const double rate = reading ? read_round(data) : fma_round();

        best = rate > best ? rate : best;
    } while (now() < until);
    printf("%.3f\n", best);
    free(data);
    return 0;
}

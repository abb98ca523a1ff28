/* The tile operations that tier_split_inl.h is written in: instructions, or (SL_TILE_EMULATED) their documented arithmetic in C.
 *
 * tile_begin, tile_end: eight registers of 16 rows of 64 bytes, for the calling thread.  tile_zero(t), tile_load(t, p), tile_store(t, p, stride in bytes),
 * tile_multiply(c, a, b).  Numbers of registers are constants; registers in memory are 1 kB without gaps. */
#ifndef SL_TILE_OPS_H
#define SL_TILE_OPS_H

#include "sl/sl_common.h"

/* What the instruction that configures tiles reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} sl_tile_config;

static const sl_tile_config tile_shapes = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

#ifndef SL_TILE_EMULATED

#include <immintrin.h>

static void
tile_begin(void)
{
    _tile_loadconfig(&tile_shapes);
}

static void
tile_end(void)
{
    _tile_release();
}

#define tile_zero(t) _tile_zero(t)
#define tile_load(t, p) _tile_loadd(t, p, 64)
#define tile_store(t, p, stride) _tile_stored(t, p, stride)
#define tile_multiply(c, a, b) _tile_dpbf16ps(c, a, b)

#else

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef union {
    uint32_t pairs[16][16];
    float sums[16][16];
} sl_tile;

/* The registers of a thread.  Their use without a configuration ends the process, as it does on a machine. */
static _Thread_local sl_tile tile_registers[8];
static _Thread_local int tile_configured;

static void
tile_begin(void)
{
    if (tile_configured || tile_shapes.palette != 1) {
        abort();
    }
    memset(tile_registers, 0, sizeof tile_registers);
    tile_configured = 1;
}

static void
tile_end(void)
{
    if (!tile_configured) {
        abort();
    }
    tile_configured = 0;
}

static sl_tile *
tile_of(int t)
{
    if (!tile_configured) {
        abort();
    }
    return &tile_registers[t];
}

static inline float
tile_float(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x, or 0 of its sign where it is denormal. */
static inline float
tile_flush(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return tile_float((bits & 0x7F800000U) != 0 ? bits : bits & 0x80000000U);
}

/* Per element: even = chain of the products of even terms, odd of the odd ones, each from 0 by fused steps; c = c + (even + odd). */
static void
tile_dot(sl_tile *c, const sl_tile *a, const sl_tile *b)
{
    for (int m = 0; m < 16; m++) {
        float even[16] = {0.0F}, odd[16] = {0.0F};
        for (int k = 0; k < 16; k++) {
            const float low = tile_flush(tile_float(a->pairs[m][k] << 16)),
                        high = tile_flush(tile_float(a->pairs[m][k] & 0xFFFF0000U));
            for (int n = 0; n < 16; n++) {
                even[n] = tile_flush(fmaf(low, tile_flush(tile_float(b->pairs[k][n] << 16)), even[n]));
                odd[n] = tile_flush(fmaf(high, tile_flush(tile_float(b->pairs[k][n] & 0xFFFF0000U)), odd[n]));
            }
        }
        for (int n = 0; n < 16; n++) {
            c->sums[m][n] = tile_flush(tile_flush(c->sums[m][n]) + tile_flush(even[n] + odd[n]));
        }
    }
}

static void
tile_store_rows(const sl_tile *t, float *p, ptrdiff_t stride)
{
    for (int m = 0; m < 16; m++) {
        memcpy((char *)p + m * stride, t->sums[m], sizeof t->sums[m]);
    }
}

#define tile_zero(t) memset(tile_of(t), 0, sizeof(sl_tile))
#define tile_load(t, p) memcpy(tile_of(t), p, sizeof(sl_tile))
#define tile_store(t, p, stride) tile_store_rows(tile_of(t), p, stride)
#define tile_multiply(c, a, b) tile_dot(tile_of(c), tile_of(a), tile_of(b))

#endif
#endif

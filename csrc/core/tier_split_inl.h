/* Kernels on operands split into bfloat16 parts: splitting, tile products, what happens to rows that are not plain.  Contract: sl/sl_split.h,
 * sl_split_private.h.  The includer has included sl_tile_ops.h and defines SL_TILES (the name of the two structs).
 *
 * A panel of 32 rows meets one of 32 columns in registers: four tiles of C, two of each operand.  Parts follow each other so that one of the two operands
 * often stays: 20 loads for 24 instructions of six products. */
#include <math.h>
#include <string.h>

#include "sl_split_private.h"

enum {
    HI = 0,
    MID = 2 * SL_SPLIT_TILE,
    LO = 4 * SL_SPLIT_TILE,
    SPLIT_LEAST = (127 - 48) << 23, /* bits of 2^-48 and 2^48 */
    SPLIT_MOST = (127 + 48) << 23,
};

static inline uint32_t
bits_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float
float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Nearest bfloat16, ties away from 0, as the bits of a float. */
static inline uint32_t
near_part(uint32_t bits)
{
    return (bits + 0x8000U) & 0xFFFF0000U;
}

static inline int
is_plain(uint32_t largest)
{
    return largest == 0 || (largest >= SPLIT_LEAST && largest < SPLIT_MOST);
}

static uint16_t *
steps_of(float *panel)
{
    return (uint16_t *)(void *)(panel + SL_SPLIT_HEAD);
}

static const uint16_t *
steps_in(const float *panel)
{
    return (const uint16_t *)(const void *)(panel + SL_SPLIT_HEAD);
}

static uint32_t
flags_in(const float *panel)
{
    uint32_t flags;

    memcpy(&flags, panel, sizeof flags);
    return flags;
}

static void
set_flags(float *panel, uint32_t flags)
{
    memset(panel, 0, SL_SPLIT_HEAD * sizeof *panel);
    memcpy(panel, &flags, sizeof flags);
}

/* --- splitting */

static void
split_terms(const float *restrict x, uint16_t *restrict to)
{
    for (int i = 0; i < SL_SPLIT_TERMS; i++) {
        const uint32_t hi = near_part(bits_of(x[i]));
        const float rest = x[i] - float_of(hi);
        const uint32_t mid = near_part(bits_of(rest)), lo = bits_of(rest - float_of(mid));
        to[HI + i] = (uint16_t)(hi >> 16);
        to[MID + i] = (uint16_t)(mid >> 16);
        to[LO + i] = (uint16_t)(lo >> 16);
    }
}

static void
halve_terms(const float *restrict x, uint16_t *restrict to)
{
    for (int i = 0; i < SL_SPLIT_TERMS; i++) {
        to[HI + i] = (uint16_t)(bits_of(x[i]) >> 16);
        to[MID + i] = (uint16_t)(bits_of(x[i]) & 0xFFFFU);
        to[LO + i] = 0;
    }
}

static uint32_t
largest_of(const float *x, ptrdiff_t n)
{
    uint32_t most = 0;

    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t magnitude = bits_of(x[i]) & 0x7FFFFFFFU;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

static void
split_left(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t depth, float *panel)
{
    uint32_t flags = 0;
    float last[SL_SPLIT_TERMS];

    for (ptrdiff_t i = 0; i < SL_SPLIT_ROWS; i++) {
        uint16_t *to = steps_of(panel) + i / 16 * SL_SPLIT_TILE + i % 16 * SL_SPLIT_TERMS;
        const float *row = src + i * ld;
        const int plain = i >= rows || is_plain(largest_of(row, depth));
        flags |= (uint32_t)!plain << i;
        for (ptrdiff_t p = 0; p < depth; p += SL_SPLIT_TERMS, to += SL_SPLIT_STEP) {
            const ptrdiff_t some = i < rows ? sl_min(SL_SPLIT_TERMS, depth - p) : 0;
            const float *from = last;
            if (some == SL_SPLIT_TERMS) {
                from = row + p;
            } else {
                memset(last, 0, sizeof last);
                memcpy(last, row + (some > 0 ? p : 0), (size_t)some * sizeof *last);
            }
            if (plain) {
                split_terms(from, to);
            } else {
                halve_terms(from, to);
            }
        }
    }
    set_flags(panel, flags);
}

/* Two rows of 16 numbers as 16 pairs of each part. */
static void
split_pairs_of(const float *restrict even, const float *restrict odd, uint16_t *restrict to)
{
    uint32_t hi[16], mid[16], lo[16];

    for (int i = 0; i < 16; i++) {
        const uint32_t hi0 = near_part(bits_of(even[i])), hi1 = near_part(bits_of(odd[i]));
        const float rest0 = even[i] - float_of(hi0), rest1 = odd[i] - float_of(hi1);
        const uint32_t mid0 = near_part(bits_of(rest0)), mid1 = near_part(bits_of(rest1));
        const uint32_t lo0 = bits_of(rest0 - float_of(mid0)), lo1 = bits_of(rest1 - float_of(mid1));
        hi[i] = hi0 >> 16 | hi1;
        mid[i] = mid0 >> 16 | mid1;
        lo[i] = lo0 >> 16 | (lo1 & 0xFFFF0000U);
    }
    memcpy(to + HI, hi, sizeof hi);
    memcpy(to + MID, mid, sizeof mid);
    memcpy(to + LO, lo, sizeof lo);
}

/* Columns of the panel that are not plain. */
static uint32_t
flag_columns(const float *src, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t depth)
{
    uint32_t most[SL_SPLIT_ROWS] = {0}, flags = 0;

    for (ptrdiff_t p = 0; p < depth; p++) {
        for (ptrdiff_t j = 0; j < n; j++) {
            const uint32_t magnitude = bits_of(src[p * ld + j]) & 0x7FFFFFFFU;
            most[j] = magnitude > most[j] ? magnitude : most[j];
        }
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        flags |= (uint32_t)!is_plain(most[j]) << j;
    }
    return flags;
}

static void
split_right(const float *src, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t depth, float *panel)
{
    const uint32_t flags = flag_columns(src, ld, n, depth);
    const ptrdiff_t tiles = n > 16 ? 2 : 1;
    float even[16], odd[16];

    for (ptrdiff_t p = 0; p < sl_round_up(depth, SL_SPLIT_TERMS); p += 2) {
        uint16_t *to = steps_of(panel) + p / SL_SPLIT_TERMS * SL_SPLIT_STEP + p % SL_SPLIT_TERMS / 2 * SL_SPLIT_TERMS;
        for (ptrdiff_t t = 0; t < tiles; t++, to += SL_SPLIT_TILE) {
            const ptrdiff_t some = sl_min(16, n - 16 * t);
            const float *from = src + p * ld + 16 * t;
            if (some == 16 && p + 2 <= depth) {
                split_pairs_of(from, from + ld, to);
                continue;
            }
            memset(even, 0, sizeof even);
            memset(odd, 0, sizeof odd);
            if (p < depth) {
                memcpy(even, from, (size_t)some * sizeof *even);
            }
            if (p + 1 < depth) {
                memcpy(odd, from + ld, (size_t)some * sizeof *odd);
            }
            split_pairs_of(even, odd, to);
        }
    }
    for (ptrdiff_t j = 0; flags >> j != 0 && j < n; j++) {
        for (ptrdiff_t p = 0; p < depth && (flags >> j & 1) != 0; p++) {
            uint16_t *to = steps_of(panel) + p / SL_SPLIT_TERMS * SL_SPLIT_STEP + j / 16 * SL_SPLIT_TILE +
                           p % SL_SPLIT_TERMS / 2 * SL_SPLIT_TERMS + j % 16 * 2 + p % 2;
            to[HI] = (uint16_t)(bits_of(src[p * ld + j]) >> 16);
            to[MID] = (uint16_t)(bits_of(src[p * ld + j]) & 0xFFFFU);
            to[LO] = 0;
        }
    }
    set_flags(panel, flags);
}

/* Transpose by squares of 8, so that both sides are read and written by whole lines. */
static void
turn(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns, float *dst, ptrdiff_t ld_dst)
{
    for (ptrdiff_t i = 0; i < rows; i += 8) {
        for (ptrdiff_t p = 0; p < columns; p += 8) {
            if (i + 8 <= rows && p + 8 <= columns) {
                float square[8][8];
                for (int r = 0; r < 8; r++) {
                    memcpy(square[r], src + (i + r) * ld + p, sizeof square[r]);
                }
                for (int c = 0; c < 8; c++) {
                    for (int r = 0; r < 8; r++) {
                        dst[(p + c) * ld_dst + i + r] = square[r][c];
                    }
                }
                continue;
            }
            for (ptrdiff_t r = i; r < sl_min(i + 8, rows); r++) {
                for (ptrdiff_t c = p; c < sl_min(p + 8, columns); c++) {
                    dst[c * ld_dst + r] = src[r * ld + c];
                }
            }
        }
    }
}

/* --- products */

#define SPLIT_LEFT(part)                                                                                               \
    tile_load(4, a + (part));                                                                                          \
    if (tall) {                                                                                                        \
        tile_load(5, a + (part) + SL_SPLIT_TILE);                                                                      \
    }
#define SPLIT_RIGHT(part)                                                                                              \
    tile_load(6, b + (part));                                                                                          \
    if (wide) {                                                                                                        \
        tile_load(7, b + (part) + SL_SPLIT_TILE);                                                                      \
    }
#define SPLIT_MULTIPLY()                                                                                               \
    tile_multiply(0, 4, 6);                                                                                            \
    if (wide) {                                                                                                        \
        tile_multiply(1, 4, 7);                                                                                        \
    }                                                                                                                  \
    if (tall) {                                                                                                        \
        tile_multiply(2, 5, 6);                                                                                        \
    }                                                                                                                  \
    if (tall && wide) {                                                                                                \
        tile_multiply(3, 5, 7);                                                                                        \
    }

/* c (32, 32) = product of two panels; tall, wide: more than 16 rows, columns; all but pointers and steps are constants where this is inlined. */
static inline __attribute__((always_inline)) void
multiply_steps(const int products, const int tall, const int wide, const uint16_t *a, const uint16_t *b,
               ptrdiff_t steps, float *c)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (ptrdiff_t s = 0; s < steps; s++, a += SL_SPLIT_STEP, b += SL_SPLIT_STEP) {
        if (products == 6) {
            SPLIT_LEFT(HI)
            SPLIT_RIGHT(LO)
            SPLIT_MULTIPLY()
            SPLIT_LEFT(LO)
            SPLIT_RIGHT(HI)
            SPLIT_MULTIPLY()
            SPLIT_LEFT(MID)
            SPLIT_RIGHT(MID)
            SPLIT_MULTIPLY()
            SPLIT_LEFT(HI)
        } else {
            SPLIT_LEFT(HI)
            SPLIT_RIGHT(MID)
        }
        SPLIT_MULTIPLY()
        SPLIT_LEFT(MID)
        SPLIT_RIGHT(HI)
        SPLIT_MULTIPLY()
        SPLIT_LEFT(HI)
        SPLIT_MULTIPLY()
    }
    tile_store(0, c, 4 * SL_SPLIT_ROWS);
    tile_store(1, c + 16, 4 * SL_SPLIT_ROWS);
    tile_store(2, c + 16 * SL_SPLIT_ROWS, 4 * SL_SPLIT_ROWS);
    tile_store(3, c + 16 * SL_SPLIT_ROWS + 16, 4 * SL_SPLIT_ROWS);
}

static void
multiply_panels(int products, int tall, int wide, const uint16_t *a, const uint16_t *b, ptrdiff_t steps, float *c)
{
    __asm__ volatile("" ::: "memory"); /* tile loads do not tell the compiler that they read memory */
    switch ((products == 6 ? 4 : 0) + (tall ? 2 : 0) + (wide ? 1 : 0)) {
    case 0:
        multiply_steps(3, 0, 0, a, b, steps, c);
        break;
    case 1:
        multiply_steps(3, 0, 1, a, b, steps, c);
        break;
    case 2:
        multiply_steps(3, 1, 0, a, b, steps, c);
        break;
    case 3:
        multiply_steps(3, 1, 1, a, b, steps, c);
        break;
    case 4:
        multiply_steps(6, 0, 0, a, b, steps, c);
        break;
    case 5:
        multiply_steps(6, 0, 1, a, b, steps, c);
        break;
    case 6:
        multiply_steps(6, 1, 0, a, b, steps, c);
        break;
    default:
        multiply_steps(6, 1, 1, a, b, steps, c);
    }
    __asm__ volatile("" ::: "memory");
}

/* --- elements whose rows are not plain */

static inline float
value_at(const uint16_t *at, uint32_t whole)
{
    const uint32_t hi = at[HI], mid = at[MID], lo = at[LO];

    return whole != 0 ? float_of(hi << 16 | mid) : float_of(hi << 16) + (float_of(mid << 16) + float_of(lo << 16));
}

/* Operands as floats again: left (32, depth), right (depth, 32). */
static void
join_left(const float *panel, ptrdiff_t depth, float *dst)
{
    const uint32_t flags = flags_in(panel);

    for (ptrdiff_t i = 0; i < SL_SPLIT_ROWS; i++) {
        const uint16_t *row = steps_in(panel) + i / 16 * SL_SPLIT_TILE + i % 16 * SL_SPLIT_TERMS;
        for (ptrdiff_t p = 0; p < depth; p++) {
            dst[i * depth + p] =
                value_at(row + p / SL_SPLIT_TERMS * SL_SPLIT_STEP + p % SL_SPLIT_TERMS, flags >> i & 1);
        }
    }
}

static void
join_right(const float *panel, ptrdiff_t n, ptrdiff_t depth, float *dst)
{
    const uint32_t flags = flags_in(panel);

    for (ptrdiff_t p = 0; p < depth; p++) {
        const uint16_t *row =
            steps_in(panel) + p / SL_SPLIT_TERMS * SL_SPLIT_STEP + p % SL_SPLIT_TERMS / 2 * SL_SPLIT_TERMS + p % 2;
        for (ptrdiff_t j = 0; j < SL_SPLIT_ROWS; j++) {
            dst[p * SL_SPLIT_ROWS + j] =
                j < n ? value_at(row + j / 16 * SL_SPLIT_TILE + j % 16 * 2, flags >> j & 1) : 0.0F;
        }
    }
}

/* sums[j] += x b[j], as the float tiers do it. */
static inline void
add_terms(float x, const float *restrict b, float *restrict sums)
{
    for (int j = 0; j < SL_SPLIT_ROWS; j++) {
#if defined(__FMA__) || defined(__aarch64__)
        sums[j] = fmaf(x, b[j], sums[j]);
#else
        sums[j] = sums[j] + x * b[j];
#endif
    }
}

/* Elements of c whose row of a or of b is not plain, anew. */
static void
mend(uint32_t rows, uint32_t columns, const float *left, const float *right, ptrdiff_t depth, float *c)
{
    for (ptrdiff_t i = 0; i < SL_SPLIT_ROWS; i++) {
        float sums[SL_SPLIT_ROWS] = {0.0F};
        if ((rows >> i & 1) == 0 && columns == 0) {
            continue;
        }
        for (ptrdiff_t p = 0; p < depth; p++) {
            add_terms(left[i * depth + p], right + p * SL_SPLIT_ROWS, sums);
        }
        for (ptrdiff_t j = 0; j < SL_SPLIT_ROWS; j++) {
            if ((rows >> i & 1) != 0 || (columns >> j & 1) != 0) {
                c[i * SL_SPLIT_ROWS + j] = sums[j];
            }
        }
    }
}

/* --- a panel of B with all of A */

static inline void
finish_piece(const float *restrict sums, ptrdiff_t n, const float *restrict bias_col, const float *bias,
             const float *addend /* may be y */, int first, float *y)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        float v = sums[j];
        if (first) {
            v = bias != NULL ? v + *bias : v;
            v = bias_col != NULL ? v + bias_col[j] : v;
            v = addend != NULL ? v + addend[j] : v;
        } else {
            v = y[j] + v;
        }
        y[j] = v;
    }
}

/* Rows of finished sums into C, as the epilogue of gemm_panel. */
static void
put_rows(const sl_tier *tier, const float *sums, ptrdiff_t row, ptrdiff_t rows, const sl_piece *pieces,
         ptrdiff_t n_pieces, float *c, ptrdiff_t ldc, const sl_epilogue *e)
{
    for (ptrdiff_t i = row; i < row + rows; i++, sums += SL_SPLIT_ROWS) {
        for (ptrdiff_t r = 0; r < n_pieces; r++) {
            const ptrdiff_t n = pieces[r].length;
            float *y = c + i * ldc + pieces[r].offset;
            finish_piece(sums + pieces[r].column, n, e->bias_col != NULL ? e->bias_col + pieces[r].column : NULL,
                         e->bias_row != NULL ? e->bias_row + i : NULL,
                         e->addend != NULL ? e->addend + i * e->ld_addend + pieces[r].offset : NULL, e->first, y);
            if (e->last && e->activation != SL_ACT_NONE) {
                tier->map_activate(y, n, e->activation, y);
            }
        }
    }
}

static void
run_panel(const sl_tiles *tiles, const sl_tier *tier, const float *a, ptrdiff_t panel, ptrdiff_t rows, ptrdiff_t depth,
          const float *b, const sl_piece *pieces, ptrdiff_t n_pieces, float *c, ptrdiff_t ldc, const sl_epilogue *e,
          float *work)
{
    const ptrdiff_t n = pieces[n_pieces - 1].column + pieces[n_pieces - 1].length,
                    steps = sl_ceil_div(depth, SL_SPLIT_TERMS);
    float *sums = work, *left = sums + SL_SPLIT_ROWS * SL_SPLIT_ROWS, *right = left + SL_SPLIT_ROWS * depth;
    const uint32_t columns = flags_in(b);
    int joined = 0;

    for (ptrdiff_t i = 0; i < rows; i += SL_SPLIT_ROWS, a += panel) {
        const ptrdiff_t some = sl_min(SL_SPLIT_ROWS, rows - i);
        multiply_panels(tiles->products, some > 16, n > 16, steps_in(a), steps_in(b), steps, sums);
        if ((flags_in(a) | columns) != 0) {
            if (!joined) {
                join_right(b, n, depth, right);
                joined = 1;
            }
            join_left(a, depth, left);
            mend(flags_in(a), columns, left, right, depth, sums);
        }
        put_rows(tier, sums, i, some, pieces, n_pieces, c, ldc, e);
    }
}

/* Whole numbers of 7 and 9 bits in turn, so that only one of two has a middle part: every sum on the way is a whole number below 2^24, and nothing is
 * rounded or left out in any order, nor with three products. */
static int
proves(const sl_tiles *tiles)
{
    enum { DEPTH = 64 };
    float x[SL_SPLIT_ROWS * DEPTH], y[DEPTH * SL_SPLIT_ROWS], a[SL_SPLIT_HEAD + DEPTH / 32 * SL_SPLIT_STEP / 2],
        b[SL_SPLIT_HEAD + DEPTH / 32 * SL_SPLIT_STEP / 2], c[SL_SPLIT_ROWS * SL_SPLIT_ROWS];
    int wrong = 0;

    for (int i = 0; i < SL_SPLIT_ROWS * DEPTH; i++) {
        x[i] = (float)(i % 2 == 0 ? i * 73 % 601 - 300 : i * 73 % 199 - 99);
        y[i] = (float)(i / SL_SPLIT_ROWS % 2 == 1 ? i * 131 % 587 - 293 : i * 131 % 211 - 105);
    }
    tiles->split_left(x, DEPTH, SL_SPLIT_ROWS, DEPTH, a);
    tiles->split_right(y, SL_SPLIT_ROWS, SL_SPLIT_ROWS, DEPTH, b);
    tiles->begin();
    multiply_panels(tiles->products, 1, 1, steps_in(a), steps_in(b), DEPTH / 32, c);
    tiles->end();
    for (int i = 0; i < SL_SPLIT_ROWS; i++) {
        for (int j = 0; j < SL_SPLIT_ROWS; j++) {
            float sum = 0.0F;
            for (int p = 0; p < DEPTH; p++) {
                sum += x[i * DEPTH + p] * y[p * SL_SPLIT_ROWS + j];
            }
            wrong += c[i * SL_SPLIT_ROWS + j] != sum;
        }
    }
    return wrong == 0;
}

#define SPLIT_KERNELS(n)                                                                                               \
    {                                                                                                                  \
        .products = n,                                                                                                 \
        .begin = tile_begin,                                                                                           \
        .end = tile_end,                                                                                               \
        .split_left = split_left,                                                                                      \
        .split_right = split_right,                                                                                    \
        .turn = turn,                                                                                                  \
        .run_panel = run_panel,                                                                                        \
        .proves = proves,                                                                                              \
    }

const sl_tiles SL_TILES[2] = {SPLIT_KERNELS(6), SPLIT_KERNELS(3)};

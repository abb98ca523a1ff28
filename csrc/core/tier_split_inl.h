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

#if defined(__AVX512F__)
#define SPLIT_LANES 16
#elif defined(__AVX2__)
#define SPLIT_LANES 8
#else
#define SPLIT_LANES 4
#endif
typedef uint32_t split_bits __attribute__((vector_size(4 * SPLIT_LANES)));
typedef float split_floats __attribute__((vector_size(4 * SPLIT_LANES)));
typedef uint16_t split_part __attribute__((vector_size(2 * SPLIT_LANES)));
typedef uint32_t split_bits_any __attribute__((vector_size(4 * SPLIT_LANES), aligned(4), may_alias)); /* anywhere */
typedef uint16_t split_part_any __attribute__((vector_size(2 * SPLIT_LANES), aligned(2), may_alias));

#define SPLIT_LOAD(p) ((split_bits) * (const split_bits_any *)(const void *)(p))
#define SPLIT_NEAR(bits) (((bits) + 0x8000U) & 0xFFFF0000U)
#define SPLIT_REST(bits, part) ((split_bits)((split_floats)(bits) - (split_floats)(part)))
#define SPLIT_PUT(p, bits) (*(split_part_any *)(void *)(p) = __builtin_convertvector((bits) >> 16, split_part))
#define SPLIT_PUT_PAIRS(p, even, odd) (*(split_bits_any *)(void *)(p) = ((even) >> 16) | ((odd) & 0xFFFF0000U))
#define SPLIT_GREATER(most, bits)                                                                                      \
    do {                                                                                                               \
        const split_bits magnitude_ = (bits) & 0x7FFFFFFFU, above_ = (split_bits)(magnitude_ > (most));                \
        (most) = (magnitude_ & above_) | ((most) & ~above_);                                                           \
    } while (0)

/* The parts of a row in its steps; its largest magnitude, as bits.  Blocks that are not full are read through `last`. */
static uint32_t
split_row(const float *row, ptrdiff_t depth, uint16_t *to)
{
    split_bits most = {0};
    uint32_t lanes[SPLIT_LANES], largest = 0;
    float last[SL_SPLIT_TERMS];

    for (ptrdiff_t p = 0; p < depth; p += SL_SPLIT_TERMS, to += SL_SPLIT_STEP) {
        const float *from = row + p;
        if (depth - p < SL_SPLIT_TERMS) {
            memset(last, 0, sizeof last);
            memcpy(last, from, (size_t)(depth - p) * sizeof *last);
            from = last;
        }
        for (int i = 0; i < SL_SPLIT_TERMS; i += SPLIT_LANES) {
            const split_bits x = SPLIT_LOAD(from + i), hi = SPLIT_NEAR(x), rest = SPLIT_REST(x, hi),
                             mid = SPLIT_NEAR(rest), lo = SPLIT_REST(rest, mid);
            SPLIT_PUT(to + HI + i, hi);
            SPLIT_PUT(to + MID + i, mid);
            SPLIT_PUT(to + LO + i, lo);
            SPLIT_GREATER(most, x);
        }
    }
    memcpy(lanes, &most, sizeof lanes);
    for (int i = 0; i < SPLIT_LANES; i++) {
        largest = lanes[i] > largest ? lanes[i] : largest;
    }
    return largest;
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

static void
split_left(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t depth, float *panel)
{
    uint32_t flags = 0;
    float last[SL_SPLIT_TERMS];

    for (ptrdiff_t i = 0; i < SL_SPLIT_ROWS; i++) {
        uint16_t *to = steps_of(panel) + i / 16 * SL_SPLIT_TILE + i % 16 * SL_SPLIT_TERMS;
        if (i < rows && is_plain(split_row(src + i * ld, depth, to))) {
            continue;
        }
        for (ptrdiff_t p = 0; p < depth; p += SL_SPLIT_TERMS, to += SL_SPLIT_STEP) {
            memset(last, 0, sizeof last);
            if (i < rows) {
                memcpy(last, src + i * ld + p, (size_t)sl_min(SL_SPLIT_TERMS, depth - p) * sizeof *last);
            }
            halve_terms(last, to);
        }
        flags |= (uint32_t)(i < rows) << i;
    }
    set_flags(panel, flags);
}

/* SPLIT_LANES columns, whole pairs of rows: their parts, and the largest magnitude of each column, as bits. */
static void
split_columns(const float *src, ptrdiff_t ld, ptrdiff_t pairs, uint16_t *to, uint32_t *largest)
{
    split_bits most = {0};

    for (ptrdiff_t q = 0; q < pairs; q++, src += 2 * ld) {
        uint16_t *at = to + q / 16 * SL_SPLIT_STEP + q % 16 * SL_SPLIT_TERMS;
        const split_bits x = SPLIT_LOAD(src), z = SPLIT_LOAD(src + ld), hi = SPLIT_NEAR(x), hi_z = SPLIT_NEAR(z);
        const split_bits rest = SPLIT_REST(x, hi), rest_z = SPLIT_REST(z, hi_z), mid = SPLIT_NEAR(rest),
                         mid_z = SPLIT_NEAR(rest_z), lo = SPLIT_REST(rest, mid), lo_z = SPLIT_REST(rest_z, mid_z);
        SPLIT_PUT_PAIRS(at + HI, hi, hi_z);
        SPLIT_PUT_PAIRS(at + MID, mid, mid_z);
        SPLIT_PUT_PAIRS(at + LO, lo, lo_z);
        SPLIT_GREATER(most, x);
        SPLIT_GREATER(most, z);
    }
    memcpy(largest, &most, sizeof most);
}

/* Up to 16 columns of one tile; bits of those that are not plain. */
static uint32_t
split_tile(const float *src, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t depth, uint16_t *to)
{
    const ptrdiff_t whole = n == 16 ? depth / 2 : 0, padded = sl_round_up(depth, SL_SPLIT_TERMS) / 2;
    uint32_t most[16] = {0}, more[16], flags = 0;
    float pair[2][16];

    for (int i = 0; i < 16 && whole > 0; i += SPLIT_LANES) {
        split_columns(src + i, ld, whole, to + 2 * i, most + i);
    }
    for (ptrdiff_t q = whole; q < padded; q++) {
        memset(pair, 0, sizeof pair);
        for (ptrdiff_t r = 0; r < 2 && 2 * q + r < depth; r++) {
            memcpy(pair[r], src + (2 * q + r) * ld, (size_t)n * sizeof **pair);
        }
        for (int i = 0; i < 16; i += SPLIT_LANES) {
            split_columns(pair[0] + i, 16, 1, to + q / 16 * SL_SPLIT_STEP + q % 16 * SL_SPLIT_TERMS + 2 * i, more + i);
        }
        for (int j = 0; j < 16; j++) {
            most[j] = more[j] > most[j] ? more[j] : most[j];
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
    uint32_t flags = split_tile(src, ld, sl_min(16, n), depth, steps_of(panel));

    if (n > 16) {
        flags |= split_tile(src + 16, ld, n - 16, depth, steps_of(panel) + SL_SPLIT_TILE) << 16;
    }
    for (ptrdiff_t j = 0; j < n && flags != 0; j++) {
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

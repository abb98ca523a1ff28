/* The contract of sl_split.h, without Python: splitting, the emulated tile operations, the kernels on them, and products at the tiers that use them.
 * Where this machine has tiles, the instructions are compared with the emulation bit by bit. */
#include "check.h"

#include <float.h>

#include "sl/sl_contract.h"
#include "sl_split_private.h"

#define SL_TILE_EMULATED
#include "sl_tile_ops.h"

static const sl_variant PLAIN = {SL_SEEN_PLAIN, 0.0F};

static float
of_part(uint16_t part)
{
    return tile_float((uint32_t)part << 16);
}

/* --- splitting */

static int
splits_exactly(float x)
{
    uint16_t hi, mid, lo;

    sl_split_f32(&x, 1, &hi, &mid, &lo);
    return (double)of_part(hi) + (double)of_part(mid) + (double)of_part(lo) == (double)x &&
           fabsf(of_part(mid)) <= ldexpf(fabsf(of_part(hi)), -8) &&
           fabsf(of_part(lo)) <= ldexpf(fabsf(of_part(mid)), -8);
}

static void
splitting(void)
{
    static const float special[] = {0.0F,        1.0F,       -1.0F, 1.0F + FLT_EPSILON, 1.0F - FLT_EPSILON / 2,
                                    1.00390625F, 1.0039063F, 0.1F,  16777215,           3e38F,
                                    1.01e-31F /* just above 2^-103 */};
    uint64_t state = 1;
    uint16_t hi, mid, lo;
    float x = 3.4028235e38F;
    int wrong = 0;

    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        CHECK(splits_exactly(special[i]));
    }
    for (int i = 0; i < 60000; i++) { /* every exponent from 2^-103 to 2^126 */
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint32_t exponent = 24U + (uint32_t)(state >> 40) % 230U, bits = (uint32_t)(state >> 33) & 0x80000000U,
                       rest = (uint32_t)(state >> 20) & 0x7FFFFFU;
        wrong += !splits_exactly(tile_float(bits | exponent << 23 | rest));
    }
    CHECK(wrong == 0);
    sl_split_f32(&x, 1, &hi, &mid, &lo);
    CHECK(isinf(of_part(hi))); /* above 2^128 (1 - 2^-9): why such rows are not plain */
    x = 1.1e-38F;
    sl_split_f32(&x, 1, &hi, &mid, &lo);
    CHECK(of_part(lo) == 0.0F || fabsf(of_part(lo)) < FLT_MIN); /* below 2^-103: a part that tiles read as 0 */
}

/* --- tile operations */

static void
tile_operations(void)
{
    static sl_tile a, b;
    float c[16][16];
    const uint32_t one = 0x3F80, tiny = 0x0040 /* denormal */, big = 0x4B80 /* 2^24 */, nan = 0x7FC0, least = 0x0080,
                   half = 0x3F00, minus = 0xCB80;

    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    a.pairs[0][0] = one | one << 16;
    a.pairs[0][1] = one;
    a.pairs[1][0] = tiny;
    a.pairs[2][0] = nan;
    a.pairs[3][0] = least;
    for (int n = 0; n < 16; n++) {
        b.pairs[0][n] = big | one << 16; /* even 2^24, odd 1 */
        b.pairs[1][n] = minus;           /* even -2^24 */
    }
    b.pairs[0][1] = half | tiny << 16;
    tile_begin();
    tile_load(4, &a);
    tile_load(6, &b);
    tile_zero(0);
    tile_multiply(0, 4, 6);
    tile_store(0, c[0], 64);
    CHECK(c[0][0] == 1.0F); /* even and odd terms are chains of their own: one chain would lose the 1 in 2^24 */
    CHECK(c[1][0] == 0.0F && c[1][1] == 0.0F);                  /* a denormal is 0, even times 2^24 */
    CHECK(isnan(c[2][0]) && isnan(c[2][5]) && c[4][0] == 0.0F); /* NaN stays in its row */
    CHECK(c[3][0] == ldexpf(1.0F, -102) && c[3][1] == 0.0F);    /* 2^-126 / 2 is flushed */
    CHECK(c[0][1] == 0.5F - 16777216.0F);                       /* nearest even: 2^24 - 0.5 rounds to 2^24 */
    tile_multiply(0, 4, 6);                                     /* adds to what is there */
    tile_store(0, c[0], 64);
    CHECK(c[0][0] == 2.0F);
    tile_end();
}

/* --- products at a tier */

typedef struct {
    ptrdiff_t m, n, k;
    float *x, *w, *y;
} product;

static product
make_product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, uint64_t seed)
{
    const product p = {
        m, n, k, sl_alloc(m * k, sizeof(float)), sl_alloc(n * k, sizeof(float)), sl_alloc(m * n, sizeof(float))};

    check_fill(p.x, m * k, seed);
    check_fill(p.w, n * k, seed + 1);
    return p;
}

static void
free_product(product *p)
{
    sl_free(p->x);
    sl_free(p->w);
    sl_free(p->y);
}

static void
run(const product *p, const char *tier, int n_threads)
{
    CHECK(sl_tier_select(tier) == SL_OK);
    CHECK(sl_dense_f32(p->x, p->m, p->k, p->w, p->n, NULL, NULL, NULL, SL_ACT_NONE, p->y, n_threads) == SL_OK);
}

/* Root mean square of the error, relative to the sum of magnitudes. */
static double
error_of(const product *p)
{
    double total = 0.0;

    for (ptrdiff_t i = 0; i < p->m; i++) {
        for (ptrdiff_t j = 0; j < p->n; j++) {
            double sum = 0.0, size = 0.0;
            for (ptrdiff_t q = 0; q < p->k; q++) {
                const double t = (double)p->x[i * p->k + q] * (double)p->w[j * p->k + q];
                sum += t;
                size += fabs(t);
            }
            total += ((double)p->y[i * p->n + j] - sum) / size * (((double)p->y[i * p->n + j] - sum) / size);
        }
    }
    return sqrt(total / (double)(p->m * p->n));
}

/* Six products err less than the float loops, three more than those and less than 2^-16. */
static void
errors(void)
{
    static const ptrdiff_t depths[] = {3, 27, 64, 147, 321, 576, 1000};

    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        product p = make_product(40, 37, depths[i], 10 + i);
        double best, six, three;
        run(&p, NULL, 1);
        best = error_of(&p);
        run(&p, "amx-emulated", 1);
        six = error_of(&p);
        run(&p, "amx3-emulated", 1);
        three = error_of(&p);
        CHECK(six <= best);
        CHECK(three > six && three < 1.0 / 65536.0);
        free_product(&p);
    }
}

/* An element depends on its two rows only: not on the others, on packing, or on threads. */
static void
independence(const char *tier)
{
    static const int threads[] = {2, 3, 8};
    product p = make_product(75, 70, 700, 3);
    float *packed, *again = sl_alloc(p.m * p.n, sizeof *again), one;
    ptrdiff_t size = 0;
    int differ = 0;

    run(&p, tier, 1);
    for (int i = 0; i < 3; i++) {
        CHECK(sl_dense_f32(p.x, p.m, p.k, p.w, p.n, NULL, NULL, NULL, SL_ACT_NONE, again, threads[i]) == SL_OK);
        CHECK_SAME(p.y, again, (size_t)(p.m * p.n) * sizeof *again);
    }
    CHECK(sl_dense_packed_size(p.n, p.k, &size) == SL_OK);
    packed = sl_alloc(size, sizeof *packed);
    CHECK(sl_dense_pack_f32(p.w, p.n, p.k, packed) == SL_OK);
    CHECK(sl_dense_packed_check(p.n, p.k, packed, size) == SL_OK);
    CHECK(sl_dense_f32(p.x, p.m, p.k, p.w, p.n, packed, NULL, NULL, SL_ACT_NONE, again, 2) == SL_OK);
    CHECK_SAME(p.y, again, (size_t)(p.m * p.n) * sizeof *again);
    for (ptrdiff_t i = 0; i < p.m; i += 7) {
        for (ptrdiff_t j = 0; j < p.n; j += 5) {
            CHECK(sl_dense_f32(p.x + i * p.k, 1, p.k, p.w + j * p.k, 1, NULL, NULL, NULL, SL_ACT_NONE, &one, 1) ==
                  SL_OK);
            differ += memcmp(&one, p.y + i * p.n + j, sizeof one) != 0;
        }
    }
    CHECK(differ == 0);
    CHECK(sl_tier_select(NULL) == SL_OK);
    CHECK(sl_dense_packed_check(p.n, p.k, packed, size) == SL_ERR_ARG); /* of another tier */
    sl_free(packed);
    sl_free(again);
    free_product(&p);
}

/* Rows that are not plain: the bits of the float loops there, and those of the undisturbed product everywhere else. */
static void
edges_of_the_range(const char *tier, const char *floats)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3.4e38F, 1e-30F, 1e-44F, 2.9e14F};
    const ptrdiff_t rows[] = {0, 17, 33, 40}, columns[] = {1, 16, 31, 50};
    product p = make_product(48, 55, 390, 5);
    float *clean = sl_alloc(p.m * p.n, sizeof *clean), *expected = sl_alloc(p.m * p.n, sizeof *expected);
    const size_t bytes = (size_t)(p.m * p.n) * sizeof *clean;

    run(&p, tier, 1);
    memcpy(clean, p.y, bytes);
    for (size_t s = 0; s < sizeof odd / sizeof *odd; s++) {
        product q = make_product(p.m, p.n, p.k, 5);
        int wrong = 0;
        for (int i = 0; i < 4; i++) { /* a whole block of K, so that small values are its largest */
            for (ptrdiff_t t = 0; t < q.k; t++) {
                const float scale = fabsf(odd[s]) < 1.0F || odd[s] == 2.9e14F ? odd[s] : t == 3 ? odd[s] : 1.0F;
                q.x[rows[i] * q.k + t] *= scale;
                q.w[columns[i] * q.k + t] *= scale == 2.9e14F ? 1.0F : scale;
            }
        }
        run(&q, floats, 1);
        memcpy(expected, q.y, bytes);
        run(&q, tier, 2);
        for (ptrdiff_t i = 0; i < p.m; i++) {
            for (ptrdiff_t j = 0; j < p.n; j++) {
                const int row = i == 0 || i == 17 || i == 33 || i == 40,
                          column = odd[s] != 2.9e14F && (j == 1 || j == 16 || j == 31 || j == 50);
                const float *want = row || column ? expected : clean;
                const float got = q.y[i * p.n + j], is = want[i * p.n + j];
                wrong += memcmp(&got, &is, sizeof is) != 0 && !(isnan(got) && isnan(is));
            }
        }
        CHECK(wrong == 0);
        free_product(&q);
    }
    sl_free(expected);
    sl_free(clean);
    free_product(&p);
}

/* The variants and both layouts of both operands, against doubles. */
static void
layouts(const char *tier)
{
    enum { M = 37, N = 41, K = 355 };
    static float a[M * K], b[N * K], c[M * N];

    check_fill(a, M * K, 21);
    check_fill(b, N * K, 22);
    CHECK(sl_tier_select(tier) == SL_OK);
    for (int form = 0; form < 4; form++) {
        const int ta = form & 1, tb = form >> 1;
        const sl_strides sa = {0, 0, ta ? M : K, ta}, sb = {0, 0, tb ? K : N, tb}, sc = {0, 0, N, 0};
        int wrong = 0;
        CHECK(sl_matmul_f32(1, 1, M, N, K, a, sa, b, sb, 0.5F, c, sc, 2) == SL_OK);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < N; j++) {
                double sum = 0.0;
                for (int p = 0; p < K; p++) {
                    sum += 0.5 * (double)a[ta ? p * M + i : i * K + p] * (double)b[tb ? j * K + p : p * N + j];
                }
                wrong += !(fabs((double)c[i * N + j] - sum) < 2e-6 * sqrt(K));
            }
        }
        CHECK(wrong == 0);
    }
    for (int seen = SL_SEEN_PLAIN; seen <= SL_SEEN_MORE_NEGATIVE; seen++) {
        const sl_variant variant = {(sl_seen)seen, 0.25F};
        const float gamma = 0.25F;
        int wrong = 0;
        CHECK(sl_dense_forward_f32(a, M, K, b, N, variant, (sl_variant){SL_SEEN_POSITIVE, 0.0F}, NULL, NULL, c, 2) ==
              SL_OK);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < N; j++) {
                double sum = 0.0;
                for (int p = 0; p < K; p++) {
                    const float w = b[j * K + p], up = w > 0.0F ? w : 0.0F, down = w < 0.0F ? w : 0.0F;
                    const float part[] = {w, fabsf(w), up, down, w * w, 1.0F, w + gamma * up, w + gamma * down};
                    sum += (double)(a[i * K + p] > 0.0F ? a[i * K + p] : 0.0F) * (double)part[seen];
                }
                wrong += !(fabs((double)c[i * N + j] - sum) < 4e-6 * sqrt(K));
            }
        }
        CHECK(wrong == 0);
    }
}

/* What is added before the activation. */
static void
addends(const char *tier)
{
    product p = make_product(50, 45, 330, 7);
    float *addend = sl_alloc(p.m * p.n, sizeof *addend), *y = sl_alloc(p.m * p.n, sizeof *y);
    const sl_product q = {.outer = 1,
                          .inner = 1,
                          .m = p.m,
                          .n = p.n,
                          .k = p.k,
                          .a = {.data = p.x, .ld = p.k, .along_k = 1},
                          .b = {.data = p.w, .ld = p.k, .along_k = 1},
                          .c = y,
                          .ldc = p.n,
                          .scale = 1.0F};
    int wrong = 0;

    run(&p, tier, 1);
    check_fill(addend, p.m * p.n, 8);
    CHECK(sl_split_product(&q, NULL, addend, SL_ACT_RELU, sl_tiles_get(), 2) == SL_OK);
    for (ptrdiff_t i = 0; i < p.m * p.n; i++) {
        const float sum = p.y[i] + addend[i];
        wrong += !(fabsf(y[i] - (sum > 0.0F ? sum : 0.0F)) <= 1e-5F);
    }
    CHECK(wrong == 0);
    CHECK(sl_dense_f32(p.x, p.m, p.k, p.w, p.n, NULL, NULL, addend, SL_ACT_RELU, p.y, 2) == SL_OK);
    CHECK_SAME(p.y, y, (size_t)(p.m * p.n) * sizeof *y);
    sl_free(y);
    sl_free(addend);
    free_product(&p);
}

#ifdef SL_TESTING
static void
out_of_memory(const char *tier)
{
    product p = make_product(5, 6, 7, 1);

    CHECK(sl_tier_select(tier) == SL_OK);
    sl_alloc_fail_after(1);
    CHECK(sl_dense_f32(p.x, p.m, p.k, p.w, p.n, NULL, NULL, NULL, SL_ACT_NONE, p.y, 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
    free_product(&p);
}
#endif

/* A convolution and its adjoint equal, bit for bit, what they are with packed weights and other numbers of threads. */
static void
convolutions(const char *tier)
{
    const sl_conv_shape shape = {.batch = 2,
                                 .channels = 35,
                                 .height = 11,
                                 .width = 9,
                                 .outputs = 40,
                                 .kernel_h = 3,
                                 .kernel_w = 3,
                                 .stride_h = 2,
                                 .stride_w = 1,
                                 .dilation_h = 1,
                                 .dilation_w = 1,
                                 .top = 1,
                                 .left = 1,
                                 .bottom = 1,
                                 .right = 1,
                                 .groups = 1};
    enum { X = 2 * 35 * 11 * 9, W = 40 * 35 * 9, Y = 2 * 40 * 6 * 9 };
    static float x[X], w[W], y[Y], again[Y], g[X], back[X];
    float *packed;
    ptrdiff_t size = 0;

    check_fill(x, X, 31);
    check_fill(w, W, 32);
    CHECK(sl_tier_select(tier) == SL_OK);
    CHECK(sl_conv2d_f32(&shape, x, w, NULL, NULL, NULL, SL_ACT_RELU, y, 1) == SL_OK);
    CHECK(sl_conv_packed_size(&shape, &size) == SL_OK);
    packed = sl_alloc(size, sizeof *packed);
    CHECK(sl_conv_pack_f32(&shape, w, packed) == SL_OK);
    CHECK(sl_conv2d_f32(&shape, x, w, packed, NULL, NULL, SL_ACT_RELU, again, 3) == SL_OK);
    CHECK_SAME(y, again, sizeof y);
    sl_free(packed);
    CHECK(sl_conv_adjoint_f32(&shape, y, w, NULL, PLAIN, PLAIN, NULL, g, 1) == SL_OK);
    CHECK(sl_conv_adjoint_packed_size(&shape, &size) == SL_OK);
    packed = sl_alloc(size, sizeof *packed);
    CHECK(sl_conv_adjoint_pack_f32(&shape, w, PLAIN, packed) == SL_OK);
    CHECK(sl_conv_adjoint_f32(&shape, y, w, packed, PLAIN, PLAIN, NULL, back, 3) == SL_OK);
    CHECK_SAME(g, back, sizeof g);
    sl_free(packed);
}

/* The instructions of this machine against the emulation; the float loops differ, so only products of plain rows. */
static void
hardware(void)
{
    if (!sl_tier_supported("amx") || !sl_tier_supported("amx-emulated")) {
        printf("tiles in hardware: skipped, %s\n", sl_tier_fault("amx"));
        return;
    }
    for (int three = 0; three < 2; three++) {
        product p = make_product(70, 66, 333, 9);
        float *emulated = sl_alloc(p.m * p.n, sizeof *emulated);
        run(&p, three ? "amx3-emulated" : "amx-emulated", 1);
        memcpy(emulated, p.y, (size_t)(p.m * p.n) * sizeof *emulated);
        run(&p, three ? "amx3" : "amx", 2);
        CHECK_SAME(p.y, emulated, (size_t)(p.m * p.n) * sizeof *emulated);
        sl_free(emulated);
        free_product(&p);
    }
}

static void
at_tier(const char *tier, const char *floats)
{
    independence(tier);
    edges_of_the_range(tier, floats);
    convolutions(tier);
#ifdef SL_TESTING
    out_of_memory(tier);
#endif
}

int
main(void)
{
    const char *before = sl_tier_active();
#if defined(__x86_64__)
    const char *floats = "avx2";
#elif defined(__aarch64__)
    const char *floats = "neon";
#else
    const char *floats = "baseline";
#endif

    splitting();
    tile_operations();
    if (sl_tier_supported("amx-emulated")) {
        CHECK(sl_tiles_emulated[0].proves(&sl_tiles_emulated[0]) && sl_tiles_emulated[1].proves(&sl_tiles_emulated[1]));
        errors();
        at_tier("amx-emulated", floats);
        independence("amx3-emulated");
        layouts("amx-emulated");
        addends("amx-emulated");
    } else {
        printf("emulated tiles: skipped, %s\n", sl_tier_fault("amx-emulated"));
    }
    if (sl_tier_supported("amx")) {
        at_tier("amx", "avx512");
        layouts("amx");
    } else {
        CHECK(sl_tier_select("amx") == SL_ERR_ARG && strlen(sl_tier_fault("amx")) > 20);
    }
    hardware();
    CHECK(sl_tier_select(before) == SL_OK);
    return CHECK_DONE();
}

/* Depthwise convolution of rows that lie padded, and split by stride phase, in a buffer. */

/* `rows` output rows of width >= 1, from lines of the buffer; kh and kw (0: any, then d->kh, d->kw), rows and shared are constants where this is inlined.
 * shared: output rows and kernel rows are both one buffer line apart, so that each value is loaded once for all of them. */
SL_INLINE void
depthwise_rows(const int kh, const int kw, const int rows, const int shared, const sl_depthwise *d, const float *lines,
               float *y, const float *addend)
{
    const ptrdiff_t height = kh > 0 ? kh : d->kernel_h, width = kw > 0 ? kw : d->kernel_w;
    const vf bias = v_all(d->bias);

    for (ptrdiff_t column = 0; column < d->width; column += SL_LANES) {
        const ptrdiff_t x =
            d->width >= SL_LANES && d->mode != SL_STORE_EXACT ? sl_least(column, d->width - SL_LANES) : column;
        vf acc[8];
        SL_UNROLL
        for (int i = 0; i < rows; i++) {
            acc[i] = v_all(0.0F);
        }
        if (shared) {
            SL_UNROLL
            for (int r = 0; r < rows + kh - 1; r++) {
                SL_UNROLL
                for (int v = 0; v < kw; v++) {
                    const vf value = v_load(lines + r * d->line + x + v);
                    SL_UNROLL
                    for (int i = 0; i < rows; i++) {
                        if (r - i >= 0 && r - i < kh) {
                            acc[i] = v_fma(v_all(d->weights[(r - i) * kw + v]), value, acc[i]);
                        }
                    }
                }
            }
        } else {
            for (ptrdiff_t u = 0; u < height; u++) {
                for (ptrdiff_t v = 0; v < width; v++) {
                    const vf weight = v_all(d->weights[u * width + v]);
                    const float *from = lines + u * d->tap_row + d->tap_column[v] + x;
                    SL_UNROLL
                    for (int i = 0; i < rows; i++) {
                        acc[i] = v_fma(weight, v_load(from + i * d->row_step), acc[i]);
                    }
                }
            }
        }
        SL_UNROLL
        for (int i = 0; i < rows; i++) {
            float *to = y + i * d->width + x;
            vf out = acc[i] + bias;
            if (d->mode == SL_STORE_EXACT) {
                const ptrdiff_t n = sl_least(SL_LANES, d->width - x);
                if (addend != NULL) {
                    out = out + v_load_some(addend + i * d->width + x, n);
                }
                out = d->relu > 0 ? v_activate(out, SL_ACT_RELU) : out;
                v_store_some(to, n, d->relu > 1 ? v_activate(out, SL_ACT_RELU6) : out);
            } else {
                out = d->relu > 0 ? v_activate(out, SL_ACT_RELU) : out;
                v_store(to, d->relu > 1 ? v_activate(out, SL_ACT_RELU6) : out);
            }
        }
    }
}

#define SL_DEPTHWISE_ROWS(kh, kw, many, shared)                                                                        \
    for (; row + (many) <= rows; row += (many)) {                                                                      \
        depthwise_rows(kh, kw, many, shared, d, lines + row * d->row_step, y + row * d->width,                         \
                       addend != NULL ? addend + row * d->width : NULL);                                               \
    }

static void
depthwise(const sl_depthwise *d, const float *lines, ptrdiff_t rows, const float *addend, float *y)
{
    const int shared = d->unit;
    ptrdiff_t row = 0;

    if (d->kernel_h == 3 && d->kernel_w == 3 && shared) {
        SL_DEPTHWISE_ROWS(3, 3, 4, 1)
        SL_DEPTHWISE_ROWS(3, 3, 1, 1)
    } else if (d->kernel_h == 5 && d->kernel_w == 5 && shared) {
        SL_DEPTHWISE_ROWS(5, 5, 4, 1)
        SL_DEPTHWISE_ROWS(5, 5, 1, 1)
    } else if (d->kernel_h == 3 && d->kernel_w == 3) {
        SL_DEPTHWISE_ROWS(3, 3, 4, 0)
        SL_DEPTHWISE_ROWS(3, 3, 1, 0)
    } else if (d->kernel_h == 5 && d->kernel_w == 5) {
        SL_DEPTHWISE_ROWS(5, 5, 4, 0)
        SL_DEPTHWISE_ROWS(5, 5, 1, 0)
    } else {
        SL_DEPTHWISE_ROWS(0, 0, 4, 0)
        SL_DEPTHWISE_ROWS(0, 0, 1, 0)
    }
}

/* Elementwise work of the network engine. */
#ifndef SL_ELEMENTWISE_H
#define SL_ELEMENTWISE_H

#include "sl_common.h"

/* x is the argument; NaN stays NaN in all of them. */
typedef enum {
    SL_ACT_NONE = 0,
    SL_ACT_RELU = 1,        /* max(x, 0) */
    SL_ACT_RELU6 = 2,       /* min(max(x, 0), 6) */
    SL_ACT_SIGMOID = 3,     /* 1 / (1 + exp(-x)) */
    SL_ACT_SILU = 4,        /* x / (1 + exp(-x)) */
    SL_ACT_HARDSIGMOID = 5, /* min(max(x + 3, 0), 6) / 6 */
    SL_ACT_HARDSWISH = 6,   /* x * min(max(x + 3, 0), 6) / 6 */
} sl_activation;

#endif

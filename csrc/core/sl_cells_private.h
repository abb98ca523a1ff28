/* Cells of the float32 numbers between -4 and 4: the numbers that share sign, exponent and the leading `fine` bits of the fraction.  Numbers below
 * 2^-30 in magnitude share the cell sl_cell_zero(fine) with 0; cells ascend with their numbers. */
#ifndef SL_CELLS_PRIVATE_H
#define SL_CELLS_PRIVATE_H

enum { SL_CELL_FINEST = 9, SL_CELL_OCTAVES = 32 /* 2^-30 .. 2^2 */ };

/* Leading bits of the lowest number that has a cell of its own. */
static inline int
sl_cell_lowest(int fine)
{
    return (127 - 30) << fine;
}

/* The cell of 0; those of the negative numbers come before it, as many as after it. */
static inline int
sl_cell_zero(int fine)
{
    return SL_CELL_OCTAVES << fine;
}

#endif

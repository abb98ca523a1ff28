/* Cells of the float32 numbers between -4 and 4: those whose magnitude plus SL_CELL_SHIFT shares exponent and the leading `fine` bits of the fraction, so
 * that cells grow with their numbers from a least width on.  0 has the cell sl_cell_zero(fine) to itself; cells ascend with their numbers. */
#ifndef SL_CELLS_PRIVATE_H
#define SL_CELLS_PRIVATE_H

#define SL_CELL_SHIFT 0x1p-16F

enum { SL_CELL_FINEST = 9, SL_CELL_OCTAVES = 19 /* 2^-16 .. 2^3 */ };

/* Leading bits of the lowest number that has a cell of its own. */
static inline int
sl_cell_lowest(int fine)
{
    return (127 - 16) << fine;
}

/* The cell of 0; those of the negative numbers come before it, as many as after it. */
static inline int
sl_cell_zero(int fine)
{
    return SL_CELL_OCTAVES << fine;
}

#endif

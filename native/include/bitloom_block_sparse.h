/* bitloom: products of a mixture of experts over many tokens, unquantized: rows gathered by expert, a product
 * per expert, products of block-sparse matrices (MegaBlocks, Gale et al. 2022). Part of the C ABI; its rules
 * stand at the head of bitloom.h. */
#ifndef BITLOOM_BLOCK_SPARSE_H
#define BITLOOM_BLOCK_SPARSE_H

#include "bitloom.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gathers the rows of tokens by expert, in order of routes within an expert:
 *
 *   route t * top_k + s goes to expert indices[t, s], or nowhere if that is -1
 *   rows[inverse[t, s]] = x[t], with weights weights[t, s] * x[t]
 *
 * Expert e has rows [offsets[e], offsets[e + 1]); with a block size these bounds are its multiples, and rows
 * without a route are zero, as are those from offsets[experts] on. Indices below -1 or from `experts` on are
 * BL_STATUS_out_of_range. */
typedef struct bl_moe_permute_args {
  size_t size;
  bl_run run;
  bl_tensor x;        /* [tokens, hidden] f32, f16 or bf16 */
  bl_tensor indices;  /* [tokens, top_k] i32 */
  bl_tensor weights;  /* [tokens, top_k] f32, or data NULL */
  bl_tensor rows;     /* output [rows, hidden] of x's dtype; rows: offsets[experts] at least */
  bl_tensor offsets;  /* output [experts + 1] i32, contiguous */
  bl_tensor order;    /* output [rows] i32, contiguous: the route of each row, -1 of those without */
  bl_tensor inverse;  /* output [tokens, top_k] i32: the row of each route, -1 of those that go nowhere */
  int32_t block_size; /* 1 to 2^16; 0 as 1 */
} bl_moe_permute_args;
BL_API bl_status bl_moe_permute(const bl_moe_permute_args* args, bl_error* error);

/* Brings rows back to their tokens: output[t] = sum over s, in order, of weights[t, s] * rows[inverse[t, s]],
 * without weights of the rows themselves; -1 counts as zero. Products and sums are rounded to f32 one by one.
 */
typedef struct bl_moe_unpermute_args {
  size_t size;
  bl_run run;
  bl_tensor rows;    /* [rows, hidden] f32, f16 or bf16 */
  bl_tensor inverse; /* [tokens, top_k] i32: -1 to rows - 1 */
  bl_tensor weights; /* [tokens, top_k] f32, or data NULL */
  bl_tensor output;  /* output [tokens, hidden] f32, f16 or bf16 */
} bl_moe_unpermute_args;
BL_API bl_status bl_moe_unpermute(const bl_moe_unpermute_args* args, bl_error* error);

/* What a grouped product multiplies. */
typedef enum bl_grouped_kind {
  BL_GROUPED_rows = 0, /* c[r] = a[r] * b[e]^T for the rows r of expert e; other rows are zero */
  BL_GROUPED_outer = 1 /* c[e] = sum over the rows r of expert e of a[r]^T * b[r]: gradients of weights */
} bl_grouped_kind;

/* A matrix product per expert, without padding; expert e has rows [offsets[e], offsets[e + 1]).
 *
 * compute is BL_COMPUTE_f32, or BL_COMPUTE_bf16: operands rounded to bf16, sums in f32. Kernels are those of
 * matmul (algorithm dequant for f32, tile for bf16): bits of an element depend only on its row of a and its
 * column of b, in f32 the same at every level but scalar, which adds up in double. */
typedef struct bl_grouped_matmul_args {
  size_t size;
  bl_run run;
  bl_tensor a;         /* rows: [rows, k]; outer: [rows, n]; f32, f16 or bf16 */
  bl_tensor b;         /* rows: [experts, n, k], with transpose_b [experts, k, n]; outer: [rows, k] */
  bl_tensor offsets;   /* [experts + 1] i32, contiguous, not falling, within 0 to rows */
  bl_tensor c;         /* output; rows: [rows, n]; outer: [experts, n, k]; f32, f16 or bf16 */
  int32_t kind;        /* bl_grouped_kind */
  int32_t transpose_b; /* 0 or 1; rows only */
  int32_t compute;     /* BL_COMPUTE_f32 or BL_COMPUTE_bf16 */
} bl_grouped_matmul_args;
BL_API bl_status bl_grouped_matmul(const bl_grouped_matmul_args* args, bl_error* error);

/* Where the blocks of a block-sparse matrix stand, by rows (CSR), with the row of each block (COO) and the
 * order by columns. Row block r covers rows [row_starts[r], row_starts[r + 1]), at most block_size of them,
 * column block c likewise: blocks at the end of an expert may be smaller, so that nothing is padded. Block i
 * of the values is [block_size, block_size], of which the first rows and columns count. All i32 and
 * contiguous. */
typedef struct bl_topology {
  bl_tensor row_starts;        /* [row_blocks + 1], from 0 on, not falling */
  bl_tensor column_starts;     /* [column_blocks + 1], likewise */
  bl_tensor offsets;           /* [row_blocks + 1]: row block r has blocks [offsets[r], offsets[r + 1]) */
  bl_tensor column_indices;    /* [blocks]: column block of each block, rising within a row block */
  bl_tensor row_indices;       /* [blocks]: row block of each block */
  bl_tensor transpose_offsets; /* [column_blocks + 1]: likewise, by column blocks */
  bl_tensor transpose_indices; /* [blocks]: the blocks in order of columns, then of rows */
} bl_topology;

/* c = op(a) * op(b), op the transposition where it is asked for; one of the three matrices is block-sparse:
 *
 *   sdd  c: only its blocks are computed; what stands in a block beyond its rows and columns is zero
 *   dsd  a
 *   dds  b
 *
 * A sparse matrix is given as its values, [blocks, block_size, block_size]. compute as in
 * bl_grouped_matmul_args. */
typedef struct bl_block_sparse_args {
  size_t size;
  bl_run run;
  bl_tensor a; /* [m, k], with transpose_a [k, m]; f32, f16 or bf16 */
  bl_tensor b; /* [k, n], with transpose_b [n, k]; f32, f16 or bf16 */
  bl_tensor c; /* output [m, n]; f32, f16 or bf16 */
  bl_topology topology;
  int32_t transpose_a, transpose_b; /* 0 or 1 */
  int32_t compute;                  /* BL_COMPUTE_f32 or BL_COMPUTE_bf16 */
} bl_block_sparse_args;
typedef bl_block_sparse_args bl_sdd_args;
typedef bl_block_sparse_args bl_dsd_args;
typedef bl_block_sparse_args bl_dds_args;
BL_API bl_status bl_sdd(const bl_sdd_args* args, bl_error* error);
BL_API bl_status bl_dsd(const bl_dsd_args* args, bl_error* error);
BL_API bl_status bl_dds(const bl_dds_args* args, bl_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITLOOM_BLOCK_SPARSE_H */

/* bitloom: attention, paged caches of keys and values, linear attention. Part of the C ABI; its rules stand
 * at the head of bitloom.h. */
#ifndef BITLOOM_ATTENTION_H
#define BITLOOM_ATTENTION_H

#include "bitloom.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Paged caches ----------------------------------------------------------------------------- */

typedef enum bl_kv_format {
#define BL_KV_FORMAT(name, bits, scale) BL_KV_FORMAT_##name,
#include "../formats/kv_formats.inc"
#undef BL_KV_FORMAT
  BL_KV_FORMAT_count
} bl_kv_format;

BL_API const char* bl_kv_format_name(int32_t format); /* "i4", NULL if unknown */

/* Memory of one head in one page: `page_size` tokens (8 to 256, a multiple of 8) of `dim` channels (1 to
 * 1024), as keys or as values. A multiple of 64. 0: no such page. */
BL_API uint64_t bl_kv_page_bytes(int32_t format, int32_t is_values, int32_t page_size, int32_t dim);

/* Pages of keys or of values of one layer: [num_pages][num_heads][bl_kv_page_bytes()]. Token t of a sequence
 * is token t % page_size of its page t / page_size. */
typedef struct bl_kv_pages {
  void* data; /* NULL: there are none */
  uint64_t bytes;
  int32_t format;    /* bl_kv_format */
  int32_t page_size; /* tokens */
  int32_t num_heads; /* kv heads in a page: all, or 1 where each head has a block table of its own */
  int32_t dim;       /* channels of a head */
  int64_t num_pages;
} bl_kv_pages;

/* Writes tokens into pages: keys and values are quantized on the way.
 * Slot s is token s % page_size of page s / page_size; -1: the token is left out. Slots must differ (else any
 * of their tokens may end there). Formats with scales per channel take whole pages only: page_size tokens in
 * a row whose slots are those of one page, in order. */
typedef struct bl_kv_append_args {
  size_t size;
  bl_run run;
  bl_tensor k;     /* [tokens, num_kv_heads, key_dim] f32, f16 or bf16 */
  bl_tensor v;     /* [tokens, num_kv_heads, value_dim] f32, f16 or bf16; data NULL where values.data is */
  bl_tensor slots; /* [tokens] i32, or [tokens, num_kv_heads] where heads have tables of their own */
  bl_kv_pages keys;
  bl_kv_pages values;
  bl_tensor key_mean; /* [num_kv_heads, key_dim] f32, taken off the keys (SageAttention), or data NULL */
} bl_kv_append_args;
BL_API bl_status bl_kv_append(const bl_kv_append_args* args, bl_error* error);

/* Writes tokens into a cache of plain rows, rounded to nearest even: keys[slots[t]] = k[t], values[slots[t]]
 * = v[t]; -1: the token is left out. What else is there stays. Slots must differ (else any of their tokens
 * may end there). Slots on a device are read when the kernel runs: those outside are left out too. */
typedef struct bl_kv_write_args {
  size_t size;
  bl_run run;
  bl_tensor k;      /* [tokens, num_kv_heads, key_dim] f32, f16 or bf16 */
  bl_tensor v;      /* [tokens, num_kv_heads, value_dim] f32, f16 or bf16 */
  bl_tensor slots;  /* [tokens] i32 */
  bl_tensor keys;   /* [capacity, num_kv_heads, key_dim] f32, f16 or bf16, written; apart from all else */
  bl_tensor values; /* [capacity, num_kv_heads, value_dim] f32, f16 or bf16, written; apart from all else */
} bl_kv_write_args;
BL_API bl_status bl_kv_write(const bl_kv_write_args* args, bl_error* error);

/* Reads tokens back, the inverse of bl_kv_append: k[t] = decoded token of slot slots[t]; -1: zeros. */
typedef struct bl_kv_gather_args {
  size_t size;
  bl_run run;
  bl_kv_pages keys;
  bl_kv_pages values;
  bl_tensor slots;    /* [tokens] or [tokens, num_kv_heads] i32 */
  bl_tensor key_mean; /* added to the keys, or data NULL */
  bl_tensor k;        /* [tokens, num_kv_heads, key_dim] f32, f16 or bf16; written */
  bl_tensor v;        /* [tokens, num_kv_heads, value_dim]; written; data NULL where values.data is */
} bl_kv_gather_args;
BL_API bl_status bl_kv_gather(const bl_kv_gather_args* args, bl_error* error);

/* For each row that leaves a cache, the most alike of those that stay, head by head:
 *   similarity[r, h] = max_c cos(keys[rows[r, h], h], keys[candidates[c, h], h]),  index[r, h] = the first
 * such c with cos(a, b) = a . b / (|a| |b|), 0 where |a| or |b| is 0. Cosines that are NaN (rows that are not
 * finite) are passed over; where all are, index is 0 and similarity NaN. */
typedef struct bl_nearest_keys_args {
  size_t size;
  bl_run run;
  bl_tensor keys;       /* [tokens, num_kv_heads, key_dim] f32, f16 or bf16; key_dim 1 to 1024 */
  bl_tensor rows;       /* [num_rows, num_kv_heads] i32, 0 to tokens - 1 */
  bl_tensor candidates; /* [num_candidates, num_kv_heads] i32, the same; at least one */
  bl_tensor index;      /* [num_rows, num_kv_heads] i32, 0 to num_candidates - 1; written */
  bl_tensor similarity; /* [num_rows, num_kv_heads] f32; written */
} bl_nearest_keys_args;
BL_API bl_status bl_nearest_keys(const bl_nearest_keys_args* args, bl_error* error);

/* ---- Attention -------------------------------------------------------------------------------- */

/* A stretch of the keys of each sequence, in pages. */
typedef struct bl_kv_segment {
  bl_kv_pages keys;
  bl_kv_pages values;    /* data NULL: a value is the first value_dim channels of its key (multi-head latent
                            attention) */
  bl_tensor block_table; /* [sequences, pages] i32, or [sequences, num_kv_heads, pages] */
  bl_tensor lengths;     /* [sequences] or [sequences, num_kv_heads] i32: tokens */
} bl_kv_segment;

/* Query t (of the n of its sequence) and head h, kv head g = h / (num_heads / num_kv_heads), keys s in [0,
 * m): x[s]   = soft_cap(scale * q[t, h] . k[s, g]) - slope[h] * |d - s| + mask[h, t, s],  d = t + m - n
 *   output = sum_s exp(x[s] - lse) * v[s, g],  lse = ln(sum_s exp(x[s]) + exp(sink[h]))
 * over the keys that t sees. A row that sees none, or has only -infinity among its x, is 0 with lse
 * -infinity. Keys that are not seen, or whose x is -infinity, never touch a result, nor do their values, NaN
 * or not.
 *
 * Sequences: one; or, with cu_queries and cu_keys, several side by side in q, k and v (ragged); or, with
 * segments, those of the block tables, whose keys are the first segment's and then the second's (what is in
 * full precision yet).
 *
 * Seen are keys s
 *   causal 0: all;  causal 1: s <= d, or s < prefix, or, with causal_block b, s < b * (floor(d / b) + 1);
 *   of those, with a window: s > d - window, or s < sink_tokens; not causal: also s < d + window
 *   and, with a block_mask, those in a block [block_queries, block_keys] that is not 0.
 */
typedef struct bl_attention_args {
  size_t size;
  bl_run run;
  bl_tensor q;      /* [queries, num_heads, key_dim] f32, f16 or bf16 */
  bl_tensor k;      /* [keys, num_kv_heads, key_dim] f32, f16 or bf16; data NULL with segments */
  bl_tensor v;      /* [keys, num_kv_heads, value_dim] as k */
  bl_tensor output; /* [queries, num_heads, value_dim]; must not overlap what is read */
  float scale;      /* 0: 1 / sqrt(key_dim) */
  int32_t causal;
  int32_t window;  /* 0: no window */
  int32_t compute; /* BL_COMPUTE_f32; bf16: products of bf16 with sums in f32; i8: both products of integers,
                      of pages of integers as they are, of prompts (32 rows of a sequence and more) with keys
                      and values rounded to int8. A permission: kernels of a better mode may run */
  bl_kv_segment segments[2];
  bl_tensor cu_queries; /* [sequences + 1] i32: sequence i has queries [cu[i], cu[i + 1]). With segments and
                           data NULL: queries / sequences each */
  bl_tensor cu_keys;    /* [sequences + 1] i32, with k: from 0 up to at most keys; those beyond are of no
                           sequence. On a device one sequence, whose number of keys is read, and kept within
                           [0, keys], when the kernel runs; cu_queries is taken for [0, queries] */
  float soft_cap;       /* x = soft_cap * tanh(x / soft_cap); 0: none */
  bl_tensor slopes;     /* [num_heads] f32 (ALiBi), or data NULL */
  bl_tensor sinks;      /* [num_heads] f32: learned sink logits, or data NULL */
  bl_tensor mask; /* [num_heads or 1, queries, n] u8 (0: not seen) or f32 (added); of the last n keys of a
                     sequence, where those before are not touched; or data NULL */
  bl_tensor block_mask; /* [num_heads or 1, ceil(queries / block_queries), ceil(keys / block_keys)] u8; one
                           sequence */
  int32_t block_queries;
  int32_t block_keys;
  int32_t prefix;
  int32_t causal_block; /* 0: 1 */
  int32_t sink_tokens;
  bl_tensor
      windows; /* [num_heads] i32: a window for each head (0: none) in place of `window`, or data NULL */
  bl_tensor sink_counts;   /* [num_heads] i32, in place of sink_tokens, or data NULL */
  bl_tensor lse;           /* [queries, num_heads] f32, written; or data NULL */
  bl_tensor probabilities; /* [num_heads, queries, keys] f32, written: exp(x[s] - lse), 0 for keys that are
                              not seen; keys is the longest sequence's. Or data NULL */
  /* Of the weights p[h, t, s] = exp(x[s] - lse) of the last score_queries queries of each sequence (W of
   * them: all where it has fewer); each of the four may be left out. Weights are those of f32 scores, or with
   * compute i8 of the kernels of few queries, also where the outputs are computed by a kernel of prompts. */
  int32_t score_queries; /* 0: all */
  bl_tensor score_sums; /* [sequences, num_heads, keys] f32, written: sum_t p; keys is the longest sequence's,
                           those that a sequence does not have get 0 */
  bl_tensor score_squares;  /* the same: sum_t p^2 */
  bl_tensor score_entropy;  /* [sequences, num_heads] f32, written: mean over t of -sum_s p ln p */
  bl_tensor score_variance; /* [sequences, num_heads] f32, written: mean over the sequence's keys of the
                               variance of p over t, sum_t p^2 / W - (sum_t p / W)^2 */
  /* Rotary position embedding on the way: q and k are turned as bl_rope would turn them, with cos, sin and
   * products in f32 whatever the types of q and k, and are not rounded in between; values are not turned, nor
   * where they are channels of keys. size 0: none. Of it are read mode, rotary_dim, theta, scaling with its
   * numbers, freq_factors, and positions: [queries] i32, not negative; data NULL: query t has d. On a device:
   * none. */
  bl_rope_args rope;
  bl_tensor key_positions; /* i32, not negative: [keys] with k; with segments [sequences, keys of the longest
                              or more], or [sequences, num_kv_heads, ...]. data NULL: key s has s. Positions
                              are those of the rotation alone: what is seen goes by s and d */
} bl_attention_args;
BL_API bl_status bl_attention(const bl_attention_args* args, bl_error* error);

/* Joins attention over parts of the keys: output = sum_i exp(lse_i - lse) * output_i, lse = ln sum_i
 * exp(lse_i). Rows where every lse_i is -infinity are 0. */
typedef struct bl_merge_states_args {
  size_t size;
  bl_run run;
  bl_tensor outputs; /* [parts, rows, heads, dim] f32, f16 or bf16 */
  bl_tensor lses;    /* [parts, rows, heads] f32 */
  bl_tensor output;  /* [rows, heads, dim] */
  bl_tensor lse;     /* [rows, heads] f32, or data NULL */
} bl_merge_states_args;
BL_API bl_status bl_merge_states(const bl_merge_states_args* args, bl_error* error);

/* ---- Linear attention ------------------------------------------------------------------------- */

typedef enum bl_linear_rule {
  BL_LINEAR_decay =
      0, /* S = g S + k v^T: Lightning Attention, RetNet (g constant), Mamba-2, GLA (g per token) */
  BL_LINEAR_delta = 1 /* S = g S; S = S + k (beta (v - S^T k))^T: (gated) delta rule */
} bl_linear_rule;

/* o[t] = scale * S^T q[t] with the state S [key_dim, value_dim] of its head after token t. Computed in chunks
 * of tokens: products within a chunk are masked, those with earlier tokens go through the state. */
typedef struct bl_linear_attention_args {
  size_t size;
  bl_run run;
  bl_tensor q;         /* [tokens, num_heads, key_dim] f32, f16 or bf16 */
  bl_tensor k;         /* [tokens, num_kv_heads, key_dim] */
  bl_tensor v;         /* [tokens, num_kv_heads, value_dim] */
  bl_tensor output;    /* [tokens, num_heads, value_dim]; as the state, apart from all else */
  bl_tensor state;     /* [sequences, num_kv_heads, key_dim, value_dim] f32, contiguous: read and written */
  bl_tensor decay;     /* log of g, at most 0: f32 [num_kv_heads], [tokens, num_kv_heads] or [tokens,
                          num_kv_heads, key_dim];     data NULL: g = 1. At most -200, -infinity too: the state is
                          forgotten, NaN and all. Above 0 it     grows as the formula says */
  bl_tensor beta;      /* [tokens, num_kv_heads] f32, of the delta rule only; data NULL: 1 */
  bl_tensor cu_tokens; /* [sequences + 1] i32, from 0 up to tokens; data NULL: one sequence */
  float scale;         /* 0: 1 / sqrt(key_dim) */
  int32_t rule;        /* bl_linear_rule */
  int32_t chunk;       /* tokens of a chunk, up to 512; 0: chosen; bits depend on it */
} bl_linear_attention_args;
BL_API bl_status bl_linear_attention(const bl_linear_attention_args* args, bl_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITLOOM_ATTENTION_H */

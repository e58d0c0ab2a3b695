/* bitloom: mixture of experts. Part of the C ABI; its rules stand at the head of bitloom.h. */
#ifndef BITLOOM_MOE_H
#define BITLOOM_MOE_H

#include "bitloom.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a router's logits z[e] become. */
typedef enum bl_moe_scoring {
  BL_MOE_softmax = 0,        /* s = softmax(z) over all experts */
  BL_MOE_softmax_chosen = 1, /* s = softmax(z) over the experts that are chosen */
  BL_MOE_sigmoid = 2         /* s = 1 / (1 + exp(-z)) */
} bl_moe_scoring;

/* What a group of experts is worth. */
typedef enum bl_moe_group_score {
  BL_MOE_max = 0, /* its best expert (DeepSeek-V2) */
  BL_MOE_top2 = 1 /* the sum of its two best (DeepSeek-V3) */
} bl_moe_group_score;

/* Chooses the experts of each token:
 *
 *   c[e]    = s[e] + bias[e]                    (without a bias, and with softmax_chosen, in the order of
 * z[e]) groups  : only experts of the top_groups groups of the highest c count; experts / num_groups each
 *   indices = the top_k experts of the highest c, best first, of equals the one with the lower number
 *   weights = scale * s[indices], divided by their sum if normalize (0 where all of them are 0)
 *
 * The bias chooses and does not weigh. z[e] = -infinity stands behind all others. A NaN, +infinity or a token
 * with -infinity alone is BL_STATUS_non_finite. All numbers are computed in double and rounded once. */
typedef struct bl_moe_route_args {
  size_t size;
  bl_run run;
  bl_tensor logits;    /* [tokens, experts] f32, f16 or bf16 */
  bl_tensor bias;      /* [experts] f32, contiguous, or data NULL */
  bl_tensor indices;   /* output [tokens, top_k] i32 */
  bl_tensor weights;   /* output [tokens, top_k] f32 */
  bl_tensor scores;    /* output [tokens, experts] f32: s (of softmax_chosen 0 elsewhere), or data NULL */
  int32_t scoring;     /* bl_moe_scoring */
  int32_t num_groups;  /* 0 and 1: no groups; must divide experts */
  int32_t top_groups;  /* 1 to num_groups, with room for top_k experts */
  int32_t group_score; /* bl_moe_group_score */
  int32_t normalize;   /* 0 or 1 */
  float scale;         /* finite */
} bl_moe_route_args;
BL_API bl_status bl_moe_route(const bl_moe_route_args* args, bl_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITLOOM_MOE_H */

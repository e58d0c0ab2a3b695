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
 *   c[e]    = s[e] + bias[e]; without a bias, and with softmax_chosen, the order is that of z[e]
 *
 *   groups  : only experts of the top_groups groups of the highest c count; experts / num_groups each
 *
 *   indices = the top_k experts of the highest c, best first, of equals the one with the lower number
 *
 *   weights = scale * s[indices], divided by their sum if normalize (0 where all of them are 0)
 *
 * The bias chooses and does not weigh. z[e] = -infinity stands behind all others. A NaN, +infinity or a token
 * with -infinity alone is BL_STATUS_non_finite. All numbers are computed in double and rounded once, with the
 * same bits at every level; exp(x) is 0 for x < -708. */
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

/* ---- moe_forward ------------------------------------------------------------------------------ */

/* What stands between an expert's projections. With a gate: f(gate) * up; without: f(up). */
typedef enum bl_moe_activation {
  BL_MOE_silu = 0,
  BL_MOE_gelu = 1, /* by erf */
  BL_MOE_gelu_tanh = 2,
  BL_MOE_relu = 3,
  BL_MOE_relu2 = 4, /* max(x, 0)^2 (So et al. 2021) */
  /* gpt-oss: g = min(gate, limit), u = clamp(up, -limit, limit): g / (1 + exp(-1.702 g)) * (u + 1). Needs a
   * gate */
  BL_MOE_swiglu_oai = 5
} bl_moe_activation;

/* One expert: down f(gate x + gate_bias, up x + up_bias) + down_bias. Of low rank, at one end or both: with
 * reduce, gate and up are [width, rank] and take reduce x in place of x; with expand, down is [rank, width]
 * and the expert gives expand (down f(...)) + down_bias. The ranks may differ. */
typedef struct bl_moe_expert {
  bl_weights gate;     /* [width, hidden] of up's format, layout and codebook; data NULL: none */
  bl_weights up;       /* [width, hidden] */
  bl_weights down;     /* [hidden, width] */
  bl_tensor gate_bias; /* [width] f32, or data NULL */
  bl_tensor up_bias;   /* [width] f32, or data NULL */
  bl_tensor down_bias; /* [hidden] f32, or data NULL */
  bl_weights reduce;   /* [rank, hidden]; data NULL: none */
  bl_weights expand;   /* [hidden, rank]; data NULL: none */
} bl_moe_expert;

/* A mixture of experts, dropless and without padding:
 *
 *   output[t] = residual[t] + sum over the routes (t, k) of weights[t, k] * expert indices[t, k] of x[t]
 *             + sum over shared experts i of shared_weights[t, i] * shared expert i of x[t]
 *
 * added in the order of the experts' numbers (of one expert twice, in the order of k), shared ones last; each
 * product and each sum rounded to f32. Memory of experts that no token goes to is not read. Products of an
 * expert are those of bl_matmul with as many rows as it has tokens, at most max_rows of them at a time. */
typedef struct bl_moe_forward_args {
  size_t size;
  bl_run run;
  bl_tensor x;       /* [tokens, hidden] f32, f16 or bf16 */
  bl_tensor indices; /* [tokens, top_k] i32 in [-1, num_experts): -1 goes nowhere */
  bl_tensor weights; /* [tokens, top_k] f32 */
  /* num_experts, then num_shared of them. Widths and formats may differ. */
  const bl_moe_expert* experts;
  int64_t num_experts;
  int64_t num_shared;
  bl_tensor shared_weights; /* [tokens, num_shared] f32, or data NULL: 1 */
  bl_tensor residual;       /* as output, f32, f16 or bf16, may be output; or data NULL: 0 */
  bl_tensor output;         /* [tokens, hidden] f32, f16 or bf16; apart from x */
  int32_t activation;       /* bl_moe_activation */
  float limit;              /* of swiglu_oai; 0: 7 */
  int32_t compute;          /* bl_compute, of all products */
  int32_t algorithm;        /* bl_algorithm */
  int64_t max_rows;         /* 0: as many as 16 MB hold of what stands between the projections, at least 64 */
  void*
      workspace; /* bl_moe_forward_workspace_bytes bytes, or NULL; what it lacks is allocated for the call */
  uint64_t workspace_bytes;
} bl_moe_forward_args;
BL_API bl_status bl_moe_forward(const bl_moe_forward_args* args, bl_error* error);

/* Bytes with which bl_moe_forward allocates nothing, wherever the tokens go: of the indices and the weights
 * only the shapes count. 0 if it would refuse. It looks at all experts (not at their weights), so ask once,
 * not for each call; for one token it is what is used, for many an upper bound. */
BL_API uint64_t bl_moe_forward_workspace_bytes(const bl_moe_forward_args* args);

/* The checks that moe_forward makes of an expert that is used: of experts' shapes, formats and biases. */
BL_API bl_status bl_moe_check_expert(const bl_moe_expert* expert, int64_t number, int64_t hidden,
                                     bl_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITLOOM_MOE_H */

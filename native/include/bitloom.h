/* bitloom: low-bit, sparse and fused inference kernels. The C ABI (C99).
 *
 * Every operator is `bl_status bl_<op>(const bl_<op>_args* args, bl_error* error)`.
 *  - args->size is sizeof(bl_<op>_args) of the header the caller compiled against; members that a
 *    newer header adds read as zero, their default. Zero-initialize a struct before filling it.
 *  - error is the caller's and may be NULL; it is written only when the status is not BL_STATUS_ok.
 *  - Arguments are checked before anything is written. No entry point throws, aborts or keeps a
 *    pointer after it returns. The caller owns all memory.
 *  - Matrices are row-major views: shape and strides in elements, outermost first. "[M, K]" in a
 *    comment is a shape. Data may have any alignment.
 */
#ifndef BITLOOM_H
#define BITLOOM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BL_API __attribute__((visibility("default")))
#else
#define BL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define BL_ABI_VERSION 2
#define BL_MAX_RANK 6

typedef enum bl_status {
#define BL_STATUS(name, value, js_class) BL_STATUS_##name = value,
#include "../base/status.inc"
#undef BL_STATUS
} bl_status;

typedef enum bl_dtype {
#define BL_DTYPE(name, value, bytes, typed_array) BL_DTYPE_##name = value,
#include "../base/dtypes.inc"
#undef BL_DTYPE
} bl_dtype;

typedef enum bl_isa {
  BL_ISA_default = -1, /* what bl_set_isa or BITLOOM_ISA chose, else the best this machine has */
#define BL_ISA(name, value) BL_ISA_##name = value,
#include "../isa/isa.inc"
#undef BL_ISA
} bl_isa;

typedef enum bl_format {
#define BL_BLOCK_FORMAT(name, elements, bytes, gguf_type) BL_FORMAT_##name,
#define BL_GROUPED_FORMAT(name, kind, bits, group_size, scale_dtype, zero) BL_FORMAT_##name,
#include "../formats/formats.inc"
  BL_FORMAT_count
} bl_format;

typedef enum bl_format_kind {
  BL_KIND_block,        /* GGUF block types and plain floats */
  BL_KIND_unsigned_int, /* u<b>, u<b>z */
  BL_KIND_signed_int,   /* i<b>, i<b>z */
  BL_KIND_ternary,      /* t2 */
  BL_KIND_nf4,
  BL_KIND_fp4,
  BL_KIND_codebook, /* cb<b> */
  BL_KIND_bfp,      /* bfp<b>: block floating point */
  BL_KIND_e2m1,     /* elements of OCP Microscaling, and of nvfp4_g16 */
  BL_KIND_e2m3,
  BL_KIND_e3m2,
  BL_KIND_e4m3,
  BL_KIND_e5m2,
  BL_KIND_mxint8,
  BL_KIND_codebooks,   /* cbs<b>: each group names one of several tables */
  BL_KIND_row_codebook /* lut<b>: a table in each row */
} bl_format_kind;

/* What a format's scales are. */
typedef enum bl_scale_dtype {
  BL_SCALE_f16 = BL_DTYPE_f16,
  BL_SCALE_bf16 = BL_DTYPE_bf16,
  BL_SCALE_e4m3 = BL_DTYPE_f8e4m3, /* one byte, used without its sign */
  BL_SCALE_e8m0 = 64               /* one byte, 2^(byte - 127); 255: NaN */
} bl_scale_dtype;

/* How a weight matrix lies in memory. */
typedef enum bl_layout {
  BL_LAYOUT_canonical = 0, /* as in a file: row after row */
  BL_LAYOUT_lanes16 = 1,   /* what matmul reads: sixteen rows side by side, codes in planes; picture in
                              native/formats/panel.h. Canonical weights are brought into it as they are used */
  BL_LAYOUT_fragments = 2  /* what matmul reads on CUDA devices: operands of mma.m16n8k16; picture in
                              native/formats/fragments.h. The CPU's matmul does not take it */
} bl_layout;

/* What went wrong: "matmul: b.cols is 4096, expected 4095 (= a.shape[1])". */
typedef struct bl_error {
  bl_status status;
  char message[508];
} bl_error;

/* A strided view. */
typedef struct bl_tensor {
  void* data;
  uint64_t bytes; /* accessible from `data` on; the view must lie within */
  int32_t dtype;  /* bl_dtype */
  int32_t rank;   /* 0 (a scalar) to BL_MAX_RANK */
  int64_t shape[BL_MAX_RANK];
  int64_t strides[BL_MAX_RANK]; /* in elements; not negative */
} bl_tensor;

/* A quantized weight matrix [rows, cols]: a row per output feature. */
typedef struct bl_weights {
  void* data; /* bl_layout_bytes(format, layout, rows, cols) bytes */
  uint64_t bytes;
  int32_t format; /* bl_format */
  int32_t layout; /* bl_layout */
  int64_t rows;
  int64_t cols;
  const float* codebook; /* cb<b>: [2^bits], ascending order not required. cbs<b>: [T, 2^bits], T from 1 to
                            256, or NULL: BitMoD's tables (3 and 4 bits). Others: none */
  int32_t codebook_size; /* floats in it */
  float tensor_scale;    /* times every decoded weight, in any format; finite, not negative; 0: 1 */
} bl_weights;

/* Runs task(argument, i) for i in [0, count), in any order, on any threads, and returns after all. */
typedef void (*bl_parallel_for)(void* context, void (*task)(void* argument, int64_t index), void* argument,
                                int64_t count);

typedef struct bl_stream bl_stream; /* work of a device that runs in order; see Devices */

/* How to run a call. All zero but isa (BL_ISA_default) is the default. Results never depend on
 * threads or executor. */
typedef struct bl_run {
  int32_t isa;              /* bl_isa: use kernels of this level or below */
  int32_t threads;          /* 0: the pool's size */
  bl_parallel_for executor; /* NULL: bitloom's own pool */
  void* executor_context;
  int32_t device; /* 0: the processor. i + 1: device i, which then holds the data of all tensors and weights;
                     the call returns when its work is queued. Codebooks stay in host memory */
  bl_stream* stream; /* of that device, or NULL: its default stream */
} bl_run;

/* ---- Library ---------------------------------------------------------------------------------- */

BL_API uint32_t bl_abi_version(void);
BL_API const char* bl_version(void);
BL_API const char* bl_status_name(int32_t status);                 /* "invalid_shape", NULL if unknown */
BL_API const char* bl_isa_name(int32_t isa);                       /* "avx512", NULL if unknown */
BL_API int32_t bl_isa_available(void);                             /* the best level of this machine */
BL_API int32_t bl_isa_supported(int32_t isa);                      /* 1: this machine runs the level */
BL_API int32_t bl_isa_active(void);                                /* the level in force */
BL_API bl_status bl_set_isa(int32_t isa, bl_error* error);         /* BL_ISA_default: undo */
BL_API int32_t bl_threads(void);                                   /* the pool's size */
BL_API bl_status bl_set_threads(int32_t threads, bl_error* error); /* 0: default; at most 256 */

/* ---- Devices ---------------------------------------------------------------------------------- */

/* CUDA devices, numbered from 0, wherever a driver and the library libbitloom_cuda beside this one are
 * found at the first call of these functions. BITLOOM_CUDA=off: none. BITLOOM_CUDA_DRIVER: the driver
 * library's path. None of these functions may be called between fork and exec. */
BL_API int32_t bl_device_count(void);
BL_API const char* bl_device_unavailable(void); /* why there is none; NULL if there is one */

typedef struct bl_device_info {
  char name[128];
  int32_t arch; /* compute capability * 10: 80, 120 */
  int32_t multiprocessors;
  uint64_t memory_bytes;
  uint64_t free_bytes; /* of all processes */
  /* What bitloom holds: in use, kept for the next allocations, the most there was in use, the most it may
   * take (0: no limit). */
  uint64_t used_bytes;
  uint64_t reserved_bytes;
  uint64_t peak_bytes;
  uint64_t limit_bytes;
  uint64_t allocations;  /* since the start: calls of bl_device_allocate, */
  uint64_t driver_calls; /* and of the driver's allocator for them */
  char unusable[256];    /* why the device cannot be used; empty if it can */
} bl_device_info;
BL_API bl_status bl_get_device_info(int32_t device, bl_device_info* info, bl_error* error);
/* limit 0: none. Less than what is reserved gives back what is not in use. */
BL_API bl_status bl_set_device_limit(int32_t device, uint64_t bytes, bl_error* error);
/* After an error that the device does not recover from by itself (BL_STATUS_device_lost): forgets all of
 * its memory, streams, events and graphs, and begins anew. Their handles stay valid to be freed only. */
BL_API bl_status bl_reset_device(int32_t device, bl_error* error);

/* Memory, aligned to 256 bytes, from a cache. `stream` (NULL: the default one) is where it will mostly be
 * used; work of other streams that uses it is waited for when it is freed. */
typedef struct bl_memory bl_memory;
BL_API bl_status bl_device_allocate(int32_t device, bl_stream* stream, uint64_t bytes, bl_memory** memory,
                                    bl_error* error);
BL_API void* bl_memory_address(const bl_memory* memory); /* on the device; NULL after a reset */
BL_API void bl_device_free(bl_memory* memory);           /* in stream order; NULL is allowed */

BL_API bl_status bl_stream_create(int32_t device, bl_stream** stream, bl_error* error);
BL_API void bl_stream_destroy(bl_stream* stream); /* what is queued still runs; NULL is allowed */
BL_API bl_status bl_stream_synchronize(int32_t device, bl_stream* stream, bl_error* error);
/* What is queued on `stream` from now on runs after what is queued on `other` by now. */
BL_API bl_status bl_stream_wait(int32_t device, bl_stream* stream, bl_stream* other, bl_error* error);
/* Calls done(context, status, error) once, on a thread of the driver, when what is queued by now has run or
 * failed. It must not call the functions of this section. */
typedef void (*bl_done)(void* context, const bl_error* error);
BL_API bl_status bl_stream_notify(int32_t device, bl_stream* stream, bl_done done, void* context,
                                  bl_error* error);

typedef struct bl_event bl_event;
BL_API bl_status bl_event_record(int32_t device, bl_stream* stream, bl_event** event, bl_error* error);
BL_API void bl_event_destroy(bl_event* event);
/* Waits for both. */
BL_API bl_status bl_event_elapsed(bl_event* begin, bl_event* end, float* milliseconds, bl_error* error);

typedef enum bl_copy_kind {
  BL_COPY_to_device = 0,   /* from host memory, staged: it may change when the call returns */
  BL_COPY_from_device = 1, /* to host memory that stays valid until the stream got so far */
  BL_COPY_on_device = 2
} bl_copy_kind;
BL_API bl_status bl_device_copy(int32_t device, bl_stream* stream, int32_t kind, void* output,
                                const void* input, uint64_t bytes, bl_error* error);

/* Operators queued on the stream between begin and end are not run but kept; a launch runs all of them at
 * once, on the same memory, which must live until the graph is destroyed. (Operators that give a value to the
 * host, copies from and to it, and uploads of codebooks cannot be kept.) */
typedef struct bl_graph bl_graph;
BL_API bl_status bl_graph_begin(int32_t device, bl_stream* stream, bl_error* error);
BL_API bl_status bl_graph_end(int32_t device, bl_stream* stream, bl_graph** graph, bl_error* error);
BL_API bl_status bl_graph_launch(bl_graph* graph, bl_stream* stream, bl_error* error);
BL_API void bl_graph_destroy(bl_graph* graph);

/* ---- Formats ---------------------------------------------------------------------------------- */

typedef struct bl_format_info {
  const char* name;    /* "u4_g128" */
  int32_t kind;        /* bl_format_kind */
  int32_t bits;        /* of a code; 0 for block formats */
  int32_t group_size;  /* weights that share a scale; 0: the row */
  int32_t scale_dtype; /* bl_scale_dtype */
  int32_t has_zero_point;
  int32_t gguf_type;      /* type id in GGUF files, -1 if none */
  int32_t block_elements; /* weights in a block; 0: the row */
  int32_t block_bytes;    /* 0: bl_row_bytes(format, cols) */
} bl_format_info;

BL_API const bl_format_info* bl_get_format_info(int32_t format); /* NULL if unknown */
BL_API int32_t bl_find_format(const char* name);                 /* -1 if unknown */
/* Bytes of a row of `cols` weights and of a whole matrix; 0 if the format is unknown, a dimension is
 * negative, cols is no multiple of a block format's block_elements, or the size exceeds 2^62. */
BL_API uint64_t bl_row_bytes(int32_t format, int64_t cols);
BL_API uint64_t bl_weights_bytes(int32_t format, int64_t rows, int64_t cols);
/* The same in a layout: lanes16 has the canonical size but for `_row` formats whose cols are no multiple of
 * 32, groups of 8 and 16 that do not fill 32 weights, and tq1_0. fragments: rows are filled up to 16, columns
 * to 64, sub-scales of K types take a byte each, and there are 256 bytes before all. */
BL_API uint64_t bl_layout_bytes(int32_t format, int32_t layout, int64_t rows, int64_t cols);

/* ---- quantize, dequantize, pack --------------------------------------------------------------- */

typedef enum bl_quantize_method {
  BL_QUANTIZE_minmax = 0, /* the scale reaches the largest value of the group */
  BL_QUANTIZE_mse = 1     /* scale (and zero point) searched for the least squared error */
} bl_quantize_method;

/* output = encode(input / output.tensor_scale). Deterministic; ties to even. Non-finite input is an error. */
typedef struct bl_quantize_args {
  size_t size;
  bl_run run;
  bl_tensor input;   /* [rows, cols] f32, f16 or bf16 */
  bl_weights output; /* [rows, cols], canonical layout, data written. lut<b>: codebook, if not NULL, has the
                        rows' tables, [rows, 2^bits], in place of tables that are searched for */
  int32_t method;    /* bl_quantize_method */
  bl_tensor importance; /* what each squared error counts, lut<b> only: [cols] or [rows, cols] f32, finite,
                           not negative; or data NULL: 1 */
} bl_quantize_args;
BL_API bl_status bl_quantize(const bl_quantize_args* args, bl_error* error);

/* output = decode(input), exact in f32 and rounded to nearest even for f16 and bf16. */
typedef struct bl_dequantize_args {
  size_t size;
  bl_run run;
  bl_weights input; /* [rows, cols], any layout */
  bl_tensor output; /* [rows, cols] f32, f16 or bf16 */
} bl_dequantize_args;
BL_API bl_status bl_dequantize(const bl_dequantize_args* args, bl_error* error);

/* Changes the layout, from any to any, the same weights to the last bit. In place where both have the same
 * size and neither is fragments. */
typedef struct bl_pack_args {
  size_t size;
  bl_run run;
  bl_weights input;  /* [rows, cols] */
  bl_weights output; /* same format, rows, cols; data written. In place if its data is the input's; must
                        not overlap it otherwise */
} bl_pack_args;
BL_API bl_status bl_pack(const bl_pack_args* args, bl_error* error);

/* ---- matmul ----------------------------------------------------------------------------------- */

/* In what numbers products are formed. i8 is a permission: formats whose weights are not integers times a
 * scale are computed in f32 (bf16 by tiles). */
typedef enum bl_compute {
  BL_COMPUTE_f32 = 0,  /* activations and weights in f32 */
  BL_COMPUTE_i8 = 1,   /* activations in int8: a scale per 32 (lut, dequant), or per 512 (tile) */
  BL_COMPUTE_bf16 = 2, /* tile: activations and weights rounded to bf16, sums in f32; else as f32 */
  BL_COMPUTE_i1 = 3,   /* activations as sign(x) * mean |x| of the row, sign(0) = 1; weights u1 and i1 only */
  BL_COMPUTE_e4m3 = 4  /* activations rounded to OCP E4M3 times a scale (bl_activation_group), weights as they
                          are, sums in f32: products of fp8 where a device has them. Not lut, not tile */
} bl_compute;

/* How products are formed. What auto takes depends on the machine's level, the format and M. */
typedef enum bl_algorithm {
  BL_ALGORITHM_auto = 0,
  BL_ALGORITHM_lut =
      1, /* i8: tables of partial sums of activations, looked up by the codes (integers only) */
  BL_ALGORITHM_dequant = 2, /* codes unpacked in registers and multiplied */
  BL_ALGORITHM_tile = 3 /* weights unpacked once per cache block for many rows of a; AMX where there is one */
} bl_algorithm;

/* What algorithm lut looks up. lossless: the int8 activations' exact sums, the bits of dequant. fast: those
 * sums rounded to bytes with a scale per 128 activations, half the lookups. Of a table of 4 activations (2
 * for planes of 2 bits) an entry is then off by less than 0.6 steps, a step being 1 / 255 of the largest
 * entry of those of 128: 8e-3 of the result instead of 5e-3 on Gaussian activations at 1 bit, 1.6e-2 at 2
 * bits. */
typedef enum bl_tables { BL_TABLES_lossless = 0, BL_TABLES_fast = 1 } bl_tables;

/* What is done to outputs before they are written. swiglu and geglu: b has 2 H rows, the gate's H and then
 * the up projection's H; c is [..., M, H] = silu(gate) * up, gelu(gate) * up. */
typedef enum bl_activation {
  BL_ACTIVATION_none = 0,
  BL_ACTIVATION_silu = 1,
  BL_ACTIVATION_gelu = 2, /* by erf */
  BL_ACTIVATION_gelu_tanh = 3,
  BL_ACTIVATION_relu = 4,
  BL_ACTIVATION_swiglu = 5,
  BL_ACTIVATION_geglu = 6 /* by erf */
} bl_activation;

/* Which activations share a scale when compute i8 or e4m3 rounds them. e4m3: the row's scale is its largest
 * magnitude / 448; that of 32 columns the least power of two, of at least 2^-117, with which none is above
 * 448 (the MXFP8 of OCP Microscaling, but that the largest is not cut). A row, or 32 columns, with a value
 * that is not finite becomes NaN. */
typedef enum bl_activation_group {
  BL_ACTIVATION_GROUP_auto = 0, /* i8: 32 columns, 512 by tiles. e4m3: the row */
  BL_ACTIVATION_GROUP_row = 1,
  BL_ACTIVATION_GROUP_32 = 2 /* algorithm auto takes no tiles then; nor does it with activation_bits of 4 */
} bl_activation_group;

/* y[m, n]  = sum_k a[m, k] * b[n, k] * row_scale[n] * scale + addend[m, n] + bias[n]
 *          + low_rank_scale * sum_r up[n, r] * (sum_k down[r, k] * a[m, k])
 *          + sum_i values[i] * a[m, columns[i]], i in [row_offsets[n], row_offsets[n + 1])
 * c[m, n]  = activation(y[m, n]) + residual[m, n], rounded once to c's dtype
 * where everything after the product is optional, in f32 and in this order. Low-rank and outlier terms use a
 * as it is given, the product what column_scale, column_order and compute make of it. `data NULL`: not given.
 */
typedef struct bl_matmul_args {
  size_t size;
  bl_run run;
  bl_tensor a;     /* [..., M, K] f32, f16, bf16, or i8 with a_scales */
  bl_weights b;    /* [N, K] */
  bl_tensor bias;  /* [N] f32, or data NULL */
  bl_tensor c;     /* [..., M, N] f32, f16, bf16 or i8; must not overlap an input but residual and addend */
  int32_t compute; /* bl_compute */
  void* workspace; /* bl_matmul_workspace_bytes bytes, or NULL: allocated for the call */
  uint64_t workspace_bytes;
  int32_t
      algorithm; /* bl_algorithm; one that cannot do the compute mode and format is BL_STATUS_unsupported */
  /* The outputs of b's rows. */
  int32_t activation;  /* bl_activation */
  float scale;         /* finite; 0: 1 */
  bl_tensor row_scale; /* [N] f32 */
  bl_tensor addend;    /* [..., M, N] f32, f16 or bf16; may be c itself. swiglu, geglu: N = 2 H */
  bl_tensor residual;  /* as c, f32, f16 or bf16; may be c itself */
  bl_tensor c_scales; /* c is i8: [..., M, ceil(N / 32)] f32, written: max / 127 of 32 outputs, NaN (and codes
                         0) where one of them is not finite */
  float c_scale; /* c is i8 without c_scales: code = output * (1 / c_scale) to nearest even, in [-127, 127];
                    NaN gives 0. Finite, > 0 */
  /* What becomes of a before the product. */
  bl_tensor a_scales;     /* a is i8: [..., M] or [..., M, ceil(K / 32)] f32: a[m, k] = scale * code, codes in
                             [-127, 127]. Compute i8 uses the codes as they are */
  bl_tensor column_scale; /* [K] f32, times the columns of a. Not with i8 */
  bl_tensor column_order; /* [b.cols] i32 in [0, K): column j of b meets column column_order[j] of a, which
                             may have more or fewer columns than b. Not with a scale per 32 */
  int32_t activation_bits;  /* compute i8: codes of 8 bits (also 0), or of 4: in [-7, 7] */
  int32_t activation_group; /* bl_activation_group */
  /* A stack of matrices in b: rows [i N, (i + 1) N) belong to a[i]. 0: one matrix. Else a is [batch, ..., K],
   * c [batch, ..., N], b.rows = batch * N; bias, row_scale and outlier rows are b's rows, low_rank_down is
   * [batch, R, K]. Layout lanes16 is read fastest where N is a multiple of 16. */
  int64_t batch;
  /* Low-rank terms, f32, f16 or bf16: EoRA (Liu et al. 2024), LoRA (Hu et al. 2021). */
  bl_tensor low_rank_down; /* [R, K], or [A, R, K]: A adapters */
  bl_tensor low_rank_up;   /* [N, R], or [A, N, R]; strides [1, N] are read fastest */
  bl_tensor low_rank_ids;  /* A adapters: [rows of a] i32, each in [-1, A), -1: none */
  float low_rank_scale;
  /* Sparse terms by row (CSR): SpQR (Dettmers et al. 2023), Super Weight (Yu et al. 2024). */
  bl_tensor outlier_row_offsets; /* [b.rows + 1] i32, from 0, never falling, to nnz */
  bl_tensor outlier_columns;     /* [nnz] i32, each in [0, K) */
  bl_tensor outlier_values;      /* [nnz] f32, f16 or bf16 */
  /* What bl_prepare_activations wrote, in place of a (which is then zero), or NULL: as many rows as c, of K.
   * Compute i8, algorithms lut and dequant, formats with integer values; not with a_scales, column_scale,
   * column_order, activation_bits of 4, activation_group, low-rank and sparse terms, or batch above 1. The
   * same result as with the activations themselves in the same algorithm. */
  const void* prepared;
  uint64_t prepared_bytes;
  int32_t tables; /* bl_tables: what algorithm lut may look up, compute i8. No other algorithm reads it */
} bl_matmul_args;
BL_API bl_status bl_matmul(const bl_matmul_args* args, bl_error* error);
/* Independent of N. 0 if the arguments are not valid, and on a device, which takes memory of its own. */
BL_API uint64_t bl_matmul_workspace_bytes(const bl_matmul_args* args);
/* Name of the kernel that would run, e.g. "matmul_dequant_i8_avx512"; NULL if the arguments are not valid,
   and on a device, which may run several. */
BL_API const char* bl_matmul_kernel(const bl_matmul_args* args);

/* Which tables matmul of M rows in compute i8 with these weights would look up: bits as in
 * bl_prepare_activations_args.tables; 0: none, or the arguments are not valid. b's data is not read. */
BL_API int32_t bl_matmul_tables(const bl_weights* b, int64_t m, int32_t algorithm, int32_t tables,
                                const bl_run* run);

/* Brings activations into the form of compute i8 (int8 codes with a scale per 32, and tables) once for
 * several matmuls that share them: q, k and v; gate and up. With gate and norm, what precedes them is
 * computed on the way, row by row, with the bits of bl_swiglu and bl_rms_norm to f32 before: y = x;  y =
 * silu(gate) * x, if there is a gate;  y = rms_norm(y), if norm is not 0. What is written is the same at
 * every ISA level, given the same y; it is for the same version of bitloom, not for files. */
typedef struct bl_prepare_activations_args {
  size_t size;
  bl_run run;
  bl_tensor x;           /* [..., M, K] f32, f16 or bf16 */
  bl_tensor gate;        /* as x, or data NULL and rank 0 */
  bl_tensor norm_weight; /* [K] f32, f16 or bf16, or data NULL: ones. Only with norm */
  int32_t norm;          /* 1: rms_norm */
  float epsilon;         /* of rms_norm; finite, at least 0 */
  int32_t tables; /* for algorithm lut: bit 0: for planes of 1 bit (formats of 1 and 3 bits), bit 1: of 2 bits
                     (formats of 2 and 3 bits); bits 2 and 3: the same for BL_TABLES_fast */
  void* output;   /* bl_prepare_activations_bytes bytes at a multiple of 8; must not overlap an input */
  uint64_t output_bytes;
} bl_prepare_activations_args;
BL_API bl_status bl_prepare_activations(const bl_prepare_activations_args* args, bl_error* error);
/* 0 if a number is negative, tables has other bits, or the size exceeds 2^62. */
BL_API uint64_t bl_prepare_activations_bytes(int64_t m, int64_t k, int32_t tables);

/* When BL_ALGORITHM_auto takes which algorithm at an ISA level: by the width of the weights' codes in bits,
 * and by rows of a. Index 0 stands for what is computed in bf16 or has no codes. It starts with measured
 * values; what is set holds for the process. It changes speed; within one algorithm never the result. */
#define BL_MATMUL_TUNING_WIDTHS 9
typedef struct bl_matmul_tuning {
  size_t size;
  int32_t lut_rows[BL_MATMUL_TUNING_WIDTHS];  /* lut (of either bl_tables) up to so many rows; 0: never */
  int32_t tile_rows[BL_MATMUL_TUNING_WIDTHS]; /* tile from so many rows on, at least 1; dequant between */
} bl_matmul_tuning;
BL_API bl_status bl_get_matmul_tuning(int32_t isa, bl_matmul_tuning* tuning, bl_error* error);
/* tuning NULL: back to the built-in values. */
BL_API bl_status bl_set_matmul_tuning(int32_t isa, const bl_matmul_tuning* tuning, bl_error* error);

/* ---- embedding -------------------------------------------------------------------------------- */

/* output[..., :] = decode(table[ids[...], :]) */
typedef struct bl_embedding_args {
  size_t size;
  bl_run run;
  bl_weights table; /* [vocab, cols] */
  bl_tensor ids;    /* [...] i32, each in [0, vocab) */
  bl_tensor output; /* [..., cols] f32, f16 or bf16 */
} bl_embedding_args;
BL_API bl_status bl_embedding(const bl_embedding_args* args, bl_error* error);

/* ---- norms ------------------------------------------------------------------------------------ */

/* output = x / sqrt(mean(x^2) + epsilon) * weight, over the last axis (Zhang and Sennrich 2019). */
typedef struct bl_rms_norm_args {
  size_t size;
  bl_run run;
  bl_tensor x;      /* [..., D] f32, f16 or bf16 */
  bl_tensor weight; /* [D] f32, f16 or bf16, or data NULL: ones */
  bl_tensor output; /* [..., D]; may be x */
  float epsilon;
} bl_rms_norm_args;
BL_API bl_status bl_rms_norm(const bl_rms_norm_args* args, bl_error* error);

/* output = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last axis. */
typedef struct bl_layer_norm_args {
  size_t size;
  bl_run run;
  bl_tensor x;      /* [..., D] f32, f16 or bf16 */
  bl_tensor weight; /* [D], or data NULL: ones */
  bl_tensor bias;   /* [D], or data NULL: zeros */
  bl_tensor output; /* [..., D]; may be x */
  float epsilon;
} bl_layer_norm_args;
BL_API bl_status bl_layer_norm(const bl_layer_norm_args* args, bl_error* error);

/* ---- rope ------------------------------------------------------------------------------------- */

typedef enum bl_rope_mode {
  BL_ROPE_interleaved = 0, /* pairs (2i, 2i+1) */
  BL_ROPE_half = 1         /* pairs (i, i + rotary_dim/2) */
} bl_rope_mode;

typedef enum bl_rope_scaling {
  BL_ROPE_SCALING_none = 0,
  BL_ROPE_SCALING_linear = 1, /* positions divided by factor */
  BL_ROPE_SCALING_llama3 = 2, /* low frequencies divided by factor, smooth in between */
  BL_ROPE_SCALING_yarn = 3    /* YaRN (Peng et al. 2023): interpolation by wavelength, scaled magnitude */
} bl_rope_scaling;

/* Rotary position embedding of each head's first rotary_dim channels (Su et al. 2021). */
typedef struct bl_rope_args {
  size_t size;
  bl_run run;
  bl_tensor x;            /* [..., tokens, heads, head_dim] f32, f16 or bf16 */
  bl_tensor positions;    /* [tokens] i32, not negative */
  bl_tensor freq_factors; /* [rotary_dim/2] f32 divisors of the frequencies, or data NULL */
  bl_tensor output;       /* as x; may be x */
  int32_t mode;           /* bl_rope_mode */
  int32_t rotary_dim;     /* even; 0: head_dim */
  float theta;            /* base, e.g. 10000 */
  int32_t scaling;        /* bl_rope_scaling */
  float factor;           /* >= 1 */
  float low_freq_factor;  /* llama3: 1 */
  float high_freq_factor; /* llama3: 4 */
  float original_context; /* llama3 and yarn: context length the model was trained with */
  float attention_factor; /* yarn: magnitude; 0: 0.1 * ln(factor) + 1 */
  float beta_fast;        /* yarn: 0: 32 */
  float beta_slow;        /* yarn: 0: 1 */
} bl_rope_args;
BL_API bl_status bl_rope(const bl_rope_args* args, bl_error* error);

/* ---- softmax and elementwise ------------------------------------------------------------------ */

/* output = softmax(scale * x) over the last axis; a row of only -infinity gives NaN. */
typedef struct bl_softmax_args {
  size_t size;
  bl_run run;
  bl_tensor x;      /* [..., D] f32, f16 or bf16 */
  bl_tensor output; /* [..., D]; may be x */
  float scale;      /* 0 is invalid; 1 for a plain softmax */
} bl_softmax_args;
BL_API bl_status bl_softmax(const bl_softmax_args* args, bl_error* error);

/* output = x / (1 + exp(-x)) */
typedef struct bl_silu_args {
  size_t size;
  bl_run run;
  bl_tensor x;      /* [...] f32, f16 or bf16 */
  bl_tensor output; /* [...]; may be x */
} bl_silu_args;
BL_API bl_status bl_silu(const bl_silu_args* args, bl_error* error);

typedef enum bl_gelu_approximation { BL_GELU_erf = 0, BL_GELU_tanh = 1 } bl_gelu_approximation;

/* output = x * Phi(x) (Hendrycks and Gimpel 2016), or its tanh approximation. */
typedef struct bl_gelu_args {
  size_t size;
  bl_run run;
  bl_tensor x;      /* [...] f32, f16 or bf16 */
  bl_tensor output; /* [...]; may be x */
  int32_t approximation;
} bl_gelu_args;
BL_API bl_status bl_gelu(const bl_gelu_args* args, bl_error* error);

/* output = left op right. swiglu: silu(left) * right; left is the gate, right the up projection.
 * add, mul: right's shape may be a suffix of left's; it is then repeated. swiglu: equal shapes. */
typedef struct bl_binary_args {
  size_t size;
  bl_run run;
  bl_tensor left;   /* [...] f32, f16 or bf16 */
  bl_tensor right;  /* [...] */
  bl_tensor output; /* as left; may be left or right */
} bl_binary_args;
typedef bl_binary_args bl_swiglu_args;
typedef bl_binary_args bl_add_args;
typedef bl_binary_args bl_mul_args;
BL_API bl_status bl_swiglu(const bl_swiglu_args* args, bl_error* error);
BL_API bl_status bl_add(const bl_add_args* args, bl_error* error);
BL_API bl_status bl_mul(const bl_mul_args* args, bl_error* error);

/* ---- sampling --------------------------------------------------------------------------------- */

/* Picks a token. In this order: repetition penalty (Keskar et al. 2019) over `previous`; temperature 0:
 * the highest logit, lowest id first among equals; else top_k, softmax at the temperature, top_p,
 * min_p, and one draw of a counter-based generator, so that (seed, position) gives the same draw on
 * every machine. */
typedef struct bl_sample_args {
  size_t size;
  bl_run run;
  bl_tensor logits;         /* [vocab] f32, contiguous; NaN is an error */
  bl_tensor previous;       /* [count] i32 ids in [0, vocab), or data NULL */
  float temperature;        /* >= 0 */
  int32_t top_k;            /* 0: all */
  float top_p;              /* in (0, 1]; 0 and 1: all */
  float min_p;              /* in [0, 1): drop below min_p times the largest probability */
  float repetition_penalty; /* > 0; 0 and 1: none */
  uint64_t seed;
  uint64_t position;  /* index of the draw */
  int32_t* token;     /* written */
  float* probability; /* written if not NULL: of the token among those left */
} bl_sample_args;
BL_API bl_status bl_sample(const bl_sample_args* args, bl_error* error);

/* ---- Files ------------------------------------------------------------------------------------ */

typedef struct bl_file bl_file;

/* Maps a whole regular file, privately: writes to the mapping never reach the file. If the file shrinks
 * while mapped, bytes past its new end read as zero (no signal reaches the process) and
 * bl_mapped_file_faults() counts up. */
BL_API bl_status bl_file_open(const char* path, bl_file** file, bl_error* error);
BL_API void* bl_file_data(bl_file* file);
BL_API uint64_t bl_file_bytes(const bl_file* file);
BL_API void bl_file_close(bl_file* file);
BL_API uint64_t bl_mapped_file_faults(void);

#ifdef __cplusplus
}
#endif
#endif /* BITLOOM_H */

/* The C interface of smlora: everything that smlora.hpp offers, for C11, ctypes and other languages.
 *
 * Errors: a function that can fail returns a smlora_status; SMLORA_OK is 0. The message of the last failure on the
 * calling thread is smlora_last_error(); it names the argument, its value and what was expected. No C++ exception
 * leaves the library. Where a function fails, its outputs are untouched and nothing was launched, unless it says so.
 *
 * Structs: those that may grow begin with `struct_size`, by which the library knows what its caller was compiled with.
 * Start each with its init function, which sets struct_size and the defaults:
 *
 *     smlora_problem problem;
 *     smlora_problem_init(&problem, sizeof problem);
 *     problem.E = 128;
 *
 * Members called `reserved` stay 0. Flags are 0 or 1. A null pointer to a required argument is
 * SMLORA_INVALID_ARGUMENT, never a crash. Strings are UTF-8 and end with a zero byte.
 *
 * Threads: every function may be called from any thread at any time; only destroying an object must not overlap with
 * other uses of it.
 *
 * Notation: E experts, K inputs, N outputs, R the LoRA rank; T tokens, each sent to top_k experts, M = T * top_k rows.
 */
#ifndef SMLORA_SMLORA_H
#define SMLORA_SMLORA_H

#include <smlora/export.hpp>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------------ */

/* What a call came to. */
typedef int32_t smlora_status;
enum {
    SMLORA_OK = 0,               /* nothing went wrong */
    SMLORA_INVALID_ARGUMENT = 1, /* an argument is wrong; the message names it */
    SMLORA_UNSUPPORTED = 2,      /* a valid request that this backend, device or build cannot serve */
    SMLORA_NO_DEVICE = 3,        /* no CUDA driver, no GPU, or no such device */
    SMLORA_CUDA = 4,             /* a CUDA driver call failed; the message has the call and the error's name */
    SMLORA_COMPILE = 5,          /* NVRTC is missing or refused a kernel; the message has its log */
    SMLORA_IO = 6,               /* a file or folder that the caller named cannot be used */
    SMLORA_NOT_READY = 7,        /* a kernel is needed inside a graph capture but was never loaded: warm up first */
    SMLORA_INTERNAL = 8,         /* a bug in smlora */
    SMLORA_OUT_OF_MEMORY = 9,    /* host memory ran out */
    SMLORA_JIT_OFF = 10, /* a kernel is in no layer of the cache and SMLORA_JIT=off; the message has the command */
    SMLORA_FORKED = 11   /* the engine was made before this process was forked: make one in the child */
};

/* The message of the last call that failed on this thread; "" if none did. Calls that succeed leave it alone. Valid
 * until the next failure on this thread. Never null. */
SMLORA_API const char* smlora_last_error(void);

/* "invalid_argument", ..; "ok" for SMLORA_OK, "unknown" for other values. Static. */
SMLORA_API const char* smlora_status_name(smlora_status status);

/* "major.minor.patch" of the library. Static. */
SMLORA_API const char* smlora_version(void);

/* Frees a string that the library returned through a `char**`. Null is allowed. */
SMLORA_API void smlora_free_string(char* text);

/* ---- types and views --------------------------------------------------------------------------------------------- */

/* The type of a tensor's elements. */
typedef int32_t smlora_dtype;
enum {
    SMLORA_BF16 = 0,  /* bfloat16 */
    SMLORA_FP16 = 1,  /* IEEE half precision */
    SMLORA_FP32 = 2,  /* IEEE single precision */
    SMLORA_FP64 = 3,  /* IEEE double precision; CPU backend only */
    SMLORA_INT32 = 4, /* of routings */
    SMLORA_INT64 = 5, /* of routings */
    SMLORA_UINT8 = 6, /* of quantised weights, as the three below: packed codes, scales */
    SMLORA_INT8 = 7,  /* codes */
    SMLORA_E4M3 = 8,  /* OCP float8: 4 exponent bits, 3 mantissa bits, no infinity */
    SMLORA_E8M0 = 9   /* OCP scale: a power of two */
};

/* Bytes of one element; 0 for any other value. */
SMLORA_API size_t smlora_dtype_size(smlora_dtype dtype);
/* "bf16", "fp16", "fp32", "fp64", "int32", "int64", "uint8", "int8", "e4m3", "e8m0"; else null. Static. */
SMLORA_API const char* smlora_dtype_name(smlora_dtype dtype);
/* The inverse, which also takes "bfloat16", "float16", "half", "float32", "float", "float64" and "double". */
SMLORA_API smlora_status smlora_dtype_from_name(const char* text, smlora_dtype* dtype);

enum { SMLORA_MAX_NDIM = 4 /* the most extents of a tensor */ };

/* A strided view of memory that the caller owns: host memory on the CPU backend, device memory on the CUDA backend.
 * Strides count elements. All zero (ndim == 0) means "not given". This struct never grows. */
typedef struct smlora_tensor {
    void* data;                       /* the element at index 0 of every extent */
    smlora_dtype dtype;               /* of the elements */
    int32_t ndim;                     /* number of extents; 0: not given */
    int64_t shape[SMLORA_MAX_NDIM];   /* extents */
    int64_t strides[SMLORA_MAX_NDIM]; /* elements from one index of an extent to the next */
} smlora_tensor;

/* Fills in a view of `ndim` (0 to 4) extents; `strides` null: row-major. */
SMLORA_API smlora_status smlora_tensor_init(smlora_tensor* tensor, void* data, smlora_dtype dtype, int32_t ndim,
                                            const int64_t* shape, const int64_t* strides);

/* ---- the problem ------------------------------------------------------------------------------------------------- */

/* How the rows of one side of a projection lie in memory. Sorted position i holds the flat entry
 * f = sorted_scattered_idxs[i] = t * top_k + j: token t, choice j. */
typedef int32_t smlora_row_order;
enum {
    SMLORA_ROWS_TOKEN = 0, /* [T, *]: row t; as an output, summed over the top_k rows of a token in fp32, in the order
                              of j, each times its gate if gates are given */
    SMLORA_ROWS_SCATTERED = 1, /* [M, *]: row f */
    SMLORA_ROWS_GROUPED = 2    /* [M, *]: row i, that is, sorted by expert */
};

/* How W is stored. */
typedef int32_t smlora_weight_layout;
enum {
    SMLORA_WEIGHT_EKN = 0, /* [E, K, N], N contiguous */
    SMLORA_WEIGHT_ENK = 1  /* [E, N, K], K contiguous: what Hugging Face stores */
};

/* "token", ..; null for any other value. Static. */
SMLORA_API const char* smlora_row_order_name(smlora_row_order order);
/* "ekn", ..; null for any other value. Static. */
SMLORA_API const char* smlora_weight_layout_name(smlora_weight_layout layout);

enum {
    SMLORA_MAX_EXPERTS = 1024, /* the most experts of a projection */
    SMLORA_MAX_RANK = 256,     /* the largest rank of an adapter */
    SMLORA_MAX_TOP_K = 64      /* the most experts of a token */
};

/* How the values of a frozen weight are stored; smlora/weight.hpp has the formulas. */
typedef int32_t smlora_encoding;
enum {
    SMLORA_ENCODING_PLAIN = 0, /* the values themselves */
    SMLORA_ENCODING_NF4 = 1,   /* bitsandbytes; the high nibble comes first */
    SMLORA_ENCODING_FP4 = 2,   /* bitsandbytes; as nf4, with another table */
    SMLORA_ENCODING_INT8 = 3,  /* bitsandbytes, a scale for each row */
    SMLORA_ENCODING_MXFP4 = 4, /* OCP: e2m1 and a power of two for 32; the low nibble comes first */
    SMLORA_ENCODING_FP8 = 5,   /* e4m3 and a scale for each square of block x block */
    SMLORA_ENCODING_MXFP8 = 6, /* OCP: e4m3 and a power of two for 32 */
    SMLORA_ENCODING_NVFP4 = 7, /* e2m1, an e4m3 scale for 16 and an fp32 one; the low nibble comes first */
    SMLORA_ENCODING_INT4 = 8   /* compressed-tensors; the lowest nibble comes first */
};

/* What nvfp4's fp32 scale does to the e4m3 one. */
typedef int32_t smlora_global_scale;
enum {
    SMLORA_GLOBAL_SCALE_FACTOR = 0, /* torchao, modelopt */
    SMLORA_GLOBAL_SCALE_DIVISOR = 1 /* compressed-tensors */
};

/* "plain", "nf4", ..; null for any other value. Static. */
SMLORA_API const char* smlora_encoding_name(smlora_encoding encoding);
/* The inverse. */
SMLORA_API smlora_status smlora_encoding_from_name(const char* text, smlora_encoding* encoding);

/* All of a weight but its extents and its memory: what kernels are specialised for; see smlora_weight. Never grows. */
typedef struct smlora_weight_format {
    smlora_encoding encoding; /* default plain; nothing else of it is looked at then */
    smlora_dtype scales;      /* type of the scales; uint8 if they are quantised themselves */
    int64_t block;            /* values that share a scale; int8: not looked at */
    int64_t parts;            /* equal ranges of rows that were quantised apart; default 1 */
    int64_t outer_block;      /* nf4, fp4: scales that share a scale of their own; 0: scales are not quantised */
    smlora_global_scale global_scale; /* nvfp4; default factor */
    int32_t arranged;                 /* 1: scales are in the order of smlora_arrange_scales */
} smlora_weight_format;

/* The format of an encoding as its usual maker writes it: block 64 for nf4 and fp4, 128 for fp8, 32 for int4. */
SMLORA_API smlora_status smlora_usual_format(smlora_encoding encoding, smlora_weight_format* format);

/* Everything about a projection that its kernels are specialised for. T is a run-time value. */
typedef struct smlora_problem {
    size_t struct_size;
    int64_t E;                  /* experts, 1 to SMLORA_MAX_EXPERTS */
    int64_t K;                  /* inputs, >= 1 */
    int64_t N;                  /* outputs, >= 1 */
    int64_t R;                  /* LoRA rank, 1 to SMLORA_MAX_RANK; 0 (default): no adapter, the base product alone */
    int64_t top_k;              /* experts of a token, 1 to SMLORA_MAX_TOP_K; default 1 */
    smlora_dtype dtype;         /* of x, W, y, bias, xa, yb: bf16 (default), fp16, fp32; fp64 on the CPU */
    smlora_dtype adapter_dtype; /* of A, B, dA, dB: `dtype` or fp32; default bf16 */
    smlora_dtype gate_dtype;    /* of gates and dgates: `dtype` or fp32 (default) */
    smlora_dtype index_dtype;   /* of the routing's arrays: int32 (default) or int64 */
    smlora_weight_layout weight_layout; /* default ekn */
    smlora_row_order x_rows;            /* of x and dx; default token */
    smlora_row_order y_rows;            /* of y and dy; default scattered */
    int32_t bias;                       /* 1: b [E, N] is added to y */
    int32_t gates;                      /* 1: gates [T, top_k] scale the rows of y; only with y_rows token */
    int32_t reserved;
    smlora_weight_format weights; /* of W; quantised only with dtype bf16, fp16 or fp32 */
} smlora_problem;

SMLORA_API void smlora_problem_init(smlora_problem* problem, size_t struct_size);

/* SMLORA_INVALID_ARGUMENT with the field, its value and what was expected, or SMLORA_OK. */
SMLORA_API smlora_status smlora_validate(const smlora_problem* problem);

/* The row stride, in elements, of xa [M, R] and yb [M, R]: R rounded up to 8; the columns from R to it are written as
 * zero. 0 for an R outside 0..SMLORA_MAX_RANK. */
SMLORA_API int64_t smlora_padded_rank(int64_t R);

/* "E128 K2048 N1536 R16 k8 bf16 ekn token->scattered", with quantised weights " weights: nf4 block 64", to be freed
 * with smlora_free_string. */
SMLORA_API smlora_status smlora_problem_to_string(const smlora_problem* problem, char** text);

/* ---- the engine -------------------------------------------------------------------------------------------------- */

/* Where operations are computed. */
typedef int32_t smlora_backend;
enum {
    SMLORA_BACKEND_CUDA =
        0,                 /* kernels on the GPU of the caller's current context, else of `device`'s primary context */
    SMLORA_BACKEND_CPU = 1 /* the same operations on host memory, multithreaded */
};

/* How much a log line matters. */
typedef int32_t smlora_log_level;
enum {
    SMLORA_LOG_DEBUG = 0,   /* what helps to find a fault */
    SMLORA_LOG_INFO = 1,    /* what is decided, and why */
    SMLORA_LOG_WARNING = 2, /* something is slower or less durable than it could be */
    SMLORA_LOG_NOTICE = 3 /* between info and warning: nothing is wrong, but it takes the caller's time. Tuning at first
                             use begins or ends. */
};

/* Receives one line, without a newline. May be called from any thread, never from two at once. */
typedef void (*smlora_log_callback)(smlora_log_level level, const char* line, void* user);

/* How kernels are chosen among those that compute the same (CUDA backend). */
typedef int32_t smlora_tuning;
enum {
    SMLORA_TUNING_DEFAULT = 0,    /* SMLORA_TUNING (first-use, off or record-only), else first-use */
    SMLORA_TUNING_FIRST_USE = 1,  /* a recorded choice, else candidates are measured when an operation first runs */
    SMLORA_TUNING_OFF = 2,        /* the heuristic choice, by the cost models alone */
    SMLORA_TUNING_RECORD_ONLY = 3 /* a recorded choice, else the nearest recorded one, else the heuristic one */
};

/* Which calls have the same bits. */
typedef int32_t smlora_determinism;
enum {
    SMLORA_DETERMINISM_DEFAULT = 0, /* SMLORA_DETERMINISM (run or batch), else run */
    SMLORA_DETERMINISM_RUN = 1,     /* calls with the same input: the gradients of the adapters, too */
    SMLORA_DETERMINISM_BATCH = 2    /* and rows with the same input, whatever other rows the batch has: kernels are
                                       chosen as for one number of tokens, and nothing is measured at first use */
};

/* How an engine is made; what is not set comes from the environment, then from a default. */
typedef struct smlora_engine_options {
    size_t struct_size;
    smlora_backend backend; /* default CUDA */
    int32_t device;         /* CUDA device used by threads that have no current context */
    /* The writable cache layer. Null: SMLORA_CACHE_DIR, else $XDG_CACHE_HOME/smlora, else ~/.cache/smlora. */
    const char* cache_root;
    /* Read-only layers, consulted after the writable one: `cache_layer_count` paths. Null: SMLORA_CACHE_LAYERS,
     * separated by ':'. Not null with a count of 0: none. */
    const char* const* cache_layers;
    size_t cache_layer_count; /* of `cache_layers` */
    /* Size at which the writable layer evicts its least recently used entries. 0: SMLORA_CACHE_LIMIT, else 2 GiB.
     * UINT64_MAX: no limit, as SMLORA_CACHE_LIMIT=0. */
    uint64_t cache_limit_bytes;
    int32_t threads;         /* of the CPU backend, and of compiling; 0: one for each core that this process may use */
    smlora_tuning tuning;    /* how kernels are chosen */
    smlora_log_callback log; /* null: to stderr, from the level on that SMLORA_LOG names, notice if none */
    void* log_user;          /* handed to `log` */
    /* Of first use: seconds that tuning may take of the first calls on a problem and a power-of-two number of tokens,
     * all operations together, compiling included (0: 10; passed by one kernel's compile at most). */
    double tuning_seconds;
    /* Of first use: device memory that measuring may take meanwhile (0: an eighth of what is free). */
    uint64_t tuning_memory_bytes;
    /* Where the tuning records that come with smlora lie: the read-only layer below all others. Null: where this
     * library is installed. "", or with SMLORA_SHIPPED_CACHE=0: none. A folder that is unfit to be a layer is left out
     * with a warning, never an error. */
    const char* shipped_layer;
    /* Device memory that quantised weights are unpacked to, at most, unless one expert's matrix is larger. 0:
     * SMLORA_UNPACK_LIMIT (bytes, or with the suffix K, M or G), else 256 MiB. */
    uint64_t unpack_limit_bytes;
    smlora_determinism determinism; /* which calls have the same bits */
    int32_t reserved;               /* 0 */
} smlora_engine_options;

SMLORA_API void smlora_engine_options_init(smlora_engine_options* options, size_t struct_size);

/* A backend, its kernels in memory and the cache on disk behind them. Making one opens neither libcuda nor NVRTC. */
typedef struct smlora_engine smlora_engine;

/* `options` null: the defaults. The strings are copied. SMLORA_IO when a cache folder that was named is writable by
 * others or is no folder. */
SMLORA_API smlora_status smlora_engine_create(const smlora_engine_options* options, smlora_engine** engine);
/* Null is allowed. Everything enqueued must be done, and the buffers of the engine destroyed before. */
SMLORA_API void smlora_engine_destroy(smlora_engine* engine);
/* The one that it was made with. */
SMLORA_API smlora_status smlora_engine_backend(smlora_engine* engine, smlora_backend* backend);

/* A CUDA stream of the caller (a CUstream or cudaStream_t); null is the legacy default stream. Ignored on the CPU
 * backend, whose operations are done when they return. */
typedef void* smlora_stream;

/* Waits until everything enqueued on the stream is done. SMLORA_CUDA if a kernel failed. */
SMLORA_API smlora_status smlora_synchronize(smlora_engine* engine, smlora_stream stream);

/* ---- memory, for callers without an allocator of their own ------------------------------------------------------- */

/* Device memory (CUDA backend) or 256-byte-aligned host memory (CPU backend). */
typedef struct smlora_buffer smlora_buffer;

/* Not initialised. Zero bytes give a buffer whose data is null. */
SMLORA_API smlora_status smlora_buffer_create(smlora_engine* engine, size_t bytes, smlora_buffer** buffer);
/* Null is allowed. */
SMLORA_API void smlora_buffer_destroy(smlora_buffer* buffer);
/* Null for a null buffer. */
SMLORA_API void* smlora_buffer_data(const smlora_buffer* buffer);
/* 0 for a null buffer. */
SMLORA_API size_t smlora_buffer_bytes(const smlora_buffer* buffer);
/* Blocking; offset + bytes must lie within the buffer. */
SMLORA_API smlora_status smlora_buffer_copy_from_host(smlora_buffer* buffer, const void* source, size_t bytes,
                                                      size_t offset);
/* Blocking; offset + bytes must lie within the buffer. */
SMLORA_API smlora_status smlora_buffer_copy_to_host(const smlora_buffer* buffer, void* target, size_t bytes,
                                                    size_t offset);
/* Blocking; sets every byte. */
SMLORA_API smlora_status smlora_buffer_fill(smlora_buffer* buffer, unsigned char value);

/* ---- operations ----------------------------------------------------------------------------------------------------
 *
 * Common to all: stream-ordered on the CUDA backend, no host synchronisation, bitwise repeatable, capturable in a CUDA
 * graph once its kernels are loaded (run the operation once, or prewarm). Wrong arguments are reported before anything
 * is launched.
 *
 * Tensors are the caller's, each aligned to its element. An output, the workspace included, shares no memory with any
 * other argument of the call; slices of one buffer that have no element in common are fine. Inputs may share memory. On
 * the CUDA backend the alignment and the strides of all tensors, xa and yb included, decide which kernels can be used,
 * and with them the last bits of a result.
 */

/* Scratch memory. All zero: taken from a stream-ordered pool (CUDA) or the heap (CPU). Else at least as many bytes as
 * the operation's workspace query says, 256-byte aligned; free again when the stream has passed. Never grows. */
typedef struct smlora_workspace {
    void* data;   /* device memory, or host memory on the CPU backend */
    size_t bytes; /* at `data` */
} smlora_workspace;

/* What smlora_route makes; all of problem.index_dtype and contiguous. Never grows. */
typedef struct smlora_routing {
    smlora_tensor sorted_expert_idxs;    /* [M]: the expert of each row, ascending; E for entries left out. Optional
                                            where a routing is an input */
    smlora_tensor sorted_scattered_idxs; /* [M]: the flat entry t * top_k + j of each row; a permutation, stable;
                                            entries left out come last, in order */
    smlora_tensor expert_offsets;        /* [E]: inclusive cumulative row counts */
} smlora_routing;

/* The arguments of smlora_route. */
typedef struct smlora_route_args {
    size_t struct_size;
    smlora_tensor top_idx;  /* in [T, top_k], int32 or int64, contiguous; -1 (any value outside 0..E-1) leaves it out */
    smlora_routing routing; /* out, all three given */
    smlora_workspace workspace;
} smlora_route_args;

SMLORA_API void smlora_route_args_init(smlora_route_args* args, size_t struct_size);
/* Stable counting sort of the routed entries by expert. */
SMLORA_API smlora_status smlora_route(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                      const smlora_route_args* args);
SMLORA_API smlora_status smlora_route_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T,
                                                size_t* bytes);

/* The arguments of smlora_group. */
typedef struct smlora_group_args {
    size_t struct_size;
    smlora_tensor x;        /* in, rows in the order of problem.x_rows (token or scattered), any row stride */
    smlora_tensor gates;    /* in, optional [T, top_k], of problem.gate_dtype: a coefficient for each row */
    smlora_routing routing; /* in */
    smlora_tensor out;      /* out [M, width of x], grouped; rows of entries left out are zero */
    smlora_workspace workspace;
} smlora_group_args;

SMLORA_API void smlora_group_args_init(smlora_group_args* args, size_t struct_size);
/* out_i = gates[f] * x_row(f): gathers rows into expert order. The width is x's, whatever the problem's K. */
SMLORA_API smlora_status smlora_group(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                      const smlora_group_args* args);

/* The arguments of smlora_combine. */
typedef struct smlora_combine_args {
    size_t struct_size;
    smlora_tensor y;     /* in [M, width], scattered */
    smlora_tensor gates; /* in, optional [T, top_k], of problem.gate_dtype; not given: all 1 */
    smlora_tensor out;   /* out [T, width] */
    smlora_workspace workspace;
} smlora_combine_args;

SMLORA_API void smlora_combine_args_init(smlora_combine_args* args, size_t struct_size);
/* out_t = sum_j gates[t, j] * y[t * top_k + j], accumulated in fp32 (fp64 for fp64) in the order of j. */
SMLORA_API smlora_status smlora_combine(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                        const smlora_combine_args* args);

/* The arguments of smlora_combine_backward. */
typedef struct smlora_combine_backward_args {
    size_t struct_size;
    smlora_tensor dout;   /* in [T, width] */
    smlora_tensor y;      /* in [M, width], scattered; needed for dgates */
    smlora_tensor gates;  /* in, optional [T, top_k] */
    smlora_tensor dy;     /* out, optional [M, width], scattered: gates[t, j] * dout_t */
    smlora_tensor dgates; /* out, optional [T, top_k], of problem.gate_dtype: <dout_t, y[t * top_k + j]> */
    smlora_workspace workspace;
} smlora_combine_backward_args;

SMLORA_API void smlora_combine_backward_args_init(smlora_combine_backward_args* args, size_t struct_size);
/* The gradients of combine. */
SMLORA_API smlora_status smlora_combine_backward(smlora_engine* engine, smlora_stream stream,
                                                 const smlora_problem* problem,
                                                 const smlora_combine_backward_args* args);

/* a(g, u) of a gate g and the value u beside it. */
typedef int32_t smlora_activation_kind;
enum {
    SMLORA_SWIGLU = 0,        /* silu(g) u, silu(g) = g / (1 + exp(-g)) */
    SMLORA_GEGLU = 1,         /* gelu(g) u, gelu(g) = g (1 + erf(g / sqrt(2))) / 2 */
    SMLORA_GEGLU_TANH = 2,    /* gelu(g) u with the usual approximation of gelu by tanh */
    SMLORA_REGLU = 3,         /* max(g, 0) u */
    SMLORA_SWIGLU_CLAMPED = 4 /* g' / (1 + exp(-alpha g')) (u' + 1), g' = min(g, limit), u' = u clamped to +-limit */
};

/* How the gates and the values beside them lie in a row of 2 * width elements. */
typedef int32_t smlora_gate_layout;
enum {
    SMLORA_GATE_HALVES = 0,     /* the gates, then the values */
    SMLORA_GATE_INTERLEAVED = 1 /* in turns, a gate first */
};

/* "swiglu", ..; null for any other value. Static. */
SMLORA_API const char* smlora_activation_name(smlora_activation_kind activation);
/* "halves", ..; null for any other value. Static. */
SMLORA_API const char* smlora_gate_layout_name(smlora_gate_layout layout);

/* The arguments of smlora_activation. */
typedef struct smlora_activation_args {
    size_t struct_size;
    smlora_tensor h;                   /* in [rows, 2 * width], columns contiguous, any row stride */
    smlora_tensor a;                   /* out [rows, width], likewise */
    smlora_activation_kind activation; /* default swiglu */
    smlora_gate_layout layout;         /* default halves */
    float alpha;                       /* of swiglu_clamped; default 1.702 */
    float limit;                       /* of swiglu_clamped, positive; default 7 */
} smlora_activation_args;

SMLORA_API void smlora_activation_args_init(smlora_activation_args* args, size_t struct_size);
/* a = a(g, u) element by element, computed in fp32 (fp64 for fp64), in one read and one write. Of the problem only
 * dtype counts, which is that of all tensors. */
SMLORA_API smlora_status smlora_activation(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                           const smlora_activation_args* args);

/* The arguments of smlora_activation_backward. */
typedef struct smlora_activation_backward_args {
    size_t struct_size;
    smlora_tensor h;                   /* in [rows, 2 * width], as in activation */
    smlora_tensor da;                  /* in [rows, width] */
    smlora_tensor dh;                  /* out [rows, 2 * width], in the layout of h */
    smlora_tensor a;                   /* out, optional, [rows, width]: the activation once more, if it was not kept */
    smlora_activation_kind activation; /* default swiglu */
    smlora_gate_layout layout;         /* of h and dh; default halves */
    float alpha;                       /* of swiglu_clamped; default 1.702 */
    float limit;                       /* of swiglu_clamped, positive; default 7 */
    smlora_tensor gates;               /* in, optional, [T, top_k] contiguous: of the experts' outputs */
    smlora_tensor sorted_scattered_idxs; /* in, with gates, [rows] contiguous: the routing's; rows are grouped */
    smlora_tensor dgates;                /* out, with gates, [T, top_k] contiguous */
} smlora_activation_backward_args;

SMLORA_API void smlora_activation_backward_args_init(smlora_activation_backward_args* args, size_t struct_size);
/* dg = da * da/dg and du = da * da/du, in one read and one write. Where a clamp cuts, the gradient is 0; at the limit
 * itself it passes, and max(g, 0) has the gradient 0 at 0. With gates, da comes from smlora_backward_input with
 * before_gates: dh_i is the above times gates[f], and dgates[f] = <da_i, a_i>, f = sorted_scattered_idxs[i]. Rows of
 * entries left out must be zeros, as the projections leave them; their dgates are 0. Of the problem top_k, gate_dtype
 * and index_dtype then count, too. */
SMLORA_API smlora_status smlora_activation_backward(smlora_engine* engine, smlora_stream stream,
                                                    const smlora_problem* problem,
                                                    const smlora_activation_backward_args* args);

/* The arguments of smlora_forward and smlora_scatter2scatter. */
typedef struct smlora_forward_args {
    size_t struct_size;
    smlora_tensor x;        /* in, [T, K] or [M, K] as problem.x_rows says; columns contiguous, any row stride */
    smlora_tensor W;        /* in, [E, K, N] or [E, N, K]; matrices contiguous, any expert stride */
    smlora_tensor A;        /* in, [E, R, K], any strides; with R > 0 */
    smlora_tensor B;        /* in, [E, N, R], any strides; with R > 0 */
    smlora_tensor bias;     /* in, [E, N] contiguous; with problem.bias */
    smlora_tensor gates;    /* in, [T, top_k] contiguous; with problem.gates. Finite for entries left out, too */
    smlora_routing routing; /* in */
    smlora_tensor y;        /* out, [T, N] or [M, N] as problem.y_rows says; columns contiguous, any row stride */
    smlora_tensor xa;       /* out, optional, [M, R] grouped, strides {padded rank, 1}: scaling * x_i A_e^T */
    smlora_workspace workspace;
    float scaling; /* of the adapter: alpha / R in PEFT; default 1 */
    int32_t reserved;
    const struct smlora_weight* quantized; /* in, in place of W, as problem.weights says; null: W */
} smlora_forward_args;

SMLORA_API void smlora_forward_args_init(smlora_forward_args* args, size_t struct_size);
/* y_i = x_i W_e + scaling (x_i A_e^T) B_e^T + b_e; rows of entries left out are zero. A = 0 or scaling = 0 gives the
 * base product bit for bit; on the CUDA backend if A and B are finite. */
SMLORA_API smlora_status smlora_forward(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                        const smlora_forward_args* args);
SMLORA_API smlora_status smlora_forward_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T,
                                                  size_t* bytes);
/* The base product alone, y_i = x_i W_e + b_e: forward with R = 0. A, B and xa are not looked at. */
SMLORA_API smlora_status smlora_scatter2scatter(smlora_engine* engine, smlora_stream stream,
                                                const smlora_problem* problem, const smlora_forward_args* args);

/* The arguments of smlora_backward_input. */
typedef struct smlora_backward_input_args {
    size_t struct_size;
    smlora_tensor dy;       /* in, in the order of problem.y_rows: [T, N] (of the combined output) or [M, N] */
    smlora_tensor W;        /* in, as in forward */
    smlora_tensor A;        /* in, with R > 0 */
    smlora_tensor B;        /* in, with R > 0 */
    smlora_tensor gates;    /* in, with problem.gates, unless before_gates */
    smlora_routing routing; /* in */
    smlora_tensor dx;       /* out, in the order of problem.x_rows: [T, K], summed over a token's rows, or [M, K] */
    smlora_tensor yb;       /* out, optional, [M, R] grouped, strides {padded rank, 1}: scaling * dy_i B_e, no gate */
    smlora_tensor dgates;   /* out, optional, [T, top_k] contiguous, with problem.gates; computed without y */
    smlora_tensor x;        /* in, for dgates only */
    smlora_tensor bias;     /* in, for dgates only, with problem.bias */
    smlora_workspace workspace;
    float scaling;        /* of the adapter: alpha / R in PEFT; default 1 */
    int32_t before_gates; /* 1: dx without the factor of the gates, as smlora_activation_backward takes it: with
                           * problem.gates, without a bias, and with x's rows in another order than token */
    const struct smlora_weight* quantized; /* in, in place of W, as problem.weights says; null: W */
} smlora_backward_input_args;

SMLORA_API void smlora_backward_input_args_init(smlora_backward_input_args* args, size_t struct_size);
/* dx_i = g_f (dy_i W_e^T + scaling (dy_i B_e) A_e), g the gates (1 if there are none); W is frozen.
 * dgates[f] = <dx_i / g_f, x_i> + <dy_t, b_e>, computed before the gate is applied; 0 for entries left out. With
 * before_gates dx_i is what is in brackets, and there are no dgates. */
SMLORA_API smlora_status smlora_backward_input(smlora_engine* engine, smlora_stream stream,
                                               const smlora_problem* problem, const smlora_backward_input_args* args);
SMLORA_API smlora_status smlora_backward_input_workspace(smlora_engine* engine, const smlora_problem* problem,
                                                         int64_t T, size_t* bytes);

/* The arguments of smlora_backward_lora. */
typedef struct smlora_backward_lora_args {
    size_t struct_size;
    smlora_tensor x;        /* in, as in forward */
    smlora_tensor dy;       /* in, as in backward_input */
    smlora_tensor A;        /* in; needed only for dB without xa */
    smlora_tensor B;        /* in; needed only for dA without yb */
    smlora_tensor gates;    /* in, with problem.gates */
    smlora_routing routing; /* in */
    smlora_tensor xa;       /* in, optional: what forward wrote; not given: computed again */
    smlora_tensor yb;       /* in, optional: what backward_input wrote; not given: computed again */
    smlora_tensor dA;       /* out, optional, [E, R, K], any strides that do not overlap, of adapter_dtype */
    smlora_tensor dB;       /* out, optional, [E, N, R], likewise */
    smlora_workspace workspace;
    float scaling; /* of the adapter: alpha / R in PEFT; default 1 */
    int32_t reserved;
} smlora_backward_lora_args;

SMLORA_API void smlora_backward_lora_args_init(smlora_backward_lora_args* args, size_t struct_size);
/* dA_e = scaling (dY_e B_e)^T X_e and dB_e = scaling dY_e^T (X_e A_e^T), dY with its gates applied; exactly zero for an
 * expert without rows. At least one of dA and dB is given. Needs R > 0. */
SMLORA_API smlora_status smlora_backward_lora(smlora_engine* engine, smlora_stream stream,
                                              const smlora_problem* problem, const smlora_backward_lora_args* args);
SMLORA_API smlora_status smlora_backward_lora_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T,
                                                        size_t* bytes);

/* ---- quantised weights ------------------------------------------------------------------------------------------- */

/* Scales that are quantised themselves: s = table[code] scales[i / block] + offset for the i-th code. All zero: they
 * are not. Never grows. */
typedef struct smlora_double_quantization {
    smlora_tensor scales; /* fp32 [ceil(codes / block)] */
    smlora_tensor table;  /* fp32 [256] */
    smlora_tensor offset; /* fp32 [1] */
    int64_t block;        /* codes that share a scale, at least 1 */
} smlora_double_quantization;

/* A frozen weight [E, rows, columns], columns contiguous; nothing of it is ever written. C stands for columns, B for
 * block. All tensors are contiguous but for global_scales. Never grows. */
typedef struct smlora_weight {
    smlora_encoding encoding;         /* default plain */
    smlora_global_scale global_scale; /* nvfp4; default factor */
    int64_t E;                        /* experts */
    int64_t rows;                     /* of each expert's matrix */
    int64_t columns;                  /* values that a row has, contiguous */
    int64_t block; /* values along a row that share a scale. nf4, fp4: a power of two from 32 to 4096, counted along all
                      values in their order. mxfp4, mxfp8: 32; nvfp4: 16; int4: even; these divide C. fp8: any, also
                      along the rows. int8, plain: not looked at */
    int64_t parts; /* equal ranges of rows that were quantised apart, such as gate and up; divides rows; default 1 */
    smlora_tensor codes;  /* plain: [E, rows, C], any expert stride. nf4, fp4: uint8, ceil(E rows C / 2) in any shape.
                             int8: int8 [E, rows, C]. mxfp4: uint8 or int8, [E, rows, C / 2] or [E, rows, C / 32, 16].
                             fp8, mxfp8: e4m3 [E, rows, C]. nvfp4: uint8 [E, rows, C / 2]. int4: uint8 [E, rows, C / 2]
                             or int32 [E, rows, C / 8] */
    smlora_tensor scales; /* nf4, fp4: fp32, or uint8 with double_quantization, [ceil(E rows C / B)]. int8: fp32
                             [E, rows]. mxfp4, mxfp8: uint8 or e8m0 [E, rows, C / 32]; 255 is 2^128 as uint8 and NaN as
                             e8m0. fp8: fp32, bf16 or
                             e8m0 [E, parts ceil(rows / parts / B), ceil(C / B)]. nvfp4: e4m3 [E, rows, C / 16]. int4:
                             bf16, fp16 or fp32 [E, rows, C / B]. Or, of all but int8, arranged in four dimensions:
                             see smlora_arrange_scales */
    smlora_tensor table;  /* nf4, fp4: fp32 [16], the values of the codes */
    smlora_double_quantization double_quantization; /* nf4, fp4: optional */
    smlora_tensor global_scales;                    /* nvfp4: fp32 [E, parts], any strides, also 0 */
} smlora_weight;

/* SMLORA_INVALID_ARGUMENT with the field, its value and what was expected, or SMLORA_OK. */
SMLORA_API smlora_status smlora_validate_weight(const smlora_weight* weight);

/* What the problem of an operation that is given this weight has in `weights`. */
SMLORA_API smlora_status smlora_format_of(const smlora_weight* weight, smlora_weight_format* format);

/* The arguments of smlora_dequantize. */
typedef struct smlora_dequantize_args {
    size_t struct_size;
    smlora_weight W;   /* in, quantised */
    smlora_tensor out; /* out [E, rows, columns], contiguous, of bf16, fp16 or fp32 */
} smlora_dequantize_args;

SMLORA_API void smlora_dequantize_args_init(smlora_dequantize_args* args, size_t struct_size);
/* out = the values of the weight: the bits that the library which made it decodes them to. */
SMLORA_API smlora_status smlora_dequantize(smlora_engine* engine, smlora_stream stream,
                                           const smlora_dequantize_args* args);

/* The arguments of smlora_arrange_scales. */
typedef struct smlora_arrange_scales_args {
    size_t struct_size;
    smlora_weight W;   /* in: mxfp4, mxfp8 or nvfp4; nf4, fp4 or fp8 of a block that is a multiple of 64, which for nf4
                          and fp4 divides C; int4 of bf16 scales and a block of 32 or a multiple of 64. If nvfp4 or fp8
                          has more than one part, each has a multiple of 64 rows */
    smlora_tensor out; /* out [E, rows' / 64, C' / 64, S], contiguous, 16-byte aligned; rows' and C' are rows and C
                          rounded up to 256. mxfp4, mxfp8: S = 128, of the type of the scales. nvfp4: S = 264, bf16.
                          int4: S = 128 for a block of 32, else 64, bf16. nf4, fp4: S = 64, fp32. fp8: S = 4, fp32 */
} smlora_arrange_scales_args;

SMLORA_API void smlora_arrange_scales_args_init(smlora_arrange_scales_args* args, size_t struct_size);

/* Puts scales into the order in which products on Hopper take them. A weight that has them in the place of its scales
 * is decoded by bf16 products on tensor cores while they multiply it. Its other members stay as they are but for
 * double_quantization, which becomes all zero: such scales are decoded here. Done once, when a weight is loaded: it
 * waits for the stream.
 *
 * out[e, i, j] has the scales of rows 64 i to 64 i + 63 and columns 64 j to 64 j + 63, and 0 where there are none. For
 * mxfp4 and mxfp8, out[e, i, j, 2 r + b] is that of row 64 i + r and of its columns 64 j + 32 b on; for int4, nvfp4,
 * nf4 and fp4 it is out[e, i, j, 64 b + r], of columns 64 j + min(block, 64) b on; for fp8 it is out[e, i, j, 0].
 * Behind them, nvfp4 (at 256) and fp8 (at 1) have four bytes for the products, and zeros.
 *
 * SMLORA_INVALID_ARGUMENT, with `out` unspecified, if such products have no room for a scale or a code. mxfp4: a scale
 * above 128, a factor of 2. mxfp8: a scale above 134, a factor of 128, or a code that is NaN. fp8: a scale that is
 * neither 0 nor of a magnitude from 2^-80 to 2^8, or a code that is NaN. nvfp4: a scale that is NaN, or a global one
 * that is neither 0 as a factor nor of a magnitude from 2^-80 to 2^80, or one of 2 in 100,000 of those. */
SMLORA_API smlora_status smlora_arrange_scales(smlora_engine* engine, smlora_stream stream,
                                               const smlora_arrange_scales_args* args);

/* ---- prewarming: compiling everything that a training step needs before it runs; needs NVRTC, no GPU ------------- */

/* One kernel is done; called from one thread at a time. The pointer and its strings are valid during the call. */
typedef struct smlora_prewarm_progress {
    size_t struct_size;
    uint64_t done;          /* kernels, compiled or found */
    uint64_t total;         /* distinct kernels */
    uint64_t compiled;      /* of `done`; the rest was in the cache */
    const char* kernel;     /* readable name of the kernel just finished */
    double compile_seconds; /* 0 when it was in the cache */
    const char* compiling;  /* one of the kernels under way meanwhile; "" when none is left */
} smlora_prewarm_progress;

/* `user`: progress_user of the options. */
typedef void (*smlora_prewarm_callback)(const smlora_prewarm_progress* progress, void* user);

/* A gated activation between two projections, and its gradient. Never grows. */
typedef struct smlora_prewarm_activation {
    smlora_activation_kind activation; /* which function */
    smlora_gate_layout layout;         /* of h */
    int64_t width;      /* of the rows of a; those of h, which the first projection makes, are twice as wide */
    smlora_dtype dtype; /* of h and a */
    int32_t reserved;
} smlora_prewarm_activation;

/* What is to be compiled. */
typedef struct smlora_prewarm_options {
    size_t struct_size;
    const smlora_problem* problems; /* an array whose elements all have the same struct_size */
    size_t problem_count;           /* of `problems` */
    const int64_t* tokens;          /* numbers of tokens that the job will use; none: a few typical ones */
    size_t token_count;             /* of `tokens` */
    const char* const* archs;       /* "sm_90a", ..; none: the GPU's, else sm_90a */
    size_t arch_count;              /* of `archs` */
    int32_t jobs;                   /* kernels compiled at once; 0: the engine's threads */
    int32_t check_only;             /* not 0: compile nothing; the report says what the cache has */
    smlora_prewarm_callback progress;             /* may be null */
    void* progress_user;                          /* handed to `progress` */
    const smlora_prewarm_activation* activations; /* between the projections */
    size_t activation_count;                      /* of `activations` */
} smlora_prewarm_options;

SMLORA_API void smlora_prewarm_options_init(smlora_prewarm_options* options, size_t struct_size);

/* Compiles what is missing for forward, backward_input, backward_lora, combine, group and route of every problem,
 * and for the activations, into the engine's cache. SMLORA_COMPILE with the log of the first kernel that fails; what
 * was compiled stays. `report_json` (may be null) receives, to be freed with smlora_free_string:
 *   {"schema", "kernels", "compiled", "found", "seconds", "compile_seconds", "not_stored",
 *    "works", "recorded", "warnings": [..]} */
SMLORA_API smlora_status smlora_prewarm(smlora_engine* engine, const smlora_prewarm_options* options,
                                        char** report_json);

/* ---- tuning: measuring which kernels are the fastest, before the job that needs them; needs a GPU and NVRTC -------
 */

/* How the tokens that candidates are measured on choose their experts. */
typedef int32_t smlora_tune_skew;
enum {
    SMLORA_SKEW_UNIFORM = 0, /* every expert alike */
    SMLORA_SKEW_ZIPF = 1,    /* the n-th most popular expert with weight 1 / n, roughly as trained routers are */
    SMLORA_SKEW_ONE = 2      /* everything to one expert */
};

/* "uniform", ..; null for any other value. Static. */
SMLORA_API const char* smlora_tune_skew_name(smlora_tune_skew skew);

/* How far one piece of work is; called from one thread at a time. The pointer and its strings are valid during the
 * call. */
typedef struct smlora_tune_progress {
    size_t struct_size;
    int64_t tokens;      /* the number of tokens of the options that is measured */
    const char* work;    /* "forward", "xa", "dx", "yb", "gradients" and so on */
    const char* phase;   /* "compiling", "checking", "timing" */
    uint64_t done;       /* kernels, results or samples of this phase */
    uint64_t total;      /* how many `done` will be */
    const char* best;    /* the candidate that leads; "" before there is one */
    double best_seconds; /* its median; 0 before there is one */
} smlora_tune_progress;

/* 0: go on. Else tuning stops after this; what was measured is recorded. */
typedef int32_t (*smlora_tune_callback)(const smlora_tune_progress* progress, void* user);

/* What is to be measured, and for how long. */
typedef struct smlora_tune_options {
    size_t struct_size;
    const int64_t* tokens; /* each stands for all that round to the same power of two; none: 1024 to 65536 */
    size_t token_count;    /* of `tokens` */
    double seconds;        /* for one number of tokens, everything included; passed by one kernel's compile at most */
    uint64_t memory_bytes; /* of device memory for operands; 0: half of what is free */
    int32_t candidates;    /* that are tried for each piece of work. 0: 24, and what is tuned already stays as it is;
                              else those that its record lacks are measured as well */
    int32_t rounds;        /* samples of each candidate */
    smlora_tune_skew skew; /* how tokens choose their experts */
    int32_t again;         /* measure what is recorded, too, and replace it when that is done */
    smlora_tune_callback progress; /* may be null */
    void* progress_user;           /* handed to `progress` */
} smlora_tune_options;

/* 60 seconds, 9 rounds, and 0 for everything else. */
SMLORA_API void smlora_tune_options_init(smlora_tune_options* options, size_t struct_size);

/* Measures the candidates of forward, backward_input and backward_lora on the GPU of the calling thread's context, or
 * the engine's, and records the choices in the engine's cache, whatever the engine's policy. What is recorded already
 * is not measured again, and what was interrupted is resumed. Plans that this engine has made keep their kernels: tune
 * before the first call, or in another process. `options` may be null: the defaults. SMLORA_UNSUPPORTED with the CPU
 * backend. `report_json` (may be null) receives, to be freed with smlora_free_string:
 *   {"schema", "seconds", "stopped", "works": [{"tokens", "work", "outcome", "complete", "routing", "choice", "reason",
 *    "median_seconds", "seconds", "record"}]}
 * "outcome": "recorded", "tuned", "out of time", "out of memory", "tuned elsewhere" or "one candidate". */
SMLORA_API smlora_status smlora_tune(smlora_engine* engine, const smlora_problem* problem,
                                     const smlora_tune_options* options, char** report_json);

/* ---- the system and the cache, as JSON ---------------------------------------------------------------------------
 *
 * Each text is one object with a "schema" number, which changes when a member changes its meaning or goes; members may
 * be added without notice. Free with smlora_free_string.
 */

/* {"schema", "smlora_version", "driver": {"found", "version", "error"}, "nvrtc": {"found", "version", "library",
 *  "error"}, "archs": [..], "devices": [{"ordinal", "name", "arch", "multiprocessors", "memory_bytes", "l2_bytes",
 *  "shared_bytes_per_block"}]}. What is missing is said in the text, never by a failure. */
SMLORA_API smlora_status smlora_system_info(char** json);

/* Names `count` folders in which NVRTC (libnvrtc.so.13 or .12) is looked for: after those of the environment variables
 * LD_LIBRARY_PATH, CUDA_HOME and CUDA_PATH, before those of the system. Replaces what an earlier call named. For the
 * whole process; call it before anything is compiled, as an NVRTC that is open stays. Folders need not exist; a
 * relative path is SMLORA_INVALID_ARGUMENT. The strings are copied. */
SMLORA_API smlora_status smlora_set_nvrtc_folders(const char* const* folders, size_t count);

/* {"schema", "layers": [{"root", "writable", "exists"}]}, in the order in which they are consulted. */
SMLORA_API smlora_status smlora_cache_layers(smlora_engine* engine, char** json);
/* {"schema", "layers", "entries", "bytes", "limit_bytes", and of this engine: "memory_hits", "disk_hits", "compiles",
 *  "rejected"; "unreadable": [{"file", "what"}]}: what of the writable layer cannot be read and is not counted. */
SMLORA_API smlora_status smlora_cache_stats(smlora_engine* engine, char** json);
/* {"schema", "entries": [{"key", "file", "kernel", "arch", "compiler", "registers", "spill_bytes", "shared_bytes",
 *  "compile_seconds", "file_bytes"}]}: sound entries of all layers, newest first. SMLORA_IO for a folder that
 * cannot be read. */
SMLORA_API smlora_status smlora_cache_list(smlora_engine* engine, char** json);
/* One entry as in smlora_cache_list, with "schema" and "metadata" (the entry's own JSON) beside it. `key`: the whole
 * key or a prefix that is unique, else SMLORA_INVALID_ARGUMENT. */
SMLORA_API smlora_status smlora_cache_inspect(smlora_engine* engine, const char* key, char** json);
/* {"schema", "problems": [{"file", "what"}]}: the entries that are unsound, and what cannot be read. Removes nothing.
 */
SMLORA_API smlora_status smlora_cache_verify(smlora_engine* engine, char** json);
/* Removes the kernel entries of the writable layer. `removed` (may be null) receives how many. SMLORA_IO for
 * what cannot be read or removed; the rest is removed all the same. */
SMLORA_API smlora_status smlora_cache_clear(smlora_engine* engine, uint64_t* removed);
/* Adds what the engine found, compiled and evicted since the last time to the counts that `smlora-tune cache stats`
 * shows. smlora_engine_destroy does so, too: call it where a process ends without. */
SMLORA_API smlora_status smlora_cache_count_use(smlora_engine* engine);

#ifdef __cplusplus
}
#endif

#endif

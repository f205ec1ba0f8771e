"""smlora.h for ctypes: structs, functions and arrays."""

import ctypes
import json
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p, sizeof

lib = ctypes.CDLL(os.environ["SMLORA_LIBRARY"])

OK, INVALID_ARGUMENT, UNSUPPORTED = 0, 1, 2
FP32, INT32 = 2, 4
TOKEN, SCATTERED, GROUPED = 0, 1, 2
CPU = 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int32), ("ndim", c_int32), ("shape", c_int64 * 4),
                ("strides", c_int64 * 4)]


class Workspace(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_size_t)]


class Routing(ctypes.Structure):
    _fields_ = [(name, Tensor) for name in ("sorted_expert_idxs", "sorted_scattered_idxs", "expert_offsets")]


class Evolving(ctypes.Structure):
    """A struct that begins with struct_size and has an init function."""

    def __init__(self, **members):
        super().__init__()
        init = getattr(lib, self.init)
        init.argtypes, init.restype = [c_void_p, c_size_t], None
        init(byref(self), sizeof(self))
        for name, value in members.items():
            getattr(self, name)  # a misspelt member would be a new attribute
            setattr(self, name, value)


class WeightFormat(ctypes.Structure):
    _fields_ = [("encoding", c_int32), ("scales", c_int32), ("block", c_int64), ("parts", c_int64),
                ("outer_block", c_int64), ("global_scale", c_int32), ("reserved", c_int32)]


class Problem(Evolving):
    init = "smlora_problem_init"
    _fields_ = [("struct_size", c_size_t), *[(name, c_int64) for name in ("E", "K", "N", "R", "top_k")],
                *[(name, c_int32) for name in ("dtype", "adapter_dtype", "gate_dtype", "index_dtype", "weight_layout",
                                               "x_rows", "y_rows", "bias", "gates", "reserved")],
                ("weights", WeightFormat)]


LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class EngineOptions(Evolving):
    init = "smlora_engine_options_init"
    _fields_ = [("struct_size", c_size_t), ("backend", c_int32), ("device", c_int32), ("cache_root", c_char_p),
                ("cache_layers", POINTER(c_char_p)), ("cache_layer_count", c_size_t), ("cache_limit_bytes", c_uint64),
                ("threads", c_int32), ("tuning", c_int32), ("log", LogCallback), ("log_user", c_void_p),
                ("tuning_seconds", c_double), ("tuning_memory_bytes", c_uint64), ("shipped_layer", c_char_p),
                ("unpack_limit_bytes", c_uint64), ("determinism", c_int32), ("reserved", c_int32)]


def args_struct(operation, members, scaling, quantized=False):
    fields = [("struct_size", c_size_t)]
    for name in members.split():
        fields.append((name, Routing if name == "routing" else Tensor))
    fields.append(("workspace", Workspace))
    if scaling:
        fields += [("scaling", c_float), ("reserved", c_int32)]
    if quantized:
        fields.append(("quantized", c_void_p))
    return type(operation, (Evolving,), {"init": f"smlora_{operation}_args_init", "_fields_": fields})


RouteArgs = args_struct("route", "top_idx routing", scaling=False)
GroupArgs = args_struct("group", "x gates routing out", scaling=False)
CombineArgs = args_struct("combine", "y gates out", scaling=False)
ForwardArgs = args_struct("forward", "x W A B bias gates routing y xa", scaling=True, quantized=True)
BackwardInputArgs = args_struct("backward_input", "dy W A B gates routing dx yb dgates x bias", scaling=True,
                                quantized=True)
BackwardLoraArgs = args_struct("backward_lora", "x dy A B gates routing xa yb dA dB", scaling=True)


class PrewarmProgress(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("done", c_uint64), ("total", c_uint64), ("compiled", c_uint64),
                ("kernel", c_char_p), ("compile_seconds", c_double), ("compiling", c_char_p)]


PrewarmCallback = ctypes.CFUNCTYPE(None, POINTER(PrewarmProgress), c_void_p)


class PrewarmOptions(Evolving):
    init = "smlora_prewarm_options_init"
    _fields_ = [("struct_size", c_size_t), ("problems", POINTER(Problem)), ("problem_count", c_size_t),
                ("tokens", POINTER(c_int64)), ("token_count", c_size_t), ("archs", POINTER(c_char_p)),
                ("arch_count", c_size_t), ("jobs", c_int32), ("check_only", c_int32), ("progress", PrewarmCallback),
                ("progress_user", c_void_p), ("activations", c_void_p), ("activation_count", c_size_t)]


class TuneProgress(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("tokens", c_int64), ("work", c_char_p), ("phase", c_char_p),
                ("done", c_uint64), ("total", c_uint64), ("best", c_char_p), ("best_seconds", c_double)]


TuneCallback = ctypes.CFUNCTYPE(c_int32, POINTER(TuneProgress), c_void_p)


class TuneOptions(Evolving):
    init = "smlora_tune_options_init"
    _fields_ = [("struct_size", c_size_t), ("tokens", POINTER(c_int64)), ("token_count", c_size_t),
                ("seconds", c_double), ("memory_bytes", c_uint64), ("candidates", c_int32), ("rounds", c_int32),
                ("skew", c_int32), ("again", c_int32), ("progress", TuneCallback), ("progress_user", c_void_p)]


for function in ("smlora_last_error", "smlora_status_name", "smlora_version", "smlora_dtype_name"):
    getattr(lib, function).restype = c_char_p
lib.smlora_dtype_size.restype = c_size_t
lib.smlora_padded_rank.argtypes, lib.smlora_padded_rank.restype = [c_int64], c_int64
lib.smlora_free_string.argtypes, lib.smlora_free_string.restype = [c_void_p], None
lib.smlora_engine_destroy.argtypes, lib.smlora_engine_destroy.restype = [c_void_p], None
lib.smlora_buffer_destroy.argtypes, lib.smlora_buffer_destroy.restype = [c_void_p], None
lib.smlora_buffer_data.argtypes, lib.smlora_buffer_data.restype = [c_void_p], c_void_p
lib.smlora_buffer_copy_from_host.argtypes = [c_void_p, c_void_p, c_size_t, c_size_t]
lib.smlora_buffer_copy_to_host.argtypes = [c_void_p, c_void_p, c_size_t, c_size_t]


def last_error():
    return lib.smlora_last_error().decode()


def check(status):
    if status != OK:
        raise AssertionError(f"{lib.smlora_status_name(status).decode()}: {last_error()}")


def json_of(function, *arguments):
    text = c_char_p()
    check(function(*arguments, byref(text)))
    value = json.loads(text.value)
    lib.smlora_free_string(text)
    return value


class Array:
    """A row-major array of fp32 or int32 with a view of it, which does not keep it alive."""

    def __init__(self, shape, values=None, dtype=FP32):
        count = 1
        for extent in shape:
            count *= extent
        poison = [-777] * count
        self.values = ((c_float if dtype == FP32 else c_int32) * count)(*(poison if values is None else values))
        self.view = Tensor()
        check(lib.smlora_tensor_init(byref(self.view), self.values, dtype, len(shape), (c_int64 * len(shape))(*shape),
                                     None))

    def __getitem__(self, index):
        return self.values[index]


def random_array(generator, *shape):
    count = 1
    for extent in shape:
        count *= extent
    return Array(shape, [generator.uniform(-1, 1) for _ in range(count)])

// Engine, buffers and the small functions about types and problems.
#include "capi/convert.hpp"
#include "capi/handles.hpp"
#include "limits.hpp"
#include "tuning/random_routing.hpp"

#include <memory>

namespace {

using namespace smlora;
using namespace smlora::capi;

static_assert(static_cast<int>(TuneSkew::uniform) == static_cast<int>(tuning::Skew::uniform));
static_assert(static_cast<int>(TuneSkew::zipf) == static_cast<int>(tuning::Skew::zipf));
static_assert(static_cast<int>(TuneSkew::one) == static_cast<int>(tuning::Skew::one));

/// The name of an enumerator, which is a string literal, or null for a value that is none.
template <class Enum>
const char* name_or_null(std::int32_t value, Enum last) {
    if (value < 0 || value > static_cast<std::int32_t>(last)) return nullptr;
    return name(static_cast<Enum>(value)).data();
}

}  // namespace

extern "C" {

const char* smlora_version(void) { return SMLORA_VERSION; }

size_t smlora_dtype_size(smlora_dtype dtype) {
    return smlora_dtype_name(dtype) == nullptr ? 0 : size_of(static_cast<DType>(dtype));
}

const char* smlora_dtype_name(smlora_dtype dtype) { return name_or_null(dtype, DType::e8m0); }

smlora_status smlora_dtype_from_name(const char* text, smlora_dtype* dtype) {
    return guarded(
        [&] { required(dtype, "dtype") = static_cast<smlora_dtype>(dtype_from_name(&required(text, "text"))); });
}

const char* smlora_encoding_name(smlora_encoding encoding) { return name_or_null(encoding, Encoding::int4); }

smlora_status smlora_encoding_from_name(const char* text, smlora_encoding* encoding) {
    return guarded([&] {
        required(encoding, "encoding") = static_cast<smlora_encoding>(encoding_from_name(&required(text, "text")));
    });
}

const char* smlora_row_order_name(smlora_row_order order) { return name_or_null(order, RowOrder::grouped); }

const char* smlora_weight_layout_name(smlora_weight_layout layout) { return name_or_null(layout, WeightLayout::enk); }

const char* smlora_activation_name(smlora_activation_kind activation) {
    return name_or_null(activation, Activation::swiglu_clamped);
}

const char* smlora_gate_layout_name(smlora_gate_layout layout) { return name_or_null(layout, GateLayout::interleaved); }

const char* smlora_tune_skew_name(smlora_tune_skew skew) { return name_or_null(skew, tuning::Skew::one); }

smlora_status smlora_tensor_init(smlora_tensor* tensor, void* data, smlora_dtype dtype, int32_t ndim,
                                 const int64_t* shape, const int64_t* strides) {
    return guarded([&] {
        smlora_tensor view{data, dtype, ndim, {}, {}};
        if (ndim > 0 && ndim <= SMLORA_MAX_NDIM) {
            required(shape, "shape");
            std::int64_t stride = 1;
            for (auto i = static_cast<std::size_t>(ndim); i-- > 0;) {
                view.shape[i] = shape[i];
                view.strides[i] = strides == nullptr ? stride : strides[i];
                stride *= shape[i];
            }
        }
        static_cast<void>(to_tensor(view, {"", "tensor"}));  // the checks that the operations make
        required(tensor, "tensor") = view;
    });
}

smlora_status smlora_usual_format(smlora_encoding encoding, smlora_weight_format* format) {
    return guarded([&] { required(format, "format") = to_c(usual_format(static_cast<Encoding>(encoding))); });
}

smlora_status smlora_validate(const smlora_problem* problem) {
    return guarded([&] { validate(to_problem(problem)); });
}

smlora_status smlora_validate_weight(const smlora_weight* weight) {
    return guarded([&] { validate(to_weight(weight)); });
}

smlora_status smlora_format_of(const smlora_weight* weight, smlora_weight_format* format) {
    return guarded([&] { required(format, "format") = to_c(format_of(to_weight(weight))); });
}

int64_t smlora_padded_rank(int64_t R) {
    if (R < 0 || R > max_rank) return 0;
    Problem problem;
    problem.R = R;
    return padded_rank(problem);
}

smlora_status smlora_problem_to_string(const smlora_problem* problem, char** text) {
    return guarded([&] { required(text, "text") = new_string(to_string(to_problem(problem))); });
}

smlora_status smlora_engine_create(const smlora_engine_options* options, smlora_engine** engine) {
    return guarded([&] {
        required(engine, "engine");
        EngineOptions engine_options = options == nullptr ? EngineOptions{} : to_options(options);
        *engine = new smlora_engine{Engine(std::move(engine_options))};
    });
}

void smlora_engine_destroy(smlora_engine* engine) { delete engine; }

smlora_status smlora_engine_backend(smlora_engine* engine, smlora_backend* backend) {
    return guarded([&] { required(backend, "backend") = static_cast<smlora_backend>(to_engine(engine).backend()); });
}

smlora_status smlora_synchronize(smlora_engine* engine, smlora_stream stream) {
    return guarded([&] { synchronize(to_engine(engine), Stream{stream}); });
}

smlora_status smlora_buffer_create(smlora_engine* engine, size_t bytes, smlora_buffer** buffer) {
    return guarded([&] {
        required(buffer, "buffer");
        *buffer = new smlora_buffer{Buffer(to_engine(engine), bytes)};
    });
}

void smlora_buffer_destroy(smlora_buffer* buffer) { delete buffer; }

void* smlora_buffer_data(const smlora_buffer* buffer) { return buffer == nullptr ? nullptr : buffer->buffer.data(); }

size_t smlora_buffer_bytes(const smlora_buffer* buffer) { return buffer == nullptr ? 0 : buffer->buffer.bytes(); }

smlora_status smlora_buffer_copy_from_host(smlora_buffer* buffer, const void* source, size_t bytes, size_t offset) {
    return guarded([&] {
        if (bytes > 0 && source == nullptr) throw_null("source");
        required(buffer, "buffer").buffer.copy_from_host(source, bytes, offset);
    });
}

smlora_status smlora_buffer_copy_to_host(const smlora_buffer* buffer, void* target, size_t bytes, size_t offset) {
    return guarded([&] {
        if (bytes > 0 && target == nullptr) throw_null("target");
        required(buffer, "buffer").buffer.copy_to_host(target, bytes, offset);
    });
}

smlora_status smlora_buffer_fill(smlora_buffer* buffer, unsigned char value) {
    return guarded([&] { required(buffer, "buffer").buffer.fill(value); });
}

}  // extern "C"

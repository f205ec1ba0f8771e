#include "capi/convert.hpp"

#include "limits.hpp"

#include <fmt/format.h>

#include <concepts>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

namespace smlora::capi {
namespace {

std::string text_of(Name name) {
    return *name.object == '\0' ? name.member : fmt::format("{}.{}", name.object, name.member);
}

[[noreturn]] void wrong(const std::string& name, std::string_view expected, std::int64_t got) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected {}, got {}", name, expected, got));
}

[[noreturn]] void wrong(Name name, std::string_view expected, std::int64_t got) { wrong(text_of(name), expected, got); }

constexpr DType last_of(DType) { return DType::e8m0; }
constexpr Encoding last_of(Encoding) { return Encoding::int4; }
constexpr GlobalScale last_of(GlobalScale) { return GlobalScale::divisor; }
constexpr WeightLayout last_of(WeightLayout) { return WeightLayout::enk; }
constexpr RowOrder last_of(RowOrder) { return RowOrder::grouped; }
constexpr Activation last_of(Activation) { return Activation::swiglu_clamped; }
constexpr GateLayout last_of(GateLayout) { return GateLayout::interleaved; }
constexpr Backend last_of(Backend) { return Backend::cpu; }
constexpr TuneSkew last_of(TuneSkew) { return TuneSkew::one; }

static_assert(SMLORA_MAX_NDIM == Tensor::max_ndim);
static_assert(SMLORA_MAX_EXPERTS == max_experts);
static_assert(SMLORA_MAX_RANK == max_rank);
static_assert(SMLORA_MAX_TOP_K == max_top_k);

template <class Number>
requires std::is_arithmetic_v<Number> || std::is_pointer_v<Number>
void read(Number value, Number& result, Name) { result = value; }

void read(std::int32_t flag, bool& result, Name name) {
    if (flag != 0 && flag != 1) wrong(name, "0 or 1", flag);
    result = flag == 1;
}

template <class Enum>
requires std::is_enum_v<Enum>
void read(std::int32_t value, Enum& result, Name name) {
    constexpr auto last = static_cast<std::int32_t>(last_of(Enum{}));
    if (value < 0 || value > last) wrong(name, fmt::format("0 to {}", last), value);
    result = static_cast<Enum>(value);
}

/// 0 is the default.
template <class Number>
requires std::is_arithmetic_v<Number>
void read(Number value, std::optional<Number>& result, Name) {
    if (value != 0) result = value;
}

void read(const char* path, std::optional<std::filesystem::path>& result, Name) {
    if (path != nullptr) result = path;
}

void read(smlora_tuning tuning, std::optional<TuningPolicy>& result, Name name) {
    switch (tuning) {
        case SMLORA_TUNING_DEFAULT:
            return;
        case SMLORA_TUNING_FIRST_USE:
            result = TuningPolicy::first_use;
            return;
        case SMLORA_TUNING_OFF:
            result = TuningPolicy::off;
            return;
        case SMLORA_TUNING_RECORD_ONLY:
            result = TuningPolicy::record_only;
            return;
        default:
            wrong(name, "0 to 3", tuning);
    }
}

void read(smlora_determinism determinism, std::optional<Determinism>& result, Name name) {
    switch (determinism) {
        case SMLORA_DETERMINISM_DEFAULT:
            return;
        case SMLORA_DETERMINISM_RUN:
            result = Determinism::run;
            return;
        case SMLORA_DETERMINISM_BATCH:
            result = Determinism::batch;
            return;
        default:
            wrong(name, "0 to 2", determinism);
    }
}

void read(const smlora_tensor& tensor, Tensor& result, Name name) { result = to_tensor(tensor, name); }
void read(const smlora_tensor& tensor, Weight& result, Name name) { result = to_tensor(tensor, name); }

/// Every member but those that are converted by hand. Messages say `args` of a reserved member, and `object` of others.
template <class C>
typename Members<C>::Cpp read_members(const C& c, const char* object, const char* args);

template <class C>
requires requires { typename Members<C>::Cpp; }
void read(const C& c, typename Members<C>::Cpp& result, Name name) {
    result = read_members(c, name.member, name.member);
}

template <class C>
typename Members<C>::Cpp read_members(const C& c, const char* object, const char* args) {
    typename Members<C>::Cpp result;
    for_each_member<C>([&]<class M>(const M& member) {
        if constexpr (std::same_as<M, Reserved<C>>) {
            if (c.*member.c != 0) wrong(Name{args, "reserved"}, "0", c.*member.c);
        } else if constexpr (requires { member.cpp; }) {
            read(c.*member.c, result.*member.cpp, {object, member.name});
        }
    });
    return result;
}

template <class C>
void write_members(const typename Members<C>::Cpp& cpp, C& c);

/// Views and what is unset by default are all zero in C.
template <class CType, class CppType>
void write(const CppType& value, CType& result) {
    if constexpr (std::is_arithmetic_v<CppType> || std::is_enum_v<CppType>) {
        result = static_cast<CType>(value);
    } else if constexpr (requires { typename Members<CType>::Cpp; }) {
        write_members(value, result);
    }
}

template <class C>
void write_members(const typename Members<C>::Cpp& cpp, C& c) {
    for_each_member<C>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) write(cpp.*member.cpp, c.*member.c);
    });
}

}  // namespace

Tensor to_tensor(const smlora_tensor& tensor, Name name) {
    if (tensor.ndim < 0 || tensor.ndim > Tensor::max_ndim) {
        wrong(text_of(name) + ".ndim", fmt::format("0 to {}", Tensor::max_ndim), tensor.ndim);
    }
    if (tensor.dtype < 0 || tensor.dtype > static_cast<std::int32_t>(last_of(DType{}))) {
        wrong(text_of(name) + ".dtype", fmt::format("0 to {}", static_cast<std::int32_t>(last_of(DType{}))),
              tensor.dtype);
    }
    Tensor result;
    result.data = tensor.data;
    result.dtype = static_cast<DType>(tensor.dtype);
    result.ndim = tensor.ndim;
    for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.ndim); ++i) {
        if (tensor.shape[i] < 0) wrong(fmt::format("{}.shape[{}]", text_of(name), i), "0 or more", tensor.shape[i]);
        result.shape[i] = tensor.shape[i];
        result.strides[i] = tensor.strides[i];
    }
    return result;
}

Problem to_problem(const smlora_problem* problem, const char* name) {
    Problem result = read_members(read_struct(problem, name, offsetof(smlora_problem, weights)), name, name);
    // Nothing else of a plain format means anything, and a caller may have been compiled before there were others.
    if (result.weights.encoding == Encoding::plain) result.weights = {};
    return result;
}

Weight to_weight(const smlora_weight* weight) { return read_members(required(weight, "weight"), "weight", "weight"); }

/// Bytes of a struct of arguments in the first release, which a caller must have.
template <class C>
constexpr std::size_t first_size = sizeof(C);
template <class C>
requires requires(C c) { c.quantized; }
constexpr std::size_t first_size<C> = offsetof(C, quantized);
template <>
constexpr std::size_t first_size<smlora_activation_backward_args> = offsetof(smlora_activation_backward_args, gates);

template <class C>
typename Members<C>::Cpp to_args(const C* args) {
    const C c = read_struct(args, "args", first_size<C>);
    if constexpr (requires { args->quantized; }) {
        auto result = read_members(c, "", "args");
        if (c.quantized == nullptr) return result;
        if (result.W.codes.given()) {
            throw Error(ErrorCode::invalid_argument, "W: expected none, as args.quantized is given; got a tensor");
        }
        result.W = read_members(*c.quantized, "W", "W");
        return result;
    } else {
        return read_members(c, "", "args");
    }
}

template <class C>
C defaults() {
    C c{};
    write_members(typename Members<C>::Cpp{}, c);
    return c;
}

#define SMLORA_DEFAULTS(name) template smlora_##name defaults();
#define SMLORA_TO_ARGS(name) template Members<smlora_##name>::Cpp to_args(const smlora_##name* args);
SMLORA_FOR_EACH_INPUT(SMLORA_DEFAULTS)
SMLORA_FOR_EACH_ARGS(SMLORA_TO_ARGS)
#undef SMLORA_DEFAULTS
#undef SMLORA_TO_ARGS

smlora_log_level to_c(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return SMLORA_LOG_DEBUG;
        case LogLevel::info:
            return SMLORA_LOG_INFO;
        case LogLevel::notice:
            return SMLORA_LOG_NOTICE;
        case LogLevel::warning:
            break;
    }
    return SMLORA_LOG_WARNING;
}

smlora_weight_format to_c(const WeightFormat& format) {
    smlora_weight_format result{};
    write_members(format, result);
    return result;
}

EngineOptions to_options(const smlora_engine_options* options) {
    const smlora_engine_options o = read_struct(options, "options", offsetof(smlora_engine_options, shipped_layer));
    EngineOptions result = read_members(o, "options", "options");
    if (o.cache_layers != nullptr || o.cache_layer_count > 0) {
        result.cache_layers =
            to_strings<std::filesystem::path>(o.cache_layers, o.cache_layer_count, "options.cache_layers");
    }
    if (o.log != nullptr) {
        result.log = [log = o.log, user = o.log_user](LogLevel level, std::string_view line) {
            log(to_c(level), std::string(line).c_str(), user);
        };
    }
    return result;
}

PrewarmOptions to_options(const smlora_prewarm_options& options) {
    PrewarmOptions result = read_members(options, "options", "options");
    // The caller's elements may be longer than this library's struct: step by their own size.
    if (options.problem_count > 0) required(options.problems, "options.problems");
    const auto* element = reinterpret_cast<const char*>(options.problems);
    for (std::size_t i = 0; i < options.problem_count; ++i) {
        const auto* problem = reinterpret_cast<const smlora_problem*>(element);
        result.problems.push_back(to_problem(problem, fmt::format("options.problems[{}]", i).c_str()));
        element += options.problems->struct_size;
    }
    if (options.token_count > 0) {
        required(options.tokens, "options.tokens");
        result.tokens.assign(options.tokens, options.tokens + options.token_count);
    }
    result.archs = to_strings<std::string>(options.archs, options.arch_count, "options.archs");
    if (options.activation_count > 0) required(options.activations, "options.activations");
    for (std::size_t i = 0; i < options.activation_count; ++i) {
        const std::string name = fmt::format("options.activations[{}]", i);
        result.activations.push_back(read_members(options.activations[i], name.c_str(), name.c_str()));
    }
    return result;
}

TuneOptions to_options(const smlora_tune_options* options) {
    if (options == nullptr) return {};
    const smlora_tune_options o = read_struct(options, "options");
    TuneOptions result = read_members(o, "options", "options");
    if (o.token_count > 0) {
        required(o.tokens, "options.tokens");
        result.tokens.assign(o.tokens, o.tokens + o.token_count);
    }
    if (o.progress != nullptr) {
        result.progress = [callback = o.progress, user = o.progress_user](const TuneProgress& p) {
            const std::string work(p.work), phase(p.phase), best(p.best);
            smlora_tune_progress seen{};
            seen.struct_size = sizeof seen;
            seen.tokens = p.tokens;
            seen.work = work.c_str();
            seen.phase = phase.c_str();
            seen.done = p.done;
            seen.total = p.total;
            seen.best = best.c_str();
            seen.best_seconds = p.best_seconds;
            return callback(&seen, user) == 0;
        };
    }
    return result;
}

}  // namespace smlora::capi

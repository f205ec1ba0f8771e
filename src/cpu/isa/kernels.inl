// The source of kernels.hpp, included by one file for each instruction set, which defines SMLORA_ISA. Only what is
// always inlined or lies in this namespace may be used here: see convert.hpp.
#include "cpu/isa/kernels.hpp"

#include "cpu/convert.hpp"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <cstddef>

namespace smlora::cpu::SMLORA_ISA {
namespace {

#if defined(__AVX512F__)
constexpr std::int64_t vector_bytes = 64;
constexpr std::int64_t block_rows = 8;  // 16 of 32 registers hold sums, enough to hide the latency of an FMA
#elif defined(__AVX__)
constexpr std::int64_t vector_bytes = 32;
constexpr std::int64_t block_rows = 6;  // 12 of 16 registers hold sums
#else
constexpr std::int64_t vector_bytes = 16;
constexpr std::int64_t block_rows = 6;
#endif
constexpr std::int64_t block_vectors = 2;

template <class Acc>
constexpr std::int64_t block_columns = block_vectors* vector_bytes / static_cast<std::int64_t>(sizeof(Acc));

template <class Acc, class Element>
[[gnu::always_inline]] inline Acc load(Element element) {
    if constexpr (sizeof(Element) == sizeof(double)) {
        return static_cast<Acc>(element);
    } else {
        return static_cast<Acc>(to_float(element));
    }
}

/// `count` consecutive elements.
template <std::int64_t count, class Acc, class Element>
[[gnu::always_inline]] inline void load_run(const Element* from, Acc* to) {
    std::int64_t i = 0;
#if defined(__F16C__)
    // Not what the loop below is compiled to: it costs three times as much as the rest of a product.
    if constexpr (__is_same(Element, Fp16)) {
#pragma GCC unroll 4
        for (; i + 8 <= count; i += 8) {
            const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(eight));
        }
    }
#endif
    for (; i < count; ++i) to[i] = load<Acc>(from[i]);
}

[[gnu::always_inline]] inline std::int64_t at(const std::int64_t* index, std::int64_t i) {
    return index == nullptr ? i : index[i];
}

/// One panel of `width` outer indices, of which `outers` exist.
template <class Acc, class Element, std::int64_t width>
void pack_panel(const Factor<Acc>& factor, std::int64_t outer0, std::int64_t outers, std::int64_t k0,
                std::int64_t depth, Acc* packed) {
    const auto* data = static_cast<const Element*>(factor.data);
    const bool along_k = factor.k_stride == 1 && factor.k_index == nullptr && factor.k_scale == nullptr;
    const bool along_outer = factor.outer_stride == 1 && factor.outer_index == nullptr;
    if (along_k) {
        const Element* lines[static_cast<std::size_t>(width)];
        for (std::int64_t o = 0; o < outers; ++o) {
            lines[o] = data + at(factor.outer_index, outer0 + o) * factor.outer_stride + k0;
        }
        std::int64_t k = 0;
        if (outers == width) {
            // A square at a time is converted in vectors and transposed while it is in the first-level cache.
            constexpr std::int64_t step = 16;
            for (; k + step <= depth; k += step) {
                alignas(64) Acc square[static_cast<std::size_t>(width)][static_cast<std::size_t>(step)];
                for (std::int64_t o = 0; o < width; ++o) {
                    load_run<step>(lines[o] + k, square[o]);
                }
                for (std::int64_t i = 0; i < step; ++i) {
                    for (std::int64_t o = 0; o < width; ++o) packed[(k + i) * width + o] = square[o][i];
                }
            }
        }
        for (; k < depth; ++k) {
            for (std::int64_t o = 0; o < outers; ++o) packed[k * width + o] = load<Acc>(lines[o][k]);
            for (std::int64_t o = outers; o < width; ++o) packed[k * width + o] = 0;
        }
        return;
    }
    for (std::int64_t k = 0; k < depth; ++k) {
        Acc* out = packed + k * width;
        const Element* line = data + at(factor.k_index, k0 + k) * factor.k_stride;
        if (along_outer && outers == width) {
            load_run<width>(line + outer0, out);
        } else {
            for (std::int64_t o = 0; o < outers; ++o) {
                out[o] = load<Acc>(line[at(factor.outer_index, outer0 + o) * factor.outer_stride]);
            }
            for (std::int64_t o = outers; o < width; ++o) out[o] = 0;
        }
        if (factor.k_scale != nullptr) {
            const Acc scale = factor.k_scale[k0 + k];
            for (std::int64_t o = 0; o < outers; ++o) out[o] *= scale;
        }
    }
}

template <class Acc, class Element, std::int64_t width>
void pack_panels(const Factor<Acc>& factor, std::int64_t outer0, std::int64_t outers, std::int64_t k0,
                 std::int64_t depth, Acc* packed) {
    for (std::int64_t o = 0; o < outers; o += width, packed += depth * width) {
        const std::int64_t rest = outers - o;
        pack_panel<Acc, Element, width>(factor, outer0 + o, rest < width ? rest : width, k0, depth, packed);
    }
}

template <class Acc, std::int64_t width>
void pack(const Factor<Acc>& factor, std::int64_t outer0, std::int64_t outers, std::int64_t k0, std::int64_t depth,
          Acc* packed) {
    if constexpr (sizeof(Acc) == sizeof(double)) {
        if (factor.dtype == DType::fp64) {
            pack_panels<Acc, double, width>(factor, outer0, outers, k0, depth, packed);
        } else {
            pack_panels<Acc, float, width>(factor, outer0, outers, k0, depth, packed);
        }
    } else if (factor.dtype == DType::bf16) {
        pack_panels<Acc, Bf16, width>(factor, outer0, outers, k0, depth, packed);
    } else if (factor.dtype == DType::fp16) {
        pack_panels<Acc, Fp16, width>(factor, outer0, outers, k0, depth, packed);
    } else {
        pack_panels<Acc, float, width>(factor, outer0, outers, k0, depth, packed);
    }
}

template <class Acc>
void multiply(std::int64_t depth, const Acc* left, const Acc* right, Acc* c, std::int64_t c_stride) {
    typedef Acc Vector __attribute__((vector_size(vector_bytes)));
    constexpr std::int64_t lanes = vector_bytes / static_cast<std::int64_t>(sizeof(Acc));
    Vector sums[block_rows][block_vectors] = {};
    for (std::int64_t k = 0; k < depth; ++k) {
        const auto* q = reinterpret_cast<const Vector*>(right + k * block_columns<Acc>);
        const Acc* p = left + k * block_rows;
#pragma GCC unroll 8
        for (std::int64_t i = 0; i < block_rows; ++i) {
#pragma GCC unroll 2
            for (std::int64_t j = 0; j < block_vectors; ++j) sums[i][j] += p[i] * q[j];
        }
    }
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < block_rows; ++i) {
#pragma GCC unroll 2
        for (std::int64_t j = 0; j < block_vectors; ++j) {
            *reinterpret_cast<Vector*>(c + i * c_stride + j * lanes) += sums[i][j];
        }
    }
}

template <class Acc>
constexpr Kernels<Acc> make() {
    return {block_rows, block_columns<Acc>, pack<Acc, block_rows>, pack<Acc, block_columns<Acc>>, multiply<Acc>};
}

}  // namespace

KernelSet kernels() { return {make<float>(), make<double>()}; }

}  // namespace smlora::cpu::SMLORA_ISA

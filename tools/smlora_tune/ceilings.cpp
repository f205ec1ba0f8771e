#include "smlora_tune/ceilings.hpp"

#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"
#include "smlora_tune/operands.hpp"
#include "smlora_tune/statistics.hpp"

#include <smlora/operations.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace smlora::tool {
namespace {

// Large enough for every multiprocessor to work on full tiles most of the time; small enough to take milliseconds.
std::int64_t product_size(const Session& session, DType dtype) {
    if (!session.on_gpu()) return 512;
    return dtype == DType::fp32 ? 4096 : 8192;
}

double product_flop_per_second(Session& session, Timer& timer, DType dtype, std::int64_t size) {
    Problem problem;
    problem.E = 1;
    problem.K = size;
    problem.N = size;
    problem.dtype = problem.adapter_dtype = dtype;
    if (dtype == DType::fp64) problem.gate_dtype = dtype;
    OperandOptions options;
    options.T = size;
    const Operands operands(session.engine(), problem, options);
    route(session.engine(), session.stream(), problem, operands.route_args());
    const ForwardArgs args = operands.forward_args();
    const Timings timings =
        timer.measure([&](int) { scatter2scatter(session.engine(), session.stream(), problem, args); });
    return total_work(Op::base, problem, operands.load()).flop / median(timings.seconds);
}

double copy_bytes_per_second(Session& session, Timer& timer) {
    const std::size_t wanted = session.on_gpu() ? std::size_t{2} << 30U : std::size_t{128} << 20U;
    const std::size_t bytes = std::min(wanted, session.free_bytes() / 4) / 4096 * 4096;
    Buffer source(session.engine(), bytes);
    Buffer target(session.engine(), bytes);
    // Pages that were never written may all be one page of zeros.
    source.fill(0x5A);
    target.fill(0xA5);
    const Timings timings = timer.measure([&](int) {
        if (session.on_gpu()) {
            SMLORA_CUDA(cuMemcpyDtoDAsync, reinterpret_cast<CUdeviceptr>(target.data()),
                        reinterpret_cast<CUdeviceptr>(source.data()), bytes,
                        static_cast<CUstream>(session.stream().handle));
            return;
        }
        util::ThreadPool& threads = session.engine().impl().threads;
        const std::size_t piece = bytes / 64;
        threads.parallel_for(64, [&](std::int64_t i) {
            const std::size_t begin = static_cast<std::size_t>(i) * piece;
            std::memcpy(static_cast<char*>(target.data()) + begin, static_cast<const char*>(source.data()) + begin,
                        piece);
        });
    });
    return 2 * static_cast<double>(bytes) / median(timings.seconds);
}

}  // namespace

MeasuredCeilings measure_ceilings(Session& session, Timer& timer, DType dtype, double tflops, double gbs) {
    MeasuredCeilings result;
    if (tflops > 0) {
        result.value.flop_per_second = tflops * 1e12;
        result.flop_source = "given";
    } else {
        const std::int64_t size = product_size(session, dtype);
        result.value.flop_per_second = product_flop_per_second(session, timer, dtype, size);
        result.flop_source = fmt::format("smlora's own dense product, {}^3 {}", size, name(dtype));
    }
    if (gbs > 0) {
        result.value.bytes_per_second = gbs * 1e9;
        result.bytes_source = "given";
    } else {
        result.value.bytes_per_second = copy_bytes_per_second(session, timer);
        result.bytes_source = "copy on the device, read and written";
    }
    return result;
}

}  // namespace smlora::tool

// Streams, which do at once what is put on them, and the graphs that they record instead while they capture.
#pragma once

#include "cuda/device.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace smlora::emulator {

/// Something that is put on a stream.
using Work = std::function<CUresult(Device&)>;

/// What a capture recorded, in the order of the calls: one of those that its dependencies allow.
struct Recording {
    std::vector<Work> work;
    std::vector<void*> memory;  ///< allocated in the capture; lives as long as this
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    bool valid = true;

    Recording() = default;
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
};

}  // namespace smlora::emulator

struct CUstream_st {
    std::shared_ptr<smlora::emulator::Recording> recording;  ///< while it captures
    bool began_capture = false;                              ///< else it joined that of another stream
};

namespace smlora::emulator {

/// Does it, or records it if the stream captures. Launches that were put before are done, unless this is one that may
/// overlap with them.
CUresult put(CUstream stream, const Work& work);
CUresult put_launch(CUstream stream, const Work& work);

/// For calls that a capture does not allow, of any thread if its mode is global: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
/// after which the capture is invalid.
CUresult refuse_in_capture();

}  // namespace smlora::emulator

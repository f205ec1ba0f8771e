#include "cuda/stream.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace smlora::emulator {
namespace {

/// The captures that are under way; under the device's lock.
std::vector<Recording*>& captures() {
    static auto& all = *new std::vector<Recording*>;
    return all;
}

thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

}  // namespace

Recording::~Recording() {
    Device& device = Device::instance();
    const std::lock_guard lock(device.mutex);
    for (void* address : memory) device.machine.memory().free(address);
}

CUresult put(CUstream stream, const Work& work) {
    return put_launch(stream, [work](Device& device) {
        const CUresult result = device.finish();
        return result == CUDA_SUCCESS ? work(device) : result;
    });
}

CUresult put_launch(CUstream stream, const Work& work) {
    return with_busy_device([&](Device& device) {
        if (!device.runs) return CUDA_SUCCESS;
        if (stream == nullptr || stream->recording == nullptr) return work(device);
        if (!stream->recording->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->recording->work.push_back(work);
        return CUDA_SUCCESS;
    });
}

CUresult refuse_in_capture() {
    return with_device([](Device&) {
        if (capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
        CUresult result = CUDA_SUCCESS;
        for (Recording* recording : captures()) {
            // Captures in thread-local mode are not told apart by thread: nobody uses them.
            if (recording->mode != CU_STREAM_CAPTURE_MODE_GLOBAL) continue;
            recording->valid = false;
            result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
        return result;
    });
}

}  // namespace smlora::emulator

struct CUgraph_st {
    std::shared_ptr<smlora::emulator::Recording> recording;
};
struct CUgraphExec_st {
    std::shared_ptr<smlora::emulator::Recording> recording;
};
struct CUevent_st {
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<smlora::emulator::Recording> recording;  ///< of the stream that it was last recorded on
};

using namespace smlora::emulator;

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = new CUstream_st;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
    delete stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    return with_device([&](Device& device) {
        if (stream != nullptr && stream->recording != nullptr) {
            stream->recording->valid = false;
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
        return check_guards(device);
    });
}

CUresult cuCtxSynchronize() {
    return with_device([](Device& device) {
        const CUresult refusal = refuse_in_capture();
        return refusal == CUDA_SUCCESS ? check_guards(device) : refusal;
    });
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    std::swap(capture_mode, *mode);
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    return with_busy_device([&](Device&) {
        *status = stream == nullptr || stream->recording == nullptr ? CU_STREAM_CAPTURE_STATUS_NONE
                  : stream->recording->valid                        ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                                                    : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
        return CUDA_SUCCESS;
    });
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    return with_device([&](Device&) {
        if (stream == nullptr || stream->recording != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
        stream->recording = std::make_shared<Recording>();
        stream->recording->mode = mode;
        stream->began_capture = true;
        captures().push_back(stream->recording.get());
        return CUDA_SUCCESS;
    });
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    return with_device([&](Device&) {
        *graph = nullptr;
        if (stream == nullptr || stream->recording == nullptr || !stream->began_capture) {
            return CUDA_ERROR_ILLEGAL_STATE;
        }
        const std::shared_ptr<Recording> recording = std::exchange(stream->recording, nullptr);
        stream->began_capture = false;
        captures().erase(std::find(captures().begin(), captures().end(), recording.get()));
        if (!recording->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        *graph = new CUgraph_st{recording};
        return CUDA_SUCCESS;
    });
}

CUresult cuGraphInstantiate(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    *executable = new CUgraphExec_st{graph->recording};
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    return put(stream, [recording = executable->recording](Device& device) {
        for (const Work& work : recording->work) {
            const CUresult result = work(device);
            if (result != CUDA_SUCCESS) return result;
        }
        return CUDA_SUCCESS;
    });
}

CUresult cuGraphExecDestroy(CUgraphExec executable) {
    delete executable;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    delete graph;
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
    *event = new CUevent_st;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    delete event;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    return with_device([&](Device&) {
        event->recording = stream == nullptr ? nullptr : stream->recording;
        event->time = std::chrono::steady_clock::now();
        return CUDA_SUCCESS;
    });
}

CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent stop) {
    *milliseconds = std::chrono::duration<float, std::milli>(stop->time - start->time).count();
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    return with_device([&](Device&) {
        // Work on a stream that waits for a captured event is captured with it.
        if (event->recording != nullptr && stream != nullptr && stream->recording == nullptr) {
            stream->recording = event->recording;
        }
        return CUDA_SUCCESS;
    });
}

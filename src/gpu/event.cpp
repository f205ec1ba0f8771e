#include "gpu/event.hpp"

#include "gpu/driver.hpp"

namespace smlora::gpu {

Event::Event() { SMLORA_CUDA(cuEventCreate, &event_, CU_EVENT_DEFAULT); }

Event::~Event() {
    if (event_ != nullptr) {
        driver().cuEventDestroy(event_);
    }
}

void Event::record(CUstream stream) { SMLORA_CUDA(cuEventRecord, event_, stream); }

void Event::synchronize() const { SMLORA_CUDA(cuEventSynchronize, event_); }

float EventPair::milliseconds() const {
    stop_.synchronize();
    float milliseconds = 0;
    SMLORA_CUDA(cuEventElapsedTime, &milliseconds, start_.handle(), stop_.handle());
    return milliseconds;
}

}  // namespace smlora::gpu

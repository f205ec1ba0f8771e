// The inputs of a case, drawn afresh for each test.
#pragma once

#include "support/case.hpp"
#include "support/random.hpp"
#include "workload/projection.hpp"

namespace smlora::test {

class Projection : public workload::Projection {
 public:
    Projection(const Engine& on, const Case& c) : workload::Projection(on, c, fresh) {}
};

}  // namespace smlora::test

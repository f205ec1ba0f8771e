// Products of a warpgroup: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate".
#pragma once

#include "device/runtime.hpp"
#include "runtime/async_copy.hpp"
#include "runtime/warp.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace smlora::emulator {

/// An instruction, as all four warps of the warpgroup must issue it.
struct WgmmaShape {
    Format format;
    unsigned n;
    bool a_strided, b_strided;
    std::uint64_t a, b;

    friend bool operator==(const WgmmaShape&, const WgmmaShape&) = default;
};

/// The products of one warp, 16 rows of each instruction's 64, in the order in which they were issued. Accumulators in
/// flight are kept here; their registers are poisoned from the first instruction until a wait that covers the last.
class WgmmaQueue final : public AsyncWork {
 public:
    void begin(Machine& machine, Warp& warp);

    void fence();
    /// `d` are the accumulators of the 32 lanes.
    void issue(const WgmmaShape& shape, const std::array<float*, 32>& d, Where where);
    void commit();
    void wait(unsigned pending_groups);
    /// The warp has ended.
    void end();

    bool perform_one() override;

    /// All instructions issued so far.
    [[nodiscard]] const std::vector<WgmmaShape>& issued() const { return issued_; }

 private:
    struct Accumulators {
        std::array<float*, 32> registers;
        unsigned count;             ///< of each lane
        std::vector<float> values;  ///< [32][count]
        unsigned last_group;        ///< the newest that works on them
    };
    struct Item {
        WgmmaShape shape;
        Accumulators* accumulators;
        unsigned group;
        unsigned seen;  ///< Runtime::now when the last of the warp's lanes fenced
        Where where;
    };

    Accumulators& accumulators_of(const std::array<float*, 32>& d, unsigned count, Where where);
    void multiply(const Item& item);
    void read_operand(const Item& item, std::uint64_t descriptor, bool strided, unsigned first, unsigned count,
                      float* to) const;
    void check_seen(const Item& item, unsigned offset) const;

    Machine* machine_ = nullptr;
    Warp* warp_ = nullptr;
    std::vector<WgmmaShape> issued_;
    std::deque<Item> items_;
    std::deque<std::unique_ptr<Accumulators>> in_flight_;
    unsigned group_ = 0;   ///< the one that is being put together
    bool fenced_ = false;  ///< since registers were last given back
};

}  // namespace smlora::emulator
